"""Joint path patching: all heads of a role tell their receivers otherwise at once.

The effects of single heads need not add up. Here one run takes the z of all of them from the
corrupted prompt, and another the z of every head there is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from mechtests.measurement import HALVES, Half, Head, Measurement
from mechtests.metrics import roles
from mechtests.metrics.behaviour import logit_difference
from mechtests.metrics.metric import Batch, Cost, Job, Metric, Value

if TYPE_CHECKING:
    from torch import Tensor

    from mechtests.models.walk import Edits

Choose = Callable[[Mapping[str, Measurement], Half], list[Head]]
LOGITS = "logits"


def jointly(
    name: str,
    senders: Choose,
    receivers: Choose | None = None,
    *,
    inputs: tuple[str, ...],
    into: str = LOGITS,
    at_end: bool = False,
) -> Metric:
    """The metric of patching all heads of a role at once.

    ``role`` and ``every``: the change of the logit difference, patched minus clean, where the
    role's heads, or all heads, have the z of the corrupted run on their direct paths into the
    receivers: all other heads as in the clean run, MLPs recomputed. ``senders`` and ``into``, by
    the half whose prompts they concern: 1 for the heads of the role, and for the receivers. Where
    there are no senders or no receivers, the changes are 0.

    Args:
        name: ``joint.<name>``.
        senders: The role's heads, from the inputs and the half that chooses.
        receivers: The heads that hear them; None where the logits do.
        inputs: The names of the measurements that these read.
        into: ``"q"``, ``"k"`` or ``"v"`` of the receivers.
        at_end: Whether receivers hear it at END alone.
    """

    def compute(batch: Batch) -> Mapping[str, Tensor]:
        return _compute(batch, senders, receivers)

    return Metric(
        name=f"joint.{name}",
        version=1,
        compute=compute,
        values={
            "role": Value(("prompt",), "logits"),
            "every": Value(("prompt",), "logits"),
            "senders": Value(("half", "layer", "head"), "chosen"),
            "into": Value(("half", "layer", "head"), "chosen"),
        },
        clean=("z", "final"),
        corrupted=("z",),
        cost=_cost,
        inputs=inputs,
        needs=("answers",),
        params={"into": into, "at_end": at_end, "chosen_by": "other half"},
    )


def _cost(job: Job) -> Cost:
    """Two runs of all prompts for each set of senders; into the logits one of them is spared."""
    return Cost(forward=4.0 * job.prompts)


def _compute(batch: Batch, senders: Choose, receivers: Choose | None) -> Mapping[str, Tensor]:
    import torch

    network, prompts, shape = batch.network, batch.prompts, batch.network.shape
    change = {name: batch.clean.final.new_zeros(len(prompts)) for name in ("role", "every")}
    marked = torch.zeros(2, len(HALVES), shape.layers, shape.heads)
    everyone = [(layer, head) for layer in range(shape.layers) for head in range(shape.heads)]
    for index, half in enumerate(HALVES):
        by = roles.chooser(batch.params["chosen_by"], half)
        role = senders(batch.inputs, by)
        hearing = None if receivers is None else receivers(batch.inputs, by)
        for place, heads in enumerate((role, hearing or [])):
            for head in heads:
                marked[place, index][head] = 1.0
        rows = torch.as_tensor(np.flatnonzero(prompts.half == index), device=network.device)
        if len(rows) and hearing != []:
            for name, heads in (("role", role), ("every", everyone)):
                if heads:
                    change[name][rows] = _patched(batch, rows, heads, hearing)
    return {**change, "senders": marked[0], "into": marked[1]}


def _patched(
    batch: Batch, rows: Tensor, senders: Collection[Head], receivers: Collection[Head] | None
) -> Tensor:
    """The change of the logit difference on some prompts, shape ``[row]``."""
    network, last = batch.network, batch.clean.last[rows]
    prompts = batch.prompts.select(rows.cpu().numpy())
    tokens = _tokens(batch, rows)
    into = batch.params["into"]
    keep = () if receivers is None else tuple(f"{into}.{layer}" for layer in _layers(receivers))
    spoken = network.run(tokens, last=last, keep=keep, edits=_frozen(batch, rows, senders))
    if receivers is not None:
        heard = {layer: spoken[into, layer] for layer in _layers(receivers)}
        edits = _told(batch, rows, receivers, heard)
        spoken = network.run(tokens, last=last, edits=edits)
    clean = logit_difference(network, batch.clean.final[rows], prompts)
    return logit_difference(network, spoken.final, prompts) - clean


def _tokens(batch: Batch, rows: Tensor) -> Tensor:
    import torch

    return torch.as_tensor(batch.prompts.clean, device=batch.network.device)[rows]


def _layers(heads: Collection[Head]) -> list[int]:
    return sorted({layer for layer, _ in heads})


def _frozen(batch: Batch, rows: Tensor, senders: Collection[Head]) -> Edits:
    """Every head's z as in the clean run, that of the senders as in the corrupted one."""
    edits: dict[tuple[str, int], Callable[[Tensor], Tensor]] = {}
    for layer in range(batch.network.shape.layers):
        z = batch.clean["z", layer][rows].clone()
        told = [head for there, head in senders if there == layer]
        z[:, :, told] = batch.corrupted["z", layer][rows][:, :, told]

        def edit(value: Tensor, z: Tensor = z) -> Tensor:
            return z

        edits["z", layer] = edit
    return edits


def _told(
    batch: Batch, rows: Tensor, receivers: Collection[Head], heard: Mapping[int, Tensor]
) -> Edits:
    """The receivers as they heard it, by query head where keys and values are grouped."""
    import torch

    count, last = batch.network.shape.heads, batch.clean.last[rows]
    edits: dict[tuple[str, int], Callable[[Tensor], Tensor]] = {}
    for layer, new in heard.items():
        at = [head for there, head in receivers if there == layer]
        group = count // new.shape[2]

        def edit(
            value: Tensor, new: Tensor = new, at: list[int] = at, group: int = group
        ) -> Tensor:
            value, mine = (each.repeat_interleave(group, 2).clone() for each in (value, new))
            where = torch.ones(value.shape[:2], dtype=torch.bool, device=value.device)
            if batch.params["at_end"]:
                where &= torch.arange(value.shape[1], device=value.device) == last[:, None]
            for head in at:
                value[:, :, head] = torch.where(
                    where[..., None], mine[:, :, head], value[:, :, head]
                )
            return value

        edits[batch.params["into"], layer] = edit
    return edits
