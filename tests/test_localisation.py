from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mechtests.arithmetic import localisation, patches
from mechtests.arithmetic.components import PLACES, Components
from mechtests.arithmetic.localisation import Localised, localise
from mechtests.arithmetic.patches import passes
from mechtests.arithmetic.problems import Problems
from mechtests.errors import UsageError
from mechtests.models.shape import Shape
from tests.problems import problems
from tests.tiny import ARCHITECTURES, HEADS, LAYERS, VOCABULARY, network

COMPONENTS = Components(LAYERS, HEADS)


def edited(name: str, mine: Problems, others: Problems, place: str, component: str) -> Tensor:
    """Logits at END of whole runs with one component edited."""
    net = network(name)
    tokens, other_tokens = torch.from_numpy(mine.tokens), torch.from_numpy(others.tokens)
    number = PLACES.index(place)
    at = [number - 4] if place != "all" else [-4, -3, -2, -1]
    if component == "embedding":
        tokens = tokens.clone()
        tokens[:, at] = other_tokens[:, at]
        return net.logits(net.run(tokens).final)
    other = net.run(other_tokens, keep=("z", "attn_out", "mlp_out"))
    if "." in component:
        layer, head = map(int, component.split("."))
        site, heads = "z", (head,)
    else:
        kind, number_of = component.split()
        layer, heads = int(number_of), ()
        site = {"attention": "attn_out", "mlp": "mlp_out"}[kind]

    def edit(value: Tensor) -> Tensor:
        value = value.clone()
        for position, index in product(at, heads or (slice(None),)):
            value[:, position, index] = other[site, layer][:, position, index]
        return value

    return net.logits(net.run(tokens, edits={(site, layer): edit}).final)


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_effects_are_those_of_whole_edited_runs(name: str, bos: bool) -> None:
    mine, others = problems(seed=1, bos=bos), problems(seed=2, bos=bos)
    others.tokens[0, -4:-2] = mine.tokens[0, -4:-2]  # alike up to the second operand
    others.tokens[1, -2] = mine.tokens[1, -2]
    found = localise(network(name), mine, others)
    rows = np.arange(len(mine))
    clean = network(name).logits(network(name).run(torch.from_numpy(mine.tokens)).final)
    for (place, at), (number, component) in product(enumerate(PLACES), enumerate(COMPONENTS.names)):
        logits = edited(name, mine, others, at, component)
        p, q = (each.double().softmax(-1).numpy() for each in (clean, logits))
        r, r_other = (rows, mine.answer), (rows, others.answer)
        effect = ((q[r_other] - p[r_other]) / p[r_other] + (p[r] - q[r]) / q[r]) / 2
        robust = (np.log(q[r_other] / p[r_other]) + np.log(p[r] / q[r])) / 2
        where = (slice(None), place, number)
        message = f"{component} at {at}"
        np.testing.assert_allclose(found.robust[where], robust, atol=1e-5, err_msg=message)
        np.testing.assert_allclose(found.effect[where], effect, 1e-4, 1e-5, err_msg=message)
        np.testing.assert_array_equal(found.right[where], logits.argmax(-1).numpy() == mine.answer)
    assert np.abs(found.robust).max() > 0.1


def test_batches_do_not_change_effects(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, others = problems(7, seed=3), problems(7, seed=4)
    whole = localise(network("llama"), mine, others)
    monkeypatch.setattr(localisation, "PAIRS_AT_ONCE", 3)
    monkeypatch.setattr(patches, "WORKING_BYTES", 4 * 2 * VOCABULARY * 3 * 7)
    monkeypatch.setattr(patches, "prompts_at_once", lambda *_: 2)
    parts = localise(network("llama"), mine, others)
    np.testing.assert_allclose(parts.robust, whole.robust, atol=1e-5)
    np.testing.assert_array_equal(parts.right, whole.right)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_same_problem_has_no_effect_anywhere(name: str) -> None:
    mine = problems(seed=5)
    found = localise(network(name), mine, mine)
    assert not found.robust.any()
    assert not found.effect.any()


def test_what_agrees_up_to_a_place_has_no_effect_there_and_nothing_reaches_end_from_the_top() -> (
    None
):
    mine, others = problems(seed=6), problems(seed=7)
    others.tokens[:, :-2] = mine.tokens[:, :-2]  # they differ in the second operand alone
    found = localise(network("gpt2"), mine, others).robust
    assert not found[:, :2].any()
    assert COMPONENTS.head(found)[:, 3].any()
    assert not COMPONENTS.embedding(found)[:, 3].any()
    assert not COMPONENTS.mlp(found)[:, 2, -1].any()
    assert not COMPONENTS.head(found)[:, 2, -1].any()
    for each in (COMPONENTS.mlp, COMPONENTS.attention):
        assert each(found)[:, 2, :-1].all()


def test_patching_every_embedding_is_the_other_problem() -> None:
    mine, others = problems(seed=8), problems(seed=9)
    net = network("qwen3")
    found = localise(net, mine, others)
    logs = net.logits(net.run(torch.from_numpy(others.tokens)).final).log_softmax(-1).numpy()
    rows = np.arange(len(mine))
    np.testing.assert_allclose(found.answer[:, -1, 0], logs[rows, mine.answer], atol=1e-5)
    np.testing.assert_allclose(found.other[:, -1, 0], logs[rows, others.answer], atol=1e-5)


def made(clean: list[float], patched: list[float]) -> Localised:
    """One prompt and one component, from probabilities of r and r'."""
    values = np.log(np.array([clean, patched], dtype=np.float64))
    answer, other = (values[1, each].reshape(1, 1, 1) for each in (0, 1))
    right = np.ones((1, 1, 1), bool)
    return Localised(Components(0, 0), answer, other, right, values[0, :1], values[0, 1:])


PROBABILITY = st.floats(1e-6, 0.5)


@given(PROBABILITY, PROBABILITY, PROBABILITY, PROBABILITY)
def test_eq_1_is_the_papers_and_no_summand_is_below_minus_1(
    r: float, r_other: float, r_after: float, r_other_after: float
) -> None:
    found = made([r, r_other], [r_after, r_other_after])
    summands = (r_other_after - r_other) / r_other, (r - r_after) / r_after
    assert min(summands) >= -1
    assert float(found.effect.item()) == pytest.approx(sum(summands) / 2, rel=1e-6, abs=1e-9)
    assert found.effect.item() >= found.robust.item() - 1e-9  # as exp(x) - 1 >= x


@given(PROBABILITY, PROBABILITY)
def test_with_the_same_result_eq_1_is_a_square_and_its_twin_is_0(p: float, q: float) -> None:
    found = made([p, p], [q, q])
    assert found.effect.item() == pytest.approx((q - p) ** 2 / (2 * p * q), rel=1e-6, abs=1e-9)
    assert found.robust.item() == 0


def test_components_are_named_in_their_order() -> None:
    names = np.array(COMPONENTS.names, dtype=object)
    assert len(names) == len(COMPONENTS) == 1 + LAYERS * (HEADS + 2)
    assert COMPONENTS.embedding(names) == "embedding"
    assert COMPONENTS.head(names)[2, 3] == "2.3"
    assert COMPONENTS.attention(names)[1] == "attention 1"
    assert COMPONENTS.mlp(names).tolist() == ["mlp 0", "mlp 1", "mlp 2"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: p.select([0, 1]), "one other problem of the same length"),
        (lambda p: problems(bos=False), "one other problem of the same length"),
        (lambda p: problems(seed=3).__class__(**{**vars(p), "tokens": p.tokens + 1}), "end alike"),
    ],
)
def test_problems_that_do_not_pair_are_refused(
    spoil: Callable[[Problems], Problems], words: str
) -> None:
    mine = problems()
    with pytest.raises(UsageError, match=words):
        localise(network("gpt2"), mine, spoil(mine))


@pytest.mark.parametrize("name", ["gpt_neox", "llama", "gemma2"])
def test_the_counted_passes_are_those_that_are_run(name: str) -> None:
    net, mine, others = network(name), problems(2, seed=1), problems(2, seed=2)
    assert (mine.tokens != others.tokens)[:, 1:4].all()
    with FlopCounterMode(display=False) as counter:
        net.run(torch.from_numpy(mine.tokens))
    one = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        localise(net, mine, others)
    branches = len(PLACES) * len(COMPONENTS) - 3 * (HEADS + 2) + 1
    unembedding = 2 * len(mine) * branches * net.shape.width * VOCABULARY
    found = (counter.get_total_flops() - unembedding) / one
    assert found == pytest.approx(passes(net.shape, 5), rel=0.1)


LLAMA = {
    "model_type": "llama", "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "hidden_size": 4096, "intermediate_size": 14336,
    "vocab_size": 128256, "max_position_embeddings": 8192, "tie_word_embeddings": False,
}  # fmt: skip


def test_the_papers_table_takes_at_most_a_quarter_of_its_passes() -> None:
    shape = Shape.from_config(LLAMA)
    coded = 4 * (shape.heads + 1) * (shape.layers + 2)
    assert passes(shape, 5, extras=False) < coded / 4
