"""A sample held against a margin: above, below, equivalent, a share.

These are the common rules that read one or two samples of the evaluation half. Every
sentence has the estimate, the interval and the margin; an inconclusive one ends with the
number of prompts that would decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from mechtests import statistics
from mechtests.errors import MeasurementError
from mechtests.measurement import Sample
from mechtests.statistics import Interval, Side, Summary
from mechtests.verdict import Outcome, Verdict

LEVEL = 0.95
TAIL = (1 - LEVEL) / 2
INSIDE_LEVEL = 0.90
FEWEST_CLUSTERS = 8
POWER = 0.8

Kind = Literal["mean", "proportion", "census"]
OTHER: dict[Side, Side] = {"above": "below", "below": "above"}
RELATION: dict[Side, str] = {"above": ">", "below": "<"}


def above(
    sample: Sample, margin: float, *, what: str, level: float = LEVEL, kind: Kind = "mean"
) -> Verdict:
    """Whether the mean is above a margin.

    It holds when the interval lies above, is refuted when it lies below, and is
    inconclusive otherwise, where there are fewer than 8 clusters, or where nothing varies.

    Args:
        sample: One number a prompt, from the evaluation half.
        margin: What the interval is held against.
        what: What was measured, the start of the sentence.
        level: The level of the interval.
        kind: ``"mean"``: t over cluster means. ``"proportion"``: Clopper-Pearson, with
            the clusters as trials. ``"census"``: all cases, compared exactly.

    Raises:
        MeasurementError: A value is NaN or infinite, or a proportion is outside 0 to 1.
    """
    return _against(sample, margin, "above", what, level, kind)


def below(
    sample: Sample, margin: float, *, what: str, level: float = LEVEL, kind: Kind = "mean"
) -> Verdict:
    """Whether the mean is below a margin; as ``above``, with the sides exchanged."""
    return _against(sample, margin, "below", what, level, kind)


@dataclass(frozen=True)
class _Reading:
    """What a sample says of a margin; no interval and no p where nothing varies."""

    interval: Interval | None
    p: float | None
    p_refuted: float | None
    needed: int | None = None


def _mean(found: Summary, margin: float, side: Side, level: float) -> _Reading:
    return _Reading(
        found.interval(level),
        found.p(margin, side),
        found.p(margin, OTHER[side]),
        found.needed(margin, level, POWER),
    )


def _proportion(found: Summary, margin: float, side: Side, level: float) -> _Reading:
    """Clopper-Pearson: beside 0 and 1 a t interval would hold up to ten times too often."""
    share = min(max(found.mean, 0.0), 1.0)
    trials = statistics.effective_trials(found)
    successes = share * trials
    guess = (successes + 1) / (trials + 2)
    spread = math.sqrt(guess * (1 - guess) * found.clusters / trials)  # as the interval's
    clusters = statistics.clusters_needed(abs(share - margin), spread, level, POWER)
    return _Reading(
        statistics.proportion_interval(successes, trials, level),
        statistics.proportion_p(successes, trials, margin, side),
        statistics.proportion_p(successes, trials, margin, OTHER[side]),
        None if clusters is None else found.as_prompts(clusters),
    )


def _census(found: Summary, margin: float, side: Side, level: float) -> _Reading:
    """All cases there are: no sampling error, so no interval of any level."""
    holds = found.mean > margin if side == "above" else found.mean < margin
    return _Reading(None, p=float(not holds), p_refuted=float(holds))


READINGS: dict[Kind, Callable[[Summary, float, Side, float], _Reading]] = {
    "mean": _mean,
    "proportion": _proportion,
    "census": _census,
}


def _against(
    sample: Sample, margin: float, side: Side, what: str, level: float, kind: Kind
) -> Verdict:
    found = statistics.summary(sample)
    if kind == "proportion":
        _check_proportion(sample)
    reading = READINGS[kind](found, margin, side, level)
    values = spoken(found.mean, reading.interval, margin)
    verdict = Verdict(
        outcome=_outcome(reading.p, reading.p_refuted, (1 - level) / 2),
        sentence=f"{what}: {values} over {_size(found)}, claimed {side} {margin:g}",
        estimate=found.mean,
        interval=None if reading.interval is None else reading.interval.ends,
        margin=margin,
        relation=RELATION[side],
        unit=sample.unit,
        prompts=found.prompts,
        clusters=found.clusters,
        p=reading.p,
        p_refuted=reading.p_refuted,
        sample=sample,
    )
    return verdict if kind == "census" else _cautious(verdict, found, reading.needed)


def _check_proportion(sample: Sample) -> None:
    least, most = sample.values.min(), sample.values.max()
    if least < 0 or most > 1:
        raise MeasurementError(
            f"a proportion needs values from 0 to 1, got {least:.3g} to {most:.3g}; "
            f"judge other values as a mean"
        )


def _outcome(p: float | None, p_refuted: float | None, tail: float) -> Outcome:
    """The interval misses the margin exactly where one of the p is within the tail."""
    if p is not None and p <= tail:
        return Outcome.HOLDS
    if p_refuted is not None and p_refuted <= tail:
        return Outcome.REFUTED
    return Outcome.INCONCLUSIVE


def _cautious(verdict: Verdict, found: Summary, needed: int | None) -> Verdict:
    """The verdict, undecided on too few clusters, with what would decide it."""
    if verdict.clusters < FEWEST_CLUSTERS:
        needed = max(needed or 0, found.as_prompts(FEWEST_CLUSTERS))
        why = f"fewer than {FEWEST_CLUSTERS} clusters decide nothing; {would_decide(needed)}"
        verdict = replace(verdict, p=None, p_refuted=None)
    elif verdict.outcome is not Outcome.INCONCLUSIVE:
        return verdict
    elif verdict.interval is None:
        why = "nothing varies, so there is no interval"
    else:
        why = would_decide(needed)
    return replace(
        verdict,
        outcome=Outcome.INCONCLUSIVE,
        sentence=f"{verdict.sentence}; {why}",
        needed=needed,
    )


def equivalent(sample: Sample, margin: float, *, what: str) -> Verdict:
    """Whether the mean is equivalent to 0 within a margin.

    It holds when the 90% interval lies inside, and is refuted when the 95% interval lies
    wholly outside. That no difference was found is never equivalence.

    Args:
        sample: One number a prompt, from the evaluation half.
        margin: How far from 0 is still the same, above 0.
        what: What was measured, the start of the sentence.

    Raises:
        MeasurementError: A value is NaN or infinite.
    """
    found = statistics.summary(sample)
    p = combined(max, [found.p(margin, "below"), found.p(-margin, "above")])
    p_refuted = combined(min, [found.p(margin, "above"), found.p(-margin, "below")])
    inside = p is not None and p <= (1 - INSIDE_LEVEL) / 2
    outcome = Outcome.HOLDS if inside else _outcome(None, p_refuted, TAIL)
    level = LEVEL if outcome is Outcome.REFUTED else INSIDE_LEVEL
    interval = found.interval(LEVEL)
    values = spoken(found.mean, found.interval(level), margin, -margin)
    verdict = Verdict(
        outcome=outcome,
        sentence=(
            f"{what}: {values} ({level:.0%} interval) over {_size(found)}, "
            f"claimed within {margin:g} of 0"
        ),
        estimate=found.mean,
        interval=None if interval is None else interval.ends,
        margin=margin,
        relation="within",
        unit=sample.unit,
        prompts=found.prompts,
        clusters=found.clusters,
        p=p,
        p_refuted=p_refuted,
        sample=sample,
    )
    return _cautious(verdict, found, _needed_for_equivalence(found, margin))


def _needed_for_equivalence(found: Summary, margin: float) -> int | None:
    """Inside, both sides must be passed, each with half of the allowed failures."""
    nearest = math.copysign(margin, found.mean)
    if abs(found.mean) < margin:
        return found.needed(nearest, INSIDE_LEVEL, (1 + POWER) / 2)
    return found.needed(nearest, LEVEL, POWER)


def share_above(
    numerator: Sample,
    denominator: Sample,
    share: float,
    *,
    span: Sample,
    guard: float = 0.10,
    what: str,
) -> Verdict:
    """Whether N is more than a share c of D, prompt by prompt: N_i - c D_i > 0.

    First D itself must be above 0 and above its guard; else the claim is inconclusive,
    "denominator". The ratio of sums with its Fieller interval is shown and decides nothing;
    a mean of per-prompt ratios is never used. p is the largest of the three.

    Args:
        numerator: N, one number a prompt.
        denominator: D, on the same prompts.
        share: c.
        span: Clean minus corrupted behaviour, on the same prompts.
        guard: The part of the span that D must be above.
        what: The share of what in what, the start of the sentence.

    Raises:
        MeasurementError: A value is NaN or infinite, or the prompts are not the same.
    """
    guards = guarded(denominator, span, guard)
    contrast = above(numerator - denominator * share, 0.0, what=f"N - {share:g} D")
    failing = [each for each in guards if each.outcome is not Outcome.HOLDS]
    if failing:
        return replace(
            contrast,
            outcome=Outcome.INCONCLUSIVE,
            sentence=f"{what}: denominator: D is not above its guard; {failing[0].sentence}",
            needed=failing[0].needed,
            p=None,
            p_refuted=None,
        )
    ratio = statistics.summary(numerator).mean / statistics.summary(denominator).mean
    interval = statistics.fieller(numerator, denominator)
    return replace(
        contrast,
        sentence=(
            f"{what}: share {spoken(ratio, interval, share)}, claimed above {share:g}; "
            f"{contrast.sentence}"
        ),
        p=combined(max, [contrast.p, *(each.p for each in guards)]),
        shown={"share": ratio, "share interval": None if interval is None else interval.ends},
    )


def guarded(denominator: Sample, span: Sample, guard: float = 0.10) -> tuple[Verdict, Verdict]:
    """Whether a share's denominator is above its guard, and above 0; see ``share_above``."""
    return (
        above(denominator - span * guard, 0.0, what=f"D - {guard:g} (clean - corrupted)"),
        above(denominator, 0.0, what="D"),
    )


def combined(choose: Callable[[list[float]], float], ps: Iterable[float | None]) -> float | None:
    """The largest or smallest p (``choose``); None where one of them is unknown."""
    every = list(ps)
    known = [p for p in every if p is not None]
    return choose(known) if len(known) == len(every) else None


def _size(found: Summary) -> str:
    return f"{found.prompts} prompts in {found.clusters} clusters"


def would_decide(needed: int | None) -> str:
    """How many prompts would decide, in words, to two digits and rounded up."""
    if needed is None:
        return "it is at the margin, where no number of prompts would decide"
    if needed >= statistics.MOST_PROMPTS:
        return f"not even {statistics.MOST_PROMPTS:,} prompts would decide"
    step = 10 ** max(len(str(needed)) - 2, 0)
    return f"about {math.ceil(needed / step) * step:,} prompts would decide"


def spoken(estimate: float, interval: Interval | None, *margins: float) -> str:
    """The estimate and its interval, with the digits that the interval's width supports.

    An end that only looks like a margin when rounded gets more digits.
    """
    if interval is None:
        return f"{estimate:.3g}"
    half = (interval.high - interval.low) / 2
    digits = min(max(-math.floor(math.log10(half / 2.5)), 0), 9) if half > 0 else 3
    gaps = [abs(end - margin) for end in interval.ends for margin in margins if end != margin]
    while digits < 9 and any(gap < 0.5 * 10**-digits for gap in gaps):
        digits += 1
    middle, low, high = (f"{round(x, digits) + 0.0:.{digits}f}" for x in (estimate, *interval.ends))
    return f"{middle} [{low}, {high}]"
