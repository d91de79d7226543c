"""What a probe is to read: results as classes, and which part of the problems each belongs to.

Problems are numbered once: a feature, its label and the part it belongs to share that number,
so that nothing can be shuffled against the other (the released script shuffled its labels anew
for each position, and its features once).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mechtests.arithmetic.problems import EQUALS, FIRST, OPERATOR, SECOND

Hits = NDArray[np.bool_]
Ids = NDArray[np.int64]

TRAINING, VALIDATION, TEST = 0, 1, 2
POSITIONS = (FIRST, OPERATOR, SECOND, EQUALS)
"""Where there is anything to read, counted from END."""
STEPS = 100
"""Iterations of L-BFGS."""
PROMPTS_A_CLASS = 10
COVERED = 0.5
"""With fewer of the training problems left, a probe speaks of other results than the model's."""


def parts(count: int) -> Ids:
    """Which part each problem of an operator is in: 70% train, 10% choose the depth, 20% test.

    The task's problems come in a random order, so that their turns are a random draw, the same in
    every cell. What chooses is of the task's selection half, and what tests of its evaluation half.

    Args:
        count: How many problems of the operator there are, in the task's order.

    Returns:
        ``TRAINING``, ``VALIDATION`` or ``TEST``, shape ``[problem]``.
    """
    turn = np.arange(count)
    found: Ids = np.where(turn % 5 == 4, TEST, np.where(turn % 10 == 0, VALIDATION, TRAINING))
    return found


def training_problems(results: Ids, part: Ids) -> tuple[Ids, Ids]:
    """The results that training problems have, and how many problems each, ``[result]``."""
    found, counts = np.unique(results[part == TRAINING], return_counts=True)
    return found, counts


def covered(counts: Ids) -> float:
    """The share of training problems whose result has 10 of them; 0 where there is none.

    Args:
        counts: Training problems of each result, shape ``[result]``.
    """
    return float(counts[counts >= PROMPTS_A_CLASS].sum() / max(1, counts.sum()))


def enough(counts: Ids, share: float = COVERED) -> bool:
    """Whether two results or more have 10 training problems, and so has a share of the problems."""
    return bool((counts >= PROMPTS_A_CLASS).sum() >= 2 and covered(counts) >= share)


@dataclass(frozen=True, eq=False)
class Labels:
    """The results to be read, as classes, and which part each problem is in.

    Attributes:
        number: Class of each problem, ``[problem]``; -1 where its result is none, having fewer
            than 10 training problems: it then trains, chooses and tests nothing.
        classes: How many there are.
        part: ``TRAINING``, ``VALIDATION`` or ``TEST``, ``[problem]``.
    """

    number: Ids
    classes: int
    part: Ids

    @classmethod
    def of(cls, results: Ids, part: Ids) -> Labels:
        """The results with 10 training problems or more as classes."""
        found, counts = training_problems(results, part)
        known = found[counts >= PROMPTS_A_CLASS]
        number = np.full(len(results), -1)
        if len(known):
            at = np.searchsorted(known, results).clip(max=len(known) - 1)
            number = np.where(known[at] == results, at, -1)
        return cls(number, len(known), part)

    def of_part(self, part: int) -> Hits:
        """Which problems are of one part, and have a class, ``[problem]``."""
        mine: Hits = (self.part == part) & (self.number >= 0)
        return mine

    def shuffled(self, generator: np.random.Generator) -> Labels:
        """The same labels for other problems of the same part."""
        number = self.number.copy()
        for part in (TRAINING, VALIDATION, TEST):
            mine = np.flatnonzero(self.of_part(part))
            number[mine] = number[generator.permutation(mine)]
        return replace(self, number=number)

    def hits(self, guesses: Ids, part: int) -> Hits:
        """Where guesses ``[..., problem]`` are right, of one part: ``[..., problem]``."""
        mine = self.of_part(part)
        hits: Hits = guesses[..., mine] == self.number[mine]
        return hits

    @property
    def constant(self) -> Ids:
        """The commonest training class as everybody's guess, ``[problem]``."""
        trained = self.number[self.of_part(TRAINING)]
        return np.full(len(self.number), np.bincount(trained).argmax())
