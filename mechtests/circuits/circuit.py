"""A circuit: some edges of a graph, and the files in which they are kept.

The files have the layout of EAP-IG (Hanna et al. 2024): ``cfg``, ``nodes`` by name and ``edges``
by name, so that its tools read them, and its own are read here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechtests.circuits.graph import LOGITS, Bools, Graph, Ints
from mechtests.errors import UsageError

Floats = NDArray[np.float64]
Json = Any


@dataclass(frozen=True, eq=False)
class Circuit:
    """A set of edges.

    Attributes:
        graph: All edges there are.
        edges: Which of them are in the circuit, shape ``[writer, reader]``.
        scores: Of all edges, the same shape, where they are known.

    Raises:
        UsageError: The edges have another shape than the graph, or are none of it.
    """

    graph: Graph
    edges: Bools
    scores: Floats | None = None

    def __post_init__(self) -> None:
        for name, array in (("edges", self.edges), ("scores", self.scores)):
            if array is not None:
                check_shape(self.graph, name, array)
        if wrong := np.argwhere(self.edges & ~self.graph.allowed).tolist():
            writer, reader = wrong[0]
            raise UsageError(
                f"a circuit's edges go from a writer to a reader behind it, got {len(wrong)} that "
                f"do not, the first {self.graph.edge_name(writer, reader)}; see Graph.allowed"
            )

    @property
    def size(self) -> int:
        """How many edges it has."""
        return int(self.edges.sum())

    @cached_property
    def pairs(self) -> tuple[Ints, Ints]:
        """Writer and reader of each edge, each ``[edge]``."""
        writers, readers = np.nonzero(self.edges)
        return writers, readers

    @cached_property
    def nodes(self) -> Bools:
        """Which nodes have an edge, shape ``[writer + 1]``; the logits are last."""
        writers, readers = self.pairs
        found = np.zeros(self.graph.writers + 1, dtype=bool)
        found[writers] = True
        found[self.graph.nodes[readers]] = True
        return found

    @cached_property
    def live(self) -> Bools:
        """Which nodes the input reaches, itself included, shape ``[writer + 1]``."""
        writers, readers = self.pairs
        return _reached(0, writers, self.graph.nodes[readers], self.graph.writers + 1)

    @cached_property
    def needed(self) -> Bools:
        """Which nodes reach the logits, themselves included, shape ``[writer + 1]``."""
        writers, readers = self.pairs
        end = self.graph.writers
        return _reached(end, self.graph.nodes[readers], writers, end + 1)

    @property
    def connected(self) -> bool:
        """Whether every edge is on a path from the input to the logits."""
        return self.pruned().size == self.size

    def pruned(self) -> Circuit:
        """The edges on a path from the input to the logits.

        This is the fixed point of removing nodes without an edge into or out of them. Tigges et
        al. 2024's code makes one pass of each; what it leaves beyond ours changes no value of a
        circuit whose other edges carry a corrupted run, since a node that the input does not
        reach writes what it writes there.
        """
        kept = self.live[:-1, None] & self.needed[self.graph.nodes][None, :]
        return Circuit(self.graph, self.edges & kept, self.scores)

    def to_json(self, *, width: int | None = None) -> Json:
        """The layout of EAP-IG's files.

        Args:
            width: Of the residual stream, which newer versions of EAP-IG want to know.
        """
        graph = self.graph
        configuration: dict[str, Json] = {
            "n_layers": graph.layers,
            "n_heads": graph.heads,
            "parallel_attn_mlp": graph.parallel,
        }
        if width is not None:
            configuration["d_model"] = width
        if graph.groups is not None:
            configuration["n_key_value_heads"] = graph.groups
        nodes = dict(zip((*graph.names, LOGITS), self.nodes.tolist(), strict=True))
        edges = {}
        for writer, reader in np.argwhere(graph.allowed).tolist():
            score = None if self.scores is None else float(self.scores[writer, reader])
            edges[graph.edge_name(writer, reader)] = {
                "score": score,
                "in_graph": bool(self.edges[writer, reader]),
            }
        return {"cfg": configuration, "nodes": nodes, "edges": edges}

    @classmethod
    def from_json(cls, content: Json) -> Circuit:
        """Read what ``to_json`` or EAP-IG wrote.

        Scores are known only where every edge has one.

        Raises:
            UsageError: It has no such layout, or names an edge that the graph lacks.
        """
        try:
            configuration, named = content["cfg"], content["edges"]
            graph = Graph(
                int(configuration["n_layers"]),
                int(configuration["n_heads"]),
                bool(configuration["parallel_attn_mlp"]),
                configuration.get("n_key_value_heads"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                "a circuit file needs 'cfg' with n_layers, n_heads and parallel_attn_mlp, and "
                f"'edges' by name; reading it gave {error!r}; write it with Circuit.save or EAP-IG"
            ) from error
        edges = np.zeros((graph.writers, graph.readers), dtype=bool)
        scores = np.full(edges.shape, np.nan)
        places = _places(graph)
        for name, edge in named.items():
            at = places(name)
            edges[at] = edge["in_graph"]
            scores[at] = np.nan if edge.get("score") is None else edge["score"]
        scores[~graph.allowed] = 0.0
        return cls(graph, edges, None if np.isnan(scores).any() else scores)

    def save(self, path: Path, *, width: int | None = None) -> None:
        """Write a file in EAP-IG's layout."""
        path.write_text(json.dumps(self.to_json(width=width)), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Circuit:
        """Read a file in EAP-IG's layout.

        Raises:
            UsageError: It has another layout.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: a circuit file is JSON, reading it gave: {error}") from error
        return cls.from_json(content)


def check_shape(graph: Graph, name: str, array: NDArray[Any]) -> None:
    """Refuse an array that is not ``[writer, reader]`` of the graph.

    Raises:
        UsageError: It has another shape.
    """
    if array.shape != (graph.writers, graph.readers):
        raise UsageError(
            f"{name} of a circuit need the shape [writer, reader] of its graph, "
            f"{(graph.writers, graph.readers)}, got {array.shape}"
        )


def whole(graph: Graph, scores: Floats | None = None) -> Circuit:
    """The circuit of all edges, which is the clean run."""
    return Circuit(graph, graph.allowed.copy(), scores)


def empty(graph: Graph, scores: Floats | None = None) -> Circuit:
    """The circuit without an edge, which is the corrupted run."""
    return Circuit(graph, np.zeros_like(graph.allowed), scores)


def _reached(start: int, sources: Ints, targets: Ints, nodes: int) -> Bools:
    """Which nodes a walk along the edges from ``start`` reaches."""
    found = np.zeros(nodes, dtype=bool)
    found[start] = True
    count = 0
    while count != (count := int(found.sum())):
        found[targets[found[sources]]] = True
    return found


class _places:  # noqa: N801  (a function with a table)
    """The place of an edge's name in ``[writer, reader]``."""

    def __init__(self, graph: Graph) -> None:
        self.writers = {name: place for place, name in enumerate(graph.names)}
        self.readers = {
            graph.edge_name(0, reader).partition("->")[2]: reader for reader in range(graph.readers)
        }

    def __call__(self, name: str) -> tuple[int, int]:
        writer, _, reader = name.partition("->")
        try:
            return self.writers[writer], self.readers[reader]
        except KeyError as error:
            raise UsageError(
                f"the circuit file names the edge {name!r}, which a graph of its 'cfg' does not "
                "have; names look like 'a3.h1->a5.h0<q>' and 'm3->logits'"
            ) from error


def names_of(circuit: Circuit) -> Mapping[str, float | None]:
    """The edges in the circuit by name, with their scores, the strongest first."""
    graph, scores = circuit.graph, circuit.scores
    pairs = np.argwhere(circuit.edges).tolist()
    if scores is None:
        return {graph.edge_name(w, r): None for w, r in pairs}
    pairs.sort(key=lambda pair: -abs(float(scores[pair[0], pair[1]])))
    return {graph.edge_name(w, r): float(scores[w, r]) for w, r in pairs}
