"""Circuits read off what was measured: their order, the best small one, the smallest faithful one.

Nothing here runs a network: a claim and the command line read the same measurements so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mechtests.circuits import search, selection
from mechtests.circuits.circuit import Circuit, Floats
from mechtests.circuits.faithfulness import faithfulness
from mechtests.circuits.graph import Bools, Graph, Ints, Read
from mechtests.measurement import HALVES, Half, Head, Measurement

COARSE = 2.0
"""The ratio of the grid in which the best size is looked for."""


def graph_of(measurement: Measurement) -> Graph:
    """The graph that edge scores are of."""
    layers, heads, parallel, groups = (int(each) for each in measurement["graph"])
    return Graph(layers, heads, bool(parallel), groups)


def ordering(scores: Measurement, half: Half, *, share: float = search.SHARE) -> selection.Ordering:
    """The edges in the order in which one half of the prompts takes them into circuits.

    Args:
        scores: From ``edge_scores``.
        half: The half whose scores choose.
        share: How much of the graph to put in order.
    """
    graph = graph_of(scores)
    return selection.greedy(graph, scores[half], limit=search.limit_of(graph, share))


def grid_of(graph: Graph, *, ratio: float, share: float = search.SHARE) -> Ints:
    """The sizes at which circuits are evaluated, in edges of the ordering."""
    return search.grid(search.limit_of(graph, share), ratio=ratio)


def best_size(measurement: Measurement, values: Floats, half: Half) -> int:
    """The place of the size with the best faithfulness on a half; of equal ones the smallest.

    Args:
        measurement: From ``small``.
        values: Of circuits of every size, ``[prompt, size]``.
        half: The half that chooses.
    """
    of = measurement.of(half)
    clean, corrupted = measurement["clean"][of], measurement["corrupted"][of]
    shares = faithfulness(values[of].T, clean, corrupted)
    return int(np.argmax(np.nan_to_num(shares, nan=-np.inf)))


def chosen_circuit(scores: Measurement, measurement: Measurement) -> Circuit:
    """The small circuit with the best faithfulness on the half that found it.

    Args:
        scores: From ``edge_scores``.
        measurement: From ``small``.
    """
    graph = graph_of(scores)
    sizes = grid_of(graph, ratio=COARSE)
    place = best_size(measurement, measurement["circuit"], "selection")
    return ordering(scores, "selection").circuit(int(sizes[place]))


def largest_circuit(scores: Measurement, half: Half) -> Circuit:
    """The circuit of all edges that a half puts in order: 5% of the graph's, pruned."""
    order = ordering(scores, half)
    return order.circuit(len(order))


def heads_of(circuit: Circuit) -> list[Head]:
    """The heads in a circuit."""
    return [head for head in _heads(circuit.graph) if circuit.nodes[circuit.graph.head(*head)]]


def _heads(graph: Graph) -> list[Head]:
    return [(layer, head) for layer in range(graph.layers) for head in range(graph.heads)]


def smallest(
    scores: Measurement, sizes: Measurement, half: Half, *, threshold: float = 0.8
) -> search.Found:
    """The smallest circuit of a half that keeps enough on the other half (claims.md, Circuits).

    The first crossing on the grid of sizes, which is all evaluated, and so not refined.

    Args:
        scores: From ``circuits.edge_scores``.
        sizes: From ``circuits.sizes``.
        half: The half whose scores order the edges.
        threshold: The faithfulness.
    """
    of = sizes.of(HALVES[1 - HALVES.index(half)])
    order = ordering(scores, half)
    grid = grid_of(order.graph, ratio=search.RATIO)
    points = tuple(
        search.Point.of(order, int(n), values)
        for n, values in zip(grid, sizes["kept"][of].T, strict=True)
    )
    clean, corrupted = sizes["clean"][of], sizes["corrupted"][of]
    return search.Found.on_grid(points, clean, corrupted, threshold)


def mlps_into_logits(circuit: Circuit) -> list[int]:
    """The layers whose MLP has an edge to the logits in a circuit."""
    graph = circuit.graph
    written = circuit.edges[:, graph.reader(Read(graph.layers, "logits"))]
    return [layer for layer in range(graph.layers) if written[graph.mlp(layer)]]


def heads_into_mlps(circuit: Circuit, layers: Sequence[int]) -> list[Head]:
    """The heads that have an edge to the MLP of one of some layers in a circuit."""
    graph = circuit.graph
    readers = [graph.reader(Read(layer, "mlp")) for layer in layers]
    written: Bools = np.any(circuit.edges[:, readers], axis=1)
    return [head for head in _heads(graph) if written[graph.head(*head)]]
