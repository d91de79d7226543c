"""The number that decides a claim, at any prompt of its task.

A claim is a function from measurements to a verdict. Judged with its measurements watched, the
sample that decides tells what it is made of (``watching``): factors times values of measurements,
at the heads that the claim itself has chosen. So it is a number of any other prompt too, made by
the same metrics from the same inputs, and no head is ever chosen on a prompt that is searched.
Whether it really is a number of the prompt alone is seen on the claim's own prompts: run by
themselves, they must have the values that decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mechtests import answering, explaining, watching
from mechtests.case import Case
from mechtests.errors import MeasurementError, NotApplicable, UsageError
from mechtests.explaining import Judgement
from mechtests.judging import Test
from mechtests.measurement import Measurement, Sample
from mechtests.metrics.metric import Job, Need, digest
from mechtests.opening import Opened
from mechtests.reporting.counterexample import Claimed
from mechtests.reporting.explanation import deciding
from mechtests.seeds import generator
from mechtests.tape import Sites, Tape
from mechtests.tasks.prompts import Prompts
from mechtests.verdict import Outcome, Verdict
from mechtests.watching import Part, Traced
from mechtests.work import Work, sites_of

Values = NDArray[np.float64]
CHECKED = 8
"""So many of the claim's own prompts are run by themselves."""
CLOSE = 1e-3
"""How near their values must be, in units of the largest one: float32 in other batches."""
KEPT_BYTES = 2**26
RELATIONS = (">", "<", "within")


@dataclass(frozen=True, eq=False)
class Mechanism:
    """What decides a claim in one cell, as a number of a prompt.

    Attributes:
        opened: The cell.
        judged: The claim's verdict, with what it is made from.
        claimed: The number and its margin, in words.
        parts: The terms of the number; a constant, where the claim adds one, is ``constant``.
        constant: What the number is above its terms, the same for every prompt.
        half: The half whose prompts decided: prompts that are searched count as of it.
    """

    opened: Opened
    judged: Judgement
    claimed: Claimed
    parts: tuple[Part, ...]
    constant: float
    half: int

    @property
    def needs(self) -> dict[str, Need]:
        """The measurements that the number is made of, by the claim's names."""
        return _needs(self.judged, self.parts)

    def at(self, prompts: Prompts, behaviour: str) -> tuple[Values, Values, NDArray[np.int64]]:
        """The number, by how much the model does the task, and its first guess, each ``[prompt]``.

        Args:
            prompts: Of the claim's task; they count as of the half that decided.
            behaviour: As ``answering.behaviour_of`` gives it.

        Raises:
            MeasurementError: A measurement fails on these prompts.
        """
        prompts = replace(prompts, half=np.full(len(prompts), self.half))
        network, needs = self.opened.network, self.needs
        margins, guesses = np.zeros(len(prompts)), np.zeros(len(prompts), dtype=np.int64)
        work = {name: self._begin(need) for name, need in needs.items()}
        tape = Tape(network, prompts, budget=KEPT_BYTES)
        final = Sites(frozenset({"final"}))
        for played in tape.play(sites_of(needs.values()) | final, Sites()):
            for each in work.values():
                each.take(played)
            rows, run = played.rows, played.clean.final
            margins[rows], guesses[rows] = answering.read(network, run, played.prompts, behaviour)
        found = {name: _finished(each, prompts) for name, each in work.items()}
        return _summed(self.parts, found) + self.constant, margins, guesses

    def _begin(self, need: Need) -> Work:
        """A measurement about to be made, from what the claim's own starts from."""
        results, cell = self.judged.results, self.judged.case.cell
        inputs = {name: results.measurement(given, cell) for name, given in need.inputs}
        settings = results.settings
        draw = partial(
            generator, settings.seed, need.metric.name, digest(results.identities[cell.id])
        )
        return Work(need, self.opened.network, inputs, settings.draws, draw)


def of(case: Case, test: Test, opened: Opened, *, offline: bool = False) -> Mechanism:
    """What decides a claim in a cell; the claim is judged, and measured where it is not yet.

    Args:
        case: The claim in the cell.
        test: The test it was declared with.
        opened: The same cell.
        offline: Whether the network may not be asked.

    Raises:
        UsageError: What decides is no number of single prompts.
        NotApplicable: Nothing decides the claim in the cell: it does not apply, or what it speaks
            of is not there.
    """
    settings, store = opened.settings, opened.store
    judged = explaining.judge_watched(case, test, settings, store, (), offline=offline)
    part = deciding(judged.verdict)
    sample = _sample(judged, part)
    _check_needs(case, sample.parts, _needs(judged, sample.parts))
    assert sample.rows is not None
    halves = np.unique(judged.read[sample.name].half[sample.rows])
    terms = _summed(sample.parts, judged.read)[sample.rows]
    constant = float((sample.values - terms).mean())
    if len(halves) > 1 or not _close(terms + constant, sample.values):
        raise UsageError(f"{case.claim.id}: what decides is no sum of values of one half's prompts")
    found = Mechanism(
        opened=opened,
        judged=judged,
        claimed=Claimed(
            number=watching.spoken(sample),
            unit=sample.unit,
            margin=float(part.margin or 0.0),
            relation=part.relation,
            cost=_cost(opened, judged, sample.parts),
            outcome=str(judged.verdict.outcome),
        ),
        parts=sample.parts,
        constant=constant,
        half=int(halves[0]),
    )
    _check_alone(found, sample, case)
    return found


def beyond(values: Values, claimed: Claimed) -> Values:
    """How far each value is on the claimed side of the margin."""
    if claimed.relation == "within":
        return claimed.margin - np.abs(values)
    return values - claimed.margin if claimed.relation == ">" else claimed.margin - values


def _sample(judged: Judgement, part: Verdict) -> Traced:
    """The sample that decided, which knows what it is made of."""
    claim, verdict = judged.case.claim.id, judged.verdict
    if verdict.outcome is Outcome.ERROR:
        raise MeasurementError(f"{claim} was not judged: {verdict.sentence}")
    if part.estimate is None:  # its gate is shut, or what it speaks of is not there
        raise NotApplicable(f"{claim} has no mechanism to search here: {verdict.sentence}")
    sample = part.sample
    if not isinstance(sample, Traced) or not sample.parts or part.relation not in RELATIONS:
        raise UsageError(
            f"{claim}: what decides is no sum of values of single prompts, so no prompt can break "
            f"it: {verdict.sentence}"
        )
    return sample


def _needs(judged: Judgement, parts: Sequence[Part]) -> dict[str, Need]:
    return {part.name: judged.case.claim.needs[part.name] for part in parts}


def _check_needs(case: Case, parts: Sequence[Part], needs: Mapping[str, Need]) -> None:
    """Refuse what is made on other prompts than the task's, or on all of them at once."""
    claim = case.claim
    for name, need in needs.items():
        if need.task.name != claim.task or need.cell != "here":
            raise UsageError(
                f"{claim.id}: what decides is {need.name}, not of this cell on the prompts of "
                f"{claim.task}"
            )
        axes = [need.metric.values[part.value].axes for part in parts if part.name == name]
        if need.metric.whole or any(each[0] != "prompt" for each in axes):
            raise UsageError(
                f"{claim.id}: {need.metric.name} is made on all prompts at once, so no single one "
                "has a value to search"
            )


def _check_alone(found: Mechanism, sample: Traced, case: Case) -> None:
    """Refuse a number that the claim's own prompts do not have when they are run by themselves."""
    assert sample.rows is not None
    task = found.needs[sample.name].task
    prompts = found.opened.prompts(task).select(sample.rows[:CHECKED])
    values, _, _ = found.at(prompts, answering.behaviour_of(task))
    if not _close(values, sample.values[:CHECKED]):
        raise UsageError(
            f"{case.claim.id}: the number of a prompt depends on the prompts beside it "
            f"({values[0]:.3g} alone, {sample.values[0]:.3g} among all), so no single one breaks it"
        )


def _close(values: Values, wanted: Values) -> bool:
    scale = float(np.abs(wanted).max(initial=0.0))
    return bool(np.abs(values - wanted).max(initial=0.0) <= CLOSE * scale)


def _finished(work: Work, prompts: Prompts) -> Measurement:
    if work.error or work.not_applicable:
        raise MeasurementError(f"{work.need.name}: {work.error or work.not_applicable}")
    return work.measurement(prompts, {})


def _summed(parts: Sequence[Part], found: Mapping[str, Measurement]) -> Values:
    """The sum of some terms, for every prompt of the measurements they are of, ``[prompt]``."""
    terms = []
    for part in parts:
        measurement = found[part.name]
        whole = measurement.axes[part.value] == ("prompt",)
        taken: Sample = (
            measurement.sample(part.value, None, *part.index)
            if part.index or whole
            else measurement.sum_over(part.value, list(part.heads))
        )
        terms.append(part.factor * taken.values)
    total: Values = np.sum(terms, axis=0, dtype=np.float64)
    return total


def _cost(opened: Opened, judged: Judgement, parts: Sequence[Part]) -> float:
    """Forward passes that one prompt takes: the shared runs, and what metrics run beside them."""
    shape, settings = opened.network.shape, judged.results.settings
    needs = _needs(judged, parts).values()
    corrupted = {need.corruption for need in needs if need.metric.corrupted}
    passes = 1.0 + len(corrupted)
    for need in needs:
        draws = settings.draws if need.metric.draws else 0
        cost = need.metric.cost(Job(shape, 1, need.task.longest, draws, dict(need.params)))
        whole = 2.0 * shape.block_parameters * need.task.longest
        passes += cost.flops / whole if cost.flops else cost.forward + 2 * cost.backward
    return passes
