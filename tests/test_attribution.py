from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from mechtests.circuits.attribution import attribute, graph_of
from mechtests.circuits.graph import KINDS, Read
from mechtests.circuits.interpolation import shares
from mechtests.circuits.memory import Memory
from mechtests.circuits.steps import Written
from mechtests.circuits.writing import Differences
from mechtests.errors import UsageError
from mechtests.models.network import Network
from tests.slow_attribution import (
    MIXED,
    Edges,
    Pairs,
    answers_of,
    difference,
    embedded,
    pairs,
    slow_scores,
)
from tests.tiny import ARCHITECTURES, LAYERS, VOCABULARY, network, prompts, tiny

on_every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)
DOUBLE = torch.float64
ANSWERS = answers_of(len(MIXED.last))
SPLIT = [name for name in ARCHITECTURES if name != "gptj" and not name.startswith("gemma")]


def off(found, expected) -> float:
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def double(name: str) -> Network:
    return network(name, DOUBLE)


def fast(net: Network, given: Pairs = MIXED, answers: Tensor = ANSWERS, **options):
    metric = options.pop("metric", None) or difference(net, answers)
    return attribute(net, given.clean, given.corrupted, metric, last=given.last, **options)


@lru_cache
def one_by_one(name: str, method: str, steps: int, path: str) -> np.ndarray:
    """Scores of each prompt, each run alone, on the slow route."""
    net = double(name)
    points = shares(method, steps, path)
    return slow_scores(net, MIXED, difference(net, ANSWERS), points).numpy()


@on_every_architecture
def test_eap_scores_are_the_slopes_of_every_edge_patched_by_hand(name):
    expected = one_by_one(name, "eap", 1, "corrupted")
    found = fast(double(name), method="eap", groups=np.arange(len(MIXED.last)))
    assert found.dtype == np.float64
    assert off(found, expected) < 1e-9
    assert np.abs(expected).max(0)[graph_of(double(name)).allowed].min() > 0  # none is trivial


@on_every_architecture
@pytest.mark.parametrize(
    ("method", "steps", "path"),
    [
        ("eap-ig-inputs", 3, "corrupted"),
        ("eap-ig-inputs", 2, "clean"),
        ("clean-corrupted", 1, "corrupted"),
    ],
)
def test_averages_over_points_are_those_of_slopes_of_every_edge_at_each_point(
    name, method, steps, path
):
    expected = one_by_one(name, method, steps, path)
    options = {"method": method, "steps": steps, "path": path}
    assert off(fast(double(name), **options), expected.mean(0)) < 1e-9


@on_every_architecture
def test_eap_scores_are_central_differences_of_patched_edges(name):
    net = double(name)
    graph, metric = graph_of(net), difference(net, ANSWERS)
    found = fast(net, method="eap")
    by_hand = Edges(net, MIXED, metric, 0.0)
    generator = np.random.default_rng(0)
    edges = generator.permutation(np.argwhere(graph.allowed))[:40]
    edges = np.vstack((edges, [[graph.mlp(LAYERS - 1), graph.readers - 1]]))
    slopes = []
    for writer, reader in edges:
        amounts = torch.zeros(int(graph.sources[reader]), dtype=DOUBLE)
        amounts[writer] = 1e-4
        up, down = (by_hand.loss(graph.reads[reader], sign * amounts) for sign in (1, -1))
        slopes.append(float((up - down).mean() / 2e-4))
    assert off(found[edges[:, 0], edges[:, 1]], slopes) < 1e-5


def test_a_positive_score_says_that_the_metric_falls_when_the_edge_is_patched():
    """The last MLP's edge to the logits, patched altogether; the metric there is linear."""
    net = double("gpt2")
    metric = lambda final, rows: final[:, 0]  # noqa: E731
    graph = graph_of(net)
    given = pairs(starts=[3] * 8, lasts=[10] * 8, seed=3)
    scores = fast(net, given, metric=metric, method="eap", groups=np.arange(8))
    clean, corrupted = (net.run(tokens, keep=["mlp_out@end"]) for tokens in given[:2])
    at = "mlp_out@end", LAYERS - 1
    patched = clean.final + corrupted[at] - clean[at]
    rise = (metric(patched, None) - metric(clean.final, None)).numpy()
    found = scores[:, graph.mlp(LAYERS - 1), -1]
    assert off(-found, rise) < 1e-9
    assert (found[rise < 0] > 0).all()
    assert (rise < 0).any()


@on_every_architecture
def test_in_single_precision_scores_are_those_of_double_precision(name):
    assert off(fast(network(name), steps=3), fast(double(name), steps=3)) < 1e-4


@pytest.mark.parametrize("name", ["gpt_neox", "llama", "gemma2"])
def test_any_differentiable_metric_of_the_logits_is_attributed(name):
    net = double(name)

    def log_probability(final: Tensor, rows: Tensor) -> Tensor:
        logits = net.logits(final).log_softmax(-1)
        return logits.gather(1, ANSWERS[rows, :1])[:, 0]

    expected = slow_scores(net, MIXED, log_probability, (1.0, 0.5)).mean(0)
    assert off(fast(net, metric=log_probability, steps=2), expected) < 1e-9


@on_every_architecture
def test_edges_out_of_the_input_sum_to_the_embeddings_gradient_times_its_difference(name):
    net = double(name)
    scores = fast(net, steps=3, groups=np.arange(len(MIXED.last)))
    points = shares("eap-ig-inputs", 3, "corrupted")
    change = embedded(net, MIXED, 1.0) - embedded(net, MIXED, 0.0)
    total = torch.zeros(len(change), dtype=DOUBLE)
    for share in points:
        leaf = embedded(net, MIXED, share).requires_grad_()
        final = net.run(MIXED.clean, resid=leaf, last=MIXED.last).final
        loss = -difference(net, ANSWERS)(final, torch.arange(len(change)))
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        total += (gradient * change).sum((1, 2)) / len(points)
    assert off(scores[:, 0].sum(-1), total) < 1e-9


@on_every_architecture
@pytest.mark.parametrize("path", ["corrupted", "clean"])
def test_as_steps_grow_the_inputs_edges_sum_to_the_change_of_the_metric(name, path):
    net, metric = double(name), difference(double(name), ANSWERS)
    rows = torch.arange(len(MIXED.last))
    with torch.no_grad():
        clean, corrupted = (
            metric(net.run(tokens, last=MIXED.last).final, rows) for tokens in MIXED[:2]
        )
    change = (clean - corrupted).numpy()
    errors = []
    for steps in (30, 240):
        scores = fast(net, steps=steps, path=path, groups=rows.numpy())
        errors.append(np.abs(scores[:, 0].sum(-1) - change).max() / np.abs(change).max())
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 4  # falls as one over the number of steps


def test_the_two_paths_differ_by_their_ends_alone():
    """m points with either end, and the same with each end at half weight."""
    net = double("llama")
    found = [fast(net, steps=4, path=path) for path in ("corrupted", "clean")]
    eap = fast(net, method="eap")
    both = fast(net, method="clean-corrupted")
    corrupted_end = 2 * both - eap
    assert off(found[0] - found[1], (corrupted_end - eap) / 4) < 1e-9
    assert off(fast(net, steps=1, path="clean"), eap) < 1e-9
    assert off(found[0], found[1]) > 1e-3


def test_points_are_those_of_the_paper_and_of_both_codes():
    assert shares("eap-ig-inputs", 4, "corrupted") == (1.0, 0.75, 0.5, 0.25)
    assert shares("eap-ig-inputs", 4, "clean") == (0.75, 0.5, 0.25, 0.0)
    assert shares("eap") == (0.0,)
    assert shares("clean-corrupted") == (1.0, 0.0)
    for steps in range(1, 31):
        assert 1.0 in shares("eap-ig-inputs", steps)
        assert 0.0 in shares("eap-ig-inputs", steps, "clean")
        assert len(shares("eap-ig-inputs", steps)) == steps


@pytest.mark.parametrize("method", ["eap", "eap-ig-inputs", "clean-corrupted"])
@settings(max_examples=30, deadline=None)
@for_all(data=st.data())
def test_scores_do_not_depend_on_batches_order_padding_prefixes_or_memory(method, data):
    name = data.draw(st.sampled_from(["gpt_neox", "gpt2", "llama", "qwen3", "gemma2"]))
    count = data.draw(st.integers(1, 6))
    lasts = data.draw(st.lists(st.integers(0, 8), min_size=count, max_size=count))
    starts = [data.draw(st.integers(0, 10)) for _ in lasts]
    given = pairs(starts, lasts, seed=data.draw(st.integers(0, 99)))
    groups = np.array([data.draw(st.integers(0, 1)) for _ in lasts])
    groups[0] = 0
    net, answers = double(name), answers_of(count)
    plain = fast(net, given, answers, method=method, steps=3, groups=groups)
    order = data.draw(st.permutations(range(count)))
    other = fast(
        net,
        given.select(order).padded(data.draw(st.integers(0, 4))),
        answers[list(order)],
        method=method,
        steps=3,
        groups=groups[list(order)],
        budget=data.draw(st.sampled_from([1, 10**5, 10**6, 10**7])),
        share_prefixes=data.draw(st.booleans()),
    )
    assert np.abs(other - plain).max() <= 1e-10 * max(1.0, np.abs(plain).max())


@pytest.mark.parametrize("path", ["clean", "corrupted"])
def test_small_batches_are_what_a_small_budget_gives(path, monkeypatch):
    from mechtests.circuits import steps

    rows = []
    passed = steps.pass_block

    def seen(block, pre, *rest):
        rows.append(len(pre))
        return passed(block, pre, *rest)

    monkeypatch.setattr("mechtests.circuits.passes.pass_block", seen)
    fast(double("llama"), steps=4, path=path)
    assert set(rows) == {(4 + 1) * len(MIXED.last)}  # the end that is no point beside the four
    rows.clear()
    fast(double("llama"), steps=4, path=path, budget=1)
    assert set(rows) == {1, 1 + 1}


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("name", ["llama", "gptj", "gpt2"])
def test_prompts_longer_than_the_model_was_made_for_are_refused(name, share):
    net = double(name)
    size = (2, net.shape.positions + 4)
    clean = torch.randint(VOCABULARY, size)
    corrupted = clean.clone()
    corrupted[:, -3] = (clean[:, -3] + 1) % VOCABULARY
    with pytest.raises(
        UsageError, match=f"up to {net.shape.positions} tokens, got one of {size[1]}"
    ):
        fast(net, Pairs(clean, corrupted, torch.full((2,), size[1] - 1)), share_prefixes=share)


def test_memory_is_taken_over_by_name_and_layer_and_grows():
    memory = Memory(2, torch.float32, torch.device("cpu"))
    parts = [memory.room(layer, name, (2, 4)) for layer in (0, 1) for name in "qk"]
    for at, part in enumerate(parts):
        part.fill_(at)
    assert [int(part.unique()) for part in parts] == [0, 1, 2, 3]
    assert memory.room(1, "q", (2, 2)).data_ptr() == parts[2].data_ptr()
    assert memory.room(1, "q", (30, 4)).shape == (30, 4)


@pytest.mark.parametrize("name", ["gptj", "llama"])
def test_in_half_precision_the_small_difference_of_a_head_is_that_of_its_z(name):
    half = Network.from_model(tiny(name).to(torch.bfloat16), name=name, check=False)
    width, heads = half.shape.width, half.shape.heads
    z = torch.randn(2, 3, heads, half.shape.head_width).bfloat16()
    mlp = torch.zeros(2, 3, width).bfloat16()
    other = (z + 0.03 * torch.randn(z.shape)).bfloat16()
    found = Differences(half, graph_of(half), mlp, mlp)
    found.add(0, Written(z, mlp), Written(other, mlp))
    exact = torch.einsum("pshe,hed->hpsd", other.double() - z.double(), half.blocks[0].W_O.double())
    values = found.values[1 : 1 + heads].double()
    assert float((values - exact).norm() / exact.norm()) < 1e-5


def test_groups_are_scored_as_if_alone():
    net, groups = double("gpt_neox"), np.array([1, 0, 1, 0, 1])
    found = fast(net, groups=groups, steps=2)
    for group in (0, 1):
        rows = np.flatnonzero(groups == group).tolist()
        alone = fast(net, MIXED.select(rows), ANSWERS[rows], steps=2)
        assert off(found[group], alone) < 1e-9


@pytest.mark.parametrize("share", [True, False])
def test_prompts_that_do_not_differ_have_no_scores(share):
    net = double("gemma2")
    same = Pairs(MIXED.clean, MIXED.clean, MIXED.last)
    assert np.abs(fast(net, same, steps=2, share_prefixes=share)).max() < 1e-12
    behind = Pairs(MIXED.clean, MIXED.clean.clone(), MIXED.last - 1)
    behind.corrupted[torch.arange(len(MIXED.last)), MIXED.last] += 1  # after END
    behind.corrupted.remainder_(VOCABULARY)
    assert np.abs(fast(net, behind, steps=2, share_prefixes=share)).max() < 1e-12


@on_every_architecture
def test_what_is_no_edge_has_no_score(name):
    allowed = graph_of(network(name)).allowed
    assert not fast(network(name), steps=1)[~allowed].any()


def test_the_weights_and_what_was_kept_of_them_need_no_gradient_afterwards():
    net = network("llama")
    fast(net, steps=2)
    assert not any(parameter.requires_grad for parameter in net.bridge.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "eap-ig"}, "there is no attribution 'eap-ig'"),
        ({"path": "both"}, "along the path 'both'"),
        ({"steps": 0}, "at least one step, got 0"),
        ({"last": torch.tensor([10, 6, 8, 10, 11])}, "END of each of 5 prompts, below 11"),
        ({"last": torch.tensor([10])}, "got 1 from 10 to 10"),
        ({"groups": np.array([0, 1])}, "a group of each of 5 prompts"),
        ({"groups": np.array([0, 2, 2, 0, 0])}, "none empty"),
        ({"corrupted": MIXED.clean[:, :4]}, "of one shape"),
        ({"metric": lambda final, rows: final}, "one number for each of 25 rows"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, message):
    net = network("llama")
    arguments = {
        "clean": MIXED.clean,
        "corrupted": MIXED.corrupted,
        "metric": difference(net, ANSWERS),
        "last": MIXED.last,
        **change,
    }
    with pytest.raises(UsageError, match=message):
        attribute(net, **arguments)


def forked(name: str) -> Network:
    """A network whose bridge gives every reader its own copy of the residual stream."""
    net = Network.from_model(tiny(name), name=name, check=False)
    for flag in ("split_qkv_input", "attn_result", "hook_mlp_in"):
        getattr(net.bridge, f"set_use_{flag}")(True)
    return net


def hooked(net: Network, tokens: Tensor, first: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """TransformerLens's own run from an embedding: what its hooks see, and logits at the end."""
    seen: dict[str, Tensor] = {}

    def keep(value: Tensor, hook: object) -> Tensor:
        value = value.clone()  # the MLP's input is the stream itself, not a copy of it
        if value.requires_grad:
            value.retain_grad()
        seen[hook.name] = value
        return value

    ends = ("_input", "hook_result", "hook_mlp_in", "mlp.hook_out")
    logits = net.bridge.run_with_hooks(
        tokens,
        fwd_hooks=[
            ("blocks.0.hook_in", lambda value, hook: first),
            (lambda name: name.endswith(ends), keep),
        ],
    )
    return seen, logits[:, -1]


@pytest.mark.parametrize("name", SPLIT)
def test_scores_are_those_of_transformer_lens_slow_way(name):
    """Its hooks on every head's result and every reader's input, a run for each point.

    It does not do so for GPT-J, and for Gemma its results are not what is added to the residual
    stream. With grouped queries it has one input a key or value head.
    """
    net = forked(name)
    graph, group = graph_of(net), net.shape.heads // net.shape.key_value_heads
    clean, corrupted = prompts(0), prompts(1)
    given, rows = Pairs(clean, corrupted, torch.full((3,), 10)), torch.arange(3)
    written = []
    for tokens in (clean, corrupted):
        seen, _ = hooked(net, tokens, net.embed(tokens))
        parts = [net.embed(tokens)]
        for layer in range(LAYERS):
            parts += seen[f"blocks.{layer}.attn.hook_result"].unbind(2)
            parts.append(seen[f"blocks.{layer}.mlp.hook_out"])
        written.append(torch.stack(parts))
    change = (written[1] - written[0]).detach()
    expected = np.zeros((graph.writers, graph.readers), np.float32)
    points = shares("eap-ig-inputs", 3)
    for share in points:
        leaf = embedded(net, given, share).requires_grad_()
        seen, logits = hooked(net, clean, leaf)
        chosen = logits.gather(1, ANSWERS[rows])
        (-(chosen[:, 0] - chosen[:, 1]).sum()).backward()
        for layer in range(LAYERS):
            for kind in KINDS:
                gradient = seen[f"blocks.{layer}.attn.hook_{kind}_input"].grad
                for head in range(gradient.shape[2]):
                    column = graph.reader(Read(layer, kind, head))
                    part = torch.einsum("upsd,psd->u", change, gradient[:, :, head])
                    expected[:, column] += part.numpy() / 3 / len(points)
            gradient = seen[f"blocks.{layer}.hook_mlp_in"].grad
            part = torch.einsum("upsd,psd->u", change, gradient)
            expected[:, graph.reader(Read(layer, "mlp"))] += part.numpy() / 3 / len(points)
    expected[~graph.allowed] = 0.0
    found = fast(network(name), given, ANSWERS[:3], steps=3)
    for layer in range(LAYERS):
        for kind in KINDS:
            heads = net.shape.heads if kind == "q" else net.shape.key_value_heads
            start = graph.reader(Read(layer, kind))
            summed = found[:, start : start + net.shape.heads]
            summed = summed.reshape(len(found), heads, group if kind != "q" else 1).sum(-1)
            theirs = expected[:, start : start + heads]
            assert np.abs(summed - theirs).max() < 1e-4 * np.abs(expected).max()
        column = graph.reader(Read(layer, "mlp"))
        assert np.abs(found - expected)[:, column].max() < 1e-4 * np.abs(expected).max()
