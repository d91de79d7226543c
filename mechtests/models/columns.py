"""What a file of recorded values holds: columns of numbers over checkpoints, and of what."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mechtests.errors import UsageError
from mechtests.models.cell import Checkpoint

TASKS = {
    "ioi": "ioi",
    "greater_than": "greater_than",
    "gender_pronoun": "pronoun",
    "pronoun": "pronoun",
    "sva": "sva",
}
"""What files call a task, and what we do."""

HEAD_AXES = ("layer", "head")
"""The axes of a value that every head has."""


@dataclass(frozen=True)
class Quantity:
    """What a column is of, as far as its name or its file's says.

    Attributes:
        metric: The metric's name; empty where only the index is known.
        value: Which of the metric's values; empty likewise.
        task: The task's name, or None.
        scale: What the numbers are multiplied with to be in the metric's unit.
        axes: The axes of the value beside the prompts.
        index: Where on them.
    """

    metric: str
    value: str
    task: str | None = None
    scale: float = 1.0
    axes: tuple[str, ...] = ()
    index: tuple[int, ...] = ()


@dataclass(frozen=True)
class Column:
    """Numbers over checkpoints.

    Attributes:
        name: The column's name, or where in a JSON file it is.
        model: The model it is of, where the file says.
        quantity: What it is of, where the file says.
        values: The number at each checkpoint where there is one; at None a mean over training.
        taken: Whether it is imported where no column is asked for by name.
        header: The name in the header, where one name has the numbers of many heads.
    """

    name: str
    model: str | None
    quantity: Quantity | None
    values: Mapping[Checkpoint | None, float]
    taken: bool = True
    header: str = ""

    @property
    def index(self) -> tuple[int, ...]:
        """Where on its axes it is: a layer and a head, or nothing."""
        return () if self.quantity is None else self.quantity.index

    @property
    def known(self) -> bool:
        """Whether the file says what it is of."""
        return self.quantity is not None and bool(self.quantity.metric)


@dataclass(frozen=True)
class Table:
    """What a file holds.

    Attributes:
        path: The file.
        columns: Its columns of numbers.
        source: Where the values come from, in the file's own words.
        notes: What the reader of the file should know.
    """

    path: Path
    columns: tuple[Column, ...]
    source: str = ""
    notes: tuple[str, ...] = ()

    def column(self, name: str) -> Column:
        """A column by its name, the first of those of one header.

        Raises:
            UsageError: There is no such column.
        """
        return self.named(name)[0]

    def named(self, name: str) -> tuple[Column, ...]:
        """The column of a name, or all of a header: those of its heads.

        Raises:
            UsageError: There is no such column.
        """
        found = tuple(column for column in self.columns if name in (column.name, column.header))
        if not found:
            known = dict.fromkeys(column.header or column.name for column in self.columns)
            raise UsageError(f"{self.path.name} has no column {name!r}; it has {', '.join(known)}")
        return found


def checkpoint(row: Mapping[str, float], where: str) -> Checkpoint:
    """The checkpoint that a row's ``step`` or ``tokens`` names.

    Raises:
        UsageError: Neither is there, or one does not count from 0.
    """
    counts = {}
    for name in ("step", "tokens"):
        if name in row:
            counts[name] = as_count(row[name], name, where)
    if not counts:
        raise UsageError(f"{where}: neither step nor tokens says which checkpoint this is")
    name = next(iter(counts))
    return Checkpoint(f"{name}{counts[name]}", counts.get("step"), counts.get("tokens"))


def as_count(number: float, name: str, where: str) -> int:
    """A number that counts from 0.

    Raises:
        UsageError: It does not.
    """
    if number < 0 or number != round(number):
        raise UsageError(f"{where}: {name} counts from 0, got {number:g}")
    return int(number)


def as_number(said: object, where: str) -> float:
    """A number as a file has it.

    Raises:
        UsageError: It is none, or not finite.
    """
    try:
        value = math.nan if isinstance(said, bool) else float(said)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{where}: {said!r} is not a number")
    return value


def tasks_in(stem: str) -> Iterator[str]:
    """The tasks that a file's name speaks of, in the file's words."""
    words = stem.replace("-", "_")
    return (task for task in TASKS if re.search(rf"(^|_){task}(_|$)", words))
