"""Onsets over models of one family: at a similar place, or no sooner beyond a size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, permutations, product

import numpy as np

from mechtests import matched
from mechtests.octaves import later, leads_at_most, within_octaves
from mechtests.onsets import Onset, State
from mechtests.rules import CONTROL_LEVEL, beside, every
from mechtests.series import Floats
from mechtests.verdict import Control, Outcome, Verdict, not_applicable

FEWEST_MODELS = 3
FEWEST_BEYOND = 2
MOST_LABELLINGS = 20_000
DRAWS = 9_999


def aligned(onsets: Mapping[str, Onset], *, octaves: float, what: str) -> Verdict:
    """Whether a task emerges at a similar place in all models: every two within some octaves.

    Models that never learn it are named and left out.

    Args:
        onsets: The onset in each model.
        octaves: How far apart two onsets may be.
        what: The task.
    """
    learners, never = _learners(onsets)
    without = f"; never learned by {', '.join(never)}" if never else ""
    if len(learners) < FEWEST_MODELS:
        return not_applicable(
            f"{what}: a claim over scale needs {FEWEST_MODELS} models that learn it, got "
            f"{len(learners)} ({', '.join(learners) or 'none'}){without}"
        )
    pairs = combinations(learners, 2)
    verdict = every(
        *(within_octaves(learners[a], learners[b], octaves, what=f"{a} and {b}") for a, b in pairs),
        what=f"{what}{without}",
    )
    return verdict.showing(never=list(never))


def _learners(onsets: Mapping[str, Onset]) -> tuple[dict[str, Onset], list[str]]:
    never = [name for name, each in onsets.items() if each.state is State.NEVER]
    return {name: each for name, each in onsets.items() if name not in never}, never


def permuted_labels(
    tasks: Mapping[str, Mapping[str, Onset]],
    generator: np.random.Generator,
    *,
    what: str = "task labels permuted within each model",
) -> Control:
    """The control of ``aligned``: tasks must emerge together across models more than at random.

    The statistic is the mean squared distance in octaves of a task's onsets from their mean,
    over tasks. It is held against all ways to permute the task labels within each model (drawn
    where there are more than 20,000). Reached, "everything emerges together", unless p is at
    most 0.05. With one task the control is absent, and says so.

    Args:
        tasks: The onset by model, by task. What has no finite bracket is left out.
        generator: The source of the draws.
        what: The control's name.
    """
    table = _table(tasks)
    if table.shape[0] < 2 or not len(table.T):
        return Control(what, f"{what}: absent, since there is one task", False, decides=False)
    observed = _spread(table[None])[0]
    labellings, enumerated = _labellings(table, generator)
    spreads = _spread(labellings)
    p = matched.permutation_p(-observed, (-spreads).tolist(), enumerated=enumerated)
    smallest = float((spreads <= spreads.min() * (1 + 1e-9) + 1e-12).mean()) if enumerated else 0.0
    p_min = max(smallest, matched.smallest_p(len(spreads), enumerated))
    how = "all" if enumerated else "draws of"
    return Control(
        what,
        f"{what} ({how} {len(spreads)} ways): mean squared distance within a task "
        f"{observed:.2g}, permuted {spreads.mean():.2g} on average, p = {p:.2g}"
        + ("" if p <= CONTROL_LEVEL else ": everything emerges together"),
        reached=p > CONTROL_LEVEL,
        p=p,
        p_min=p_min,
        values=tuple(spreads[:DRAWS].tolist()),
        observed=float(observed),
    )


def _table(tasks: Mapping[str, Mapping[str, Onset]]) -> Floats:
    """The middle of each bracket in octaves, shape ``[task, model]``, NaN where it has none."""
    models = list(dict.fromkeys(model for onsets in tasks.values() for model in onsets))
    table = np.full((len(tasks), len(models)), np.nan)
    for row, onsets in enumerate(tasks.values()):
        for model, each in onsets.items():
            if each.by is not None and each.high > 0:
                low = each.low or each.high
                table[row, models.index(model)] = math.log2(low * each.high) / 2
    rows, columns = (np.isfinite(table).any(axis=axis) for axis in (1, 0))
    known: Floats = table[rows][:, columns]
    return known


def _spread(tables: Floats) -> Floats:
    """The mean squared distance from the task's mean, shape ``[labelling]``."""
    known = np.isfinite(tables)
    counts = known.sum(axis=2, keepdims=True)
    sums = np.where(known, tables, 0.0).sum(axis=2, keepdims=True)
    away = np.where(known, tables - sums / np.maximum(counts, 1), 0.0)
    spread: Floats = (away**2).sum(axis=(1, 2)) / known.sum(axis=(1, 2))
    return spread


def _labellings(table: Floats, generator: np.random.Generator) -> tuple[Floats, bool]:
    """The tables with each model's known onsets dealt out anew to its tasks."""
    known = [np.flatnonzero(np.isfinite(column)) for column in table.T]
    whole = bool(np.isfinite(table).all())  # relabelling all models alike then changes nothing
    free = range(1, len(known)) if whole else range(len(known))
    total = math.prod(math.factorial(len(known[m])) for m in free)
    enumerated = total <= MOST_LABELLINGS
    count = total if enumerated else DRAWS
    tables = np.repeat(table[None], count, axis=0)
    if enumerated:
        ways = product(*(list(permutations(known[m].tolist())) for m in free))
        for way, each in enumerate(ways):
            for m, rows in zip(free, each, strict=True):
                tables[way, known[m], m] = table[list(rows), m]
    else:
        for m in free:
            values = np.repeat(table[known[m], m][None], count, axis=0)
            tables[:, known[m], m] = generator.permuted(values, axis=1)
    return tables, enumerated


def no_sooner_beyond(
    onsets: Mapping[str, Onset], threshold: str, *, octaves: float, what: str
) -> Verdict:
    """Whether no model beyond a threshold size leads the one at it by more than some octaves.

    Beside it stands the control of the smaller models: each is later, or never learns; else
    "no threshold seen", which is said and does not decide.

    Args:
        onsets: The onset in each model, smallest model first.
        threshold: The model at the threshold size.
        octaves: How much sooner is still no sooner.
        what: The task.
    """
    names = list(onsets)
    at = names.index(threshold)
    smaller, beyond = names[:at], names[at + 1 :]
    if len(beyond) < FEWEST_BEYOND:
        return not_applicable(
            f"{what}: {FEWEST_BEYOND} models beyond the threshold, {threshold}, are needed, got "
            f"{len(beyond)}"
        )
    if onsets[threshold].state is State.NEVER:
        return not_applicable(f"{what}: the model at the threshold, {threshold}, never learns it")
    verdict = every(
        *(
            leads_at_most(onsets[name], onsets[threshold], octaves, what=f"{name} on {threshold}")
            for name in beyond
        ),
        what=what,
    )
    control = _smaller(onsets, smaller, threshold)
    if control.reached:
        verdict = replace(verdict, sentence=f"{verdict.sentence}; {control.sentence}")
    return beside(verdict, control)


def _smaller(onsets: Mapping[str, Onset], smaller: Sequence[str], threshold: str) -> Control:
    told = [later(onsets[n], onsets[threshold], what=f"{n} after {threshold}") for n in smaller]
    seen = bool(told) and all(each.outcome is Outcome.HOLDS for each in told)
    spoken = "; ".join(each.sentence for each in told) or "there is no smaller model"
    return Control(
        "smaller models",
        f"smaller models: {'' if seen else 'no threshold seen; '}{spoken}",
        reached=not seen,
        decides=False,
    )
