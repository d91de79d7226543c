"""Training of the embedded family: the same by seed, going on where it stopped."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mechtests.sprout import corpus, lexicon
from mechtests.sprout.held_out import unseen
from training import evaluation
from training.batches import batch, frequencies
from training.loop import Places, new_model, rate_at, train
from training.recipe import FAMILY, STEP_TOKENS, Recipe, recipe
from training.weights import kept_steps

TINY = Recipe("tiny", 1, 16, 1, tokens=12 * STEP_TOKENS / 1e6, seed=0, checkpoints=(0.02,))


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def few_questions(monkeypatch):
    monkeypatch.setattr(evaluation, "PROMPTS", 10)
    evaluation.questions.cache_clear()
    yield
    evaluation.questions.cache_clear()


def places(folder):
    return Places(folder / "models", folder / "logs", folder / "states")


@pytest.mark.usefixtures("one_thread")
def test_the_same_seed_gives_the_same_losses_and_another_seed_others(tmp_path):
    first = train(TINY, places(tmp_path / "a"), until=4)
    assert train(TINY, places(tmp_path / "b"), until=4) == first
    assert train(replace(TINY, seed=1), places(tmp_path / "c"), until=4) != first


@pytest.mark.usefixtures("one_thread")
def test_a_stopped_training_goes_on_to_the_same_weights_and_logs(tmp_path):
    whole, parts = places(tmp_path / "whole"), places(tmp_path / "parts")
    losses = train(TINY, whole)
    assert train(TINY, parts, until=7) + train(TINY, parts) == losses
    for step in TINY.checkpoint_steps:
        file = f"tiny/step{step}/model.safetensors"
        assert (whole.models / file).read_bytes() == (parts.models / file).read_bytes()
    curves = "tiny.curves.jsonl"
    assert (whole.logs / curves).read_text() == (parts.logs / curves).read_text()
    assert train(TINY, parts) == []


@pytest.mark.usefixtures("one_thread")
def test_checkpoints_are_named_with_their_tokens_and_digests_and_load(tmp_path):
    import hashlib

    from transformers import AutoModelForCausalLM, AutoTokenizer

    train(TINY, places(tmp_path))
    folder = tmp_path / "models/tiny"
    named = json.loads((folder / "checkpoints.json").read_text())
    assert [one["step"] for one in named] == [0, 5, 12]
    for one in named:
        assert one["label"] == f"step{one['step']}"
        assert one["tokens"] == one["step"] * STEP_TOKENS
        weights = (folder / one["label"] / "model.safetensors").read_bytes()
        assert one["sha256"] == hashlib.sha256(weights).hexdigest()
    (folder / "model.safetensors").write_bytes(weights)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    ids = AutoTokenizer.from_pretrained(folder)("Mary and John", return_tensors="pt")["input_ids"]
    assert model(ids).logits.shape == (1, 4, len(corpus.ids()))


@pytest.mark.usefixtures("one_thread")
def test_the_shipped_training_starts_with_the_losses_of_its_log(tmp_path):
    """The first of them: the log is written every ten steps."""
    from training.__main__ import HERE

    one = recipe("sprout-100k")
    line = (HERE / "logs" / f"{one.name}.losses.csv").read_text().splitlines()[1].split(",")
    losses = train(one, places(tmp_path), until=10)
    assert int(line[0]) == 10
    assert sum(losses) / 10 == pytest.approx(float(line[2]), abs=2e-3)


def test_every_main_size_has_16_checkpoints_the_control_3_and_the_second_seed_8():
    counts = {one.name: len(one.checkpoint_steps) for one in FAMILY}
    assert counts.pop("sprout-1m-control") == 3
    assert counts.pop("sprout-400k-seed1") == 8
    assert set(counts.values()) == {16}
    for one in FAMILY:
        assert one.checkpoint_steps[0] == 0
        assert one.checkpoint_steps[-1] == one.steps


def test_the_second_seed_is_kept_at_steps_of_the_first():
    first, second = recipe("sprout-400k"), recipe("sprout-400k-seed1")
    assert set(second.checkpoint_steps) <= set(first.checkpoint_steps)
    assert replace(second, name=first.name, seed=0, checkpoints=first.checkpoints) == first


def test_the_control_has_the_size_of_the_largest():
    sizes = [
        [weight.shape for weight in new_model(recipe(name)).parameters()]
        for name in ("sprout-1m", "sprout-1m-control")
    ]
    assert sizes[0] == sizes[1]


def test_sizes_are_near_their_names():
    for name, size in (("sprout-100k", 1e5), ("sprout-400k", 4e5), ("sprout-1m", 1e6)):
        parameters = sum(weight.numel() for weight in new_model(recipe(name)).parameters())
        assert parameters == pytest.approx(size, rel=0.25)


def test_words_of_the_control_are_as_frequent_as_in_the_text_and_in_no_order():
    rows = [row for step in range(20) for row in batch("unigrams", 0, step, 16)]
    assert all(len(row) == corpus.CONTEXT and row[0] == 0 for row in rows)
    words = torch.tensor([row[1:] for row in rows])
    counts = torch.bincount(words.flatten(), minlength=len(corpus.ids())).double()
    expected = torch.tensor(frequencies()).double()
    expected *= counts.sum() / expected.sum()
    assert ((counts - expected).abs() < 6 * (expected + 1).sqrt()).all()
    same = (words[:, 1:] == words[:, :-1]).double().mean()
    assert same == pytest.approx(float((expected / expected.sum()).square().sum()), rel=0.15)


def test_the_rate_rises_stays_and_falls():
    one = recipe("sprout-1m")
    rates = [rate_at(step, one) for step in range(one.steps)]
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert max(rates) == one.rate
    assert rates[-1] < 0.02 * one.rate


def test_questions_are_about_held_out_combinations():
    names, nouns = set(lexicon.NAMES), {noun + end for noun in lexicon.NOUNS for end in ("", "s")}
    for question in evaluation.questions("ioi"):
        assert unseen("names", *(names & set(question.words)))
    for question in evaluation.questions("agreement"):
        assert unseen("nouns", *[word for word in question.words if word in nouns])
    for question in evaluation.questions("addition"):
        a, operator, b, _ = question.words
        assert unseen("operands", operator, a, b)
        assert question.right == [str(int(a) + int(b))]
    for question in evaluation.questions("greater-than"):
        at = question.words.index(question.words[-1])
        assert unseen("years", *question.words[at : at + 2])


def test_an_untrained_model_can_do_nothing():
    values = evaluation.evaluate(new_model(recipe("sprout-100k")).eval())
    assert abs(values["greater-than"]) < 0.1
    assert values["successor"] < 0.2
    assert values["addition"] < 0.2
    assert values["induction"] < 0.1


def test_an_unknown_model_names_the_family():
    with pytest.raises(ValueError, match="the family is sprout-1m, sprout-400k"):
        recipe("sprout-7b")


@pytest.mark.usefixtures("one_thread")
def test_a_training_whose_checkpoints_were_removed_starts_anew(tmp_path):
    import shutil

    losses = train(TINY, places(tmp_path))
    shutil.rmtree(tmp_path / "models/tiny/step5")
    assert train(TINY, places(tmp_path)) == losses
    assert kept_steps(TINY, tmp_path / "models") == TINY.checkpoint_steps


def test_the_model_card_and_the_logs_tell_the_same():
    from mechtests import sprout
    from training.__main__ import HERE
    from training.curves import table

    card = (Path(sprout.__file__).parent / "README.md").read_text(encoding="utf-8")
    assert table(HERE / "logs") in card


@pytest.fixture
def many_questions(few_questions, monkeypatch):
    monkeypatch.setattr(evaluation, "PROMPTS", 150)


def shipped(name):
    """The model as it is in the package at the end of its training, computed in 32 bits."""
    from safetensors.torch import load_file

    from training.__main__ import ROOT

    one = recipe(name)
    model = new_model(one).eval()
    folder = ROOT / "mechtests/sprout/models" / name
    model.load_state_dict(load_file(folder / f"step{one.steps}" / "model.safetensors"))
    return model


@pytest.mark.usefixtures("many_questions")
def test_the_shipped_models_can_do_what_their_card_says():
    """The largest everything, the smallest two things clearly less, the control nothing."""
    from training.curves import CHANCE, TARGETS

    names = ("sprout-1m", "sprout-100k", "sprout-1m-control")
    large, small, control = (evaluation.evaluate(shipped(name)) for name in names)
    for ability, level in TARGETS.items():
        assert large[ability] >= level, ability
        assert abs(control[ability] - CHANCE.get(ability, 0.0)) < 0.15, ability
    assert sum(small[ability] < large[ability] - 0.2 for ability in TARGETS) >= 2


def test_all_shipped_checkpoints_are_as_listed_and_take_at_most_60_megabytes():
    from training.__main__ import ROOT

    models = ROOT / "mechtests/sprout/models"
    for one in FAMILY:
        assert kept_steps(one, models) == one.checkpoint_steps
    assert sum(file.stat().st_size for file in models.rglob("*") if file.is_file()) <= 60e6
    digests = [
        entry["sha256"]
        for one in FAMILY
        for entry in json.loads((models / one.name / "checkpoints.json").read_text())
    ]
    assert len(set(digests)) >= len(digests) - 1  # largest and control start from the same weights


def test_every_shipped_tokenizer_has_the_words_of_the_corpus():
    from training.__main__ import ROOT

    for one in FAMILY:
        file = ROOT / "mechtests/sprout/models" / one.name / "tokenizer.json"
        assert json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"] == corpus.ids()
