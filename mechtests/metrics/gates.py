"""Gates: the behaviour a model must have before its mechanism is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mechtests import rules
from mechtests.checkpoints import Series
from mechtests.errors import NotApplicable, UsageError
from mechtests.margins import LEVEL, below
from mechtests.measurement import Measurement
from mechtests.metrics import behaviour
from mechtests.metrics.metric import Need
from mechtests.onsets import Onset, State, onset
from mechtests.series import Curve
from mechtests.showing import shown
from mechtests.tasks.prompts import Task
from mechtests.verdict import Outcome, Verdict, not_applicable


@dataclass(frozen=True)
class BehaviourGate:
    """A behaviour and the levels it must exceed (claims.md, Gate).

    Attributes:
        need: The measurement of the behaviour.
        levels: What each of its values must exceed on the evaluation half.
    """

    need: Need
    levels: Mapping[str, float]

    def judged(self, measurement: Measurement) -> rules.Gate:
        """Whether the behaviour is above its levels."""
        return rules.gate(measurement, self.levels)

    def decided(self, measurement: Measurement) -> Verdict:
        """Whether it is decided that the model does the task; see ``decided``."""
        return decided(self.judged(measurement), self.need.task.name)


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


def decided(gate: rules.Gate, task: str) -> Verdict:
    """Whether the gate of a task is decided in a cell: it holds if so, and is never refuted.

    A failed gate is a finding about the model, and its sentence says so.
    """
    known = gate.state is not rules.GateState.UNDECIDED
    return replace(
        gate.verdict,
        outcome=Outcome.HOLDS if known else Outcome.INCONCLUSIVE,
        sentence=f"{task} gate {gate.state}: {gate.sentence}",
        p=None,
    )


def at_chance(answers: Measurement, task: Task, *, among: int) -> Verdict:
    """Whether the behaviour is below one of its levels, so that the gate fails.

    Args:
        answers: The measured behaviour of the task.
        task: The task with its levels.
        among: How many tasks are asked at once, for Bonferroni's level.
    """
    levels = _levels(task)
    parts = [
        below(
            answers.sample(value, "evaluation"),
            level,
            what=f"{task.name} {said(value)}",
            level=1 - (1 - LEVEL) / (among * len(levels)),
            kind="proportion" if value == "correct" else "mean",
        )
        for value, level in levels.items()
    ]
    return min(parts, key=lambda part: 1.0 if part.p is None else part.p)


@dataclass(frozen=True, eq=False)
class Emergence:
    """When a task's behaviour is first above its gate.

    Attributes:
        onset: Of all that has a level together.
        curves: Each curve by the value's name, on the evaluation half or as recorded.
        levels: The level of each.
        missing: Values with a level that were not recorded; the onset's sentence says so.
    """

    onset: Onset
    curves: Mapping[str, Curve]
    levels: Mapping[str, float]
    missing: tuple[str, ...] = ()

    @property
    def fails_at_end(self) -> bool:
        """Whether it is below its gate at the last checkpoint."""
        return bool(self.onset.below[-1] <= self.onset.error)

    @property
    def does(self) -> list[bool]:
        """Whether the model surely does the task at each checkpoint."""
        return [bool(does) for does in self.onset.above <= self.onset.error]

    @property
    def formed(self) -> list[int]:
        """The places of the checkpoints from the onset on at which it does."""
        after = self.onset.positions >= self.onset.high
        return [at for at, does in enumerate(self.does) if does and after[at]]

    @property
    def unasked(self) -> Verdict | None:
        """Why what serves the task is not asked about; None where it is learned and kept."""
        if self.onset.state is State.NEVER or self.fails_at_end:
            return not_applicable(f"{self.onset.sentence}, and what serves it is not asked about")
        if self.onset.state is not State.FOUND:
            why = f"{self.onset.sentence}; {self.onset.what_decides}"
            return Verdict(Outcome.INCONCLUSIVE, why)
        return None

    @property
    def shown(self) -> list[object]:
        """The curves for a verdict's ``shown["curves"]``; the last says where all are above."""
        *others, last = self.curves.items()
        what, joint = self.onset.what, bool(others)
        return [
            *(shown(curve, f"{what}: {said(value)}") for value, curve in others),
            shown(
                last[1],
                f"{what}: {said(last[0])}",
                level=self.levels[last[0]],
                onset=self.onset,
                joint=joint,
            ),
        ]

    def shown_with(self, answers: Series, value: str) -> list[object]:
        """The curves, and that of one more value where it has no level."""
        what = f"{self.onset.what}: {said(value)}"
        more = [] if value in self.curves else [shown(answers.curve(value), what)]
        return [*self.shown, *more]


def emergence(answers: Series, task: Task, generator: np.random.Generator) -> Emergence:
    """When a task's behaviour is first above its gate, and stays there (claims.md, Onset).

    Args:
        answers: ``behaviour.answers`` of the task at every checkpoint.
        task: The task with its levels.
        generator: The source of the bands' draws.

    Raises:
        NotApplicable: Nothing that has a level was recorded.
    """
    levels, curves, reasons = _levels(task), {}, []
    for value in levels:
        try:
            curves[value] = answers.curve(value)
        except NotApplicable as reason:
            reasons.append((value, reason))
    if not curves:
        raise reasons[0][1]
    missing = [said(value) for value, _ in reasons]
    found = onset(
        *((curve, levels[value]) for value, curve in curves.items()),
        what=f"{task.name} ({' and '.join(missing)} not recorded)" if missing else task.name,
        generator=generator,
    )
    return Emergence(found, curves, levels, tuple(value for value, _ in reasons))


def said(value: str) -> str:
    """A value of the behaviour in words."""
    return "accuracy" if value == "correct" else value.replace("_", " ")


def _levels(task: Task) -> Mapping[str, float]:
    if task.levels is None:
        raise UsageError(f"task {task.name!r} has no answers, so no behaviour can be its gate")
    return task.levels.above
