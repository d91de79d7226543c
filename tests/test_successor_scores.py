"""Succession scores: equal to the definition done slowly, and found where a head was planted."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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
from mechtests.tasks.prompts import Prompts
from tests.measuring import measure
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
        item = net.blocks[0].mlp(norm.original_component(x) if normed else x)[0]
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


@cache
def smollm2() -> tuple[Network, Any]:
    source = sources.resolve("smollm2-135m", cache=default_folder())
    try:
        loaded = source.load(None, dtype="float32", device="cpu", offline=True)
    except Exception as error:
        pytest.skip(f"smollm2-135m is not here: {error}")
    return Network.from_model(loaded.model, name="smollm2", check=False), loaded.tokenizer


def test_scores_equal_the_definition_on_a_real_model() -> None:
    net, tokenizer = smollm2()
    prompts = prompts_of(ordered_pairs, tokenizer, Settings())
    some = replace(
        prompts.select(np.arange(0, len(prompts), 24)), corrupted={"S2->IO": prompts.clean[::24]}
    )
    found = measure(net, successor_scores, some)
    np.testing.assert_allclose(found["succession"], slowly(net, some, normed=True), atol=1e-4)
    np.testing.assert_allclose(found["unnormed"], slowly(net, some, normed=False), atol=1e-4)


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


def test_a_head_that_succeeds_in_the_shuffled_order_as_well_is_none() -> None:
    same = PAIRS.tokens["shuffled"]
    found = measure(planted(1), successor_scores, listed(np.arange(ITEMS)))
    assert (found.mean("shuffled")[1, 1] == 0.0) == bool((same != np.arange(ITEMS - 1) + 1).all())


@given(st.floats(0.1, 50.0), st.integers(0, 2), st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_how_large_a_heads_output_is_does_not_matter(factor: float, layer: int, head: int) -> None:
    net = Network.from_model(tiny("llama"), name="tiny", check=False)
    before = measure(net, successor_scores, RANDOM)
    with torch.no_grad():
        net.blocks[layer].W_O[head].mul_(factor)
    after = measure(net, successor_scores, RANDOM)
    np.testing.assert_array_equal(before["succession"], after["succession"])


def test_the_plan_counts_its_work_from_above() -> None:
    net = Network.from_model(tiny("llama"), name="tiny", check=False)
    counted = successor_scores.cost(Job(net.shape, len(RANDOM), 1, 0, {}))
    assert counted.flops > 0
    assert successor_scores.cost(Job(None, 10, 1, 0, {})).forward > 0


@pytest.mark.parametrize(("model", "pairs"), [("sprout-100k", ALL), ("smollm2-135m", 72)])
def test_all_pairs_of_single_tokens_are_taken_in_both_halves_of_each_list(
    model: str, pairs: int
) -> None:
    if model == "smollm2-135m":
        tokenizer = smollm2()[1]
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
