"""The numbers behind verdicts: intervals, one-sided p, how many prompts, multiplicity.

Thin over scipy, which is imported where it is used: planning and collecting stay light.
``scipy.special`` has the distributions of ``scipy.stats`` and imports in a third of the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mechtests.errors import MeasurementError
from mechtests.measurement import Sample

Side = Literal["above", "below"]
Floats = NDArray[np.float64]

MOST_PROMPTS = 1_000_000


@dataclass(frozen=True)
class Interval:
    """A two-sided interval.

    Attributes:
        low: Its lower end.
        high: Its upper end.
        level: How often such an interval covers the truth.
        degrees: Degrees of freedom of its t quantile; None where it is exact.
    """

    low: float
    high: float
    level: float
    degrees: int | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """The lower and the upper end."""
        return self.low, self.high


def cluster_means(sample: Sample) -> Floats:
    """The mean of each cluster, in the order of the clusters' numbers, shape ``[cluster]``.

    Raises:
        MeasurementError: There is no prompt, or a value is NaN or infinite.
    """
    if len(sample) == 0:
        raise MeasurementError(
            "a sample needs at least one prompt, got none; measure more prompts, so that both "
            "halves have some"
        )
    if wrong := np.flatnonzero(~np.isfinite(sample.values)).tolist():
        raise MeasurementError(
            f"a sample needs finite values, got NaN or infinity at {len(wrong)} of {len(sample)} "
            f"prompts, the first at prompt {wrong[0]}; look at the measurement that gave it"
        )
    _, index = np.unique(sample.cluster, return_inverse=True)
    means: Floats = np.bincount(index, weights=sample.values) / np.bincount(index)
    return means


@dataclass(frozen=True)
class Summary:
    """What the cluster means of a sample say.

    Attributes:
        mean: The mean over clusters, each weighing the same.
        spread: The standard deviation over clusters; 0 where there is one, or nothing varies.
        clusters: How many clusters there are.
        prompts: How many prompts there are.
    """

    mean: float
    spread: float
    clusters: int
    prompts: int

    def interval(self, level: float = 0.95) -> Interval | None:
        """The t interval of the mean with clusters - 1 degrees of freedom; None without spread."""
        from scipy.special import stdtrit

        if self.spread == 0.0:
            return None
        degrees = self.clusters - 1
        quantile = float(stdtrit(degrees, (1 + level) / 2))
        half = quantile * self.spread / math.sqrt(self.clusters)
        return Interval(self.mean - half, self.mean + half, level, degrees)

    def p(self, margin: float, side: Side) -> float | None:
        """One-sided p that the mean is on a side of a margin; None without spread.

        It is at most ``(1 - level) / 2`` exactly where the interval lies on that side.
        """
        from scipy.special import stdtr

        if self.spread == 0.0:
            return None
        t = (self.mean - margin) / (self.spread / math.sqrt(self.clusters))
        return float(stdtr(self.clusters - 1, -t if side == "above" else t))

    def needed(self, margin: float, level: float = 0.95, power: float = 0.8) -> int | None:
        """How many prompts would decide, were the truth what the sample says.

        With so many prompts the interval of this level would miss the margin with this
        power. At most ``MOST_PROMPTS``; None at the margin and without spread.
        """
        if self.spread == 0.0:
            return None
        clusters = clusters_needed(abs(self.mean - margin), self.spread, level, power)
        return None if clusters is None else self.as_prompts(clusters)

    def as_prompts(self, clusters: float) -> int:
        """How many prompts so many clusters are, when they are as large as the sample's."""
        return math.ceil(min(clusters * self.prompts / self.clusters, MOST_PROMPTS))


def summary(sample: Sample) -> Summary:
    """Mean, spread and size of a sample, by cluster.

    Raises:
        MeasurementError: There is no prompt, or a value is NaN or infinite.
    """
    means = cluster_means(sample)
    spread = 0.0 if _constant(means) else float(means.std(ddof=1))
    return Summary(float(means.mean()), spread, len(means), len(sample))


def mean_interval(sample: Sample, level: float = 0.95) -> Interval | None:
    """The t interval over cluster means; None for one cluster or where nothing varies."""
    return summary(sample).interval(level)


def one_sided_p(sample: Sample, margin: float, side: Side) -> float | None:
    """One-sided p that the mean is on a side of a margin, the dual of ``mean_interval``."""
    return summary(sample).p(margin, side)


def prompts_needed(
    sample: Sample, margin: float, level: float = 0.95, power: float = 0.8
) -> int | None:
    """How many prompts would decide; see ``Summary.needed``."""
    return summary(sample).needed(margin, level, power)


def _constant(means: Floats) -> bool:
    """Whether nothing varies but the last bits; one cluster alone cannot vary."""
    return float(np.ptp(means)) <= 1e-12 * float(np.abs(means).max())


def effective_trials(found: Summary) -> float:
    """How many independent trials the clusters of a proportion are worth.

    The binomial variance over the variance between clusters, with a factor for their degrees
    of freedom, at most one trial a prompt (Korn and Graubard 1998, Survey Methodology 24).
    We differ where clusters do not vary: one trial a cluster, not one a prompt, since the
    prompts of a cluster may all go together; that is never too many.
    """
    from scipy.special import stdtrit

    if found.spread == 0.0:
        return float(found.clusters)
    few, many = (float(stdtrit(n - 1, 0.975)) for n in (found.clusters, found.prompts))
    variance = found.spread**2 / found.clusters
    trials = found.mean * (1 - found.mean) / variance * (many / few) ** 2
    return min(max(trials, 1.0), float(found.prompts))


def proportion_interval(successes: float, n: float, level: float = 0.95) -> Interval:
    """The Clopper-Pearson interval of a proportion; a part of a trial may count."""
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = float(betaincinv(successes, n - successes + 1, tail)) if successes > 0 else 0.0
    high = float(betaincinv(successes + 1, n - successes, 1 - tail)) if successes < n else 1.0
    return Interval(low, high, level)


def proportion_p(successes: float, n: float, margin: float, side: Side) -> float:
    """One-sided exact binomial p, the dual of ``proportion_interval``."""
    from scipy.special import betainc

    if side == "below":
        return proportion_p(n - successes, n, 1 - margin, "above")
    if successes <= 0:
        return 1.0
    return float(betainc(successes, n - successes + 1, min(max(margin, 0.0), 1.0)))


def fieller(numerator: Sample, denominator: Sample, level: float = 0.95) -> Interval | None:
    """Fieller's interval of the ratio of sums: the c at which N_i - c D_i could have mean 0.

    Clusters weigh the same, so it agrees with the decision on that contrast; where
    clusters have equally many prompts, it is the interval of the ratio of sums over prompts.
    None where there is one cluster, or where the denominator could be 0: it is then unbounded.
    """
    from scipy.special import stdtrit

    below = cluster_means(denominator)
    above = cluster_means(numerator - denominator) + below  # refuses what is not paired
    if len(below) < 2:
        return None
    degrees = len(below) - 1
    spread = np.cov(above, below) * float(stdtrit(degrees, (1 + level) / 2)) ** 2 / len(below)
    n, d = float(above.mean()), float(below.mean())
    a, b, c = d * d - spread[1, 1], n * d - spread[0, 1], n * n - spread[0, 0]
    if a <= 0:
        return None
    root = math.sqrt(max(b * b - a * c, 0.0))
    return Interval(float((b - root) / a), float((b + root) / a), level, degrees)


def clusters_needed(distance: float, spread: float, level: float, power: float) -> float | None:
    """How many clusters decide at a distance from the margin; None where no number does.

    The normal sample size with Guenther's (1981) term for the t quantile, which is within
    one of the exact one from about 8 clusters on.
    """
    from scipy.special import ndtri

    quantile, enough = float(ndtri((1 + level) / 2)), float(ndtri(power))
    root = (quantile + enough) * float(spread) / float(distance) if distance else math.inf
    clusters = root * root + quantile * quantile / 2
    return clusters if math.isfinite(clusters) else None


def cluster_groups(clusters: NDArray[np.int64], groups: int = 10) -> NDArray[np.int64]:
    """The group of each prompt, shape ``[prompt]``: whole clusters, dealt out in turn."""
    _, index = np.unique(clusters, return_inverse=True)
    group: NDArray[np.int64] = index.astype(np.int64) % groups
    return group


def jackknife(
    statistic: Callable[[NDArray[np.bool_]], float],
    clusters: NDArray[np.int64],
    groups: int = 10,
    level: float = 0.95,
) -> Interval | None:
    """The delete-a-group jackknife interval of a statistic of a set of prompts.

    For sets, ranks, sizes and overlaps, where a bootstrap is biased by the prompts it repeats.
    ``statistic(kept)`` is given which prompts are kept, shape ``[prompt]``. None where there
    are fewer than two clusters or no group changes anything.
    """
    from scipy.special import stdtrit

    group = cluster_groups(clusters, groups)
    count = int(group.max()) + 1
    without = np.array([statistic(group != each) for each in range(count)], dtype=np.float64)
    if _constant(without):
        return None
    variance = (count - 1) / count * float(((without - without.mean()) ** 2).sum())
    half = float(stdtrit(count - 1, (1 + level) / 2)) * math.sqrt(variance)
    whole = statistic(np.ones(len(group), dtype=np.bool_))
    return Interval(whole - half, whole + half, level, count - 1)


def benjamini_hochberg(ps: Sequence[float]) -> list[float]:
    """The q of each p: Benjamini and Hochberg (1995)."""
    return _false_discovery(ps, "bh")


def benjamini_yekutieli(ps: Sequence[float]) -> list[float]:
    """The q of each p under any dependence: Benjamini and Yekutieli (2001)."""
    return _false_discovery(ps, "by")


def _false_discovery(ps: Sequence[float], method: str) -> list[float]:
    """Of fewer than two p, q is p, and scipy.stats (a second to import) is not needed."""
    if len(ps) < 2:
        return list(ps)
    from scipy.stats import false_discovery_control

    return [float(q) for q in false_discovery_control(np.asarray(ps, dtype=float), method=method)]
