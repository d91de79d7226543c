"""What a verdict shows of a curve, as plain JSON: reports draw it from the record alone."""

from __future__ import annotations

from typing import Any

from mechtests.onsets import Onset
from mechtests.series import Curve

Json = Any


def shown(
    curve: Curve,
    what: str,
    *,
    level: float | None = None,
    onset: Onset | None = None,
    joint: bool = False,
) -> Json:
    """An entry of a verdict's ``shown["curves"]``.

    Args:
        curve: The curve.
        what: What it is of.
        level: What its onset is held against.
        onset: The onset that the curve, alone or with others, has.
        joint: Whether it is of several curves together.

    Returns:
        ``what``, ``unit``, ``labels``, ``tokens`` (or steps, as ``axis`` says), ``mean``, and
        with an onset ``level``, ``side`` of each checkpoint and ``onset`` in words, and the ends
        of its bracket, null where open.
    """
    tree: dict[str, Json] = {
        "what": what,
        "unit": curve.unit,
        "axis": curve.axis,
        "labels": list(curve.labels),
        "tokens": curve.positions.tolist(),
        "mean": curve.means.tolist(),
    }
    if onset is not None:
        pairs = zip(onset.above <= onset.error, onset.below <= onset.error, strict=True)
        tree |= {
            "level": level,
            "joint": joint,
            "side": ["above" if up else "below" if down else "unclear" for up, down in pairs],
            "onset": onset.spoken if onset.by or onset.after else str(onset.state),
            "bracket": [onset.low, onset.high if onset.by else None],
        }
    return tree
