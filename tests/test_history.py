"""mechtests.reporting.history: what was said before, and what is another now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mechtests.reporting import baseline, history
from mechtests.reporting.place import Place
from tests.many_records import HOLDS, REFUTED, record_of


def test_the_history_of_a_place_is_what_each_run_said_of_it_oldest_first():
    first, second = record_of(HOLDS), record_of(REFUTED)
    past = history.of(
        [("one", [first]), ("two", [second]), ("other", [record_of(HOLDS, cell="b")])]
    )
    found = past[Place.of(first)]
    assert [(each.label, str(each.outcome)) for each in found] == [
        ("one", "holds"),
        ("two", "refuted"),
    ]
    assert found[0].estimate == "0.62 [0.55, 0.69] attention"
    assert found[0].curves["ioi: logit difference"][1] == 0.01


def test_a_baseline_is_a_past_too(tmp_path: Path):
    first = record_of(REFUTED)
    file = tmp_path / "blessed.json"
    settings = {"profile": "quick", "seed": 0, "dtype": "float32"}
    baseline.write(file, baseline.Baseline.of([first], {"settings": settings}))
    [past] = history.before([str(file)], tmp_path)[Place.of(first)]
    assert (past.label, past.outcome) == ("blessed", first.outcome)
    assert past.estimate == "-0.31 [-0.55, -0.07]"


def test_changed_is_another_verdict_than_the_last_by_the_same_rule():
    now = record_of(REFUTED)
    assert history.changed(
        now, history.of([("a", [record_of(REFUTED)]), ("b", [record_of(HOLDS)])])
    )
    assert not history.changed(now, history.of([("a", [record_of(HOLDS)]), ("b", [now])]))
    assert not history.changed(now, {})
    older = record_of(HOLDS)
    older = replace(older, claim=replace(older.claim, version=7))
    assert not history.changed(now, history.of([("a", [older])]))


def test_changed_is_also_what_holds_where_a_refutation_was_expected():
    assert history.changed(record_of(HOLDS, expectation="the paper says so"), {})
    assert not history.changed(record_of(REFUTED, expectation="the paper says so"), {})
