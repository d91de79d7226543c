"""What a set of neurons shares with the top neurons of tasks that are not arithmetic.

Source: the control is ours (claims.md, ``neurons-shared``): two operators may share neurons that
are at work in every task. A task counts where the model surely does it and where the two halves of
its prompts find the same neurons: neurons ranked by noise share nothing with any others. Every task
that counts is a control; without one there is no control, and what needs one cannot hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mechtests.arithmetic.neuron_measures import LATE_SHARE, task_neurons
from mechtests.arithmetic.neuron_sets import Mask, count_of, overlap, top
from mechtests.arithmetic.reading import undecided
from mechtests.errors import NotApplicable
from mechtests.metrics import behaviour, gates
from mechtests.metrics.metric import Need
from mechtests.rules import GateState, absent, value_control
from mechtests.tasks.ioi import ioi
from mechtests.tasks.prompts import Task
from mechtests.tasks.pronoun import pronoun
from mechtests.tasks.sva import sva
from mechtests.verdict import Control, Outcome, Verdict, exactly

if TYPE_CHECKING:
    from mechtests.measurement import Measurement

TASKS = tuple(task.behaviour for task in (ioi, pronoun, sva))
"""With as many prompts as where only the behaviour is asked for, so that halves may agree."""
SAME = 0.5
"""The part of their top neurons that a task's halves share at least."""


class Measured(Protocol):
    """Measurements by name; one that does not apply to the model is refused with its reason."""

    def __getitem__(self, name: str) -> Measurement:
        """The measurement declared under this name."""
        ...


def needs() -> dict[str, Need]:
    """The behaviour on each task, and what neurons are attributed on it."""
    found = {}
    for task in TASKS:
        found[task.name] = behaviour.answers(task)
        found[_neurons(task)] = task_neurons(task)
    return found


def _neurons(task: Task) -> str:
    return f"{task.name}_neurons"


def controls(measured: Measured, sets: Sequence[Mask], ours: float) -> list[Control]:
    """That each task's top neurons share less with some sets than these do with one another.

    Args:
        measured: What ``needs`` declares.
        sets: The neurons of each operator, from the evaluation half, ``[layer, neuron]``.
        ours: The shared part of these.

    Returns:
        One for each task; it decides where the task counts, and else says why it does not.
    """
    found = []
    for task in TASKS:
        try:
            their = top_neurons(measured, task)
        except NotApplicable as reason:
            found.append(absent(task.name, str(reason)))
            continue
        shared = float(np.mean([overlap(mine, their) for mine in sets]))
        said = f"top neurons of the task {task.name} share {shared:.2f}, ours {ours:.2f}"
        found.append(value_control(task.name, exactly(shared < ours, said)))
    return found


def top_neurons(measured: Measured, task: Task) -> Mask:
    """The 1.5% of each middle and late layer that matter most on a task, from its selection half.

    Raises:
        NotApplicable: The task does not apply, the model is not known to do it, or its halves find
            other neurons.
    """
    gate = gates.does(task, patched=True).judged(measured[task.name])
    if gate.state is not GateState.PASSED:
        raise NotApplicable(f"its gate is {gate.state}: {gate.sentence}")
    effect = measured[_neurons(task)]["effect"]
    selection, evaluation = top(effect, count_of(LATE_SHARE, effect.shape[-1]))
    if (same := overlap(selection, evaluation)) < SAME:
        raise NotApplicable(f"its two halves share {same:.2f} of their top neurons")
    found: Mask = selection
    return found


def needing_one(verdict: Verdict, found: list[Control]) -> Verdict:
    """The verdict beside the controls, undecided where it would hold and no task counts."""
    if verdict.outcome is not Outcome.HOLDS or any(control.decides for control in found):
        return verdict
    why = "; ".join(control.sentence for control in found)
    return replace(undecided(verdict, f"no task but arithmetic to compare with: {why}"), p=1.0)
