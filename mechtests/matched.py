"""Matched random sets: what as many heads (or neurons) of the same layers give by chance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from mechtests.errors import MeasurementError
from mechtests.measurement import Head

FEWEST_SETS = 20
STRATA = ("layer", "third of depth", "any layer")


@dataclass(frozen=True)
class Draws:
    """Matched random sets.

    Attributes:
        sets: The sets, each sorted.
        stratum: What they match the observed set in: one of ``STRATA``.
        enumerated: Whether they are all distinct sets, the observed one among them.
        distinct: How many distinct sets the stratum offers.
    """

    sets: tuple[tuple[Head, ...], ...]
    stratum: str
    enumerated: bool
    distinct: int

    @property
    def p_min(self) -> float:
        """The smallest p these draws can give."""
        return smallest_p(len(self.sets), self.enumerated)


def matched_draws(
    observed: Sequence[Head],
    heads_by_layer: Mapping[int, Sequence[int]],
    count: int,
    generator: np.random.Generator,
) -> Draws:
    """Random sets with as many heads (or neurons) in each layer as the observed set.

    They are drawn from all heads of the layer, the observed ones included, so that the
    observed set is one draw more under the null and ``(b + 1) / (M + 1)`` is exact. A stratum
    with fewer than ``FEWEST_SETS`` distinct sets (p could not reach 0.05) is widened: layer,
    third of depth, any layer. Fewer distinct sets than ``count`` are enumerated.

    Args:
        observed: The observed set, as (layer, head).
        heads_by_layer: The heads to draw from, by layer.
        count: How many sets to draw.
        generator: The source of the draws.

    Raises:
        MeasurementError: An observed head is not among those to draw from.
    """
    chosen = set(observed)
    if strange := sorted(h for h in chosen if h[1] not in heads_by_layer.get(h[0], ())):
        raise MeasurementError(
            f"matched random sets are drawn from all heads of a layer, the observed included, "
            f"but these observed heads are not among them: {strange}; pass the whole layers"
        )
    for stratum in STRATA:
        bands = _bands(stratum, heads_by_layer)
        takes = [len(chosen.intersection(band)) for band in bands]
        distinct = math.prod(math.comb(len(b), k) for b, k in zip(bands, takes, strict=True))
        if distinct >= FEWEST_SETS:
            break
    enumerated = distinct < count
    sets = (
        _all_sets(bands, takes)
        if enumerated
        else (_one_set(bands, takes, generator) for _ in range(count))
    )
    return Draws(tuple(sets), stratum, enumerated, distinct)


def _bands(stratum: str, heads_by_layer: Mapping[int, Sequence[int]]) -> list[list[Head]]:
    """The heads among which a draw may exchange one for another."""
    layers = sorted(heads_by_layer)
    count = {"layer": len(layers), "third of depth": 3, "any layer": 1}[stratum]
    bands: list[list[Head]] = [[] for _ in range(count)]
    for rank, layer in enumerate(layers):
        bands[rank * count // len(layers)] += [(layer, head) for head in heads_by_layer[layer]]
    return bands


def _all_sets(bands: list[list[Head]], takes: list[int]) -> Iterator[tuple[Head, ...]]:
    for parts in product(*(combinations(b, k) for b, k in zip(bands, takes, strict=True))):
        yield tuple(sorted(head for part in parts for head in part))


def _one_set(
    bands: list[list[Head]], takes: list[int], generator: np.random.Generator
) -> tuple[Head, ...]:
    drawn: list[Head] = []
    for band, take in zip(bands, takes, strict=True):
        if take:
            drawn += [band[i] for i in generator.choice(len(band), take, replace=False).tolist()]
    return tuple(sorted(drawn))


def permutation_p(observed: float, draws: Sequence[float], *, enumerated: bool = False) -> float:
    """One-sided p of an observed value among draws: (b + 1) / (M + 1), never 0.

    b counts draws at least as large; what differs by less than float32 keeps apart (1e-6
    of the largest) counts as a tie. ``enumerated`` draws hold the observed set itself, so
    that p is exactly b / M.
    """
    values = np.asarray(draws, dtype=np.float64)
    if len(values) == 0:
        raise MeasurementError("a p among draws needs at least one draw, got none; draw some sets")
    if not (math.isfinite(observed) and bool(np.isfinite(values).all())):
        raise MeasurementError("a p among draws needs finite values, got NaN or infinity")
    slack = 1e-6 * max([abs(observed), *np.abs(values).tolist()])
    reached = int((values >= observed - slack).sum())
    return max(reached, 1) / len(values) if enumerated else (reached + 1) / (len(values) + 1)


def smallest_p(draws: int, enumerated: bool) -> float:
    """The smallest p that so many draws can give."""
    return 1 / draws if enumerated else 1 / (draws + 1)
