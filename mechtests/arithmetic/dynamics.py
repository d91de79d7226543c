"""Whether the final heuristics accumulate over training.

Sets of triples have no prompts to be sampled again: where they were also matched without each tenth
of the prompts, a statistic has a delete-a-group jackknife over these; else it is exact.

Source: Nikankin et al. 2025, Figure 10. Where we differ: the final model has all of
its triples, not those of its 50 highest neurons a layer; the final checkpoint, equal to itself, is
in no trend; and the claim has a control.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

import numpy as np

from mechtests import means
from mechtests.arithmetic.churning import churned
from mechtests.arithmetic.triples import Floats, Heuristics, Ids, Mask, Triple, present
from mechtests.circuits.similarity import jaccard
from mechtests.circuits.stability import FEWEST, LAGS, fixed_lag_contrast, jackknifed
from mechtests.errors import UsageError
from mechtests.means import Mean
from mechtests.rules import beside, every
from mechtests.verdict import Control, Verdict, not_applicable

RISE = 0.1
LARGEST_STEP = 0.5
EXACT = "sets without prompts to sample, compared exactly"
SAME = "no group of prompts changes it, so there is no interval"


def trend(share: Floats) -> float:
    """The mean of the last third of a window minus that of the first; checkpoints weigh alike."""
    third = len(share) // 3
    return float(share[-third:].mean() - share[:third].mean())


def over_half(share: Floats) -> float:
    """The largest step of a window minus half of its whole rise, from its first to its last."""
    rise = float(share[-1] - share[0])
    return float(np.diff(share).max()) - LARGEST_STEP * rise


def accumulates(
    series: Sequence[AbstractSet[Triple]],
    generator: np.random.Generator,
    *,
    left_out: Sequence[Sequence[AbstractSet[Triple]]] = (),
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
    sizes = [len(each) for each in whole.sets]
    told = verdict.showing(present=whole.present.tolist(), sizes=sizes)
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
        over = f"{found.over}, {over_groups.over}"
        unknown = over_groups.unknown
        found = replace(found, error=error, degrees=degrees, over=over, unknown=unknown)
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
    found = jackknifed(value, without, over=f"{len(without)} groups of prompts")
    if np.allclose(without, value, rtol=1e-12, atol=0.0):
        return replace(found, error=math.nan, unknown=SAME)
    return found


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
    return churned(series, generator, _contrast, "likeness at equal lags", decides=True)


def trend_by_churn(series: Heuristics, generator: np.random.Generator) -> Control:
    """The trend of the share of the final triples in the same stationary series, shown only.

    It rises in them too, since what is nearer the end is more like the end.
    """
    return churned(series, generator, _trend_of, "the share of the final triples", decides=False)


def _trend_of(there: Mask, operators: Ids) -> float:
    return trend(present(there, operators)[:-1])
