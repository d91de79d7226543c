"""Direct effects: what each head tells the logits itself, not through other heads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mechtests.metrics.behaviour import logit_difference
from mechtests.metrics.metric import Batch, Cost, Job, Metric, Value

if TYPE_CHECKING:
    from torch import Tensor

    from mechtests.models.activations import Activations
    from mechtests.models.shape import Shape

WORKING_BYTES = 64_000_000


def prompts_at_once(shape: Shape, branches: int, itemsize: int = 4) -> int:
    """How many prompts with so many alternatives of END keep the working memory small."""
    numbers = branches * (6 * shape.width + 3 * shape.mlp_width)
    return max(1, WORKING_BYTES // (itemsize * numbers))


def _direct_effects(batch: Batch) -> Mapping[str, Tensor]:
    import torch

    network, prompts = batch.network, batch.prompts
    shape = network.shape
    clean = logit_difference(network, batch.clean.final, prompts)
    most = prompts_at_once(shape, shape.layers * shape.heads)
    patched = []
    for start in range(0, len(prompts), most):
        rows = torch.arange(start, min(start + most, len(prompts)))
        paths = frozen_paths(batch, rows, shape.layers, mlps=bool(batch.params["mlps"]))
        ends = deque(paths, maxlen=1).pop()
        patched.append(logit_difference(network, ends[:, 1:], prompts.select(rows.numpy())))
    effect = clean[:, None] - torch.cat(patched)
    return {
        "direct_effect": effect.view(len(prompts), shape.layers, shape.heads),
        "clean": clean,
        "corrupted": logit_difference(network, batch.corrupted.final, prompts),
    }


def frozen_paths(
    batch: Batch, rows: Tensor, stop: int, *, at: Tensor | None = None, mlps: bool = True
) -> Iterator[Tensor]:
    """The residual stream at one position before each layer, one head's z corrupted in a branch.

    A branch for every head of every layer starts where its head writes, behind a first one
    that is the clean run. From there on it keeps the clean run's attention outputs and
    recomputes MLPs, which is the direct path from the head to whatever reads the stream. As
    attention is frozen, a position hears nothing of what happens at another.

    Args:
        batch: With ``resid_pre``, ``z``, ``attn_out`` of the clean run and ``z`` of the corrupted
            one; of those ``@end`` alone is read where ``at`` is None.
        rows: Which prompts of the batch, shape ``[row]``.
        stop: The last layer to stand before; behind all layers where it is their number.
        at: A position for each row, shape ``[row]``; a prompt may come once for each of its
            positions. END unless said.
        mlps: Whether MLPs are recomputed; else they write what they write in the clean run.

    Yields:
        Before layer 0, 1, ... ``stop``: shape ``[row, 1 + layer * head, width]``.
    """
    import torch

    def read(run: Activations, site: str, layer: int) -> Tensor:
        return run[f"{site}@end", layer][rows] if at is None else run[site, layer][rows, at]

    network, clean = batch.network, batch.clean
    branches = read(clean, "resid_pre", 0)[:, None]
    yield branches
    for layer in range(stop):
        z, other = read(clean, "z", layer), read(batch.corrupted, "z", layer)
        written = network.attention_out(layer, one_head_of(z, other))
        frozen = read(clean, "attn_out", layer)[:, None]
        if mlps:
            frozen = frozen.expand(-1, branches.shape[1], -1)
            fresh = read(clean, "resid_pre", layer)[:, None].expand_as(written)
            branches = network.after_attention(
                layer, torch.cat((branches, fresh), 1), torch.cat((frozen, written), 1)
            )
        else:
            after = network.after_attention(layer, branches[:, :1], frozen)
            apart = torch.cat((branches - branches[:, :1], written - frozen), 1)
            branches = after + apart
        yield branches


def one_head_of(z: Tensor, other: Tensor) -> Tensor:
    """Take one head's z from another run, each head in turn: ``[prompt, branch, head, ...]``."""
    import torch

    this = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)[:, :, None]
    return torch.where(this, other[:, None], z[:, None])


def _effects_cost(job: Job) -> Cost:
    """MLPs at END: of layer l for the heads of the layers up to l."""
    if job.shape is None:
        return Cost(forward=8.0 * job.prompts)
    shape = job.shape
    attention = 2 * shape.width * shape.head_width * (shape.heads + shape.key_value_heads)
    mlp = shape.block_parameters // shape.layers - attention
    branch_layers = shape.heads * shape.layers * (shape.layers + 1) / 2
    outputs = shape.layers * shape.heads * (shape.heads * shape.head_width * shape.width)
    return Cost(flops=2.0 * job.prompts * (branch_layers * mlp + outputs))


direct_effects = Metric(
    name="effects.direct_effects",
    version=1,
    compute=_direct_effects,
    values={
        "direct_effect": Value(("prompt", "layer", "head"), "logits"),
        "clean": Value(("prompt",), "logits"),
        "corrupted": Value(("prompt",), "logits"),
    },
    clean=("resid_pre@end", "z@end", "attn_out@end", "final"),
    corrupted=("z@end", "final"),
    cost=_effects_cost,
    needs=("answers",),
    params={"mlps": True},
)
"""The direct effect of every head on the logit difference, by path patching, on any task.

``direct_effect``: the clean logit difference minus the one with the head's z at END taken
from the corrupted run, all other heads' z kept clean and MLPs recomputed; positive where the
head supports the right answer. With ``mlps=False`` MLPs write what they write in the clean run:
then only the head's own write to the stream reaches the logits. ``clean`` and ``corrupted``: the
logit differences of the two runs.

Source: Tigges et al. 2024, Figure 4 and its code (path patching to the last residual stream,
with MLPs on the direct path), which gives ``e = (patched - clean) / (clean - corrupted)``: our
effect is -e times that span. It patches the head at all positions; where all attention is frozen
nothing but END's own residual stream reaches END's logits, so that END alone gives the same.

The unit is the logit difference on every task (mean over the right answers minus mean over the
wrong ones where there are several), also where the behaviour is judged by a probability
difference, as the paper plots it for greater-than and agreement. A logit difference is linear in
what the final norm gives, without a denominator: an effect does not shrink because the model is
sure already. A probability needs the whole vocabulary in every branch, about as much work again as
the pass itself (0.7 times its operations on SmolLM2, 1.2 times on Pythia-160m).
"""


def _mean_z(batch: Batch) -> Mapping[str, Tensor]:
    return {"z": batch.clean.stack("z@end").float().mean(0)}


mean_z = Metric(
    name="effects.mean_z",
    version=1,
    compute=_mean_z,
    values={"z": Value(("layer", "head", "head_width"), "activation")},
    clean=("z@end",),
)
"""The mean of every head's z at END over all prompts: what mean ablation puts in its place."""
