"""The heads of a circuit in one layer: each reads its own streams, attends, and writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mechtests.circuits.graph import Read
from mechtests.circuits.others import Layer, Others
from mechtests.circuits.streams import Streams
from mechtests.models.attention import mask, normalize
from mechtests.models.blocks import Block
from mechtests.models.components import Linear


class Heads:
    """One layer's heads, for one circuit after the other.

    Args:
        block: The layer's parts.
        layer: Which it is.
        others: What the other edges carry.
    """

    def __init__(self, block: Block, layer: int, others: Others) -> None:
        self.block, self.layer, self.others = block, layer, others
        self.otherwise: Layer = others.layers[layer]
        after = others.embedded.shape[1]
        device = others.end.device
        self.positions = torch.arange(others.shared, others.shared + after, device=device)
        self.seen = mask(others.shared + after, block.window, device)

    def __call__(self, streams: Streams) -> None:
        """Write what the circuit's heads write: those needed everywhere, then those at END."""
        graph = streams.layout.circuit.graph
        heads = streams.layout.heads(self.layer).tolist()
        for at_end in (False, True):
            chosen = [
                head
                for head in heads
                if streams.everywhere(graph.head(self.layer, head)) is not at_end
            ]
            if chosen:
                self._write(streams, chosen, self._attend(streams, chosen, at_end), at_end)

    def _attend(self, streams: Streams, heads: Sequence[int], at_end: bool) -> Tensor:
        """The z of some heads, ``[head, prompt, position, head_width]``."""
        q = self._read(streams, heads, "q", at_end)
        k = self._read(streams, heads, "k", False)
        v = self._read(streams, heads, "v", False)
        shared, end = self.others.shared, self.others.end
        seen = self.seen[shared + end].unsqueeze(1) if at_end else self.seen[shared:]
        products = q @ k.transpose(-1, -2)
        return normalize(products, seen, self.block.scale, self.block.softcap) @ v

    def _read(
        self, streams: Streams, heads: Sequence[int], kind: Literal["q", "k", "v"], at_end: bool
    ) -> Tensor:
        """Queries (at END alone where said), keys or values of some heads.

        What no edge of the circuit reaches is what it is on the other edges.

        Returns:
            Shape ``[head, prompt, position, head_width]``; keys and values with the shared
            positions before the others.
        """
        graph, block, each = streams.layout.circuit.graph, self.block, self.otherwise
        resid = streams.end(each.resid_pre) if at_end else each.resid_pre
        held = {"q": each.rot_q, "k": each.rot_k, "v": each.v}[kind]
        held = streams.end(held) if at_end else held
        group = graph.heads // held.shape[2]
        out = held[:, :, [head // group for head in heads]].permute(2, 0, 1, 3).contiguous()
        readers = [graph.reader(Read(self.layer, kind, head)) for head in heads]
        joined = np.flatnonzero(streams.layout.circuit.edges[:, readers].any(0)).tolist()
        if not joined:
            return out
        x = block.ln1(streams.read([readers[row] for row in joined], resid, at_end=at_end))
        linear = {"q": block.query, "k": block.key, "v": block.value}[kind]
        part = x.new_empty(*x.shape[:-1], 1, block.head_width)
        for at, row in enumerate(joined):
            _project(linear, x[at], heads[row] // group, part[at])
        positions = self.others.shared + self.others.end[:, None] if at_end else self.positions
        if kind != "v":
            turn = block.rotated_query if kind == "q" else block.rotated_key
            part = turn(part, positions)
        out[joined, :, out.shape[2] - resid.shape[1] :] = part.squeeze(-2)
        return out

    def _write(self, streams: Streams, heads: Sequence[int], z: Tensor, at_end: bool) -> None:
        """Write z W_O minus that of the other edges; a post-norm is applied to both before."""
        block, each = self.block, self.otherwise
        graph, width = streams.layout.circuit.graph, each.mlp_out.shape[-1]
        held = streams.end(each.z) if at_end else each.z
        factor = None
        if each.written is None:
            z = z - held[:, :, list(heads)].permute(2, 0, 1, 3)
        else:
            factor = _post_factor(block, held, heads, z)
            written = streams.end(each.written) if at_end else each.written
        for at, head in enumerate(heads):
            writer = graph.head(self.layer, head)
            place = streams.place(writer)
            torch.mm(
                z[at].reshape(-1, block.head_width), block.W_O[head], out=place.view(-1, width)
            )
            if factor is not None:
                place.mul_(factor).sub_(written[:, :, head])
            streams.wrote(writer)


def _post_factor(block: Block, held: Tensor, heads: Sequence[int], z: Tensor) -> Tensor:
    """What a post-norm multiplies with, its scale that of the heads as they are in the circuit.

    Args:
        block: With a norm behind attention.
        held: The z of all heads on the other edges, ``[prompt, position, head, head_width]``.
        heads: Those that are computed.
        z: Theirs, ``[head, prompt, position, head_width]``.

    Returns:
        Shape ``[prompt, position, width]``.
    """
    assert block.attention_post is not None
    now = held.clone(memory_format=torch.contiguous_format)
    now[:, :, list(heads)] = z.permute(1, 2, 0, 3)
    scale = block.attention_post.scale(block.output(now.flatten(-2)))
    return (block.attention_post.gain / scale).to(z.dtype)


def _project(linear: Linear, x: Tensor, head: int, out: Tensor) -> None:
    """One head's query, key or value of its own stream, into ``out``."""
    width = out.shape[-1]
    rows = slice(head * width, (head + 1) * width)
    weight, flat, into = linear.weight[rows].T, x.flatten(0, -2), out.view(-1, width)
    if linear.bias is None:
        torch.mm(flat, weight, out=into)
    else:
        torch.addmm(linear.bias[rows], flat, weight, out=into)
