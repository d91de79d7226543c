"""The standard errors of recorded means: given, of a share, or from a second recording."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from mechtests.errors import UsageError
from mechtests.models.columns import Column
from mechtests.models.recording import ROUNDING, Entry
from mechtests.statistics import proportion_interval

FEWEST_COMMON = 5
"""Two recordings with fewer common checkpoints say nothing of their error."""
NORMAL = 1.959964
"""Standard errors from the mean to the end of its 95% interval."""

Key: TypeAlias = tuple[str, tuple[str, str, str, tuple[int, ...]]]
"""A model, and what of it was recorded."""
Entries: TypeAlias = Mapping[str, Sequence[Entry]]


def given(entries: Entries, error: float) -> dict[str, list[Entry]]:
    """The same standard error for every mean, in its unit.

    Raises:
        UsageError: It is not a number above 0.
    """
    if not (math.isfinite(error) and error > 0):
        raise UsageError(f"--error {error:g}: a standard error is a number above 0")
    derived = Derived(error, None, f"{error:g}, given with --error")
    return _each(entries, derived.applied)


def of_columns(entries: Entries, columns: Sequence[Column], scale: float) -> dict[str, list[Entry]]:
    """The standard errors of a column of the same file, scaled like the means; one for each head.

    Raises:
        UsageError: The file has several columns of means, or an error is below 0.
    """
    name = columns[0].header or columns[0].name
    places = [entry.index for each in entries.values() for entry in each]
    if len(places) > len(set(places)):
        raise UsageError(
            f"--error-column {name}: the file has several columns of means; choose with "
            f"--column the one these errors belong to"
        )
    if any(value < 0 for column in columns for value in column.values.values()):
        raise UsageError(f"--error-column {name}: a standard error is below 0")
    found = {
        (column.index, at.label): scale * value
        for column in columns
        for at, value in column.values.items()
        if at is not None
    }

    def with_column(entry: Entry) -> Entry:
        errors = tuple(
            None if at is None else found.get((entry.index, at.label)) for at in entry.checkpoints
        )
        return replace(entry, errors=errors, error_from=f"column {name}")

    return _each(entries, with_column)


def binomial(entries: Entries, trials: int) -> dict[str, list[Entry]]:
    """The standard errors of shares of independent trials, from the shares themselves.

    Where trials go together, fewer than there were are independent: a copy score of 70 prompts
    at three positions has 210 trials, and its positions, at worst, all go with their prompt (a
    design effect of 3), so it is worth 70.

    The error is that with which the mean +- 1.96 errors reaches as far as the farther end of
    the Clopper-Pearson interval: the root of ``p (1 - p) / trials`` would be 0 for a share of 0
    or 1. It is never smaller than that root. Of 70 trials, the normal interval with this error
    covers at least 95% for every true share (``tests/test_recorded_heads.py``).

    It is the error of the prompts, as if other ones had been drawn at each checkpoint. It is
    not that of another run of the recording (another seed of the data, BOS or precision), nor
    of another training run.

    Args:
        entries: What is imported, by model.
        trials: How many independent trials each share is of.

    Raises:
        UsageError: There is no trial, or a value is not a share.
    """
    if trials < 1:
        raise UsageError(f"--binomial {trials}: a share is one of 1 trial or more")

    def with_error(entry: Entry) -> Entry:
        if min(entry.means) < 0 or max(entry.means) > 1 + ROUNDING:
            raise UsageError(
                f"--binomial {trials}: {entry.name} is no share of trials, it has values from "
                f"{min(entry.means):.3g} to {max(entry.means):.3g}"
            )
        errors = tuple(of_share(min(mean, 1.0), trials) for mean in entry.means)
        said = (
            f"binomial, as far as Clopper-Pearson's interval of {trials} independent trials "
            f"reaches; neither another run of the recording (seed of its data, BOS, precision) "
            f"nor another training run is in it, and checkpoints count as independent"
        )
        return replace(entry, errors=errors, error_from=said)

    return _each(entries, with_error)


def of_share(share: float, trials: int) -> float:
    """The standard error of a share: how far Clopper-Pearson's 95% interval reaches, over 1.96."""
    low, high = proportion_interval(share * trials, trials).ends
    root = math.sqrt(share * (1 - share) / trials)  # larger only where trials are very few
    return max((share - low) / NORMAL, (high - share) / NORMAL, root)


@dataclass(frozen=True)
class Derived:
    """The standard error of one recording, from a second one.

    Attributes:
        error: The error: of every mean, or for each unit of a mean's size.
        least: Means smaller than this have its error; None where all errors are equal.
        said: How it was found, in words.
        floor: The error of a mean of 0, which then takes the place of ``least``.
    """

    error: float
    least: float | None
    said: str
    floor: float | None = None

    def of(self, mean: float) -> float:
        """The standard error of a mean."""
        if self.floor is not None:
            return math.hypot(self.error * mean, self.floor)
        return self.error if self.least is None else self.error * max(abs(mean), self.least)

    def applied(self, entry: Entry) -> Entry:
        """An entry with this error."""
        errors = tuple(self.of(mean) for mean in entry.means)
        return replace(entry, errors=errors, error_from=self.said)


def from_replicates(
    entries: Entries,
    others: Sequence[Mapping[Key, Entry]],
    *,
    proportional: bool = False,
    zero_until: int | None = None,
) -> tuple[dict[str, list[Entry]], list[str]]:
    """Errors from other, independent recordings of the same quantity.

    What no other recording has takes over the root mean square of the errors that were found
    for the same value of other models.

    Args:
        entries: What is imported, by model.
        others: What each other file holds.
        proportional: Whether errors grow with the values.
        zero_until: Up to this step the truth is 0, since the models are not trained yet: the
            root mean square of what was recorded there is the error of a mean of 0.

    Returns:
        The entries with errors, and what was found, in words.

    Raises:
        UsageError: Nothing was recorded twice, or at too few common checkpoints.
    """
    derived: dict[Key, Derived] = {}
    for model, each in entries.items():
        for entry in each:
            twins = [other[model, entry.key] for other in others if (model, entry.key) in other]
            if twins:
                found = [replicated(entry, twin, proportional=proportional) for twin in twins]
                derived[model, entry.key] = _pooled(found, "; ".join(d.said for d in found))
    if not derived:
        raise UsageError(
            "--replicate: the other file has nothing that is imported now, of the same model, "
            "metric, task and value"
        )
    notes = [f"{model}: {each.said}" for (model, _), each in derived.items()]
    made: dict[str, list[Entry]] = {}
    for model, each in entries.items():
        for entry in each:
            own = derived.get((model, entry.key)) or _taken_over(entry, derived)
            if own is not None and zero_until is not None:
                own = _with_floor(own, _untrained(entries, entry, zero_until), zero_until)
            made.setdefault(model, []).append(entry if own is None else own.applied(entry))
    return made, notes


def replicated(one: Entry, two: Entry, *, proportional: bool = False) -> Derived:
    """The standard error of one of two recordings of the same.

    The difference of two independent recordings has the standard error of one times the root
    of 2: the error is the root mean square difference over the checkpoints that both have,
    divided by the root of 2. That is one number for all of training, and too large where the
    values are small, if errors grow with the values. Where they do, ``proportional`` takes each
    difference as a share of the mean of the two; the error of a mean smaller than any that was
    recorded twice is that of the smallest.

    Raises:
        UsageError: They have too few checkpoints in common.
    """
    first, second = _by_moment(one), _by_moment(two)
    common = [at for at in first if at in second]
    if len(common) < FEWEST_COMMON:
        raise UsageError(
            f"--replicate: two recordings of {one.name} have {len(common)} checkpoints in "
            f"common, and {FEWEST_COMMON} are needed to derive an error"
        )
    differences = [first[at] - second[at] for at in common]
    sizes = [abs(first[at] + second[at]) / 2 for at in common]
    if proportional and min(sizes) == 0:
        raise UsageError(f"--proportional: {one.name} has a mean of 0, of which nothing is a share")
    shares = [d / size if proportional else d for d, size in zip(differences, sizes, strict=True)]
    error = _root_mean_square(shares) / math.sqrt(2)
    mean = sum(differences) / len(differences)
    least = min(sizes) if proportional else None
    how = f", as a share of the mean but of at least {least:.3g}" if least is not None else ""
    return Derived(
        error,
        least,
        f"standard error {error:.3g}{how}: the root mean square difference to "
        f"{two.provenance['file']} over {len(common)} common checkpoints, divided by the root "
        f"of 2 (the mean difference is {mean:+.3g})",
    )


def _pooled(found: Sequence[Derived], said: str) -> Derived:
    """Several errors of the same value as one."""
    leasts = [each.least for each in found if each.least is not None]
    error = _root_mean_square(each.error for each in found)
    return Derived(error, min(leasts) if leasts else None, said)


def _taken_over(entry: Entry, derived: Mapping[Key, Derived]) -> Derived | None:
    """The error of a value that was recorded once: that of the models that have it twice."""
    same = {model: each for (model, key), each in derived.items() if key == entry.key}
    if not same:
        return None
    pooled = _pooled(tuple(same.values()), "")
    how = (
        ""
        if pooled.least is None
        else f" as a share of the mean but of at least {pooled.least:.3g}"
    )
    said = f"standard error {pooled.error:.3g}{how}, taken over from {', '.join(same)}"
    return replace(pooled, said=said)


def _untrained(entries: Entries, like: Entry, until: int) -> list[float]:
    """What was recorded of a value before training, of every model.

    Raises:
        UsageError: Nothing was.
    """
    found = [
        mean
        for each in entries.values()
        for entry in each
        if entry.key == like.key
        for at, mean in zip(entry.checkpoints, entry.means, strict=True)
        if at is not None and at.step is not None and at.step <= until
    ]
    if not found:
        raise UsageError(f"--zero-until {until}: {like.name} has no checkpoint up to that step")
    return found


def _with_floor(derived: Derived, untrained: Sequence[float], until: int) -> Derived:
    floor = _root_mean_square(untrained)
    said = (
        f"{derived.said}; at 0 it is {floor:.3g}, the root mean square of {len(untrained)} values "
        f"up to step {until}, where the truth is 0"
    )
    return replace(derived, floor=floor, said=said)


def _by_moment(entry: Entry) -> dict[int | None, float]:
    return {
        None if at is None else at.progress: mean
        for at, mean in zip(entry.checkpoints, entry.means, strict=True)
    }


def _root_mean_square(values: Iterable[float]) -> float:
    squares = [value * value for value in values]
    return math.sqrt(sum(squares) / len(squares))


def _each(entries: Entries, change: Callable[[Entry], Entry]) -> dict[str, list[Entry]]:
    return {model: [change(entry) for entry in each] for model, each in entries.items()}
