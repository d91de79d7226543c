"""What hand-made networks of arithmetic read: a tokenizer of sums, and all problems."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mechtests.arithmetic.problems import OPERATORS, Problems
from mechtests.sprout.numbers import LARGEST, result

OPERANDS = 100
"""Operands are smaller."""
PLUS, MINUS, TIMES, OVER = range(len(OPERATORS))


@dataclass(frozen=True)
class Sums:
    """A tokenizer of numbers up to 198, operators and "=", one token each; BOS comes first.

    Larger numbers are spelled digit by digit, and what is no number or sign is unknown.
    """

    name: str = "sums"
    bos: int = 0

    @cached_property
    def vocabulary(self) -> list[str]:
        return ["<bos>", *map(str, range(LARGEST + 1)), *OPERATORS, "=", "<unk>"]

    @property
    def size(self) -> int:
        return len(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        ids = {word: i for i, word in enumerate(self.vocabulary)}
        words = re.findall(r"\d+|\S", text)
        parts = [[word] if word in ids or not word.isdigit() else list(word) for word in words]
        return [ids.get(part, ids["<unk>"]) for some in parts for part in some]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.vocabulary[i] for i in ids)

    def unseen(self, kind: str, *items: str) -> bool:
        return True


SUMS = Sums()


def number(value: Any) -> Any:
    """Token ids of numbers."""
    return value + 1


def sign(operator: Any) -> Any:
    """Token ids of operators, by their place in ``OPERATORS``."""
    return operator + LARGEST + 2


END = SUMS.vocabulary.index("=")


def problems(*operators: int) -> Problems:
    """All problems of some operators with operands up to 99 and a result up to 198.

    Of division only those with a dividend at least as large as the divisor.
    """
    rows = [
        (operator, a, b, r)
        for operator in operators
        for a in range(OPERANDS)
        for b in range(OPERANDS)
        if (r := result(OPERATORS[operator], a, b)) is not None
        and (OPERATORS[operator] != "/" or a >= b)
    ]
    operator, first, second, right = np.array(rows, dtype=np.int64).T
    tokens = np.stack(
        (0 * first, number(first), sign(operator), number(second), 0 * first + END), 1
    )
    return Problems(operator, first, second, right, tokens, number(right))
