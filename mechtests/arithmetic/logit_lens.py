"""What neurons write, read through the unembedding: the logit lens of value vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mechtests.errors import UsageError

if TYPE_CHECKING:
    from mechtests.models.network import Network

Floats = NDArray[np.floating[Any]]


def value_logits(
    network: Network, layer: int, neurons: Sequence[int], tokens: Sequence[int]
) -> NDArray[np.float32]:
    """What a unit of each neuron's activation adds to the logits of some tokens.

    The neuron's value vector times the final norm's gain times the unembedding, both centred
    as the model has them: a layer norm's input over the width, the logits over the whole
    vocabulary. No norm divides, no bias is added, and a softcap of the logits is left out;
    where a post-norm follows the MLP (Gemma), its gain is taken and its division too is left out.

    Source: Nikankin et al. 2025, page 6, by the weights that its code folds.

    Args:
        network: The network.
        layer: The neurons' layer.
        neurons: Their numbers.
        tokens: Token ids, such as those of the results.

    Returns:
        Shape ``[token, neuron]``.
    """
    import torch

    block, norm = network.blocks[layer], network.final_norm
    values = block.mlp_out.weight[:, torch.as_tensor(neurons)].float()
    if block.mlp_post is not None:
        values = block.mlp_post.gain.float()[:, None] * values
    if norm.centred:
        values = values - values.mean(0)
    weight = network.unembedding.weight
    rows = weight[torch.as_tensor(tokens)].float() - weight.mean(0, dtype=torch.float32)
    found: NDArray[np.float32] = ((rows * norm.gain.float()) @ values).cpu().numpy()
    return found


def lens_auc(lens: Floats, inside: Floats, total: Floats | None = None) -> Floats:
    """How surely a neuron's logits are higher for results inside a class than outside.

    The chance that a result drawn inside has a higher logit than one drawn outside, ties a
    half: 0.5 of a value vector that has nothing to do with the class. Every class against
    every neuron is one matrix product, so that value vectors permuted among neurons are
    other cells of the same table.

    Args:
        lens: Logits, shape ``[result, neuron]``.
        inside: How often each result is inside each class, shape ``[class, result]``: 0 or
            1, or the number of pairs with that result for which a heuristic holds
            (``libraries.pairs_inside``), so that an indirect heuristic too has an inside.
        total: How often each result is there at all, shape ``[result]``; once unless said.

    Returns:
        Shape ``[class, neuron]``; NaN for a class with nothing inside, or nothing outside.

    Raises:
        UsageError: A class has more inside than there is.
    """
    weights = np.ones(len(lens)) if total is None else np.asarray(total, np.float64)
    held = np.asarray(inside, np.float64)
    if np.any(held > weights) or np.any(held < 0):
        raise UsageError("a class has more of a result inside than there is of it; check total")
    inner = held.sum(1, keepdims=True)
    outer = weights.sum() - inner
    below = np.stack([_weight_below(column, weights) for column in lens.T], 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        # all that is below, less what of it is inside: each pair of two inside counts once
        auc: Floats = (held @ below - inner**2 / 2) / np.where(outer > 0, inner * outer, 0.0)
    return auc


def _weight_below(values: Floats, weights: Floats) -> Floats:
    """The weight of what is below each value, and half of what equals it."""
    _, place = np.unique(values, return_inverse=True)
    at = np.bincount(place, weights)
    return (at.cumsum() - at / 2)[place]
