"""Edges of the computation: what each part writes, and the gradient at what each part reads.

A part's contribution to the residual stream is z W_O for a head, and what it wrote for an
MLP. A part reads the residual stream through a norm and a projection, so the gradient at its
own copy of the stream is ``J_norm^T W g`` with g at its query, key, value or MLP input. Both
are exact on every architecture of the adapter, with grouped queries (every query head reads
its own copy of key and value) and post-norms, and need no hook inside the model.

The score of an edge is the product of a writer's difference and a reader's gradient (Hanna et
al. 2024, section 2); what an edge does is found exactly by ``reading``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mechtests.errors import UsageError
from mechtests.models.activations import END, Activations
from mechtests.models.components import Linear
from mechtests.models.network import Network
from mechtests.models.walk import Edits


class Reader(NamedTuple):
    """What reads the residual stream: a query head's q, k or v, or an MLP (head 0)."""

    layer: int
    kind: Literal["q", "k", "v", "mlp"]
    head: int = 0


def writers(network: Network, activations: Activations, layer: int) -> Tensor:
    """What each head writes to the residual stream, ``[prompt, position, head, width]``.

    A post-norm (Gemma) divides by a scale that all heads of the layer share; given that
    scale it is linear, and the scale is this run's own. A difference of two runs therefore
    includes the change of the scale.

    Args:
        network: The network.
        activations: Of a run that kept z at this layer.
        layer: The block.
    """
    z, block = activations["z", layer], network.blocks[layer]
    written = torch.einsum("pshe,hed->pshd", z, block.W_O)
    return written if block.attention_post is None else written * _post(network, z, layer)


def attention_constant(network: Network, activations: Activations, layer: int) -> Tensor:
    """What attention writes beside its heads, from its output bias: ``[..., width]``."""
    z, block = activations["z", layer], network.blocks[layer]
    if block.output.bias is None:
        return z.new_zeros(network.shape.width)
    if block.attention_post is None:
        return block.output.bias
    return block.output.bias * _post(network, z, layer)[:, :, 0]


def _post(network: Network, z: Tensor, layer: int) -> Tensor:
    """The factor of the layer's post-norm, shape ``[prompt, position, 1, width]``."""
    block = network.blocks[layer]
    assert block.attention_post is not None
    scale = block.attention_post.scale(block.output(z.flatten(-2)))
    return (block.attention_post.gain / scale).to(z.dtype).unsqueeze(-2)


def gradients(
    network: Network,
    tokens: Tensor,
    metric: Callable[[Tensor], Tensor],
    sites: Sequence[str],
    *,
    last: Tensor | None = None,
) -> tuple[Activations, Activations]:
    """Activations of a run and the gradients of a metric at them.

    Keys and values are computed once for every query head, so that ``k`` and ``v`` are
    ``[prompt, position, head, head_width]`` with grouped queries too.

    Args:
        network: The network.
        tokens: Token ids, shape ``[prompt, position]``.
        metric: From the final residual stream at END ``[prompt, width]`` to a number a
            prompt; prompts do not mix, so the gradient of the sum is each prompt's own.
        sites: Names as for ``Network.run``, at every position.
        last: END of each prompt; the last column unless said.

    Raises:
        UsageError: A site ends in ``@end``: what is computed from it is not there.
    """
    if ends := [site for site in sites if site.endswith(END)]:
        raise UsageError(f"gradients are taken at every position; ask for {ends} without {END}")
    spread = {
        (site, layer): lambda part: _every_head(network, part)
        for site in ("k", "v")
        for layer in range(network.shape.layers)
    }
    with torch.enable_grad():
        leaf = network.embed(tokens).detach().requires_grad_()
        run = network.run(tokens, keep=sites, edits=spread, resid=leaf, last=last)
        at = [*run.kept.values(), run.final]
        found = torch.autograd.grad(metric(run.final).sum(), at)
    kept = dict(zip(run.kept, found, strict=False))
    values = {name: value.detach() for name, value in run.kept.items()}
    return (
        Activations(values, run.final.detach(), run.last),
        Activations(kept, found[-1], run.last),
    )


def reader_gradients(
    network: Network, layer: int, activations: Activations, gradient: Activations
) -> dict[str, Tensor]:
    """Gradients at what each part of a block reads of the residual stream.

    Args:
        network: The network.
        layer: The block.
        activations: With ``resid_pre``, and ``resid_mid`` in sequential blocks.
        gradient: With ``q``, ``k``, ``v`` and ``mlp_in``, as ``gradients`` gives them.

    Returns:
        ``q``, ``k`` and ``v``, each ``[prompt, position, head, width]``, by query head;
        and ``mlp``, ``[prompt, position, width]``.
    """
    block = network.blocks[layer]
    pre = activations["resid_pre", layer]
    mid = pre if network.shape.parallel else activations["resid_mid", layer]
    found = {"mlp": block.ln2.pullback(mid, gradient["mlp_in", layer])}
    for site, weight in (("q", block.W_Q), ("k", block.W_K), ("v", block.W_V)):
        each = weight.repeat_interleave(network.shape.heads // len(weight), 0)
        projected = torch.einsum("pshe,hde->pshd", gradient[site, layer], each)
        found[site] = block.ln1.pullback(pre.unsqueeze(-2), projected)
    return found


def reading(network: Network, inputs: Mapping[Reader, Tensor]) -> Edits:
    """Edits under which some readers see another residual stream, and nothing else does.

    With the stream of a run plus a writer's difference, this patches one edge exactly.

    Args:
        network: The network.
        inputs: By reader, the stream it is to read instead, ``[prompt, position, width]``.

    Returns:
        Edits for ``Network.run``.
    """
    grouped: dict[tuple[str, int], dict[int, Tensor]] = {}
    for reader, resid in inputs.items():
        site = "mlp_in" if reader.kind == "mlp" else reader.kind
        grouped.setdefault((site, reader.layer), {})[reader.head] = resid
    return {at: _read(network, *at, streams) for at, streams in grouped.items()}


def _read(
    network: Network, site: str, layer: int, streams: Mapping[int, Tensor]
) -> Callable[[Tensor], Tensor]:
    block = network.blocks[layer]
    if site == "mlp_in":
        return lambda _: block.ln2(streams[0])
    linear = {"q": block.query, "k": block.key, "v": block.value}[site]
    group = network.shape.heads // (linear.weight.shape[0] // block.head_width)

    def edit(part: Tensor) -> Tensor:
        part = _every_head(network, part).clone()
        for head, resid in streams.items():
            part[:, :, head] = _one_head(linear, block.ln1(resid), head // group, block.head_width)
        return part

    return edit


def _every_head(network: Network, part: Tensor) -> Tensor:
    """Keys or values ``[prompt, position, key_value_head, ...]``, a copy a query head."""
    return part.repeat_interleave(network.shape.heads // part.shape[2], 2)


def _one_head(linear: Linear, x: Tensor, head: int, width: int) -> Tensor:
    rows = slice(head * width, (head + 1) * width)
    bias = None if linear.bias is None else linear.bias[rows]
    return functional.linear(x, linear.weight[rows], bias)
