from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mechtests.arithmetic import averages as averaging
from mechtests.arithmetic import faithfulness as room
from mechtests.arithmetic.averages import Averages, averages
from mechtests.arithmetic.components import late_layers
from mechtests.arithmetic.faithfulness import (
    Kept,
    faithfulness,
    first_mlp_averaged,
    first_mlp_cut,
    random_neurons,
    run_circuits,
)
from mechtests.arithmetic.problems import EQUALS, Problems
from mechtests.errors import UsageError
from mechtests.models.network import Network
from mechtests.models.walk import Edits
from tests.problems import problems as random_problems
from tests.tiny import ARCHITECTURES, HEADS, LAYERS, VOCABULARY, network, tiny

WIDTH = 96


problems = partial(random_problems, operators=3)
"""Of three operators."""


def some_circuits(seed: int = 0) -> list[Kept]:
    """Random heads and MLPs, some neurons of some layers, everywhere or at some positions."""
    draw, shape = np.random.default_rng(seed), network("gpt2").shape
    heads = [draw.random((LAYERS, HEADS)) < 0.6 for _ in range(3)]
    mlps = [draw.random(LAYERS) < 0.6 for _ in range(3)]
    neurons = [{layer: draw.random(WIDTH) < 0.3} for layer in range(LAYERS)]
    return [
        Kept(heads[0], mlps[0]),
        Kept(heads[1], mlps[1], neurons[0] | neurons[2]),
        Kept(heads[2], mlps[2], neurons[1], positions=(-4, -2)),
        Kept.of_heads(shape, [(0, 1), (2, 3)]),
        Kept.of_heads(shape, []),
        Kept.everything(shape).with_neurons(neurons[2]),
        first_mlp_cut(shape, neurons[0][0]),
        first_mlp_averaged(shape, EQUALS),
    ]


def one_by_one(value: Tensor, mean: Tensor, at: list[int], parts: list[int]) -> Tensor:
    """One prompt's activations with these parts at these positions at their means."""
    value = value.clone()
    for position in at:
        for part in parts:
            value[0, position, part] = mean[position, part]
    return value


def slow(
    net: Network, mine: Problems, means: Averages, circuit: Kept, answer: int, row: int
) -> tuple[float, bool, float, float]:
    """NL, whether the answer wins, and the two log-probabilities, of one prompt."""
    tokens = torch.from_numpy(mine.tokens[row : row + 1])
    length = tokens.shape[1]
    at = [length + p for p in circuit.positions or range(-length, 0)]
    edits = {}
    for layer in range(LAYERS):
        heads = np.flatnonzero(~circuit.heads[layer]).tolist()
        told = {"z": (means.z, heads)}
        if layer in circuit.neurons:
            cut = np.flatnonzero(~circuit.neurons[layer]).tolist()
            told["post"] = means.neurons, cut
        elif not circuit.mlps[layer]:
            told["mlp_out"] = means.mlp_out, list(range(net.shape.width))
        for site, (mean, parts) in told.items():
            edits[site, layer] = partial(one_by_one, mean=mean[layer], at=at, parts=parts)
    logits = net.logits(net.run(tokens, edits=edits).final)[0].double()
    centred = logits - logits.mean()
    logs = logits.log_softmax(0)
    mine_answer = int(mine.answer[row])
    nl = float(centred[mine_answer] / centred.max())
    right = int(logits.argmax()) == mine_answer
    return nl, right, float(logs[mine_answer]), float(logs[answer])


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_circuits_answer_what_whole_runs_edited_one_by_one_answer(name: str, bos: bool) -> None:
    net, mine, others = network(name), problems(seed=1, bos=bos), problems(seed=2, bos=bos)
    means = averages(net, problems(20, seed=3, bos=bos))
    circuits = some_circuits()
    found = run_circuits(net, mine, means, circuits, others)
    for row in range(len(mine)):
        for number, circuit in enumerate(circuits):
            nl, right, *logs = slow(net, mine, means, circuit, others.answer[row], row)
            assert found.normalised[row, number] == pytest.approx(nl, abs=2e-5)
            assert found.right[row, number] == right
            assert found.answer[row, number] == pytest.approx(logs[0], abs=2e-5)
            assert found.other[row, number] == pytest.approx(logs[1], abs=2e-5)
    assert np.unique(found.normalised.round(4), axis=1).shape[1] == len(circuits)


def test_the_robust_effect_of_a_circuit_is_half_of_what_the_other_answers_logit_gains() -> None:
    net, mine, others = network("qwen2"), problems(seed=1), problems(seed=2)
    means = averages(net, problems(20, seed=3))
    circuits = [first_mlp_averaged(net.shape, EQUALS), Kept.everything(net.shape)]
    found = run_circuits(net, mine, means, circuits, others).robust(1)
    rows = np.arange(len(mine))

    def gap(edits: Edits) -> np.ndarray:
        logits = net.logits(net.run(torch.from_numpy(mine.tokens), edits=edits).final).numpy()
        return logits[rows, others.answer] - logits[rows, mine.answer]

    def edit(out: Tensor) -> Tensor:
        return torch.cat((out[:, :-1], means.mlp_out[0, -1].expand(len(out), 1, -1)), 1)

    np.testing.assert_allclose(found[:, 0], (gap({("mlp_out", 0): edit}) - gap({})) / 2, atol=1e-5)
    assert np.abs(found[:, 0]).max() > 1e-3
    assert not found[:, 1].any()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_whole_network_is_faithful_by_1_and_the_floor_by_0(name: str) -> None:
    net, mine = network(name), problems(seed=4)
    shape, means = net.shape, averages(net, problems(20, seed=5))
    every = np.ones(WIDTH, bool)
    floor, whole = Kept.nothing(shape), Kept.everything(shape)
    again = [Kept.nothing(shape), Kept.of_heads(shape, np.argwhere(whole.heads).tolist() and [])]
    circuits = [floor, whole, again[0], Kept.everything(shape)]
    found = run_circuits(net, mine, means, circuits).normalised
    kept = faithfulness(found[:, 2:], found[:, 0], found[:, 1], guard=-np.inf)
    spans = (found[:, 1] - found[:, 0]).mean() > 0
    assert kept.tolist() == [0.0, 1.0] if spans else np.isnan(kept).all()
    everything = whole.with_neurons({1: every})
    untouched = run_circuits(net, mine, means, [everything, whole]).normalised
    np.testing.assert_array_equal(untouched[:, 0], untouched[:, 1])
    clean = net.logits(net.run(torch.from_numpy(mine.tokens)).final).double()
    centred = (clean - clean.mean(-1, keepdim=True)).numpy()
    wanted = centred[np.arange(len(mine)), mine.answer] / centred.max(-1)
    np.testing.assert_allclose(untouched[:, 1], wanted, atol=2e-5)


def test_nl_is_1_where_the_answer_wins_and_does_not_see_a_constant_in_all_logits() -> None:
    model, mine = tiny("gptj"), problems(seed=6)
    plain = Network.from_model(tiny("gptj"), name="plain", check=False)
    with torch.no_grad():
        model.lm_head.bias.add_(7.0)
    shifted = Network.from_model(model, name="shifted", check=False)
    with torch.no_grad():
        logits = plain.logits(plain.run(torch.from_numpy(mine.tokens)).final)
    winners = replace(mine, answer=logits.argmax(-1).numpy())
    means = averages(plain, problems(20, seed=7))
    circuits = some_circuits()
    found, moved = (run_circuits(net, winners, means, circuits) for net in (plain, shifted))
    np.testing.assert_allclose(found.normalised, moved.normalised, atol=1e-5)
    whole = run_circuits(plain, winners, means, [Kept.everything(plain.shape)])
    assert (whole.normalised == 1).all()
    assert whole.right.all()


def test_means_weigh_operators_the_same_and_do_not_depend_on_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, mine = network("gemma3"), problems(9, seed=8)
    found = averages(net, mine)
    monkeypatch.setattr(averaging, "WORKING_BYTES", 1)
    one_by_one = averages(net, mine)
    run = net.run(torch.from_numpy(mine.tokens), keep=("z", "mlp_out", "post"))
    for site, mean in (("z", found.z), ("mlp_out", found.mlp_out), ("post", found.neurons)):
        values = run.stack(site).double()
        by_operator = [values[mine.operator == operator].mean(0) for operator in (0, 1, 2)]
        assert sorted(np.bincount(mine.operator)) == [1, 1, 7]
        torch.testing.assert_close(mean.double(), sum(by_operator) / 3, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one_by_one.z, found.z, rtol=1e-5, atol=1e-6)
    with pytest.raises(UsageError, match="at least one problem"):
        averages(net, mine.select(np.zeros(len(mine), bool)))


def test_batches_of_prompts_and_circuits_do_not_change_what_circuits_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, mine = network("qwen2"), problems(7, seed=9)
    means, circuits = averages(net, problems(20, seed=3)), some_circuits()
    whole = run_circuits(net, mine, means, circuits)
    monkeypatch.setattr(room, "CIRCUITS_AT_ONCE", 3)
    monkeypatch.setattr(room, "prompts_at_once", lambda *_: 2)
    parts = run_circuits(net, mine, means, [*circuits, circuits[0]])
    np.testing.assert_allclose(parts.normalised[:, :-1], whole.normalised, atol=2e-5)
    np.testing.assert_array_equal(parts.normalised[:, -1], parts.normalised[:, 0])


def test_layers_below_what_is_replaced_are_run_once_for_all_circuits() -> None:
    net, mine = network("llama"), problems(2, seed=1)
    means = averages(net, mine)
    late = Kept.everything(net.shape)
    circuits = [late.with_neurons({LAYERS - 1: np.arange(WIDTH) < count}) for count in range(10)]
    with FlopCounterMode(display=False) as counter:
        net.run(torch.from_numpy(mine.tokens))
    one = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        run_circuits(net, mine, means, circuits)
    unembedding = 2 * 2 * 2 * len(circuits) * net.shape.width * VOCABULARY
    blocks = (LAYERS - 1) / LAYERS + len(circuits) / LAYERS
    assert counter.get_total_flops() - unembedding == pytest.approx(blocks * one, rel=0.01)


def test_keeping_all_neurons_of_the_first_mlp_is_the_network_and_end_is_not_cut() -> None:
    net, mine = network("gpt_neox"), problems(seed=2)
    shape, means = net.shape, averages(net, problems(20, seed=3))
    none, every = np.zeros(WIDTH, bool), np.ones(WIDTH, bool)
    floor = first_mlp_cut(shape, none)
    circuits = [first_mlp_cut(shape, every), Kept.everything(shape), floor]
    found = run_circuits(net, mine, means, circuits).normalised
    np.testing.assert_array_equal(found[:, 0], found[:, 1])
    assert floor.positions == (-4, -3, -2)
    assert np.abs(found[:, 2] - found[:, 1]).max() > 1e-3
    # without a norm behind it, an MLP without neurons is an MLP at its mean
    by_output = replace(first_mlp_averaged(shape, EQUALS), positions=floor.positions)
    other = run_circuits(net, mine, means, [by_output]).normalised
    np.testing.assert_allclose(other[:, 0], found[:, 2], atol=1e-5)


def test_late_layers_are_those_from_half_of_the_depth_on() -> None:
    assert list(late_layers(4)) == [2, 3]
    assert list(late_layers(5)) == [3, 4]
    assert list(late_layers(32)) == list(range(16, 32))


def test_random_neurons_are_as_many_in_each_layer_from_all_of_them() -> None:
    masks = {layer: np.arange(WIDTH) < 4 + layer for layer in (1, 2)}
    drawn = random_neurons(masks, 50, np.random.default_rng(0))
    assert len(drawn) == 50
    assert all({at: m.sum() for at, m in each.items()} == {1: 5, 2: 6} for each in drawn)
    assert np.any([each[1] for each in drawn], axis=0).mean() > 0.9
    assert len({each[2].tobytes() for each in drawn}) > 45
    again = random_neurons(masks, 50, np.random.default_rng(0))
    assert all((a[1] == b[1]).all() for a, b in zip(drawn, again, strict=True))


def test_faithfulness_is_a_difference_of_means_and_nothing_below_its_guard() -> None:
    floor, whole = np.array([0.0, 0.4, 0.2]), np.array([1.0, 1.0, 0.4])
    values = np.array([[0.5, 0.0], [0.7, 0.4], [0.9, 0.2]])
    found = faithfulness(values, floor, whole)
    np.testing.assert_allclose(found, [(0.7 - 0.2) / (0.8 - 0.2), 0.0])
    assert np.isnan(faithfulness(values, floor, floor + 0.15)).all()
    assert not np.isnan(faithfulness(values, floor, floor + 0.25)).any()
