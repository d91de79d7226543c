"""What claims about arithmetic read of its measurements: samples by operator, pooled verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechtests import means, statistics
from mechtests.arithmetic.gates import Gated
from mechtests.circuits.stability import jackknifed
from mechtests.means import NO_SPREAD
from mechtests.measurement import HALVES, Half, Measurement, Sample
from mechtests.shares import Share
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


def kept(
    measurement: Measurement,
    operators: Sequence[int],
    circuit: str,
    floor: str,
    half: Half = "evaluation",
) -> Share:
    """What a circuit keeps of the whole above a floor: its faithfulness, as a share.

    Args:
        measurement: Of NL by pair, of circuits and of the ``whole``.
        operators: The operators that are pooled.
        circuit: The circuit's name.
        floor: The floor's name.
        half: The half.
    """
    names = (circuit, floor, "whole")
    some, low, whole = (sample(measurement, measurement[n], operators, half) for n in names)
    return Share(some - low, whole - low, span=whole, guard=GUARD)


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
    group = statistics.cluster_groups(clusters)
    groups = np.unique(group)
    whole = statistic(np.ones(len(group), bool))
    without = np.array([statistic(group != each) for each in groups])
    over = f"{prompts or len(clusters)} prompts, without a tenth of them at a time"
    found = jackknifed(whole, without, over=over)
    if np.allclose(without, whole, rtol=1e-12, atol=0.0):
        found = replace(found, error=0.0 if census else float("nan"), unknown=NO_SPREAD)
    return means.above(found, margin, what=what)


def undecided(verdict: Verdict, why: str) -> Verdict:
    """The verdict as inconclusive, for a reason."""
    sentence = f"{verdict.sentence}; {why}"
    return replace(verdict, outcome=Outcome.INCONCLUSIVE, sentence=sentence)


def of_units(verdict: Verdict, units: str) -> Verdict:
    """The verdict with what was counted, where that is no prompts and each is its own cluster."""
    counted = f"{verdict.prompts} prompts in {verdict.clusters} clusters"
    sentence = verdict.sentence.replace(counted, f"{verdict.prompts} {units}")
    return replace(verdict, sentence=sentence.replace("prompts would", f"{units} would"))
