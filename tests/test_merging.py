"""``mechtests merge``: runs joined into one, or refused in a sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mechtests import cli
from mechtests.claim import Claim
from mechtests.errors import UsageError
from mechtests.reporting import merging, records, samples
from mechtests.reporting.place import Place
from mechtests.reporting.record import Record, RecordedCell
from mechtests.verdict import Outcome, Verdict

SETTINGS = {"profile": "quick", "seed": 0, "dtype": "float32", "prompt_digests": {}}
STEPS = {"step0": {"label": "step0", "step": 0}, "step9": {"label": "step9", "step": 9}}


def record_of(id: str, cell: str = "gpt2", p: float = 0.01, **rest: Any) -> Record:
    known = {"version": 1, "estimate": 0.5, "outcome": Outcome.HOLDS, "weights": "w", **rest}
    return Record.from_verdict(
        Verdict(known["outcome"], "s", estimate=known["estimate"], p=p),
        claim=Claim(id=id, says="s", rule="r", version=known["version"], family="one"),
        run="r",
        cell=RecordedCell(cell, cell, weights=known["weights"]),
        measurements={},
        profile="quick",
        seed=0,
        nodeid=f"{id}[{cell}]",
        reproduce="pytest n",
    )


def run_of(folder: Path, *found: Record, complete: bool = True, **header: Any) -> Path:
    told = {"settings": SETTINGS, "cases": len(found), "models": {}, "identities": {}, **header}
    journal = records.Journal(folder, told)
    for record in found:
        journal.append(record, [{"at": [], "of": record.nodeid}])
    journal.finish(complete=complete)
    return journal.path


def shard(folder: Path, index: int, of: int, *found: tuple[int, Record], **header: Any) -> Path:
    order = {record.nodeid: at for at, record in found}
    told = {"index": index, "of": of, "order": order}
    return run_of(folder, *(record for _, record in found), shard=told, **header)


def stripped(found: list[Record]) -> list[Record]:
    return [replace(record, run="") for record in found]


def test_shards_come_back_in_the_order_of_the_run_with_q_over_whole_families(tmp_path):
    whole = [record_of(f"p.{i}", p=0.01 * (i + 1)) for i in range(6)]
    one = shard(tmp_path, 1, 2, *((i, whole[i]) for i in (0, 3, 4)))
    two = shard(tmp_path, 2, 2, *((i, whole[i]) for i in (1, 2, 5)))
    for order in ([one, two], [two, one]):
        merged, said = merging.merge(order, tmp_path)
        assert stripped(records.read(merged)) == stripped(records.correct(whole))
        assert said == []
        header = records.header(merged)
        assert header["complete"] is True
        assert header["cases"] == 6
        assert set(header["merged"]) == {one.name, two.name}
        assert header["shard"] is None
        assert {record.run for record in records.read(merged)} == {merged.name}
        assert samples.lines(merged)[Place("p.5", None, "gpt2")] == [{"at": [], "of": "p.5[gpt2]"}]


def test_runs_of_several_models_are_joined_one_after_the_other(tmp_path):
    def model(name: str, *labels: str) -> dict[str, Any]:
        steps = [STEPS[label] for label in labels]
        return {"models": {name: {"checkpoints": steps, "series": []}}}

    first = run_of(tmp_path, record_of("p.a"), record_of("p.b"), **model("gpt2", "step9"))
    second = run_of(tmp_path, record_of("p.a", "xl"), loads={"xl": 1}, **model("xl", "step0"))
    third = run_of(tmp_path, record_of("p.c"), loads={"xl": 1}, **model("gpt2", "step0", "step9"))
    merged, _ = merging.merge([first, second, third], tmp_path)
    found = [(record.claim.id, record.cell.id) for record in records.read(merged)]
    assert found == [("p.a", "gpt2"), ("p.b", "gpt2"), ("p.a", "xl"), ("p.c", "gpt2")]
    header = records.header(merged)
    assert header["models"]["gpt2"]["checkpoints"] == [STEPS["step0"], STEPS["step9"]]
    assert header["loads"] == {"xl": 2}


def test_a_missing_shard_and_an_unfinished_run_leave_the_whole_incomplete(tmp_path):
    one = shard(tmp_path, 1, 3, (0, record_of("p.a")))
    three = shard(tmp_path, 3, 3, (1, record_of("p.b")), complete=False)
    merged, said = merging.merge([one, three], tmp_path)
    assert records.header(merged)["complete"] is False
    assert said == [
        "not complete: of the shards 2/3 are missing",
        f"not complete: {three.name} did not reach all verdicts",
    ]


def test_a_verdict_that_is_there_twice_is_kept_once_where_both_agree(tmp_path):
    one = run_of(tmp_path, record_of("p.a"), record_of("p.b"))
    two = run_of(tmp_path, record_of("p.a"), record_of("p.c"))
    merged, said = merging.merge([one, two], tmp_path)
    assert [record.claim.id for record in records.read(merged)] == ["p.a", "p.b", "p.c"]
    assert records.header(merged)["cases"] == 3
    assert said == ["reached in more than one run, in agreement: 1 verdict"]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"outcome": Outcome.REFUTED}, "disagree on its verdict: holds in"),
        ({"estimate": 0.6}, "disagree on its estimate: 0.5 in"),
        ({"weights": "v"}, "disagree on its weights: w in"),
        ({"version": 2}, "claim p.a: version 1 in the run"),
    ],
)
def test_runs_that_disagree_are_refused_and_nothing_is_written(tmp_path, other, says):
    runs = [run_of(tmp_path, record_of("p.a")), run_of(tmp_path, record_of("p.a", **other))]
    with pytest.raises(UsageError) as refused:
        merging.merge(runs, tmp_path)
    assert says in str(refused.value)
    assert records.all_runs(tmp_path) == runs


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({"settings": {**SETTINGS, "seed": 1}}, r"different settings \(seed 0 and 1\)"),
        ({"settings": {**SETTINGS, "dtype": "bfloat16"}}, "dtype float32 and bfloat16"),
        ({"identities": {"gpt2": {"commit": "cd"}}}, "cell gpt2: the run .* judged"),
        ({"shard": {"index": 1, "of": 5, "order": {}}}, "shards of 2 and of 5"),
    ],
)
def test_runs_that_are_not_one_are_refused(tmp_path, header, says):
    one = shard(tmp_path, 1, 2, (0, record_of("p.a")), identities={"gpt2": {"commit": "ab"}})
    two = run_of(tmp_path, record_of("p.b"), **header)
    with pytest.raises(UsageError, match=says):
        merging.merge([one, two], tmp_path)


def test_an_estimate_that_is_no_number_agrees_with_itself_and_with_no_number(tmp_path):
    nan = record_of("p.a", estimate=float("nan"))
    runs = [run_of(tmp_path, nan, record_of(name)) for name in ("p.b", "p.c")]
    merged, said = merging.merge(runs, tmp_path)
    assert len(records.read(merged)) == 3
    assert said == ["reached in more than one run, in agreement: 1 verdict"]
    with pytest.raises(UsageError, match="disagree on its estimate: nan in"):
        merging.merge([runs[0], run_of(tmp_path, record_of("p.a", estimate=0.5))], tmp_path)


def test_samples_are_those_of_any_source_that_kept_some(tmp_path):
    runs = [run_of(tmp_path, record_of("p.a"), record_of(name)) for name in ("p.b", "p.c")]
    (runs[0] / samples.FILE).unlink()
    for order in (runs, runs[::-1]):
        merged, _ = merging.merge(order, tmp_path)
        kept = samples.lines(merged)
        assert {place.claim for place in kept} == {"p.a", "p.c"}


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({"selection": ["-k ioi"]}, r"\(all tests and -k ioi\)"),
        ({"narrowed": ["--lf"]}, r"\(all tests and --lf\)"),
    ],
)
def test_shards_of_different_selections_are_refused_and_runs_of_them_are_joined(
    tmp_path, header, says
):
    one = shard(tmp_path, 1, 2, (0, record_of("p.a")))
    two = shard(tmp_path, 2, 2, (1, record_of("p.b")), **header)
    with pytest.raises(UsageError, match=says):
        merging.merge([one, two], tmp_path)
    same = shard(tmp_path, 1, 2, (0, record_of("p.a")), **header)
    assert records.header(merging.merge([same, two], tmp_path)[0])["complete"]
    alone = run_of(tmp_path, record_of("p.c"), **header)
    assert len(records.read(merging.merge([one, alone], tmp_path)[0])) == 2


def test_a_baseline_that_all_runs_have_is_that_of_the_joined_run(tmp_path):
    runs = [run_of(tmp_path, record_of(f"p.{i}"), baseline="b.json") for i in range(2)]
    assert records.header(merging.merge(runs, tmp_path)[0])["baseline"] == "b.json"
    other = run_of(tmp_path, record_of("p.9"), baseline=None)
    assert records.header(merging.merge([*runs, other], tmp_path)[0])["baseline"] is None


def test_the_command_says_where_the_joined_run_is_and_what_it_has(tmp_path):
    runs = [run_of(tmp_path, record_of(f"p.{i}")) for i in range(2)]
    names = [run.name for run in runs]
    done = CliRunner().invoke(cli.app, ["merge", *names, "--reports", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "2 verdicts: 2 hold" in done.output
    assert f"records: {records.latest(tmp_path) / 'records.jsonl'}" in done.output
    missing = CliRunner().invoke(cli.app, ["merge", "nowhere", "--reports", str(tmp_path)])
    assert missing.exit_code == 4
    assert "run 'nowhere'" in missing.output
