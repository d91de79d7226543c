"""The claims x cells matrix: what is said where, in as few columns as it can be read in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mechtests.reporting.record import Record, RecordedCell
from mechtests.reporting.wording import EVERY, WORDS, Word, word

if TYPE_CHECKING:
    from rich.table import Table

NARROWEST = 24  # the narrowest column of names, where verdicts need the room
GAP = 2  # columns of blank between two columns of text
NOT_JUDGED = Word("", ".", "dim", "not judged")
_SIZES = {"k": 1e3, "m": 1e6, "b": 1e9}

Order = tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Row:
    """A claim, on one of its tasks."""

    paper: str
    id: str
    task: str | None

    @classmethod
    def of(cls, record: Record) -> Row:
        """The row a record stands in."""
        return cls(record.claim.paper, record.claim.id, record.claim.task)


@dataclass(frozen=True)
class Block:
    """Columns that stand beside each other.

    Attributes:
        cells: The id of each.
        heads: The heading of each, folded into lines.
        title: What they share: ``"pythia-160m at step"``.
        letters: Whether a verdict is a letter or a word.
    """

    cells: tuple[str, ...]
    heads: tuple[str, ...]
    title: str = ""
    letters: bool = True

    def cut(self, start: int, end: int) -> Block:
        """Some of its columns."""
        return Block(self.cells[start:end], self.heads[start:end], self.title, self.letters)


@dataclass(frozen=True, eq=False)
class Matrix:
    """Records by claim and cell, in an order that does not depend on theirs.

    Attributes:
        rows: By paper, sanity first, then by id and task.
        cells: By the size in a model's name, then by step.
        at: The record of a row and a cell's id; of two for one place, the later.
    """

    rows: tuple[Row, ...]
    cells: tuple[RecordedCell, ...]
    at: dict[tuple[Row, str], Record]

    @classmethod
    def of(cls, records: Sequence[Record]) -> Matrix:
        """The matrix of some records."""
        columns = _columns(records)
        at = {(Row.of(record), columns[record.cell.id].id): record for record in records}
        cells = {cell.id: cell for cell in columns.values()}
        return cls(
            rows=tuple(sorted({row for row, _ in at}, key=_row_order)),
            cells=tuple(sorted(cells.values(), key=_cell_order)),
            at=at,
        )

    def of_claim(self, id: str) -> list[Record]:
        """A claim's records, by task and then by cell."""
        places = [(row, cell.id) for row in self.rows if row.id == id for cell in self.cells]
        return [self.at[place] for place in places if place in self.at]

    def several_tasks(self, id: str) -> bool:
        """Whether a claim was judged on more than one task."""
        return sum(row.id == id for row in self.rows) > 1

    def word(self, row: Row, cell: str) -> Word:
        """How the verdict at a place is shown."""
        record = self.at.get((row, cell))
        return NOT_JUDGED if record is None else word(record)

    def in_words(self) -> Block:
        """All cells beside each other, in words."""
        heads = tuple(fold(cell.id, 12) for cell in self.cells)
        return Block(tuple(cell.id for cell in self.cells), heads, letters=False)

    def in_letters(self, room: int) -> list[Block]:
        """Models beside each other, every series for itself, cut where the room ends."""
        return [part for group in self._groups() for part in self._cut(group, room)]

    def widths(self, block: Block) -> list[int]:
        """The width of each column with a gap."""
        return [
            GAP + max(map(len, [*head.split("\n"), *self._column(block, cell)]))
            for head, cell in zip(block.heads, block.cells, strict=True)
        ]

    def _groups(self) -> Iterator[Block]:
        """One block for all models with a single cell, and one for every series."""
        models: dict[str, list[RecordedCell]] = {}
        for cell in self.cells:
            models.setdefault(cell.model, []).append(cell)
        if single := tuple(cells[0].id for cells in models.values() if len(cells) == 1):
            yield Block(single, tuple(fold(each, 9) for each in single))
        for model, cells in models.items():
            if len(cells) > 1:
                title, heads = _series(model, cells)
                yield Block(tuple(cell.id for cell in cells), heads, title)

    def _cut(self, block: Block, room: int) -> Iterator[Block]:
        """A block, cut where the room ends."""
        start, used = 0, 0
        for end, width in enumerate(self.widths(block)):
            if used + width > room and end > start:
                yield block.cut(start, end)
                start, used = end, 0
            used += width
        yield block.cut(start, len(block.cells))

    def _column(self, block: Block, cell: str) -> list[str]:
        words = [self.word(row, cell) for row in self.rows]
        return [each.letter if block.letters else each.word for each in words]


def _columns(records: Sequence[Record]) -> dict[str, RecordedCell]:
    """The column each cell, series or family stands in, by its id.

    A series and its last cell share one, headed by the model's name, where no other cell of
    the model is judged.
    """
    cells = {record.cell.id: record.cell for record in records}
    series = {r.cell.id: r.cell for r in records if r.claim.over == "training"}
    lone: dict[str, list[str]] = {}
    for record in records:
        if record.claim.over == "cell" and record.cell.id not in lone.get(record.cell.model, ()):
            lone.setdefault(record.cell.model, []).append(record.cell.id)
    shared = {
        ids[0]: series[model]
        for model, ids in lone.items()
        if model in series and len(ids) == 1 and list(series[model].identity or ())[1:][-1:] == ids
    }
    return {**cells, **shared}


def tables(matrix: Matrix, width: int, *, rule: str) -> tuple[list[Table], str]:
    """The matrix as one table for each block of columns, and what its signs mean.

    Args:
        matrix: What is said where.
        width: In characters; no table is wider, however many columns there are.
        rule: The character of the line under the headings.
    """
    names = [_name(matrix, row) for row in matrix.rows] + [row.paper for row in matrix.rows]
    words = matrix.in_words()
    spare = width - sum(matrix.widths(words))
    longest = max(map(len, names))
    if spare >= min(longest, NARROWEST):
        blocks, label = [words], min(longest, spare)
    else:
        label = min(longest, max(NARROWEST, width * 2 // 5))
        blocks = matrix.in_letters(width - label)
    return [_table(matrix, block, label, rule) for block in blocks], _legend(matrix, blocks)


def _legend(matrix: Matrix, blocks: Sequence[Block]) -> str:
    letters = blocks[0].letters
    said = {matrix.word(row, cell.id) for row in matrix.rows for cell in matrix.cells}
    return "   ".join(
        f"{each.letter if letters else each.word} {each.meaning}"
        for each in (*EVERY, NOT_JUDGED)
        if each in said and (letters or each not in (*WORDS.values(), NOT_JUDGED))
    )


def fold(text: str, width: int) -> str:
    """A name in lines of at most ``width`` characters, broken where it has a joint.

    >>> fold("pythia-160m:step1000", 12).split()
    ['pythia-160m:', 'step1000']
    """
    lines = [""]
    for piece in re.findall(r"[^-:_/ ]*[-:_/ ]?", text):
        for start in range(0, len(piece), width):
            part = piece[start : start + width]
            if len(lines[-1]) + len(part.rstrip()) > width:
                lines.append("")
            lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def _table(matrix: Matrix, block: Block, label: int, rule: str) -> Table:
    from rich.box import Box
    from rich.table import Table
    from rich.text import Text

    line = f" {rule}{rule} "
    blank = "    "
    box = Box("\n".join([blank, blank, line, *[blank] * 5]) + "\n", ascii=rule.isascii())
    table = Table(box=box, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    deepest = max(head.count("\n") for head in block.heads)
    table.add_column("\n" * deepest + block.title, min_width=label, no_wrap=True)
    for head in block.heads:
        table.add_column("\n" * (deepest - head.count("\n")) + head, no_wrap=True)
    paper = ""
    for row in matrix.rows:
        if row.paper != paper:
            paper = row.paper
            table.add_row(Text(fold(paper, label), style="bold"))
        words = [matrix.word(row, cell) for cell in block.cells]
        verdicts = [Text(w.letter if block.letters else w.word, style=w.style) for w in words]
        table.add_row(Text(_folded(_name(matrix, row), label)), *verdicts)
    return table


def _name(matrix: Matrix, row: Row) -> str:
    name = "  " + row.id.partition(".")[2]
    return f"{name} ({row.task})" if matrix.several_tasks(row.id) else name


def _folded(name: str, width: int) -> str:
    """A row's name in lines: its task on a line of its own, further lines set in."""
    if len(name) <= width:
        return name
    claim, _, task = name.strip().partition(" ")
    lines = [*fold(claim, width - 4).split("\n"), *fold(task, width - 4).split("\n")]
    return "  " + "\n    ".join(filter(None, lines))


def _series(model: str, cells: Sequence[RecordedCell]) -> tuple[str, tuple[str, ...]]:
    """The title and the headings of a model's checkpoints: steps where they tell them apart."""
    steps = [None if cell.checkpoint is None else cell.checkpoint.step for cell in cells]
    heads = tuple(_step(step) for step in steps if step is not None)
    if len(set(heads)) == len(cells):
        return f"{model} at step", heads
    return model, tuple(fold(cell.id.removeprefix(model).lstrip(":") or model, 9) for cell in cells)


def _step(step: int) -> str:
    """A step in as few characters as are exact: 512, 1k, 143k."""
    for size, unit in ((1_000_000, "M"), (1000, "k")):
        if step and step % size == 0:
            return f"{step // size}{unit}"
    return str(step)


def _row_order(row: Row) -> tuple[bool, str, str, str]:
    return row.paper != "sanity", row.paper, row.id, row.task or ""


def _cell_order(cell: RecordedCell) -> tuple[Order, float, Order]:
    step = None if cell.checkpoint is None else cell.checkpoint.step
    return _natural(cell.model), float("inf") if step is None else step, _natural(cell.id)


def _natural(name: str) -> Order:
    """An order of names in which 70m comes before 160m, and 410m before 1b."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([kmb](?![a-z]))?|(\D+)", name.lower())
    return tuple(
        (float(digits) * _SIZES.get(unit, 1.0) if digits else 0.0, text)
        for digits, unit, text in parts
    )
