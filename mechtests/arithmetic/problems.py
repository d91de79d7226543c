"""Problems of arithmetic, as numbers and as token ids of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mechtests.tasks.arithmetic import OPERATORS
from mechtests.tasks.prompts import Ids, Prompts

__all__ = ["EQUALS", "FIRST", "OPERATOR", "OPERATORS", "SECOND", "Problems"]

FIRST, OPERATOR, SECOND, EQUALS = -4, -3, -2, -1
"""Positions of a prompt ``a + b =``, counted from its end; BOS, or nothing, stands before."""


@dataclass(frozen=True, eq=False)
class Problems:
    """Some problems ``a (operator) b = result`` as prompts for one model.

    Attributes:
        operator: Its place in ``OPERATORS``, shape ``[problem]``.
        first: The first operand, shape ``[problem]``.
        second: The second operand, shape ``[problem]``.
        result: The right result, shape ``[problem]``.
        tokens: Token ids of the prompt, shape ``[problem, position]``, all equally long.
        answer: The token id of the result, shape ``[problem]``.
    """

    operator: Ids
    first: Ids
    second: Ids
    result: Ids
    tokens: Ids
    answer: Ids

    @classmethod
    def of(cls, prompts: Prompts) -> Self:
        """The problems of the prompts of the arithmetic task."""
        assert prompts.right is not None
        given = prompts.tokens
        return cls(
            given["operator"],
            given["first"],
            given["second"],
            given["result"],
            prompts.clean,
            prompts.right[:, 0],
        )

    def __len__(self) -> int:
        """How many there are."""
        return len(self.operator)

    def select(self, rows: NDArray[Any] | Sequence[int]) -> Self:
        """Some of them: rows by number, or a mask."""
        at = np.asarray(rows, dtype=None if len(rows) else np.int64)
        return replace(self, **{each.name: getattr(self, each.name)[at] for each in fields(self)})

    def of_operator(self, operator: int) -> Self:
        """Those of one operator."""
        return self.select(self.operator == operator)
