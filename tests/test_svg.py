"""mechtests.reporting.svg: coordinates, scales and ticks."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechtests.reporting import svg

NUMBERS = st.floats(-1e9, 1e9, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.0, "3"), (3.14, "3.1"), (-0.04, "0"), (-2.55, "-2.5"), (1000.06, "1000.1")],
)
def test_a_coordinate_is_as_short_as_a_tenth_of_a_pixel_needs(value, text):
    assert svg.at(value) == text


@given(st.lists(NUMBERS, min_size=1, max_size=8))
def test_a_scale_shows_every_value_inside_its_ends_and_in_order(values):
    scale = svg.Scale.around(values, 10.0, 110.0)
    at = [scale(value) for value in sorted(values)]
    assert all(10.0 <= each <= 110.0 for each in at)
    assert at == sorted(at)


@given(st.lists(NUMBERS, min_size=1, max_size=8))
def test_a_scale_that_runs_down_mirrors_one_that_runs_up(values):
    up, down = svg.Scale.around(values, 0.0, 100.0), svg.Scale.around(values, 100.0, 0.0)
    for value in values:
        assert up(value) + down(value) == pytest.approx(100.0, abs=1e-6)


def test_what_is_not_finite_or_unknown_moves_no_scale_and_is_drawn_at_its_end():
    scale = svg.Scale.around([0.0, None, math.inf, 1.0, math.nan], 0.0, 100.0, room=0)
    assert (scale.low, scale.high) == (0.0, 1.0)
    assert (scale(math.inf), scale(-math.inf)) == (100.0, 0.0)


def test_a_scale_of_one_value_or_of_none_is_still_a_scale():
    assert svg.Scale.around([3.0], 0.0, 100.0)(3.0) == pytest.approx(50.0)
    assert svg.Scale.around([], 0.0, 100.0)(0.5) == pytest.approx(50.0)


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e6), st.integers(1, 8))
def test_ticks_are_few_round_inside_and_evenly_apart(low, span, most):
    scale = svg.Scale(low, low + span, 0.0, 1.0)
    ticks = scale.ticks(most)
    slack = 1e-6 * span + 1e-9 * abs(low)
    assert len(ticks) <= most
    assert all(scale.low - slack <= tick <= scale.high + slack for tick in ticks)
    gaps = {round((b - a) / span, 3) for a, b in pairwise(ticks)}
    assert len(gaps) <= 1


def test_ticks_of_a_share_are_its_quarters():
    assert svg.Scale(0.0, 1.0, 0.0, 1.0).ticks(5) == [0.0, 0.25, 0.5, 0.75, 1.0]


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])))
def test_whatever_is_said_in_a_drawing_is_text_and_no_markup(text):
    drawn = svg.drawing(10, 10, svg.words(text, 1, 2, kind=text or "k"), label=text)
    tree = ET.fromstring(drawn)
    assert [child.text or "" for child in tree] == [text]
    assert len(list(tree.iter())) == 2
    if text:
        assert tree.get("aria-label") == text


def test_a_line_breaks_where_a_value_is_unknown():
    path = svg.polyline([(0, 0), (1, 1), None, (3, 3), (4, 4)], "c")
    assert 'd="M0 0L1 1M3 3L4 4"' in path
    assert svg.polyline([None], "c") == ""
