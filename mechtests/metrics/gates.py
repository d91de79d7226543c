"""Gates: the behaviour a model must have before its mechanism is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mechtests import rules
from mechtests.errors import UsageError
from mechtests.measurement import Measurement
from mechtests.metrics import behaviour
from mechtests.metrics.metric import Need
from mechtests.tasks.prompts import Task
from mechtests.verdict import Outcome, Verdict


@dataclass(frozen=True)
class BehaviourGate:
    """A behaviour and the levels it must exceed (claims.md, Gate).

    Attributes:
        need: The measurement of the behaviour.
        levels: What each of its values must exceed on the evaluation half.
    """

    need: Need
    levels: Mapping[str, float]


def does(task: Task, *, patched: bool = False) -> BehaviourGate:
    """That the model does a task, by the task's own levels.

    Args:
        task: The task.
        patched: Whether the claim patches activations of corrupted prompts: then the logit
            difference must also be larger on the clean prompts, or there is nothing to move.

    Raises:
        UsageError: The task has no right answers, and so no level.
    """
    levels = _levels(task)
    moved = {"clean_minus_corrupted": 0.0} if patched else {}
    return BehaviourGate(behaviour.answers(task), {**levels, **moved})


def decided(answers: Measurement, task: Task) -> Verdict:
    """Whether the gate of a task is decided in a cell: it holds if so, and is never refuted.

    A failed gate is a finding about the model, and its sentence says so.

    Args:
        answers: The measured behaviour of the task.
        task: The task with its levels.
    """
    gate = rules.gate(answers, _levels(task))
    known = gate.state is not rules.GateState.UNDECIDED
    return replace(
        gate.verdict,
        outcome=Outcome.HOLDS if known else Outcome.INCONCLUSIVE,
        sentence=f"{task.name} gate {gate.state}: {gate.sentence}",
        p=None,
    )


def _levels(task: Task) -> Mapping[str, float]:
    if task.levels is None:
        raise UsageError(f"task {task.name!r} has no answers, so no behaviour can be its gate")
    return task.levels.above
