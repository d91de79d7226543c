"""mechtests.reporting.history: what was said before, and what is another now."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mechtests.reporting import baseline, history, records
from mechtests.reporting.history import Past
from mechtests.reporting.place import Place
from mechtests.reporting.record import Record
from mechtests.verdict import Outcome
from tests.many_records import HOLDS, REFUTED, record_of

SETTINGS = {"profile": "quick", "seed": 0, "dtype": "float32"}
GPT2 = {"gpt2": {"asked": "gpt2"}}


def run_of(folder: Path, *found: Record, **header: Any) -> dict[str, Any]:
    """A run that is kept, and its header."""
    journal = records.Journal(folder, {"settings": SETTINGS, "models": GPT2, **header})
    for record in found:
        journal.append(replace(record, run=journal.id))
    journal.finish(complete=True)
    return journal.header


def own(header: dict[str, Any], record: Record, folder: Path, **rest: Any) -> list[Past]:
    return list(history.own(header, [record], folder, **rest).get(Place.of(record), ()))


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


def test_the_past_of_a_run_is_the_runs_of_its_folder_before_it_oldest_first(tmp_path):
    now = record_of(HOLDS)
    first = run_of(tmp_path, now, record_of(REFUTED, cell="gpt2:step9"))
    second = run_of(tmp_path, record_of(REFUTED))
    mine = run_of(tmp_path, now)
    run_of(tmp_path, record_of(REFUTED))
    found = own(mine, now, tmp_path)
    assert [past.label for past in found] == [first["run"], second["run"]]
    assert [past.outcome for past in found] == [Outcome.HOLDS, Outcome.REFUTED]
    assert found[0].date == first["start"][:16].replace("T", " ")
    assert found[0].estimate == "0.62 [0.55, 0.69] attention"
    assert own(first, now, tmp_path) == []
    assert history.own(mine, [record_of(HOLDS, "another.claim")], tmp_path) == {}


def test_of_many_runs_the_newest_are_told_of(tmp_path):
    now = record_of(HOLDS)
    runs = [run_of(tmp_path, now) for _ in range(5)]
    mine = run_of(tmp_path, now)
    assert [past.label for past in own(mine, now, tmp_path, most=3)] == [
        run["run"] for run in runs[2:]
    ]
    assert len(own(mine, now, tmp_path)) == 5


@pytest.mark.parametrize(
    ("header", "counts"),
    [
        ({}, True),
        ({"settings": {**SETTINGS, "profile": "standard"}}, False),
        ({"settings": {**SETTINGS, "prompt_digests": {"ioi": "ab"}}}, False),
        ({"models": {"gpt2": {"asked": "another/gpt2"}}}, False),
        ({"models": {"gpt2": {"asked": "a/gpt2"}}, "identities": {"gpt2": "1"}}, True),
        ({"models": {"gpt2": {"asked": "a/gpt2"}}, "identities": {"gpt2": "2"}}, False),
        ({"models": {}}, True),
    ],
)
def test_only_runs_of_the_same_model_and_settings_count(tmp_path, header, counts):
    now = record_of(HOLDS)
    run_of(tmp_path, now, **header)
    mine = run_of(tmp_path, now, identities={"gpt2": "1"})
    assert len(own(mine, now, tmp_path)) == counts


def test_of_shards_that_were_joined_the_joined_run_alone_counts(tmp_path):
    now = record_of(HOLDS)
    shards = [run_of(tmp_path, now) for _ in range(2)]
    merged = run_of(tmp_path, now, merged={shard["run"]: {} for shard in shards})
    mine = run_of(tmp_path, now)
    assert [past.label for past in own(mine, now, tmp_path)] == [merged["run"]]
    assert own(merged, now, tmp_path) == []


def test_what_cannot_be_read_is_passed_over(tmp_path):
    now = record_of(HOLDS)
    runs = [run_of(tmp_path, now) for _ in range(4)]
    paths = [tmp_path / "runs" / run["run"] for run in runs]
    (paths[0] / records.HEADER).write_text("{")
    (paths[1] / records.RECORDS).write_text('{"schema": "mechtests-record/0"}\n')
    with (paths[2] / records.RECORDS).open("a") as file:
        file.write('{"half')
    mine = run_of(tmp_path, now)
    assert [past.label for past in own(mine, now, tmp_path)] == [runs[2]["run"], runs[3]["run"]]
    assert own({}, now, tmp_path) == []


def test_the_baseline_of_the_run_comes_last_unless_it_was_blessed_after_it(tmp_path):
    now, file = record_of(HOLDS), tmp_path / "blessed.json"
    baseline.write(file, baseline.Baseline.of([record_of(REFUTED)], {"settings": SETTINGS}))
    before = run_of(tmp_path, now)
    mine = run_of(tmp_path, now, baseline=str(file))
    assert [past.label for past in own(mine, now, tmp_path)] == [before["run"], "blessed"]
    late = file.stat().st_mtime + 3600
    os.utime(file, (late, late))
    assert [past.label for past in own(mine, now, tmp_path)] == [before["run"]]
    file.unlink()
    assert [past.label for past in own(mine, now, tmp_path)] == [before["run"]]


def test_what_is_told_twice_counts_where_it_is_told_last():
    one, two = (history.of([(name, [record_of(HOLDS)])]) for name in ("one", "two"))
    place = Place.of(record_of(HOLDS))
    found = history.joined(one, two, one)
    assert [past.label for past in found[place]] == ["two", "one"]


def test_verdicts_in_a_row_that_are_alike_are_told_together():
    kinds = [("holds", "1"), ("holds", "1"), ("holds", "2"), ("refuted", "1"), ("holds", "1")]
    past = [Past(str(n), Outcome(word), 1, told) for n, (word, told) in enumerate(kinds)]
    assert [[each.label for each in group] for group in history.alike(past)] == [
        ["0", "1"], ["2"], ["3"], ["4"],
    ]  # fmt: skip
