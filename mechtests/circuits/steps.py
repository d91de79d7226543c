"""One block for several alternatives of each prompt's suffix, kept for its gradient.

The alternatives of a prompt are consecutive rows. They share what stands before the suffix,
which is attended to and never changes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mechtests.models.attention import mix, normalize, scores
from mechtests.models.blocks import Block
from mechtests.models.components import Linear, Norm


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


class Passed(NamedTuple):
    """What one block computed.

    Attributes:
        pre: The residual stream before it, ``[row, slot, width]``, a leaf of its graph.
        projections: q, k and v without any bias, neither the projection's own nor what it makes
            of the norm's, ``[row, slot, head, head_width]``; k and v by key-value head.
        reads: q, k and v of every query head, of which gradients are taken.
        mid: What the MLP's norm reads, ``[row, slot, width]``.
        mlp_in: The MLP's normed input.
        z: Of every head, ``[row, slot, head, head_width]``.
        mlp_out: What the MLP wrote.
        post: The residual stream after the block.
    """

    pre: Tensor
    projections: tuple[Tensor, ...]
    reads: tuple[Tensor, ...]
    mid: Tensor
    mlp_in: Tensor
    z: Tensor
    mlp_out: Tensor
    post: Tensor


def pass_block(block: Block, pre: Tensor, where: Where, before: Before) -> Passed:
    """Run one block; the same computation as ``Network.run``'s."""
    x = _without_bias(block.ln1)(pre)
    heads = block.query.weight.shape[0] // block.head_width
    projections, reads = [], []
    for linear in (block.query, block.key, block.value):
        part = functional.linear(x, linear.weight).view(*x.shape[:2], -1, block.head_width)
        projections.append(part)
        constant = _constant(block.ln1, linear)
        part = part if constant is None else part + constant.view(-1, block.head_width)
        reads.append(part.repeat_interleave(heads // part.shape[2], 2))
    q, k, v = reads
    z = _attend(
        block,
        block.rotated_query(q, where.positions),
        block.rotated_key(k, where.positions),
        v,
        where.seen,
        before,
    )
    attn_out = block.attention_out(z)
    mid = pre if block.parallel else pre + attn_out
    mlp_in = block.ln2(mid)
    mlp_out = block.mlp(mlp_in)
    post = pre + attn_out + mlp_out if block.parallel else mid + mlp_out
    return Passed(pre, tuple(projections), tuple(reads), mid, mlp_in, z, mlp_out, post)


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
