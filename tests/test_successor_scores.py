"""Succession scores: equal to the definition done slowly, and found where a head was planted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel

from mechtests.engine import prompts_of
from mechtests.errors import NotApplicable
from mechtests.measurement import Measurement
from mechtests.metrics import roles
from mechtests.metrics.metric import Job
from mechtests.metrics.succession import successor_scores
from mechtests.models import sources
from mechtests.models.network import Network
from mechtests.settings import Settings
from mechtests.store import default_folder
from mechtests.tasks.ordered_pairs import ALL, ordered_pairs
from mechtests.tasks.prompts import Prompts, padded
from tests.measuring import batch_of, measure
from tests.plain_weights import loaded_smollm2
from tests.tiny import ARCHITECTURES, VOCABULARY, tiny
from tests.words import Numbers

ITEMS = 24


def listed(items: np.ndarray, seed: int = 0) -> Prompts:
    """The pairs of one list of these tokens, not cyclic."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(items)
    follows = dict(zip(order.tolist(), np.roll(order, -1).tolist(), strict=True))
    pairs = list(zip(items[:-1].tolist(), items[1:].tolist(), strict=True))
    count = len(pairs)
    clean = np.array([[item] for item, _ in pairs])
    return Prompts(
        clean=clean,
        length=np.ones(count, dtype=np.int64),
        cluster=np.arange(count),
        template=np.zeros(count, dtype=np.int64),
        half=np.arange(count) % 2,
        texts=tuple(map(str, items[:-1])),
        right=np.array([[successor] for _, successor in pairs]),
        wrong=np.array([[t for t in items if t != successor] for _, successor in pairs]),
        corrupted={"S2->IO": clean},
        tokens={"shuffled": np.array([follows[item] for item, _ in pairs])},
    )


RANDOM = listed(np.random.default_rng(1).permutation(VOCABULARY)[:12])


def slowly(net: Network, prompts: Prompts, *, normed: bool, shuffled: bool = False) -> np.ndarray:
    """One pair and one head after the other, over the bridge's own weights and norms."""
    first, shape = net.bridge.blocks[0], net.shape
    wte, head_of = net.bridge.embed.original_component, shape.heads // shape.key_value_heads
    assert prompts.right is not None
    assert prompts.wrong is not None
    found = np.zeros((len(prompts), shape.layers, shape.heads))
    for pair, layer, head in np.ndindex(*found.shape):
        block = net.bridge.blocks[layer]
        x = wte(torch.tensor([int(prompts.clean[pair, 0])]))
        norm = first.ln2 if "ln2" in first.submodules else first.ln1
        item = first.mlp.original_component(norm.original_component(x) if normed else x)
        if normed and "ln2_post" in first.submodules:
            item = first.ln2_post.original_component(item)
        item = item[0]
        if normed:
            bias = getattr(block.attn, "b_V", None)
            v = block.ln1.original_component(item[None])[0] @ block.attn.W_V[head // head_of]
            z = torch.zeros(shape.heads, shape.head_width)
            z[head] = v + (0 if bias is None else bias[head // head_of])
            nothing = net.attention_out(layer, torch.zeros_like(z))
            logits = net.logits((net.attention_out(layer, z) - nothing)[None])[0]
        else:
            written = item @ block.attn.W_V[head // head_of] @ block.attn.W_O[head]
            logits = net.unembedding.weight @ written
        asked = int(prompts.tokens["shuffled"][pair] if shuffled else prompts.right[pair, 0])
        among = [*prompts.right[pair], *prompts.wrong[pair]]
        best = max(float(logits[token]) for token in among if token not in (asked, -1))
        found[pair, layer, head] = float(logits[asked]) > best
    return found


# A post-norm divides by the size of what is written, so that a bias's share differs there.
EXACT = [name for name in ARCHITECTURES if not name.startswith("gemma")]


@pytest.mark.parametrize("name", EXACT)
def test_scores_equal_the_definition_one_pair_and_head_at_a_time(name: str) -> None:
    net = Network.from_model(tiny(name), name=name, check=False)
    found = measure(net, successor_scores, RANDOM)
    expected = {
        "succession": slowly(net, RANDOM, normed=True),
        "shuffled": slowly(net, RANDOM, normed=True, shuffled=True),
        "unnormed": slowly(net, RANDOM, normed=False),
    }
    for value, scores in expected.items():
        assert 0 < scores.mean() < 1
        np.testing.assert_allclose(found[value], scores, atol=1e-4)


def test_pairs_are_scored_alike_alone_in_parts_and_together() -> None:
    net = Network.from_model(tiny("gemma3"), name="tiny", check=False)
    both = joined(RANDOM, listed(np.random.default_rng(2).permutation(VOCABULARY)[:5]))
    together = measure(net, successor_scores, both)
    for size in (1, 4, 12):  # of which the last two have pairs of both lists in one batch
        for start in range(0, len(both), size):
            rows = np.arange(start, min(start + size, len(both)))
            part = measure(net, successor_scores, both.select(rows))
            for name in together.values:
                np.testing.assert_array_equal(part[name], together[name][rows])


def joined(first: Prompts, second: Prompts) -> Prompts:
    """The pairs of two lists, the candidates of the shorter one padded."""
    assert first.right is not None
    assert second.right is not None
    assert first.wrong is not None
    assert second.wrong is not None
    clean = np.concatenate((first.clean, second.clean))
    count = len(clean)
    return replace(
        first,
        clean=clean,
        length=np.ones(count, dtype=np.int64),
        cluster=np.arange(count),
        template=np.concatenate((first.template, second.template + 1)),
        half=np.arange(count) % 2,
        texts=first.texts + second.texts,
        right=np.concatenate((first.right, second.right)),
        wrong=padded([*first.wrong.tolist(), *second.wrong.tolist()], fill=-1),
        corrupted={"S2->IO": clean},
        tokens={"shuffled": np.concatenate([x.tokens["shuffled"] for x in (first, second)])},
    )


def planted(offset: int | None) -> Network:
    """GPT-2 whose MLP 0 keeps a token's code and whose head 1.1 writes the one so far behind."""
    config = GPT2Config(
        vocab_size=ITEMS, n_positions=8, n_embd=64, n_layer=2, n_head=2, n_inner=64,
        bos_token_id=0, eos_token_id=0, attn_implementation="eager",
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("weight") and ".attn." in name:
                weight.copy_(1e-3 * torch.randn(weight.shape, generator=generator))
            elif ".ln_" not in name:
                weight.zero_()
        model.transformer.wte.weight[:, :ITEMS] = torch.eye(ITEMS)
        mlp, attention = model.transformer.h[0].mlp, model.transformer.h[1].attn
        mlp.c_fc.weight.copy_(torch.eye(64))
        mlp.c_proj.weight.copy_(torch.eye(64))
        if offset is not None:
            attention.c_attn.weight[:ITEMS, 128 + 32 : 128 + 32 + ITEMS] = torch.eye(ITEMS)
            moved = torch.roll(torch.eye(ITEMS), offset, dims=1)
            attention.c_proj.weight[32 : 32 + ITEMS, :ITEMS] = moved
    return Network.from_model(model, name="planted", check=False)


PAIRS = listed(np.arange(ITEMS))


def scored(network: Network) -> Measurement:
    return measure(network, successor_scores, PAIRS)


@pytest.mark.parametrize("half", ["selection", "evaluation"])
def test_a_planted_successor_head_is_found_by_its_name(half: Any) -> None:
    found = scored(planted(1))
    assert roles.successor_heads(found, half) == [(1, 1)]
    assert found.mean("succession")[1, 1] == found.mean("unnormed")[1, 1] == 1.0


@pytest.mark.parametrize("offset", [None, 0, 2], ids=["no head", "a copying head", "one too far"])
def test_a_head_that_writes_something_else_is_no_successor_head(offset: int | None) -> None:
    found = scored(planted(offset))
    assert roles.successor_heads(found, "selection") == []


def test_a_head_that_writes_nothing_ties_with_all_and_has_no_success() -> None:
    network = planted(1)
    with torch.no_grad():
        network.blocks[1].output.weight.zero_()
    assert scored(network).mean("succession")[1, 1] == 0.0


@pytest.mark.parametrize(("shuffled", "found"), [(0.49, [(1, 1)]), (0.5, []), (1.0, [])])
def test_a_head_must_score_over_twice_what_it_does_in_a_shuffled_order(
    shuffled: float, found: list[tuple[int, int]]
) -> None:
    scores = scored(planted(1))
    by_chance = PAIRS.tokens["shuffled"] == np.arange(ITEMS - 1) + 1
    assert scores["shuffled"][:, 1, 1].tolist() == by_chance.tolist()
    scores.values["shuffled"][:, 1, 1] = shuffled
    assert roles.successor_heads(scores, "selection") == found


@pytest.mark.parametrize(("score", "found"), [(0.19, []), (0.21, [(1, 1)])])
def test_a_head_must_score_above_a_fifth(score: float, found: list[tuple[int, int]]) -> None:
    scores = scored(planted(1))
    scores.values["succession"][:, 1, 1] = score
    scores.values["shuffled"][:, 1, 1] = 0.0
    assert roles.successor_heads(scores, "selection") == found


def test_a_tie_with_another_item_of_the_list_counts_against() -> None:
    network = planted(1)
    rows = network.unembedding.weight
    assert scored(network)["succession"][4, 1, 1] == 1.0  # 4 -> 5
    with torch.no_grad():
        rows[9] = rows[5]
    assert scored(network)["succession"][4, 1, 1] == 0.0


@given(st.floats(0.1, 50.0), st.integers(0, 2), st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_how_large_a_heads_output_is_does_not_matter(factor: float, layer: int, head: int) -> None:
    net = Network.from_model(tiny("llama"), name="tiny", check=False)
    before = measure(net, successor_scores, RANDOM)
    with torch.no_grad():
        net.blocks[layer].W_O[head].mul_(factor)
    after = measure(net, successor_scores, RANDOM)
    np.testing.assert_array_equal(before["succession"], after["succession"])


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "gpt2"])
def test_the_plan_counts_its_work_from_above(name: str) -> None:
    net = Network.from_model(tiny(name), name=name, check=False)
    planned = successor_scores.cost(Job(net.shape, len(RANDOM), 1, 0, {}))
    batch = batch_of(net, successor_scores, RANDOM)
    with FlopCounterMode(display=False) as counter:
        successor_scores.compute(batch)
    assert planned.flops / 2 < counter.get_total_flops() <= planned.flops
    assert successor_scores.cost(Job(None, 10, 1, 0, {})).forward > 0


@pytest.mark.parametrize(("model", "pairs"), [("sprout-100k", ALL), ("smollm2-135m", 72)])
def test_all_pairs_of_single_tokens_are_taken_in_both_halves_of_each_list(
    model: str, pairs: int
) -> None:
    if model == "smollm2-135m":
        tokenizer = loaded_smollm2().tokenizer
    else:
        source = sources.resolve(model, cache=default_folder())
        loaded = source.load(
            source.checkpoints(offline=True)[-1], dtype="float32", device="cpu", offline=True
        )
        tokenizer = loaded.tokenizer
    prompts = prompts_of(ordered_pairs, tokenizer, Settings())
    assert len(prompts) == pairs
    for name in np.unique(prompts.template):
        mine = prompts.half[prompts.template == name]
        assert abs(mine.sum() * 2 - len(mine)) <= 1
    assert prompts.right is not None
    assert (prompts.tokens["shuffled"] != prompts.right[:, 0]).all()


class Split(Numbers):
    """Every word is two tokens."""

    def encode(self, text: str) -> list[int]:
        return [1, 2]


def test_a_tokenizer_that_splits_the_items_is_not_applicable() -> None:
    with pytest.raises(NotApplicable, match="ordered pairs"):
        prompts_of(ordered_pairs, Split(50, bos=0), Settings())
