"""A curve around its onset: how far it falls afterwards, and how low it was before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mechtests import means
from mechtests.margins import TAIL, spoken
from mechtests.means import mean_of
from mechtests.measurement import Sample
from mechtests.onsets import Onset, State, before, since
from mechtests.series import Curve, Floats
from mechtests.statistics import fieller
from mechtests.verdict import Outcome, Verdict, not_applicable

FEWEST_AFTER_ONSET = 4
LARGEST_FALL = 0.30


def drop_after_peak(
    selection: Curve,
    evaluation: Curve,
    onset: Onset,
    *,
    share: float = LARGEST_FALL,
    what: str,
) -> Verdict:
    """Whether a curve, from its onset on, falls by less than a share of its peak.

    Peak and later trough are those of the largest fall of the 3-checkpoint running median of
    the selection half; a running median is the value of the middle one of three checkpoints,
    and it is that checkpoint which decides on the evaluation half: drop - share x peak < 0,
    prompt by prompt, after the peak itself is above 0. The largest fall of the evaluation
    half's own curve is biased upwards, so it is only shown.

    Recorded means have no halves: the same curve is then given twice, and a refutation is
    corrected for the pairs among which the largest fall was looked for.

    Args:
        selection: The curve on the selection half.
        evaluation: The curve on the evaluation half, at the same checkpoints.
        onset: When the task is learned.
        share: The largest part of the peak that may be lost.
        what: What does not fall.
    """
    if onset.state is State.NEVER:
        return not_applicable(f"{what}: {onset.sentence}")
    chosen, judged = since(selection, onset), since(evaluation, onset)
    if chosen is None or judged is None:
        return Verdict(Outcome.INCONCLUSIVE, f"{what}: {onset.sentence}; {onset.what_decides}")
    if len(chosen) < FEWEST_AFTER_ONSET:
        return Verdict(
            Outcome.INCONCLUSIVE,
            f"{what}: a fall needs {FEWEST_AFTER_ONSET} checkpoints from the onset on, got "
            f"{len(chosen)}; later checkpoints would decide",
        )
    peak, trough, pairs = _largest_fall(chosen.means)
    same = selection is evaluation or evaluation.is_recorded
    verdict = _fall(judged, peak, trough, share, what, pairs if same else 1)
    top, bottom, _ = _largest_fall(judged.means, raw=True)
    naive = 1 - judged.means[bottom] / judged.means[top] if judged.means[top] > 0 else np.nan
    return verdict.showing(
        **{
            "peak": judged.labels[peak],
            "trough": judged.labels[trough],
            "largest fall of the curve itself, biased": float(naive),
        }
    )


def _fall(curve: Curve, peak: int, trough: int, share: float, what: str, searched: int) -> Verdict:
    """Whether the fall between two places is less than a share of the first."""
    top, bottom = (curve.weighted(np.eye(len(curve))[at]) for at in (peak, trough))
    where = f"from {curve.labels[peak]} to {curve.labels[trough]}"
    guard = means.above(top, 0.0, what=f"{what}: denominator: the peak, {curve.labels[peak]}")
    if guard.outcome is not Outcome.HOLDS:
        return replace(guard, outcome=Outcome.INCONCLUSIVE, p=None, p_refuted=None)
    weights = np.zeros(len(curve))
    weights[trough] = -1.0
    weights[peak] += 1.0 - share
    contrast = means.below(
        curve.weighted(weights), 0.0, what=f"drop {where} - {share:g} of the peak"
    )
    high, low = mean_of(top).mean, mean_of(bottom).mean
    interval = None
    if isinstance(top, Sample) and isinstance(bottom, Sample):
        interval = fieller(top - bottom, top)
    part = spoken((high - low) / high, interval, share)
    told = replace(
        contrast,
        sentence=f"{what} falls {where}, {high:.3g} to {low:.3g}, by a share of {part}, claimed "
        f"below {share:g}; {contrast.sentence}",
        shown={
            "share": (high - low) / high,
            "share interval": None if interval is None else interval.ends,
        },
    )
    return _corrected(told, "p_refuted", Outcome.REFUTED, searched, "pairs of checkpoints")


def _corrected(
    verdict: Verdict, which: str, decided: Outcome, searched: int, among: str
) -> Verdict:
    """The verdict where what decides was looked for on the same data: Bonferroni."""
    p = getattr(verdict, which)
    if searched == 1 or p is None:
        return verdict
    corrected = replace(verdict, **{which: min(searched * p, 1.0)})
    if verdict.outcome is not decided or searched * p <= TAIL:
        return corrected
    return replace(
        corrected,
        outcome=Outcome.INCONCLUSIVE,
        sentence=f"{verdict.sentence}; decided alone, but not among {searched} {among}: there are "
        f"no halves to look for it on one and decide on the other",
    )


def _largest_fall(values: Floats, raw: bool = False) -> tuple[int, int, int]:
    """Between which two places the running median falls most, and among how many pairs."""
    places = np.arange(len(values))
    if not raw:
        windows = np.stack([places[:-2], places[1:-1], places[2:]], axis=1)
        middle = np.argsort(values[windows], axis=1, kind="stable")[:, 1]
        places = windows[np.arange(len(windows)), middle]
    smooth = values[places]
    earlier = np.tri(len(smooth), k=-1, dtype=np.bool_).T
    falls = np.where(earlier, smooth[:, None] - smooth[None, :], -np.inf)
    peak, trough = np.unravel_index(int(np.argmax(falls)), falls.shape)
    return int(places[peak]), int(places[trough]), int(earlier.sum())


def lowest_before(
    selection: Curve, evaluation: Curve, onset: Onset, margin: float, *, what: str
) -> Verdict:
    """Whether a curve was below a margin before an onset, at its lowest checkpoint.

    The checkpoint is the lowest on the selection half among those surely before the onset (all
    of them where it never comes); the evaluation half decides. Recorded means have no halves:
    the same curve is given twice, and a verdict that holds is corrected for the checkpoints
    among which the lowest was looked for.

    Args:
        selection: The curve on the selection half.
        evaluation: The curve on the evaluation half, at the same checkpoints.
        onset: When the task is learned.
        margin: What the interval is held against.
        what: What is low.
    """
    chosen, judged = before(selection, onset), before(evaluation, onset)
    if chosen is None or judged is None:
        why = f"{what}: no checkpoint is surely before the onset; {onset.sentence}"
        if onset.state is State.FOUND:
            return not_applicable(why)
        return Verdict(Outcome.INCONCLUSIVE, f"{why}; {onset.what_decides}")
    lowest = int(np.argmin(chosen.means))
    verdict = means.below(
        judged.points[lowest],
        margin,
        what=f"{what} at {judged.labels[lowest]}, the lowest of {len(judged)} before the onset",
        kind=judged.kind,
    )
    same = selection is evaluation or evaluation.is_recorded
    searched = len(judged) if same else 1
    verdict = _corrected(verdict, "p", Outcome.HOLDS, searched, "checkpoints before the onset")
    return verdict.showing(lowest=judged.labels[lowest])
