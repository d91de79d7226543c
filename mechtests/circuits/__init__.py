"""Circuits: edges of the computation, which of them a behaviour needs, and how they change."""
