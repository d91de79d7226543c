"""From two names to a comparison, and from it to what is printed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mechtests.reporting import differences, sides
from mechtests.reporting.compare import Comparison, compare
from mechtests.reporting.page import encodes


def between(a: str, b: str, folder: Path) -> Comparison:
    """What two names stand for, compared.

    Args:
        a: Side A, as ``sides`` says.
        b: Side B.
        folder: Where runs are kept.

    Raises:
        UsageError: A name stands for nothing.
        LoadError: A file cannot be read.
    """
    return compare(sides.find(a, folder), sides.find(b, folder))


def as_json(found: Comparison) -> str:
    """The comparison as JSON."""
    return json.dumps(found.to_json(), indent=1, allow_nan=False)


def as_text(found: Comparison, *, whole: bool = False) -> str:
    """The comparison for this terminal, or in plain text where it is read by a program."""
    from rich.console import Console

    console = Console()
    return differences.render(
        found,
        width=min(console.width, 140),
        color=console.is_terminal and not console.no_color,
        ascii=not encodes(sys.stdout, "│─┼≥×→"),
        whole=whole,
    ).removesuffix("\n")
