"""Files of recorded values: what a CSV or JSON file holds, by its header.

Understood are tables with a column ``step`` or ``tokens`` and beside it a column a model (a
value of many models) or a column a quantity (many values of one model); and two kinds of JSON
file: copy scores by head and step, and mean circuit sizes by model and task.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechtests.errors import UsageError
from mechtests.models.cell import Checkpoint

Json = Any


@dataclass(frozen=True)
class Quantity:
    """What a column is of, as far as its name or its file's says.

    Attributes:
        metric: The metric's name.
        value: Which of the metric's values.
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
    """

    name: str
    model: str | None
    quantity: Quantity | None
    values: Mapping[Checkpoint | None, float]
    taken: bool = True


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
        """A column by its name.

        Raises:
            UsageError: There is no such column.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise UsageError(
            f"{self.path.name} has no column {name!r}; it has "
            f"{', '.join(column.name for column in self.columns)}"
        )


TASKS = {
    "ioi": "ioi",
    "greater_than": "greater_than",
    "gender_pronoun": "pronoun",
    "pronoun": "pronoun",
    "sva": "sva",
}
"""What files call a task, and what we do."""
_TASK = rf"(?P<task>{'|'.join(TASKS)})"
_QUANTITIES = (
    (re.compile(rf"{_TASK}_logit_diff(?:erence)?(?:_\w+)?"), "behaviour.answers logit_difference"),
    (re.compile(rf"{_TASK}_prob_diff(?:_\w+)?"), "behaviour.answers probability_difference"),
    (re.compile(r"num_edges_in_circuit"), "circuits.size edges"),
    (re.compile(r"num_nodes_in_circuit"), "circuits.size nodes"),
    (
        re.compile(r"weighted_edge_jaccard_with_previous_ckpt"),
        "circuits.similarity weighted_edges_with_previous",
    ),
)
_MODEL = re.compile(r"((?:pythia|gpt2|qwen|llama|gemma|smollm|sprout|olmo)[\w.\-]*?)(?=_|$)")
_HEAD = re.compile(r"(\d+)\.(\d+)")


def read(path: Path) -> Table:
    """What a file holds.

    Raises:
        UsageError: It cannot be read, or its layout is not one of those understood.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as text ({error})") from error
    if path.suffix.lower() == ".json":
        return _json(path, text)
    if path.suffix.lower() == ".csv":
        return _csv(path, text)
    raise UsageError(f"{path.name}: recorded values are imported from a .csv or .json file")


def _csv(path: Path, text: str) -> Table:
    lines = list(csv.reader(text.splitlines()))
    header = [name.strip() for name in lines[0]] if lines else []
    if not {"step", "tokens"} & set(header):
        raise UsageError(
            f"{path.name} needs a column step or tokens, which says at which checkpoint each row "
            f"was recorded; it has the columns {', '.join(header) or 'none'}"
        )
    rows, notes = _rows(path, header, lines[1:])
    names = [name for name in header if name not in ("step", "tokens")]
    of_model = match[1] if (match := _MODEL.match(path.stem)) else None
    by_name = {name: _quantity(name, path.stem) for name in names}
    in_stem = _quantity_in(path.stem)
    circuits = any(q is not None and q.metric.startswith("circuits.") for q in by_name.values())
    columns = []
    for name in names:
        quantity = by_name[name]
        apart = circuits and (quantity is None or not quantity.metric.startswith("circuits."))
        a_model = quantity is None and _MODEL.fullmatch(name) is not None
        columns.append(
            Column(
                name=name,
                model=name if a_model else of_model,
                quantity=in_stem if a_model else quantity,
                values={at: row[name] for at, row in rows.items() if name in row},
                taken=not apart,
            )
        )
    return Table(path, tuple(columns), notes=tuple(notes))


def _rows(
    path: Path, header: Sequence[str], lines: Sequence[Sequence[str]]
) -> tuple[dict[Checkpoint | None, dict[str, float]], list[str]]:
    """The numbers of each row by its checkpoint; equal rows are one, and said."""
    rows: dict[Checkpoint | None, dict[str, float]] = {}
    notes = []
    for number, line in enumerate(lines, start=2):
        if not any(cell.strip() for cell in line):
            continue
        where = f"{path.name}, line {number}"
        if len(line) != len(header):
            raise UsageError(f"{where}: {len(header)} columns are needed, got {len(line)}")
        row = {
            name: _number(cell, f"{where}, column {name}")
            for name, cell in zip(header, line, strict=True)
            if cell.strip()
        }
        at = _checkpoint(row, where)
        if at in rows and rows[at] != row:
            raise UsageError(
                f"{where}: {at.label} was there before with other values; keep one of the two rows"
            )
        if at in rows:
            notes.append(f"{path.name}: {at.label} is there twice with equal values, taken once")
        rows[at] = row
    if not rows:
        raise UsageError(f"{path.name} has a header and no row of numbers")
    return rows, notes


def _checkpoint(row: Mapping[str, float], where: str) -> Checkpoint:
    counts = {}
    for name in ("step", "tokens"):
        if name in row:
            if row[name] < 0 or row[name] != round(row[name]):
                raise UsageError(f"{where}: {name} counts from 0, got {row[name]:g}")
            counts[name] = int(row[name])
    if not counts:
        raise UsageError(f"{where}: neither step nor tokens says which checkpoint this is")
    name = next(iter(counts))
    return Checkpoint(f"{name}{counts[name]}", counts.get("step"), counts.get("tokens"))


def _number(text: object, where: str) -> float:
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{where}: {text!r} is not a number")
    return value


def _quantity(column: str, stem: str) -> Quantity | None:
    """What a column is of by its own name; the task may be in the file's."""
    for pattern, words in _QUANTITIES:
        if match := pattern.fullmatch(column):
            metric, value = words.split()
            said = match.groupdict().get("task") or next(_tasks_in(stem), None)
            return Quantity(metric, value, TASKS.get(said or ""))
    return None


def _quantity_in(stem: str) -> Quantity | None:
    """What a file is of, whose columns are models, by its name."""
    for pattern, words in _QUANTITIES:
        if match := pattern.search(stem):
            metric, value = words.split()
            return Quantity(metric, value, TASKS.get(match.groupdict().get("task") or ""))
    return None


def _tasks_in(stem: str) -> Iterator[str]:
    words = stem.replace("-", "_")
    return (task for task in TASKS if re.search(rf"(^|_){task}(_|$)", words))


def _json(path: Path, text: str) -> Table:
    try:
        said = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{path.name} cannot be read as JSON ({error})") from error
    source = str(said.get("source", "")) if isinstance(said, dict) else ""
    if isinstance(said, dict) and isinstance(said.get("copy_score_percent"), dict):
        return _copy_scores(path, said, source)
    if isinstance(said, dict) and isinstance(said.get("mean_num_nodes"), dict):
        return _mean_nodes(path, said["mean_num_nodes"], source)
    raise UsageError(
        f"{path.name}: this JSON file has none of the layouts that can be imported, "
        f"copy_score_percent (head -> step -> percent) and mean_num_nodes (model -> task -> mean); "
        f"write its values as a CSV file with a column step and a column a model"
    )


def _copy_scores(path: Path, said: Mapping[str, Json], source: str) -> Table:
    """Percentages of heads: keys ``layer.head``, then step."""
    columns, notes = [], []
    model = str(said["model"]) if "model" in said else None
    for head, series in said["copy_score_percent"].items():
        match = _HEAD.fullmatch(head)
        if match is None or not isinstance(series, dict):
            raise UsageError(f"{path.name}: {head!r} is not a head, layer.head, with its steps")
        if set(series) == {"note"}:
            notes.append(f"{path.name}: head {head} has a note and no values, left out")
            continue
        where = f"{path.name}, head {head}"
        values: dict[Checkpoint | None, float] = {
            _checkpoint({"step": _number(step, where)}, where): _number(value, f"{where}, {step}")
            for step, value in series.items()
        }
        quantity = Quantity(
            "copying.copy_scores",
            "copied",
            next(_tasks_in(path.stem), "ioi"),
            scale=0.01,
            axes=("layer", "head"),
            index=(int(match[1]), int(match[2])),
        )
        columns.append(Column(head, model, quantity, values))
    return Table(path, tuple(columns), source, tuple(notes))


def _mean_nodes(path: Path, said: Mapping[str, Json], source: str) -> Table:
    """Mean circuit sizes over training: model, then task."""
    columns = []
    for model, tasks in said.items():
        if not isinstance(tasks, dict):
            raise UsageError(f"{path.name}: {model!r} has no tasks with a mean each")
        for task, mean in tasks.items():
            quantity = Quantity("circuits.size", "nodes", TASKS.get(task, task))
            number = _number(mean, f"{path.name}, {model}, {task}")
            columns.append(Column(f"{model} {task}", model, quantity, {None: number}))
    return Table(path, tuple(columns), source)
