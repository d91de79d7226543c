"""A verdict becomes a record: with what it is about, what was measured, and how to repeat it."""

from __future__ import annotations

from typing import Any

from mechtests import judging
from mechtests.case import Case, located, trained
from mechtests.errors import MechtestsError
from mechtests.metrics.metric import Need
from mechtests.models.cell import Cell
from mechtests.reporting.record import Record, RecordedCell, RecordedCheckpoint
from mechtests.results import Results
from mechtests.verdict import Expectation, Verdict

Json = Any

FACTS = ("prompts", "batch", "notes", "bos", "recorded")
"""What a record says of each measurement."""


def record(
    case: Case,
    verdict: Verdict,
    results: Results,
    *,
    nodeid: str,
    reproduce: str,
    seconds: float = 0.0,
    expected: Expectation | None = None,
) -> Record:
    """The record of a verdict, of no run yet.

    Args:
        case: What was judged.
        verdict: What was found.
        results: What was measured.
        nodeid: The test's id in pytest; empty where it was judged from Python.
        reproduce: The command that reaches the verdict again.
        seconds: How long judging took.
        expected: What a baseline expects; the paper's own expectation unless said.
    """
    weights, facts = _facts(case, results)
    settings = results.settings
    awaited = expected or Expectation(judging.expectation(case))
    return Record.from_verdict(
        verdict,
        claim=case.claim,
        run="",
        cell=_cell(case, results, weights),
        measurements=_keys(case, results),
        expectation=awaited.reason,
        expects=awaited.blessed,
        overridden=bool(case.claim.task and case.claim.task in settings.prompts),
        profile=settings.profile,
        seed=settings.seed,
        nodeid=nodeid,
        reproduce=reproduce,
        facts=facts,
        seconds=round(seconds, 3),
    )


def _cell(case: Case, results: Results, weights: str | None) -> RecordedCell:
    one = not case.series
    at = case.cell.checkpoint if one else None
    return RecordedCell(
        id=case.id,
        model=case.cell.model if case.claim.over != "scale" else case.id,
        checkpoint=None if at is None else RecordedCheckpoint(at.label, at.step, at.tokens),
        identity=results.identities.get(case.cell.id)
        if one
        else {cell.id: results.identities.get(cell.id) for cell in case.cells},
        weights=weights if one else None,
        dtype=results.settings.dtype,
        device=results.settings.device,
    )


def _keys(case: Case, results: Results) -> dict[str, str]:
    """The store's key of every measurement, by the name the claim gave it."""
    return {
        name if not case.series else f"{name} in {cell.id}": results.key(need, cell)
        for cell in case.cells
        if cell.id in results.identities
        for name, need in case.named_in(cell).items()
        if trained(located(need, cell)[1]).id in results.identities  # else behind a shut gate
        and (need.final is None or trained(need.final).id in results.identities)
    }


def _facts(case: Case, results: Results) -> tuple[str | None, dict[str, Json]]:
    """The digest of the weights measured, and what else the measurements say of themselves.

    Of several cells the last one speaks, and the notes of all.
    """
    weights, facts = None, {}
    for name in case.claim.needs:
        notes: dict[str, None] = {}
        for cell in case.cells:
            if (need := case.named_in(cell).get(name)) is None:
                continue
            found = _found(need, cell, results)
            notes.update(dict.fromkeys(found.get("notes", ())))
            if found and cell == case.cell:
                if located(need, cell)[1] == cell:
                    weights = found.get("weights", weights)
                facts[name] = {k: found[k] for k in FACTS if k in found}
        if name in facts and notes:
            facts[name]["notes"] = list(notes)
    return weights, facts


def _found(need: Need, cell: Cell, results: Results) -> dict[str, Json]:
    """The facts of one measurement; none where it was not made."""
    try:
        return dict(results.measurement(need, cell).facts)
    except MechtestsError:
        return {}
