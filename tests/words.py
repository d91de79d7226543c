"""Tokenizers for tests: a word, with the space before it, is one token or a token a letter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from mechtests.tasks import ioi
from mechtests.tasks.names import FIRST_NAMES


def _vocabulary() -> list[str]:
    filled = [
        sentence.format(first="A", second="A", subject="A", place=place, object=thing)
        for sentence in ioi.SENTENCES
        for place in ioi.PLACES
        for thing in ioi.OBJECTS
    ]
    pieces = {piece for text in filled for piece in re.findall(r" ?\w+|[^\w\s]", text)}
    letters = {*"abcdefghijklmnopqrstuvwxyz", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", " "}
    return sorted(pieces | letters)


@dataclass
class Words:
    """Knows the words of the IOI sentences and the given names; spells all else."""

    names: Sequence[str] = FIRST_NAMES
    bos: int | None = None
    name: str = "words"
    vocabulary: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.vocabulary = ["<bos>", *_vocabulary(), *(f" {name}" for name in self.names)]
        self._ids = {piece: i for i, piece in enumerate(self.vocabulary)}

    @property
    def size(self) -> int:
        return len(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        ids = []
        for piece in re.findall(r" ?\w+|[^\w\s]| ", text):
            ids += [self._ids[piece]] if piece in self._ids else [self._ids[c] for c in piece]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.vocabulary[i] for i in ids)


@dataclass
class Numbers:
    """As many tokens as said, each written as its number."""

    size: int
    bos: int | None = None
    name: str = "numbers"

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))
