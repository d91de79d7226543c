from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mechtests.arithmetic import neurons as room
from mechtests.arithmetic.faithfulness import Kept
from mechtests.arithmetic.neuron_sets import (
    chance,
    count_of,
    overlap,
    sparse_circuits,
    top,
)
from mechtests.arithmetic.neurons import (
    Attributions,
    attributions,
    first_mlp_attributions,
    output_norms,
)
from mechtests.arithmetic.problems import Problems
from mechtests.errors import UsageError
from mechtests.models.network import Network
from tests.problems import problems
from tests.tiny import ARCHITECTURES, LAYERS, network, off, tiny

WIDTH = 96
DOUBLE = torch.float64
Floats = NDArray[np.float64]


def eq_1(logits: Tensor, clean: Tensor, mine: Problems, others: Problems) -> Tensor:
    """The paper's effect, literally, ``[prompt]``."""
    rows = torch.arange(len(mine))
    r, r_other = torch.from_numpy(mine.answer), torch.from_numpy(others.answer)
    p, q = clean.softmax(-1), logits.softmax(-1)
    towards = (q[rows, r_other] - p[rows, r_other]) / p[rows, r_other]
    return (towards + (p[rows, r] - q[rows, r]) / q[rows, r]) / 2


def literal(net: Network, mine: Problems, others: Problems) -> tuple[Tensor, Tensor]:
    """Attribution as Eq. 1's gradient by autograd through whole runs, and what is patched in.

    Returns:
        Both ``[prompt, layer, position, neuron]``.
    """
    tokens, other_tokens = torch.from_numpy(mine.tokens), torch.from_numpy(others.tokens)
    clean, other = net.run(tokens, keep=("post",)), net.run(other_tokens, keep=("post",))
    zeros = [torch.zeros_like(clean["post", at], requires_grad=True) for at in range(LAYERS)]
    edits = {("post", at): (lambda a, at=at: a + zeros[at]) for at in range(LAYERS)}
    logits = net.logits(net.run(tokens, edits=edits).final)
    effect = eq_1(logits, net.logits(clean.final), mine, others)
    gradient = torch.stack(torch.autograd.grad(effect.sum(), zeros), 1)
    change = other.stack("post") - clean.stack("post")
    return change * gradient, change


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_attribution_is_the_gradient_of_eq_1_times_the_change(name: str, bos: bool) -> None:
    net, mine, others = network(name), problems(seed=1, bos=bos), problems(seed=2, bos=bos)
    wanted, _ = literal(net, mine, others)
    found = attributions(net, mine, others, groups=np.arange(len(mine)))
    assert off(torch.from_numpy(found.effect.total).float(), wanted[:, :, -1]) < 2e-5
    first = first_mlp_attributions(net, mine, others, groups=np.arange(len(mine)))
    operands = wanted[:, :1, -4:-1].mean(2)
    assert off(torch.from_numpy(first.effect.total).float(), operands) < 2e-5


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_attribution_is_the_slope_of_eq_1_along_the_patch(name: str) -> None:
    net, mine, others = network(name, DOUBLE), problems(seed=3), problems(seed=4)
    tokens, other = torch.from_numpy(mine.tokens), torch.from_numpy(others.tokens)
    clean, theirs = net.run(tokens, keep=("post",)), net.run(other, keep=("post",))
    found = attributions(net, mine, others, groups=np.arange(len(mine))).effect.total
    for layer, neuron in ((0, 5), (1, 17), (2, 90)):

        def effect(amount: float, layer: int = layer, neuron: int = neuron) -> Tensor:
            def edit(post: Tensor) -> Tensor:
                post = post.clone()
                change = theirs["post", layer] - clean["post", layer]
                post[:, -1, neuron] += amount * change[:, -1, neuron]
                return post

            logits = net.logits(net.run(tokens, edits={("post", layer): edit}).final)
            return eq_1(logits, net.logits(clean.final), mine, others)

        slope = (effect(1e-4) - effect(-1e-4)) / 2e-4
        np.testing.assert_allclose(found[:, layer, neuron], slope.numpy(), rtol=1e-4, atol=1e-8)


def exact_effects(net: Network, mine: Problems, others: Problems, layer: int) -> Floats:
    """Each neuron of a layer patched alone at END, in whole runs, ``[prompt, neuron]``.

    The robust twin of Eq. 1: half of what the right answer loses and the other one gains, as logs.
    """
    tokens, at = torch.from_numpy(mine.tokens), torch.arange(WIDTH)
    theirs = net.run(torch.from_numpy(others.tokens), keep=("post",))["post", layer][:, -1]

    def edit(post: Tensor) -> Tensor:
        post = post.clone().view(len(mine), WIDTH, *post.shape[1:])
        post[:, at, -1, at] = theirs
        return post.flatten(0, 1)

    many = tokens.repeat_interleave(WIDTH, 0)
    logs = net.logits(net.run(many, edits={("post", layer): edit}).final).log_softmax(-1)
    change = (
        logs.view(len(mine), WIDTH, -1) - net.logits(net.run(tokens).final).log_softmax(-1)[:, None]
    )
    rows = np.arange(len(mine))
    found: Floats = ((change[rows, :, others.answer] - change[rows, :, mine.answer]) / 2).numpy()
    return found


def linear_error(name: str, size: float) -> float:
    """How far attribution is off where p' has tokens whose embeddings differ by so much.

    Tokens come in twins, and the other problem has the twins. Relative to the largest effect.
    """
    model = tiny(name, dtype=DOUBLE)
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        noise = torch.randn(table[2::2].shape, generator=torch.Generator().manual_seed(0))
        table[3::2] = table[2::2] + size * noise
    net, mine = Network.from_model(model, name=name, check=False), problems(seed=7)
    tokens, groups = mine.tokens.copy(), np.arange(len(mine))
    tokens[:, -4:-1] ^= 1
    others = replace(mine, tokens=tokens, answer=problems(seed=8).answer)
    found = attributions(net, mine, others, groups=groups).effect.total
    exact = np.stack([exact_effects(net, mine, others, at) for at in range(LAYERS)], 1)
    return float(np.abs(found - exact).max() / np.abs(exact).max())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_for_small_changes_attribution_is_the_exact_effect_to_first_order(name: str) -> None:
    small, smaller = linear_error(name, 1e-4), linear_error(name, 1e-5)
    assert small < 1e-2
    assert small / 20 < smaller < small / 5


def test_leaving_a_group_out_is_attributing_without_its_problems() -> None:
    net, mine, others = network("llama"), problems(9, seed=1), problems(9, seed=2)
    groups = np.arange(9) % 3
    found = attributions(net, mine, others, layers=[1, 2], groups=groups)
    rest = np.flatnonzero(groups != 1)
    without = attributions(net, mine.select(rest), others.select(rest), layers=[1, 2])
    for rank in (Attributions.by_mean, Attributions.by_mean_and_spread, Attributions.by_size):
        np.testing.assert_allclose(rank(found, 1), rank(without), rtol=1e-5, atol=1e-7)
    assert found.by_mean().shape == (2, WIDTH)
    single = attributions(net, mine.select([0]), others.select([0]))
    with pytest.raises(UsageError, match="nothing is left"):
        single.by_mean(0)


def test_rankings_are_means_spreads_and_sizes_over_problems() -> None:
    net, mine, others = network("gpt2"), problems(6, seed=3), problems(6, seed=4)
    each = attributions(net, mine, others, groups=np.arange(6)).effect.total
    found = attributions(net, mine, others)
    np.testing.assert_allclose(found.by_mean(), each.mean(0), atol=1e-9)
    np.testing.assert_allclose(found.by_mean_and_spread(), each.mean(0) + each.std(0), atol=1e-7)
    post = net.run(torch.from_numpy(mine.tokens), keep=("post",)).stack("post").numpy()
    norms = np.stack([np.linalg.norm(block.mlp_out.weight.numpy(), axis=0) for block in net.blocks])
    wanted = post[:, :, -1].astype(np.float64).std(0) * norms
    np.testing.assert_allclose(found.by_size(), wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(output_norms(net, range(LAYERS)), norms, rtol=1e-6)


def test_batches_do_not_change_attributions(monkeypatch: pytest.MonkeyPatch) -> None:
    net, mine, others = network("gptj"), problems(7, seed=5), problems(7, seed=6)
    whole = attributions(net, mine, others).by_mean_and_spread()
    monkeypatch.setattr(room, "prompts_at_once", lambda *_: 3)
    np.testing.assert_allclose(
        attributions(net, mine, others).by_mean_and_spread(), whole, rtol=1e-4, atol=1e-6
    )


def test_attribution_works_where_gradients_are_off_and_refuses_nothing_to_attribute() -> None:
    net, mine, others = network("gpt2"), problems(seed=1), problems(seed=2)
    with torch.no_grad():
        inside = attributions(net, mine, others).by_mean()
    np.testing.assert_array_equal(inside, attributions(net, mine, others).by_mean())
    with pytest.raises(UsageError, match="at least one pair"):
        attributions(net, *(each.select(np.zeros(len(mine), bool)) for each in (mine, others)))


def test_the_top_of_each_layer_is_its_largest_scores_and_ties_go_by_number() -> None:
    scores = np.array([[3.0, 1.0, 3.0, 2.0], [-1.0, -4.0, -1.0, -1.0]])
    assert top(scores, 2).tolist() == [[True, False, True, False], [True, False, True, False]]
    assert not top(scores, 0).any()
    assert top(scores, 4).all()
    assert count_of(0.015, WIDTH) == 1
    assert count_of(0.25, WIDTH) == 24
    assert count_of(0.0, WIDTH) == 1


def test_sparse_circuits_keep_so_many_neurons_of_these_layers_and_all_else() -> None:
    shape = network("gpt2").shape
    scores = np.random.default_rng(0).normal(size=(2, WIDTH))
    made = sparse_circuits(Kept.everything(shape), [1, 2], scores, [0, 5, WIDTH])
    assert [each.neurons[2].sum() for each in made] == [0, 5, WIDTH]
    assert all(each.heads.all() and each.mlps.all() and 0 not in each.neurons for each in made)
    assert (made[1].neurons[1] == top(scores, 5)[0]).all()


def test_chance_is_that_of_all_sets_and_overlap_counts_what_is_shared() -> None:
    width, one, other = 6, np.zeros((2, 6), bool), np.zeros((2, 6), bool)
    one[0, :3] = one[1, :2] = True
    other[0, 1:4] = other[1, :2] = True
    assert overlap(one, other) == 4 / 5
    shared = [
        len(set(a) & {0, 1, 2}) + len(set(b) & {0, 1})
        for a in combinations(range(width), 3)
        for b in combinations(range(width), 2)
    ]
    found = chance(one, other)
    assert found.overlap == pytest.approx(np.mean(shared) / 5)
    assert found.p == pytest.approx(np.mean(np.array(shared) >= 4))
    assert chance(one, one).p < chance(one, other).p
