"""Batches of token ids: rows of the corpus, or words drawn one by one from its frequencies."""

from __future__ import annotations

from functools import lru_cache
from random import Random

from mechtests.sprout.corpus import CONTEXT, ids, row

SAMPLED = 4000
"""Rows whose words are counted for the frequencies of the control's words."""


@lru_cache(maxsize=1)
def frequencies() -> tuple[int, ...]:
    """How often each token comes in a sample of the corpus."""
    counts = [0] * len(ids())
    for number in range(SAMPLED):
        for token in row(-1, number):
            counts[token] += 1
    return tuple(counts)


@lru_cache(maxsize=1)
def _cumulative() -> tuple[range, list[int]]:
    total, sums = 0, []
    for count in frequencies():
        total += count
        sums.append(total)
    return range(len(sums)), sums


def unigram_row(seed: int, number: int) -> list[int]:
    """A row of words drawn one by one; like every row, it starts with BOS."""
    words, sums = _cumulative()
    draw = Random(f"unigrams {seed} {number}")
    return [0, *draw.choices(words, cum_weights=sums, k=CONTEXT - 1)]


def batch(corpus: str, seed: int, step: int, rows: int) -> list[list[int]]:
    """The rows of a training step, each a list of 256 token ids."""
    make = row if corpus == "text" else unigram_row
    return [make(seed, number) for number in range(step * rows, (step + 1) * rows)]
