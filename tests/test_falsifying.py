"""``mechtests falsify``: on sprout, on a sprout that forgot a name, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mechtests import cli, falsifying, shipped, tasks
from mechtests.answering import behaviour_of, margins
from mechtests.errors import MeasurementError
from mechtests.falsifying import examiner, searchable
from mechtests.models.embedded import EmbeddedSource
from mechtests.models.network import Network
from mechtests.reporting import counterexample
from mechtests.reporting.counterexample import Example, Found
from tests.falsified import ASKED, forget

SEARCHABLE = ("arithmetic", "greater_than", "ioi", "pronoun", "succession", "sva")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MECHTESTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return forget("Tony", tmp_path_factory.mktemp("planted") / "forgetful")


def sprout(*, step: int | None = None) -> Any:
    source = EmbeddedSource("sprout-1m")
    at = None if step is None else next(c for c in source.checkpoints() if c.step == step)
    return source.load(at, dtype="float32", device="cpu")


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, ["falsify", *arguments])


def kept(folder: Path) -> Any:
    (file,) = (folder / ".mechtests").rglob("*.json")
    return json.loads(file.read_text())


# ---------------------------------------------------------------- what is measured of a prompt


@pytest.mark.parametrize("name", SEARCHABLE)
def test_margins_are_those_of_the_plain_model_run_prompt_by_prompt(name: str) -> None:
    """The oracle is transformers' own forward pass of each prompt alone, without padding."""
    loaded, task = sprout(step=1562), tasks.find(name)  # a checkpoint that does part of the tasks
    plain = sprout(step=1562).model
    prompts = task.generate(loaded.tokenizer, 24, np.random.default_rng(0))
    network = Network.from_model(loaded.model, name="sprout")
    found, guesses = margins(network, prompts, behaviour_of(task))
    for i, length in enumerate(prompts.length.tolist()):
        tokens = torch.from_numpy(prompts.clean[i : i + 1, :length])
        logits = plain(tokens).logits[0, -1].double()
        right, wrong = (
            [] if ids is None else [token for token in ids[i].tolist() if token >= 0]
            for ids in (prompts.right, prompts.wrong)
        )
        if name == "arithmetic":
            others = [token for token in range(len(logits)) if token != right[0]]
            expected = logits[right[0]] - logits[others].max()
        elif name == "succession":
            expected = logits[right[0]] - logits[wrong].max()
        elif name in ("greater_than", "sva"):
            chances = logits.softmax(-1)
            expected = chances[right].sum() - chances[wrong].sum()
        else:
            expected = logits[right].mean() - logits[wrong].mean()
        assert found[i] == pytest.approx(float(expected), abs=1e-3)
        assert guesses[i] == int(logits.argmax())


@pytest.mark.parametrize("name", SEARCHABLE)
def test_what_breaks_a_prompt_is_what_the_gate_of_its_task_is_about(name: str) -> None:
    wanted = {
        "arithmetic": "lead of the right",
        "greater_than": "probability diff",
        "sva": "probability diff",
        "succession": "lead over the wrong",
    }
    assert behaviour_of(tasks.find(name)).startswith(wanted.get(name, "logit difference"))


def test_a_model_that_gives_nan_is_an_error_and_no_counterexample() -> None:
    loaded = sprout()
    network = Network.from_model(loaded.model, name="sprout")
    network.unembedding.weight.data.fill_(float("nan"))
    grammar = tasks.find("pronoun").grammar
    assert grammar is not None
    searched = grammar(loaded.tokenizer)
    chosen: dict[str, Any] = {}
    for slot, options in searched.slots.items():
        chosen[slot] = options(chosen)[0]
    with pytest.raises(MeasurementError, match=r"of \"Well, .* is not a finite number"):
        examiner(network, loaded.tokenizer, searched, "logit difference")([chosen])


# ---------------------------------------------------------------- a name that was never seen


@pytest.mark.parametrize("seed", ["0", "1", "4"])
def test_a_name_the_model_never_saw_is_found_and_shrunk_within_200_prompts(
    seed: str, forgetful: Path, folder: Path
) -> None:
    done = run(
        "sanity.gates", "--task", "ioi", f"--model={forgetful}", "--budget=200", "--seed", seed
    )
    assert done.exit_code == 1, done.output
    found = kept(folder)
    assert found["prompts"] <= 200
    assert found["smallest"]
    broken, passing = found["counterexample"], found["neighbour"]
    assert "Tony" in (broken["choices"]["IO"], broken["choices"]["S"])
    assert broken["margin"] <= 0 < passing["margin"]
    differ = [
        slot for slot in broken["choices"] if broken["choices"][slot] != passing["choices"][slot]
    ]
    assert len(differ) == 1
    assert broken["choices"]["place"] == "market"
    assert broken["choices"]["object"] == "book"
    assert broken["text"] in done.output
    assert passing["text"] in done.output


def test_two_searches_with_one_seed_are_the_same(forgetful: Path, folder: Path) -> None:
    several = [
        falsifying.falsify(
            "sanity.gates",
            str(forgetful),
            task="ioi",
            budget=200,
            seed=3,
            reports=folder / str(turn),
        )
        for turn in (0, 1)
    ]
    assert several[0] == several[1]
    assert several[0].counterexample is not None


def test_the_same_name_is_no_weakness_of_the_model_that_knows_it(forgetful: Path) -> None:
    """The planted prompt, on the model as it is: so it is the weakness that was found."""
    found = falsifying.falsify(
        "sanity.gates", str(forgetful), task="ioi", budget=200, reports=Path("reports")
    )
    assert found.counterexample is not None
    loaded = sprout()
    grammar = tasks.find("ioi").grammar
    assert grammar is not None
    network = Network.from_model(loaded.model, name="sprout")
    examine = examiner(network, loaded.tokenizer, grammar(loaded.tokenizer), "logit difference")
    (whole,) = examine([found.counterexample.choices])
    assert whole.text == found.counterexample.text
    assert whole.margin > 5


def test_a_counterexample_is_run_first_the_next_time(forgetful: Path, folder: Path) -> None:
    arguments = ("sanity.gates", "--task", "ioi", f"--model={forgetful}", "--budget", "200")
    first = run(*arguments)
    before = kept(folder)
    again = run(*arguments, "--seed", "99")
    assert first.exit_code == again.exit_code == 1
    assert "run first and breaks it still" in again.output
    after = kept(folder)
    assert after["counterexample"] == before["counterexample"]
    assert after["drawn"] == 0
    assert after["prompts"] < before["prompts"]


def test_a_counterexample_that_passes_now_is_kept_and_said(folder: Path) -> None:
    arguments = ("sanity.gates", "--task", "pronoun", "--model", "sprout-1m", "--budget", "60")
    found = falsifying.falsify(
        "sanity.gates", "sprout-1m-control", task="pronoun", budget=60, reports=folder / "other"
    )
    cell = "sprout-1m:step4883"
    file = counterexample.path(folder / ".mechtests", replace(found.asked, cell=cell))
    counterexample.write(file, found)
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    assert (
        "none in 60 prompts breaks its behaviour (60 forward passes of 60), seed 0" in done.output
    )
    assert "does not break it any more" in done.output
    assert counterexample.stored(file) == found.counterexample.choices  # type: ignore[union-attr]


# ---------------------------------------------------------------- the command


def test_none_found_exits_with_0_and_says_how_many_were_run(folder: Path) -> None:
    done = run("sanity.gates", "--task", "pronoun", "--model", "sprout-1m", "--budget", "100")
    assert done.exit_code == 0, done.output
    assert (
        "none in 100 prompts breaks its behaviour (100 forward passes of 100), seed 0"
        in done.output
    )
    assert not (folder / ".mechtests").exists()


def test_a_wrong_answer_to_a_problem_is_found_and_is_wrong(folder: Path) -> None:
    done = run("nikankin2025.accuracy", "--model", "sprout-1m", "--budget", "400")
    assert done.exit_code == 1, done.output
    broken = kept(folder)["counterexample"]
    a, sign, b = (broken["choices"][slot] for slot in ("first", "operator", "second"))
    assert broken["text"] == f"{a}{sign}{b}="
    right = {"+": a + b, "-": a - b, "*": a * b, "/": a // max(b, 1)}[sign]
    assert broken["right"] == str(right) != broken["guess"]


def test_a_model_that_does_not_do_the_task_breaks_at_the_simplest_prompts() -> None:
    done = run("sanity.gates", "--task", "greater_than", "--model", "sprout-1m-control")
    assert done.exit_code == 1, done.output
    assert "The siege" in done.output or "The war" in done.output


def test_a_checkpoint_can_be_named() -> None:
    done = run(
        *("sanity.gates", "--task", "ioi", "--model", "sprout-1m", "--checkpoint", "step0"),
        *("--budget", "64"),
    )
    assert done.exit_code == 1, done.output
    assert "sprout-1m:step0: a counterexample to its behaviour" in done.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("tigges2024.induction-onset",), "is over repeated_tokens, whose prompts have no grammar"),
        (("tigges2024.components-with-task",), "is over no one task, whose prompts"),
        (
            ("sanity.gates",),
            "say which with --task: ioi, greater_than, pronoun, sva, succession, arithmetic",
        ),
        (
            ("nikankin2025.accuracy", "--search", "mechanism"),
            "has no mechanism that a prompt can break: it is about the behaviour on arithmetic",
        ),
        (("nikankin2025.accuracy", "--search", "rule"), "behaviour, mechanism, got 'rule'"),
        (("sanity.gates", "--task", "iio"), "not over 'iio'"),
        (("sanity.gate",), "did you mean 'sanity.gates'"),
        (("nobody",), "mechtests claims lists them"),
        (("nikankin2025.accuracy", "--budget", "0"), "from 1 on, got 0"),
        (
            ("nikankin2025.accuracy", "--checkpoint", "all"),
            "about one checkpoint, and all names 16",
        ),
        (("nikankin2025.accuracy", "--model", "sprout-2m"), "sprout-2m"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_a_sentence_before_a_model_is_loaded(
    arguments: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EmbeddedSource, "load", None)
    model = () if "--model" in arguments else ("--model", "sprout-1m")
    done = run(*arguments, *model)
    assert done.exit_code == 4
    assert sentence in done.output
    assert "Traceback" not in done.output


def test_recorded_values_have_no_prompts_to_run() -> None:
    done = run("nikankin2025.accuracy", "--model", "recorded:pythia-70m")
    assert done.exit_code == 4
    assert "mechtests falsify:" in done.output


@pytest.mark.parametrize("task", ["sva", "succession"])
def test_agreement_and_succession_are_broken_by_the_control_and_shrunk(
    task: str, folder: Path
) -> None:
    done = run("sanity.gates", "--task", task, "--model", "sprout-1m-control", "--budget", "200")
    assert done.exit_code == 1, done.output
    found = kept(folder)
    assert found["smallest"]
    assert found["counterexample"]["margin"] <= 0
    made = tasks.find(task).grammar
    assert made is not None
    assert made(sprout().tokenizer).allows(found["counterexample"]["choices"])


def test_every_claim_of_a_searchable_task_can_be_asked_for() -> None:
    for claim in shipped.claims():
        if claim.task in SEARCHABLE:
            assert searchable(claim.id, claim.task) is tasks.find(claim.task)


# ---------------------------------------------------------------- as lines and as a file

BROKEN = Example({"name": "Mary", "place": 3}, "Mary is", " here", " gone", -1.25)
PASSING = Example({"name": "John", "place": 3}, "John is", " here", " here", 2.0)
FOUND = Found(ASKED, BROKEN, PASSING, prompts=40, drawn=32, broken=2, smallest=True, passes=40)


def test_the_lines_say_what_breaks_beside_what_passes_and_where_they_differ() -> None:
    lines = counterexample.render(FOUND).splitlines()
    assert lines[0] == (
        "mine.claim (plain) on nobody:final: a counterexample to its behaviour (40 prompts run, "
        "40 forward passes of 200; 2 of 32 drawn break it; no simpler value tried in any one of "
        "its slots breaks it too), seed 0"
    )
    assert lines[1:5] == [
        "  breaks: Mary is",
        "          right ' here', first guess ' gone', margin -1.25",
        "  passes: John is",
        "          right ' here', first guess ' here', margin 2",
    ]
    assert lines[5] == "  they differ in name (Mary / John)"
    assert "does not refute a claim" in lines[6]


def test_a_search_that_is_not_done_says_how_to_go_on() -> None:
    assert "run the same again to go on" in counterexample.render(replace(FOUND, smallest=False))
    alone = replace(FOUND, neighbour=None)
    assert "no prompt like it that passes was run" in counterexample.render(alone)
    nothing = Found(ASKED, None, None, prompts=6, drawn=6, broken=0, exhausted=True, passes=6)
    said = counterexample.render(nothing)
    assert (
        "none in 6 prompts breaks its behaviour (6 forward passes of 200, no further prompts"
        in said
    )


def test_what_is_kept_is_read_again_and_anything_else_is_not(folder: Path) -> None:
    file = counterexample.path(folder, ASKED)
    assert file == folder / "counterexamples" / "mine.claim" / "plain" / "nobody_final.json"
    counterexample.write(file, FOUND)
    assert counterexample.stored(file) == BROKEN.choices
    tree = json.loads(file.read_text())
    assert tree == {"schema": 1, **json.loads(json.dumps(asdict(FOUND)))}
    for spoiled in ("", "[]", "{}", '{"schema": 1, "counterexample": {"choices": [1]}}'):
        file.write_text(spoiled)
        assert counterexample.stored(file) is None
    file.write_text(json.dumps({**tree, "schema": 2}))
    assert counterexample.stored(file) is None
    assert counterexample.stored(folder / "none.json") is None
