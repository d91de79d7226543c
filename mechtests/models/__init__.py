"""A name becomes a cell, a cell becomes a network."""
