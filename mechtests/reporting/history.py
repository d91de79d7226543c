"""What earlier runs or baselines said of the same claims in the same cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mechtests.reporting import wording
from mechtests.reporting.record import Record
from mechtests.verdict import Outcome

Place = tuple[str, str | None, str]
"""A claim's id, its task, and a cell's id."""


@dataclass(frozen=True)
class Past:
    """A verdict of an earlier run.

    Attributes:
        label: Of the run or baseline.
        outcome: What it said.
        version: Of the claim; another version judged by another rule.
        estimate: With its interval and unit, in words.
        curves: The means of the curves it showed, by what each is of.
    """

    label: str
    outcome: Outcome
    version: int = 1
    estimate: str = ""
    curves: Mapping[str, Any] | None = None


History = Mapping[Place, Sequence[Past]]
"""Earlier verdicts by place, oldest first."""


def place(record: Record) -> Place:
    """Where a record stands."""
    return record.claim.id, record.claim.task, record.cell.id


def of(runs: Iterable[tuple[str, Iterable[Record]]]) -> History:
    """The history that some runs make, each with a label, oldest first."""
    found: dict[Place, list[Past]] = {}
    for label, records in runs:
        for record in records:
            verdict = record.verdict
            past = Past(
                label,
                verdict.outcome,
                record.claim.version,
                wording.estimate(verdict),
                _curves(verdict.shown.get("curves")),
            )
            found.setdefault(place(record), []).append(past)
    return found


def _curves(shown: Any) -> dict[str, Any]:
    """The means of curves by what each is of; what is no curve is passed over."""
    listed = shown if isinstance(shown, list | tuple) else ()
    return {
        str(each["what"]): each["mean"]
        for each in listed
        if isinstance(each, Mapping) and "what" in each and isinstance(each.get("mean"), list)
    }


def changed(record: Record, history: History) -> bool:
    """Whether a verdict is another than before by the same rule, or than was expected."""
    if record.expectation is not None and record.outcome is Outcome.HOLDS:
        return True
    past = history.get(place(record), ())
    return bool(past) and (
        past[-1].version == record.claim.version and past[-1].outcome is not record.outcome
    )
