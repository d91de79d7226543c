"""From measurements to one verdict of one test."""

from __future__ import annotations

import fnmatch

from mechtests import measured, rules
from mechtests.case import Case
from mechtests.errors import MechtestsError, NotApplicable, Undecidable
from mechtests.measured import Measured, MeasuredModels
from mechtests.results import Results
from mechtests.verdict import Outcome, Verdict, not_applicable


def prepare(case: Case, results: Results) -> Measured | MeasuredModels | Verdict:
    """The measurements of a test, or the verdict where the gate already decides it.

    Raises:
        LoadError: A cell could not be loaded.
        MeasurementError: A measurement failed, or a replay misses it.
    """
    if case.lacks:
        return not_applicable(case.lacks)
    try:
        if case.claim.over == "scale":
            return measured.over_models(case, results)
        if results.recording(case.cell) is not None:
            ready = _read(case, results)  # what has none of its measurements needs no gate
            return _shut(case, results) or ready
        return _shut(case, results) or _read(case, results)
    except (NotApplicable, Undecidable) as reason:
        return unanswered(reason)


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
