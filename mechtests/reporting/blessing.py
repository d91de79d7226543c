"""Make a run's verdicts the expected ones, or say in a sentence why not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from mechtests.errors import UsageError
from mechtests.reporting import baseline
from mechtests.reporting.baseline import Baseline, Entry
from mechtests.reporting.json_values import Json
from mechtests.reporting.place import Place
from mechtests.reporting.record import Record
from mechtests.verdict import Outcome

NAMED = 3
"""So many of a kind are named in a refusal."""
INCONCLUSIVE_TOO = "--mech-bless-inconclusive"


def bless(
    path: Path,
    records: Sequence[Record],
    header: Mapping[str, Json],
    *,
    inconclusive: bool = False,
    flag: str = INCONCLUSIVE_TOO,
) -> list[str]:
    """Write the verdicts of a run into a baseline, and say what changes in it.

    Args:
        path: The baseline; it need not exist.
        records: The records of the run.
        header: What its ``run.json`` says.
        inconclusive: Whether an inconclusive verdict may be blessed.
        flag: What the user gives to bless inconclusive verdicts as well.

    Raises:
        UsageError: The run is partial, failed, overridden or inconclusive, or would drop
            verdicts of the file that it did not judge.
        LoadError: The file is there and is no baseline.
    """
    before = baseline.read(path) if path.exists() else None
    found = Baseline.of(records, header, path.name)
    why = [*_partial(records, header), *_unfit(records, inconclusive, flag)]
    if before is not None:
        why += _dropping(before, found)
    if why:
        raise UsageError(f"{path}: not blessed, because {'; and '.join(why)}")
    baseline.write(path, found)
    return said(path, before, found)


def _partial(records: Sequence[Record], header: Mapping[str, Json]) -> list[str]:
    """Why a run is not all of what it was meant to be."""
    why = []
    cases = header.get("cases", len(records))
    if not records:
        why.append("the run reached no verdict")
    elif not header["complete"] or len(records) < cases:
        why.append(
            f"the run was not complete ({len(records)} of {cases} tests reached a verdict): "
            "let it end"
        )
    if shard := header.get("shard"):
        why.append(
            f"it is shard {shard['index']}/{shard['of']} of a run: join all shards with "
            "mechtests merge, and bless the merged run with mechtests bless"
        )
    if narrowed := header.get("narrowed"):
        why.append(f"{', '.join(narrowed)} left out tests: run it without")
    return why


def _unfit(records: Sequence[Record], inconclusive: bool, flag: str) -> list[str]:
    """Which verdicts cannot be what is expected from now on."""
    why = []
    if wrong := [each for each in records if each.outcome is Outcome.ERROR]:
        why.append(f"{_counted(wrong, 'error')}: mend them first")
    if outside := [each for each in records if each.overridden]:
        why.append(
            f"a setting from outside changed the rule of {_named(outside)}: leave out "
            "--mech-prompts"
        )
    open_ = [each for each in records if each.outcome is Outcome.INCONCLUSIVE]
    if open_ and not inconclusive:
        why.append(
            f"{_counted(open_, 'inconclusive verdict')}: measure more (--mech-profile standard), "
            f"or bless them as they are with {flag}"
        )
    return why


def _dropping(before: Baseline, found: Baseline) -> list[str]:
    """Why the file would lose verdicts that this run says nothing about."""
    lost = [place for place in before.entries if place not in found.entries]
    elsewhere = [place for place in lost if place.cell not in found.cells]
    if elsewhere:
        cells = tuple(dict.fromkeys(place.cell for place in elsewhere))
        verb = "is" if len(elsewhere) == 1 else "are"
        return [
            f"{_verdicts(elsewhere)} of the file {verb} on cells that this run did not judge "
            f"({_few(cells)}): judge them too, or bless into another file"
        ]
    if lost and found.selection:
        return [
            f"{' '.join(found.selection)} left out {_verdicts(lost)} of the file "
            f"({_few(list(map(str, lost)))}): judge them too, or bless into another file"
        ]
    return []


def said(path: Path, before: Baseline | None, after: Baseline) -> list[str]:
    """What blessing changed, a line each, its sum first."""
    if before is None:
        return [f"blessed {_verdicts(after.entries)} into {path}, a new baseline"]
    old, new = before.entries, after.entries
    both = [place for place in new if place in old]
    flips = [place for place in both if old[place].verdict is not new[place].verdict]
    moved = [p for p in both if p not in flips and old[p] != new[p]]
    lines = [
        *(f"changed: {p}: {_told(old[p])}, now {_told(new[p])}" for p in flips),
        *(f"new: {p}: {_told(new[p])}" for p in new if p not in old),
        *(f"removed: {p}: {_told(old[p])}" for p in old if p not in new),
        *(f"settings: {each}" for each in before.settings.differences(after.settings)),
    ]
    if before.selection != after.selection:
        selections = (" ".join(each.selection) or "all" for each in (before, after))
        lines.append("selection: {}, now {}".format(*selections))
    numbers = f"; of {len(moved)} only numbers or versions moved" if moved else ""
    none = "" if lines or moved else "; nothing changes"
    return [f"blessed {_verdicts(new)} into {path}{numbers}{none}", *lines]


def _told(entry: Entry) -> str:
    return f"{entry.verdict} ({entry.numbers})" if entry.numbers else str(entry.verdict)


def _verdicts(found: Collection[Place]) -> str:
    return "1 verdict" if len(found) == 1 else f"{len(found)} verdicts"


def _counted(records: Sequence[Record], what: str) -> str:
    return f"it has {len(records)} {what}{'s' if len(records) > 1 else ''} ({_named(records)})"


def _named(records: Sequence[Record]) -> str:
    return _few([str(Place.of(record)) for record in records])


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
