"""Onsets held against each other and against a window: how far apart, which leads, inside or not.

An onset is a bracket, so a distance is one too: two onsets are at least d_min and at most
d_max octaves (doublings of the tokens seen) apart. A bracket that is open at 0 or at infinity
can refute a claim, and cannot make it hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from mechtests.errors import UsageError
from mechtests.onsets import Decide, Onset, State, least_error
from mechtests.rules import least_refuted
from mechtests.series import Moment, spoken_count
from mechtests.verdict import Control, Outcome, Verdict, not_applicable


def lead(one: Onset, other: Onset) -> tuple[float, float]:
    """By how many octaves the first onset comes before the other: at least and at most."""
    return (
        _octaves(one.high, other.low, -math.inf),
        _octaves(one.low, other.high, math.inf),
    )


def octaves_between(one: Onset, other: Onset) -> tuple[float, float]:
    """How many octaves two onsets are apart: at least (d_min) and at most (d_max)."""
    least, most = lead(one, other)
    return max(0.0, least, -most), max(most, -least)


def _octaves(before: float, after: float, where_open: float) -> float:
    """The octaves from one count to another; ``where_open`` from or to 0 or infinity."""
    if {before, after} & {0.0, math.inf}:
        return where_open
    return math.log2(after / before)


def within_octaves(one: Onset, other: Onset, octaves: float, *, what: str) -> Verdict:
    """Whether two onsets are within some octaves: d_max at most that; refuted when d_min is more.

    Args:
        one: An onset.
        other: Another.
        octaves: How many doublings of the tokens seen are still together.
        what: What is said of them, the start of the sentence.
    """

    def together(found: tuple[Onset, ...]) -> bool:
        return _closed(found) and octaves_between(*found)[1] <= octaves

    def apart(found: tuple[Onset, ...]) -> bool:
        return _placed(found) and octaves_between(*found)[0] > octaves

    return _compared(
        (one, other),
        together,
        apart,
        octaves_between(one, other),
        f"claimed within {octaves:g} octaves",
        Verdict(Outcome.INCONCLUSIVE, what, margin=octaves, relation="within"),
    )


def leads_at_most(one: Onset, other: Onset, octaves: float, *, what: str) -> Verdict:
    """Whether an onset comes before another by no more than some octaves, if at all."""
    least, most = lead(one, other)

    def little(found: tuple[Onset, ...]) -> bool:
        return _closed(found) and lead(*found)[1] <= octaves

    def much(found: tuple[Onset, ...]) -> bool:
        return _placed(found) and lead(*found)[0] > octaves

    return _compared(
        (one, other),
        little,
        much,
        (least, most),
        f"claimed to lead by at most {octaves:g} octaves",
        Verdict(Outcome.INCONCLUSIVE, what, margin=octaves, relation="<"),
    )


def later(one: Onset, other: Onset, *, what: str) -> Verdict:
    """Whether an onset is later than another, or never: its bracket begins where that ends."""

    def is_later(found: tuple[Onset, ...]) -> bool:
        return _placed(found) and found[1].by is not None and found[0].low >= found[1].high

    def is_earlier(found: tuple[Onset, ...]) -> bool:
        return is_later(found[::-1])

    return _compared(
        (one, other),
        is_later,
        is_earlier,
        lead(other, one),
        "claimed to be later",
        Verdict(Outcome.INCONCLUSIVE, what, margin=0.0),
    )


def _closed(found: tuple[Onset, ...]) -> bool:
    return all(each.state is State.FOUND and not each.is_open for each in found)


def _placed(found: tuple[Onset, ...]) -> bool:
    return not any(each.undecidable or each.state is State.UNCONFIRMED for each in found)


def _compared(
    onsets: tuple[Onset, Onset],
    holds: Decide,
    refutes: Decide,
    distance: tuple[float, float],
    claimed: str,
    verdict: Verdict,
) -> Verdict:
    """The verdict of two onsets; ``verdict`` brings what is said, its margin and relation."""
    if len({each.axis for each in onsets}) > 1:
        return not_applicable(
            f"{verdict.sentence}: one onset is in {onsets[0].axis} and the other in "
            f"{onsets[1].axis}, which do not compare"
        )
    outcome = _outcome(holds(onsets), refutes(onsets))
    sentence = f"{verdict.sentence}: {_spoken(*distance)}, {claimed}"
    sentence += "".join(f"; {each.sentence}" for each in onsets)
    if outcome is Outcome.INCONCLUSIVE:
        blamed = _blamed(onsets)
        sentence += "".join(f"; for {each.what}, {each.what_decides}" for each in blamed)
    return replace(
        verdict,
        outcome=outcome,
        sentence=sentence,
        interval=distance if all(map(math.isfinite, distance)) else None,
        unit="octaves",
        prompts=min(each.prompts for each in onsets),
        clusters=min(each.clusters for each in onsets),
        p=least_error(onsets, holds),
        p_refuted=least_error(onsets, refutes),
    )


def _outcome(holds: bool, refuted: bool) -> Outcome:
    if holds:
        return Outcome.HOLDS
    return Outcome.REFUTED if refuted else Outcome.INCONCLUSIVE


def _spoken(least: float, most: float) -> str:
    if math.isinf(most):
        return "any number of octaves" if math.isinf(least) else f"at least {least:.2g} octaves"
    return (
        f"at most {most:.2g} octaves" if math.isinf(least) else f"{least:.2g} to {most:.2g} octaves"
    )


def _blamed(onsets: tuple[Onset, ...]) -> tuple[Onset, ...]:
    """The onsets that leave most open: those without a bracket, else the wider ones."""
    wrong = tuple(each for each in onsets if not _closed((each,)))
    if wrong:
        return wrong
    widths = [_octaves(each.low, each.high, math.inf) for each in onsets]
    return tuple(e for e, width in zip(onsets, widths, strict=True) if width >= max(widths))


def inside_window(
    found: Onset, low: float, high: float, schedule: Sequence[float], *, what: str
) -> Verdict:
    """Whether an onset lies in a window of tokens, widened outwards to scheduled checkpoints.

    The bracket (after, by] must lie in the widened window, and refutes outside of it.

    Args:
        found: The onset.
        low: The window's lower end, in tokens.
        high: Its upper end.
        schedule: The tokens at all checkpoints of the model, measured here or not.
        what: What is said of it, the start of the sentence.

    Raises:
        UsageError: The window is empty, or no checkpoint is scheduled.
    """
    if not (0 <= low < high and len(schedule)):
        raise UsageError(
            f"{what}: a window needs its lower end below its upper and a schedule to widen it "
            f"to, got {low:g} to {high:g} tokens and {len(schedule)} checkpoints"
        )
    if found.axis != "tokens":
        return not_applicable(f"{what}: the window is in tokens, which the series does not say")
    start = max((at for at in schedule if at <= low), default=0.0)
    stop = min((at for at in schedule if at >= high), default=math.inf)

    def inside(each: tuple[Onset, ...]) -> bool:
        return _closed(each) and each[0].low >= start and each[0].high <= stop

    def outside(each: tuple[Onset, ...]) -> bool:
        return _placed(each) and (each[0].high <= start or each[0].low >= stop)

    outcome = _outcome(inside((found,)), outside((found,)))
    window = f"{spoken_count(low)} to {spoken_count(high)} tokens"
    widened = f"{spoken_count(start)} to {spoken_count(stop)} as checkpointed"
    sentence = f"{what}: {found.sentence}, claimed within {window} ({widened})"
    if outcome is Outcome.INCONCLUSIVE:
        sentence += f"; {found.what_decides}"
    return Verdict(
        outcome,
        sentence,
        interval=None if found.is_open else (found.low, found.high),
        unit="tokens",
        relation="within",
        prompts=found.prompts,
        clusters=found.clusters,
        p=least_error((found,), inside),
        p_refuted=least_error((found,), outside),
    )


def too_coarse(moments: Sequence[Moment], octaves: float) -> str | None:
    """Why a grid of checkpoints cannot decide "within some octaves"; None where it can.

    A bracket is as wide as the grid's spacing, so that two of them decide where it is at most
    half of what is claimed. From 0 tokens to the first checkpoint counts as no spacing.
    """
    known = [(m.tokens if m.tokens is not None else m.step, m.label) for m in moments]
    grid = [(at, label) for at, label in known if at]
    gaps = [
        (math.log2(after / before), f"{one} to {other}")
        for (before, one), (after, other) in pairwise(grid)
    ]
    widest, where = max(gaps, default=(math.inf, "too few checkpoints with a token count"))
    if widest <= octaves / 2 + 1e-9:
        return None
    return (
        f"within {octaves:g} octaves needs checkpoints at most {octaves / 2:g} octaves apart, and "
        f"these are up to {widest:.2g} apart ({where}): an onset there stays inconclusive"
    )


def tells_apart(
    wrong: Mapping[str, tuple[Onset, Onset]], octaves: float, *, what: str = "wrong pairings"
) -> Control:
    """The control of pairs that do not belong together: one at least must be further apart.

    Reached, "everything emerges together", unless d_min is more than the octaves for one.

    Args:
        wrong: The pairs by their names.
        octaves: What the right pairs are claimed to be within.
        what: The control's name.
    """
    told = {name: within_octaves(*pair, octaves, what=name) for name, pair in wrong.items()}
    apart = {name: each for name, each in told.items() if each.outcome is Outcome.REFUTED}
    least = {name: octaves_between(*pair)[0] for name, pair in wrong.items()}
    spoken = ", ".join(f"{name} at least {least[name]:.2g}" for name in (apart or least))
    verdict = "" if apart else ": everything emerges together"
    return Control(
        what,
        f"{what}, octaves apart: {spoken or 'none'}{verdict}",
        reached=not apart,
        p=least_refuted(told.values()),
        values=tuple(each for each in least.values() if math.isfinite(each)),
    )
