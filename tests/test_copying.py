from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests.metrics import copying
from mechtests.metrics.copying import (
    Passed,
    Reading,
    copy_scores,
    in_top,
    normed,
    written_by_head,
)
from mechtests.metrics.metric import Job
from mechtests.models.network import Network
from mechtests.tasks.prompts import Prompts
from tests.measuring import measure, random_prompts
from tests.tiny import ARCHITECTURES, VOCABULARY, tiny

PROMPTS = random_prompts(VOCABULARY, n=3)


@pytest.fixture(autouse=True)
def small_screens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Screens that fit a vocabulary of 120, so that they work here too."""
    monkeypatch.setattr(copying, "SCREENS", (10, 40))
    monkeypatch.setattr(copying, "NUMBERS_AT_ONCE", 840)


def slowly(net: Network, prompts: Prompts, token: str, sign: float) -> np.ndarray:
    """The whole vocabulary for one output after the other, from the bridge's own weights."""
    resid = net.run(torch.from_numpy(prompts.clean), keep=("resid_post.0",))["resid_post", 0]
    names = [("IO", "IO"), ("S1", "S"), ("S2", "S")]
    shape = net.shape
    found = np.zeros((len(prompts), shape.layers, shape.heads))
    for row, layer, head in np.ndindex(*found.shape):
        block = net.bridge.blocks[layer]
        group = head // (shape.heads // shape.key_value_heads)
        bias = getattr(block.attn, "b_V", None)
        for position, name in names:
            at = resid[row, prompts.positions[position][row]]
            x = block.ln1.original_component(at[None])[0]
            v = x @ block.attn.W_V[group] + (0 if bias is None else bias[group])
            z = torch.zeros(shape.heads, shape.head_width)
            z[head] = v
            nothing = net.attention_out(layer, torch.zeros_like(z))
            written = sign * (net.attention_out(layer, z) - nothing)
            top = net.logits(written[None])[0].topk(5).indices.tolist()
            wanted = prompts.tokens[name if token == "name" else "absent"][row]
            found[row, layer, head] += (wanted in top) / 3
    return found


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_screened_scores_equal_the_whole_vocabulary_one_at_a_time(name: str) -> None:
    net = Network.from_model(tiny(name), name=name, check=False)
    found = measure(net, copy_scores, PROMPTS)
    np.testing.assert_allclose(found["copied"], slowly(net, PROMPTS, "name", 1.0), atol=1e-6)
    np.testing.assert_allclose(found["copied_absent"], slowly(net, PROMPTS, "x", 1.0), atol=1e-6)
    np.testing.assert_allclose(found["negative"], slowly(net, PROMPTS, "name", -1.0), atol=1e-6)


def test_some_random_names_are_copied_so_that_the_comparison_above_says_something() -> None:
    net = Network.from_model(tiny("gpt_neox"), name="tiny", check=False)
    found = measure(net, copy_scores, PROMPTS)
    for name in found.values:
        assert 0 < found[name].mean() < 0.2


@given(seed=st.integers(0, 30), size=st.integers(1, 119))
@settings(max_examples=25, deadline=None)
def test_no_screen_ever_changes_what_is_in_the_top(seed: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    resid = torch.randn(40, NET.shape.width, generator=generator)
    tokens = NET.logits(resid).argsort(-1, descending=True)[torch.arange(40), torch.arange(40) % 10]
    screen = torch.randperm(VOCABULARY, generator=generator)[:size]
    wanted = torch.arange(40) % 10 < 5
    everything, whole = Passed.all(normed(NET, resid), tokens), Reading.of(NET, None)
    screened = everything.screened(whole, [Reading.of(NET, screen)])
    assert in_top(everything, whole).tolist() == wanted.tolist()
    assert in_top(screened, whole).tolist() == wanted.tolist()
    assert len(screened.at) <= len(everything.at)


NET = Network.from_model(tiny("llama"), name="tiny", check=False)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama", "gemma2", "qwen2"])
def test_what_all_heads_write_of_one_token_adds_up_to_attention_to_it_alone(name: str) -> None:
    net = Network.from_model(tiny(name), name=name, check=False)
    run = net.run(torch.tensor([[17]]), keep=("resid_pre", "attn_out"))
    for layer in range(net.shape.layers):
        written = written_by_head(net, layer, run["resid_pre", layer]).sum(-2)
        bias = net.blocks[layer].output.bias
        total = written if bias is None else written + bias
        wanted = run["attn_out", layer]
        if net.blocks[layer].attention_post is not None:  # up to a factor
            total, wanted = (x / x.norm(dim=-1, keepdim=True) for x in (total, wanted))
        torch.testing.assert_close(total, wanted, atol=1e-5, rtol=1e-4)


def test_the_cost_is_that_of_the_first_screen_and_a_few_whole_rows() -> None:
    cost = copy_scores.cost(Job(NET.shape, 10, 12, 0, {}))
    outputs = 3 * 10 * 3 * 4
    assert cost.flops == pytest.approx(2 * outputs * 64 * (16 + 10 + 3 * 0.02 * 120))
