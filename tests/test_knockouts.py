"""Without some neurons a prompt is answered as a run edited by hand answers it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from mechtests.arithmetic import knockouts as room
from mechtests.arithmetic.heuristics import Heuristic, associated
from mechtests.arithmetic.knockouts import (
    Guided,
    guided,
    knocked_out,
    right_without,
)
from mechtests.arithmetic.one_heuristic import by_heuristic, related_sets
from mechtests.arithmetic.pools import CONTROLS, Important, guided_sets
from mechtests.arithmetic.problems import Problems
from mechtests.errors import UsageError
from mechtests.models.network import Network
from tests.tiny import ARCHITECTURES, LAYERS, VOCABULARY, network

WIDTH = 96


def problems(n: int = 6, seed: int = 0, bos: bool = True) -> Problems:
    """Random tokens of a prompt ``a + b =``, behind BOS or behind nothing."""
    draw = np.random.default_rng(seed)
    tokens = draw.integers(2, VOCABULARY, (n, 4 + bos))
    first, second = tokens[:, -4], tokens[:, -2]
    zeros = np.zeros(n, np.int64)
    return Problems(zeros, first, second, first + second, tokens, zeros)


def sets_of(n: int, seed: int = 0) -> np.ndarray:
    """Sets that begin in every layer, in no order, some padded, one empty, two alike."""
    draw = np.random.default_rng(seed)
    sets = np.full((n, 7, 90), -1)
    for row in sets:
        for branch, (layer, count) in enumerate(((0, 80), (1, 60), (2, 40), (2, 3), (0, 2))):
            neurons = np.arange(layer * WIDTH, LAYERS * WIDTH)
            row[branch, 5 : 5 + count] = draw.choice(neurons, count, replace=False)
        row[6] = draw.permutation(row[0])
    return sets


def said(net: Network, tokens: np.ndarray, neurons: list[int]) -> torch.Tensor:
    """The logits of one prompt, run alone, its neurons set to zero one after the other."""

    def edit(layer: int):
        def edited(value: torch.Tensor) -> torch.Tensor:
            value = value.clone()
            for each in neurons:
                if each // WIDTH == layer:
                    value[0, :, each % WIDTH] = 0.0
            return value

        return edited

    edits = {("post", layer): edit(layer) for layer in range(LAYERS)}
    return net.logits(net.run(torch.from_numpy(tokens[None]), edits=edits).final)[0]


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_branches_answer_what_prompts_run_alone_answer(
    name: str, bos: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, mine = network(name), problems(bos=bos)
    sets = sets_of(len(mine))
    logits = np.stack(
        [
            np.stack([said(net, mine.tokens[p], each[each >= 0].tolist()) for each in sets[p]])
            for p in range(len(mine))
        ]
    )
    predicted = logits.argmax(-1)
    finals: list[torch.Tensor] = []
    monkeypatch.setattr(net, "logits", seen_by(net, finals))
    # each prompt's branches take turns to give the answer that is right
    for branch in range(sets.shape[1]):
        mine.answer[:] = predicted[:, branch]
        expected = predicted == predicted[:, branch, None]
        assert (knocked_out(net, mine, sets) == expected).all()
    assert len({tuple(each) for each in predicted.T}) >= 3
    monkeypatch.undo()
    close = np.sort(logits, -1)
    assert (close[..., -1] - close[..., -2]).min() > 1e-4  # no argmax is a matter of rounding
    assert sum(map(len, finals)) == sets.shape[1] * len(mine) * (sets.shape[1] - 1)


def seen_by(net: Network, finals: list[torch.Tensor]):
    logits = net.logits

    def recorded(final: torch.Tensor) -> torch.Tensor:
        finals.append(final)
        return logits(final)

    return recorded


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_streams_are_those_of_whole_runs(name: str) -> None:
    net, mine = network(name), problems()
    sets = sets_of(len(mine))
    finals: list[torch.Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(net, "logits", seen_by(net, finals))
        knocked_out(net, mine, sets)
    found = net.logits(torch.cat(finals))
    expected = [said(net, mine.tokens[p], each[each >= 0].tolist()) for p, each in every(sets)]
    # in another order: each is one of the others
    distances = torch.cdist(torch.stack(expected).double(), found.double())
    assert float(distances.min(1).values.max()) < 1e-3
    assert float(distances.min(0).values.max()) < 1e-3


def every(sets: np.ndarray):
    return [(prompt, each) for prompt, row in enumerate(sets) for each in row]


def test_without_nothing_the_answer_is_the_networks_own() -> None:
    net, mine = network("llama"), problems(20)
    own = net.logits(net.run(torch.from_numpy(mine.tokens)).final).argmax(-1).numpy()
    mine.answer[::2] = own[::2]
    expected = own == mine.answer
    assert expected[::2].all()
    assert not expected[1::2].all()
    for slots in (0, 1, 4):
        assert (knocked_out(net, mine, np.full((20, 2, slots), -1)) == expected[:, None]).all()


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32), st.integers(1, 4), st.sampled_from(["gpt_neox", "gemma2"]))
def test_order_padding_and_repetition_change_nothing(seed: int, many: int, name: str) -> None:
    draw = np.random.default_rng(seed)
    net, mine = network(name), problems(4, seed % 100)
    mine.answer[:] = net.logits(net.run(torch.from_numpy(mine.tokens)).final).argmax(-1).numpy()
    sets = draw.integers(-1, LAYERS * WIDTH, (4, many, 40))
    found = knocked_out(net, mine, sets)
    longer = draw.permuted(np.concatenate((sets, sets[..., :7], sets[..., :2] * 0 - 1), 2), axis=2)
    assert (knocked_out(net, mine, longer) == found).all()
    assert (knocked_out(net, mine.select([2, 0]), sets[[2, 0]]) == found[[2, 0]]).all()
    prompt, branch = (each.ravel() for each in np.indices(found.shape))
    flat = sets.reshape(-1, 40)
    order = draw.permutation(len(prompt))
    runs = right_without(net, mine, prompt[order], flat, (prompt * many + branch)[order])
    assert (runs == found.ravel()[order]).all()


@pytest.mark.parametrize("name", ["gptj", "gemma3"])
def test_little_memory_gives_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, mine = network(name), problems(12)
    sets = sets_of(12)[:, :, :30]
    mine.answer[:] = net.logits(net.run(torch.from_numpy(mine.tokens)).final).argmax(-1).numpy()
    expected = knocked_out(net, mine, sets)
    assert 0.1 < expected.mean() < 0.95
    sizes: list[int] = []
    run = net.run

    def sized(tokens: torch.Tensor, **how):
        sizes.append(len(tokens))
        return run(tokens, **how)

    monkeypatch.setattr(net, "run", sized)
    for memory in (1, 50_000, 300_000):
        monkeypatch.setattr(room, "WORKING_BYTES", memory)
        sizes.clear()
        assert (knocked_out(net, mine, sets) == expected).all()
        assert max(sizes) <= max(1, memory // (5 * 4 * 3 * WIDTH))


def test_equal_branches_and_the_layers_below_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    net, mine = network("qwen2"), problems(5)
    rows: list[tuple[int, int]] = []
    run = net.run

    def counted(tokens: torch.Tensor, **kwargs):
        rows.append((kwargs.get("start", 0), len(tokens)))
        return run(tokens, **kwargs)

    monkeypatch.setattr(net, "run", counted)
    sets = np.array([[WIDTH + 3, 2 * WIDTH], [2 * WIDTH, WIDTH + 3], [2 * WIDTH, -1], [-1, -1]])
    knocked_out(net, mine, np.broadcast_to(sets, (5, 4, 2)))
    # the prompts; one branch each behind layer 1; that of the last layer needs no run
    assert rows == [(0, 5), (2, 5)]
    rows.clear()
    knocked_out(net, mine, np.full((5, 1, 1), 3))
    assert rows == [(0, 5), (1, 5)]


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (np.zeros((3, 2, 1), int), r"needs sets \[6, branch, slot\]"),
        (np.zeros((6, 2), int), r"got \[6, 2\]"),
        (np.full((6, 1, 1), LAYERS * WIDTH), "from 0 to 287"),
        (np.full((6, 1, 1), -2), "-2 to -2"),
    ],
)
def test_sets_that_do_not_fit_are_refused(sets: np.ndarray, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        knocked_out(network("gpt2"), problems(), sets)


# ---------------------------------------------------------------- a planted bag of heuristics

OPERANDS, NEURONS, HIDDEN = 10, 40, 120
WEAK = 0.075
RANGES = [Heuristic("op1", "range", (low, low + 5)) for low in (0, 5)]
FIRST_TOKEN, SECOND_TOKEN, ANSWER_TOKEN = 3, 3 + OPERANDS, 3 + 2 * OPERANDS
TOKENS = ANSWER_TOKEN + 2


@lru_cache
def bag(written: float = 1.0) -> Network:
    """One layer that answers which range operand 1 is in, with 40 neurons for each range.

    The stream is a one-hot code of tokens. Attention hears all positions alike; a neuron of a
    range fires where one of its operands was heard and writes the range's answer. Of what all
    write a tenth is enough, or more where each writes less. Without them "=" is answered.
    40 neurons fire always and write nothing; 20 of them are important.
    """
    config = GPT2Config(
        vocab_size=TOKENS,
        n_positions=5,
        n_embd=TOKENS,
        n_layer=1,
        n_head=1,
        n_inner=HIDDEN,
        bos_token_id=0,
        eos_token_id=0,
    )
    config.activation_function = "relu"
    config._attn_implementation = "eager"
    model = GPT2LMHeadModel(config).eval()
    block, codes = model.transformer.h[0], torch.eye(TOKENS)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_gain = ".ln_" in name and name.endswith("weight")
            parameter.fill_(1.0 if is_gain else 0.0)
        model.transformer.wte.weight.copy_(codes)
        block.attn.c_attn.weight[:, 2 * TOKENS :] = codes
        block.attn.c_proj.weight.copy_(codes)
        for at, each in enumerate(RANGES):
            low, high = each.numbers
            mine = slice(at * NEURONS, (at + 1) * NEURONS)
            block.mlp.c_fc.weight[FIRST_TOKEN + low : FIRST_TOKEN + high, mine] = 1.0
            block.mlp.c_proj.weight[mine, ANSWER_TOKEN + at] = written
        block.mlp.c_fc.bias[:] = 1.5  # between what neurons read of a prompt in and out of range
    return Network.from_model(model, name="bag", check=False)


def bag_problems() -> Problems:
    """All pairs of operands, in a random order."""
    first, second = (x.ravel() for x in np.indices((OPERANDS, OPERANDS)))
    order = np.random.default_rng(0).permutation(len(first))
    first, second = first[order], second[order]
    same = np.ones_like(first)
    columns = (0 * same, FIRST_TOKEN + first, 2 * same, SECOND_TOKEN + second, same)
    answer = ANSWER_TOKEN + (first >= RANGES[1].numbers[0])
    return Problems(0 * same, first, second, first + second, np.stack(columns, 1), answer)


def bag_neurons(shuffled: int | None = None) -> Important:
    """What the neurons match; with a seed, as many random ones."""
    kind = np.minimum(np.arange(HIDDEN) // NEURONS, len(RANGES))
    matched = kind[:100, None] == np.arange(len(RANGES))
    if shuffled is not None:
        matched = np.random.default_rng(shuffled).permutation(matched)
    draw = np.random.default_rng(1)
    score = np.where(matched, 0.8, 0.3) + 0.1 * draw.random(matched.shape)
    zeros = np.zeros(100, np.int64)
    return Important(zeros, np.arange(100), draw.random(100), score, matched)


def bag_holds(mine: Problems) -> np.ndarray:
    return associated(RANGES, mine.first, mine.second, mine.result)


def without(net: Network, mine: Problems, neurons: Important, seed: int = 3, **how) -> Guided:
    """Guided knock-outs on the bag's prompts."""
    plan = guided_sets(neurons, bag_holds(mine), np.random.default_rng(seed), **how)
    return guided(net, mine, neurons, plan)


def test_without_its_heuristics_a_prompt_fails_and_without_as_many_others_it_does_not() -> None:
    mine = bag_problems()
    some = mine.select(range(40))
    ks = (NEURONS // 2, NEURONS)
    found = without(bag(), some, bag_neurons(), ks=ks, draws=6)
    assert found.intact_right.all()
    assert found.heuristic_right[0].all()
    assert not found.heuristic_right[1].any()
    by_name = dict(zip(CONTROLS, found.control_right[:, 1], strict=True))
    for name in ("unassociated", "attribution"):
        assert (by_name[name] == 1).all()
    # the other prompt is of the same range, or is not
    assert 0.3 < by_name["other"].mean() < 0.7
    assert (found.single_right[0] == 1).all()
    assert set(np.unique(found.single_right[2, 1])) == {False, True}
    assert found.knocked.tolist() == [[k] * 40 for k in ks]
    assert (found.pool == NEURONS).all()
    assert not found.shortfall.any()
    assert not found.overlap[[0, 1], 1].any()


def test_what_is_told_of_a_plan_is_what_its_sets_give() -> None:
    net, mine, draw = network("qwen3"), problems(15), np.random.default_rng(6)
    mine.answer[:] = net.logits(net.run(torch.from_numpy(mine.tokens)).final).argmax(-1).numpy()
    mine.answer[:2] = 0
    flat = draw.choice(LAYERS * WIDTH, 200, replace=False)
    score = draw.random((200, 8))
    neurons = Important(*np.divmod(flat, WIDTH), draw.random(200), score, score >= 0.8)
    holds = draw.random((15, 8)) < 0.4
    plan = guided_sets(neurons, holds, draw, ks=(4, 15), draws=3)
    found = guided(net, mine, neurons, plan)
    assert found.intact_right.tolist() == [False] * 2 + [True] * 13
    for k, prompt in np.ndindex(2, 15):
        rows = plan.sets[prompt, k]
        gone = [flat[each[each >= 0]].tolist() for each in rows]
        right = [
            int(said(net, mine.tokens[prompt], each).argmax()) == mine.answer[prompt]
            for each in gone
        ]
        assert found.heuristic_right[k, prompt] == right[0]
        drawn = np.reshape(right[1:], (3, 3))
        assert found.control_right[:, k, prompt] == pytest.approx(drawn.mean(1))
        assert (found.single_right[:, k, prompt] == drawn[:, 0]).all()
    assert 0.1 < found.control_right.mean() < 0.9
    for name in ("pool", "knocked", "shortfall", "overlap"):
        assert getattr(found, name) is getattr(plan, name)


def test_neurons_that_were_matched_at_random_are_no_better_than_controls() -> None:
    """Over many matches: in one of them all prompts of a range lose the same neurons."""
    mine, gaps, rights = bag_problems().select(range(20)), [], []
    for seed in range(100):
        found = without(bag(WEAK), mine, bag_neurons(seed), seed, ks=(NEURONS,), draws=2)
        gaps.append((found.control_right[:, 0] - found.heuristic_right[0]).mean(1))
        rights.append(found.heuristic_right.mean())
    assert 0.2 < np.mean(rights) < 0.8
    error = np.std(gaps, axis=0) / np.sqrt(len(gaps))
    assert (error < 0.08).all()
    assert (np.abs(np.mean(gaps, axis=0)) < 3 * error).all()


def test_a_heuristic_hurts_its_own_prompts_and_no_others() -> None:
    mine, neurons = bag_problems(), bag_neurons()
    plan = related_sets(neurons, bag_holds(mine), np.random.default_rng(0))
    found = by_heuristic(bag(), mine, neurons, plan, RANGES)
    assert found.heuristic.tolist() == [0, 1]
    assert found.cluster == ("op1 range", "op1 range")
    assert (found.neurons == NEURONS).all()
    assert not found.shared.any()
    assert (found.prompts == 50).all()
    assert (found.right[:, 0] == [0.0, 1.0]).all()
    assert (found.right[:, 1] == 1.0).all()
    assert (found.excess == -1).all()


def test_a_heuristics_accuracies_are_those_of_its_prompts_run_alone() -> None:
    net, mine = network("gpt2"), problems(30)
    mine.answer[:] = net.logits(net.run(torch.from_numpy(mine.tokens)).final).argmax(-1).numpy()
    draw = np.random.default_rng(4)
    flat = draw.choice(LAYERS * WIDTH, 150, replace=False)
    matched = draw.random((150, 6)) < [0.5, 0.4, 0.3, 0.9, 0.01, 0.2]
    neurons = Important(*np.divmod(flat, WIDTH), draw.random(150), matched * 1.0, matched)
    holds = draw.random((30, 6)) < 0.4
    holds[:, 5] = True
    heuristics = [Heuristic("op1", "value", (at,)) for at in range(6)]
    plan = related_sets(neurons, holds, np.random.default_rng(7), most_prompts=8)
    found = by_heuristic(net, mine, neurons, plan, heuristics)
    assert found.heuristic.tolist() == [0, 1, 2, 3]
    assert (found.prompts == 8).all()
    for at, knocked, kind in np.ndindex(*found.right.shape):
        rows = (plan.own, plan.control)[knocked][at]
        on = (plan.related, plan.unrelated)[kind][at]
        gone = flat[rows[rows >= 0]].tolist()
        right = [
            int(said(net, mine.tokens[p], gone).argmax()) == mine.answer[p] for p in on if p >= 0
        ]
        assert found.right[at, knocked, kind] == np.mean(right)
    assert len(np.unique(found.right)) > 3


def test_no_heuristic_with_neurons_enough_gives_nothing() -> None:
    mine, neurons, draw = bag_problems(), bag_neurons(), np.random.default_rng(0)
    plan = related_sets(neurons, bag_holds(mine), draw, fewest_neurons=NEURONS + 1)
    found = by_heuristic(bag(), mine, neurons, plan, RANGES)
    assert found.right.shape == (0, 2, 2)
    assert found.excess.shape == (0,)
    assert found.cluster == ()


def test_a_plan_for_other_problems_is_refused() -> None:
    mine, neurons = bag_problems(), bag_neurons()
    plan = guided_sets(neurons, bag_holds(mine), np.random.default_rng(0), ks=(3,), draws=1)
    with pytest.raises(UsageError, match="planned for 100 problems, got 5"):
        guided(bag(), mine.select(range(5)), neurons, plan)


def test_equal_generators_give_equal_knock_outs() -> None:
    one, same, other = (
        without(bag(WEAK), bag_problems(), bag_neurons(5), seed, ks=(20, 35), draws=3)
        for seed in (1, 1, 2)
    )
    assert (one.control_right == same.control_right).all()
    assert (one.single_right == same.single_right).all()
    assert (one.heuristic_right == other.heuristic_right).all()
    assert (one.control_right != other.control_right).any()
