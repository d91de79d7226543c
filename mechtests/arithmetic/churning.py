"""The null of a series of sets: stationary ones, its sizes kept, its turnovers in random order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mechtests.arithmetic.triples import Floats, Heuristics, Ids, Mask
from mechtests.circuits.stability import CHURNS
from mechtests.matched import permutation_p
from mechtests.rules import CONTROL_LEVEL
from mechtests.verdict import Control


def churned(
    series: Heuristics,
    generator: np.random.Generator,
    statistic: Callable[[Mask, Ids], float],
    what: str,
    *,
    decides: bool,
) -> Control:
    """The control of 199 stationary series.

    Args:
        series: The triples of the run.
        generator: For the series.
        statistic: Of which triples there are at each checkpoint, ``[checkpoint, triple]``, and the
            operator of each triple.
        what: What the statistic is, in words.
        decides: Whether a reached control keeps the claim from holding.
    """
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
