"""Heuristics are the paper's, hold where they say, and each is there once."""

from __future__ import annotations

import re
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechtests.arithmetic.heuristics import (
    ENCODED,
    VARIABLES,
    Heuristic,
    associated,
    conditions,
    decoded,
    encoded,
)
from mechtests.arithmetic.libraries import Library, library, pairs_inside
from mechtests.errors import UsageError

PLUS, MINUS, TIMES, DIVIDE = range(4)


def world(operator: int, operands: int, largest: int = 999) -> tuple[np.ndarray, ...]:
    """All legal pairs with operands below a number, and their results."""
    pairs = np.array(list(product(range(operands), repeat=2)))
    a, b = pairs[pairs[:, 1] > 0].T if operator == DIVIDE else pairs.T
    result = [a + b, a - b, a * b, a // np.maximum(b, 1)][operator]
    legal = (result >= 0) & (result <= largest)
    return a[legal], b[legal], result[legal]


def of(operator: int, operands: int, **options) -> Library:
    return library(operator, *world(operator, operands), **options)


def named(found: Library) -> dict[str, int]:
    return {heuristic.name: i for i, heuristic in enumerate(found.heuristics)}


def test_addition_has_as_many_conditions_as_the_papers_appendix() -> None:
    counts = [
        len(list(conditions(PLUS, variable, largest)))
        for variable, largest in (("op1", 299), ("op2", 299), ("result", 598))
    ]
    assert counts == [622, 622, 1039]


def test_ranges_are_those_of_the_papers_appendix() -> None:
    ranges = [h.numbers for h in conditions(PLUS, "op1", 299) if h.kind == "range"]
    assert Counter(high - low for low, high in ranges) == {10: 30, 30: 30, 50: 19, 100: 10}
    assert [low for low, high in ranges if high - low == 50][:4] == [0, 16, 32, 48]
    divisions = [h.numbers for h in conditions(DIVIDE, "op2", 299) if h.kind == "range"]
    assert {high - low for low, high in divisions} == {2, 10, 100}


def test_the_papers_example_has_its_heuristics() -> None:
    """226 - 68 = 158 in the paper's Figure 1."""
    for heuristic, name in (
        (Heuristic("op1", "modulo", (0, 2)), "op1 = 0 mod 2"),
        (Heuristic("result", "range", (150, 180)), "result in [150, 180)"),
        (Heuristic("result", "modulo", (8, 10)), "result = 8 mod 10"),
        (Heuristic("result", "pattern", digits=".5."), "result like .5."),
        (Heuristic("op2", "pattern", digits="06."), "op2 like 06."),
        (Heuristic("result", "set", (7, 158)), "result in {7, 158}"),
        (Heuristic("op2", "value", (68,)), "op2 = 68"),
        (Heuristic("both", "modulo", (0, 2)), "op1 and op2 = 0 mod 2"),
        (Heuristic("both", "range", (50, 250)), "op1 and op2 in [50, 250)"),
    ):
        example = [np.array([n]) for n in (226, 68, 158)]
        assert heuristic.name == name
        assert heuristic.holds(*example).all()
        assert heuristic.direct == name.startswith("result")
        other = [np.array([n]) for n in (31, 300, 268)]
        assert not heuristic.holds(*other).any() or name == "result = 8 mod 10"


@given(st.integers(0, 999), st.integers(0, 999), st.integers(0, 999))
def test_patterns_are_those_of_the_number_padded_to_three_digits(a: int, b: int, r: int) -> None:
    for variable, value in (("op1", a), ("op2", b), ("result", r)):
        for heuristic in conditions(PLUS, variable, 999):
            if heuristic.kind == "pattern":
                expected = re.fullmatch(heuristic.digits, f"{value:03}") is not None
                assert heuristic.holds(np.array([a]), np.array([b]), np.array([r])) == [expected]


def test_a_range_excludes_its_end_and_identical_operands_are_equal() -> None:
    end = np.array([149, 150, 179, 180])
    inside = Heuristic("op2", "range", (150, 180)).holds(end * 0, end, end)
    assert inside.tolist() == [False, True, True, False]
    identical = Heuristic("both", "identical")
    assert identical.name == "op1 = op2"
    assert not identical.direct
    assert identical.holds(np.array([3, 4]), np.array([3, 3]), np.array([6, 7])).tolist() == [1, 0]


@pytest.mark.parametrize("operator", range(4))
@pytest.mark.parametrize("operands", [12, 100])
def test_masks_and_sizes_are_where_the_heuristics_hold(operator: int, operands: int) -> None:
    found = of(operator, operands)
    seen = []
    for masks in found.masks.values():
        ends = [*masks.starts[1:], len(masks.members)]
        codes = np.arange(len(found.first)) if masks.codes is None else masks.codes
        for at, start, end in zip(masks.heuristics, masks.starts, ends, strict=True):
            expected = found.mask(at)
            assert (np.isin(codes, masks.members[start:end]) == expected).all()
            assert found.sizes[at] == expected.sum()
            seen.append(at)
    assert sorted(seen) == list(range(len(found)))
    order = [VARIABLES.index(heuristic.variable) for heuristic in found.heuristics]
    assert order == sorted(order)
    assert found.direct.tolist() == [v == VARIABLES.index("result") for v in order]


@pytest.mark.parametrize("operator", range(4))
def test_heuristics_of_a_variable_that_hold_for_the_same_pairs_are_one(operator: int) -> None:
    """And nothing is lost: whatever holds for enough pairs is there under its name."""
    found = of(operator, 100)
    masks = {(h.variable, found.mask(i).tobytes()): h for i, h in enumerate(found.heuristics)}
    assert len(masks) == len(found)
    largest = {"op1": 99, "op2": 99, "both": 99, "result": int(found.result.max())}
    pairs = found.first, found.second, found.result
    for variable in VARIABLES:
        for heuristic in conditions(operator, variable, largest[variable]):
            held = heuristic.holds(*pairs)
            kept = masks.get((variable, held.tobytes()))
            if 10 <= held.sum() <= 0.55 * len(held):
                assert kept is not None
                assert heuristic.name in (kept.name, *kept.also)
            else:
                assert kept is None


def test_a_small_world_names_what_coincides_in_it() -> None:
    """With operands below 100, .1. is a range of ten and .57 a value."""
    found = of(PLUS, 100)
    at = named(found)
    assert "op1 like .1." in found.heuristics[at["op1 in [10, 20)"]].also
    assert "op1 like 01." not in at
    value = at["op1 = 57"]
    assert "op1 like .57" in found.heuristics[value].also
    assert "op1 in [99, 199)" in found.heuristics[at["op1 = 99"]].also
    assert found.excluded[value]
    assert not found.excluded[at["result like .57"]]
    assert found.sizes[at["result like .57"]] == 58 + 42


def test_what_holds_for_more_than_half_of_the_pairs_is_left_out() -> None:
    """Noise would match it; so do the paper's authors with the first ranges of division."""
    divisions = named(of(DIVIDE, 300))
    assert not {"result in [0, 2)", "result in [0, 10)", "result in [0, 100)"} & set(divisions)
    assert "result in [10, 12)" in divisions
    differences = named(of(MINUS, 300))
    assert {"result = 0 mod 2", "result = 1 mod 2", "op1 = 0 mod 2"} <= set(differences)
    assert "result = 0 mod 2" not in named(of(TIMES, 300))  # three quarters of all products
    every = of(PLUS, 20, fewest=0, largest_share=1.0)
    assert (every.sizes < 400).all()
    assert (every.sizes > 0).all()


def test_single_values_and_what_is_as_good_as_one_are_excluded() -> None:
    found = of(PLUS, 300)
    excluded = {h.type for h, out in zip(found.heuristics, found.excluded, strict=True) if out}
    assert excluded == {"op1 value", "op2 value", "result value"}
    assert found.excluded.sum() == 300 + 300 + 581  # results below 9 and from 590 on: too few
    divisions = of(DIVIDE, 300, sets=[(1, 2), (5, 6)])
    at = named(divisions)
    assert divisions.excluded[at["result in {1, 2}"]]  # three quarters of its pairs give 1
    assert divisions.excluded[at["result = 0 mod 7"]]  # nearly all of its pairs give 0
    assert not divisions.excluded[at["result in {5, 6}"]]
    assert not divisions.excluded[at["result in [10, 20)"]]


def test_sets_of_results_are_heuristics_under_one_name() -> None:
    found = of(DIVIDE, 100, sets=[(4, 3), (3, 4), (5, 9, 7), (10, 11)])
    at = named(found)
    assert found.mask(at["result in {3, 4}"]).sum() == np.isin(found.result, (3, 4)).sum()
    assert "result in {5, 7, 9}" in at
    assert "result in {10, 11}" in found.heuristics[at["result in [10, 12)"]].also
    assert len(found) == len(of(DIVIDE, 100)) + 2


def test_division_is_that_of_integers() -> None:
    found = of(DIVIDE, 100)
    assert found.mask(named(found)["result = 1 mod 3"])[
        (found.first == 99) & (found.second == 25)
    ] == [False]
    assert found.mask(named(found)["result = 1 mod 3"])[
        (found.first == 99) & (found.second == 24)
    ] == [True]


def test_associated_heuristics_are_those_that_hold() -> None:
    found = of(MINUS, 100)
    rows = [17, 4000]
    pairs = found.first[rows], found.second[rows], found.result[rows]
    held = associated(found.heuristics, *pairs)
    assert held.shape == (2, len(found))
    assert (held == np.stack([found.mask(i)[rows] for i in range(len(found))], 1)).all()
    assert associated([], *pairs).shape == (2, 0)


def test_pairs_inside_count_the_pairs_of_each_result() -> None:
    found = of(PLUS, 30)
    at = [0, len(found) - 1]
    for one, counts in zip(at, pairs_inside(found, at), strict=True):
        expected = [int(found.mask(one)[found.result == r].sum()) for r in found.results]
        assert counts.tolist() == expected
    assert pairs_inside(found, []).shape == (0, 59)


def test_negative_numbers_and_pairs_given_twice_are_refused() -> None:
    one = np.array([1, 2])
    with pytest.raises(UsageError, match="negative"):
        library(MINUS, one, one + 1, -one)
    with pytest.raises(UsageError, match="got none"):
        library(PLUS, one[:0], one[:0], one[:0])
    with pytest.raises(UsageError, match="twice"):
        library(PLUS, one * 0, one * 0, one * 0)


@pytest.mark.parametrize("operator", range(4))
def test_every_heuristic_is_the_same_after_it_was_stored_as_numbers(operator: int) -> None:
    every = [each for variable in VARIABLES for each in conditions(operator, variable, 999)]
    every += [Heuristic("both", "identical"), Heuristic("result", "set", (0, 3, 12, 400))]
    rows = np.array([encoded(each) for each in every])
    assert rows.shape[1] == ENCODED
    assert len(np.unique(rows, axis=0)) == len(every)
    assert [decoded(row) for row in rows] == every
