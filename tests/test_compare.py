"""``mechtests compare``: paired where it can be, and said where it cannot."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from typer.testing import CliRunner

from mechtests import cli, margins, rules
from mechtests.claim import Claim
from mechtests.errors import UsageError
from mechtests.measurement import Sample
from mechtests.reporting import baseline, differences, records, samples, sides
from mechtests.reporting.baseline import Baseline
from mechtests.reporting.compare import Comparison, compare
from mechtests.reporting.record import Record, RecordedCell, RecordedCheckpoint
from mechtests.reporting.shifts import How, Shift
from mechtests.verdict import Outcome, Verdict, not_applicable

SETTINGS = {"profile": "quick", "seed": 0, "dtype": "float32", "prompt_digests": {}}
CLUSTERS = np.repeat(np.arange(20), 2)


def sample(seed: int, mean: float = 1.0, prompts: int = 40) -> Sample:
    values = np.random.default_rng(seed).normal(mean, 1.0, prompts).astype(np.float32)
    return Sample(values.astype(np.float64), CLUSTERS[:prompts], "logits")


def above(of: Sample, margin: float = 0.0) -> Verdict:
    return margins.above(of, margin, what="logit difference")


def record_of(
    verdict: Verdict,
    *,
    id: str = "paper.claim",
    model: str = "gpt2",
    step: int | None = None,
    prompts: str = "ab12",
    version: int = 1,
    **rest: Any,
) -> Record:
    label = "" if step is None else f"step{step}"
    checkpoint = None if step is None else RecordedCheckpoint(label, step)
    return Record.from_verdict(
        verdict,
        claim=Claim(id=id, says="s", rule="r", task="ioi", version=version, **rest),
        run="r",
        cell=RecordedCell(f"{model}:{label}" if label else model, model, checkpoint),
        measurements={},
        profile="quick",
        seed=0,
        nodeid="n",
        reproduce="pytest n",
        facts={"answers": {"prompts": prompts}} if prompts else {},
    )


def run_of(folder: Path, *found: Record, keep: bool = True, **header: Any) -> Path:
    models = {record.cell.model: {"checkpoints": [], "series": []} for record in found}
    told = {"settings": SETTINGS, "models": models, **header}
    journal = records.Journal(folder, told)
    for record in found:
        journal.append(record, samples.kept(record.verdict) if keep else ())
    journal.finish(complete=True)
    return journal.path


def between(a: Path, b: Path) -> Comparison:
    return compare(sides.of_run(a), sides.of_run(b))


def one_shift(tmp_path: Path, a: Record, b: Record, **how: Any) -> Shift:
    [shift] = between(run_of(tmp_path, a, **how), run_of(tmp_path, b)).shifts
    return shift


def cluster_means(of: Sample) -> np.ndarray:
    return np.array([of.values[of.cluster == each].mean() for each in np.unique(of.cluster)])


def test_on_shared_prompts_the_shift_is_the_paired_t_test_over_clusters(tmp_path):
    a, b = sample(0), sample(1, 1.4)
    shift = one_shift(tmp_path, record_of(above(a)), record_of(above(b)))
    test = stats.ttest_rel(cluster_means(b), cluster_means(a))
    low, high = test.confidence_interval(0.95)
    assert shift.how is How.PAIRED
    assert shift.p == pytest.approx(test.pvalue, rel=1e-9)
    assert shift.interval == pytest.approx((low, high), rel=1e-9)
    assert shift.difference == pytest.approx(cluster_means(b).mean() - cluster_means(a).mean())
    assert (shift.prompts, shift.clusters) == (40, 20)


@pytest.mark.parametrize("prompts", ["cd34", ""])
def test_on_other_prompts_it_is_welchs_test_and_says_why(tmp_path, prompts):
    a, b = sample(0), sample(1, 1.4)
    shift = one_shift(tmp_path, record_of(above(a)), record_of(above(b), prompts=prompts))
    test = stats.ttest_ind(cluster_means(b), cluster_means(a), equal_var=False)
    assert shift.how is How.UNPAIRED
    assert shift.p == pytest.approx(test.pvalue, rel=1e-6)
    assert shift.interval == pytest.approx(tuple(test.confidence_interval(0.95)), rel=1e-6)
    assert ("the prompts differ" if prompts else "is not known") in shift.why


def test_of_the_same_prompts_a_part_that_entered_one_side_alone_is_not_paired(tmp_path):
    shift = one_shift(tmp_path, record_of(above(sample(0))), record_of(above(sample(1, 1.4, 30))))
    assert shift.how is How.UNPAIRED
    assert "other prompts of the same ones" in shift.why


def test_without_the_values_there_is_the_difference_of_estimates_and_no_test(tmp_path):
    a, b = above(sample(0)), above(sample(1))
    shift = one_shift(tmp_path, record_of(a), record_of(b), keep=False)
    assert shift.how is How.ESTIMATES
    assert shift.difference == pytest.approx(b.estimate - a.estimate)
    assert shift.interval is None
    assert shift.p is None
    assert shift.q is None
    assert shift.why == "no per-prompt values are kept on side A"


def test_a_model_compared_with_itself_does_not_differ_and_flips_nothing(tmp_path):
    found = [record_of(above(sample(seed)), id=f"paper.{seed}") for seed in range(5)]
    same = between(run_of(tmp_path, *found), run_of(tmp_path, *found))
    assert same.flips == ()
    assert {shift.difference for shift in same.shifts} == {0.0}
    assert {shift.p for shift in same.shifts} == {None}
    assert "5 do not differ at all" in differences.render(same)


def test_fewer_than_eight_clusters_decide_no_shift(tmp_path):
    shift = one_shift(
        tmp_path, record_of(above(sample(0, 1.0, 14))), record_of(above(sample(1, 9.0, 14)))
    )
    assert shift.clusters == 7
    assert shift.p is None


def test_a_census_has_no_sampling_error_to_test_against(tmp_path):
    a, b = (margins.above(sample(seed), 0.0, what="all", kind="census") for seed in (0, 1))
    shift = one_shift(tmp_path, record_of(a), record_of(b))
    assert shift.difference == pytest.approx(b.estimate - a.estimate)
    assert shift.interval is None
    assert shift.p is None


def test_parts_of_a_conjunction_are_compared_part_by_part(tmp_path):
    def both(seed: int) -> Verdict:
        parts = (above(sample(seed)), above(sample(seed + 1)))
        return rules.every(*parts, what="both")

    found = between(run_of(tmp_path, record_of(both(0))), run_of(tmp_path, record_of(both(7))))
    assert len(found.shifts) == 2
    assert {shift.how for shift in found.shifts} == {How.PAIRED}


def test_what_has_no_value_for_each_prompt_is_said_to_have_none_and_what_has_no_estimate_too(
    tmp_path,
):
    furthest = [replace(above(sample(seed)), sample=None) for seed in (0, 1)]
    runs = [
        run_of(tmp_path, record_of(each), record_of(above(sample(0)), id="paper.other"),
               record_of(Verdict(Outcome.HOLDS, "after step4"), id="paper.onset"))
        for each in furthest
    ]  # fmt: skip
    found = between(*runs)
    shift = next(each for each in found.shifts if each.how is How.ESTIMATES)
    assert shift.why.startswith("the estimate is of all prompts together")
    text = " ".join(differences.render(found).split())
    assert "3 verdicts compared" in text
    assert "1 of them have no estimate on both sides to subtract, such as a bracket" in text


def test_values_in_other_units_are_not_subtracted(tmp_path):
    b = above(sample(1))
    other = Verdict(**{**vars(b), "unit": "share"})
    found = between(
        run_of(tmp_path, record_of(above(sample(0)))), run_of(tmp_path, record_of(other))
    )
    assert found.shifts == ()


@given(st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=12))
def test_q_is_benjamini_hochberg_over_all_shifts_of_the_comparison(tmp_path_factory, moves):
    folder = tmp_path_factory.mktemp("q")
    a = [record_of(above(sample(i)), id=f"p.{i}") for i in range(len(moves))]
    b = [record_of(above(sample(100 + i, 1.0 + move)), id=f"p.{i}") for i, move in enumerate(moves)]
    found = between(run_of(folder, *a), run_of(folder, *b)).shifts
    ps, qs = [each.p for each in found], [each.q for each in found]
    assert ps == sorted(ps)
    assert qs == pytest.approx(stats.false_discovery_control(ps).tolist())


def test_flips_come_first_then_shifts_then_coverage(tmp_path):
    a = run_of(tmp_path, record_of(above(sample(0))), record_of(above(sample(3)), id="paper.a"))
    b = run_of(
        tmp_path, record_of(above(sample(0, -2.0))), record_of(not_applicable("no"), id="paper.b")
    )
    found = between(a, b)
    [flip] = found.flips
    assert (flip.a.verdict.outcome, flip.b.verdict.outcome) == (Outcome.HOLDS, Outcome.REFUTED)
    text = differences.render(found, width=90)
    places = [
        text.index(word) for word in ("Flips: 1 of 1", "Effect shifts", "Coverage: 1 verdict")
    ]
    assert places == sorted(places)
    assert "HOLDS → REFUTED  paper.claim (ioi)" in text
    assert "only in A: paper.a (ioi) on gpt2: holds" in text
    assert "only in B: paper.b (ioi) on gpt2: not applicable" in text
    assert differences.render(found, ascii=True).isascii()


def test_another_version_of_a_claim_is_not_compared_and_is_named(tmp_path):
    found = between(
        run_of(tmp_path, record_of(above(sample(0)))),
        run_of(tmp_path, record_of(above(sample(0, -2.0)), version=2)),
    )
    assert found.pairs == found.flips == found.shifts == ()
    assert "version 1 in A, 2 in B: not compared" in differences.render(found)


def test_settings_that_differ_are_named(tmp_path):
    a, b = record_of(above(sample(0))), record_of(above(sample(1)))
    half = {"settings": {**SETTINGS, "dtype": "bfloat16", "profile": "full"}}
    found = between(run_of(tmp_path, a), run_of(tmp_path, b, **half))
    assert list(found.notes) == [
        "settings differ: profile quick in A, in B full",
        "settings differ: dtype float32 in A, in B bfloat16",
    ]


def test_two_models_of_one_run_are_compared_checkpoint_by_checkpoint(tmp_path):
    run_of(
        tmp_path,
        *(
            record_of(above(sample(step + len(model))), model=model, step=step)
            for model in ("small", "large-one")
            for step in (0, 10, 20)
        ),
    )
    found = compare(sides.find("latest:small", tmp_path), sides.find("latest:large-one", tmp_path))
    cells = [(pair.a.place.cell, pair.b.place.cell) for pair in found.pairs]
    assert cells == [(f"small:step{step}", f"large-one:step{step}") for step in (0, 10, 20)]


def test_two_checkpoints_of_a_model_are_compared_with_each_other(tmp_path):
    run_of(tmp_path, *(record_of(above(sample(step)), model="m", step=step) for step in (0, 10)))
    first, last = (sides.find(f"latest:m@step{step}", tmp_path) for step in (0, 10))
    [pair] = compare(first, last).pairs
    assert (pair.a.place.cell, pair.b.place.cell) == ("m:step0", "m:step10")
    assert sides.find("m@step10", tmp_path).judged.keys() == last.judged.keys()
    assert sides.find("m:step10", tmp_path).judged.keys() == last.judged.keys()


def test_models_whose_last_checkpoints_differ_are_compared_at_the_last_each_has(tmp_path):
    run_of(
        tmp_path,
        record_of(above(sample(0)), model="a", step=100),
        record_of(above(sample(1)), model="b", step=5000),
    )
    found = compare(sides.find("a", tmp_path), sides.find("b", tmp_path))
    assert len(found.pairs) == 1


def test_in_runs_of_one_model_other_checkpoints_are_coverage_and_no_pairs(tmp_path):
    def run(*steps: int) -> Path:
        found = (record_of(above(sample(step)), model="m", step=step) for step in steps)
        return run_of(tmp_path, *found)

    found = between(run(1, 2), run(2, 3))
    assert [pair.a.place.cell for pair in found.pairs] == ["m:step2"]
    assert [each.place.cell for each in found.only_a] == ["m:step1"]
    assert [each.place.cell for each in found.only_b] == ["m:step3"]


def test_a_model_by_name_is_the_latest_verdict_of_each_claim_with_the_latest_settings(tmp_path):
    full = {"settings": {**SETTINGS, "profile": "full"}}
    run_of(tmp_path, record_of(above(sample(0)), id="p.full"), **full)
    run_of(tmp_path, record_of(above(sample(0)), id="p.one"), record_of(refusal(), id="p.two"))
    run_of(tmp_path, record_of(above(sample(1)), id="p.two"))
    run_of(tmp_path, record_of(above(sample(2)), model="other"))
    side = sides.find("gpt2", tmp_path)
    outcomes = {place.claim: each.verdict.outcome for place, each in side.judged.items()}
    assert outcomes == {"p.one": Outcome.HOLDS, "p.two": Outcome.HOLDS}
    assert "2 runs" in side.title


def refusal() -> Verdict:
    return above(sample(0, -3.0))


def test_a_baseline_is_compared_by_its_estimates(tmp_path):
    a, b = record_of(above(sample(0))), record_of(above(sample(0, -2.0)))
    file = tmp_path / "b.json"
    baseline.write(file, Baseline.of([a], {"settings": SETTINGS}))
    run = run_of(tmp_path, b)
    found = compare(sides.find(str(file), tmp_path), sides.find(str(run), tmp_path))
    assert len(found.flips) == 1
    [shift] = found.shifts
    assert shift.how is How.ESTIMATES
    assert shift.difference == pytest.approx(b.verdict.estimate - a.verdict.estimate, abs=1e-5)
    assert shift.a.unit == "logits"
    assert sides.find(f"{file}:gpt2", tmp_path).models == ("gpt2",)


def test_every_form_of_a_runs_name_is_the_same_run(tmp_path):
    run = run_of(tmp_path, record_of(above(sample(0))))
    names = ("latest", run.name, str(run), str(run / "records.jsonl"), f"{run}:gpt2", "gpt2")
    found = [sides.find(name, tmp_path) for name in names]
    assert all(side.judged.keys() == found[0].judged.keys() for side in found)
    assert all(each.samples for side in found for each in side.judged.values())
    json_ = tmp_path / "report.json"
    json_.write_text(json.dumps([record_of(above(sample(0))).to_json()]))
    assert sides.find(str(json_), tmp_path).judged.keys() == found[0].judged.keys()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gpt3", "models judged there: gpt2"),
        ("latest:gpt3", "has no verdict on 'gpt3'; it has gpt2"),
        ("latest:gpt2@step7", "has no verdict on 'gpt2@step7'; it has gpt2"),
    ],
)
def test_a_name_that_stands_for_nothing_is_refused_with_what_there_is(tmp_path, name, says):
    run_of(tmp_path, record_of(above(sample(0))))
    with pytest.raises(UsageError) as refused:
        sides.find(name, tmp_path)
    assert says in str(refused.value)


def command(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, ["compare", *arguments])


def test_the_command_exits_with_0_without_flips_1_with_flips_and_4_on_usage(tmp_path):
    one = run_of(tmp_path, record_of(above(sample(0))))
    two = run_of(tmp_path, record_of(above(sample(0, -3.0))))
    reports = ("--reports", str(tmp_path))
    assert command(one.name, one.name, *reports).exit_code == 0
    assert command(one.name, two.name, *reports).exit_code == 1
    missing = command(one.name, "nowhere", *reports)
    assert missing.exit_code == 4
    assert "mechtests compare: 'nowhere': a run, a baseline, or a model" in missing.output


def test_the_json_of_a_comparison_has_the_flips_the_shifts_and_the_coverage(tmp_path):
    run_of(tmp_path, record_of(above(sample(0))), record_of(above(sample(2)), id="paper.a"))
    two = run_of(tmp_path, record_of(above(sample(0, -3.0))))
    done = command("latest:gpt2", str(two), "--json", "--reports", str(tmp_path))
    tree = json.loads(done.output)
    assert done.exit_code == 0  # the latest run is the second
    one = records.all_runs(tmp_path)[0]
    done = command(str(one), str(two), "--json")
    tree = json.loads(done.output)
    assert done.exit_code == 1
    assert tree["schema"] == "mechtests-comparison/1"
    assert [each["claim"] for each in tree["flips"]] == ["paper.claim"]
    assert tree["shifts"][0]["how"] == "paired"
    assert tree["only_a"] == [{"claim": "paper.a", "task": "ioi", "cell": "gpt2"}]
    assert tree["only_b"] == []
