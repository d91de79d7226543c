"""What was measured, as the judging finds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mechtests import rules
from mechtests.case import Case, located, trained
from mechtests.claim import Gate
from mechtests.errors import LoadError, MeasurementError, MechtestsError, NotApplicable
from mechtests.measurement import Measurement
from mechtests.metrics.metric import Need
from mechtests.models import recording
from mechtests.models.cell import Cell
from mechtests.settings import Settings
from mechtests.store import Store

Json = Any


@dataclass
class Results:
    """Where the judging finds what was measured, or why it was not.

    Attributes:
        settings: The settings the keys are made with.
        identities: The identity of each trained cell, by its id.
        store: The measurements.
        errors: Why a measurement failed, by its key.
        cell_errors: Why a cell could not be loaded, by its id.
        loads: How often each cell was loaded, by its id.
        notes: What the user should know of the measuring.
    """

    settings: Settings
    identities: Mapping[str, Json]
    store: Store
    errors: dict[str, str] = field(default_factory=dict)
    cell_errors: dict[str, str] = field(default_factory=dict)
    loads: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    gates: dict[tuple[str, int], tuple[Gate, bool]] = field(default_factory=dict, repr=False)
    """Whether a measured gate is shut, by its key and the gate's id, for which the gate is kept."""

    def key(self, need: Need, cell: Cell) -> str:
        """The store's key of a need of a test in a cell."""
        what, where = located(need, cell)
        return self.settings.key(what, self.identities[trained(where).id], self.final(what))

    def final(self, need: Need) -> Json | None:
        """The identity of the final cell that a need starts from, where it does."""
        return None if need.final is None else self.identities[trained(need.final).id]

    def recording(self, cell: Cell) -> Mapping[str, Json] | None:
        """The identity of the recording a cell is of; None where it is measured."""
        identity = self.identities.get(trained(cell).id)
        return identity if identity is not None and recording.KEY in identity else None

    def measurement(self, need: Need, cell: Cell) -> Measurement:
        """What a need gave for a test in a cell.

        Raises:
            LoadError: The cell could not be loaded.
            MeasurementError: The measurement failed, or is missing.
            NotApplicable: The task does not apply to the cell, or its recording lacks it.
        """
        what, where = located(need, cell)
        final = () if what.final is None else (trained(what.final).id,)
        for each in (cell.id, trained(where).id, where.id, *final):
            if each in self.cell_errors:
                raise LoadError(self.cell_errors[each])
        if absent := {trained(where).id, *final} - set(self.identities):
            raise MeasurementError(
                f"{need.name}: the run that is replayed has nothing on {min(absent)}; it has "
                f"{', '.join(self.identities) or 'no cell'}"
            )
        if (identity := self.recording(where)) is not None:
            if where.variant == "untrained":
                raise NotApplicable(
                    f"{need.name}: {cell.model} has no step 0 and no untrained cell"
                )
            return recording.measurement(identity, need.metric.name, need.task.name, where)
        key = self.key(need, cell)
        if key in self.errors:
            raise MeasurementError(self.errors[key])
        return self.store.require(key, f"{need.name}, {cell.id}")


def gate_known(case: Case, cell: Cell, results: Results) -> bool:
    """Whether a case has no gate, or its gate is measured in a cell."""
    gate = case.claim.gate
    if gate is None:
        return True
    return cell.id in results.identities and results.store.has(results.key(gate.need, cell))


def gate_shut(case: Case, cell: Cell, results: Results) -> bool:
    """Whether the gate of a case is measured in a cell and not passed: it needs no more."""
    gate = case.claim.gate
    if gate is None or not gate_known(case, cell, results):
        return False
    key = results.key(gate.need, cell), id(gate)
    if key not in results.gates:
        results.gates[key] = gate, _shut(gate, cell, results)
    return results.gates[key][1]


def _shut(gate: Gate, cell: Cell, results: Results) -> bool:
    try:
        found = results.measurement(gate.need, cell)
    except MechtestsError:
        return True
    judged: rules.Gate = gate.judged(found)
    return judged.state != rules.GateState.PASSED


def needs_wanted(
    cases: Sequence[Case], cell: Cell, results: Results, *, sure: bool = False
) -> set[Need]:
    """What is measured in a cell for the cases whose gate is not known to be shut.

    Of those whose gate is not known yet, the gate alone is ``sure``.
    """
    found: set[Need] = set()
    reading = [(case, judged) for case in cases for judged in case.read_in(cell)]
    for case, judged in reading:
        if judged.id in results.cell_errors and cell != judged:
            continue
        final = case.final(judged)
        shut = gate_shut(case, final, results) or (sure and not gate_known(case, final, results))
        for need in case.needs_in(judged, shut=shut):
            what, where = located(need, judged)
            if where == cell:
                found.add(what)
    return found
