"""Succession scores: does a head write what follows the item it attends to?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mechtests.metrics.copying import Reading, normed, written_by_head
from mechtests.metrics.metric import Batch, Cost, Job, Metric, Value
from mechtests.tasks.succession import LISTS

if TYPE_CHECKING:
    from torch import Tensor

    from mechtests.models.network import Network


def _successor_scores(batch: Batch) -> Mapping[str, Tensor]:
    import torch

    network, prompts = batch.network, batch.prompts
    assert prompts.right is not None
    assert prompts.wrong is not None
    lists = np.concatenate((prompts.right, prompts.wrong), 1)
    union = np.unique(lists[lists >= 0])
    among = torch.as_tensor(union, device=network.device)
    listed = _places(lists, union).to(network.device)
    embedded = network.embed_tokens(torch.as_tensor(prompts.clean[:, 0], device=network.device))
    block = network.blocks[0]
    asked = {
        "succession": (block.mlp(block.ln2(embedded)), listed[:, 0]),
        "unnormed": (replace(block, mlp_post=None).mlp(embedded), listed[:, 0]),
    }
    shuffled = _places(prompts.tokens["shuffled"][:, None], union)[:, 0].to(network.device)
    found: dict[str, list[Tensor]] = {"succession": [], "shuffled": [], "unnormed": []}
    reading = Reading.of(network, among)
    for layer in range(network.shape.layers):
        for name, (item, successor) in asked.items():
            logits = _logits(network, layer, item, reading, raw=name == "unnormed")
            found[name].append(_highest(logits, successor, listed))
            if name == "succession":
                found["shuffled"].append(_highest(logits, shuffled, listed))
    return {name: torch.stack(layers, 1).float() for name, layers in found.items()}


def _places(tokens: np.ndarray, union: np.ndarray) -> Tensor:
    """Where each token is among the sorted ones, -1 where there is none."""
    import torch

    places = np.searchsorted(union, tokens.clip(min=int(union[0])))
    return torch.as_tensor(np.where(tokens >= 0, places, -1))


def _logits(network: Network, layer: int, item: Tensor, reading: Reading, *, raw: bool) -> Tensor:
    """What each head says of the listed tokens where it attends to an item.

    Shape ``[pair, head, token]``.

    Args:
        network: The network.
        layer: The heads' layer.
        item: What block 0's MLP makes of the item, shape ``[pair, width]``.
        reading: The unembedding of the listed tokens.
        raw: Whether to multiply the weights alone, without any norm or bias.
    """
    import torch

    if not raw:
        written = normed(network, written_by_head(network, layer, item))
        logits = written @ reading.weight.T
        return logits if reading.offset is None else logits + reading.offset
    block, shape = network.blocks[layer], network.shape
    values = torch.einsum("pd,hde->phe", item, block.W_V)
    values = values.repeat_interleave(shape.heads // shape.key_value_heads, 1)
    return torch.einsum("phe,hed->phd", values, block.W_O) @ reading.weight.T


def _highest(logits: Tensor, token: Tensor, listed: Tensor) -> Tensor:
    """Whether a token is above all others of its list, shape ``[pair, head]``; a tie is not.

    Args:
        logits: Shape ``[pair, head, token]``.
        token: The place of the token asked about, shape ``[pair]``.
        listed: The places of the list's tokens, -1 padded, shape ``[pair, item]``.
    """
    import torch

    pair = torch.arange(len(token), device=logits.device)
    own = logits[pair, :, token]
    others = torch.zeros(logits.shape[0], logits.shape[2], dtype=torch.bool, device=logits.device)
    row, item = torch.nonzero(listed >= 0, as_tuple=True)
    others[row, listed[row, item]] = True
    others[pair, token] = False
    best = logits.masked_fill(~others[:, None], float("-inf")).amax(-1)
    return own > best


def _cost(job: Job) -> Cost:
    """Block 0's MLP, each head's values and output, and the listed logits, of both forms.

    A list has an item more than pairs where it is no cycle. A final norm's bias is read by the
    whole vocabulary, once.
    """
    if job.shape is None:
        return Cost(forward=2.0 * job.prompts)
    shape = job.shape
    listed = job.prompts + len(LISTS)
    head = 2 * shape.head_width * shape.width + listed * shape.width
    mlp = 3 * shape.width * shape.mlp_width
    each = mlp + shape.layers * shape.heads * head
    return Cost(flops=2.0 * (2 * job.prompts * each + shape.vocabulary * shape.width))


SHARE = Value(("prompt", "layer", "head"), "share")

successor_scores = Metric(
    name="succession.successor_scores",
    version=1,
    compute=_successor_scores,
    values={"succession": SHARE, "shuffled": SHARE, "unnormed": SHARE},
    cost=_cost,
    needs=("answers", "tokens:shuffled"),
)
"""Whether a head that attends to an item of an ordered list writes the next one, by pair.

``succession``: 1 where the successor has the highest logit of its list, strictly, when what
block 0's MLP makes of the item's embedding is taken through the head's values and output alone
and read by the unembedding. ``shuffled``: the same for what follows the item in a shuffled
order of its list. ``unnormed``: the weights multiplied as they are, without any norm (the MLP's
own biases stay, those of values, norms and unembedding do not).

Source: Tigges et al. 2024, Figure 2 and its code (after Gould et al. 2023): ``MLP0(W_E) W_V W_O
W_U`` over all items of the list, here ``unnormed``. That gives MLP 0 an embedding without the
norm that the model itself puts before it, which for a small embedding is another function. The
score we judge takes block 0's norm of the MLP's input, the head's own ln1 and the final norm,
as the model does; the last two are, biases apart, a positive factor for each item beside gains
that folding puts into the weights, and no order of logits depends on such a factor. Learned
positions are not added, and attention of block 0 is left out, in both.
"""
