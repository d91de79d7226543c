"""Copy scores: does a head write the name it attends to?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mechtests.metrics.metric import Batch, Cost, Job, Metric, Value

if TYPE_CHECKING:
    from torch import Tensor

    from mechtests.models.network import Network

TOP = 5
NAMES = (("IO", "IO"), ("S1", "S"), ("S2", "S"))
SCREENS = (64, 512, 4096)
WHOLE_AT_ONCE = 128
PASSING = 0.02  # seen on SmolLM2, later screens included


def _copy_scores(batch: Batch) -> Mapping[str, Tensor]:
    import torch

    network, prompts = batch.network, batch.prompts

    def tensor(ids: object) -> Tensor:
        return torch.as_tensor(ids, device=network.device)

    rows = torch.arange(len(prompts), device=network.device)[:, None]
    at = torch.stack([tensor(prompts.positions[position]) for position, _ in NAMES], 1)
    names = torch.stack([tensor(prompts.tokens[token]) for _, token in NAMES], 1)
    absent = tensor(prompts.tokens["absent"])[:, None].expand_as(names)
    resid = batch.clean["resid_post", 0][rows, at]
    order = batch.generator("vocabulary").permutation(network.shape.vocabulary)
    screens = [tensor(order[:size]) for size in SCREENS if size < len(order)]
    shares: dict[str, list[Tensor]] = {"copied": [], "copied_absent": [], "negative": []}
    for layer in range(network.shape.layers):
        written = written_by_head(network, layer, resid)
        shares["copied"].append(_share(network, written, names, screens))
        shares["copied_absent"].append(_share(network, written, absent, screens))
        shares["negative"].append(_share(network, -written, names, screens))
    return {name: torch.stack(of_layers, 1) for name, of_layers in shares.items()}


def _share(network: Network, written: Tensor, tokens: Tensor, screens: list[Tensor]) -> Tensor:
    """The share of the three positions at which a token is in the top, ``[prompt, head]``."""
    of_heads = tokens[..., None].expand(written.shape[:-1])
    found = in_top(network, written.flatten(0, -2), of_heads.flatten(), screens)
    return found.view(of_heads.shape).float().mean(1)


def written_by_head(network: Network, layer: int, resid: Tensor) -> Tensor:
    """What each head would write if it attended to a residual stream alone, without b_O.

    Args:
        network: The network.
        layer: The heads' layer.
        resid: What is attended to, shape ``[..., width]``.

    Returns:
        Shape ``[..., head, width]``; behind a post-norm up to a positive factor.
    """
    import torch

    block, shape = network.blocks[layer], network.shape
    v = block.value(block.ln1(resid)).reshape(*resid.shape[:-1], -1, shape.head_width)
    z = v.repeat_interleave(shape.heads // shape.key_value_heads, -2)
    written = torch.einsum("...he,hed->...hd", z, block.W_O)
    return written if block.attention_post is None else written * block.attention_post.gain


def in_top(network: Network, resid: Tensor, tokens: Tensor, screens: list[Tensor]) -> Tensor:
    """Whether a token is among the five with the highest logits.

    Exact: a token that five rows of a screen beat is out, and only what passes every screen
    is held against the whole vocabulary.

    Args:
        network: The network.
        resid: Shape ``[item, width]``.
        tokens: One token id each, shape ``[item]``.
        screens: Some token ids each, smallest first.
    """
    import torch

    own = network.logits(resid, tokens=tokens[:, None])
    left = torch.arange(len(tokens), device=tokens.device)
    for screen in screens:
        logits = network.logits(resid[left][None], tokens=screen[None])[0]
        left = left[_beaten_by(logits, own[left], screen == tokens[left, None]) < TOP]
    found = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    vocabulary = torch.arange(network.shape.vocabulary, device=tokens.device)
    for start in range(0, len(left), WHOLE_AT_ONCE):
        chunk = left[start : start + WHOLE_AT_ONCE]
        itself = vocabulary == tokens[chunk, None]
        found[chunk] = _beaten_by(network.logits(resid[chunk]), own[chunk], itself) < TOP
    return found


def _beaten_by(logits: Tensor, own: Tensor, itself: Tensor) -> Tensor:
    """How many logits reach a token's own, shape ``[item]``, the token itself left out.

    A tie counts against the token: a head that writes nothing copies nothing.
    """
    return ((logits >= own) & ~itself).sum(-1)


def _cost(job: Job) -> Cost:
    """Three first screens of each head's output, and the whole vocabulary for a few of them."""
    if job.shape is None:
        return Cost(forward=2.0 * job.prompts)
    shape = job.shape
    outputs = len(NAMES) * job.prompts * shape.layers * shape.heads
    rows = shape.head_width + 3 * (SCREENS[0] + PASSING * shape.vocabulary)
    return Cost(flops=2.0 * outputs * shape.width * rows)


SHARE = Value(("prompt", "layer", "head"), "share")

copy_scores = Metric(
    name="copying.copy_scores",
    version=1,
    compute=_copy_scores,
    values={"copied": SHARE, "copied_absent": SHARE, "negative": SHARE},
    clean=("resid_post.0",),
    cost=_cost,
    needs=("position:IO", "position:S1", "position:S2", "tokens:absent"),
)
"""The share of the positions IO, S1 and S2 whose name a head would write, by head.

The residual stream after block 0 at the name is taken through the head's values and output
alone, and read through the final norm and the unembedding: ``copied`` where the name is then
among the five highest logits, ``copied_absent`` where a name is that the prompt does not have,
``negative`` where the name is among the five lowest (the output with the other sign).

Source: Tigges et al. 2024, Figure 2 and its code (``100 * hits / 3N``; here a share), which
multiplies weights with folded norms and takes no norm of the residual stream or of the output.
We run the weights as they are, through the head's own ln1 and the final norm. Without biases
that is the same: folding puts the norms' gains into the weights, centring is the norm's own
first step, and what is left of a norm is a positive factor for each token, which no order of
logits depends on. With biases (b_V, and those of the norms and the unembedding), the folded
product adds them to a vector of another length than the one the head really reads; ours has the
head's real proportion.
"""
