"""A pytest-style regression test harness for the mechanisms of language models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mechtests.claim import claim

if TYPE_CHECKING:
    from mechtests.direct import judge
    from mechtests.explaining import explain
    from mechtests.opening import open_ as open  # noqa: A004  (mechtests.open, as gzip.open)

__all__ = ["__version__", "claim", "explain", "judge", "open"]
__version__ = "0.1.0"

_LAZY = {
    "judge": ("mechtests.direct", "judge"),
    "open": ("mechtests.opening", "open_"),
    "explain": ("mechtests.explaining", "explain"),
}
"""Names that load more than declaring a claim does, and where they are."""


def __getattr__(name: str) -> Any:
    """A public name on its first use."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module, attribute = _LAZY[name]
    return getattr(importlib.import_module(module), attribute)
