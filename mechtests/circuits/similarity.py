"""How alike two circuits are, between what chance gives and what the measurement itself allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mechtests.circuits.circuit import Circuit, Floats
from mechtests.circuits.graph import KINDS, Bools, Graph, Ints
from mechtests.errors import MeasurementError, UsageError

PAIRS = 199
LEAST_SPAN = 0.1

Similarity = Callable[[Circuit, Circuit], float]


def jaccard(one: Bools, other: Bools) -> Floats:
    """Shared over all of two sets, along the last axis; 1 of two empty ones."""
    either = (one | other).sum(-1)
    return np.where(either > 0, (one & other).sum(-1) / np.maximum(either, 1), 1.0)


def node_jaccard(first: Circuit, second: Circuit) -> float:
    """Shared nodes over all nodes of two circuits; 1 of two empty ones.

    Nodes are heads and MLPs. Tigges et al. 2024 count the input and the logits too, which every
    circuit has but the empty one, so that no two circuits of theirs are at 0.

    Raises:
        UsageError: The circuits are of different graphs.
    """
    _same_graph(first, second)
    mine, theirs = first.nodes[1:-1], second.nodes[1:-1]
    either = int((mine | theirs).sum())
    if either == 0:
        return 1.0 if first.size == second.size else 0.0
    return int((mine & theirs).sum()) / either


def edge_jaccard(first: Circuit, second: Circuit) -> float:
    """The weighted Jaccard index of edges: sum of minima over sum of maxima; 1 of empty ones.

    An edge's weight is its |score| over the sum of those in its circuit, 0 outside, as in the
    later version of Tigges et al. 2024's code (the earlier one has signed scores, and negative
    indices).

    Raises:
        UsageError: The circuits are of different graphs.
        MeasurementError: A circuit has no scores, or they are all 0.
    """
    _same_graph(first, second)
    if first.size == 0 or second.size == 0:
        return 1.0 if first.size == second.size else 0.0
    mine, theirs = _weights(first), _weights(second)
    return float(np.minimum(mine, theirs).sum() / np.maximum(mine, theirs).sum())


def by_chance(
    first: Circuit,
    second: Circuit,
    similarity: Similarity,
    generator: np.random.Generator,
    *,
    pairs: int = PAIRS,
) -> Floats:
    """The similarity of random circuits with the same nodes in every layer, ``[pair]``.

    The heads of every layer change places at random, with all their edges, in one of the two;
    how many edges go between which layers, and their scores, stay.

    Args:
        first: A circuit.
        second: Another.
        similarity: ``node_jaccard`` or ``edge_jaccard``.
        generator: The source of the draws.
        pairs: How many.

    Raises:
        UsageError: The circuits are of different graphs, or there is another similarity.
    """
    _same_graph(first, second)
    if similarity not in (node_jaccard, edge_jaccard):
        raise UsageError("chance is known of node_jaccard and edge_jaccard, got another similarity")
    if not first.size or not second.size:
        return np.full(pairs, similarity(first, second))
    graph = first.graph
    heads = np.tile(np.arange(graph.heads), (pairs, graph.layers, 1))
    places = generator.permuted(heads, axis=2)
    if similarity is node_jaccard:
        return _nodes_moved(first, second, places)
    return _edges_moved(first, second, places)


def _nodes_moved(first: Circuit, second: Circuit, places: Ints) -> Floats:
    """Node similarity with the first circuit's heads moved to places ``[pair, layer, head]``."""
    graph = first.graph
    mine, theirs = (each.nodes[1:-1].reshape(graph.layers, -1) for each in (first, second))
    moved = np.zeros(places.shape, dtype=bool)
    np.put_along_axis(moved, places, np.broadcast_to(mine[:, :-1], places.shape), axis=2)
    shared = (moved & theirs[:, :-1]).sum((1, 2)) + int((mine[:, -1] & theirs[:, -1]).sum())
    either = int(mine.sum()) + int(theirs.sum()) - shared
    return np.where(either > 0, shared / np.maximum(either, 1), 1.0)


def _edges_moved(first: Circuit, second: Circuit, places: Ints) -> Floats:
    """Weighted edge similarity with the first circuit's heads moved so.

    Weights add up to 1 in either circuit, so that maxima add up to 2 minus the minima.
    """
    writers, readers = first.pairs
    to_writer, to_reader = _moved(first.graph, places)
    mine, theirs = _weights(first)[writers, readers], _weights(second)
    there = theirs[to_writer[:, writers], to_reader[:, readers]]
    shared = np.minimum(there, mine).sum(1)
    found: Floats = shared / (2.0 - shared)
    return found


def adjusted(similarity: float, chance: float, ceiling: float) -> float | None:
    """J*: 0 for what chance gives, 1 for what two halves of the prompts give at one checkpoint.

    Args:
        similarity: J of two circuits.
        chance: The mean of J ``by_chance``.
        ceiling: J between the circuits of the two halves at one checkpoint.

    Returns:
        ``(J - chance) / (ceiling - chance)``; None, undefined, where the denominator is below
        0.1.
    """
    span = ceiling - chance
    return (similarity - chance) / span if span >= LEAST_SPAN else None


def ewma(values: Sequence[float], alpha: float = 0.5) -> Floats:
    """The exponentially weighted moving average, which starts at the first value.

    Tigges et al. 2024's code smooths ``1 - J`` with 0.5, starting from 0, which draws its first
    values down.

    Raises:
        UsageError: Alpha is not above 0 and at most 1.
    """
    if not 0 < alpha <= 1:
        raise UsageError(f"a moving average needs an alpha above 0 and at most 1, got {alpha}")
    smooth: list[float] = []
    for value in values:
        smooth.append(value if not smooth else alpha * value + (1 - alpha) * smooth[-1])
    return np.array(smooth, dtype=np.float64)


def _weights(circuit: Circuit) -> Floats:
    if circuit.scores is None:
        raise MeasurementError(
            "weighted edges need a circuit with scores, got one without; give it those it was "
            "chosen by"
        )
    sizes = np.where(circuit.edges, np.abs(circuit.scores), 0.0)
    if not 0 < (total := float(sizes.sum())) < np.inf:
        raise MeasurementError(
            f"weighted edges need finite scores that are not all 0, got a sum of {total} over "
            f"{circuit.size} edges; look at the attribution that gave them"
        )
    weights: Floats = sizes / total
    return weights


def _moved(graph: Graph, places: Ints) -> tuple[Ints, Ints]:
    """Where each writer and each reader goes, ``[pair, writer]`` and ``[pair, reader]``."""
    writers = np.tile(np.arange(graph.writers), (len(places), 1))
    readers = np.tile(np.arange(graph.readers), (len(places), 1))
    for layer in range(graph.layers):
        start = graph.head(layer, 0)
        writers[:, start : start + graph.heads] = start + places[:, layer]
        for kind in range(len(KINDS)):
            begin = layer * (3 * graph.heads + 1) + kind * graph.heads
            readers[:, begin : begin + graph.heads] = begin + places[:, layer]
    return writers, readers


def _same_graph(first: Circuit, second: Circuit) -> None:
    one, other = first.graph, second.graph
    if (one.layers, one.heads, one.parallel) != (other.layers, other.heads, other.parallel):
        raise UsageError(f"circuits of one graph are compared, got {one} and {other}")
