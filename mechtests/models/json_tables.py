"""JSON files of recorded values: of heads over training, and means over training.

A file of heads says what it is of, and for each head its number at each step::

    {"source": "...", "model": "pythia-160m", "metric": "copying.copy_scores", "task": "ioi",
     "value": "copied", "scale": 0.01, "heads": {"9.7": {"7000": 34.3, "8000": 35.7}}}

``copy_score_percent`` in the place of ``heads`` says the metric, the value and the scale by
itself. A head with a ``note`` was summarised by somebody and is not imported. A step that a head
does not have was not recorded: nothing is put in its place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mechtests.errors import UsageError
from mechtests.models.cell import Checkpoint
from mechtests.models.columns import (
    HEAD_AXES,
    TASKS,
    Column,
    Quantity,
    Table,
    as_number,
    checkpoint,
    tasks_in,
)

Json = Any

_HEAD = re.compile(r"(\d+)\.(\d+)")
NOTE = "note"
"""What a head has that was summarised in words."""


def read(path: Path, text: str) -> Table:
    """What a JSON file holds.

    Raises:
        UsageError: It is damaged, or its layout is not one of those understood.
    """
    try:
        said = json.loads(text, object_pairs_hook=_once)
    except ValueError as error:
        raise UsageError(f"{path.name} cannot be read as JSON ({error})") from error
    said = said if isinstance(said, dict) else {}
    source = str(said.get("source", ""))
    for key in ("heads", "copy_score_percent"):
        if isinstance(said.get(key), dict):
            return _heads(path, said, key, source)
    if isinstance(said.get("mean_num_nodes"), dict):
        return _mean_nodes(path, said["mean_num_nodes"], source)
    raise UsageError(
        f"{path.name}: this JSON file has none of the layouts that can be imported, heads or "
        f"copy_score_percent (head -> step -> number) and mean_num_nodes (model -> task -> mean); "
        f"write its values as a CSV file with a column step and a column a model, or the columns "
        f"layer, head, step and value"
    )


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    """An object of a file; JSON itself lets the last of two equal keys win.

    Raises:
        ValueError: A key is there twice.
    """
    found: dict[str, Json] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} is there twice in one object; keep one of the two")
        found[key] = value
    return found


def _heads(path: Path, said: Mapping[str, Json], key: str, source: str) -> Table:
    """Numbers of heads: keys ``layer.head``, then the step."""
    quantity = _of_heads(path, said, key)
    model = str(said["model"]) if "model" in said else None
    columns: list[Column] = []
    summarised = []
    for head, series in said[key].items():
        match = _HEAD.fullmatch(head)
        if match is None or not isinstance(series, dict):
            raise UsageError(f"{path.name}: {head!r} is not a head, layer.head, with its steps")
        if NOTE in series:
            summarised.append(head)
            continue
        index = (int(match[1]), int(match[2]))
        if any(column.index == index for column in columns):
            raise UsageError(f"{path.name}: head {head} is there twice; keep one of the two")
        values = _steps(f"{path.name}, head {head}", series)
        columns.append(Column(head, model, replace(quantity, index=index), values))
    return Table(path, tuple(columns), source, tuple(_said(path, columns, summarised)))


def _of_heads(path: Path, said: Mapping[str, Json], key: str) -> Quantity:
    """What the numbers of every head are of, as the file says it."""
    copying = key == "copy_score_percent"
    known = ("copying.copy_scores", "copied", "ioi", 0.01) if copying else ("", "", None, 1.0)
    metric, value, task, scale = known
    task = said.get("task", next(tasks_in(path.stem), task))
    return Quantity(
        metric=str(said.get("metric", metric)),
        value=str(said.get("value", value)),
        task=None if task is None else TASKS.get(str(task), str(task)),
        scale=as_number(said.get("scale", scale), f"{path.name}, scale"),
        axes=HEAD_AXES,
    )


def _steps(where: str, series: Mapping[str, Json]) -> dict[Checkpoint | None, float]:
    """A head's number at each step.

    Raises:
        UsageError: A step or its value is no number, or a step is there twice.
    """
    values: dict[Checkpoint | None, float] = {}
    for step, value in series.items():
        at = checkpoint({"step": as_number(step, where)}, where)
        if at in values:
            raise UsageError(f"{where}: {at.label} is there twice; keep one of the two")
        values[at] = as_number(value, f"{where}, {step}")
    return values


def _said(path: Path, columns: list[Column], summarised: list[str]) -> list[str]:
    """What is not in the recording although the file speaks of it."""
    notes = []
    if summarised:
        notes.append(
            f"{path.name}: summarised in a note and not by values, not imported: "
            f"{', '.join(summarised)}"
        )
    if len({frozenset(column.values) for column in columns}) > 1:
        notes.append(
            f"{path.name}: where a head has no value at a step that another one has, it counts as "
            f"not recorded, and not as 0"
        )
    return notes


def _mean_nodes(path: Path, said: Mapping[str, Json], source: str) -> Table:
    """Mean circuit sizes over training: model, then task."""
    columns = []
    for model, tasks in said.items():
        if not isinstance(tasks, dict):
            raise UsageError(f"{path.name}: {model!r} has no tasks with a mean each")
        for task, mean in tasks.items():
            quantity = Quantity("circuits.size", "nodes", TASKS.get(task, task))
            size = as_number(mean, f"{path.name}, {model}, {task}")
            columns.append(Column(f"{model} {task}", model, quantity, {None: size}))
    return Table(path, tuple(columns), source)
