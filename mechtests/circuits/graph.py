"""The graph of a decoder: what writes to the residual stream, and what reads from it.

Writers are the embedding, every attention head and every MLP; readers are the query, key and
value of every query head, every MLP, and the logits. An edge goes from a writer to a reader
that comes later. In a parallel block heads and MLP read the same stream, so no edge joins them.
With grouped queries every query head reads its own copy of key and value; an edge of a group
is the sum of its heads' (Tigges et al. 2024, section 4 and the code of EAP-IG).

Scores and sets of edges are arrays ``[writer, reader]``. What a reader can read is a first part
of the writers, since writers are in the order in which they write.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

KINDS: tuple[Literal["q", "k", "v"], ...] = ("q", "k", "v")
LOGITS = "logits"


class Read(NamedTuple):
    """A reader: a query head's q, k or v, an MLP, or the logits (layer: the number of layers)."""

    layer: int
    kind: Literal["q", "k", "v", "mlp", "logits"]
    head: int = 0


@dataclass(frozen=True)
class Graph:
    """All edges of a decoder.

    Attributes:
        layers: Blocks.
        heads: Query heads of a block.
        parallel: Whether attention and MLP of a block read the same stream.
        groups: Key and value heads of a block; as many as query heads unless grouped.
    """

    layers: int
    heads: int
    parallel: bool = False
    groups: int | None = None

    @property
    def writers(self) -> int:
        """How many write: the embedding, and of each layer its heads and its MLP."""
        return 1 + self.layers * (self.heads + 1)

    @property
    def readers(self) -> int:
        """How many read: of each layer q, k, v of every head and the MLP; the logits."""
        return self.layers * (3 * self.heads + 1) + 1

    def head(self, layer: int, head: int) -> int:
        """The place of a head among the writers."""
        return 1 + layer * (self.heads + 1) + head

    def mlp(self, layer: int) -> int:
        """The place of an MLP among the writers."""
        return 1 + layer * (self.heads + 1) + self.heads

    def reader(self, read: Read) -> int:
        """The place of a reader: of a layer q of all heads, k, v, the MLP; the logits last."""
        if read.kind == "logits":
            return self.readers - 1
        start = read.layer * (3 * self.heads + 1)
        if read.kind == "mlp":
            return start + 3 * self.heads
        return start + KINDS.index(read.kind) * self.heads + read.head

    @cached_property
    def reads(self) -> tuple[Read, ...]:
        """Every reader in its place."""
        found: list[Read] = []
        for layer in range(self.layers):
            found += [Read(layer, kind, head) for kind in KINDS for head in range(self.heads)]
            found.append(Read(layer, "mlp"))
        return (*found, Read(self.layers, "logits"))

    @cached_property
    def sources(self) -> Ints:
        """From how many writers, the first ones, each reader reads; shape ``[reader]``."""
        found = []
        for read in self.reads:
            before = self.head(read.layer, 0)
            own = self.heads if read.kind == "mlp" and not self.parallel else 0
            found.append(before + own)
        return np.array(found, dtype=np.int64)

    @cached_property
    def nodes(self) -> Ints:
        """The writer that each reader belongs to, ``writers`` of the logits; ``[reader]``."""
        found = []
        for read in self.reads:
            if read.kind == "logits":
                found.append(self.writers)
            elif read.kind == "mlp":
                found.append(self.mlp(read.layer))
            else:
                found.append(self.head(read.layer, read.head))
        return np.array(found, dtype=np.int64)

    @cached_property
    def allowed(self) -> Bools:
        """Which pairs are edges, shape ``[writer, reader]``."""
        return np.arange(self.writers)[:, None] < self.sources[None, :]

    @property
    def edges(self) -> int:
        """How many edges there are."""
        return int(self.sources.sum())

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The writers' names in circuit files: ``input``, ``a3.h1``, ``m3``."""
        found = ["input"]
        for layer in range(self.layers):
            found += [f"a{layer}.h{head}" for head in range(self.heads)] + [f"m{layer}"]
        return tuple(found)

    def edge_name(self, writer: int, reader: int) -> str:
        """An edge's name in circuit files: ``a3.h1->a5.h0<q>``, ``m3->logits``."""
        read = self.reads[reader]
        if read.kind == "logits":
            return f"{self.names[writer]}->{LOGITS}"
        node = self.names[self.nodes[reader]]
        return f"{self.names[writer]}->{node}" + ("" if read.kind == "mlp" else f"<{read.kind}>")
