"""Whether knock-outs work at every checkpoint.

Source: Nikankin et al. 2025, page 9 and Figure 10c. The rule at one checkpoint is that of
``nikankin2025.knockout-beats-random``, with the number of neurons that decides there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from mechtests import margins
from mechtests.arithmetic import reading
from mechtests.arithmetic.bag_knockout_measures import K
from mechtests.arithmetic.pools import CONTROLS
from mechtests.measurement import Measurement
from mechtests.rules import every
from mechtests.verdict import Outcome, Verdict, not_applicable

MARGIN, SHORT = 0.10, 0.2
FEWEST = 3
"""Checkpoints there must be."""
SAID = {
    "unassociated": "neurons of other heuristics",
    "attribution": "neurons of the same attribution",
    "other": "another prompt's neurons",
}


def beats(
    found: Measurement,
    operators: Sequence[int],
    heuristic: NDArray[Any],
    control: NDArray[Any],
    what: str,
) -> Verdict:
    """Accuracy without each control's neurons minus without the prompt's own, above 0.10.

    Args:
        found: A measurement of knock-outs.
        operators: The operators that are pooled.
        heuristic: Whether each prompt is right without its own, ``[prompt]``.
        control: How often it is without others, ``[prompt, control]``.
        what: What the parts are of, for the sentence.
    """
    parts = []
    for place, name in enumerate(CONTROLS):
        contrast = control[:, place] - heuristic
        said = f"accuracy without {SAID[name]} minus without the prompt's"
        parts.append(margins.above(reading.sample(found, contrast, operators), MARGIN, what=said))
    return every(*parts, what=what)


def beats_random(found: Measurement, operators: Sequence[int], at: str) -> Verdict:
    """The same of one checkpoint, undecided where too many prompts have too few neurons.

    Args:
        found: ``arithmetic.bag_knockouts`` there.
        operators: The operators that are pooled.
        at: The checkpoint's label.
    """
    mine = reading.rows(found, operators, "evaluation")
    short = float(found["short"][mine].mean())
    if not found["done"].all():
        why = f"at {at}: {_few(short, K)}, so that none were knocked out"
        return Verdict(Outcome.INCONCLUSIVE, why, p=1.0, p_refuted=1.0)
    verdict = beats(found, operators, found["heuristic"], found["control"], f"at {at}")
    return unless_short(verdict, short, K)


def unless_short(verdict: Verdict, short: float, k: int) -> Verdict:
    """The verdict, undecided where over a fifth of the prompts have too few neurons.

    Args:
        verdict: With k neurons of each layer.
        short: The share of the prompts that have fewer in some layer.
        k: How many are taken.
    """
    if short <= SHORT:
        return verdict
    return replace(reading.undecided(verdict, _few(short, k)), p=1.0, p_refuted=1.0)


def _few(short: float, k: int) -> str:
    return f"{short:.0%} of the prompts have fewer than {k} such neurons in some layer"


def works_throughout(
    checkpoints: Mapping[str, Measurement], operators: Mapping[str, Sequence[int]]
) -> Verdict:
    """Whether a knock-out of heuristics beats random ones at each of some checkpoints.

    Args:
        checkpoints: ``arithmetic.bag_knockouts`` by label, in order.
        operators: Those that are pooled at each of them.
    """
    if len(checkpoints) < FEWEST:
        return not_applicable(
            f"knock-outs were measured at {len(checkpoints)} checkpoints that do arithmetic, and "
            f"{FEWEST} are needed"
        )
    parts = [beats_random(each, operators[at], at) for at, each in checkpoints.items()]
    return every(*parts, what=f"{K} neurons a layer at {len(parts)} checkpoints")
