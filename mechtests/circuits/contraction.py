"""Products of all differences with all reader gradients, some layers at once."""

from __future__ import annotations

import torch
from torch import Tensor

from mechtests.circuits.graph import Graph

AT_ONCE = 6
"""Layers whose readers are held at most: wide matrix products cost less each."""


class Contraction:
    """Adds up the scores of edges, from the last layer to the first.

    Args:
        graph: Which edges there are.
        differences: ``[writer, prompt * slot, width]``.
        groups: The group each prompt is in, ``[prompt]``, those of a group together.
        total: Where scores are added, ``[group, writer, reader]``.
        budget: Bytes of readers to hold; one layer's are held in any case.
    """

    def __init__(
        self, graph: Graph, differences: Tensor, groups: Tensor, total: Tensor, budget: int
    ) -> None:
        self._graph, self._differences, self._total = graph, differences, total
        self._spans = [
            (group, int((groups < group).sum()), int((groups <= group).sum()))
            for group in sorted(set(groups.tolist()))
        ]
        self._slots = differences.shape[1] // len(groups)
        self._each = 3 * graph.heads + 1
        one = self._each * differences[0].nbytes
        self._many = max(1, min(AT_ONCE, graph.layers, budget // one))
        self._buffer: Tensor | None = None
        self._above = graph.layers

    def logits(self, gradient: Tensor, last: Tensor) -> None:
        """Score the edges to the logits, which read at END alone.

        Args:
            gradient: At the residual stream there, ``[prompt, width]``.
            last: The slot of END, ``[prompt]``.
        """
        at = torch.arange(len(last), device=last.device) * self._slots + last
        ends = self._differences[:, at] * gradient.to(self._differences.dtype)
        for group, first, behind in self._spans:
            self._total[group, :, -1] += ends[:, first:behind].sum((1, 2))

    def room(self, layer: int) -> Tensor:
        """Where a layer's readers are to be written, ``[reader, prompt * slot, width]``."""
        if self._buffer is None:
            shape = (self._many * self._each, *self._differences.shape[1:])
            self._buffer = self._differences.new_empty(shape)
        place = self._many - (self._above - layer)
        return self._buffer[place * self._each : (place + 1) * self._each]

    def written(self, layer: int) -> None:
        """Score the edges to the layers whose readers are held, when they are enough."""
        held = self._above - layer
        if layer and held < self._many:
            return
        assert self._buffer is not None
        readers = self._buffer[(self._many - held) * self._each :]
        first, behind = layer * self._each, self._above * self._each
        below = int(self._graph.sources[behind - 1])
        for group, start, stop in self._spans:
            tokens = slice(start * self._slots, stop * self._slots)
            left = self._differences[:below, tokens].flatten(1)
            right = readers[:, tokens].flatten(1)
            self._total[group, :below, first:behind] += left @ right.T
        self._above = layer
