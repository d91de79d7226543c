"""What is kept of a run and shown of it: records are the truth, the rest is rendered from them."""
