"""A pytest-style regression test harness for the mechanisms of language models."""

from __future__ import annotations

from mechtests.claim import claim

__all__ = ["__version__", "claim"]
__version__ = "0.1.0"
