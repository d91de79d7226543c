"""Tokenizers for tests: a word, with the space before it, is one token or a token a letter."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from mechtests.tasks import greater_than, ioi, pronoun, succession, sva
from mechtests.tasks.names import FIRST_NAMES

NUMBER = r" ?\d\d(?=\d\d(?!\d))| ?\d+"
"""Numbers of four digits are two tokens, others are one."""


def _pieces(texts: Iterable[str]) -> set[str]:
    return {piece for text in texts for piece in re.findall(r" ?\w+|[^\w\s]", text)}


def _vocabulary() -> list[str]:
    filled = [
        sentence.format(first="A", second="A", subject="A", place=place, object=thing)
        for sentence in ioi.SENTENCES
        for place in ioi.PLACES
        for thing in ioi.OBJECTS
    ]
    letters = {*"abcdefghijklmnopqrstuvwxyz", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", " "}
    return sorted(_pieces(filled) | letters)


def _words_of_other_tasks() -> set[str]:
    words = {
        *(*greater_than.NOUNS, *pronoun.WORDS, *pronoun.PRONOUNS),
        *(form for noun in sva.NOUNS for form in (noun, noun + "s")),
        *(form for verb in sva.VERBS for form in (verb, verb + "s")),
        *(form for pair in sva.IRREGULAR for form in pair),
        *(*sva.WORDS, *sva.PREPOSITIONS, *sva.PAST, *sva.SAID, *sva.WHERE),
        *(item for items in succession.LISTS.values() for item in items),
        *greater_than.CENTURIES,
    }
    sentences = (*greater_than.SENTENCES, *pronoun.SENTENCES, *sva.STRUCTURES.values())
    leads = (f"{lead}{mark}" for lead, mark in succession.FORMS)
    literal = (re.sub(r"\{\w+\}", "X", text) for text in (*sentences, *leads))
    digits = {*"0123456789", *(f"{year:02d}" for year in range(100))}
    return _pieces(f" {word}" for word in words) | _pieces(literal) | digits


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
        for piece in self._split(text):
            ids += [self._ids[piece]] if piece in self._ids else [self._ids[c] for c in piece]
        return ids

    def _split(self, text: str) -> list[str]:
        return re.findall(r" ?\w+|[^\w\s]| ", text)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.vocabulary[i] for i in ids)

    def unseen(self, kind: str, *items: str) -> bool:
        return True


@dataclass
class TaskWords(Words):
    """Knows the words of all tasks, but for those it splits; of some combinations says "seen"."""

    splits: Collection[str] = ()
    digits: bool = False
    unseen_are: Callable[..., bool] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        known = {*self.vocabulary[1:], *_words_of_other_tasks()}
        unknown = {f" {word}" for word in self.splits}
        self.vocabulary = ["<bos>", *sorted(known - unknown)]
        self._ids = {piece: i for i, piece in enumerate(self.vocabulary)}

    def _split(self, text: str) -> list[str]:
        number = r"\d" if self.digits else NUMBER
        return re.findall(rf"{number}| ?[^\W\d]+|[^\w\s]| ", text)

    def unseen(self, kind: str, *items: str) -> bool:
        return self.unseen_are is None or self.unseen_are(kind, *items)


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

    def unseen(self, kind: str, *items: str) -> bool:
        return True
