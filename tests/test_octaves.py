"""Onsets are as far apart as their brackets allow, and an open bracket never makes a claim hold."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mechtests.errors import UsageError
from mechtests.octaves import (
    inside_window,
    later,
    lead,
    leads_at_most,
    octaves_between,
    tells_apart,
    too_coarse,
    within_octaves,
)
from mechtests.onsets import onset
from mechtests.series import Moment
from mechtests.verdict import Outcome
from tests.curves import (
    HOLDS,
    INCONCLUSIVE,
    REFUTED,
    allowed,
    bracket,
    curve,
    exact,
    moments,
    octaves,
    outcomes,
)

INF = math.inf
PYTHIA = [0, *(2**k for k in range(10)), *range(1000, 144_000, 1000)]
SCHEDULE = [step * 2_097_152 for step in PYTHIA]
RUNS = 300

places = st.floats(1.0, 1e6)


@st.composite
def brackets(draw):
    """A bracket, perhaps open, and a place in it."""
    low, high = sorted([draw(places), draw(places)])
    assume(high > low * 1.001)
    open_at = draw(st.sampled_from(["", "", "low", "high"]))
    inside = low + draw(st.floats(0.01, 1.0)) * (high - low)
    return bracket(0 if open_at == "low" else low, INF if open_at == "high" else high), inside


@given(brackets(), brackets())
def test_what_is_in_the_brackets_is_as_far_apart_as_they_say(one, other):
    distance = math.log2(other[1] / one[1])
    least, most = lead(one[0], other[0])
    assert least - 1e-9 <= distance <= most + 1e-9
    least, most = octaves_between(one[0], other[0])
    assert 0 <= least <= abs(distance) + 1e-9
    assert abs(distance) <= most + 1e-9


@given(brackets(), brackets(), st.floats(0.001, 1000))
def test_distances_have_no_direction_leads_have_and_the_unit_of_tokens_does_not_matter(a, b, unit):
    one, other = a[0], b[0]
    assert octaves_between(one, other) == pytest.approx(octaves_between(other, one))
    assert lead(one, other) == pytest.approx(tuple(-x for x in lead(other, one)[::-1]))
    moved = [bracket(each.low * unit, each.high * unit, axis="steps") for each in (one, other)]
    assert lead(*moved) == pytest.approx(lead(one, other), abs=1e-6)


@pytest.mark.parametrize(
    ("one", "other", "outcome"),
    [
        ((4, 8), (8, 16), HOLDS),  # 0 to 2
        ((4, 8), (16, 32), INCONCLUSIVE),  # 1 to 3
        ((4, 8), (32, 64), INCONCLUSIVE),  # 2 to 4: d_min must be more than 2
        ((4, 8), (33, 64), REFUTED),
        ((4, 8), (4, 8), HOLDS),
        ((0, 8), (4, 8), INCONCLUSIVE),  # open at 0
        ((0, 8), (64, 128), REFUTED),  # open, and yet too far
        ((4, 8), (4, INF), INCONCLUSIVE),  # never
        ((4, 8), (64, INF), REFUTED),
        ((4, INF), (4, INF), INCONCLUSIVE),
    ],
)
def test_within_two_octaves_is_decided_by_the_brackets(one, other, outcome):
    for pair in ((one, other), (other, one)):
        verdict = within_octaves(*(bracket(*each) for each in pair), 2, what="x")
        assert verdict.outcome is outcome
        assert (verdict.p <= 0.025) == (outcome is HOLDS)
        assert (verdict.p_refuted <= 0.025) == (outcome is REFUTED)


@pytest.mark.parametrize(
    ("one", "other", "outcome"),
    [
        ((8, 16), (4, 8), HOLDS),  # it does not lead at all
        ((4, 8), (4, 8), HOLDS),  # by at most 1
        ((4, 8), (8, 16), INCONCLUSIVE),
        ((4, 8), (17, 32), REFUTED),
        ((0, 8), (17, 32), REFUTED),
        ((8, INF), (4, 8), INCONCLUSIVE),  # never, which cannot make it hold
    ],
)
def test_a_lead_is_judged_with_its_sign(one, other, outcome):
    verdict = leads_at_most(bracket(*one), bracket(*other), 1, what="x")
    assert verdict.outcome is outcome


@pytest.mark.parametrize(
    ("one", "other", "outcome"),
    [
        ((8, 16), (4, 8), HOLDS),
        ((8, INF), (4, 8), HOLDS),  # never is later
        ((4, 8), (8, 16), REFUTED),
        ((4, 8), (8, INF), REFUTED),
        ((4, 8), (4, INF), INCONCLUSIVE),
        ((4, 8), (5, 9), INCONCLUSIVE),
    ],
)
def test_later_means_that_one_bracket_begins_where_the_other_ends(one, other, outcome):
    assert later(bracket(*one), bracket(*other), what="x").outcome is outcome


@pytest.mark.parametrize(
    ("steps", "outcome"),
    [
        ((512, 1000), HOLDS),
        ((1000, 2000), HOLDS),
        ((512, 2000), HOLDS),
        ((256, 512), REFUTED),
        ((2000, 3000), REFUTED),
        ((256, 1000), INCONCLUSIVE),
        ((1000, 3000), INCONCLUSIVE),
        ((0, 1000), INCONCLUSIVE),  # open at 0
        ((0, 512), REFUTED),
        ((1000, INF), INCONCLUSIVE),  # never, perhaps
        ((4000, INF), REFUTED),
    ],
)
def test_a_window_is_widened_to_the_nearest_scheduled_checkpoints(steps, outcome):
    found = bracket(*(step * 2_097_152 for step in steps))
    verdict = inside_window(found, 2e9, 4e9, SCHEDULE, what="induction")
    assert verdict.outcome is outcome
    assert "claimed within 2e9 to 4e9 tokens (1.07e9 to 4.19e9 as checkpointed)" in verdict.sentence
    assert (verdict.p <= 0.025) == (outcome is HOLDS)
    assert (verdict.p_refuted <= 0.025) == (outcome is REFUTED)


def test_the_windows_of_the_claims_are_those_of_the_catalogue():
    found = bracket(1e9, 2e9)
    for low, high, steps in ((2e9, 4e9, (512, 2000)), (2e9, 8e9, (512, 4000))):
        inside = bracket(*(step * 2_097_152 for step in steps))
        assert inside_window(inside, low, high, SCHEDULE, what="x").outcome is HOLDS
        assert inside_window(found, low, high, SCHEDULE, what="x").outcome is INCONCLUSIVE


def test_a_window_that_is_none_is_refused():
    for low, high, schedule in ((4e9, 2e9, SCHEDULE), (2e9, 4e9, [])):
        with pytest.raises(UsageError, match="its lower end below its upper and a schedule"):
            inside_window(bracket(1, 2), low, high, schedule, what="x")


def test_a_series_in_steps_has_no_window_of_tokens_and_no_distance_to_one_in_tokens():
    steps = bracket(1, 2, axis="steps")
    for verdict in (
        inside_window(steps, 2e9, 4e9, SCHEDULE, what="x"),
        within_octaves(steps, bracket(1, 2), 2, what="x"),
    ):
        assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert within_octaves(steps, steps, 2, what="x").outcome is HOLDS


def run_of(values, level=0.0):
    rows = np.asarray(values)[:, None] + 1e-3 * np.linspace(-1, 1, 10)
    return onset((exact(rows), level), what="y", generator=np.random.default_rng(0))


def test_an_unconfirmed_onset_neither_holds_nor_refutes():
    late = run_of([-1, -1, -1, -1, -1, -1, -1, -1, 1, 1])
    early = run_of([-1, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    verdict = within_octaves(early, late, 1, what="x")
    assert verdict.outcome is INCONCLUSIVE
    assert verdict.sentence.endswith("; for y, later checkpoints would decide")
    assert inside_window(late, 1, 2, [1, 2], what="x").outcome is INCONCLUSIVE


def test_the_sentence_of_two_onsets():
    verdict = within_octaves(bracket(4e6, 8e6, "a"), bracket(0, 16e6, "b"), 2, what="a and b")
    assert verdict.sentence == (
        "a and b: at least 0 octaves, claimed within 2 octaves; "
        "a emerges between 4e6 and 8e6 tokens (after step4000, by step8000); "
        "b emerges by 16e6 tokens (none is below before, by step16000); "
        "for b, checkpoints between the start and step16000 would decide"
    )
    assert verdict.interval is None
    assert within_octaves(bracket(4, 8), bracket(8, 16), 2, what="x").interval == (0, 2)


def two_runs(generator, apart, spacing, clusters, count):
    """Onsets in two runs, planted so many octaves apart."""
    grid = octaves(count, spacing)
    found = []
    for start in (1e6 * 2.0 ** (spacing * 6.5), 1e6 * 2.0 ** (spacing * 6.5 + apart)):
        truth = np.clip(2 * np.log2(grid / start), -1.5, 1.5)
        data = curve(generator, truth, clusters, "shared", tokens=grid)
        found.append(onset((data, 0.0), what="x", generator=generator, resamples=299))
    return found


@pytest.mark.parametrize(("apart", "never"), [(2.05, HOLDS), (1.95, REFUTED)])
def test_just_beyond_and_just_within_two_octaves_are_told_wrong_no_more_than_allowed(apart, never):
    generator = np.random.default_rng(1)
    seen = outcomes(
        lambda: within_octaves(*two_runs(generator, apart, 0.5, 20, 24), 2, what="x"), RUNS
    )
    assert seen[never] <= allowed(0.05, RUNS)


@pytest.mark.parametrize(("apart", "outcome"), [(0.0, HOLDS), (6.0, REFUTED)])
def test_a_grid_of_half_an_octave_decides_within_two_octaves(apart, outcome):
    generator = np.random.default_rng(2)
    seen = outcomes(
        lambda: within_octaves(*two_runs(generator, apart, 0.5, 40, 26), 2, what="x"), RUNS
    )
    assert seen[outcome] > 0.9 * RUNS


@given(st.floats(0.1, 3.0), st.sampled_from([1.0, 2.0]))
def test_a_grid_is_too_coarse_exactly_where_its_own_brackets_cannot_hold(spacing, claimed):
    grid = 1e6 * 2.0 ** (spacing * np.arange(12))
    assume(abs(spacing - claimed / 2) > 1e-3)
    pair = bracket(grid[4], grid[5]), bracket(grid[5], grid[6])
    decided = within_octaves(*pair, claimed, what="x").outcome is HOLDS
    assert (too_coarse(moments(grid), claimed) is None) == decided


def test_a_grid_that_is_too_coarse_is_named():
    grid = (Moment("step0", 0, 0), Moment("a", 1, 10), Moment("b", 2, 20), Moment("c", 9, 90))
    assert too_coarse(grid, 2) == (
        "within 2 octaves needs checkpoints at most 1 octaves apart, and these are up to 2.2 "
        "apart (b to c): an onset there stays inconclusive"
    )
    assert too_coarse(grid[:3], 2) is None
    assert "too few checkpoints" in too_coarse(grid[:2], 2)


def test_wrong_pairings_must_be_told_apart():
    near, far = bracket(4, 8, "near"), bracket(64, 128, "far")
    told = tells_apart({"near and far": (near, far), "near and near": (near, near)}, 2)
    assert not told.reached
    assert told.sentence == "wrong pairings, octaves apart: near and far at least 3"
    same = tells_apart({"near and near": (near, near)}, 2)
    assert same.reached
    assert same.sentence.endswith(": everything emerges together")
    assert tells_apart({}, 2).reached
