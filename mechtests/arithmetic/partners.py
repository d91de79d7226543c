"""Which neurons are at work on a prompt, and which others are the control.

A heuristic neuron is at work on a prompt when a heuristic that it matches holds for the prompt.
Its control is a neuron that matches none and is attributed as much: of the same layer, or, where
that has too few, of the same third of depth, or of any layer (claims.md, Matched random).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mechtests.arithmetic.heuristics import Mask
from mechtests.errors import UsageError
from mechtests.matched import STRATA
from mechtests.tasks.prompts import Ids

Floats = NDArray[np.float64]

SHORT = 0.2
"""Where the control has too few neurons on a larger share of prompts, it cannot tell."""
MATCHED = 0.5
"""Nor where its neurons are attributed less than this part of what the heuristic ones are: what
hardly touches the answer tells a failure from nothing. Neurons without a heuristic often have a
tenth."""


@dataclass(frozen=True, eq=False)
class Classified:
    """Some neurons of a layer, and which heuristics each matches.

    Attributes:
        layer: The layer.
        neurons: Their numbers, shape ``[neuron]``.
        matches: Shape ``[neuron, heuristic]``; those that match none are what controls are
            drawn from.
        attribution: What each is attributed, shape ``[neuron]``.
    """

    layer: int
    neurons: Ids
    matches: Mask
    attribution: Floats

    def at_work(self, held: Mask) -> Mask:
        """Which neurons match a heuristic that holds for which prompts, ``[prompt, neuron]``.

        Args:
            held: Which heuristics hold for which prompts, shape ``[prompt, heuristic]``.
        """
        found: Mask = held.astype(np.float32) @ self.matches.T.astype(np.float32) > 0
        return found


def controls(
    classified: Sequence[Classified], working: Sequence[Mask], stratum: str = "layer"
) -> list[Mask]:
    """As many neurons without a heuristic on each prompt, the nearest in attribution.

    Each of a prompt's neurons has another partner of its stratum, such that the differences of
    attribution add up to as little as possible; where there are fewer partners, some have none.

    Args:
        classified: The neurons of each layer, no layer twice.
        working: Those at work, shape ``[prompt, neuron]`` for each of the layers.
        stratum: One of ``matched.STRATA``; thirds are those of the layers given.

    Returns:
        Shape ``[prompt, neuron]`` for each of the layers.
    """
    found = [np.zeros_like(each) for each in working]
    for band in _bands([each.layer for each in classified], stratum):
        mine = [classified[at] for at in band]
        attribution = np.concatenate([each.attribution for each in mine])
        pool = np.flatnonzero(~np.concatenate([each.matches.any(1) for each in mine]))
        chosen = _partners(np.concatenate([working[at] for at in band], 1), attribution, pool)
        ends = np.cumsum([len(each.neurons) for each in mine])[:-1]
        for at, part in zip(band, np.split(chosen, ends, 1), strict=True):
            found[at] = part
    return found


def _bands(layers: Sequence[int], stratum: str) -> list[Ids]:
    """The places of the layers among which a partner may be sought."""
    if stratum not in STRATA:
        raise UsageError(f"controls are matched in one of {', '.join(STRATA)}, got {stratum!r}")
    parts = {"layer": len(layers), "third of depth": 3, "any layer": 1}[stratum]
    rank = np.argsort(np.argsort(layers))
    band = rank * parts // max(len(layers), 1)
    return [np.flatnonzero(band == each) for each in np.unique(band)]


def _partners(working: Mask, attribution: Floats, pool: Ids) -> Mask:
    """For each prompt's neurons as many of the pool, nearest in attribution."""
    from scipy.optimize import linear_sum_assignment

    apart = np.abs(attribution[:, None] - attribution[pool])
    sets, which = np.unique(working, axis=0, return_inverse=True)
    found = np.zeros_like(sets)
    for chosen, mine in zip(found, sets, strict=True):
        _, partners = linear_sum_assignment(apart[mine])
        chosen[pool[partners]] = True
    return found[which.reshape(-1)]


@dataclass(frozen=True, eq=False)
class Sides:
    """Heuristic neurons at work and their controls, ``[prompt, neuron]`` by layer."""

    classified: Sequence[Classified]
    working: Sequence[Mask]
    controls: Sequence[Mask]

    @property
    def count(self) -> NDArray[np.int64]:
        """How many they are, ``[side, prompt]``."""
        sides = (self.working, self.controls)
        return np.array([np.sum([each.sum(1) for each in side], 0) for side in sides], np.int64)

    @property
    def attribution(self) -> Floats:
        """What they are attributed together, ``[side, prompt]``."""
        return self.added([each.attribution for each in self.classified])

    def added(self, values: Sequence[Floats]) -> Floats:
        """Sums over each side's neurons of a value of each, by prompt or the same for all."""
        sides = (self.working, self.controls)
        return np.array(
            [
                np.sum([(m * v).sum(1) for m, v in zip(side, values, strict=True)], 0)
                for side in sides
            ],
            np.float64,
        )


def widened(classified: Sequence[Classified], held: Mask) -> tuple[str, Sides]:
    """The first stratum that has enough controls, else the last, and the neurons.

    Args:
        classified: The neurons of each layer, no layer twice.
        held: Which heuristics hold for which prompts, shape ``[prompt, heuristic]``.
    """
    working = [each.at_work(held) for each in classified]
    for stratum in STRATA:
        found = Sides(classified, working, controls(classified, working, stratum))
        if not lacking(*found.count, *found.attribution):
            break
    return stratum, found


def lacking(count: Ids, controls: Ids, attribution: Floats, control_attribution: Floats) -> str:
    """Why controls cannot tell, in words; nothing where they can.

    Args:
        count: Of heuristic neurons at work, shape ``[prompt]``.
        controls: Of their controls.
        attribution: What the heuristic neurons are attributed together.
        control_attribution: What their controls are.
    """
    short = float((controls < count).mean()) if len(count) else 0.0
    if short > SHORT:
        return f"on {short:.0%} of the prompts there are fewer neurons without a heuristic"
    if control_attribution.sum() < MATCHED * attribution.sum():
        return (
            f"those without a heuristic are attributed {control_attribution.mean():.2g} logits a "
            f"prompt, the heuristic ones {attribution.mean():.2g}"
        )
    return ""
