"""Knock-outs of one heuristic's neurons: which, on which prompts, and what is right then.

Source: Nikankin et al. 2025, page 7 and Figure 7. Where we differ: unrelated prompts are drawn from
those the heuristic does not hold for (the code draws from all but the related prompts that it
happened to draw, and so mixes related ones in), and other important neurons are the control.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechtests.arithmetic.heuristics import Heuristic, Mask
from mechtests.arithmetic.knockouts import right_without
from mechtests.arithmetic.pools import (
    Important,
    Rows,
    drawn_by_group,
    packed,
    refuse_other_heuristics,
)
from mechtests.arithmetic.problems import Problems
from mechtests.models.network import Network
from mechtests.tasks.prompts import Ids

Floats = NDArray[np.floating[Any]]

FEWEST_NEURONS = 10
MOST_PROMPTS = 100


@dataclass(frozen=True, eq=False)
class RelatedSets:
    """The neurons of some heuristics, their controls, and prompts to knock them out on.

    Attributes:
        heuristic: Their places in the library, shape ``[heuristic]``.
        own: Rows of their neurons, shape ``[heuristic, slot]``.
        control: Rows of as many others by layer, the same shape.
        shared: How many of the control are their own, for want of others, ``[heuristic]``.
        related: Prompts that the heuristic holds for, padded with -1, ``[heuristic, slot]``.
        unrelated: Prompts that it does not hold for, likewise.
    """

    heuristic: Ids
    own: Rows
    control: Rows
    shared: Ids
    related: Rows
    unrelated: Rows


def related_sets(
    important: Important,
    holds: Mask,
    generator: np.random.Generator,
    *,
    fewest_neurons: int = FEWEST_NEURONS,
    most_prompts: int = MOST_PROMPTS,
) -> RelatedSets:
    """Each heuristic's neurons, and random related and unrelated prompts.

    Left out are heuristics of fewer than ``fewest_neurons``, or without a related or an
    unrelated prompt.

    Args:
        important: The important neurons of one operator.
        holds: Which heuristics hold for which correct prompts, ``[prompt, heuristic]``.
        generator: The source of the draws.
        fewest_neurons: See above.
        most_prompts: How many prompts at most of either kind.

    Raises:
        UsageError: Other heuristics were scored than are told to hold.
    """
    refuse_other_heuristics(important, holds)
    many = important.matched.sum(0)
    kept = np.flatnonzero((many >= fewest_neurons) & holds.any(0) & ~holds.all(0))
    strata, neurons, prompts = important.stratum, len(important), len(holds)
    own, control = np.zeros((2, len(kept), neurons), bool)
    related, unrelated = np.zeros((2, len(kept), prompts), bool)
    for at, heuristic in enumerate(kept):
        own[at] = important.matched[:, heuristic]
        asked = np.bincount(strata[own[at]], minlength=len(important.layers))
        # its own neurons come last
        noise = generator.random((1, neurons)) + own[at]
        control[at] = drawn_by_group(np.ones(neurons, bool), strata, asked, noise)[0]
        held = holds[:, heuristic]
        related[at] = _some(held, most_prompts, generator)
        unrelated[at] = _some(~held, most_prompts, generator)
    shared = (own & control).sum(1)
    return RelatedSets(
        kept, packed(own), packed(control), shared, packed(related), packed(unrelated)
    )


def _some(of: Mask, most: int, generator: np.random.Generator) -> Mask:
    """As many random ones, or all there are."""
    mask = np.zeros_like(of)
    mask[generator.permutation(np.flatnonzero(of))[:most]] = True
    return mask


@dataclass(frozen=True, eq=False)
class ByHeuristic:
    """Knock-outs of one heuristic's neurons, on prompts it holds for and on others.

    Attributes:
        heuristic: Places in the library, shape ``[heuristic]``.
        cluster: Variable and kind of each: what heuristics are clustered by.
        neurons: How many neurons each has, shape ``[heuristic]``.
        shared: How many of them its control has too, for want of others.
        prompts: How many related and unrelated prompts, shape ``[heuristic, 2]``.
        right: Share of right answers, shape ``[heuristic, knocked, kind]``: without its own
            neurons or the control's, on related or unrelated prompts.
    """

    heuristic: Ids
    cluster: tuple[str, ...]
    neurons: Ids
    shared: Ids
    prompts: Ids
    right: Floats

    @property
    def excess(self) -> Floats:
        """Related minus unrelated accuracy, minus the same of the control, ``[heuristic]``."""
        gap = self.right[:, :, 0] - self.right[:, :, 1]
        found: Floats = gap[:, 0] - gap[:, 1]
        return found


def by_heuristic(
    network: Network,
    problems: Problems,
    important: Important,
    plan: RelatedSets,
    heuristics: Sequence[Heuristic],
) -> ByHeuristic:
    """Knock out one heuristic's neurons after the other, and a control of each.

    Args:
        network: The network.
        problems: Correct problems of one operator.
        important: Its important neurons.
        plan: What to knock out on which of the problems.
        heuristics: Those that were scored, for the names of the clusters.
    """
    many = len(plan.heuristic)
    # a cell is a heuristic's neurons or its control's, and a kind of prompts
    runs = [
        (heuristic + knocked * many, kind, cells[heuristic, slot])
        for kind, cells in enumerate((plan.related, plan.unrelated))
        for heuristic, slot in [np.nonzero(cells >= 0)]
        for knocked in range(2)
    ]
    without = np.concatenate([of for of, _, _ in runs])
    kinds = np.concatenate([np.full(len(of), kind) for of, kind, _ in runs])
    prompt = np.concatenate([rows for _, _, rows in runs]).astype(np.int64)
    rows = np.concatenate((plan.own, plan.control))
    flat = important.flat(rows, network.shape.mlp_width)
    right = right_without(network, problems, prompt, flat, without)
    cell, cells = without * 2 + kinds, 4 * many
    count = np.bincount(cell, minlength=cells).reshape(2, many, 2)
    share = np.bincount(cell, right, minlength=cells).reshape(2, many, 2) / count
    return ByHeuristic(
        plan.heuristic,
        tuple(heuristics[at].type for at in plan.heuristic),
        (plan.own >= 0).sum(1),
        plan.shared,
        count[0],
        share.transpose(1, 0, 2),
    )
