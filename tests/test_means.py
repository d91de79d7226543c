"""Means without prompts are judged by their errors, samples that share prompts prompt by prompt."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mechtests import margins
from mechtests.means import Mean, above, below, combination, equivalent, mean_of, similar
from mechtests.measurement import Estimate, Sample
from mechtests.statistics import mean_interval, one_sided_p
from tests.curves import HOLDS, INCONCLUSIVE, REFUTED, allowed, outcomes

RUNS = 800


def sample(values, each=1):
    values = np.asarray(values, dtype=np.float64)
    return Sample(values, np.arange(len(values)) // each, "logits")


def noisy(generator, mean, clusters=30, spread=1.0):
    return sample(generator.normal(mean, spread, clusters))


def test_the_mean_of_a_sample_has_its_interval_and_its_p():
    data = noisy(np.random.default_rng(0), 0.3)
    found = mean_of(data)
    assert found.interval().ends == pytest.approx(mean_interval(data).ends)
    for side in ("above", "below"):
        assert found.p(0.1, side) == pytest.approx(one_sided_p(data, 0.1, side))
    assert (found.prompts, found.clusters, found.unit) == (30, 30, "logits")


def test_samples_of_the_same_prompts_are_combined_prompt_by_prompt():
    one, other = sample([1.0, 2.0, 4.0]), sample([1.0, 1.0, 1.0])
    assert combination((1, one), (-2, other)).values.tolist() == [-1, 0, 2]


def test_the_same_value_twice_is_merged_and_not_counted_as_independent():
    one = Mean(1.0, 0.3)
    total = combination((1, one), (0.5, one), (-1.5, Mean(2.0, 0.0)))
    assert total.error == pytest.approx(0.45)
    assert combination((1, one), (-1, one)) == Mean(0.0, 0.0)
    same = sample([1.0, 2.0])
    assert combination((1, same), (-1, same)).values.tolist() == [0, 0]


def test_other_prompts_are_compared_with_welchs_test():
    generator = np.random.default_rng(1)
    one, other = noisy(generator, 0.4, 12), noisy(generator, 0.0, 30, 3.0)
    found = combination((1, one), (-1, other))
    expected = stats.ttest_ind(one.values, other.values, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found.degrees == pytest.approx(expected.df)
    assert found.interval().ends == pytest.approx((interval.low, interval.high))
    assert found.p(0.0, "above") == pytest.approx(
        stats.ttest_ind(one.values, other.values, equal_var=False, alternative="greater").pvalue
    )
    assert (found.prompts, found.clusters) == (42, 12)


@pytest.mark.parametrize("sizes", [(8, 8), (10, 40)])
def test_at_the_margin_an_unpaired_difference_decides_no_more_often_than_its_level(sizes):
    generator = np.random.default_rng(2)

    def decide():
        parts = noisy(generator, 0.3, sizes[0]), noisy(generator, 0.0, sizes[1], 2.0)
        return above(combination((1, parts[0]), (-1, parts[1])), 0.3, what="x")

    seen = outcomes(decide, RUNS)
    assert seen[HOLDS] <= allowed(0.025, RUNS)
    assert seen[REFUTED] <= allowed(0.025, RUNS)
    assert seen[HOLDS] + seen[REFUTED] > 0.02 * RUNS


def test_a_sample_is_judged_as_the_rules_for_samples_do():
    data = sample([1.0] * 20 + [0.0] * 4)
    for kind in ("mean", "proportion", "census"):
        assert above(data, 0.6, what="x", kind=kind) == margins.above(
            data, 0.6, what="x", kind=kind
        )
        assert below(data, 0.6, what="x", kind=kind) == margins.below(
            data, 0.6, what="x", kind=kind
        )
    assert equivalent(data, 0.6, what="x") == margins.equivalent(data, 0.6, what="x")


@pytest.mark.parametrize(
    ("mean", "up", "down"),
    [(0.9, HOLDS, REFUTED), (0.1, REFUTED, HOLDS), (0.55, *[INCONCLUSIVE] * 2)],
)
def test_a_recorded_mean_is_judged_by_its_error(mean, up, down):
    recorded = Estimate(mean, 0.1, 70)
    assert above(recorded, 0.5, what="x").outcome is up
    assert below(recorded, 0.5, what="x").outcome is down


def test_an_open_recorded_mean_says_which_error_would_decide():
    verdict = above(Mean(0.6, 0.1), 0.5, what="x")
    assert verdict.sentence == (
        "x: 0.60 [0.40, 0.80] over recorded prompts, claimed above 0.5; "
        "a standard error of 0.036 would decide, it is 0.1"
    )
    assert above(Mean(0.6, 0.035), 0.5, what="x").outcome is HOLDS


def test_a_recorded_mean_without_an_error_decides_nothing():
    for value in (Estimate(9.0, None, None), Mean(9.0, float("nan"))):
        for verdict in (
            above(value, 0.0, what="x"),
            equivalent(value, 99.0, what="x"),
            similar([(1, value), (-1, Mean(9.0, 0.1))], Mean(9.0, 0.1), 0.25, what="x"),
        ):
            assert verdict.outcome is INCONCLUSIVE
            assert (verdict.p, verdict.p_refuted) == (None, None)
            assert "recorded data cannot decide" in verdict.sentence


def test_an_exact_mean_is_compared_exactly():
    assert above(Mean(0.51, 0.0), 0.5, what="x").outcome is HOLDS
    assert above(Mean(0.5, 0.0), 0.5, what="x").outcome is REFUTED
    assert equivalent(Mean(0.2, 0.0), 0.25, what="x").outcome is HOLDS
    assert equivalent(Mean(0.3, 0.0), 0.25, what="x").outcome is REFUTED


def test_few_clusters_or_no_spread_on_one_side_decide_nothing():
    generator = np.random.default_rng(3)
    few = combination((1, noisy(generator, 99, 7)), (-1, noisy(generator, 0, 20)))
    assert "fewer than 8 clusters" in above(few, 0.0, what="x").sentence
    constant = combination((1, sample([5.0] * 12)), (-1, noisy(generator, 0, 20)))
    assert "nothing varies" in above(constant, 0.0, what="x").sentence


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("side", [1, -1])
def test_at_the_edge_of_a_share_similarity_holds_and_is_refuted_no_more_than_allowed(paired, side):
    generator = np.random.default_rng(4)

    def decide():
        best = generator.normal(4.0, 1.0, 24)
        other = (1 - side * 0.25) * 4.0 + 0.5 * (best - 4.0) + generator.normal(0, 0.7, 24)
        two = sample(other) if paired else sample(other[:22])
        return similar([(1, sample(best)), (-1, two)], sample(best), 0.25, what="x")

    seen = outcomes(decide, RUNS)
    assert seen[HOLDS] <= allowed(0.05, RUNS)
    assert seen[REFUTED] <= allowed(0.025, RUNS)
    assert seen[HOLDS] + seen[REFUTED] > 0


@pytest.mark.parametrize(("other", "outcome"), [(4.1, HOLDS), (1.0, REFUTED)])
def test_planted_likeness_and_unlikeness_are_seen(other, outcome):
    generator = np.random.default_rng(5)
    best, two = noisy(generator, 4.0, 60), noisy(generator, other, 60)
    verdict = similar([(1, best), (-1, two)], best, 0.25, what="a minus b")
    assert verdict.outcome is outcome
    assert "claimed within 25% of" in verdict.sentence
    assert verdict.margin == pytest.approx(0.25 * best.mean)


def test_a_share_of_nothing_is_not_judged():
    generator = np.random.default_rng(6)
    noise, other = noisy(generator, 0.0), noisy(generator, 0.0)
    verdict = similar([(1, noise), (-1, other)], noise, 0.25, what="x")
    assert verdict.outcome is INCONCLUSIVE
    assert "denominator" in verdict.sentence


@given(st.floats(-5, 5), st.floats(0.01, 2), st.floats(0.1, 3))
def test_recorded_equivalence_holds_where_the_90_percent_interval_is_inside(mean, error, margin):
    verdict = equivalent(Mean(mean, error), margin, what="x")
    inside, outside = Mean(mean, error).interval(0.90), Mean(mean, error).interval(0.95)
    edge = min(abs(abs(end) - margin) for end in (*inside.ends, *outside.ends))
    if edge > 1e-6:
        assert (verdict.outcome is HOLDS) == (-margin < inside.low and inside.high < margin)
        assert (verdict.outcome is REFUTED) == (outside.low > margin or outside.high < -margin)
