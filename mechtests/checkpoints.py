"""A measurement over training: the same at every checkpoint of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mechtests.errors import MeasurementError, NotApplicable
from mechtests.margins import Kind
from mechtests.means import Value
from mechtests.measurement import Estimate, Half, Head, Measurement
from mechtests.series import Curve, Moment


@dataclass(frozen=True)
class Series:
    """One measurement at every checkpoint of a model, first to last, on the same prompts.

    Attributes:
        moments: Where in training each was made.
        measurements: What was measured there.
        left_out: Checkpoints at which it does not apply, with the reason, by their label.
    """

    moments: tuple[Moment, ...]
    measurements: tuple[Measurement, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many checkpoints there are."""
        return len(self.moments)

    def __iter__(self) -> Iterator[Measurement]:
        """The measurements, first to last."""
        return iter(self.measurements)

    def __getitem__(self, at: int) -> Measurement:
        """The measurement at one of the checkpoints; -1 is the last."""
        return self.measurements[at]

    @property
    def recorded(self) -> bool:
        """Whether these are means that someone else measured, without prompts."""
        return any(each.recorded for each in self.measurements)

    def curve(self, value: str, half: Half = "evaluation", *index: int) -> Curve:
        """One number over training: a value at an index of its axes beside the prompts.

        What was recorded as means has no halves: the curve is then of those means.

        Raises:
            NotApplicable: The value was not recorded.
        """
        if self.recorded:
            return self._recorded(value, index)
        samples = tuple(each.sample(value, half, *index) for each in self.measurements)
        return Curve(self.moments, samples, self._kind(value))

    def at_end(self, value: str, half: Half = "evaluation") -> Value:
        """The mean over the last three checkpoints, where there are so many (claims.md, B1)."""
        last = Series(self.moments[-3:], self.measurements[-3:])
        if len(last) > 1:
            return last.curve(value, half).over_last(3)
        [only] = last
        return only.estimate(value) if only.recorded else only.sample(value, half)

    def strongest(
        self, value: str, half: Half = "selection", *, among: Sequence[Head] | None = None
    ) -> tuple[Head, ...]:
        """At each checkpoint the head with the largest mean on a half, of some or of all."""
        return tuple(_strongest(each, value, half, among) for each in self.measurements)

    def heads(self, value: str) -> dict[Head, int]:
        """The heads of which a value is known, and at how many checkpoints, in order.

        Of what was measured these are all heads; what was recorded is often of a few, and of
        some checkpoints.

        Raises:
            NotApplicable: The value was not recorded at any checkpoint.
            MeasurementError: It was not measured, or has no number for each layer and head.
        """
        found: Counter[Head] = Counter()
        missing: NotApplicable | None = None
        for each in self.measurements:
            try:
                found.update(_known(each, value))
            except NotApplicable as reason:
                missing = reason
        if missing is not None and not found:
            raise missing
        return dict(sorted(found.items()))

    def follow(self, value: str, heads: Sequence[Head], half: Half = "evaluation") -> Curve:
        """The value of another head at each checkpoint, as ``strongest`` chose them."""
        samples = tuple(
            each.sample(value, half, *head)
            for each, head in zip(self.measurements, heads, strict=True)
        )
        return Curve(self.moments, samples, self._kind(value))

    def _kind(self, value: str) -> Kind:
        """Shares lie between 0 and 1, and near both no interval by their spread is right."""
        return "proportion" if self.measurements[0].units.get(value) == "share" else "mean"

    def _recorded(self, value: str, index: tuple[int, ...]) -> Curve:
        """The curve of what was recorded, at the checkpoints at which it was."""
        found: dict[Moment, Estimate] = {}
        for moment, each in zip(self.moments, self.measurements, strict=True):
            try:
                found[moment] = each.estimate(value, *index)
            except NotApplicable as reason:
                missing = reason
        if not found:
            raise missing
        return Curve.recorded(
            tuple(found),
            [each.mean for each in found.values()],
            [float("nan") if each.error is None else each.error for each in found.values()],
        )


def _known(measurement: Measurement, value: str) -> list[Head]:
    """The heads of which a value is finite in a measurement."""
    import numpy as np

    means = measurement.mean(value)
    if measurement.axes[value][-2:] != ("layer", "head") or means.ndim != 2:
        raise MeasurementError(
            f"{measurement.name}.{value} has the axes {measurement.axes[value]}, not layer and head"
        )
    return [(int(layer), int(head)) for layer, head in np.argwhere(np.isfinite(means))]


def _strongest(
    measurement: Measurement, value: str, half: Half, among: Sequence[Head] | None
) -> Head:
    if among is None:
        return measurement.strongest(value, half)
    means = measurement.mean(value, half)
    return max(among, key=lambda head: float(means[head]))
