"""A curve over training in two lines of text: its height, and where it is above its level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Json = Any
BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN = "_.-=+*#@"
SIDES = {"above": "+", "below": ".", "unclear": "?"}


def tokens(count: float) -> str:
    """A number of tokens as people write it: ``2.1M``, ``300B``, ``0``."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:g}"


def strip(values: Sequence[float | None], *, ascii: bool) -> str:
    """One character a checkpoint, from the lowest value to the highest; blank where unknown."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    signs = PLAIN if ascii else BLOCKS
    low, span = min(known), max(known) - min(known)
    return "".join(
        " " if value is None else signs[int((value - low) / span * 7.999) if span else 0]
        for value in values
    )


def lines(curve: Mapping[str, Json], *, ascii: bool) -> list[str]:
    """What a curve of a verdict's ``shown["curves"]`` says.

    Args:
        curve: ``what``, ``tokens``, ``mean`` and, where there is a level, ``level`` and
            ``side`` of each checkpoint (``above``, ``below`` or ``unclear``) and ``onset``,
            a sentence; ``joint`` where the sides are of several curves together, which are
            then said with one of them.
        ascii: Whether to do with ASCII.
    """
    means, at = curve["mean"], curve["tokens"]
    known = [mean for mean in means if mean is not None]
    ends = f"{min(known):.3g} to {max(known):.3g}" if known else "unknown"
    axis = curve.get("axis", "tokens")
    span = f", {tokens(at[0])} to {tokens(at[-1])} {axis}" if at and None not in at else ""
    said = [
        f"{strip(means, ascii=ascii)}  {curve['what']}: {ends} over {len(means)} checkpoints{span}"
    ]
    if "side" in curve:
        sides = "".join(SIDES[side] for side in curve["side"])
        above = "above all its levels" if curve.get("joint") else f"above {curve['level']:g}"
        said.append(f"{sides}  {above}: {curve['onset']}")
    return said
