"""Metrics: one file a family, a function from a batch to named arrays."""
