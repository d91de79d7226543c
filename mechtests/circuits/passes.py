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

    def fitting(self, slots: int, positions: int, points: int) -> int:
        """How many prompts can be run at once, with all their points."""
        shape, each = self.network.shape, self.network.dtype.itemsize
        at_points = points * point_bytes(shape, slots, positions, each)
        return self.budget // (prompt_bytes(shape, slots, positions) + at_points)

    def add(
        self, suffixes: Suffixes, points: Sequence[float], groups: Tensor, total: Tensor
    ) -> None:
        """Add the scores of some prompts."""
        shape, sizes = self.network.shape, (suffixes.slots, suffixes.whole)
        each = point_bytes(shape, *sizes, self.network.dtype.itemsize)
        many = (self.budget // len(suffixes.rows) - prompt_bytes(shape, *sizes)) // each
        many = max(1, min(len(points), many))
        batches = [points[at : at + many] for at in range(0, len(points), many)]
        chunk = Chunk(self, suffixes, batches[0])
        for batch in batches:
            chunk.add(batch, groups, total, fill=batch is batches[0])


class Chunk:
    """Some prompts: their embeddings, what stands before them, and their differences."""

    def __init__(self, job: Job, suffixes: Suffixes, first: Sequence[float]) -> None:
        self.job, self.suffixes = job, suffixes
        network, rows = job.network, suffixes.rows
        self.clean, self.corrupted = (
            network.embed(suffixes.of(tokens[rows]), suffixes.positions)
            for tokens in (job.clean, job.corrupted)
        )
        self.differences = Differences(network, job.graph, self.clean, self.corrupted)
        # what of both ends the first batch of points will not pass is run before
        self.ends: dict[float, list[Written]] = {}
        clean = 0.0 not in first
        run = None
        if needed := suffixes.whole if clean else suffixes.shared:
            keep = ["rot_k", "v", *(["z", "mlp_out"] if clean else [])]
            run = network.run(job.clean[rows, :needed], keep=keep)
        layers = range(network.shape.layers)
        self.before = [self._before(run, layer) for layer in layers]
        if run is not None and clean:
            self.ends[0.0] = [
                Written(*(suffixes.of(run[site, layer]) for site in Written._fields))
                for layer in layers
            ]
        if 1.0 not in first:
            self.ends[1.0] = found = []
            self._pass([1.0], lambda layer, written: found.append(written), keep=False)

    def _before(self, run: Activations | None, layer: int) -> Before:
        shared = self.suffixes.shared
        if run is None or not shared:
            block = self.job.network.blocks[layer]
            groups = block.key.weight.shape[0] // block.head_width
            shape = (len(self.suffixes.rows), 0, groups, block.head_width)
            empty = self.clean.new_empty(shape)
            return Before(empty, empty)
        return Before(*(run[site, layer][:, :shared].clone() for site in ("rot_k", "v")))

    def _pass(
        self, points: Sequence[float], wrote: Callable[[int, Written], object], *, keep: bool
    ) -> tuple[Tensor, list[Passed]]:
        """Run all prompts at some points, rows being prompt by prompt.

        Returns:
            The residual stream after the last block, ``[row, slot, width]``, and the way back.
        """
        suffixes, network = self.suffixes, self.job.network
        share = torch.tensor(points, dtype=self.clean.dtype, device=self.clean.device)
        change = share.view(1, -1, 1, 1) * (self.corrupted - self.clean)[:, None]
        resid = (self.clean[:, None] + change).flatten(0, 1)
        positions = suffixes.positions.repeat_interleave(len(points), 0)
        seen: dict[int | None, Tensor] = {}
        memory = self.job.memory if keep else Memory(1, resid.dtype, resid.device)
        ways = []
        for layer, block in enumerate(network.blocks):
            if block.window not in seen:
                each = suffixes.seen(block.window)
                seen[block.window] = each.repeat_interleave(len(points), 0)
            where = Where(positions, seen[block.window])
            room = partial(memory.room, layer if keep else 0)
            resid, written, way = pass_block(block, resid, where, self.before[layer], room)
            wrote(layer, written)
            if keep:
                ways.append(way)
        return resid, ways

    def add(self, points: Sequence[float], groups: Tensor, total: Tensor, *, fill: bool) -> None:
        """Add the scores at some points; fill in the differences on the way there, once."""
        job, suffixes = self.job, self.suffixes

        def wrote(layer: int, written: Written) -> None:
            if fill:
                ends = (self._end(share, layer, points, written) for share in (0.0, 1.0))
                self.differences.add(layer, *ends)

        post, ways = self._pass(points, wrote, keep=True)
        self.ends.clear()
        rows = torch.arange(len(post), device=post.device)
        last = suffixes.last.repeat_interleave(len(points))
        at_end = self._loss_gradient(post[rows, last], len(points))
        differences = self.differences.values.flatten(1, 2)
        contraction = Contraction(job.graph, differences, groups, total, job.budget // 8)
        prompts = len(suffixes.rows)
        contraction.logits(at_end.view(prompts, len(points), -1).sum(1), suffixes.last)
        gradient = torch.zeros_like(post)
        gradient[rows, last] = at_end
        for layer in reversed(range(len(ways))):
            way = ways.pop()
            gradient, reads = back(way, gradient)
            read_block(way, reads, prompts, contraction.room(layer))
            contraction.written(layer)

    def _end(self, share: float, layer: int, points: Sequence[float], written: Written) -> Written:
        """What the clean or the corrupted run wrote, kept from before or among these points."""
        if share in self.ends:
            return self.ends[share][layer]
        place, prompts = points.index(share), len(self.suffixes.rows)
        each = (part.view(prompts, len(points), *part.shape[1:]) for part in written)
        return Written(*(part[:, place] for part in each))

    def _loss_gradient(self, final: Tensor, points: int) -> Tensor:
        """Of the loss, each row's at its own residual stream, ``[row, width]``."""
        rows = self.suffixes.rows.repeat_interleave(points)
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
