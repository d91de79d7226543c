"""Which heuristics a neuron's activations match: Algorithm 1 of Nikankin et al. (2025).

A heuristic's score on a neuron is the share of the heuristic's k pairs among the k pairs on
which the neuron is largest: k is how many pairs the heuristic holds for. For a direct heuristic
the activation is first multiplied with what the neuron adds to the logit of the pair's result.

Where activations tie across the k-th place, the score is its mean over all orders of the tied
pairs. It depends on no order of the pairs, and a neuron that is constant scores the share of
the pairs that the heuristic holds for.

Each neuron is sorted once. A place in its order cuts the pairs into those before and after;
how many pairs of each class (the values of an operand or of the result) are before each cut
is one table of counts, and a heuristic is a sum over some of its cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechtests.arithmetic import libraries
from mechtests.arithmetic.heuristics import Mask
from mechtests.arithmetic.libraries import Library, Masks
from mechtests.arithmetic.problems import Problems
from mechtests.errors import MeasurementError, UsageError
from mechtests.tasks.arithmetic import DIVISION
from mechtests.tasks.prompts import Ids

Floats = NDArray[np.floating[Any]]

THRESHOLD = 0.6
TOGETHER = 64
"""Columns copied at once, so that each neuron's activations lie side by side."""
TOP = 1 / 90
"""The paper's code looks at the top 1,000 of 89,401 divisions for a set of results."""
COVERED = 0.95
FEWEST_RESULTS, MOST_RESULTS = 2, 4


def scores(
    activations: Floats, library: Library, *, lens: Floats | None = None, gated: bool = False
) -> NDArray[np.float32]:
    """How well every heuristic describes every neuron, in [0, 1], shape ``[neuron, heuristic]``.

    Source: Algorithm 1 with k the number of the heuristic's pairs (the code's k is another one
    but for ranges); ``gated`` is the code's. Computed in fp32, over as many threads as torch has.

    Args:
        activations: At "=", for each pair of the library, shape ``[pair, neuron]``.
        library: The heuristics.
        lens: What each neuron adds to the logit of each of ``library.results`` for each unit
            of its activation, shape ``[result, neuron]``; without it direct heuristics too
            are scored from activations alone.
        gated: Of a gated MLP, whose neurons have two signs: an indirect heuristic's score is
            the larger of those among its k largest and its k smallest activations.

    Raises:
        UsageError: Shapes do not fit the library.
        MeasurementError: An activation or a logit is NaN or infinite.
    """
    _refuse_misfits(activations, library, lens)
    result = library.masks["result"].codes if "result" in library.masks else None
    found = np.empty((activations.shape[1], len(library)), np.float32)

    def score(neuron: int, column: NDArray[np.float32]) -> None:
        order = _Order.of(column)
        for variable, masks in library.masks.items():
            ranked = order
            if variable == "result" and lens is not None:
                ranked = _Order.of(column * lens[:, neuron].astype(np.float32)[result])
            two_sided = gated and variable != "result"
            found[neuron, masks.heuristics] = _shares(ranked, masks, library, two_sided)

    with ThreadPoolExecutor(_threads()) as pool:
        for at, columns in _blocks(activations):
            list(pool.map(score, range(at, at + len(columns)), columns))
    return found


def _refuse_misfits(activations: Floats, library: Library, lens: Floats | None) -> None:
    pairs, neurons = len(library.first), activations.shape[-1]
    if activations.shape != (pairs, neurons):
        raise UsageError(
            f"the library is about {pairs} pairs and needs activations [{pairs}, neuron], "
            f"got {list(activations.shape)}; pass those of the same pairs"
        )
    if lens is None:
        return
    if lens.shape != (len(library.results), neurons):
        raise UsageError(
            f"the logit lens of {neurons} neurons needs a row for each of the "
            f"{len(library.results)} results, got {list(lens.shape)}; see library.results"
        )
    if not np.isfinite(lens).all():
        raise MeasurementError("the logit lens of the neurons has NaN or infinite values")


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _blocks(activations: Floats) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The number of a first neuron, and activations from it on, ``[neuron, pair]``."""
    for at in range(0, activations.shape[1], TOGETHER):
        columns = np.ascontiguousarray(activations[:, at : at + TOGETHER].T, np.float32)
        if not np.isfinite(columns).all():
            bad = at + np.flatnonzero(~np.isfinite(columns).all(1))
            raise MeasurementError(
                f"neurons {bad.tolist()} have activations that are NaN or infinite"
            )
        yield at, columns


def _shares(order: _Order, masks: Masks, library: Library, two_sided: bool) -> Floats:
    size = library.sizes[masks.heuristics]
    hits = order.hits(masks, size)
    if two_sided:
        hits = np.maximum(hits, size - order.hits(masks, len(library.first) - size))
    shares: Floats = hits / size
    return shares


def matched(found: NDArray[np.float32], threshold: float = THRESHOLD) -> Mask:
    """Which scores are a match: at least the threshold, shape of the scores."""
    return found >= np.float32(threshold)


def result_sets(
    activations: Floats, library: Library, lens: Floats | None = None
) -> list[tuple[int, ...]]:
    """The sets of 2 to 4 results that neurons propose for a division, each once, in order.

    A neuron proposes the smallest set of results with at least 95% of the ninetieth of the
    pairs on which it is largest (times its logit lens, as for any direct heuristic). Given to
    ``libraries.library``, a set is a heuristic like others: scored on every neuron by
    Algorithm 1, left out when it holds for too many pairs, excluded when one result is most
    of it. The paper says only "more than a threshold percentage" of sets of 2 to 4; its code
    has 2 to 5 among the top 1,000, and takes that very share for the score.
    """
    _refuse_misfits(activations, library, lens)
    results, codes = np.unique(library.result, return_inverse=True)
    top = max(1, round(TOP * len(codes)))
    found: set[tuple[int, ...]] = set()
    for at, columns in _blocks(activations):
        for neuron, column in enumerate(columns, at):
            ranked = column if lens is None else column * lens[:, neuron].astype(np.float32)[codes]
            counts = np.bincount(codes, _in_top(ranked, top))
            order = np.argsort(-counts, kind="stable")
            needed = 1 + int(np.argmax(counts[order].cumsum() >= COVERED * top - 1e-6))
            if FEWEST_RESULTS <= needed <= MOST_RESULTS:
                found.add(tuple(sorted(results[order[:needed]].tolist())))
    return sorted(found)


@dataclass(frozen=True, eq=False)
class Matched:
    """How well the heuristics of an operator describe some neurons.

    Attributes:
        library: The heuristics.
        with_lens: Direct ones through the logit lens, ``[neuron, heuristic]``.
        alone: From activations alone, the same shape.
    """

    library: Library
    with_lens: NDArray[np.float32]
    alone: NDArray[np.float32]


def scores_of(
    problems: Problems, operator: int, acts: Floats, lens: Floats, *, gated: bool, alone: bool
) -> Matched:
    """Scores of some neurons for the heuristics of an operator; they propose sets of quotients.

    Args:
        problems: All that are at hand of the operator, each once.
        operator: Its place in ``tasks.arithmetic.OPERATORS``.
        acts: At "=", ``[problem, neuron]``.
        lens: Of each result, ascending, ``[result, neuron]``.
        gated: See ``scores``.
        alone: Whether to score activations alone besides; else those scores are the others.
    """
    numbers = problems.first, problems.second, problems.result
    found = libraries.library(operator, *numbers)
    if operator == DIVISION:
        sets = result_sets(acts, found, lens)
        found = libraries.library(operator, *numbers, sets=sets)
    with_lens = scores(acts, found, lens=lens, gated=gated)
    return Matched(found, with_lens, scores(acts, found, gated=gated) if alone else with_lens)


def _in_top(activations: Floats, top: int) -> Floats:
    """The chance of each pair to be among the largest, all orders of ties being alike."""
    edge = np.partition(activations, -top)[-top]
    above, tied = activations > edge, activations == edge
    chance: Floats = above + tied * ((top - above.sum()) / tied.sum())
    return chance


@dataclass(frozen=True, eq=False)
class _Order:
    """Pairs from the largest activation down."""

    pairs: Ids
    activations: Floats

    @classmethod
    def of(cls, activations: Floats) -> _Order:
        pairs = np.argsort(-activations)
        return cls(pairs, activations[pairs])

    def hits(self, masks: Masks, first: Ids) -> Floats:
        """How many of the ``first[mask]`` largest each mask holds for, shape ``[mask]``."""
        edge = self.activations[first - 1]
        low, high = first, first
        if np.any(tied := edge == self.activations[first]):
            low = np.where(tied, np.searchsorted(-self.activations, -edge, "left"), first)
            high = np.where(tied, np.searchsorted(-self.activations, -edge, "right"), first)
        before = self._before(masks, high)
        if low is high:
            return before.astype(np.float64)
        outside = self._before(masks, low)
        expected: Floats = outside + (first - low) / np.maximum(high - low, 1) * (before - outside)
        return expected

    def _before(self, masks: Masks, cuts: Ids) -> Ids:
        """How many pairs of each mask are before a place of its own, shape ``[mask]``."""
        lengths = np.diff(masks.starts, append=len(masks.members))
        if masks.codes is None:
            place = np.empty(len(self.pairs), np.int32)
            place[self.pairs] = np.arange(len(self.pairs), dtype=np.int32)
            is_before = place[masks.members] < np.repeat(cuts.astype(np.int32), lengths)
            return np.add.reduceat(is_before, masks.starts, dtype=np.int64)
        places, at = np.unique(cuts, return_inverse=True)
        piece = np.repeat(np.arange(len(places)), np.diff(places, prepend=0))
        cells = masks.codes[self.pairs[: len(piece)]] * len(places) + piece
        table = np.bincount(cells, minlength=masks.classes * len(places))
        before = table.reshape(masks.classes, len(places)).cumsum(1)
        return np.add.reduceat(before[masks.members, np.repeat(at, lengths)], masks.starts)
