"""Why a verdict is what it is: as data, in words, and as the few lines of a failing test."""

from __future__ import annotations

from dataclasses import dataclass

from mechtests.claim import Claim
from mechtests.reporting import wording
from mechtests.verdict import Control, Outcome, Verdict

Head = tuple[int, int]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Prompt:
    """What one prompt gives to the deciding number.

    Attributes:
        at: Its place among the values of the sample.
        row: Which of the task's prompts it is, where that is known; else its place.
        value: Its own value.
        text: The prompt; empty where no tokenizer was at hand.
        answers: The right and the wrong answer, where the task has them.
    """

    at: int
    row: int
    value: float
    text: str = ""
    answers: str = ""


@dataclass(frozen=True)
class Contrast:
    """The numbers that decided, prompt by prompt.

    Attributes:
        made_of: Its terms, in the words of the claim: ``"scores.induction of head 1.1"``.
        unit: Of the values.
        margin: What their mean is held against.
        failing: How many prompts are not on the claimed side by themselves.
        count: How many prompts there are.
        worst: The prompts that speak most against the claim, the worst first.
        best: Those that speak most for it, the best first.
    """

    made_of: str
    unit: str
    margin: float
    failing: int
    count: int
    worst: tuple[Prompt, ...]
    best: tuple[Prompt, ...]


@dataclass(frozen=True)
class HeadValue:
    """The value of one head on the evaluation half.

    Attributes:
        head: Layer and head.
        mean: Over prompts.
        interval: Its 95% interval; None where nothing varies.
        factor: What it is multiplied with in the deciding number; None where it is not in it.
    """

    head: Head
    mean: float
    interval: Interval | None
    factor: float | None = None

    @property
    def given(self) -> float:
        """What it gives to the deciding number."""
        return self.mean * (self.factor or 0.0)


@dataclass(frozen=True)
class Heads:
    """A value that the claim read of every head.

    Attributes:
        name: ``"scores.induction"``.
        unit: Its unit.
        count: How many heads there are.
        shown: The heads with the largest values, those with the smallest, and those that decide.
    """

    name: str
    unit: str
    count: int
    shown: tuple[HeadValue, ...]


@dataclass(frozen=True)
class Change:
    """A value of one head that differs from the baseline's.

    Attributes:
        head: Layer and head.
        name: ``"scores.induction"``.
        before: In the baseline.
        after: In the model.
        interval: The 95% interval of the difference, prompt by prompt where the prompts are the
            same; None where they are not, or nothing varies.
        size: The difference over the largest value of its unit, to compare values by.
    """

    head: Head
    name: str
    before: float
    after: float
    interval: Interval | None
    size: float


@dataclass(frozen=True)
class Against:
    """The same claim in a baseline.

    Attributes:
        cell: The baseline.
        verdict: Its verdict.
        changes: The values of heads that differ most, the largest first.
        weights: The parts whose weights differ, with the relative difference, or None where
            they could not be compared.
        same_prompts: Whether both were asked the same prompts.
    """

    cell: str
    verdict: Verdict
    changes: tuple[Change, ...]
    weights: tuple[tuple[str, float], ...] | None
    same_prompts: bool


@dataclass(frozen=True)
class Nearby:
    """What is stored of the claim at other checkpoints of the model.

    Attributes:
        judged: Each checkpoint's cell with its verdict, in the order of training.
        nearest: The nearest one at which it held, or None.
        command: What would judge the others.
    """

    judged: tuple[tuple[str, Verdict], ...]
    nearest: tuple[str, Verdict] | None
    command: str


@dataclass(frozen=True)
class Explanation:
    """Why a verdict is what it is; ``print`` it.

    Attributes:
        claim: What was claimed.
        cell: In which cell, series or models.
        verdict: What was found.
        deciding: The part of a conjunction that decided, or the verdict itself.
        gate: What the behaviour gate says, or None where the claim has none.
        contrast: The deciding number prompt by prompt, where it has a value for each.
        heads: What the claim read of every head, the deciding value first.
        against: The same in a baseline, where one was given.
        nearby: Other checkpoints, where the model has any.
        advice: What to try.
        notes: What is missing from this explanation, and why.
    """

    claim: Claim
    cell: str
    verdict: Verdict
    deciding: Verdict
    gate: str | None
    contrast: Contrast | None
    heads: tuple[Heads, ...] = ()
    against: Against | None = None
    nearby: Nearby | None = None
    advice: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The whole page, 100 characters wide."""
        from mechtests.reporting.explanation_page import render

        return render(self, width=100)


def deciding(verdict: Verdict) -> Verdict:
    """The part of a conjunction that decides it, or the verdict itself.

    Of a refuted one the part that is refuted most surely, of an undecided one the first that is
    open, of one that holds the part that is nearest to failing.
    """
    if verdict.estimate is not None or not verdict.parts:
        return verdict
    same = [part for part in verdict.parts if part.outcome is verdict.outcome] or verdict.parts
    if verdict.outcome is Outcome.REFUTED:
        chosen = min(same, key=lambda part: 0.0 if part.p_refuted is None else part.p_refuted)
    elif verdict.outcome is Outcome.HOLDS:
        chosen = max(same, key=lambda part: 0.0 if part.p is None else part.p)
    else:
        chosen = same[0]
    return deciding(chosen)


def tipping(verdict: Verdict) -> str:
    """At which margin the verdict would be another: the interval's ends, in words."""
    if verdict.margin is None or verdict.interval is None:
        return ""
    low, high = verdict.interval
    unit = f" {verdict.unit}" if verdict.unit else ""
    if verdict.relation == "within":
        widest = wording.number(max(abs(low), abs(high)))
        return f"it would hold within {widest}{unit} of 0, as far as its 95% interval reaches"
    ends = {">": (low, high, "below", "above"), "<": (high, low, "above", "below")}
    if verdict.relation not in ends:
        return ""
    near, far, side, other = ends[verdict.relation]
    near_said, far_said = (f"{wording.number(end)}{unit}" for end in (near, far))
    beyond = near > verdict.margin if verdict.relation == ">" else near < verdict.margin
    if not beyond:
        return (
            f"it would hold with a margin {side} {near_said}; {other} {far_said} it would be "
            "refuted"
        )
    if verdict.outcome is Outcome.HOLDS:
        return f"it holds with every margin {side} {near_said}, and is refuted {other} {far_said}"
    return f"the interval passes every margin {side} {near_said}: the margin is not what decides"


def reach(control: Control) -> str:
    """How far a control reaches, in words."""
    said = control.sentence if control.sentence.startswith(control.name) else (
        f"{control.name}: {control.sentence}"
    )  # fmt: skip
    reached = "it reaches the claim" if control.reached else "it does not reach the claim"
    return f"{said}; {reached}" + ("" if control.decides else " (shown, does not decide)")


def short(claim: Claim, verdict: Verdict, command: str) -> str:
    """What a failing test says: the verdict, what would change it, and how to learn more.

    Args:
        claim: What was claimed.
        verdict: What was found.
        command: The command that explains it.
    """
    lines = [str(verdict), f"  claimed: {claim.says}"]
    part = deciding(verdict)
    if said := tipping(part):
        lines.append(f"  margin:  {said}")
    lines += [f"  control: {reach(control)}" for control in verdict.controls if control.reached]
    return "\n".join([*lines, f"  why:     {command}"])
