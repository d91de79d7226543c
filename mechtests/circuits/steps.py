"""One block for several alternatives of each prompt's suffix, kept for its gradient.

The alternatives of a prompt are consecutive rows. They share what stands before the suffix,
which is attended to and never changes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional

from mechtests.models.attention import mix, normalize, scores
from mechtests.models.blocks import Block
from mechtests.models.components import Linear, Norm, Rotary


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


class Passed(NamedTuple):
    """What the way back through a block needs, beside the graph itself.

    Attributes:
        pre: The residual stream before it, ``[row, slot, width]``, a leaf of its graph.
        projections: q, k and v without any bias, neither the projection's own nor what it makes
            of the norm's, ``[row, slot, head, head_width]``; k and v by key-value head.
        mid: What the MLP's norm reads, ``[row, slot, width]``.
        reads: Where in the graph are q, k and v of every query head, and the MLP's normed input.
        post: Where in the graph the residual stream after the block is.
    """

    pre: Tensor
    projections: tuple[Tensor, ...]
    mid: Tensor
    reads: tuple[GradientEdge, ...]
    post: GradientEdge

    def back(self, gradient: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """From the gradient at ``post`` those at ``pre`` and at ``reads``; frees the graph.

        Returns:
            ``[row, slot, width]``; ``[row, slot, head, head_width]`` of q, k and v each, and
            ``[row, slot, width]`` of the MLP.
        """
        sites: tuple[Any, ...] = (self.pre, *self.reads)
        pre, *reads = torch.autograd.grad((self.post,), sites, (gradient,))
        return pre, tuple(reads)


def pass_block(
    block: Block, pre: Tensor, where: Where, before: Before
) -> tuple[Tensor, Written, Passed | None]:
    """Run one block; the same computation as ``Network.run``'s.

    Args:
        block: The block.
        pre: The residual stream before it, ``[row, slot, width]``.
        where: Where the rows stand.
        before: What they attend to before the suffix.

    Returns:
        The residual stream after it, what was written, both out of the graph, and the way back,
        or None where ``pre`` needs no gradient.
    """
    x = _without_bias(block.ln1)(pre)
    projections: list[Tensor] = []
    reads: list[Tensor] = []
    for linear in (block.query, block.key, block.value):
        part = functional.linear(x, linear.weight).view(*x.shape[:2], -1, block.head_width)
        projections.append(part.detach())
        constant = _constant(block.ln1, linear)
        part = part if constant is None else part + constant.view(-1, block.head_width)
        reads.append(part if not reads else _of_every_head(part, reads[0].shape[2]))
    q, k, v = reads
    rot_q = q if block.query_norm is None else block.query_norm(q)
    rot_k = k if block.key_norm is None else block.key_norm(k)
    if block.rotary is not None:
        rot_q, rot_k = (turn(block.rotary, part, where.positions) for part in (rot_q, rot_k))
    z = _attend(block, rot_q, rot_k, v, where.seen, before)
    attn_out = block.attention_out(z)
    mid = pre if block.parallel else pre + attn_out
    mlp_in = block.ln2(mid)
    mlp_out = block.mlp(mlp_in)
    post = pre + attn_out + mlp_out if block.parallel else mid + mlp_out
    way = None
    if pre.requires_grad:
        edges = tuple(get_gradient_edge(part) for part in (q, k, v, mlp_in))
        way = Passed(pre, tuple(projections), mid.detach(), edges, get_gradient_edge(post))
    return post.detach(), Written(z.detach(), mlp_out.detach()), way


def turn(rotary: Rotary, x: Tensor, positions: Tensor) -> Tensor:
    """Rotate ``[row, slot, head, head_width]``; the gradient is turned back in one step."""
    turned: Tensor = _Turned.apply(x, rotary, positions)  # type: ignore[no-untyped-call]
    return turned


class _Turned(torch.autograd.Function):
    """A rotation, whose adjoint is the rotation by the opposite angles."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rotary: Rotary, positions: Tensor) -> Tensor:
        ctx.rotary, ctx.angles = rotary, rotary.table(positions)
        return rotary.turned(x, *ctx.angles)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.angles
        return ctx.rotary.turned(gradients[0], cos, -sin), None, None


def _of_every_head(part: Tensor, heads: int) -> Tensor:
    """Keys or values ``[row, slot, key_value_head, ...]``, a copy a query head."""
    group = heads // part.shape[2]
    return part if group == 1 else part.repeat_interleave(group, 2)


def _without_bias(norm: Norm) -> Norm:
    return norm if norm.bias is None else replace(norm, bias=None)


def _constant(norm: Norm, linear: Linear) -> Tensor | None:
    """What biases add to a projection, ``[out]``, or None."""
    if norm.bias is None:
        return linear.bias
    made = linear.weight @ norm.bias
    return made if linear.bias is None else made + linear.bias


def _attend(block: Block, q: Tensor, k: Tensor, v: Tensor, seen: Tensor, before: Before) -> Tensor:
    """Each slot's z, from what stands before and from its own alternative's slots."""
    row, slot, head, width = q.shape
    products, shared = scores(q, k), before.keys.shape[1]
    if not shared:
        return mix(normalize(products, seen, block.scale, block.softcap), v)
    prompt = len(before.keys)
    alternatives = q.reshape(prompt, -1, head, width)
    early = scores(alternatives, before.keys).view(prompt, head, -1, slot, shared)
    early = early.transpose(1, 2).reshape(row, head, slot, shared)
    products = torch.cat((early, products), -1)
    pattern = normalize(products, seen, block.scale, block.softcap)
    early = pattern[..., :shared].reshape(prompt, -1, head, slot, shared).transpose(1, 2)
    mixed = mix(early.reshape(prompt, head, -1, shared), before.values)
    return mixed.reshape(row, slot, head, width) + mix(pattern[..., shared:], v)
