"""What single prompts and heads give to the number that decided a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mechtests import statistics
from mechtests.errors import MeasurementError
from mechtests.measurement import Head, Measurement, Sample
from mechtests.models.cell import Checkpoint
from mechtests.reporting.explanation import Contrast, Heads, HeadValue, Prompt
from mechtests.verdict import Verdict
from mechtests.watching import Traced, Watched, rows_of, spoken

if TYPE_CHECKING:
    from mechtests.case import Case
    from mechtests.opening import Opened
    from mechtests.tasks.prompts import Prompts, Tokenizer

SHOWN = 5
HEAD_AXES = ("prompt", "layer", "head")


def prompts_of(
    sample: Sample, read: Mapping[str, Measurement], case: Case, opened: Opened
) -> Prompts | None:
    """The prompts that a sample's values are of, one for each, or None where it is not known.

    Raises:
        MechtestsError: The model's tokenizer cannot be loaded.
    """
    found = rows_of(sample, list(read.values()))
    if found is None:
        return None
    name, rows = found
    prompts = opened.prompts(case.claim.needs[name].task)
    if rows.max(initial=-1) >= len(prompts):
        return None
    return prompts.select(rows)


def contrast(
    verdict: Verdict, sample: Sample | None, read: Mapping[str, Measurement]
) -> Contrast | None:
    """The deciding number prompt by prompt, from the worst to the best for the claim."""
    if sample is None or verdict.margin is None:
        return None
    found = rows_of(sample, list(read.values()))
    rows = np.arange(len(sample)) if found is None else found[1]
    support = _support(sample.values, verdict)
    order = np.argsort(support, kind="stable")
    half = min(SHOWN, len(order) // 2)
    each = [Prompt(int(at), int(rows[at]), float(sample.values[at])) for at in order]
    return Contrast(
        made_of=spoken(sample) or "the number that decided",
        unit=sample.unit,
        margin=verdict.margin,
        failing=int((support <= 0).sum()),
        count=len(sample),
        worst=tuple(each[:half]),
        best=tuple(reversed(each[len(each) - half :])),
    )


def _support(values: NDArray[np.float64], verdict: Verdict) -> NDArray[np.float64]:
    """How far each value is on the claimed side of the margin."""
    margin = verdict.margin or 0.0
    if verdict.relation == "<":
        return margin - values
    if verdict.relation == "within":
        return margin - np.abs(values)
    return values - margin


def told(contrast: Contrast, prompts: Prompts, tokenizer: Tokenizer) -> Contrast:
    """The same contrast with the text of each prompt, and its first right and wrong answer.

    Args:
        contrast: Prompt by prompt.
        prompts: One for each of the sample's values, in their order.
        tokenizer: Of the cell.
    """

    def said(each: Prompt) -> Prompt:
        tokens = prompts.clean[each.at, : prompts.length[each.at]].tolist()
        text = prompts.texts[each.at] or tokenizer.decode(tokens)
        return replace(each, text=text, answers=_answers(prompts, each.at, tokenizer))

    worst, best = (tuple(map(said, some)) for some in (contrast.worst, contrast.best))
    return replace(contrast, worst=worst, best=best)


def _answers(prompts: Prompts, at: int, tokenizer: Tokenizer) -> str:
    """The first right answer over the first wrong one; empty where the task has none."""
    if prompts.right is None or prompts.wrong is None:
        return ""
    first = int(prompts.right[at, 0]), int(prompts.wrong[at, 0])
    return " / ".join(tokenizer.decode([token]).strip() for token in first if token >= 0)


def heads(sample: Sample | None, read: Mapping[str, Measurement]) -> tuple[Heads, ...]:
    """What the claim read of every head: values with a layer and a head for each prompt.

    The deciding value comes first.
    """
    deciding = _factors(sample)
    tables = [
        _table(each, name, value, deciding.get((name, value), {}))
        for name, each in read.items()
        if isinstance(each, Watched)
        for value in each.read
        if each.axes.get(value) == HEAD_AXES
    ]
    return tuple(sorted(tables, key=lambda table: all(v.factor is None for v in table.shown)))


def _factors(sample: Sample | None) -> dict[tuple[str, str], dict[Head, float]]:
    """With which factor the value of each head is in a sample, by measurement and value."""
    found: dict[tuple[str, str], dict[Head, float]] = {}
    for part in sample.parts if isinstance(sample, Traced) else ():
        at = [(part.index[0], part.index[1])] if len(part.index) == 2 else part.heads
        mine = found.setdefault((part.name, part.value), {})
        for head in at:
            mine[head] = mine.get(head, 0.0) + part.factor
    return found


def _table(measurement: Measurement, name: str, value: str, factors: Mapping[Head, float]) -> Heads:
    means = measurement.mean(value, "evaluation")
    order = [divmod(int(at), means.shape[1]) for at in np.argsort(-means, axis=None, kind="stable")]
    lowest = [head for head in reversed(order) if means[head] < 0][:SHOWN]
    listed = dict.fromkeys([*order[:SHOWN], *factors, *lowest])
    shown = sorted(listed, key=lambda head: (-means[head], head))
    return Heads(
        name=f"{name}.{value}",
        unit=measurement.units.get(value, ""),
        count=means.size,
        shown=tuple(_value(measurement, value, head, factors.get(head)) for head in shown),
    )


def _value(measurement: Measurement, value: str, head: Head, factor: float | None) -> HeadValue:
    found = statistics.summary(measurement.sample(value, "evaluation", *head))
    around = found.interval()
    return HeadValue(head, found.mean, None if around is None else around.ends, factor)


def place(checkpoint: Checkpoint, series: Sequence[Checkpoint]) -> float:
    """Where a checkpoint is in training, on a logarithmic scale; the last where it has no step.

    Raises:
        MeasurementError: The series is empty.
    """
    if not series:
        raise MeasurementError("a place in training needs a series of checkpoints, got none")
    progress = checkpoint.progress
    known = [each.progress for each in series if each.progress is not None]
    if progress is None:
        progress = max(known, default=len(series))
    return math.log1p(progress)
