"""A model against its quantised and noised copies: claim by claim, paired on the same prompts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFReader, dequantize
from scipy import stats
from typer.testing import CliRunner

from mechtests.cli import app
from mechtests.reporting import records, samples
from mechtests.reporting.place import Place
from mechtests.reporting.shifts import How
from tests.gguf_files import requantized, write_gpt2
from tests.planted import induction_stream
from tests.test_gguf import smollm2
from tests.words import Numbers

CLAIMS = '''
from mechtests import claim
from mechtests.metrics import attention
from mechtests.rules import above
from mechtests.tasks.repeated_tokens import repeated_tokens

SCORES = {"scores": attention.head_scores(repeated_tokens)}

@claim("mine.induction", says="1.1 looks behind the last time.", task=repeated_tokens, needs=SCORES)
def test_induction(measured, judge):
    """Most of its attention."""
    judge(above(measured.scores.sample("induction", "evaluation", 1, 1), 0.5, what="induction"))

@claim("mine.previous", says="0.2 looks back by one.", task=repeated_tokens, needs=SCORES)
def test_previous(measured, judge):
    """Most of its attention."""
    judge(above(measured.scores.sample("previous", "evaluation", 0, 2), 0.5, what="previous"))
'''
GATE = '''
from mechtests import claim
from mechtests.metrics import behaviour
from mechtests.rules import above
from mechtests.tasks.ioi import ioi

@claim("mine.ioi", says="It does IOI.", task=ioi, needs={"answers": behaviour.answers(ioi)})
def test_ioi(measured, judge):
    """By the logit difference."""
    of = measured.answers.sample("logit_difference", "evaluation")
    judge(above(of, 0.0, what="logit difference"))
'''
INDUCTION, PREVIOUS = "mine.induction", "mine.previous"
COPIES = ("whole", "q8_0", "q4_0", "noised")


def planted() -> Any:
    """A GPT-2 with an induction head that is not quite sure, so that precision can be seen."""
    return induction_stream(tokenizer=Numbers(120), width=512, strength=26.0).model


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two claims, judged on a planted model in 32 bits, as GGUF of other types, and in bfloat16."""
    folder = tmp_path_factory.mktemp("quantised")
    (folder / "test_mine.py").write_text(CLAIMS)
    whole = write_gpt2(folder / "whole.gguf", planted())
    requantized(whole, folder / "q8_0.gguf", Kind.Q8_0)
    requantized(whole, folder / "q4_0.gguf", Kind.Q4_0)
    requantized(whole, folder / "noised.gguf", Kind.F32, noise=0.5)
    models = [f"--model={name}.gguf" for name in COPIES]
    judged(folder, *models)
    judged(folder, "--model=whole.gguf", "--mech-dtype=bfloat16")
    return folder


def judged(folder: Path, *options: str) -> Path:
    """Judge in a folder, as its user does; gives the run."""
    environment = {**os.environ, "COLUMNS": "100"}
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "--mech-fail-on=error",
         f"--mech-cache={folder / 'store'}", *options],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout
    return records.latest(folder / ".mechtests")


def compared(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str]:
    monkeypatch.chdir(folder)
    found = CliRunner().invoke(app, ["compare", *words], env={"COLUMNS": "100"})
    return found.exit_code, found.output


def shifts(folder: Path, monkeypatch: pytest.MonkeyPatch, a: str, b: str) -> dict[str, Any]:
    _, said = compared(folder, monkeypatch, a, b, "--json")
    return {each["claim"]: each for each in json.loads(said)["shifts"]}


def test_a_copy_keeps_every_tensor_up_to_a_step_of_its_type(project: Path) -> None:
    before, after = (
        {each.name: each for each in GGUFReader(project / f"{name}.gguf").tensors}
        for name in ("whole", "q8_0")
    )
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        mine = dequantize(tensor.data, tensor.tensor_type)
        theirs = dequantize(after[name].data, after[name].tensor_type)
        if after[name].tensor_type is Kind.F32:
            assert np.array_equal(mine, theirs)
            continue
        blocks = mine.reshape(-1, 32)
        step = np.abs(blocks).max(1, keepdims=True) / 127
        of_scale = 127 * np.maximum(step * 2.0**-11, 2.0**-25)  # it is kept in 16 bits
        assert (np.abs(theirs.reshape(-1, 32) - blocks) <= 0.5 * step + of_scale + 1e-7).all()


def test_a_copy_of_another_seed_has_other_noise(project: Path, tmp_path: Path) -> None:
    again, other = (
        requantized(
            project / "q8_0.gguf", tmp_path / f"{seed}.gguf", Kind.F32, noise=0.5, seed=seed
        )
        for seed in (0, 1)
    )
    name = "blk.0.attn_qkv.weight"
    values = [_tensor(path, name) for path in (project / "q8_0.gguf", again, other)]
    for noised in values[1:]:
        assert (noised - values[0]).std() == pytest.approx(0.5 * values[0].std(), rel=0.01)
    assert not np.array_equal(values[1], values[2])


def _tensor(path: Path, name: str) -> Any:
    [found] = [each for each in GGUFReader(path).tensors if each.name == name]
    return dequantize(found.data, found.tensor_type)


@pytest.mark.parametrize("name", ["q8_0", "q4_0"])
def test_a_quantised_copy_flips_nothing_and_its_shift_is_paired(
    project: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    code, said = compared(project, monkeypatch, *of_gguf(project, "whole", name))
    assert code == 0, said
    assert_order(said)
    assert "Flips: 0 of 2 verdicts" in said
    found = shifts(project, monkeypatch, *of_gguf(project, "whole", name))
    assert_paired(found, project, "whole", name)


def test_a_noised_copy_flips_the_claim_that_it_breaks(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = compared(project, monkeypatch, *of_gguf(project, "whole", "noised"))
    assert code == 1, said
    assert_order(said)
    flips = [line for line in said.splitlines() if "HOLDS" in line]
    assert [line.split()[-2] for line in flips] == [INDUCTION]  # 0.2 scores 40, too far to reach
    found = shifts(project, monkeypatch, *of_gguf(project, "whole", "noised"))
    assert_paired(found, project, "whole", "noised")
    assert found[INDUCTION]["q"] < 0.001


def test_another_precision_of_the_same_file_is_compared_by_runs(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = compared(project, monkeypatch, *precisions(project))
    assert code == 0, said
    assert "settings differ: dtype float32 in A, in B bfloat16" in said
    [shift] = [
        each
        for each in shifts(project, monkeypatch, *precisions(project)).values()
        if each["claim"] == INDUCTION
    ]
    assert shift["how"] == How.PAIRED
    assert 0 < abs(shift["difference"]) < 0.05


def test_a_name_of_nothing_is_a_usage_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compared(project, monkeypatch, "whole", "q2_k")[0] == 4


def of_gguf(folder: Path, *names: str) -> list[str]:
    """Models in the run over all GGUF files."""
    return [f"{runs_of(folder)[0].name}:{name}" for name in names]


def precisions(folder: Path) -> list[str]:
    """The file in 32 bits as its run has it, and the run in bfloat16."""
    return [*of_gguf(folder, "whole"), runs_of(folder)[1].name]


def assert_order(said: str) -> None:
    """Flips come first, then the shifts, then what was compared at all."""
    places = [said.index(head) for head in ("Flips:", "Effect shifts B - A, paired", "Coverage:")]
    assert places == sorted(places)


def assert_paired(found: dict[str, Any], folder: Path, a: str, b: str) -> None:
    """Every shift is the mean difference of the prompts' own values, with its t interval."""
    kept = samples.read(runs_of(folder)[0])
    assert found.keys() == {INDUCTION, PREVIOUS}
    for claim, shift in found.items():
        of_a, of_b = (kept[Place(claim, "repeated_tokens", each)][()] for each in (a, b))
        assert shift["how"] == How.PAIRED
        assert shift["prompts"] == len(of_a) == 10
        assert np.unique(of_a.cluster).size == len(of_a)
        difference = of_b.values - of_a.values
        assert shift["difference"] == pytest.approx(difference.mean(), abs=1e-7)
        if difference.any():
            test = stats.ttest_rel(of_b.values, of_a.values)
            expected = tuple(test.confidence_interval(0.95))
            assert shift["interval"] == pytest.approx(expected, rel=1e-6)
            assert shift["p"] == pytest.approx(test.pvalue, rel=1e-6)
        else:
            assert shift["interval"] is None
    paired, alone = (np.ptp(each["interval"]) for each in (found[INDUCTION], found[INDUCTION]["a"]))
    assert paired < alone  # what is the same in both for a prompt is gone from the difference


def runs_of(folder: Path) -> list[Path]:
    """The run over all GGUF files, and that in bfloat16."""
    return records.all_runs(folder / ".mechtests")


@pytest.mark.skipif(smollm2() is None, reason="'mechtests fetch smollm2-135m' was not run")
def test_smollm2_is_compared_with_a_requantised_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 4 bits with and without an offset (Q4_1, Q4_0): IOI is done as well, and not the same."""
    own = smollm2()
    assert own is not None
    (tmp_path / "own.gguf").symlink_to(own)
    requantized(own, tmp_path / "q4_0.gguf", Kind.Q4_0)
    (tmp_path / "test_gate.py").write_text(GATE)
    judged(tmp_path, "--model=own.gguf", "--model=q4_0.gguf")
    code, said = compared(tmp_path, monkeypatch, "own", "q4_0")
    assert_order(said)
    found = shifts(tmp_path, monkeypatch, "own", "q4_0")["mine.ioi"]
    assert found["how"] == How.PAIRED
    assert found["prompts"] == 30
    assert found["difference"] != 0
    low, high = found["interval"]
    assert low < found["difference"] < high
    assert code == (1 if "Flips: 1" in said else 0)
