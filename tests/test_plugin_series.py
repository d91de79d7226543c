"""Claims over training and over scale as their user meets them: pytest runs on folders of steps."""

import json
import re
from pathlib import Path

import pytest

from tests.saved import save

CLAIMS = '''
from mechtests import claim
from mechtests.metrics import attention, behaviour, gates
from mechtests.onsets import onset
from mechtests.rules import above
from mechtests.showing import shown
from mechtests.tasks.ioi import ioi
from mechtests.tasks.repeated_tokens import repeated_tokens

SCORES = {"scores": attention.head_scores(repeated_tokens)}

@claim("mine.cell", says="It attends.", task=repeated_tokens, needs=SCORES)
def test_cell(measured, judge):
    """Some attention is there."""
    judge(above(measured.scores.sample("induction", "evaluation", 0, 0), -1.0, what="score"))

@claim("mine.training", says="It emerges.", over="training", task=repeated_tokens, needs=SCORES)
def test_training(measured, judge):
    """A head is above nothing from the first checkpoint on."""
    curve = measured.scores.follow("induction", measured.scores.strongest("induction"))
    found = onset((curve, -1.0), what="it", generator=measured.generator("onset"))
    judge(found.verdict().showing(curves=[shown(curve, "it", level=-1.0, onset=found)]))

@claim("mine.gated", says="It does.", over="training", task=ioi,
       gate=gates.BehaviourGate(behaviour.answers(ioi), {"correct": 0.95}), needs=SCORES)
def test_gated(measured, judge):
    """Never asked: the last checkpoint does not do IOI."""
    raise AssertionError("asked all the same")

@claim("mine.shut", says="It does.", task=ioi,
       gate=gates.BehaviourGate(behaviour.answers(ioi), {"correct": 0.95}),
       needs={**SCORES, "untrained": attention.head_scores(repeated_tokens, cell="untrained")})
def test_shut(measured, judge):
    """Never asked: the last checkpoint does not do IOI."""
    raise AssertionError("asked all the same")

@claim("mine.scale", says="It grows.", over="scale", needs=SCORES)
def test_scale(measured, judge):
    """Needs three models."""
    raise AssertionError("asked all the same")
'''
STEPS = (0, 1, 2, 4, 8, 16)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-run"
    for step in STEPS:
        save(folder / f"step{step}", seed=step)
    return folder


@pytest.fixture
def project(series, pytester, monkeypatch, tmp_path):
    monkeypatch.setenv("MECHTESTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytester.makepyfile(test_mine=CLAIMS)
    return pytester


def run(project, *arguments):
    result = project.runpytest_subprocess("-p", "no:randomly", *map(str, arguments))
    result.text = result.stdout.str() + result.stderr.str()
    return result


def records(project):
    newest = max(Path(project.path).glob(".mechtests/runs/*/records.jsonl"))
    found = [json.loads(line) for line in newest.read_text().splitlines()]
    return {(record["claim"]["id"], record["cell"]["id"]): record for record in found}


def test_a_series_is_one_test_and_its_record_names_every_checkpoint(project, series):
    result = run(project, f"--model={series}", "-v")
    assert re.search(r"test_training\[tiny-run\] HOLDS", result.text)
    assert re.search(r"test_cell\[tiny-run:step16\] HOLDS", result.text)
    found = records(project)
    record = found["mine.training", "tiny-run"]
    assert record["cell"]["checkpoint"] is None
    assert set(record["measurements"]) == {f"scores in tiny-run:step{step}" for step in STEPS}
    assert set(record["cell"]["identity"]) == {f"tiny-run:step{step}" for step in STEPS}
    assert len(record["shown"]["curves"][0]["mean"]) == len(STEPS)
    assert "++++++  above -1: by 0" in result.text
    assert found["mine.gated", "tiny-run"]["verdict"] == "not applicable"
    assert "tiny-run:step16 does not do the task ioi" in result.text
    assert "needs 3 models of one family" in found["mine.scale", "tiny-run"]["sentence"]
    run(project, f"--model={series}", "--checkpoints=step:0,1,2,4,8,16", "-k", "training")
    [record] = records(project).values()
    assert "--checkpoints=step:0,1,2,4,8,16" in record["reproduce"]


def test_a_replay_and_workers_reach_the_same_verdicts_over_training(project, series):
    run(project, f"--model={series}")
    first = {at: record["sentence"] for at, record in records(project).items()}
    replayed = run(project, "--mech-replay")
    assert "measuring" not in replayed.text
    assert {at: record["sentence"] for at, record in records(project).items()} == first
    run(project, f"--model={series}", "-n2")
    assert {at: record["sentence"] for at, record in records(project).items()} == first


def test_the_plan_of_a_series_says_once_what_its_checkpoints_cost(project, series):
    result = run(project, f"--model={series}", "--mech-plan")
    assert "plan: 5 verdicts in 6 cells" in result.text
    assert "tiny-run:step16 and 5 more to tiny-run:step8, each" in result.text


def test_too_few_checkpoints_do_not_apply_and_are_not_loaded(project, series):
    result = run(project, f"--model={series}", "--checkpoints=step:0,16", "-k", "training")
    assert "tiny-run has 2 checkpoints in this run, and a claim over training needs 6" in re.sub(
        r"\s+", " ", result.text
    )
    assert "measuring" not in result.text


def test_a_gate_that_is_stored_as_shut_leaves_its_controls_alone(project, series):
    for _ in range(2):
        result = run(project, f"--model={series}", "-k", "shut")
        assert result.ret == 0, result.text
        [record] = records(project).values()
        assert record["verdict"] == "not applicable"
    assert set(record["measurements"]) == {"scores"}
