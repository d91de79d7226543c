"""The heuristics that say something about given pairs of operands, and where they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from mechtests.arithmetic.heuristics import VARIABLES, Heuristic, Mask, conditions
from mechtests.errors import UsageError
from mechtests.tasks.prompts import Ids

FEWEST_PAIRS = 10
"""With fewer pairs the score goes in steps of more than a tenth, and no knock-out has prompts."""
LARGEST_SHARE = 0.55
"""Of the pairs: noise scores a heuristic's share, and 0.6 is a match. Half of them, as the even
results are, stays; ``result in [0, 10)`` in division goes, as in the paper's code."""
ONE_VALUE = 0.6
"""The share of its pairs from which one value makes a heuristic as good as that value alone."""


@dataclass(frozen=True, eq=False)
class Masks:
    """Where the heuristics of one variable hold: each for some classes of pairs.

    The classes are the values of an operand or of the result.

    Attributes:
        heuristics: Their places in the library, shape ``[mask]``.
        codes: The class of each pair, shape ``[pair]``; None for both operands, where each
            pair is a class of its own.
        classes: How many classes there are.
        members: The classes of the first mask, then of the second, ...
        starts: Where in ``members`` each mask begins, shape ``[mask]``.
    """

    heuristics: Ids
    codes: Ids | None
    classes: int
    members: Ids
    starts: Ids


@dataclass(frozen=True, eq=False)
class Library:
    """Heuristics, and for which of the pairs in use they hold.

    Attributes:
        heuristics: They, those of a variable together, in the order of ``VARIABLES``.
        first: Operand 1 of each pair, shape ``[pair]``.
        second: Operand 2, shape ``[pair]``.
        result: The right result, shape ``[pair]``.
        sizes: For how many pairs each holds, shape ``[heuristic]``.
        excluded: Those as good as a single value, which tell a heuristic from a memory of
            single problems no more: not counted by ``heuristics-classified``. Shape
            ``[heuristic]``.
        masks: Where they hold, by variable.
    """

    heuristics: tuple[Heuristic, ...]
    first: Ids
    second: Ids
    result: Ids
    sizes: Ids = field(repr=False)
    excluded: Mask = field(repr=False)
    masks: Mapping[str, Masks] = field(repr=False)

    def __len__(self) -> int:
        """How many heuristics there are."""
        return len(self.heuristics)

    @property
    def direct(self) -> Mask:
        """Which are direct, shape ``[heuristic]``."""
        return np.array([heuristic.direct for heuristic in self.heuristics], bool)

    @property
    def results(self) -> Ids:
        """The results that occur, ascending: the rows of a logit lens, shape ``[result]``."""
        return np.unique(self.result)

    def mask(self, heuristic: int) -> Mask:
        """The pairs for which one holds, shape ``[pair]``."""
        return self.heuristics[heuristic].holds(self.first, self.second, self.result)


def library(
    operator: int,
    first: Ids,
    second: Ids,
    result: Ids,
    *,
    sets: Sequence[tuple[int, ...]] = (),
    fewest: int = FEWEST_PAIRS,
    largest_share: float = LARGEST_SHARE,
) -> Library:
    """The heuristics of an operator that say something about some pairs of operands.

    Left out are those for fewer than ``fewest`` pairs or for more than ``largest_share`` of
    them. Heuristics on one variable that hold for the same pairs are one: it has the name that
    comes first (values before ranges, residues, patterns, sets; shorter ranges before longer
    ones), and the other names in ``also``.

    Args:
        operator: Its place in ``OPERATORS``.
        first: Operand 1 of each pair, shape ``[pair]``; no pair twice.
        second: Operand 2, shape ``[pair]``.
        result: The right result, shape ``[pair]``; of a division the integer.
        sets: Of results, each a heuristic of its own: see ``matching.result_sets``.
        fewest: See above.
        largest_share: See above.

    Raises:
        UsageError: There is no pair, a number is negative, or a pair occurs twice.
    """
    first, second, result = (np.asarray(each, np.int64) for each in (first, second, result))
    if len(first) == 0 or min(first.min(), second.min(), result.min()) < 0:
        raise UsageError(
            "heuristics are about pairs of numbers from 0 on: got none, or negative ones"
        )
    if len(np.unique(np.stack((first, second), 1), axis=0)) < len(first):
        raise UsageError("heuristics are about pairs of operands, but one was given twice")
    pairs = first, second, result
    most = min(int(largest_share * len(first)), len(first) - 1)
    parts = [_part(operator, v, pairs, sets, (max(fewest, 1), most)) for v in VARIABLES]
    heuristics = [heuristic for part in parts for heuristic in part.heuristics]
    offsets = np.cumsum([0, *(len(part.heuristics) for part in parts)])
    masks = {
        variable: replace(part.masks, heuristics=part.masks.heuristics + offset)
        for variable, part, offset in zip(VARIABLES, parts, offsets[:-1], strict=True)
        if part.heuristics
    }
    return Library(
        tuple(heuristics),
        *pairs,
        np.concatenate([part.sizes for part in parts]),
        np.concatenate([part.excluded for part in parts]),
        masks,
    )


class _Part(NamedTuple):
    """The heuristics on one variable."""

    heuristics: list[Heuristic]
    sizes: Ids
    excluded: Mask
    masks: Masks


def _part(
    operator: int,
    variable: str,
    pairs: tuple[Ids, Ids, Ids],
    sets: Sequence[tuple[int, ...]],
    limits: tuple[int, int],
) -> _Part:
    values, codes = _classes(variable, *pairs)
    counts = np.ones(len(pairs[0]), np.int64) if codes is None else np.bincount(codes)
    found: dict[bytes, Heuristic] = {}
    members: list[Ids] = []
    for heuristic in _enumerated(operator, variable, values, sets):
        where = np.flatnonzero(heuristic.holds(*values))
        if not limits[0] <= counts[where].sum() <= limits[1]:
            continue
        key = where.tobytes()
        if key in found:
            found[key] = replace(found[key], also=(*found[key].also, heuristic.name))
        else:
            found[key] = heuristic
            members.append(where)
    sizes = np.array([counts[where].sum() for where in members], np.int64)
    largest = np.array([counts[where].max() for where in members], np.int64)
    flat = np.concatenate([np.empty(0, np.int64), *members])
    starts = np.cumsum([0, *map(len, members)])[:-1]
    masks = Masks(np.arange(len(found)), codes, len(counts), flat, starts)
    return _Part(list(found.values()), sizes, largest >= ONE_VALUE * sizes, masks)


def _classes(
    variable: str, first: Ids, second: Ids, result: Ids
) -> tuple[tuple[Ids, Ids, Ids], Ids | None]:
    """Operands and result of one problem of each class of pairs, and each pair's class."""
    if variable == "both":
        return (first, second, result), None
    on = {"op1": first, "op2": second, "result": result}[variable]
    _, at, codes = np.unique(on, return_index=True, return_inverse=True)
    return (first[at], second[at], result[at]), codes


def _enumerated(
    operator: int, variable: str, values: tuple[Ids, Ids, Ids], sets: Sequence[tuple[int, ...]]
) -> Iterator[Heuristic]:
    first, second, result = (int(each.max()) for each in values)
    largest = {"op1": first, "op2": second, "both": min(first, second), "result": result}
    yield from conditions(operator, variable, largest[variable])
    if variable == "both":
        yield Heuristic(variable, "identical")
    if variable == "result":
        for each in sorted({tuple(sorted(set(each))) for each in sets}):
            yield Heuristic(variable, "set", each)


def pairs_inside(found: Library, heuristics: Sequence[int]) -> Ids:
    """How many pairs with each result some heuristics hold for, ``[heuristic, result]``."""
    results, codes = np.unique(found.result, return_inverse=True)
    counts = [np.bincount(codes[found.mask(h)], minlength=len(results)) for h in heuristics]
    return np.stack(counts) if counts else np.zeros((0, len(results)), np.int64)
