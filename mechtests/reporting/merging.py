"""Runs joined into one: shards of a run, or runs of several models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mechtests.errors import UsageError
from mechtests.reporting import records, samples
from mechtests.reporting.baseline import Settings
from mechtests.reporting.json_values import Json
from mechtests.reporting.place import Place
from mechtests.reporting.record import Record
from mechtests.reporting.records import Journal

SAID = ("argv", "start", "end", "complete", "versions", "platform", "commit", "shard")
"""What the header of a merged run says of each of its sources."""


@dataclass(frozen=True)
class Source:
    """A run that is joined with others.

    Attributes:
        path: Its folder.
        header: What its ``run.json`` says.
        records: Its records.
        samples: The values behind its estimates, still encoded.
    """

    path: Path
    header: Mapping[str, Json]
    records: tuple[Record, ...]
    samples: Mapping[Place, list[Json]]

    @classmethod
    def of(cls, run: Path) -> Source:
        """The run of a folder."""
        found = tuple(records.read(run))
        return cls(run, records.header(run), found, samples.lines(run))

    @property
    def name(self) -> str:
        """The run's id."""
        return self.path.name


def merge(runs: Sequence[Path], folder: Path) -> tuple[Path, list[str]]:
    """Join runs into a new one, with q over the families of all.

    Shards come back in the order of the run they are parts of, other runs one after the other.

    Args:
        runs: The folders of the runs.
        folder: Where runs are kept; the new one is made there.

    Returns:
        The folder of the new run, and what to know of it, in sentences.

    Raises:
        UsageError: Settings or versions of a claim differ, two runs disagree on one verdict
            or on the weights of one cell, or the shards are not of one run: they are parts of
            another number, or other tests were selected.
        LoadError: A run cannot be read.
    """
    sources = [Source.of(run) for run in runs]
    _check_settings(sources)
    _check_versions(sources)
    lacking = _check_shards(sources)
    kept, twice = _joined(sources)
    header = {
        **_header(sources),
        "cases": sum(s.header.get("cases", len(s.records)) for s in sources) - twice,
    }
    journal = Journal(folder, header)
    values: dict[Place, list[Json]] = {}
    for source in sources:  # of a verdict that is there twice, those that are kept somewhere
        values = {**source.samples, **values}
    for record in records.correct(replace(each, run=journal.id) for each in kept):
        journal.append(record, values.get(Place.of(record), ()))
    unfinished = [source.name for source in sources if not source.header["complete"]]
    journal.finish(complete=not lacking and not unfinished)
    said = []
    if lacking:
        said.append(f"not complete: of the shards {', '.join(lacking)} are missing")
    if unfinished:
        said.append(f"not complete: {', '.join(unfinished)} did not reach all verdicts")
    if twice:
        verdicts = "1 verdict" if twice == 1 else f"{twice} verdicts"
        said.append(f"reached in more than one run, in agreement: {verdicts}")
    return journal.path, said


def _check_settings(sources: Sequence[Source]) -> None:
    first, *others = sources
    mine = Settings.of(first.header)
    for other in others:
        if differing := mine.differences(Settings.of(other.header)):
            pairs = "; ".join(each.replace(", now ", " and ") for each in differing)
            raise UsageError(
                f"runs {first.name} and {other.name}: they were made with different settings "
                f"({pairs}), and verdicts of two settings are not one run; compare them instead"
            )


def _check_versions(sources: Sequence[Source]) -> None:
    seen: dict[str, tuple[int, str]] = {}
    for source in sources:
        for record in source.records:
            claim = record.claim
            version, where = seen.setdefault(claim.id, (claim.version, source.name))
            if version != claim.version:
                raise UsageError(
                    f"claim {claim.id}: version {version} in the run {where} and version "
                    f"{claim.version} in {source.name}; judge both with one version of the claims"
                )


def _check_shards(sources: Sequence[Source]) -> list[str]:
    """The shards of the run that are not there."""
    parts = [source for source in sources if source.header.get("shard")]
    shards = [source.header["shard"] for source in parts]
    counts = sorted({shard["of"] for shard in shards})
    if len(counts) > 1:
        raise UsageError(
            f"shards of {' and of '.join(map(str, counts))}: they are parts of different runs; "
            "merge those of one run"
        )
    for other in parts[1:]:
        _check_selected(parts[0], other)
    there = {shard["index"] for shard in shards}
    return [f"{i}/{n}" for n in counts for i in range(1, n + 1) if i not in there]


def _check_selected(one: Source, other: Source) -> None:
    """Refuse shards of which each is a part of other tests: together they are no run."""
    selections = [
        " ".join([*source.header.get("selection", ()), *source.header.get("narrowed", ())])
        for source in (one, other)
    ]
    if selections[0] != selections[1]:
        mine, theirs = (each or "all tests" for each in selections)
        raise UsageError(
            f"shards {one.name} and {other.name}: they are parts of different selections "
            f"({mine} and {theirs}), and tests between them are in neither; judge all shards with "
            "the same options"
        )


def _joined(sources: Sequence[Source]) -> tuple[list[Record], int]:
    """Each verdict once, in order, and how many were there twice."""
    found: dict[Place, tuple[Record, Source]] = {}
    order: dict[Place, tuple[int, int]] = {}
    twice = 0
    for index, source in enumerate(sources):
        shard = source.header.get("shard")
        for at, record in enumerate(source.records):
            place = Place.of(record)
            if place in found:
                twice += 1
                _check_agree(found[place], (record, source))
                continue
            found[place] = record, source
            order[place] = (0, shard["order"].get(record.nodeid, at)) if shard else (index, at)
    return [found[place][0] for place in sorted(found, key=lambda place: order[place])], twice


def _check_agree(one: tuple[Record, Source], other: tuple[Record, Source]) -> None:
    (mine, first), (theirs, second) = one, other
    for name, a, b in (
        ("verdict", mine.outcome, theirs.outcome),
        ("estimate", mine.verdict.estimate, theirs.verdict.estimate),
        ("weights", mine.cell.weights, theirs.cell.weights),
    ):
        if a != b and not (_nan(a) and _nan(b)):
            raise UsageError(
                f"{Place.of(mine)}: the runs disagree on its {name}: {a} in {first.name} and "
                f"{b} in {second.name}; leave one of them out, or compare them instead"
            )


def _nan(value: Json) -> bool:
    """Whether a value is no number: two such estimates agree, though they are not equal."""
    return isinstance(value, float) and math.isnan(value)


def _header(sources: Sequence[Source]) -> dict[str, Json]:
    """The header of the joined run, as far as it is not its own."""
    heads = [source.header for source in sources]
    return {
        "argv": ["mechtests", "merge", *(source.name for source in sources)],
        "settings": heads[0]["settings"],
        "store": heads[0].get("store"),
        "replays": None,
        "merged": {
            source.name: {name: source.header.get(name) for name in SAID if name != "shard"}
            | {"shard": _shard(source.header.get("shard"))}
            for source in sources
        },
        "models": _models(heads),
        "identities": _identities(sources),
        "loads": _loads(heads),
        "selection": _each_once(heads, "selection"),
        "narrowed": _each_once(heads, "narrowed"),
        "shard": None,
        "baseline": _common(heads, "baseline"),
    }


def _shard(shard: Mapping[str, Json] | None) -> str | None:
    return None if shard is None else f"{shard['index']}/{shard['of']}"


def _identities(sources: Sequence[Source]) -> dict[str, Json]:
    """What each cell's name resolved to, the same everywhere."""
    found: dict[str, tuple[Json, str]] = {}
    for source in sources:
        for cell, identity in source.header.get("identities", {}).items():
            mine, where = found.setdefault(cell, (identity, source.name))
            if mine != identity:
                raise UsageError(
                    f"cell {cell}: the run {where} judged {mine}, and {source.name} judged "
                    f"{identity}; judge one model under one name, or compare the runs instead"
                )
    return {cell: identity for cell, (identity, _) in found.items()}


def _models(heads: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """The models of all, each with its checkpoints of all."""
    found: dict[str, dict[str, Json]] = {}
    for head in heads:
        for name, told in head.get("models", {}).items():
            mine = found.setdefault(name, dict(told))
            for kind in ("checkpoints", "series"):
                more = [each for each in told[kind] if each not in mine[kind]]
                mine[kind] = sorted([*mine[kind], *more], key=_in_training)
    return dict(found)


def _in_training(checkpoint: Mapping[str, Json] | None) -> float:
    step = None if checkpoint is None else checkpoint["step"]
    return math.inf if step is None else float(step)


def _loads(heads: Sequence[Mapping[str, Json]]) -> dict[str, int]:
    loads: dict[str, int] = {}
    for head in heads:
        for cell, count in head.get("loads", {}).items():
            loads[cell] = loads.get(cell, 0) + count
    return loads


def _common(heads: Sequence[Mapping[str, Json]], name: str) -> Json:
    """What all of the runs have; None where they differ."""
    first, *others = (head.get(name) for head in heads)
    return first if all(other == first for other in others) else None


def _each_once(heads: Sequence[Mapping[str, Json]], name: str) -> list[str]:
    return list(dict.fromkeys(each for head in heads for each in head.get(name, ())))
