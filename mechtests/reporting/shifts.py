"""How far the estimates of one claim are apart on two sides, and how sure that is.

An effect is the estimate that decides a verdict, and its shift is B - A. Where both sides kept
the per-prompt values and saw the same prompts, the shift is paired prompt by prompt: a t interval
over the cluster means of the differences. Where the prompts differ (another tokenizer, seed or
profile), it is that of two independent means (Welch). Where a side kept no values, or the estimate
is of all prompts together, there is nothing but the two estimates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from mechtests.reporting.samples import estimates
from mechtests.reporting.sides import Judged
from mechtests.verdict import Verdict

if TYPE_CHECKING:
    from mechtests.measurement import Sample


class How(StrEnum):
    """How a shift was found."""

    PAIRED = "paired"
    UNPAIRED = "unpaired"
    ESTIMATES = "estimates only"


@dataclass(frozen=True)
class Pair:
    """A claim judged on both sides."""

    a: Judged
    b: Judged

    @property
    def flips(self) -> bool:
        """Whether the verdicts differ."""
        return self.a.verdict.outcome is not self.b.verdict.outcome

    @property
    def claim(self) -> str:
        """The claim and its task."""
        claim, task, _ = self.a.place
        return f"{claim}{f' ({task})' if task else ''}"

    @property
    def name(self) -> str:
        """The claim, its task and the cell, or both cells."""
        cells = dict.fromkeys((self.a.place.cell, self.b.place.cell))
        return f"{self.claim} on {' / '.join(cells)}"


@dataclass(frozen=True)
class Shift:
    """How far one estimate of a claim is from the other side's.

    Attributes:
        pair: The two verdicts.
        what: What was estimated, of a conjunction which part.
        a: The verdict on side A that has the estimate.
        b: The same on side B.
        difference: B - A, in ``unit``.
        interval: Its 95% interval; None where there is none.
        p: Two-sided p that nothing shifted; None where it is not known.
        q: The same after Benjamini-Hochberg over the comparison.
        how: How it was found.
        why: Why it is not paired.
        prompts: How many prompts it rests on.
        clusters: How many clusters they form.
    """

    pair: Pair
    what: str
    a: Verdict
    b: Verdict
    difference: float
    interval: tuple[float, float] | None
    p: float | None
    how: How
    why: str = ""
    prompts: int = 0
    clusters: int = 0
    q: float | None = None


def shifts(pair: Pair) -> Iterable[Shift]:
    """The shift of each estimate that a claim has on both sides."""
    theirs = dict(estimates(pair.b.verdict))
    for at, mine in estimates(pair.a.verdict):
        other = theirs.get(at)
        if other is None or mine.estimate is None or other.estimate is None:
            continue
        if mine.unit and other.unit and mine.unit != other.unit:
            continue
        what = (mine.sentence or other.sentence).partition(":")[0]
        one = replace(mine, unit=mine.unit or other.unit)
        plainly = Shift(
            pair, what, one, other, other.estimate - mine.estimate, None, None, How.ESTIMATES
        )
        samples = pair.a.samples.get(at), pair.b.samples.get(at)
        if samples[0] is None or samples[1] is None:
            yield replace(plainly, why=_lacking(pair, samples))
        else:
            yield _tested(plainly, samples[0], samples[1])


def _lacking(pair: Pair, samples: tuple[Sample | None, Sample | None]) -> str:
    """Why there are no values of each prompt to pair."""
    sides = (("A", pair.a), ("B", pair.b))
    lacking = [side for side, each in zip(sides, samples, strict=True) if each is None]
    bare = [name for name, judged in lacking if not judged.kept]
    if bare:
        return f"no per-prompt values are kept on side {' and '.join(bare)}"
    return (
        "the estimate is of all prompts together (a jackknife, or the furthest of several "
        "checkpoints), and has no value for each"
    )


def _tested(shift: Shift, a: Sample, b: Sample) -> Shift:
    """The shift with its interval and p, paired where the prompts are the same."""
    from mechtests import means

    why = _unpaired(shift.pair, a, b)
    terms = ((1.0, means.mean_of(b)), (-1.0, means.mean_of(a))) if why else ((1.0, b), (-1.0, a))
    found = means.mean_of(means.combination(*terms))
    census = shift.a.interval is None and shift.b.interval is None
    low_p, high_p = found.p(0.0, "below"), found.p(0.0, "above")
    decidable = not census and found.undecidable is None
    p = (
        min(1.0, 2 * min(low_p, high_p))
        if decidable and low_p is not None and high_p is not None
        else None
    )
    interval = None if census else found.interval()
    return replace(
        shift,
        difference=found.mean,
        interval=None if interval is None else interval.ends,
        p=p,
        how=How.UNPAIRED if why else How.PAIRED,
        why=why,
        prompts=found.prompts,
        clusters=found.clusters,
    )


def _unpaired(pair: Pair, a: Sample, b: Sample) -> str:
    """Why two samples cannot be paired prompt by prompt; empty where they can."""
    from mechtests import means

    both = pair.a.prompts.keys() & pair.b.prompts.keys()
    if any(pair.a.prompts[name] != pair.b.prompts[name] for name in both):
        return "the prompts differ, as another tokenizer, seed or profile makes them"
    if not both:
        return "which prompts were used is not known"
    if not means.same_prompts(a, b):
        return "other prompts of the same ones entered the estimate"
    return ""


def corrected(found: Iterable[Shift]) -> list[Shift]:
    """The same with q over all that were tested, the surest first."""
    from mechtests.rules import family

    every = list(found)
    tested = [shift for shift in every if shift.how is not How.ESTIMATES]
    qs = family([shift.p for shift in tested])
    with_q = [replace(shift, q=q) for shift, q in zip(tested, qs, strict=True)]
    rest = [shift for shift in every if shift.how is How.ESTIMATES]
    return [*sorted(with_q, key=_order), *sorted(rest, key=_order)]


def _order(shift: Shift) -> tuple[float, float, str]:
    p = 1.0 if shift.p is None else shift.p
    return p, -abs(shift.difference), shift.pair.name
