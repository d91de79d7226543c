"""Recorded values come in: what a file holds, what it lacks, and the errors of its means."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from mechtests import cli, recorded_errors
from mechtests.errors import UsageError
from mechtests.importing import Imported, Options, import_file
from mechtests.models import recording, tables
from mechtests.models.cell import Checkpoint
from mechtests.models.recording import Entry

REFERENCE = Path(__file__).parents[2] / "shared/reference/recorded"
WIDE = "step,tokens,pythia-70m,pythia-160m\n1,2097152,0.1,0.2\n1000,2097152000,-0.5,1.5\n"
IOI = {"metric": "behaviour.answers", "task": "ioi", "value": "logit_difference"}
there = pytest.mark.skipif(not REFERENCE.is_dir(), reason="the reference values are not here")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MECHTESTS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path: Path) -> Any:
    def write(text: str, name: str = "values.csv") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def run(path: Path, **options: Any) -> Imported:
    return import_file(path, Options(**options))


def only(model: str) -> Entry:
    (entry,) = recording.read(model).entries
    return entry


def test_a_wide_table_is_a_value_of_each_model_at_each_checkpoint(file: Any) -> None:
    path = file(WIDE)
    run(path, **IOI, prompts=70, source="a paper")
    entry = only("pythia-160m")
    assert entry.key == ("behaviour.answers", "ioi", "logit_difference", ())
    assert entry.checkpoints == (
        Checkpoint("step1", 1, 2097152),
        Checkpoint("step1000", 1000, 2097152000),
    )
    assert entry.means == (0.2, 1.5)
    assert entry.errors == (None, None)
    assert (entry.unit, entry.prompts) == ("logits", 70)
    assert only("pythia-70m").means == (0.1, -0.5)


def test_the_provenance_is_the_source_the_file_its_digest_and_the_options(file: Any) -> None:
    import hashlib

    path = file(WIDE)
    run(path, **IOI, source="a paper", error=0.1)
    said = only("pythia-70m").provenance
    assert said["source"] == "a paper"
    assert said["file"] == "values.csv"
    assert said["column"] == "pythia-70m"
    assert said["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert said["options"] == {**IOI, "source": "a paper", "error": 0.1}
    assert said["imported"].startswith("20")


def test_a_name_that_says_what_it_is_of_needs_no_option(file: Any) -> None:
    run(file(WIDE, "ioi_logit_diff_by_step.csv"))
    assert only("pythia-70m").name == "behaviour.answers logit_difference on ioi"


def test_a_table_that_does_not_say_what_it_is_of_asks_for_it(file: Any) -> None:
    with pytest.raises(UsageError, match="does not say what it is of; give --metric, --task, --va"):
        run(file(WIDE))
    with pytest.raises(UsageError, match=r"give --task$"):
        run(file(WIDE), metric="behaviour.answers", value="correct")
    assert recording.known() == ()


def test_without_a_source_one_is_asked_for_politely(file: Any) -> None:
    lines = list(run(file(WIDE), **IOI).lines())
    assert "please import it again with --source" in lines[-1]
    assert not any("--source" in line for line in run(file(WIDE), **IOI, source="x").lines())


def test_a_step_that_is_there_twice_with_equal_rows_is_one_and_said(file: Any) -> None:
    made = run(file(WIDE + "1000,2097152000,-0.5,1.5\n"), **IOI)
    assert len(only("pythia-70m").means) == 2
    assert "step1000 is there twice with equal values, taken once" in made.notes[0]


def test_a_step_that_is_there_twice_with_other_values_is_an_error(file: Any) -> None:
    with pytest.raises(UsageError, match=r"line 4: step1000 was there before with other values"):
        run(file(WIDE + "1000,2097152000,-0.5,1.6\n"), **IOI)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "needs a column step or tokens.*it has the columns none"),
        ("model,layers\na,1\n", "needs a column step or tokens.*columns model, layers"),
        ("step,pythia-70m\n", "has a header and no row"),
        ("step,pythia-70m\n1,high\n", r"line 2, column pythia-70m: 'high' is not a number"),
        ("step,pythia-70m\n1,nan\n", "'nan' is not a number"),
        ("step,pythia-70m\n1,0.5,3\n", "line 2: 2 columns are needed, got 3"),
        ("step,pythia-70m\n-1,0.5\n", "step counts from 0, got -1"),
        ("step,pythia-70m\n1.5,0.5\n", "step counts from 0, got 1.5"),
        ("step,pythia-70m\n,0.5\n", "neither step nor tokens says"),
        ("step,pythia-70m\n1,\n", "column pythia-70m: there is no number in it"),
        ("step,my model\n1,0.5\n", "'my model' cannot be a model's name; give --name"),
    ],
)
def test_a_table_that_cannot_be_read_is_a_sentence(file: Any, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run(file(text), **IOI)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", "[]", "none of the layouts"),
        ("a.json", '{"copy_score_percent": {"nine": {"1": 2}}}', "'nine' is not a head"),
        ("a.json", '{"copy_score_percent": {"9.7": {"1": "x"}}}', "'x' is not a number"),
        ("a.json", '{"copy_score_percent": {"9.7": {"1": null}}}', "9.7, 1: None is not a number"),
        ("a.json", '{"copy_score_percent": {"9.7": {"1": true}}}', "True is not a number"),
        ("a.json", '{"copy_score_percent": {"9.7": {"1": NaN}}}', "nan is not a number"),
        ("a.json", '{"copy_score_percent": {"9.7": {"1.5": 2}}}', "step counts from 0, got 1.5"),
        ("a.json", '{"copy_score_percent": {"9.7": {"1": 2, "1": 3}}}', "'1' is there twice"),
        ("a.json", '{"copy_score_percent": {"9.7": {"1": 2, "01": 3}}}', "step1 is there twice"),
        ("a.json", '{"copy_score_percent": {"9.7": {}, "9.07": {}}}', "head 9.07 is there twice"),
        ("a.json", '{"copy_score_percent": {"9.7": 34}}', "'9.7' is not a head"),
        ("a.json", '{"model": "pythia-70m", "heads": {"1.1": {"1": 2}}}', "give --metric, --task"),
        ("a.json", '{"mean_num_nodes": {"pythia-70m": 3}}', "no tasks with a mean each"),
        ("a.txt", "step", r"imported from a \.csv or \.json file"),
        ("a.csv", "step,x\n\xff".encode("latin-1"), "cannot be read as text"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_sentence(
    tmp_path: Path, name: str, text: str | bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=said):
        run(tmp_path / name)
    with pytest.raises(UsageError, match="cannot be read"):
        run(tmp_path / "missing.csv")


def test_a_value_or_metric_that_mechtests_does_not_have_is_an_error_that_names_those_it_has(
    file: Any,
) -> None:
    with pytest.raises(UsageError, match="no value 'logit_diff'; it has logit_difference"):
        run(file(WIDE), **{**IOI, "value": "logit_diff"})
    with pytest.raises(UsageError, match=r"no metric 'behaviour\.answer'"):
        run(file(WIDE), **{**IOI, "metric": "behaviour.answer"})
    with pytest.raises(UsageError, match="has a number for each layer and head"):
        run(file(WIDE), metric="copying.copy_scores", task="ioi", value="copied")


def test_a_metric_of_ones_own_is_recorded_under_its_name_with_its_unit(file: Any) -> None:
    run(file(WIDE), metric="mine.thing", task="ioi", value="it", unit="things")
    assert only("pythia-70m").unit == "things"


METRICS = (
    "step,num_edges_in_circuit,ioi_logit_diff,other\n"
    "4000,78,0.5,1\n5000,80,1.5,\n6000,90,2.5,1\n7000,91,3.0,1\n8000,92,3.1,1\n"
)


def test_a_table_of_one_model_gives_its_circuits_and_the_column_that_is_asked_for(
    file: Any,
) -> None:
    path = file(METRICS, "pythia-160m_ioi_graph_metrics.csv")
    made = run(path)
    assert only("pythia-160m").name == "circuits.size edges on ioi"
    assert "not imported: ioi_logit_diff, other; --column takes one" in made.notes[0]
    run(path, column="ioi_logit_diff", name="pythia-1b")
    entry = only("pythia-1b")
    assert entry.name == "behaviour.answers logit_difference on ioi"
    assert entry.checkpoints[0] == Checkpoint("step4000", 4000, 4000 * 2_097_152)
    with pytest.raises(UsageError, match="no column 'edges'; it has num_edges_in_circuit, ioi_lo"):
        run(path, column="edges")


def test_an_empty_field_is_no_value_at_that_checkpoint(file: Any) -> None:
    run(file(METRICS), column="other", name="mine", **IOI)
    assert [at.step for at in only("mine").checkpoints if at] == [4000, 6000, 7000, 8000]
    assert all(at is None or at.tokens is None for at in only("mine").checkpoints)


def test_several_unknown_columns_of_a_named_model_are_a_choice(file: Any) -> None:
    with pytest.raises(UsageError, match=r"choose the one with the values of mine.*a, b"):
        run(file("step,a,b\n1,2,3\n"), name="mine", **IOI)
    run(file("tokens,a,b\n1000,2,3\n"), name="mine", column="b", **IOI)
    assert only("mine").checkpoints == (Checkpoint("tokens1000", None, 1000),)
    assert only("mine").means == (3.0,)


def test_copy_scores_of_heads_are_shares_and_notes_are_left_out(file: Any) -> None:
    said = {
        "source": "a notebook",
        "model": "pythia-160m",
        "copy_score_percent": {"9.7": {"7000": 34.0, "8000": 50}, "8.10": {"note": "high"}},
    }
    made = run(file(json.dumps(said), "copying.json"))
    entry = only("pythia-160m")
    assert (entry.metric, entry.value, entry.task) == ("copying.copy_scores", "copied", "ioi")
    assert (entry.axes, entry.index, entry.unit) == (("layer", "head"), (9, 7), "share")
    assert entry.means == pytest.approx((0.34, 0.5))
    assert entry.provenance["source"] == "a notebook"
    assert any("by values, not imported: 8.10" in note for note in made.notes)
    assert not any("--source" in note for note in made.notes)


def test_a_mean_over_training_has_no_checkpoint(file: Any) -> None:
    said = {"mean_num_nodes": {"pythia-70m": {"ioi": 28.9, "gender_pronoun": 17}}}
    made = run(file(json.dumps(said), "nodes.json"))
    first, second = recording.read("pythia-70m").entries
    assert (first.name, first.checkpoints, first.means) == (
        "circuits.size nodes on ioi",
        (None,),
        (28.9,),
    )
    assert second.task == "pronoun"
    assert "a mean over training" in next(iter(made.lines()))


def test_another_file_of_the_same_value_takes_its_place_and_nothing_elses(file: Any) -> None:
    run(file(WIDE), **IOI)
    shares = WIDE.replace("-0.5,1.5", "0.5,0.9")
    run(file(shares), **{**IOI, "value": "correct"})
    run(file(WIDE.replace("0.1,", "0.3,")), **IOI)
    found = {entry.value: entry.means for entry in recording.read("pythia-70m").entries}
    assert found == {"logit_difference": (0.3, -0.5), "correct": (0.1, 0.5)}


def test_an_error_that_is_given_is_that_of_every_mean(file: Any) -> None:
    run(file(WIDE), **IOI, error=0.1)
    assert only("pythia-70m").errors == (0.1, 0.1)
    assert only("pythia-70m").error_from == "0.1, given with --error"


def test_a_column_of_errors_belongs_to_the_one_column_of_means(file: Any) -> None:
    path = file("step,accuracy,se\n1,50,4\n2,60,\n")
    options = {**IOI, "value": "correct", "name": "mine", "scale": 0.01}
    run(path, **options, error_column="se")
    assert only("mine").means == pytest.approx((0.5, 0.6))
    assert only("mine").errors == (pytest.approx(0.04), None)
    with pytest.raises(UsageError, match="no column 'sem'"):
        run(path, **options, error_column="sem")
    with pytest.raises(UsageError, match="has several columns of means"):
        run(file("step,pythia-70m,pythia-1b,se\n1,1,2,3\n"), **IOI, error_column="se")
    with pytest.raises(UsageError, match="below 0"):
        run(file("step,pythia-70m,se\n1,1,-3\n"), **IOI, error_column="se")


@pytest.mark.parametrize("error", [0.0, -1.0, math.nan, math.inf])
def test_an_error_that_is_none_is_refused(file: Any, error: float) -> None:
    with pytest.raises(UsageError, match="a standard error is a number above 0"):
        run(file(WIDE), **IOI, error=error)


def test_only_one_way_to_an_error_can_be_asked_for(file: Any) -> None:
    with pytest.raises(
        UsageError, match="one of --error, --error-column, --binomial and --replicate"
    ):
        run(file(WIDE), **IOI, error=0.1, error_column="se")


def table(*models: str, offset: float = 0.0) -> str:
    rows = [f"{step}," + ",".join(str(step + offset) for _ in models) for step in range(6)]
    return "\n".join([",".join(("step", *models)), *rows])


def test_a_second_recording_gives_the_error_and_the_models_without_one_take_it_over(
    file: Any,
) -> None:
    first = file(table("pythia-70m", "pythia-160m", "pythia-410m"), "one.csv")
    second = file(table("pythia-160m", offset=0.2), "two.csv")
    third = file(table("pythia-410m", offset=-0.4), "three.csv")
    made = run(first, **IOI, replicate=(second, third))
    expected = {"pythia-160m": 0.2 / math.sqrt(2), "pythia-410m": 0.4 / math.sqrt(2)}
    for model, error in expected.items():
        assert only(model).errors == pytest.approx((error,) * 6)
        assert "over 6 common checkpoints" in only(model).error_from
    assert only("pythia-70m").errors == pytest.approx((math.sqrt((0.02 + 0.08) / 2),) * 6)
    assert "taken over from pythia-160m, pythia-410m" in only("pythia-70m").error_from
    assert any("pythia-160m: standard error 0.141" in note for note in made.notes)
    assert any("mean difference is -0.2" in note for note in made.notes)


def test_a_replicate_of_something_else_or_of_too_little_is_an_error(file: Any) -> None:
    first = file(table("pythia-70m"), "one.csv")
    with pytest.raises(UsageError, match="has nothing that is imported now"):
        run(first, **IOI, replicate=(file(table("pythia-1b"), "two.csv"),))
    few = file("step,pythia-70m\n1,2\n2,3\n77,8\n", "three.csv")
    with pytest.raises(UsageError, match="2 checkpoints in common, and 5 are needed"):
        run(first, **IOI, replicate=(few,))
    assert recording.known() == ()


def test_a_column_of_another_quantity_is_no_replicate(file: Any) -> None:
    metrics = METRICS.replace("other", "pythia-160m_ewma")
    wide = "step,pythia-160m\n4000,0.7\n5000,1.5\n6000,2.5\n7000,3.0\n8000,3.1\n"
    other = file(metrics, "pythia-160m_ioi_graph_metrics.csv")
    run(file(wide), **IOI, replicate=(other,))
    assert only("pythia-160m").errors[0] == pytest.approx(0.2 / math.sqrt(5) / math.sqrt(2))


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 10.0))
def test_the_derived_error_is_that_of_one_recording(seed: int, sd: float) -> None:
    draw = np.random.default_rng(seed)
    moments = tuple(Checkpoint(f"step{i}", i) for i in range(4000))
    truth = draw.normal(size=4000)

    def recorded() -> Entry:
        means = tuple((truth + draw.normal(scale=sd, size=4000)).tolist())
        entry = ("m.m", "ioi", "v", "", moments, means, (None,) * 4000)
        return Entry(*entry, provenance={"file": "two.csv"})

    found = recorded_errors.replicated(recorded(), recorded())
    assert found.error == pytest.approx(sd, rel=0.08)  # its own standard error is 1.1%


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.1))
def test_a_proportional_error_is_the_share_by_which_recordings_differ(
    seed: int, share: float
) -> None:
    draw = np.random.default_rng(seed)
    moments = tuple(Checkpoint(f"step{i}", i) for i in range(4000))
    truth = draw.uniform(0.5, 5.0, 4000) * draw.choice([-1, 1], 4000)

    def recorded() -> Entry:
        means = tuple((truth * (1 + draw.normal(scale=share, size=4000))).tolist())
        entry = ("m.m", "ioi", "v", "", moments, means, (None,) * 4000)
        return Entry(*entry, provenance={"file": "two.csv"})

    found = recorded_errors.replicated(recorded(), recorded(), proportional=True)
    assert found.error == pytest.approx(share, rel=0.1)
    assert found.of(-3.0) == 3 * found.error
    assert found.least is not None
    assert found.of(0.0) == found.of(found.least) == found.least * found.error


def test_an_error_can_grow_with_the_values(file: Any) -> None:
    rows = "\n".join(f"{2**i},{2**i},{2**i}" for i in range(6))
    first = file(f"step,pythia-70m,pythia-1b\n{rows}\n", "one.csv")
    second = file(
        "step,pythia-70m\n" + "\n".join(f"{2**i},{1.2 * 2**i}" for i in range(6)), "two.csv"
    )
    run(first, **IOI, replicate=(second,), proportional=True)
    share = 0.2 / 1.1 / math.sqrt(2)
    expected = [share * max(2**i, 1.1) for i in range(6)]
    for model in ("pythia-70m", "pythia-1b"):
        assert only(model).errors == pytest.approx(expected)
        assert "as a share of the mean but of at least 1.1" in only(model).error_from
    with pytest.raises(UsageError, match="give that too"):
        run(first, **IOI, proportional=True)
    with pytest.raises(UsageError, match="has a mean of 0"):
        run(file(table("pythia-70m"), "one.csv"), **IOI, replicate=(first,), proportional=True)


def test_where_the_truth_is_0_what_was_recorded_is_the_error_of_small_values(file: Any) -> None:
    rows = "0,0,0.03\n1,1,-0.04\n" + "\n".join(f"{2**i},{2**i},{2**i}" for i in range(2, 8))
    first = file(f"step,tokens,pythia-70m\n{rows}\n", "one.csv")
    second = file(
        "step,pythia-70m\n" + "\n".join(f"{2**i},{1.2 * 2**i}" for i in range(2, 8)), "two.csv"
    )
    run(first, **IOI, replicate=(second,), proportional=True, zero_until=1)
    share, floor = 0.2 / 1.1 / math.sqrt(2), math.sqrt((0.03**2 + 0.04**2) / 2)
    means = (0.03, -0.04, *(2**i for i in range(2, 8)))
    assert only("pythia-70m").errors == pytest.approx([math.hypot(share * m, floor) for m in means])
    assert "2 values up to step 1, where the truth is 0" in only("pythia-70m").error_from
    with pytest.raises(UsageError, match="give --proportional too"):
        run(first, **IOI, replicate=(second,), zero_until=1)
    with pytest.raises(UsageError, match="no checkpoint up to that step"):
        run(first, **IOI, replicate=(second,), proportional=True, zero_until=-1)


def test_the_command_says_what_it_recorded_and_how_to_judge_it(file: Any) -> None:
    path = file(WIDE, "ioi_logit_diff_by_step.csv")
    ran = CliRunner().invoke(cli.app, ["import", str(path), "--error", "0.1", "--prompts", "70"])
    assert ran.exit_code == 0
    assert (
        "recorded:pythia-70m  behaviour.answers logit_difference on ioi: 2 checkpoints, step1 to "
        "step1000, standard error 0.1"
    ) in ran.output
    assert "judge with: pytest --model recorded:pythia-70m,recorded:pythia-160m" in ran.output


def test_the_command_imports_what_it_can_and_fails_for_the_rest(file: Any) -> None:
    good, bad = file(WIDE, "ioi_logit_diff.csv"), file("a,b\n1,2\n", "bad.csv")
    ran = CliRunner().invoke(cli.app, ["import", str(bad), str(good)])
    assert ran.exit_code == 4
    assert "mechtests import: bad.csv needs a column step or tokens" in ran.output
    assert recording.known() == ("pythia-160m", "pythia-70m")


@there
def test_every_recorded_file_of_the_reference_is_understood_as_it_is() -> None:
    for name, models in {
        "ioi_logit_diff_by_step_5models.csv": 5,
        "pythia-160m_ioi_graph_metrics.csv": 1,
        "pythia-160m_ioi_copy_scores.json": 1,
        "pythia-2.8b_ioi_circuit_size.csv": 1,
        "mean_circuit_nodes_by_model_and_task.json": 5,
    }.items():
        assert len(run(REFERENCE / name).entries) == models
    found = recording.read("pythia-160m")
    assert {(entry.metric, entry.task) for entry in found.entries} == {
        ("behaviour.answers", "ioi"),
        ("copying.copy_scores", "ioi"),
        ("circuits.similarity", "ioi"),
        *(("circuits.size", task) for task in ("ioi", "greater_than", "pronoun", "sva")),
    }


@there
def test_the_recorded_logit_differences_are_the_published_ones() -> None:
    made = run(REFERENCE / "ioi_logit_diff_by_step_5models.csv")
    assert any("step15000 is there twice" in note for note in made.notes)
    for model in made.entries:
        entry = only(model)
        assert len(entry.means) == 43
        at = {c.step: mean for c, mean in zip(entry.checkpoints, entry.means, strict=True) if c}
        assert at[1000] < -0.05
        late = [mean for step, mean in at.items() if (step or 0) >= 100_000]
        assert (sum(late) / len(late) > 3.5) == (model != "pythia-70m")


@there
def test_the_two_recordings_of_160m_give_the_error_of_one() -> None:
    wide, own = "ioi_logit_diff_by_step_5models.csv", "pythia-160m_ioi_graph_metrics.csv"
    one = tables.read(REFERENCE / wide).column("pythia-160m").values
    two = tables.read(REFERENCE / own).column("ioi_logit_diff").values
    steps = {at.step: value for at, value in two.items() if at}
    both = [value - steps[at.step] for at, value in one.items() if at and at.step in steps]
    run(REFERENCE / wide, replicate=(REFERENCE / own,))
    expected = math.sqrt(sum(d * d for d in both) / len(both) / 2)
    assert only("pythia-160m").errors[0] == pytest.approx(expected)
    assert len(both) == 30
