"""The runs of attribution: some prompts at some points between clean and corrupted, and back.

The gradient goes back block by block, and a block's readers are scored on the way. What the way
back needs lies in memory that the next prompts take over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mechtests.circuits.back import back
from mechtests.circuits.contraction import Contraction
from mechtests.circuits.graph import Graph
from mechtests.circuits.memory import Memory, point_bytes, prompt_bytes
from mechtests.circuits.reading import read_block
from mechtests.circuits.steps import Before, Passed, Where, Written, pass_block
from mechtests.circuits.suffixes import Suffixes
from mechtests.circuits.writing import Differences
from mechtests.errors import UsageError
from mechtests.models.activations import Activations
from mechtests.models.network import Network

Metric = Callable[[Tensor, Tensor], Tensor]
"""From the residual stream at END ``[row, width]`` after the last block, and which prompt each row
is, ``[row]``, to a number a row, differentiable; rows must not mix."""


ENDS = (0.0, 1.0)
"""The clean and the corrupted run, as points."""


@dataclass(frozen=True, eq=False)
class Job:
    """What is the same for all chunks."""

    network: Network
    graph: Graph
    clean: Tensor
    corrupted: Tensor
    metric: Metric
    budget: int
    memory: Memory

    def fitting(self, slots: int, positions: int, points: Sequence[float]) -> int:
        """How many prompts can be run at once, with all their points."""
        shape, each = self.network.shape, self.network.dtype.itemsize
        passed = len(points) + len(_missing(points))
        at_points = passed * point_bytes(shape, slots, positions, each)
        return self.budget // (prompt_bytes(shape, slots, positions) + at_points)

    def add(
        self, suffixes: Suffixes, points: Sequence[float], groups: Tensor, total: Tensor
    ) -> None:
        """Add the scores of some prompts."""
        shape, sizes = self.network.shape, (suffixes.slots, suffixes.whole)
        each = point_bytes(shape, *sizes, self.network.dtype.itemsize)
        many = (self.budget // len(suffixes.rows) - prompt_bytes(shape, *sizes)) // each
        many = max(1, min(len(points), many - len(_missing(points))))
        chunk = Chunk(self, suffixes)
        for at in range(0, len(points), many):
            chunk.add(points[at : at + many], groups, total, fill=not at)


class Chunk:
    """Some prompts: their embeddings, what stands before them, and their differences.

    A batch of them at some points is run as one, its rows being point by point.
    """

    def __init__(self, job: Job, suffixes: Suffixes) -> None:
        self.job, self.suffixes = job, suffixes
        network, rows = job.network, suffixes.rows
        self.clean, self.corrupted = (
            network.embed(suffixes.of(tokens[rows]), suffixes.positions)
            for tokens in (job.clean, job.corrupted)
        )
        self.differences = Differences(network, job.graph, self.clean, self.corrupted)
        shared = suffixes.shared
        run = network.run(job.clean[rows, :shared], keep=["rot_k", "v"]) if shared else None
        self.before = [self._before(run, layer) for layer in range(network.shape.layers)]

    def _before(self, run: Activations | None, layer: int) -> Before:
        if run is not None:
            return Before(run["rot_k", layer], run["v", layer])
        block = self.job.network.blocks[layer]
        groups = block.key.weight.shape[0] // block.head_width
        empty = self.clean.new_empty(len(self.suffixes.rows), 0, groups, block.head_width)
        return Before(empty, empty)

    def add(self, points: Sequence[float], groups: Tensor, total: Tensor, *, fill: bool) -> None:
        """Add the scores at some points; fill in the differences on the way there, once."""
        job, suffixes, prompts = self.job, self.suffixes, len(self.suffixes.rows)
        post, ways = self._there(points, fill=fill)
        rows = torch.arange(len(post), device=post.device)
        last = suffixes.last.repeat(len(points))
        at_end = self._loss_gradient(post[rows, last], len(points))
        differences = self.differences.values.flatten(1, 2)
        contraction = Contraction(job.graph, differences, groups, total, job.budget // 8)
        contraction.logits(at_end.view(-1, prompts, at_end.shape[1]).sum(0), suffixes.last)
        gradient = torch.zeros_like(post)
        gradient[rows, last] = at_end
        for layer in reversed(range(len(ways))):
            way = ways.pop()
            gradient, reads = back(way, gradient)
            read_block(way, reads, prompts, contraction.room(layer))
            contraction.written(layer)

    def _there(self, points: Sequence[float], *, fill: bool) -> tuple[Tensor, list[Passed]]:
        """Run all prompts at some points, and where differences are filled in at both ends.

        Returns:
            The residual stream after the last block, ``[row, slot, width]``, and the way back, of
            the points alone.
        """
        network, prompts = self.job.network, len(self.suffixes.rows)
        passed = [*points, *_missing(points)] if fill else points
        kept = len(points) * prompts
        share = torch.tensor(passed, dtype=self.clean.dtype, device=self.clean.device)
        resid = torch.lerp(self.clean, self.corrupted, share.view(-1, 1, 1, 1)).flatten(0, 1)
        wheres: dict[int | None, tuple[Where, Where]] = {}
        ways = []
        for layer, block in enumerate(network.blocks):
            if block.window not in wheres:
                wheres[block.window] = self._where(len(passed), kept, block.window)
            where, back_there = wheres[block.window]
            room = partial(self.job.memory.room, layer)
            resid, written, way = pass_block(block, resid, where, self.before[layer], room)
            ways.append(way.first(kept, back_there))
            if fill:
                each = [part.view(len(passed), prompts, *part.shape[1:]) for part in written]
                clean, corrupted = (
                    Written(*(part[passed.index(end)] for part in each)) for end in ENDS
                )
                self.differences.add(layer, clean, corrupted)
        return resid[:kept], ways

    def _where(self, points: int, kept: int, window: int | None) -> tuple[Where, Where]:
        """Where all rows of a batch stand, and where those of the way back do."""
        positions = self.suffixes.positions.repeat(points, 1)
        seen = self.suffixes.seen(window).repeat(points, 1, 1, 1)
        return Where(positions, seen), Where(positions[:kept], seen[:kept])

    def _loss_gradient(self, final: Tensor, points: int) -> Tensor:
        """Of the loss, each row's at its own residual stream, ``[row, width]``."""
        rows = self.suffixes.rows.repeat(points)
        with torch.enable_grad():
            leaf = final.requires_grad_()
            values = self.job.metric(leaf, rows)
            if values.shape != rows.shape:
                raise UsageError(
                    "a metric of attribution must give one number for each of "
                    f"{len(rows)} rows, got the shape {tuple(values.shape)}"
                )
            (gradient,) = torch.autograd.grad(-values.sum(), leaf)
        return gradient


def _missing(points: Sequence[float]) -> list[float]:
    """The ends that are none of the points: they are run to fill in the differences."""
    return [end for end in ENDS if end not in points]
