"""A verdict on a page, from its record to what the template is filled with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mechtests.reporting import pictures, plots, sections, wording
from mechtests.reporting.history import Past
from mechtests.reporting.record import Record
from mechtests.reporting.svg import Scale
from mechtests.verdict import Outcome

if TYPE_CHECKING:
    from markupsafe import Markup

Json = Any
WHOLE, DRAWN, TOLD, BRIEF = 3, 2, 1, 0
"""How much is said of a verdict: all; nothing from the store; no pictures; the sentence alone."""


@dataclass(frozen=True)
class Shown:
    """A record, and what is found for it once, whatever is said of it.

    Attributes:
        index: Its place on the page.
        record: Corrected by family.
        open: Whether it is open at once.
        changed: Whether it is another than before.
        several: Whether its claim is judged on several tasks.
        family: How many verdicts its family has.
        scale: Of its strip; None where there is nothing to draw.
        entries: Its maps and its worst prompts (``evidence.of``).
    """

    index: int
    record: Record
    open: bool
    changed: bool
    several: bool
    family: int
    scale: Scale | None
    entries: Mapping[str, Json]


def view(
    shown: Shown, level: int, past: Sequence[Past], share: Callable[[str], str]
) -> dict[str, Json]:
    """What the template of a record is filled with.

    Args:
        shown: The record.
        level: How much is said of it.
        past: What was said of it before.
        share: From a drawing to what shows it, which may refer to one that is kept once.
    """
    record, verdict = shown.record, shown.record.verdict
    view: dict[str, Json] = {
        "index": shown.index,
        "level": level,
        "open": shown.open,
        "changed": shown.changed,
        "several": shown.several,
        "sign": sections.sign(record),
        "cell": record.cell.id,
        "model": record.cell.model,
        "task": record.claim.task or "",
        "sentence": verdict.sentence if level == BRIEF else sections.sentence(verdict),
        "brief": verdict.sentence,
        "estimate": wording.estimate(verdict),
        "strip": safe(plots.strip(verdict, shown.scale) if shown.scale else ""),
        "reproduce": record.reproduce,
    }
    if level >= TOLD:
        view |= {
            "numbers": sections.numbers(record, shown.family),
            "notes": sections.notes(record, past),
            "before": sections.before(record, past),
            "interval": safe(plots.interval(verdict) if shown.scale else ""),
            "parts": _marked(sections.parts(verdict), "strip"),
            "strips": any(plots.drawn(part) for part in verdict.parts),
            "controls": _marked(sections.controls(verdict), "draws"),
            "source": _source(record),
        }
    if level >= DRAWN:
        view["beside"] = sections.beside(verdict)
        drawn = list(sections.drawings(verdict, past))
        view["pictures"] = [picture for picture in drawn if picture.kind != "map"]
        view["maps"] = [picture for picture in drawn if picture.kind == "map"] or (
            _stored_maps(shown, share) if level >= WHOLE else []
        )
        view["maps_open"] = record.outcome is not Outcome.NOT_APPLICABLE
        stored = shown.entries.get("prompts") if level >= WHOLE else None
        view["prompts"] = _table(stored or verdict.shown.get("prompts"))
    return view


def _stored_maps(shown: Shown, share: Callable[[str], str]) -> list[sections.Picture]:
    drawn = sections.of_maps(shown.entries.get("maps", ()))
    return [replace(picture, svg=share(picture.svg)) for picture in drawn]


def safe(text: str) -> Markup:
    """Text of ours: drawings escape what they are given, style and script are our files."""
    from markupsafe import Markup

    return Markup(text)


def _marked(trees: list[dict[str, Json]], drawing: str) -> list[dict[str, Json]]:
    return [{**tree, drawing: safe(tree[drawing])} for tree in trees]


def _table(entry: Mapping[str, Json] | None) -> dict[str, Json] | None:
    """The worst prompts, ready to be laid out; None where there is no such table."""
    if not isinstance(entry, Mapping) or not {"what", "of", "columns", "rows"} <= entry.keys():
        return None
    try:
        rows = [
            {
                "name": row.get("text") or f"prompt {row['prompt']}, cluster {row['cluster']}",
                "said": [sections.said(value) for value in row["values"]],
            }
            for row in entry["rows"]
        ]
        return {**entry, "rows": rows, "svg": safe(pictures.values_of(entry))}
    except (AttributeError, LookupError, TypeError, ValueError):
        return None  # what a claim shows in another shape spoils nothing


def _source(record: Record) -> str:
    """What was measured, for who must find it again."""
    cell, count = record.cell, len(record.measurements)
    said = [
        f"weights {cell.weights[:12]}" if cell.weights else "",
        cell.dtype,
        cell.device,
        f"profile {record.profile}",
        f"seed {record.seed}",
        f"{count} measurement{'' if count == 1 else 's'}",
        f"judged in {record.seconds:g} s",
    ]
    return " · ".join(filter(None, said))
