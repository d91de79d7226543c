"""A cell: a model at a checkpoint. Its source, and which checkpoints were asked for."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from mechtests.errors import UsageError

Json = Any
Kind = Literal["hub", "folder", "gguf", "embedded", "recorded", "object"]
Variant = Literal["trained", "untrained"]

FINAL = "final"
"""The label of a model's released weights, where they are not one of its steps."""


@dataclass(frozen=True)
class Checkpoint:
    """One moment of training.

    Attributes:
        label: What its source calls it: ``"step1000"``, ``"checkpoint-500"``, ``"final"``.
        step: Optimiser steps so far, where the source says.
        tokens: Training tokens seen so far, where the source says.
    """

    label: str
    step: int | None = None
    tokens: int | None = None

    @property
    def progress(self) -> int | None:
        """Steps, or else tokens: what orders the checkpoints of one source."""
        return self.tokens if self.step is None else self.step


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model in memory.

    Attributes:
        model: The Hugging Face causal language model, in eval mode, without gradients.
        tokenizer: A ``models.tokenizer.CellTokenizer``.
        facts: What was found on loading, as JSON: architecture, dtype, tokenizer digest,
            BOS policy; kept beside the measurements, never part of their key.
    """

    model: Any
    tokenizer: Any
    facts: Mapping[str, Json] = field(default_factory=dict)


class Source(Protocol):
    """Where the checkpoints of one model come from."""

    def __hash__(self) -> int:
        """Sources are values: equal ones are one source."""
        ...

    @property
    def name(self) -> str:
        """The short name people know the model by."""
        ...

    @property
    def kind(self) -> Kind:
        """Hub, folder, GGUF file, embedded in the package, recorded without a model, an object."""
        ...

    def checkpoints(self, *, offline: bool) -> tuple[Checkpoint, ...]:
        """All checkpoints, first to last; empty where the model has only its weights.

        May ask the network where it is not ``offline``.
        """
        ...

    def identity(self, checkpoint: Checkpoint | None, *, offline: bool) -> Mapping[str, Json]:
        """What names exactly these weights: repository and commit, or a SHA-256."""
        ...

    def config(self, checkpoint: Checkpoint | None, *, offline: bool) -> dict[str, Json]:
        """The model's ``config.json``, without loading weights."""
        ...

    def download_bytes(self, checkpoint: Checkpoint | None, *, offline: bool) -> int:
        """Bytes that loading would still have to download; 0 when all is here."""
        ...

    def fetch(self, checkpoint: Checkpoint | None = None, *, offline: bool = False) -> Path:
        """The file or folder with the weights, downloaded where they are not here yet."""
        ...

    def load(
        self,
        checkpoint: Checkpoint | None,
        *,
        dtype: str,
        device: str,
        offline: bool,
        untrained_seed: int | None = None,
    ) -> Loaded:
        """The model and its tokenizer.

        Args:
            checkpoint: One of ``checkpoints``, or None where there are none.
            dtype: The torch dtype by name: ``"float32"``.
            device: The torch device by name: ``"cpu"``.
            offline: Whether to refuse every download.
            untrained_seed: Initialise the same configuration from this seed instead of
                reading weights.

        Raises:
            LoadError: It cannot be loaded; the message says why and what to do.
        """
        ...


@dataclass(frozen=True)
class Cell:
    """A model at a checkpoint.

    Attributes:
        model: The source's name.
        checkpoint: The moment of training, None where the model has only its weights.
        source: Where it is loaded from.
        variant: ``"untrained"`` is the same configuration, freshly initialised.
    """

    model: str
    checkpoint: Checkpoint | None
    source: Source = field(repr=False)
    variant: Variant = "trained"

    @property
    def id(self) -> str:
        """``pythia-160m:step1000``, in characters that pytest's ``-k`` can read.

        A model's released weights are plainly its name.
        """
        parts = [self.model]
        if self.checkpoint is not None and self.checkpoint.label != FINAL:
            parts.append(self.checkpoint.label)
        if self.variant == "untrained":
            parts.append(self.variant)
        return ":".join(re.sub(r"[^\w:+\-./]+", "-", part) for part in parts)


def select(checkpoints: Sequence[Checkpoint], spec: str) -> tuple[Checkpoint | None, ...]:
    """The checkpoints that ``--checkpoints`` names, in training order.

    Args:
        checkpoints: All that the source has, in order; may be empty.
        spec: ``final``, ``all``, ``log:12``, ``step:0,1000``, ``tokens:2e9``,
            ``1000..8000``, or labels; joined by commas where they are lists.

    Returns:
        ``(None,)`` for a model without checkpoints. ``all`` and ``log`` mean the
        checkpoints with a step or token count, where there are any: released weights
        that repeat the last step would count it twice. ``tokens:`` takes the nearest
        checkpoint on a logarithmic scale, whose own label and tokens say which it is.

    Raises:
        UsageError: The spec cannot be read, or names what does not exist.
    """
    if not checkpoints:
        if spec in (FINAL, "all"):
            return (None,)
        raise UsageError(
            f"--checkpoints {spec}: this model has no checkpoints, only its final weights; "
            f"ask for 'final'"
        )
    found = _select(checkpoints, spec)
    return tuple(checkpoint for checkpoint in checkpoints if checkpoint in found)


def _select(checkpoints: Sequence[Checkpoint], spec: str) -> Sequence[Checkpoint]:
    series = [c for c in checkpoints if c.progress is not None] or checkpoints
    if spec == FINAL:
        return checkpoints[-1:]
    if spec == "all":
        return series
    if match := re.fullmatch(r"log:(\d+)", spec):
        return _log_spaced(series, int(match[1]), spec)
    if match := re.fullmatch(r"(\d+)\.\.(\d+)", spec):
        return _between(series, int(match[1]), int(match[2]), spec)
    kind, _, words = spec.rpartition(":")
    find = {"step": _at_step, "tokens": _at_tokens}.get(kind, _labelled)
    return [find(checkpoints, word.strip(), spec) for word in words.split(",")]


def _between(
    series: Sequence[Checkpoint], first: int, last: int, spec: str
) -> Sequence[Checkpoint]:
    inside = [c for c in series if c.step is not None and first <= c.step <= last]
    if not inside:
        raise _unknown(series, spec)
    return inside


def _labelled(checkpoints: Sequence[Checkpoint], word: str, spec: str) -> Checkpoint:
    for checkpoint in checkpoints:
        if checkpoint.label == word:
            return checkpoint
    raise _unknown(checkpoints, spec)


def _number(word: str, spec: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"--checkpoints {spec}: {word!r} is not a number; {_FORMS}")
    return value


def _at_step(checkpoints: Sequence[Checkpoint], word: str, spec: str) -> Checkpoint:
    step = _number(word, spec)
    for checkpoint in checkpoints:
        if checkpoint.step == step:
            return checkpoint
    raise _unknown(checkpoints, f"step:{word}")


def _at_tokens(checkpoints: Sequence[Checkpoint], word: str, spec: str) -> Checkpoint:
    target = math.log1p(_number(word, spec))
    counted = [c for c in checkpoints if c.tokens is not None]
    if not counted:
        raise UsageError(
            f"--checkpoints {spec}: these checkpoints do not say how many tokens they saw; "
            f"{_exist(checkpoints)}, so ask by step"
        )
    return min(counted, key=lambda c: abs(math.log1p(c.tokens or 0) - target))


def _log_spaced(series: Sequence[Checkpoint], count: int, spec: str) -> Sequence[Checkpoint]:
    """``count`` of the series, evenly spaced in log(1 + step), first and last among them."""
    if count < 1:
        raise UsageError(f"--checkpoints {spec}: at least one checkpoint is needed")
    if count == 1 or count >= len(series):
        return series[-count:]
    at = {c: math.log1p(i if c.progress is None else c.progress) for i, c in enumerate(series)}
    first, *free, last = series
    chosen = [first, last]
    for i in range(1, count - 1):
        target = at[first] + (at[last] - at[first]) * i / (count - 1)
        chosen.append(min(free, key=lambda c: abs(at[c] - target)))
        free.remove(chosen[-1])
    return chosen


_FORMS = "write final, all, log:12, step:0,1000, tokens:2e9, 1000..8000, or labels"


def _exist(checkpoints: Sequence[Checkpoint]) -> str:
    """What exists, in a line."""
    labels = [c.label for c in checkpoints]
    if len(labels) > 12:
        return f"{len(labels)} exist: {', '.join(labels[:4])}, ..., {', '.join(labels[-3:])}"
    return f"these exist: {', '.join(labels)}"


def _unknown(checkpoints: Sequence[Checkpoint], spec: str) -> UsageError:
    return UsageError(f"--checkpoints {spec}: no such checkpoint; {_exist(checkpoints)}; {_FORMS}")
