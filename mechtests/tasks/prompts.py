"""Prompts: token ids, what changes in them, the answers, and which prompts belong together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mechtests.tasks.grammar import Grammar

Ids = NDArray[np.int64]


class Tokenizer(Protocol):
    """What a task needs of a tokenizer: token ids, never special tokens of its own."""

    @property
    def name(self) -> str:
        """The model it belongs to, for messages."""
        ...

    @property
    def bos(self) -> int | None:
        """The token every prompt starts with, by the model's recorded policy, or None."""
        ...

    @property
    def size(self) -> int:
        """How many token ids the model knows."""
        ...

    def encode(self, text: str) -> list[int]:
        """The token ids of a text, without any special token."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some token ids."""
        ...

    def unseen(self, kind: str, *items: str) -> bool:
        """Whether a combination was held out of training, as far as is known.

        True for every model whose training data is not ours. Kinds and their items:
        ``"names"`` two first names, in either order; ``"years"`` a century and a two-digit
        year ("17", "32"); ``"pronoun"`` a first name and the sentence's adjective;
        ``"nouns"`` the subject's noun and the attractor's, in either order and number;
        ``"operands"`` an operator ("+") and the two operands of a problem.
        """
        ...


def padded(rows: Sequence[Sequence[int]], *, fill: int = 0, width: int = 0) -> Ids:
    """Rows of token ids, filled up on the right (to a width at least), ``[prompt, position]``."""
    ids = np.full((len(rows), max(width, *map(len, rows))), fill, dtype=np.int64)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens
    return ids


@dataclass(frozen=True, eq=False)
class Prompts:
    """Some prompts of a task for one tokenizer.

    Attributes:
        clean: Token ids, shape ``[prompt, position]``, padded on the right (padding is
            never seen: attention is causal and nothing is read behind END).
        length: Tokens of each prompt, shape ``[prompt]``; END is ``length - 1``.
        corrupted: Corrupted variants by name, each shaped and aligned like ``clean``.
        right: Token ids of right answers, shape ``[prompt, answer]``, -1 where fewer.
        wrong: Token ids of wrong answers, shape ``[prompt, answer]``, -1 where fewer.
        positions: Named positions (``"IO"``, ``"S1"``, ``"END"``), each ``[prompt]``.
        tokens: Further token ids a metric may ask for, by name, each ``[prompt, ...]``.
        cluster: What varies inside a template, shape ``[prompt]``; never crosses halves.
        template: The stratum, shape ``[prompt]``.
        half: 0 for selection, 1 for evaluation, shape ``[prompt]``.
        texts: The clean prompts as text.
    """

    clean: Ids
    length: Ids
    cluster: Ids
    template: Ids
    half: Ids
    texts: tuple[str, ...]
    corrupted: Mapping[str, Ids] = field(default_factory=dict)
    right: Ids | None = None
    wrong: Ids | None = None
    positions: Mapping[str, Ids] = field(default_factory=dict)
    tokens: Mapping[str, Ids] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many prompts there are."""
        return int(self.clean.shape[0])

    @property
    def end(self) -> Ids:
        """The last position of each prompt, shape ``[prompt]``."""
        return self.length - 1

    def select(self, rows: NDArray[Any]) -> Prompts:
        """Some of the prompts, padded no further than the longest of them needs."""
        longest = int(self.length[rows].max())
        return replace(
            self,
            clean=self.clean[rows, :longest],
            length=self.length[rows],
            cluster=self.cluster[rows],
            template=self.template[rows],
            half=self.half[rows],
            texts=tuple(self.texts[int(row)] for row in np.arange(len(self))[rows]),
            corrupted={name: ids[rows, :longest] for name, ids in self.corrupted.items()},
            right=None if self.right is None else self.right[rows],
            wrong=None if self.wrong is None else self.wrong[rows],
            positions={name: at[rows] for name, at in self.positions.items()},
            tokens={name: ids[rows] for name, ids in self.tokens.items()},
        )

    @property
    def digest(self) -> str:
        """SHA-256 over everything a measurement can depend on."""
        digest = hashlib.sha256()
        parts: list[tuple[str, Ids | None]] = [
            ("clean", self.clean),
            ("length", self.length),
            ("cluster", self.cluster),
            ("template", self.template),
            ("half", self.half),
            ("right", self.right),
            ("wrong", self.wrong),
        ]
        for group in ("corrupted", "positions", "tokens"):
            parts += [(f"{group}.{k}", v) for k, v in sorted(getattr(self, group).items())]
        for name, array in parts:
            if array is not None:
                digest.update(f"{name}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array, dtype=np.int64).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Levels:
    """What a behaviour must exceed for its mechanism to be judged (claims.md, Gate).

    Keys are the values of ``behaviour.answers``: ``"correct"``,
    ``"logit_difference"``, ``"probability_difference"``.
    """

    above: Mapping[str, float]


@dataclass(frozen=True)
class Column:
    """A column of published prompt files that gives all answers of a prompt by one number.

    Attributes:
        name: The column: ``"correct_idx"`` of greater-than, ``"plural"`` of agreement.
        values: The numbers it may hold.
        answers: ``answers(tokenizer, numbers)`` gives the right and the wrong answers, each
            ``[prompt, answer]``, -1 padded.
    """

    name: str
    values: range
    answers: Callable[[Tokenizer, Sequence[int]], tuple[Ids, Ids]] = field(repr=False)


@dataclass(frozen=True)
class Reader:
    """How a task reads what a user gives it, where it is not a table of prompts and answers.

    Attributes:
        identity: ``identity(path)`` is what the store's key knows of the file, or raises
            ``UsageError``.
        read: ``read(tokenizer, path, n)`` gives up to n prompts.
    """

    identity: Callable[[str], str] = field(repr=False)
    read: Callable[[Tokenizer, str, int], Prompts] = field(repr=False)


@dataclass(frozen=True)
class Task:
    """A grammar of prompts.

    Attributes:
        name: The word ``-k`` knows it by: ``"ioi"``.
        version: Raised when the prompts change, so that stored measurements go stale.
        generate: ``generate(tokenizer, n, generator)`` gives n prompts, or raises
            ``NotApplicable`` with the reason.
        sizes: How many prompts each profile takes.
        behaviour_sizes: How many it takes where only the behaviour is asked for, which costs
            a pass each, over many checkpoints at once; ``sizes`` unless said.
        longest: No prompt is longer than so many tokens; for the plan's cost.
        levels: The behaviour gate, or None where the task has no answers.
        corruption: The corrupted variant that patching uses unless told otherwise.
        annotate: ``annotate(tokenizer, prompts)`` finds the named positions and further
            tokens from the token ids and the answers, so that a user's own prompts get
            them too.
        column: The column that gives the answers in published files of this task, where
            one number does.
        reader: How it reads a user's own file; ``csv_prompts`` does unless said.
        grammar: ``grammar(tokenizer)`` gives its prompts as named choices that can be searched,
            or raises ``NotApplicable``; ``generate`` makes no others.
    """

    name: str
    version: int
    generate: Callable[[Tokenizer, int, np.random.Generator], Prompts] = field(repr=False)
    sizes: Mapping[str, int]
    longest: int
    levels: Levels | None = None
    corruption: str | None = None
    behaviour_sizes: Mapping[str, int] | None = None
    annotate: Callable[[Tokenizer, Prompts], Prompts] | None = field(default=None, repr=False)
    column: Column | None = None
    reader: Reader | None = None
    grammar: Callable[[Tokenizer], Grammar] | None = field(default=None, repr=False)

    @property
    def behaviour(self) -> Task:
        """The same prompts, as many as claims about the behaviour alone take."""
        return replace(self, sizes=self.behaviour_sizes or self.sizes)
