"""The gate of claims about arithmetic: operator by operator, since a model may do some of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mechtests import rules
from mechtests.arithmetic import accuracy
from mechtests.arithmetic.answers import answers
from mechtests.arithmetic.chosen import EVALUATION, SELECTION, right
from mechtests.checkpoints import Series
from mechtests.measurement import Measurement
from mechtests.metrics.metric import Need
from mechtests.rules import GateState
from mechtests.tasks.arithmetic import NAMES, arithmetic
from mechtests.verdict import Outcome, Verdict, exactly

MARGIN = 0.02
"""So far the accuracy must be above that of a predictor that does not see both operands."""
OUTCOMES = {GateState.PASSED: Outcome.HOLDS, GateState.FAILED: Outcome.REFUTED}


@dataclass(frozen=True)
class ArithmeticGate:
    """That a model does at least one operator (claims.md, Gate).

    Attributes:
        need: The measurement of its answers.
    """

    need: Need

    def judged(self, measurement: Measurement) -> rules.Gate:
        """Passed where one operator passes, failed where all fail, else undecided."""
        found = by_operator(measurement)
        states = {each.state for each in found.values()}
        state = GateState.UNDECIDED
        if GateState.PASSED in states:
            state = GateState.PASSED
        elif states == {GateState.FAILED}:
            state = GateState.FAILED
        parts = tuple(replace(each.verdict, sentence=_said(op, each)) for op, each in found.items())
        outcome = OUTCOMES.get(state, Outcome.INCONCLUSIVE)
        needed = max((part.needed or 0 for part in parts), default=0) or None
        return rules.Gate(state, Verdict(outcome, "arithmetic", parts=parts, needed=needed))

    def decided(self, measurement: Measurement) -> Verdict:
        """Whether every operator's gate is decided; holds if so, and is never refuted."""
        gate = self.judged(measurement)
        open_ = any(part.outcome is Outcome.INCONCLUSIVE for part in gate.verdict.parts)
        said = "; ".join(part.sentence for part in gate.verdict.parts)
        return replace(
            gate.verdict,
            outcome=Outcome.INCONCLUSIVE if open_ else Outcome.HOLDS,
            sentence=f"arithmetic gates: {said}",
        )


def does() -> ArithmeticGate:
    """That the model does at least one operator of arithmetic."""
    return ArithmeticGate(answers(arithmetic))


@dataclass(frozen=True)
class Gated:
    """Which operators a claim may speak of.

    Attributes:
        operators: Those that passed, by their place in ``tasks.arithmetic.OPERATORS``.
        reasons: Why the others may not be, by their place.
    """

    operators: tuple[int, ...]
    reasons: Mapping[int, str]


def gated_operators(answers: Measurement) -> Gated:
    """The operators a mechanism claim pools, and why it leaves the others out.

    Args:
        answers: ``arithmetic.answers`` in a cell.
    """
    found = by_operator(answers)
    passed = tuple(op for op, each in found.items() if each.state is GateState.PASSED)
    return Gated(passed, {op: _said(op, each) for op, each in found.items() if op not in passed})


def at_checkpoints(answers: Series) -> tuple[Gated, ...]:
    """The same at each checkpoint: a claim over training reads those where some are gated."""
    return tuple(gated_operators(each) for each in answers)


def by_operator(answers: Measurement) -> dict[int, rules.Gate]:
    """The gate of each operator.

    Passed: the accuracy is above the best predictor without both operands by 0.02 (all legal
    problems compared exactly, a sample by Clopper-Pearson), and there are 100 correct problems
    with another answer than 0 to select on and 150 to evaluate on, in every profile: claims read
    no others. Where a sample has too few of them, more problems may have enough.
    """
    found = {}
    for operator in range(len(NAMES)):
        each = accuracy.of(answers, operator)
        level = each.floors.best + MARGIN
        verdict = rules.every(
            each.above(level), _enough(answers, operator, each.census), what=each.what
        )
        state = rules.STATES.get(verdict.outcome, GateState.UNDECIDED)
        found[operator] = rules.Gate(state, verdict)
    return found


def _enough(answers: Measurement, operator: int, census: bool) -> Verdict:
    """Whether there are enough correct problems with another answer than 0 in both halves."""
    select, evaluate = (len(right(answers, operator, half)) for half in ("selection", "evaluation"))
    there = select >= SELECTION and evaluate >= EVALUATION
    sentence = (
        f"{select} to select and {evaluate} to evaluate on are right with another answer than 0, "
        f"{SELECTION} and {EVALUATION} needed"
    )
    if there or census:
        return exactly(there, sentence)
    return Verdict(
        Outcome.INCONCLUSIVE, f"{sentence}: this is a sample, all problems may have enough"
    )


def _said(operator: int, gate: rules.Gate) -> str:
    return f"{NAMES[operator]} {gate.state}: {gate.sentence}"
