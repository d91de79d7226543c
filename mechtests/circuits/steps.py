"""One block for several alternatives of each prompt's suffix, kept for the way back.

Rows are alternative by alternative, each of all prompts in their order. The alternatives of a
prompt share what stands before the suffix, which is attended to and never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from mechtests.models.attention import mix, normalize, scores
from mechtests.models.blocks import Block
from mechtests.models.components import Linear, Norm

Room = Callable[[str, Sequence[int]], Tensor]
"""From a name and a shape to a tensor for it, of whatever was in it."""


class Before(NamedTuple):
    """Keys after rotary and values before the suffix, ``[prompt, position, key_value_head, ...]``.

    Positions behind a prompt's start are there and not to be seen.
    """

    keys: Tensor
    values: Tensor


class Where(NamedTuple):
    """Where the rows of a batch stand.

    Attributes:
        positions: Of every slot, ``[row, slot]``.
        seen: Of a block's window, ``[row, 1, query slot, position before + slot]``.
    """

    positions: Tensor
    seen: Tensor


class Written(NamedTuple):
    """What a block wrote.

    Attributes:
        z: Of every head, ``[row, slot, head, head_width]``.
        mlp_out: What the MLP wrote, ``[row, slot, width]``.
    """

    z: Tensor
    mlp_out: Tensor


@dataclass(frozen=True, eq=False)
class Passed:
    """What the way back through a block needs; the rest is cheap to make again.

    Attributes:
        block: The block.
        where: Where the rows stand.
        before: What they attended to before the suffix.
        pre: The residual stream before it, ``[row, slot, width]``.
        projections: q, k and v without any bias, neither the projection's own nor what it makes
            of the norm's, ``[row, slot, head, head_width]``; k and v by key-value head.
        constants: What biases add to each, ``[head, head_width]``, or None.
        pattern: Attention's, ``[row, head, slot, position before + slot]``.
        mid: What the MLP's norm reads, ``[row, slot, width]``.
        inner: What the MLP's inner maps give before the activation, ``[row, slot, mlp_width]``:
            of neurons alone, or of neurons and of their gates.
        written: What attention and the MLP write before a post-norm (Gemma), where there is one.
    """

    block: Block
    where: Where
    before: Before
    pre: Tensor
    projections: tuple[Tensor, ...]
    constants: tuple[Tensor | None, ...]
    pattern: Tensor
    mid: Tensor
    inner: tuple[Tensor, ...]
    written: tuple[Tensor | None, ...]

    def first(self, rows: int, where: Where) -> Passed:
        """The same of the first rows alone, and where they stand."""
        return replace(
            self,
            where=where,
            pre=self.pre[:rows],
            projections=tuple(part[:rows] for part in self.projections),
            pattern=self.pattern[:rows],
            mid=self.mid[:rows],
            inner=tuple(part[:rows] for part in self.inner),
            written=tuple(None if part is None else part[:rows] for part in self.written),
        )

    def attended(self) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys before any norm and rotary, and values; with biases, shaped as kept."""
        q, k, v = _with_constants(self.projections, self.constants)
        return q, k, v


def pass_block(
    block: Block, pre: Tensor, where: Where, before: Before, room: Room
) -> tuple[Tensor, Written, Passed]:
    """Run one block; the same computation as ``Network.run``'s.

    Args:
        block: The block.
        pre: The residual stream before it, ``[row, slot, width]``.
        where: Where the rows stand.
        before: What they attend to before the suffix.
        room: Where to keep what the way back needs.

    Returns:
        The residual stream after it, what was written, and what the way back needs.
    """
    x = _without_bias(block.ln1)(pre)
    linears = (block.query, block.key, block.value)
    projections = tuple(
        _through(linear._replace(bias=None), x, room, name).view(*x.shape[:2], -1, block.head_width)
        for name, linear in zip("qkv", linears, strict=True)
    )
    constants = tuple(_constant(block, linear) for linear in linears)
    q, k, v = _with_constants(projections, constants)
    rot_q = block.rotated_query(q, where.positions)
    rot_k = block.rotated_key(k, where.positions)
    products = over_all(rot_q, rot_k, before.keys)
    pattern = normalize(products, where.seen, block.scale, block.softcap)
    z = mixed(pattern, v, before.values)
    attn = attn_out = block.output(z.flatten(2))
    if block.attention_post is not None:
        attn_out = block.attention_post(attn)
    mid = pre if block.parallel else torch.add(pre, attn_out, out=room("mid", pre.shape))
    inner, neurons = _neurons(block, block.ln2(mid), room)
    mlp = mlp_out = block.mlp_out(neurons)
    if block.mlp_post is not None:
        mlp_out = block.mlp_post(mlp)
    post = torch.add(mid, mlp_out, out=room("post", pre.shape))
    post = post.add_(attn_out) if block.parallel else post
    written = (
        None if block.attention_post is None else attn,
        None if block.mlp_post is None else mlp,
    )
    passed = Passed(block, where, before, pre, projections, constants, pattern, mid, inner, written)
    return post, Written(z, mlp_out), passed


def over_all(queries: Tensor, keys: Tensor, before: Tensor) -> Tensor:
    """Products with what stands before and with each alternative's own slots.

    Args:
        queries: ``[row, slot, head, head_width]``.
        keys: Of the slots, ``[row, slot, key_value_head, head_width]``.
        before: Of the positions before, ``[prompt, position, key_value_head, head_width]``.

    Returns:
        Shape ``[row, head, slot, position + slot]``.
    """
    own, shared = scores(queries, keys), before.shape[1]
    if not shared:
        return own
    row, slot, head, width = queries.shape
    by_prompt = queries.reshape(-1, len(before), slot, head, width).transpose(0, 1)
    early = scores(by_prompt.flatten(1, 2), before)
    early = early.view(len(before), head, -1, slot, shared).permute(2, 0, 1, 3, 4)
    return torch.cat((early.reshape(row, head, slot, shared), own), -1)


def mixed(weights: Tensor, values: Tensor, before: Tensor) -> Tensor:
    """Sums of what stands before and of each alternative's own slots, weighted.

    Args:
        weights: ``[row, head, slot, position + slot]``.
        values: Of the slots, ``[row, slot, key_value_head, head_width]``.
        before: Of the positions before, ``[prompt, position, key_value_head, head_width]``.

    Returns:
        Shape ``[row, slot, head, head_width]``.
    """
    shared = before.shape[1]
    if not shared:
        return mix(weights, values)
    row, head, slot, _ = weights.shape
    early = weights[..., :shared].reshape(-1, len(before), head, slot, shared)
    early = early.permute(1, 2, 0, 3, 4).reshape(len(before), head, -1, shared)
    total = mix(early, before).reshape(len(before), -1, slot, head, before.shape[3])
    total = total.transpose(0, 1).reshape(row, slot, head, before.shape[3])
    return total + mix(weights[..., shared:], values)


def _neurons(block: Block, x: Tensor, room: Room) -> tuple[tuple[Tensor, ...], Tensor]:
    """Before and after activation and gate, from the MLP's normed input."""
    inner = tuple(
        _through(linear, x, room, name)
        for name, linear in (("up", block.mlp_in), ("gate", block.mlp_gate))
        if linear is not None
    )
    if len(inner) == 1:
        return inner, block.activation(inner[0])
    return inner, block.activation(inner[1]) * inner[0]


def _through(linear: Linear, x: Tensor, room: Room, name: str) -> Tensor:
    """A linear map of ``[row, slot, in]`` into a place for it, ``[row, slot, out]``."""
    out = room(name, (*x.shape[:2], len(linear.weight)))
    rows, place = x.flatten(0, 1), out.flatten(0, 1)
    if linear.bias is None:
        torch.mm(rows, linear.weight.T, out=place)
    else:
        torch.addmm(linear.bias, rows, linear.weight.T, out=place)
    return out


def _with_constants(parts: Sequence[Tensor], constants: Sequence[Tensor | None]) -> list[Tensor]:
    each = zip(parts, constants, strict=True)
    return [part if constant is None else part + constant for part, constant in each]


def _without_bias(norm: Norm) -> Norm:
    return norm if norm.bias is None else replace(norm, bias=None)


def _constant(block: Block, linear: Linear) -> Tensor | None:
    """What biases add to a projection, its own and ln1's through it, ``[head, head_width]``."""
    made = None if block.ln1.bias is None else linear.weight @ block.ln1.bias
    parts = [part for part in (made, linear.bias) if part is not None]
    return torch.stack(parts).sum(0).view(-1, block.head_width) if parts else None
