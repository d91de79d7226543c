"""What a curve does over training: it rises, stays as it is, or falls (claims.md, Training series).

The interval is over prompts: a verdict is about this run, which is one sample of training runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mechtests import means
from mechtests.bands import RESAMPLES, band, standing
from mechtests.margins import INSIDE_LEVEL, TAIL, spoken
from mechtests.means import Mean, mean_of
from mechtests.measurement import Sample
from mechtests.series import Curve, Floats
from mechtests.verdict import Outcome, Verdict, not_applicable

FEWEST_MOMENTS = 6
FEWEST_IN_A_THIRD = 2
TOUCHES = 0.01
"""A checkpoint with a smaller part than this of the largest does not count as in a third."""
Axis = Literal["log", "linear"]


def rises(curve: Curve, more_than: float, *, what: str, axis: Axis = "log") -> Verdict:
    """Whether a curve rises by more than c over its window: its trend is above c.

    The trend is the mean of the last third of the window minus that of the first, prompt by
    prompt. The window is measured in log tokens, and a checkpoint weighs as much of it as is
    nearest to it: equally spaced checkpoints weigh the same, others are evened out.

    Args:
        curve: The curve over the window, of 6 checkpoints or more.
        more_than: c.
        what: What rises.
        axis: ``"linear"`` to measure the window in tokens.
    """
    found = _trend(curve, what, axis)
    if isinstance(found, Verdict):
        return found
    return means.above(found.change, more_than, what=found.what)


def steady(curve: Curve, within: float, *, what: str, axis: Axis = "log") -> Verdict:
    """Whether the trend of a curve (see ``rises``) is equivalent to 0 within a margin."""
    found = _trend(curve, what, axis)
    if isinstance(found, Verdict):
        return found
    return means.equivalent(found.change, within, what=found.what)


@dataclass(frozen=True)
class _Trend:
    change: Sample | Mean
    what: str


def _trend(curve: Curve, what: str, axis: Axis) -> _Trend | Verdict:
    """Last third minus first third, or the verdict where there are too few checkpoints."""
    places = curve.positions
    inside = places > 0 if axis == "log" else places >= 0
    over = f"{'log ' if axis == 'log' else ''}{curve.axis}"
    if inside.sum() < FEWEST_MOMENTS:
        return not_applicable(
            f"{what}: a trend over {over} needs {FEWEST_MOMENTS} checkpoints, got {inside.sum()}"
        )
    first, last = np.zeros((2, len(curve)))
    first[inside], last[inside] = _thirds(np.log2(places[inside]) if axis == "log" else places)
    counts = [int((third > TOUCHES * third.max()).sum()) for third in (first, last)]
    if min(counts) < FEWEST_IN_A_THIRD:
        return not_applicable(
            f"{what}: a trend needs {FEWEST_IN_A_THIRD} checkpoints in the first and in the last "
            f"third of the window in {over}, got {counts[0]} and {counts[1]}; choose others"
        )
    return _Trend(
        curve.weighted(last - first),
        f"trend of {what} over {over} (last third, {counts[1]} checkpoints, minus first third, "
        f"{counts[0]})",
    )


def _thirds(places: Floats) -> tuple[Floats, Floats]:
    """The weight of each place in the first and in the last third of what the places cover.

    Each place covers what is nearest to it, and at the ends as far out as in.
    """
    middles = (places[1:] + places[:-1]) / 2
    edges = np.r_[2 * places[0] - middles[0], middles, 2 * places[-1] - middles[-1]]
    third = (edges[-1] - edges[0]) / 3
    parts = []
    for low, high in ((edges[0], edges[0] + third), (edges[-1] - third, edges[-1])):
        covered = np.maximum(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0.0)
        parts.append(covered / covered.sum())
    return parts[0], parts[1]


def equivalent_throughout(
    curve: Curve,
    margin: float,
    *,
    of: Literal["median", "mean"],
    what: str,
    generator: np.random.Generator,
    share: bool = False,
    located_on: Curve | None = None,
    resamples: int = RESAMPLES,
) -> Verdict:
    """Whether every checkpoint of a window is equivalent to the window's middle, all at once.

    It holds when the simultaneous 90% band of the differences from the middle lies inside the
    margin, and is refuted when the 95% band lies outside of it at some checkpoint. A share of
    the middle is decided on contrasts, as in ``means.similar``.

    Args:
        curve: The curve over the window.
        margin: How far is still the same, in the curve's unit, or as a share of the middle.
        of: The middle: the checkpoint with the median value, or the mean over checkpoints.
        what: What stays the same.
        generator: The source of the bands' draws.
        share: Whether the margin is a share of the middle.
        located_on: The curve of the selection half, on which the median is looked for.
        resamples: How many times the clusters are drawn.
    """
    middle = _middle(located_on or curve, of)
    centre = curve.weighted(middle)
    if share:
        guard = means.above(centre, 0.0, what=f"{what}: denominator: the window's {of}")
        if guard.outcome is not Outcome.HOLDS:
            return replace(guard, outcome=Outcome.INCONCLUSIVE, p=None, p_refuted=None)
    away = np.eye(len(curve)) - middle
    others = np.flatnonzero(np.abs(away).max(axis=1) > 0).tolist()  # but the median itself
    room = margin * middle if share else 0.0 * middle
    found = [
        standing(
            curve.mixed(room + sign * away).take(others),
            0.0 if share else -margin,
            generator,
            resamples=resamples,
        )
        for sign in (-1.0, 1.0)
    ]
    differences = curve.mixed(away).take(others)
    furthest = int(np.argmax(np.abs(differences.means)))
    ends = band(differences, generator, resamples=resamples)
    interval = ends.at(furthest)
    width = margin * mean_of(centre).mean if share else margin
    p = max(float(each.above.max()) for each in found) / 2
    p_refuted = min(float(each.below.min()) for each in found) / 2
    outcome = _outcome(curve, p, p_refuted, (1 - INSIDE_LEVEL) / 2)
    values = spoken(float(differences.means[furthest]), interval, width, -width)
    limit = f"{margin:.0%}" if share else f"{margin:g}"
    sentence = (
        f"{what} at {len(curve)} checkpoints: furthest from their {of}, "
        f"{mean_of(centre).mean:.3g}, at {differences.labels[furthest]} by {values} (95% band), "
        f"claimed within {limit} at all"
    )
    return Verdict(
        outcome,
        sentence + _open(outcome, curve),
        estimate=float(differences.means[furthest]),
        interval=None if interval is None else interval.ends,
        margin=width,
        relation="within",
        unit=curve.unit,
        prompts=mean_of(centre).prompts,
        clusters=mean_of(centre).clusters,
        p=None if curve.undecidable else p,
        p_refuted=None if curve.undecidable else p_refuted,
    )


def _middle(curve: Curve, of: Literal["median", "mean"]) -> Floats:
    """The weights of a window's middle; with an even number, the two median checkpoints."""
    weights = np.zeros(len(curve))
    ranked = np.argsort(curve.means, kind="stable")
    chosen = ranked[(len(ranked) - 1) // 2 : len(ranked) // 2 + 1] if of == "median" else ranked
    weights[chosen] = 1 / len(chosen)
    return weights


def _outcome(curve: Curve, p: float, p_refuted: float, tail: float) -> Outcome:
    if curve.undecidable:
        return Outcome.INCONCLUSIVE
    if p <= tail:
        return Outcome.HOLDS
    return Outcome.REFUTED if p_refuted <= TAIL else Outcome.INCONCLUSIVE


def _open(outcome: Outcome, curve: Curve) -> str:
    if outcome is not Outcome.INCONCLUSIVE:
        return ""
    return f"; {curve.undecidable or 'more prompts would decide'}"
