"""mechtests.reporting.html: one page, whole, safe, small and the same each time."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from mechtests.measurement import Measurement
from mechtests.reporting import heads, history, html
from mechtests.reporting.records import correct
from mechtests.store import Store
from tests.many_records import (
    CURVE,
    HEADER,
    HEADS,
    HOLDS,
    INCONCLUSIVE,
    NOT_APPLICABLE,
    REFUTED,
    many,
    one_of_each,
    record_of,
)

VOID = {"meta", "link", "input", "br"}
LOADS = {"src", "srcset", "data", "poster", "action", "formaction", "background", "xlink:href"}


class Page(HTMLParser):
    """The elements of a page; refuses one whose tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag} has an attribute twice: {names}"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data):
        if self.open[-1:] not in (["script"], ["style"]):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [
            have
            for name, have in self.elements
            if name == tag and all(have.get(k) == v for k, v in wanted.items())
        ]


@pytest.fixture(scope="module")
def each() -> str:
    return html.render(HEADER, one_of_each())


@pytest.fixture(scope="module")
def largest() -> str:
    return html.render(HEADER, correct(many()))


def test_a_page_of_every_kind_of_verdict_is_well_formed_and_has_each_word(each):
    text = Page(each).text
    for word in ("HOLDS", "HOLDS*", "REFUTED", "EXPECTED", "INCONCLUSIVE", "N/A", "ERROR"):
        assert word in text
    for mark in "✓✕⊗?–!":
        assert mark in text


def test_html5_itself_has_nothing_to_mend(each):
    html5lib = pytest.importorskip("html5lib", reason="html5lib is not installed")
    parser = html5lib.HTMLParser(strict=False, namespaceHTMLElements=False)
    parser.parse(each)
    assert [code for _, code, _ in parser.errors] == []


def test_ids_are_there_once_and_every_link_inside_the_page_leads_somewhere(each):
    page = Page(each)
    ids = Counter(have["id"] for _, have in page.elements if "id" in have)
    assert set(ids.values()) == {1}
    inside = {have["href"][1:] for _, have in page.elements if have.get("href", "")[:1] == "#"}
    labels = {have["aria-labelledby"] for _, have in page.elements if "aria-labelledby" in have}
    assert inside | labels <= ids.keys()


def test_every_record_is_linked_from_the_matrix_once(each):
    page = Page(each)
    links = [have["href"] for have in page.all("a") if re.match(r"#r\d+$", have["href"])]
    assert sorted(links) == sorted(f"#r{n}" for n in range(len(one_of_each())))


def test_the_words_of_paper_rule_controls_and_the_command_are_there(each):
    text = Page(each).text
    record = one_of_each()[1]
    for said in (
        record.claim.says,
        record.claim.rule,
        *record.claim.controls,
        record.reproduce,
        "The paper says, section 3.2",
        "a refutation is expected: the paper says so",
        "holds by itself, and not after its family is corrected",
        "a setting from outside changed the claim's own rule",
        "out of memory: batches of at most 4 prompts",
        "about 1,340 prompts",
        "reaches the claim",
        "-0.31 [-0.55, -0.07] logits",
        "When Mary and John",
        "LLM Circuit Analyses Are Consistent Across Training and Scale",
        "@inproceedings{tigges2024,",
        "1.0 −0.7",
        "torch 2.13.0".partition(" ")[2],
        "20260101-120000-000000",
        "62 min",
    ):
        assert said in text, said
    assert "mine2030" in text  # a paper nobody can cite still has its section


def test_every_kind_of_evidence_is_drawn(each):
    page = Page(each)
    labels = [have.get("aria-label", "") for have in page.all("svg", role="img")]
    for said in (
        "the claimed side is shaded",
        "19 draws of matched random heads",
        "ioi: logit difference over 20 checkpoints",
        "copy score (name movers) of 3 heads",
        "scores: induction, by layer and head",
        "a circuit: its 5 strongest edges",
        "3 prompts",
    ):
        assert any(said in label for label in labels), said
    drawn = page.all("svg")
    assert all("aria-label" in have or have.get("aria-hidden") == "true" for have in drawn)


def test_colour_is_never_alone(each):
    page = Page(each)
    cells = [have for have in page.all("td") if have.get("class") in tuple("HURXINE")]
    assert len(cells) == len(one_of_each())
    words = re.findall(
        r'<td class="[A-Z]"[^>]*><a [^>]*><i aria-hidden="true">(.+?)</i><b>(.+?)</b></a></td>',
        each,
    )
    assert len(words) == len(cells)
    assert len({mark for mark, _ in words}) == len({word for _, word in words}) == 7


@pytest.mark.parametrize("records", ["each", "largest"])
def test_nothing_is_loaded_from_anywhere(records, request):
    text = request.getfixturevalue(records)
    page = Page(text)
    for tag, have in page.elements:
        assert tag not in ("iframe", "object", "embed", "img", "base")
        assert not LOADS & have.keys(), (tag, have)
        if tag == "link":
            assert have["href"] == "data:,"
        if "http" in have.get("href", ""):
            assert tag == "a"
            assert have["href"].startswith("https://arxiv.org/abs/")
        assert not any(name.startswith("on") for name in have), have
    css, js = html._file("report.css"), html._file("report.js")
    assert "url(" not in css
    assert "@import" not in css
    assert not re.search(r"fetch\(|XMLHttp|import\(|WebSocket|http", js)
    [policy] = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'")


def test_what_others_wrote_is_text_and_no_markup():
    evil = "\"'><script>alert(1)</script><img src=x onerror=alert(1)> {{ 7*7 }} &amp;"
    part = replace(HOLDS, sentence=f"part {evil}", unit=evil, shown={})
    shown = {
        "curves": [{**CURVE, "what": evil, "onset": evil, "labels": [evil] * 20}],
        "heads": [{**HEADS, "what": evil, "heads": [{**HEADS["heads"][0], "head": evil}]}],
        "maps": [{"what": evil, "unit": evil, "rows": evil, "columns": evil, "values": [[1.0]],
                  "row_labels": [evil], "column_labels": [evil], "note": evil}],
        "prompts": {"what": evil, "unit": evil, "of": 1, "columns": [evil], "values": [],
                    "rows": [{"prompt": 1, "text": evil, "cluster": 1, "values": [evil]}]},
        "circuit": ["input->m0", f"m0->{evil}"],
        evil: {evil: 1.0, "b": 2.0},
        "more": [evil, evil],
    }  # fmt: skip
    shown["heads"][0]["takeovers"] = []
    controls = tuple(
        replace(control, name=evil, sentence=f"{evil}: {evil}") for control in HOLDS.controls
    )
    verdict = replace(
        HOLDS, sentence=evil, shown=shown, controls=controls, parts=(part,), unit=evil
    )
    record = record_of(
        verdict, f"p{evil}.q{evil}", f"model{evil}", task=evil, says=evil, reproduce=evil,
        expectation=evil, facts={"x": {"notes": [evil]}},
    )  # fmt: skip
    header = {**HEADER, "run": evil, "argv": [evil], "versions": {evil: evil}, "platform": evil}
    past = history.of([(evil, [record, record])])
    twin = replace(record, claim=replace(record.claim, id=record.claim.id.replace(">", "<")))
    text = html.render(header, [record, twin, record_of(HOLDS)], history=past)
    page = Page(text)
    ids = Counter(have["id"] for _, have in page.elements if "id" in have)
    assert set(ids.values()) == {1}
    assert all(re.fullmatch(r"[\w.-]+", name, re.ASCII) for name in ids)
    assert len(page.all("script")) == 1
    assert not page.all("img")
    assert "49" not in page.text.split()
    assert page.text.count("<script>alert(1)</script>") > 15
    assert not any(name.startswith("on") for _, have in page.elements for name in have)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "shown",
    [
        {"curves": "none", "heads": None, "maps": 3, "prompts": "none", "circuit": [1, "a->b"]},
        {"curves": [{}], "heads": [{}], "maps": [{}], "prompts": {}},
        {"prompts": {"what": "m", "of": 1, "columns": [], "rows": [3]}},
        {"prompts": {"what": "m", "of": 1, "columns": [], "rows": [{"prompt": "x"}], "digest": 3}},
        {"curves": [{**CURVE, "tokens": [1]}], "heads": [{**HEADS, "heads": [{"head": "1.1"}]}]},
        {"maps": [{"what": "m", "rows": "layer", "columns": "head", "values": [["a"]]}]},
        {"curves": [{**CURVE, "side": ["sideways"] * 20, "mean": ["a"] * 20}]},
    ],
)
def test_what_a_claim_shows_in_another_shape_is_said_and_spoils_nothing(shown):
    page = Page(html.render(HEADER, [record_of(replace(HOLDS, shown=shown))]))
    drawable = [v for v in shown.values() if isinstance(v, list) and isinstance(v[0], dict)]
    assert page.text.count("cannot be drawn") == len(drawable)
    history.of([("a", [record_of(replace(HOLDS, shown=shown))])])


def test_what_is_not_a_number_is_not_drawn():
    shown = {
        "curves": [{**CURVE, "mean": [NAN, INF, *CURVE["mean"][2:]]}],
        "heads": [{**HEADS, "heads": [{**HEADS["heads"][0], "mean": [NAN, INF, *[0.5] * 18]}]}],
        "maps": [{"what": "m", "rows": "layer", "columns": "head", "values": [[NAN, INF, 1.0]]}],
        "sizes": {"a": NAN, "b": 1.0},
    }
    for verdict in (
        replace(HOLDS, shown=shown),
        replace(HOLDS, estimate=NAN, interval=(NAN, NAN), margin=NAN, p=NAN),
        replace(HOLDS, interval=(-INF, INF), margin=INF),
    ):
        text = html.render(HEADER, [record_of(verdict)])
        assert "cannot be drawn" not in text
        drawn = " ".join(re.findall(r' d="([^"]*)"', text))
        assert not re.search(r"[^MLCAahvz0-9. -]", drawn), drawn


def test_the_largest_report_is_at_most_6_mb_and_says_what_it_says_briefly(largest):
    assert 5_000_000 < len(largest.encode()) <= html.LIMIT == 6_000_000
    page = Page(largest)
    assert len(page.all("details", class_="r")) == 49 * 60
    assert re.search(r"[\d,]+ verdicts are shown without pictures", page.text)


def test_a_small_page_says_all_and_leaves_nothing_out(each):
    assert "verdicts are shown" not in Page(each).text


def test_what_matters_least_is_said_briefly_first():
    records = [
        record_of(replace(verdict, shown=HOLDS.shown), f"a.{n}")
        for n, verdict in enumerate([NOT_APPLICABLE, HOLDS, INCONCLUSIVE, REFUTED])
    ]
    whole = html.render(HEADER, records)
    sizes = [len(whole.encode()) - cut for cut in (2000, 20_000, 30_000, 36_000)]
    drawn = [_drawn(html.render(HEADER, records, limit=size)) for size in sizes]
    for kept in drawn:
        assert kept == set(sorted("NHIR", key="NHIR".index)[4 - len(kept) :])
    assert len({len(kept) for kept in drawn}) > 1


def _drawn(text: str) -> set[str]:
    """The kinds of verdicts whose curves are drawn."""
    told = r'<details class="r"[^>]*data-v="(.)"(.*?)<pre class="cmd">'
    found = re.findall(told, text, re.DOTALL)
    return {kind for kind, said in found if 'class="curve"' in said}


def test_a_page_is_the_same_each_time_and_in_any_order_of_its_records(each):
    records = one_of_each()
    assert html.render(HEADER, records) == each
    assert html.render(HEADER, records[::-1]) == each


def test_a_page_needs_no_script_to_be_read(each):
    page = Page(each)
    hidden = [(tag, have.get("id")) for tag, have in page.elements if "hidden" in have]
    assert hidden == [("button", "theme"), ("form", "filters")]


def test_headers_of_the_matrix_are_said_to_screen_readers(each):
    page = Page(each)
    assert {have.get("scope") for have in page.all("th")} <= {
        "col", "row", "colgroup", "rowgroup"
    }  # fmt: skip
    assert page.all("a", class_="skip", href="#claims")
    assert page.all("html", lang="en")
    [status] = page.all("p", id="status")
    assert status["role"] == "status"
    for region in page.all("div", role="region"):
        assert region["tabindex"] == "0"
        assert region["aria-label"]


def test_what_stood_in_the_last_run_is_said_and_its_curve_is_drawn_beside():
    before, now = record_of(REFUTED), record_of(HOLDS)
    before = replace(before, verdict=replace(REFUTED, shown={"curves": [CURVE]}))
    text = html.render(HEADER, [now], history=history.of([("yesterday", [before])]))
    page = Page(text)
    assert "changed since yesterday" in page.text
    assert page.all("div", **{"aria-label": "earlier verdicts"})
    for said in ("refuted", "-0.31 [-0.55, -0.07] logits", "yesterday", "grey: yesterday"):
        assert said in " ".join(page.text.split())
    assert len(page.all("path", class_="bl")) == 1


def test_a_run_that_was_not_finished_and_one_without_verdicts_say_so():
    text = Page(html.render({**HEADER, "complete": False}, one_of_each())).text
    assert "This run was not finished" in text
    assert "A run without verdicts" in Page(html.render({}, [])).text


def test_maps_of_the_store_are_drawn_once_however_many_verdicts_show_them(tmp_path):
    scores = np.random.default_rng(0).normal(size=(4, 12, 12))
    found = Measurement(
        name="planted", values={"effect": scores}, axes={"effect": ("prompt", "layer", "head")},
        units={"effect": "logits"}, cluster=np.arange(4), template=np.zeros(4, int),
        half=np.array([0, 1, 0, 1]),
    )  # fmt: skip
    store = Store(tmp_path)
    store.put("ab" * 32, found, {})
    plain = replace(HOLDS, shown={}, controls=())
    records = [record_of(plain, f"a.{n}") for n in range(5)]
    text = html.render(HEADER, records, store=store)
    page = Page(text)
    assert len(page.all("use")) == 5
    assert len({have["href"] for have in page.all("use")}) == 1
    assert len(page.all("g", id="f0")) == 1
    assert text.count("behaviour: effect, logits") == 5
    brief = html.render(HEADER, records, store=store, limit=1000)
    assert not Page(brief).all("use")
    assert not Page(brief).all("g", id="f0")


def test_a_model_with_many_checkpoints_stands_above_their_columns(largest):
    page = Page(largest)
    groups = page.all("th", scope="colgroup")
    assert [(have["data-m"], have["colspan"]) for have in groups] == [
        ("pythia-70m", "20"), ("pythia-160m", "20"), ("pythia-410m", "20")
    ]  # fmt: skip
    assert page.all("table", class_="m dense")


def test_the_heads_that_are_drawn_are_those_of_the_terminal():
    rows, left = heads.rows(HEADS)
    lines = heads.lines(HEADS, ascii=True)
    named = [line.split("|")[0].strip() for line in lines if line.count("|") == 2]
    assert [row["head"] for row in rows] == named
    assert left == 0
    more = [{**HEADS["heads"][0], "head": f"9.{n}"} for n in range(20)]
    assert heads.rows({**HEADS, "heads": [*HEADS["heads"], *more]})[1] == 23 - heads.MOST_ROWS
