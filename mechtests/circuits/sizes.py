"""The sizes of circuits: how they fluctuate over training, and how they go with models' sizes.

Sizes are of the smallest circuits that keep enough (``finding.smallest``), in octaves: log2 of
edges or nodes. Each checkpoint has two, one from either half of the prompts; what one of them
alone does is the search's and the prompts' doing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from mechtests import margins, means
from mechtests.checkpoints import Series
from mechtests.circuits import finding
from mechtests.circuits.circuit import Floats
from mechtests.circuits.search import Found, interval
from mechtests.circuits.stability import FEWEST, jackknifed
from mechtests.margins import LEVEL, TAIL, spoken
from mechtests.matched import permutation_p
from mechtests.means import NO_SPREAD, Mean
from mechtests.measurement import HALVES, Measurement
from mechtests.orders import kendall
from mechtests.rules import CONTROL_LEVEL
from mechtests.statistics import Interval
from mechtests.verdict import Control, Outcome, Verdict

FLUCTUATION = 0.25
"""Octaves by which the two halves' sizes must vary together."""
PERMUTATIONS = 999
LINE = 2
"""Degrees of freedom that the line takes."""
ROUNDING = 1e-9
"""Octaves off the line that are none: sizes which do not vary leave this much."""


Circuits = Sequence[Sequence[Found]]
"""The smallest circuit of each half at some checkpoints, ``[moment][half]``."""


def smallest(scores: Series, sizes: Series, places: Sequence[int]) -> list[list[Found]]:
    """The smallest circuit of each half that keeps 80% on the other, at some checkpoints.

    Args:
        scores: ``circuits.edge_scores`` over training.
        sizes: ``circuits.sizes`` at the same checkpoints.
        places: Which of them.
    """
    return [[finding.smallest(scores[at], sizes[at], half) for half in HALVES] for at in places]


def counts(found: Circuits, of: Literal["edges", "nodes"]) -> Floats:
    """How many edges or nodes circuits have, ``[moment, half]``."""
    return np.array([[getattr(each.size, of) for each in pair] for pair in found], dtype=float)


def uncensored(verdict: Verdict, found: Circuits) -> Verdict:
    """The verdict on some sizes; undecided where over a tenth are but the ends of their grids."""
    circuits = [each for pair in found for each in pair]
    censored = sum(each.censored for each in circuits)
    if censored <= len(circuits) / 10:
        return verdict
    why = f"{censored} of {len(circuits)} circuits never keep 80% up to 5% of the edges"
    return replace(verdict, outcome=Outcome.INCONCLUSIVE, sentence=f"{why}; {verdict.sentence}")


def octaves(sizes: Floats) -> Floats:
    """Log2 sizes; an empty circuit counts as one of size 1."""
    logs: Floats = np.log2(np.maximum(sizes, 1.0))
    return logs


def log_size(sizes: Floats) -> Mean:
    """The mean log2 size over some checkpoints, its error from their spread.

    Of one checkpoint alone, the error is that of its two halves.

    Args:
        sizes: Edges or nodes of both halves' circuits, ``[moment, half]``.
    """
    logs = octaves(sizes)
    each = logs.mean(1) if len(logs) > 1 else logs[0]
    error = float(each.std(ddof=1)) / math.sqrt(len(each))
    over = f"{len(logs)} checkpoints" if len(logs) > 1 else "2 halves"
    return Mean(float(each.mean()), error, len(each) - 1, "octaves", over=over)


# ---------------------------------------------------------------- over training


def detrended(sizes: Floats, tokens: Floats) -> Floats:
    """Log2 sizes without their line in log tokens, each half's its own, ``[moment, half]``.

    Args:
        sizes: Of both halves' circuits, ``[moment, half]``.
        tokens: Of each checkpoint, above 0, ``[moment]``.
    """
    line, logs = np.stack([np.ones(len(tokens)), np.log2(tokens)], 1), octaves(sizes)
    left: Floats = logs - line @ np.linalg.lstsq(line, logs, rcond=None)[0]
    left[np.abs(left) < ROUNDING] = 0.0
    return left


def covariance(sizes: Floats, tokens: Floats) -> float:
    """The covariance of the two halves' detrended sizes, in squared octaves.

    Unbiased for what the halves share: the line's two degrees of freedom are taken off.
    Arguments as for ``detrended``.
    """
    left = detrended(sizes, tokens)
    return float(left[:, 0] @ left[:, 1]) / (len(left) - LINE)


def fluctuates(
    sizes: Floats, tokens: Floats, *, what: str, more_than: float = FLUCTUATION
) -> Verdict:
    """Whether the two halves' sizes vary together by more than so many octaves.

    The root of the covariance of their detrended sizes; its error is a jackknife over
    checkpoints, the line drawn again without each. It is of the covariance itself: on the scale
    of its root or its logarithm what the halves do not share would be called shared up to three
    times too often. But a covariance that happens to be small has a small error as well, so
    that a refutation must also hold on a scale on which large ones are logarithms (at the
    margin it is then wrong in at most 8 of 100 series of 6 checkpoints and 6 of 20, where
    it were in 16 and 10). Few checkpoints decide little: of series that vary together by an
    octave 45 of 100 hold at 12 and 92 at 20.

    Args:
        sizes: Of both halves' circuits, ``[moment, half]``.
        tokens: Of each checkpoint, ``[moment]``; one before any training is left out.
        what: What varies, the start of the sentence.
        more_than: In octaves.
    """
    sizes, tokens = sizes[tokens > 0], tokens[tokens > 0]
    count = len(tokens)
    if count < FEWEST:
        why = f"{what}: {FEWEST} checkpoints after the start decide, there are {count}"
        return Verdict(Outcome.INCONCLUSIVE, why)
    whole = covariance(sizes, tokens)
    without = [covariance(np.delete(sizes, at, 0), np.delete(tokens, at)) for at in range(count)]
    margin = more_than**2
    verdict = means.above(_jackknife(whole, without), margin, what=what)
    if verdict.interval is None:
        return verdict
    bent = _jackknife(_bent(whole / margin), [_bent(each / margin) for each in without])
    p_refuted = margins.combined(max, [verdict.p_refuted, bent.p(_bent(1.0), "below")])
    open_ = p_refuted is None or p_refuted > TAIL
    if verdict.outcome is Outcome.REFUTED and open_:
        verdict = replace(verdict, outcome=Outcome.INCONCLUSIVE)
    return _in_octaves(replace(verdict, p_refuted=p_refuted), what, count, more_than)


def _in_octaves(verdict: Verdict, what: str, count: int, more_than: float) -> Verdict:
    """What is said of a covariance, said of its root."""
    assert verdict.estimate is not None
    assert verdict.interval is not None
    root, (low, high) = _root(verdict.estimate), map(_root, verdict.interval)
    values = spoken(root, Interval(low, high, LEVEL), more_than)
    sentence = f"{what}: {values} octaves over {count} checkpoints, claimed above {more_than:g}"
    if verdict.outcome is Outcome.INCONCLUSIVE:
        sentence += "; more checkpoints would decide"
    return replace(
        verdict,
        sentence=sentence,
        estimate=root,
        interval=(low, high),
        margin=more_than,
        unit="octaves",
    )


def _jackknife(whole: float, without: Sequence[float]) -> Mean:
    found = jackknifed(whole, np.array(without), over=f"{len(without)} checkpoints")
    return found if found.error > 0 else replace(found, error=math.nan, unknown=NO_SPREAD)


def _bent(covariance: float) -> float:
    """A scale on which what is far from 0, in units of the margin, is a logarithm."""
    return math.asinh(4.0 * covariance)


def _root(value: float) -> float:
    """The root of a covariance; below 0 where that is."""
    return math.copysign(math.sqrt(abs(value)), value)


def permuted(sizes: Floats, tokens: Floats, generator: np.random.Generator) -> Control:
    """The control that one half's checkpoints in another order vary less with the other half's.

    Detrended sizes of neighbouring checkpoints are nearly independent (lag-1 correlation 0.09 in
    the paper's recorded sizes), so that any order is as good as another where the halves share
    nothing.

    Args:
        sizes: Of both halves' circuits, ``[moment, half]``.
        tokens: Of each checkpoint, ``[moment]``.
        generator: For the orders.
    """
    one, other = detrended(sizes[tokens > 0], tokens[tokens > 0]).T
    count = len(one)
    draws = [
        float(generator.permutation(one) @ other) / (count - LINE) for _ in range(PERMUTATIONS)
    ]
    observed = float(one @ other) / (count - LINE)
    p = permutation_p(observed, draws)
    return Control(
        "checkpoints of one half permuted",
        f"checkpoints of one half permuted ({PERMUTATIONS} orders): the root of the covariance is "
        f"at most {_root(max(draws)):.2g} octaves, against {_root(observed):.2g}, p = {p:.2g}",
        reached=p > CONTROL_LEVEL,
        p=p,
        p_min=max(1 / (PERMUTATIONS + 1), 1 / math.factorial(count)),
        values=tuple(draws),
    )


def redrawn(
    found: Sequence[Found], measured: Measurement, generator: np.random.Generator
) -> list[dict[str, float | None]]:
    """What the prompts alone do to the sizes of one checkpoint, to be shown.

    For each half's circuit its edges and their interval when the prompts it is judged on are
    drawn again, by cluster; an end beyond all sizes is None.

    Args:
        found: The smallest circuit of each half.
        measured: ``circuits.sizes`` of the checkpoint.
        generator: Of the draws.
    """
    shown = []
    for each, judged_on in zip(found, HALVES[::-1], strict=True):
        cluster = measured.cluster[measured.of(judged_on)]
        ends = interval(each, generator, cluster=cluster)
        shown.append({"edges": float(each.size.edges), "low": ends.low, "high": ends.high})
    return shown


# ---------------------------------------------------------------- over models


def with_parameters(
    sizes: Mapping[str, Floats], parameters: Mapping[str, int]
) -> dict[str, float | None]:
    """How the mean sizes of models' circuits go with their numbers of parameters, to be shown.

    Pearson's r of the sizes themselves with two-sided p, as in the paper, and Kendall's tau with
    its exact one-sided p. The paper's code enters 1.4e9 and 2.8e9 as 14e9 and 28e9, which made
    its r of IOI 0.73 for 0.79 (tigges2024.md, section 8).

    Args:
        sizes: Edges or nodes of each model's circuits, in any shape; their mean counts.
        parameters: True numbers of parameters of the same models.

    Returns:
        ``pearson``, ``pearson_p``, ``kendall``, ``kendall_p``; None where there are fewer than
        three models or nothing varies.
    """
    names = sorted(sizes, key=lambda name: parameters[name])
    x = np.array([parameters[name] for name in names], dtype=np.float64)
    y = np.array([np.mean(sizes[name]) for name in names])
    if len(names) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return dict.fromkeys(("pearson", "pearson_p", "kendall", "kendall_p"))
    r = float(np.corrcoef(x, y)[0, 1])
    tau = kendall(y.tolist())
    return {
        "pearson": r,
        "pearson_p": _pearson_p(r, len(x)),
        "kendall": tau.tau,
        "kendall_p": tau.p,
    }


def _pearson_p(r: float, count: int) -> float:
    """Two-sided p of a correlation of normal values; ``scipy.stats`` takes a second to import."""
    from scipy.special import stdtr

    degrees = count - 2
    t = abs(r) * math.sqrt(degrees / max(1.0 - r * r, 1e-300))
    return 2.0 * float(stdtr(degrees, -t))
