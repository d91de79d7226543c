"""By how much every writer's output differs, corrupted minus clean."""

from __future__ import annotations

import torch
from torch import Tensor

from mechtests.circuits.graph import Graph
from mechtests.circuits.steps import Written
from mechtests.models.activations import Activations
from mechtests.models.edges import writers
from mechtests.models.network import Network


class Differences:
    """Differences of all writers at the slots of some prompts, filled layer by layer.

    What a head writes is its z through W_O, and its run's own post-norm where there is one
    (Gemma), so that a difference has the change of the post-norm's scale in it. Output biases
    are nobody's; behind a post-norm their difference is not 0 and is in no writer.

    Attributes:
        values: ``[writer, prompt, slot, width]``, in fp32 at least.
    """

    def __init__(self, network: Network, graph: Graph, clean: Tensor, corrupted: Tensor) -> None:
        """Start with the embedding.

        Args:
            network: The network.
            graph: Its graph.
            clean: The embedded slots, ``[prompt, slot, width]``.
            corrupted: The same shape.
        """
        self._network, self._graph = network, graph
        wide = torch.promote_types(clean.dtype, torch.float32)
        self.values = clean.new_empty((graph.writers, *clean.shape[:2], clean.shape[2]), dtype=wide)
        torch.sub(corrupted, clean, out=self.values[0])

    def add(self, layer: int, clean: Written, corrupted: Written) -> None:
        """Fill in a layer from what both runs wrote at the slots, ``[prompt, slot, ...]``."""
        first, block = self._graph.head(layer, 0), self._network.blocks[layer]
        (z, mlp), (other_z, other_mlp) = clean, corrupted
        into = self.values[first : first + self._graph.heads]
        if block.attention_post is None:
            change = (other_z.to(into.dtype) - z).flatten(0, 1).transpose(0, 1)
            torch.bmm(change, block.W_O.to(into.dtype), out=into.flatten(1, 2))
        else:
            written = self._written(layer, other_z) - self._written(layer, z)
            into.copy_(written.permute(2, 0, 1, 3))
        torch.sub(other_mlp, mlp, out=self.values[self._graph.mlp(layer)])

    def _written(self, layer: int, z: Tensor) -> Tensor:
        nothing = z.new_empty(0)
        return writers(self._network, Activations({("z", layer): z}, nothing, nothing), layer)
