"""The way back through a block: from the gradient after it to those before it and at its readers.

By hand but for the activation, for every block of the adapter: what is kept is then no more than
needed, lies in memory that the next prompts take over, and what readers need falls out on the way.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mechtests.circuits.steps import Passed, mixed, over_all
from mechtests.models.blocks import Block
from mechtests.models.components import Norm


class Reads(NamedTuple):
    """Gradients at what a block's readers read.

    Attributes:
        q: At every query before its norm and rotary, ``[row, slot, head, head_width]``.
        k: At the key as every query head reads it, the same shape.
        v: At the value as every query head reads it, the same shape.
        mlp: At the residual stream as the MLP reads it, through its norm, ``[row, slot, width]``.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mlp: Tensor


def back(passed: Passed, gradient: Tensor) -> tuple[Tensor, Reads]:
    """From the gradient at the residual stream after a block to those at and before it.

    Args:
        passed: What the block kept.
        gradient: ``[row, slot, width]``.

    Returns:
        The gradient at the residual stream before the block, and those of its readers.
    """
    block = passed.block
    mlp = block.ln2.pullback(passed.mid, _before_mlp(passed, gradient))
    mid = gradient + mlp
    q, k, v = _before_attention(passed, gradient if block.parallel else mid)
    pre = mid.add_(block.ln1.pullback(passed.pre, _before_projections(block, q, k, v)))
    return pre, Reads(q, k, v, mlp)


def _before_mlp(passed: Passed, gradient: Tensor) -> Tensor:
    """At the MLP's normed input."""
    block = passed.block
    if block.mlp_post is not None:
        assert passed.written[1] is not None
        gradient = block.mlp_post.pullback(passed.written[1], gradient)
    neurons = gradient.flatten(0, 1) @ block.mlp_out.weight
    inner = [part.flatten(0, 1) for part in passed.inner]
    with torch.enable_grad():
        leaf = inner[-1].detach().requires_grad_()
        active = block.activation(leaf.view_as(leaf))  # FlopCounterMode takes no leaf here
    if block.mlp_gate is None:
        (at_neurons,) = torch.autograd.grad(active, leaf, neurons)
        return (at_neurons @ block.mlp_in.weight).view_as(gradient)
    x = (neurons * active.detach()) @ block.mlp_in.weight
    (at_gates,) = torch.autograd.grad(active, leaf, neurons.mul_(inner[0]))
    return torch.addmm(x, at_gates, block.mlp_gate.weight, out=x).view_as(gradient)


def _before_attention(passed: Passed, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """At q, k and v of every query head, before norms and rotary."""
    block, before = passed.block, passed.before
    if block.attention_post is not None:
        assert passed.written[0] is not None
        gradient = block.attention_post.pullback(passed.written[0], gradient)
    to_z = (gradient.flatten(0, 1) @ block.output.weight).view(
        *gradient.shape[:2], -1, block.head_width
    )
    q, k, v = passed.attended()
    rot_q = block.rotated_query(q, passed.where.positions)
    rot_k = block.rotated_key(k, passed.where.positions)
    own = passed.pattern[..., -gradient.shape[1] :]
    to_v = _to_keys(own, to_z)
    products = _before_softmax(passed, over_all(to_z, v, before.values), rot_q, rot_k)
    to_q = mixed(products, rot_k, before.keys)
    to_k = _to_keys(products[..., -gradient.shape[1] :], rot_q)
    if block.rotary is not None:
        cos, sin = block.rotary.table(passed.where.positions)
        to_q, to_k = (block.rotary.turned(part, cos, -sin) for part in (to_q, to_k))
    return _before_norm(block.query_norm, q, to_q), _before_norm(block.key_norm, k, to_k), to_v


def _before_softmax(passed: Passed, gradient: Tensor, rot_q: Tensor, rot_k: Tensor) -> Tensor:
    """At the products of queries and keys, from the gradient at the pattern."""
    block = passed.block
    wide = torch.promote_types(gradient.dtype, torch.float32)
    weighted = gradient.to(wide) * passed.pattern
    out = weighted.addcmul_(passed.pattern.to(wide), weighted.sum(-1, keepdim=True), value=-1)
    if block.softcap is not None:
        products = over_all(rot_q, rot_k, passed.before.keys).to(wide) * block.scale
        out *= 1 - torch.tanh(products / block.softcap).square()
    return out.mul_(block.scale).to(gradient.dtype)


def _to_keys(weights: Tensor, gradient: Tensor) -> Tensor:
    """What every slot got as a key or a value, ``[row, slot, head, head_width]``.

    Args:
        weights: Of the slots, ``[row, head, query slot, slot]``.
        gradient: At the queries, ``[row, query slot, head, head_width]``.
    """
    return (weights.transpose(2, 3) @ gradient.transpose(1, 2)).transpose(1, 2)


def _before_norm(norm: Norm | None, x: Tensor, gradient: Tensor) -> Tensor:
    """Through the norm of queries, or of keys that several query heads read."""
    if norm is None:
        return gradient
    by_group = gradient.view(*x.shape[:3], -1, x.shape[3])
    return norm.pullback(x.unsqueeze(3), by_group).flatten(2, 3)


def _before_projections(block: Block, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """At attention's normed input, ``[row, slot, width]``."""
    linears = (block.query, block.key, block.value)
    x = None
    for linear, part in zip(linears, (q, k, v), strict=True):
        heads = len(linear.weight) // block.head_width
        rows = _over_group(part, heads).flatten(0, 1).flatten(1)
        x = rows @ linear.weight if x is None else torch.addmm(x, rows, linear.weight, out=x)
    assert x is not None
    return x.view(*q.shape[:2], -1)


def _over_group(gradient: Tensor, heads: int) -> Tensor:
    """The sum over the query heads that read the same key or value."""
    if gradient.shape[2] == heads:
        return gradient
    return gradient.view(*gradient.shape[:2], heads, -1, gradient.shape[3]).sum(3)
