"""What a claim reads of its measurements while it judges, and what its samples are made of.

A claim is a function from measurements to a verdict. To say what decided, prompt by prompt and
head by head, its measurements are handed over as ``Watched`` ones: their samples remember what
they are made of, and which prompts they are of, through sums, differences and factors, up to the
one that decides. The verdict keeps it, ``samples.jsonl`` keeps it beside the record, and what
explains, shows or compares the verdict starts from there. No claim and no rule knows of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from mechtests.measurement import Half, Head, Measurement, Sample, named

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Part:
    """One term of a sample: a factor times a value of a measurement.

    Attributes:
        factor: What it is multiplied with.
        name: What the claim calls the measurement.
        value: Which of its arrays.
        index: At which index of the axes beside the prompts; a head is ``(layer, head)``.
        heads: Over which heads it is summed, where it is such a sum.
    """

    factor: float
    name: str
    value: str
    index: tuple[int, ...] = ()
    heads: tuple[Head, ...] = ()


@dataclass(frozen=True, eq=False)
class Traced(Sample):
    """A sample that knows what it is made of.

    Attributes:
        parts: Its terms; a number that was added or taken away is none.
        rows: Which prompts of the measurement its values are of, shape ``[prompt]``.
        name: What the claim calls the first measurement in it, whose prompts these are.
    """

    parts: tuple[Part, ...] = ()
    rows: NDArray[np.int64] | None = None
    name: str = ""

    def _joined(self, made: Sample, other: Sample | float, sign: float) -> Traced:
        more = other.parts if isinstance(other, Traced) else ()
        terms = tuple(replace(part, factor=sign * part.factor) for part in more)
        return replace(self, values=made.values, parts=(*self.parts, *terms))

    def __sub__(self, other: Sample | float) -> Traced:
        """The difference prompt by prompt, and its terms."""
        return self._joined(super().__sub__(other), other, -1.0)

    def __add__(self, other: Sample | float) -> Traced:
        """The sum prompt by prompt, and its terms."""
        return self._joined(super().__add__(other), other, 1.0)

    def __mul__(self, factor: float) -> Traced:
        """The values and the terms in another scale."""
        parts = tuple(replace(part, factor=factor * part.factor) for part in self.parts)
        return replace(self, values=self.values * factor, parts=parts)

    __rmul__ = __mul__

    def __neg__(self) -> Traced:
        """The values and the terms with the other sign."""
        return self * -1.0


@dataclass(frozen=True, eq=False)
class Watched(Measurement):
    """A measurement that notes which of its values are read.

    Attributes:
        label: What the claim calls it.
        read: The values that were read, in order; shared by all copies.
    """

    label: str = ""
    read: dict[str, None] = field(default_factory=dict)

    @classmethod
    def around(cls, measurement: Measurement, label: str) -> Measurement:
        """The measurement, watched; recorded means have no prompts and stay as they are."""
        if measurement.recorded:
            return measurement
        same = {each.name: getattr(measurement, each.name) for each in fields(Measurement)}
        return cls(**same, label=label)

    def __getitem__(self, value: str) -> NDArray[Any]:
        """One array by name, and a note of it."""
        array = super().__getitem__(value)
        self.read[value] = None
        return array

    def sample(self, value: str, half: Half | None = None, *index: Any) -> Sample:
        """One number a prompt, as of ``Measurement``, that knows where it is from."""
        at = tuple(int(each) for each in index)
        part = Part(1.0, self.label, value, at)
        return self._traced(super().sample(value, half, *index), part, half)

    def sum_over(self, value: str, heads: list[Head], half: Half | None = None) -> Sample:
        """The sum over some heads, as of ``Measurement``, that knows where it is from."""
        made = super().sum_over(value, heads, half)
        part = Part(1.0, self.label, value, heads=tuple(sorted(heads)))
        return self._traced(made, part if heads else None, half)

    def _traced(self, sample: Sample, part: Part | None, half: Half | None) -> Traced:
        import numpy as np

        parts, rows = () if part is None else (part,), np.flatnonzero(self.of(half))
        return Traced(sample.values, sample.cluster, sample.unit, parts, rows, self.label)


def spoken(sample: Sample) -> str:
    """What a sample is made of, in the claim's own names; empty where that is not known.

    ``"scores.induction of head 1.1"``, ``"answers.clean - answers.corrupted"``.
    """
    groups: dict[tuple[str, str, tuple[Head, ...]], list[Part]] = {}
    for part in sample.parts if isinstance(sample, Traced) else ():
        head = () if len(part.index) != 2 else ((part.index[0], part.index[1]),)
        groups.setdefault((part.name, part.value, part.heads or head), []).append(part)
    said: list[str] = []
    for (name, value, heads), parts in groups.items():
        factor = sum(part.factor for part in parts)
        sign = "- " if factor < 0 else ("+ " if said else "")
        size = "" if math.isclose(abs(factor), 1.0) else f"{abs(factor):.3g} "
        of = f" of {'heads' if len(heads) > 1 else 'head'} {named(heads)}" if heads else ""
        many = f" (mean of {len(parts)})" if len(parts) > 1 else ""
        said.append(f"{sign}{size}{name}.{value}{of}{many}")
    return " ".join(said)


def rows_of(sample: Sample, among: Sequence[Measurement]) -> tuple[str, NDArray[np.int64]] | None:
    """Of which measurement's prompts a sample is, by its label, and of which of them.

    A sample that was made without ``Measurement.sample`` is known by its clusters: those of a
    half's prompts, of some prompts where each is a cluster of its own, or rows of the task, as
    measurements of pairs have them. Where they fit several prompts alike, nothing is known.
    """
    import numpy as np

    if isinstance(sample, Traced) and sample.rows is not None:
        return sample.name, sample.rows
    fits = [
        (each.facts.get("prompts"), each.label, rows)
        for each in among
        if isinstance(each, Watched) and (rows := _rows_in(each, sample)) is not None
    ]
    if not fits:
        return None
    digest, name, rows = fits[0]
    alike = all(other == digest and np.array_equal(each, rows) for other, _, each in fits)
    return (name, rows) if alike else None


def _rows_in(measurement: Watched, sample: Sample) -> NDArray[np.int64] | None:
    """Which of a measurement's prompts a sample's clusters say that it is of."""
    import numpy as np

    for half in ("selection", "evaluation", None):
        chosen = measurement.of(half)
        if np.array_equal(measurement.cluster[chosen], sample.cluster):
            return np.flatnonzero(chosen)
    pairs = measurement.values.get("prompt")
    if pairs is not None and pairs.ndim == 1 and np.isin(sample.cluster, pairs).all():
        return np.asarray(sample.cluster, dtype=np.int64)
    known, places = np.unique(measurement.cluster, return_index=True)
    if len(known) == len(measurement.cluster) and np.isin(sample.cluster, known).all():
        return np.asarray(places[np.searchsorted(known, sample.cluster)], dtype=np.int64)
    return None
