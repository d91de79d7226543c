"""Which neurons are knocked out: those of heuristics that a prompt needs, and its controls.

Neurons are named by their row among the important ones, and sets of them are arrays of rows, padded
with -1 at the end.

Source: Nikankin et al. 2025, pages 7 and 8, and its code. Where we differ:

- The paper's control is neurons matched by heuristics that do not hold ("unassociated"). Its code
  takes other important neurons, whatever they match; ours is matched on attribution besides.
- Random controls are drawn some times, not once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechtests.arithmetic.heuristics import Mask
from mechtests.errors import UsageError
from mechtests.tasks.prompts import Ids

Floats = NDArray[np.floating[Any]]
Rows = NDArray[np.int32]

CONTROLS = ("unassociated", "attribution", "other")
DECILES = 10


@dataclass(frozen=True, eq=False)
class Important:
    """The important neurons of an operator, and what they match.

    Attributes:
        layer: Shape ``[neuron]``.
        index: Their number in the layer, shape ``[neuron]``.
        attribution: What ranked them, shape ``[neuron]``.
        score: How well each heuristic describes each, shape ``[neuron, heuristic]``.
        matched: Which scores are a match, the same shape.
    """

    layer: Ids
    index: Ids
    attribution: Floats
    score: Floats
    matched: Mask

    def __post_init__(self) -> None:
        """Refuse arrays of different neurons."""
        neurons = {len(each) for each in (self.layer, self.index, self.attribution, self.score)}
        if len(neurons) > 1 or self.score.shape != self.matched.shape:
            raise UsageError(
                f"important neurons need a layer, an index, an attribution and scores each, got "
                f"{self.layer.shape}, {self.index.shape}, {self.attribution.shape}, scores "
                f"{self.score.shape} and matches {self.matched.shape}; pass those of one list"
            )
        if len(np.unique(np.stack((self.layer, self.index)), axis=1).T) < len(self.layer):
            raise UsageError("an important neuron was given twice; pass each once")

    def __len__(self) -> int:
        """How many there are."""
        return len(self.layer)

    @property
    def layers(self) -> Ids:
        """The layers they are in, ascending."""
        return np.unique(self.layer)

    @property
    def stratum(self) -> Ids:
        """The place of each one's layer among ``layers``, shape ``[neuron]``."""
        found: Ids = np.searchsorted(self.layers, self.layer)
        return found

    def flat(self, rows: Rows, width: int) -> Rows:
        """Rows as ``layer * width + index``, -1 staying -1: what ``knockouts`` runs."""
        numbers = (self.layer * width + self.index).astype(np.int32)
        found: Rows = np.where(rows < 0, np.int32(-1), numbers[rows])
        return found


@dataclass(frozen=True, eq=False)
class GuidedSets:
    """What is knocked out for each prompt: branch 0 its heuristics' neurons, then controls.

    Attributes:
        sets: Rows, shape ``[prompt, k, branch, slot]``; control c's draw d is branch
            ``1 + c * draws + d``.
        pool: How many neurons the prompt's heuristics have, shape ``[prompt, layer]``.
        knocked: How many are knocked out, shape ``[k, prompt]``.
        shortfall: How many fewer a control has than that, a mean over draws, shape
            ``[control, k, prompt]``.
        overlap: How many of a control's are neurons of the prompt's heuristics, be they knocked
            out or beyond k, likewise.
    """

    sets: Rows
    pool: Ids
    knocked: Ids
    shortfall: Floats
    overlap: Floats


def guided_sets(
    important: Important,
    holds: Mask,
    generator: np.random.Generator,
    *,
    ks: Sequence[int],
    draws: int,
) -> GuidedSets:
    """The neurons of each prompt's heuristics, at most k a layer, and controls by layer.

    A prompt's neurons are those matched by a heuristic that holds for it, ranked by the highest
    score of such a heuristic, ties in the order given.
    Controls, each with as many neurons in each layer, or all there are:

    - ``unassociated``: random ones that are matched, and by no heuristic that holds;
    - ``attribution``: random ones of the same deciles of attribution in the layer, of all
      important neurons but those knocked out; of the nearest decile where one is used up, the
      higher of two;
    - ``other``: those of another random prompt's heuristics, ranked likewise.

    Args:
        important: The important neurons of one operator.
        holds: Which heuristics hold for which prompts, shape ``[prompt, heuristic]``.
        generator: The source of the draws.
        ks: How many a layer at most, each from 1 on.
        draws: Of each control.

    Raises:
        UsageError: Shapes do not fit, or there is nothing to draw or to draw from.
    """
    _refuse(important, holds, ks, draws)
    places = np.stack([_places(important, row) for row in holds])
    generators = generator.spawn(len(CONTROLS))
    others = _other_prompts(len(holds), draws, generators[2])
    strata, layers = important.stratum, len(important.layers)
    shape = len(holds), len(ks), 1 + len(CONTROLS) * draws
    sets = np.full((*shape, min(max(ks) * layers, len(important))), -1, np.int32)
    counts, own = np.zeros((2, *shape), np.int64)
    for prompt, place in enumerate(places):
        noise = [each.random((draws, len(important))) for each in generators]
        free = important.matched.any(1) & (place == NOWHERE)
        for at, k in enumerate(ks):
            chosen = place < k
            asked = np.bincount(strata[chosen], minlength=layers)
            drawn = (
                chosen[None],
                drawn_by_group(free, strata, asked, noise[0]),
                _alike(chosen, strata, important.attribution, noise[1]),
                places[others[prompt]] < asked[strata],
            )
            mask = np.concatenate(drawn)
            rows = packed(mask)
            sets[prompt, at, :, : rows.shape[1]] = rows
            counts[prompt, at], own[prompt, at] = mask.sum(1), mask[:, place < NOWHERE].sum(1)
    pool = [np.bincount(strata[each < NOWHERE], minlength=layers) for each in places]
    missing = counts[..., :1] - counts[..., 1:]
    shortfall, overlap = (
        each.reshape(*shape[:2], len(CONTROLS), draws).mean(-1).transpose(2, 1, 0)
        for each in (missing, own[..., 1:])
    )
    return GuidedSets(sets, np.stack(pool), counts[..., 0].T, shortfall, overlap)


NOWHERE = np.iinfo(np.int64).max
"""The place of a neuron that no heuristic of the prompt matches."""


def _refuse(important: Important, holds: Mask, ks: Sequence[int], draws: int) -> None:
    if not len(important) or len(holds) < 2 or draws < 1 or not len(ks) or min(ks) < 1:
        raise UsageError(
            f"a knock-out by prompt needs important neurons, two prompts, a draw and some k from 1 "
            f"on, got {len(important)} neurons, {len(holds)} prompts, {draws} draws, k = {ks}"
        )
    refuse_other_heuristics(important, holds)


def refuse_other_heuristics(important: Important, holds: Mask) -> None:
    """Refuse to be told of other heuristics than were scored.

    Raises:
        UsageError: There are more or fewer of them.
    """
    if holds.shape[1] != important.score.shape[1]:
        raise UsageError(
            f"{important.score.shape[1]} heuristics were scored, and {holds.shape[1]} are told to "
            "hold or not; pass those of one library"
        )


def _places(important: Important, holds: Mask) -> Ids:
    """Each neuron's place in its layer among those of a prompt's heuristics, from 0 on."""
    own = important.matched[:, holds]
    rank = np.where(own, important.score[:, holds], -np.inf).max(1, initial=-np.inf)
    rows = np.flatnonzero(own.any(1))
    place = np.full(len(important), NOWHERE)
    place[rows] = _places_in(important.stratum[rows], -rank[rows])
    return place


def _places_in(group: Ids, key: Floats) -> Ids:
    """How many of the same group come before, by key, ties in the order given."""
    order = np.lexsort((key, np.broadcast_to(group, key.shape)))
    starts = np.cumsum(np.bincount(group, minlength=1)) - np.bincount(group, minlength=1)
    place = np.empty(key.shape, np.int64)
    along = np.broadcast_to(np.arange(len(group)), key.shape)
    np.put_along_axis(place, order, along, -1)
    found: Ids = place - starts[group]
    return found


def drawn_by_group(free: Mask, group: Ids, counts: Ids, noise: Floats) -> Mask:
    """As many random free neurons of each group, or all there are, ``[draw, neuron]``."""
    rows = np.flatnonzero(free & (counts[group] > 0))
    mask = np.zeros(noise.shape, bool)
    mask[:, rows] = _places_in(group[rows], noise[:, rows]) < counts[group[rows]]
    return mask


def _alike(chosen: Mask, strata: Ids, values: Floats, noise: Floats) -> Mask:
    """Random neurons but the chosen, of their layers and deciles, ``[draw, neuron]``."""
    sizes = np.bincount(strata)
    decile = _places_in(strata, values) * DECILES // sizes[strata]
    group = strata * DECILES + decile
    shape = len(sizes), DECILES
    asked = np.bincount(group[chosen], minlength=len(sizes) * DECILES).reshape(shape)
    left = np.bincount(group[~chosen], minlength=len(sizes) * DECILES).reshape(shape)
    counts = np.stack([_quota(*each) for each in zip(asked, left, strict=True)])
    return drawn_by_group(~chosen, group, counts.ravel(), noise)


def _quota(asked: Ids, left: Ids) -> Ids:
    """How many to take of each decile: what is asked, or else of the nearest with some left."""
    quota = np.minimum(asked, left)
    for decile in np.repeat(np.arange(len(asked)), asked - quota)[::-1]:
        open_ = np.flatnonzero(left > quota)
        if not len(open_):
            break
        distance = np.abs(open_ - decile) - 0.5 * (open_ > decile)
        quota[open_[distance.argmin()]] += 1
    return quota


def _other_prompts(many: int, draws: int, generator: np.random.Generator) -> Ids:
    """Other prompts of each, none twice before all were there once, ``[prompt, draw]``."""
    found = np.empty((many, draws), np.int64)
    for prompt in range(many):
        order = np.resize(generator.permutation(many - 1), draws)
        found[prompt] = order + (order >= prompt)
    return found


def packed(mask: Mask) -> Rows:
    """Sets of rows from masks ``[set, row]``, padded with -1, shape ``[set, slot]``."""
    counts = mask.sum(1)
    sets = np.full((len(mask), counts.max(initial=0)), -1, np.int32)
    at, rows = np.nonzero(mask)
    sets[at, np.arange(len(at)) - (np.cumsum(counts) - counts)[at]] = rows
    return sets
