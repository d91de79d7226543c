"""A run as one HTML file: no request leaves it, and it reads without its script."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from mechtests.reporting import evidence, masthead, sections, wording
from mechtests.reporting.entries import BRIEF, DRAWN, TOLD, WHOLE, Shown, safe, view
from mechtests.reporting.history import History, changed
from mechtests.reporting.matrix import Matrix, Row
from mechtests.reporting.papers import PAPERS, place_in
from mechtests.reporting.place import Place
from mechtests.reporting.record import Record, RecordedCell
from mechtests.reporting.records import in_a_family
from mechtests.reporting.svg import element
from mechtests.store import Store

if TYPE_CHECKING:
    from jinja2 import Environment

Json = Any
Kept = Mapping[Place, Sequence[Json]]
LIMIT = 6_000_000
"""Bytes; where all does not fit, what matters least is said more briefly."""
LEFT_OUT = {
    DRAWN: "without what the store has of their heads and prompts",
    TOLD: "without pictures and what decides nothing",
    BRIEF: "by their sentence alone",
}
ROOM = 2000
"""Bytes left for what the footer then says."""
DENSE = 9
"""So many columns and more have a symbol each, whose word is read aloud and shown when opened."""
FEW = 12
"""Of so few verdicts those that need reading are open at once."""
SHARED = 1500
"""Drawings of the store this long are kept once, however many verdicts show them."""


def render(
    header: Mapping[str, Json],
    records: Sequence[Record],
    *,
    store: Store | None = None,
    texts: evidence.Texts | None = None,
    history: History | None = None,
    kept: Kept | None = None,
    limit: int = LIMIT,
) -> str:
    """The page of a run.

    Args:
        header: What ``run.json`` says.
        records: Its records, corrected by family (``records.correct``).
        store: Where its measurements are: for head maps, and what was measured of a prompt.
        texts: The prompts as text, by their digest.
        history: What earlier runs or baselines said.
        kept: The samples behind its estimates (``samples.lines``): for the worst prompts.
        limit: In bytes. A page of more verdicts than fit even briefly is larger.
    """
    page = _Page(header, records, store, texts, history or {}, kept or {})
    return page.text(page.levels(limit))


class _Page:
    """The parts of a page, each made once."""

    def __init__(
        self,
        header: Mapping[str, Json],
        records: Sequence[Record],
        store: Store | None,
        texts: evidence.Texts | None,
        history: History,
        kept: Kept,
    ) -> None:
        self.header = header
        self.matrix = Matrix.of(records)
        self.history = history
        self.families = Counter(r.claim.family for r in records if in_a_family(r))
        self.claims = list(dict.fromkeys(row.id for row in self.matrix.rows))
        self.anchors = _anchors(self.claims, "c")
        self.records: list[Shown] = []
        self.index: dict[int, int] = {}
        self.figures: dict[str, str] = {}
        self._made: dict[tuple[int, int], str] = {}
        few = len(records) <= FEW
        for claim in self.claims:
            mine = self.matrix.of_claim(claim)
            scales = sections.scales(mine)
            for record in mine:
                other = changed(record, history)
                self.index[id(record)] = len(self.records)
                self.records.append(
                    Shown(
                        len(self.records),
                        record,
                        few and (other or sections.sign(record).kind in "RE"),
                        other,
                        self.matrix.several_tasks(claim),
                        self.families.get(record.claim.family, 1),
                        scales.get(id(record)),
                        evidence.of(record, store, texts, kept.get(Place.of(record), ())),
                    )
                )

    def levels(self, limit: int) -> dict[int, int]:
        """How much is said of each record so that the page fits, what matters least first."""
        levels = dict.fromkeys(range(len(self.records)), WHOLE)
        size = len(self.text(levels).encode())
        order = sorted(levels, key=self._weight)
        for level in (DRAWN, TOLD, BRIEF):
            for at in order:
                if size <= limit - ROOM:
                    return levels
                size -= self._size(at, levels[at]) - self._size(at, level)
                levels[at] = level
        return levels

    def _size(self, at: int, level: int) -> int:
        return len(self._record(at, level).encode())

    def _weight(self, at: int) -> tuple[bool, int]:
        shown = self.records[at]
        return shown.changed, sections.IMPORTANCE.index(sections.sign(shown.record).kind)

    def text(self, levels: Mapping[int, int]) -> str:
        """The page with so much said of each record."""
        told = {at: self._record(at, level) for at, level in levels.items()}
        body = "".join(told.values())
        shared = set(re.findall(r'href="#(f\d+)"', body))
        figures = "".join(svg for svg in self.figures.values() if _named(svg) in shared)
        whole = [shown.record for shown in self.records]
        text: str = (
            _templates()
            .get_template("report.html")
            .render(
                **masthead.title(self.header, whole),
                css=safe(_file("report.css")),
                js=safe(_file("report.js")),
                counts=sections.counts(whole),
                papers=list(dict.fromkeys(row.paper for row in self.matrix.rows)),
                tasks=sorted({record.claim.task for record in whole if record.claim.task}),
                models=list(dict.fromkeys(cell.model for cell in self.matrix.cells)),
                groups=(groups := _groups(self.matrix.cells)),
                several=any(len(group["cells"]) > 1 for group in groups),
                columns=len(self.matrix.cells),
                dense=len(self.matrix.cells) >= DENSE,
                matrix=self._matrix(),
                sections=self._sections(told),
                shared=safe(_hidden(figures)),
                footer=[*_footer(levels), *masthead.end(self.header)],
            )
        )
        return text

    def _matrix(self) -> list[dict[str, Json]]:
        papers: dict[str, list[dict[str, Json]]] = {}
        for row in self.matrix.rows:
            papers.setdefault(row.paper, []).append(self._row(row))
        return [{"key": paper, "rows": rows} for paper, rows in papers.items()]

    def _row(self, row: Row) -> dict[str, Json]:
        found = [self.matrix.at.get((row, cell.id)) for cell in self.matrix.cells]
        return {
            "name": row.id.partition(".")[2],
            "task": row.task or "",
            "several": self.matrix.several_tasks(row.id),
            "anchor": self.anchors[row.id],
            "search": row.id.lower(),
            "places": [None if record is None else self._place(record) for record in found],
        }

    def _place(self, record: Record) -> dict[str, Json]:
        sign = sections.sign(record)
        told = wording.estimate(record.verdict)
        title = f"{record.cell.id}: {sign.meaning}{f', {told}' if told else ''}"
        index = self.index[id(record)]
        return {"sign": sign, "index": index, "model": record.cell.model, "title": title}

    def _sections(self, told: Mapping[int, str]) -> list[dict[str, Json]]:
        papers: dict[str, list[dict[str, Json]]] = {}
        for id_ in self.claims:
            mine = self.matrix.of_claim(id_)
            rows = "".join(told[self.index[id(record)]] for record in mine)
            claim = mine[0].claim
            tasks = sorted({record.claim.task for record in mine if record.claim.task})
            words = [id_, claim.says, claim.rule, *tasks, *claim.components]
            papers.setdefault(claim.paper, []).append(
                {
                    "anchor": self.anchors[id_],
                    "name": id_.partition(".")[2],
                    "about": ", ".join(filter(None, (f"over {claim.over}", *tasks))),
                    "cited": _cited(claim.paper, claim.section),
                    "says": claim.says,
                    "rule": claim.rule,
                    "version": claim.version,
                    "controls": claim.controls,
                    "search": " ".join(words).lower(),
                    "records": safe(rows),
                }
            )
        anchors = _anchors(papers, "p")
        return [
            {"key": key, "anchor": anchors[key], "paper": PAPERS.get(key), "claims": claims}
            for key, claims in papers.items()
        ]

    def _record(self, at: int, level: int) -> str:
        if (at, level) not in self._made:
            shown = self.records[at]
            past = self.history.get(Place.of(shown.record), ())
            filled = view(shown, level, past, self._shared)
            self._made[at, level] = _templates().get_template("record.html").render(filled)
        return self._made[at, level]

    def _shared(self, svg: str) -> str:
        """A drawing, or a reference to it where it is long and can be shown by several."""
        if len(svg) < SHARED:
            return svg
        opening, inside = re.match(r"(<svg[^>]*>)(.*)</svg>$", svg, re.DOTALL).groups()  # type: ignore[union-attr]
        if inside not in self.figures:
            name = f"f{len(self.figures)}"
            self.figures[inside] = element("g", inside, id=name)
        name = _named(self.figures[inside])
        return f'{opening}<use href="#{name}"/></svg>'


def _named(figure: str) -> str:
    return figure[7 : figure.index('"', 7)]


def _hidden(figures: str) -> str:
    """Drawings that verdicts refer to, where they take no room and nothing reads them."""
    if not figures:
        return ""
    return f'<svg width="0" height="0" aria-hidden="true" class="defs"><defs>{figures}</defs></svg>'


@cache
def _templates() -> Environment:
    from jinja2 import DictLoader, Environment

    named = {name: _file(name) for name in ("report.html", "record.html")}
    return Environment(loader=DictLoader(named), autoescape=True)


@cache
def _file(name: str) -> str:
    return files("mechtests.reporting").joinpath("template", name).read_text("utf-8")


def _anchors(names: Iterable[str], prefix: str) -> dict[str, str]:
    """An element's id for each name, told apart where only other signs do."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        plain = f"{prefix}-{re.sub(r'[^a-zA-Z0-9_.-]+', '-', name)}"
        again = sum(
            re.fullmatch(rf"{re.escape(plain)}(--\d+)?", each) is not None
            for each in found.values()
        )
        found[name] = f"{plain}--{again}" if again else plain
    return found


def _cited(paper: str, section: str) -> str:
    if paper == "sanity":
        return "What must hold"
    return ", ".join(filter(None, ("The paper says", place_in(section))))


def _groups(cells: Sequence[RecordedCell]) -> list[dict[str, Json]]:
    """Models beside each other, each with the headings of its cells."""
    models: dict[str, list[str]] = {}
    for cell in cells:
        rest = cell.id.removeprefix(cell.model).lstrip(":") or "series"
        models.setdefault(cell.model, []).append(rest)
    return [{"model": model, "cells": heads} for model, heads in models.items()]


def _footer(levels: Mapping[int, int]) -> list[str]:
    """What was left out to keep the page small."""
    counted = Counter(levels.values())
    return [
        f"{counted[level]:,} verdicts are shown {how}, to keep this page small; "
        "all of it is in records.jsonl."
        for level, how in LEFT_OUT.items()
        if counted[level]
    ]
