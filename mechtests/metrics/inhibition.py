"""S-inhibition: which heads tell the name movers' queries where not to look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mechtests.measurement import HALVES, Head
from mechtests.metrics import roles
from mechtests.metrics.behaviour import logit_difference
from mechtests.metrics.effects import frozen_paths, prompts_at_once
from mechtests.metrics.metric import Batch, Cost, Job, Metric, Value

if TYPE_CHECKING:
    from torch import Tensor

    from mechtests.models.attention import Past

SEEN = ("IO", "S1")
CHANGES = ("logit_difference", "attention_io", "attention_s1")

Queries = Mapping[int, "Tensor"]


def _s_inhibition(batch: Batch) -> Mapping[str, Tensor]:
    import torch

    shape, count, where = batch.network.shape, len(batch.prompts), batch.network.device
    changes = {
        name: torch.zeros(count, shape.layers, shape.heads, device=where) for name in CHANGES
    }
    clean = {name: torch.zeros(count, device=where) for name in CHANGES}
    receiving = torch.zeros(len(HALVES), shape.layers, shape.heads)
    for index in range(len(HALVES)):
        movers = _movers_for(batch, index)
        for head in movers:
            receiving[index][head] = 1.0
        rows = torch.as_tensor(np.flatnonzero(batch.prompts.half == index))
        top = max((layer for layer, _ in movers), default=0)
        most = prompts_at_once(shape, 1 + top * shape.heads)
        for part in torch.split(rows, most) if movers and len(rows) else ():
            for name, found in _patched(batch, part, movers).items():
                clean[name][part] = found[:, 0].to(clean[name])
                change = (found[:, 1:] - found[:, :1]).to(clean[name])
                changes[name][part, :top] = change.view(len(part), top, shape.heads)
    return {**changes, **{f"clean_{name}": each for name, each in clean.items()}, "into": receiving}


def _movers_for(batch: Batch, index: int) -> list[Head]:
    """The name movers that are asked on the prompts of a half."""
    half = roles.chooser(batch.params["chosen_by"], HALVES[index])
    return roles.name_movers(batch.inputs["copying"], batch.inputs["effects"], half)


def _patched(batch: Batch, rows: Tensor, movers: Sequence[Head]) -> Mapping[str, Tensor]:
    """Logit difference and mean attention of the name movers, each ``[prompt, 1 + sender]``.

    The first column is the clean run, then come the heads of the layers below the last
    name mover.
    """
    network = batch.network
    heads: dict[int, list[int]] = {}
    for layer, head in sorted(movers):
        heads.setdefault(layer, []).append(head)
    resid, looked = _run_on(batch, rows, heads, _queries(batch, rows, heads))
    attention = (looked / len(movers)).unbind(-1)
    difference = logit_difference(network, resid, batch.prompts.select(rows.numpy()))
    return dict(zip(CHANGES, (difference, *attention), strict=True))


def _queries(batch: Batch, rows: Tensor, heads: Mapping[int, Sequence[int]]) -> Queries:
    """The name movers' queries at END as each sender below leaves them on its direct path.

    Returns:
        By layer, after rotary: ``[prompt, 1 + sender, name mover, head_width]``; the senders
        are all heads of the layers below.
    """
    network, found = batch.network, {}
    end = batch.clean.last[rows][:, None]
    for layer, resid in enumerate(frozen_paths(batch, rows, max(heads))):
        if layer in heads:
            block = network.blocks[layer]
            q = block.query(block.ln1(resid))
            q = q.view(*q.shape[:-1], -1, block.head_width)
            found[layer] = block.rotated_query(q, end)[:, :, heads[layer]]
    return found


def _run_on(
    batch: Batch, rows: Tensor, heads: Mapping[int, Sequence[int]], queries: Queries
) -> tuple[Tensor, Tensor]:
    """The clean run at END with the name movers' queries replaced, a branch for each sender.

    A branch enters at the first name mover above its sender; below, it is the clean run.

    Returns:
        The residual stream after the last block, ``[prompt, 1 + sender, width]``, and the
        name movers' attention to the positions of ``SEEN``, summed over name movers,
        ``[prompt, 1 + sender, seen]``.
    """
    import torch

    network, clean = batch.network, batch.clean
    first, last = min(heads), max(heads)
    resid = clean["resid_pre@end", first][rows, None][:, :0]
    branches = queries[last].shape[1]
    looked = resid.new_zeros(len(rows), branches, len(SEEN))
    for layer in range(first, network.shape.layers):
        if layer in heads:
            entering = queries[layer].shape[1] - resid.shape[1]
            fresh = clean["resid_pre@end", layer][rows, None].expand(-1, entering, -1)
            resid = torch.cat((resid, fresh), 1)
        past = _past(batch, rows, layer)
        if layer not in heads:
            resid = network.block_at_end(layer, resid, past)
            continue
        resid, seen = _block(batch, rows, layer, resid, past, heads[layer], queries[layer])
        # a branch that enters later has these name movers' attention as the clean run has it
        absent = seen[:, :1].expand(-1, branches - seen.shape[1], -1)
        looked += torch.cat((seen, absent), 1)
    return resid, looked


def _past(batch: Batch, rows: Tensor, layer: int) -> Past:
    from mechtests.models.attention import Past

    end = batch.clean.last[rows]
    keys, values = (batch.clean[site, layer][rows, : int(end.max())] for site in ("rot_k", "v"))
    return Past(keys, values, end)


def _block(
    batch: Batch,
    rows: Tensor,
    layer: int,
    resid: Tensor,
    past: Past,
    heads: Sequence[int],
    queries: Tensor,
) -> tuple[Tensor, Tensor]:
    """One block at END with some heads' queries replaced: what comes out, and where they look.

    Attention to a position is what a head reads of a value that is 1 there and 0 elsewhere:
    each of ``SEEN`` is a channel more of the values.

    Returns:
        After the block ``[prompt, branch, width]``, and the attention of these heads, summed,
        ``[prompt, branch, seen]``.
    """
    import torch
    from torch.nn.functional import pad

    from mechtests.models.attention import attend_at_end

    network = batch.network
    block, width = network.blocks[layer], network.shape.head_width
    _, _, v, rot_q, rot_k = network.queries_keys_values(layer, block.ln1(resid), past.end[:, None])
    rot_q[:, :, heads] = queries
    marked = pad(past.values, (0, len(SEEN)))
    each = torch.arange(len(rows))
    for channel, name in enumerate(SEEN):
        at = torch.as_tensor(batch.prompts.positions[name])[rows]
        marked[each, at, :, width + channel] = 1.0
    z = attend_at_end(
        rot_q,
        rot_k,
        pad(v, (0, len(SEEN))),
        replace(past, values=marked),
        scale=block.scale,
        softcap=block.softcap,
        window=block.window,
    )
    after = network.after_attention(layer, resid, block.attention_out(z[..., :width]))
    return after, z[:, :, heads, width:].sum(2)


def _cost(job: Job) -> Cost:
    """Every head's direct path to the last layer, and its run from the layer above it on.

    An upper bound: branches end and enter at the name movers, which are in few layers.
    """
    if job.shape is None:
        return Cost(forward=16.0 * job.prompts)
    shape = job.shape
    attention = 2 * shape.width * shape.head_width * (shape.heads + shape.key_value_heads)
    block = shape.block_parameters // shape.layers
    attended = 2 * shape.heads * shape.head_width * job.position
    branch_layers = shape.heads * shape.layers * (shape.layers - 1) / 2
    outputs = shape.layers * shape.heads * (shape.heads * shape.head_width * shape.width)
    each = (block - attention) + block + attended
    return Cost(flops=2.0 * job.prompts * (branch_layers * each + outputs))


LOGITS, ATTENTION = (
    (("prompt", "layer", "head"), "logits"),
    (("prompt", "layer", "head"), "attention"),
)

s_inhibition = Metric(
    name="inhibition.s_inhibition",
    version=1,
    compute=_s_inhibition,
    values={
        "logit_difference": Value(*LOGITS),
        "attention_io": Value(*ATTENTION),
        "attention_s1": Value(*ATTENTION),
        "clean_logit_difference": Value(("prompt",), "logits"),
        "clean_attention_io": Value(("prompt",), "attention"),
        "clean_attention_s1": Value(("prompt",), "attention"),
        "into": Value(("half", "layer", "head"), "chosen"),
    },
    clean=("resid_pre@end", "z@end", "attn_out@end", "rot_k", "v"),
    corrupted=("z@end",),
    cost=_cost,
    inputs=("copying", "effects"),
    needs=("answers", "position:IO", "position:S1"),
    params={"chosen_by": "other half"},
)
"""What the name movers do when one head below tells their queries what it would of other prompts.

On the prompts of each half, for every head below the last of the name movers that the other half
chose (with ``chosen_by`` one half chooses for all prompts, see ``roles.chooser``): its z at END is
taken from the corrupted run and goes on its direct path (all other heads' z clean, MLPs
recomputed) into the queries of all name movers at END; then the clean run with those queries runs
on. ``logit_difference``, ``attention_io`` and ``attention_s1``: the change, patched minus clean,
of the logit difference and of the name movers' mean attention from END to IO and to the first S.
The same of the clean run are ``clean_logit_difference`` and so on, for relative changes. A head
below no name mover changes nothing: its values are 0; where no name mover was chosen, all are.
``into``, by the half whose prompts they concern: 1 for the name movers.

Declare it once for each corruption of IOI: with ``swapped order`` the name to be inhibited stays
and its position is the other one, which is the role's definition; with ``random names`` the name
is another and its position stays; with ``S2->IO`` both are the other, as in the paper's run of
consistency.

Source: Tigges et al. 2024, Figure 4 and its code, which patches queries at END as we do, gives
changes as shares of the clean means, and takes as name movers what all prompts choose.
"""
