"""What attribution needs in memory, and memory that one batch after the other lies in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mechtests.models.shape import Shape

LEAST, SHARE = 400 * 2**20, 0.2
"""Bytes to work with unless said: a share of the weights, in fp32, and so many at least."""


def budget_for(shape: Shape) -> int:
    """Bytes for attribution to work with beside the weights, unless said."""
    return max(LEAST, int(SHARE * 4 * shape.parameters))


def prompt_bytes(shape: Shape, slots: int, positions: int) -> int:
    """What a prompt needs once: differences, a layer's readers, and its clean run.

    Args:
        shape: Of the network.
        slots: Positions from the first at which the variants differ.
        positions: All of them.
    """
    writers, readers = 1 + shape.layers * (shape.heads + 1), 3 * shape.heads + 1
    heads = (shape.heads + 2 * shape.key_value_heads) * shape.head_width
    wide = slots * (writers + 2 * readers) * shape.width
    attention = 4 * shape.heads * positions**2  # of one block of the clean run
    return 4 * (wide + shape.layers * positions * heads + attention)


def point_bytes(shape: Shape, slots: int, positions: int, itemsize: int = 4) -> int:
    """What a prompt needs at each point of its path, at most.

    All blocks keep q, k, v, the pattern, the MLP's inner maps, and up to four streams; one block
    makes some more meanwhile.

    Args:
        shape: Of the network.
        slots: As in ``prompt_bytes``.
        positions: As in ``prompt_bytes``.
        itemsize: Bytes of a number of the network's type.
    """
    maps = shape.block_parameters // (shape.layers * shape.width)  # of all matrices, out or in
    heads = shape.heads * shape.head_width
    kept = maps - heads - shape.mlp_width + 4 * shape.width + shape.heads * positions
    passing = 4 * shape.mlp_width + 8 * (shape.width + heads) + 5 * shape.heads * positions
    return slots * (itemsize * shape.layers * kept + max(4, itemsize) * passing)


class Memory:
    """A tensor of every layer for each name, kept until the next batch overwrites it.

    Made and freed for each batch and layer, they would leave holes in the heap of nearly half their
    size, and cost a page fault for every 4 kB each time.

    Args:
        layers: How many.
        dtype: Of all of them.
        device: Where they are.
    """

    def __init__(self, layers: int, dtype: torch.dtype, device: torch.device) -> None:
        self._layers = layers
        self._like = torch.empty(0, dtype=dtype, device=device)
        self._held: dict[str, Tensor] = {}

    def room(self, layer: int, name: str, shape: Sequence[int]) -> Tensor:
        """A tensor of some shape, of whatever was in it."""
        size = math.prod(shape)
        if name in self._held and self._held[name].shape[1] < size:
            del self._held[name]  # before there is a larger one
        if name not in self._held:
            self._held[name] = self._like.new_empty(self._layers, size)
        return self._held[name][layer, :size].view(*shape)
