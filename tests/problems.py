"""Problems of arithmetic for tests, whose tokens mean nothing."""

from __future__ import annotations

import numpy as np

from mechtests.arithmetic.problems import Problems
from tests.tiny import VOCABULARY


def problems(n: int = 4, seed: int = 0, bos: bool = True, operators: int = 0) -> Problems:
    """Random tokens of a prompt ``a + b =``, behind BOS or behind nothing.

    Args:
        n: How many.
        seed: Of the draw.
        bos: Whether BOS stands first.
        operators: The first are of one operator after the other, the rest of the last; any
            token is an operator unless said.
    """
    draw = np.random.default_rng(seed)
    tokens = draw.integers(2, VOCABULARY, (n, 4 + bos))
    tokens[:, -1] = 1
    if bos:
        tokens[:, 0] = 0
    operator = tokens[:, -3]
    if operators:
        operator = np.minimum(np.arange(n), operators - 1)
        tokens[:, -3] = 2 + operator
    first, second = tokens[:, -4], tokens[:, -2]
    answer = draw.integers(0, VOCABULARY, n)
    return Problems(operator, first, second, first + second, tokens, answer)
