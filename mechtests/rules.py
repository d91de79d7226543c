"""The common rules of judging, each one function with the rule's name.

The rules that hold a sample against a margin are in ``margins``; here they are joined:
conjunctions, controls, gates and families. A claim states only what it adds to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from mechtests import matched, means, statistics
from mechtests.errors import NotApplicable, UsageError
from mechtests.margins import TAIL, above, below, combined, equivalent, share_above
from mechtests.measurement import Half, Head, Measurement
from mechtests.verdict import Control, Outcome, Verdict

__all__ = [
    "Gate",
    "GateState",
    "above",
    "absent",
    "below",
    "beside",
    "equivalent",
    "every",
    "family",
    "gate",
    "matched_random",
    "random_heads",
    "share_above",
    "value_control",
]

CONTROL_LEVEL = 0.05
RANDOM_SETS = 999
"""Re-sums of values that are stored cost nothing."""
SPOKEN = 3


def every(*parts: Verdict, what: str) -> Verdict:
    """Whether every part holds: "and", "each", "every".

    It holds when all do, with no correction (intersection-union: p is the largest), and is
    refuted when one is, after Holm over the parts. Otherwise it is inconclusive and names
    the parts that are undecided.

    Raises:
        UsageError: There is no part.
    """
    if not parts:
        raise UsageError(f"{what}: a conjunction needs at least one part, got none")
    adjusted = _holm(parts)
    refuted = [part for part, p in zip(parts, adjusted, strict=True) if p <= TAIL]
    open_parts = [part for part in parts if part.outcome is not Outcome.HOLDS]
    needed: int | None = None
    if refuted:
        outcome, sentence = Outcome.REFUTED, f"refuted{_spoken(refuted, parts)}"
    elif not open_parts:
        outcome, sentence = Outcome.HOLDS, f"holds{_spoken(parts, parts)}"
    else:
        outcome, sentence = Outcome.INCONCLUSIVE, f"undecided{_spoken(open_parts, parts)}"
        if any(part.outcome is Outcome.REFUTED for part in open_parts):
            sentence += "; refuted alone, but not among so many parts (Holm)"
        counts = [part.needed for part in open_parts]
        needed = None if None in counts else max(filter(None, counts))
    return Verdict(
        outcome=outcome,
        sentence=f"{what}: {sentence}",
        p=combined(max, [part.p for part in parts]),
        p_refuted=min(adjusted),
        needed=needed,
        parts=parts,
    )


def _holm(parts: Sequence[Verdict]) -> list[float]:
    """Holm's adjusted p that each part is refuted.

    A part that is not refuted by its own rule cannot be by this one; a refuted part
    without p (nothing was found at all) is certain.
    """
    ps = [(part.p_refuted or 0.0) if part.outcome is Outcome.REFUTED else 1.0 for part in parts]
    adjusted, largest = [1.0] * len(ps), 0.0
    for rank, index in enumerate(np.argsort(ps, kind="stable").tolist()):
        largest = max(largest, min((len(ps) - rank) * ps[index], 1.0))
        adjusted[index] = largest
    return adjusted


def _spoken(some: Sequence[Verdict], parts: Sequence[Verdict]) -> str:
    """How many parts of how many, and what the first few of them say."""
    words = "; ".join(part.sentence for part in some[:SPOKEN])
    more = f"; and {len(some) - SPOKEN} more" if len(some) > SPOKEN else ""
    of = f" in {len(some)} of {len(parts)} parts" if len(parts) > 1 else ""
    return f"{of}: {words}{more}"


def beside(verdict: Verdict, *controls: Control) -> Verdict:
    """The verdict beside what the same measurement gives where the claim should not hold.

    A holding verdict becomes inconclusive where a deciding control reaches it, or could
    not have told: "no alternative sets". Any other outcome stays. p is the largest of the
    verdict's and the deciding controls'.
    """
    deciding = [control for control in controls if control.decides]
    told = replace(
        verdict,
        controls=(*verdict.controls, *controls),
        p=combined(max, [verdict.p, *map(_p, deciding)]),
    )
    if verdict.outcome is not Outcome.HOLDS:
        return told
    silent = [c for c in deciding if c.p_min is not None and c.p_min > CONTROL_LEVEL]
    reached = [c for c in deciding if c.reached]
    if silent:
        why = f"no alternative sets: the smallest possible p is {silent[0].p_min:.2g}"
    elif reached:
        why = f"the control reaches it: {'; '.join(c.sentence for c in reached)}"
    else:
        return replace(
            told, sentence="; ".join([verdict.sentence, *(c.sentence for c in deciding)])
        )
    return replace(told, outcome=Outcome.INCONCLUSIVE, sentence=f"{verdict.sentence}; {why}")


def _p(control: Control) -> float:
    """The control's p; one without is passed or reached for certain."""
    return float(control.reached) if control.p is None else control.p


def matched_random(
    observed: float,
    draws: Sequence[float],
    *,
    what: str = "matched random sets",
    stratum: str = "layer",
    enumerated: bool = False,
    decides: bool = True,
) -> Control:
    """The control of matched random sets: reached where p is above 0.05.

    Args:
        observed: The value of the observed set.
        draws: The values of the drawn sets (see ``matched.matched_draws``).
        what: The control's name.
        stratum: What the sets are matched in.
        enumerated: Whether the draws are all distinct sets, the observed one among them.
        decides: Whether the control keeps the claim from holding.

    Raises:
        MeasurementError: There is no draw, or a value is NaN or infinite.
    """
    p = matched.permutation_p(observed, draws, enumerated=enumerated)
    values = np.asarray(draws, dtype=np.float64)
    how = f"all {len(values)} sets" if enumerated else f"{len(values)} draws"
    return Control(
        name=what,
        sentence=(
            f"{what} (same count by {stratum}, {how}): {values.mean():.3g} on "
            f"average, at most {values.max():.3g}, against {observed:.3g}, p = {p:.2g}"
        ),
        reached=p > CONTROL_LEVEL,
        p=p,
        p_min=matched.smallest_p(len(values), enumerated),
        values=tuple(values.tolist()),
        decides=decides,
        observed=float(observed),
    )


def random_heads(
    heads: Sequence[Head],
    value: Callable[[Sequence[Head]], float],
    shape: tuple[int, int],
    generator: np.random.Generator,
    *,
    what: str,
    count: int = RANDOM_SETS,
    decides: bool = True,
) -> Control:
    """The control that some heads have more of a value than as many random ones.

    Args:
        heads: The observed heads.
        value: What a set of heads has, from values that are measured already.
        shape: Layers, and heads of a layer, among which sets are drawn.
        generator: The source of the draws.
        what: The control's name.
        count: How many sets to draw.
        decides: Whether the control keeps the claim from holding.
    """
    layers, width = shape
    every_head = {layer: range(width) for layer in range(layers)}
    drawn = matched.matched_draws(heads, every_head, count, generator)
    return matched_random(
        float(value(sorted(heads))),
        [float(value(each)) for each in drawn.sets],
        what=what,
        stratum=drawn.stratum,
        enumerated=drawn.enumerated,
        decides=decides,
    )


def value_control(name: str, verdict: Verdict, *, decides: bool = True) -> Control:
    """A control that must stay on its side of a bound: reached unless its verdict holds.

    ``value_control("untrained cell", below(score, 0.1, what="induction score"))``
    """
    return Control(
        name=name,
        sentence=f"{name}: {verdict.sentence}",
        reached=verdict.outcome is not Outcome.HOLDS,
        p=verdict.p,
        values=() if verdict.estimate is None else (verdict.estimate,),
        decides=decides,
    )


def least_refuted(verdicts: Iterable[Verdict]) -> float:
    """The p of a control that one of several verdicts must be refuted: Bonferroni over them."""
    ps = [1.0 if each.p_refuted is None else each.p_refuted for each in verdicts]
    return min(1.0, len(ps) * min(ps, default=1.0))


def absent(name: str, why: str) -> Control:
    """A control that could not be measured: said, and not decisive."""
    return Control(name, f"{name}: absent, {why}", reached=False, decides=False)


def _held(part: Verdict) -> bool:
    return part.outcome is Outcome.HOLDS


class GateState(StrEnum):
    """Whether a behaviour is there."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"


STATES = {Outcome.HOLDS: GateState.PASSED, Outcome.REFUTED: GateState.FAILED}


@dataclass(frozen=True)
class Gate:
    """What a behaviour gate says of a cell.

    Attributes:
        state: Passed, failed or undecided.
        verdict: The behaviour against its levels, with values and intervals.
        unrecorded: How many of its levels nothing was recorded for; it may fail without them,
            and not pass.
    """

    state: GateState
    verdict: Verdict
    unrecorded: int = 0

    @property
    def sentence(self) -> str:
        """The values that decide, or leave open, with their intervals and levels."""
        failed = self.state is GateState.FAILED
        passed = self.state is GateState.PASSED or self.unrecorded > 0
        said = [
            part.sentence
            for part in self.verdict.parts
            if passed or (part.outcome is Outcome.REFUTED if failed else not _held(part))
        ]
        more = [f"nothing was recorded for {self.unrecorded} more of its levels"]
        return "; ".join([*said, *(more if self.unrecorded else [])])

    @property
    def needed(self) -> int | None:
        """How many prompts would decide an undecided gate."""
        return self.verdict.needed


def gate(measurement: Measurement, levels: Mapping[str, float], half: Half = "evaluation") -> Gate:
    """Whether the behaviour is above its levels, all of them.

    Passed when every interval is above its level, failed when one is below, else undecided.

    Args:
        measurement: The behaviour, one number a prompt.
        levels: What each of its values must exceed; ``"correct"`` is a proportion.
        half: The half it is judged on.

    Raises:
        UsageError: There is no level.
        MeasurementError: A value is missing, NaN or infinite.
    """
    parts = (
        _recorded_levels(measurement, levels)
        if measurement.recorded
        else [
            above(
                measurement.sample(value, half),
                level,
                what=f"{'accuracy' if value == 'correct' else value.replace('_', ' ')} on {half}",
                kind="proportion" if value == "correct" else "mean",
            )
            for value, level in levels.items()
        ]
    )
    verdict = every(*parts, what="gate")
    state = STATES.get(verdict.outcome, GateState.UNDECIDED)
    if state is GateState.PASSED and len(parts) < len(levels):  # the rest was not recorded
        return Gate(GateState.UNDECIDED, verdict, len(levels) - len(parts))
    return Gate(state, verdict)


def _recorded_levels(measurement: Measurement, levels: Mapping[str, float]) -> list[Verdict]:
    """What was recorded against its levels; the rest is left out, unless nothing was."""
    parts, lacking = [], []
    for value, level in levels.items():
        try:
            found = measurement.estimate(value)
        except NotApplicable as reason:
            lacking.append(reason)
        else:
            parts.append(means.above(found, level, what=f"recorded {value.replace('_', ' ')}"))
    if not parts:
        raise lacking[0]
    return parts


def family(ps: Sequence[float | None], *, dependent: bool = False) -> list[float]:
    """The q of each member of a family: Benjamini-Hochberg over one claim's verdicts.

    A member without p counts as 1. Leave out what is not applicable, gates and sanity
    claims. A verdict that holds with q above 0.05 is "holds, not after correction".

    Args:
        ps: The p of each member's verdict.
        dependent: Whether to allow for any dependence (Benjamini-Yekutieli).
    """
    known = [1.0 if p is None else p for p in ps]
    if dependent:
        return statistics.benjamini_yekutieli(known)
    return statistics.benjamini_hochberg(known)
