"""What earlier runs or baselines said of the same claims in the same cells.

A run's own past comes by itself: the earlier runs of its folder that have its settings, each a
verdict by what it is about, and the baseline it was held against.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from mechtests.errors import MechtestsError
from mechtests.reporting import baseline, records, wording
from mechtests.reporting.baseline import Settings
from mechtests.reporting.place import Place
from mechtests.reporting.record import Record
from mechtests.verdict import Outcome

MOST = 12
"""So many earlier runs of one claim in one cell are told of, the newest."""
LOOKED_THROUGH = 60
"""They are looked for in so many runs, the newest before the run that is told of."""
UNREADABLE = (MechtestsError, OSError, LookupError, TypeError, ValueError, AttributeError)
"""What reading a run of another version, or half of one, can raise: it is passed over."""


@dataclass(frozen=True)
class Past:
    """A verdict of an earlier run.

    Attributes:
        label: Of the run or baseline.
        outcome: What it said.
        version: Of the claim; another version judged by another rule.
        estimate: With its interval and unit, in words.
        curves: The means of the curves it showed, by what each is of.
        date: When the run started; empty of a baseline.
    """

    label: str
    outcome: Outcome
    version: int = 1
    estimate: str = ""
    curves: Mapping[str, Any] | None = None
    date: str = ""


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


def own(
    header: Mapping[str, Any], judged: Sequence[Record], reports: Path, *, most: int = MOST
) -> History:
    """The past of a run that comes by itself, oldest first: earlier runs, then its baseline.

    Only runs of the same settings count, of each model only those of the same model, and of
    shards that were joined only the joined run. The baseline is that of ``--mech-baseline``,
    where it is as old as the run. What cannot be read is passed over.

    Args:
        header: What the ``run.json`` of the run says.
        judged: Its records; nothing is said of other claims and cells.
        reports: The folder of runs.
        most: How many earlier runs of one claim in one cell.
    """
    found: dict[Place, list[Past]] = {Place.of(record): [] for record in judged}
    for run, told in _before(header, reports):
        for place, past in _read(run, told, header, found):
            if len(found[place]) < most:
                found[place].append(past)
        if all(len(each) >= most for each in found.values()):
            break
    newest_last = {place: past[::-1] for place, past in found.items() if past}
    blessed = {place: [past] for place, past in _of_baseline(header).items() if place in found}
    return joined(newest_last, blessed)


def _before(header: Mapping[str, Any], reports: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The runs before a run that have its settings, the newest first, with their headers."""
    skipped = set(header.get("merged") or ())
    earlier = [run for run in records.all_runs(reports) if run.name < str(header.get("run", ""))]
    for run in earlier[: -LOOKED_THROUGH - 1 : -1]:
        if run.name in skipped:
            continue
        with suppress(*UNREADABLE):
            told = records.header(run)
            skipped |= set(told.get("merged") or ())
            if Settings.of(told) == Settings.of(header):
                yield run, told


def _read(
    run: Path,
    told: Mapping[str, Any],
    header: Mapping[str, Any],
    wanted: Mapping[Place, Any],
) -> list[tuple[Place, Past]]:
    """What a run said of some places, where it judged the same model; nothing if unreadable."""
    found: list[tuple[Place, Past]] = []
    with suppress(*UNREADABLE):
        for line in (run / records.RECORDS).read_text("utf-8").splitlines():
            with suppress(json.JSONDecodeError):  # of a run that was killed
                tree = json.loads(line)
                claim, cell = tree["claim"], tree["cell"]
                place = Place(claim["id"], claim["task"], cell["id"])
                if place in wanted and _one_model(cell["model"], told, header):
                    found.append((place, _past(run.name, Record.from_json(tree))))
    return found


def _one_model(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a name was one model in two runs: asked for alike, or of the same files."""
    told = [run.get("models", {}).get(name) for run in (one, other)]
    if None in told or told[0]["asked"] == told[1]["asked"]:
        return True
    mine, theirs = (run.get("identities", {}) for run in (one, other))
    both = [cell for cell in mine if cell in theirs and f"{cell}:".startswith(f"{name}:")]
    return bool(both) and all(mine[cell] == theirs[cell] for cell in both)


def _of_baseline(header: Mapping[str, Any]) -> dict[Place, Past]:
    """What the baseline of a run says, unless it was blessed after the run."""
    with suppress(*UNREADABLE):
        path = Path(header["baseline"])
        if path.stat().st_mtime <= datetime.fromisoformat(header["start"]).timestamp():
            entries = baseline.read(path).entries
            return {place: _blessed(path.stem, entry) for place, entry in entries.items()}
    return {}


def joined(*histories: History) -> History:
    """Several histories one after the other; what is told twice counts where it is told last."""
    found: dict[Place, dict[str, Past]] = {}
    for each in histories:
        for place, past in each.items():
            mine = found.setdefault(place, {})
            for one in past:
                mine.pop(one.label, None)
                mine[one.label] = one
    return {place: list(past.values()) for place, past in found.items()}


def alike(past: Sequence[Past]) -> list[list[Past]]:
    """Earlier verdicts, those in a row that said the same together."""
    groups = groupby(past, lambda p: (p.outcome, p.version, p.estimate, bool(p.date)))
    return [list(group) for _, group in groups]


def _blessed(label: str, entry: baseline.Entry) -> Past:
    return Past(label, entry.verdict, entry.version, entry.numbers)


def of(runs: Iterable[tuple[str, Iterable[Record]]]) -> History:
    """The history that some runs make, each with a label, oldest first."""
    found: dict[Place, list[Past]] = {}
    for label, judged in runs:
        for record in judged:
            found.setdefault(Place.of(record), []).append(_past(label, record))
    return found


def _past(label: str, record: Record) -> Past:
    verdict = record.verdict
    return Past(
        label,
        verdict.outcome,
        record.claim.version,
        wording.estimate(verdict),
        _curves(verdict.shown.get("curves")),
        _date(record.run),
    )


def _date(run: str) -> str:
    """The day and the minute (UTC) that a run's id names; empty where it is no such id."""
    try:
        return f"{datetime.strptime(run[:13], '%Y%m%d-%H%M'):%Y-%m-%d %H:%M}"
    except ValueError:
        return ""


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
