"""Path patching: the run in which one head tells some other heads what it would say.

A sender's z is taken from the corrupted run, all other heads stay as in the clean run, and what
the receivers hear is kept; then the clean run is run with the receivers as they heard it. Where
the receiver is the last residual stream, nothing runs on: ``effects.direct_effects``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mechtests.errors import UsageError
from mechtests.measurement import Head
from mechtests.metrics.behaviour import logit_difference
from mechtests.metrics.effects import frozen_paths, prompts_at_once
from mechtests.metrics.metric import Batch

if TYPE_CHECKING:
    from torch import Tensor

    from mechtests.models.network import Network
    from mechtests.models.walk import Edits

INTO = ("q", "k", "v")
Heard = Mapping[int, "Tensor"]
"""By layer, what its receivers hear of each sender below: ``[row, sender, slot, head, width]``."""


@dataclass(frozen=True)
class Receivers:
    """Heads that hear the senders.

    Attributes:
        heads: The heads of each layer, lowest layer first.
        into: What of them hears: ``"q"``, ``"k"`` or ``"v"``.
    """

    heads: Mapping[int, Sequence[int]]
    into: str

    @classmethod
    def of(cls, heads: Sequence[Head], into: str) -> Receivers:
        """These heads.

        Raises:
            UsageError: There is no such way to hear.
        """
        if into not in INTO:
            raise UsageError(f"heads hear through one of {', '.join(INTO)}, got {into!r}")
        found: dict[int, list[int]] = {}
        for layer, head in sorted(heads):
            found.setdefault(layer, []).append(head)
        return cls(found, into)

    def read(self, network: Network, layer: int, resid: Tensor) -> Tensor:
        """What these heads of a layer make of the stream before it, ``[..., head, width]``."""
        block, shape = network.blocks[layer], network.shape
        x = block.ln1(resid)
        made = {"q": block.query, "k": block.key, "v": block.value}[self.into](x)
        group = 1 if self.into == "q" else shape.heads // shape.key_value_heads
        width = block.head_width
        by_head = made.view(*made.shape[:-1], made.shape[-1] // width, width)
        return by_head[..., [head // group for head in self.heads[layer]], :]

    def edits(self, count: int, heard: Heard, senders: slice, entry: int) -> Edits:
        """What makes a run of all rows' branches from a layer on hear it, by site and layer.

        Args:
            count: Query heads of a layer.
            heard: What is heard of all senders.
            senders: Whose branches the run has.
            entry: The layer.
        """
        found = {}
        for layer in self.heads:
            if layer >= entry:
                new = heard[layer][:, senders].flatten(0, 1)

                def edit(value: Tensor, new: Tensor = new, layer: int = layer) -> Tensor:
                    value = value.repeat_interleave(count // value.shape[2], 2)
                    value[:, :, self.heads[layer]] = new
                    return value

                found[self.into, layer] = edit
        return found


@dataclass(frozen=True)
class Slots:
    """The positions of some prompts that are run, all from the same one on.

    Attributes:
        first: The first position.
        count: How many positions, up to the last END.
        patched: At how many of them, from the first on, senders are patched.
    """

    first: int
    count: int
    patched: int

    def positions(self, device: Any) -> Tensor:
        """The positions, shape ``[slot]``."""
        import torch

        return self.first + torch.arange(self.count, device=device)


def path_effects(
    batch: Batch,
    rows: Tensor,
    receivers: Sequence[Head],
    into: str,
    *,
    mlps: bool = True,
    at: str | None = None,
) -> Tensor:
    """How the logit difference changes when each head alone speaks to the receivers otherwise.

    Before the first token that the corrupted prompt has otherwise all is as in the clean run,
    and nothing is computed there.

    Args:
        batch: With ``resid_pre``, ``z``, ``attn_out``, ``rot_k``, ``v`` and ``final`` of the clean
            run, ``z`` and ``resid_pre.0`` of the corrupted one.
        rows: Which prompts of the batch, shape ``[row]``.
        receivers: The heads that hear it, one or more.
        into: What of them hears it: ``"q"``, ``"k"`` or ``"v"``.
        mlps: Whether MLPs between sender and receiver are recomputed.
        at: The position of the prompts at which senders are patched; all unless said.

    Returns:
        Patched minus clean, shape ``[row, layer, head]``; 0 for heads not below a receiver.

    Raises:
        UsageError: ``into`` or ``at`` does not exist.
    """
    import torch

    hearing, shape = Receivers.of(receivers, into), batch.network.shape
    start = _starts(batch, rows, at)
    change = batch.clean.final.new_zeros(len(rows), shape.layers * shape.heads)
    senders = max(hearing.heads) * shape.heads
    for first in sorted(set(start.tolist())) if senders else ():
        alike = torch.nonzero(start == first).flatten()
        count = int(batch.clean.last[rows[alike]].max()) - first + 1
        where = Slots(first, count, 1 if at else count)
        for part in torch.split(alike, prompts_at_once(shape, (1 + senders) * count)):
            heard = _heard(batch, rows[part], hearing, where, mlps)
            change[part, :senders] = _run_on(batch, rows[part], hearing, heard, where)
    return change.view(len(rows), shape.layers, shape.heads)


def _starts(batch: Batch, rows: Tensor, at: str | None) -> Tensor:
    """The first position of each prompt at which anything can change, shape ``[row]``."""
    import torch

    last = batch.clean.last[rows]
    if at is not None and at not in batch.prompts.positions:
        known = ", ".join(batch.prompts.positions)
        raise UsageError(f"these prompts have the positions {known}, not {at!r}")
    if at is not None:
        return torch.as_tensor(batch.prompts.positions[at], device=last.device)[rows]
    clean, other = (run["resid_pre", 0][rows] for run in (batch.clean, batch.corrupted))
    differs = (clean != other).any(-1)
    first = torch.where(differs.any(1), differs.int().argmax(1), last)
    return torch.minimum(first, last)


def _heard(batch: Batch, rows: Tensor, receivers: Receivers, where: Slots, mlps: bool) -> Heard:
    """What the receivers hear, before any norm or rotary, as each sender's direct path leaves it.

    At positions where senders are not patched it is what they hear in the clean run.
    """
    import torch

    clean, found = batch.clean, {}
    at = torch.minimum(where.positions(rows.device), clean.last[rows][:, None])
    each = rows.repeat_interleave(where.patched)
    patched = at[:, : where.patched].flatten()
    stop = max(receivers.heads)
    for layer, resid in enumerate(frozen_paths(batch, each, stop, at=patched, mlps=mlps)):
        if layer in receivers.heads:
            spoken = receivers.read(batch.network, layer, resid[:, 1:])
            spoken = spoken.view(len(rows), where.patched, *spoken.shape[1:]).transpose(1, 2)
            rest = clean["resid_pre", layer][rows[:, None], at[:, where.patched :]]
            silent = receivers.read(batch.network, layer, rest)[:, None]
            silent = silent.expand(-1, spoken.shape[1], -1, -1, -1)
            found[layer] = torch.cat((spoken, silent), 2)
    return found


def _run_on(batch: Batch, rows: Tensor, receivers: Receivers, heard: Heard, where: Slots) -> Tensor:
    """The clean run from the first receiver above each sender on, with what receivers heard.

    Returns:
        Patched minus clean logit difference, shape ``[row, sender]``.
    """
    import torch

    from mechtests.models.activations import Activations
    from mechtests.models.attention import Prefix

    network, clean, first = batch.network, batch.clean, where.first
    prompts = batch.prompts.select(rows.cpu().numpy())
    kept = {(s, at): value[rows] for (s, at), value in clean.kept.items() if s in ("rot_k", "v")}
    past = Prefix(Activations(kept, clean.final[rows], clean.last[rows]), first)
    untouched = logit_difference(network, clean.final[rows], prompts)[:, None]
    changes = []
    for low, entry in pairwise((0, *receivers.heads)):
        senders = slice(low * network.shape.heads, entry * network.shape.heads)
        count = senders.stop - senders.start
        if not count:
            continue
        resid = clean["resid_pre", entry][rows, first : first + where.count]
        final = network.run(
            torch.zeros(len(rows) * count, where.count, dtype=torch.long, device=resid.device),
            resid=resid.repeat_interleave(count, 0),
            start=entry,
            last=(clean.last[rows] - first).repeat_interleave(count),
            prefix=past,
            edits=receivers.edits(network.shape.heads, heard, senders, entry),
        ).final
        left = logit_difference(network, final.view(len(rows), count, -1), prompts)
        changes.append(left - untouched)
    return torch.cat(changes, 1)
