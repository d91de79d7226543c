"""What the edges outside a circuit carry: corrupted, mean or zero activations.

All of it is held from the first position at which a circuit can differ from it on: a corrupted
run agrees with the clean one before their first different token, in every circuit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mechtests.errors import UsageError
from mechtests.models.activations import Activations
from mechtests.models.attention import Prefix
from mechtests.models.edges import writers
from mechtests.models.network import Network


@dataclass(frozen=True, eq=False)
class Layer:
    """One block of what the other edges carry; positions count from the first that can differ.

    Attributes:
        resid_pre: What heads read, ``[prompt, position, width]``.
        resid_mid: What the MLP reads, the same shape; ``resid_pre`` in a parallel block.
        z: ``[prompt, position, head, head_width]``.
        written: What heads write, ``[prompt, position, head, width]``, where a post-norm makes
            it more than z W_O; else None.
        mlp_out: ``[prompt, position, width]``.
        rot_q: The query of what heads read, ``[prompt, position, head, head_width]``.
        rot_k: The key, with those of the positions before: ``[prompt, shared + position,
            key_value_head, head_width]``.
        v: The value, the same shape.
    """

    resid_pre: Tensor
    resid_mid: Tensor
    z: Tensor
    written: Tensor | None
    mlp_out: Tensor
    rot_q: Tensor
    rot_k: Tensor
    v: Tensor


@dataclass(frozen=True, eq=False)
class Others:
    """What the other edges carry, of some prompts on a network.

    Attributes:
        shared: How many first positions every circuit has in common with it.
        embedded: ``[prompt, position, width]``, positions from there on.
        layers: Of each block.
        final: The residual stream at END, ``[prompt, width]``: what the empty circuit gives.
        end: END of each prompt, counted from the first position that can differ, ``[prompt]``.
    """

    shared: int
    embedded: Tensor
    layers: tuple[Layer, ...]
    final: Tensor
    end: Tensor

    @property
    def prefix(self) -> Prefix:
        """Keys and values of the shared positions, for a run of the rest alone."""
        kept = {
            (site, layer): getattr(each, site)[:, : self.shared]
            for layer, each in enumerate(self.layers)
            for site in ("rot_k", "v")
        }
        return Prefix(Activations(kept, self.final, self.end), self.shared)


def corrupted(
    network: Network,
    clean: Tensor,
    tokens: Tensor,
    *,
    last: Tensor | None = None,
    share: bool = True,
) -> Others:
    """The activations of the corrupted prompts, each prompt's own.

    Args:
        network: The network.
        clean: Clean token ids, ``[prompt, position]``.
        tokens: Corrupted token ids, aligned with them.
        last: END of each prompt, ``[prompt]``; the last column unless said.
        share: Leave out the first positions at which all prompts agree with their
            corrupted variant; without it they are computed, to the same values.

    Raises:
        UsageError: The token ids have different shapes, or circuits of the network are not
            defined.
    """
    _check(network)
    if clean.shape != tokens.shape:
        raise UsageError(
            "corrupted prompts are aligned with the clean ones, got token ids of the shapes "
            f"{tuple(tokens.shape)} and {tuple(clean.shape)}"
        )
    last = _last(tokens, last)
    shared = _shared(clean, tokens, last) if share else 0
    sites = ["resid_pre", "z", "mlp_out", "rot_q", "rot_k", "v"]
    sites += [] if network.shape.parallel else ["resid_mid"]
    run = network.run(tokens, keep=sites, last=last)
    layers = []
    for layer, block in enumerate(network.blocks):
        after = {
            site: run[site, layer] if site in ("rot_k", "v") else run[site, layer][:, shared:]
            for site in sites
        }
        after.setdefault("resid_mid", after["resid_pre"])
        written = None if block.attention_post is None else writers(network, run, layer)[:, shared:]
        layers.append(Layer(**after, written=written))
    embedded = run["resid_pre", 0][:, shared:]
    return Others(shared, embedded, tuple(layers), run.final, last.to(network.device) - shared)


def mean(
    network: Network,
    clean: Tensor,
    tokens: Tensor,
    *,
    last: Tensor | None = None,
    tokens_last: Tensor | None = None,
) -> Others:
    """The mean of every activation over some prompts, at each position.

    A reader that no edge of the circuit reaches reads the mean residual stream. Under a
    post-norm, what a head writes is the mean of what it wrote behind the norm, and a head that
    is not computed has its mean z in the norm's scale.

    Args:
        network: The network.
        clean: Clean token ids, ``[prompt, position]``.
        tokens: Prompts to take the means of, ``[any, position]``.
        last: END of each clean prompt, ``[prompt]``; the last column unless said.
        tokens_last: END of each of the other prompts; later positions are in no mean.

    Raises:
        UsageError: A position of the prompts is in none of the others, or circuits of the
            network are not defined.
    """
    _check(network)
    last, until = _last(clean, last), _last(tokens, tokens_last)
    position = int(last.max()) + 1
    if (longest := int(until.max()) + 1) < position:
        raise UsageError(
            f"means at {position} positions are needed, and the longest of the prompts to take "
            f"them of has {longest}; give prompts as long"
        )
    after = network.shape.layers - 1
    sites = ["resid_pre", "z", "mlp_out", f"resid_post.{after}"]
    sites += [] if network.shape.parallel else ["resid_mid"]
    run = network.run(tokens, keep=sites, last=until)
    there = torch.arange(position)[None] <= until[:, None]
    weight = (there / there.sum(0)).to(run.final)

    def of(value: Tensor) -> Tensor:
        averaged = torch.einsum("ps...,ps->s...", value[:, :position], weight)
        return averaged.expand(len(clean), *averaged.shape)

    layers = []
    for layer, block in enumerate(network.blocks):
        pre = of(run["resid_pre", layer])
        mid = pre if network.shape.parallel else of(run["resid_mid", layer])
        written = None if block.attention_post is None else of(writers(network, run, layer))
        z, mlp_out = of(run["z", layer]), of(run["mlp_out", layer])
        layers.append(_layer(network, layer, (pre, mid), z, written, mlp_out))
    embedded = of(run["resid_pre", 0])
    last = last.to(network.device)
    final = of(run["resid_post", after])[torch.arange(len(last), device=last.device), last]
    return Others(0, embedded, tuple(layers), final, last)


def zero(network: Network, clean: Tensor, *, last: Tensor | None = None) -> Others:
    """Nothing: the embedding, every head and every MLP write 0.

    An MLP's biases are what it writes; the bias of an attention output belongs to no head and
    stays.

    Args:
        network: The network.
        clean: Clean token ids, ``[prompt, position]``.
        last: END of each prompt, ``[prompt]``; the last column unless said.

    Raises:
        UsageError: Circuits of the network are not defined.
    """
    _check(network)
    shape = network.shape
    last = _last(clean, last)
    size = (len(clean), int(last.max()) + 1)
    weight = network.unembedding.weight
    nothing = weight.new_zeros(*size, shape.width)
    z = weight.new_zeros(*size, shape.heads, shape.head_width)
    pre, layers = nothing, []
    for layer, block in enumerate(network.blocks):
        bias = block.output.bias
        after = pre if bias is None else pre + bias
        written = None
        if block.attention_post is not None:
            written = weight.new_zeros(1, 1, 1, 1).expand(*size, shape.heads, shape.width)
        mid = pre if shape.parallel else after
        layers.append(_layer(network, layer, (pre, mid), z, written, nothing))
        pre = after
    return Others(0, nothing, tuple(layers), pre[:, 0], last.to(network.device))


def _layer(
    network: Network,
    layer: int,
    resid: tuple[Tensor, Tensor],
    z: Tensor,
    written: Tensor | None,
    mlp_out: Tensor,
) -> Layer:
    """A block whose queries, keys and values are those of the streams."""
    pre, mid = resid
    positions = torch.arange(pre.shape[1], device=pre.device)
    x = network.attention_input(layer, pre)
    _, _, v, rot_q, rot_k = network.queries_keys_values(layer, x, positions)
    return Layer(pre, mid, z, written, mlp_out, rot_q, rot_k, v)


def _check(network: Network) -> None:
    """Refuse what has no writers that add up.

    Raises:
        UsageError: A post-norm scales the bias of an attention output by what heads write.
    """
    if any(b.attention_post is not None and b.output.bias is not None for b in network.blocks):
        raise UsageError(
            f"{network.name} has a norm behind attention outputs with a bias, whose share of the "
            "residual stream changes with the heads and belongs to none of them; circuits of "
            "such a network are not defined"
        )


def _last(tokens: Tensor, last: Tensor | None) -> Tensor:
    return torch.full((len(tokens),), tokens.shape[1] - 1) if last is None else last.cpu()


def _shared(clean: Tensor, tokens: Tensor, last: Tensor) -> int:
    """How many first positions all prompts have in common with their variants; END is run."""
    differs = (clean != tokens).any(0)
    first = int(differs.int().argmax()) if bool(differs.any()) else clean.shape[1]
    return min(first, int(last.min()))
