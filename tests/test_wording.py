"""mechtests.reporting.wording: numbers as exact as they are known."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechtests.reporting.wording import ascii_only, estimate, margin, number, probability
from mechtests.verdict import Outcome, Verdict


def verdict_of(centre, interval=None, **rest) -> Verdict:
    return Verdict(Outcome.HOLDS, "s", estimate=centre, interval=interval, **rest)


@pytest.mark.parametrize(
    ("centre", "interval", "text"),
    [
        (0.62345, (0.55123, 0.69456), "0.62 [0.55, 0.69]"),
        (0.62347, (0.62123, 0.62456), "0.6235 [0.6212, 0.6246]"),
        (12.3, (-8.1, 32.7), "12 [-8, 33]"),
        (2.1e9, (1.07e9, 4.2e9), "2.1e9 [1.07e9, 4.2e9]"),
        (0.5, (-math.inf, math.inf), "0.5 [-inf, inf]"),
        (1.0, (1.0, 1.0), "1 [1, 1]"),
        (0.12345, None, "0.123"),
    ],
)
def test_an_estimate_has_as_many_digits_as_its_interval_is_narrow(centre, interval, text):
    assert estimate(verdict_of(centre, interval)) == text


def test_an_estimate_has_its_unit_and_a_missing_one_is_nothing():
    assert estimate(verdict_of(0.5, unit="logits")) == "0.5 logits"
    assert estimate(verdict_of(None)) == ""
    assert margin(verdict_of(0.5)) == ""


@pytest.mark.parametrize(
    ("relation", "text"),
    [(">", "above 0.4"), ("<", "below 0.4"), ("within", "within 0.4"), ("=", "equal to 0.4")],
)
def test_the_claimed_side_is_a_word(relation, text):
    assert margin(verdict_of(0.5, margin=0.4, relation=relation)) == f"claimed {text}"


def test_a_p_is_never_shown_as_zero():
    assert probability(0.0) == probability(1e-9) == "< 0.0001"
    assert [probability(p) for p in (0.0312, 0.05, 1.0)] == ["0.031", "0.05", "1"]


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12))
def test_a_number_is_shown_within_half_a_percent_of_what_it_is(value):
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=5.1e-3)


@given(st.text())
def test_ascii_is_ascii_and_leaves_ascii_alone(text):
    assert ascii_only(text).isascii()
    if text.isascii():
        assert ascii_only(text) == text
