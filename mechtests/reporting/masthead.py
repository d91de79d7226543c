"""What stands above and below the verdicts of a page: which run it was, and what it left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from mechtests.reporting import conclusions
from mechtests.reporting.matrix import Matrix
from mechtests.reporting.record import Record

Json = Any


def title(header: Mapping[str, Json], records: Sequence[Record]) -> dict[str, Json]:
    """What stands above the matrix: title, heading, time, warnings and facts."""
    models = list(
        dict.fromkeys(record.cell.model for record in records if record.claim.over != "scale")
    ) or list(dict.fromkeys(record.cell.model for record in records))
    models = [cell.model for cell in Matrix.of(records).cells if cell.model in models]
    models = list(dict.fromkeys(models))
    named = ", ".join(models[:4]) + (f" and {len(models) - 4} more" if len(models) > 4 else "")
    heading = f"Which claims hold of {named}" if models else "A run without verdicts"
    return {
        "title": f"mechtests: {named or 'no verdicts'}",
        "heading": heading,
        "when": _when(header),
        "warnings": _warnings(header, records),
        "facts": _facts(header, records),
        "together": conclusions.sentences(records),
        "surroundings": _surroundings(header),
    }


def _when(header: Mapping[str, Json]) -> str:
    run = f"run {header['run']}" if header.get("run") else ""
    try:
        start = datetime.fromisoformat(str(header.get("start")))
    except ValueError:
        return run
    at = f"{start:%Y-%m-%d %H:%M} UTC"
    try:
        took = (datetime.fromisoformat(str(header.get("end"))) - start).total_seconds()
    except ValueError:
        return f"{at}, {run}"
    spent = f"{took:.0f} s" if took < 120 else f"{took / 60:.0f} min"
    return f"{at}, {run}, {spent}"


def _warnings(header: Mapping[str, Json], records: Sequence[Record]) -> list[str]:
    told = {
        "This run was not finished: verdicts are missing.": header.get("complete") is False,
        "Some verdicts are by rules that were changed from outside, and cannot be blessed.": any(
            record.overridden for record in records
        ),
        f"Judged again from the stored measurements of run {header.get('replays')}.": bool(
            header.get("replays")
        ),
    }
    return [text for text, so in told.items() if so]


def _facts(header: Mapping[str, Json], records: Sequence[Record]) -> list[tuple[str, str]]:
    settings: Mapping[str, Json] = header.get("settings") or {}
    first = records[0] if records else None
    of = {name: settings.get(name, getattr(first, name, None)) for name in ("profile", "seed")}
    cells = {record.cell.id for record in records}
    said = {
        "judged": f"{len(records)} verdicts, {len({r.claim.id for r in records})} claims, "
        f"{len(cells)} cells and series",
        "profile": of["profile"],
        "seed": of["seed"],
        "precision": " on ".join(filter(None, (settings.get("dtype"), settings.get("device")))),
        "own prompts": ", ".join(settings.get("prompts") or ()),
    }
    return _there(said)


def _surroundings(header: Mapping[str, Json]) -> list[tuple[str, str]]:
    return _there(
        {
            **(header.get("versions") or {}),
            "Python": header.get("python"),
            "platform": header.get("platform"),
            "commit": str(header.get("commit") or "")[:12],
        }
    )


def _there(said: Mapping[str, Json]) -> list[tuple[str, str]]:
    return [(name, str(text)) for name, text in said.items() if text not in (None, "")]


def end(header: Mapping[str, Json]) -> list[str]:
    """What stands at the end: how a verdict is read, and what was asked for."""
    words = " ".join(str(word) for word in header.get("argv") or ())
    asked = [f"Asked for: pytest {words}"] if words else []
    version = (header.get("versions") or {}).get("mechtests")
    return [
        "A claim holds where the whole interval lies on the claimed side of the margin and the "
        "controls do not reach it; it is refuted where the whole interval lies on the other side. "
        "q is corrected over the claim's family, and decides nothing.",
        *asked,
        f"Written by mechtests{f' {version}' if version else ''} from the run's records.",
    ]
