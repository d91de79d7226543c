"""Baselines and shards as their user meets them: pytest runs of claims on a tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mechtests.reporting import baseline, merging, records, samples
from mechtests.reporting.place import Place
from mechtests.reporting.record import schema
from tests.saved import save

CLAIMS = '''
from mechtests import claim
from mechtests.metrics import attention, behaviour
from mechtests.rules import above
from mechtests.tasks.ioi import ioi
from mechtests.tasks.repeated_tokens import repeated_tokens
from mechtests.verdict import not_applicable

ANSWERS = {"answers": behaviour.answers(ioi)}
SCORES = {"scores": attention.head_scores(repeated_tokens)}

@claim("mine.holds", says="It attends.", task=repeated_tokens, needs=SCORES)
def test_holds(measured, judge):
    """Some attention is there."""
    judge(above(measured.scores.sample("induction", "evaluation", 0, 0), -1.0, what="score"))

@claim("mine.refuted", says="It knows.", task=ioi, needs=ANSWERS)
def test_refuted(measured, judge):
    """Surer than sure."""
    sure = measured.answers.sample("probability_difference", "evaluation")
    judge(above(sure, 5.0, what="probability difference"))

@claim("mine.inconclusive", says="Who knows.", task=ioi, needs=ANSWERS)
def test_inconclusive(measured, judge):
    """At its own mean."""
    sample = measured.answers.sample("logit_difference", "evaluation")
    judge(above(sample, sample.mean, what="logit difference"))

@claim("mine.apart", says="It may.", task=ioi, needs=ANSWERS)
def test_not_applicable(measured, judge):
    """Never."""
    judge(not_applicable("it does not apply"))
'''
TOO = "--mech-bless-inconclusive"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("models")
    return tuple(save(folder / f"tiny-{name}", seed=i) for i, name in enumerate("ab"))


@pytest.fixture(scope="module")
def stored() -> dict[str, Path]:
    """Where the first test leaves its measurements for the others."""
    return {}


@pytest.fixture
def project(models, stored, pytester, monkeypatch, tmp_path):
    """A project with the claims above, and everything measured on the models."""
    monkeypatch.setenv("MECHTESTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "100")
    pytester.makepyfile(test_mine=CLAIMS)
    if not stored:
        run(pytester, *named(models), "--mech-fail-on=error")
        shutil.rmtree(Path(pytester.path) / ".mechtests")
        stored["at"] = shutil.copytree(tmp_path / "cache", models[0].parent / "stored")
    shutil.copytree(stored["at"], tmp_path / "cache", dirs_exist_ok=True)
    return pytester


def named(models: tuple[Path, ...]) -> list[str]:
    return [f"--model={model}" for model in models]


def run(project: Any, *arguments: Any) -> Any:
    result = project.runpytest_subprocess("-p", "no:randomly", *map(str, arguments))
    result.text = result.stdout.str() + result.stderr.str()
    return result


def latest(project: Any) -> Path:
    return records.latest(Path(project.path) / ".mechtests")


def expectations(project: Any) -> dict[str, tuple[bool, bool]]:
    """Whether each claim's verdict is expected, and whether it changed."""
    found = records.read(latest(project))
    for line in (latest(project) / "records.jsonl").read_text().splitlines():
        jsonschema.Draft202012Validator(schema()).validate(json.loads(line))
    return {record.claim.id: (record.expected, record.changed) for record in found}


def tamper(file: Path, of: str, **how: Any) -> None:
    tree = json.loads(file.read_text())
    for entry in tree["verdicts"]:
        if entry["claim"] == of:
            entry.update(how)
    file.write_text(json.dumps(tree))


@pytest.mark.parametrize("how", [[], ["-n2"]])
def test_what_was_blessed_is_expected_and_what_changed_since_fails(project, models, tmp_path, how):
    file = tmp_path / "b.json"
    blessed = run(project, *named(models[:1]), f"--mech-bless={file}", TOO, *how)
    assert blessed.ret == 0
    assert f"blessed 4 verdicts into {file}, a new baseline" in blessed.text
    jsonschema.Draft202012Validator(baseline.schema()).validate(json.loads(file.read_text()))

    again = run(project, *named(models[:1]), f"--mech-baseline={file}", "-v", *how)
    assert again.ret == 0
    again.assert_outcomes(passed=1, xfailed=3)
    for word in ("EXPECTED REFUTED", "EXPECTED INCONCLUSIVE", "EXPECTED N/A"):
        assert word in again.text
    assert "baseline b.json: 4 as before" in again.text
    assert expectations(project) == {
        "mine.holds": (False, False),
        "mine.refuted": (True, False),
        "mine.inconclusive": (True, False),
        "mine.apart": (True, False),
    }

    tamper(file, "mine.holds", verdict="refuted")
    tamper(file, "mine.inconclusive", verdict="holds")
    tamper(file, "mine.apart", version=2)
    changed = run(project, *named(models[:1]), f"--mech-baseline={file}", "-rA", *how)
    assert changed.ret == 1
    changed.assert_outcomes(failed=2, xfailed=1, skipped=1)
    assert "changed: refuted was expected (the baseline b.json" in changed.text
    assert "baseline b.json: 1 as before, 2 changed, 1 stale" in changed.text
    assert "mine.holds (repeated_tokens) on tiny-a: refuted, now holds" in changed.text
    assert "stale: mine.apart (ioi) on tiny-a: the baseline has version 2" in changed.text
    assert expectations(project)["mine.holds"] == (False, True)
    lenient = run(project, *named(models[:1]), f"--mech-baseline={file}", "--mech-fail-on=error")
    assert lenient.ret == 0


def test_what_is_missing_or_new_is_named_and_fails_only_when_told(project, models, tmp_path):
    file = tmp_path / "b.json"
    run(project, *named(models), f"--mech-bless={file}", TOO)
    tamper(file, "mine.apart", claim="mine.gone")
    common = [f"--mech-baseline={file}", *named(models[:1])]
    result = run(project, *common)
    assert result.ret == 0
    assert "missing: mine.gone (ioi) on tiny-a: this run did not judge it" in result.text
    assert "new: mine.apart (ioi) on tiny-a: not applicable" in result.text
    assert "not in this run, though in the baseline: tiny-b" in result.text
    told = run(project, *common, "--mech-fail-on=refuted,changed,error,missing")
    assert told.ret == 1
    some = run(project, *common, "-k", "holds or refuted")
    assert "missing: mine.gone" in some.text  # nothing of that name was collected
    assert "mine.inconclusive" not in some.text.partition("baseline b.json")[2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "2 inconclusive verdicts"),
        ([TOO, "-x", "--mech-fail-on=refuted"], "the run was not complete"),
        ([TOO, "--deselect=test_mine.py::test_holds"], "--deselect left out tests"),
        ([TOO, "--ignore-glob=*no_such*"], "--ignore-glob left out tests"),
        ([TOO, "--mech-shard=1/2"], "it is shard 1/2 of a run"),
    ],
)
def test_a_run_that_may_not_be_expected_is_not_blessed(project, models, tmp_path, arguments, says):
    file = tmp_path / "b.json"
    result = run(project, *named(models), f"--mech-bless={file}", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"--mech-bless {file}: not blessed, because" in result.text
    assert says in result.text
    assert not file.exists()


@pytest.mark.parametrize("arguments", [["-k", "no_such_test"], ["test_other.py"]])
def test_a_run_that_judged_nothing_says_that_it_was_not_blessed(
    project, models, tmp_path, arguments
):
    project.makepyfile(test_other="def test_of_something_else(): pass")
    file = tmp_path / "b.json"
    result = run(project, *named(models), f"--mech-bless={file}", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"--mech-bless {file}: not blessed, because no claim was judged" in result.text


def test_a_run_with_an_error_or_a_users_own_prompts_is_not_blessed(project, models, tmp_path):
    file = tmp_path / "b.json"
    project.makepyfile(test_mine=CLAIMS.replace("judge(not_applicable", "1 / 0; (not_applicable"))
    broken = run(project, *named(models[:1]), f"--mech-bless={file}", TOO)
    assert broken.ret == pytest.ExitCode.USAGE_ERROR
    assert "1 error (mine.apart (ioi) on tiny-a): mend them first" in broken.text
    project.makepyfile(test_mine=CLAIMS)
    rows = ["clean,corrupted,answer,wrong"]
    for io, s in [("John", "Mary"), ("Mary", "John"), ("Paul", "Anna"), ("Anna", "Paul")] * 8:
        story = f"Then, {io} and {s} went to the store. {{}} gave a ring to"
        rows.append(f'"{story.format(s)}","{story.format(io)}", {io}, {s}')
    (tmp_path / "mine.csv").write_text("\n".join(rows) + "\n")
    own = run(
        project,
        *named(models[:1]),
        f"--mech-bless={file}",
        TOO,
        f"--mech-prompts=ioi={tmp_path}/mine.csv",
    )
    assert own.ret == pytest.ExitCode.USAGE_ERROR
    assert "a setting from outside changed the rule of mine." in own.text
    assert not file.exists()


def test_a_selection_is_blessed_by_name_and_never_drops_what_it_left_out(project, models, tmp_path):
    file = tmp_path / "b.json"
    one = [*named(models[:1]), f"--mech-bless={file}", TOO]
    assert run(project, *one, "-k", "holds").ret == 0
    assert baseline.read(file).selection == ("-k holds",)
    whole = run(project, *one)
    assert "3 verdicts" not in whole.text
    assert "new: mine.refuted (ioi) on tiny-a: refuted" in whole.text
    assert "selection: -k holds, now all" in whole.text
    again = run(project, *one, "-k", "holds")
    assert again.ret == pytest.ExitCode.USAGE_ERROR
    assert "-k holds left out 3 verdicts of the file" in again.text


def test_a_baseline_that_is_none_or_of_nothing_here_is_refused_before_measuring(
    project, models, tmp_path
):
    missing = run(project, *named(models), f"--mech-baseline={tmp_path}/none.json")
    assert missing.ret == pytest.ExitCode.USAGE_ERROR
    assert "write it with pytest --mech-bless" in missing.text
    file = tmp_path / "b.json"
    run(project, *named(models[:1]), f"--mech-bless={file}", TOO)
    before = records.all_runs(Path(project.path) / ".mechtests")
    other = run(project, *named(models[1:]), f"--mech-baseline={file}")
    assert other.ret == pytest.ExitCode.USAGE_ERROR
    assert "it is on tiny-a, and this run on tiny-b" in other.text
    assert records.all_runs(Path(project.path) / ".mechtests") == before


def test_the_values_behind_an_estimate_are_kept_in_a_run_and_cross_workers(project, models):
    for how in ([], ["-n2"]):
        run(project, *named(models), *how)
        found = samples.read(latest(project))
        record = next(r for r in records.read(latest(project)) if r.claim.id == "mine.holds")
        values = found[Place.of(record)][()]
        assert len(values) == record.verdict.prompts
        assert values.mean == pytest.approx(record.verdict.estimate, rel=1e-6)


def test_shards_that_are_merged_equal_the_whole_run(project, models):
    folder = Path(project.path) / ".mechtests"
    run(project, *named(models))
    whole = latest(project)
    shards = []
    for index, how in ((2, ["-n2"]), (1, [])):
        result = run(project, *named(models), f"--mech-shard={index}/2", *how)
        assert "4 deselected" in result.text
        shards.append(latest(project))
    cells = [{record.cell.id for record in records.read(shard)} for shard in shards]
    assert sorted(map(len, cells)) == [1, 1]
    assert cells[0] != cells[1]
    merged, said = merging.merge(shards, folder)
    assert said == []
    assert comparable(merged) == comparable(whole)
    assert samples.lines(merged) == samples.lines(whole)
    assert records.header(merged)["complete"] is True
    replayed = run(project, f"--mech-replay={merged.name}")
    assert comparable(latest(project)) == comparable(whole), replayed.text


def comparable(path: Path) -> list[Any]:
    """All of a run's records but when it was, and by which command."""
    found = [record.to_json() for record in records.correct(records.read(path))]
    return [
        {name: value for name, value in tree.items() if name not in ("run", "seconds", "reproduce")}
        for tree in found
    ]


@pytest.mark.parametrize("given", ["0/2", "3/2", "1", "a/b"])
def test_a_shard_that_is_none_is_a_usage_error(project, models, given):
    result = run(project, *named(models), f"--mech-shard={given}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "I/N with I from 1 to N" in result.text
