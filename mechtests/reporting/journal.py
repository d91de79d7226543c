"""A run's folder: a header, and its records as they are reached, line by line."""

from __future__ import annotations

import json
import platform
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from mechtests.errors import LoadError, UsageError
from mechtests.reporting.json_values import Json, finite, plain
from mechtests.reporting.records import Record

HEADER = "run.json"
RECORDS = "records.jsonl"
PACKAGES = ("mechtests", "torch", "transformers", "transformer-lens", "numpy", "scipy")

Warn = Callable[[str], None]


def warn_in_python(message: str) -> None:
    """A Python warning; a program with a better place for messages gives its own."""
    warnings.warn(message, stacklevel=2)


def installed_versions() -> dict[str, str | None]:
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


@dataclass(frozen=True)
class Run:
    """The header of a run, ``run.json``.

    Attributes:
        id: The UTC time it started, to the microsecond; ids sort by time.
        argv: The command line.
        profile: How much is measured.
        seed: The seed of every random draw.
        start: When it started, ISO 8601, UTC.
        end: When it ended; None while it runs and where it was killed.
        complete: Whether it reached all its verdicts.
        settings: What else was set: dtype, device, where the store is.
        plan: What was planned, as the planner says it.
        versions: The version of every package that can change a number.
        python: The version of Python.
        platform: The operating system and processor.
        commit: The git commit of the folder it ran in, or None.
    """

    id: str
    argv: Sequence[str]
    profile: str
    seed: int
    start: str
    end: str | None = None
    complete: bool = False
    settings: Mapping[str, Json] = field(default_factory=dict)
    plan: Mapping[str, Json] = field(default_factory=dict)
    versions: Mapping[str, str | None] = field(default_factory=installed_versions)
    python: str = field(default_factory=platform.python_version)
    platform: str = field(default_factory=platform.platform)
    commit: str | None = field(default_factory=git_commit)


class Journal:
    """Keeps a run's records in memory and in ``<folder>/runs/<run id>/``.

    Every record is flushed before the next test runs, so that a killed run loses none.
    Where the folder cannot be written there is one warning, and memory alone keeps them.

    Attributes:
        run: The header.
        path: The run's own folder.
        records: Every record so far.
        kept: Whether the folder holds all of it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        argv: Sequence[str],
        profile: str,
        seed: int,
        settings: Mapping[str, Json] | None = None,
        warn: Warn = warn_in_python,
    ) -> None:
        self.records: list[Record] = []
        self.kept = True
        self._warn = warn
        self.path, start = _new_run(Path(folder) / "runs")
        self.run = Run(
            id=self.path.name,
            argv=tuple(argv),
            profile=profile,
            seed=seed,
            start=start.isoformat(),
            settings=dict(settings or {}),
        )
        self._write_header()

    @property
    def records_path(self) -> Path | None:
        """The file with the records; None where they are in memory only."""
        return self.path / RECORDS if self.kept else None

    def planned(self, plan: Mapping[str, Json]) -> None:
        """Note the plan in the header."""
        self.run = replace(self.run, plan=dict(plan))
        self._write_header()

    def append(self, record: Record) -> None:
        """Keep a record."""
        self.records.append(record)
        line = json.dumps(record.to_json(), allow_nan=False) + "\n"
        self._keep(lambda: _append(self.path / RECORDS, line))

    def finish(self, *, complete: bool) -> None:
        """Note in the header when the run ended and whether it reached all its verdicts."""
        self.run = replace(self.run, end=datetime.now(UTC).isoformat(), complete=complete)
        self._write_header()

    def _write_header(self) -> None:
        text = json.dumps(finite(plain(self.run)), indent=1, allow_nan=False) + "\n"
        self._keep(lambda: _replace(self.path / HEADER, text))

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


def latest(folder: Path) -> Path | None:
    """The folder of the newest run that has records, or None."""
    found = sorted(Path(folder).glob(f"runs/*/{RECORDS}"), reverse=True)
    return next((records.parent for records in found if records.stat().st_size), None)


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
