"""What was measured: named arrays with a value for each prompt, and where they come from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

from mechtests import frames
from mechtests.errors import MeasurementError, NotApplicable, Undecidable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Half = Literal["selection", "evaluation"]
HALVES: tuple[Half, Half] = ("selection", "evaluation")
Head = tuple[int, int]


def named(heads: Iterable[Head]) -> str:
    """Heads as people write them: ``9.6, 9.9``; none where there is none."""
    return ", ".join(f"{layer}.{head}" for layer, head in heads) or "none"


@dataclass(frozen=True, eq=False)
class Sample:
    """One number for each of some prompts, with the cluster each prompt belongs to.

    Attributes:
        values: Shape ``[prompt]``, in ``unit``.
        cluster: Shape ``[prompt]``; prompts of one cluster are not independent.
        unit: The unit, in words: ``"logits"``, ``"attention"``.
    """

    values: NDArray[np.float64]
    cluster: NDArray[np.int64]
    unit: str = ""

    def __len__(self) -> int:
        """How many prompts there are."""
        return int(self.values.shape[0])

    def _paired(self, other: Sample | float) -> NDArray[np.float64] | float:
        if isinstance(other, Sample):
            if not (len(self) == len(other) and bool((self.cluster == other.cluster).all())):
                raise MeasurementError(
                    f"a paired difference needs the same prompts on both sides, got {len(self)} "
                    f"and {len(other)} prompts or other clusters; take both from one half"
                )
            return other.values
        return other

    def __sub__(self, other: Sample | float) -> Sample:
        """The difference prompt by prompt."""
        return replace(self, values=self.values - self._paired(other))

    def __add__(self, other: Sample | float) -> Sample:
        """The sum prompt by prompt."""
        return replace(self, values=self.values + self._paired(other))

    def __mul__(self, factor: float) -> Sample:
        """The values in another scale."""
        return replace(self, values=self.values * factor)

    __rmul__ = __mul__

    def __neg__(self) -> Sample:
        """The values with the other sign."""
        return replace(self, values=-self.values)

    @property
    def mean(self) -> float:
        """The mean over prompts."""
        return float(self.values.mean())


@dataclass(frozen=True, eq=False)
class Measurement:
    """A metric's result on one task in one cell.

    Attributes:
        name: The metric: ``"attention.scores"``.
        values: Arrays by name. One with a ``prompt`` axis has it first; one without
            is a mean over the prompts.
        axes: The name of every axis of every array, such as ``("prompt", "layer", "head")``.
        units: The unit of each array, in words.
        cluster: Shape ``[prompt]``: the cluster of each prompt.
        template: Shape ``[prompt]``: the template (stratum) of each prompt.
        half: Shape ``[prompt]``: 0 for selection, 1 for evaluation.
        facts: Where the values come from: request, digests, versions, passes.
    """

    name: str
    values: Mapping[str, NDArray[Any]]
    axes: Mapping[str, tuple[str, ...]]
    units: Mapping[str, str]
    cluster: NDArray[np.int64]
    template: NDArray[np.int64]
    half: NDArray[np.int64]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def recorded(self) -> bool:
        """Whether these are recorded means, without a value for each prompt (``Recorded``)."""
        return False

    def estimate(self, value: str, *index: int) -> Estimate:
        """A recorded mean; what was measured has a value for each prompt and is never one.

        Raises:
            MeasurementError: This was measured: take ``sample``, which says of which half.
        """
        raise MeasurementError(
            f"{self.name}.{value} has a value for each prompt: take a sample of it, not an estimate"
        )

    def __getitem__(self, value: str) -> NDArray[Any]:
        """One array by name.

        Raises:
            MeasurementError: There is no such array.
        """
        if value not in self.values:
            raise MeasurementError(
                f"{self.name} measures {', '.join(sorted(self.values))}, not {value!r}"
            )
        return self.values[value]

    def of(self, half: Half | None) -> NDArray[np.bool_]:
        """Which prompts belong to a half, shape ``[prompt]``; None is all of them."""
        chosen: NDArray[np.bool_] = (
            self.half >= 0 if half is None else self.half == HALVES.index(half)
        )
        return chosen

    def mean(self, value: str, half: Half | None = None) -> NDArray[np.float64]:
        """The mean over the prompts of a half, with the remaining axes."""
        array = self[value]
        if self.axes[value][0] != "prompt":
            return array
        mean: NDArray[np.float64] = array[self.of(half)].mean(axis=0, dtype="float64")
        return mean

    def sample(self, value: str, half: Half | None = None, *index: Any) -> Sample:
        """One number a prompt: the array of a half at an index of its other axes."""
        import numpy as np

        chosen = self.of(half)
        picked = np.asarray(self[value][chosen][(slice(None), *index)], dtype=np.float64)
        if picked.ndim != 1:
            raise MeasurementError(
                f"{self.name}.{value} has the axes {self.axes[value]}: give an index for each "
                f"but prompt, got {len(index)}"
            )
        return Sample(picked, self.cluster[chosen], self.units.get(value, ""))

    def sum_over(self, value: str, heads: list[Head], half: Half | None = None) -> Sample:
        """The sum over some heads of an array ``[prompt, layer, head]``, one number a prompt."""
        import numpy as np

        chosen = self.of(half)
        array = np.asarray(self[value], dtype=np.float64)[chosen]
        total = sum((array[:, layer, head] for layer, head in heads), np.zeros(len(array)))
        return Sample(np.asarray(total), self.cluster[chosen], self.units.get(value, ""))

    def strongest(self, value: str, half: Half) -> Head:
        """The head with the largest mean of an array ``[prompt, layer, head]`` on a half."""
        import numpy as np

        means = self.mean(value, half)
        layer, head = np.unravel_index(int(np.argmax(means)), means.shape)
        return int(layer), int(head)

    def to_pandas(self, *values: str) -> Any:
        """Some values as a long pandas table, a row an index (``frames.pandas_of``).

        Raises:
            UsageError: pandas is not installed, or the values have different axes.
        """
        return frames.pandas_of(self, values)

    def to_xarray(self) -> Any:
        """All values as an xarray data set with their named axes (``frames.xarray_of``).

        Raises:
            UsageError: xarray is not installed, or one axis has two lengths.
        """
        return frames.xarray_of(self)


class Estimate(NamedTuple):
    """A recorded mean.

    Attributes:
        mean: The mean over the prompts, in the value's unit.
        error: Its standard error, or None where nothing is known of it.
        prompts: How many prompts it is over, or None where that is not known.
    """

    mean: float
    error: float | None
    prompts: int | None


@dataclass(frozen=True, eq=False)
class Recorded(Measurement):
    """Means that someone else measured, without prompts and without halves.

    Nothing can be chosen on one half and decided on the other, and no two values be paired
    prompt by prompt: whatever asks for that gets an ``Undecidable``.

    Attributes:
        model: The model they are of.
        errors: The standard error of each mean, shaped like ``values``, NaN where unknown.
        prompts: How many prompts each value is over, or None, by the value's name.
    """

    model: str = ""
    errors: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    prompts: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def recorded(self) -> bool:
        """True."""
        return True

    def __getitem__(self, value: str) -> NDArray[Any]:
        """The means of a value, NaN where none was recorded.

        Raises:
            NotApplicable: The value was not recorded.
        """
        if value not in self.values:
            raise NotApplicable(
                f"the recording of {self.model} has no {value} of {self.name}; it has "
                f"{', '.join(sorted(self.values))}"
            )
        return self.values[value]

    def estimate(self, value: str, *index: int) -> Estimate:
        """The recorded mean of a value, at an index of its axes such as layer and head.

        Raises:
            NotApplicable: It was not recorded.
            MeasurementError: The index does not have the value's axes.
        """
        array = self[value]
        if len(index) != array.ndim:
            raise MeasurementError(
                f"{self.name}.{value} has the axes {self.axes[value]}: give an index for each, "
                f"got {len(index)}"
            )
        inside = all(0 <= at < size for at, size in zip(index, array.shape, strict=True))
        mean = float(array[index]) if inside else float("nan")
        if math.isnan(mean):
            where = ".".join(map(str, index))
            raise NotApplicable(
                f"the recording of {self.model} has no {value} of {self.name} at {where}"
            )
        error = float(self.errors[value][index])
        return Estimate(mean, None if math.isnan(error) else error, self.prompts.get(value))

    def _means_only(self, *_: Any, **__: Any) -> NoReturn:
        raise Undecidable(
            f"the recording of {self.model} has {self.name} as means, without a value for each "
            f"prompt: the recorded data cannot decide this claim"
        )

    of = sample = sum_over = strongest = _means_only

    def mean(self, value: str, half: Half | None = None) -> NDArray[np.float64]:
        """The means of a value over all prompts; halves were not recorded.

        Raises:
            Undecidable: Those of a half were asked for.
        """
        return self[value] if half is None else self._means_only()
