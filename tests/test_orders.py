"""Models are ordered or alike where their values say so, and never more often than allowed."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mechtests.errors import MeasurementError
from mechtests.means import Mean
from mechtests.measurement import Sample
from mechtests.orders import alike, kendall, ordered, outside
from mechtests.rules import beside
from mechtests.verdict import Outcome
from tests.curves import HOLDS, INCONCLUSIVE, REFUTED, allowed, outcomes

RUNS = 500


def models(generator, means, clusters=30, spread=1.0, shared=True):
    """A sample for each model: prompts that are hard for one are hard for all."""
    hard = generator.normal(size=clusters)
    found = {}
    for i, mean in enumerate(means):
        count = clusters if shared else clusters + i
        own = generator.normal(size=count)
        values = mean + spread * (np.sqrt(0.5) * hard + np.sqrt(0.5) * own if shared else own)
        found[f"m{i}"] = Sample(values, np.arange(count), "logits")
    return found


@pytest.mark.parametrize("shared", [True, False])
def test_at_exactly_d_an_order_is_decided_no_more_often_than_its_level(shared):
    generator = np.random.default_rng(1)
    seen = outcomes(
        lambda: ordered(models(generator, [0.0, 0.2, 0.5], shared=shared), more_than=0.5, what="x"),
        RUNS,
    )
    assert seen[HOLDS] <= allowed(0.025, RUNS)
    assert seen[REFUTED] <= allowed(0.025, RUNS)
    assert seen[HOLDS] + seen[REFUTED] > 0.02 * RUNS


@pytest.mark.parametrize(
    ("means", "outcome"),
    [
        ([0, 1, 2], HOLDS),
        ([0, 0.0, 2], HOLDS),  # no neighbouring pair falls by more than d
        ([0, 3, 2], INCONCLUSIVE),  # one does
        ([2, 1, 0], REFUTED),
        ([0, 0, 0], REFUTED),
    ],
)
def test_a_planted_order_is_seen(means, outcome):
    generator = np.random.default_rng(2)
    seen = outcomes(lambda: ordered(models(generator, means, 60), more_than=0.5, what="x"), 100)
    assert seen[outcome] > 90


def test_the_verdict_says_how_little_a_few_models_can_say_of_size():
    verdict = ordered(models(np.random.default_rng(3), [0, 1, 2]), more_than=0.5, what="size")
    assert verdict.shown["tau_p_min"] == verdict.shown["tau_p"] == pytest.approx(1 / 6)
    assert verdict.sentence.startswith("size, m2 minus m0: ")
    assert verdict.sentence.endswith("; tau 1, p = 0.17 and never below 0.17")
    bent = ordered(models(np.random.default_rng(3), [0, 4, 2]), more_than=0.5, what="size")
    assert "; not all the way: m2 minus m1: -" in bent.sentence
    assert bent.p is None


def test_two_models_are_no_scale():
    verdict = ordered(models(np.random.default_rng(0), [0, 1]), more_than=0.5, what="x")
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert verdict.sentence == "x: a claim over scale needs 3 models, got 2 (m0, m1)"


def test_recorded_values_are_ordered_by_their_errors():
    sizes = {"a": Mean(6.3, 0.1), "b": Mean(7.0, 0.1), "c": Mean(8.1, 0.1)}
    assert ordered(sizes, more_than=0.25, what="log2 size").outcome is HOLDS
    assert ordered({**sizes, "c": Mean(8.1, np.nan)}, more_than=0.25, what="x").outcome is (
        INCONCLUSIVE
    )


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=7, unique=True))
def test_kendalls_tau_is_scipys_with_its_exact_one_sided_p(values):
    expected = stats.kendalltau(range(len(values)), values, method="exact", alternative="greater")
    found = kendall([float(value) for value in values])
    assert found.tau == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue)


@pytest.mark.parametrize(("count", "smallest"), [(3, 0.17), (4, 0.042), (5, 0.0083)])
def test_the_smallest_p_of_an_order_is_one_over_all_orders(count, smallest):
    ps = [kendall([float(v) for v in order]).p for order in permutations(range(count))]
    assert min(ps) == pytest.approx(kendall(list(map(float, range(count)))).p_min)
    assert min(ps) == pytest.approx(smallest, rel=0.02)
    assert np.mean(np.array(ps) <= 0.05) <= 0.05


def test_an_order_needs_two_values():
    with pytest.raises(MeasurementError, match="at least two values, got 1"):
        kendall([1.0])


@pytest.mark.parametrize("shared", [True, False])
def test_at_the_edge_of_a_quarter_of_the_best_models_are_alike_no_more_often_than_allowed(shared):
    generator = np.random.default_rng(4)
    seen = outcomes(
        lambda: alike(models(generator, [4.0, 3.6, 3.0], 20, shared=shared), best="m0", what="x"),
        RUNS,
    )
    assert seen[HOLDS] <= allowed(0.05, RUNS)
    assert seen[REFUTED] <= allowed(0.025, RUNS)


@pytest.mark.parametrize(("means", "outcome"), [([4.0, 4.1, 3.9], HOLDS), ([4, 4, 1.5], REFUTED)])
def test_likeness_and_a_model_that_is_unlike_are_seen(means, outcome):
    generator = np.random.default_rng(5)
    seen = outcomes(lambda: alike(models(generator, means, 60), what="x"), 100)
    assert seen[outcome] > 90


def test_a_model_alone_is_not_alike():
    verdict = alike(models(np.random.default_rng(0), [1.0]), what="x")
    assert verdict.outcome is Outcome.NOT_APPLICABLE


def test_a_margin_that_tells_nothing_apart_keeps_likeness_from_holding():
    found = models(np.random.default_rng(6), [4.0, 4.0, 4.0, 1.0], 60)
    large = {name: found[name] for name in ("m0", "m1", "m2")}
    holds = alike(large, what="x")
    small = outside(large, {"m3": found["m3"]}, what="the smallest model")
    assert beside(holds, small).outcome is HOLDS
    assert not small.reached
    same = outside(large, {"m2": found["m2"]})
    verdict = beside(holds, same)
    assert verdict.outcome is INCONCLUSIVE
    assert "the margin tells nothing apart" in verdict.sentence
    assert outside(large, {}).reached


@given(st.integers(0, 100), st.floats(0.1, 10))
def test_the_unit_of_the_values_does_not_matter(seed, scale):
    found = models(np.random.default_rng(seed), [2.0, 2.5, 3.0], 12)
    moved = {name: sample * scale for name, sample in found.items()}
    pairs = (
        (ordered(found, more_than=0.5, what="x"), ordered(moved, more_than=0.5 * scale, what="x")),
        (alike(found, what="x"), alike(moved, what="x")),
    )
    for one, two in pairs:
        assert one.outcome is two.outcome
        assert one.p == pytest.approx(two.p)
