"""The text sprouts are trained on: documents by their shares, packed into rows.

Every row is drawn from its own number, so that any part of the corpus can be made at any time,
in any order and in any process, and is always the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from random import Random

from mechtests.sprout import grammar, lists, numbers, people, random_text
from mechtests.sprout.lexicon import BOS, UNKNOWN, vocabulary

CONTEXT = 256
"""Tokens of a row."""

Make = Callable[[Random], list[str]]

KINDS: dict[str, tuple[float, Make]] = {
    "gifts": (0.11, people.gift),
    "stories": (0.03, people.story),
    "repeated names": (0.02, people.repeated_name),
    "years": (0.04, numbers.years),
    "pronouns": (0.02, grammar.pronouns),
    "agreement": (0.03, grammar.agreements),
    "lists": (0.06, lists.lists),
    "filler": (0.02, random_text.filler),
    "repeats": (0.22, random_text.repeats),
    "scattered": (0.05, random_text.scattered),
    "arithmetic": (0.40, numbers.arithmetic),
}
"""Each kind of document: its share of all words, and who makes one."""


@lru_cache(maxsize=1)
def _weights() -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The kinds, and how often one is drawn for its share of words (by its mean length)."""
    often = []
    for kind, (share, make) in KINDS.items():
        draw = Random(f"length of {kind}")
        mean = sum(min(len(make(draw)) + 1, CONTEXT) for _ in range(400)) / 400
        often.append(share / mean)
    return tuple(KINDS), tuple(often)


def document(draw: Random) -> tuple[str, list[str]]:
    """The kind and the words of a document, without the mark before it."""
    kinds, often = _weights()
    kind = draw.choices(kinds, often)[0]
    return kind, KINDS[kind][1](draw)


def documents(seed: int) -> Iterator[tuple[str, list[str]]]:
    """Documents without end."""
    draw = Random(f"documents {seed}")
    while True:
        yield document(draw)


def row(seed: int, number: int) -> list[int]:
    """Row ``number`` of a seed's corpus: 256 token ids, whole documents but for the last."""
    draw = Random(f"row {seed} {number}")
    known = ids()
    tokens: list[int] = []
    while len(tokens) < CONTEXT:
        tokens.append(known[BOS])
        tokens.extend([known[word] for word in document(draw)[1]])
    return tokens[:CONTEXT]


@lru_cache(maxsize=1)
def ids() -> dict[str, int]:
    """The id of each word."""
    return {word: number for number, word in enumerate((BOS, UNKNOWN, *vocabulary()))}
