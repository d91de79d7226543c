"""Does the adapter reproduce this model? Asked of every network when it is loaded."""

from __future__ import annotations

import torch
from torch import Tensor

from mechtests.errors import SelfCheckError
from mechtests.models.activations import Activations
from mechtests.models.attention import Past
from mechtests.models.edges import attention_constant, gradients, reader_gradients, writers
from mechtests.models.network import Network

# Largest difference allowed, relative to the largest value compared.
TOLERANCE = {
    torch.float64: 1e-4,  # the plain models compute norms and attention in fp32 here too
    torch.float32: 1e-4,
    torch.float16: 2e-2,
    torch.bfloat16: 1e-1,
}
MEANING = {
    "logits": "the adapter's logits are not the plain model's: it computes something else",
    "writers": "the residual stream is not the embedding plus what heads and MLPs write, so "
    "nothing can be attributed to them",
    "gradients": "the gradient before a block is not the one after it plus those of what reads "
    "it, so edges cannot be scored",
    "end": "END run alone over cached keys and values is not END of the whole run, so patching "
    "at END would be wrong",
}
SITES = ("resid_pre", "q", "k", "v", "mlp_in", "resid_post")


def check(network: Network) -> dict[str, float]:
    """Check a network against the plain model it was made from, on two short prompts.

    Returns:
        The difference found by each check, relative to the largest value compared:
        ``logits``, ``writers``, ``gradients``, ``end``.

    Raises:
        SelfCheckError: The model gives NaN, or a check fails; which, by how much, and
            what that means.
    """
    tokens, plain = network.reference
    if not bool(torch.isfinite(plain).all()):
        raise SelfCheckError(
            f"{network.name}: the plain model's logits are NaN or infinite on random tokens; "
            f"its weights are damaged or overflow in {network.dtype}. Load them again, or in fp32"
        )
    last = torch.arange(len(tokens), device=network.device).neg() + tokens.shape[1] - 1
    mid = () if network.shape.parallel else ("resid_mid",)
    activations, gradient = gradients(
        network,
        tokens,
        lambda final: network.logits(final, tokens[:, :2]) @ final.new_tensor([1.0, -1.0]),
        (*SITES, *mid),
        last=last,
    )
    with torch.no_grad():
        run = network.run(tokens, keep=("z", "mlp_out", "rot_k", "v"), last=last)
        found = {
            "logits": _logits(network, activations, plain),
            "writers": _writers(network, tokens, run),
            "gradients": _gradients(network, activations, gradient),
            "end": _end(network, tokens, run),
        }
    for name, difference in found.items():
        if not difference <= TOLERANCE[network.dtype]:
            raise SelfCheckError(_message(network, name, difference))
    return found


def _message(network: Network, name: str, difference: float) -> str:
    return (
        f"{network.name}: the self-check {name!r} of {network.architecture} failed: off by "
        f"{difference:.1e} of the largest value, at most {TOLERANCE[network.dtype]:.0e} is "
        f"allowed in {network.dtype}. That means: {MEANING[name]}. Nothing is measured on "
        "it; compare the versions of transformers and transformer-lens with constraints.txt"
    )


def _relative(found: Tensor, expected: Tensor, *scales: Tensor) -> float:
    """The largest difference over the largest value; 0 where all is 0."""
    scale = max(float(part.abs().max()) for part in (found, expected, *scales))
    difference = float((found - expected).abs().max())
    return difference / scale if difference else 0.0


def _logits(network: Network, activations: Activations, plain: Tensor) -> float:
    last_layer = activations["resid_post", network.shape.layers - 1]
    return _relative(network.logits(last_layer), plain)


def _writers(network: Network, tokens: Tensor, run: Activations) -> float:
    total = network.embed(tokens)
    for layer in range(network.shape.layers):
        total = total + writers(network, run, layer).sum(2)
        total = total + attention_constant(network, run, layer) + run["mlp_out", layer]
    at = torch.arange(len(tokens), device=network.device)
    return _relative(total[at, run.last], run.final)


def _gradients(network: Network, activations: Activations, gradient: Activations) -> float:
    worst = 0.0
    for layer in range(network.shape.layers):
        read = reader_gradients(network, layer, activations, gradient)
        heads = sum(read[site].sum(2) for site in "qkv")
        total = gradient["resid_post", layer] + heads + read["mlp"]
        worst = max(worst, _relative(total, gradient["resid_pre", layer], *read.values()))
    return worst


def _end(network: Network, tokens: Tensor, run: Activations) -> float:
    at = torch.arange(len(tokens), device=network.device)
    resid = network.embed(tokens)[at, run.last][:, None]
    for layer in range(network.shape.layers):
        past = Past.from_activations(run, layer, run.last)
        resid = network.block_at_end(layer, resid, past)
    return _relative(resid[:, 0], run.final)
