"""A fall is found on one half and decided on the other, and a low before an onset likewise."""

import csv
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechtests.falls import _largest_fall, drop_after_peak, lowest_before
from mechtests.onsets import onset
from mechtests.series import Curve
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
    noise,
    octaves,
    outcomes,
)

RUNS = 300
KINDS = ["independent", "shared", "autocorrelated"]
RECORDED = (
    Path(__file__).parents[2] / "shared/reference/recorded/ioi_logit_diff_by_step_5models.csv"
)
PYTHIA_70M = np.concatenate(
    [
        [0.04, 0.03, 0.01, -0.05, -0.47, -0.46, -1.1, -1.2, -0.7, -0.3],
        [0.2, 0.3, 0.4, 0.4, 0.83, 0.53, 0.59, 0.5, 0.3, 0.26, 0.6, 0.1, 0.3, 0.15, 0.05],
        [-0.15, -0.98, -0.88, -0.35, -0.8, -0.34, -0.59],
    ]
)  # the shape of the recorded logit difference: it peaks at 0.83 and ends at -0.59


@cache
def learned(count, at=0):
    """An onset at a checkpoint of a curve of so many."""
    values = np.where(np.arange(count) < at, -1.0, 1.0)[:, None] + 1e-3 * np.linspace(-1, 1, 10)
    return onset((exact(values), 0.0), what="ioi", generator=np.random.default_rng(0))


def halves(generator, truth, clusters, kind, spread=1.0):
    return [curve(generator, truth, clusters, kind, spread) for _ in range(2)]


def falls(generator, truth, clusters=60, kind="shared", spread=1.0):
    chosen, judged = halves(generator, truth, clusters, kind, spread)
    return drop_after_peak(chosen, judged, learned(len(truth)), what="x")


@pytest.mark.parametrize("kind", KINDS)
def test_a_fall_of_exactly_the_share_is_decided_no_more_often_than_its_level(kind):
    generator = np.random.default_rng(1)
    truth = np.r_[np.full(8, 4.0), np.full(8, 2.8)]
    seen = outcomes(lambda: falls(generator, truth, 40, kind), RUNS)
    assert seen[HOLDS] <= allowed(0.025, RUNS)
    assert seen[REFUTED] <= allowed(0.025, RUNS)
    assert seen[HOLDS] + seen[REFUTED] > 0.01 * RUNS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("end", "outcome"), [(4.0, HOLDS), (3.6, HOLDS), (0.5, REFUTED)])
def test_a_plateau_holds_and_a_planted_fall_is_refuted(kind, end, outcome):
    generator = np.random.default_rng(2)
    truth = np.r_[np.linspace(1, 4, 8), np.linspace(4, end, 10)]
    seen = outcomes(lambda: falls(generator, truth, 60, kind), 100)
    assert seen[outcome] > 90


def test_a_wandering_plateau_is_judged_by_how_far_this_run_fell():
    generator = np.random.default_rng(3)
    decided = 0
    for size in (0.1, 0.8):
        for _ in range(60):
            truth = 4 + drift(generator, 20, size)
            peak, trough, _ = _largest_fall(truth)
            fell = 1 - truth[trough] / truth[peak]
            outcome = falls(generator, truth, 600, "shared", 0.5).outcome
            if abs(fell - 0.3) > 0.05:
                assert outcome is (HOLDS if fell < 0.3 else REFUTED)
                decided += 1
    assert decided > 80


def test_the_naive_fall_of_a_flat_truth_is_large_and_decides_nothing():
    generator = np.random.default_rng(4)
    naive, share = [], []
    for _ in range(60):
        verdict = falls(generator, np.full(30, 4.0), 70, "independent", spread=3.0)
        naive.append(verdict.shown["largest fall of the curve itself, biased"])
        share.append(verdict.shown["share"])
    assert np.mean(naive) > 0.25
    assert abs(np.mean(share)) < 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_decline_of_the_shape_of_pythia_70m_is_refuted(kind):
    generator = np.random.default_rng(5)
    for _ in range(20):
        chosen, judged = halves(generator, PYTHIA_70M, 300, kind)
        when = onset((judged, 0.0), what="ioi", generator=generator)
        verdict = drop_after_peak(chosen, judged, when, what="ioi logit difference")
        assert verdict.outcome is REFUTED
        assert verdict.shown["share"] > 1


@pytest.mark.skipif(not RECORDED.exists(), reason="the recorded values are not here")
@pytest.mark.parametrize(
    ("model", "outcome"),
    [("pythia-70m", REFUTED), ("pythia-160m", HOLDS), ("pythia-410m", HOLDS)],
)
def test_of_the_recorded_models_pythia_70m_falls(model, outcome):
    with RECORDED.open() as file:
        rows = {int(row["tokens"]): float(row[model]) for row in csv.DictReader(file)}
    data = Curve.recorded(moments(rows), list(rows.values()), [0.1] * len(rows), unit="logits")
    when = onset((data, 0.0), what="ioi", generator=np.random.default_rng(0))
    assert drop_after_peak(data, data, when, what=model).outcome is outcome


def test_recorded_means_have_no_halves_so_that_a_fall_is_corrected_for_the_search():
    generator = np.random.default_rng(6)
    errors = [0.5] * 16

    def decide(truth):
        data = Curve.recorded(moments(octaves(16)), generator.normal(truth, 0.5), errors)
        return drop_after_peak(data, data, learned(16), what="x")

    at_share = np.r_[np.full(8, 4.0), np.full(8, 2.8)]
    seen = outcomes(lambda: decide(at_share), RUNS)
    assert seen[HOLDS] <= allowed(0.025, RUNS)
    assert seen[REFUTED] <= allowed(0.025, RUNS)
    assert outcomes(lambda: decide(np.full(16, 9.0)), 100)[HOLDS] > 90
    assert outcomes(lambda: decide(np.r_[np.full(8, 9.0), np.full(8, 1.0)]), 100)[REFUTED] > 90


def test_a_refutation_that_the_search_could_have_made_says_so():
    values = [4.0, 4, 4, 4, 2.0, 2, 2, 2]
    data = Curve.recorded(moments(octaves(8)), values, [0.33] * 8)
    verdict = drop_after_peak(data, data, learned(8), what="x")
    assert verdict.outcome is INCONCLUSIVE
    assert "decided alone, but not among 15 pairs of checkpoints" in verdict.sentence


def test_recorded_means_without_errors_decide_no_fall():
    data = Curve.recorded(moments(octaves(8)), np.linspace(5, 1, 8))
    verdict = drop_after_peak(data, data, learned(8), what="x")
    assert verdict.outcome is INCONCLUSIVE
    assert "recorded data cannot decide" in verdict.sentence


def test_what_was_never_learned_does_not_fall_and_what_was_just_learned_has_no_time_to():
    generator = np.random.default_rng(7)
    data = curve(generator, np.full(8, 4.0))
    never = onset((-data, 0.0), what="ioi", generator=generator)
    assert drop_after_peak(data, data, never, what="x").outcome is Outcome.NOT_APPLICABLE
    late = drop_after_peak(data, data, learned(8, at=5), what="x")
    assert late.outcome is INCONCLUSIVE
    assert "needs 4 checkpoints from the onset on, got 3" in late.sentence
    unclear = onset((curve(generator, np.zeros(8)), 0.0), what="ioi", generator=generator)
    assert drop_after_peak(data, data, unclear, what="x").outcome is INCONCLUSIVE


def test_a_fall_before_the_onset_does_not_count():
    generator = np.random.default_rng(8)
    truth = np.r_[9.0, 9, 9, 1, 1, np.linspace(2, 4, 6)]
    chosen, judged = halves(generator, truth, 60, "shared", 0.3)
    assert drop_after_peak(chosen, judged, learned(11), what="x").outcome is REFUTED
    assert drop_after_peak(chosen, judged, learned(11, at=5), what="x").outcome is HOLDS


def test_one_checkpoint_out_of_line_is_no_fall():
    generator = np.random.default_rng(9)
    truth = np.full(12, 4.0)
    truth[6] = 0.5
    assert outcomes(lambda: falls(generator, truth), 50)[HOLDS] == 50


def test_a_fall_from_nothing_is_not_judged():
    generator = np.random.default_rng(10)
    verdict = falls(generator, np.zeros(12), 20, "independent")
    assert verdict.outcome is INCONCLUSIVE
    assert "denominator: the peak" in verdict.sentence


@given(st.lists(st.integers(-99, 99), min_size=4, max_size=15, unique=True))
def test_the_largest_fall_is_that_of_the_running_medians(values):
    values = np.array(values, dtype=np.float64)
    smooth = [float(np.median(values[i : i + 3])) for i in range(len(values) - 2)]
    pairs = [(a - b, i, j) for i, a in enumerate(smooth) for j, b in enumerate(smooth) if i < j]
    peak, trough, count = _largest_fall(values)
    assert values[peak] - values[trough] == max(pairs)[0]
    assert count == len(pairs)


def lowest(generator, truth, kind="shared", clusters=60, spread=0.5, at=8):
    chosen, judged = halves(generator, truth, clusters, kind, spread)
    return lowest_before(chosen, judged, learned(len(truth), at=at), -0.05, what="x")


@pytest.mark.parametrize("kind", KINDS)
def test_a_flat_curve_at_the_margin_is_below_it_no_more_often_than_the_level(kind):
    generator = np.random.default_rng(11)
    truth = np.full(12, -0.05)
    seen = outcomes(lambda: lowest(generator, truth, kind), RUNS)
    assert seen[HOLDS] <= allowed(0.025, RUNS)
    assert seen[REFUTED] <= allowed(0.025, RUNS)
    assert seen[HOLDS] + seen[REFUTED] > 0.02 * RUNS


def test_looked_for_and_decided_on_the_same_recorded_means_it_is_corrected():
    generator = np.random.default_rng(12)

    def decide(truth):
        means = generator.normal(truth, 0.1)
        data = Curve.recorded(moments(octaves(12)), means, [0.1] * 12)
        return lowest_before(data, data, learned(12, at=8), -0.05, what="x")

    seen = outcomes(lambda: decide(np.full(12, -0.05)), RUNS)
    assert seen[HOLDS] <= allowed(0.025, RUNS)
    assert seen[REFUTED] == 0
    dip = np.r_[np.zeros(6), -0.6, -0.3, np.ones(4)]
    assert outcomes(lambda: decide(dip), 100)[HOLDS] > 90
    assert outcomes(lambda: decide(np.full(12, 0.6)), 100)[REFUTED] > 90


def test_a_dip_before_the_onset_is_seen_and_one_after_it_is_not():
    generator = np.random.default_rng(13)
    dip = np.r_[np.zeros(6), -0.6, -0.3, np.full(4, 2.0)]
    later = np.r_[np.full(8, 0.3), 2.0, -0.6, -0.6, 2.0]
    verdict = lowest(generator, dip)
    assert verdict.outcome is HOLDS
    assert verdict.sentence.startswith("x at step8000, the lowest of 8 before the onset: -0.")
    assert lowest(generator, later).outcome is REFUTED


def test_without_a_checkpoint_before_the_onset_there_is_no_lowest():
    data = curve(np.random.default_rng(0), np.full(8, 4.0))
    assert lowest_before(data, data, learned(8), 0.0, what="x").outcome is Outcome.NOT_APPLICABLE
    generator = np.random.default_rng(1)
    flat = np.zeros((8, 1)) + noise(generator, 8, 20)
    unclear = onset((exact(flat), 0.0), what="ioi", generator=generator)
    assert lowest_before(data, data, unclear, 0.0, what="x").outcome is INCONCLUSIVE
