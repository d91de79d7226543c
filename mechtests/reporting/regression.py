"""A run held against a baseline: what changed, and what could not be compared."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from mechtests.reporting.baseline import Baseline, Settings
from mechtests.reporting.place import Place
from mechtests.reporting.record import Record
from mechtests.verdict import Outcome

SHOWN = 20
"""So many lines of a kind are printed."""


@dataclass(frozen=True)
class Regression:
    """What of a run is other than its baseline has it.

    Attributes:
        name: The baseline's.
        same: How many verdicts are as they were.
        errors: How many could not be reached.
        changed: The records with another verdict, and the one they had.
        missing: What this run should have judged and did not.
        new: The records that the baseline has nothing of.
        stale: The records of another version of the claim than the baseline has.
        settings: The settings that differ.
        elsewhere: The cells of the baseline that are not in this run.
    """

    name: str
    same: int
    errors: int
    changed: tuple[tuple[Record, Outcome], ...]
    missing: tuple[Place, ...]
    new: tuple[Record, ...]
    stale: tuple[tuple[Record, int], ...]
    settings: tuple[str, ...]
    elsewhere: tuple[str, ...]

    def lines(self) -> list[str]:
        """All of it in words, the sum first."""
        counts = [
            (len(self.changed), "changed"),
            (self.errors, "in error"),
            (len(self.missing), "missing"),
            (len(self.new), "new"),
            (len(self.stale), "stale"),
        ]
        said = [f"{self.same} as before", *(f"{n} {word}" for n, word in counts if n)]
        lines = [f"baseline {self.name}: {', '.join(said)}"]
        lines += _some(
            f"changed: {Place.of(each)}: {was}, now {each.outcome}" for each, was in self.changed
        )
        lines += _some(f"missing: {place}: this run did not judge it" for place in self.missing)
        lines += _some(
            f"new: {Place.of(each)}: {each.outcome}, which the baseline does not have"
            for each in self.new
        )
        lines += _some(
            f"stale: {Place.of(each)}: the baseline has version {version} of the claim, this is "
            f"version {each.claim.version}; bless again"
            for each, version in self.stale
        )
        lines += [f"  settings: {each}" for each in self.settings]
        if self.elsewhere:
            names = ", ".join(self.elsewhere[:SHOWN])
            more = f" and {len(self.elsewhere) - SHOWN} more" if len(self.elsewhere) > SHOWN else ""
            lines.append(f"  not in this run, though in the baseline: {names}{more}")
        return lines


def _some(found: Iterable[str]) -> list[str]:
    lines = [f"  {each}" for each in found]
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], f"  and {more} more"] if more > 0 else lines


def of(
    baseline: Baseline,
    records: Sequence[Record],
    settings: Settings,
    *,
    cells: Collection[str],
    left_out: Collection[Place],
    claims: Collection[str] | None = None,
) -> Regression:
    """What of a run is other than its baseline has it.

    Args:
        baseline: What is expected.
        records: What the run found.
        settings: What the run was made with.
        cells: The cells, series and families that the run judges.
        left_out: What was collected and deselected, so that the run should not judge it.
        claims: Where paths were named: the claims collected there; others are left out too.
    """
    found = {Place.of(record): record for record in records}
    entries = baseline.entries
    same, errors = 0, 0
    changed: list[tuple[Record, Outcome]] = []
    new: list[Record] = []
    stale: list[tuple[Record, int]] = []
    for place, record in found.items():
        entry = entries.get(place)
        if entry is None:
            new.append(record)
        elif entry.version != record.claim.version:
            stale.append((record, entry.version))
        elif record.outcome is Outcome.ERROR:
            errors += 1
        elif record.outcome is entry.verdict:
            same += 1
        else:
            changed.append((record, entry.verdict))
    missing = (
        place
        for place in entries
        if place not in found
        and place.cell in cells
        and place not in left_out
        and (claims is None or place.claim in claims)
    )
    return Regression(
        baseline.name,
        same,
        errors,
        tuple(changed),
        tuple(missing),
        tuple(new),
        tuple(stale),
        tuple(baseline.settings.differences(settings)),
        tuple(cell for cell in baseline.cells if cell not in cells),
    )
