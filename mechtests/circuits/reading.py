"""The gradient at every reader's own copy of the residual stream, summed over alternatives.

A head's query reads the stream x through a norm and its rows W of a projection. With
n = (x - mean) / scale and w the norm's gain, and g the gradient at the query, that at its copy is

    J^T W^T g = W' (g / scale) - n (W n_w . g) / (width scale),    W' = w * W^T,

where W n_w is the query itself without biases (n_w = w * n) and a layer norm's W' has its mean
over width taken out. So the sum over alternatives is that of the small g / scale, projected back
once, less one outer product each. This is exact, eps included, for every norm of the adapter;
``models.edges.reader_gradients`` is the same one alternative at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mechtests.circuits.back import Reads
from mechtests.circuits.steps import Passed
from mechtests.models.blocks import Block
from mechtests.models.components import Linear, Norm


def read_block(passed: Passed, reads: Reads, prompts: int, out: Tensor) -> None:
    """Write the summed gradients at what a block's readers read.

    Args:
        passed: What the block computed, rows being the alternatives of each prompt.
        reads: The gradients at what it read.
        prompts: How many prompts the rows are of.
        out: Shape ``[reader, prompt * slot, width]``; readers are q of all heads, k, v, the MLP.
    """
    block, heads = passed.block, reads.q.shape[2]
    scale = block.ln1.scale(passed.pre).to(out.dtype)
    normalized = _normalized(block.ln1, passed.pre, scale)
    shrinks = []
    linears = (block.query, block.key, block.value)
    for place, (linear, projected, gradient) in enumerate(
        zip(linears, passed.projections, reads[:3], strict=True)
    ):
        small = gradient.to(out.dtype) / scale.unsqueeze(-1)
        shrinks.append(_dot(small, projected.to(out.dtype)))
        total = _over_alternatives(small, prompts)
        _project_back(block, linear, total, out[place * heads : (place + 1) * heads])
    _shrink(out[: 3 * heads], torch.cat(shrinks, -1), normalized, prompts)
    mlp = reads.mlp.view(-1, prompts, *reads.mlp.shape[1:])
    torch.sum(mlp, 0, out=out[-1].view(prompts, *mlp.shape[2:]))


def _normalized(norm: Norm, x: Tensor, scale: Tensor) -> Tensor:
    wide = x.to(scale.dtype)
    return (wide - wide.mean(-1, keepdim=True) if norm.centred else wide) / scale


def _dot(gradient: Tensor, projected: Tensor) -> Tensor:
    """Products of every query head's gradient with its projection, ``[row, slot, head]``."""
    row, slot, groups, width = projected.shape
    grouped = gradient.view(row, slot, groups, -1, width) * projected.unsqueeze(3)
    return grouped.sum(-1).flatten(2)


def _over_alternatives(rows: Tensor, prompts: int) -> Tensor:
    """The sum over each prompt's rows, heads first: ``[head, prompt * slot, head_width]``."""
    total = rows.view(-1, prompts, *rows.shape[1:]).sum(0)
    return total.flatten(0, 1).transpose(0, 1).contiguous()


def _project_back(block: Block, linear: Linear, total: Tensor, out: Tensor) -> None:
    """``W'`` of each head: from ``[head, token, head_width]`` into ``[head, token, width]``."""
    weight = linear.weight.to(out.dtype) * block.ln1.gain.to(out.dtype)
    if block.ln1.centred:
        weight = weight - weight.mean(-1, keepdim=True)
    weight = weight.view(-1, block.head_width, weight.shape[-1])
    grouped = total.view(len(weight), -1, block.head_width)
    torch.bmm(grouped, weight, out=out.view(len(weight), -1, out.shape[-1]))


def _shrink(out: Tensor, dots: Tensor, normalized: Tensor, prompts: int) -> None:
    """Take off the outer products, summed over alternatives.

    Args:
        out: Shape ``[reader, prompt * slot, width]``.
        dots: Shape ``[row, slot, reader]``, divided by the scale.
        normalized: Shape ``[row, slot, width]``.
        prompts: How many prompts the rows are of.
    """
    by_token = [
        part.view(-1, prompts * part.shape[1], part.shape[2]).transpose(0, 1)
        for part in (dots / normalized.shape[-1], normalized)
    ]
    tokens = out.transpose(0, 1)
    torch.baddbmm(tokens, by_token[0].transpose(1, 2), by_token[1], alpha=-1, out=tokens)
