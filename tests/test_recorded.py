"""Recorded models: means with their provenance, judged without a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mechtests import engine, judging, plan
from mechtests.claim import Claim
from mechtests.errors import (
    LoadError,
    MeasurementError,
    NotApplicable,
    Undecidable,
    UsageError,
)
from mechtests.measurement import Recorded
from mechtests.metrics import attention, behaviour, copying, gates
from mechtests.models import recording
from mechtests.models.cell import Cell, Checkpoint
from mechtests.models.recorded import RecordedSource
from mechtests.models.recording import Entry, Recording
from mechtests.plan import Case, Settings
from mechtests.store import Store
from mechtests.tasks.ioi import ioi
from mechtests.tasks.repeated_tokens import repeated_tokens
from mechtests.verdict import Outcome

MOMENTS = tuple(Checkpoint(f"step{step}", step, step * 2_097_152) for step in (1, 512, 1000))
ANSWERS = behaviour.answers(ioi)


def entry(**change: Any) -> Entry:
    plain = Entry(
        metric="behaviour.answers",
        task="ioi",
        value="logit_difference",
        unit="logits",
        checkpoints=MOMENTS,
        means=(0.01, -0.2, 1.5),
        errors=(0.1, 0.1, None),
        prompts=70,
        provenance={"source": "a paper", "file": "a.csv"},
    )
    return replace(plain, **change)


def head(layer: int, number: int, *means: float, **change: Any) -> Entry:
    return entry(
        metric="copying.copy_scores",
        value="copied",
        unit="share",
        checkpoints=MOMENTS[: len(means)],
        means=means,
        errors=(None,) * len(means),
        axes=("layer", "head"),
        index=(layer, number),
        **change,
    )


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MECHTESTS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def keep(*entries: Entry, model: str = "pythia-70m") -> RecordedSource:
    recording.write(Recording(model, entries))
    return RecordedSource(model)


def cell_of(source: RecordedSource, at: Checkpoint | None = MOMENTS[-1]) -> Cell:
    return Cell(source.name, at, source)  # type: ignore[arg-type]


def measured(source: RecordedSource, at: Checkpoint | None = MOMENTS[-1]) -> Recorded:
    identity = source.identity(at)
    return recording.measurement(identity, "behaviour.answers", "ioi", cell_of(source, at))


numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(st.lists(st.tuples(numbers, st.none() | numbers), min_size=1, max_size=5), st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_again(pairs: list[tuple[float, float | None]], said: str) -> None:
    moments = tuple(Checkpoint(f"step{i}", i) for i in range(len(pairs)))
    means, errors = zip(*pairs, strict=True)
    one = entry(checkpoints=moments, means=means, errors=errors, provenance={"source": said})
    over = entry(value="correct", checkpoints=(None,), means=(0.5,), errors=(None,))
    keep(one, over)
    assert recording.read("pythia-70m").entries == (one, over)


def test_importing_again_replaces_the_same_and_keeps_the_others() -> None:
    other, first, second = entry(value="correct"), head(9, 7, 0.3), head(9, 6, 0.2)
    known = Recording("m", (entry(), other, first, second))
    found = known.having([entry(means=(1.0, 2.0, 3.0)), head(9, 7, 0.4)]).entries
    assert [e.means for e in found if e.key == entry().key] == [(1.0, 2.0, 3.0)]
    assert [e.means for e in found if e.key == first.key] == [(0.4,)]
    assert other in found
    assert second in found
    assert len(found) == 4


def test_a_value_of_other_axes_replaces_all_of_it() -> None:
    known = Recording("m", (head(9, 7, 0.3), head(9, 6, 0.2), entry()))
    plain = replace(head(9, 7, 0.3), axes=(), index=())
    assert known.having([plain]).entries == (entry(), plain)


def test_the_checkpoints_are_exactly_the_moments_of_all_entries_in_order() -> None:
    late = Checkpoint("step2000", 2000)
    source = keep(
        entry(checkpoints=(late, MOMENTS[1]), means=(1.0, 2.0), errors=(None, None)),
        head(1, 1, 0.5),
        entry(value="correct", checkpoints=(None,), means=(0.5,), errors=(None,)),
    )
    assert source.checkpoints() == (MOMENTS[0], MOMENTS[1], late)
    assert keep(head(1, 1), model="other").checkpoints() == ()


def test_a_recording_is_a_model_without_weights_or_configuration() -> None:
    source = keep(entry())
    assert source.kind == "recorded"
    assert source.download_bytes(None) == 0
    for ask in (source.config, source.fetch, source.load):
        with pytest.raises(LoadError, match=r"is a recording, which has no weights.*pythia-70m"):
            ask(None)


def test_the_identity_is_the_digest_of_the_recording() -> None:
    before = keep(entry()).identity(MOMENTS[0])
    assert before == keep(entry()).identity(None)
    assert keep(entry(prompts=71)).identity(None) != before


@pytest.mark.parametrize("content", ["{", "[]", '{"schema": 99, "model": "pythia-70m"}', "{}"])
def test_a_damaged_recording_is_an_error_that_says_to_import_again(content: str) -> None:
    keep(entry())
    (recording.folder() / "pythia-70m.json").write_text(content)
    with pytest.raises(LoadError, match=r"damaged or of another version.*import it again"):
        recording.read("pythia-70m")


def test_an_entry_with_fewer_means_than_checkpoints_is_damage() -> None:
    keep(entry())
    path = recording.folder() / "pythia-70m.json"
    said = json.loads(path.read_text())
    said["values"][0]["means"].pop()
    path.write_text(json.dumps(said))
    with pytest.raises(LoadError, match="not one mean and one error a checkpoint"):
        recording.read("pythia-70m")


def test_a_recorded_mean_comes_with_its_error_where_one_is_known_and_its_prompts() -> None:
    source = keep(entry())
    assert measured(source, MOMENTS[1]).estimate("logit_difference") == (-0.2, 0.1, 70)
    assert measured(source).estimate("logit_difference") == (1.5, None, 70)
    assert measured(source).recorded
    assert measured(source).units == {"logit_difference": "logits"}
    assert float(measured(source).mean("logit_difference")) == 1.5


def test_the_provenance_and_the_models_size_are_facts_of_the_measurement() -> None:
    facts = measured(keep(entry(error_from="a second recording"))).facts
    said = facts["recorded"]["logit_difference"]
    assert (said["source"], said["error_from"]) == ("a paper", "a second recording")
    assert facts["parameters"] == 6 * 12 * 512**2
    assert "parameters" not in measured(keep(entry(), model="mine")).facts


def test_heads_are_one_array_with_nothing_where_nothing_was_recorded() -> None:
    source = keep(head(1, 2, 0.3, 0.4), head(0, 1, 0.6), model="mine")
    here, later = (
        recording.measurement(
            source.identity(None), "copying.copy_scores", "ioi", cell_of(source, at)
        )
        for at in MOMENTS[:2]
    )
    nan = np.nan
    np.testing.assert_array_equal(here["copied"], [[nan, 0.6, nan], [nan, nan, 0.3]])
    np.testing.assert_array_equal(later["copied"], [[nan, nan, nan], [nan, nan, 0.4]])
    assert here.axes["copied"] == ("layer", "head")
    assert here.estimate("copied", 1, 2).mean == 0.3
    for index in ((0, 0), (7, 7)):
        with pytest.raises(NotApplicable, match=f"no copied of copying.copy_scores at {index[0]}"):
            here.estimate("copied", *index)
    with pytest.raises(MeasurementError, match="give an index for each"):
        here.estimate("copied", 1)


def test_whatever_asks_for_prompts_or_halves_cannot_be_decided() -> None:
    found = measured(keep(entry()))
    asked = [
        lambda: found.sample("logit_difference", "evaluation"),
        lambda: found.sample("logit_difference"),
        lambda: found.of(None),
        lambda: found.sum_over("logit_difference", [(0, 0)]),
        lambda: found.strongest("logit_difference", "selection"),
        lambda: found.mean("logit_difference", "evaluation"),
    ]
    for ask in asked:
        with pytest.raises(Undecidable, match="as means, without a value for each prompt"):
            ask()


def test_a_value_that_was_not_recorded_is_named_with_those_that_were() -> None:
    with pytest.raises(NotApplicable, match=r"no correct of behaviour\.answers; it has logit_diff"):
        measured(keep(entry())).estimate("correct")


def claim(gate: Any = None, **needs: Any) -> Claim:
    return Claim(id="test.claim", says="", rule="", task="ioi", gate=gate, needs=needs)


def judged(source: RecordedSource, tmp_path: Path, *claims: Claim, at: Any = MOMENTS[-1]) -> Any:
    store = Store(tmp_path / "store")
    made = plan.build([Case(each, cell_of(source, at)) for each in claims], Settings(), store)
    results = engine.run(made, store)
    return made, results, [judging.prepare(case, results) for case in made.cases]


def test_nothing_of_a_recorded_cell_is_planned_loaded_or_stored(tmp_path: Path) -> None:
    made, results, (ready,) = judged(keep(entry()), tmp_path, claim(answers=ANSWERS))
    assert made.cells == ()
    assert made.errors == {}
    assert results.loads == {}
    assert not (tmp_path / "store").exists()
    assert ready.answers.estimate("logit_difference").mean == 1.5


def test_what_is_not_recorded_is_not_applicable_and_what_is_recorded_is_named(
    tmp_path: Path,
) -> None:
    source = keep(entry(), head(1, 1, 0.5))
    _, _, (verdict,) = judged(
        source, tmp_path, claim(scores=attention.head_scores(repeated_tokens))
    )
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert "recording of pythia-70m has no attention.head_scores on repeated" in verdict.sentence
    assert "it has behaviour.answers on ioi, copying.copy_scores on ioi" in verdict.sentence


def test_what_is_recorded_at_other_checkpoints_says_at_which(tmp_path: Path) -> None:
    source = keep(entry(), head(1, 1, 0.5, 0.6))
    need = copying.copy_scores(ioi)
    _, _, (verdict,) = judged(source, tmp_path, claim(copying=need))
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert "at step1000; it has it at step1 and step512" in verdict.sentence


def test_a_claim_reads_what_is_there_and_says_itself_what_it_cannot_do_without(
    tmp_path: Path,
) -> None:
    wants = claim(answers=ANSWERS, copying=copying.copy_scores(ioi))
    _, _, (ready,) = judged(keep(entry()), tmp_path, wants)
    assert ready.answers.recorded
    assert ready.lacks("answers") is None
    assert "no copying.copy_scores on ioi" in ready.lacks("copying")
    with pytest.raises(NotApplicable, match="no copying"):
        ready.copying.sample("copied")


def test_a_gate_without_a_standard_error_leaves_the_claim_open(tmp_path: Path) -> None:
    gated = claim(gate=gates.does(ioi), answers=ANSWERS)
    lacking = claim(gate=gates.does(ioi), copying=copying.copy_scores(ioi))
    _, _, (open_, without) = judged(keep(entry()), tmp_path, gated, lacking)
    assert open_.outcome is Outcome.INCONCLUSIVE
    assert "the recorded data cannot decide" in open_.sentence
    assert without.outcome is Outcome.NOT_APPLICABLE


def test_a_control_untrained_is_step_zero_where_that_is_recorded(tmp_path: Path) -> None:
    wants = claim(answers=ANSWERS, untrained=behaviour.answers(ioi, cell="untrained"))
    _, _, (without,) = judged(keep(entry()), tmp_path, wants)
    assert "has no step 0" in without.lacks("untrained")
    zero = (Checkpoint("step0", 0, 0), *MOMENTS[1:])
    made, results, (ready,) = judged(keep(entry(checkpoints=zero), model="other"), tmp_path, wants)
    assert made.cells == ()
    assert ready.untrained.estimate("logit_difference").mean == 0.01
    assert results.key(wants.needs["untrained"], made.cases[0].cell)


def test_a_recording_that_changed_since_the_run_is_not_what_is_replayed() -> None:
    source = keep(entry())
    identity = source.identity(None)
    keep(entry(prompts=71))
    with pytest.raises(MeasurementError, match=r"imported anew since this run.*--mech-replay"):
        recording.measurement(identity, "behaviour.answers", "ioi", cell_of(source))
    (recording.folder() / "pythia-70m.json").unlink()
    with pytest.raises(MeasurementError, match="nothing is recorded of 'pythia-70m'"):
        recording.measurement(identity, "behaviour.answers", "ioi", cell_of(source))


def test_a_recorded_model_is_told_apart_from_the_model_itself() -> None:
    cell = cell_of(keep(entry()))
    assert cell.id == "recorded:pythia-70m:step1000"


def test_a_folder_that_cannot_be_written_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MECHTESTS_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"cannot be written to .*MECHTESTS_CACHE"):
        keep(entry())


CLAIMS = '''
from mechtests import claim
from mechtests.metrics import behaviour
from mechtests.rules import above
from mechtests.tasks.ioi import ioi
from mechtests.verdict import Outcome, Verdict

NEEDS = {"answers": behaviour.answers(ioi)}

@claim("mine.means", says="It prefers it.", task=ioi, needs=NEEDS)
def test_means(measured, judge):
    """The recorded mean is above 1."""
    mean, error, prompts = measured.answers.estimate("logit_difference")
    judge(Verdict(Outcome.HOLDS if mean > 1 else Outcome.REFUTED, f"mean {mean}"))

@claim("mine.prompts", says="It knows.", task=ioi, needs=NEEDS)
def test_prompts(measured, judge):
    """Needs prompts."""
    judge(above(measured.answers.sample("logit_difference", "evaluation"), 0.0, what="it"))

@claim("mine.value", says="It knows.", task=ioi, needs=NEEDS)
def test_value(measured, judge):
    """Needs a value that is not there."""
    judge(above(measured.answers.estimate("correct"), 0.0, what="it"))
'''


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("COLUMNS", "100")
    pytester.makepyfile(test_mine=CLAIMS)
    keep(entry())
    return pytester


def verdicts(project: pytest.Pytester) -> dict[str, Any]:
    newest = max(project.path.glob(".mechtests/runs/*/records.jsonl"))
    found = [json.loads(line) for line in newest.read_text().splitlines()]
    return {record["claim"]["id"]: record for record in found}


def test_a_run_judges_a_recording_and_a_replay_reaches_the_same(project: pytest.Pytester) -> None:
    model = "--model=recorded:pythia-70m"
    expected = {
        "mine.means": "holds",
        "mine.prompts": "inconclusive",
        "mine.value": "not applicable",
    }
    project.runpytest_subprocess("-p", "no:randomly", model).assert_outcomes(passed=1, skipped=2)
    first = verdicts(project)
    assert {name: record["verdict"] for name, record in first.items()} == expected
    assert "cannot decide this claim" in first["mine.prompts"]["sentence"]
    said = first["mine.means"]["facts"]["answers"]["recorded"]["logit_difference"]
    assert said["source"] == "a paper"
    again = project.runpytest_subprocess("-p", "no:randomly", "--mech-replay")
    again.assert_outcomes(passed=1, skipped=2)
    assert {n: r["verdict"] for n, r in verdicts(project).items()} == expected
    keep(entry(prompts=71))
    changed = project.runpytest_subprocess("-p", "no:randomly", "--mech-replay")
    changed.stdout.fnmatch_lines(["*imported anew since this run*"])
    assert {record["verdict"] for record in verdicts(project).values()} == {"error"}


def test_what_the_recording_leaves_open_can_fail_a_run(project: pytest.Pytester) -> None:
    asked = ("--model=recorded:pythia-70m", "--mech-fail-on=inconclusive", "-k", "mine.prompts")
    project.runpytest_subprocess("-p", "no:randomly", *asked).assert_outcomes(failed=1)


def test_workers_judge_a_recording_too(project: pytest.Pytester) -> None:
    ran = project.runpytest_subprocess("-p", "no:randomly", "-n2", "--model=recorded:pythia-70m")
    ran.assert_outcomes(passed=1, skipped=2)
