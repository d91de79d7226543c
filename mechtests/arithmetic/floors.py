"""What a predictor gets right that sees no operand, or one.

Source: Nikankin et al. 2025 give accuracies without floors; these are ours. A division by the
paper's operands has the answer 0 half of the time, so that a constant is right as often.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mechtests.tasks.arithmetic import Legal, legal
from mechtests.tasks.prompts import Ids


@dataclass(frozen=True)
class Floors:
    """The share of problems that the best predictor of a kind gets right.

    Attributes:
        constant: That always says the same number.
        first: That sees the first operand alone.
        second: That sees the second operand alone.
    """

    constant: float
    first: float
    second: float

    @property
    def best(self) -> float:
        """The best of them."""
        return max(self.constant, self.first, self.second)


def floors(problems: Legal) -> Floors:
    """The floors over some problems of one operator: exact, chosen on these very problems.

    They belong over all legal problems: on a sample with few problems an operand, a predictor
    that sees the operand would learn the sample by heart.

    Raises:
        ValueError: There is no problem.
    """
    if not len(problems):
        raise ValueError("floors are over some problems, got none")
    result = problems.result
    return Floors(
        constant=_most(np.zeros_like(result), result),
        first=_most(problems.first, result),
        second=_most(problems.second, result),
    )


def _most(seen: Ids, result: Ids) -> float:
    """The share right of saying the most frequent result of whatever is seen."""
    pairs = seen * (int(result.max()) + 1) + result
    kinds, counts = np.unique(pairs, return_counts=True)
    best = np.zeros(int(seen.max()) + 1, dtype=np.int64)
    np.maximum.at(best, kinds // (int(result.max()) + 1), counts)
    return float(best.sum() / len(result))


@lru_cache(maxsize=32)
def of_operator(operator: int, largest: int, *, zero: bool = True) -> Floors:
    """The floors over all problems of an operator, or those with another answer than 0."""
    every = legal(operator, largest)
    return floors(every if zero else without_zero(every))


def without_zero(problems: Legal) -> Legal:
    """The problems with another answer than 0."""
    some = problems.result != 0
    return Legal(problems.first[some], problems.second[some], problems.result[some])
