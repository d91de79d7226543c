"""A verdict that was reached before: in a run, or blessed into a baseline.

Of its model nothing need be here any more: what was measured in it is in the store, under the keys
that its record has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mechtests import against
from mechtests.errors import LoadError, MechtestsError, UsageError
from mechtests.measurement import Measurement
from mechtests.reporting import baseline, records
from mechtests.reporting.baseline import Baseline, Entry
from mechtests.reporting.place import Place
from mechtests.store import Store
from mechtests.verdict import Verdict

if TYPE_CHECKING:
    from mechtests.case import Case
    from mechtests.reporting.record import Record


@dataclass(frozen=True, eq=False)
class Earlier:
    """A verdict that was reached before, in a run or blessed into a baseline.

    Attributes:
        cell: What it is about, and where it is from: ``"mine in the baseline b.json"``.
        verdict: What was found.
        read: What of the claim's measurements is still stored, by name.
        missing: Why nothing can be compared head by head; empty where it can.
    """

    cell: str
    verdict: Verdict
    read: Mapping[str, Measurement]
    missing: str = ""


def find(asked: str, case: Case, store: Store, folder: Path) -> Earlier | None:
    """The verdict of a claim in a run (its id, folder, or "latest") or a baseline (FILE.json).

    None where the name is of neither.

    Args:
        asked: The name.
        case: The claim, and the cell that is explained: the same one is looked for first.
        store: Where measurements are.
        folder: Where runs are kept.

    Raises:
        UsageError: It has no verdict on the claim, or several and none on the cell.
        LoadError: A file cannot be read.
    """
    path = Path(asked)
    if path.suffix == ".json":
        return _blessed(baseline.read(path), case, store, folder)
    run = records.there(folder, asked)
    if run is None:
        return None
    title = f"the run {run.name}"
    found = {Place.of(each): each for each in records.read(run)}
    record = found[_place(case, found, title)]
    return _recorded(record, run, case, store, f"{record.cell.id} in {title}")


def _place(case: Case, places: Iterable[Place], title: str) -> Place:
    """The place of a claim in the cell of a case, or in the only cell that it was judged in."""
    task = case.claim.task
    there = [each for each in places if each[:2] == (case.claim.id, task)]
    same = [each for each in there if each.cell == case.id] or there
    if len(same) == 1:
        return same[0]
    on = f"{case.claim.id}{f' ({task})' if task else ''}"
    cells = ", ".join(each.cell for each in same)
    raise UsageError(
        f"{title} has " + (f"{on} on {cells}, and not on {case.id}" if same else f"no {on}")
        + "; name another run or baseline, or a model"
    )  # fmt: skip


def _blessed(found: Baseline, case: Case, store: Store, folder: Path) -> Earlier:
    """A verdict of a baseline, with the measurements of the run that it was blessed from.

    That is the newest run whose record says what was blessed, to the last digit kept.
    """
    title = f"the baseline {found.name}"
    place = _place(case, found.entries, title)
    entry, cell = found.entries[place], f"{place.cell} in {title}"
    for run in reversed(records.all_runs(folder)):
        for record in _read(run):
            if Place.of(record) == place and Entry.of(record) == entry:
                return _recorded(record, run, case, store, cell)
    verdict = replace(entry.as_verdict, sentence=entry.numbers or f"blessed as {entry.verdict}")
    missing = f"no run in {folder / 'runs'} is the one that {found.name} was blessed from"
    return Earlier(cell, verdict, {}, missing)


def _read(run: Path) -> list[Record]:
    """The records of a run; none where it cannot be read."""
    try:
        return records.read(run, warn=lambda _: None)
    except MechtestsError:
        return []


def _recorded(record: Record, run: Path, case: Case, store: Store, cell: str) -> Earlier:
    """A verdict of a run, with what was measured for it."""
    if record.claim.version != case.claim.version:
        missing = (
            f"it is of version {record.claim.version} of the claim, and this is version "
            f"{case.claim.version}"
        )
        return Earlier(cell, record.verdict, {}, missing)
    if case.series:
        return Earlier(cell, record.verdict, {})
    here = [name for name, need in case.claim.needs.items() if need.cell == "here"]
    keys = {name: record.measurements[name] for name in here if name in record.measurements}
    stores = [store, *_store_of(run)]
    read = {
        name: found
        for name, key in keys.items()
        if (found := next(filter(None, (_stored(each, key) for each in stores)), None)) is not None
    }
    missing = ""
    if keys and not read:
        missing = f"what the run {run.name} measured is in no store here"
    elif not against.by_head(read):
        missing = (
            "the claim reads no value of a head; name the weights of before in place of a file or "
            "a run (--baseline=FOLDER), and the parts whose weights differ are named"
        )
    return Earlier(cell, record.verdict, read, missing)


def _store_of(run: Path) -> list[Store]:
    """The store that a run kept its measurements in, where it can be opened."""
    try:
        return [Store(str(records.header(run)["store"]))]
    except (LoadError, KeyError, ImportError, ValueError):
        return []


def _stored(store: Store, key: str) -> Measurement | None:
    """A measurement, or None where the store does not have it."""
    try:
        return store.get(key)
    except MechtestsError:
        return None
