"""How often problems are answered right, operator by operator and pooled.

Source: Nikankin et al. 2025, Table 3. Where we differ: an accuracy is held against what a predictor
gets right that sees no operand or one, and operators weigh the same, while the paper's average
weighs them by their problems (of which multiplication has 2.5%).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mechtests import margins, statistics
from mechtests.arithmetic.floors import Floors, of_operator, without_zero
from mechtests.margins import LEVEL, TAIL, spoken, would_decide
from mechtests.measurement import Measurement, Sample
from mechtests.statistics import Interval, Side
from mechtests.tasks.arithmetic import NAMES, legal
from mechtests.verdict import Outcome, Verdict

Json = Any
SMALLEST_P = 1e-300
HALF_WIDTHS = 1.43
"""Half-widths of a 95% interval from the margin, at which another misses it with power 0.8."""


@dataclass(frozen=True, eq=False)
class Accuracy:
    """How often some problems of one operator are answered right.

    Attributes:
        what: Which problems: ``"addition"``.
        correct: 1 or 0 for each problem.
        legal: How many such problems there are; all of them are a census.
        floors: What a predictor gets right that does not see both operands.
        unseen: The same for problems whose operands the model was never trained on, as far as
            is known; empty where that is all of them.
    """

    what: str
    correct: Sample
    legal: int
    floors: Floors
    unseen: Sample

    @property
    def census(self) -> bool:
        """Whether these are all problems there are, so that nothing is sampled."""
        return len(self.correct) == self.legal

    @property
    def score(self) -> float:
        """The accuracy over the floor, as a share of what is left above it."""
        return self._over_floor(self.correct.mean)

    def level(self, score: float) -> float:
        """The accuracy that has a score."""
        return self.floors.best + score * (1 - self.floors.best)

    def above(self, level: float) -> Verdict:
        """Whether the accuracy is above a level; a census exactly, a sample by Clopper-Pearson."""
        kind: margins.Kind = "census" if self.census else "proportion"
        found = margins.above(self.correct, level, what=f"accuracy of {self.what}", kind=kind)
        if found.outcome is not Outcome.INCONCLUSIVE or 0 < (found.needed or 0) <= self.legal:
            return found
        said = found.sentence.removesuffix(would_decide(found.needed))
        return replace(found, sentence=said + _all_decide(self.legal), needed=self.legal)

    def ends(self, tail: float) -> tuple[float, float]:
        """The ends of the score's interval with so much probability beyond each."""
        if self.census:
            return self.score, self.score
        interval = _clopper_pearson(self.correct, 1 - 2 * tail)
        return self._over_floor(interval.low), self._over_floor(interval.high)

    def _over_floor(self, accuracy: float) -> float:
        return (accuracy - self.floors.best) / (1 - self.floors.best)

    @property
    def shown(self) -> Json:
        """Its numbers, for a verdict's ``shown``."""
        interval = None if self.census else _clopper_pearson(self.correct, LEVEL).ends
        asked = len(self.unseen)
        held_out = {"held_out": self.unseen.mean, "held_out_problems": asked} if asked else {}
        return {
            "accuracy": self.correct.mean,
            **({} if interval is None else {"interval": interval}),
            "floor": self.floors.best,
            "score": self.score,
            "problems": len(self.correct),
            "of": self.legal,
            **held_out,
        }


def _clopper_pearson(correct: Sample, level: float) -> Interval:
    """The interval that ``margins.above`` holds against a level."""
    trials = statistics.effective_trials(statistics.summary(correct))
    return statistics.proportion_interval(correct.mean * trials, trials, level)


def _all_decide(legal_problems: int) -> str:
    return f"all {legal_problems:,} problems would decide"


def of(answers: Measurement, operator: int, *, zero: bool = True) -> Accuracy:
    """The accuracy on the problems of an operator, or on those with another answer than 0.

    Nothing is chosen, so both halves count.

    Args:
        answers: ``arithmetic.answers``.
        operator: Its place in ``tasks.arithmetic.OPERATORS``.
        zero: Whether problems with the answer 0 count.

    Raises:
        Undecidable: The answers were recorded as means.
    """
    rows = answers.of(None) & (answers["operator"] == operator)
    rows = rows if zero else rows & (answers["result"] != 0)
    largest = int(answers["largest"][0])
    every = legal(operator, largest)
    unseen = rows & (answers["unseen"] == 1)

    def sample(some: Any) -> Sample:
        return Sample(answers["correct"][some].astype(float), answers.cluster[some], "share")

    return Accuracy(
        NAMES[operator] if zero else f"{NAMES[operator]} without zero answers",
        sample(rows),
        len(every if zero else without_zero(every)),
        of_operator(operator, largest, zero=zero),
        sample(unseen if (rows & ~unseen).any() else np.zeros_like(rows)),
    )


def pooled(parts: Sequence[Accuracy], margin: float, *, what: str) -> Verdict:
    """Whether the mean score of some operators, which weigh the same, is above a margin.

    The interval is made of theirs (Zou and Donner 2008, Statistics in Medicine 27: the distances
    of the ends add as squares), which are Clopper-Pearson's; a census has no sampling error. The
    verdicts of the operators alone are its parts, and those on the other side are named.

    Args:
        parts: The accuracy of each operator.
        margin: What the mean score is held against.
        what: What was measured, the start of the sentence.
    """
    estimate = sum(part.score for part in parts) / len(parts)
    p, p_refuted = (_p(parts, estimate, margin, side) for side in ("above", "below"))
    exact = all(part.census for part in parts)
    interval = None if exact else Interval(*_ends(parts, estimate, TAIL), LEVEL)
    holds, refuted = p <= TAIL, p_refuted <= TAIL
    outcome = Outcome.REFUTED if refuted else Outcome.HOLDS if holds else Outcome.INCONCLUSIVE
    problems = sum(len(part.correct) for part in parts)
    legal_problems = sum(part.legal for part in parts)
    sentence = (
        f"{what}: {spoken(estimate, interval, margin)} over {problems:,} of {legal_problems:,} "
        f"problems of {len(parts)} operators, claimed above {margin:g}"
    )
    needed = None
    if outcome is Outcome.INCONCLUSIVE and interval is not None:
        end = interval.low if estimate > margin else interval.high
        needed = _needed(problems, abs(estimate - end), abs(estimate - margin), legal_problems)
        every = needed == legal_problems
        sentence += f"; {_all_decide(needed) if every else would_decide(needed)}"
    others = [part for part in parts if (part.score > margin) != (estimate > margin)]
    if others:
        named = ", ".join(f"{part.what} {part.score:.3g}" for part in others)
        sentence += f"; on the other side: {named}"
    return Verdict(
        outcome,
        sentence,
        estimate=estimate,
        interval=None if interval is None else interval.ends,
        margin=margin,
        unit="share of what is left above the floor",
        prompts=problems,
        clusters=problems,
        p=p,
        p_refuted=p_refuted,
        needed=needed,
        parts=tuple(part.above(part.level(margin)) for part in parts),
        sample=_of_all(parts),
    )


def _of_all(parts: Sequence[Accuracy]) -> Sample:
    """One number a problem, of all operators, whose mean is the mean score.

    Right or wrong over the floor, in units of what is left above it; the problems of an operator
    of which there are few weigh more, so that operators weigh the same.
    """
    every = sum(len(part.correct) for part in parts)
    values = [
        (part.correct.values - part.floors.best)
        / (1 - part.floors.best)
        * (every / (len(parts) * len(part.correct)))
        for part in parts
    ]
    clusters = np.concatenate([part.correct.cluster for part in parts])
    return Sample(np.concatenate(values), clusters, "share of what is left above the floor")


def _ends(parts: Sequence[Accuracy], estimate: float, tail: float) -> tuple[float, float]:
    """The ends of the mean score's interval with so much probability beyond each."""
    ends = [part.ends(tail) for part in parts]
    down, up = (
        math.hypot(*(part.score - end[side] for part, end in zip(parts, ends, strict=True)))
        for side in (0, 1)
    )
    return estimate - down / len(parts), estimate + up / len(parts)


def _p(parts: Sequence[Accuracy], estimate: float, margin: float, side: Side) -> float:
    """One-sided p that the mean score is on a side of a margin: the dual of the interval."""
    beyond = estimate > margin if side == "above" else estimate < margin
    if all(part.census for part in parts):
        return float(not (estimate > margin if side == "above" else estimate <= margin))
    if not beyond:
        other: Side = "below" if side == "above" else "above"
        return 0.5 if estimate == margin else 1.0 - _p(parts, estimate, margin, other)

    def excludes(tail: float) -> bool:
        low, high = _ends(parts, estimate, tail)
        return low > margin if side == "above" else high < margin

    return _smallest(excludes)


def _smallest(excludes: Callable[[float], bool]) -> float:
    """The smallest tail, up to a half, whose interval excludes the margin, by bisection."""
    low, high = math.log(SMALLEST_P), math.log(0.5)
    if not excludes(math.exp(high)):
        return 0.5
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if excludes(math.exp(middle)) else (middle, high)
    return math.exp(high)


def _needed(problems: int, half: float, distance: float, most: int) -> int:
    """How many problems would decide, were the truth what they say; all there are surely do."""
    root = HALF_WIDTHS * float(half) / float(distance) if distance else math.inf
    return math.ceil(min(most, problems * root * root))
