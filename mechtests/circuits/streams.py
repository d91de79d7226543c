"""One circuit as it is computed: what its nodes wrote so far, and what its readers read of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mechtests.circuits.layout import Layout
from mechtests.circuits.others import Others

DENSE = 4
"""Edges a writer from which on a matrix product is faster than gathering streams, measured."""


class Streams:
    """The differences that a circuit's nodes write: what they write minus what others do.

    Args:
        layout: Which nodes are computed, and where.
        others: What the other edges carry.
    """

    def __init__(self, layout: Layout, others: Others) -> None:
        like = others.embedded
        prompt, position, width = like.shape
        self.layout = layout
        self._end = (torch.arange(prompt, device=like.device), others.end)
        self._joined = torch.from_numpy(layout.circuit.edges[layout.writers].T.copy()).to(like)
        everywhere = torch.from_numpy(layout.everywhere).to(like.device)
        self._joined_all = self._joined[:, everywhere].contiguous()
        self._places = np.cumsum(layout.everywhere) - 1
        self._written = like.new_empty(len(layout.writers), prompt, width)
        self._written_all = like.new_empty(int(layout.everywhere.sum()), prompt, position, width)

    def read(self, readers: Sequence[int], resid: Tensor, *, at_end: bool) -> Tensor:
        """What some readers of like place read, each its own copy of the residual stream.

        Args:
            readers: Their places in the graph.
            resid: What they read on the other edges, ``[prompt, position, width]``, or
                ``[prompt, 1, width]`` at END.
            at_end: At END alone; else the circuit has differences everywhere for them.

        Returns:
            Shape ``[reader, *resid.shape]``.
        """
        layout = self.layout
        behind = int(layout.circuit.graph.sources[readers[0]])
        rows = int(np.searchsorted(layout.writers, behind))
        joined, written = self._joined, self._written
        if not at_end:
            joined, written = self._joined_all, self._written_all
            rows = int(self._places[rows - 1]) + 1 if rows else 0
        flat = written[:rows].view(rows, resid.numel())
        return _sums(joined[list(readers), :rows], flat, resid).view(len(readers), *resid.shape)

    def everywhere(self, writer: int) -> bool:
        """Whether a node is computed at every position; else at END alone."""
        return bool(self.layout.everywhere[self.layout.row(writer)])

    def place(self, writer: int) -> Tensor:
        """Where a node's difference is to be written, ``[prompt, position, width]``.

        At END alone ``[prompt, 1, width]``. Call ``wrote`` after it.
        """
        row = self.layout.row(writer)
        if self.layout.everywhere[row]:
            return self._written_all[int(self._places[row])]
        return self._written[row].unsqueeze(1)

    def wrote(self, writer: int) -> None:
        """A node's difference is in its place."""
        row = self.layout.row(writer)
        if self.layout.everywhere[row]:
            self._written[row] = self._written_all[int(self._places[row])][self._end]

    def write(self, writer: int, difference: Tensor) -> None:
        """Keep a node's difference, ``[prompt, position, width]``, or at END where that is all."""
        place = self.place(writer)
        place.copy_(difference if len(difference[0]) == len(place[0]) else self.end(difference))
        self.wrote(writer)

    def end(self, value: Tensor) -> Tensor:
        """A value ``[prompt, position, ...]`` at END alone, ``[prompt, 1, ...]``."""
        return value[self._end].unsqueeze(1)


def _sums(joined: Tensor, written: Tensor, resid: Tensor) -> Tensor:
    """What each reader reads: ``resid``, and the streams of the writers it is joined to.

    Where few are joined they are gathered: a matrix product reads every stream, of whatever
    writers, and waits for memory.

    Args:
        joined: 1 where a reader reads a writer, else 0, ``[reader, writer]``.
        written: ``[writer, number]``.
        resid: As many numbers.

    Returns:
        Shape ``[reader, number]``.
    """
    if int(joined.count_nonzero()) > DENSE * len(written):
        return torch.addmm(resid.reshape(1, -1), joined, written)
    each, writers = joined.nonzero(as_tuple=True)
    first = torch.searchsorted(each, torch.arange(len(joined), device=each.device))
    gathered = functional.embedding_bag(writers, written, first, mode="sum")
    return gathered.add_(resid.reshape(1, -1))
