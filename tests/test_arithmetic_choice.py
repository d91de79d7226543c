"""Which problems claims are about: right, another answer than 0, never one of the other half."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mechtests.arithmetic import chosen
from mechtests.errors import NotApplicable
from mechtests.measurement import Measurement
from tests.numerals import able, answered, problems

ABLE = (0.9, 0.6, 0.9, 0.7)


@cache
def answers(seed: int = 0) -> Measurement:
    return able(problems(seed=seed), ABLE, seed)


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


CHOICES = {"operator": st.integers(0, 3), "seed": st.integers(0, 3)}
SIZES = {"select": st.integers(1, 120), "evaluate": st.integers(1, 180)}


@given(**CHOICES, **SIZES)
@settings(max_examples=60, deadline=None)
def test_chosen_problems_are_right_of_one_operator_and_of_their_half(
    operator: int, seed: int, select: int, evaluate: int
) -> None:
    found = answers(seed)
    made = chosen.choose(found, operator, draw(seed), selection=select, evaluation=evaluate)
    for half, (pairs, count) in enumerate(((made.selection, select), (made.evaluation, evaluate))):
        rows = np.concatenate([pairs.prompts, pairs.counterfactuals])
        assert len(pairs) == count == len(set(pairs.prompts.tolist()))
        assert (found["correct"][rows] == 1).all()
        assert (found["result"][rows] != 0).all()
        assert (found["operator"][rows] == operator).all()
        assert (found.half[rows] == half).all()
        results = found["result"]
        assert (results[pairs.prompts] != results[pairs.counterfactuals]).all()


@given(**CHOICES, **SIZES)
@settings(max_examples=30, deadline=None)
def test_fewer_problems_are_the_first_of_more_and_a_seed_gives_the_same(
    operator: int, seed: int, select: int, evaluate: int
) -> None:
    sizes = {"selection": select, "evaluation": evaluate}
    few = chosen.choose(answers(), operator, draw(seed), **sizes)
    many = chosen.choose(answers(), operator, draw(seed), selection=120, evaluation=180)
    for one, other in ((few.selection, many.selection), (few.evaluation, many.evaluation)):
        assert one.prompts.tolist() == other.prompts[: len(one)].tolist()
        assert one.counterfactuals.tolist() == other.counterfactuals[: len(one)].tolist()


def test_another_generator_draws_other_counterfactuals_for_the_same_problems() -> None:
    one, two = (chosen.choose(answers(), 0, draw(seed)) for seed in (0, 1))
    assert one.evaluation.prompts.tolist() == two.evaluation.prompts.tolist()
    assert one.evaluation.counterfactuals.tolist() != two.evaluation.counterfactuals.tolist()


def test_the_standard_sizes_are_those_of_the_catalogue() -> None:
    made = chosen.choose(answers(), 0, draw())
    assert (len(made.selection), len(made.evaluation)) == (100, 150)


def test_every_problem_with_another_result_is_as_likely_a_counterfactual() -> None:
    found = answers()
    results = found["result"]
    pool = chosen.right(found, 2, "selection")[:60]  # few results, some of them often
    one = pool[:1]
    others = [row for row in pool.tolist() if results[row] != results[one[0]]]
    assert len(others) < len(pool)
    times = 40 * len(others)
    drawn = chosen.counterfactuals(found, np.repeat(one, times), pool, draw(5))
    counts = Counter(drawn.tolist())
    assert set(counts) == set(others)
    assert stats.chisquare([counts[row] for row in others]).pvalue > 0.001


@given(results=st.lists(st.integers(1, 4), min_size=2, max_size=12), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_a_counterfactual_never_has_the_same_result_however_few_there_are(
    results: list[int], seed: int
) -> None:
    prompts = problems()
    found = answered(prompts, prompts.right[:, 0])  # type: ignore[index]
    differences = [
        np.flatnonzero((found["result"] == r) & (found["operator"] == 1)) for r in results
    ]
    pool = np.array([rows[i % len(rows)] for i, rows in enumerate(differences)])
    if len(set(results)) == 1:
        with pytest.raises(NotApplicable, match=rf"none has another result than {results[0]};"):
            chosen.counterfactuals(found, pool, pool, draw(seed))
        return
    drawn = chosen.counterfactuals(found, pool, pool, draw(seed))
    assert (found["result"][drawn] != found["result"][pool]).all()
    assert set(drawn.tolist()) <= set(pool.tolist())


@given(**CHOICES)
@settings(max_examples=20, deadline=None)
def test_a_counterfactual_of_another_operator_has_another_result_and_the_half(
    operator: int, seed: int
) -> None:
    found = answers(seed)
    pairs = chosen.choose(found, operator, draw(seed)).evaluation
    across = chosen.of_another_operator(found, pairs, draw(seed))
    assert across.prompts.tolist() == pairs.prompts.tolist()
    other = across.counterfactuals
    assert (found["operator"][other] != operator).all()
    assert (found["correct"][other] == 1).all()
    assert (found["result"][other] != 0).all()
    assert (found["result"][other] != found["result"][pairs.prompts]).all()
    assert (found.half[other] == 1).all()
    assert set(found["operator"][other].tolist()) == {0, 1, 2, 3} - {operator}


def test_too_few_right_problems_are_refused_with_how_many_there_are() -> None:
    found = able(problems(), (0.9, 0.05, 0.9, 0.9))
    there = len(chosen.right(found, 1, "selection"))
    assert 20 < there < 100
    with pytest.raises(
        NotApplicable,
        match=rf"^subtraction: {there} correct .* in the selection half, and 100 are needed",
    ):
        chosen.choose(found, 1, draw())
    assert len(chosen.choose(found, 1, draw(), selection=there, evaluation=30).selection) == there


def test_where_no_other_operator_is_done_there_is_no_counterfactual_of_one() -> None:
    found = able(problems(), (0.9, 0.0, 0.0, 0.0))
    pairs = chosen.choose(found, 0, draw()).selection
    with pytest.raises(NotApplicable, match=r"^0 problems to draw counterfactuals from"):
        chosen.of_another_operator(found, pairs, draw())


def test_a_failure_is_a_wrong_number_and_not_another_token() -> None:
    prompts = problems()
    assert prompts.right is not None
    answer = prompts.right[:, 0]
    turn = np.arange(len(prompts)) // 4 % 3
    other = np.roll(answer, 4)  # another problem's answer
    said = np.choose(turn, [answer, other, np.ones_like(answer)])  # right, a number, a sign
    found = answered(prompts, said)
    rows = chosen.failures(found, 0)
    expected = (turn == 1) & (other != answer) & (prompts.template == 0) & (prompts.half == 1)
    expected &= prompts.tokens["result"] != 0
    assert rows.tolist() == np.flatnonzero(expected).tolist()
    assert len(rows) > 150
    assert not set(rows.tolist()) & set(chosen.right(found, 0, "evaluation").tolist())


def test_a_model_that_never_fails_has_no_failure() -> None:
    prompts = problems()
    assert prompts.right is not None
    found = answered(prompts, prompts.right[:, 0])
    assert all(not len(chosen.failures(found, operator)) for operator in range(4))
