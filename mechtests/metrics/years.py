"""How greater-than is done: heads that find the year and write it, MLPs that raise later years."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mechtests.metrics.copying import normed
from mechtests.metrics.metric import Batch, Cost, Job, Metric, Value

if TYPE_CHECKING:
    from torch import Tensor

    from mechtests.models.network import Network

YEARS = 100


def _year_reading(batch: Batch) -> Mapping[str, Tensor]:
    import torch

    network, prompts, clean = batch.network, batch.prompts, batch.clean
    assert prompts.right is not None
    assert prompts.wrong is not None
    right, wrong = (
        torch.as_tensor(ids, device=network.device) for ids in (prompts.right, prompts.wrong)
    )
    own = torch.as_tensor(prompts.tokens["YY"], device=network.device)
    named = torch.stack((own, right[:, 0]), 1)
    year = torch.as_tensor(prompts.positions["YY"], device=network.device)
    pattern = clean.stack("pattern@end")
    at = year[:, None, None, None].expand(*pattern.shape[:3], 1)
    layers = range(network.shape.layers)
    written = (_written(network, layer, clean["z@end", layer]) for layer in layers)
    names = [_highest(network, each, right, wrong, named) for each in written]
    scale = network.final_norm.scale(clean.final)
    raised = [_raised(network, clean["mlp_out@end", each], scale, right, wrong) for each in layers]
    return {
        "looks": (pattern.argmax(-1) == year[:, None, None]).float(),
        "attention": pattern.gather(-1, at)[..., 0].float(),
        "names": torch.stack(names, 1).float(),
        "raised": torch.stack(raised, 1),
    }


def _written(network: Network, layer: int, z: Tensor) -> Tensor:
    """What each head writes, ``[prompt, head, width]``; behind a post-norm up to a factor."""
    import torch

    block = network.blocks[layer]
    written = torch.einsum("phe,hed->phd", z, block.W_O)
    return written if block.attention_post is None else written * block.attention_post.gain


def _logits(network: Network, read: Tensor, ids: Tensor) -> Tensor:
    """What something alone adds to the logits of some tokens: no bias, no softcap.

    Args:
        network: The network.
        read: What the unembedding reads of it, shape ``[prompt, ..., width]``.
        ids: Shape ``[prompt, token]``, -1 padded.
    """
    import torch

    rows = network.unembedding.weight[ids.clamp(min=0)].to(read)
    return torch.einsum("p...d,ptd->p...t", read, rows)


def _highest(
    network: Network, written: Tensor, right: Tensor, wrong: Tensor, named: Tensor
) -> Tensor:
    """Whether one of two years is above all others, strictly, shape ``[prompt, head]``.

    Args:
        network: The network.
        written: By each head, shape ``[prompt, head, width]``.
        right: Tokens of the later years, -1 padded, shape ``[prompt, year]``.
        wrong: Of all others.
        named: Of the two, shape ``[prompt, 2]``.
    """
    import torch

    read, ids = normed(network, written), torch.cat((right, wrong), 1)
    logits = _logits(network, read, ids)
    other = (ids >= 0) & (ids[:, :, None] != named[:, None, :]).all(-1)
    best = logits.masked_fill(~other[:, None], float("-inf")).amax(-1)
    own = _logits(network, read, named).masked_fill((named < 0)[:, None], float("-inf")).amax(-1)
    return own > best


def _raised(
    network: Network, mlp_out: Tensor, scale: Tensor, right: Tensor, wrong: Tensor
) -> Tensor:
    """What an MLP adds to the mean logit of right answers over that of wrong ones, ``[prompt]``.

    Args:
        network: The network.
        mlp_out: At END, shape ``[prompt, width]``.
        scale: The final norm's of the clean run, shape ``[prompt, 1]``.
        right: Token ids, -1 padded, shape ``[prompt, answer]``.
        wrong: The others.
    """
    read = normed(network, mlp_out).float() * network.final_norm.scale(mlp_out) / scale
    for_, against = (
        (_logits(network, read, ids) * (ids >= 0)).sum(-1) / (ids >= 0).sum(-1)
        for ids in (right, wrong)
    )
    return for_ - against


def _cost(job: Job) -> Cost:
    """Each head's output, and what the years' rows of the unembedding read of heads and MLPs."""
    if job.shape is None:
        return Cost(forward=1.0 * job.prompts)
    shape = job.shape
    heads = shape.heads * shape.width * (shape.head_width + YEARS)
    return Cost(flops=2.0 * job.prompts * shape.layers * (heads + shape.width * YEARS))


HEADS, SHARE = ("prompt", "layer", "head"), "share"

year_reading = Metric(
    name="years.year_reading",
    version=1,
    compute=_year_reading,
    values={
        "looks": Value(HEADS, SHARE),
        "attention": Value(HEADS, "attention"),
        "names": Value(HEADS, SHARE),
        "raised": Value(("prompt", "layer"), "logits"),
    },
    clean=("pattern@end", "z@end", "mlp_out@end", "final"),
    cost=_cost,
    needs=("answers", "position:YY", "tokens:YY"),
)
"""What heads do with the year of a greater-than prompt, and what MLPs make of it, on the clean run.

``looks``: 1 where the head's largest attention from END is to YY; ``attention``: how much of it
is. ``names``: 1 where of all two-digit years YY, or the one after it, has the highest logit when
what the head writes at END is read by the unembedding alone. ``raised``: the mean logit of later
years minus that of the others in what the MLP writes at END, in the scale of the clean run's final
norm, so that these are parts of the logit difference.

Source: Tigges et al. 2024, section 4 and its code that verifies greater-than, for the heads of the
circuit that write to its MLPs that write to the logits. Its code takes position -7 for YY, which
fits one length of the prompts; we know where YY is. Biases, the same for all prompts, are left out.
"""
