"""From measurements to one verdict of one test."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mechtests import measured, rules
from mechtests.case import Case
from mechtests.errors import MechtestsError, NotApplicable, Undecidable
from mechtests.measured import Measured, MeasuredModels
from mechtests.results import Results
from mechtests.verdict import Outcome, Verdict, not_applicable
from mechtests.work import sentence

Test = Callable[..., Any]
Ready = Measured | MeasuredModels


def prepare(case: Case, results: Results) -> Measured | MeasuredModels | Verdict:
    """The measurements of a test, or the verdict where the gate already decides it.

    They are watched: the sample that decides knows which prompts it is of (``watching``).

    Raises:
        LoadError: A cell could not be loaded.
        MeasurementError: A measurement failed, or a replay misses it.
    """
    if case.lacks:
        return not_applicable(case.lacks)
    try:
        if case.claim.over == "scale":
            return measured.over_models(case, results).watched()
        if results.recording(case.cell) is not None:
            ready = _read(case, results)  # what has none of its measurements needs no gate
            return _shut(case, results) or ready.watched()
        return _shut(case, results) or _read(case, results).watched()
    except (NotApplicable, Undecidable) as reason:
        return unanswered(reason)


class _ReachedError(BaseException):
    """A test has judged; as ``pytest.skip`` does, this passes through ``except Exception``."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict


def _reach(verdict: Verdict) -> None:
    raise _ReachedError(verdict)


def verdict_of(
    case: Case, results: Results, test: Test, *, seen: Callable[[Ready], Ready] = lambda each: each
) -> Verdict:
    """What a claim's own test says of what was measured, without pytest.

    Args:
        case: The claim in its cell, series or models.
        results: What was measured.
        test: The test the claim was declared with.
        seen: What the test is given in place of its measurements, to watch what it reads.
    """
    try:
        ready = prepare(case, results)
        if isinstance(ready, Verdict):
            return ready
        try:
            test(measured=seen(ready), judge=_reach)
        except _ReachedError as reached:
            return with_left_out(reached.verdict, ready.dropped)
        except (NotApplicable, Undecidable) as reason:
            return with_left_out(unanswered(reason), ready.dropped)
    except Exception as error:  # of this claim, never of those judged beside it
        return Verdict(Outcome.ERROR, sentence(error))
    return Verdict(
        Outcome.ERROR,
        f"claim {case.claim.id!r}: its test ended without a verdict; call judge(...) with one",
    )


def with_left_out(verdict: Verdict, dropped: Mapping[str, str]) -> Verdict:
    """The verdict with the checkpoints or models that it is not about."""
    if not dropped:
        return verdict
    return replace(verdict, sentence=f"{verdict.sentence}; left out: {'; '.join(dropped.values())}")


def _read(case: Case, results: Results) -> Measured:
    """The measurements of a claim over a cell or over training."""
    if case.claim.over == "training":
        return measured.over_training(case, results, case.cells)
    return measured.in_cell(case, results)


def unanswered(reason: MechtestsError) -> Verdict:
    """The verdict where the model, or what is recorded of it, does not answer the claim."""
    open_ = isinstance(reason, Undecidable)
    return Verdict(Outcome.INCONCLUSIVE if open_ else Outcome.NOT_APPLICABLE, str(reason))


def _shut(case: Case, results: Results) -> Verdict | None:
    """The verdict where the claim's gate is not passed."""
    if case.claim.gate is None:
        return None
    found = results.measurement(case.claim.gate.need, case.cell)
    gate: rules.Gate = case.claim.gate.judged(found)
    return None if gate.state == "passed" else _gated(gate, case)


def _gated(gate: rules.Gate, case: Case) -> Verdict:
    if gate.state == "failed":
        return Verdict(
            Outcome.NOT_APPLICABLE,
            f"{case.cell.id} does not do the task {case.claim.task}: {gate.sentence}",
        )
    return Verdict(
        Outcome.INCONCLUSIVE,
        f"whether {case.cell.id} does the task {case.claim.task} is undecided: {gate.sentence}",
        needed=gate.needed,
    )


def expectation(case: Case) -> str | None:
    """The reason the paper itself gives for expecting a refutation in this cell, or None."""
    for pattern, reason in case.claim.exceptions.items():
        if fnmatch.fnmatchcase(case.cell.model.removeprefix("recorded:"), pattern):
            return reason
    return None
