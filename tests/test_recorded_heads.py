"""Recorded values of heads: in which files they come, which heads are known, and their errors."""

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
from mechtests.checkpoints import Series
from mechtests.errors import MeasurementError, NotApplicable, UsageError
from mechtests.importing import Imported, Options, import_file
from mechtests.measurement import Measurement
from mechtests.models import recording
from mechtests.models.cell import Cell
from mechtests.models.recorded import RecordedSource
from mechtests.models.recording import Entry
from mechtests.models.revisions import PYTHIA_SHAPES, pythia_grid
from mechtests.series import Moment

COPIED = {"metric": "copying.copy_scores", "task": "ioi", "value": "copied"}
LONG = "layer,head,step,value\n9,7,1000,0.3\n9,7,2000,0.5\n8,1,2000,0.9\n"
TRIALS = 70


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


def heads(model: str = "pythia-160m") -> dict[tuple[int, ...], Entry]:
    return {entry.index: entry for entry in recording.read(model).entries}


def series(model: str = "pythia-160m", metric: str = "copying.copy_scores") -> Series:
    source = RecordedSource(model)
    found = {}
    for at in source.checkpoints():
        cell = Cell(source.name, at, source)  # type: ignore[arg-type]
        found[Moment(at.label, at.step, at.tokens)] = recording.measurement(
            source.identity(at), metric, "ioi", cell
        )
    return Series(tuple(found), tuple(found.values()))


def copying(of: dict[str, Any], **said: Any) -> str:
    return json.dumps({"source": "a notebook", "model": "pythia-160m", **said, "heads": of})


def test_a_table_with_a_row_a_head_and_a_step_is_a_curve_of_each_head(file: Any) -> None:
    run(file(LONG), **COPIED, name="pythia-160m", source="a paper")
    found = heads()
    assert {index: entry.means for index, entry in found.items()} == {
        (9, 7): (0.3, 0.5),
        (8, 1): (0.9,),
    }
    assert [at.step for at in found[9, 7].checkpoints if at] == [1000, 2000]
    assert found[8, 1].axes == ("layer", "head")
    assert found[8, 1].unit == "share"
    assert found[8, 1].provenance["column"] == "value 8.1"


def test_a_table_of_heads_may_say_what_it_is_of_by_its_name(file: Any) -> None:
    percent = LONG.replace("0.", "").replace("value", "copy_score_percent")
    run(file(percent, "pythia-160m_ioi.csv"))
    assert heads()[9, 7].name == "copying.copy_scores copied of 9.7 on ioi"
    assert heads()[9, 7].means == pytest.approx((0.03, 0.05))
    run(file(LONG, "pythia-160m_ioi_copy_scores.csv"))
    assert heads()[9, 7].means == (0.3, 0.5)


def test_a_table_of_heads_that_does_not_say_what_it_is_of_asks_for_it(file: Any) -> None:
    with pytest.raises(UsageError, match="give --metric, --task, --value, --name"):
        run(file(LONG))
    with pytest.raises(UsageError, match=r"choose the one .* with --column: value, other"):
        run(file(LONG.replace("value", "value,other").replace("0.", "1,0.")), **COPIED, name="m")


def test_two_columns_of_the_same_are_a_choice(file: Any) -> None:
    text = LONG.replace("value", "copy_score,value").replace("0.", "0.1,0.")
    path = file(text, "pythia-160m_ioi_copy_scores.csv")
    with pytest.raises(UsageError, match=r"two columns are .* of 9\.7 on ioi; choose with --col"):
        run(path)
    run(path, column="copy_score")
    assert heads()[9, 7].means == (0.1, 0.1)


def test_a_column_of_errors_is_one_for_each_head(file: Any) -> None:
    text = "layer,head,step,copy_score_percent,se\n9,7,1000,30,4\n8,1,1000,90,2\n8,1,2000,91,\n"
    run(file(text, "pythia-160m_ioi.csv"), error_column="se")
    assert heads()[9, 7].errors == pytest.approx((0.04,))
    assert heads()[8, 1].errors == (pytest.approx(0.02), None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("layer,step,value\n9,1,0.3\n", "a column layer: values of heads need both"),
        ("layer,head,value\n9,1,0.3\n", "needs a column step or tokens"),
        ("layer,head,step,value\n9,,1,0.3\n", "line 2: there is no head in it"),
        ("layer,head,step,value\n9,1.5,1,0.3\n", r"line 2: head counts from 0, got 1\.5"),
        (LONG + "9,7,2000,0.6\n", r"line 5: step2000 of 9\.7 was there before with other values"),
        ("layer,head,step,value\n12,0,1,0.3\n", r"has 12 layers of 12 heads.* and no 12\.0"),
        ("layer,head,step,value\n0,12,1,0.3\n", r"and no 0\.12"),
        ("layer,head,step,value\n1,1,1,30\n", "lies between 0 and 1, got 30 to 30; give --scale"),
        ("layer,head,step,value\n1,1,1,-0.1\n", "lies between 0 and 1"),
    ],
)
def test_a_damaged_table_of_heads_is_a_sentence(file: Any, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run(file(text), **COPIED, name="pythia-160m")
    assert recording.known() == ()


def test_a_json_file_of_heads_may_be_of_any_metric(file: Any) -> None:
    of = {"4.6": {"1000": 12, "2000": 25}, "4.11": {"2000": 50}}
    said = {"metric": "mine.score", "value": "it", "task": "ioi", "scale": 0.01}
    run(file(copying(of, **said), "a.json"), unit="things")
    found = heads()
    assert found[4, 6].means == pytest.approx((0.12, 0.25))
    assert (found[4, 11].metric, found[4, 11].value, found[4, 11].unit) == (
        "mine.score",
        "it",
        "things",
    )
    with pytest.raises(UsageError, match="there is no metric"):
        run(file(copying(of, **{**said, "metric": "copying.copied"}), "a.json"))
    run(file(copying(of), "a.json"), **COPIED, scale=0.01)
    assert heads()[4, 6].value == "copied"


def test_a_head_that_was_summarised_is_no_value_even_beside_values(file: Any) -> None:
    of = {"9.7": {"1000": 34}, "8.2": {"1000": 50, "note": "ends near 94"}, "6.6": {"note": ""}}
    made = run(file(json.dumps({"model": "m", "copy_score_percent": of}), "a.json"))
    assert set(heads("m")) == {(9, 7)}
    assert made.notes[0] == (
        "a.json: summarised in a note and not by values, not imported: 8.2, 6.6"
    )


def test_a_step_that_only_some_heads_have_is_said_not_to_be_a_0(file: Any) -> None:
    of = {"9.7": {"1000": 34, "2000": 0}, "8.1": {"1000": 50}}
    said = json.dumps({"model": "m", "copy_score_percent": of})
    made = run(file(said, "a.json"))
    assert any("counts as not recorded, and not as 0" in note for note in made.notes)
    here = series("m")[1]
    assert here.estimate("copied", 9, 7).mean == 0.0  # a 0 that was written is a value
    with pytest.raises(NotApplicable, match=r"no copied of copying.copy_scores at 8\.1"):
        here.estimate("copied", 8, 1)


def test_heads_of_pythia_are_an_array_of_the_whole_model_at_every_checkpoint(file: Any) -> None:
    run(file(LONG), **COPIED, name="pythia-160m")
    for each in series():
        assert each["copied"].shape == (12, 12)
    assert np.isnan(series()[0]["copied"]).sum() == 143
    assert {size: pythia_grid(f"pythia-{size}") for size in ("70m", "2.8b")} == {
        "70m": {"layer": 6, "head": 8},
        "2.8b": {"layer": 32, "head": 32},
    }
    for size, (_, width) in PYTHIA_SHAPES.items():
        assert width % pythia_grid(f"pythia-{size}")["head"] == 0
    assert pythia_grid("gpt2") == {}


def test_the_curve_of_a_head_has_the_checkpoints_at_which_it_was_recorded(file: Any) -> None:
    run(file(LONG), **COPIED, name="pythia-160m", error=0.1)
    curve = series().curve("copied", "evaluation", 8, 1)
    assert curve.labels == ("step2000",)
    assert curve.is_recorded
    assert series().curve("copied", "evaluation", 9, 7).means.tolist() == [0.3, 0.5]
    with pytest.raises(NotApplicable, match=r"at 4\.6"):
        series().curve("copied", "evaluation", 4, 6)


def test_a_series_lists_the_heads_it_knows_with_their_checkpoints(file: Any) -> None:
    run(file(LONG), **COPIED, name="pythia-160m")
    assert list(series().heads("copied").items()) == [((8, 1), 1), ((9, 7), 2)]
    with pytest.raises(NotApplicable, match="has no negative"):
        series().heads("negative")


def measured(scores: np.ndarray) -> Measurement:
    each = np.arange(len(scores))
    axes = {"s": ("prompt", "layer", "head"), "x": ("prompt",)}
    return Measurement("m", {"s": scores, "x": each}, axes, {}, each, each * 0, each % 2)


def test_of_what_was_measured_a_series_knows_every_head_where_it_is_finite() -> None:
    scores = np.ones((4, 2, 3))
    broken = scores.copy()
    broken[1, 0, 2] = np.nan
    found = Series(
        tuple(Moment(f"step{i}", i) for i in range(2)), (measured(scores), measured(broken))
    )
    expected = {(layer, head): 2 for layer in range(2) for head in range(3)} | {(0, 2): 1}
    assert found.heads("s") == expected
    with pytest.raises(MeasurementError, match="not layer and head"):
        found.heads("x")
    with pytest.raises(MeasurementError, match="not 'y'"):
        found.heads("y")


def coverage(share: float, trials: int) -> float:
    """How often mean +- 1.96 errors has the true share in it."""
    from scipy.stats import binom

    hits = np.arange(trials + 1)
    errors = np.array([recorded_errors.of_share(hit / trials, trials) for hit in hits])
    inside = np.abs(hits / trials - share) <= 1.959964 * errors
    return float(binom.pmf(hits, trials, share)[inside].sum())


def test_the_binomial_error_covers_every_true_share_of_seventy_trials() -> None:
    assert min(coverage(share, TRIALS) for share in np.linspace(0.001, 0.999, 333)) >= 0.95


@given(st.integers(1, 500), st.data())
def test_the_binomial_error_is_never_0_nor_below_that_of_large_samples(
    trials: int, data: st.DataObject
) -> None:
    share = data.draw(st.integers(0, 3 * trials)) / (3 * trials)  # a third of a trial may count
    error = recorded_errors.of_share(share, trials)
    assert error > 0
    assert error >= math.sqrt(share * (1 - share) / trials)
    assert error == pytest.approx(recorded_errors.of_share(1 - share, trials), rel=1e-9)
    assert error <= 1.9 * math.sqrt((share * (1 - share) + 1 / trials) / trials)


def test_shares_get_the_error_of_so_many_trials_and_say_what_is_not_in_it(file: Any) -> None:
    run(file(LONG), **COPIED, name="pythia-160m", binomial=TRIALS)
    entry = heads()[9, 7]
    assert entry.errors == tuple(recorded_errors.of_share(mean, TRIALS) for mean in entry.means)
    assert entry.errors[1] == pytest.approx(math.sqrt(0.25 / TRIALS), rel=0.05)
    assert "Clopper-Pearson's interval of 70 independent trials" in entry.error_from
    assert "neither another run of the recording" in entry.error_from
    assert entry.provenance["options"]["binomial"] == TRIALS
    assert series()[0].estimate("copied", 9, 7).error == entry.errors[0]


def test_what_is_no_share_has_no_binomial_error(file: Any) -> None:
    path = file("step,pythia-70m\n1,0.5\n2,1.5\n")
    options = {"metric": "behaviour.answers", "task": "ioi", "value": "logit_difference"}
    with pytest.raises(UsageError, match=r"is no share of trials, it has values from 0\.5 to 1\.5"):
        run(path, **options, binomial=70)
    with pytest.raises(UsageError, match="a share is one of 1 trial or more"):
        run(file(LONG), **COPIED, name="m", binomial=0)


def test_the_command_takes_a_binomial_error(file: Any) -> None:
    path = file(LONG, "pythia-160m_ioi_copy_scores.csv")
    ran = CliRunner().invoke(cli.app, ["import", str(path), "--binomial", "70", "--prompts", "70"])
    assert ran.exit_code == 0, ran.output
    assert "copied of 9.7 on ioi: 2 checkpoints, step1000 to step2000, standard errors" in (
        ran.output
    )
    ran = CliRunner().invoke(cli.app, ["import", str(path), "--binomial", "70", "--error", "0.1"])
    assert ran.exit_code == 4
    assert "give one of --error, --error-column, --binomial" in ran.output
