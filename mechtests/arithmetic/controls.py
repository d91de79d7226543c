"""Which neurons a knock-out takes: those of a prompt's heuristics, and as many others a layer.

Every control takes exactly as many neurons of each layer as the heuristics' own set. Where its pool
has too few, it goes on to neurons that are closer to that set, at last to the set itself: that
draws the control towards what it is held against, never away from it, and is reported.

Source: Nikankin et al. 2025, section 4.2, whose text has random neurons "from unassociated
heuristics" and whose code has a layer's important neurons without those just ablated; both are
here. The others are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mechtests.errors import MeasurementError, UsageError
from mechtests.tasks.prompts import Ids

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ranking = Literal["score", "multiplicity"]

THRESHOLD = 0.6
DECILES = 10
KS = (5, 10, 25)
DRAWS = 20
NONE = -1
"""Fills up the rows of sets that have fewer neurons than others."""


@dataclass(frozen=True, eq=False)
class Bag:
    """The important neurons of one operator, and how well each matches every heuristic.

    Sets of neurons are rows of it.

    Attributes:
        layer: The layer of each neuron, ``[neuron]``.
        index: Its number in that layer, ``[neuron]``.
        score: Shape ``[neuron, heuristic]``.
        attribution: What it is ranked by, ``[neuron]``.
        threshold: The score from which on a neuron matches.
    """

    layer: Ids
    index: Ids
    score: NDArray[np.floating]
    attribution: Floats
    threshold: float = THRESHOLD

    def __post_init__(self) -> None:
        """Refuse what is no bag.

        Raises:
            UsageError: Shapes differ, or a neuron is there twice.
            MeasurementError: A score or an attribution is NaN or infinite.
        """
        sizes = {len(each) for each in (self.layer, self.index, self.score, self.attribution)}
        if len(sizes) != 1 or self.score.ndim != 2:
            raise UsageError(
                "a bag needs a layer, a number, a row of scores and an attribution for each of "
                f"its neurons, got {len(self.layer)}, {len(self.index)}, "
                f"{list(self.score.shape)} and {len(self.attribution)}"
            )
        if len(set(zip(self.layer.tolist(), self.index.tolist(), strict=True))) < len(self.layer):
            raise UsageError("a bag needs every neuron once, but one is there twice")
        if not (np.isfinite(self.score).all() and np.isfinite(self.attribution).all()):
            raise MeasurementError(
                "a bag needs finite scores and attributions, got NaN or infinity"
            )

    def __len__(self) -> int:
        """How many neurons there are."""
        return len(self.layer)

    @cached_property
    def matched(self) -> Mask:
        """Which neuron matches which heuristic, ``[neuron, heuristic]``."""
        return np.asarray(self.score >= self.threshold, bool)

    @cached_property
    def classified(self) -> Mask:
        """Which neurons match any heuristic, ``[neuron]``."""
        return np.asarray(self.matched.any(1))

    @cached_property
    def layers(self) -> Ids:
        """The layers there are, ascending."""
        return np.unique(self.layer)

    @cached_property
    def place(self) -> Ids:
        """Each neuron's layer as a place in ``layers``, ``[neuron]``."""
        return np.searchsorted(self.layers, self.layer)

    def by_layer(self, rows: Ids) -> Ids:
        """How many of some neurons are in each of ``layers``."""
        return np.bincount(self.place[rows], minlength=len(self.layers))

    def multiplicity(self, holds: Mask) -> Ids:
        """How many heuristics that hold for a problem each neuron matches, ``[neuron, problem]``.

        Args:
            holds: Which heuristics hold for which problems, ``[heuristic, problem]``.

        Raises:
            UsageError: ``holds`` is of another number of heuristics.
        """
        if holds.ndim != 2 or len(holds) != self.score.shape[1]:
            raise UsageError(
                f"the bag is about {self.score.shape[1]} heuristics and needs to know for each "
                f"problem which hold, [heuristic, problem]; got {list(holds.shape)}"
            )
        counts = self.matched.astype(np.float32) @ holds.astype(np.float32)
        return counts.astype(np.int64)

    def associated(self, holds: Mask) -> Mask:
        """Which neurons match a heuristic that holds for the problem, ``[neuron, problem]``."""
        found: Mask = self.multiplicity(holds) > 0
        return found

    def deciles(self, values: Floats) -> Ids:
        """In which tenth of its layer each neuron is by some value, 0 to 9, ``[neuron]``."""
        order = np.lexsort((values, self.place))
        sizes = np.bincount(self.place, minlength=len(self.layers))
        starts = np.cumsum(sizes) - sizes
        rank = np.empty(len(self), np.int64)
        rank[order] = np.arange(len(self)) - starts[self.place[order]]
        return DECILES * rank // sizes[self.place]


def ranked(bag: Bag, holds: Mask, by: Ranking = "score") -> list[Ids]:
    """The neurons of one problem's heuristics in each layer, the first to be ablated first.

    Args:
        bag: The neurons.
        holds: Which heuristics hold for the problem, ``[heuristic]``.
        by: ``"score"``, the highest score among those heuristics, is the paper's;
            ``"multiplicity"``, how many of them a neuron matches, the code's. Each breaks the
            other's ties, and the bag's order what is left.
    """
    mine = np.flatnonzero(holds)
    matched = bag.matched[:, mine]
    count = matched.sum(1)
    best = np.where(matched, bag.score[:, mine], -np.inf).max(1, initial=-np.inf)
    keys = (-count, -best) if by == "score" else (-best, -count)
    order = np.lexsort(keys)  # the last key sorts first
    order = order[count[order] > 0]
    return [order[bag.place[order] == place] for place in range(len(bag.layers))]


# ---------------------------------------------------------------- drawing as many of each group


@dataclass(frozen=True, eq=False)
class Plan:
    """How many neurons are drawn from each group.

    Attributes:
        group: Of each neuron, ``[neuron]``.
        take: How many of each group, ``[group]``.
        outside: How many of them are not of the pool that they should be of.
    """

    group: Ids
    take: Ids
    outside: int

    def draw(self, draws: int, generator: np.random.Generator) -> Ids:
        """Rows of the bag, ``[draw, taken]``, each draw without replacement."""
        order = np.argsort(self.group + generator.random((draws, len(self.group))), axis=1)
        sizes = np.bincount(self.group, minlength=len(self.take))
        starts = np.cumsum(sizes) - sizes
        columns = [np.arange(start, start + n) for start, n in zip(starts, self.take, strict=True)]
        return order[:, np.concatenate(columns)]

    def mean_sum(self, values: Floats) -> float:
        """The sum of a value over a draw, the mean over all draws there are.

        Args:
            values: Of each neuron, ``[neuron]``.
        """
        sizes = np.bincount(self.group, minlength=len(self.take))
        totals = np.bincount(self.group, values, minlength=len(self.take))
        return float((self.take * totals / np.maximum(sizes, 1)).sum())


def by_tiers(bag: Bag, counts: Ids, tier: Ids, *, tiers: int) -> Plan:
    """As many neurons in each layer as asked for, from the first tier as far as it goes.

    Args:
        bag: The neurons.
        counts: How many in each of its layers.
        tier: The tier of each neuron, ``[neuron]``; 0 is the pool, and from ``tiers`` on none
            is taken.
        tiers: How many tiers there are.
    """
    width = tiers + 1
    group = bag.place * width + np.minimum(tier, tiers)
    have = np.bincount(group, minlength=len(counts) * width).reshape(-1, width)
    have[:, tiers] = 0
    before = np.cumsum(have, 1) - have
    take = np.clip(counts[:, None] - before, 0, have)
    return Plan(group, take.ravel(), int(take[:, 1:].sum()))


def like(bag: Bag, rows: Ids, stratum: Ids, tier: Ids, *, tiers: int) -> Plan:
    """As many neurons in each layer and tenth as some have, from the first tier.

    What a tenth lacks is taken from the nearest tenth of the first tier (of two as near, from
    the higher), and what the first tier lacks from the next ones.

    Args:
        bag: The neurons.
        rows: Those that are to be matched.
        stratum: The tenth of each neuron, ``[neuron]``.
        tier: The tier of each neuron, ``[neuron]``; from ``tiers`` on none is taken.
        tiers: How many tiers there are.
    """
    last = DECILES + tiers - 1
    group = np.where(tier == 0, stratum, DECILES - 1 + np.minimum(tier, tiers))
    group = bag.place * (last + 1) + group
    have = np.bincount(group, minlength=len(bag.layers) * (last + 1)).reshape(-1, last + 1)
    need = np.bincount(bag.place[rows] * DECILES + stratum[rows], minlength=len(have) * DECILES)
    take, own = np.zeros_like(have), 0
    for mine, asked, there in zip(take, need.reshape(-1, DECILES), have, strict=True):
        mine[:DECILES] = np.minimum(asked, there[:DECILES])
        own += int(mine.sum())
        short = asked - mine[:DECILES]
        for decile in np.flatnonzero(short)[::-1].tolist():
            nearest = sorted(range(DECILES), key=lambda other: (abs(other - decile), -other))
            for source in (*nearest, *range(DECILES, last)):
                moved = min(short[decile], there[source] - mine[source])
                mine[source] += moved
                short[decile] -= moved
    return Plan(group, take.ravel(), int(take.sum()) - own)


# ---------------------------------------------------------------- one prompt at a time

Name = Literal["unassociated", "attribution", "another prompt", "effect", "important"]
NAMES: tuple[Name, ...] = ("unassociated", "attribution", "another prompt", "effect", "important")
"""In this order: the paper's; matched in attribution; another prompt's heuristics; matched in
what the neurons do for this prompt; the released code's."""
DECIDING: tuple[Name, ...] = NAMES[:3]


@dataclass(frozen=True, eq=False)
class Choices:
    """The sets of neurons that are ablated on each prompt.

    Attributes:
        ks: How many neurons of each layer at most, ``k`` of them.
        controls: The names of the controls.
        draws: How many sets of each control.
        sets: Rows of the bag, ``[problem, k, 1 + control * draw, slot]``, with -1 for none; the
            first set is the heuristics' own.
        pool: How many neurons the prompt's heuristics have in each layer, ``[problem, layer]``.
        outside: Which part of a control's neurons is not of its own pool, as that had too few,
            ``[problem, k, control]``; 0 where none are ablated.
        overlap: Which part of them the heuristics' own set has as well, the same shape.
        imbalance: Mean attribution of a control's neurons minus that of the heuristics' own set,
            in standard deviations over the bag, the same shape.
    """

    ks: tuple[int, ...]
    controls: tuple[Name, ...]
    draws: int
    sets: NDArray[np.int32]
    pool: Ids
    outside: Floats
    overlap: Floats
    imbalance: Floats

    @property
    def removed(self) -> Ids:
        """How many neurons are ablated, by every set alike, ``[problem, k]``."""
        return np.asarray(np.minimum(self.pool[:, None], np.array(self.ks)[:, None]).sum(-1))

    @property
    def short(self) -> Mask:
        """Whether some layer has fewer than k neurons to ablate, ``[problem, k]``."""
        return np.asarray((self.pool[:, None] < np.array(self.ks)[:, None]).any(-1))


@dataclass(frozen=True, eq=False)
class _Chooser:
    """What is the same for all prompts.

    Attributes:
        bag: The neurons.
        associated: With which problem, ``[neuron, problem]``.
        ranked: Those neurons by layer, of every problem.
        effects: What each neuron does, ``[problem, neuron]``; of no problem where not known.
        draws: Sets of a control.
        generator: The source of the draws.
    """

    bag: Bag
    associated: Mask
    ranked: list[list[Ids]]
    effects: Floats
    draws: int
    generator: np.random.Generator

    def own(self, problem: int, k: int) -> Ids:
        """The first k neurons of each layer."""
        return np.concatenate([rows[:k] for rows in self.ranked[problem]])

    def control(self, name: Name, problem: int, own: Ids) -> tuple[Ids, float]:
        """The sets of a control, ``[draw, slot]``, and how many of a set's are not of its pool."""
        if name == "another prompt":
            sets, outside = zip(
                *(self._another(problem, own) for _ in range(self.draws)), strict=True
            )
            return np.stack(sets), float(np.mean(outside))
        plan = self._plan(name, problem, own)
        return plan.draw(self.draws, self.generator), plan.outside

    def _plan(self, name: Name, problem: int, own: Ids) -> Plan:
        bag, mine = self.bag, self.associated[:, problem]
        ablated = np.zeros(len(bag), bool)
        ablated[own] = True
        if name == "important":
            return by_tiers(bag, bag.by_layer(own), ablated.astype(np.int64), tiers=2)
        # free of the prompt's heuristics, then theirs beyond the cap, then the ablated themselves
        tier = mine.astype(np.int64) + ablated
        if name == "unassociated":  # never so far as to those that match nothing
            tier[~bag.classified] = 3
            return by_tiers(bag, bag.by_layer(own), tier, tiers=3)
        values = bag.attribution if name == "attribution" else np.abs(self.effects[problem])
        return like(bag, own, bag.deciles(values), tier, tiers=3)

    def _another(self, problem: int, own: Ids) -> tuple[Ids, int]:
        """Another prompt's first neurons; a further prompt's where it has too few."""
        left, taken = self.bag.by_layer(own), np.zeros(len(self.bag), bool)
        others = np.delete(np.arange(len(self.ranked)), problem)
        outside = len(own)
        for place, other in enumerate(self.generator.permutation(others).tolist()):
            _take(self.ranked[other], left, taken)
            outside = int(left.sum()) if place == 0 else outside
            if not left.any():
                break
        _take([own[self.bag.place[own] == place] for place in range(len(left))], left, taken)
        return np.flatnonzero(taken), outside


def _take(by_layer: list[Ids], left: Ids, taken: Mask) -> None:
    """Take the first neurons of each layer that are not taken, as many as are left to take."""
    for place, rows in enumerate(by_layer):
        new = rows[~taken[rows]][: left[place]]
        taken[new] = True
        left[place] -= len(new)


def choose(
    bag: Bag,
    holds: Mask,
    generator: np.random.Generator,
    *,
    effects: Floats | None = None,
    ks: Sequence[int] = KS,
    draws: int = DRAWS,
    by: Ranking = "score",
) -> Choices:
    """Which neurons are ablated on each prompt: its heuristics', and as many of each control.

    The controls, each with as many neurons in every layer as the heuristics' own set has:

    - ``"unassociated"``: random neurons that match heuristics, none of which holds for the prompt.
      Then neurons of the prompt's heuristics that were not ablated, then the ablated ones.
    - ``"attribution"``: random neurons without any of the prompt's heuristics, as many in each
      tenth of the layer's attributions. Then the nearest tenths, then as above.
    - ``"another prompt"``: the first neurons of the heuristics of another prompt, drawn from the
      given ones; they may be the prompt's own as well. Then of a further prompt.
    - ``"effect"``: like ``"attribution"``, by tenths of what the neurons do for this prompt.
      Heuristics work through that effect, so that true ones fail it too: it is shown only.
    - ``"important"``: random neurons of the bag without those ablated, as in the released code.

    Args:
        bag: The neurons.
        holds: Which heuristics hold for which prompts, ``[heuristic, problem]``.
        generator: The source of the draws.
        effects: What each neuron does for each prompt's answer, ``[problem, neuron]``, such as
            ``failures.contributions``; without it there is no control ``"effect"``.
        ks: How many neurons of each layer at most.
        draws: How many sets of each control.
        by: What ranks a prompt's neurons; see ``ranked``.

    Raises:
        UsageError: Shapes do not fit, or a k or the draws are below 1.
    """
    problems = holds.shape[-1]
    associated = bag.associated(holds)
    if min(*ks, draws) < 1:
        raise UsageError(f"knock-outs need k and draws of 1 or more, got k of {ks}, {draws} draws")
    if effects is not None and effects.shape != (problems, len(bag)):
        raise UsageError(
            f"effects are needed of {problems} problems and {len(bag)} neurons, "
            f"got {list(effects.shape)}"
        )
    names = tuple(name for name in NAMES if name != "effect" or effects is not None)
    known = np.zeros((0, len(bag))) if effects is None else effects
    order = [ranked(bag, holds[:, problem], by) for problem in range(problems)]
    chooser = _Chooser(bag, associated, order, known, draws, generator)
    return _chosen(chooser, tuple(ks), names)


def _chosen(chooser: _Chooser, ks: tuple[int, ...], names: tuple[Name, ...]) -> Choices:
    bag, draws, problems = chooser.bag, chooser.draws, len(chooser.ranked)
    pool = np.array([[len(rows) for rows in layers] for layers in chooser.ranked], np.int64)
    pool = pool.reshape(problems, len(bag.layers))
    slots = int(np.minimum(pool, max(ks)).sum(-1).max(initial=1))
    sets = np.full((problems, len(ks), 1 + len(names) * draws, slots), NONE, np.int32)
    facts = np.zeros((3, problems, len(ks), len(names)))
    spread = float(bag.attribution.std()) or 1.0
    for problem, (at, k) in product(range(problems), enumerate(ks)):
        if not len(own := chooser.own(problem, k)):
            continue
        sets[problem, at, 0, : len(own)] = own
        for place, name in enumerate(names):
            found, outside = chooser.control(name, problem, own)
            begin = 1 + place * draws
            sets[problem, at, begin : begin + draws, : len(own)] = found
            gap = bag.attribution[found].mean() - bag.attribution[own].mean()
            facts[:, problem, at, place] = outside / len(own), np.isin(found, own).mean(), gap
    facts[2] /= spread
    return Choices(ks, names, draws, sets, pool, *facts)


# ---------------------------------------------------------------- one heuristic at a time


def related_and_unrelated(
    holds: Mask, count: int, generator: np.random.Generator
) -> tuple[Ids, Ids]:
    """Some problems that a heuristic holds for and some that it does not hold for.

    The unrelated ones exclude every related one. (The released code excludes those related ones
    alone that it drew, so that its unrelated accuracy is drawn towards the related one.)

    Args:
        holds: Whether it holds, ``[problem]``.
        count: How many of each at most.
        generator: The source of the draws.
    """
    parts = []
    for side in (holds, ~holds):
        there = np.flatnonzero(side)
        parts.append(np.sort(generator.permutation(there)[:count]))
    return parts[0], parts[1]


def important_instead(
    bag: Bag, own: Ids, draws: int, generator: np.random.Generator
) -> tuple[Ids, float]:
    """As many random neurons of the bag in each layer as a heuristic has, and not its own.

    Args:
        bag: The neurons.
        own: Those of the heuristic.
        draws: How many sets.
        generator: The source of the draws.

    Returns:
        Rows of the bag, ``[draw, slot]``, and which part of them is the heuristic's own after
        all, as the layer has no others.
    """
    mine = np.zeros(len(bag), np.int64)
    mine[own] = 1
    plan = by_tiers(bag, bag.by_layer(own), mine, tiers=2)
    return plan.draw(draws, generator), plan.outside / max(len(own), 1)
