"""Heuristics over training: whether the final ones accumulate.

What a model has at a checkpoint is a set of triples (heuristic, layer, neuron), see
``matching.triples``. Where they are of several operators, a heuristic's name begins with its
operator and ``": "``, and operators weigh the same. Sets have no prompts to be sampled again: where
they were also matched without each tenth of the prompts, a statistic has a delete-a-group jackknife
over these; else it is exact.

Source: Nikankin et al. 2025, Figure 10. Where we differ: the final model has all of
its triples, not those of its 50 highest neurons a layer; the final checkpoint, equal to itself, is
in no trend; and the claim has a control.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mechtests import means
from mechtests.circuits.stability import CHURNS, FEWEST, LAGS, fixed_lag_contrast
from mechtests.errors import MeasurementError, UsageError
from mechtests.matched import permutation_p
from mechtests.means import Mean
from mechtests.rules import CONTROL_LEVEL, beside, every
from mechtests.verdict import Control, Verdict, not_applicable

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]
Triple = tuple[str, int, int]
Neuron = tuple[int, int]

OF = ": "
RISE = 0.1
LARGEST_STEP = 0.5
EXACT = "sets without prompts to sample, compared exactly"


# ---------------------------------------------------------------- sets over training


@dataclass(frozen=True)
class Heuristics:
    """The triples at each checkpoint of one run, the final one last.

    Attributes:
        sets: Triples (heuristic, layer, neuron), in the order of training.
    """

    sets: tuple[frozenset[Triple], ...]

    @classmethod
    def of(cls, sets: Sequence[AbstractSet[Triple]]) -> Heuristics:
        """The triples at each checkpoint.

        Raises:
            MeasurementError: There are none at the final one.
        """
        if not sets or not sets[-1]:
            raise MeasurementError(
                f"heuristics over training need some at the final checkpoint, got none at the last "
                f"of {len(sets)}; look at what was matched there"
            )
        return cls(tuple(map(frozenset, sets)))

    def __len__(self) -> int:
        """How many checkpoints there are."""
        return len(self.sets)

    @cached_property
    def union(self) -> tuple[Triple, ...]:
        """Every triple there is at some checkpoint, in order."""
        return tuple(sorted(frozenset().union(*self.sets)))

    @cached_property
    def layers(self) -> Ids:
        """The layer of each triple of the union, shape ``[triple]``."""
        return np.array([layer for _, layer, _ in self.union], np.int64)

    @cached_property
    def there(self) -> Mask:
        """Which triples there are at each checkpoint, ``[checkpoint, triple]``."""
        places = {triple: at for at, triple in enumerate(self.union)}
        found = np.zeros((len(self), len(self.union)), bool)
        for row, triples in zip(found, self.sets, strict=True):
            row[[places[triple] for triple in triples]] = True
        return found

    @cached_property
    def operators(self) -> Ids:
        """The operator of each triple of the union, counted from 0, shape ``[triple]``."""
        names = [name.rpartition(OF)[0] for name, _, _ in self.union]
        found: Ids = np.unique(names, return_inverse=True)[1].ravel()
        return found

    @cached_property
    def strata(self) -> Ids:
        """The operator and layer of each triple as one number, shape ``[triple]``."""
        return self.operators * (int(self.layers.max()) + 1) + self.layers

    @property
    def present(self) -> Floats:
        """The share of the final triples there is at each checkpoint, the final one included.

        Of several operators the mean of their shares.
        """
        return _present(self.there, self.operators)

    def by_chance(self, possible: Mapping[int, int]) -> Floats:
        """The share of the final triples that as many random ones a layer would have.

        The mean of the hypergeometric distribution, layer by layer. It has no p: the heuristics
        that a neuron matches come and go together.

        Args:
            possible: How many triples each layer could have: its neurons times the heuristics.

        Returns:
            Shape ``[checkpoint]``.
        """
        counts = _by_layer(self.there, self.layers)
        _, firsts = np.unique(self.layers, return_index=True)
        whole = np.array([possible[int(self.layers[at])] for at in firsts])
        if (counts > whole).any():
            raise UsageError("a layer has more triples than it could have; check what is possible")
        shared: Floats = (counts * counts[-1] / whole).sum(1) / counts[-1].sum()
        return shared


def _present(there: Mask, operators: Ids) -> Floats:
    """The share of the last triples at each checkpoint, the mean over operators that have some."""
    shares = [
        (there & there[-1])[:, operators == operator].sum(1) / total
        for operator in np.unique(operators)
        if (total := there[-1, operators == operator].sum())
    ]
    found: Floats = np.mean(shares, 0)
    return found


def _by_layer(there: Mask, layers: Ids) -> Ids:
    """How many triples of each layer there are, ``[checkpoint, layer]``."""
    return np.stack([there[:, layers == layer].sum(1) for layer in np.unique(layers)], 1)


def jaccard(one: Mask, other: Mask) -> Floats:
    """Shared over all of two sets, along the last axis; 1 of two empty ones."""
    either = (one | other).sum(-1)
    return np.where(either > 0, (one & other).sum(-1) / np.maximum(either, 1), 1.0)


# ---------------------------------------------------------------- accumulating


def trend(present: Floats) -> float:
    """The mean of the last third of a window minus that of the first; checkpoints weigh alike."""
    third = len(present) // 3
    return float(present[-third:].mean() - present[:third].mean())


def over_half(present: Floats) -> float:
    """The largest step of a window minus half of its whole rise, from its first to its last."""
    rise = float(present[-1] - present[0])
    return float(np.diff(present).max()) - LARGEST_STEP * rise


def accumulates(
    series: Sequence[AbstractSet[Triple]],
    generator: np.random.Generator,
    *,
    left_out: Sequence[Sequence[AbstractSet[Triple]]] = (),
    possible: Mapping[int, int] | None = None,
    more_than: float = RISE,
) -> Verdict:
    """Whether the final heuristics accumulate gradually.

    The share of the final triples rises by more than 0.1 from the first to the last third of the
    checkpoints before the final one; no step is over half of the whole rise; and at equal lags
    later checkpoints are more alike than earlier ones, which a series that only drifts is not. The
    last has an error over checkpoints, each left out in turn (``fixed_lag_contrast``): a turnover
    that varies is not in the churn null, whose series have one.

    Args:
        series: The triples at checkpoints equally far apart, the final one last; 7 or more.
        generator: For the churn null.
        left_out: The same series matched without each group of prompts, ``[group][checkpoint]``.
        possible: How many triples each layer could have, for what chance gives.
        more_than: What the trend must be above.

    Raises:
        MeasurementError: There is no triple at the final checkpoint.
    """
    if len(series) < FEWEST + 1:
        return not_applicable(
            f"heuristics over training need {FEWEST} checkpoints before the final one, got "
            f"{len(series) - 1}"
        )
    whole, parts = Heuristics.of(series), [Heuristics.of(each) for each in left_out]
    if any(len(part) != len(whole) for part in parts):
        raise UsageError("series without a group of prompts need the checkpoints of the whole one")
    window = f"over {len(whole) - 1} checkpoints before the final one"
    verdict = every(
        means.above(
            _jackknifed(lambda each: trend(each.present[:-1]), whole, parts),
            more_than,
            what=f"trend of the share of the final triples {window}",
        ),
        means.below(
            _jackknifed(lambda each: over_half(each.present[:-1]), whole, parts),
            0.0,
            what="largest step minus half of the whole rise",
        ),
        _at_equal_lags(whole, parts),
        what=f"{len(whole.sets[-1])} final heuristics",
    )
    shown = {} if possible is None else {"by chance": whole.by_chance(possible).tolist()}
    sizes = [len(each) for each in whole.sets]
    told = verdict.showing(present=whole.present.tolist(), sizes=sizes, **shown)
    return beside(told, churn(whole, generator), trend_by_churn(whole, generator))


def alike(series: Heuristics) -> Mean | None:
    """The Jaccard index of triples at equal lags, late minus early; see ``fixed_lag_contrast``."""
    return _alike(series.there, series.operators)


def _alike(there: Mask, operators: Ids) -> Mean | None:
    """The same of sets as masks, the mean over operators of their likeness."""
    parts = [there[:, operators == operator] for operator in np.unique(operators)]

    def likeness(lag: int) -> Floats:
        found: Floats = np.mean([jaccard(part[:-lag], part[lag:]) for part in parts], 0)
        return found

    return fixed_lag_contrast(likeness, len(there))


def _at_equal_lags(whole: Heuristics, parts: Sequence[Heuristics]) -> Verdict:
    what = f"likeness at lags of {', '.join(map(str, LAGS))} checkpoints, last third minus first"
    found = alike(whole)
    assert found is not None, (
        "7 checkpoints have pairs in both thirds, and no likeness is undefined"
    )
    if parts:
        over_groups = _jackknifed(lambda each: _contrast(each.there, each.operators), whole, parts)
        degrees = min(found.degrees, over_groups.degrees)
        error = math.hypot(found.error, over_groups.error)
        found = replace(
            found, error=error, degrees=degrees, over=f"{found.over}, {over_groups.over}"
        )
    return means.above(found, 0.0, what=what)


def _contrast(there: Mask, operators: Ids) -> float:
    found = _alike(there, operators)
    return math.nan if found is None else found.mean


def _jackknifed(
    statistic: Callable[[Heuristics], float], whole: Heuristics, parts: Sequence[Heuristics]
) -> Mean:
    """A statistic of a series, its error from the series without each group; exact without any."""
    value = statistic(whole)
    if not parts:
        return Mean(value, 0.0, over=EXACT)
    without = np.array([statistic(part) for part in parts])
    n = len(without)
    error = math.sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum()))
    return Mean(value, error or math.nan, n - 1, over=f"{n} groups of prompts", unknown=SAME)


SAME = "no group of prompts changes it, so there is no interval"


# ---------------------------------------------------------------- the churn null


def churn(series: Heuristics, generator: np.random.Generator) -> Control:
    """The control of 199 stationary series with the same sizes and turnover a step.

    The run's own steps in random order: at each, as many triples of every layer are replaced as
    at one of the run's steps, by others of the layer among all that are there at some time, so
    that triples come back as they do in the run. Likeness at equal lags then changes by chance,
    with the sizes, and with which steps happen to be late. One turnover for all steps would be
    too narrow a null: triples of a neuron go together and training is uneven, and with that a
    stationary series passed 20 to 30 times in a hundred.

    Args:
        series: The triples of the run.
        generator: For the series.
    """
    return _churned(series, generator, _contrast, "likeness at equal lags", decides=True)


def trend_by_churn(series: Heuristics, generator: np.random.Generator) -> Control:
    """The trend of the share of the final triples in the same stationary series, shown only.

    It rises in them too, since what is nearer the end is more like the end.
    """
    return _churned(series, generator, _trend_of, "the share of the final triples", decides=False)


def _trend_of(there: Mask, operators: Ids) -> float:
    return trend(_present(there, operators)[:-1])


def _churned(
    series: Heuristics,
    generator: np.random.Generator,
    statistic: Callable[[Mask, Ids], float],
    what: str,
    *,
    decides: bool,
) -> Control:
    there, operators = series.there, series.operators
    rate = float(turnovers(there).mean())
    observed = statistic(there, operators)
    draws = [
        statistic(stationary(there, series.strata, generator), operators) for _ in range(CHURNS)
    ]
    p = permutation_p(observed, draws)
    return Control(
        f"churn of {what}",
        f"churn: {what} changes by {observed:.2g}, and in {CHURNS} stationary series of the same "
        f"sizes and turnover ({rate:.2g} a step) by {np.mean(draws):.2g} on average, p = {p:.2g}",
        reached=p > CONTROL_LEVEL,
        p=p,
        p_min=1 / (CHURNS + 1),
        values=tuple(draws),
        decides=decides,
        observed=float(observed),
    )


def turnovers(there: Mask) -> Floats:
    """At each step the part of the smaller set that the other has not, ``[checkpoint - 1]``."""
    sizes = there.sum(1)
    smaller = np.minimum(sizes[1:], sizes[:-1])
    lost: Floats = 1.0 - (there[1:] & there[:-1]).sum(1) / np.maximum(smaller, 1)
    return np.where(smaller > 0, lost, 0.0)


def stationary(there: Mask, strata: Ids, generator: np.random.Generator) -> Mask:
    """One series that only turns over: the sizes of another, and its turnovers in random order.

    Args:
        there: Which triples there are at each checkpoint of the other, ``[checkpoint, triple]``.
        strata: The layer (and operator) of each triple, each with its own sizes and turnovers; the
            steps of all change places together.
        generator: The source of the series.
    """
    found = np.zeros_like(there)
    order = generator.permutation(len(there) - 1)
    for stratum in np.unique(strata):
        columns = np.flatnonzero(strata == stratum)
        own = there[:, columns]
        found[:, columns] = _wandering(own.sum(1), turnovers(own)[order], len(columns), generator)
    return found


def _wandering(sizes: Ids, rates: Floats, places: int, generator: np.random.Generator) -> Mask:
    """Sets of given sizes and turnovers among some places, ``[checkpoint, place]``."""
    found = np.zeros((len(sizes), places), bool)
    found[0, generator.permutation(places)[: sizes[0]]] = True
    for at, (size, rate) in enumerate(zip(sizes[1:].tolist(), rates, strict=True), start=1):
        inside = generator.permutation(np.flatnonzero(found[at - 1]))
        outside = generator.permutation(np.flatnonzero(~found[at - 1]))
        most = min(len(inside), size)
        keep = most - min(round(rate * most), len(outside) - (size - most))
        found[at, inside[:keep]] = True
        found[at, outside[: size - keep]] = True
    return found
