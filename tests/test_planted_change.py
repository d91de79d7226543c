"""One head of a sprout is changed: exactly the claim it carries flips, and it is named.

The model is what a user has, a folder of Hugging Face files: the largest sprout, saved as such.
Which claims are affected follows from what its heads do, and that is measured here apart from all
claims, by knocking the head out: without head 0.1 five of six sums are wrong, and every other task
is done as before. So the claim that the model does arithmetic is affected, and none on names,
pronouns, years, agreement, lists, nor induction, which is done by the heads 2.0 and 3.1.
"""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

import mechtests
from mechtests.cli import app
from mechtests.errors import UsageError
from mechtests.metrics.effects import direct_effects
from mechtests.models.embedded import EmbeddedSource
from mechtests.reporting import records
from mechtests.reporting.record import Record
from mechtests.verdict import Outcome
from tests.docs_pages import Installed

HEAD = LAYER, INDEX = 0, 1
NOISE = 3.0
"""Standard deviation of the noise, in that of the matrix it is added to; with 1 nothing flips."""

ACCURACY = "nikankin2025.accuracy"
INDUCTION = "tigges2024.induction-present"
CLAIMS = (ACCURACY, INDUCTION, "sanity.gates")
ARITHMETIC = "arithmetic"
OTHER_TASKS = ("ioi", "greater_than", "pronoun", "sva", "succession")


def saved(folder: Path) -> Path:
    """The largest sprout at its end of training, as a folder of Hugging Face files."""
    source = EmbeddedSource("sprout-1m")
    shutil.copytree(source.fetch(), folder)
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source.path / file, folder)
    return folder


def change(folder: Path) -> None:
    """Noise in the queries and keys of one head, in place: it looks elsewhere."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    width = model.config.hidden_size // model.config.num_attention_heads
    rows = slice(3 * width * INDEX, 3 * width * (INDEX + 1))
    mine = model.gpt_neox.layers[LAYER].attention.query_key_value.weight[rows]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in mine.chunk(3)[:2]:
            part.add_(NOISE * part.std() * torch.randn(part.shape, generator=generator))
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """mechtests as from a wheel."""
    return Installed(tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="module")
def project(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a blessed model, ``mine``, its changed self, and ``before``, what it was."""
    folder = tmp_path_factory.mktemp("project")
    saved(folder / "mine")
    saved(folder / "before")
    blessed = run(installed, folder, "--mech-bless=baseline.json", "--mech-bless-inconclusive")
    assert blessed.returncode == 0, blessed.stdout
    change(folder / "mine")
    return folder


def run(installed: Installed, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Judge the claims on ``mine``, as its user does."""
    claims = [f"--mech-claims={claim}" for claim in CLAIMS]
    words = ["mechtests", "run", "-q", "--model=mine", "--mech-cache=store", *claims, *options]
    return installed.run(words, folder)


@pytest.fixture(scope="module")
def changed(
    installed: Installed, project: Path
) -> tuple[subprocess.CompletedProcess[str], list[Record]]:
    """What a run says of the changed model, held against the baseline, and its records."""
    held = ("--mech-baseline=baseline.json", "--mech-fail-on=changed,error,missing")
    found = run(installed, project, *held)
    return found, records.read(records.latest(project / ".mechtests"))


def explain(project: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.chdir(project)
    told = ["explain", *words, "--model=mine", "--cache=store", "--offline"]
    found = CliRunner().invoke(app, told, env={"COLUMNS": "100"})
    assert found.exit_code == 0, found.output
    return found.output


def without(model: Any, prompts: Any, head: tuple[int, int] | None) -> torch.Tensor:
    """The logits at the end, a head's output replaced by its mean; by hooks of torch alone."""
    width = model.config.hidden_size // model.config.num_attention_heads

    def mean(_: Any, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        z = given[0].clone()
        mine = z[..., width * head[1] : width * (head[1] + 1)]  # type: ignore[index]
        mine[:] = mine.mean((0, 1))
        return (z,)

    hooks = []
    if head is not None:
        dense = model.gpt_neox.layers[head[0]].attention.dense
        hooks.append(dense.register_forward_pre_hook(mean))
    with torch.no_grad():
        logits = model(torch.from_numpy(prompts.clean)).logits
    for hook in hooks:
        hook.remove()
    return logits[torch.arange(len(prompts)), torch.from_numpy(prompts.end)]


def accuracy(logits: torch.Tensor, prompts: Any) -> float:
    """How often the most probable token is a right answer."""
    right = torch.from_numpy(prompts.right)
    return float((logits.argmax(-1)[:, None] == right).any(1).double().mean())


def preference(logits: torch.Tensor, prompts: Any) -> float:
    """How much more probable the right answers are than the wrong ones, mean over prompts."""

    def together(ids: torch.Tensor) -> torch.Tensor:
        return (logits.softmax(-1).gather(1, ids.clamp(min=0)) * (ids >= 0)).sum(1)

    right, wrong = (torch.from_numpy(ids) for ids in (prompts.right, prompts.wrong))
    return float((together(right) - together(wrong)).mean())


@pytest.fixture(scope="module")
def before(project: Path) -> Any:
    """The model before it was changed, opened."""
    return mechtests.open(str(project / "before"), store=project / "store", offline=True)


def test_without_the_head_arithmetic_is_gone(before: Any) -> None:
    prompts = before.prompts(ARITHMETIC)
    drawn = np.random.default_rng(0).choice(len(prompts), 1000, replace=False)
    some = prompts.select(np.sort(drawn))  # at random: operators come in turn
    model = before.loaded.model
    assert accuracy(without(model, some, None), some) > 0.95
    assert accuracy(without(model, some, HEAD), some) < 0.25


@pytest.mark.parametrize("task", OTHER_TASKS)
def test_without_the_head_every_other_task_is_done(before: Any, task: str) -> None:
    prompts = before.prompts(task)
    whole, less = (
        preference(without(before.loaded.model, prompts, head), prompts) for head in (None, HEAD)
    )
    assert less > 0.9 * whole > 0.7


def test_induction_is_done_by_other_heads(before: Any) -> None:
    scores = before.measurement("attention.head_scores", "repeated_tokens")
    induction = scores.mean("induction", "evaluation")
    assert induction[HEAD] < 0.05
    assert min(induction[2, 0], induction[3, 1]) > 0.9


def test_exactly_the_claim_on_arithmetic_flips_and_the_run_is_red(changed: Any) -> None:
    """The gate on arithmetic asks for few right answers, and is passed as before."""
    found, judged = changed
    assert found.returncode == 1, found.stdout
    flipped = {(each.claim.id, each.claim.task): each for each in judged if each.changed}
    assert flipped.keys() == {(ACCURACY, ARITHMETIC)}
    assert flipped[ACCURACY, ARITHMETIC].expects is Outcome.HOLDS
    assert flipped[ACCURACY, ARITHMETIC].outcome is Outcome.REFUTED
    others = [each for each in judged if not each.changed]
    assert [each.outcome for each in others] == [Outcome.HOLDS] * 7  # the gates, and induction


def test_the_run_names_what_changed_and_counts_what_is_as_before(changed: Any) -> None:
    lines = changed[0].stdout.splitlines()
    assert "baseline baseline.json: 7 as before, 1 changed" in lines
    named = [line for line in lines if line.startswith("  changed: ")]
    assert named == [f"  changed: {ACCURACY} ({ARITHMETIC}) on mine: holds, now refuted"]
    said = changed[0].stdout
    assert "changed: holds was expected (the baseline baseline.json, 0.9" in said


def test_what_fails_says_the_short_form_of_its_explanation(changed: Any) -> None:
    said = changed[0].stdout
    first = said.index("changed: holds was expected (the baseline baseline.json, 0.9")
    claimed = said.index("  claimed: ", first)
    margin = said.index("  margin:  it would hold with a margin below ", claimed)
    why = said.index("  why:     ", margin)
    assert said[why:].splitlines()[0] == (
        f"  why:     mechtests explain {ACCURACY} --model=mine --task={ARITHMETIC} --cache=store "
        "--baseline=baseline.json"
    )


def test_the_explanation_names_the_head_and_how_much_it_changed(
    project: Path, changed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = explain(project, monkeypatch, ACCURACY, "--baseline=before")
    assert f"{ACCURACY} ({ARITHMETIC})  mine: REFUTED" in said
    assert "Against before: HOLDS" in said
    named = "differ in head 0.1 by "
    [line] = [line for line in said.splitlines() if "weights " in line]
    assert named in line
    expected = relative_change(project / "before", project / "mine")
    assert line.partition(named)[2] == f"{expected:#.2g} of its norm"  # and no other part
    assert "--baseline" not in said.partition("To try")[2]  # it is held against one already


def relative_change(before: Path, after: Path) -> float:
    """The norm of what was added to a head over that of the head, from the files themselves."""
    old, new = (
        AutoModelForCausalLM.from_pretrained(each, dtype=torch.float64) for each in (before, after)
    )
    width = old.config.hidden_size // old.config.num_attention_heads
    rows = slice(3 * width * INDEX, 3 * width * (INDEX + 1))
    layers = [each.gpt_neox.layers[LAYER].attention for each in (old, new)]
    parts = [
        (
            each.query_key_value.weight[rows],
            each.query_key_value.bias[rows],
            each.dense.weight[:, width * INDEX : width * (INDEX + 1)],
        )
        for each in layers
    ]
    moved, norm = (
        sum(float((each.detach() ** 2).sum()) for each in some)
        for some in ([b - a for a, b in zip(*parts, strict=True)], parts[0])
    )
    return math.sqrt(moved / norm)


def test_a_claim_that_reads_no_head_is_held_against_by_what_heads_tell_the_logits(
    project: Path, changed: Any, monkeypatch: pytest.MonkeyPatch, before: Any
) -> None:
    found = explained(project, monkeypatch, "sanity.gates", "before", task="pronoun")
    assert found.against.same_prompts
    effects = before.measurement(direct_effects, "pronoun").mean("direct_effect", "evaluation")
    assert len(found.against.changes) == 8
    for each in found.against.changes:
        assert each.name == "effects.direct_effect"
        assert each.before == effects[each.head]
    blessed = explained(project, monkeypatch, "sanity.gates", "baseline.json", task="pronoun")
    assert blessed.against.changes == ()
    assert any("the claim reads no value of a head" in each for each in blessed.notes)


@pytest.fixture(scope="module")
def beside_the_weights(project: Path, changed: Any) -> Any:
    """Induction, explained against the folder that has the weights of before."""
    where = {"store": project / "store", "offline": True}
    return mechtests.explain(
        INDUCTION, str(project / "mine"), baseline=str(project / "before"), **where
    )


@pytest.mark.parametrize("baseline", ["baseline.json", "RUN"])
def test_a_blessed_file_and_its_run_are_a_baseline_when_the_old_weights_are_gone(
    project: Path, beside_the_weights: Any, monkeypatch: pytest.MonkeyPatch, baseline: str
) -> None:
    first, second = records.all_runs(project / ".mechtests")
    name = first.name if baseline == "RUN" else baseline
    found = explained(project, monkeypatch, INDUCTION, name)
    assert found.against.verdict.outcome is Outcome.HOLDS
    assert found.against.changes == beside_the_weights.against.changes
    assert found.against.changes
    assert found.against.same_prompts
    assert found.against.weights is None
    titled = f"the run {first.name}" if baseline == "RUN" else "the baseline baseline.json"
    assert found.against.cell == f"mine in {titled}"
    assert second.name > first.name


def explained(
    project: Path, monkeypatch: pytest.MonkeyPatch, claim: str, baseline: str, **how: Any
) -> Any:
    monkeypatch.chdir(project)
    told = {"baseline": baseline, "store": "store", "offline": True, **how}
    return mechtests.explain(claim, "mine", **told)


def test_without_its_run_a_blessed_file_says_what_it_has_and_what_is_missing(
    project: Path, changed: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copy(project / "baseline.json", tmp_path)
    monkeypatch.chdir(tmp_path)
    model, store = str(project / "mine"), project / "store"
    found = mechtests.explain(
        ACCURACY, model, baseline="baseline.json", store=store, offline=True
    )  # fmt: skip
    assert found.against.verdict.outcome is Outcome.HOLDS
    assert found.against.verdict.estimate > 0.9
    assert found.against.changes == ()
    [note] = [each for each in found.notes if "head by head" in each]
    assert note.endswith("is the one that baseline.json was blessed from")
    assert "0.9" in str(found).partition("Against mine in the baseline")[2]


def test_a_run_without_the_claim_is_refused(
    project: Path, changed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"has no tigges2024\.copying-heads-present"):
        explained(project, monkeypatch, "tigges2024.copying-heads-present", "latest")
