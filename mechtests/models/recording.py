"""A recording: values of a model that someone else measured, imported with their provenance.

One JSON file a model, ``recorded/<model>.json`` in the cache folder::

    {"schema": 1, "model": "pythia-410m", "values": [
      {"metric": "behaviour.answers", "task": "ioi", "value": "logit_difference",
       "unit": "logits", "axes": [], "index": [],
       "checkpoints": [{"label": "step1", "step": 1, "tokens": 2097152}, ...],
       "means": [...], "errors": [... or null], "error_from": "how the errors were obtained",
       "prompts": null,
       "provenance": {"source": "...", "file": "...", "sha256": "...", "imported": "...",
                      "options": {...}}}]}

A mean over all of training has the one checkpoint null. What was imported last of one metric,
task, value and index is what the recording has of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from mechtests.errors import LoadError, MeasurementError, NotApplicable, UsageError
from mechtests.measurement import Recorded
from mechtests.models.cell import Cell, Checkpoint
from mechtests.models.joining import joined
from mechtests.models.revisions import pythia_grid
from mechtests.store import default_folder

Json = Any
SCHEMA = 1
KEY = "recording"
"""What marks the identity of a recorded cell, beside the recording's digest."""
ROUNDING = 1e-6
"""So much more than 1 is a share that was recorded in single precision."""
PREFIX = "recorded:"
"""What a recorded model's name starts with."""


@dataclass(frozen=True)
class Entry:
    """One value of one metric on one task, over the checkpoints it was recorded at.

    Attributes:
        metric: The metric's name: ``"behaviour.answers"``.
        task: The task's name.
        value: Which of the metric's values: ``"logit_difference"``.
        unit: Its unit, in words.
        checkpoints: Where it was recorded; ``(None,)`` for a mean over training.
        means: The mean over the prompts at each checkpoint.
        errors: The standard error of each mean, None where nothing is known of it.
        error_from: How the errors were obtained, in words.
        prompts: How many prompts each mean is over, or None.
        axes: The value's axes beside the prompts: ``("layer", "head")``.
        index: Where on them: ``(9, 7)``.
        provenance: Source, file, digest, time and options of the import.
    """

    metric: str
    task: str
    value: str
    unit: str
    checkpoints: tuple[Checkpoint | None, ...]
    means: tuple[float, ...]
    errors: tuple[float | None, ...]
    error_from: str = ""
    prompts: int | None = None
    axes: tuple[str, ...] = ()
    index: tuple[int, ...] = ()
    provenance: Mapping[str, Json] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str, tuple[int, ...]]:
        """What an import replaces."""
        return self.metric, self.task, self.value, self.index

    @property
    def name(self) -> str:
        """The value in words: ``behaviour.answers logit_difference on ioi``."""
        where = f" of {'.'.join(map(str, self.index))}" if self.index else ""
        return f"{self.metric} {self.value}{where} on {self.task}"

    @classmethod
    def from_json(cls, said: Mapping[str, Json]) -> Entry:
        """The entry of a file."""
        moments = (None if c is None else Checkpoint(**c) for c in said["checkpoints"])
        lists = {name: tuple(said[name]) for name in ("means", "errors", "axes", "index")}
        entry = cls(**{**said, **lists, "checkpoints": tuple(moments)})
        if not len(entry.checkpoints) == len(entry.means) == len(entry.errors):
            raise ValueError(f"{entry.name} has not one mean and one error a checkpoint")
        return entry


@dataclass(frozen=True)
class Recording:
    """All that is recorded of one model."""

    model: str
    entries: tuple[Entry, ...]
    sha256: str = ""

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Every moment of training at which something is recorded, first to last."""
        moments = {c for entry in self.entries for c in entry.checkpoints if c is not None}
        return tuple(sorted(moments, key=lambda c: (c.progress or 0, c.label)))

    def having(self, entries: Iterable[Entry]) -> Recording:
        """The recording with some entries more, or in place of those it had."""
        new = tuple(entries)
        shape = {entry.key[:3]: entry.axes for entry in new}
        old = [each for each in self.entries if shape.get(each.key[:3], each.axes) == each.axes]
        kept = {entry.key: entry for entry in (*old, *new)}
        return Recording(self.model, tuple(kept.values()))


def check(entry: Entry, model: str, where: str) -> None:
    """Whether an entry can be what it is said to be.

    Raises:
        UsageError: The model has no such head, or a share is not one.
    """
    grid = pythia_grid(model)
    if any(at >= grid.get(axis, at + 1) for axis, at in zip(entry.axes, entry.index, strict=True)):
        raise UsageError(
            f"{where}: {model} has {grid['layer']} layers of {grid['head']} heads, counted from 0, "
            f"and no {'.'.join(map(str, entry.index))}"
        )
    least, most = min(entry.means), max(entry.means)
    if entry.unit == "share" and not (least >= 0 and most <= 1 + ROUNDING):
        raise UsageError(
            f"{where}: a share lies between 0 and 1, got {least:.3g} to {most:.3g}; give --scale, "
            f"0.01 for percent"
        )


def folder() -> Path:
    """Where recordings are kept."""
    return default_folder() / "recorded"


def known() -> tuple[str, ...]:
    """The models there are recordings of."""
    return tuple(sorted(path.stem for path in folder().glob("*.json")))


def read(model: str) -> Recording:
    """The recording of a model.

    Raises:
        UsageError: There is none.
        LoadError: Its file is damaged or of another version.
    """
    path = folder() / f"{model}.json"
    try:
        status = path.stat()
        return _parsed(path, model, status.st_mtime_ns, status.st_size)
    except OSError:
        there = f"there are recordings of {', '.join(known())}" if known() else "there are none"
        raise UsageError(
            f"nothing is recorded of {model!r}; {there}. Import one with: mechtests import FILE"
        ) from None


@lru_cache(maxsize=64)  # a series asks again for each of its checkpoints
def _parsed(path: Path, model: str, *_: int) -> Recording:
    """What a file says; its time and size are told so that a changed one is read again."""
    text = path.read_bytes()
    try:
        said = json.loads(text)
        if said["schema"] != SCHEMA or said["model"] != model:
            raise ValueError(f"schema {said['schema']}, model {said['model']}")
        entries = tuple(Entry.from_json(each) for each in said["values"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LoadError(
            f"the recording {path} is damaged or of another version of mechtests "
            f"({type(error).__name__}: {error}); delete it and import it again"
        ) from error
    return Recording(model, entries, hashlib.sha256(text).hexdigest())


def write(recording: Recording) -> Path:
    """Keep a recording, in place of what there was of its model.

    Raises:
        UsageError: The folder cannot be written.
    """
    path = folder() / f"{recording.model}.json"
    values = [asdict(entry) for entry in recording.entries]
    text = json.dumps({"schema": SCHEMA, "model": recording.model, "values": values}, indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=path.parent, suffix=".draft")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text + "\n")
        Path(draft).replace(path)
    except OSError as error:
        raise UsageError(
            f"the recording cannot be written to {path} ({error.strerror or error}); choose "
            f"another folder with MECHTESTS_CACHE"
        ) from error
    return path


def measurement(identity: Mapping[str, Json], metric: str, task: str, cell: Cell) -> Recorded:
    """What is recorded of a metric on a task in a cell.

    Args:
        identity: The cell's identity (``models.recorded.RecordedSource.identity``).
        metric: The metric's name.
        task: The task's name.
        cell: The cell.

    Raises:
        NotApplicable: It was not recorded, or not at this checkpoint.
        MeasurementError: The recording is gone, or no longer what it was.
    """
    recording = _as_it_was(identity)
    who = f"the recording of {recording.model}"
    mine = [entry for entry in recording.entries if (entry.metric, entry.task) == (metric, task)]
    if not mine:
        has = dict.fromkeys(f"{entry.metric} on {entry.task}" for entry in recording.entries)
        raise NotApplicable(f"{who} has no {metric} on {task}; it has {', '.join(has)}")
    here = [entry for entry in mine if cell.checkpoint in entry.checkpoints]
    if not here:
        raise NotApplicable(
            f"{who} has no {metric} on {task} at {_called(cell.checkpoint)}; it has it at "
            f"{_span(mine)}"
        )
    return joined(recording.model, mine, cell.checkpoint)


def _as_it_was(identity: Mapping[str, Json]) -> Recording:
    """The recording that an identity names.

    Raises:
        MeasurementError: It is gone, damaged, or another one by now.
    """
    model = identity[KEY]
    try:
        found = read(model)
    except (UsageError, LoadError) as error:
        raise MeasurementError(str(error)) from error
    if found.sha256 != identity["sha256"]:
        raise MeasurementError(
            f"the recording of {model} was imported anew since this run (its SHA-256 was "
            f"{identity['sha256'][:12]}, now {found.sha256[:12]}); run without --mech-replay"
        )
    return found


def _called(checkpoint: Checkpoint | None) -> str:
    return "no checkpoint" if checkpoint is None else checkpoint.label


def _span(entries: Iterable[Entry]) -> str:
    moments = Recording("", tuple(entries)).checkpoints
    if not moments:
        return "no checkpoint, only as a mean over training"
    if len(moments) < 3:
        return " and ".join(c.label for c in moments)
    return f"{len(moments)} checkpoints from {moments[0].label} to {moments[-1].label}"
