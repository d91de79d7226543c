"""How alike two circuits are, between what chance gives and what the measurement itself allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mechtests.circuits.circuit import Circuit, Floats
from mechtests.circuits.graph import KINDS, Graph, Ints
from mechtests.errors import MeasurementError, UsageError

PAIRS = 199
LEAST_SPAN = 0.1

Similarity = Callable[[Circuit, Circuit], float]


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
        UsageError: The circuits are of different graphs.
    """
    return np.array(
        [similarity(relabelled(first, generator), second) for _ in range(pairs)],
        dtype=np.float64,
    )


def relabelled(circuit: Circuit, generator: np.random.Generator) -> Circuit:
    """The circuit with the heads of every layer in another, random order."""
    graph = circuit.graph
    heads = np.stack([generator.permutation(graph.heads) for _ in range(graph.layers)])
    writers, readers = _moved(graph, heads)
    scores = circuit.scores
    return Circuit(
        graph,
        circuit.edges[writers][:, readers],
        None if scores is None else scores[writers][:, readers],
    )


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


def _moved(graph: Graph, heads: Ints) -> tuple[Ints, Ints]:
    """From which place each writer and each reader comes, given each head's, ``[layer, head]``."""
    writers, readers = np.arange(graph.writers), np.arange(graph.readers)
    for layer in range(graph.layers):
        start = graph.head(layer, 0)
        writers[start : start + graph.heads] = start + heads[layer]
        for kind in range(len(KINDS)):
            begin = layer * (3 * graph.heads + 1) + kind * graph.heads
            readers[begin : begin + graph.heads] = begin + heads[layer]
    return writers, readers


def _same_graph(first: Circuit, second: Circuit) -> None:
    one, other = first.graph, second.graph
    if (one.layers, one.heads, one.parallel) != (other.layers, other.heads, other.parallel):
        raise UsageError(f"circuits of one graph are compared, got {one} and {other}")
