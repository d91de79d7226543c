"""A mean whose prompts are not at hand, judged like a sample by its standard error.

Some means were recorded elsewhere; others are differences between models that were not
asked the same prompts. Everything here takes a ``Sample`` as well, prompt by prompt where
the prompts are shared, so that a rule is written once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mechtests import margins, statistics
from mechtests.margins import (
    FEWEST_CLUSTERS,
    INSIDE_LEVEL,
    LEVEL,
    OTHER,
    RELATION,
    TAIL,
    Kind,
    spoken,
    would_decide,
)
from mechtests.measurement import Estimate, Sample
from mechtests.statistics import Interval, Side
from mechtests.verdict import Outcome, Verdict

NOT_RECORDED = "its standard error was not recorded, so the recorded data cannot decide"
NO_SPREAD = "nothing varies, so there is no interval"
ENOUGH = 1.959964 + 0.841621
"""Standard errors from the margin at which a 95% interval misses it with power 0.8."""


@dataclass(frozen=True)
class Mean:
    """A mean and its standard error.

    Attributes:
        mean: The mean, in ``unit``.
        error: Its standard error; 0 where it is exact (a census), NaN where it is unknown.
        degrees: Degrees of freedom of the error; infinite where it is taken as known.
        unit: The unit, in words.
        prompts: How many prompts it is over; 0 where that is not known.
        clusters: How many clusters the smaller of its parts has; 0 where that is not known.
        unknown: Why the error is unknown, where it is.
        over: What it is over, in words, where that is not prompts.
    """

    mean: float
    error: float
    degrees: float = math.inf
    unit: str = ""
    prompts: int = 0
    clusters: int = 0
    unknown: str = NOT_RECORDED
    over: str = ""

    def p(self, margin: float, side: Side) -> float | None:
        """One-sided p that the mean is on a side of a margin; None where the error is unknown."""
        from scipy.special import ndtr, stdtr

        distance = self.mean - margin if side == "above" else margin - self.mean
        if math.isnan(self.error):
            return None
        if self.error == 0.0:
            return float(distance <= 0)
        t = -distance / self.error
        return float(ndtr(t) if math.isinf(self.degrees) else stdtr(self.degrees, t))

    def interval(self, level: float = LEVEL) -> Interval | None:
        """The t or normal interval; None where the error is unknown, or nothing is in error."""
        from scipy.special import ndtri, stdtrit

        if math.isnan(self.error) or self.error == 0.0:
            return None
        tail = (1 + level) / 2
        known = math.isinf(self.degrees)
        half = self.error * float(ndtri(tail) if known else stdtrit(self.degrees, tail))
        return Interval(self.mean - half, self.mean + half, level)

    @property
    def size(self) -> str:
        """What the mean rests on, in words."""
        if self.over:
            return self.over
        prompts = f"{self.prompts} prompts" if self.prompts else "recorded prompts"
        return f"{prompts} in {self.clusters} clusters" if self.clusters else prompts

    @property
    def undecidable(self) -> str | None:
        """Why no margin can be decided on; None where one can."""
        if math.isnan(self.error):
            return self.unknown
        if self.error > 0 and 0 < self.clusters < FEWEST_CLUSTERS:
            return f"fewer than {FEWEST_CLUSTERS} clusters decide nothing"
        return None

    def what_decides(self, margin: float) -> str:
        """What would decide an open margin, in words."""
        if self.undecidable:
            return self.undecidable
        distance = abs(self.mean - margin)
        if self.prompts and self.clusters and distance > 0:
            return would_decide(math.ceil(self.prompts * (ENOUGH * self.error / distance) ** 2))
        return f"a standard error of {distance / ENOUGH:.2g} would decide, it is {self.error:.2g}"


Value = Sample | Mean | Estimate
Terms = Sequence[tuple[float, Value]]


def mean_of(value: Value) -> Mean:
    """The mean of a value over its clusters with its standard error.

    Raises:
        MeasurementError: There is no prompt, or a value is NaN or infinite.
    """
    if isinstance(value, Mean):
        return value
    if isinstance(value, Estimate):
        error = math.nan if value.error is None else float(value.error)
        return Mean(float(value.mean), error, prompts=value.prompts or 0)
    found = statistics.summary(value)
    return Mean(
        found.mean,
        found.spread / math.sqrt(found.clusters) if found.spread else math.nan,
        found.clusters - 1,
        value.unit,
        found.prompts,
        found.clusters,
        NO_SPREAD,
    )


def combination(*terms: tuple[float, Value]) -> Sample | Mean:
    """The sum of some values, each times its factor.

    Samples of the same prompts are combined prompt by prompt. Others count as independent,
    with Welch and Satterthwaite's degrees of freedom; the same value twice is merged first.

    Args:
        terms: Factors and values: ``combination((1, after), (-1, before))``.
    """
    merged: dict[int, tuple[float, Value]] = {}
    for factor, value in terms:
        merged[id(value)] = (factor + merged.get(id(value), (0.0, value))[0], value)
    parts = [(factor, value) for factor, value in merged.values() if factor != 0.0]
    parts = parts or [(0.0, terms[0][1])]
    samples = [(factor, value) for factor, value in parts if isinstance(value, Sample)]
    if len(samples) == len(parts) and all(same_prompts(samples[0][1], s) for _, s in samples):
        first, *others = (sample * factor for factor, sample in samples)
        return sum(others, first)
    return _independent([(factor, mean_of(value)) for factor, value in parts])


def same_prompts(one: Sample, other: Sample) -> bool:
    """Whether two samples can be paired prompt by prompt."""
    return len(one) == len(other) and bool((one.cluster == other.cluster).all())


def _independent(parts: Sequence[tuple[float, Mean]]) -> Mean:
    variances = [(factor * part.error) ** 2 for factor, part in parts]
    variance = sum(variances)
    lost = sum(v**2 / part.degrees for v, (_, part) in zip(variances, parts, strict=True))
    return Mean(
        sum(factor * part.mean for factor, part in parts),
        math.sqrt(variance),
        variance**2 / lost if lost > 0 else math.inf,
        parts[0][1].unit,
        sum(part.prompts for _, part in parts),
        min(part.clusters for _, part in parts),
        next((part.unknown for _, part in parts if math.isnan(part.error)), NOT_RECORDED),
        parts[0][1].over,
    )


def above(value: Value, margin: float, *, what: str, kind: Kind = "mean") -> Verdict:
    """Whether a mean is above a margin; ``margins.above``, for means without prompts as well.

    Args:
        value: One number a prompt, or a mean with its standard error.
        margin: What the interval is held against.
        what: What was measured, the start of the sentence.
        kind: How a sample is read; see ``margins.above``.
    """
    if isinstance(value, Sample):
        return margins.above(value, margin, what=what, kind=kind)
    return _against(mean_of(value), margin, "above", what)


def below(value: Value, margin: float, *, what: str, kind: Kind = "mean") -> Verdict:
    """Whether a mean is below a margin; as ``above``, with the sides exchanged."""
    if isinstance(value, Sample):
        return margins.below(value, margin, what=what, kind=kind)
    return _against(mean_of(value), margin, "below", what)


def _against(found: Mean, margin: float, side: Side, what: str) -> Verdict:
    ps = found.p(margin, side), found.p(margin, OTHER[side])
    judged = _judged(found, *ps, TAIL, found.undecidable)
    values = spoken(found.mean, found.interval(), margin)
    sentence = f"{what}: {values} over {found.size}, claimed {side} {margin:g}"
    if judged.outcome is Outcome.INCONCLUSIVE:
        sentence += f"; {found.what_decides(margin)}"
    return replace(judged, sentence=sentence, margin=margin, relation=RELATION[side])


def _judged(
    found: Mean,
    p: float | None,
    p_refuted: float | None,
    tail: float,
    hindrance: str | None,
) -> Verdict:
    """The verdict of two one-sided p, still without its sentence."""
    if found.error == 0.0 and p is not None:
        p_refuted = 1.0 - p  # exact: what does not hold is refuted
    if hindrance:
        p = p_refuted = None
    if p is not None and p <= tail:
        outcome = Outcome.HOLDS
    elif p_refuted is not None and p_refuted <= TAIL:
        outcome = Outcome.REFUTED
    else:
        outcome = Outcome.INCONCLUSIVE
    interval = found.interval()
    return Verdict(
        outcome,
        "",
        estimate=found.mean,
        interval=None if interval is None else interval.ends,
        unit=found.unit,
        prompts=found.prompts,
        clusters=found.clusters,
        p=p,
        p_refuted=p_refuted,
    )


def equivalent(value: Value, margin: float, *, what: str) -> Verdict:
    """Whether a mean is equivalent to 0 within a margin; see ``margins.equivalent``."""
    if isinstance(value, Sample):
        return margins.equivalent(value, margin, what=what)
    found = mean_of(value)
    edges = (replace(found, mean=margin - found.mean), replace(found, mean=margin + found.mean))
    return _inside(found, edges, margin, f"{margin:g} of 0", what)


def similar(difference: Terms, reference: Value, share: float, *, what: str) -> Verdict:
    """Whether a difference is equivalent to 0 within a share of a reference.

    Decided on the contrasts share x reference +- difference > 0, prompt by prompt where the
    prompts are shared, each at 5% to hold and 2.5% to be refuted: equivalence against a
    margin that is itself measured. The reference must be above 0, else "denominator".

    Args:
        difference: The terms of the difference: ``[(1, a), (-1, b)]``.
        reference: What the share is of.
        share: The part of the reference that is still the same.
        what: The difference in words, the start of the sentence.
    """
    scale, apart = mean_of(reference), combination(*difference)
    edges = [
        mean_of(combination((share, reference), *((sign * f, value) for f, value in difference)))
        for sign in (-1.0, 1.0)
    ]
    guard = _against(scale, 0.0, "above", f"{what}: denominator: what the share is of")
    if guard.outcome is not Outcome.HOLDS:
        return replace(guard, outcome=Outcome.INCONCLUSIVE, p=None, p_refuted=None)
    within = f"{share:.0%} of {scale.mean:.3g}"
    verdict = _inside(mean_of(apart), edges, share * scale.mean, within, what)
    return replace(verdict, sample=apart) if isinstance(apart, Sample) else verdict


def _inside(found: Mean, edges: Sequence[Mean], margin: float, within: str, what: str) -> Verdict:
    """Both edges must be above 0; one below 0 refutes."""
    hindrance = next((edge.undecidable for edge in edges if edge.undecidable), None)
    judged = _judged(
        found,
        margins.combined(max, [edge.p(0.0, "above") for edge in edges]),
        margins.combined(min, [edge.p(0.0, "below") for edge in edges]),
        (1 - INSIDE_LEVEL) / 2,
        hindrance,
    )
    level = LEVEL if judged.outcome is Outcome.REFUTED else INSIDE_LEVEL
    values = spoken(found.mean, found.interval(level), margin, -margin)
    sentence = f"{what}: {values} ({level:.0%} interval) over {found.size}, claimed within {within}"
    if judged.outcome is Outcome.INCONCLUSIVE:
        nearest = min(edges, key=lambda edge: edge.mean)
        sentence += f"; {hindrance or nearest.what_decides(0.0)}"
    return replace(judged, sentence=sentence, margin=margin, relation="within")
