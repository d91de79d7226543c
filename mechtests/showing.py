"""What a verdict shows of a curve or of heads, as plain JSON: reports draw it from the record."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mechtests.errors import NotApplicable
from mechtests.measurement import Half, Head, Measurement, named
from mechtests.onsets import Onset
from mechtests.series import Curve

if TYPE_CHECKING:
    from mechtests.checkpoints import Series

Json = Any
LOST = 0.5
"""Below this share of its peak a head has lost what it did (claims.md, ``heads-turn-over``)."""


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


def heads_shown(
    what: str,
    series: Series,
    value: str,
    heads: Sequence[Head],
    level: float,
    half: Half = "evaluation",
    takeovers: Sequence[tuple[Head, Head, str]] = (),
    events: Mapping[Head, Mapping[str, str | None]] | None = None,
) -> Json:
    """An entry of a verdict's ``shown["heads"]``: a role's score, head by checkpoint.

    Args:
        what: The score and the role: ``"copy score (name movers)"``.
        series: The measurement at every checkpoint; what is not recorded is null.
        value: The array ``[prompt, layer, head]``; recorded, ``[layer, head]``.
        heads: Which heads, each once.
        level: From where on a head has the role.
        half: Whose means; recorded ones have no halves.
        takeovers: A head that loses the role, the one that takes it over, and where (a label).
        events: ``peak``, ``gained`` and ``lost`` of a head as a rule found them, as labels. By
            default those of the shown means: the highest, the first at the level or above, and
            the first after the peak from which on all are below half of it.

    Returns:
        ``what``, ``unit``, ``axis`` (``tokens``, or ``steps`` where those are not known),
        ``labels``, ``tokens``, ``level``, ``heads`` (``head``, ``mean`` of each checkpoint,
        ``peak``, ``gained``, ``lost``) and ``takeovers`` (``from``, ``to``, ``at``).
    """
    at = Curve.recorded(series.moments, [0.0] * len(series))  # checks the order, knows the axis
    rows = []
    for head in heads:
        means = [_mean(each, value, half, head) for each in series]
        found = _events(at.labels, means, level) | dict((events or {}).get(head, {}))
        rows.append({"head": named([head]), "mean": means, **found})
    return {
        "what": what,
        "unit": next((each.units[value] for each in series if value in each.units), ""),
        "axis": at.axis,
        "labels": list(at.labels),
        "tokens": at.positions.tolist(),
        "level": level,
        "heads": rows,
        "takeovers": [
            {"from": named([loser]), "to": named([winner]), "at": label}
            for loser, winner, label in takeovers
        ],
    }


def _mean(measurement: Measurement, value: str, half: Half, head: Head) -> float | None:
    """A head's mean at a checkpoint; None where it was not recorded."""
    if not measurement.recorded:
        return float(measurement.mean(value, half)[head])
    try:
        mean = measurement.estimate(value, *head).mean
    except NotApplicable:
        return None
    return mean if math.isfinite(mean) else None


def _events(
    labels: Sequence[str], means: Sequence[float | None], level: float
) -> dict[str, str | None]:
    """Where a head's score is highest, first reaches the level, and is lost for good."""
    known = [(place, mean) for place, mean in enumerate(means) if mean is not None]
    if not known:
        return {"peak": None, "gained": None, "lost": None}
    peak, highest = max(known, key=lambda pair: (pair[1], -pair[0]))
    gained = next((place for place, mean in known if mean >= level), None)
    lost = None
    for place, mean in reversed(known):
        if gained is None or place <= peak or mean >= LOST * highest:
            break
        lost = place
    return {
        "peak": labels[peak],
        "gained": None if gained is None else labels[gained],
        "lost": None if lost is None else labels[lost],
    }
