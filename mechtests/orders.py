"""Values over models of one family: ordered by size, or alike (claims.md, Scale).

Models are ordered by non-embedding parameters. A verdict is about these models: no number of
prompts says anything of model size in general, which the p of Kendall's tau makes plain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

import numpy as np

from mechtests import means
from mechtests.errors import MeasurementError
from mechtests.means import Value, combination, mean_of
from mechtests.rules import every, least_refuted
from mechtests.verdict import Control, Outcome, Verdict, not_applicable

FEWEST_MODELS = 3
ALIKE = 0.25


@dataclass(frozen=True)
class Tau:
    """Kendall's tau of some values with their order.

    Attributes:
        tau: From -1 (falling) to 1 (rising).
        p: Exact one-sided p: the part of all n! orders that rise at least as much.
        p_min: The smallest p that so many values can give, 1/n!.
    """

    tau: float
    p: float
    p_min: float

    @property
    def sentence(self) -> str:
        """The numbers in words."""
        return f"tau {self.tau:.2g}, p = {self.p:.2g} and never below {self.p_min:.2g}"


def kendall(values: list[float]) -> Tau:
    """Kendall's tau of values in the order they are given in, with its exact one-sided p.

    As ``scipy.stats.kendalltau`` with ``alternative="greater"``, which takes a second to
    import. Ties count as falling.

    Raises:
        MeasurementError: There are fewer than two values.
    """
    n = len(values)
    if n < 2:
        raise MeasurementError(f"an order needs at least two values, got {n}")
    falling = sum(after <= before for before, after in combinations(values, 2))
    orders = np.ones(1)  # how many orders of 1, 2, ... values have 0, 1, ... falling pairs
    for k in range(2, n + 1):
        orders = np.convolve(orders, np.ones(k))
    pairs = n * (n - 1) // 2
    p = float(orders[: falling + 1].sum() / orders.sum())
    return Tau(1 - 2 * falling / pairs, p, 1 / math.factorial(n))


def ordered(by_model: Mapping[str, Value], *, more_than: float, what: str) -> Verdict:
    """Whether values rise from the smallest model to the largest by more than d.

    It holds when largest minus smallest is above d and no neighbouring pair is below -d, is
    refuted when largest minus smallest is below d, and is inconclusive otherwise. Differences
    are paired where the models share their prompts, else Welch's.

    Args:
        by_model: The value of each model, smallest model first; gated models only.
        more_than: d, in the values' unit.
        what: What is ordered.
    """
    if (few := _too_few(by_model, what)) is not None:
        return few
    names = list(by_model)
    whole = _difference(by_model, names[-1], names[0])
    verdict = means.above(whole, more_than, what=f"{what}, {names[-1]} minus {names[0]}")
    tau = kendall([mean_of(value).mean for value in by_model.values()])
    spoken = ", ".join(f"{name} {mean_of(value).mean:.3g}" for name, value in by_model.items())
    verdict = replace(verdict, sentence=f"{verdict.sentence}; {spoken}; {tau.sentence}").showing(
        tau=tau.tau, tau_p=tau.p, tau_p_min=tau.p_min
    )
    back = [
        means.below(
            _difference(by_model, after, before), -more_than, what=f"{after} minus {before}"
        )
        for before, after in pairwise(names)
    ]
    against = [pair for pair in back if pair.outcome is Outcome.HOLDS]
    if verdict.outcome is Outcome.HOLDS and against:
        why = "; ".join(pair.sentence for pair in against)
        return replace(
            verdict,
            outcome=Outcome.INCONCLUSIVE,
            sentence=f"{verdict.sentence}; not all the way: {why}",
            p=None,
        )
    return verdict


def alike(
    by_model: Mapping[str, Value],
    *,
    share: float = ALIKE,
    best: str | None = None,
    what: str,
) -> Verdict:
    """Whether every two models are alike: equivalent within a share of the best.

    Args:
        by_model: The value of each model, such as the mean of its last 3 checkpoints
            (``Curve.over_last``); the ones that are claimed to be alike.
        share: The part of the best that is still the same.
        best: The best model, chosen on the selection half; else the one with the largest mean.
        what: What is alike.
    """
    if len(by_model) < 2:
        return not_applicable(f"{what}: at least 2 models are compared, got {_named(by_model)}")
    top = best or _best(by_model)
    return every(
        *(
            means.similar(
                [(1.0, by_model[one]), (-1.0, by_model[other])],
                by_model[top],
                share,
                what=f"{one} minus {other}",
            )
            for one, other in combinations(by_model, 2)
        ),
        what=what,
    )


def outside(
    by_model: Mapping[str, Value],
    others: Mapping[str, Value],
    *,
    share: float = ALIKE,
    best: str | None = None,
    what: str = "what should differ",
) -> Control:
    """The control of ``alike``: something must fall outside of its margin.

    Reached, "the margin tells nothing apart", unless one of the others differs from the best
    by more than the share.

    Args:
        by_model: The models that are claimed to be alike.
        others: What should not be: the smallest model, a model at its own onset.
        share: The margin of ``alike``.
        best: The best model.
        what: The control's name.
    """
    top = best or _best(by_model)
    told = [
        means.similar(
            [(1.0, value), (-1.0, by_model[top])], by_model[top], share, what=f"{name} minus {top}"
        )
        for name, value in others.items()
    ]
    apart = [each for each in told if each.outcome is Outcome.REFUTED]
    spoken = "; ".join(each.sentence for each in (apart or told)) or "nothing was compared"
    return Control(
        what,
        f"{what}: {spoken}" + ("" if apart else "; the margin tells nothing apart"),
        reached=not apart,
        p=least_refuted(told),
        values=tuple(mean_of(value).mean for value in others.values()),
    )


def _best(by_model: Mapping[str, Value]) -> str:
    return max(by_model, key=lambda name: mean_of(by_model[name]).mean)


def _difference(by_model: Mapping[str, Value], one: str, other: str) -> Value:
    return combination((1.0, by_model[one]), (-1.0, by_model[other]))


def _too_few(by_model: Mapping[str, object], what: str) -> Verdict | None:
    if len(by_model) >= FEWEST_MODELS:
        return None
    return not_applicable(
        f"{what}: a claim over scale needs {FEWEST_MODELS} models, got {_named(by_model)}"
    )


def _named(by_model: Mapping[str, object]) -> str:
    return f"{len(by_model)} ({', '.join(by_model)})" if by_model else "none"
