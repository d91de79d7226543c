"""Arithmetic by a bag of heuristics: what Nikankin et al. (2025) measure, and the controls."""
