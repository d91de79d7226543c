"""Heads over training: which of them lose a function after it has formed, and which take it over.

Source: Tigges et al. 2024, section 3 and Figure 3; the rules are claims.md's ``heads-turn-over``
and ``named-heads-160m``. A head's peak, and where another one rises, are looked for on the
selection half; the evaluation half decides. Recorded means have no halves: what was looked for
on them is then corrected for the places among which it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mechtests import matched, means
from mechtests.checkpoints import Series
from mechtests.margins import TAIL
from mechtests.means import mean_of
from mechtests.measurement import Head, named
from mechtests.rules import CONTROL_LEVEL, beside
from mechtests.series import Curve, Floats
from mechtests.verdict import Control, Outcome, Verdict, not_applicable

AT_LEAST = 3
"""Checkpoints in a row above the threshold make a head one that carries the function."""
LAST = 3
"""So many checkpoints are the end."""
HALF = 0.5
"""Below this share of its peak a head has lost the function."""
ORDERS = 999
"""Random orders of the checkpoints that the true one is held against."""


@dataclass(frozen=True, eq=False)
class HeadCurve:
    """The score of one head over training.

    Attributes:
        head: Layer and head.
        chosen: On the selection half; the recorded means where there are no halves.
        judged: On the evaluation half, at the same checkpoints.
    """

    head: Head
    chosen: Curve
    judged: Curve

    @classmethod
    def of(cls, series: Series, value: str, head: Head) -> HeadCurve:
        """A head's curve of a value ``[prompt, layer, head]``."""
        judged = series.curve(value, "evaluation", *head)
        if series.recorded:
            return cls(head, judged, judged)
        return cls(head, series.curve(value, "selection", *head), judged)

    @property
    def name(self) -> str:
        """The head as people write it: ``9.6``."""
        return named([self.head])

    @property
    def searched(self) -> int:
        """Among how many checkpoints one is looked for on the values that decide."""
        return len(self.judged) if self.judged.is_recorded else 1

    @property
    def searched_pairs(self) -> int:
        """Among how many pairs of checkpoints one is looked for on the values that decide."""
        return max(1, math.comb(self.searched, 2))

    @property
    def peak(self) -> int:
        """The checkpoint with the highest score on the selection half, by its place."""
        return int(np.argmax(self.chosen.means))

    def carries(self, threshold: float) -> bool:
        """Whether it is above the threshold at three checkpoints in a row, or at all of fewer."""
        above = (self.chosen.means > threshold).astype(int)
        window = min(AT_LEAST, len(above))
        return bool((np.convolve(above, np.ones(window, dtype=int), "valid") == window).any())

    @property
    def lost_at(self) -> int | None:
        """The first checkpoint after the peak from which on it stays below half of it."""
        below = self.chosen.means < HALF * self.chosen.means[self.peak]
        stays = np.logical_and.accumulate(below[::-1])[::-1]
        after = np.flatnonzero(stays[self.peak :])
        return self.peak + int(after[0]) if len(after) else None


def ends_below_half(curve: HeadCurve) -> Verdict:
    """Whether a head's last three checkpoints are below half of its peak, on average.

    Decided on the mean of the last three minus half of the peak, prompt by prompt.

    Args:
        curve: The head's score over training.
    """
    weights = np.zeros(len(curve.judged))
    weights[-LAST:] += 1 / len(weights[-LAST:])
    end = float(weights @ curve.judged.means)
    weights[curve.peak] -= HALF
    peak = curve.judged.means[curve.peak]
    verdict = means.below(
        curve.judged.weighted(weights), 0.0, what=f"its last {LAST} checkpoints - half of its peak"
    )
    said = f"{curve.name}: {peak:.3g} at {curve.judged.labels[curve.peak]}, {end:.3g} at the end"
    return _searched(replace(verdict, sentence=f"{said}; {verdict.sentence}"), curve.searched)


def rises_after(curve: HeadCurve, position: float, threshold: float) -> tuple[Verdict, int] | None:
    """Whether a head rises after a moment from below half of its later peak to above a threshold.

    Args:
        curve: The head's score over training.
        position: The moment in tokens (or steps).
        threshold: The role's.

    Returns:
        The verdict and the place of the later peak; None where fewer than two checkpoints are
        there from the moment on.
    """
    places = np.flatnonzero(curve.judged.positions >= position)
    if len(places) < 2:
        return None
    scores = curve.chosen.means
    high = int(places[1:][np.argmax(scores[places[1:]])])
    before = places[places < high]
    low = int(before[np.argmin(scores[before])])
    weights = np.zeros(len(scores))
    weights[low], weights[high] = 1.0, -HALF
    labels = curve.judged.labels
    below = means.below(
        curve.judged.weighted(weights), 0.0, what=f"{curve.name} at {labels[low]} - half of it"
    )
    above = means.above(
        curve.judged.points[high], threshold, what=f"{curve.name} at {labels[high]}"
    )
    low_mean, high_mean = curve.judged.means[low], curve.judged.means[high]
    holds = below.outcome is above.outcome is Outcome.HOLDS
    ps = [1.0 if part.p is None else part.p for part in (below, above)]
    both = Verdict(
        Outcome.HOLDS if holds else Outcome.INCONCLUSIVE,
        f"{curve.name} rises from {low_mean:.3g} at {labels[low]} to {high_mean:.3g} at "
        f"{labels[high]}",
        p=max(ps),
        parts=(below, above),
    )
    return _searched(both, curve.searched_pairs), high


@dataclass(frozen=True)
class Takeover:
    """One head loses the function, and another has it afterwards.

    Attributes:
        loser: The head that ends below half of its peak.
        winner: The head that rises after that peak.
        at: Where the winner is highest, the checkpoint's label.
        p: That both is so, before a correction for the pairs.
    """

    loser: HeadCurve
    winner: HeadCurve
    at: str
    p: float


@dataclass(frozen=True, eq=False)
class Turnover:
    """What became of the heads that carry a function.

    Attributes:
        verdict: Whether they change.
        carriers: The heads above the threshold at three checkpoints in a row.
        takeovers: The pairs that decide it, surest first.
    """

    verdict: Verdict
    carriers: tuple[HeadCurve, ...] = ()
    takeovers: tuple[Takeover, ...] = ()

    @property
    def losers(self) -> list[HeadCurve]:
        """The heads that lose the function to another, each once."""
        return list({pair.loser.head: pair.loser for pair in self.takeovers}.values())


def turnover(
    curves: Iterable[HeadCurve], threshold: float, *, what: str, generator: np.random.Generator
) -> Turnover:
    """Whether one head loses a function after its peak and another one rises.

    It holds when for some pair of heads both is sure after Bonferroni over the heads and the
    pairs, and the checkpoints' order is not as good as any other (``in_another_order``): a run
    that wanders at random has heads that fall and rise too. It is refuted when every head
    surely stays above half of its peak.

    Args:
        curves: The scores of the heads in question, each over training.
        threshold: The role's.
        what: The role, in the plural: ``"name movers"``.
        generator: For the orders.
    """
    curves = list(curves)
    carriers = tuple(curve for curve in curves if curve.carries(threshold))
    if not carriers:
        return Turnover(
            not_applicable(f"no head is above {threshold:g} at {AT_LEAST} checkpoints in a row")
        )
    losses = [ends_below_half(curve) for curve in carriers]
    pairs = sorted(_takeovers(carriers, losses, threshold), key=lambda pair: pair.p)
    sure = tuple(pair for pair in pairs if pair.p <= TAIL)
    kept = [_p(loss.p_refuted) for loss in losses]
    p, p_refuted = min([pair.p for pair in pairs], default=1.0), max(kept)
    head = f"{len(carriers)} {what} at {AT_LEAST} checkpoints in a row"
    if sure:
        outcome, said = Outcome.HOLDS, "; ".join(map(_spoken, _one_a_loser(sure)))
    elif p_refuted <= TAIL:
        outcome, said = Outcome.REFUTED, f"all stay above half of their peak: {_all(losses)}"
    else:
        outcome, said = Outcome.INCONCLUSIVE, _open(carriers, losses, pairs)
    verdict = Verdict(outcome, f"{head}: {said}", p=p, p_refuted=p_refuted, parts=tuple(losses))
    return Turnover(beside(verdict, in_another_order(curves, generator)), carriers, sure)


def in_another_order(curves: Sequence[HeadCurve], generator: np.random.Generator) -> Control:
    """The control that scores change less between neighbours than in other orders.

    Squared changes from one checkpoint to the next, summed over the heads' selection halves,
    against 999 random orders. Where they are not smaller than at random, what a head does at
    one checkpoint says nothing of the next, and nothing can be said to be lost or taken over.

    Args:
        curves: The scores of all heads in question.
        generator: For the orders.
    """
    scores = [curve.chosen.means for curve in curves]
    all_positions = np.unique(np.concatenate([curve.chosen.positions for curve in curves]))
    places = [np.searchsorted(all_positions, curve.chosen.positions) for curve in curves]

    def smooth(rank: np.ndarray) -> float:
        orders = zip(scores, places, strict=True)
        moved = (values[np.argsort(rank[place])] for values, place in orders)
        return -sum(float((np.diff(values) ** 2).sum()) for values in moved)

    ranks = np.arange(len(all_positions))
    draws = [smooth(generator.permutation(ranks)) for _ in range(ORDERS)]
    p = matched.permutation_p(smooth(ranks), draws)
    least = max(1 / (ORDERS + 1), 2 / math.factorial(len(ranks)))
    return Control(
        "another order of the checkpoints",
        f"change between neighbouring checkpoints below that in other orders (p = {p:.2g})",
        reached=p > CONTROL_LEVEL,
        p=p,
        p_min=least,
    )


def _takeovers(
    carriers: Sequence[HeadCurve], losses: Sequence[Verdict], threshold: float
) -> Iterable[Takeover]:
    """Every pair, with its p after Bonferroni over the heads.

    n heads may be wrongly called lost. After the peak of one that is truly lost, n may be wrongly
    called risen; of several such heads the one with the earliest peak counts, since what rises
    after a later one rises after that too. So n times either p is enough, at half a level each.
    """
    for loser, loss in zip(carriers, losses, strict=True):
        after = float(loser.judged.positions[loser.peak])
        for winner in carriers:
            if winner is loser or loser.lost_at is None:
                continue
            if found := rises_after(winner, after, threshold):
                rise, high = found
                p = len(carriers) * max(_p(loss.p), _p(rise.p))
                yield Takeover(loser, winner, winner.judged.labels[high], min(p, 1.0))


def _one_a_loser(pairs: Sequence[Takeover]) -> list[Takeover]:
    """The surest takeover from each head; of equally sure ones the earliest."""
    first: dict[Head, Takeover] = {}
    for pair in pairs:
        first.setdefault(pair.loser.head, pair)
    return list(first.values())[:3]


def _spoken(pair: Takeover) -> str:
    loser, winner = pair.loser.judged, pair.winner.judged
    end: Floats = loser.means[-LAST:]
    return (
        f"{pair.loser.name} falls from {loser.means[pair.loser.peak]:.3g} at "
        f"{loser.labels[pair.loser.peak]} to {end.mean():.3g} at the end, {pair.winner.name} rises "
        f"to {winner.means[winner.index(pair.at)]:.3g} at {pair.at}"
    )


def _all(losses: Sequence[Verdict]) -> str:
    return "; ".join(loss.sentence.partition(";")[0] for loss in losses[:3])


def _open(
    carriers: Sequence[HeadCurve], losses: Sequence[Verdict], pairs: Sequence[Takeover]
) -> str:
    """What is not sure: whether any head loses it, or whether another one rises."""
    lost = [
        curve
        for curve, loss in zip(carriers, losses, strict=True)
        if _p(loss.p) * len(carriers) <= TAIL
    ]
    if lost:
        names = ", ".join(curve.name for curve in lost)
        return f"{names} loses it, and of no other head it is sure that it rises after that peak"
    kept = sum(loss.outcome is Outcome.REFUTED for loss in losses)
    if hindrance := next((c.judged.undecidable for c in carriers if c.judged.undecidable), None):
        return hindrance
    open_ = next(loss for loss in losses if loss.outcome is not Outcome.REFUTED)
    return f"{kept} stay above half of their peak; undecided {open_.sentence}"


def _p(value: float | None) -> float:
    return 1.0 if value is None else value


def _searched(verdict: Verdict, places: int) -> Verdict:
    """The verdict where what decides was looked for among so many places: Bonferroni."""
    if places == 1 or verdict.p is None:
        return verdict
    p = min(1.0, places * verdict.p)
    if verdict.outcome is Outcome.HOLDS and p > TAIL:
        verdict = replace(verdict, outcome=Outcome.INCONCLUSIVE)
    return replace(verdict, p=p)


def halves_agree(curve: HeadCurve) -> tuple[float, float]:
    """How far the two halves' scores are apart at the peak, and how much is lost by the end."""
    apart = abs(float(curve.chosen.means[curve.peak] - curve.judged.means[curve.peak]))
    end = float(mean_of(curve.judged.over_last(LAST)).mean)
    return apart, float(curve.judged.means[curve.peak]) - end
