"""Paths: what the answer loses when each head alone tells other heads what it would say.

Into the logits it is ``effects.direct_effects``, into the name movers' queries at END
``inhibition.s_inhibition``, which looks at their attention as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from mechtests.measurement import HALVES, Half, Head, Measurement
from mechtests.metrics import roles
from mechtests.metrics.behaviour import logit_difference
from mechtests.metrics.metric import Batch, Cost, Job, Metric, Value
from mechtests.metrics.patching import path_effects

if TYPE_CHECKING:
    from torch import Tensor


def _cost(job: Job) -> Cost:
    """Every head's path to the last layer and its run from the layer above on, at each position.

    An upper bound, five to ten times what is done: nothing is computed before the corrupted
    prompt differs (IOI has half to three quarters of its tokens there), nor below the first and
    for senders above the last receiver.
    """
    if job.shape is None:
        return Cost(forward=40.0 * job.prompts)
    shape = job.shape
    attention = 2 * shape.width * shape.head_width * (shape.heads + shape.key_value_heads)
    block = shape.block_parameters // shape.layers
    attended = 2 * shape.heads * shape.head_width * job.position
    branch_layers = shape.heads * shape.layers * (shape.layers - 1) / 2
    written = shape.heads * shape.head_width * shape.width
    outputs = shape.layers * shape.heads * written
    each = (block - attention) + block + attended
    return Cost(flops=2.0 * job.prompts * job.position * (branch_layers * each + outputs))


def into_heads(
    name: str,
    choose: Callable[[Mapping[str, Measurement], Half], list[Head]],
    *,
    inputs: tuple[str, ...],
    into: str,
) -> Metric:
    """The metric of path patching into heads that other measurements choose.

    ``logit_difference``: the change, patched minus clean, for each sender; ``clean`` and
    ``corrupted``: the logit differences of the two runs, so that the paper's effect, as a share,
    is ``logit_difference / (clean - corrupted)``; ``into``, by the half whose prompts they
    concern: 1 for the receivers. Where the choosing half has none, all changes are 0.

    Its parameters: ``into`` (q, k or v of the receivers), ``mlps`` (whether MLPs between are
    recomputed), ``at`` (a position by its name, or None for all), ``chosen_by`` (which half's
    choice holds for the prompts of each half, see ``roles.chooser``).

    Args:
        name: ``paths.<name>``.
        choose: The receivers, from the inputs and the half that chooses.
        inputs: The names of the measurements ``choose`` reads.
        into: The default of the parameter.
    """

    def compute(batch: Batch) -> Mapping[str, Tensor]:
        return _compute(batch, choose)

    return Metric(
        name=f"paths.{name}",
        version=1,
        compute=compute,
        values={
            "logit_difference": Value(("prompt", "layer", "head"), "logits"),
            "clean": Value(("prompt",), "logits"),
            "corrupted": Value(("prompt",), "logits"),
            "into": Value(("half", "layer", "head"), "chosen"),
        },
        clean=("resid_pre", "z", "attn_out", "rot_k", "v", "final"),
        corrupted=("resid_pre.0", "z", "final"),
        cost=_cost,
        inputs=inputs,
        needs=("answers",),
        params={"into": into, "mlps": True, "at": None, "chosen_by": "other half"},
    )


def _compute(
    batch: Batch, choose: Callable[[Mapping[str, Measurement], Half], list[Head]]
) -> Mapping[str, Tensor]:
    import torch

    network, prompts, params = batch.network, batch.prompts, batch.params
    shape = network.shape
    change = batch.clean.final.new_zeros(len(prompts), shape.layers, shape.heads)
    receiving = torch.zeros(len(HALVES), shape.layers, shape.heads)
    for index, half in enumerate(HALVES):
        receivers = choose(batch.inputs, roles.chooser(params["chosen_by"], half))
        for head in receivers:
            receiving[index][head] = 1.0
        rows = torch.as_tensor(np.flatnonzero(prompts.half == index), device=network.device)
        if receivers and len(rows):
            change[rows] = path_effects(
                batch, rows, receivers, params["into"], mlps=params["mlps"], at=params["at"]
            )
    return {
        "logit_difference": change,
        "clean": logit_difference(network, batch.clean.final, prompts),
        "corrupted": logit_difference(network, batch.corrupted.final, prompts),
        "into": receiving,
    }


def _s_inhibition_heads(inputs: Mapping[str, Measurement], half: Half) -> list[Head]:
    return roles.s_inhibition_heads(inputs["inhibition"], half)


into_s_inhibition = into_heads(
    "into_s_inhibition", _s_inhibition_heads, inputs=("inhibition",), into="v"
)
"""The path of every head into the S-inhibition heads, by default into their values.

Source: Tigges et al. 2024, Figure 4 D and its code of consistency over training: receivers are
the values of the S-inhibition heads at all positions, the other prompt is ``S2->IO``, MLPs are
recomputed on the way. Where we differ: the paper's receivers are chosen by all prompts, ours by
one half; it leaves out S-inhibition heads that suppress copies, we do not.
"""
