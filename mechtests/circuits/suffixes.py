"""Prompts from where their clean and corrupted variants first differ.

Before the first token that differs both runs, and all between them, are the same: keys and
values there come from the clean run, differences are 0, and causal gradients never go there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Suffixes:
    """Some prompts, each from its own first difference to its END.

    Attributes:
        rows: Which prompts they are, ``[prompt]``.
        start: The position of each one's first slot, ``[prompt]``.
        last: The slot of END, ``[prompt]``.
    """

    rows: Tensor
    start: Tensor
    last: Tensor

    @property
    def slots(self) -> int:
        """Slots of the longest."""
        return int(self.last.max()) + 1

    @property
    def whole(self) -> int:
        """Positions of the longest prompt."""
        return int((self.start + self.last).max()) + 1

    @property
    def shared(self) -> int:
        """Positions before the latest start."""
        return int(self.start.max())

    @property
    def positions(self) -> Tensor:
        """The position of every slot, ``[prompt, slot]``; behind END that of END."""
        slot = torch.arange(self.slots, device=self.start.device)
        return self.start[:, None] + torch.minimum(slot, self.last[:, None])

    def of(self, whole: Tensor) -> Tensor:
        """The slots of ``[prompt, position, ...]`` as ``[prompt, slot, ...]``."""
        each = torch.arange(len(self.rows), device=whole.device)
        return whole[each[:, None], self.positions]

    def seen(self, window: int | None) -> Tensor:
        """Which positions before the start, then which slots, a slot may attend to.

        Returns:
            Shape ``[prompt, 1, slot, shared + slot]``.
        """
        device = self.start.device
        slot = torch.arange(self.slots, device=device)
        at = self.start[:, None] + slot
        before = torch.arange(self.shared, device=device)
        early = (before < self.start[:, None])[:, None].expand(-1, self.slots, -1)
        own = (slot[:, None] >= slot).expand(len(self.rows), -1, -1)
        if window is not None:
            early = early & (at[:, :, None] - before < window)
            own = own & (slot[:, None] - slot < window)
        return torch.cat((early, own), -1)[:, None]


def first_differences(clean: Tensor, corrupted: Tensor, last: Tensor) -> Tensor:
    """The first position at which the variants of each prompt differ; at most its END.

    Args:
        clean: Token ids, ``[prompt, position]``.
        corrupted: The same shape.
        last: END of each prompt, ``[prompt]``.
    """
    differs = clean != corrupted
    first = torch.where(differs.any(1), differs.int().argmax(1), last)
    return torch.minimum(first, last)


def in_chunks(
    start: Tensor, last: Tensor, groups: Tensor, fits: Callable[[int, int], int]
) -> Iterator[Suffixes]:
    """Prompts in chunks of like length, longest first; in a chunk, those of a group together.

    Args:
        start: Where each prompt's suffix starts, ``[prompt]``.
        last: The position of its END, ``[prompt]``.
        groups: The group it is in, ``[prompt]``.
        fits: From slots and all positions to how many prompts fit into memory.
    """
    slots, longest = last - start, int(last.max()) + 1
    order = slots.argsort(descending=True, stable=True)
    while len(order):
        most = max(1, fits(int(slots[order[0]]) + 1, longest))
        chunks = -(-len(order) // most)
        most = -(-len(order) // chunks)  # as many chunks, of like size
        rows, order = order[:most], order[most:]
        rows = rows[groups[rows].argsort(stable=True)]
        yield Suffixes(rows, start[rows], slots[rows])
