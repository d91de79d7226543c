"""The records of a run: kept as they are reached, read again, corrected by family."""

from __future__ import annotations

import json
import math
import platform
import subprocess
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

from mechtests.errors import LoadError, UsageError
from mechtests.reporting import samples
from mechtests.reporting.json_values import Json, finite, plain, whole
from mechtests.reporting.place import Place
from mechtests.reporting.record import Record
from mechtests.verdict import Outcome

HEADER = "run.json"
RECORDS = "records.jsonl"
PACKAGES = ("mechtests", "torch", "transformers", "transformer-lens", "numpy", "scipy")

Warn = Callable[[str], None]


def warn_in_python(message: str) -> None:
    """A Python warning; a program with a better place for messages gives its own."""
    warnings.warn(message, stacklevel=2)


@cache
def installed_versions() -> Mapping[str, str | None]:
    """The version of every package that can change a number; None where not installed."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def git_commit() -> str | None:
    """The git commit of the current folder, or None outside a repository."""
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return asked.stdout.strip() or None if asked.returncode == 0 else None


def surroundings() -> dict[str, Json]:
    """What a run ran on: versions, Python, platform and the commit of the current folder."""
    return {
        "versions": installed_versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "commit": git_commit(),
    }


class Journal:
    """Keeps a run's records in memory and in ``<folder>/runs/<run id>/``.

    Every record is flushed before the next test runs, so that a killed run loses none.
    Where the folder cannot be written there is one warning, and memory alone keeps them.

    Attributes:
        path: The run's own folder; its name is the run's id, the UTC time it started.
        header: What ``run.json`` says: what was asked for, and what it ran on.
        records: Every record so far.
        samples: The samples behind their estimates, encoded, by what each is about.
        kept: Whether the folder holds all of it.
    """

    def __init__(
        self, folder: Path, header: Mapping[str, Json], *, warn: Warn = warn_in_python
    ) -> None:
        self.records: list[Record] = []
        self.samples: dict[Place, Sequence[Json]] = {}
        self.kept = True
        self._warn = warn
        self.path, start = _new_run(Path(folder) / "runs")
        self.header: dict[str, Json] = {
            "run": self.id,
            "start": start.isoformat(),
            "end": None,
            "complete": False,
            **surroundings(),
        }
        self.update(**header)

    @property
    def id(self) -> str:
        """The run's id; ids sort by the time the run started."""
        return self.path.name

    @property
    def records_path(self) -> Path | None:
        """The file with the records; None where they are in memory only."""
        return self.path / RECORDS if self.kept else None

    def update(self, **said: Json) -> None:
        """Say more in the header."""
        self.header.update(said)
        text = json.dumps(finite(plain(self.header)), indent=1, allow_nan=False) + "\n"
        self._keep(lambda: _replace(self.path / HEADER, text))

    def append(self, record: Record, found: Sequence[Json] = ()) -> None:
        """Keep a record, and the samples behind its estimates (``samples.kept``)."""
        self.records.append(record)
        line = json.dumps(record.to_json(), allow_nan=False) + "\n"
        self._keep(lambda: _append(self.path / RECORDS, line))
        if found:
            self.samples[Place.of(record)] = found
            told = samples.line(Place.of(record), found)
            self._keep(lambda: _append(self.path / samples.FILE, told))

    def finish(self, *, complete: bool) -> None:
        """Say when the run ended, and whether it reached all its verdicts."""
        self.update(end=datetime.now(UTC).isoformat(), complete=complete)

    def _keep(self, write: Callable[[], None]) -> None:
        if not self.kept:
            return
        try:
            write()
        except OSError as error:
            self.kept = False
            self._warn(
                f"records of this run: {self.path} cannot be written ({error.strerror or error}); "
                "the verdicts are shown and not kept; free some space or make it writable"
            )


def correct(records: Iterable[Record]) -> list[Record]:
    """The same records with q: Benjamini-Hochberg over each claim's family.

    A family is all decided verdicts of one ``claim.family``; one without a p (nothing
    varied, or there were too few clusters) counts as 1. Gates give no verdict of their own and
    sanity claims are in no family (claims.md, Families).
    """
    from mechtests.rules import family

    corrected = [replace(record, q=None) for record in records]
    families: dict[str, list[int]] = {}
    for place, record in enumerate(corrected):
        if in_a_family(record):
            families.setdefault(record.claim.family, []).append(place)
    for places in families.values():
        ps = [corrected[place].verdict.p for place in places]
        qs = family([None if p is None or math.isnan(p) else p for p in ps])
        for place, q in zip(places, qs, strict=True):
            corrected[place] = replace(corrected[place], q=float(q))
    return corrected


def in_a_family(record: Record) -> bool:
    """Whether a record's p is corrected with others."""
    decided = record.outcome not in (Outcome.NOT_APPLICABLE, Outcome.ERROR)
    return decided and record.claim.paper != "sanity"


def latest(folder: Path) -> Path:
    """The folder of the newest run that has records.

    Raises:
        UsageError: There is none.
    """
    runs = all_runs(folder)
    if not runs:
        raise UsageError(
            f"the latest run: a run with records is needed, and there is none in "
            f"{Path(folder) / 'runs'}; judge the claims once, and its records are kept there"
        )
    return runs[-1]


def there(folder: Path, name: str) -> Path | None:
    """The folder of a run, by its id, its path or ``"latest"``; None where there is none.

    Raises:
        UsageError: The latest run is asked for, and there is no run.
    """
    if name == "latest":
        return latest(folder)
    runs = (Path(folder) / "runs" / name, Path(name))
    return next((run for run in runs if name and (run / RECORDS).is_file()), None)


def find(folder: Path, name: str) -> Path:
    """The same.

    Raises:
        UsageError: There is no such run.
    """
    if (run := there(folder, name)) is not None:
        return run
    known = ", ".join(run.name for run in all_runs(folder)[-3:]) or "none"
    raise UsageError(
        f"run {name!r}: the id or the folder of a run with records is needed; the newest in "
        f"{Path(folder) / 'runs'}: {known}"
    )


def header(run: Path) -> dict[str, Json]:
    """What the ``run.json`` of a run says.

    Raises:
        LoadError: It is missing or not whole.
    """
    file = Path(run) / HEADER
    try:
        return whole(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise LoadError(
            f"{file}: the header of a run is needed, and it cannot be read ({error}); "
            "name another run, or judge the claims again"
        ) from error


def read(path: Path, *, warn: Warn = warn_in_python) -> list[Record]:
    """The records of a run, from its folder or its ``records.jsonl``.

    A line that is not whole, as a killed run can leave behind, is passed over with a warning.

    Raises:
        UsageError: There are no records there.
        LoadError: A record is of another schema.
    """
    file = Path(path) / RECORDS if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise UsageError(
            f"records of a run: a run's folder or its {RECORDS} is needed, and there is none at "
            f"{path}; run the claims first, or name the folder of a run that was kept"
        )
    return [Record.from_json(tree) for tree in _lines(file, warn)]


def _lines(file: Path, warn: Warn) -> Iterator[dict[str, Json]]:
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            tree = json.loads(line)
        except ValueError:
            warn(f"{file}, line {number}: not a whole record, so it is passed over")
            continue
        if not isinstance(tree, dict):
            raise LoadError(f"{file}, line {number}: a record is a JSON object, got {tree!r}")
        yield tree


def all_runs(folder: Path) -> list[Path]:
    """The folders of all runs that have records, the newest last."""
    found = sorted(Path(folder).glob(f"runs/*/{RECORDS}"))
    return [records.parent for records in found if records.stat().st_size]


def _new_run(runs: Path) -> tuple[Path, datetime]:
    """A folder of its own for a run that starts now; made, where that is possible."""
    while True:
        start = datetime.now(UTC)
        folder = runs / start.strftime("%Y%m%d-%H%M%S-%f")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if folder.is_dir():
                continue  # another run started in the same microsecond
        except OSError:
            pass  # writing the header will say so
        return folder, start


def _append(file: Path, line: str) -> None:
    with file.open("a", encoding="utf-8") as records:
        records.write(line)


def _replace(file: Path, text: str) -> None:
    partial = file.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
