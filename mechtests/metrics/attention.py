"""Attention scores: where a head looks, on repeated random tokens and from END to names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mechtests.metrics.metric import Batch, Metric, Value

if TYPE_CHECKING:
    from torch import Tensor

    from mechtests.models.activations import Activations
    from mechtests.tasks.prompts import Ids, Prompts

HEADS = Value(("prompt", "layer", "head"), "attention")


def _head_scores(batch: Batch) -> Mapping[str, Tensor]:
    prompts = batch.prompts
    period = prompts.positions["period"]
    clean, fresh = (batch.clean, "pattern"), (batch.corrupted, "pattern@changed")
    return {
        "induction": _attention(*clean, prompts, period - 1),
        "duplicate": _attention(*clean, prompts, period),
        "previous": _attention(*clean, prompts, 0 * period + 1),
        "induction_unrepeated": _attention(*fresh, prompts, period - 1),
    }


def _attention(run: Activations, site: str, prompts: Prompts, distance: Ids) -> Tensor:
    """Mean attention of the second half to what is some positions before, by layer and head."""
    import torch

    layers = run.layers(site)
    scores = []
    for row, back in enumerate(distance.tolist()):
        queries = torch.arange(int(prompts.positions["second"][row]), int(prompts.length[row]))
        at = queries - run.start
        looked = [run[site, layer][row, :, at, queries - back] for layer in layers]
        scores.append(torch.stack(looked).float().mean(-1))
    return torch.stack(scores)


head_scores = Metric(
    name="attention.head_scores",
    version=1,
    compute=_head_scores,
    values={
        "induction": HEADS,
        "duplicate": HEADS,
        "previous": HEADS,
        "induction_unrepeated": HEADS,
    },
    clean=("pattern",),
    corrupted=("pattern@changed",),
    needs=("position:second", "position:period", "corrupted:no repeat"),
)
"""Mean attention from the second half of a repeated sequence, by head.

``induction``: to the token after the last occurrence (period - 1 back); ``duplicate``: to the
last occurrence (period back); ``previous``: to the token before. ``induction_unrepeated``: as far
back as induction, where the second half is fresh tokens, so that there is nothing to find.

Source: Tigges et al. 2024, Figure 2 and its code, which also averages in the queries of the
first half (one for induction, none for duplicate, half of all for previous): a hundredth of the
induction score. We take the second half's queries alone, so that all scores are of the same
tokens; BOS, where there is one, shifts positions and nothing else.
"""


NAMED = ("IO", "S1", "S2")


def _end_attention(batch: Batch) -> Mapping[str, Tensor]:
    import torch

    pattern = batch.clean.stack("pattern@end").float()
    found = {}
    for name in NAMED:
        at = torch.as_tensor(batch.prompts.positions[name], device=pattern.device)
        index = at[:, None, None, None].expand(*pattern.shape[:3], 1)
        found[name] = pattern.gather(-1, index)[..., 0]
    return found


end_attention = Metric(
    name="attention.end_attention",
    version=1,
    compute=_end_attention,
    values=dict.fromkeys(NAMED, HEADS),
    clean=("pattern@end",),
    needs=("position:IO", "position:S1", "position:S2"),
)
"""Attention from END to each of the three names of an IOI prompt, on the clean run, by head.

Source: Tigges et al. 2024, Figure 4 and its code, where a name mover also attends to IO more than
to S1 and more than to S2.
"""
