"""Why a model fails at a problem: fewer heuristic neurons at work, or weaker ones.

A heuristic neuron is at work on a prompt when a heuristic that it matches holds for the prompt. How
many are, and what they add to the logit of the right answer, is held against correct prompts that
are alike: what holds for a prompt is a function of its operands, and failures have other operands.

Source: Nikankin et al. 2025, page 8 and Figure 9, whose correct and incorrect prompts are any,
and whose contributions are against nothing. Where we differ: prompts are matched, as many neurons
of the same attribution that match no heuristic are the control, and logits are centred.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechtests import margins, statistics
from mechtests.arithmetic.contributions import Contributions
from mechtests.arithmetic.partners import lacking
from mechtests.arithmetic.problems import Problems
from mechtests.arithmetic.reading import of_units
from mechtests.errors import NotApplicable, UsageError
from mechtests.matched import STRATA
from mechtests.measurement import Sample
from mechtests.rules import beside, value_control
from mechtests.tasks.arithmetic import NAMES
from mechtests.tasks.prompts import Ids
from mechtests.verdict import Control, Outcome, Verdict

Floats = NDArray[np.float64]

AUC = 0.7
FEWER = 0.05
"""Of the mean count: so many fewer neurons on failed prompts are still not fewer."""
BINS = 5
FEWEST_PAIRS = 100


# ---------------------------------------------------------------- pairs of prompts


@dataclass(frozen=True, eq=False)
class MatchedPairs:
    """Correct prompts, each with an incorrect one that is alike.

    Attributes:
        correct: Rows among the correct prompts, shape ``[pair]``, none twice.
        incorrect: Rows among the incorrect ones, the same.
        stratum: The number of the pair's stratum, shape ``[pair]``.
    """

    correct: Ids
    incorrect: Ids
    stratum: Ids

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self.stratum)

    def apart(self, correct: Problems, incorrect: Problems) -> dict[str, float]:
        """How far pairs are still apart on average: incorrect minus correct."""
        mine, theirs = correct.select(self.correct), incorrect.select(self.incorrect)
        return {
            name: float(getattr(theirs, name).mean() - getattr(mine, name).mean())
            for name in VARIABLES
        }


VARIABLES = ("first", "second", "result")


def pairs(
    correct: Problems,
    incorrect: Problems,
    generator: np.random.Generator,
    *,
    bins: int = BINS,
    fewest: int = FEWEST_PAIRS,
    most: int | None = None,
) -> MatchedPairs:
    """Correct and incorrect prompts in pairs with both operands and the answer in the same bins.

    A stratum is a bin of operand 1, of operand 2 and of the answer. Bins hold equally many of
    the incorrect prompts, of which there are few, as far as equal numbers let them. Within a
    stratum prompts are paired at random, each at most once; those without a partner are left out.

    Args:
        correct: Prompts that are answered right, of one operator.
        incorrect: Prompts of the same operator that are not.
        generator: The source of the pairing.
        bins: Of each variable.
        fewest: So many pairs are needed.
        most: No more pairs than these are kept.

    Returns:
        Pairs in a random order, so that the first of them are a random draw.

    Raises:
        UsageError: The prompts are not of one operator.
        NotApplicable: There are fewer pairs than needed.
    """
    operators = set(correct.operator.tolist()) | set(incorrect.operator.tolist())
    if len(operators) > 1:
        raise UsageError(f"pairs are of prompts of one operator, got those of {sorted(operators)}")
    name = NAMES[operators.pop()] if operators else "arithmetic"
    found = _paired(*_strata(correct, incorrect, bins), generator)
    if len(found) < fewest:
        raise NotApplicable(
            f"{name}: {len(found)} pairs of a correct and an incorrect prompt with operands and "
            f"answer in the same bins, of {len(correct)} correct and {len(incorrect)} incorrect "
            f"ones, and {fewest} are needed; take more prompts, or a model that fails more"
        )
    kept = generator.permutation(len(found))[:most]
    return MatchedPairs(found.correct[kept], found.incorrect[kept], found.stratum[kept])


def _strata(correct: Problems, incorrect: Problems, bins: int) -> tuple[Ids, Ids]:
    """The stratum of every correct and of every incorrect prompt, as one number."""
    of_both: list[Ids] = [np.zeros(len(each), np.int64) for each in (correct, incorrect)]
    for name in VARIABLES if len(incorrect) else ():
        edges = np.quantile(getattr(incorrect, name), np.arange(1, bins) / bins)
        for at, each in enumerate((correct, incorrect)):
            of_both[at] = of_both[at] * bins + np.searchsorted(edges, getattr(each, name), "right")
    return of_both[0], of_both[1]


def _paired(correct: Ids, incorrect: Ids, generator: np.random.Generator) -> MatchedPairs:
    """Pairs within strata, given the stratum of every prompt."""
    rows: list[tuple[Ids, Ids, Ids]] = []
    for stratum in np.intersect1d(correct, incorrect):
        mine, theirs = (
            generator.permutation(np.flatnonzero(each == stratum)) for each in (correct, incorrect)
        )
        many = min(len(mine), len(theirs))
        rows.append((mine[:many], theirs[:many], np.full(many, stratum, np.int64)))
    none = np.zeros(0, np.int64)
    return MatchedPairs(*(np.concatenate([none, *(each[i] for each in rows)]) for i in range(3)))


# ---------------------------------------------------------------- rules


def wins(correct: Floats, incorrect: Floats) -> Sample:
    """In which pairs the correct prompt has the larger value: 1 or 0, ties a half.

    Its mean is the AUC within strata: the chance that a correct prompt has more than an
    incorrect one that is alike. Over all prompts, the AUC would also count pairs of different
    operands, which matching is there to leave out; and pairs, unlike those, are independent.

    Args:
        correct: Shape ``[pair]``.
        incorrect: Shape ``[pair]``.

    Raises:
        UsageError: They are not of the same pairs.
    """
    _refuse_unpaired(correct, incorrect)
    values = (correct > incorrect) + (correct == incorrect) / 2
    return Sample(values.astype(np.float64), np.arange(len(values)), "share of pairs")


def weaker(correct: Contributions, incorrect: Contributions, *, margin: float = AUC) -> Verdict:
    """Whether heuristic neurons add less to the right answer where the model fails.

    The AUC within pairs (``wins``) is above 0.7, by Clopper-Pearson as for any proportion, and
    above that of the control, pair by pair. It does not hold where the control cannot tell
    (``partners.lacking``): there are no alternative sets then.

    Args:
        correct: Of the pairs' correct prompts, in the order of the pairs.
        incorrect: Of their incorrect ones.
        margin: What the AUC must be above.
    """
    auc = wins(correct.contribution, incorrect.contribution)
    control = wins(correct.control, incorrect.control)
    verdict = margins.above(
        auc, margin, what="AUC of contributions, correct against incorrect", kind="proportion"
    )
    widest = _strata_of(correct, incorrect)
    name = f"count- and attribution-matched neurons without a heuristic, by {widest}"
    more = margins.above(auc - control, 0.0, what=f"AUC minus theirs ({control.mean:.2f})")
    verdict, more = (of_units(each, "pairs") for each in (verdict, more))
    told = beside(verdict, value_control(name, more)).showing(
        **{each: _means(correct, incorrect, each) for each in SHOWN}, stratum=widest
    )
    why = lacking(*(np.r_[getattr(correct, n), getattr(incorrect, n)] for n in DECIDES))
    if told.outcome is not Outcome.HOLDS or not why:
        return told
    sentence = f"{verdict.sentence}; no alternative sets by {widest}: {why}"
    return replace(told, outcome=Outcome.INCONCLUSIVE, sentence=sentence)


SHOWN = ("contribution", "control", "count", "attribution", "control_attribution")
DECIDES = ("count", "controls", "attribution", "control_attribution")


def _strata_of(*sides: Contributions) -> str:
    """What controls are matched in, in words: operators need not have the same stratum."""
    found = sorted({int(at) for each in sides for at in each.stratum})
    return " or ".join(STRATA[at] for at in found)


def not_fewer(
    correct: Ids,
    incorrect: Ids,
    *,
    unmatched: Sequence[tuple[Ids, Ids]] = (),
    share: float = FEWER,
) -> Verdict:
    """Whether no fewer heuristic neurons are at work where the model fails.

    Non-inferiority: the count on incorrect prompts minus that on correct ones is above -5% of
    the mean count, decided pair by pair on the difference plus 5% of the pair's mean.

    Args:
        correct: Counts on the pairs' correct prompts, shape ``[pair]``.
        incorrect: On their incorrect ones.
        unmatched: Counts on all correct and on all incorrect prompts of each operator, whose
            mean difference is shown: what operands alone do to the count.
        share: See above.

    Raises:
        UsageError: The counts are not of the same pairs.
    """
    _refuse_unpaired(correct, incorrect)
    difference = _sample(incorrect - correct)
    mean = _sample((incorrect + correct) / 2)
    contrast = margins.above(
        difference + mean * share, 0.0, what=f"difference plus {share:.0%} of the mean count"
    )
    found = statistics.summary(difference)
    said = (
        f"heuristic neurons on incorrect minus correct prompts: "
        f"{margins.spoken(found.mean, found.interval(), 0.0)}, of {mean.mean:.3g} on average"
    )
    verdict = of_units(replace(contrast, sentence=f"{said}; {contrast.sentence}"), "pairs")
    return beside(verdict, _without_matching(unmatched)) if unmatched else verdict


def _refuse_unpaired(correct: NDArray[Any], incorrect: NDArray[Any]) -> None:
    if len(correct) != len(incorrect):
        raise UsageError(
            f"correct and incorrect prompts are compared in pairs, got {len(correct)} and "
            f"{len(incorrect)}; select both by the rows of the same pairs"
        )


def _without_matching(counts: Sequence[tuple[Ids, Ids]]) -> Control:
    """The mean over operators, since failures of another operator are no other operands."""
    apart = float(np.mean([incorrect.mean() - correct.mean() for correct, incorrect in counts]))
    right, wrong = (sum(len(each[side]) for each in counts) for side in (0, 1))
    return Control(
        "prompts without matching",
        f"prompts without matching: {apart:.3g} on incorrect minus correct ones, over {right} "
        f"correct and {wrong} incorrect prompts",
        reached=False,
        values=(apart,),
        decides=False,
    )


def _sample(values: NDArray[Any]) -> Sample:
    return Sample(np.asarray(values, np.float64), np.arange(len(values)), "neurons")


def _means(correct: Contributions, incorrect: Contributions, name: str) -> dict[str, float]:
    return {
        "correct": float(getattr(correct, name).mean()),
        "incorrect": float(getattr(incorrect, name).mean()),
    }
