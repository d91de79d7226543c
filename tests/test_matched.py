"""Matched random sets match, and p among them is valid."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mechtests.errors import MeasurementError
from mechtests.matched import matched_draws, permutation_p, smallest_p

TWELVE_BY_EIGHT = {layer: range(8) for layer in range(12)}


def counts(heads):
    return np.bincount([layer for layer, _ in heads], minlength=12).tolist()


def test_draws_have_as_many_heads_in_each_layer_as_the_observed_set():
    observed = [(3, 1), (3, 5), (9, 0)]
    draws = matched_draws(observed, TWELVE_BY_EIGHT, 199, np.random.default_rng(0))
    assert (draws.stratum, draws.enumerated, draws.distinct) == ("layer", False, 28 * 8)
    assert len(draws.sets) == 199
    assert all(counts(drawn) == counts(observed) for drawn in draws.sets)
    assert all(len(set(drawn)) == 3 for drawn in draws.sets)
    assert draws.p_min == 1 / 200


def test_every_head_of_the_layer_is_drawn_equally_often_the_observed_included():
    observed = [(3, 1), (3, 5), (5, 2), (9, 0)]
    draws = matched_draws(observed, TWELVE_BY_EIGHT, 1500, np.random.default_rng(1))
    drawn = [head for one in draws.sets for layer, head in one if layer == 9]
    assert stats.chisquare(np.bincount(drawn, minlength=8)).pvalue > 0.001


def test_the_same_generator_draws_the_same_sets():
    observed = [(0, 1), (3, 5), (9, 0)]
    one, two = (
        matched_draws(observed, TWELVE_BY_EIGHT, 50, np.random.default_rng(2)) for _ in "ab"
    )
    assert one == two


def test_a_layer_with_too_few_sets_is_widened_to_a_third_of_depth():
    """One head of eight: 8 sets, whose p could not reach 0.05; its third of depth has 32."""
    draws = matched_draws([(5, 2)], TWELVE_BY_EIGHT, 199, np.random.default_rng(0))
    assert (draws.stratum, draws.enumerated, draws.distinct) == ("third of depth", True, 32)
    assert {layer for ((layer, _),) in draws.sets} == {4, 5, 6, 7}
    assert draws.p_min == 1 / 32


def test_thirds_with_too_few_sets_are_widened_to_any_layer():
    pool = {layer: range(4) for layer in range(6)}
    draws = matched_draws([(5, 2)], pool, 199, np.random.default_rng(0))
    assert (draws.stratum, draws.distinct, draws.p_min) == ("any layer", 24, 1 / 24)


def test_a_network_without_alternatives_says_so_in_p_min():
    draws = matched_draws([(0, 2)], {0: range(4)}, 199, np.random.default_rng(0))
    assert (draws.stratum, draws.enumerated, draws.p_min) == ("any layer", True, 0.25)


def test_an_empty_set_has_one_alternative_itself():
    draws = matched_draws([], TWELVE_BY_EIGHT, 199, np.random.default_rng(0))
    assert draws.sets == ((),)
    assert draws.p_min == 1.0


def test_enumeration_equals_brute_force():
    pool = {0: [0, 1, 2, 3], 1: [0, 2, 3, 5, 7], 2: [1]}
    observed = [(0, 3), (0, 1), (1, 5)]
    draws = matched_draws(observed, pool, 199, np.random.default_rng(0))
    heads = [(layer, head) for layer in pool for head in pool[layer]]
    brute = [c for c in combinations(heads, 3) if counts(c) == counts(observed)]
    assert draws.enumerated
    assert len(draws.sets) == draws.distinct == len(brute) == 30
    assert set(draws.sets) == set(brute)
    assert tuple(sorted(observed)) in draws.sets


def test_an_observed_head_outside_the_pool_is_an_error_that_names_it():
    with pytest.raises(MeasurementError, match=r"\[\(3, 9\)\]"):
        matched_draws([(3, 1), (3, 9)], TWELVE_BY_EIGHT, 19, np.random.default_rng(0))


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("count", [19, 99])
def test_under_exchangeability_p_is_no_smaller_than_its_level_allows(count, discrete):
    """The observed set is itself a random one; with 99 draws the 24 sets are enumerated."""
    generator = np.random.default_rng(count)
    pool, runs = {0: range(4), 1: range(4)}, 1000
    ps = []
    for _ in range(runs):
        scores = generator.normal(size=(2, 4))
        if discrete:
            scores = np.round(scores)
        first = generator.choice(4, 2, replace=False)
        observed = [(0, int(h)) for h in first] + [(1, int(generator.integers(4)))]
        draws = matched_draws(observed, pool, count, generator)
        values = [sum(scores[head] for head in drawn) for drawn in draws.sets]
        value = sum(scores[head] for head in observed)
        ps.append(permutation_p(value, values, enumerated=draws.enumerated))
    for level in (0.05, 0.1, 0.25, 0.5):
        assert sum(p <= level for p in ps) <= stats.binom.ppf(0.99, runs, level)
    assert min(ps) > 0
    if not discrete:
        assert np.mean([p <= 0.5 for p in ps]) > 0.42


finite = st.floats(-1e6, 1e6, allow_nan=False)


@given(finite, st.lists(finite, min_size=1, max_size=40), st.booleans())
def test_p_is_never_zero_and_never_below_what_the_draws_can_give(observed, draws, enumerated):
    p = permutation_p(observed, draws, enumerated=enumerated)
    assert 0 < smallest_p(len(draws), enumerated) <= p <= 1


def test_p_counts_draws_at_least_as_large():
    assert permutation_p(2.0, [1.0, 2.0, 3.0]) == 3 / 4
    assert permutation_p(2.0, [1.0, 2.0, 3.0], enumerated=True) == 2 / 3
    assert permutation_p(9.0, [1.0, 2.0, 3.0]) == 1 / 4


def test_a_sum_in_another_order_is_a_tie():
    assert permutation_p(0.3, [0.1 + 0.2, 0.2, 0.1]) == 2 / 4
    assert permutation_p(0.1 + 0.2, [0.3, 0.2, 0.1]) == 2 / 4


@pytest.mark.parametrize(("observed", "draws"), [(np.nan, [1.0]), (1.0, [np.inf])])
def test_p_among_values_that_are_no_numbers_is_an_error(observed, draws):
    with pytest.raises(MeasurementError, match="finite"):
        permutation_p(observed, draws)
