"""Arithmetic in tests: a tokenizer of numbers and signs, and answers of a model that is made up."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mechtests.arithmetic.answers import PROBLEM, answers
from mechtests.measurement import Measurement
from mechtests.tasks.arithmetic import arithmetic
from mechtests.tasks.prompts import Prompts

SIGNS = "+-*/="
UNKNOWN = "?"


@dataclass(frozen=True)
class Numerals:
    """Knows the numbers up to the largest and the signs; splits a larger number into digits.

    ``joined`` are texts that are one token wherever they occur; ``split`` signs are none.
    """

    largest: int = 99
    bos: int | None = None
    joined: Collection[str] = ()
    split: Collection[str] = ()
    unseen_are: Callable[..., bool] | None = None
    name: str = "numerals"

    @cached_property
    def vocabulary(self) -> list[str]:
        signs = [sign for sign in SIGNS if sign not in self.split]
        return ["<bos>", *signs, UNKNOWN, *map(str, range(self.largest + 1)), *self.joined]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {piece: i for i, piece in enumerate(self.vocabulary)}

    @property
    def size(self) -> int:
        return len(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        first = "".join(f"{re.escape(piece)}|" for piece in self.joined)
        found = re.findall(rf"{first}\d+|[^\w\s]", text)
        pieces = [p for each in found for p in ([each] if each in self._ids else list(each))]
        unknown = [self._ids[UNKNOWN]] * 2
        return [i for p in pieces for i in ([self._ids[p]] if p in self._ids else unknown)]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.vocabulary[i] for i in ids)

    def unseen(self, kind: str, *items: str) -> bool:
        return self.unseen_are is None or self.unseen_are(kind, *items)


def problems(largest: int = 198, n: int = 8_000, seed: int = 0) -> Prompts:
    """Prompts whose numbers follow one another as tokens."""
    return arithmetic.generate(Numerals(largest, bos=0), n, np.random.default_rng(seed))


def answered(prompts: Prompts, predicted: NDArray[np.int64]) -> Measurement:
    """``arithmetic.answers`` of a model that predicts these tokens, shape ``[prompt]``."""
    assert prompts.right is not None
    answer = prompts.right[:, 0]
    right = (predicted == answer).astype(np.float32)
    values = {
        "correct": right,
        "predicted": predicted.astype(np.int32),
        "answer": answer.astype(np.int32),
        "answer_logit": right,
        "normalized_logit": right,
        **{name: prompts.tokens[name].astype(np.int32) for name in PROBLEM},
    }
    return Measurement(
        name="arithmetic.answers",
        values=values,
        axes={name: value.axes for name, value in answers.values.items()},
        units={name: value.unit for name, value in answers.values.items()},
        cluster=prompts.cluster,
        template=prompts.template,
        half=prompts.half,
    )


def able(prompts: Prompts, accuracy: Sequence[float], seed: int = 0) -> Measurement:
    """Answers right so often, operator by operator, and else by a number that is one too large."""
    assert prompts.right is not None
    draws = np.random.default_rng(seed).random(len(prompts))
    right = draws < np.array(accuracy)[prompts.template]
    answer = prompts.right[:, 0]
    return answered(prompts, np.where(right, answer, answer + 1))
