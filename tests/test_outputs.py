"""mechtests.reporting.outputs and junit: a run by the suffix of its file, and its properties."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mechtests.errors import UsageError
from mechtests.reporting import html, junit, markdown, outputs
from mechtests.reporting.record import Record
from tests.many_records import HEADER, HOLDS, INCONCLUSIVE, one_of_each, record_of


@pytest.mark.parametrize("suffix", outputs.SUFFIXES)
def test_the_suffix_says_what_is_written_into_a_folder_that_is_made(tmp_path, suffix):
    path = tmp_path / "new" / f"report{suffix}"
    records = one_of_each()
    outputs.write(path, HEADER, records)
    text = path.read_text("utf-8")
    expected = {
        ".html": lambda: html.render(HEADER, records),
        ".md": lambda: markdown.render(HEADER, records),
        ".json": lambda: None,
        ".jsonl": lambda: None,
    }[suffix]()
    if expected is not None:
        assert text == expected
        return
    trees = json.loads(text) if suffix == ".json" else [json.loads(x) for x in text.splitlines()]
    assert [Record.from_json(tree) for tree in trees] == [
        Record.from_json(record.to_json()) for record in records
    ]


@pytest.mark.parametrize("name", ["badge.json", "pythia-badge.json"])
def test_a_name_that_ends_in_badge_json_is_a_badge_for_the_endpoint_of_shields_io(tmp_path, name):
    outputs.write(tmp_path / name, HEADER, one_of_each())
    badge = json.loads((tmp_path / name).read_text("utf-8"))
    assert badge == markdown.badge(one_of_each())
    assert badge["schemaVersion"] == 1
    assert badge.keys() == {"schemaVersion", "label", "message", "color"}
    assert badge["message"] == "3 of 4 hold, 1 error"


def test_another_suffix_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(UsageError, match=r"PATH\.json, PATH\.jsonl or badge\.json, got"):
        outputs.write(tmp_path / "report.pdf", HEADER, [])
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        outputs.write(tmp_path / "file" / "report.md", HEADER, [])


def test_properties_are_few_short_and_only_those_there_are():
    said = dict(junit.properties(record_of(HOLDS)))
    assert said == {
        "mechtests.claim": "tigges2024.name-movers-matter",
        "mechtests.version": "1",
        "mechtests.task": "ioi",
        "mechtests.cell": "gpt2",
        "mechtests.verdict": "holds",
        "mechtests.estimate": "0.62 [0.55, 0.69] attention",
        "mechtests.margin": "claimed above 0.4",
        "mechtests.p": "0.0003",
    }
    assert "mechtests.estimate" not in dict(junit.properties(record_of(INCONCLUSIVE)))
    long = record_of(replace(HOLDS, unit="u" * 5000), expectation="e" * 5000)
    assert all(len(value) <= junit.LONGEST for _, value in junit.properties(long))
