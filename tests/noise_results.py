"""Where the judging finds series of noise, and real series in another order (``tests.noise``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mechtests.case import Case
from mechtests.claim import Claim
from mechtests.errors import NotApplicable
from mechtests.measurement import Measurement
from mechtests.models.cell import Cell, Checkpoint
from mechtests.settings import Settings
from tests.noise import CONSTANT, PLANTS, PROMPTS, SHAPE, STEPS, WEIGHTS, Arrays, Draw, Kind, World

TOKENS = 2_097_152
MODEL = "pythia-160m"
"""Whose windows and heads the claims name."""


class Source:
    """A model's name and nothing behind it."""

    name, kind = MODEL, "hub"

    def checkpoints(self, *, offline: bool = True) -> tuple[Checkpoint, ...]:
        return ()


def case_of(claim: Claim, steps: Sequence[int] = STEPS, *, untold: bool = False) -> Case:
    """A claim over training at these steps; the tokens of one of them may not be known."""
    source: Any = Source()
    tokens = [None if untold and at == 5 else TOKENS * step for at, step in enumerate(steps)]
    checkpoints = [Checkpoint(f"step{s}", s, t) for s, t in zip(steps, tokens, strict=True)]
    cells = tuple(Cell(MODEL, checkpoint, source) for checkpoint in checkpoints)
    return Case(claim, cells[-1], cells, MODEL)


CLUSTER = np.arange(PROMPTS)
HALF = CLUSTER % 2
TEMPLATE = np.zeros(PROMPTS, dtype=np.int64)


class NoiseResults:
    """Where the judging finds the measurements of one series of a world.

    Attributes:
        settings: With a seed of its own for each series.
    """

    def __init__(
        self,
        world: World,
        kind: Kind,
        seed: int,
        shape: tuple[int, int] = SHAPE,
        steps: Sequence[int] = STEPS,
    ) -> None:
        self.settings = Settings(seed=seed)
        self._steps = steps
        generator = np.random.default_rng(seed)
        within = int(generator.integers(len(CONSTANT)))
        self._draw = Draw(world, kind, generator, shape, within)
        self._found: dict[Any, Arrays] = {}

    def recording(self, cell: Cell) -> None:
        """It is no recording."""

    def measurement(self, need: Any, cell: Cell) -> Measurement:
        """What a need gives at a checkpoint."""
        at = 0 if need.cell == "untrained" else self._steps.index(cell.checkpoint.step)
        if need.metric.name == WEIGHTS:
            return self._weights(at)
        key = need.metric.name, need.task.name, need.corruption
        if key not in self._found:
            self._found[key] = PLANTS[need.metric.name](self._draw, need.task)
        found = measurement(need, {name: array[at] for name, array in self._found[key].items()})
        if need.metric.name != "arithmetic.answers":
            return found
        problems = np.arange(len(found["operator"]))  # more than there are prompts of other tasks
        return replace(found, cluster=problems, template=found["operator"], half=problems % 2)

    def _weights(self, at: int) -> Measurement:
        same = at - 1 if self._draw.world.twins and at == 7 else at
        values = {"fingerprint": np.full((1, 4), float(same))}
        axes = {"fingerprint": ("tensor", "statistic")}
        facts = {"weights": str(same)}
        return Measurement(WEIGHTS, values, axes, {}, CLUSTER, TEMPLATE, HALF, facts)


def measurement(need: Any, values: Arrays) -> Measurement:
    """A measurement with these values; their axes and units are the metric's own."""
    known = need.metric.values
    axes = {name: known[name].axes for name in values}
    units = {name: known[name].unit for name in values}
    return Measurement(need.metric.name, values, axes, units, CLUSTER, TEMPLATE, HALF)


class PermutedResults:
    """Where the judging finds the measurements of a real series in another order.

    Args:
        found: What each need gave at each checkpoint, or why it did not.
        steps: A step for each of them.
        seed: Of the order, and of the claims' own draws.
        together: Whether all needs are in the same order.
        last: So many of the first checkpoints, the least trained, come last in any order.
        shuffle: Whether there is another order at all.

    Attributes:
        settings: With a seed of its own for each order.
    """

    def __init__(
        self,
        found: Mapping[Any, Sequence[Measurement | NotApplicable]],
        steps: Sequence[int],
        seed: int,
        *,
        together: bool,
        last: int = 0,
        shuffle: bool = True,
    ) -> None:
        self.settings = Settings(seed=seed)
        self._found, self._steps = found, list(steps)
        generator = np.random.default_rng(seed)

        def order() -> list[int]:
            if not shuffle:
                return list(range(len(steps)))
            first = generator.permutation(np.arange(last, len(steps))).tolist()
            return [*first, *generator.permutation(last).tolist()]

        same = order()
        self._order = {need: same if together else order() for need in found}

    def recording(self, cell: Cell) -> None:
        """It is judged as what was measured."""

    def measurement(self, need: Any, cell: Cell) -> Measurement:
        """What a need gave at the checkpoint that has come to stand here."""
        declared = need.of_series(None)
        at = self._order[declared][self._steps.index(cell.checkpoint.step)]
        found = self._found[declared][at]
        if isinstance(found, NotApplicable):
            raise found
        return found
