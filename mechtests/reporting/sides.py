"""The two sides of a comparison: what a name such as ``RUN:MODEL@CHECKPOINT`` stands for.

RUN                      all a run judged: its id, its folder, a records.jsonl, or "latest"
FILE.json                a blessed baseline, or the records that --mech-report wrote
MODEL                    a model, in the latest runs that judged it
MODEL@CHECKPOINT         one of its checkpoints: pythia-160m@step1000
RUN:MODEL[@CHECKPOINT]   the same in one run, or in one file
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mechtests.errors import LoadError, UsageError
from mechtests.reporting import baseline, records, samples
from mechtests.reporting.baseline import Baseline, Entry, Settings
from mechtests.reporting.json_values import Json
from mechtests.reporting.place import Place
from mechtests.reporting.record import Record
from mechtests.reporting.samples import At
from mechtests.verdict import Verdict

if TYPE_CHECKING:
    from mechtests.measurement import Sample


@dataclass(frozen=True)
class Judged:
    """A verdict of one side.

    Attributes:
        place: What it is about.
        version: The version of the claim's rule.
        over: What one verdict of the claim is about.
        model: The model's short name.
        verdict: The outcome, with what is known of its numbers.
        prompts: The digests of the prompts, by the name of the measurement; empty where they
            are not known.
        samples: The per-prompt values behind its estimates; empty where they were not kept.
        kept: Whether its run kept such values of any verdict.
    """

    place: Place
    version: int
    over: str
    model: str
    verdict: Verdict
    prompts: Mapping[str, str] = field(default_factory=dict)
    samples: Mapping[At, Sample] = field(default_factory=dict)
    kept: bool = False

    @property
    def checkpoint(self) -> str:
        """The label of its checkpoint; empty for released weights, a series and a family."""
        return self.place.cell.removeprefix(self.model).removeprefix(":")

    @classmethod
    def of_record(cls, record: Record, kept: Mapping[Place, Mapping[At, Sample]]) -> Judged:
        """A record of a run, with what the run kept of all."""
        digests = {
            name: str(facts["prompts"])
            for name, facts in record.facts.items()
            if isinstance(facts, Mapping) and facts.get("prompts")
        }
        return cls(
            Place.of(record),
            record.claim.version,
            record.claim.over,
            record.cell.model,
            record.verdict,
            digests,
            kept.get(Place.of(record), {}),
            bool(kept),
        )

    @classmethod
    def of_entry(cls, entry: Entry) -> Judged:
        """An entry of a baseline."""
        return cls(entry.place, entry.version, entry.over, entry.model, entry.as_verdict)


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        asked: How it was named.
        title: What it is, for people.
        settings: What it was reached with; None where that is not known.
        judged: Its verdicts, by what they are about.
    """

    asked: str
    title: str
    settings: Settings | None
    judged: Mapping[Place, Judged]

    @cached_property
    def models(self) -> tuple[str, ...]:
        """The models it has verdicts on."""
        return tuple(dict.fromkeys(each.model for each in self.judged.values()))

    def of(self, model: str) -> Side:
        """The verdicts on one model, or on one of its checkpoints.

        Raises:
            UsageError: It has none.
        """
        name, at, label = model.partition("@")
        kept = {
            place: each
            for place, each in self.judged.items()
            if (each.model == name and (not at or each.checkpoint == label)) or place.cell == model
        }
        if not kept:
            raise UsageError(f"{self.title} has no verdict on {model!r}; it has {self._has(name)}")
        return replace(self, title=f"{model} in {self.title}", judged=kept)

    def _has(self, name: str) -> str:
        cells = dict.fromkeys(e.place.cell for e in self.judged.values() if e.model == name)
        return ", ".join(cells or self.models) or "none at all"


def find(asked: str, folder: Path) -> Side:
    """The side that a name stands for.

    Args:
        asked: As the module says.
        folder: Where runs are kept.

    Raises:
        UsageError: It is neither a run nor a file, and no run judged a model of this name.
        LoadError: A file cannot be read.
    """
    if (whole := _whole(asked, folder)) is not None:
        return replace(whole, asked=asked)
    for cut in (i for i in range(len(asked) - 1, 0, -1) if asked[i] == ":"):
        if (whole := _whole(asked[:cut], folder)) is not None:
            return replace(whole.of(asked[cut + 1 :]), asked=asked)
    return replace(_latest_on(asked, folder), asked=asked)


def _whole(name: str, folder: Path) -> Side | None:
    """A run or a file, or None where there is none of this name."""
    path = Path(name)
    if path.is_file() and path.suffix == ".json":
        return _of_json(path)
    if path.is_file():
        run = path.parent if path.name == records.RECORDS else None
        return _of_records(name, records.read(path), run)
    run = records.there(folder, name)
    return None if run is None else of_run(run)


def of_run(run: Path) -> Side:
    """All that a run judged."""
    return _of_records(f"run {run.name}", records.read(run), run)


def _of_records(title: str, found: Iterable[Record], run: Path | None) -> Side:
    kept = {} if run is None else samples.read(run)
    judged = {Place.of(each): Judged.of_record(each, kept) for each in found}
    known = run is not None and (run / records.HEADER).is_file()
    settings = Settings.of(records.header(run)) if run is not None and known else None
    return Side(title, title, settings, judged)


def _of_json(path: Path) -> Side:
    """A baseline, or a list of records."""
    try:
        tree: Json = json.loads(path.read_bytes())
    except ValueError as error:
        raise LoadError(f"{path}: it is not JSON ({error}); name a run or a baseline") from error
    if isinstance(tree, list):
        return _of_records(str(path), [Record.from_json(each) for each in tree], None)
    return _of_baseline(baseline.read(path))


def _of_baseline(found: Baseline) -> Side:
    judged = {place: Judged.of_entry(entry) for place, entry in found.entries.items()}
    return Side(found.name, f"baseline {found.name}", found.settings, judged)


def _latest_on(model: str, folder: Path) -> Side:
    """A model in the latest runs that judged it: of each claim the latest verdict.

    Only runs with the settings of the latest one count, so that no two claims of a side were
    measured differently.
    """
    judged: dict[Place, Judged] = {}
    settings: Settings | None = None
    used: list[str] = []
    for run in _newest_first(folder, model.partition("@")[0]):
        try:
            side = of_run(run).of(model)
        except (UsageError, LoadError):
            continue
        if used and side.settings != settings:
            continue
        settings = side.settings
        used.append(run.name)
        judged = {**side.judged, **judged}
    if not used:
        known = dict.fromkeys(name for run in records.all_runs(folder) for name in _models(run))
        raise UsageError(
            f"{model!r}: a run, a baseline, or a model that a run in {folder / 'runs'} judged is "
            f"needed; models judged there: {', '.join(known) or 'none'}. Write RUN, FILE.json, "
            "MODEL, MODEL@CHECKPOINT or RUN:MODEL@CHECKPOINT"
        )
    where = f"run {used[0]}" if len(used) == 1 else f"{len(used)} runs, the latest {used[0]}"
    return Side(model, f"{model} in {where}", settings, judged)


def _newest_first(folder: Path, model: str) -> Iterator[Path]:
    for run in reversed(records.all_runs(folder)):
        named = _models(run)
        if not named or any(model == name or model.startswith(f"{name}:") for name in named):
            yield run


def _models(run: Path) -> list[str]:
    try:
        return list(records.header(run).get("models", {}))
    except LoadError:
        return []
