"""Which neurons a knock-out takes, held against the definitions, one neuron at a time."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests.arithmetic import controls
from mechtests.arithmetic.controls import Bag, Choices, Plan
from mechtests.errors import MeasurementError, UsageError

LAYERS = (2, 3)


def random_bag(
    generator: np.random.Generator, neurons: int, heuristics: int, matches: float = 0.2
) -> Bag:
    """Neurons of two layers, in no order, with ties in scores and attributions."""
    layer = generator.choice(LAYERS, neurons)
    score = np.round(generator.random((neurons, heuristics)) * 0.5, 1)
    score += 0.6 * (generator.random(score.shape) < matches)
    attribution = np.round(generator.standard_normal(neurons), 1)
    return Bag(layer, generator.permutation(500)[:neurons], score, attribution)


def slow_own(bag: Bag, holds: np.ndarray, k: int, by: str) -> set[int]:
    """The first k neurons of each layer, by the words of the definition."""
    mine = [h for h in range(len(holds)) if holds[h]]
    found = set()
    for layer in set(bag.layer.tolist()):
        pool = []
        for neuron in range(len(bag)):
            scores = [s for h in mine if (s := bag.score[neuron, h]) >= 0.6]
            if bag.layer[neuron] == layer and scores:
                score, many = max(scores), len(scores)
                pool.append((-score, -many) if by == "score" else (-many, -score))
                pool[-1] += (neuron,)
        found |= {neuron for *_, neuron in sorted(pool)[:k]}
    return found


def sets_of(choices: Choices, problem: int, at: int, name: str) -> list[set[int]]:
    place = 1 + choices.controls.index(name) * choices.draws
    found = choices.sets[problem, at, place : place + choices.draws]
    return [set(row[row >= 0].tolist()) for row in found]


def own_of(choices: Choices, problem: int, at: int) -> set[int]:
    row = choices.sets[problem, at, 0]
    return set(row[row >= 0].tolist())


def by_layer(bag: Bag, rows: set[int]) -> dict[int, int]:
    return {layer: int((bag.layer[list(rows)] == layer).sum()) for layer in LAYERS}


def by_tenth(bag: Bag, rows: set[int], tenth: np.ndarray) -> list[tuple[int, int]]:
    return sorted((int(bag.layer[row]), int(tenth[row])) for row in rows)


bags = st.tuples(st.integers(0, 10_000), st.integers(4, 60), st.sampled_from([0.05, 0.2, 0.6]))


@given(bags, st.sampled_from(["score", "multiplicity"]))
@settings(max_examples=40, deadline=None)
def test_the_neurons_of_a_prompt_are_the_first_k_of_each_layer(
    drawn: tuple[int, int, float], by: controls.Ranking
) -> None:
    seed, neurons, matches = drawn
    generator = np.random.default_rng(seed)
    bag = random_bag(generator, neurons, 8, matches)
    holds = generator.random((8, 4)) < 0.4
    choices = controls.choose(bag, holds, generator, ks=(1, 3, 40), draws=2, by=by)
    for problem, (at, k) in product(range(4), enumerate((1, 3, 40))):
        expected = slow_own(bag, holds[:, problem], k, by)
        assert own_of(choices, problem, at) == expected
        assert choices.removed[problem, at] == len(expected)
        pool = by_layer(bag, slow_own(bag, holds[:, problem], len(bag), by))
        there = [layer for layer in LAYERS if layer in bag.layer]
        assert choices.pool[problem].tolist() == [pool[layer] for layer in there]
        assert choices.short[problem, at] == (min(pool[layer] for layer in there) < k)


def test_the_paper_ranks_by_score_and_its_code_by_multiplicity() -> None:
    """Neuron 0 matches three of the prompt's heuristics at 0.6, neuron 1 one of them at 0.9."""
    score = np.array([[0.6, 0.6, 0.6, 0.0], [0.9, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    bag = Bag(np.zeros(3, int), np.arange(3), score, np.zeros(3))
    holds = np.array([True, True, True, False])
    assert [rows.tolist() for rows in controls.ranked(bag, holds, "score")] == [[1, 0]]
    assert [rows.tolist() for rows in controls.ranked(bag, holds, "multiplicity")] == [[0, 1]]


def test_a_score_on_a_heuristic_that_does_not_hold_ranks_no_neuron() -> None:
    score = np.array([[0.6, 1.0], [0.7, 0.0]])
    bag = Bag(np.zeros(2, int), np.arange(2), score, np.zeros(2))
    (rows,) = controls.ranked(bag, np.array([True, False]))
    assert rows.tolist() == [1, 0]


@given(bags)
@settings(max_examples=60, deadline=None)
def test_every_control_is_as_it_says_and_reports_where_it_is_not(  # noqa: C901  (every control)
    drawn: tuple[int, int, float],
) -> None:
    seed, neurons, matches = drawn
    generator = np.random.default_rng(seed)
    bag = random_bag(generator, neurons, 8, matches)
    holds = generator.random((8, 3)) < 0.4
    effects = generator.standard_normal((3, neurons))
    choices = controls.choose(bag, holds, generator, effects=effects, ks=(2, 5), draws=3)
    associated = bag.associated(holds)
    classified = bag.matched.any(1)
    for problem, at in product(range(3), range(2)):
        own = own_of(choices, problem, at)
        mine = set(np.flatnonzero(associated[:, problem]).tolist())
        for place, name in enumerate(choices.controls):
            outside, overlap, gap = (
                facts[problem, at, place]
                for facts in (choices.outside, choices.overlap, choices.imbalance)
            )
            drawn_sets = sets_of(choices, problem, at, name)
            for each in drawn_sets:
                assert by_layer(bag, each) == by_layer(bag, own)
                assert len(each) == choices.removed[problem, at]
            if not own:
                assert (outside, overlap, gap) == (0.0, 0.0, 0.0)
                continue
            shared = np.mean([len(each & own) / len(own) for each in drawn_sets])
            assert overlap == pytest.approx(shared)
            means = np.mean([bag.attribution[list(each)].mean() for each in drawn_sets])
            expected = (means - bag.attribution[list(own)].mean()) / (bag.attribution.std() or 1)
            assert gap == pytest.approx(expected, abs=1e-9)
            for each in drawn_sets:
                if name == "unassociated":
                    pool = {n for n in range(neurons) if classified[n]} - mine
                    assert outside == pytest.approx(len(each - pool) / len(own))
                    assert each - pool <= mine
                if name == "important":
                    assert outside == pytest.approx(len(each & own) / len(own))
                if name in ("attribution", "effect"):
                    values = bag.attribution if name == "attribution" else abs(effects[problem])
                    tenth = bag.deciles(values)
                    same = by_tenth(bag, each, tenth) == by_tenth(bag, own, tenth)
                    if outside == 0:
                        assert same
                        assert not each & mine
                    free = set(range(neurons)) - mine
                    # nothing associated is taken while anything else of the layer is left
                    for layer in LAYERS:
                        left = {n for n in free - each if bag.layer[n] == layer}
                        assert not (left and any(bag.layer[n] == layer for n in each & mine))


def test_where_all_neurons_are_the_prompts_own_a_control_is_the_same_set_and_says_so() -> None:
    bag = Bag(np.zeros(6, int), np.arange(6), np.full((6, 1), 0.9), np.arange(6.0))
    holds = np.ones((1, 2), bool)
    choices = controls.choose(bag, holds, np.random.default_rng(0), ks=(6,), draws=4)
    np.testing.assert_array_equal(choices.overlap, 1.0)
    for name in choices.controls:
        assert all(each == set(range(6)) for each in sets_of(choices, 0, 0, name))


def test_neurons_beyond_the_cap_fill_a_control_before_the_ablated_ones_do() -> None:
    """Of ten neurons nine are associated: the control of three has the free one and two others."""
    score = np.zeros((10, 2))
    score[:9, 0], score[9, 1] = 0.9, 0.9
    bag = Bag(np.zeros(10, int), np.arange(10), score, np.arange(10.0))
    choices = controls.choose(
        bag, np.array([[True], [False]]), np.random.default_rng(0), ks=(3,), draws=50
    )
    own = own_of(choices, 0, 0)
    for each in sets_of(choices, 0, 0, "unassociated"):
        assert 9 in each
        assert not each & own
    assert choices.outside[0, 0, 0] == pytest.approx(2 / 3)
    assert choices.overlap[0, 0, 0] == 0.0


def test_another_prompts_set_is_that_prompts_own_first_neurons() -> None:
    score = np.zeros((30, 3))
    for heuristic in range(3):
        score[heuristic * 10 : heuristic * 10 + 10, heuristic] = np.linspace(0.6, 1.0, 10)
    bag = Bag(np.zeros(30, int), np.arange(30), score, np.zeros(30))
    choices = controls.choose(
        bag, np.eye(3, dtype=bool), np.random.default_rng(0), ks=(4,), draws=200
    )
    found = sets_of(choices, 0, 0, "another prompt")
    assert {frozenset(each) for each in found} == {
        frozenset(range(16, 20)),
        frozenset(range(26, 30)),
    }
    second = sum(19 in each for each in found)
    assert 70 < second < 130  # both prompts are drawn alike
    assert choices.outside[0, 0, choices.controls.index("another prompt")] == 0.0


def test_a_further_prompt_fills_up_where_another_has_too_few() -> None:
    score = np.zeros((9, 3))
    score[:4, 0], score[4:6, 1], score[6:9, 2] = 0.9, 0.9, 0.9
    bag = Bag(np.zeros(9, int), np.arange(9), score, np.zeros(9))
    choices = controls.choose(
        bag, np.eye(3, dtype=bool), np.random.default_rng(0), ks=(4,), draws=100
    )
    at = choices.controls.index("another prompt")
    for each in sets_of(choices, 0, 0, "another prompt"):
        assert each < set(range(4, 9))
    assert 0.25 < choices.outside[0, 0, at] < 0.5  # 1 or 2 of 4
    assert choices.overlap[0, 0, at] == 0.0


def test_without_another_prompt_its_control_is_the_prompts_own_set() -> None:
    bag = random_bag(np.random.default_rng(0), 40, 6)
    choices = controls.choose(bag, np.ones((6, 1), bool), np.random.default_rng(0), ks=(3,))
    assert choices.overlap[0, 0, choices.controls.index("another prompt")] == 1.0


def test_draws_are_uniform_within_groups() -> None:
    plan = Plan(np.array([0, 1, 0, 1, 1, 0, 2]), np.array([2, 1, 0]), 0)
    found = plan.draw(6000, np.random.default_rng(0))
    assert found.shape == (6000, 3)
    chances = np.bincount(found.ravel(), minlength=7) / 6000
    np.testing.assert_allclose(chances, [2 / 3, 1 / 3, 2 / 3, 1 / 3, 1 / 3, 2 / 3, 0], atol=0.03)
    sets = {frozenset(row) for row in found.tolist()}
    assert len(sets) == 9


def test_the_mean_sum_is_that_over_all_sets() -> None:
    plan = Plan(np.array([0, 1, 0, 1, 1, 0, 2]), np.array([2, 1, 0]), 0)
    values = np.array([1.0, 20.0, 3.0, 50.0, 7.0, 11.0, 999.0])
    sums = [
        values[list(pair)].sum() + values[one]
        for pair, one in product(combinations([0, 2, 5], 2), [1, 3, 4])
    ]
    assert plan.mean_sum(values) == pytest.approx(np.mean(sums))


def test_what_a_tenth_lacks_comes_from_the_nearest_and_of_two_from_the_higher() -> None:
    """Twenty neurons, two a tenth; of the fifth tenth (8 and 9) both are ablated."""
    bag = Bag(np.zeros(20, int), np.arange(20), np.zeros((20, 1)), np.arange(20.0))
    tier = np.zeros(20, int)
    tier[[8, 9]] = 2
    plan = controls.like(bag, np.array([8, 9]), bag.deciles(bag.attribution), tier, tiers=3)
    found = plan.draw(30, np.random.default_rng(0))
    assert set(found.ravel().tolist()) == {10, 11}
    assert plan.outside == 2
    tier[[10, 11]] = 1
    plan = controls.like(bag, np.array([8, 9]), bag.deciles(bag.attribution), tier, tiers=3)
    assert set(plan.draw(30, np.random.default_rng(0)).ravel().tolist()) == {6, 7}


def test_neurons_of_a_tier_that_is_not_taken_are_never_taken() -> None:
    bag = Bag(np.zeros(4, int), np.arange(4), np.zeros((4, 1)), np.arange(4.0))
    plan = controls.like(
        bag, np.array([0, 1, 2]), bag.deciles(bag.attribution), np.array([2, 2, 2, 0]), tiers=2
    )
    assert plan.draw(5, np.random.default_rng(0)).tolist() == [[3]] * 5


@given(st.integers(0, 10_000), st.floats(0.0, 1.0), st.integers(1, 60))
def test_unrelated_problems_exclude_every_related_one(seed: int, rate: float, count: int) -> None:
    """The code excluded the drawn ones only: half of the unrelated ones were even numbers too."""
    generator = np.random.default_rng(seed)
    holds = generator.random(200) < rate
    related, unrelated = controls.related_and_unrelated(holds, count, generator)
    assert holds[related].all()
    assert not holds[unrelated].any()
    assert len(related) == len(set(related.tolist())) == min(count, holds.sum())
    assert len(unrelated) == len(set(unrelated.tolist())) == min(count, (~holds).sum())


def test_a_heuristics_control_has_as_many_others_by_layer_and_its_own_only_for_want_of_more() -> (
    None
):
    layer = np.repeat([0, 1], [6, 30])
    bag = Bag(layer, np.arange(36), np.zeros((36, 1)), np.zeros(36))
    own = np.array([0, 1, 2, 3, 10, 11])
    sets, overlap = controls.important_instead(bag, own, 40, np.random.default_rng(0))
    for row in sets:
        assert (layer[row] == 0).sum() == 4
        assert len(set(row.tolist()) & set(own.tolist())) == 2
        assert {4, 5} <= set(row.tolist())
    assert overlap == pytest.approx(2 / 6)


def test_deciles_are_of_the_layer_and_as_equal_as_can_be() -> None:
    generator = np.random.default_rng(0)
    layer = generator.permutation(np.repeat([5, 9], [40, 25]))
    bag = Bag(layer, np.arange(65), np.zeros((65, 0)), generator.standard_normal(65))
    tenth = bag.deciles(bag.attribution)
    np.testing.assert_array_equal(np.bincount(tenth[layer == 5]), 4)
    assert set(np.bincount(tenth[layer == 9]).tolist()) == {2, 3}
    order = np.argsort(bag.attribution[layer == 5])
    assert (np.diff(tenth[layer == 5][order]) >= 0).all()


def test_what_does_not_fit_is_refused() -> None:
    bag = random_bag(np.random.default_rng(0), 10, 4)
    generator = np.random.default_rng(0)
    with pytest.raises(UsageError, match="4 heuristics"):
        controls.choose(bag, np.ones((3, 2), bool), generator)
    with pytest.raises(UsageError, match="1 or more"):
        controls.choose(bag, np.ones((4, 2), bool), generator, ks=(0,))
    with pytest.raises(UsageError, match="2 problems and 10 neurons"):
        controls.choose(bag, np.ones((4, 2), bool), generator, effects=np.zeros((10, 2)))
    with pytest.raises(UsageError, match="twice"):
        Bag(np.zeros(2, int), np.zeros(2, int), np.zeros((2, 1)), np.zeros(2))
    with pytest.raises(UsageError, match="for each of its neurons"):
        Bag(np.zeros(2, int), np.arange(2), np.zeros((3, 1)), np.zeros(2))
    with pytest.raises(MeasurementError, match="finite"):
        Bag(np.zeros(2, int), np.arange(2), np.full((2, 1), np.nan), np.zeros(2))


def test_the_same_seed_gives_the_same_sets() -> None:
    bag = random_bag(np.random.default_rng(0), 40, 6)
    holds = np.random.default_rng(1).random((6, 5)) < 0.5
    one, other = (controls.choose(bag, holds, np.random.default_rng(2)) for _ in range(2))
    np.testing.assert_array_equal(one.sets, other.sets)
