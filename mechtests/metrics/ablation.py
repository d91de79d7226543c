"""Ablation: what the answer loses without the name movers, or without as many random heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mechtests.matched import STRATA, Draws, matched_draws
from mechtests.measurement import HALVES, Half, Head
from mechtests.metrics import roles
from mechtests.metrics.behaviour import logit_difference
from mechtests.metrics.effects import prompts_at_once
from mechtests.metrics.metric import Batch, Cost, Job, Metric, Value

if TYPE_CHECKING:
    from torch import Tensor

    from mechtests.models.activations import Activations
    from mechtests.models.shape import Shape

RESAMPLE, MEAN, ZERO = range(3)
OBSERVED = (RESAMPLE, MEAN, ZERO)


@dataclass(frozen=True)
class Sets:
    """The sets of heads that are ablated on the prompts of one half."""

    chosen: list[Head]
    ceiling: list[Head]
    random: Draws

    @property
    def branches(self) -> list[tuple[Sequence[Head], int]]:
        """Each set with how it is ablated: the chosen three ways, the ceiling, the draws."""
        observed = [(self.chosen, kind) for kind in OBSERVED]
        return [*observed, (self.ceiling, RESAMPLE), *((s, RESAMPLE) for s in self.random.sets)]


def sets_for(batch: Batch, half: Half) -> Sets:
    """The name movers that the *other* half chose, their ceiling, and matched random sets."""
    other = HALVES[1 - HALVES.index(half)]
    effects, shape = batch.inputs["effects"], batch.network.shape
    chosen = roles.name_movers(batch.inputs["copying"], effects, other)
    whole = {layer: range(shape.heads) for layer in range(shape.layers)}
    generator = batch.generator(f"random heads on {half}")
    return Sets(
        chosen,
        roles.strongest(effects, other, len(chosen)),
        matched_draws(chosen, whole, batch.draws, generator),
    )


def _ablate_heads(batch: Batch) -> Mapping[str, Tensor]:
    import torch

    sets = [sets_for(batch, half) for half in HALVES]
    count, observed = len(batch.prompts), len(OBSERVED)
    drops = torch.zeros(count, observed + 1 + batch.draws, device=batch.network.device)
    for index, mine in enumerate(sets):
        rows = torch.as_tensor(np.flatnonzero(batch.prompts.half == index))
        most = prompts_at_once(batch.network.shape, len(mine.branches))
        again = torch.arange(batch.draws) % len(mine.random.sets)
        for start in range(0, len(rows), most):
            part = rows[start : start + most]
            found = drops_of(batch, part, mine.branches)
            drops[part, : observed + 1] = found[:, : observed + 1]
            drops[part, observed + 1 :] = found[:, observed + 1 + again]
    return {
        "drop": drops[:, RESAMPLE],
        "drop_mean": drops[:, MEAN],
        "drop_zero": drops[:, ZERO],
        "drop_ceiling": drops[:, observed],
        "drop_random": drops[:, observed + 1 :],
        **_facts(batch, sets),
    }


def _facts(batch: Batch, sets: Sequence[Sets]) -> Mapping[str, Tensor]:
    """What the sets of each half were, the same in every batch."""
    import torch

    shape = batch.network.shape
    ablated = torch.zeros(len(sets), shape.layers, shape.heads)
    for index, mine in enumerate(sets):
        for head in mine.chosen:
            ablated[index][head] = 1.0
    return {
        "ablated": ablated,
        "draws": torch.tensor([float(len(mine.random.sets)) for mine in sets]),
        "enumerated": torch.tensor([float(mine.random.enumerated) for mine in sets]),
        "stratum": torch.tensor([float(STRATA.index(mine.random.stratum)) for mine in sets]),
    }


def drops_of(batch: Batch, rows: Tensor, branches: Sequence[tuple[Sequence[Head], int]]) -> Tensor:
    """How much the logit difference falls when z at END is replaced, ``[prompt, branch]``.

    All later layers run on from what the ablation left, at END alone: it is the last
    token, so that no other sees it. Each branch enters at the first layer it changes.

    Args:
        batch: Activations as of ``ablate_heads``.
        rows: Which prompts of the batch.
        branches: Heads, and what replaces their z: resample, mean or zero.
    """
    import torch

    from mechtests.models.attention import Past

    network, prompts = batch.network, batch.prompts.select(rows.numpy())
    clean, corrupted = _select(batch.clean, rows), _select(batch.corrupted, rows)
    means = torch.as_tensor(batch.inputs["mean_z"]["z"]).to(clean.final)
    replaced = _replaced(branches, network.shape).to(network.device)
    touched = replaced.any(0).any(-1)
    entry = torch.where(touched.any(-1), touched.int().argmax(-1), network.shape.layers)
    entry, order = entry.sort(stable=True)
    resid = clean.final[:, None][:, :0]
    for layer in range(int(entry[0]), network.shape.layers):
        entering = int((entry == layer).sum())
        fresh = clean["resid_pre@end", layer][:, None].expand(-1, entering, -1)
        resid = torch.cat((resid, fresh), 1)
        here = replaced[:, order[: resid.shape[1]], layer]
        edit = partial(_replace, where=here, by=corrupted["z@end", layer], mean=means[layer])
        past = Past.from_activations(clean, layer, clean.last)
        resid = network.block_at_end(layer, resid, past, edit_z=edit)
    untouched = clean.final[:, None].expand(-1, len(branches) - resid.shape[1], -1)
    left = logit_difference(network, torch.cat((resid, untouched), 1), prompts)
    drops = torch.empty_like(left)
    drops[:, order] = logit_difference(network, clean.final, prompts)[:, None] - left
    return drops


def _replaced(branches: Sequence[tuple[Sequence[Head], int]], shape: Shape) -> Tensor:
    """Which heads each branch replaces, and how: ``[kind, branch, layer, head]``."""
    import torch

    replaced = torch.zeros(
        len(OBSERVED), len(branches), shape.layers, shape.heads, dtype=torch.bool
    )
    for branch, (heads, kind) in enumerate(branches):
        for layer, head in heads:
            replaced[kind, branch, layer, head] = True
    return replaced


def _replace(z: Tensor, *, where: Tensor, by: Tensor, mean: Tensor) -> Tensor:
    """Replace some heads' z ``[prompt, branch, head, head_width]``.

    Args:
        z: Of the branches' own runs.
        where: Shape ``[kind, branch, head]``.
        by: The corrupted run's z, shape ``[prompt, head, head_width]``.
        mean: The mean z, shape ``[head, head_width]``.
    """
    import torch

    for chosen, value in zip(where, (by[:, None], mean, torch.zeros_like(mean)), strict=True):
        z = torch.where(chosen[:, :, None], value, z)
    return z


def _select(run: Activations, rows: Tensor) -> Activations:
    from mechtests.models.activations import Activations

    kept = {at: value[rows] for at, value in run.kept.items()}
    return Activations(kept, run.final[rows], run.last[rows])


def _cost(job: Job) -> Cost:
    """Every branch through every layer at END: an upper bound, as name movers come late."""
    branches = len(OBSERVED) + 1 + job.draws
    if job.shape is None:
        return Cost(forward=float(job.prompts * branches) / job.position)
    shape = job.shape
    attended = 2 * shape.layers * shape.heads * shape.head_width * job.position
    return Cost(flops=2.0 * job.prompts * branches * (shape.block_parameters + attended))


DROP = Value(("prompt",), "logits")

ablate_heads = Metric(
    name="ablation.ablate_heads",
    version=1,
    compute=_ablate_heads,
    values={
        "drop": DROP,
        "drop_mean": DROP,
        "drop_zero": DROP,
        "drop_ceiling": DROP,
        "drop_random": Value(("prompt", "draw"), "logits"),
        "ablated": Value(("half", "layer", "head"), "chosen"),
        "draws": Value(("half",), "sets"),
        "enumerated": Value(("half",), "yes or no"),
        "stratum": Value(("half",), "index"),
    },
    clean=("resid_pre@end", "rot_k", "v", "final"),
    corrupted=("z@end",),
    cost=_cost,
    inputs=("copying", "effects", "mean_z"),
    draws=True,
    needs=("answers",),
)
"""How much the logit difference falls when the name movers' z at END is replaced.

On the prompts of each half, the name movers that the other half chose: by the corrupted run's
z (``drop``), by the mean over prompts (``drop_mean``), by zero (``drop_zero``). ``drop_ceiling``:
the corrupted z in as many heads as there are name movers, those with the largest direct effect on
the other half. ``drop_random``: the corrupted z in each of the matched random sets; where fewer
distinct sets exist than draws, the sets come again from the first, so read ``draws`` of them.

Without a prompt axis, by the half whose prompts they concern (0: selection, ablated by what
the evaluation half chose): ``ablated``, 1 for the heads replaced (none: the half chose no name
mover, and every drop is 0), ``draws``, the number of random sets, ``enumerated``, whether those are
all sets, and ``stratum``, what they match in, as an index of ``matched.STRATA``.

Source: the ablation is ours, the set Tigges et al. 2024's name mover heads.
"""
