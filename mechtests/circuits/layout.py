"""What a circuit computes: which nodes, and at which positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mechtests.circuits.circuit import Circuit
from mechtests.circuits.graph import Bools, Graph, Ints


@dataclass(frozen=True, eq=False)
class Layout:
    """The nodes that a circuit computes, in the order in which they write.

    A node is computed where it differs from what the other edges carry and something at the
    logits may depend on it: at every position where a key or a value on its way to the logits
    reads it, else at END alone.

    Attributes:
        circuit: Pruned.
        writers: The nodes, the input among them, shape ``[row]``.
        everywhere: Which of them are computed at every position, shape ``[row]``.
    """

    circuit: Circuit
    writers: Ints
    everywhere: Bools

    @classmethod
    def of(cls, circuit: Circuit, *, together: bool = False) -> Layout:
        """The layout of a circuit.

        Args:
            circuit: Pruned here.
            together: Heads of a layer are computed at the same positions, since a norm behind
                them has one scale at each.
        """
        circuit = circuit.pruned()
        writers = np.flatnonzero(circuit.nodes[:-1])
        everywhere = _everywhere(circuit, together)
        return cls(circuit, writers, everywhere[writers])

    def heads(self, layer: int) -> Ints:
        """The heads of a layer that are computed."""
        graph = self.circuit.graph
        first = graph.head(layer, 0)
        found: Ints = np.flatnonzero(self.circuit.nodes[first : first + graph.heads])
        return found

    def row(self, writer: int) -> int:
        """The row of a node that is computed."""
        return int(np.searchsorted(self.writers, writer))


def _everywhere(circuit: Circuit, together: bool) -> Bools:
    """Which writers are read by a key or value, or by what is itself needed everywhere."""
    graph, edges = circuit.graph, circuit.edges
    reading = np.array([read.kind in ("k", "v") for read in graph.reads])
    needed = np.zeros(graph.writers, dtype=bool)
    for layer in reversed(range(graph.layers)):
        mlp, first = graph.mlp(layer), graph.head(layer, 0)
        needed[mlp] = bool((edges[mlp] & reading).any())
        reading[_readers(graph, mlp)] |= needed[mlp]
        heads = slice(first, first + graph.heads)
        needed[heads] = (edges[heads] & reading).any(1)
        if together and needed[heads].any():
            needed[heads] = circuit.nodes[heads]
        for head in range(first, first + graph.heads):
            reading[_readers(graph, head)] |= needed[head]
    needed[0] = bool((edges[0] & reading).any())
    return needed


def _readers(graph: Graph, writer: int) -> Ints:
    found: Ints = np.flatnonzero(graph.nodes == writer)
    return found
