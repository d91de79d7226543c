"""The plugin as its user meets it: pytest runs of claims on tiny models."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.saved import save

CLAIMS = '''
from mechtests import claim
from mechtests.metrics import behaviour, effects, gates
from mechtests.rules import above
from mechtests.tasks.ioi import ioi
from mechtests.tasks.repeated_tokens import repeated_tokens
from mechtests.metrics import attention
from mechtests.verdict import Outcome, Verdict, refuted

BEHAVIOUR = {"answers": behaviour.answers(ioi)}

@claim("mine.holds", says="It attends.", task=repeated_tokens, components=["induction"],
       needs={"scores": attention.head_scores(repeated_tokens)})
def test_holds(measured, judge):
    """Some attention is there."""
    judge(above(measured.scores.sample("induction", "evaluation", 0, 0), -1.0, what="score"))

@claim("mine.refuted", says="It knows.", task=ioi, needs=BEHAVIOUR)
def test_refuted(measured, judge):
    """Surer than sure."""
    sure = measured.answers.sample("probability_difference", "evaluation")
    judge(above(sure, 5.0, what="probability difference"))

@claim("mine.inconclusive", says="Who knows.", task=ioi, needs=BEHAVIOUR)
def test_inconclusive(measured, judge):
    """At its own mean."""
    sample = measured.answers.sample("logit_difference", "evaluation")
    judge(above(sample, sample.mean, what="logit difference"))

@claim("mine.gated", says="It does.", task=ioi,
       gate=gates.BehaviourGate(behaviour.answers(ioi), {"correct": 0.9}),
       needs={"effects": effects.direct_effects(ioi)})
def test_gated(measured, judge):
    """Never asked: the model does not do IOI."""
    judge(refuted("asked all the same"))
'''


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("models") / "tiny-neox")


@pytest.fixture
def cold(model, pytester, monkeypatch, tmp_path):
    """A project with the claims above, and an empty store.

    The model comes first: pytester forgets what is first imported after it, torch's parts among it.
    """
    monkeypatch.setenv("MECHTESTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "100")
    pytester.makepyfile(test_mine=CLAIMS)
    return pytester


@pytest.fixture(scope="module")
def stored():
    """Where the first warm test leaves its measurements for the others."""
    return {}


@pytest.fixture
def project(cold, model, stored, tmp_path):
    """The same, with everything measured on ``model``: runs load no model."""
    if not stored:
        run(cold, f"--model={model}", "--mech-fail-on=error")
        shutil.rmtree(Path(cold.path) / ".mechtests")
        stored["at"] = shutil.copytree(tmp_path / "cache", model.parent / "stored")
    shutil.copytree(stored["at"], tmp_path / "cache", dirs_exist_ok=True)
    return cold


def run(project, *arguments, **how):
    result = project.runpytest_subprocess("-p", "no:randomly", *map(str, arguments), **how)
    result.text = result.stdout.str() + result.stderr.str()
    return result


def records(project):
    newest = max(Path(project.path).glob(".mechtests/runs/*/records.jsonl"))
    found = [json.loads(line) for line in newest.read_text().splitlines()]
    return {record["claim"]["id"]: record for record in found}


def outcomes(project):
    return {name: record["verdict"] for name, record in records(project).items()}


ALL = {
    "mine.holds": "holds",
    "mine.refuted": "refuted",
    "mine.inconclusive": "inconclusive",
    "mine.gated": "not applicable",
}


def test_each_verdict_has_its_category_its_word_and_its_record(project, model):
    result = run(project, f"--model={model}", "-v")
    assert result.ret == 1
    result.assert_outcomes(passed=1, failed=1, skipped=2)
    for word in ("HOLDS", "REFUTED", "INCONCLUSIVE", "N/A"):
        assert re.search(rf"test_\w+\[tiny-neox\] {word}", result.text), word
    assert outcomes(project) == ALL
    refuted = records(project)["mine.refuted"]
    assert refuted["margin"] == 5.0
    assert refuted["cell"]["model"] == "tiny-neox"
    assert f"--model={model}" in refuted["reproduce"]


@pytest.mark.parametrize("which", [[], ["--model=tiny-neox"]])
def test_a_second_run_and_a_replay_reach_the_same_verdicts_without_the_model(
    cold, tmp_path_factory, which
):
    here = save(tmp_path_factory.mktemp("gone") / "tiny-neox")
    run(cold, f"--model={here}")
    first = records(cold)
    again = run(cold, f"--model={here}")
    assert "measuring" not in again.text
    here.rename(here.with_name("moved"))
    cold.makeconftest(
        "import sys\n"
        "def pytest_sessionfinish():\n"
        "    heavy = {'torch', 'transformers', 'transformer_lens'} & set(sys.modules)\n"
        "    print('HEAVY', sorted(heavy))\n"
    )
    replayed = run(cold, *which, "--mech-replay", "-s")
    assert replayed.ret == 1
    assert "HEAVY []" in replayed.text
    for name, record in records(cold).items():
        for field in ("verdict", "estimate", "interval", "sentence"):
            assert record[field] == first[name][field]


def test_a_replay_that_misses_a_measurement_is_an_error_that_says_so(cold, model, tmp_path):
    run(cold, f"--model={model}", "-k", "refuted")
    result = run(cold, f"--model={model}", "--mech-replay", "-k", "holds")
    result.assert_outcomes(errors=1)
    assert "without --mech-replay" in result.text


@pytest.mark.parametrize("how", [["-n2"], ["-n2", "--dist", "loadfile"], ["-p", "randomly"]])
def test_workers_and_test_order_change_no_verdict_and_load_each_cell_once(cold, model, how):
    cold.makeconftest(
        "from pathlib import Path\n"
        "import mechtests.models.local as local\n"
        "plain = local.LocalSource.load\n"
        "def load(self, *a, **k):\n"
        "    with Path('loads.txt').open('a') as file: file.write(self.name + '\\n')\n"
        "    return plain(self, *a, **k)\n"
        "local.LocalSource.load = load\n"
    )
    result = cold.runpytest_subprocess(f"--model={model}", *how)
    assert result.ret == 1, result.stdout.str()
    assert outcomes(cold) == ALL
    assert (Path(cold.path) / "loads.txt").read_text().split() == ["tiny-neox"]


def test_fail_on_error_reports_a_refuted_claim_without_failing(project, model):
    result = run(project, f"--model={model}", "--mech-fail-on", "error")
    assert result.ret == 0
    assert outcomes(project) == ALL


def test_fail_on_inconclusive_fails(project, model):
    result = run(project, f"--model={model}", "--mech-fail-on=inconclusive", "-k", "inconclusive")
    result.assert_outcomes(failed=1)


def test_fail_on_inconclusive_fails_where_the_gate_is_undecided_and_keeps_the_verdict(
    project, model
):
    project.makepyfile(test_mine=CLAIMS.replace("0.9", "0.5"))
    result = run(project, f"--model={model}", "--mech-fail-on=inconclusive", "-k", "gated")
    result.assert_outcomes(failed=1)
    assert outcomes(project) == {"mine.gated": "inconclusive"}


@pytest.mark.parametrize(
    ("words", "selected"),
    [
        ("ioi", {"mine.refuted", "mine.inconclusive", "mine.gated"}),
        ("induction", {"mine.holds"}),
        ("mine.gated", {"mine.gated"}),
        ("ioi and not gated", {"mine.refuted", "mine.inconclusive"}),
    ],
)
def test_k_selects_by_task_component_and_claim_id(project, model, words, selected):
    run(project, f"--model={model}", "-k", words)
    assert set(records(project)) == selected


def test_a_glob_that_selects_no_claim_is_said_with_what_is_near(project, model):
    result = run(project, f"--model={model}", "--mech-claims", "mine.hold,s")
    assert (
        "--mech-claims mine.hold,s: no collected claim has such an id; did you mean" in result.text
    )
    assert "mine.holds" in result.text


def test_mech_claims_selects_by_claim_id_alone(project, model):
    result = run(project, f"--model={model}", "--mech-claims", "mine.[hr]*")
    assert set(records(project)) == {"mine.holds", "mine.refuted"}
    assert "2 deselected" in result.text


def test_a_word_of_k_that_is_part_of_the_models_name_is_said(project, model):
    result = run(project, f"--model={model}", "-k", "neox", "--mech-plan")
    assert "--mech-claims" in result.text


def test_the_plan_measures_nothing_and_names_what_is_missing_and_stored(cold, model):
    result = run(cold, f"--model={model}", "--mech-plan")
    assert result.ret == 0
    assert "behaviour.answers" in result.text
    assert "0 stored" in result.text
    assert not list(Path(cold.path).glob(".mechtests/runs/*/records.jsonl"))
    run(cold, f"--model={model}", "-k", "refuted")
    assert "(1 stored)" in run(cold, f"--model={model}", "--mech-plan", "-k", "mine").text


def test_an_unknown_model_is_a_usage_error_that_names_near_ones(cold):
    result = run(cold, "--model", "pythia-401m")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "pythia-410m" in result.text
    assert "Traceback" not in result.text


def test_a_path_after_a_space_is_a_usage_error_that_says_how_to_write_it(cold, model):
    result = run(cold, "--model", model)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"--model={model}" in result.text


def test_a_checkpoint_that_does_not_exist_is_a_usage_error_that_names_what_does(cold, tmp_path):
    for step in (0, 1000):
        save(tmp_path / "series" / f"step{step}", seed=step)
    result = run(cold, f"--model={tmp_path / 'series'}", "--checkpoints", "step:7")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "step0" in result.text
    assert "step1000" in result.text


def test_checkpoints_of_a_model_that_cannot_be_asked_for_them_are_a_usage_error(cold):
    result = run(cold, "--model=someone/something", "--checkpoints", "step:7")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "no checkpoints, only its final weights" in result.text


def test_a_folder_of_checkpoints_is_judged_checkpoint_by_checkpoint(cold, tmp_path):
    for step in (0, 1000):
        save(tmp_path / "series" / f"step{step}", seed=step)
    arguments = [f"--model={tmp_path / 'series'}", "--checkpoints", "step:0,1000", "-k", "holds"]
    result = run(cold, *arguments)
    result.assert_outcomes(passed=2)
    newest = max(Path(cold.path).glob(".mechtests/runs/*/records.jsonl"))
    found = [json.loads(line) for line in newest.read_text().splitlines()]
    assert [r["cell"]["checkpoint"]["label"] for r in found] == ["step0", "step1000"]
    assert len({r["cell"]["weights"] for r in found}) == 2


def test_revisions_in_a_hub_cache_are_judged_each_with_weights_of_its_own(cold, tmp_path):
    root = tmp_path / "hub" / "models--someone--tiny-neox"
    (root / "refs").mkdir(parents=True)
    for step in (0, 1000):
        commit = f"{step + 1:040x}"
        save(root / "snapshots" / commit, seed=step)
        (root / "refs" / f"step{step}").write_text(commit)
    result = run(cold, f"--model={root}", "--checkpoints", "step:0,1000", "-k", "holds or refuted")
    result.assert_outcomes(passed=2, failed=2)
    newest = max(Path(cold.path).glob(".mechtests/runs/*/records.jsonl"))
    found = [json.loads(line) for line in newest.read_text().splitlines()]
    assert {r["cell"]["id"] for r in found} == {"tiny-neox:step0", "tiny-neox:step1000"}
    assert len({r["cell"]["weights"] for r in found}) == 2
    assert {r["cell"]["identity"]["commit"] for r in found} == {f"{1:040x}", f"{1001:040x}"}
    assert len({r["estimate"] for r in found}) == 4


def test_a_model_that_does_not_load_is_an_error_and_never_a_skip(cold, tmp_path):
    folder = save(tmp_path / "broken")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    result = run(cold, f"--model={folder}", "-k", "refuted")
    result.assert_outcomes(errors=1)
    assert outcomes(cold) == {"mine.refuted": "error"}
    assert "model.safetensors" in records(cold)["mine.refuted"]["sentence"]
    assert "judging.py" not in result.text  # a sentence, not a traceback


@pytest.mark.parametrize(
    ("where", "error", "says"),
    [
        ("models.local.LocalSource.load", "MemoryError()", "out of memory"),
        ("tape.Tape._pass", "RuntimeError('no such shape')", "no such shape"),
    ],
)
def test_what_a_model_does_wrong_is_an_error_of_its_tests_and_never_of_the_run(
    cold, model, where, error, says
):
    cold.makeconftest(
        "import pytest\n"
        "def fails(*a, **k):\n"
        f"    raise {error}\n"
        "def pytest_collection_finish():\n"
        f"    pytest.MonkeyPatch().setattr('mechtests.{where}', fails)\n"
    )
    result = run(cold, f"--model={model}", "-k", "refuted")
    result.assert_outcomes(errors=1)
    assert says in records(cold)["mine.refuted"]["sentence"]


def test_a_store_that_cannot_be_written_still_gives_verdicts(cold, model, tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_text("in the way")
    for how in ([], ["-n2"]):
        result = run(cold, f"--model={model}", f"--mech-cache={blocked}", *how)
        assert outcomes(cold) == ALL
        assert "cannot be written" in result.text


def test_a_store_that_no_file_system_knows_is_a_usage_error(cold, model):
    result = run(cold, f"--model={model}", "--mech-cache=nowhere://at/all")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "--mech-cache nowhere://at/all: cannot be opened" in result.text


def test_a_damaged_entry_is_measured_again_with_a_note(cold, model, tmp_path):
    run(cold, f"--model={model}", "-k", "refuted")
    for entry in (tmp_path / "cache").rglob("v1/*/*.safetensors"):
        entry.write_bytes(b"damaged")
    result = run(cold, f"--model={model}", "-k", "refuted")
    assert "damaged" in result.text
    assert outcomes(cold) == {"mine.refuted": "refuted"}


def test_a_run_that_is_killed_while_measuring_resumes_where_it_was(cold, model):
    kill = (
        "import os\nfrom mechtests.metrics import effects\n"
        "from mechtests.store import Store\nplain = Store.put\n"
        "def put(self, key, measurement, request):\n"
        "    plain(self, key, measurement, request)\n"
        "    if measurement.name == 'behaviour.answers': os._exit(9)\n"
        "Store.put = put\n"
    )
    cold.makeconftest(kill)
    assert run(cold, f"--model={model}").ret == 9
    (Path(cold.path) / "conftest.py").unlink()
    assert "(1 stored)" in run(cold, f"--model={model}", "--mech-plan").text
    run(cold, f"--model={model}")
    assert outcomes(cold) == ALL


def test_ctrl_c_while_measuring_keeps_what_was_measured(cold, model):
    cold.makeconftest(
        "from mechtests.store import Store\nplain = Store.put\n"
        "def put(self, key, measurement, request):\n"
        "    plain(self, key, measurement, request)\n"
        "    raise KeyboardInterrupt\n"
        "Store.put = put\n"
    )
    assert run(cold, f"--model={model}").ret == pytest.ExitCode.INTERRUPTED
    (Path(cold.path) / "conftest.py").unlink()
    assert "(1 stored)" in run(cold, f"--model={model}", "--mech-plan").text


def test_a_run_with_a_model_and_without_claims_says_how_to_run_the_shipped_ones(pytester):
    result = pytester.runpytest_subprocess("-k", "ioi", "--model", "pythia-410m")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    said = [line for line in result.stdout.lines if "mechtests.suite.assertions" in line]
    assert len(said) == 1
    assert "--model pythia-410m" in said[0]


def test_another_projects_model_option_is_left_alone(project, model):
    project.makeconftest("def pytest_addoption(parser): parser.addoption('--model')\n")
    project.makepyfile(
        test_theirs="def test_theirs(request):\n"
        "    assert request.config.getoption('--model') == 'theirs'\n"
    )
    result = run(project, "--model", "theirs", f"--mech-model={model}", "-k", "theirs or refuted")
    result.assert_outcomes(passed=1, failed=1)


def test_a_test_that_never_judges_is_an_error(project, model):
    project.makepyfile(test_mine=CLAIMS.replace("judge(refuted", "(refuted").replace("0.9", "0.01"))
    result = run(project, f"--model={model}", "-k", "gated")
    assert result.ret == 1
    assert "without a verdict" in result.text


def test_a_measurement_that_was_not_declared_is_named_with_those_that_were(cold, model):
    cold.makepyfile(
        test_mine=CLAIMS.replace('measured.answers.sample("prob', 'measured.anwsers.sample("prob')
    )
    result = run(cold, f"--model={model}", "-k", "refuted")
    assert "measured.anwsers" in result.text
    assert "declare answers" in result.text


def test_a_users_own_prompts_are_judged_and_marked(cold, model, tmp_path):
    rows = ["clean,corrupted,answer,wrong"]
    names = [("John", "Mary"), ("Mary", "John"), ("Paul", "Anna"), ("Anna", "Paul")] * 8
    for io, s in names:
        story = f"Then, {io} and {s} went to the store. {{}} gave a ring to"
        rows.append(f'"{story.format(s)}","{story.format(io)}", {io}, {s}')
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(rows) + "\n")
    own = f"--mech-prompts=ioi={path}"
    loud = "--mech-fail-on=inconclusive"
    result = run(cold, f"--model={model}", own, loud, "-k", "refuted or inconclusive")
    assert f"--prompts=ioi={path}" in re.sub(r"\n\s*", "", result.text)
    found = records(cold)["mine.refuted"]
    assert found["overridden"] is True
    assert found["prompts"] < 60
    assert f"--mech-prompts=ioi={path}" in found["reproduce"]


def test_a_csv_without_a_column_is_a_usage_error_that_names_it(cold, model, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("clean,answer,wrong\na,b,c\n")
    result = run(cold, f"--model={model}", f"--mech-prompts=ioi={path}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "corrupted" in result.text


def test_prompts_for_a_task_that_no_claim_reads_are_a_usage_error(cold, model, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("clean,corrupted,answer,wrong\na,b,c,d\n")
    result = run(cold, f"--model={model}", f"--mech-prompts=iio={path}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "reads prompts of iio; they read those of ioi, repeated_tokens" in result.text


def test_reports_are_written_where_they_are_asked_for(project, model, tmp_path):
    run(
        project,
        f"--model={model}",
        f"--mech-report={tmp_path}/a.json",
        f"--mech-report={tmp_path}/b.jsonl",
    )
    whole = json.loads((tmp_path / "a.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert whole == lines
    assert {r["claim"]["id"] for r in lines} == set(ALL)
    assert all("q" in record for record in lines)


def test_a_page_and_a_summary_are_written_beside_the_records(project, model, tmp_path):
    run(
        project,
        f"--model={model}",
        f"--mech-report={tmp_path}/a.html",
        f"--mech-report={tmp_path}/a.md",
    )
    page, summary = ((tmp_path / f"a.{suffix}").read_text() for suffix in ("html", "md"))
    for claim in ALL:
        assert f'id="c-{claim}"' in page
        assert claim in summary.replace("\\", "")


def test_a_page_has_the_prompts_that_decided_and_what_earlier_runs_and_the_baseline_said(
    project, model, tmp_path
):
    asked = f"--model={model}"
    for how in ([], [f"--mech-bless={tmp_path}/b.json"]):
        run(project, asked, "-k", "refuted", *how)
    reports = [f"--mech-report={tmp_path}/a.{suffix}" for suffix in ("html", "md")]
    run(project, asked, "-k", "refuted", f"--mech-baseline={tmp_path}/b.json", *reports)
    runs = sorted(path.name for path in Path(project.path).glob(".mechtests/runs/*"))
    page, summary = ((tmp_path / f"a.{suffix}").read_text() for suffix in ("html", "md"))
    assert f"{runs[1]} and 1 before it, which say the same" in page
    assert "<td>b</td>" in page
    assert "Worst prompts <small>answers.probability_difference" in page
    assert re.search(r'<th scope="row">\w+, \w+ and \w+ ', page)  # the text of a prompt
    assert "before:" not in summary  # what is expected is not listed
    again = [sys.executable, "-m", "mechtests", "report", runs[1], "-o", f"{tmp_path}/c.md"]
    subprocess.run(again, cwd=project.path, check=True)
    assert f"<br>before: ❌ {runs[0][:4]}" in (tmp_path / "c.md").read_text()


def test_a_badge_is_written_where_it_is_asked_for(project, model, tmp_path):
    run(project, f"--model={model}", f"--mech-report={tmp_path}/badge.json")
    badge = json.loads((tmp_path / "badge.json").read_text())
    assert badge == {
        "schemaVersion": 1, "label": "claims", "message": "1 of 2 hold", "color": "red",
    }  # fmt: skip


def test_the_command_of_a_record_reaches_its_verdict_from_where_the_run_was(
    project, model, tmp_path
):
    inside = Path(project.path) / "inner"
    inside.mkdir()
    (Path(project.path) / "test_mine.py").rename(inside / "test_it.py")
    (Path(project.path) / "pytest.ini").write_text("[pytest]\n")
    elsewhere = Path(project.path) / "elsewhere"
    elsewhere.mkdir()
    for folder, file in ((Path(project.path), "inner"), (elsewhere, "../inner")):
        subprocess.run(
            [sys.executable, "-m", "pytest", file, f"--model={model}"],
            cwd=folder, check=False, capture_output=True,
        )  # fmt: skip
        command = records(project)["mine.holds"]["reproduce"]
        assert command.startswith(f"pytest '{file}/test_it.py::test_holds[")
        words = [sys.executable, "-m", *shlex.split(command)]
        subprocess.run(words, cwd=folder, check=True, capture_output=True)
        assert outcomes(project) == {"mine.holds": "holds"}


def test_a_report_that_cannot_be_written_is_a_note_and_changes_no_exit_code(
    project, model, tmp_path
):
    (tmp_path / "file").write_text("")
    plain = run(project, f"--model={model}")
    result = run(project, f"--model={model}", f"--mech-report={tmp_path}/file/a.html")
    assert result.ret == plain.ret
    assert "cannot be written" in result.text


def test_junit_has_the_verdicts(project, model, tmp_path):
    run(project, f"--model={model}", f"--junitxml={tmp_path}/junit.xml")
    text = (tmp_path / "junit.xml").read_text()
    assert 'failures="1"' in text
    assert 'skipped="2"' in text
    assert "claimed above 5" in text
    assert text.count('<property name="mechtests.verdict" value=') == len(ALL)


def test_a_report_in_a_format_that_is_not_written_is_refused(project, model):
    result = run(project, f"--model={model}", "--mech-report=report.pdf")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert ".jsonl or badge.json, got report.pdf" in result.text


def test_a_test_that_raises_after_it_judged_is_an_error(project, model):
    project.makepyfile(test_mine=CLAIMS.replace('what="score"))', 'what="score")); 1 / 0'))
    result = run(project, f"--model={model}", "-k", "holds")
    assert result.ret == 1
    assert outcomes(project) == {"mine.holds": "error"}
    assert "ZeroDivisionError" in records(project)["mine.holds"]["sentence"]


def test_what_the_paper_expects_is_xfailed_and_what_it_did_not_expect_is_changed(project, model):
    expected = 'exceptions={"tiny-*": "the paper says so"}, says='
    project.makepyfile(test_mine=CLAIMS.replace("says=", expected))
    result = run(project, f"--model={model}", "-k", "holds or refuted")
    result.assert_outcomes(xfailed=1, failed=1)
    assert "changed: a refutation was expected" in result.text
    assert outcomes(project) == {"mine.holds": "holds", "mine.refuted": "refuted"}
    run(project, f"--model={model}", "-k", "holds", "--mech-fail-on=refuted").assert_outcomes(
        passed=1
    )


def test_claims_that_cannot_be_judged_yet_are_refused_in_a_sentence(project, model):
    project.makepyfile(test_mine=CLAIMS.replace('"mine.holds",', '"mine.holds", over="seeds",'))
    result = run(project, f"--model={model}")
    assert "claims over seeds cannot be judged by this version" in result.text
    assert result.ret != 0
