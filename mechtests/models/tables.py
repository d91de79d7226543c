"""Files of recorded values: what a CSV or JSON file holds, by its header.

Understood are tables with a column ``step`` or ``tokens`` and beside it a column a model (a
value of many models), a column a quantity (many values of one model), or the columns ``layer``
and ``head`` and a quantity of each head (a row a head and a checkpoint); and the JSON files of
``json_tables``.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mechtests.errors import UsageError
from mechtests.models import json_tables
from mechtests.models.cell import Checkpoint
from mechtests.models.columns import (
    HEAD_AXES,
    TASKS,
    Column,
    Quantity,
    Table,
    as_count,
    as_number,
    checkpoint,
    tasks_in,
)

_MOMENT = ("step", "tokens")
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
_OF_HEADS = (
    (re.compile(rf"(?:{_TASK}_)?copy_scores?(?P<percent>_percent)?"), "copying.copy_scores copied"),
)
_PLAIN = ("value", "score")
"""Headers that say nothing: what the file is called says it."""

Index = tuple[int, ...]
Rows = dict[tuple[Index, Checkpoint | None], dict[str, float]]


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
        return json_tables.read(path, text)
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
    if len(by_head := set(HEAD_AXES) & set(header)) == 1:
        raise UsageError(
            f"{path.name} has a column {by_head.pop()}: values of heads need both, layer and head"
        )
    rows, notes = _rows(path, header, lines[1:])
    names = [name for name in header if name not in (*_MOMENT, *(HEAD_AXES if by_head else ()))]
    columns = _of_heads(path, names, rows) if by_head else _of_models(path, names, rows)
    return Table(path, tuple(columns), notes=tuple(notes))


def _of_models(path: Path, names: Sequence[str], rows: Rows) -> list[Column]:
    """The columns of a table with a row a checkpoint."""
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
                model=name if a_model else _model_in(path.stem),
                quantity=in_stem if a_model else quantity,
                values={at: row[name] for (_, at), row in rows.items() if name in row},
                taken=not apart,
            )
        )
    return columns


def _of_heads(path: Path, names: Sequence[str], rows: Rows) -> list[Column]:
    """The columns of a table with a row a head and a checkpoint: one for each head."""
    quantities = {name: _quantity_of_heads(name, path.stem) for name in names}
    known = any(quantity.metric for quantity in quantities.values())
    columns = []
    for name, quantity in quantities.items():
        of_head: dict[Index, dict[Checkpoint | None, float]] = {}
        for (index, at), row in rows.items():
            if name in row:
                of_head.setdefault(index, {})[at] = row[name]
        columns += [
            Column(
                name=f"{name} {'.'.join(map(str, index))}",
                model=_model_in(path.stem),
                quantity=replace(quantity, index=index),
                values=values,
                taken=bool(quantity.metric) or not known,
                header=name,
            )
            for index, values in of_head.items()
        ]
    return columns


def _model_in(stem: str) -> str | None:
    return match[1] if (match := _MODEL.match(stem)) else None


def _rows(
    path: Path, header: Sequence[str], lines: Sequence[Sequence[str]]
) -> tuple[Rows, list[str]]:
    """The numbers of each row by its head, if any, and checkpoint; equal rows are one, and said."""
    rows: Rows = {}
    notes = []
    for place, line in enumerate(lines, start=2):
        if not any(cell.strip() for cell in line):
            continue
        where = f"{path.name}, line {place}"
        if len(line) != len(header):
            raise UsageError(f"{where}: {len(header)} columns are needed, got {len(line)}")
        row = {
            name: as_number(cell, f"{where}, column {name}")
            for name, cell in zip(header, line, strict=True)
            if cell.strip()
        }
        index, at = _index(row, header, where), checkpoint(row, where)
        called = f"{at.label} of {'.'.join(map(str, index))}" if index else at.label
        if rows.get((index, at), row) != row:
            raise UsageError(
                f"{where}: {called} was there before with other values; keep one of the two rows"
            )
        if (index, at) in rows:
            notes.append(f"{path.name}: {called} is there twice with equal values, taken once")
        rows[index, at] = row
    if not rows:
        raise UsageError(f"{path.name} has a header and no row of numbers")
    return rows, notes


def _index(row: dict[str, float], header: Sequence[str], where: str) -> Index:
    """The head a row is of; nothing where the table has no heads."""
    if not set(HEAD_AXES) <= set(header):
        return ()
    if lacking := [name for name in HEAD_AXES if name not in row]:
        raise UsageError(f"{where}: there is no {' and no '.join(lacking)} in it")
    return tuple(as_count(row[name], name, where) for name in HEAD_AXES)


def _quantity(column: str, stem: str) -> Quantity | None:
    """What a column is of by its own name; the task may be in the file's."""
    for pattern, words in _QUANTITIES:
        if match := pattern.fullmatch(column):
            metric, value = words.split()
            said = match.groupdict().get("task") or next(tasks_in(stem), None)
            return Quantity(metric, value, TASKS.get(said or ""))
    return None


def _quantity_in(stem: str) -> Quantity | None:
    """What a file is of, whose columns are models, by its name."""
    for pattern, words in _QUANTITIES:
        if match := pattern.search(stem):
            metric, value = words.split()
            return Quantity(metric, value, TASKS.get(match.groupdict().get("task") or ""))
    return None


def _quantity_of_heads(column: str, stem: str) -> Quantity:
    """What a column with a number a head is of, by its name, or the file's where it has none."""
    for pattern, words in _OF_HEADS:
        match = pattern.search(stem) if column in _PLAIN else pattern.fullmatch(column)
        if match:
            metric, value = words.split()
            task = TASKS.get(match["task"] or next(tasks_in(stem), ""))
            return Quantity(metric, value, task, 0.01 if match["percent"] else 1.0, HEAD_AXES)
    return Quantity("", "", axes=HEAD_AXES)
