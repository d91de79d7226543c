"""What a circuit computes when every other edge carries corrupted, mean or zero activations.

Every reader has its own copy of the residual stream: what it reads on the other edges, plus, for
each writer it is joined to in the circuit, what that writes in the circuit minus what it writes
there. So only the nodes of the circuit are computed, and of the other edges one run serves all
circuits. The values are exact (edge patching; Tigges et al. 2024, section on circuits); the empty
circuit is the run on the other edges, the whole graph the clean run.

Behind a post-norm (Gemma) what a head writes depends on all heads of its layer, through the
norm's scale. In a circuit that scale is of the heads as they are in it: computed where they are
in the circuit, as on the other edges where they are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from mechtests.circuits.circuit import Circuit, Floats
from mechtests.circuits.graph import Graph, Read
from mechtests.circuits.heads import Heads
from mechtests.circuits.layout import Layout
from mechtests.circuits.others import Others
from mechtests.circuits.streams import Streams
from mechtests.errors import UsageError
from mechtests.models import heap
from mechtests.models.network import Network

TOGETHER = 8
WORKING_BYTES = 400_000_000


class Evaluation:
    """Circuits of a network on some prompts.

    Memory grows with the prompts, with the positions that can differ, and with the nodes of a
    circuit that are needed at every position (a stream each); give fewer prompts where it is
    short.

    Args:
        network: The network.
        tokens: Clean token ids, ``[prompt, position]``.
        others: What the edges outside a circuit carry, of the same prompts.

    Attributes:
        graph: The network's graph.

    Raises:
        UsageError: The other edges are of more or fewer prompts.
    """

    def __init__(self, network: Network, tokens: Tensor, others: Others) -> None:
        if len(tokens) != len(others.end):
            raise UsageError(
                f"what the other edges carry is of {len(others.end)} prompts, and there are "
                f"{len(tokens)}; give both for the same prompts"
            )
        shape = network.shape
        self.network, self.others = network, others
        self.graph = Graph(shape.layers, shape.heads, shape.parallel, shape.key_value_heads)
        after = others.shared + others.embedded.shape[1]
        self.tokens = tokens[:, others.shared : after].to(network.device)
        positions = torch.arange(others.shared, after, device=network.device)
        with torch.no_grad():
            self._difference = network.embed(self.tokens, positions) - others.embedded
        self._heads = [Heads(block, at, others) for at, block in enumerate(network.blocks)]
        self._post = any(block.attention_post is not None for block in network.blocks)

    def values(self, circuits: Sequence[Circuit], metric: Callable[[Tensor], Tensor]) -> Floats:
        """A metric of each circuit, for each prompt.

        Args:
            circuits: Of the network's graph; they are pruned first.
            metric: From the residual stream at END after the last block, ``[prompt, width]``,
                to a number a prompt.

        Returns:
            Shape ``[circuit, prompt]``.

        Raises:
            UsageError: A circuit is of another graph.
        """
        with torch.no_grad():
            found = [metric(final).double().cpu().numpy() for final in self.finals(circuits)]
        return np.stack(found) if found else np.zeros((0, len(self.tokens)))

    def finals(self, circuits: Sequence[Circuit]) -> Iterator[Tensor]:
        """The residual stream at END after the last block of each circuit, ``[prompt, width]``.

        Raises:
            UsageError: A circuit is of another graph.
        """
        for several in self._together([self._layout(circuit) for circuit in circuits]):
            yield from self._run(several)

    @torch.no_grad()
    def clean(self) -> Tensor:
        """The residual stream at END of the clean run, ``[prompt, width]``."""
        others = self.others
        return self.network.run(self.tokens, last=others.end, prefix=others.prefix).final

    def _layout(self, circuit: Circuit) -> Layout:
        ours, theirs = self.graph, circuit.graph
        if (ours.layers, ours.heads, ours.parallel) != (
            theirs.layers,
            theirs.heads,
            theirs.parallel,
        ):
            raise UsageError(f"a circuit of {theirs} does not fit {self.network.name}: {ours}")
        return Layout.of(circuit, together=self._post)

    def _together(self, layouts: Sequence[Layout]) -> Iterator[list[Layout]]:
        """Circuits in their order, as many at once as the working memory holds."""
        prompt, position, width = self.others.embedded.shape
        several: list[Layout] = []
        held = 0
        for layout in layouts:
            streams = position * int(layout.everywhere.sum()) + len(layout.writers)
            needs = streams * prompt * width * self.others.embedded.element_size()
            if several and (len(several) == TOGETHER or held + needs > WORKING_BYTES):
                yield several
                several, held = [], 0
            several.append(layout)
            held += needs
        if several:
            yield several

    @heap.kept()
    @torch.no_grad()
    def _run(self, layouts: Sequence[Layout]) -> list[Tensor]:
        each = [Streams(layout, self.others) for layout in layouts]
        for streams in each:
            if streams.layout.circuit.nodes[0]:
                streams.write(0, self._difference)
        for layer in range(self.graph.layers):
            for streams in each:
                self._heads[layer](streams)
            self._mlps(layer, each)
        logits, final = [self.graph.readers - 1], self.others.final.unsqueeze(1)
        return [streams.read(logits, final, at_end=True)[0, :, 0] for streams in each]

    def _mlps(self, layer: int, each: Sequence[Streams]) -> None:
        """The MLPs of a layer, of all circuits that have it, as one product."""
        writer = self.graph.mlp(layer)
        reader = self.graph.reader(Read(layer, "mlp"))
        held = self.others.layers[layer]
        have = [streams for streams in each if streams.layout.circuit.nodes[writer]]
        if not have:
            return
        read, otherwise = [], []
        for streams in have:
            at_end = not streams.everywhere(writer)
            mid, out = held.resid_mid, held.mlp_out
            mid, out = (streams.end(mid), streams.end(out)) if at_end else (mid, out)
            read.append(streams.read([reader], mid, at_end=at_end)[0])
            otherwise.append(out)
        flat = [stream.flatten(0, 1) for stream in read]
        written = self.network.mlp_out(layer, torch.cat(flat))
        parts = torch.split(written, [len(part) for part in flat])
        for streams, part, out in zip(have, parts, otherwise, strict=True):
            torch.sub(part.view(out.shape), out, out=streams.place(writer))
            streams.wrote(writer)
