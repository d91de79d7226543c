"""A bag of heuristics that adds and subtracts, made by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mechtests.sprout.numbers import LARGEST
from tests.planted_arithmetic_frame import Frame, Planted, PlantedNeuron
from tests.planted_arithmetic_problems import MINUS, OPERANDS, PLUS

BIN = 20
"""Operands are known to so many."""
BINS = OPERANDS // BIN
MODULI = (5, 3, 2)
WINDOWS = 2 * BINS
"""A sum of two bins is in one of 9 windows, a difference in one of 5 of the 10."""
SIGNING, BY_FIRST, BY_SECOND, DIRECT = 3, 4, 5, (6, 7)
"""The layers of the parts."""
HALF_WAY = 0.45
"""What an indirect neuron does for its own operand alone; with its partner 0.95."""
STRENGTH = 14.0
"""Logits between a residue and the others, and between a window's middle and its ends."""
JITTER = 0.05
COPIES = {2: 4, 3: 4, 5: 3}
"""Direct neurons of each residue in a layer."""

WIDTHS = {"range": BINS, **{f"mod {n}": n for n in MODULI}}
SIGNED = {"range": WINDOWS, **{f"mod {n}": n for n in MODULI}}


def _starts(widths: dict[str, int]) -> dict[str, int]:
    return {name: sum(list(widths.values())[:at]) for at, name in enumerate(widths)}


OPERAND_AT, SIGNED_AT = _starts(WIDTHS), _starts(SIGNED)


def features() -> Tensor:
    """Bin and residues of each operand, ``[number, feature]``."""
    numbers = torch.arange(OPERANDS)
    parts = [torch.eye(BINS)[numbers // BIN], *(torch.eye(n)[numbers % n] for n in MODULI)]
    return torch.cat(parts, 1)


def window(at: int) -> tuple[int, int]:
    """The results that have more than half of what they could have in a window."""
    return BIN * at - BIN // 2, BIN * at + BIN // 2


def unembedding() -> Tensor:
    """How much a result is in the middle of each window, and its residues, ``[result, 20]``."""
    results = torch.arange(LARGEST + 1)
    middles = BIN * torch.arange(WINDOWS) - 0.5
    near = (1 - (results[:, None] - middles).abs() / BIN).clamp(min=0)
    return torch.cat([near, *(torch.eye(n)[results % n] for n in MODULI)], 1)


def signed(table: str, value: int, operator: int) -> int:
    """The class of plus or minus a class of operand 2: of bins -5 to 4, of residues themselves."""
    if table == "range":
        return value if operator == PLUS else -value - 1
    modulus = WIDTHS[table]
    return value if operator == PLUS else -value % modulus


@dataclass(frozen=True)
class Cell:
    """A class of operand 1 and one of signed operand 2, which together say one of the result.

    Attributes:
        table: ``"range"`` or ``"mod n"``.
        first: The class of operand 1.
        second: The signed class of operand 2.
    """

    table: str
    first: int
    second: int

    @property
    def says(self) -> int:
        """The window or residue of the result."""
        together = self.first + self.second
        return together + 1 if self.table == "range" else together % WIDTHS[self.table]

    @property
    def operator(self) -> int | None:
        """Bins have a sign, and so belong to one operator."""
        if self.table != "range":
            return None
        return PLUS if self.second >= 0 else MINUS

    def numbers(self, variable: str) -> tuple[int, int]:
        """What is known of an operand: its bin's ends, or remainder and modulus."""
        value = self.first if variable == "op1" else self.second
        if self.table != "range":
            return value, WIDTHS[self.table]
        bin_ = value if value >= 0 else -value - 1
        return BIN * bin_, BIN * (bin_ + 1)


def cells() -> Iterator[Cell]:
    """All cells that occur."""
    for i in range(BINS):
        yield from (Cell("range", i, j) for j in range(-i - 1, BINS))
    for n in MODULI:
        yield from (Cell(f"mod {n}", i, j) for i in range(n) for j in range(n))


@dataclass(eq=False)
class Bag:
    """The bag while it is made."""

    seed: int = 0
    planted: list[PlantedNeuron] = field(default_factory=list)

    def __post_init__(self) -> None:
        size = sum(SIGNED.values())
        rooms = {"signed": size, "evidence": size, "answer": size}
        self.frame = Frame(features(), rooms, unembedding(), width=160, seed=self.seed)
        self._sign()
        self._combine()
        for layer in DIRECT:
            self._residues(layer)
            self._digits(layer)
            self._windows(layer)

    def unit(self, room: str, channel: int, value: float = 1.0) -> Tensor:
        """One channel of a room, ``[width]``."""
        row = torch.zeros(self.frame.width)
        row[self.frame.room[room][channel]] = value
        return row

    def varied(self, count: int) -> Tensor:
        """About 1, ``[count, 1]``: no two neurons are quite the same."""
        return 1 + JITTER * self.frame.draw(count, 1)

    def _sign(self) -> None:
        """Before half of the depth: each feature of operand 2 with the operator's sign."""
        reads, writes = [], []
        for table, width in WIDTHS.items():
            for value in range(width):
                for operator in (PLUS, MINUS):
                    feature = self.unit("second", OPERAND_AT[table] + value)
                    reads.append(feature + self.unit("operator", operator))
                    writes.append(
                        self.unit("signed", _channel(table, signed(table, value, operator)))
                    )
        bias = torch.full((len(reads),), -1.0)
        self.frame.neurons(SIGNING, torch.stack(reads), bias, torch.stack(writes))

    def _combine(self) -> None:
        """Indirect heuristics: a class of one operand, more where the other is in its partner."""
        for layer, variable in ((BY_FIRST, "op1"), (BY_SECOND, "op2")):
            mine, other = (1.0, 0.5) if variable == "op1" else (0.5, 1.0)
            every = list(cells())
            reads = torch.stack(
                [
                    self.unit("first", OPERAND_AT[cell.table] + cell.first, mine)
                    + self.unit("signed", _channel(cell.table, cell.second), other)
                    for cell in every
                ]
            )
            says = [self.unit("evidence", SIGNED_AT[cell.table] + cell.says) for cell in every]
            bias = torch.full((len(every),), HALF_WAY - 1.0)
            writes = torch.stack(says) * self.varied(len(every))
            taken = self.frame.neurons(layer, reads, bias, writes)
            partner = "op2" if variable == "op1" else "op1"
            self.planted += [
                PlantedNeuron(
                    layer,
                    int(neuron),
                    variable,
                    "range" if cell.table == "range" else "modulo",
                    cell.numbers(variable),
                    partner=cell.numbers(partner),
                    operator=cell.operator,
                )
                for cell, neuron in zip(every, taken, strict=True)
            ]

    def _direct(
        self,
        layer: int,
        reads: Tensor,
        above: float,
        writes: Tensor,
        said: Callable[[int], tuple[str, tuple[int, int]]],
        *,
        wide: bool = False,
    ) -> None:
        """Neurons that are 1 where evidence is 0.5 above a number, 0 below it."""
        many = len(reads)
        scale = 2 * self.varied(many)
        taken = self.frame.neurons(
            layer, scale * reads, -above * scale[:, 0], writes * self.varied(many)
        )
        self.planted += [
            PlantedNeuron(layer, int(neuron), "result", *said(row), wide=wide)
            for row, neuron in enumerate(taken)
        ]

    def _residues(self, layer: int) -> None:
        for n in MODULI:
            classes = [m for m in range(n) for _ in range(COPIES[n])]
            reads = [self.unit("evidence", SIGNED_AT[f"mod {n}"] + m) for m in classes]
            writes = [self._residue(m, n) for m in classes]
            self._direct(
                layer,
                torch.stack(reads),
                1.4,
                torch.stack(writes),
                lambda row, n=n, classes=classes: ("modulo", (classes[row], n)),  # type: ignore[misc]
            )

    def _residue(self, m: int, n: int) -> Tensor:
        """One neuron's part of what is written of a residue."""
        copies = COPIES[n] + (n != 3)  # the last digit says two more residues
        part = STRENGTH / copies / len(DIRECT)
        return self.unit("answer", SIGNED_AT[f"mod {n}"] + m % n, part)

    def _digits(self, layer: int) -> None:
        """The last digit, where both of its residues are."""
        fives, twos = SIGNED_AT["mod 5"], SIGNED_AT["mod 2"]
        reads = [
            self.unit("evidence", fives + d % 5) + self.unit("evidence", twos + d % 2)
            for d in range(10)
        ]
        writes = [self._residue(d, 5) + self._residue(d, 2) for d in range(10)]
        self._direct(
            layer, torch.stack(reads), 3.3, torch.stack(writes), lambda d: ("modulo", (d, 10))
        )

    def _windows(self, layer: int) -> None:
        """A window of the result; a second neuron is active half as much for those beside it."""
        ends = [window(at) for at in range(WINDOWS)]
        for beside in (0.0, 0.5):
            reads, writes = [], []
            for at in range(WINDOWS):
                row = self.unit("evidence", at)
                for near in {at - 1, at + 1} & set(range(WINDOWS)):
                    row = row + self.unit("evidence", near, beside)
                reads.append(row)
                part = STRENGTH / 2 / len(DIRECT)
                writes.append(self.unit("answer", at, part))
            self._direct(
                layer,
                torch.stack(reads),
                1.4 + 1.8 * beside - (0.4 if beside else 0.0),
                torch.stack(writes),
                lambda at: ("range", ends[at]),
                wide=beside > 0,
            )


def _channel(table: str, value: int) -> int:
    """Where a signed class of operand 2 is in its room."""
    return SIGNED_AT[table] + (value + BINS if table == "range" else value)


def planted_bag(seed: int = 0) -> Planted:
    """The bag of heuristics."""
    made = Bag(seed)
    return Planted(made.frame.made(), tuple(made.planted))
