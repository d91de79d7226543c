"""The embedded family: a small language, its corpus and tokenizer, and the trained models."""
