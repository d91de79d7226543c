from __future__ import annotations

import numpy as np
import pytest
import torch

from mechtests.measurement import Measurement
from mechtests.metrics.attention import end_attention
from mechtests.metrics.roles import attending_to_io, attending_to_s
from mechtests.models.network import Network
from mechtests.tasks.ioi import ioi
from tests.measuring import measure, random_prompts
from tests.planted import IOI_WORDS, ioi_network, ioi_stream
from tests.planted_inhibition import unplugged
from tests.tiny import ARCHITECTURES, VOCABULARY, tiny

PROMPTS = random_prompts(VOCABULARY)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_is_the_row_of_end_in_the_patterns_of_each_prompt_alone(name: str) -> None:
    net = Network.from_model(tiny(name), name=name, check=False)
    found = measure(net, end_attention, PROMPTS)
    for row, size in enumerate(PROMPTS.length):
        tokens = torch.from_numpy(PROMPTS.clean[row : row + 1, :size])
        _, cache = net.bridge.run_with_cache(tokens)
        for layer in range(net.shape.layers):
            end = cache[f"blocks.{layer}.attn.hook_pattern"][0][:, -1]
            for position in ("IO", "S1", "S2"):
                wanted = end[:, PROMPTS.positions[position][row]]
                np.testing.assert_allclose(found[position][row, layer], wanted, atol=1e-5)


def test_attention_outside_a_window_is_exactly_zero() -> None:
    net = Network.from_model(tiny("gemma2"), name="tiny", check=False)
    found = measure(net, end_attention, PROMPTS)
    far = PROMPTS.end - PROMPTS.positions["IO"] >= 5
    assert far.any()
    assert (found["IO"][far, 0] == 0).all()
    assert (found["IO"][far, 1] > 0).all()


def test_a_planted_name_mover_attends_to_io_and_an_s_inhibition_head_to_s() -> None:
    prompts = ioi.generate(IOI_WORDS, 60, np.random.default_rng(0))
    found = measure(ioi_network((2, 5), inhibition=(1, 6)), end_attention, prompts)
    planted = [(1, 6), (2, 5)]
    for half in ("selection", "evaluation"):
        assert attending_to_io(planted, found, half) == [(2, 5)]
        assert attending_to_s(planted, found, half) == [(1, 6)]
    assert found["IO"][:, 2, 5].min() > 0.9
    assert found["S2"][:, 1, 6].min() > 0.9


def test_without_an_s_inhibition_head_the_twin_attends_to_io_and_to_s_alike() -> None:
    prompts = ioi.generate(IOI_WORDS, 60, np.random.default_rng(0))
    net = unplugged(ioi_stream((2, 5), inhibition=(1, 6)), (1, 6)).network()
    found = measure(net, end_attention, prompts)
    np.testing.assert_allclose(found["IO"][:, 2, 5], 0.5, atol=0.2)
    np.testing.assert_allclose(found["IO"][:, 2, 5] + found["S1"][:, 2, 5], 1.0, atol=0.05)


def test_io_must_be_above_each_place_of_s_and_s_above_io_with_both_places_together() -> None:
    rows = {
        "IO": [0.4, 0.4, 0.4, 0.3],
        "S1": [0.3, 0.1, 0.5, 0.3],
        "S2": [0.2, 0.1, 0.0, 0.0],
    }
    values = {name: np.tile(np.array([[row]]), (2, 1, 1)) for name, row in rows.items()}
    values["IO"][1] = 0.0  # the other half
    made = Measurement(
        name="made up",
        values=values,
        axes=dict.fromkeys(values, ("prompt", "layer", "head")),
        units={},
        cluster=np.arange(2),
        template=np.zeros(2, dtype=np.int64),
        half=np.array([0, 1]),
    )
    heads = [(0, head) for head in range(4)]
    assert attending_to_io(heads, made, "selection") == [(0, 0), (0, 1)]
    assert attending_to_io(heads, made, "evaluation") == []
    assert attending_to_s(heads, made, "selection") == [(0, 0), (0, 2)]
    assert attending_to_s([(0, 1)], made, "selection") == []
