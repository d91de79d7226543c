"""The smallest circuit that keeps enough of a behaviour.

Faithfulness does not rise with every edge, so that "the smallest" is given a meaning: the first
crossing on a geometric grid of sizes, found by going up, and then refined between the last size
of the grid below the threshold and the first one above it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mechtests.circuits.circuit import Circuit, Floats
from mechtests.circuits.faithfulness import check_gap, faithfulness
from mechtests.circuits.graph import Bools, Graph, Ints
from mechtests.circuits.selection import Ordering
from mechtests.errors import UsageError

Evaluate = Callable[[Sequence[Circuit]], Floats]
"""From circuits to a metric's values ``[circuit, prompt]``."""

RATIO = 1.15
SHARE = 0.05
TOGETHER = 8


@dataclass(frozen=True, eq=False)
class Point:
    """One size of the search.

    Attributes:
        n: Edges of the ordering.
        edges: Of them, those in the circuit: on a path from the input to the logits.
        nodes: Nodes of the circuit, the input and the logits among them.
        values: The metric, ``[prompt]``.
    """

    n: int
    edges: int
    nodes: int
    values: Floats

    @classmethod
    def of(cls, ordering: Ordering, n: int, values: Floats) -> Point:
        """The circuit of the first n edges of an order, and what it keeps."""
        circuit = ordering.circuit(n)
        return cls(n, circuit.size, int(circuit.nodes.sum()), values)


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found.

    Attributes:
        threshold: The share of the metric to keep.
        clean: The clean run's values, ``[prompt]``.
        corrupted: Those of the other edges, ``[prompt]``, or None for plain faithfulness.
        grid: Points of the grid that were evaluated, smallest first: up to the first crossing
            and some beyond, for the interval.
        refined: Points between the last one below and the first one above.
        smallest: The smallest circuit found, or None: censored, no circuit of the grid keeps
            enough, and the size is beyond its end.
        limit: The grid's end, in edges of the ordering.
    """

    threshold: float
    clean: Floats
    corrupted: Floats | None
    grid: tuple[Point, ...]
    refined: tuple[Point, ...]
    smallest: Point | None
    limit: int

    @classmethod
    def on_grid(
        cls, points: tuple[Point, ...], clean: Floats, corrupted: Floats | None, threshold: float
    ) -> Found:
        """What a whole grid of sizes says, without refining."""
        crossing = _first(_shares(points, clean, corrupted) >= threshold)
        smallest = None if crossing is None else points[crossing]
        return cls(threshold, clean, corrupted, points, (), smallest, points[-1].n)

    @property
    def size(self) -> Point:
        """The smallest circuit, or where none keeps enough the largest that was tried."""
        return self.grid[-1] if self.smallest is None else self.smallest

    @property
    def censored(self) -> bool:
        """Whether no circuit up to the grid's end keeps enough."""
        return self.smallest is None

    def faithfulness(self, points: Sequence[Point]) -> Floats:
        """Of some points, shape ``[point]``."""
        return _shares(points, self.clean, self.corrupted)


def grid(limit: int, *, ratio: float = RATIO) -> Ints:
    """Sizes from 1 up to the limit, each ``ratio`` times the last, rounded, without repeats.

    Raises:
        UsageError: There is no such grid.
    """
    if limit < 1 or ratio <= 1:
        raise UsageError(
            f"a grid of sizes goes up from 1 to its limit, got the limit {limit} and the ratio "
            f"{ratio}; give a limit of 1 at least and a ratio above 1"
        )
    steps = int(np.ceil(np.log(limit) / np.log(ratio))) + 1
    sizes = np.rint(ratio ** np.arange(steps)).astype(np.int64)
    return np.unique(np.append(sizes[sizes < limit], limit))


def limit_of(graph: Graph, share: float = SHARE) -> int:
    """The grid's end: so many of the graph's edges."""
    return max(1, round(share * graph.edges))


def evaluated(circuits: Sequence[Circuit], evaluate: Evaluate) -> Floats:
    """The values of circuits, those of the same edges evaluated once, ``[circuit, prompt]``."""
    keys = [circuit.edges.tobytes() for circuit in circuits]
    distinct = dict(zip(keys, circuits, strict=True))
    row = {key: at for at, key in enumerate(distinct)}
    return evaluate(list(distinct.values()))[[row[key] for key in keys]]


def scan(ordering: Ordering, evaluate: Evaluate, sizes: Sequence[int]) -> list[Point]:
    """The circuits of some sizes."""
    values = evaluated([ordering.circuit(int(n)) for n in sizes], evaluate)
    return [Point.of(ordering, int(n), each) for n, each in zip(sizes, values, strict=True)]


def smallest(
    ordering: Ordering,
    evaluate: Evaluate,
    clean: Floats,
    corrupted: Floats | None,
    *,
    threshold: float = 0.8,
    limit: int | None = None,
    beyond: int = 4,
    refine: bool = True,
) -> Found:
    """The smallest circuit of an ordering that keeps a share of the metric.

    Source: Tigges et al. 2024, section on circuits (at least 80%, up to 5% of the edges). Their
    code bisects, which gives a crossing and not the first one; on SmolLM2 it was off by a
    factor of two.

    Args:
        ordering: Of the edges.
        evaluate: Circuits to a metric's values.
        clean: The clean run's values, ``[prompt]``.
        corrupted: Those of the other edges, ``[prompt]``; None for plain faithfulness.
        threshold: The share to keep.
        limit: The grid's end; 5% of the graph's edges unless said.
        beyond: How many points of the grid to evaluate behind the first crossing, so that
            other draws of the prompts can cross later.
        refine: Go on between the last point below and the first above.

    Raises:
        MeasurementError: The clean mean is not above the corrupted one, or fewer edges than
            the limit were put in order.
    """
    check_gap(clean, corrupted)
    limit = limit_of(ordering.graph) if limit is None else limit
    sizes = grid(limit).tolist()
    points: list[Point] = []
    crossing, until = None, len(sizes)
    while len(points) < until:
        stop = min(until, len(points) + TOGETHER)
        points += scan(ordering, evaluate, sizes[len(points) : stop])
        crossing = _first(_shares(points, clean, corrupted) >= threshold)
        if crossing is not None:
            until = min(len(sizes), crossing + 1 + beyond)
    low, high = None, None
    if crossing is not None:
        low, high = (points[crossing - 1] if crossing else None), points[crossing]
    refined: list[Point] = []
    while refine and low is not None and high is not None and high.n - low.n > 1:
        (middle,) = scan(ordering, evaluate, [(low.n + high.n) // 2])
        refined.append(middle)
        above = bool(_shares([middle], clean, corrupted)[0] >= threshold)
        low, high = (low, middle) if above else (middle, high)
    return Found(threshold, clean, corrupted, tuple(points), tuple(refined), high, limit)


@dataclass(frozen=True)
class SizeInterval:
    """An interval of a circuit's size over prompts.

    Attributes:
        low: Its lower end, or None where it is beyond all evaluated sizes.
        high: Its upper end, or None where it is beyond all evaluated sizes.
        level: Of the interval.
        censored: The share of draws that crossed at no evaluated size.
    """

    low: float | None
    high: float | None
    level: float
    censored: float


def interval(
    found: Found,
    generator: np.random.Generator,
    *,
    of: Literal["n", "edges", "nodes"] = "edges",
    draws: int = 999,
    level: float = 0.95,
    cluster: Ints | None = None,
) -> SizeInterval:
    """An interval of the first crossing on the grid, by drawing prompts again.

    Every draw of clusters has its own first crossing among the evaluated points of the grid;
    its ends are quantiles of them, so the interval is as coarse as the grid (a factor of 1.15).

    Args:
        found: By ``smallest``.
        generator: The source of the draws.
        of: The size: edges of the ordering, edges or nodes of the circuit.
        draws: How many.
        level: Of the interval.
        cluster: Prompts that are drawn together have the same number, ``[prompt]``.
    """
    prompts = len(found.clean)
    _, member = np.unique(np.arange(prompts) if cluster is None else cluster, return_inverse=True)
    count = int(member.max()) + 1
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=draws)
    weights = drawn[:, member].astype(np.float64)
    values = np.stack([point.values for point in found.grid])
    shares = faithfulness(values, found.clean, found.corrupted, weights=weights)
    above = shares >= found.threshold
    sizes = np.array([getattr(point, of) for point in found.grid], dtype=np.float64)
    first = np.where(above.any(1), sizes[above.argmax(1)], np.inf)
    tail = (1 - level) / 2
    ends = np.quantile(first, [tail, 1 - tail], method="inverted_cdf")
    low, high = (float(end) if np.isfinite(end) else None for end in ends)
    return SizeInterval(low, high, level, float(np.isinf(first).mean()))


def _shares(points: Sequence[Point], clean: Floats, corrupted: Floats | None) -> Floats:
    return faithfulness(np.stack([point.values for point in points]), clean, corrupted)


def _first(true: Bools) -> int | None:
    return int(true.argmax()) if true.any() else None
