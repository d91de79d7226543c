"""Neurons are matched with heuristics exactly as the slow definition says."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mechtests.arithmetic.libraries import Library, library
from mechtests.arithmetic.logit_lens import lens_auc, value_logits
from mechtests.arithmetic.matching import matched, result_sets, scores
from mechtests.errors import MeasurementError, UsageError
from tests import tiny

PLUS, MINUS, TIMES, DIVIDE = range(4)


def slow(activations: np.ndarray, mask: np.ndarray) -> float:
    """The share of the mask's pairs among as many of the largest, tied ones in part."""
    k = int(mask.sum())
    edge = np.sort(activations)[-k]
    above, tied = activations > edge, activations == edge
    part = (k - above.sum()) / tied.sum()
    return float((above & mask).sum() + part * (tied & mask).sum()) / k


def slow_scores(activations, found, lens=None, gated=False):
    """Algorithm 1, one neuron and one mask at a time."""
    out = np.zeros((activations.shape[1], len(found)))
    for neuron, i in np.ndindex(*out.shape):
        column, mask = activations[:, neuron], found.mask(i)
        if found.direct[i] and lens is not None:
            row = np.searchsorted(found.results, found.result)
            column = column * lens[row, neuron]
        out[neuron, i] = slow(column, mask)
        if gated and not found.direct[i]:
            out[neuron, i] = max(out[neuron, i], slow(-column, mask))
    return out


@st.composite
def worlds(draw) -> Library:
    """Some pairs of small operands, in any order, under any operator."""
    operator = draw(st.integers(0, 3))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    a, b = (x.ravel() for x in np.indices((draw(st.integers(2, 14)), draw(st.integers(2, 14)))))
    some = generator.permutation(len(a))[: draw(st.integers(2, len(a)))]
    a, b = a[some], b[some] + (operator == DIVIDE)
    result = [a + b, abs(a - b), a * b, a // np.maximum(b, 1)][operator]
    sets = [(0, 2), (1, 2, 3)] if operator == DIVIDE else []
    return library(operator, a, b, result, sets=sets, fewest=1, largest_share=1.0)


@settings(deadline=None, max_examples=60)
@given(worlds(), st.integers(0, 2**32), st.integers(0, 40), st.booleans(), st.booleans())
def test_scores_equal_the_slow_definition_with_ties_and_without(found, seed, levels, lensed, gated):
    """``levels`` distinct activations at most: all of them tie, some, or none (0)."""
    generator = np.random.default_rng(seed)

    def drawn(*shape: int) -> np.ndarray:
        if levels:
            return generator.integers(-levels // 2, levels // 2 + 1, shape).astype(np.float32)
        return generator.normal(size=shape).astype(np.float32)

    activations = drawn(len(found.first), 3)
    lens = drawn(len(found.results), 3) if lensed else None
    fast = scores(activations, found, lens=lens, gated=gated)
    assert fast.shape == (3, len(found))
    assert fast.dtype == np.float32
    expected = slow_scores(activations, found, lens, gated)
    np.testing.assert_allclose(fast, expected, rtol=1e-6, atol=1e-7)


def grid(operator: int, operands: int = 100, **options) -> Library:
    a, b = (x.ravel() for x in np.indices((operands, operands)))
    if operator == DIVIDE:
        a, b = a[b > 0], b[b > 0]
    result = [a + b, a - b, a * b, a // np.maximum(b, 1)][operator]
    legal = (result >= 0) & (result < 1000)
    return library(operator, a[legal], b[legal], result[legal], **options)


def test_a_score_is_the_mean_over_all_orders_of_tied_pairs() -> None:
    activations = np.array([2, 1, 1, 1, 0], np.float32)
    mask = np.array([True, True, False, False, True])
    orders = []
    for order in permutations(range(5)):
        largest = sorted(order, key=lambda pair: -activations[pair])[:3]
        orders.append(mask[largest].mean())
    assert slow(activations, mask) == pytest.approx(np.mean(orders))


def test_a_constant_neuron_scores_the_share_of_pairs_and_minus_zero_is_zero() -> None:
    found = grid(PLUS, 30)
    share = found.sizes / len(found.first)
    zeros = np.zeros((len(found.first), 2), np.float32)
    zeros[::2, 1] = -0.0
    np.testing.assert_allclose(scores(zeros, found), np.stack([share, share]), rtol=1e-6)
    assert not matched(scores(zeros, found)).any()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.booleans(), st.sampled_from([0, 1, 8]))
def test_scores_depend_on_no_order_of_pairs_and_no_scale_of_neurons(seed, gated, decimals):
    generator = np.random.default_rng(seed)
    found = grid(TIMES, 20)
    activations = np.round(generator.normal(size=(len(found.first), 2)), decimals)
    order = generator.permutation(len(activations))
    moved = library(TIMES, found.first[order], found.second[order], found.result[order])
    assert moved.heuristics == found.heuristics
    expected = scores(activations, found, gated=gated)
    assert (scores(activations[order], moved, gated=gated) == expected).all()
    scaled = (activations * 8).astype(np.float32)  # exact
    assert (scores(scaled, found, gated=gated) == expected).all()


@pytest.mark.parametrize("operator", range(4))
def test_a_neuron_that_indicates_a_heuristic_scores_one(operator: int) -> None:
    """Of every type, and beside noise; the neuron's sign matters unless the MLP is gated."""
    found = grid(operator, sets=[(3, 4), (5, 7, 9)] if operator == DIVIDE else [])
    by_type = {h.type: i for i, h in enumerate(found.heuristics)}
    expected = {f"{v} {k}" for v in ("op1", "op2", "result") for k in ("range", "modulo", "value")}
    assert set(by_type) >= (expected | {"result pattern", "both range", "both modulo"}) - {
        t for t in expected if t.endswith("value")
    }
    assert ("result set" in by_type) == (operator == DIVIDE)
    at = list(by_type.values())
    generator = np.random.default_rng(0)
    planted = np.stack([found.mask(i) for i in at], 1).astype(np.float32)
    planted += generator.uniform(0, 0.2, planted.shape).astype(np.float32)
    lens = np.ones((len(found.results), len(at)), np.float32)
    own = np.arange(len(at)), at
    assert (scores(planted, found)[own] == 1).all()
    assert (scores(planted, found, lens=lens)[own] == 1).all()
    indirect = ~found.direct[at]
    upside_down = scores(-planted, found)[own]
    assert (upside_down[indirect] < 0.5).all()
    assert (scores(-planted, found, gated=True)[own][indirect] == 1).all()
    assert (scores(-planted, found, lens=-lens)[own][~indirect] == 1).all()
    direct = scores(-planted, found, gated=True)[own][~indirect]
    assert (direct == upside_down[~indirect]).all()


def test_what_a_neuron_writes_decides_between_direct_heuristics() -> None:
    """Active everywhere, it matches what its value vector raises; without a lens nothing."""
    found = grid(PLUS)
    at = next(i for i, h in enumerate(found.heuristics) if h.name == "result in [60, 90)")
    lens = np.isin(found.results, range(60, 90)).astype(np.float32)[:, None]
    active = np.random.default_rng(0).uniform(1, 2, (len(found.first), 1)).astype(np.float32)
    assert scores(active, found, lens=lens)[0, at] == 1
    assert not matched(scores(active, found)).any()


def test_threads_change_nothing() -> None:
    found = grid(MINUS, 60)
    activations = np.random.default_rng(0).normal(size=(len(found.first), 70)).astype(np.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        several = scores(activations, found)
    finally:
        torch.set_num_threads(before)
    assert (several == scores(activations, found)).all()
    alone = np.concatenate([scores(activations[:, i : i + 1], found) for i in (0, 63, 64, 69)])
    assert (alone == several[[0, 63, 64, 69]]).all()


def test_a_score_of_the_threshold_is_a_match() -> None:
    found = np.array([0.7, 0.6999, 0.6, 0.5999], np.float32)
    assert matched(found, 0.7).tolist() == [True, False, False, False]
    assert matched(found).tolist() == [True, True, True, False]


def test_neurons_propose_the_results_they_are_largest_on() -> None:
    found = grid(DIVIDE)
    generator = np.random.default_rng(0)
    wanted = [(3, 4), (5, 7, 9), (6, 7, 8, 10), (12,), (2, 3, 4, 5, 6)]
    planted = np.stack([np.isin(found.result, each) for each in wanted], 1).astype(np.float32)
    proposed = result_sets(planted, found)
    assert proposed == sorted(wanted[:3])  # one result is a value, five are too many
    noisy = planted + generator.uniform(0, 0.01, planted.shape).astype(np.float32)
    assert set(result_sets(noisy, found)) <= set(wanted[:3])
    widened = grid(DIVIDE, sets=proposed)
    at = [i for i, h in enumerate(widened.heuristics) if h.kind == "set"]
    assert [widened.heuristics[i].numbers for i in at] == proposed
    own = [wanted.index(each) for each in proposed]
    assert (scores(noisy, widened)[own, at] == 1).all()
    lens = np.ones((len(found.results), len(wanted)), np.float32)
    assert result_sets(-planted, found, -lens) == proposed


def test_proposals_depend_on_no_order_of_pairs() -> None:
    found = grid(DIVIDE, 40)
    generator = np.random.default_rng(1)
    order = generator.permutation(len(found.first))
    moved = library(DIVIDE, found.first[order], found.second[order], found.result[order])
    activations = generator.integers(0, 3, (len(order), 30)) * (found.result[:, None] > 2)
    proposed = result_sets(activations, found)
    assert result_sets(activations[order], moved) == proposed


def test_what_does_not_fit_is_refused() -> None:
    found = grid(PLUS, 20)
    activations = np.zeros((400, 2), np.float32)
    with pytest.raises(UsageError, match=r"activations \[400, neuron\]"):
        scores(activations[:-1], found)
    with pytest.raises(UsageError, match="39 results"):
        scores(activations, found, lens=np.zeros((400, 2), np.float32))
    activations[3, 1] = np.nan
    with pytest.raises(MeasurementError, match=r"neurons \[1\]"):
        scores(activations, found)
    with pytest.raises(MeasurementError, match="logit lens"):
        scores(activations, found, lens=np.full((39, 2), np.inf))


# -------------------------------------------------------------------------------- logit lens


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_value_logits_are_what_the_network_reads_of_a_value_vector(name: str) -> None:
    """Its logits' odd part, without softcap and division, centred over the vocabulary."""
    network, layer, neurons, tokens = tiny.network(name), 1, [3, 50, 95], [7, 100]
    block = network.blocks[layer]
    values = block.mlp_out.weight.T[neurons]
    if block.mlp_post is not None:
        values = values * block.mlp_post.gain

    def logits(x: torch.Tensor) -> torch.Tensor:
        out = network.logits(x)
        cap = network.softcap
        return out if cap is None else cap * torch.atanh(out / cap)

    odd = (logits(values.double().float()) - logits(-values)) / 2
    expected = (odd - odd.mean(-1, keepdim=True))[:, tokens] * network.final_norm.scale(values)
    found = torch.from_numpy(value_logits(network, layer, neurons, tokens))
    assert found.shape == (2, 3)
    assert tiny.off(found, expected.T) < 2e-5


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.integers(2, 12), st.integers(0, 3))
def test_auc_is_that_of_all_pairs_of_results(seed: int, results: int, decimals: int) -> None:
    generator = np.random.default_rng(seed)
    lens = np.round(generator.normal(size=(results, 3)), decimals)
    total = generator.integers(1, 4, results)
    inside = generator.integers(0, total + 1, (2, results))
    auc = lens_auc(lens, inside, total)
    for c, neuron in np.ndindex(2, 3):
        inner = np.repeat(lens[:, neuron], inside[c])
        outer = np.repeat(lens[:, neuron], total - inside[c])
        if len(inner) == 0 or len(outer) == 0:
            assert np.isnan(auc[c, neuron])
        else:
            u = stats.mannwhitneyu(inner, outer).statistic
            assert auc[c, neuron] == pytest.approx(u / len(inner) / len(outer))


def test_a_class_has_no_more_inside_than_there_is() -> None:
    with pytest.raises(UsageError, match="more of a result"):
        lens_auc(np.zeros((3, 1)), np.array([[0, 2, 0]]))
    perfect = lens_auc(np.arange(4.0)[:, None], np.array([[0, 0, 1, 1], [1, 1, 0, 0]]))
    assert perfect.ravel().tolist() == [1.0, 0.0]
