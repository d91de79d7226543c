"""Knock-outs in batches are whole edited runs, and break what the planted neurons carry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mechtests.arithmetic import controls, knockouts
from mechtests.arithmetic.controls import Bag
from mechtests.arithmetic.problems import Problems
from mechtests.errors import MeasurementError, UsageError
from mechtests.models.network import Network
from tests import tiny

SIDE, COPIES, IDLE = 10, 10, 20
WIDTH = 256
DEFAULT = 2 * SIDE * SIDE


def random_problems(n: int, position: int = 5, vocabulary: int = tiny.VOCABULARY) -> Problems:
    generator = np.random.default_rng(n)
    tokens = generator.integers(vocabulary, size=(n, position))
    zeros = np.zeros(n, np.int64)
    return Problems(zeros, zeros, zeros, zeros, tokens, generator.integers(vocabulary, size=n))


def answered(network: Network, problems: Problems, edits: Any = None) -> torch.Tensor:
    """Logits of whole runs, one problem at a time."""
    rows = []
    with torch.no_grad():
        rows.extend(
            network.logits(network.run(tokens[None], edits=edits).final)
            for tokens in torch.from_numpy(problems.tokens)
        )
    return torch.cat(rows)


def zeroing(layer: np.ndarray, index: np.ndarray, rows: np.ndarray) -> Any:
    """An edit of each layer that sets some neurons to 0, in plain words."""

    def edit(value: torch.Tensor, neurons: list[int]) -> torch.Tensor:
        value = value.clone()
        for neuron in neurons:
            value[:, :, neuron] = 0.0
        return value

    chosen = [(int(layer[row]), int(index[row])) for row in rows if row >= 0]
    return {
        ("post", at): lambda value, at=at: edit(value, [n for a, n in chosen if a == at])
        for at in {at for at, _ in chosen}
    }


def random_sets(generator: np.random.Generator, problems: int, neurons: int) -> np.ndarray:
    """Six branches of up to twelve neurons; the first goes without none, two are equal."""
    sets = generator.integers(-1, neurons, size=(problems, 6, 12))
    sets[:, 0] = -1
    sets[:, 3] = generator.permuted(sets[:, 2], axis=-1)
    return sets


@pytest.mark.parametrize("start", [0, 1, 2])
@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_a_batch_of_knock_outs_is_as_many_whole_edited_runs(name: str, start: int) -> None:
    """Knocking out from each layer on, the last one among them."""
    network = tiny.network(name, torch.float64)
    generator = np.random.default_rng(start)
    layer = generator.integers(start, tiny.LAYERS, 60)
    index = generator.integers(96, size=60)
    problems = random_problems(4)
    sets = random_sets(generator, 4, 60)
    finals = np.stack([answered(network, problems, zeroing(layer, index, row)) for row in sets[0]])
    expected = np.stack(
        [
            answered(network, problems.select([p]), zeroing(layer, index, row))[0].numpy()
            for p in range(4)
            for row in sets[p]
        ]
    ).reshape(4, 6, -1)
    assert np.abs(expected - expected[:, :1]).max() > 0.1  # they do something
    with torch.no_grad():
        shared = knockouts._Shared.of(network, problems, (layer, index), sets)
        final = shared.without(sets.reshape(24, 12), np.repeat(np.arange(4), 6))
        logits = network.logits(final).numpy().reshape(4, 6, -1)
    np.testing.assert_allclose(logits, expected, atol=1e-9)
    best = expected.argmax(-1)
    for branch in range(6):  # each branch's own answer, so that right and wrong both occur
        asked = Problems(*([problems.operator] * 4), problems.tokens, best[:, branch])
        found = knockouts.right_without(network, asked, layer, index, sets)
        np.testing.assert_array_equal(found, best == best[:, branch, None])
    same = knockouts.right_without(network, problems, layer, index, sets[:1])
    np.testing.assert_array_equal(same, (finals.argmax(-1) == problems.answer).T)


def test_the_memory_there_is_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny.network("llama")
    generator = np.random.default_rng(0)
    layer, index = generator.integers(1, 3, 60), generator.integers(96, size=60)
    problems, sets = random_problems(7), random_sets(generator, 7, 60)
    intact = answered(network, problems).argmax(-1).numpy()
    problems = Problems(*([problems.operator] * 4), problems.tokens, intact)
    whole = knockouts.right_without(network, problems, layer, index, sets)
    assert 0 < whole.mean() < 1
    for size in (1, 100_000, 400_000):
        monkeypatch.setattr(knockouts, "WORKING_BYTES", size)
        found = knockouts.right_without(network, problems, layer, index, sets)
        np.testing.assert_array_equal(found, whole)


def test_what_branches_share_is_run_once_and_equal_sets_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = tiny.network("gpt_neox")
    passed: list[tuple[int, int]] = []  # rows, and layers they pass
    run = network.run

    def counting(tokens: torch.Tensor, **how: Any) -> Any:
        stop = how.get("stop") or network.shape.layers
        passed.append((len(tokens), stop - how.get("start", 0)))
        return run(tokens, **how)

    monkeypatch.setattr(network, "run", counting)
    sets = random_sets(np.random.default_rng(0), 4, 60)
    knockouts.right_without(network, random_problems(4), np.full(60, 1), np.arange(60), sets)
    assert passed == [(4, 2), (4 * 5, 1)]  # two layers for all branches, then 5 different ones


def test_sets_that_do_not_fit_are_refused() -> None:
    network, problems = tiny.network("gpt2"), random_problems(3)
    neurons = np.zeros(2, int), np.arange(2)
    with pytest.raises(UsageError, match="3 problems need as many rows"):
        knockouts.right_without(network, problems, *neurons, np.zeros((2, 1, 1), int))
    with pytest.raises(UsageError, match="0 to 1"):
        knockouts.right_without(network, problems, *neurons, np.full((3, 1, 1), 2))


def test_a_residual_stream_that_is_not_finite_is_an_error_and_no_wrong_answer() -> None:
    model = tiny.tiny("gpt2")
    with torch.no_grad():
        model.transformer.h[2].mlp.c_proj.bias.fill_(float("nan"))
    network = Network.from_model(model, name="broken", check=False)
    sets = np.zeros((1, 1, 1), int)
    with pytest.raises(MeasurementError, match="broken: without some neurons"):
        knockouts.right_without(network, random_problems(2), np.zeros(1, int), np.arange(1), sets)


# ---------------------------------------------------------------- a planted bag of heuristics


def planted_network(threshold: float) -> Network:
    """One token "=" for each of 100 problems (a, b), solved by two heuristics together.

    Ten neurons of layer 0 fire for each a and add a tenth each to all answers of that a; ten of
    layer 1 do so for each b. Twenty of each layer always fire and write nothing. An answer needs
    more than ``threshold`` of the 2 that both give it.
    """
    config = GPT2Config(
        vocab_size=DEFAULT + 2,
        n_positions=4,
        n_embd=WIDTH,
        n_layer=2,
        n_head=4,
        n_inner=SIDE * COPIES + IDLE,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="eager",
    )
    model = GPT2LMHeadModel(config).eval()
    count, code = SIDE * SIDE, np.sqrt(WIDTH / 6)  # of 1, 1 and -2 in the residual stream
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".ln_" not in name:
                parameter.zero_()
        transformer = model.transformer
        transformer.wte.weight[:count, :count] = torch.eye(count)
        transformer.wpe.weight[:, DEFAULT] = 1.0
        transformer.wpe.weight[:, DEFAULT + 1] = -2.0  # so that its mean is 0
        of = torch.arange(count)
        for layer, group in enumerate((of // SIDE, of % SIDE)):
            mlp = transformer.h[layer].mlp
            mlp.c_fc.bias.fill_(-3.0)
            mlp.c_fc.bias[SIDE * COPIES :] = 3.0
            for neuron in range(SIDE * COPIES):
                mine = of[group == neuron // COPIES]
                mlp.c_fc.weight[mine, neuron] = 6.0 / code
                mlp.c_proj.weight[neuron, count + mine] = 0.01 / 3.0 / COPIES
        model.lm_head.weight[count + of, count + of] = 100.0
        model.lm_head.weight[DEFAULT, DEFAULT] = threshold
    return Network.from_model(model, name="bag", check=False)


def planted_problems() -> Problems:
    of = np.arange(SIDE * SIDE)
    tokens = np.stack((*[np.full(len(of), DEFAULT + 1)] * 3, of), 1)
    return Problems(of * 0, of // SIDE, of % SIDE, of, tokens, SIDE * SIDE + of)


def planted_bag(generator: np.random.Generator | None = None) -> tuple[Bag, np.ndarray]:
    """The bag with its true matches, or with them dealt out anew within layers."""
    neurons = SIDE * COPIES + IDLE
    score = np.zeros((2 * neurons, 2 * SIDE))
    for layer in range(2):
        for neuron in range(SIDE * COPIES):
            heuristic = layer * SIDE + neuron // COPIES
            score[layer * neurons + neuron, heuristic] = 0.7 + 0.01 * (neuron % COPIES)
    if generator is not None:
        for layer in range(2):
            rows = slice(layer * neurons, (layer + 1) * neurons)
            score[rows] = score[rows][generator.permutation(neurons)]
    layer = np.repeat([0, 1], neurons)
    attribution = np.random.default_rng(0).random(2 * neurons)
    bag = Bag(layer, np.tile(np.arange(neurons), 2), score, attribution)
    problems, of = planted_problems(), np.arange(SIDE)[:, None]
    return bag, np.concatenate((problems.first == of, problems.second == of))


def test_a_prompts_neurons_break_it_at_the_count_they_must_and_random_ones_do_not() -> None:
    """2 of 10 a layer leave 1.6 of 2, 5 leave 1.0; 1.45 are needed."""
    network, problems = planted_network(1.45), planted_problems()
    bag, holds = planted_bag()
    effects = np.random.default_rng(1).random((len(problems), len(bag)))
    choices = controls.choose(
        bag, holds, np.random.default_rng(0), effects=effects, ks=(2, 5, 10), draws=20
    )
    found = knockouts.knock_out_prompts(network, problems, bag, choices)
    assert found.intact.all()
    np.testing.assert_array_equal(found.heuristic.mean(0), [1.0, 0.0, 0.0])
    by_name = dict(zip(choices.controls, np.moveaxis(found.control.mean(0), 1, 0), strict=True))
    for name in ("unassociated", "attribution", "effect"):
        np.testing.assert_array_equal(by_name[name], 1.0)
    assert by_name["important"].min() > 0.98
    # another prompt's set breaks this one where both have a heuristic in common, at 10 a layer
    assert by_name["another prompt"][:2].min() > 0.99
    assert by_name["another prompt"][2] == pytest.approx(1 - 18 / 99, abs=0.03)
    np.testing.assert_array_equal(found.contrast(5, "unassociated"), 1.0)
    assert found.mcnemar(5, "unassociated") == pytest.approx(0.5**100)
    assert not choices.short.any()
    assert choices.outside.max() < 0.6


def test_one_neuron_that_carries_the_answer_breaks_its_prompt_alone() -> None:
    """Each answer hangs on one neuron: without it the prompt fails, without any other it holds."""
    network, problems = planted_network(1.95), planted_problems()
    bag, _ = planted_bag()
    neurons = np.arange(len(bag))
    sets = np.broadcast_to(neurons[None, :, None], (1, len(bag), 1))
    right = knockouts.right_without(network, problems, bag.layer, bag.index, sets)
    group = bag.index // COPIES
    carries = np.where(
        bag.layer == 0,
        problems.first[:, None] == group,
        problems.second[:, None] == group,
    )
    np.testing.assert_array_equal(right, ~carries)


def test_heuristics_dealt_out_at_random_break_no_more_than_controls_do() -> None:
    """The contrast is centred on 0 over bags with the matches dealt out anew."""
    network, problems = planted_network(1.85), planted_problems()
    names = ("unassociated", "attribution", "another prompt", "important")
    contrasts = []
    for seed in range(24):
        generator = np.random.default_rng(seed)
        bag, holds = planted_bag(generator)
        choices = controls.choose(bag, holds, generator, ks=(10,), draws=4)
        found = knockouts.knock_out_prompts(network, problems, bag, choices)
        assert 0.1 < found.heuristic.mean() < 0.9
        contrasts.append([found.contrast(10, name).mean() for name in names])
    means = np.mean(contrasts, 0)
    errors = np.std(contrasts, 0, ddof=1) / np.sqrt(len(contrasts))
    assert (errors < 0.04).all()
    assert (np.abs(means) < 3 * errors).all(), (means, errors)


def test_a_pool_that_is_too_small_is_reported_and_draws_the_control_to_the_heuristics() -> None:
    """Of each layer the bag has only one problem's neurons: no control can differ."""
    network, problems = planted_network(1.45), planted_problems().select([0])
    whole, holds = planted_bag()
    mine = np.flatnonzero(whole.associated(holds[:, :1])[:, 0])
    bag = Bag(whole.layer[mine], whole.index[mine], whole.score[mine], whole.attribution[mine])
    choices = controls.choose(bag, holds[:, :1], np.random.default_rng(0), ks=(10, 25), draws=3)
    found = knockouts.knock_out_prompts(network, problems, bag, choices)
    np.testing.assert_array_equal(choices.overlap, 1.0)
    np.testing.assert_array_equal(choices.short, [[False, True]])
    assert not found.heuristic.any()
    for name in choices.controls:
        np.testing.assert_array_equal(found.contrast(10, name), 0.0)


def test_a_heuristics_neurons_break_related_problems_alone() -> None:
    """With an unrelated set that has related problems in it, unrelated accuracy were below 1."""
    network, problems = planted_network(1.45), planted_problems()
    bag, holds = planted_bag()
    found = knockouts.knock_out_heuristics(
        network, problems, bag, holds, np.random.default_rng(0), prompts=30
    )
    np.testing.assert_array_equal(found.heuristic, np.arange(2 * SIDE))
    np.testing.assert_array_equal(found.neurons, COPIES)
    np.testing.assert_array_equal(found.prompts, [[10, 30]] * 20)
    np.testing.assert_array_equal(found.accuracy, [[0.0, 1.0]] * 20)
    assert found.control.min() > 0.9
    assert (found.overlap == 0).all()
    contrast = found.contrast(np.repeat([0, 1], SIDE))
    assert contrast.values.max() < -0.9
    assert contrast.cluster.tolist() == [0] * SIDE + [1] * SIDE


def test_heuristics_of_few_neurons_or_few_problems_are_left_out() -> None:
    network, problems = planted_network(1.45), planted_problems()
    bag, holds = planted_bag()
    fewer = bag.score.copy()
    fewer[np.flatnonzero(bag.matched[:, 3])[0], 3] = 0.0  # 9 neurons
    bag = Bag(bag.layer, bag.index, fewer, bag.attribution)
    holds = holds.copy()
    holds[5, np.flatnonzero(holds[5])[0]] = False  # 9 problems
    found = knockouts.knock_out_heuristics(
        network, problems, bag, holds, np.random.default_rng(0), heuristics=[3, 4, 5], draws=1
    )
    assert found.heuristic.tolist() == [4]
    nothing = knockouts.knock_out_heuristics(
        network, problems, bag, holds, np.random.default_rng(0), heuristics=[3]
    )
    assert len(nothing.contrast(np.zeros(20, int))) == 0


def test_heuristics_dealt_out_at_random_hurt_related_problems_no_more_than_others() -> None:
    network, problems = planted_network(1.85), planted_problems()
    contrasts = []
    for seed in range(12):
        generator = np.random.default_rng(seed)
        bag, holds = planted_bag(generator)
        found = knockouts.knock_out_heuristics(network, problems, bag, holds, generator, draws=3)
        contrasts.append(found.contrast(np.arange(20)).values.mean())
    error = np.std(contrasts, ddof=1) / np.sqrt(len(contrasts))
    assert error < 0.05
    assert abs(np.mean(contrasts)) < 3 * error


def test_what_was_not_knocked_out_cannot_be_asked_for() -> None:
    network, problems = planted_network(1.45), planted_problems().select([0, 1])
    bag, holds = planted_bag()
    choices = controls.choose(bag, holds[:, :2], np.random.default_rng(0), ks=(2,), draws=1)
    found = knockouts.knock_out_prompts(network, problems, bag, choices)
    with pytest.raises(UsageError, match="not 5 against 'unassociated'"):
        found.contrast(5, "unassociated")
    with pytest.raises(UsageError, match="against 'effect'"):
        found.contrast(2, "effect")
