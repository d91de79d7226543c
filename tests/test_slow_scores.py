"""Scores equal their definitions, worked out one head at a time from Hugging Face's own parts.

The definitions are those of the paper's code (tigges2024.md, sections 3.1, 3.2 and 3.5), with the
differences that the metrics' docstrings state; where a difference is said to be none, or of a
known size, the paper's own form is worked out too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import Tensor

from mechtests.engine import prompts_of
from mechtests.metrics.attention import head_scores
from mechtests.metrics.copying import copy_scores
from mechtests.metrics.succession import successor_scores
from mechtests.models.network import Network
from mechtests.settings import Settings
from mechtests.tasks.ioi import ioi
from mechtests.tasks.ordered_pairs import ordered_pairs
from mechtests.tasks.prompts import Prompts
from mechtests.tasks.repeated_tokens import repeated_tokens
from tests.measuring import measure, random_prompts
from tests.plain_weights import Plain, loaded_smollm2, plain
from tests.test_attention import sequences
from tests.test_successor_scores import listed
from tests.tiny import VOCABULARY, tiny

MODELS = ["smollm2", "gpt_neox", "llama"]
POSITIONS = (("IO", "IO"), ("S1", "S"), ("S2", "S"))


@lru_cache
def network(name: str) -> Network:
    model = copy.deepcopy(loaded_smollm2().model) if name == "smollm2" else tiny(name)
    return Network.from_model(model, name=name, check=False)


def heads(model: Plain) -> Iterator[tuple[int, int]]:
    yield from np.ndindex(model.layers, model.heads)


def empty(model: Plain, prompts: Prompts) -> np.ndarray:
    return np.zeros((len(prompts), model.layers, model.heads))


def tokens_of(prompts: Prompts, row: int, ids: np.ndarray | None = None) -> list[int]:
    ids = prompts.clean if ids is None else ids
    return ids[row, : prompts.length[row]].tolist()


# ---------------------------------------------------------------- attention on random repeats


@lru_cache
def repeats(name: str) -> Prompts:
    if name == "smollm2":
        tokenizer = loaded_smollm2().tokenizer
        return repeated_tokens.generate(tokenizer, 2, np.random.default_rng(0))
    return sequences(bos=False)


def attention_slowly(model: Plain, prompts: Prompts, *, first: bool) -> dict[str, np.ndarray]:
    """Mean attention to what is some positions before, by kind.

    Args:
        model: The model.
        prompts: Repeats.
        first: Whether the queries of the first half count too, as in the paper's code.
    """
    kinds = ("induction", "duplicate", "previous", "induction_unrepeated")
    found = {kind: empty(model, prompts) for kind in kinds}
    for row in range(len(prompts)):
        period, end = int(prompts.positions["period"][row]), int(prompts.length[row])
        back = dict(zip(kinds, (period - 1, period, 1, period - 1), strict=True))
        clean, _ = model.run(tokens_of(prompts, row))
        fresh, _ = model.run(tokens_of(prompts, row, prompts.corrupted["no repeat"]))
        for kind, distance in back.items():
            patterns = fresh if kind == "induction_unrepeated" else clean
            start = distance if first else int(prompts.positions["second"][row])
            for layer, head in heads(model):
                looked = [float(patterns[layer][head, q, q - distance]) for q in range(start, end)]
                found[kind][row, layer, head] = np.mean(looked)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_attention_scores_equal_hugging_faces_own_attention_averaged_by_hand(name: str) -> None:
    prompts = repeats(name)
    found = measure(network(name), head_scores, prompts, corruption="no repeat")
    for kind, expected in attention_slowly(plain(name), prompts, first=False).items():
        assert expected.std() > 1e-3  # ten times the tolerance
        np.testing.assert_allclose(found[kind], expected, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt_neox", "llama"])
def test_the_papers_averages_differ_by_the_queries_of_the_first_half_alone(name: str) -> None:
    prompts, model = repeats(name), plain(name)
    found = measure(network(name), head_scores, prompts, corruption="no repeat")
    papers = attention_slowly(model, prompts, first=True)
    np.testing.assert_allclose(papers["duplicate"], found["duplicate"], atol=1e-4)
    for row, period in enumerate(prompts.positions["period"].tolist()):
        patterns, _ = model.run(tokens_of(prompts, row))
        for layer, head in heads(model):
            one = float(patterns[layer][head, period - 1, 0])
            ours = float(found["induction"][row, layer, head])
            expected = (period * ours + one) / (period + 1)
            assert papers["induction"][row, layer, head] == pytest.approx(expected, abs=1e-4)


# ---------------------------------------------------------------- copying


@lru_cache
def names(name: str) -> Prompts:
    if name == "smollm2":
        every = prompts_of(ioi, loaded_smollm2().tokenizer, Settings())
        return every.select(np.array([0, len(every) - 1]))
    return random_prompts(VOCABULARY, n=4, seed=3)


def written(model: Plain, layer: int, head: int, x: Tensor) -> Tensor:
    """What a head writes of one residual stream, through its own norm and without b_O."""
    maps = model.head(layer, head)
    value = maps.value @ model.ln1(layer)(x)
    value = value if maps.value_bias is None else value + maps.value_bias
    return maps.output @ value


def among_first_five(logits: Tensor, token: int) -> bool:
    others = torch.cat((logits[:token], logits[token + 1 :]))
    return int((others >= logits[token]).sum()) < 5


def copying_slowly(model: Plain, prompts: Prompts) -> dict[str, np.ndarray]:
    found = {kind: empty(model, prompts) for kind in ("copied", "copied_absent", "negative")}
    for row in range(len(prompts)):
        _, after_block_0 = model.run(tokens_of(prompts, row))
        absent = int(prompts.tokens["absent"][row])
        for position, name in POSITIONS:
            x = after_block_0[int(prompts.positions[position][row])]
            token = int(prompts.tokens[name][row])
            for layer in range(model.layers):
                o = torch.stack([written(model, layer, head, x) for head in range(model.heads)])
                logits, negative = (model.unembed(model.final_norm(sign * o)) for sign in (1, -1))
                for head in range(model.heads):
                    at = (row, layer, head)
                    found["copied"][at] += among_first_five(logits[head], token) / 3
                    found["copied_absent"][at] += among_first_five(logits[head], absent) / 3
                    found["negative"][at] += among_first_five(negative[head], token) / 3
    return found


@pytest.mark.parametrize("name", MODELS)
def test_copy_scores_equal_the_whole_vocabularys_first_five_one_head_at_a_time(name: str) -> None:
    found = measure(network(name), copy_scores, names(name))
    for kind, expected in copying_slowly(plain(name), names(name)).items():
        assert kind == "copied_absent" or 0 < expected.mean() < 0.5
        np.testing.assert_allclose(found[kind], expected, atol=1e-4)


def folded_copying(model: Plain, prompts: Prompts) -> dict[str, np.ndarray]:
    """The paper's product, for a model without biases: gains in the weights, no norm at all.

    Folding a layer norm also takes the mean out of what reads behind it.
    """
    found = {kind: empty(model, prompts) for kind in ("copied", "negative")}
    centred = model.kind != "llama"

    def folded(weight: Tensor, gain: Tensor) -> Tensor:
        product = weight * gain
        return product - product.mean(1, keepdim=True) if centred else product

    W_U = folded(model.unembed.weight, model.final_norm.weight)  # noqa: N806  (the field's name)
    for row in range(len(prompts)):
        _, after_block_0 = model.run(tokens_of(prompts, row))
        for layer, head in heads(model):
            maps = model.head(layer, head)
            value = folded(maps.value, model.ln1(layer).weight)
            for position, name in POSITIONS:
                x = after_block_0[int(prompts.positions[position][row])]
                logits = W_U @ (maps.output @ (value @ x))
                token = int(prompts.tokens[name][row])
                found["copied"][row, layer, head] += among_first_five(logits, token) / 3
                found["negative"][row, layer, head] += among_first_five(-logits, token) / 3
    return found


@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_without_biases_the_papers_product_of_folded_weights_gives_the_same(name: str) -> None:
    model, bridged = tiny(name), tiny(name)
    with torch.no_grad():
        for each in (model, bridged):
            for parameter_name, parameter in each.named_parameters():
                if parameter_name.endswith("bias"):
                    parameter.zero_()
    found = measure(Network.from_model(bridged, name=name, check=False), copy_scores, names(name))
    for kind, expected in folded_copying(Plain(model), names(name)).items():
        assert expected.any()
        np.testing.assert_allclose(found[kind], expected, atol=1e-4)


# ---------------------------------------------------------------- succession


@lru_cache
def pairs(name: str) -> Prompts:
    if name == "smollm2":
        every = prompts_of(ordered_pairs, loaded_smollm2().tokenizer, Settings())
        some = every.select(np.arange(0, len(every), 4))
        return replace(some, corrupted={"S2->IO": some.clean})  # which nothing reads
    return listed(np.random.default_rng(1).permutation(VOCABULARY)[:12])


def succession_slowly(model: Plain, prompts: Prompts) -> dict[str, np.ndarray]:
    found = {kind: empty(model, prompts) for kind in ("succession", "shuffled", "unnormed")}
    mlp, ln2 = model.block(0).mlp, model.ln2(0)
    assert prompts.right is not None
    assert prompts.wrong is not None
    bias = model.unembed.bias
    for row in range(len(prompts)):
        embedding = model.embedding(int(prompts.clean[row, 0]))
        normed, raw = mlp(ln2(embedding)), mlp(embedding)
        successor = int(prompts.right[row, 0])
        shuffled = int(prompts.tokens["shuffled"][row])
        items = [successor, *(int(t) for t in prompts.wrong[row] if t >= 0)]
        rows = model.unembed.weight[items]
        for layer, head in heads(model):
            maps, at = model.head(layer, head), (row, layer, head)
            logits = rows @ model.final_norm(written(model, layer, head, normed))
            logits = logits if bias is None else logits + bias[items]
            found["succession"][at] = is_best(logits, items, successor)
            found["shuffled"][at] = is_best(logits, items, shuffled)
            papers = rows @ (maps.output @ (maps.value @ raw))
            found["unnormed"][at] = is_best(papers, items, successor)
    return found


def is_best(logits: Tensor, items: list[int], token: int) -> bool:
    own = float(logits[items.index(token)])
    return all(
        own > float(logit) for item, logit in zip(items, logits, strict=True) if item != token
    )


@pytest.mark.parametrize("name", [*MODELS, "gpt2"])
def test_succession_scores_equal_the_definition_one_pair_and_head_at_a_time(name: str) -> None:
    found = measure(network(name), successor_scores, pairs(name))
    for kind, expected in succession_slowly(plain(name), pairs(name)).items():
        assert 0 < expected.mean() < 0.5
        np.testing.assert_allclose(found[kind], expected, atol=1e-4)
