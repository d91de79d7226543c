"""What several verdicts on one cell say together, where one alone says too little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mechtests.reporting import wording
from mechtests.reporting.record import Record
from mechtests.verdict import Outcome

BAG = tuple(
    f"nikankin2025.{name}"
    for name in ("heuristics-classified", "knockout-beats-random", "neurons-sparse")
)
"""Digit-wise adders and Fourier neurons match heuristics too, so that no claim alone tells a bag
of heuristics from an algorithm; of networks written by hand that add digit by digit, by Fourier
features or by a table, each fails one of these."""


def sentences(records: Sequence[Record]) -> list[str]:
    """What the records say together, a sentence for each cell in which all parts were decided."""
    by_cell: dict[str, dict[str, Record]] = {}
    for record in records:
        if record.claim.id in BAG:
            by_cell.setdefault(record.cell.id, {})[record.claim.id] = record
    return [_bag(cell, found) for cell, found in by_cell.items() if _judged(found)]


def _judged(found: Mapping[str, Record]) -> bool:
    bare = (Outcome.NOT_APPLICABLE, Outcome.ERROR)
    return len(found) == len(BAG) and all(each.outcome not in bare for each in found.values())


def _bag(cell: str, found: Mapping[str, Record]) -> str:
    short = [name.partition(".")[2] for name in BAG]
    missing = [
        f"{name.partition('.')[2]} {_said(found[name])}" for name in BAG if not _holds(found[name])
    ]
    if missing:
        return f"{cell}: not shown to be a bag of heuristics: {', '.join(missing)}"
    return f"{cell}: consistent with a bag of heuristics: {', '.join(short)} hold"


def _holds(record: Record) -> bool:
    return record.outcome is Outcome.HOLDS and not record.not_after_correction


def _said(record: Record) -> str:
    if record.not_after_correction:
        return wording.UNCORRECTED.meaning
    return f"is {record.outcome}"
