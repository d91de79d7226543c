"""Which edges make a circuit of n edges: greedy from the logits, or the n strongest.

One ordering serves every size: its first n edges, pruned to what connects the input with the
logits. Ties go to the earlier writer, then to the earlier reader.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from mechtests.circuits.circuit import Circuit, Floats, check_shape
from mechtests.circuits.graph import Graph, Ints
from mechtests.errors import MeasurementError


@dataclass(frozen=True, eq=False)
class Ordering:
    """Edges in the order in which they enter circuits.

    Attributes:
        graph: All edges.
        scores: Of all edges, shape ``[writer, reader]``.
        writers: The writer of each edge, shape ``[edge]``.
        readers: The reader of each edge, shape ``[edge]``.
    """

    graph: Graph
    scores: Floats
    writers: Ints
    readers: Ints

    def __len__(self) -> int:
        """How many edges were put in order."""
        return len(self.writers)

    def first(self, n: int) -> Circuit:
        """The first n edges, as they are.

        Raises:
            MeasurementError: So many were not put in order.
        """
        if not 0 <= n <= len(self):
            raise MeasurementError(
                f"a circuit of {n} edges was asked for, and {len(self)} were put in order; "
                "order more edges (limit)"
            )
        edges = np.zeros_like(self.graph.allowed)
        edges[self.writers[:n], self.readers[:n]] = True
        return Circuit(self.graph, edges, self.scores)

    def circuit(self, n: int) -> Circuit:
        """The first n edges without those on no path from the input to the logits."""
        return self.first(n).pruned()


def greedy(graph: Graph, scores: Floats, *, limit: int | None = None) -> Ordering:
    """Edges by |score|, each once the node it leads to is in the circuit; the logits are first.

    Source: Tigges et al. 2024, section on circuits, and ``apply_greedy`` of their code, which
    starts again for every n.

    Args:
        graph: All edges.
        scores: Shape ``[writer, reader]``; what is no edge is not read.
        limit: How many edges to put in order, all unless said.

    Raises:
        UsageError: The scores have another shape than the graph.
        MeasurementError: A score is NaN or infinite.
    """
    size = _sizes(graph, scores)
    limit = graph.edges if limit is None else min(limit, graph.edges)
    incoming: dict[int, tuple[list[float], list[int]]] = {}
    waiting: list[tuple[float, int, int, int]] = []

    def open_node(node: int) -> None:
        incoming[node] = sizes, places = _incoming(graph, size, node)
        if places:
            heapq.heappush(waiting, (sizes[0], places[0], node, 0))

    open_node(graph.writers)
    order: list[int] = []
    while waiting and len(order) < limit:
        _, place, node, rank = waiting[0]
        order.append(place)
        sizes, places = incoming[node]
        if rank + 1 < len(places):
            following = (sizes[rank + 1], places[rank + 1], node, rank + 1)
            heapq.heapreplace(waiting, following)
        else:
            heapq.heappop(waiting)
        if (writer := place // graph.readers) not in incoming:
            open_node(writer)
    writers, readers = np.divmod(np.array(order, dtype=np.int64), graph.readers)
    return Ordering(graph, scores, writers, readers)


def strongest(graph: Graph, scores: Floats) -> Ordering:
    """All edges by |score|; the first n need not be connected before they are pruned.

    Args:
        graph: All edges.
        scores: Shape ``[writer, reader]``; what is no edge is not read.

    Raises:
        UsageError: The scores have another shape than the graph.
        MeasurementError: A score is NaN or infinite.
    """
    places = np.flatnonzero(graph.allowed)
    size = _sizes(graph, scores).reshape(-1)[places]
    writers, readers = np.divmod(places[np.argsort(size, kind="stable")], graph.readers)
    return Ordering(graph, scores, writers, readers)


def _sizes(graph: Graph, scores: Floats) -> Floats:
    """Minus |score|, so that the strongest edge is the smallest."""
    check_shape(graph, "scores", scores)
    if wrong := int((~np.isfinite(scores[graph.allowed])).sum()):
        raise MeasurementError(
            f"edges are put in order by finite scores, got NaN or infinity at {wrong} of "
            f"{graph.edges} edges; look at the attribution that gave them"
        )
    return -np.abs(scores.astype(np.float64))


def _incoming(graph: Graph, size: Floats, node: int) -> tuple[list[float], list[int]]:
    """Edges into a node in their order: minus |score|, and place in ``[writer, reader]``."""
    readers = np.flatnonzero(graph.nodes == node)
    if len(readers) == 0:
        return [], []
    writers = np.arange(graph.sources[readers[0]])
    places = (writers[:, None] * graph.readers + readers).reshape(-1)
    found = size.reshape(-1)[places]
    order = np.argsort(found, kind="stable")
    return found[order].tolist(), places[order].tolist()
