"""The simultaneous band of a curve over its checkpoints, and where that puts each checkpoint.

Means: the same clusters are drawn with replacement at all checkpoints, each checkpoint's
deviation is divided by its standard error in that draw, and the band has the 95% quantile of
the largest over checkpoints (max-t). Each side of each checkpoint is first scaled by its own
97.5% quantile, so that one skewed or nearly constant checkpoint does not widen the band of all,
and never by less than the t quantile. Proportions have Clopper-Pearson, recorded means the
normal interval, both at a Bonferroni level, and a census has no band at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mechtests import statistics
from mechtests.margins import LEVEL, TAIL, Kind
from mechtests.measurement import Sample
from mechtests.series import Curve, Floats
from mechtests.statistics import Interval

RESAMPLES = 1999
LEAST_VARIANCE = 1e-6
"""Below this part of its variance a checkpoint counts as constant in a draw."""


@dataclass(frozen=True, eq=False)
class Band:
    """Two ends at each checkpoint that hold the whole curve at once.

    Attributes:
        low: The lower ends, shape ``[moment]``; minus infinity where nothing varies.
        high: The upper ends, shape ``[moment]``.
        level: How often such a band covers the whole curve.
    """

    low: Floats
    high: Floats
    level: float

    def at(self, place: int) -> Interval | None:
        """The band at one checkpoint, by its place; None where nothing varies."""
        low, high = float(self.low[place]), float(self.high[place])
        return Interval(low, high, self.level) if low > -np.inf and high < np.inf else None


@dataclass(frozen=True, eq=False)
class Standing:
    """How surely each checkpoint is above or below a level, over all of them at once.

    Attributes:
        above: Shape ``[moment]``: 1 minus the level of the widest band that is above, which is
            a two-sided p over all checkpoints; 1 where the mean is not above.
        below: The same of the other side.
    """

    above: Floats
    below: Floats


Level = float | Sequence[float] | Floats


def band(
    curve: Curve,
    generator: np.random.Generator,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Band:
    """The simultaneous band of a curve.

    Args:
        curve: The curve; with fewer than 8 clusters the band is shown and decides nothing.
        generator: The source of the draws.
        level: How often such a band covers the whole curve.
        resamples: How many times the clusters are drawn.
    """
    reading = READINGS[_kind(curve)](curve, generator, resamples)
    return Band(*reading.ends(level), level)


def standing(
    curve: Curve, level: Level, generator: np.random.Generator, *, resamples: int = RESAMPLES
) -> Standing:
    """Where each checkpoint stands towards a level, as surely as over all of them at once.

    A checkpoint's whole 95% band is above the level where ``above`` is at most 0.05.

    Args:
        curve: The curve.
        level: The level, one number or one a checkpoint.
        generator: The source of the draws.
        resamples: How many times the clusters are drawn.
    """
    levels = np.broadcast_to(np.asarray(level, dtype=np.float64), len(curve))
    reading = READINGS[_kind(curve)](curve, generator, resamples)
    return Standing(*(np.minimum(p, 1.0) for p in reading.against(levels)))


class _Exact:
    """All cases there are: no error."""

    def __init__(self, curve: Curve, generator: np.random.Generator, resamples: int) -> None:
        self.means = curve.means

    def ends(self, level: float) -> tuple[Floats, Floats]:
        return self.means, self.means

    def against(self, levels: Floats) -> tuple[Floats, Floats]:
        return np.where(self.means > levels, 0.0, 1.0), np.where(self.means < levels, 0.0, 1.0)


class _Normal:
    """Recorded means: normal intervals at a Bonferroni level."""

    def __init__(self, curve: Curve, generator: np.random.Generator, resamples: int) -> None:
        self.means = curve.means
        self.errors = np.where(np.isnan(curve.errors), np.inf, curve.errors)

    def ends(self, level: float) -> tuple[Floats, Floats]:
        from scipy.special import ndtri

        half: Floats = float(ndtri(1 - (1 - level) / 2 / len(self.means))) * self.errors
        return self.means - half, self.means + half

    def against(self, levels: Floats) -> tuple[Floats, Floats]:
        from scipy.special import ndtr

        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.nan_to_num((self.means - levels) / self.errors)
        return 2 * len(z) * ndtr(-z), 2 * len(z) * ndtr(z)


class _Proportions:
    """Clopper-Pearson at a Bonferroni level, with the clusters as trials."""

    def __init__(self, curve: Curve, generator: np.random.Generator, resamples: int) -> None:
        found = [statistics.summary(p) for p in curve.points if isinstance(p, Sample)]
        self.trials = [statistics.effective_trials(each) for each in found]
        shares = [min(max(each.mean, 0.0), 1.0) for each in found]
        self.successes = [s * n for s, n in zip(shares, self.trials, strict=True)]

    def ends(self, level: float) -> tuple[Floats, Floats]:
        each = 1 - (1 - level) / len(self.trials)
        pairs = zip(self.successes, self.trials, strict=True)
        ends = [statistics.proportion_interval(s, n, each).ends for s, n in pairs]
        low, high = np.array(ends).T
        return low, high

    def against(self, levels: Floats) -> tuple[Floats, Floats]:
        cases = list(zip(self.successes, self.trials, levels.tolist(), strict=True))
        up = [statistics.proportion_p(s, n, level, "above") for s, n, level in cases]
        down = [statistics.proportion_p(s, n, level, "below") for s, n, level in cases]
        return 2 * len(cases) * np.array(up), 2 * len(cases) * np.array(down)


class _MaxT:
    """Means: the bootstrap of studentised deviations, the same clusters at all checkpoints."""

    def __init__(self, curve: Curve, generator: np.random.Generator, resamples: int) -> None:
        from scipy.special import stdtrit

        self.means = curve.means
        deviations = curve.cluster_means - self.means[:, None]
        clusters = deviations.shape[1]
        sizes = np.abs(curve.cluster_means).max(axis=1)
        varies = np.ptp(deviations, axis=1) > 1e-12 * sizes
        self.errors = np.full(len(curve), np.inf)
        self.down, self.up = np.ones(len(curve)), np.ones(len(curve))
        self.maxima = np.ones(resamples)
        if clusters < 2 or not varies.any():
            return
        spreads = deviations[varies].std(axis=1, ddof=1)
        self.errors[varies] = spreads / np.sqrt(clusters)
        t = _studentised(deviations[varies] / spreads[:, None], generator, resamples)
        least = float(stdtrit(clusters - 1, 1 - TAIL))
        down, up = np.quantile(t, [1 - TAIL, TAIL], axis=0) * [[1.0], [-1.0]]
        down, up = np.maximum(down, least), np.maximum(up, least)
        self.maxima = np.sort(np.maximum(t / down, -t / up).max(axis=1))
        self.down[varies], self.up[varies] = down, up

    def ends(self, level: float) -> tuple[Floats, Floats]:
        """The quantile is the order statistic at which ``against`` reaches 1 - level."""
        beyond = int((1 - level) * (len(self.maxima) + 1) + 1e-9)
        factor = self.maxima[len(self.maxima) - max(beyond, 1)]
        low: Floats = self.means - factor * self.down * self.errors
        high: Floats = self.means + factor * self.up * self.errors
        return low, high

    def against(self, levels: Floats) -> tuple[Floats, Floats]:
        t = (self.means - levels) / self.errors
        return self._p(t / self.down), self._p(-t / self.up)

    def _p(self, scores: Floats) -> Floats:
        """(b + 1) / (M + 1) for b draws at least as far; 1 on the other side of the level."""
        beyond = len(self.maxima) - np.searchsorted(self.maxima, scores, side="left")
        return np.where(scores > 0, (beyond + 1) / (len(self.maxima) + 1), 1.0)


def _studentised(deviations: Floats, generator: np.random.Generator, resamples: int) -> Floats:
    """The t of each draw of clusters at each checkpoint, shape ``[draw, moment]``.

    ``deviations`` have mean 0 and variance 1 over clusters. Single precision halves the time,
    and the values are of order 1.
    """
    clusters = deviations.shape[1]
    drawn = generator.integers(0, clusters, (resamples, clusters))
    drawn += clusters * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * clusters)
    weights = counts.reshape(resamples, clusters).astype(np.float32) / clusters
    values = deviations.T.astype(np.float32)
    means = weights @ values
    variances = (weights @ values**2 - means**2) * clusters / (clusters - 1)
    t: Floats = means / np.sqrt(np.maximum(variances, LEAST_VARIANCE) / clusters)
    return t.astype(np.float64)


Reading = _Exact | _Normal | _Proportions | _MaxT
READINGS: dict[str, Callable[[Curve, np.random.Generator, int], Reading]] = {
    "census": _Exact,
    "recorded": _Normal,
    "proportion": _Proportions,
    "mean": _MaxT,
}


def _kind(curve: Curve) -> Kind | str:
    return "recorded" if curve.is_recorded and curve.kind != "census" else curve.kind
