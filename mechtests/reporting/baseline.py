"""A baseline: the verdicts that are expected of some cells, as a file that a review can read.

One line a verdict, sorted, numbers to six digits: a change of one verdict is a change of one
line. What is stored is little on purpose: the outcome decides, the numbers are for the reader.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mechtests.errors import LoadError, UsageError
from mechtests.reporting import wording
from mechtests.reporting.json_values import Json
from mechtests.reporting.place import Place
from mechtests.reporting.record import Record
from mechtests.verdict import Outcome, Verdict

SCHEMA = "mechtests-baseline/1"
DIGITS = 6


@dataclass(frozen=True)
class Settings:
    """What verdicts were reached with, as far as it can change them.

    Attributes:
        profile: How much was measured.
        seed: The seed of every random draw.
        dtype: The precision of the network.
        prompts: SHA-256 of a user's own prompts, by task.
    """

    profile: str = "quick"
    seed: int = 0
    dtype: str = "float32"
    prompts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, header: Mapping[str, Json]) -> Settings:
        """The settings that the header of a run names."""
        told = header["settings"]
        return cls(told["profile"], told["seed"], told["dtype"], told.get("prompt_digests", {}))

    @classmethod
    def from_json(cls, tree: Mapping[str, Json]) -> Settings:
        """The settings of a file; an older one also has the level of its intervals, 0.95."""
        return cls(**{name: value for name, value in tree.items() if name != "level"})

    def differences(self, other: Settings) -> list[str]:
        """Which settings differ, as ``"profile quick, now standard"``."""
        mine, theirs = asdict(self), asdict(other)
        return [
            f"{name} {_said(mine[name])}, now {_said(theirs[name])}"
            for name in mine
            if mine[name] != theirs[name]
        ]


def _said(value: Json) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v[:12]}" for k, v in sorted(value.items())) or "of the tasks"
    return str(value)


@dataclass(frozen=True)
class Entry:
    """A verdict as it was blessed.

    Attributes:
        place: What it is about.
        version: The version of the claim's rule.
        over: What one verdict of the claim is about.
        model: The model's short name.
        verdict: The outcome.
        estimate: The estimate, to six digits.
        interval: Its 95% interval.
        margin: What the interval was held against.
    """

    place: Place
    version: int
    over: str
    model: str
    verdict: Outcome
    estimate: float | None = None
    interval: tuple[float | None, float | None] | None = None
    margin: float | None = None

    @classmethod
    def of(cls, record: Record) -> Entry:
        """A record as a baseline keeps it."""
        verdict = record.verdict
        ends = verdict.interval
        return cls(
            Place.of(record),
            record.claim.version,
            record.claim.over,
            record.cell.model,
            verdict.outcome,
            _short(verdict.estimate),
            None if ends is None else (_short(ends[0]), _short(ends[1])),
            _short(verdict.margin),
        )

    @property
    def numbers(self) -> str:
        """The estimate with its interval, for people; empty where there is none."""
        return wording.estimate(self.as_verdict)

    @property
    def as_verdict(self) -> Verdict:
        """The outcome with the numbers that were kept, and without a sentence."""
        low, high = self.interval or (None, None)
        return Verdict(
            self.verdict,
            "",
            estimate=self.estimate,
            interval=None if low is None or high is None else (low, high),
            margin=self.margin,
        )

    def to_json(self) -> dict[str, Json]:
        """What ``baseline.schema.json`` describes."""
        rest = {name: value for name, value in asdict(self).items() if name != "place"}
        return {**self.place._asdict(), **rest, "verdict": self.verdict.value}

    @classmethod
    def from_json(cls, tree: Mapping[str, Json]) -> Entry:
        """The entry that ``to_json`` gave."""
        ends = tree["interval"]
        return cls(
            Place(tree["claim"], tree["task"], tree["cell"]),
            tree["version"],
            tree["over"],
            tree["model"],
            Outcome(tree["verdict"]),
            tree["estimate"],
            None if ends is None else (ends[0], ends[1]),
            tree["margin"],
        )


def _short(value: float | None) -> float | None:
    """Six digits: what differs beyond them is the machine. What JSON cannot say is null."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")


@dataclass(frozen=True)
class Baseline:
    """The verdicts of a file.

    Attributes:
        settings: What they were reached with.
        selection: The options that selected the tests, such as ``"-k induction"``; none where
            nothing was left out.
        entries: The verdicts by what they are about.
        name: The file's name, for people.
    """

    settings: Settings
    selection: tuple[str, ...]
    entries: Mapping[Place, Entry]
    name: str = ""

    @classmethod
    def of(cls, records: Iterable[Record], header: Mapping[str, Json], name: str = "") -> Baseline:
        """The baseline of a run."""
        entries = {Place.of(record): Entry.of(record) for record in records}
        selection = tuple(header.get("selection", ()))
        return cls(Settings.of(header), selection, entries, name)

    @property
    def text(self) -> str:
        """The file: JSON with one line a verdict, sorted."""
        head = {
            "schema": SCHEMA,
            "settings": asdict(self.settings),
            "selection": list(self.selection),
        }
        lines = [
            json.dumps(self.entries[place].to_json(), allow_nan=False)
            for place in sorted(self.entries, key=_order)
        ]
        top = json.dumps(head, indent=1, sort_keys=True, allow_nan=False).removesuffix("\n}")
        body = ",\n  ".join(lines)
        return f'{top},\n "verdicts": [\n  {body}\n ]\n}}\n'

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells, series and families it has verdicts on."""
        return tuple(dict.fromkeys(place.cell for place in sorted(self.entries, key=_order)))


def _order(place: Place) -> tuple[str, str, str]:
    return place.claim, place.task or "", place.cell


def schema() -> dict[str, Json]:
    """The JSON Schema of a baseline, every field described."""
    from importlib.resources import files

    text = files("mechtests.reporting").joinpath("baseline.schema.json").read_text("utf-8")
    described: dict[str, Json] = json.loads(text)
    return described


def read(path: Path) -> Baseline:
    """The baseline of a file.

    Raises:
        UsageError: There is no such file.
        LoadError: It is not a baseline of this schema.
    """
    try:
        tree = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UsageError(
            f"baseline {path}: a file that --mech-bless wrote is needed, and it cannot be read "
            f"({error.strerror or error}); write it with pytest --mech-bless {path}"
        ) from error
    except ValueError as error:
        raise LoadError(f"baseline {path}: it is not JSON ({error}); bless it again") from error
    found = tree.get("schema") if isinstance(tree, dict) else None
    if found != SCHEMA:
        raise LoadError(
            f"baseline {path}: it is of the schema {found!r}, and this version of mechtests reads "
            f"{SCHEMA!r}; bless it again"
        )
    try:
        entries = [Entry.from_json(each) for each in tree["verdicts"]]
        settings = Settings.from_json(tree["settings"])
        selection = tuple(tree["selection"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise LoadError(
            f"baseline {path}: it is not as baseline.schema.json says "
            f"({type(error).__name__}: {error}); mend it or bless it again"
        ) from error
    by_place = {entry.place: entry for entry in entries}
    if len(by_place) < len(entries):
        raise LoadError(f"baseline {path}: it has two verdicts for one place; bless it again")
    return Baseline(settings, selection, by_place, Path(path).name)


def write(path: Path, baseline: Baseline) -> None:
    """Write a baseline, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(baseline.text, "utf-8")
    partial.replace(path)
