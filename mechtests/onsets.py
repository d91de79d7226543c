"""When something emerges in training: an onset as a bracket of checkpoints (claims.md, Onset)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

import numpy as np

from mechtests.bands import RESAMPLES, Level, standing
from mechtests.errors import MeasurementError
from mechtests.margins import LEVEL
from mechtests.means import mean_of
from mechtests.series import Curve, Floats, Moment, spoken_count
from mechtests.verdict import Outcome, Verdict

CONFIRMATIONS = 2


class State(StrEnum):
    """What is known of an onset."""

    FOUND = "found"
    NEVER = "never"
    UNCONFIRMED = "unconfirmed"
    UNCLEAR = "unclear"


@dataclass(frozen=True, eq=False)
class Onset:
    """The bracket (last below, first above] of checkpoints in which a curve passes its level.

    Attributes:
        what: What emerges, the start of the sentence.
        moments: The checkpoints in training order.
        positions: Tokens (or steps) at each, shape ``[moment]``.
        axis: ``"tokens"`` or ``"steps"``.
        above: How surely each checkpoint is above its level (``bands.Standing``).
        below: How surely each is below.
        error: A checkpoint is above, or below, where that is at most this.
        undecidable: Why no checkpoint can be placed, where none can.
        prompts: How many prompts it rests on; 0 where that is not known.
        clusters: How many clusters they form.
    """

    what: str
    moments: tuple[Moment, ...]
    positions: Floats
    axis: str
    above: Floats
    below: Floats
    error: float = 1 - LEVEL
    undecidable: str | None = None
    prompts: int = 0
    clusters: int = 0

    def at(self, error: float) -> Onset:
        """The same onset at another error, for its p."""
        return replace(self, error=error)

    @cached_property
    def _runs(self) -> list[int]:
        """How many checkpoints in a row are above, from each checkpoint on."""
        runs, run = [], 0
        for is_above in (self.above <= self.error)[::-1].tolist():
            run = run + 1 if is_above else 0
            runs.append(run)
        return runs[::-1]

    @cached_property
    def _confirmed(self) -> int | None:
        """The first checkpoint above whose next two are above as well."""
        return next((i for i, run in enumerate(self._runs) if run > CONFIRMATIONS), None)

    @cached_property
    def _candidate(self) -> int | None:
        """Where nothing is confirmed: the first of the checkpoints above up to the last."""
        ends = len(self._runs)
        return next((i for i, run in enumerate(self._runs) if run and i + run == ends), None)

    @cached_property
    def state(self) -> State:
        """Found, never, unconfirmed or unclear."""
        if self.undecidable:
            return State.UNCLEAR
        if self._confirmed is not None:
            return State.FOUND
        if self._candidate is not None:
            return State.UNCONFIRMED
        return State.NEVER if self.below[-1] <= self.error else State.UNCLEAR

    @cached_property
    def after(self) -> Moment | None:
        """The last checkpoint below before the onset; None where none is."""
        return None if self._last_below is None else self.moments[self._last_below]

    @cached_property
    def by(self) -> Moment | None:
        """The first checkpoint above, where it is confirmed."""
        return self.moments[self._confirmed or 0] if self.state is State.FOUND else None

    @cached_property
    def _last_below(self) -> int | None:
        if self.undecidable:
            return None
        stop = self._confirmed if self._confirmed is not None else self._candidate
        below = np.flatnonzero(self.below[:stop] <= self.error)
        return int(below[-1]) if len(below) else None

    @property
    def low(self) -> float:
        """The bracket's lower end in tokens; 0 where it is open."""
        return 0.0 if self._last_below is None else float(self.positions[self._last_below])

    @property
    def high(self) -> float:
        """The bracket's upper end in tokens; infinite where it is open."""
        return float(self.positions[self._confirmed or 0]) if self.by else math.inf

    @property
    def is_open(self) -> bool:
        """Whether the bracket is open at 0 or at infinity."""
        return self.after is None or self.by is None

    @cached_property
    def unclear(self) -> tuple[Moment, ...]:
        """The checkpoints inside the bracket that are neither above nor below."""
        start = -1 if self._last_below is None else self._last_below
        stop = len(self.moments) if self._confirmed is None else self._confirmed
        neither = (self.above > self.error) & (self.below > self.error)
        return tuple(self.moments[i] for i in range(start + 1, stop) if neither[i])

    @property
    def spoken(self) -> str:
        """The bracket in words: ``between 0.9e6 and 1.3e6 tokens``."""
        low, high = spoken_count(self.low), spoken_count(self.high)
        if self.by is None:
            return f"after {low} {self.axis}" if self.after else "at no known place"
        return f"between {low} and {high} {self.axis}" if self.after else f"by {high} {self.axis}"

    @property
    def sentence(self) -> str:
        """When it emerges, in a sentence."""
        if self.undecidable:
            return f"{self.what}: {self.undecidable}"
        last = self.moments[-1].label
        if self.state is State.FOUND:
            after = f"after {self.after.label}" if self.after else "none is below before"
            by = self.by.label if self.by else ""
            return f"{self.what} emerges {self.spoken} ({after}, by {by})"
        if self.state is State.NEVER:
            end = spoken_count(float(self.positions[-1]))
            return (
                f"{self.what} never emerges: below at the last checkpoint, {last} "
                f"({end} {self.axis})"
            )
        if self.state is State.UNCONFIRMED:
            first = self.moments[self._candidate or 0].label
            return (
                f"{self.what} is above from {first} to the last checkpoint, {last}, too few to "
                f"confirm: {CONFIRMATIONS} more must follow the first"
            )
        since = f", last below at {self.after.label}" if self.after else ""
        return (
            f"{self.what} is unclear: nowhere above at {CONFIRMATIONS + 1} checkpoints in a row"
            f"{since}, and not below at the last, {last}"
        )

    @property
    def what_decides(self) -> str:
        """What would make the bracket narrower, as a clause."""
        if self.undecidable:
            return "more prompts, or recorded standard errors, would decide"
        if self.unclear and self.state is not State.UNCONFIRMED:
            names = ", ".join(moment.label for moment in self.unclear[:3])
            more = f" and {len(self.unclear) - 3} more" if len(self.unclear) > 3 else ""
            neither = "are" if len(self.unclear) > 1 else "is"
            return f"more prompts would decide: {names}{more} {neither} neither above nor below"
        if self.by is None:
            return "later checkpoints would decide"
        after = self.after.label if self.after else "the start"
        return f"checkpoints between {after} and {self.by.label} would decide"

    def verdict(self) -> Verdict:
        """Whether it emerges at all: holds where found, is refuted where it never does."""
        outcomes = {State.FOUND: Outcome.HOLDS, State.NEVER: Outcome.REFUTED}
        outcome = outcomes.get(self.state, Outcome.INCONCLUSIVE)
        sentence = self.sentence
        if outcome is Outcome.INCONCLUSIVE and not self.undecidable:
            sentence += f"; {self.what_decides}"
        p = least_error((self,), lambda found: found[0].state is State.FOUND)
        p_refuted = least_error((self,), lambda found: found[0].state is State.NEVER)
        return Verdict(
            outcome,
            sentence,
            unit=self.axis,
            prompts=self.prompts,
            clusters=self.clusters,
            p=p,
            p_refuted=p_refuted,
        )


Decide = Callable[[tuple[Onset, ...]], bool]


def least_error(onsets: Sequence[Onset], decide: Decide) -> float | None:
    """One-sided p of what some onsets decide: half of the least error at which they still do.

    It is at most 0.025 exactly where they decide at the 95% of their bands; None where one of
    them cannot be placed at all.
    """
    if any(each.undecidable for each in onsets):
        return None
    errors = np.unique(np.concatenate([p for each in onsets for p in (each.above, each.below)]))
    usual = 1 - LEVEL
    least = next((e for e in (usual, *errors[errors > usual]) if _decides(onsets, decide, e)), None)
    if least == usual:
        for error in errors[errors <= usual][::-1].tolist():
            if not _decides(onsets, decide, error):
                break
            least = error
    return 1.0 if least is None else float(least) / 2


def _decides(onsets: Sequence[Onset], decide: Decide, error: float) -> bool:
    return decide(tuple(each.at(error) for each in onsets))


def onset(
    *rises: tuple[Curve, Level],
    what: str,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Onset:
    """When all of some curves are above their levels.

    A checkpoint is above where the whole simultaneous 95% band of every curve is above its
    level, below where that of any is below, else unclear; the bands share their error, so that
    all of them hold at once. The onset lies after the last checkpoint below (before 0 tokens
    where there is none) and by the first above whose next two are above as well.

    Args:
        rises: Curves of the same checkpoints, each with its level, one number or one a
            checkpoint: ``(accuracy, 0.6), (difference, 0.0)``.
        what: What emerges.
        generator: The source of the bands' draws.
        resamples: How many times the clusters are drawn.

    Raises:
        MeasurementError: There is no curve, or the curves have other checkpoints.
    """
    if not rises or len({curve.labels for curve, _ in rises}) > 1:
        raise MeasurementError(
            f"{what}: an onset needs curves of the same checkpoints and at least one, got "
            f"{len(rises)} of {', '.join(str(len(curve)) for curve, _ in rises)} checkpoints"
        )
    curve = rises[0][0]
    found = [standing(each, level, generator, resamples=resamples) for each, level in rises]
    first = mean_of(curve.points[0])
    return Onset(
        what,
        curve.moments,
        curve.positions,
        curve.axis,
        np.minimum(len(found) * np.max([each.above for each in found], axis=0), 1.0),
        np.minimum(len(found) * np.min([each.below for each in found], axis=0), 1.0),
        undecidable=next((each.undecidable for each, _ in rises if each.undecidable), None),
        prompts=first.prompts,
        clusters=first.clusters,
    )


def before(curve: Curve, onset: Onset) -> Curve | None:
    """The curve at the checkpoints that are surely before an onset; None where there are none.

    All of them where it never comes; up to the last below where it is unclear.
    """
    if onset.state is State.NEVER:
        return curve
    if onset.by is not None:
        stop = onset.moments.index(onset.by)
    else:
        stop = 0 if onset.after is None else onset.moments.index(onset.after) + 1
    return _at(curve, onset.moments[:stop])


def since(curve: Curve, onset: Onset) -> Curve | None:
    """The curve from the first checkpoint above on; None where there is no confirmed one."""
    if onset.by is None:
        return None
    return _at(curve, onset.moments[onset.moments.index(onset.by) :])


def _at(curve: Curve, moments: Sequence[Moment]) -> Curve | None:
    kept = {moment.label for moment in moments}
    chosen = [i for i, label in enumerate(curve.labels) if label in kept]
    return curve.take(chosen) if chosen else None
