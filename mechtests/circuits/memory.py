"""Memory that one batch of prompts after the other lies in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


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
        size, held = math.prod(shape), self._held.get(name)
        if held is None or held.shape[1] < size:
            self._held.pop(name, None)
            held = self._held[name] = self._like.new_empty(self._layers, size)
        return held[layer, :size].view(*shape)
