"""How circuits change over training: how alike those of two checkpoints are.

One run of training is one sample. What is said of it is corrected for what chance and the
measurement itself give (``similarity.adjusted``); its error is a jackknife over checkpoints, since
every checkpoint is in several pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mechtests.circuits import finding
from mechtests.circuits.circuit import Circuit, Floats
from mechtests.circuits.graph import Ints
from mechtests.circuits.similarity import (
    PAIRS,
    Similarity,
    adjusted,
    by_chance,
    edge_jaccard,
    jaccard,
    node_jaccard,
)
from mechtests.matched import permutation_p
from mechtests.means import Mean
from mechtests.measurement import HALVES, Measurement
from mechtests.rules import CONTROL_LEVEL
from mechtests.verdict import Control

FEWEST = 6
TOLERANCE = 0.25
"""How far a checkpoint may be from its place, as a share of the spacing."""
LAGS = (1, 2, 4)
CHURNS = 199
KINDS: dict[str, Similarity] = {"nodes": node_jaccard, "weighted edges": edge_jaccard}


def equally_spaced(positions: Floats, *, fewest: int = FEWEST) -> list[int]:
    """The most checkpoints up to the last one that are equally far apart in tokens.

    Args:
        positions: Tokens of the checkpoints, in order, ``[moment]``.
        fewest: How many it must be.

    Returns:
        Their places, each within a quarter of the spacing of where it should be, of equally many
        those that begin earliest; empty where there are not so many.
    """
    for count in range(len(positions), fewest - 1, -1):
        for start in range(len(positions) - count + 1):
            ideal = np.linspace(positions[start], positions[-1], count)
            nearest = np.abs(positions[None, :] - ideal[:, None]).argmin(1)
            off = np.abs(positions[nearest] - ideal).max()
            apart = len(set(nearest.tolist())) == count
            if apart and off <= TOLERANCE * (ideal[1] - ideal[0]):
                return [int(place) for place in nearest]
    return []


@dataclass(frozen=True, eq=False)
class Circuits:
    """The circuits of equally many edges at some checkpoints, from each half of the prompts.

    Attributes:
        by_half: For each half, a circuit for each checkpoint.
        generator: For what chance gives.
    """

    by_half: tuple[tuple[Circuit, ...], tuple[Circuit, ...]]
    generator: np.random.Generator

    @classmethod
    def of(cls, scores: Sequence[Measurement], n: int, generator: np.random.Generator) -> Circuits:
        """The first n edges of each half's greedy order, pruned.

        Args:
            scores: ``circuits.edge_scores`` at each checkpoint.
            n: Edges of the order.
            generator: For what chance gives.
        """
        first, second = (
            tuple(finding.ordering(each, half).circuit(n) for each in scores) for half in HALVES
        )
        return cls((first, second), generator)

    def __len__(self) -> int:
        """How many checkpoints there are."""
        return len(self.by_half[0])

    def alike(self, kind: str, lag: int, *, pairs: int | None = None) -> Floats:
        """J* of the circuits of each checkpoint and of the one ``lag`` later.

        The mean over the two halves of the prompts; the ceiling is what the circuits of the two
        halves have in common, the mean of the two checkpoints'.

        Args:
            kind: One of ``KINDS``.
            lag: In checkpoints.
            pairs: Random pairs of circuits; 199 unless said.

        Returns:
            Shape ``[moment - lag]``; NaN where it is undefined.
        """
        similarity, draws = KINDS[kind], PAIRS if pairs is None else pairs
        ceilings = self._ceilings(similarity)
        found = np.full((2, len(self) - lag), np.nan)
        for half, circuits in enumerate(self.by_half):
            for at in range(len(self) - lag):
                one, other = circuits[at], circuits[at + lag]
                chance = by_chance(one, other, similarity, self.generator, pairs=draws).mean()
                ceiling = (ceilings[at] + ceilings[at + lag]) / 2
                j = adjusted(similarity(one, other), float(chance), ceiling)
                found[half, at] = math.nan if j is None else j
        return np.asarray(found.mean(0))

    def raw(self, kind: str, lag: int) -> Floats:
        """Plain J of the same pairs, the mean over the halves, ``[moment - lag]``."""
        found: Floats = np.mean(
            [
                [KINDS[kind](one, other) for one, other in zip(each, each[lag:], strict=False)]
                for each in self.by_half
            ],
            axis=0,
        )
        return found

    def to_the_last(self, kind: str) -> Floats:
        """Plain J of every circuit with the last one, the mean over the halves, ``[moment]``."""
        alike = KINDS[kind]
        found: Floats = np.mean([[alike(c, each[-1]) for c in each] for each in self.by_half], 0)
        return found

    def _ceilings(self, similarity: Similarity) -> list[float]:
        return [similarity(one, other) for one, other in zip(*self.by_half, strict=True)]

    @cached_property
    def node_sets(self) -> NDArray[np.bool_]:
        """Heads and MLPs in each circuit of the first half, ``[moment, node]``."""
        return np.stack([circuit.nodes[1:-1] for circuit in self.by_half[0]])


Similarities = Callable[[int], Floats]
"""From a lag to the similarity of each pair, ``[moment - lag]``; NaN where it is undefined."""


@dataclass(frozen=True, eq=False)
class _Thirds:
    """The pairs of each lag, and which of them are early and which late."""

    pairs: tuple[tuple[int, Floats, NDArray[np.bool_], NDArray[np.bool_]], ...]

    @classmethod
    def of(cls, similarities: Similarities, count: int, lags: Sequence[int]) -> _Thirds:
        found = []
        for lag in lags:
            if (left := count - lag) >= 2 * 2:  # two pairs in either third
                places, third = np.arange(left), max(2, left // 3)
                found.append((lag, similarities(lag), places < third, places >= left - third))
        return cls(tuple(found))

    def contrast(self, without: int | None = None) -> float:
        """Late minus early, the mean over lags, with a checkpoint left out."""
        found = []
        for lag, each, early, late in self.pairs:
            kept = ~np.isnan(each)
            if without is not None:
                kept[[at for at in (without, without - lag) if 0 <= at < len(each)]] = False
            if (kept & late).any() and (kept & early).any():
                found.append(float(each[kept & late].mean() - each[kept & early].mean()))
        return float(np.mean(found)) if found else math.nan


def fixed_lag_contrast(
    similarities: Similarities, count: int, *, lags: Sequence[int] = LAGS
) -> Mean | None:
    """Similarity at fixed lags late in training minus early in it.

    For each lag, the mean of the last third of its pairs minus that of the first third, and the
    mean of that over the lags with two pairs or more in a third. Its error is a jackknife over
    checkpoints, each left out with all pairs it is in.

    Args:
        similarities: Of the pairs of each lag.
        count: How many checkpoints there are.
        lags: In checkpoints.

    Returns:
        None where too few pairs are defined.
    """
    thirds = _Thirds.of(similarities, count, lags)
    whole = thirds.contrast()
    left_out = np.array([thirds.contrast(at) for at in range(count)])
    left_out = left_out[~np.isnan(left_out)]
    if math.isnan(whole) or len(left_out) < FEWEST - 1:
        return None
    return jackknifed(whole, left_out, over=f"{count} checkpoints")


def jackknifed(whole: float, left_out: Floats, *, over: str) -> Mean:
    """A statistic of some checkpoints with its jackknife error.

    Args:
        whole: Of all.
        left_out: Without each of them, ``[moment]``.
        over: What it is over, in words.
    """
    n = len(left_out)
    error = math.sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))
    return Mean(whole, error, n - 1, over=over)


def churn(circuits: Circuits, generator: np.random.Generator) -> Control:
    """The control of 199 stationary series with the same sizes and the same turnover a step.

    In each, from one checkpoint to the next as large a share of the nodes is replaced by random
    others as on average in the circuits; the plain node similarity at fixed lags then changes by
    chance alone.

    Args:
        circuits: The circuits of the run.
        generator: For the series.
    """
    sets = circuits.node_sets
    sizes = sets.sum(1)
    shared = (sets[1:] & sets[:-1]).sum(1) / np.maximum(1, np.minimum(sizes[1:], sizes[:-1]))
    turnover = 1.0 - float(shared.mean())

    def late_minus_early(nodes: NDArray[np.bool_]) -> float:
        thirds = _Thirds.of(lambda lag: jaccard(nodes[:-lag], nodes[lag:]), len(nodes), LAGS)
        return thirds.contrast()

    draws = [
        late_minus_early(_wandering(sizes, turnover, sets.shape[1], generator))
        for _ in range(CHURNS)
    ]
    observed = late_minus_early(sets)
    p = permutation_p(observed, draws)
    return Control(
        "churn",
        f"churn: node similarity changes by {observed:.2g}, and in {CHURNS} stationary series of "
        f"the same sizes and turnover ({turnover:.2g} a step) by {np.mean(draws):.2g} on average, "
        f"p = {p:.2g}",
        reached=p > CONTROL_LEVEL,
        p=p,
        p_min=1 / (CHURNS + 1),
        values=tuple(draws),
        observed=float(observed),
    )


def _wandering(
    sizes: Ints, turnover: float, nodes: int, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """One stationary series of node sets, ``[moment, node]``."""
    found = np.zeros((len(sizes), nodes), dtype=bool)
    found[0, generator.permutation(nodes)[: sizes[0]]] = True
    for at in range(1, len(sizes)):
        inside = generator.permutation(np.flatnonzero(found[at - 1]))
        outside = generator.permutation(np.flatnonzero(~found[at - 1]))
        keep = min(len(inside), int(sizes[at]))
        coming = int(sizes[at]) - keep  # where the set grows, whatever is replaced
        keep -= min(int(generator.binomial(keep, turnover)), len(outside) - coming)
        found[at, inside[:keep]] = True
        found[at, outside[: int(sizes[at]) - keep]] = True
    return found


def neighbours(similarities: Floats) -> Mean | None:
    """The mean similarity of neighbouring checkpoints, with a jackknife over checkpoints.

    Args:
        similarities: Of each checkpoint and the next, ``[moment - 1]``; NaN where undefined.
    """
    kept = ~np.isnan(similarities)
    if kept.sum() < 3:
        return None
    left_out = []
    for at in range(len(similarities) + 1):
        rest = kept.copy()
        rest[max(0, at - 1) : at + 1] = False
        left_out.append(float(similarities[rest].mean()) if rest.any() else math.nan)
    there = np.array([each for each in left_out if not math.isnan(each)])
    over = f"{len(similarities) + 1} checkpoints"
    return jackknifed(float(similarities[kept].mean()), there, over=over)
