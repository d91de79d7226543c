"""From measurements to one verdict of one test."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mechtests import rules
from mechtests.errors import MeasurementError, NotApplicable
from mechtests.measurement import Measurement
from mechtests.plan import Case
from mechtests.results import Results
from mechtests.seeds import generator
from mechtests.verdict import Outcome, Verdict

if TYPE_CHECKING:
    import numpy as np


class Measured:
    """What a claim reads: its measurements, by the names it declared them under.

    ``measured.induction`` is the measurement of ``needs={"induction": ...}``.
    """

    def __init__(self, case: Case, results: Results, found: Mapping[str, Measurement]) -> None:
        self._case = case
        self._results = results
        self._found = found

    def __getattr__(self, name: str) -> Measurement:
        """The measurement declared under this name.

        Raises:
            MeasurementError: The claim did not declare it.
        """
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._found:
            raise MeasurementError(
                f"claim {self._case.claim.id!r} reads measured.{name}, and its needs declare "
                f"{', '.join(self._found)}; add it to needs, so that it is measured"
            )
        return self._found[name]

    def __getitem__(self, name: str) -> Measurement:
        """The same, for a name that is not an identifier."""
        return getattr(self, name)  # type: ignore[no-any-return]

    @property
    def task(self) -> str:
        """The name of the test's task, for a claim over several."""
        return str(self._case.claim.task)

    def generator(self, purpose: str) -> np.random.Generator:
        """Random draws of this claim in this cell, for a purpose (claims.md, Seeds)."""
        claim, cell = self._case.claim, self._case.cell
        return generator(self._results.settings.seed, claim.id, cell.id, purpose)


def prepare(case: Case, results: Results) -> Measured | Verdict:
    """The measurements of a test, or the verdict where the gate already decides it.

    Raises:
        LoadError: The cell could not be loaded.
        MeasurementError: A measurement failed, or a replay misses it.
    """
    try:
        if case.claim.gate is not None:
            found = results.measurement(case.claim.gate.need, case.cell)
            gate = rules.gate(found, case.claim.gate.levels)
            if gate.state != "passed":
                return _gated(gate, case)
        needs = case.claim.needs
        found_all = {name: results.measurement(need, case.cell) for name, need in needs.items()}
    except NotApplicable as reason:
        return Verdict(Outcome.NOT_APPLICABLE, str(reason))
    return Measured(case, results, found_all)


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
        if fnmatch.fnmatchcase(case.cell.model, pattern):
            return reason
    return None
