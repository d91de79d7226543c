"""What earlier runs or baselines said of the same claims in the same cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechtests.reporting import baseline, records, wording
from mechtests.reporting.place import Place
from mechtests.reporting.record import Record
from mechtests.verdict import Outcome


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


def before(names: Iterable[str], reports: Path) -> History:
    """The history that runs and baselines by name make, oldest first.

    Args:
        names: Of each the id or folder of a run, or a baseline's ``FILE.json``.
        reports: The folder of runs.

    Raises:
        UsageError: There is no such run or file.
    """
    found: dict[Place, list[Past]] = {}
    for name in names:
        if name.endswith(".json"):
            blessed = baseline.read(Path(name)).entries
            each = {place: _blessed(Path(name).stem, entry) for place, entry in blessed.items()}
        else:
            run = records.find(reports, name)
            each = {place: past[0] for place, past in of([(run.name, records.read(run))]).items()}
        for place, past in each.items():
            found.setdefault(place, []).append(past)
    return found


def _blessed(label: str, entry: baseline.Entry) -> Past:
    return Past(label, entry.verdict, entry.version, entry.numbers)


def of(runs: Iterable[tuple[str, Iterable[Record]]]) -> History:
    """The history that some runs make, each with a label, oldest first."""
    found: dict[Place, list[Past]] = {}
    for label, judged in runs:
        for record in judged:
            verdict = record.verdict
            past = Past(
                label,
                verdict.outcome,
                record.claim.version,
                wording.estimate(verdict),
                _curves(verdict.shown.get("curves")),
            )
            found.setdefault(Place.of(record), []).append(past)
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
    return record.changed or moved(record, history.get(Place.of(record), ()))


def moved(record: Record, past: Sequence[Past]) -> bool:
    """Whether a verdict is another than the last one before it by the same rule."""
    return bool(past) and (
        past[-1].version == record.claim.version and past[-1].outcome is not record.outcome
    )
