"""Recorded values come in: a file is read, what is in it is said, and the recording is kept."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mechtests import recorded_errors
from mechtests.errors import UsageError
from mechtests.metrics.metric import Metric
from mechtests.models import recording, sources, tables
from mechtests.models.cell import Checkpoint
from mechtests.models.columns import Column, Quantity, Table
from mechtests.models.recording import Entry
from mechtests.models.revisions import PYTHIA_TOKENS_PER_STEP

Json = Any


@dataclass(frozen=True)
class Options:
    """What the user says of a file, where the file does not say it or says it otherwise.

    Attributes:
        name: The model, of a file of one model.
        column: The one column to import.
        metric: The metric's name.
        task: The task's name.
        value: Which of the metric's values.
        unit: The unit, of a metric mechtests does not have.
        scale: What the numbers are multiplied with.
        prompts: How many prompts each mean is over.
        source: Where the values come from.
        error: The standard error of every mean, in the value's unit.
        error_column: The column with the standard error of each mean.
        binomial: Of how many independent trials each mean is the share.
        replicate: Other recordings of the same, from which the error is derived.
        proportional: Whether that error grows with the values.
        zero_until: The last step at which the truth is 0, for the error of small values.
    """

    name: str | None = None
    column: str | None = None
    metric: str | None = None
    task: str | None = None
    value: str | None = None
    unit: str | None = None
    scale: float | None = None
    prompts: int | None = None
    source: str | None = None
    error: float | None = None
    error_column: str | None = None
    binomial: int | None = None
    replicate: tuple[Path, ...] = ()
    proportional: bool | None = None
    zero_until: int | None = None

    def given(self) -> dict[str, Json]:
        """Those that were given, as JSON."""
        said = {each.name: getattr(self, each.name) for each in fields(self)}
        said["replicate"] = [path.name for path in self.replicate]
        return {name: value for name, value in said.items() if value not in (None, [])}


@dataclass
class Imported:
    """What an import did.

    Attributes:
        entries: What was recorded, by model.
        notes: What the user should know.
    """

    entries: dict[str, list[Entry]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """What was recorded, a line each, and the notes."""
        for model, entries in self.entries.items():
            for entry in entries:
                yield f"{recording.PREFIX}{model}  {entry.name}: {_told(entry)}"
        yield from dict.fromkeys(self.notes)


def import_file(path: Path, options: Options) -> Imported:
    """Read a file and keep what it holds in the recordings of its models.

    What the recordings have of the same metric, task, value and index is replaced.

    Raises:
        UsageError: The file cannot be read, or does not say what its values are of.
    """
    table = tables.read(path)
    ways = (options.error, options.error_column, options.binomial, options.replicate or None)
    if sum(way is not None for way in ways) > 1:
        raise UsageError("give one of --error, --error-column, --binomial and --replicate")
    if options.proportional and not options.replicate:
        raise UsageError("--proportional says how errors of --replicate grow; give that too")
    if options.zero_until is not None and not options.proportional:
        raise UsageError("--zero-until is the end of an error that grows; give --proportional too")
    if options.error_column is not None:
        table.named(options.error_column)
    made = Imported(notes=list(table.notes))
    for column in _chosen(table, options, made.notes):
        model, entry = _entry(table, column, options)
        if any(entry.key == other.key for other in made.entries.get(model, ())):
            raise UsageError(f"{path.name}: two columns are {entry.name}; choose with --column")
        made.entries.setdefault(model, []).append(entry)
    made.entries = _with_errors(table, options, made)
    for model, entries in made.entries.items():
        try:
            known = recording.read(model)
        except UsageError:
            known = recording.Recording(model, ())
        recording.write(known.having(entries))
    if not (options.source or table.source):
        made.notes.append(
            f"{path.name} does not say where its values come from: please import it again with "
            f'--source "paper, figure, file", so that reports can cite it'
        )
    return made


def _chosen(table: Table, options: Options, notes: list[str]) -> Iterator[Column]:
    """The columns that are imported."""
    if options.column is not None:
        yield from table.named(options.column)
        return
    error = options.error_column
    left = [column for column in table.columns if error not in (column.name, column.header)]
    taken = [column for column in left if column.taken]
    names = dict.fromkeys(column.header or column.name for column in taken)
    loose = options.name is not None or any(column.header for column in taken)
    if loose and len(names) > 1 and not any(column.known for column in taken):
        raise UsageError(
            f"{table.path.name} has several columns: choose the one with the values of "
            f"{options.name or 'the heads'} with --column: {', '.join(names)}"
        )
    if others := dict.fromkeys(c.header or c.name for c in left if not c.taken):
        notes.append(
            f"{table.path.name}: not imported: {', '.join(others)}; --column takes one of them, "
            f"in place of what the recording has of it from another file"
        )
    yield from taken


def _entry(table: Table, column: Column, options: Options) -> tuple[str, Entry]:
    """A column as an entry of a model's recording."""
    where = f"{table.path.name}, column {column.name}"
    quantity = column.quantity
    by_name = options.metric, options.task, options.value
    missing = [
        f"--{name}"
        for name, said, known in zip(
            ("metric", "task", "value"),
            by_name,
            (None,) * 3 if quantity is None else (quantity.metric, quantity.task, quantity.value),
            strict=True,
        )
        if not (said or known)
    ]
    model = options.name or column.model or (column.name if quantity is None else None)
    if missing or model is None:
        missing += ["--name"] if model is None else []
        raise UsageError(f"{where}: the file does not say what it is of; give {', '.join(missing)}")
    if not re.fullmatch(r"[\w.\-]+", model):
        raise UsageError(f"{where}: {model!r} cannot be a model's name; give --name")
    base = quantity or Quantity("", "")
    quantity = replace(
        base,
        metric=options.metric or base.metric,
        task=options.task or base.task,
        value=options.value or base.value,
        scale=base.scale if options.scale is None else options.scale,
    )
    moments = {_with_tokens(at, model): value for at, value in column.values.items()}
    if not moments:
        raise UsageError(f"{where}: there is no number in it")
    means = tuple(quantity.scale * value for value in moments.values())
    entry = Entry(
        metric=quantity.metric,
        task=str(quantity.task),
        value=quantity.value,
        unit=options.unit or _unit(quantity, where),
        checkpoints=tuple(moments),
        means=means,
        errors=(None,) * len(means),
        prompts=options.prompts,
        axes=quantity.axes,
        index=quantity.index,
        provenance={
            "source": options.source or table.source,
            "file": table.path.name,
            "column": column.name,
            "sha256": hashlib.sha256(table.path.read_bytes()).hexdigest(),
            "imported": datetime.now(UTC).isoformat(timespec="seconds"),
            "options": options.given(),
        },
    )
    recording.check(entry, model, where)
    return model, entry


def _with_tokens(at: Checkpoint | None, model: str) -> Checkpoint | None:
    """Pythia's tokens are known by the step."""
    if at is None or at.tokens is not None or at.step is None or not sources.is_pythia(model):
        return at
    return replace(at, tokens=at.step * PYTHIA_TOKENS_PER_STEP)


def _unit(quantity: Quantity, where: str) -> str:
    """The unit of a value of a metric; a metric that is not ours has none we know.

    Raises:
        UsageError: The metric is of a family of ours and does not exist, or has no such value.
    """
    family, _, function = quantity.metric.partition(".")
    try:
        module = importlib.import_module(f"mechtests.metrics.{family}")
    except (ImportError, ValueError):
        return ""
    metric = getattr(module, function or "", None)
    if not isinstance(metric, Metric):
        raise UsageError(f"{where}: there is no metric {quantity.metric!r} in mechtests")
    if quantity.value not in metric.values:
        raise UsageError(
            f"{where}: {metric.name} has no value {quantity.value!r}; it has "
            f"{', '.join(metric.values)}"
        )
    value = metric.values[quantity.value]
    axes = tuple(axis for axis in value.axes if axis != "prompt")
    if axes != quantity.axes:
        raise UsageError(
            f"{where}: {metric.name} {quantity.value} has a number for each "
            f"{' and '.join(axes) or 'prompt'}, which this file does not give"
        )
    return value.unit


def _with_errors(table: Table, options: Options, made: Imported) -> dict[str, list[Entry]]:
    """The entries with their standard errors, found in the way that was asked for."""
    if options.error is not None:
        return recorded_errors.given(made.entries, options.error)
    if options.error_column is not None:
        columns = table.named(options.error_column)
        scales = (c.quantity.scale for c in table.columns if c.taken and c.quantity and c.known)
        scale = next(scales, 1.0) if options.scale is None else options.scale
        return recorded_errors.of_columns(made.entries, columns, scale)
    if options.binomial is not None:
        return recorded_errors.binomial(made.entries, options.binomial)
    if options.replicate:
        others = [_all_of(path, options) for path in options.replicate]
        found, notes = recorded_errors.from_replicates(
            made.entries,
            others,
            proportional=bool(options.proportional),
            zero_until=options.zero_until,
        )
        made.notes += notes
        return found
    return made.entries


def _all_of(path: Path, options: Options) -> dict[recorded_errors.Key, Entry]:
    """Everything a second recording holds; what a column does not say is as in the first."""
    table = tables.read(path)
    same = Options(
        metric=options.metric, task=options.task, value=options.value, scale=options.scale
    )
    found = {}
    for column in table.columns:
        if column.quantity is None and column.model not in (None, column.name):
            continue  # of something else than the model's column that is imported now
        with contextlib.suppress(UsageError):  # it does not say what it is of
            model, entry = _entry(table, column, Options() if column.known else same)
            found[model, entry.key] = entry
    return found


def _told(entry: Entry) -> str:
    """What was recorded, in a line."""
    labels = [at.label for at in entry.checkpoints if at is not None]
    count = f"{len(labels)} checkpoint{'s' if len(labels) > 1 else ''}"
    span = f", {' to '.join(dict.fromkeys((labels[0], labels[-1])))}" if labels else ""
    known = next((error for error in entry.errors if error is not None), None)
    constant = known is not None and set(entry.errors) == {known}
    said = "no standard error" if known is None else "standard errors"
    said = f"standard error {known:.3g}" if constant else said
    return f"{count}{span}, {said}" if labels else f"a mean over training, {said}"
