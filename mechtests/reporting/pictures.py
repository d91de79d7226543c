"""Pictures of what was found inside a model: a grid of values, and a circuit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mechtests.reporting.plots import shaded
from mechtests.reporting.svg import (
    Scale,
    circles,
    drawing,
    element,
    known,
    line,
    numeral,
    rectangle,
    words,
)
from mechtests.reporting.svg import at as pixel

Json = Any
NODE = re.compile(r"^(?:a(?P<layer>\d+)\.h(?P<head>\d+)|m(?P<mlp>\d+)|input|logits)$")
STEP = 34.0
NOISE = 0.02
"""Values below this share of the largest are not among the strongest."""


def largest(entry: Mapping[str, Json]) -> float:
    """The largest size of a value of a grid, 0 where none is known."""
    return max(
        (abs(v) for row in entry["values"] for v in known(row) if v is not None), default=0.0
    )


def grid(entry: Mapping[str, Json], top: float | None = None) -> str:
    """A grid of values, such as a score by layer and head, or a share by two operands.

    Args:
        entry: ``what``, ``unit``, ``rows`` and ``columns`` (what they count), ``values`` (rows
            of numbers or null), and where given ``row_labels``, ``column_labels`` and ``up``:
            whether the first row is the lowest.
        top: The size with the fullest shade; the largest there is by default.
    """
    values: list[list[float | None]] = entry["values"]
    tall, wide = len(values), max((len(row) for row in values), default=0)
    fullest = (largest(entry) if top is None else top) or 1.0
    side = min(20.0, max(220.0 / max(wide, 1), 4.0))
    left, upper = 40.0, 6.0
    across, down = side * wide, side * tall
    shown = values[::-1] if entry.get("up") else values
    rows = entry.get("row_labels") or list(range(tall))
    columns = entry.get("column_labels") or list(range(wide))
    rows = rows[::-1] if entry.get("up") else rows
    return drawing(
        max(left + across + 8, 120),
        upper + down + 30,
        rectangle(left, upper, across, down, "bg"),
        shaded(shown, (side, side), (left, upper), (0.0, fullest)),
        *_beside(rows, side, lambda place: (left - 5, upper + (place + 0.5) * side + 3), "end"),
        *_beside(
            columns, side, lambda place: (left + (place + 0.5) * side, upper + down + 12), "middle"
        ),
        words(entry["columns"], left + across / 2, upper + down + 25, anchor="middle"),
        element(
            "text",
            escape(entry["rows"], quote=False),
            transform=f"translate(10 {pixel(upper + down / 2)}) rotate(-90)",
            text_anchor="middle",
        ),
        label=f"{entry['what']}, by {entry['rows']} and {entry['columns']}: {strongest(entry)}",
    )


def _beside(names: Sequence[Json], side: float, where: Any, anchor: str) -> list[str]:
    """As many names along an edge as there is room for, the first and the last among them."""
    every = max(1, round(22 / side))
    last = len(names) - 1
    kept = [p for p in range(len(names)) if (p % every == 0 and last - p >= every) or p == last]
    return [words(str(names[place]), *where(place), anchor=anchor) for place in kept]


def strongest(entry: Mapping[str, Json], most: int = 5) -> str:
    """The largest values with their places: ``2.1 0.83, 3.3 -0.42``."""
    flat = [
        (value, row, column)
        for row, across in enumerate(entry["values"])
        for column, value in enumerate(known(across))
        if value and abs(value) >= NOISE * largest(entry)
    ]
    flat.sort(key=lambda each: -abs(each[0]))
    rows = entry.get("row_labels") or list(range(len(entry["values"])))
    columns = entry.get("column_labels") or list(range(max(map(len, entry["values"]), default=0)))
    dot = "." if entry["rows"] == "layer" else ", "
    said = [f"{rows[row]}{dot}{columns[column]} {numeral(value)}" for value, row, column in flat]
    return ", ".join(said[:most]) or "all are 0"


def circuit(edges: Sequence[str]) -> str:
    """The edges of a circuit, from the input below to the logits above; "" for other names.

    Args:
        edges: ``"m0->a2.h1<k>"``: from a writer to a reader, in the order of their strength; a
            head reads by its query, key or value.
    """
    pairs = [_ends(edge) for edge in edges]
    found = [pair for pair in pairs if pair is not None]
    if not found or len(found) < len(pairs):
        return ""
    nodes = sorted({node for *ends, _ in found for node in ends}, key=_height)
    levels = sorted({_height(node)[0] for node in nodes})
    by_level = [[node for node in nodes if _height(node)[0] == level] for level in levels]
    broad = max(len(level) for level in by_level)
    width, height = max(broad * 62.0 + 40, 240.0), len(levels) * STEP + 14
    at = {
        node: ((place + 1) * width / (len(level) + 1), height - 22 - row * STEP)
        for row, level in enumerate(by_level)
        for place, node in enumerate(level)
    }
    lines = "".join(
        _edge(at[writer], at[reader], kind, place, len(found))
        for place, (writer, reader, kind) in reversed(list(enumerate(found)))
    )
    plates = "".join(
        rectangle(x - _half(node), y - 8, 2 * _half(node), 16, "nd") for node, (x, y) in at.items()
    )
    names = "".join(
        words(_said(node), x, y + 3.5, kind="nt", anchor="middle") for node, (x, y) in at.items()
    )
    label = (
        f"a circuit: its {len(found)} strongest edges between {len(nodes)} nodes, {edges[0]} first"
    )
    return drawing(width, height, lines, plates, names, label=label)


def _ends(edge: str) -> tuple[str, str, str] | None:
    """Writer, reader and by what it reads; None where a name is none of a circuit."""
    writer, arrow, reader = edge.partition("->")
    reader, _, kind = reader.partition("<")
    if not arrow or not NODE.match(writer) or not NODE.match(reader):
        return None
    return writer, reader, kind.rstrip(">") or "in"


def _height(node: str) -> tuple[float, int]:
    """How late a node writes, and its place beside others of its layer."""
    found = NODE.match(node)
    assert found is not None
    if found["mlp"]:
        return 2.0 * int(found["mlp"]) + 1, 0
    if found["layer"]:
        return 2.0 * int(found["layer"]), int(found["head"])
    return (-1.0, 0) if node == "input" else (1e9, 0)


def _said(node: str) -> str:
    found = NODE.match(node)
    assert found is not None
    if found["layer"]:
        return f"{found['layer']}.{found['head']}"
    return f"MLP {found['mlp']}" if found["mlp"] else node


def _half(node: str) -> float:
    return 4.0 + 2.9 * len(_said(node))


def _edge(
    start: tuple[float, float], end: tuple[float, float], kind: str, place: int, count: int
) -> str:
    """A curve from the top of one node to the bottom of another; stronger ones are thicker."""
    (x1, y1), (x2, y2) = (start[0], start[1] - 8), (end[0], end[1] + 8)
    away = 18.0 if x1 == x2 and y1 - y2 > STEP else 0.0  # round what stands between
    bend = (y1 - y2) / 2
    path = (
        f"M{pixel(x1)} {pixel(y1)}C{pixel(x1 + away)} {pixel(y1 - bend)} "
        f"{pixel(x2 + away)} {pixel(y2 + bend)} {pixel(x2)} {pixel(y2)}"
    )
    broad = 2.4 - 1.7 * place / max(count - 1, 1)
    return element("path", d=path, class_=f"e {kind}", stroke_width=broad)


def values_of(entry: Mapping[str, Json]) -> str:
    """How the per-prompt values of a table are spread, a mark a prompt; "" for fewer than two."""
    values = [value for value in known(entry.get("values", ())) if value is not None]
    if len(values) < 2:
        return ""
    scale = Scale.around([*values, 0.0], 8, 332)
    ticks = scale.ticks()
    marks = circles([(scale(value), 14.0) for value in values], 3.0, "pr")
    axis = line(8, 26, 332, 26, "ax") + "".join(
        words(numeral(tick), scale(tick), 38, anchor="middle") for tick in ticks
    )
    zero = line(scale(0.0), 4, scale(0.0), 26, "lv")
    label = f"{len(values)} prompts, {numeral(min(values))} to {numeral(max(values))}"
    return drawing(340, 42, zero, marks, axis, label=label)
