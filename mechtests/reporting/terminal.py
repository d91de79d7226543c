"""What a run says in the terminal: the matrix, the reasons, the families, the totals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from mechtests.reporting import conclusions, curves, heads, wording
from mechtests.reporting import matrix as matrices
from mechtests.reporting.json_values import Json
from mechtests.reporting.matrix import Matrix
from mechtests.reporting.page import LABEL, Page
from mechtests.reporting.papers import place_in
from mechtests.reporting.record import Record
from mechtests.reporting.records import in_a_family
from mechtests.verdict import Control, Outcome

IN_FULL = (Outcome.REFUTED, Outcome.INCONCLUSIVE, Outcome.ERROR)
IN_A_REASON = {
    wording.EXPECTED: "EXPECTED REFUTED",
    wording.EXPECTED_OPEN: "EXPECTED INCONCLUSIVE",
    **{
        each: f"CHANGED TO {wording.WORDS[outcome].word}"
        for outcome, each in wording.CHANGED.items()
    },
    wording.UNCORRECTED: "HOLDS, NOT AFTER CORRECTION",
}
PLURALS = {"holds": "hold", "error": "errors"}
COUNTED = (
    "holds", "refuted", wording.EXPECTED.meaning, "inconclusive", wording.EXPECTED_OPEN.meaning,
    "not applicable", "error",
)  # fmt: skip


def render(
    records: Sequence[Record],
    *,
    width: int = 80,
    color: bool = False,
    ascii: bool = False,
    verbosity: int = 0,
    path: Path | None = None,
) -> str:
    """What a run's records say, as text of a fixed width.

    Only commands and paths are ever wider than ``width``: broken lines cannot be pasted.

    Args:
        records: The records, corrected by family (``records.correct``).
        width: In characters.
        color: Whether the text has ANSI colours.
        ascii: Whether it must do with ASCII.
        verbosity: pytest's: 0 all; -1 (``-q``) the matrix and the totals; -2 the totals;
            1 (``-v``) every verdict in full, with rules and what decides nothing.
        path: Where the records are kept, if they are.
    """
    page = Page(width, color, ascii)
    if records and verbosity > -2:
        matrix = Matrix.of(records)
        _matrix(page, matrix)
        if verbosity > -1:
            _reasons(page, matrix, full=verbosity > 0)
            _not_applicable(page, matrix)
            _families(page, records)
            _together(page, records)
    _totals(page, records, path)
    return page.text


def _matrix(page: Page, matrix: Matrix) -> None:
    tables, legend = matrices.tables(matrix, page.width, rule="-" if page.ascii else "─")
    for table in tables:
        page.table(table)
        page.say("")
    if legend:
        page.say(legend)
        page.say("")


def _reasons(page: Page, matrix: Matrix, *, full: bool) -> None:
    for name in dict.fromkeys(row.id for row in matrix.rows):
        records = matrix.of_claim(name)
        spoken = [record for record in records if _is_spoken(record)]
        if not spoken:
            continue
        claim = records[0].claim
        place = place_in(claim.section)
        page.say(f", {place}" if place else "", head=name, style="bold")
        page.say(claim.says, at=2)
        if full and claim.rule:
            page.say(claim.rule, head="Rule: ", style="dim", at=2)
        for record in spoken:
            _reason(page, record, _where(matrix, record), full)
        page.say("")


def _is_spoken(record: Record) -> bool:
    return record.outcome is not Outcome.NOT_APPLICABLE or record.changed


def _where(matrix: Matrix, record: Record) -> str:
    several = matrix.several_tasks(record.claim.id)
    return record.cell.id + (f" ({record.claim.task})" if several else "")


def _not_applicable(page: Page, matrix: Matrix) -> None:
    """What does not apply, each reason once with all the claims it keeps from being judged."""
    reasons: dict[str, dict[str, None]] = {}
    for name in dict.fromkeys(row.id for row in matrix.rows):
        for record in matrix.of_claim(name):
            if not _is_spoken(record):
                task = f" ({record.claim.task})" if matrix.several_tasks(name) else ""
                reasons.setdefault(record.verdict.sentence, {})[name + task] = None
    if reasons:
        page.say("", head="Not applicable", style="bold")
        for sentence, names in reasons.items():
            page.say(f"{sentence}: {', '.join(names)}", at=2, then=4)
        page.say("")


def _reason(page: Page, record: Record, where: str, full: bool) -> None:
    word = wording.word(record)
    head = f"{IN_A_REASON.get(word, word.word)}  {where}"
    in_full = record.outcome in IN_FULL or record.not_after_correction or record.changed
    if not (full or in_full):
        page.say(f": {record.verdict.sentence}", head=head, style=word.style, at=2, then=4)
        _drawn(page, record)
        return
    page.say("", head=head, style=word.style, at=2)
    page.say(record.verdict.sentence, at=4)
    _numbers(page, record)
    _drawn(page, record)
    unsaid = [part for part in record.verdict.parts if part.sentence not in record.verdict.sentence]
    for part in record.verdict.parts if full else unsaid:
        page.label("part", f"{wording.WORDS[part.outcome].word}: {part.sentence}")
    for control in record.verdict.controls:
        page.label("control", _control(control))
    _beside(page, record, full)
    page.unbroken(record.reproduce, head="reproduce".ljust(LABEL), at=4)


def _numbers(page: Page, record: Record) -> None:
    """The numbers the sentence does not say."""
    verdict = record.verdict
    size = f"{verdict.prompts:,} prompts in {verdict.clusters:,} clusters"
    if verdict.estimate is not None and size.replace(",", "") not in verdict.sentence:
        said = [wording.estimate(verdict), wording.margin(verdict), size if verdict.prompts else ""]
        page.label("estimate", ", ".join(filter(None, said)))
    if verdict.needed and "would decide" not in verdict.sentence:
        page.label("needed", f"about {verdict.needed:,} prompts would decide")
    if verdict.p is not None:
        corrected = record.q is not None and record.q != verdict.p
        q = f", q {wording.probability(record.q or 0.0)} in its family" if corrected else ""
        page.label("p", wording.probability(verdict.p) + q)


def _drawn(page: Page, record: Record) -> None:
    """What was followed over training: one strip a curve, and one a head of each role."""
    for curve in record.verdict.shown.get("curves", ()):
        for index, line in enumerate(curves.lines(curve, ascii=page.ascii)):
            page.label("" if index else "curve", line)
    for entry in record.verdict.shown.get("heads", ()):
        page.picture("heads", heads.lines(entry, ascii=page.ascii, width=page.room))


def _control(control: Control) -> str:
    named = control.sentence.startswith(control.name)
    text = control.sentence if named else f"{control.name}: {control.sentence}"
    reached = "; it reaches the claim" if control.reached and "reach" not in text else ""
    return text + reached + ("" if control.decides else " (shown, does not decide)")


def _beside(page: Page, record: Record, full: bool) -> None:
    if record.expectation is not None:
        page.label("expected", f"{record.awaited}: {record.expectation}")
    if record.overridden:
        page.label("note", "a setting from outside changed the claim's own rule")
    for note in record.notes:
        page.label("note", note)
    if full:
        for name, value in record.verdict.shown.items():
            if name in ("curves", "heads"):
                continue
            page.label("shown", f"{name.replace('_', ' ')}: {_value(value)}")


def _value(value: Json) -> str:
    """A value that decides nothing, briefly."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        more = f", and {len(value) - 8} more" if len(value) > 8 else ""
        return f"[{', '.join(map(_value, value[:8]))}{more}]"
    numeric = isinstance(value, float | int) and not isinstance(value, bool)
    return wording.number(value) if numeric else str(value)


def _families(page: Page, records: Sequence[Record]) -> None:
    families: dict[str, list[Record]] = {}
    for record in filter(in_a_family, records):
        families.setdefault(record.claim.family, []).append(record)
    larger = {name: members for name, members in sorted(families.items()) if len(members) > 1}
    if larger:
        page.say("", head="Families, corrected together (Benjamini-Hochberg)", style="bold")
        for name, members in larger.items():
            page.say(f"  {_family(members)}", head=name.ljust(max(map(len, larger))), at=2, then=4)
    if alone := len(families) - len(larger):
        others = f"{alone} families of one verdict" if alone > 1 else "1 family of one verdict"
        page.say(f"{others}: nothing to correct, q is p", at=2 if larger else 0)
    if families:
        page.say("")


def _family(members: Sequence[Record]) -> str:
    counts = Counter(wording.WORDS[record.outcome].meaning for record in members)
    said = ", ".join(
        f"{word.meaning} {counts[word.meaning]}"
        for word in wording.WORDS.values()
        if counts[word.meaning]
    )
    qs = [record.q for record in members if record.q is not None]
    ends = dict.fromkeys((wording.probability(min(qs)), wording.probability(max(qs))))
    uncorrected = sum(record.not_after_correction for record in members)
    after = f"; {uncorrected} of the holds not after correction" if uncorrected else ""
    return f"{said} (q {' to '.join(ends)}){after}"


def _together(page: Page, records: Sequence[Record]) -> None:
    said = conclusions.sentences(records)
    for sentence in said:
        page.say(sentence)
    if said:
        page.say("")


def _totals(page: Page, records: Sequence[Record], path: Path | None) -> None:
    counts = Counter(_counted(record) for record in records)
    said = ", ".join(
        f"{counts[word]} {word if counts[word] == 1 else PLURALS.get(word, word)}"
        for word in COUNTED
        if counts[word]
    )
    verdicts = "1 verdict" if len(records) == 1 else f"{len(records)} verdicts"
    if changed := sum(record.changed for record in records):
        said += f"; {changed} changed"
    page.say(f"{verdicts}: {said}" if said else "no verdicts", then=2)
    if path is not None:
        page.unbroken(str(path), head="records: ")


def _counted(record: Record) -> str:
    word = wording.word(record)
    as_expected = word in (wording.EXPECTED, wording.EXPECTED_OPEN)
    return word.meaning if as_expected else wording.WORDS[record.outcome].meaning
