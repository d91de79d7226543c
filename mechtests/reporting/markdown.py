"""A run as a short summary: of a GitHub step, a merge request, or a badge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mechtests.reporting import conclusions, sections
from mechtests.reporting.history import History, alike, changed, moved
from mechtests.reporting.matrix import Matrix
from mechtests.reporting.papers import PAPERS
from mechtests.reporting.place import Place
from mechtests.reporting.record import Record
from mechtests.reporting.wording import WORDS
from mechtests.verdict import Outcome

Json = Any
LIMIT = 200_000
"""Bytes; GitHub refuses a step summary above a megabyte, and nobody reads so much."""
MOST = 400
"""Characters of a sentence."""
WIDEST = 12
"""A matrix of more columns is one line a claim, with how many cells say what."""
ICONS = {"H": "✅", "U": "☑️", "R": "❌", "X": "➖", "I": "❔", "N": "⚪", "E": "💥"}
COLOURS = {"E": "purple", "R": "red", "H": "brightgreen", "U": "green", "I": "yellow"}
"""Of a badge, by the first kind there is: an inconclusive verdict makes none yellow that holds."""


def render(
    header: Mapping[str, Json],
    records: Sequence[Record],
    *,
    history: History | None = None,
    limit: int = LIMIT,
) -> str:
    """A summary in GitHub's Markdown, what changed first, then what is refuted.

    Args:
        header: What ``run.json`` says.
        records: Its records, corrected by family.
        history: What earlier runs or baselines said.
        limit: In bytes. What does not fit is counted.
    """
    past = history or {}
    matrix = Matrix.of(records)
    ordered = [
        r for name in dict.fromkeys(row.id for row in matrix.rows) for r in matrix.of_claim(name)
    ]
    parts = [
        _top(header, records),
        _listed("Changed", [r for r in ordered if changed(r, past)], _was(past), limit // 4),
        _listed("Errors", _those(ordered, past, Outcome.ERROR), _with(past), limit // 8),
        _listed("Refuted", _those(ordered, past, Outcome.REFUTED), _with(past), limit // 4),
        _matrix(matrix, limit // 4),
        _together(records, limit // 16),
        _end(header, records),
    ]
    return "\n".join(part for part in parts if part)


def badge(records: Sequence[Record], *, label: str = "claims") -> dict[str, Json]:
    """What shields.io's endpoint reads: how many decided verdicts hold, and the worst colour.

    A verdict is decided where it holds or is refuted; a refutation that the paper or a
    baseline expects is neither for nor against.
    """
    counts = Counter(sections.sign(record).kind for record in records)
    holds, refuted = counts["H"] + counts["U"], counts["R"]
    said = [f"{holds} of {holds + refuted} hold"]
    said += [f"{counts['E']} error{'s' if counts['E'] > 1 else ''}"] if counts["E"] else []
    worst = next((colour for kind, colour in COLOURS.items() if counts[kind]), "lightgrey")
    return {
        "schemaVersion": 1,
        "label": label,
        "message": ", ".join(said) if holds + refuted or counts["E"] else "none decided",
        "color": worst,
    }


def _top(header: Mapping[str, Json], records: Sequence[Record]) -> str:
    models = list(dict.fromkeys(r.cell.model for r in records if r.claim.over != "scale"))
    named = ", ".join(f"`{_code(model)}`" for model in models[:6])
    more = f" and {len(models) - 6} more" if len(models) > 6 else ""
    counts = " · ".join(
        f"{ICONS[sign.kind]} {count} {sign.meaning}" for sign, count in sections.counts(records)
    )
    settings: Mapping[str, Json] = header.get("settings") or {}
    at = [
        f"run {_text(str(header['run']))}" if header.get("run") else "",
        f"profile {_text(str(settings['profile']))}" if "profile" in settings else "",
        f"seed {settings['seed']}" if "seed" in settings else "",
        "**not finished**" if header.get("complete") is False else "",
    ]
    title = f"## mechtests: {named}{more}" if named else "## mechtests"
    return f"{title}\n\n{counts or 'no verdicts'}\n\n{', '.join(filter(None, at))}\n"


def _those(records: Sequence[Record], past: History, outcome: Outcome) -> list[Record]:
    """What has an outcome, was not expected to, and is not listed as changed."""
    return [r for r in records if r.outcome is outcome and not r.expected and not changed(r, past)]


def _listed(title: str, records: Sequence[Record], why: Callable[[Record], str], limit: int) -> str:
    """A list with a title, cut where it is too long, and then with how many are left out."""
    if not records:
        return ""
    lines, left = _cut((f"- {_head(record)}: {why(record)}" for record in records), limit)
    more = [f"- and {left} more, in the records"] if left else []
    return "\n".join([f"### {title} ({len(records)})", "", *lines, *more, ""])


def _together(records: Sequence[Record], limit: int) -> str:
    lines, _ = _cut((f"- {_text(each)}" for each in conclusions.sentences(records)), limit)
    return "\n".join([*lines, ""]) if lines else ""


def _cut(lines: Iterator[str], limit: int) -> tuple[list[str], int]:
    """The first lines that fit into so many bytes, and how many do not."""
    kept: list[str] = []
    used, left = 0, 0
    for line in lines:
        used += len(line.encode()) + 1
        if used <= limit and not left:
            kept.append(line)
        else:
            left += 1
    return kept, left


def _head(record: Record) -> str:
    icon = ICONS[sections.sign(record).kind]
    task = f" ({_text(record.claim.task)})" if record.claim.task else ""
    return f"{icon} **{_text(record.claim.id)}**{task} on `{_code(record.cell.id)}`"


def _why(record: Record) -> str:
    return _text(_short(record.verdict.sentence))


def _with(past: History) -> Callable[[Record], str]:
    """Why a verdict is what it is, and what was said of it before."""
    return lambda record: f"{_why(record)}{_trail(record, past)}"


def _trail(record: Record, past: History) -> str:
    """The verdicts before it in a line, oldest first; what is the same in a row once."""
    steps = []
    for each in alike(past.get(Place.of(record), ())):
        icon = ICONS[sections.SIGNS[WORDS[each[-1].outcome]].kind]
        day = each[0].date.partition(" ")[0]
        many = f" ×{len(each)} since {day}" if len(each) > 1 else f" {day or each[-1].label}"
        number = f" {each[-1].estimate}" if each[-1].estimate else ""
        steps.append(f"{icon} {_text(many + number)}")
    return f"<br>before: {', '.join(steps)}" if steps else ""


def _was(past: History) -> Callable[[Record], str]:
    """What a verdict was, is, and why."""

    def said(record: Record) -> str:
        earlier = past.get(Place.of(record), ())
        before = (
            f"was {earlier[-1].outcome} in {_text(earlier[-1].label)}"
            if moved(record, earlier)
            else f"{record.awaited} was expected ({_text(record.expectation or '')})"
        )
        return f"{before}, is **{record.outcome}**: {_why(record)}{_trail(record, past)}"

    return said


def _short(text: str) -> str:
    return text if len(text) <= MOST else text[: MOST - 1].rstrip() + "…"


def _matrix(matrix: Matrix, limit: int) -> str:
    """All verdicts as a table, folded; of many cells how many say what."""
    if not matrix.rows:
        return ""
    wide = len(matrix.cells) > WIDEST
    heads = ["cells"] if wide else [f"`{_code(cell.id)}`" for cell in matrix.cells]
    rows = []
    for row in matrix.rows:
        found = [matrix.at.get((row, cell.id)) for cell in matrix.cells]
        cells = [_counted(found)] if wide else [_sign(record) for record in found]
        task = f" ({_text(row.task or '')})" if matrix.several_tasks(row.id) else ""
        rows.append(f"| {_text(row.id)}{task} | {' | '.join(cells)} |")
    lines, left = _cut(iter(rows), limit)
    top = [f"| claim | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    more = [f"\nand {left} more claims, in the records"] if left else []
    title = f"<details><summary>All {len(matrix.rows)} claims by cells</summary>"
    return "\n".join([title, "", *top, *lines, *more, "", "</details>", ""])


def _sign(record: Record | None) -> str:
    if record is None:
        return ""
    sign = sections.sign(record)
    return f"{ICONS[sign.kind]} {sign.meaning}"


def _counted(found: Sequence[Record | None]) -> str:
    there = [record for record in found if record is not None]
    return ", ".join(f"{ICONS[s.kind]} {n} {s.meaning}" for s, n in sections.counts(there))


def _end(header: Mapping[str, Json], records: Sequence[Record]) -> str:
    cited = [
        PAPERS[key].citation
        for key in dict.fromkeys(r.claim.paper for r in records)
        if key in PAPERS
    ]
    versions: Mapping[str, Json] = header.get("versions") or {}
    made = ", ".join(f"{_text(n)} {_text(str(v))}" for n, v in versions.items() if v)
    lines = [f"Papers judged: {' '.join(cited)}"] if cited else []
    return "\n\n".join([*lines, *([f"<sub>{made}</sub>"] if made else [])]) + "\n"


def _text(text: str) -> str:
    """Text of others as Markdown shows it: no markup of its own, and in one line."""
    line = " ".join(text.split())
    for sign in "\\`*_{}[]<>|#!~$@":
        line = line.replace(sign, f"&#{ord(sign)};" if sign in "<>|@" else f"\\{sign}")
    return line


def _code(text: str) -> str:
    """A name between backticks."""
    return " ".join(text.replace("`", "'").replace("|", "¦").split())
