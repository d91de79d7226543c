"""A trend is that of this run, and a curve is steady where its whole band is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests.measurement import Sample
from mechtests.series import Curve
from mechtests.trends import _thirds, equivalent_throughout, rises, steady
from mechtests.verdict import Outcome
from tests.curves import (
    HOLDS,
    INCONCLUSIVE,
    REFUTED,
    allowed,
    curve,
    drift,
    exact,
    moments,
    octaves,
    outcomes,
)

RUNS = 500
KINDS = ["independent", "shared", "autocorrelated"]


def trend_of(truth):
    """Last third minus first third, of equally spaced checkpoints in threes."""
    third = len(truth) // 3
    return truth[-third:].mean() - truth[:third].mean()


def with_trend(truth, trend):
    return truth + (trend - trend_of(truth)) * np.linspace(0, 1, len(truth)) / trend_of(
        np.linspace(0, 1, len(truth))
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wander", [0.0, 0.5])
def test_at_its_margin_a_trend_is_decided_no_more_often_than_its_level(kind, wander):
    """The wandering that all prompts share is part of the run that the verdict is about."""
    generator = np.random.default_rng(1)

    def decide():
        truth = with_trend(drift(generator, 12, wander), 0.1)
        return rises(curve(generator, truth, 20, kind), 0.1, what="x")

    seen = outcomes(decide, RUNS)
    assert seen[HOLDS] <= allowed(0.025, RUNS)
    assert seen[REFUTED] <= allowed(0.025, RUNS)
    assert seen[HOLDS] + seen[REFUTED] > 0.02 * RUNS


@pytest.mark.parametrize("kind", KINDS)
def test_at_its_margin_a_steady_trend_holds_no_more_often_than_allowed(kind):
    generator = np.random.default_rng(2)

    def decide():
        truth = with_trend(drift(generator, 12, 0.3), -0.5)
        return steady(curve(generator, truth, 20, kind), 0.5, what="x")

    seen = outcomes(decide, RUNS)
    assert seen[HOLDS] <= allowed(0.05, RUNS)
    assert seen[REFUTED] <= allowed(0.025, RUNS)


@pytest.mark.parametrize(("trend", "outcome"), [(0.6, HOLDS), (-0.4, REFUTED)])
def test_a_planted_trend_is_seen(trend, outcome):
    generator = np.random.default_rng(3)
    truth = with_trend(np.zeros(12), trend)
    seen = outcomes(lambda: rises(curve(generator, truth, 60, "shared"), 0.1, what="x"), 200)
    assert seen[outcome] > 190
    seen = outcomes(lambda: steady(curve(generator, 0 * truth, 60, "shared"), 0.3, what="x"), 200)
    assert seen[HOLDS] > 190


def test_equally_spaced_checkpoints_weigh_the_same_and_others_are_evened_out():
    first, last = _thirds(np.arange(9.0))
    assert first == pytest.approx(np.r_[np.full(3, 1 / 3), np.zeros(6)])
    assert last == pytest.approx(first[::-1])
    crowded = np.r_[0, 1, 2, 3, 4, 5, np.linspace(6, 8, 201)]
    _, last = _thirds(crowded)
    assert last[:6].sum() == pytest.approx(0, abs=0.15)
    assert last.sum() == pytest.approx(1)
    slope = crowded @ (np.subtract(*_thirds(crowded)[::-1]))
    assert slope == pytest.approx(
        np.arange(9.0) @ np.subtract(*_thirds(np.arange(9.0))[::-1]), rel=0.1
    )


@given(
    st.lists(st.floats(0.05, 3.0), min_size=6, max_size=30), st.floats(0.5, 50), st.floats(-9, 9)
)
def test_the_thirds_are_means_and_scale_with_their_places(gaps, scale, origin):
    places = np.cumsum(gaps)
    first, last = _thirds(places)
    assert first.sum() == pytest.approx(1)
    assert last.sum() == pytest.approx(1)
    assert (first >= 0).all()
    assert first @ places < last @ places
    for part, moved in zip((first, last), _thirds(origin + scale * places), strict=True):
        assert part == pytest.approx(moved, abs=1e-6)
    mirrored = _thirds(-places[::-1])
    assert mirrored[0][::-1] == pytest.approx(last, abs=1e-9)


def test_the_sentence_of_a_trend_says_what_it_rests_on():
    prompts = np.linspace(-1, 1, 10)
    data = exact(np.linspace(0, 1, 9)[:, None] * (1 + 0.1 * prompts), octaves(9))
    verdict = rises(data, 0.1, what="share of final heads")
    assert verdict.sentence.startswith(
        "trend of share of final heads over log tokens (last third, 3 checkpoints, minus first "
        "third, 3): 0.75 ["
    )
    assert verdict.estimate == pytest.approx(0.75)


def test_a_trend_over_log_tokens_leaves_step_0_out_and_one_over_tokens_does_not():
    tokens = np.r_[0, octaves(6)]
    data = exact(np.r_[99.0, np.arange(6)][:, None] + 1e-3 * np.linspace(-1, 1, 10), tokens)
    assert rises(data, 0.1, what="x").estimate == pytest.approx(4)
    assert rises(data, 0.1, what="x", axis="linear").estimate < 0


def test_few_or_crowded_checkpoints_have_no_trend():
    data = exact(np.random.default_rng(0).normal(size=(6, 20)), [0, *octaves(5)])
    verdict = rises(data, 0.1, what="x")
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert verdict.sentence == "x: a trend over log tokens needs 6 checkpoints, got 5"
    crowded = exact(np.random.default_rng(0).normal(size=(8, 20)), [1, *(1000 + np.arange(7))])
    verdict = steady(crowded, 0.1, what="x")
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert "got 1 and 1; choose others" in verdict.sentence


def test_recorded_means_have_a_trend_where_they_have_errors():
    truth = np.linspace(0, 1, 9)
    known = Curve.recorded(moments(octaves(9)), truth, [0.05] * 9)
    verdict = rises(known, 0.1, what="x")
    assert verdict.outcome is HOLDS
    half = 1.96 * 0.05 * np.sqrt(2 / 3)
    assert verdict.interval == pytest.approx((0.75 - half, 0.75 + half), abs=1e-3)
    unknown = Curve.recorded(moments(octaves(9)), truth)
    assert rises(unknown, 0.1, what="x").outcome is INCONCLUSIVE
    exactly = Curve.recorded(moments(octaves(9)), truth, [0.0] * 9)
    assert rises(exactly, 0.75 - 1e-9, what="x").outcome is HOLDS


def throughout(generator, data, margin=0.5, of="median", **options):
    return equivalent_throughout(
        data, margin, of=of, what="x", generator=generator, resamples=299, **options
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("of", ["median", "mean"])
def test_with_one_checkpoint_at_the_margin_equivalence_holds_no_more_than_allowed(kind, of):
    generator = np.random.default_rng(4)
    truth = np.zeros(9)
    truth[4] = 0.5 if of == "median" else 0.5 * 9 / 8
    seen = outcomes(lambda: throughout(generator, curve(generator, truth, 20, kind), of=of), 300)
    assert seen[HOLDS] <= allowed(0.05, 300)
    assert seen[REFUTED] <= allowed(0.025, 300)


@pytest.mark.parametrize("kind", KINDS)
def test_a_level_plateau_is_seen_and_one_that_wanders_out_of_the_margin_is_refuted(kind):
    generator = np.random.default_rng(5)
    level, away = np.full(9, 2.0), np.full(9, 2.0)
    away[6] = 0.5
    for truth, outcome in ((level, HOLDS), (away, REFUTED)):
        seen = outcomes(
            lambda t=truth: throughout(
                generator, curve(generator, t, 200, kind), margin=0.3, share=True
            ),
            100,
        )
        assert seen[outcome] > 90


def test_a_drifting_plateau_is_judged_by_where_it_went():
    generator = np.random.default_rng(6)
    for size in (0.1, 1.0):
        for _ in range(40):
            truth = 4 + drift(generator, 12, size)
            furthest = np.abs(truth / np.median(truth) - 1).max()
            outcome = throughout(
                generator, curve(generator, truth, 400, "shared", 0.3), 0.3, share=True
            ).outcome
            if abs(furthest - 0.3) > 0.03:
                assert outcome is (HOLDS if furthest < 0.3 else REFUTED)


def test_few_noisy_prompts_are_no_equivalence():
    generator = np.random.default_rng(7)
    seen = outcomes(lambda: throughout(generator, curve(generator, np.zeros(12), 10)), 200)
    assert seen[INCONCLUSIVE] > 180


def test_the_median_checkpoint_is_looked_for_on_the_selection_half():
    prompts = 1e-3 * np.random.default_rng(0).normal(size=(3, 10))
    values = np.array([[1.0], [2.0], [3.0]]) + prompts
    one, other = exact(values), exact(values[[1, 0, 2]])
    generator = np.random.default_rng(0)
    verdict = throughout(generator, one, 1.5, located_on=other)
    assert verdict.estimate == pytest.approx(2.0, abs=0.01)
    assert "furthest from their median, 1, at step2000 by 1.9999 [" in verdict.sentence


def test_a_share_of_nothing_and_few_clusters_are_not_judged():
    generator = np.random.default_rng(8)
    noise = curve(generator, np.zeros(6), 20)
    verdict = throughout(generator, noise, 0.3, share=True)
    assert verdict.outcome is INCONCLUSIVE
    assert "denominator" in verdict.sentence
    few = throughout(generator, curve(generator, np.zeros(6), 6), 99)
    assert few.outcome is INCONCLUSIVE
    assert few.sentence.endswith("fewer than 8 clusters decide nothing")


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.randoms(use_true_random=False), st.floats(0.1, 10))
def test_prompt_order_and_scale_do_not_matter(seed, random, scale):
    generator = np.random.default_rng(seed)
    data = curve(generator, np.linspace(0, 0.5, 8), 12, "shared")
    order = list(range(24))
    random.shuffle(order)
    moved = Curve(
        data.moments, tuple(Sample(scale * p.values[order], p.cluster[order]) for p in data.points)
    )
    one, two = rises(data, 0.2, what="x"), rises(moved, 0.2 * scale, what="x")
    assert one.outcome is two.outcome or abs(one.p - 0.025) < 1e-6
    assert one.estimate * scale == pytest.approx(two.estimate, abs=1e-9)
    pair = [
        equivalent_throughout(c, m, of="mean", what="x", generator=np.random.default_rng(0))
        for c, m in ((data, 0.4), (moved, 0.4 * scale))
    ]
    assert pair[0].p == pytest.approx(pair[1].p, abs=2e-3)
