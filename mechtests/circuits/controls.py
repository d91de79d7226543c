"""Circuits by chance: random connected ones, and scores shuffled among like edges."""

from __future__ import annotations

import numpy as np

from mechtests.circuits.circuit import Circuit, Floats, check_shape
from mechtests.circuits.graph import Graph, Ints
from mechtests.errors import MeasurementError, UsageError

TRIES = 20
RESTARTS = 100


def random_circuit(graph: Graph, n: int, generator: np.random.Generator) -> Circuit:
    """A random circuit of exactly n edges, each on a path from the input to the logits.

    It grows by random edges, each with a random path that joins it to the circuit at both ends;
    what does not fit any more is drawn again. Not every circuit of n edges is as likely.

    Args:
        graph: All edges.
        n: How many edges it is to have.
        generator: The source of the draws.

    Raises:
        UsageError: The graph has fewer edges.
        MeasurementError: None was found in a hundred tries.
    """
    if not 0 <= n <= graph.edges:
        raise UsageError(f"a circuit of {n} edges was asked for, the graph has {graph.edges}")
    for _ in range(RESTARTS):
        growth = _Growth(graph, generator)
        if growth.to(n):
            return Circuit(graph, growth.edges)
    raise MeasurementError(
        f"no connected circuit of {n} edges was found in {RESTARTS} tries in a graph of "
        f"{graph.edges}; ask for another size"
    )


class _Growth:
    """A connected circuit that grows."""

    def __init__(self, graph: Graph, generator: np.random.Generator) -> None:
        self.graph, self.generator = graph, generator
        self.edges = np.zeros_like(graph.allowed)
        self.places = np.flatnonzero(graph.allowed)
        self.sources, self.nodes = graph.sources.tolist(), graph.nodes.tolist()
        self.readers: list[list[int]] = [[] for _ in range(graph.writers + 1)]
        for reader, node in enumerate(self.nodes):
            self.readers[node].append(reader)
        self.first_after = np.searchsorted(graph.sources, np.arange(graph.writers), side="right")
        self.live = np.zeros(graph.writers + 1, dtype=bool)
        self.needed = np.zeros(graph.writers + 1, dtype=bool)
        self.live[0] = self.needed[graph.writers] = True

    def to(self, n: int) -> bool:
        """Grow to n edges; False where no edge fits."""
        count = 0
        while count < n:
            path = self._fitting(n - count)
            if not path:
                return False
            for writer, reader in path:
                self.edges[writer, reader] = True
                for node in (writer, self.nodes[reader]):
                    self.live[node] = self.needed[node] = True
            count += len(path)
        return True

    def _fitting(self, room: int) -> list[tuple[int, int]]:
        for _ in range(TRIES):
            place = int(self.places[self.generator.integers(len(self.places))])
            writer, reader = divmod(place, self.graph.readers)
            if self.edges[writer, reader]:
                continue
            path = [*self._from_input(writer), (writer, reader)]
            path += self._to_logits(self.nodes[reader])
            if len(path) <= room:
                return path
        inside = self.graph.allowed & ~self.edges
        inside &= self.live[:-1, None] & self.needed[self.graph.nodes][None, :]
        left = np.argwhere(inside)
        if len(left) == 0:
            return []
        writer, reader = left[self.generator.integers(len(left))].tolist()
        return [(writer, reader)]

    def _from_input(self, node: int) -> list[tuple[int, int]]:
        path = []
        while not self.live[node]:
            reader = self.readers[node][int(self.generator.integers(len(self.readers[node])))]
            writer = int(self.generator.integers(self.sources[reader]))
            path.append((writer, reader))
            node = writer
        return path

    def _to_logits(self, node: int) -> list[tuple[int, int]]:
        path = []
        while not self.needed[node]:
            reader = int(self.generator.integers(self.first_after[node], self.graph.readers))
            path.append((node, reader))
            node = self.nodes[reader]
        return path


def shuffled(graph: Graph, scores: Floats, generator: np.random.Generator) -> Floats:
    """Scores shuffled among edges of like kind and layers.

    Edges are alike that go from a head (or from the MLP, or the input) of one layer to the
    queries (or keys, values, MLP, logits) of one layer.

    Args:
        graph: All edges.
        scores: Shape ``[writer, reader]``.
        generator: The source of the draws.

    Raises:
        UsageError: The scores have another shape than the graph.
    """
    check_shape(graph, "scores", scores)
    writers, readers = np.nonzero(graph.allowed)
    alike = _writer_kinds(graph)[writers] * graph.readers + _reader_kinds(graph)[readers]
    order = np.argsort(alike, kind="stable")
    drawn = np.lexsort((generator.random(len(alike)), alike))
    found = np.array(scores, dtype=np.float64)
    found[writers[order], readers[order]] = scores[writers[drawn], readers[drawn]]
    return found


def _writer_kinds(graph: Graph) -> Ints:
    """A number for each writer: the same for the heads of a layer, ``[writer]``."""
    place = np.arange(graph.writers) - 1
    layer, within = np.divmod(place, graph.heads + 1)
    kinds: Ints = np.where(place < 0, 0, 1 + 2 * layer + (within == graph.heads))
    return kinds


def _reader_kinds(graph: Graph) -> Ints:
    """A number for each reader: the same for all queries of a layer, and so on, ``[reader]``."""
    numbers: dict[tuple[int, str], int] = {}
    return np.array(
        [numbers.setdefault((read.layer, read.kind), len(numbers)) for read in graph.reads],
        dtype=np.int64,
    )
