"""Which problems a measurement of arithmetic is made on: those the model answers right.

Source: Nikankin et al. 2025, pages 3 and 4, and its code. Where we differ: a problem is right by
the token of its answer and has another answer than 0 (the fully ablated model may answer 0, and a
faithfulness is then 0 / 0); a counterfactual has another result, which the code does not check; and
what is selected on and what is evaluated on never share a problem, counterfactuals among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mechtests.errors import NotApplicable
from mechtests.tasks.arithmetic import NAMES

if TYPE_CHECKING:
    from mechtests.measurement import Half, Measurement
    from mechtests.tasks.prompts import Ids

SELECTION, EVALUATION = 100, 150
"""Problems of an operator to select and to evaluate on (claims.md, standard profile)."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Problems, each with another one to take activations from.

    Attributes:
        prompts: Rows among the task's prompts, shape ``[pair]``.
        counterfactuals: Rows of problems with another result, shape ``[pair]``.
    """

    prompts: Ids
    counterfactuals: Ids

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self.prompts)


@dataclass(frozen=True, eq=False)
class Chosen:
    """The problems of one operator that claims are about.

    Attributes:
        operator: Its place in ``tasks.arithmetic.OPERATORS``.
        selection: What is selected on: neurons, heads, signs, sizes.
        evaluation: What decides.
    """

    operator: int
    selection: Pairs
    evaluation: Pairs


def choose(
    answers: Measurement,
    operator: int,
    generator: np.random.Generator,
    *,
    among: Sequence[int] = (),
    selection: int = SELECTION,
    evaluation: int = EVALUATION,
) -> Chosen:
    """Correct problems of an operator with another answer than 0, each with a counterfactual.

    The task's prompts come in a random order, so the first that are right are a random draw of
    them, the same for every measurement of a cell, and fewer are a prefix of more. Counterfactuals
    are drawn with replacement among the right problems of the same half and of some operators.

    Args:
        answers: ``arithmetic.answers`` on all prompts of the task.
        operator: Its place in ``tasks.arithmetic.OPERATORS``.
        generator: Draws the counterfactuals.
        among: The operators they are of, as in the paper, which draws from all four; its own
            alone unless said.
        selection: How many to select on.
        evaluation: How many to evaluate on.

    Raises:
        NotApplicable: A half has fewer, or only one result.
    """
    halves: tuple[tuple[Half, int], ...] = (("selection", selection), ("evaluation", evaluation))
    pairs = []
    for half, count in halves:
        pool = right(answers, operator, half)
        if len(pool) < count:
            raise NotApplicable(
                f"{NAMES[operator]}: {len(pool)} correct problems with another answer than 0 in "
                f"the {half} half, and {count} are needed; take more prompts or a better model"
            )
        others = np.concatenate([right(answers, each, half) for each in among or (operator,)])
        others = counterfactuals(answers, pool, others, generator)
        pairs.append(Pairs(pool[:count], others[:count]))
    return Chosen(operator, *pairs)


def of_another_operator(
    answers: Measurement, pairs: Pairs, generator: np.random.Generator
) -> Pairs:
    """The same problems, each with a right one of another operator and another result.

    Args:
        answers: ``arithmetic.answers`` on all prompts of the task.
        pairs: Problems of one operator and half.
        generator: Draws the counterfactuals.

    Raises:
        NotApplicable: No other operator has a right problem with another result in the half.
    """
    operator, half = (int(array[pairs.prompts[0]]) for array in (answers["operator"], answers.half))
    rows = _right(answers) & (answers["operator"] != operator) & (answers.half == half)
    pool = np.flatnonzero(rows)
    return Pairs(pairs.prompts, counterfactuals(answers, pairs.prompts, pool, generator))


def counterfactuals(
    answers: Measurement, prompts: Ids, pool: Ids, generator: np.random.Generator
) -> Ids:
    """For each of some prompts a row of a pool with another result, each as likely.

    Args:
        answers: ``arithmetic.answers`` on all prompts of the task.
        prompts: Rows of the prompts, shape ``[prompt]``.
        pool: Rows to draw from, with replacement.
        generator: The source of the draws.

    Raises:
        NotApplicable: The pool has no problem with another result than one of the prompts.
    """
    by_result = pool[np.argsort(answers["result"][pool], kind="stable")]
    results, mine = answers["result"][by_result], answers["result"][prompts]
    low, high = (np.searchsorted(results, mine, side) for side in ("left", "right"))
    others = len(pool) - (high - low)
    if (without := np.flatnonzero(others == 0)).size:
        raise NotApplicable(
            f"{len(pool)} problems to draw counterfactuals from, and none has another result than "
            f"{int(mine[without[0]])}; take more prompts or a better model"
        )
    drawn = (generator.random(len(prompts)) * others).astype(np.int64)
    found: Ids = by_result[np.where(drawn < low, drawn, drawn + high - low)]
    return found


def right(answers: Measurement, operator: int, half: Half) -> Ids:
    """Rows of the correct problems of an operator and half with another answer than 0."""
    rows = _right(answers) & (answers["operator"] == operator) & answers.of(half)
    return np.flatnonzero(rows)


def failures(answers: Measurement, operator: int, half: Half = "evaluation") -> Ids:
    """Rows of problems that are answered with a wrong number, in the task's random order.

    The right answer is another than 0. A token counts as a number where it is the answer of some
    prompt; anything else the model says there is no failure of arithmetic.
    """
    numeric = np.isin(answers["predicted"], np.unique(answers["answer"]))
    wrong = (answers["correct"] == 0) & numeric & (answers["result"] != 0)
    return np.flatnonzero(wrong & (answers["operator"] == operator) & answers.of(half))


def _right(answers: Measurement) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = (answers["correct"] == 1) & (
        answers["result"] != 0
    )
    return found
