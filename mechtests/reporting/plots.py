"""Plots of a verdict: the interval against its margin, a control's draws, curves, heads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mechtests.reporting import wording
from mechtests.reporting.curves import tokens
from mechtests.reporting.svg import (
    Scale,
    circles,
    drawing,
    known,
    line,
    numeral,
    polyline,
    rectangle,
    squares,
    words,
)
from mechtests.verdict import Control, Verdict

Json = Any
STRIP = (150.0, 18.0)
BINS = 28
SHADES = 8


def domain(verdicts: Sequence[Verdict], start: float, end: float) -> Scale:
    """One scale for the estimates, intervals and margins of some verdicts."""
    values: list[float | None] = []
    for verdict in verdicts:
        values += [verdict.estimate, *(verdict.interval or ()), *_margins(verdict)]
    return Scale.around(values, start, end)


def drawn(verdict: Verdict) -> bool:
    """Whether there is anything to draw: an estimate, or an interval with an end."""
    values = (verdict.estimate, *(verdict.interval or ()))
    return any(value is not None and math.isfinite(value) for value in values)


def _margins(verdict: Verdict) -> list[float]:
    if verdict.margin is None or not math.isfinite(verdict.margin):
        return []
    if verdict.relation == "within":
        return [-verdict.margin, verdict.margin]
    return [verdict.margin]


def _claimed(verdict: Verdict, scale: Scale, y: float, height: float) -> str:
    """The claimed side, shaded, and its margin."""
    margins = [scale(margin) for margin in _margins(verdict)]
    if not margins:
        return ""
    ends = {
        ">": (margins[0], scale.end),
        "<": (scale.start, margins[-1]),
        "within": (margins[0], margins[-1]),
    }.get(verdict.relation, (margins[0], margins[0]))
    edges = "".join(line(at, y, at, y + height, "mg") for at in margins)
    return rectangle(ends[0], y, ends[1] - ends[0], height, "cl") + edges


def _whisker(verdict: Verdict, scale: Scale, y: float) -> str:
    """The interval as a line and the estimate as a dot; an open end runs to the edge."""
    whisker = ""
    if verdict.interval is not None and not any(map(math.isnan, verdict.interval)):
        low, high = (scale(end) for end in verdict.interval)
        whisker = line(low, y, max(high, low + 1), y, "iv")
    known = verdict.estimate is not None and math.isfinite(verdict.estimate)
    dot = circles([(scale(verdict.estimate or 0.0), y)], 3.2, "es") if known else ""
    return whisker + dot


def strip(verdict: Verdict, scale: Scale | None = None) -> str:
    """The interval against its margin in a line of text; the text beside it says the numbers."""
    width, height = STRIP
    scale = scale or domain([verdict], 2, width - 2)
    return drawing(
        width,
        height,
        line(2, height / 2, width - 2, height / 2, "ax"),
        _claimed(verdict, scale, 1, height - 2),
        _whisker(verdict, scale, height / 2),
    )


def interval(verdict: Verdict) -> str:
    """The interval against its margin, with an axis."""
    width, height = 340.0, 62.0
    scale = domain([verdict], 10, width - 10)
    marks = "".join(
        line(scale(tick), 40, scale(tick), 44, "ax")
        + words(numeral(tick), scale(tick), 56, anchor="middle")
        for tick in scale.ticks()
    )
    said = ", ".join(filter(None, (wording.estimate(verdict), wording.margin(verdict))))
    return drawing(
        width,
        height,
        _claimed(verdict, scale, 8, 32),
        line(10, 40, width - 10, 40, "ax"),
        marks,
        _whisker(verdict, scale, 24),
        label=f"{said}; the claimed side is shaded",
    )


def draws(control: Control) -> str:
    """How a control's draws are spread, and the observed value where the record has it."""
    observed = getattr(control, "observed", None)
    values = [value for value in control.values if math.isfinite(value)]
    if len(values) < 2:
        return ""
    width, floor = 260.0, 40.0
    scale = Scale.around([*values, observed], 8, width - 8)
    counts = [0] * BINS
    for value in values:
        counts[min(int((scale(value) - 8) / (width - 16) * BINS), BINS - 1)] += 1
    wide, unit = (width - 16) / BINS, 32 / max(counts)
    bars = "".join(
        rectangle(8 + place * wide, floor - count * unit, wide - 1, count * unit, "hi")
        for place, count in enumerate(counts)
        if count
    )
    ends = "".join(
        words(numeral(value), scale(value), 53, anchor=anchor)
        for value, anchor in ((min(values), "start"), (max(values), "end"))
    )
    mark = "" if observed is None else line(scale(observed), 4, scale(observed), floor, "ob")
    against = "" if observed is None else f", against {numeral(observed)} observed"
    span = f"{numeral(min(values))} to {numeral(max(values))}"
    label = f"{len(values)} draws of {control.name}, {span}{against}"
    return drawing(width, 58, bars, line(8, floor, width - 8, floor, "ax"), mark, ends, label=label)


def _along(positions: Sequence[float | None], count: int, start: float, end: float) -> list[float]:
    """Where checkpoints stand: by the logarithm of tokens, step 0 before the first; else evenly."""
    there = [position for position in positions if position is not None]
    if len(there) < count or count < 2:
        gap = (end - start) / max(count - 1, 1)
        return [start + place * gap for place in range(count)]
    positive = [position for position in there if position > 0]
    if len(positive) < 2 or positive[0] == positive[-1]:
        scale = Scale.around(there, start, end, room=0)
        return [scale(position) for position in there]
    first = start + (26 if len(positive) < count else 0)
    logs = Scale(math.log(positive[0]), math.log(positive[-1]), first, end)
    return [logs(math.log(position)) if position > 0 else start for position in there]


def curve(entry: Mapping[str, Json], before: Sequence[float | None] = ()) -> str:
    """A curve over training, its level, its onset bracket and on which side each point is.

    Args:
        entry: Of a verdict's ``shown["curves"]`` (``showing.shown``).
        before: The same curve in a baseline, where it has the same checkpoints.
    """
    width, height, left, right, floor = 340.0, 156.0, 38.0, 330.0, 128.0
    means, before = known(entry["mean"]), known(before)
    level = entry.get("level") if "side" in entry else None
    at = _along(entry["tokens"], len(means), left + 4, right)
    scale = Scale.around([*means, *before, level], floor, 12.0)
    points = [None if m is None else (x, scale(m)) for x, m in zip(at, means, strict=True)]
    parts = [
        _bracket(entry, at, floor),
        "".join(
            line(left, scale(tick), right, scale(tick), "gr")
            + words(numeral(tick), left - 4, scale(tick) + 3, anchor="end")
            for tick in scale.ticks()
        ),
        "" if level is None else line(left, scale(level), right, scale(level), "lv"),
    ]
    if len(before) == len(means):
        old = [None if m is None else (x, scale(m)) for x, m in zip(at, before, strict=True)]
        parts.append(polyline(old, "bl"))
    parts += [polyline(points, "cu"), _sides(entry, points), _moments(entry, at, floor)]
    there = [mean for mean in means if mean is not None]
    span = f"from {numeral(there[0])} to {numeral(there[-1])}" if there else "unknown"
    onset = f"; {above(entry)}: {entry['onset']}" if level is not None else ""
    label = f"{entry['what']} over {len(means)} checkpoints, {span}{onset}"
    return drawing(width, height, *parts, label=label)


def above(entry: Mapping[str, Json]) -> str:
    """What the onset of a curve with a level is of: its own, or that of several together."""
    return "above all its levels" if entry.get("joint") else f"above {entry['level']:g}"


def _bracket(entry: Mapping[str, Json], at: Sequence[float], floor: float) -> str:
    """The checkpoints between which the onset lies, shaded; open to the end where it is."""
    low, high = (entry.get("bracket") or (None, None))[:2]
    places = dict(zip(entry["tokens"], at, strict=True))
    if low not in places:
        return ""
    end = places.get(high, at[-1])
    kind = "br" if high in places else "br open"
    return rectangle(places[low], 12, max(end - places[low], 2), floor - 12, kind)


def _sides(entry: Mapping[str, Json], points: Sequence[tuple[float, float] | None]) -> str:
    """A mark a checkpoint: filled above its level, hollow below it, grey where it is unclear."""
    sides = entry.get("side") or ["plain"] * len(points)
    kinds = {"above": "up", "below": "dn", "unclear": "un", "plain": "pt"}
    return "".join(
        circles([p for p, each in zip(points, sides, strict=True) if p and each == side], 2.6, kind)
        for side, kind in kinds.items()
    )


def _moments(entry: Mapping[str, Json], at: Sequence[float], floor: float) -> str:
    """The first and last checkpoint below the axis, and what it counts."""
    positions, axis = entry["tokens"], entry.get("axis", "tokens")
    said = [
        label if position is None else tokens(position)
        for label, position in zip(entry["labels"], positions, strict=True)
    ]
    marks = "".join(line(x, floor, x, floor + 3, "ax") for x in at) if len(at) <= 40 else ""
    ends = words(said[0], at[0], floor + 14, anchor="start" if at[0] < 60 else "middle")
    ends += words(said[-1], at[-1], floor + 14, anchor="end") if len(at) > 1 else ""
    middle = words(
        f"{axis}, logarithmic" if len(at) > 1 else axis, 184, floor + 26, anchor="middle"
    )
    return line(at[0], floor, at[-1], floor, "ax") + marks + ends + middle


def shade(value: float, low: float, high: float) -> int:
    """Which of the shades a value has, from 0 at the low end."""
    share = (value - low) / (high - low) if high > low else 1.0
    return min(max(int(share * SHADES), 0), SHADES - 1)


def shaded(
    values: Sequence[Sequence[float | None]],
    size: tuple[float, float],
    corner: tuple[float, float],
    ends: tuple[float, float],
) -> str:
    """A grid of values as squares in shades; those below zero in the other hue, unknown a hole.

    Args:
        values: Rows of values.
        size: Width and height of a square, in pixels.
        corner: Of the grid.
        ends: The size from which there is any shade, and that of the darkest.
    """
    places: dict[str, list[tuple[float, float]]] = {}
    for row, across in enumerate(values):
        for column, value in enumerate(known(across)):
            kind = "s-" if value is None else _kind(value, ends)
            if kind:
                spot = (corner[0] + column * size[0], corner[1] + row * size[1])
                places.setdefault(kind, []).append(spot)
    gap = 1.0 if size[0] >= 6 else 0.0
    return "".join(
        squares(spots, size[0] - gap, size[1] - gap, f"s {kind}")
        for kind, spots in sorted(places.items())
    )


def _kind(value: float, ends: tuple[float, float]) -> str:
    if abs(value) < ends[0]:
        return ""
    hue = "n" if value < 0 else "s"
    return f"{hue}{shade(abs(value), *ends)}"


def head_strips(entry: Mapping[str, Json], rows: Sequence[Mapping[str, Json]]) -> str:
    """The heads of a role over training: a row a head, a square a checkpoint, a shade a score.

    Args:
        entry: Of a verdict's ``shown["heads"]`` (``showing.heads_shown``).
        rows: Those of its ``heads`` that are drawn, in their order.
    """
    count = max(len(entry["labels"]), 1)
    wide = min(18.0, max(270.0 / count, 1.5))
    left, tall, top = 44.0, 15.0, 4.0
    there = [mean for row in rows for mean in known(row["mean"]) if mean is not None]
    ends = (entry["level"], max(there, default=1.0))
    floor = top + tall * len(rows)
    names = "".join(
        words(row["head"], left - 6, top + tall * place + 11, anchor="end")
        for place, row in enumerate(rows)
    )
    frame = "".join(
        rectangle(left, top + tall * place, wide * count, tall - 1, "bg")
        for place in range(len(rows))
    )
    right = left + wide * count
    lost = "".join(
        line(x, top + tall * place, x, top + tall * place + tall - 1, "lost")
        for place, row in enumerate(rows)
        if row.get("lost") in entry["labels"]
        for x in [left + wide * entry["labels"].index(row["lost"])]
    )
    at = entry["tokens"]
    first, last = (tokens(at[0]), tokens(at[-1])) if at and None not in at else ("first", "last")
    below = words(first, left, floor + 12) + words(
        f"{last} {entry['axis']}", right, floor + 12, anchor="end"
    )
    grid = shaded([row["mean"] for row in rows], (wide, tall), (left, top), ends)
    peaks = ", ".join(f"{row['head']} peaks at {row['peak']}" for row in rows if row.get("peak"))
    return drawing(
        max(right + 8, 160), floor + 18, frame, grid, lost, names, below,
        label=f"{entry['what']} of {len(rows)} heads over {count} checkpoints: {peaks}",
    )  # fmt: skip
