"""Attention of many queries over shared keys and values, and of END alone over a cached past."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mechtests.models.activations import Activations


def mask(position: int, window: int | None, device: torch.device) -> Tensor:
    """Which key each query may attend to, shape ``[query, key]``.

    Causal; with a window of n a query sees itself and the n - 1 positions before it.
    """
    at = torch.arange(position, device=device)
    distance = at[:, None] - at[None, :]
    seen = distance >= 0
    return seen if window is None else seen & (distance < window)


def scores(queries: Tensor, keys: Tensor) -> Tensor:
    """Products of queries and keys, shape ``[prompt, head, query, key]``.

    Args:
        queries: ``[prompt, query, head, head_width]``.
        keys: ``[prompt, key, key_value_head, head_width]``; each serves a group of
            ``head / key_value_head`` consecutive query heads.
    """
    prompt, query, head, width = queries.shape
    key, groups = keys.shape[1], keys.shape[2]
    grouped = queries.transpose(1, 2).reshape(prompt, groups, head // groups * query, width)
    return (grouped @ keys.permute(0, 2, 3, 1)).view(prompt, head, query, key)


def mix(pattern: Tensor, values: Tensor) -> Tensor:
    """z: values weighted by a pattern, shape ``[prompt, query, head, head_width]``.

    Args:
        pattern: ``[prompt, head, query, key]``.
        values: ``[prompt, key, key_value_head, head_width]``.
    """
    prompt, head, query, key = pattern.shape
    groups, width = values.shape[2], values.shape[3]
    grouped = pattern.reshape(prompt, groups, head // groups * query, key)
    mixed = grouped @ values.transpose(1, 2)
    return mixed.view(prompt, head, query, width).transpose(1, 2)


def normalize(products: Tensor, seen: Tensor, scale: float, softcap: float | None) -> Tensor:
    """Attention probabilities from products, in at least fp32 and rounded at the end.

    Args:
        products: ``[prompt, head, query, key]``.
        seen: What may be attended to, broadcasting with it.
        scale: What the products are multiplied with.
        softcap: ``softcap * tanh(score / softcap)`` is applied first (Gemma 2).
    """
    scored = products * scale
    if softcap is not None:
        scored = torch.tanh(scored / softcap) * softcap
    wide = scored.to(torch.promote_types(scored.dtype, torch.float32))
    return wide.masked_fill(~seen, float("-inf")).softmax(-1).to(products.dtype)


@dataclass(frozen=True, eq=False)
class Prefix:
    """The first positions of another run of prompts that begin alike.

    Attributes:
        run: A run that kept ``rot_k`` and ``v`` at every layer.
        position: How many positions the prompts have in common.
    """

    run: Activations
    position: int

    def before(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys after rotary and values, with those of the common positions before them.

        Each prompt of the run stands before as many of these in a row as there are for it, and
        each of its heads where these have a copy for every query head.
        """
        shared = (self.run[site, layer][:, : self.position] for site in ("rot_k", "v"))
        first, second = (
            torch.cat((_as_many(early, late), late), 1)
            for early, late in zip(shared, (keys, values), strict=True)
        )
        return first, second


def _as_many(early: Tensor, late: Tensor) -> Tensor:
    """Each prompt and each head repeated in a row, up to as many as the later positions have."""
    for axis in (0, 2):
        times = late.shape[axis] // early.shape[axis]
        early = early if times == 1 else early.repeat_interleave(times, axis)
    return early


@dataclass(frozen=True, eq=False)
class Past:
    """Keys and values of a clean run at one layer, for alternatives of its END token.

    Attributes:
        keys: After rotary, ``[prompt, position, key_value_head, head_width]``.
        values: The same shape.
        end: END of each prompt, ``[prompt]``; only positions before it are attended to.
    """

    keys: Tensor
    values: Tensor
    end: Tensor

    @classmethod
    def from_activations(cls, activations: Activations, layer: int, end: Tensor) -> Past:
        """The past of a run that kept ``rot_k`` and ``v`` at this layer.

        Raises:
            UsageError: It did not keep them.
        """
        longest = int(end.max())
        keys, values = activations["rot_k", layer], activations["v", layer]
        return cls(keys[:, :longest], values[:, :longest], end)

    def seen(self, window: int | None) -> Tensor:
        """Which past positions END attends to, shape ``[prompt, 1, 1, position]``."""
        at = torch.arange(self.keys.shape[1], device=self.end.device)
        distance = self.end[:, None] - at
        seen = distance > 0
        seen = seen if window is None else seen & (distance < window)
        return seen[:, None, None]


def attend_at_end(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    past: Past,
    *,
    scale: float,
    softcap: float | None,
    window: int | None,
) -> Tensor:
    """Alternatives of END: their z, each over the shared past and its own key and value.

    Args:
        queries: After rotary, ``[prompt, branch, head, head_width]``.
        keys: After rotary, ``[prompt, branch, key_value_head, head_width]``.
        values: The same shape.
        past: Of the same prompts.
        scale: Of the scores.
        softcap: Of the scores, or None.
        window: Of the layer, or None.

    Returns:
        z, shape ``[prompt, branch, head, head_width]``.
    """
    group = queries.shape[2] // keys.shape[2]
    own_keys, own_values = (part.repeat_interleave(group, 2) for part in (keys, values))
    own = (queries * own_keys).sum(-1).transpose(1, 2).unsqueeze(-1)
    before = scores(queries, past.keys)
    seen = past.seen(window)
    itself = seen.new_ones((len(past.end), 1, 1, 1))
    pattern = normalize(torch.cat((before, own), -1), torch.cat((seen, itself), -1), scale, softcap)
    weight = pattern[..., -1].transpose(1, 2).unsqueeze(-1)
    return mix(pattern[..., :-1], past.values) + weight * own_values
