"""Heads that lose a function and heads that take it over: planted ones are found, noise is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechtests.series import Curve
from mechtests.turnover import HeadCurve, ends_below_half, halves_agree, turnover
from tests.curves import HOLDS, INCONCLUSIVE, REFUTED, allowed, curve, exact, moments, octaves
from tests.curves import drift as wandering

COUNT = 20
STABLE = np.full(COUNT, 0.8)
FALLS = np.r_[np.full(10, 0.8), np.linspace(0.8, 0.05, 6), np.full(4, 0.05)]
RISES = np.r_[np.full(10, 0.02), np.linspace(0.02, 0.7, 6), np.full(4, 0.7)]
ABSENT = np.full(COUNT, 0.02)
RUNS = 200


def heads(generator, truths, kind="shared", spread=0.15, clusters=25):
    """A curve a head on both halves, heads of one layer in turn."""
    return [
        HeadCurve((0, number), *(curve(generator, truth, clusters, kind, spread) for _ in "SE"))
        for number, truth in enumerate(truths)
    ]


def turned(curves, threshold):
    return turnover(curves, threshold, what="movers", generator=np.random.default_rng(0))


def judged(*truths, seed=0, **how):
    return turned(heads(np.random.default_rng(seed), truths, **how), 0.1)


def test_a_head_that_falls_while_another_rises_is_a_turnover_from_one_to_the_other():
    found = judged(STABLE, FALLS, RISES, ABSENT)
    assert found.verdict.outcome is HOLDS, found.verdict
    assert {(pair.loser.name, pair.winner.name) for pair in found.takeovers} == {("0.1", "0.2")}
    assert [loser.name for loser in found.losers] == ["0.1"]
    assert "0.1 falls from" in found.verdict.sentence
    assert "0.2 rises to" in found.verdict.sentence


def test_a_head_that_never_carries_the_function_is_not_counted():
    found = judged(STABLE, FALLS, RISES, ABSENT)
    assert [carrier.name for carrier in found.carriers] == ["0.0", "0.1", "0.2"]


def test_heads_that_all_stay_refute_a_turnover():
    found = judged(STABLE, STABLE * 0.7, np.linspace(0.2, 0.9, COUNT))
    assert found.verdict.outcome is REFUTED, found.verdict


def test_a_loss_without_anything_that_rises_is_not_a_turnover():
    found = judged(STABLE, FALLS)
    assert found.verdict.outcome is INCONCLUSIVE
    assert "of no other head" in found.verdict.sentence


def test_a_rise_before_the_peak_of_the_head_that_falls_does_not_count():
    early = np.r_[np.full(3, 0.02), np.full(17, 0.7)]
    late = np.r_[np.full(8, 0.3), np.full(4, 0.9), np.linspace(0.9, 0.05, 4), np.full(4, 0.05)]
    assert judged(early, late).verdict.outcome is INCONCLUSIVE


def test_without_a_head_above_the_threshold_nothing_is_claimed():
    assert judged(ABSENT, ABSENT).verdict.outcome not in (HOLDS, REFUTED)


def test_a_takeover_is_found_by_the_selection_half_alone_and_decided_by_the_other():
    generator = np.random.default_rng(0)
    on_one_half_only = [
        HeadCurve((0, n), curve(generator, truth, spread=0.1), curve(generator, STABLE, spread=0.1))
        for n, truth in enumerate((FALLS, RISES))
    ]
    assert turned(on_one_half_only, 0.1).verdict.outcome is REFUTED


@pytest.mark.parametrize("kind", ["independent", "shared", "autocorrelated"])
@pytest.mark.parametrize(
    "truths",
    [[STABLE] * 4, [STABLE, FALLS], [STABLE, RISES], [0.12 + ABSENT * 0] * 5],
    ids=["no loss", "no rise", "no fall", "noise at the threshold"],
)
def test_where_no_turnover_is_true_it_holds_no_more_often_than_its_level(kind, truths):
    generator = np.random.default_rng(1)
    held = sum(
        turned(heads(generator, truths, kind, 0.4), 0.1).verdict.outcome is HOLDS
        for _ in range(RUNS)
    )
    assert held <= allowed(0.05, RUNS)


def test_wandering_around_half_of_the_peak_refutes_no_more_often_than_its_level():
    generator = np.random.default_rng(2)
    at_half = np.r_[np.full(10, 0.8), np.full(10, 0.4)]
    refuted = sum(
        turned(heads(generator, [STABLE, at_half], spread=0.3), 0.1).verdict.outcome is REFUTED
        for _ in range(RUNS)
    )
    assert refuted <= allowed(0.05, RUNS)


def recorded(truth, error=0.03, tokens=None):
    places = octaves(len(truth)) if tokens is None else tokens
    return Curve.recorded(moments(places), list(truth), [error] * len(truth))


def test_recorded_means_decide_without_halves_and_pay_for_the_search():
    curves = [HeadCurve((0, n), each, each) for n, each in enumerate(map(recorded, (FALLS, RISES)))]
    assert turned(curves, 0.1).verdict.outcome is HOLDS
    noisy = [
        HeadCurve((0, n), each, each)
        for n, each in enumerate(recorded(truth, 0.15) for truth in (FALLS, RISES))
    ]
    assert turned(noisy, 0.1).verdict.outcome is INCONCLUSIVE


def test_recorded_means_of_noise_hold_no_more_often_than_the_level():
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(RUNS):
        noisy = [recorded(0.5 + 0.2 * generator.normal(size=COUNT), 0.2) for _ in range(4)]
        curves = [HeadCurve((0, n), each, each) for n, each in enumerate(noisy)]
        held += turned(curves, 0.1).verdict.outcome is HOLDS
    assert held <= allowed(0.05, RUNS)


def test_heads_recorded_at_other_checkpoints_than_each_other_are_compared_by_tokens():
    places = octaves(COUNT)
    curves = [
        HeadCurve((0, 0), *[recorded(FALLS[::2], tokens=places[::2])] * 2),
        HeadCurve((0, 1), *[recorded(RISES[1::2], tokens=places[1::2])] * 2),
    ]
    assert turned(curves, 0.1).verdict.outcome is HOLDS


def test_the_loss_is_the_first_checkpoint_from_which_a_head_stays_below_half():
    values = np.r_[np.full(5, 0.8), 0.3, np.full(4, 0.8), np.full(10, 0.1)]
    both = exact(values[:, None] + 0.01 * np.linspace(-1, 1, 10))
    found = HeadCurve((0, 0), both, both)
    assert found.lost_at == 10
    assert HeadCurve((0, 0), both.take(range(9)), both.take(range(9))).lost_at is None


def test_how_far_the_halves_differ_is_held_against_the_loss():
    [lost] = heads(np.random.default_rng(0), [FALLS])
    apart, loss = halves_agree(lost)
    assert apart < 0.1
    assert loss > 0.6


@given(st.floats(0.1, 10.0), st.integers(0, 2**31))
def test_the_scale_of_a_score_does_not_change_whether_half_of_it_is_lost(factor, seed):
    generator = np.random.default_rng(seed)
    truth = 0.5 + wandering(generator, COUNT, 0.2)
    [head] = heads(np.random.default_rng(seed), [truth])
    scaled = HeadCurve(head.head, head.chosen * factor, head.judged * factor)
    assert ends_below_half(head).outcome is ends_below_half(scaled).outcome
