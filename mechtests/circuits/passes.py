"""The runs of attribution: some prompts at some points between clean and corrupted, and back.

The gradient goes back block by block, and a block's graph is freed when its readers are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mechtests.circuits.contraction import Contraction
from mechtests.circuits.graph import Graph
from mechtests.circuits.reading import read_block
from mechtests.circuits.steps import Before, Passed, Where, pass_block
from mechtests.circuits.suffixes import Suffixes
from mechtests.circuits.writing import Differences
from mechtests.errors import UsageError
from mechtests.models.activations import Activations
from mechtests.models.network import Network

Metric = Callable[[Tensor, Tensor], Tensor]
"""From the residual stream at END ``[row, width]`` after the last block, and which prompt each row
is, ``[row]``, to a number a row, differentiable; rows must not mix."""

Written = tuple[Tensor, Tensor]
"""z and mlp_out of a layer at the slots, each ``[prompt, slot, ...]``."""


@dataclass(frozen=True, eq=False)
class Job:
    """What is the same for all chunks."""

    network: Network
    graph: Graph
    clean: Tensor
    corrupted: Tensor
    metric: Metric
    budget: int

    def bytes_of(self, slots: int, positions: int, points: int) -> int:
        """Memory for one prompt with all its points."""
        return self._shared_bytes(slots, positions) + points * self._point_bytes(slots, positions)

    def _shared_bytes(self, slots: int, positions: int) -> int:
        """Differences, a layer's readers, and what the clean run keeps, of one prompt."""
        shape, graph = self.network.shape, self.graph
        wide = slots * (graph.writers + 2 * (3 * graph.heads + 1)) * shape.width
        heads = (shape.heads + 2 * shape.key_value_heads) * shape.head_width
        return 4 * (wide + shape.layers * positions * (heads + shape.width))

    def _point_bytes(self, slots: int, positions: int) -> int:
        """The graph of one prompt at one point."""
        shape = self.network.shape
        token = 5 * shape.width + 5 * shape.heads * shape.head_width + 3 * shape.mlp_width
        attention = 4 * shape.heads * positions
        itemsize = self.network.dtype.itemsize
        return itemsize * shape.layers * slots * (token + attention)

    def add(
        self, suffixes: Suffixes, points: Sequence[float], groups: Tensor, total: Tensor
    ) -> None:
        """Add the scores of some prompts."""
        slots, positions = suffixes.slots, suffixes.slots + suffixes.shared
        left = self.budget - len(suffixes.rows) * self._shared_bytes(slots, positions)
        many = left // (len(suffixes.rows) * self._point_bytes(slots, positions))
        many = max(1, min(len(points), many))
        batches = [points[at : at + many] for at in range(0, len(points), many)]
        chunk = Chunk(self, suffixes, batches[0])
        for batch in batches:
            chunk.add(batch, groups, total)


class Chunk:
    """Some prompts: their embeddings, what stands before them, and their differences."""

    def __init__(self, job: Job, suffixes: Suffixes, first: Sequence[float]) -> None:
        self.job, self.suffixes = job, suffixes
        network, rows = job.network, suffixes.rows
        self.clean, self.corrupted = (
            network.embed(suffixes.of(tokens[rows]), suffixes.positions)
            for tokens in (job.clean, job.corrupted)
        )
        # what of both ends the first batch of points will not pass is run before
        self.ends: dict[float, list[Written]] = {}
        needed = suffixes.shared if 0.0 in first else suffixes.shared + suffixes.slots
        keep = ["rot_k", "v"] + ([] if 0.0 in first else ["z", "mlp_out"])
        run = None
        if needed:
            tokens = job.clean[rows, : min(needed, job.clean.shape[1])]
            run = network.run(tokens, keep=keep)
        self.before = [self._before(run, layer) for layer in range(network.shape.layers)]
        if run is not None and 0.0 not in first:
            self.ends[0.0] = [
                (suffixes.of(run["z", layer]), suffixes.of(run["mlp_out", layer]))
                for layer in range(network.shape.layers)
            ]
        if 1.0 not in first:
            self.ends[1.0] = [
                (passed.z, passed.mlp_out) for passed in self._pass([1.0], graph=False)
            ]
        self.differences: Tensor | None = None

    def _before(self, run: Activations | None, layer: int) -> Before:
        shared = self.suffixes.shared
        if run is None or not shared:
            block = self.job.network.blocks[layer]
            groups = block.key.weight.shape[0] // block.head_width
            shape = (len(self.suffixes.rows), 0, groups, block.head_width)
            empty = self.clean.new_empty(shape)
            return Before(empty, empty)
        return Before(*(run[site, layer][:, :shared].clone() for site in ("rot_k", "v")))

    def _pass(self, points: Sequence[float], *, graph: bool) -> list[Passed]:
        """Run all prompts at some points, rows being prompt by prompt."""
        suffixes, network = self.suffixes, self.job.network
        share = torch.tensor(points, dtype=self.clean.dtype, device=self.clean.device)
        share = share.view(1, -1, 1, 1)
        resid = self.clean[:, None] + share * (self.corrupted - self.clean)[:, None]
        resid = resid.flatten(0, 1)
        positions = suffixes.positions.repeat_interleave(len(points), 0)
        seen: dict[int | None, Tensor] = {}
        passed = []
        for layer, block in enumerate(network.blocks):
            if block.window not in seen:
                each = suffixes.seen(block.window)
                seen[block.window] = each.repeat_interleave(len(points), 0)
            with torch.set_grad_enabled(graph):
                pre = resid.detach().requires_grad_(graph)
                where = Where(positions, seen[block.window])
                passed.append(pass_block(block, pre, where, self.before[layer]))
            resid = passed[-1].post
        return passed

    def add(self, points: Sequence[float], groups: Tensor, total: Tensor) -> None:
        """Add the scores at some points."""
        passed = self._pass(points, graph=True)
        if self.differences is None:
            self.differences = self._differences(points, passed)
        job, suffixes = self.job, self.suffixes
        rows = torch.arange(len(passed[0].pre), device=self.clean.device)
        at = suffixes.last.repeat_interleave(len(points))
        final = passed[-1].post.detach()[rows, at]
        gradient = self._loss_gradient(final, len(points))
        room = job.budget // 8
        contraction = Contraction(job.graph, self.differences, groups, total, room)
        at_end = gradient.view(len(suffixes.rows), -1, gradient.shape[-1])
        contraction.logits(at_end.sum(1), suffixes.last)
        resid = torch.zeros_like(passed[-1].post)
        resid[rows, at] = gradient
        for layer in reversed(range(len(passed))):
            block = passed.pop()
            sites = (block.pre, *block.reads, block.mlp_in)
            resid, *found = torch.autograd.grad(block.post, sites, resid)
            out = contraction.room(layer)
            read_block(job.network.blocks[layer], block, found, len(suffixes.rows), out)
            contraction.written(layer)

    def _differences(self, points: Sequence[float], passed: Sequence[Passed]) -> Tensor:
        """Corrupted minus clean, from the points' runs where they are among them."""
        job, prompts = self.job, len(self.suffixes.rows)
        found = Differences(job.network, job.graph, self.clean, self.corrupted)

        def end(share: float, layer: int) -> Written:
            if share in self.ends:
                return self.ends[share][layer]
            parts = (passed[layer].z.detach(), passed[layer].mlp_out.detach())
            z, mlp = (p.view(prompts, -1, *p.shape[1:])[:, points.index(share)] for p in parts)
            return z, mlp

        for layer in range(job.graph.layers):
            found.add(layer, end(0.0, layer), end(1.0, layer))
        self.ends.clear()
        return found.values.flatten(1, 2)

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
