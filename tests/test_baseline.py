"""mechtests.reporting: a baseline as a file, what may be blessed, and what is other than it."""

from __future__ import annotations

import json
import math
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from mechtests import cli
from mechtests.claim import Claim
from mechtests.errors import LoadError, UsageError
from mechtests.reporting import baseline, blessing, records, regression
from mechtests.reporting.baseline import Baseline, Entry, Settings, schema
from mechtests.reporting.folders import reports
from mechtests.reporting.place import Place
from mechtests.reporting.record import Record, RecordedCell
from mechtests.verdict import Outcome, Verdict

MAYBE = st.none() | st.floats(allow_nan=True, allow_infinity=True)
WORDS = st.text("abcz019.-", min_size=1, max_size=8)
BLESSABLE = [each for each in Outcome if each is not Outcome.ERROR]
HEADER = {
    "settings": {"profile": "quick", "seed": 0, "dtype": "float32", "prompt_digests": {}},
    "complete": True,
}


def record_of(
    outcome: Outcome = Outcome.HOLDS,
    *,
    id: str = "paper.claim",
    cell: str = "gpt2",
    version: int = 1,
    task: str | None = "ioi",
    estimate: float | None = 0.5,
    **rest: Any,
) -> Record:
    verdict = Verdict(outcome, "s", estimate=estimate, interval=(0.4, 0.6), margin=0.1)
    return Record.from_verdict(
        verdict,
        claim=Claim(id=id, says="s", rule="r", task=task, version=version),
        run="r",
        cell=RecordedCell(cell, cell.partition(":")[0]),
        measurements={},
        profile="quick",
        seed=0,
        nodeid="n",
        reproduce="pytest n",
        **rest,
    )


ENTRIES = st.builds(
    Entry.of,
    st.builds(
        record_of,
        st.sampled_from(BLESSABLE),
        id=WORDS.map("p.{}".format),
        cell=WORDS,
        version=st.integers(1, 9),
        task=st.none() | WORDS,
        estimate=MAYBE,
    ),
)


@given(st.lists(ENTRIES, max_size=6), st.lists(WORDS, max_size=2), st.randoms())
def test_a_baseline_is_the_same_file_whatever_the_order_and_comes_back_from_it(
    tmp_path_factory, entries, selection, random
):
    found = {entry.place: entry for entry in entries}
    shuffled = list(found.items())
    random.shuffle(shuffled)
    one = Baseline(Settings(seed=3), tuple(selection), found, "b.json")
    other = Baseline(Settings(seed=3), tuple(selection), dict(shuffled), "b.json")
    assert one.text == other.text
    jsonschema.Draft202012Validator(schema()).validate(json.loads(one.text))
    file = tmp_path_factory.mktemp("b") / "b.json"
    baseline.write(file, one)
    assert baseline.read(file) == one


def test_an_older_file_that_has_the_level_of_its_intervals_is_read_and_is_of_the_schema(tmp_path):
    blessed = Baseline.of([record_of()], HEADER, "b.json")
    tree = json.loads(blessed.text)
    assert "level" not in tree["settings"]
    tree["settings"]["level"] = 0.95
    jsonschema.Draft202012Validator(schema()).validate(tree)
    file = tmp_path / "b.json"
    file.write_text(json.dumps(tree))
    assert baseline.read(file) == blessed


def test_the_schema_is_a_schema_and_refuses_an_error_and_a_missing_field():
    jsonschema.Draft202012Validator.check_schema(schema())
    validator = jsonschema.Draft202012Validator(schema())
    tree = json.loads(Baseline.of([record_of()], HEADER).text)
    assert validator.is_valid(tree)
    for wrong in ({"verdict": "error"}, {"claim": "no dot"}, {"extra": 1}):
        assert not validator.is_valid({**tree, "verdicts": [{**tree["verdicts"][0], **wrong}]})
    for name in ("settings", "selection", "verdicts"):
        assert not validator.is_valid({k: v for k, v in tree.items() if k != name})


def test_one_changed_verdict_is_one_changed_line_and_noise_beyond_six_digits_is_none():
    def lines(*found: Record) -> list[str]:
        return Baseline.of(found, HEADER).text.splitlines()

    many = [record_of(id=f"p.{i}", estimate=i / 3) for i in range(20)]
    flipped = [*many[:7], record_of(Outcome.REFUTED, id="p.7", estimate=7 / 3), *many[8:]]
    pairs = zip(lines(*many), lines(*flipped), strict=True)
    assert sum(a != b for a, b in pairs) == 1
    noisy = [record_of(id=f"p.{i}", estimate=i / 3 * (1 + 1e-9)) for i in range(20)]
    assert lines(*noisy) == lines(*many)


def test_numbers_that_json_cannot_say_are_null():
    text = Baseline.of([record_of(estimate=math.nan)], HEADER).text
    assert json.loads(text)["verdicts"][0]["estimate"] is None


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        (None, UsageError, "write it with pytest --mech-bless"),
        ("{", LoadError, "is not JSON"),
        ("[]", LoadError, "of the schema None"),
        ('{"schema": "mechtests-baseline/9"}', LoadError, "mechtests-baseline/9"),
        ('{"schema": "mechtests-baseline/1"}', LoadError, r"baseline\.schema\.json"),
    ],
)
def test_what_is_no_baseline_is_refused_in_a_sentence(tmp_path, text, error, says):
    file = tmp_path / "b.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(error, match=says):
        baseline.read(file)


def test_two_verdicts_for_one_place_are_refused(tmp_path):
    tree = json.loads(Baseline.of([record_of()], HEADER).text)
    tree["verdicts"] *= 2
    (tmp_path / "b.json").write_text(json.dumps(tree))
    with pytest.raises(LoadError, match="two verdicts for one place"):
        baseline.read(tmp_path / "b.json")


@pytest.mark.parametrize(
    ("found", "header", "says"),
    [
        ([], {}, "reached no verdict"),
        ([record_of()], {"complete": False}, "not complete (1 of 1 tests"),
        ([record_of()], {"cases": 3}, "not complete (1 of 3 tests reached a verdict)"),
        ([record_of()], {"shard": {"index": 1, "of": 2}}, "it is shard 1/2 of a run"),
        ([record_of()], {"narrowed": ["--lf"]}, "--lf left out tests"),
        ([record_of(Outcome.ERROR)], {}, "1 error (paper.claim (ioi) on gpt2)"),
        ([record_of(overridden=True)], {}, "a setting from outside changed the rule"),
        ([record_of(Outcome.INCONCLUSIVE)], {}, "or bless them as they are with --mech-bless-in"),
    ],
)
def test_what_may_not_be_expected_is_not_blessed_and_nothing_is_written(
    tmp_path, found, header, says
):
    file = tmp_path / "b.json"
    with pytest.raises(UsageError) as refused:
        blessing.bless(file, found, {**HEADER, **header})
    assert says in str(refused.value)
    assert str(refused.value).startswith(f"{file}: not blessed, because ")
    assert not file.exists()


def test_an_inconclusive_verdict_is_blessed_when_told(tmp_path):
    file, found = tmp_path / "b.json", [record_of(Outcome.INCONCLUSIVE)]
    said = blessing.bless(file, found, HEADER, inconclusive=True)
    assert said == [f"blessed 1 verdict into {file}, a new baseline"]


def test_blessing_into_a_file_says_what_changes(tmp_path):
    file = tmp_path / "b.json"
    before = [record_of(), record_of(id="paper.gone"), record_of(id="paper.moved")]
    blessing.bless(file, before, HEADER)
    assert "nothing changes" in blessing.bless(file, before, HEADER)[0]
    after = [
        record_of(Outcome.REFUTED),
        record_of(id="paper.new"),
        record_of(id="paper.moved", estimate=0.7),
    ]
    header = {**HEADER, "settings": {**HEADER["settings"], "seed": 4}}
    assert blessing.bless(file, after, header) == [
        f"blessed 3 verdicts into {file}; of 1 only numbers or versions moved",
        "changed: paper.claim (ioi) on gpt2: holds (0.50 [0.40, 0.60]), now refuted (0.50 "
        "[0.40, 0.60])",
        "new: paper.new (ioi) on gpt2: holds (0.50 [0.40, 0.60])",
        "removed: paper.gone (ioi) on gpt2: holds (0.50 [0.40, 0.60])",
        "settings: seed 0, now 4",
    ]
    assert set(baseline.read(file).entries) == {Place.of(record) for record in after}


@pytest.mark.parametrize(
    ("second", "header", "says"),
    [
        ([record_of(cell="gpt2-xl")], {}, "on cells that this run did not judge (gpt2)"),
        ([record_of(id="p.x")], {"selection": ["-k x"]}, "-k x left out 1 verdict of the file"),
    ],
)
def test_a_file_does_not_lose_verdicts_that_a_run_says_nothing_about(
    tmp_path, second, header, says
):
    file = tmp_path / "b.json"
    blessing.bless(file, [record_of()], HEADER)
    before = file.read_text()
    with pytest.raises(UsageError) as refused:
        blessing.bless(file, second, {**HEADER, **header})
    assert says in str(refused.value)
    assert file.read_text() == before


def held(found: list[Record], expected: list[Record], **how: Any) -> regression.Regression:
    known = {"cells": {"gpt2"}, "left_out": set(), "claims": None, **how}
    return regression.of(Baseline.of(expected, HEADER, "b.json"), found, Settings(), **known)


def test_what_is_changed_missing_new_stale_or_elsewhere_is_named():
    result = held(
        [
            record_of(Outcome.REFUTED),
            record_of(id="p.same"),
            record_of(id="p.new"),
            record_of(id="p.stale", version=2),
            record_of(Outcome.ERROR, id="p.broken"),
        ],
        [
            record_of(),
            record_of(id="p.same"),
            record_of(id="p.gone"),
            record_of(id="p.stale"),
            record_of(id="p.broken"),
            record_of(cell="gpt2-xl"),
        ],
    )
    assert result.lines() == [
        "baseline b.json: 1 as before, 1 changed, 1 in error, 1 missing, 1 new, 1 stale",
        "  changed: paper.claim (ioi) on gpt2: holds, now refuted",
        "  missing: p.gone (ioi) on gpt2: this run did not judge it",
        "  new: p.new (ioi) on gpt2: holds, which the baseline does not have",
        "  stale: p.stale (ioi) on gpt2: the baseline has version 1 of the claim, this is "
        "version 2; bless again",
        "  not in this run, though in the baseline: gpt2-xl",
    ]


def test_what_was_deselected_or_not_collected_is_not_missing():
    expected = [record_of(), record_of(id="p.deselected"), record_of(id="p.elsewhere")]
    left_out = {Place("p.deselected", "ioi", "gpt2")}
    assert len(held([record_of()], expected).missing) == 2
    assert len(held([record_of()], expected, left_out=left_out).missing) == 1
    one = held([record_of()], expected, left_out=left_out, claims={"paper.claim"})
    assert one.missing == ()


def test_settings_that_differ_are_named():
    other = Settings("standard", 7, "bfloat16", prompts={"ioi": "ab12" * 16})
    assert Settings().differences(other) == [
        "profile quick, now standard",
        "seed 0, now 7",
        "dtype float32, now bfloat16",
        "prompts of the tasks, now ioi ab12ab12ab12",
    ]
    assert Settings().differences(Settings()) == []


def test_a_long_list_is_cut_and_counted():
    many = [record_of(id=f"p.{i}") for i in range(regression.SHOWN + 5)]
    assert held(many, []).lines()[-1] == "  and 5 more"


def test_the_command_blesses_a_run_and_refuses_in_a_sentence(tmp_path):
    for outcome in (Outcome.HOLDS, Outcome.INCONCLUSIVE):
        journal = records.Journal(tmp_path, HEADER)
        journal.append(record_of(outcome))
        journal.finish(complete=True)
    first, _ = records.all_runs(tmp_path)
    common = ("--reports", str(tmp_path))

    def bless(*arguments: str) -> Any:
        return CliRunner().invoke(cli.app, ["bless", *arguments, *common])

    file = tmp_path / "b.json"
    assert bless(first.name, str(file)).exit_code == 0
    refused = bless("latest", str(tmp_path / "c.json"))
    assert refused.exit_code == 4
    assert "bless them as they are with --inconclusive" in refused.output
    done = bless("latest", str(file), "--inconclusive")
    assert done.exit_code == 0
    assert "changed: paper.claim (ioi) on gpt2: holds" in done.output


@pytest.mark.parametrize(
    ("name", "text", "folder"),
    [
        ("pyproject.toml", '[tool.pytest.ini_options]\nmech_reports = "r"\n', "r"),
        ("pyproject.toml", '[tool.pytest]\nmech_reports = "r"\n', "r"),
        ("pytest.toml", '[pytest]\nmech_reports = "r"\n', "r"),
        ("pytest.ini", "[pytest]\nmech_reports = r\n", "r"),
        ("tox.ini", "[pytest]\naddopts = -q\n", ".mechtests"),
        ("setup.cfg", "[tool:pytest]\nmech_reports = r\n", "r"),
    ],
)
def test_runs_are_found_where_pytests_settings_put_them(tmp_path, name, text, folder):
    (tmp_path / name).write_text(text)
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    assert reports(inside) == tmp_path / folder
