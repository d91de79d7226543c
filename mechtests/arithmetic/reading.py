"""What claims about arithmetic read of its measurements: samples by operator, pooled verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechtests import margins, statistics
from mechtests.arithmetic.gates import Gated
from mechtests.measurement import HALVES, Half, Measurement, Sample
from mechtests.tasks.arithmetic import NAMES
from mechtests.verdict import Outcome, Verdict

Floats = NDArray[np.floating[Any]]
GUARD = 0.2
"""What a share's denominator must be of the whole (claims.md, Nikankin et al.)."""
SIDES = {Outcome.HOLDS, Outcome.REFUTED}


def operators_of(measurement: Measurement) -> list[int]:
    """The operators that were measured, in the order of the pairs."""
    return [int(op) for op in dict.fromkeys(measurement["operator"].tolist())]


def rows(measurement: Measurement, operators: Sequence[int], half: Half) -> NDArray[np.bool_]:
    """Which pairs are of some operators and a half, shape ``[pair]``."""
    of_half = measurement["half"] == HALVES.index(half)
    chosen: NDArray[np.bool_] = of_half & np.isin(measurement["operator"], operators)
    return chosen


def sample(
    measurement: Measurement,
    values: Floats,
    operators: Sequence[int],
    half: Half = "evaluation",
    unit: str = "",
) -> Sample:
    """One number a pair, of some operators and a half; operators have as many pairs each.

    Args:
        measurement: Of pairs.
        values: One for each of its pairs, shape ``[pair]``.
        operators: The operators that are pooled, with equal weights.
        half: The half.
        unit: Of the values.
    """
    mine = rows(measurement, operators, half)
    return Sample(np.asarray(values, np.float64)[mine], measurement["prompt"][mine], unit)


def pooled(
    rule: Callable[[Sequence[int]], Verdict], operators: Sequence[int], gated: Gated
) -> Verdict:
    """The verdict over all gated operators; those that alone are on the other side are named.

    Args:
        rule: From the operators that are pooled to a verdict.
        operators: The gated operators.
        gated: Why the others are left out.
    """
    verdict = rule(operators)
    alone = {NAMES[op]: rule([op]) for op in operators}
    other = [
        name
        for name, each in alone.items()
        if {each.outcome, verdict.outcome} == SIDES and len(operators) > 1
    ]
    said = [verdict.sentence]
    if other:
        said.append(f"on the other side alone: {', '.join(other)}")
    if gated.reasons:
        said.append(f"left out: {', '.join(NAMES[op] for op in gated.reasons)}")
    return replace(verdict, sentence="; ".join(said)).showing(
        by_operator={name: str(each) for name, each in alone.items()},
        left_out={NAMES[op]: why for op, why in gated.reasons.items()},
    )


@dataclass(frozen=True, eq=False)
class Kept:
    """What a circuit keeps of the whole above a floor, pair by pair.

    Attributes:
        circuit: NL of the circuit.
        floor: NL of the floor.
        whole: NL of the whole network.
    """

    circuit: Sample
    floor: Sample
    whole: Sample

    @property
    def faithfulness(self) -> float:
        """Floor-corrected, a ratio of means; NaN where the whole is not above its floor."""
        part = statistics.summary(self.circuit - self.floor).mean
        whole = statistics.summary(self.whole - self.floor).mean
        return part / whole if whole > 0 else float("nan")

    def above(self, share: float, *, what: str) -> Verdict:
        """Whether the faithfulness is above a share, on the contrast of pairs.

        Inconclusive, "denominator", where the whole is not above its floor by 0.2 of itself.
        """
        return margins.share_above(
            self.circuit - self.floor,
            self.whole - self.floor,
            share,
            span=self.whole,
            guard=GUARD,
            what=what,
        )


def kept(
    measurement: Measurement,
    operators: Sequence[int],
    circuit: str,
    floor: str,
    half: Half = "evaluation",
) -> Kept:
    """A circuit of a measurement against a floor."""
    names = (circuit, floor, "whole")
    return Kept(*(sample(measurement, measurement[name], operators, half) for name in names))


def mean_faithfulness(
    measurement: Measurement, values: Floats, floor: str, operators: Sequence[int]
) -> Floats:
    """Floor-corrected faithfulness of several circuits over all pairs of some operators.

    Args:
        measurement: Of pairs.
        values: NL of the circuits, shape ``[pair, circuit]``.
        floor: The floor's name.
        operators: The operators that are pooled.

    Returns:
        Shape ``[circuit]``.
    """
    mine = rows(measurement, operators, "evaluation")
    low = measurement[floor][mine].mean(dtype=np.float64)
    whole = measurement["whole"][mine].mean(dtype=np.float64) - low
    found: Floats = (values[mine].mean(0, dtype=np.float64) - low) / whole
    return found


def set_above(
    statistic: Callable[[NDArray[np.bool_]], float],
    clusters: NDArray[np.int64],
    margin: float,
    *,
    what: str,
    prompts: int | None = None,
    census: bool = False,
) -> Verdict:
    """Whether a statistic of sets is above a margin, by the delete-a-group jackknife.

    Where no group changes it there is no interval, and the verdict is inconclusive; of a count of
    all components it is a census then, which is compared exactly.

    Args:
        statistic: From which prompts are kept, shape ``[prompt]``, to a number.
        clusters: Of the prompts.
        margin: What it is held against.
        what: The start of the sentence.
        prompts: How many there are, where the clusters are groups of them.
        census: Whether all components are counted.
    """
    whole = statistic(np.ones(len(clusters), bool))
    interval = statistics.jackknife(statistic, clusters)
    said = margins.spoken(whole, interval, margin)
    sentence = f"{what}: {said}, claimed above {margin:g}"
    size = {"prompts": prompts or len(clusters), "clusters": len(np.unique(clusters))}
    found: dict[str, Any] = {"estimate": whole, "margin": margin, "relation": ">", **size}
    if interval is None and census:
        outcome = Outcome.HOLDS if whole > margin else Outcome.REFUTED
        why = "the same without any tenth of the prompts"
        p = float(outcome is not Outcome.HOLDS)
        return Verdict(outcome, f"{sentence}; {why}", p=p, p_refuted=1.0 - p, **found)
    if interval is None:
        why = "no tenth of the prompts changes it, so there is no interval"
        return Verdict(Outcome.INCONCLUSIVE, f"{sentence}; {why}", **found)
    p, p_refuted = (_p(whole, margin, interval, side) for side in (1, -1))
    outcome = Outcome.HOLDS if interval.low > margin else Outcome.INCONCLUSIVE
    outcome = Outcome.REFUTED if interval.high < margin else outcome
    return Verdict(outcome, sentence, interval=interval.ends, p=p, p_refuted=p_refuted, **found)


def _p(estimate: float, margin: float, interval: statistics.Interval, side: int) -> float:
    """One-sided p from a jackknife's interval: t with its groups less one degrees of freedom."""
    from scipy.special import stdtr, stdtrit

    half = (interval.high - interval.low) / 2
    degrees = interval.degrees or 1
    error = half / float(stdtrit(degrees, (1 + interval.level) / 2))
    return float(stdtr(degrees, -side * (estimate - margin) / error))


def undecided(verdict: Verdict, why: str) -> Verdict:
    """The verdict as inconclusive, for a reason."""
    sentence = f"{verdict.sentence}; {why}"
    return replace(verdict, outcome=Outcome.INCONCLUSIVE, sentence=sentence)


def behind(guard: Verdict, verdict: Verdict, said: str) -> Verdict:
    """A verdict on a share of several operators, inconclusive where its denominator is too small.

    Args:
        guard: Whether the denominator is above its guard.
        verdict: On the contrast.
        said: The share, in words.
    """
    told = replace(verdict, sentence=f"{said}; {verdict.sentence}")
    if guard.outcome is Outcome.HOLDS:
        return told
    return undecided(told, f"denominator: {guard.sentence}")


def of_units(verdict: Verdict, units: str) -> Verdict:
    """The verdict with what was counted, where that is no prompts and each is its own cluster."""
    counted = f"{verdict.prompts} prompts in {verdict.clusters} clusters"
    sentence = verdict.sentence.replace(counted, f"{verdict.prompts} {units}")
    return replace(verdict, sentence=sentence.replace("prompts would", f"{units} would"))
