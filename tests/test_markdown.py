"""mechtests.reporting.markdown: a step's summary and a badge."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from mechtests.reporting import history, markdown
from mechtests.verdict import Outcome
from tests.many_records import (
    ERROR,
    HEADER,
    HOLDS,
    INCONCLUSIVE,
    NOT_APPLICABLE,
    REFUTED,
    many,
    one_of_each,
    record_of,
)


def headings(text: str) -> list[str]:
    return re.findall(r"^### (.*)$", text, re.MULTILINE)


def test_what_changed_comes_first_then_errors_then_what_is_refuted_and_each_once():
    records = one_of_each()
    flipped = record_of(REFUTED, "tigges2024.flipped")
    past = history.of([("last", [replace(flipped, verdict=HOLDS)])])
    text = markdown.render(HEADER, [*records, flipped], history=past)
    assert headings(text) == ["Changed (1)", "Errors (1)", "Refuted (1)"]
    body = text.partition("<details>")[0]
    assert body.count("tigges2024.flipped") == 1
    assert "was holds in last, is **refuted**" in body
    assert "tigges2024.expected" not in body
    assert body.index("tigges2024.flipped") < body.index("tigges2024.error")


def test_what_holds_against_an_expectation_is_changed():
    text = markdown.render(HEADER, [record_of(HOLDS, expectation="page 3")])
    assert headings(text) == ["Changed (1)"]
    assert ": a refutation was expected (page 3), is **holds**" in text


def test_a_changed_verdict_says_what_the_baseline_expected_even_where_the_last_run_agrees():
    now = record_of(REFUTED, expectation="the baseline b.json", expects=Outcome.HOLDS)
    for past in ({}, history.of([("last", [record_of(REFUTED)])])):
        text = markdown.render(HEADER, [now], history=past)
        assert ": holds was expected (the baseline b.json), is **refuted**" in text


def test_every_verdict_is_counted_and_in_the_matrix():
    records = one_of_each()
    text = markdown.render(HEADER, records)
    assert "✅ 2 holds · ☑️ 1 holds, not after correction · ❌ 1 refuted" in text
    for record in records:
        assert f"| {record.claim.id} |" in text.replace("\\", "")
    assert "| `gpt2` |" in text


def test_many_cells_are_counted_in_a_line_a_claim():
    text = markdown.render(HEADER, many(claims=3))
    row = next(line for line in text.splitlines() if line.startswith("| tigges2024"))
    assert row.count("|") == 3
    assert sum(map(int, re.findall(r" (\d+) (?:holds|refuted|inconclusive|not)", row))) == 60


@pytest.mark.parametrize("limit", [20_000, 200_000])
def test_a_summary_of_the_largest_run_is_below_its_bound_and_says_what_it_leaves_out(limit):
    records = [replace(r, verdict=replace(r.verdict, sentence="x" * 5000)) for r in many()]
    text = markdown.render(HEADER, records, limit=limit)
    assert len(text.encode()) < limit
    shown = text.count("- ❌")
    [left] = re.findall(r"- and (\d+) more, in the records", text)
    assert shown + int(left) == sum(r.outcome == "refuted" for r in records)
    assert shown > 0


def test_what_others_wrote_is_text_and_no_markup():
    evil = "a|b <script>alert(1)</script> `x` **b** [c](http://d) @user\n# head"
    records = [
        record_of(replace(REFUTED, sentence=evil), id="p.q|r", cell="m`|<b>", task="t|<i>"),
    ]
    text = markdown.render({**HEADER, "run": evil, "versions": {evil: evil}}, records)
    assert "<script" not in text
    assert "<b>" not in text.replace("`m'¦<b>`", "")
    assert "[c](" not in text
    assert "\n# head" not in text
    assert "@user" not in text
    [row] = [line for line in text.splitlines() if line.startswith("| p")]
    assert row.count("|") == 3


def test_a_run_without_verdicts_and_one_that_was_not_finished_say_so():
    assert "no verdicts" in markdown.render({}, [])
    assert "**not finished**" in markdown.render({**HEADER, "complete": False}, one_of_each())


@pytest.mark.parametrize(
    ("verdicts", "message", "color"),
    [
        ([HOLDS, HOLDS, INCONCLUSIVE], "2 of 2 hold", "brightgreen"),
        ([HOLDS, REFUTED], "1 of 2 hold", "red"),
        ([HOLDS, ERROR], "1 of 1 hold, 1 error", "purple"),
        ([ERROR, ERROR], "0 of 0 hold, 2 errors", "purple"),
        ([INCONCLUSIVE, NOT_APPLICABLE], "none decided", "yellow"),
        ([], "none decided", "lightgrey"),
    ],
)
def test_a_badge_says_how_many_hold_in_the_colour_of_the_worst(verdicts, message, color):
    records = [record_of(v, f"a.{n}") for n, v in enumerate(verdicts)]
    assert markdown.badge(records, label="ioi") == {
        "schemaVersion": 1, "label": "ioi", "message": message, "color": color,
    }  # fmt: skip


def test_an_expected_refutation_is_neither_for_nor_against_in_a_badge():
    records = [record_of(HOLDS), record_of(REFUTED, "a.b", expectation="page 3")]
    assert markdown.badge(records)["message"] == "1 of 1 hold"


def test_a_summary_is_the_same_each_time_and_in_any_order():
    records = one_of_each()
    assert markdown.render(HEADER, records) == markdown.render(HEADER, records)
