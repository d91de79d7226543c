"""The heuristics of Nikankin et al. (2025): conditions on a problem of arithmetic.

A heuristic is a kind of condition (a range, a residue, a pattern of digits, ...) on a variable:
one operand, both, or the result. Those on the result are *direct*, all others *indirect*.

Kinds and parameters are those of the paper's Appendix E (for addition up to 299 + 299: 622 an
operand and 1,039 for the result), not of its code, which differs from it. Where the paper is
silent or contradicts itself:

- Ranges are half open everywhere (the code's are so when it classifies and closed when it ablates).
- Digits are those of a number below 1,000, padded with zeros to three. Patterns that are
  ranges (``1..``, ``12.``) are left out as in the code; three fixed digits are a value.
- Division is that of integers, and its heuristics on results have all kinds.
- Its sets of several results are proposed by what neurons do (``matching.result_sets``).
- Both operands in one range or class of residues are in the code alone, and are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mechtests.arithmetic.problems import OPERATORS
from mechtests.tasks.prompts import Ids

Mask = NDArray[np.bool_]

DIVISION = OPERATORS.index("/")
LENGTHS = (10, 30, 50, 100)
LENGTHS_OF_DIVISION = (2, 10, 100)
SHORTEST_STEP = 10
MODULI = (2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15)

OPERANDS = ("op1", "op2")
VARIABLES = (*OPERANDS, "both", "result")
KINDS = ("value", "range", "modulo", "pattern", "set", "identical")
NUMBERS = 4
ENCODED = 2 + NUMBERS + 1
"""How many numbers ``encoded`` gives."""


@dataclass(frozen=True)
class Heuristic:
    """A condition on problems.

    Attributes:
        variable: What it is on: one of ``VARIABLES``.
        kind: ``"range"``, ``"modulo"``, ``"pattern"``, ``"value"``, ``"set"`` or
            ``"identical"``.
        numbers: Of a range its low and high end (which it excludes), of residues remainder
            and modulus, the value, or the values of a set.
        digits: Of a pattern: ``".5."``.
        also: Names of heuristics that hold for the same pairs of the library it is in.
    """

    variable: str
    kind: str
    numbers: tuple[int, ...] = ()
    digits: str = ""
    also: tuple[str, ...] = ()

    @property
    def direct(self) -> bool:
        """Whether it is on the result, which its neuron would then write."""
        return self.variable == "result"

    @property
    def type(self) -> str:
        """Variable and kind: ``"op1 range"``."""
        return f"{self.variable} {self.kind}"

    @property
    def name(self) -> str:
        """The condition in words.

        >>> Heuristic("result", "range", (150, 180)).name
        'result in [150, 180)'
        >>> Heuristic("both", "modulo", (2, 5)).name
        'op1 and op2 = 2 mod 5'
        """
        subject = " and ".join(OPERANDS) if self.variable == "both" else self.variable
        match self.kind:
            case "range":
                return f"{subject} in [{self.numbers[0]}, {self.numbers[1]})"
            case "modulo":
                return f"{subject} = {self.numbers[0]} mod {self.numbers[1]}"
            case "pattern":
                return f"{subject} like {self.digits}"
            case "set":
                return f"{subject} in {{{', '.join(map(str, self.numbers))}}}"
            case "identical":
                return " = ".join(OPERANDS)
        return f"{subject} = {self.numbers[0]}"

    def accepts(self, values: Ids) -> Mask:
        """Whether it holds where its variable has some values, shape of ``values``."""
        held: Mask
        match self.kind:
            case "range":
                held = (values >= self.numbers[0]) & (values < self.numbers[1])
            case "modulo":
                held = values % self.numbers[1] == self.numbers[0]
            case "pattern":
                hundreds, tens, ones = values // 100, values // 10 % 10, values % 10
                held = np.ones(np.shape(values), bool)
                for at, digit in zip((hundreds, tens, ones), self.digits, strict=True):
                    held &= digit == "." or at == int(digit)
            case _:
                held = np.isin(values, self.numbers)
        return held

    def holds(self, first: Ids, second: Ids, result: Ids) -> Mask:
        """Whether it holds for some problems, shape ``[problem]``."""
        if self.kind == "identical":
            held: Mask = first == second
            return held
        if self.variable == "both":
            return self.accepts(first) & self.accepts(second)
        return self.accepts({"op1": first, "op2": second, "result": result}[self.variable])


def conditions(operator: int, variable: str, largest: int) -> Iterator[Heuristic]:
    """All values, ranges, residues and patterns of a variable from 0 to its largest value."""
    if variable != "both":
        yield from (Heuristic(variable, "value", (value,)) for value in range(largest + 1))
    for length in LENGTHS_OF_DIVISION if operator == DIVISION else LENGTHS:
        for low in range(0, largest + 1, max(length // 3, SHORTEST_STEP)):
            yield Heuristic(variable, "range", (low, low + length))
    for modulus in MODULI:
        for remainder in range(modulus):
            yield Heuristic(variable, "modulo", (remainder, modulus))
    if variable == "both":
        return
    for digits in product(".0123456789"[: min(largest // 100, 9) + 2], *[".0123456789"] * 2):
        is_range = digits[0] != "." and digits[2] == "."
        if digits.count(".") in {1, 2} and not is_range:
            yield Heuristic(variable, "pattern", digits="".join(digits))


def associated(heuristics: Sequence[Heuristic], first: Ids, second: Ids, result: Ids) -> Mask:
    """Which heuristics hold for which problems, shape ``[problem, heuristic]``.

    Args:
        heuristics: Of a library or not.
        first: Operand 1, shape ``[problem]``.
        second: Operand 2, shape ``[problem]``.
        result: The right result, shape ``[problem]``; of a division the integer.
    """
    held = [heuristic.holds(first, second, result) for heuristic in heuristics]
    return np.stack(held, 1) if held else np.zeros((len(first), 0), bool)


def encoded(heuristic: Heuristic) -> list[int]:
    """A heuristic as 7 numbers: variable, kind, up to four numbers (-1 where fewer), digits."""
    numbers = [*heuristic.numbers, *[-1] * NUMBERS][:NUMBERS]
    digits = 0
    for digit in heuristic.digits:
        digits = 11 * digits + (10 if digit == "." else int(digit))
    return [VARIABLES.index(heuristic.variable), KINDS.index(heuristic.kind), *numbers, digits]


def decoded(row: Sequence[int]) -> Heuristic:
    """The heuristic of ``encoded``."""
    variable, kind, *numbers, code = (int(number) for number in row)
    digits = ""
    if KINDS[kind] == "pattern":
        for _ in range(3):
            code, digit = divmod(code, 11)
            digits = ("." if digit == 10 else str(digit)) + digits
    given = tuple(number for number in numbers if number >= 0)
    return Heuristic(VARIABLES[variable], KINDS[kind], given, digits)
