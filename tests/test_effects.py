from __future__ import annotations

import numpy as np
import pytest
import torch

from mechtests.metrics import effects
from mechtests.metrics.behaviour import logit_difference
from mechtests.metrics.metric import Job
from mechtests.models.network import Network
from tests.measuring import measure, random_prompts
from tests.tiny import ARCHITECTURES, VOCABULARY, tiny

PROMPTS = random_prompts(VOCABULARY)


def network(name: str) -> Network:
    return Network.from_model(tiny(name), name=name, check=False)


def brute_force(net: Network, *, everywhere: bool) -> np.ndarray:
    """Logit differences with one head's z corrupted and all others frozen clean: whole runs."""
    tokens, last = torch.from_numpy(PROMPTS.clean), torch.from_numpy(PROMPTS.end)
    clean = net.run(tokens, keep=("z",), last=last)
    other = net.run(torch.from_numpy(PROMPTS.corrupted["S2->IO"]), keep=("z",), last=last)
    layers, heads, rows = net.shape.layers, net.shape.heads, torch.arange(len(PROMPTS))
    differences = np.empty((len(PROMPTS), layers, heads))
    for layer, head in np.ndindex(layers, heads):
        frozen = {each: clean["z", each].clone() for each in range(layers)}
        at = (slice(None), slice(None), head) if everywhere else (rows, last, head)
        frozen[layer][at] = other["z", layer][at]
        edits = {("z", each): (lambda z, frozen=frozen, each=each: frozen[each]) for each in frozen}
        final = net.run(tokens, edits=edits, last=last).final
        differences[:, layer, head] = logit_difference(net, final, PROMPTS)
    return differences


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_direct_effect_is_what_a_run_with_all_other_heads_frozen_loses(name: str) -> None:
    net = network(name)
    found = measure(net, effects.direct_effects, PROMPTS)
    lost = found["clean"][:, None, None] - brute_force(net, everywhere=False)
    np.testing.assert_allclose(found["direct_effect"], lost, atol=2e-5)
    assert np.abs(found["direct_effect"]).max() > 1e-3


def test_patching_all_positions_as_the_paper_does_gives_the_same() -> None:
    net = network("gpt_neox")
    np.testing.assert_allclose(
        brute_force(net, everywhere=True), brute_force(net, everywhere=False), atol=1e-5
    )


def test_heads_of_the_last_parallel_layer_add_up_to_their_joint_effect_up_to_the_norm() -> None:
    """Without an MLP behind it the write itself is linear: its effect on the stream is a sum."""
    net = network("gpt_neox")
    last = torch.from_numpy(PROMPTS.end)
    clean = net.run(torch.from_numpy(PROMPTS.clean), keep=("z@end",), last=last)
    other = net.run(torch.from_numpy(PROMPTS.corrupted["S2->IO"]), keep=("z@end",), last=last)
    layer = net.shape.layers - 1
    z, z_other = clean["z@end", layer], other["z@end", layer]
    each = net.attention_out(layer, effects.one_head_of(z, z_other)) - net.attention_out(
        layer, z
    ).unsqueeze(1)
    joint = net.attention_out(layer, z_other) - net.attention_out(layer, z)
    torch.testing.assert_close(each.sum(1), joint, atol=1e-5, rtol=1e-5)


def test_an_uncorrupted_corruption_has_no_effect() -> None:
    same = random_prompts(VOCABULARY)
    same.corrupted["S2->IO"][:] = same.clean
    found = measure(network("llama"), effects.direct_effects, same)
    np.testing.assert_allclose(found["direct_effect"], 0.0, atol=1e-5)
    np.testing.assert_allclose(found["clean"], found["corrupted"], atol=1e-6)


def test_effects_do_not_depend_on_how_many_prompts_are_done_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = network("qwen3")
    together = measure(net, effects.direct_effects, PROMPTS)
    monkeypatch.setattr(effects, "WORKING_BYTES", 1)
    alone = measure(net, effects.direct_effects, PROMPTS)
    np.testing.assert_allclose(together["direct_effect"], alone["direct_effect"], atol=1e-5)


def test_effects_do_not_depend_on_the_order_of_prompts() -> None:
    net = network("gemma2")
    order = np.array([3, 1, 5, 0, 2, 4])
    straight = measure(net, effects.direct_effects, PROMPTS)
    turned = measure(net, effects.direct_effects, PROMPTS.select(order))
    np.testing.assert_allclose(straight["direct_effect"][order], turned["direct_effect"], atol=1e-5)


def test_the_mean_of_z_is_the_mean_over_prompts_at_end() -> None:
    net = network("gptj")
    found = measure(net, effects.mean_z, PROMPTS)["z"]
    kept = net.run(torch.from_numpy(PROMPTS.clean), keep=("z",), last=torch.from_numpy(PROMPTS.end))
    for layer in range(net.shape.layers):
        ends = [kept["z", layer][row, end].numpy() for row, end in enumerate(PROMPTS.end)]
        np.testing.assert_allclose(found[layer], np.mean(ends, axis=0), atol=1e-6)


def test_the_cost_counts_every_mlp_that_a_branch_passes() -> None:
    shape = network("gpt_neox").shape
    cost = effects.direct_effects.cost(Job(shape, 10, 12, 0, {}))
    mlp, attention_output = 2 * 64 * 96, 64 * 64
    branch_layers = sum(4 * (layer + 1) for layer in range(3))
    assert cost.flops == 2 * 10 * (branch_layers * mlp + 3 * 4 * attention_output)
