"""Claims and series of values recorded of real Pythia models, where those are at hand."""

import json
import sys
from pathlib import Path

import pytest

from mechtests import engine, judging, plan
from mechtests.claim import Claim
from mechtests.errors import NotApplicable
from mechtests.importing import Options, import_file
from mechtests.metrics import behaviour, copying
from mechtests.models.cell import Cell
from mechtests.models.recorded import RecordedSource
from mechtests.plan import Case, Settings
from mechtests.recorded_errors import of_share
from mechtests.store import Store
from mechtests.tasks.ioi import ioi

RECORDED = Path(__file__).parents[2] / "shared" / "reference" / "recorded"
SIZES = ("70m", "160m", "410m", "1.4b", "2.8b")
MODELS = ",".join(f"recorded:pythia-{size}" for size in SIZES)
ASSERTIONS = Path(__file__).parents[1] / "assertions"

pytestmark = pytest.mark.skipif(not RECORDED.is_dir(), reason="the reference values are not here")


@pytest.fixture
def records(pytester, monkeypatch, tmp_path):
    """The records of the behaviour claims on all five models, by claim and subject."""
    monkeypatch.setenv("MECHTESTS_CACHE", str(tmp_path / "cache"))
    files = [
        RECORDED / "ioi_logit_diff_by_step_5models.csv",
        *(f"--replicate={RECORDED / name}" for name in ("pythia-160m_ioi_graph_metrics.csv",)),
        f"--replicate={RECORDED / 'pythia-2.8b_ioi_circuit_size.csv'}",
        *("--proportional", "--zero-until=64", "--prompts=70", "--source=Tigges et al. 2024"),
    ]
    pytester.run(sys.executable, "-m", "mechtests", "import", *map(str, files))
    run = pytester.runpytest_subprocess(
        str(ASSERTIONS), "-p", "no:randomly", "--mech-fail-on=error", f"--model={MODELS}",
        "--mech-claims=tigges2024.behaviour-*", "--mech-claims=sanity.gates", "-k", "ioi",
        f"--rootdir={pytester.path}",
    )  # fmt: skip
    assert run.ret == 0, run.stdout.str()
    [path] = Path(pytester.path).glob("*/runs/*/records.jsonl")
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return {(r["claim"]["id"].partition(".")[2], r["cell"]["id"]): r for r in found}


def test_real_pythia_does_what_the_recorded_values_say(records):
    at_end = {size: records["gates", f"recorded:pythia-{size}:step140000"] for size in SIZES}
    for size, record in at_end.items():
        word = "failed" if size == "70m" else "undecided"  # without accuracy none can pass
        assert f"ioi gate {word}" in record["sentence"], size
        assert (record["verdict"] == "holds") == (size == "70m"), size
    for size in SIZES:
        first = records["behaviour-repeats-first", f"recorded:pythia-{size}"]
        assert first["verdict"] == "holds", first["sentence"]
        fall = records["behaviour-nondecreasing", f"recorded:pythia-{size}"]
        assert (fall["verdict"] == "refuted") == (size == "70m"), fall["sentence"]
    scale = records["behaviour-scale-threshold", "recorded:pythia"]
    [control] = scale["controls"]
    assert "no threshold seen" not in control["sentence"]  # 70m and 160m learn later than 410m
    copying = records["behaviour-onset-aligned", "recorded:pythia"]
    assert "absent, since there is one task" in copying["controls"][0]["sentence"]


@pytest.fixture
def turning(monkeypatch, tmp_path):
    """What a claim over training reads of pythia-160m: copy scores, and the logit difference."""
    monkeypatch.setenv("MECHTESTS_CACHE", str(tmp_path / "cache"))
    scores = Options(binomial=70, prompts=70)
    import_file(RECORDED / "pythia-160m_ioi_copy_scores.json", scores)
    behaves = Options(column="ioi_logit_diff", prompts=70, error=0.3, source="Tigges et al. 2024")
    import_file(RECORDED / "pythia-160m_ioi_graph_metrics.csv", behaves)
    needs = {"copying": copying.copy_scores(ioi), "answers": behaviour.answers(ioi)}
    claim = Claim(id="test.claim", says="", rule="", task="ioi", over="training", needs=needs)
    return over_training(claim, tmp_path)


def over_training(claim, tmp_path):
    source = RecordedSource("pythia-160m")
    cells = tuple(Cell(source.name, at, source) for at in source.checkpoints())
    store = Store(tmp_path / "store")
    made = plan.build([Case(claim, cells[-1], cells, source.name)], Settings(), store)
    return judging.prepare(made.cases[0], engine.run(made, store))


PUBLISHED = {
    (8, 1): {16000: 99, 105000: 96, 126000: 54, 143000: 29.5},
    (9, 4): {53000: 93.8, 74000: 29.5, 105000: 75.7, 143000: 14.8},
    (9, 7): {87000: 61, 143000: 1.0},
    (10, 7): {32000: 89, 143000: 60.5},
}
"""Copy scores in percent, as our notes on the paper have them (section 1C)."""
CHECKPOINTS = {(8, 1): 58, (9, 4): 79, (9, 7): 102, (10, 7): 103, (10, 11): 81}


@pytest.mark.parametrize("head", PUBLISHED, ids=lambda head: "{}.{}".format(*head))
def test_the_copy_scores_of_heads_that_turn_over_are_the_published_ones(turning, head):
    curve = turning.copying.curve("copied", "evaluation", *head)
    for step, percent in PUBLISHED[head].items():
        point = curve.at(f"step{step}")
        decimals = len(str(percent).partition(".")[2])
        assert abs(100 * point.mean - percent) <= 0.5 * 10**-decimals + 0.05, (step, point)
        assert point.error == of_share(point.mean, 70)


def test_the_heads_with_values_are_known_and_those_with_a_note_are_not(turning):
    assert turning.copying.heads("copied") == CHECKPOINTS
    for head, count in CHECKPOINTS.items():
        curve = turning.copying.curve("copied", "evaluation", *head)
        assert len(curve) == count
        of_trials = 210 * curve.means  # 70 prompts at three positions
        assert abs(of_trials - of_trials.round()).max() < 1e-4
        assert curve.positions[-1] == 143000 * 2_097_152
    for head in ((8, 2), (8, 10), (6, 6), (9, 6), (4, 6)):
        with pytest.raises(NotApplicable, match=r"at {}\.{}".format(*head)):
            turning.copying.curve("copied", "evaluation", *head)


def test_a_step_without_a_score_is_unknown_and_not_0(turning):
    steps = [moment.step for moment in turning.copying.moments]
    at = dict(zip(steps, turning.copying, strict=True))
    assert all(each["copied"].shape == (12, 12) for each in at.values())
    assert at[92000].estimate("copied", 10, 7).mean > 0.5
    with pytest.raises(NotApplicable, match=r"at 9\.7"):
        at[92000].estimate("copied", 9, 7)


def test_logit_difference_and_copy_scores_are_one_recording_each_at_its_own_checkpoints(turning):
    behaves = turning.answers.curve("logit_difference")
    heads = {head: turning.copying.curve("copied", "evaluation", *head) for head in CHECKPOINTS}
    assert (behaves.labels[0], len(behaves)) == ("step4000", 140)
    assert min(len(curve) for curve in heads.values()) < len(turning.copying) < len(behaves)
    late = behaves.between("step60000", "step143000")
    assert (round(late.means.min(), 2), round(late.means.max(), 2)) == (3.19, 4.83)
    for curve in heads.values():
        assert set(curve.labels) <= set(behaves.labels)
    assert turning.dropped == {}


def test_checkpoints_of_two_recordings_are_united_and_neither_fills_the_other(turning, tmp_path):
    import_file(RECORDED / "ioi_logit_diff_by_step_5models.csv", Options(error=0.3))
    both = over_training(
        Claim(
            id="test.claim", says="", rule="", task="ioi", over="training",
            needs={"copying": copying.copy_scores(ioi), "answers": behaviour.answers(ioi)},
        ),
        tmp_path,
    )  # fmt: skip
    behaves = both.answers.curve("logit_difference")
    assert (behaves.labels[0], behaves.labels[-1], len(behaves)) == ("step1", "step140000", 43)
    assert both.copying.heads("copied") == CHECKPOINTS
    assert {at.label for at in RecordedSource("pythia-160m").checkpoints()} == {
        *behaves.labels,
        *(moment.label for moment in both.copying.moments),
    }


@pytest.fixture
def turned(pytester, monkeypatch, tmp_path):
    """The records of the claims on heads that turn over, on pythia-160m, by claim and task."""
    monkeypatch.setenv("MECHTESTS_CACHE", str(tmp_path / "cache"))
    for given in (
        (RECORDED / "pythia-160m_ioi_copy_scores.json", "--binomial=70"),
        (RECORDED / "pythia-160m_ioi_graph_metrics.csv", "--column=ioi_logit_diff",
         "--source=Tigges et al. 2024", "--proportional",
         f"--replicate={RECORDED / 'ioi_logit_diff_by_step_5models.csv'}"),
    ):  # fmt: skip
        options = [*map(str, given), "--prompts=70"]
        done = pytester.run(sys.executable, "-m", "mechtests", "import", *options)
        assert done.ret == 0, done.stderr.str()
    run = pytester.runpytest_subprocess(
        str(ASSERTIONS), "-p", "no:randomly", "--mech-fail-on=error",
        "--model=recorded:pythia-160m",
        "-k", "heads-turn-over or task-survives-turnover or named-heads-160m",
        f"--rootdir={pytester.path}",
    )  # fmt: skip
    assert run.ret == 0, run.stdout.str()
    [path] = Path(pytester.path).glob("*/runs/*/records.jsonl")
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return {(r["claim"]["id"].partition(".")[2], r["claim"]["task"]): r for r in found}


def test_the_heads_of_section_1c_surely_lose_copying_and_others_do_not(turned):
    found = turned["heads-turn-over", "ioi"]
    lost = {part["sentence"].partition(":")[0]: part["verdict"] for part in found["parts"]}
    assert lost == {
        **dict.fromkeys(("8.1", "9.4", "9.7"), "holds"),
        "10.7": "refuted",  # 60.5 of 89 percent are left
        "10.11": lost["10.11"],
    }
    # the note on 9.6 tells of its rise to 33 percent; the heads with values do not surely double
    assert found["verdict"] == "inconclusive", found["sentence"]
    assert "8.1, 9.4, 9.7" in found["sentence"].replace(", 10.11", "")
    assert turned["task-survives-turnover", "ioi"]["verdict"] == "not applicable"


def test_of_the_named_heads_those_that_were_recorded_are_lost_and_the_others_leave_it_open(turned):
    named = turned["named-heads-160m", None]
    said = {part["sentence"].partition(":")[0]: part["verdict"] for part in named["parts"]}
    assert said.pop("4.6") == said.pop("5.9") == "inconclusive"  # not recorded
    assert said == dict.fromkeys(("8.1", "9.4", "9.7"), "holds")
    assert named["verdict"] == "inconclusive", named["sentence"]
