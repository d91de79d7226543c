"""A verdict: one of five outcomes, and a sentence with its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mechtests.measurement import Sample


class Outcome(StrEnum):
    """What is said of a claim in a cell."""

    HOLDS = "holds"
    REFUTED = "refuted"
    INCONCLUSIVE = "inconclusive"
    NOT_APPLICABLE = "not applicable"
    ERROR = "error"


@dataclass(frozen=True)
class Control:
    """What the same measurement gives where the claim should not hold.

    Attributes:
        name: What was used: ``"matched random heads"``, ``"untrained cell"``.
        sentence: What it gave, with its numbers.
        reached: Whether it does as well as the claim, so that the claim says nothing.
        p: One-sided p of the observed value among the draws, ``(b + 1) / (M + 1)``.
        p_min: The smallest p the draws could have given.
        values: The control's distribution or value, kept for plots.
        decides: Whether a reached control keeps the claim from holding.
        observed: What the draws are held against, in their unit; None where there is no such one.
    """

    name: str
    sentence: str
    reached: bool
    p: float | None = None
    p_min: float | None = None
    values: tuple[float, ...] = ()
    decides: bool = True
    observed: float | None = None


@dataclass(frozen=True)
class Verdict:
    """An outcome, the sentence that explains it, and the numbers behind it.

    Attributes:
        outcome: One of the five outcomes.
        sentence: One sentence a reader understands without the code.
        estimate: The estimate on the evaluation half, in ``unit``.
        interval: The 95% interval of the estimate.
        margin: What the interval is held against.
        relation: ``">"``, ``"<"``, ``"within"`` or ``"="``: the claimed side.
        unit: The unit of estimate, interval and margin.
        prompts: How many prompts the estimate rests on.
        clusters: How many independent clusters they form.
        p: One-sided p of the decision, for the family's correction.
        needed: How many prompts would decide, when the outcome is inconclusive.
        controls: Every control that was measured.
        parts: The verdicts a conjunction is made of.
        shown: What is reported and decides nothing: the swapped halves, ceilings.
        p_refuted: One-sided p of the other side, for Holm over the parts of a conjunction.
        sample: The per-prompt values that the estimate is the mean of over clusters, where
            there are some; kept beside the record, so that two runs can be compared in pairs.
    """

    outcome: Outcome
    sentence: str
    estimate: float | None = None
    interval: tuple[float, float] | None = None
    margin: float | None = None
    relation: str = ">"
    unit: str = ""
    prompts: int = 0
    clusters: int = 0
    p: float | None = None
    needed: int | None = None
    controls: tuple[Control, ...] = ()
    parts: tuple[Verdict, ...] = ()
    shown: Mapping[str, Any] = field(default_factory=dict)
    p_refuted: float | None = None
    sample: Sample | None = field(default=None, compare=False, repr=False)

    def showing(self, **shown: Any) -> Verdict:
        """The same verdict with more that is reported beside it."""
        return replace(self, shown={**self.shown, **shown})

    def __str__(self) -> str:
        """The outcome and its sentence."""
        return f"{self.outcome}: {self.sentence}"


@dataclass(frozen=True)
class Expectation:
    """What is expected of a verdict, and why.

    Attributes:
        reason: Why, or None where nothing is expected.
        blessed: The outcome a baseline has; None where there is none, and a reason is then the
            paper's own for a refutation.
    """

    reason: str | None = None
    blessed: Outcome | None = None

    @property
    def outcome(self) -> Outcome | None:
        """The outcome that is expected, or None."""
        if self.blessed is None and self.reason is not None:
            return Outcome.REFUTED
        return self.blessed

    def excuses(self, outcome: Outcome) -> bool:
        """Whether an outcome does not hold, and was not expected to."""
        return outcome is not Outcome.HOLDS and outcome is self.outcome

    def changed(self, outcome: Outcome) -> bool:
        """Whether another outcome was expected.

        An error is no verdict. Where the paper expects a refutation, one that is not reached
        is no change; that the claim holds is one.
        """
        if self.blessed is None:
            return self.reason is not None and outcome is Outcome.HOLDS
        return outcome not in (self.blessed, Outcome.ERROR)


def refuted(sentence: str) -> Verdict:
    """A refutation without an interval: what the claim speaks of is not there."""
    return Verdict(Outcome.REFUTED, sentence, p=1.0)


def exactly(holds: bool, sentence: str) -> Verdict:
    """Whether something is so that was counted or compared in full, with no sampling error."""
    outcome = Outcome.HOLDS if holds else Outcome.REFUTED
    return Verdict(outcome, sentence, p=float(not holds), p_refuted=float(holds))


def not_applicable(sentence: str) -> Verdict:
    """What the claim speaks of is not there to be asked about; the reason is the sentence."""
    return Verdict(Outcome.NOT_APPLICABLE, sentence)
