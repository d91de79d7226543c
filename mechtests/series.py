"""A curve: one quantity at the checkpoints of a training run, prompt by prompt where it can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mechtests.errors import MeasurementError
from mechtests.margins import FEWEST_CLUSTERS, Kind
from mechtests.means import Mean, Value, combination, mean_of, same_prompts
from mechtests.measurement import Sample

Floats = NDArray[np.float64]
UNITS = ((1e12, "e12"), (1e9, "e9"), (1e6, "e6"), (1e3, "e3"))


@dataclass(frozen=True)
class Moment:
    """A checkpoint's place in training.

    Attributes:
        label: What its source calls it: ``"step1000"``.
        step: Optimiser steps so far, where known.
        tokens: Training tokens so far, where known.
    """

    label: str
    step: int | None = None
    tokens: int | None = None


def spoken_count(count: float) -> str:
    """A number of tokens or steps in words: ``0.9e6``, ``2.1e9``, ``500``."""
    for unit, word in UNITS:
        if count >= unit / 2:
            return f"{count / unit:.3g}{word}"
    return f"{count:.3g}"


@dataclass(frozen=True, eq=False)
class Curve:
    """One number a prompt at each of some moments of training, with the same prompts at all.

    Attributes:
        moments: The checkpoints in training order.
        points: What was measured at each: samples, or means without prompts (``recorded``).
        kind: How a point is held against a level: ``"mean"``: by its spread over clusters;
            ``"proportion"``: right or wrong, by Clopper-Pearson, so that 1 on all prompts is
            above 0.6; ``"census"``: all cases there are, compared exactly.
    """

    moments: tuple[Moment, ...]
    points: tuple[Sample | Mean, ...]
    kind: Kind = "mean"

    def __post_init__(self) -> None:
        """Refuse what is no curve.

        Raises:
            MeasurementError: There are no moments or not as many points, the moments are not
                in order, the prompts are not the same, or a value is NaN or infinite.
        """
        if not self.moments or len(self.moments) != len(self.points):
            raise MeasurementError(
                f"a curve needs a point at each of its moments and at least one, got "
                f"{len(self.moments)} moments and {len(self.points)} points"
            )
        self._check_points()
        for (before, one), (after, other) in pairwise(
            zip(self.positions.tolist(), self.labels, strict=True)
        ):
            if not before < after:
                raise MeasurementError(
                    f"a curve needs its moments in training order and each once, got {other} "
                    f"after {one}; sort them, and keep one of two at the same place"
                )

    def _check_points(self) -> None:
        first = self.points[0]
        for moment, point in zip(self.moments, self.points, strict=True):
            if isinstance(first, Sample) != isinstance(point, Sample):
                raise MeasurementError("a curve is measured or recorded at all moments, not mixed")
            if isinstance(first, Sample) and isinstance(point, Sample):
                if not (len(point) and same_prompts(first, point)):
                    raise MeasurementError(
                        f"a curve needs the same prompts at all moments, got others at "
                        f"{moment.label} than at {self.moments[0].label}, or none"
                    )
                finite = bool(np.isfinite(point.values).all())
            else:
                finite = math.isfinite(mean_of(point).mean)
            if not finite:
                raise MeasurementError(
                    f"a curve needs finite values, got NaN or infinity at {moment.label}; look at "
                    f"the measurement that gave it, or leave the moment out"
                )
        if self.kind == "proportion" and (self._least < 0 or self._most > 1):
            raise MeasurementError(
                f"a proportion needs values from 0 to 1, got {self._least:.3g} to "
                f"{self._most:.3g}; judge other values as a mean"
            )

    @classmethod
    def of(cls, moments: Sequence[Moment], values: Sequence[Value], kind: Kind = "mean") -> Curve:
        """A curve of samples, or of recorded estimates."""
        points = tuple(v if isinstance(v, Sample) else mean_of(v) for v in values)
        return cls(tuple(moments), points, kind)

    @classmethod
    def recorded(
        cls,
        moments: Sequence[Moment],
        means: Sequence[float],
        errors: Sequence[float | None] | None = None,
        *,
        unit: str = "",
    ) -> Curve:
        """A curve of means that were recorded elsewhere, without their prompts.

        Args:
            moments: The checkpoints in training order.
            means: The mean at each.
            errors: The standard error of each; None or NaN where it is not known, and the
                curve then decides nothing. 0 says that the means are exact.
            unit: The unit, in words.
        """
        known = [math.nan if e is None else float(e) for e in errors or [None] * len(means)]
        points = tuple(Mean(float(m), e, unit=unit) for m, e in zip(means, known, strict=True))
        return cls(tuple(moments), points)

    def __len__(self) -> int:
        """How many moments there are."""
        return len(self.moments)

    @property
    def is_recorded(self) -> bool:
        """Whether there are only means, without prompts and hence without halves."""
        return isinstance(self.points[0], Mean)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The label of each moment."""
        return tuple(moment.label for moment in self.moments)

    @cached_property
    def axis(self) -> str:
        """What the curve runs over: ``"tokens"``, or ``"steps"`` where those are not known.

        Raises:
            MeasurementError: Some moment has neither.
        """
        for name, known in (
            ("tokens", [moment.tokens for moment in self.moments]),
            ("steps", [moment.step for moment in self.moments]),
        ):
            if None not in known:
                return name
        raise MeasurementError(
            "a curve over training needs the tokens or the steps of all its checkpoints, and "
            f"neither is known of all of {', '.join(self.labels)}"
        )

    @cached_property
    def positions(self) -> Floats:
        """Tokens, or else steps, at each moment, shape ``[moment]``."""
        known = [m.tokens if self.axis == "tokens" else m.step for m in self.moments]
        return np.array(known, dtype=np.float64)

    @cached_property
    def values(self) -> Floats:
        """What was measured, shape ``[moment, prompt]``; without prompts where recorded."""
        return np.array([p.values if isinstance(p, Sample) else [] for p in self.points])

    @cached_property
    def cluster_means(self) -> Floats:
        """The mean of each cluster, shape ``[moment, cluster]``; see ``statistics``."""
        first = self.points[0]
        if not isinstance(first, Sample):
            return np.empty((len(self), 0))
        _, index = np.unique(first.cluster, return_inverse=True)
        belongs = np.zeros((len(first), int(index.max()) + 1))
        belongs[np.arange(len(first)), index] = 1 / np.bincount(index)[index]
        means: Floats = self.values @ belongs
        return means

    @cached_property
    def means(self) -> Floats:
        """The mean at each moment, clusters weighing the same, shape ``[moment]``."""
        if self.is_recorded:
            return np.array([mean_of(point).mean for point in self.points])
        means: Floats = self.cluster_means.mean(axis=1)
        return means

    @cached_property
    def errors(self) -> Floats:
        """The standard error at each moment, NaN where unknown, shape ``[moment]``."""
        return np.array([mean_of(point).error for point in self.points])

    @property
    def _least(self) -> float:
        return float(self.means.min() if self.is_recorded else self.values.min())

    @property
    def _most(self) -> float:
        return float(self.means.max() if self.is_recorded else self.values.max())

    @property
    def undecidable(self) -> str | None:
        """Why no rule can decide on this curve, or None."""
        if self.kind == "census":
            return None
        if self.is_recorded:
            unknown = [point for point in self.points if math.isnan(mean_of(point).error)]
            return mean_of(unknown[0]).unknown if unknown else None
        if self.cluster_means.shape[1] < FEWEST_CLUSTERS:
            return f"fewer than {FEWEST_CLUSTERS} clusters decide nothing"
        return None

    def index(self, label: str) -> int:
        """The place of a moment among the curve's.

        Raises:
            MeasurementError: There is no such moment.
        """
        if label not in self.labels:
            raise MeasurementError(f"the curve has {', '.join(self.labels)}, not {label}")
        return self.labels.index(label)

    def at(self, label: str) -> Sample | Mean:
        """What was measured at a moment."""
        return self.points[self.index(label)]

    def take(self, chosen: Sequence[int]) -> Curve:
        """The curve at some of its moments, by their place."""
        return replace(
            self,
            moments=tuple(self.moments[i] for i in chosen),
            points=tuple(self.points[i] for i in chosen),
        )

    def between(self, first: str | None = None, last: str | None = None) -> Curve:
        """The curve from one moment to another, both included."""
        start = 0 if first is None else self.index(first)
        stop = len(self) if last is None else self.index(last) + 1
        return self.take(range(start, stop))

    def weighted(self, weights: Sequence[float] | Floats) -> Sample | Mean:
        """The sum over moments of what was measured times a weight, prompt by prompt.

        Recorded means count as independent: their prompts are not known to be the same.
        """
        weights = np.asarray(weights, dtype=np.float64)
        if self.kind == "census":
            return Mean(float(weights @ self.means), 0.0, unit=self.unit)
        first = self.points[0]
        if isinstance(first, Sample):
            return Sample(weights @ self.values, first.cluster, first.unit)
        used = [(float(w), p) for w, p in zip(weights, self.points, strict=True) if w != 0.0]
        return combination(*used) if used else Mean(0.0, 0.0)

    def over_last(self, count: int) -> Sample | Mean:
        """The mean over the last few moments, all where there are fewer."""
        count = min(count, len(self))
        return self.weighted(np.r_[np.zeros(len(self) - count), np.full(count, 1 / count)])

    def mixed(self, weights: Floats) -> Curve:
        """A curve whose points are sums over this one's moments; weights ``[moment, moment]``."""
        return self._mapped(tuple(self.weighted(row) for row in weights))

    @property
    def unit(self) -> str:
        """The unit of the values, in words."""
        return self.points[0].unit

    def _mapped(self, points: Sequence[Sample | Mean]) -> Curve:
        kind: Kind = "census" if self.kind == "census" else "mean"
        return replace(self, points=tuple(points), kind=kind)

    def __sub__(self, other: Curve) -> Curve:
        """The difference at each moment, prompt by prompt where the prompts are the same."""
        if self.labels != other.labels:
            raise MeasurementError("a difference of curves needs the same moments in both")
        pairs = zip(self.points, other.points, strict=True)
        return self._mapped([combination((1.0, a), (-1.0, b)) for a, b in pairs])

    def __mul__(self, factor: float) -> Curve:
        """The curve in another scale."""
        return self._mapped([combination((factor, point)) for point in self.points])

    __rmul__ = __mul__

    def __neg__(self) -> Curve:
        """The curve with the other sign."""
        return self * -1.0
