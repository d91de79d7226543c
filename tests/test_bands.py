"""A simultaneous band covers the whole curve as often as it says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mechtests.bands import band, standing
from mechtests.measurement import Sample
from mechtests.series import Curve
from mechtests.statistics import mean_interval
from tests.curves import allowed, answers, curve, exact, moments, octaves

RUNS = 500
DRAWS = 499


def misses(make, truth, generator, runs=RUNS):
    """How often the truth is above the band somewhere, and how often below."""
    high = low = 0
    for _ in range(runs):
        found = band(make(), generator, resamples=DRAWS)
        high += bool((truth > found.high).any())
        low += bool((truth < found.low).any())
    return high, low


@pytest.mark.parametrize("kind", ["independent", "shared", "autocorrelated"])
@pytest.mark.parametrize(("clusters", "count"), [(8, 20), (15, 20), (60, 40)])
def test_the_band_misses_the_curve_no_more_often_than_its_level(kind, clusters, count):
    generator = np.random.default_rng(clusters)
    truth = np.sin(np.arange(count))
    high, low = misses(lambda: curve(generator, truth, clusters, kind), truth, generator)
    assert high + low <= allowed(0.05, RUNS)
    assert high + low > 0


@pytest.mark.parametrize("tails", ["heavy", "skewed"])
def test_heavy_tails_and_skew_shared_over_checkpoints_do_not_break_the_band(tails):
    generator = np.random.default_rng(1)
    draw, mean = {
        "heavy": (lambda size: generator.standard_t(3, size), 0.0),
        "skewed": (lambda size: generator.exponential(size=size), 1.0),
    }[tails]
    truth = np.full(16, (np.sqrt(0.7) + np.sqrt(0.3)) * mean)
    high, low = misses(
        lambda: curve(generator, np.zeros(16), 40, "shared", draw=draw), truth, generator
    )
    assert high + low <= allowed(0.06, RUNS)


def test_intervals_one_by_one_would_miss_the_curve_far_more_often():
    generator = np.random.default_rng(2)
    missed = 0
    for _ in range(200):
        found = curve(generator, np.zeros(20))
        intervals = [mean_interval(point) for point in found.points]
        missed += any(not each.low <= 0 <= each.high for each in intervals)
    assert missed > 100


def test_shared_prompts_make_the_band_narrower_than_bonferroni():
    generator = np.random.default_rng(3)
    found = curve(generator, np.zeros(60), 60, "shared")
    widths = (band(found, generator).high - found.means) / found.errors
    assert np.median(widths) < 0.93 * stats.t.ppf(1 - 0.025 / 60, 59)
    assert np.median(widths) > stats.t.ppf(1 - 0.025 / 2, 59)


@pytest.mark.parametrize("clusters", [8, 15, 60])
def test_with_one_checkpoint_the_band_is_the_interval(clusters):
    generator = np.random.default_rng(4)
    found = curve(generator, [0.3], clusters)
    interval = mean_interval(found.points[0])
    ends = band(found, generator, resamples=9999)
    assert (ends.high - ends.low)[0] == pytest.approx(interval.high - interval.low, rel=0.15)


def test_a_nearly_constant_checkpoint_does_not_widen_the_band_of_the_others():
    generator = np.random.default_rng(5)
    clean = curve(generator, np.zeros(12), 15)
    values = clean.cluster_means.copy()
    values[3] = 1e-9 * values[3]
    values[3, 0] = 5.0
    spoiled = exact(values)
    widths = [band(each, np.random.default_rng(6)).high - each.means for each in (clean, spoiled)]
    others = np.arange(12) != 3
    assert widths[1][others] == pytest.approx(widths[0][others], rel=0.1)
    assert widths[1][3] > 10 * spoiled.errors[3]


def test_where_nothing_varies_a_mean_has_no_band_and_stands_nowhere():
    values = np.random.default_rng(7).normal(size=(5, 20))
    values[2] = 0.7
    found = exact(values)
    ends = band(found, np.random.default_rng(0))
    placed = standing(found, 0.0, np.random.default_rng(0))
    assert (ends.low[2], ends.high[2]) == (-np.inf, np.inf)
    assert (placed.above[2], placed.below[2]) == (1.0, 1.0)
    assert np.isfinite(np.delete(ends.low, 2)).all()
    nothing = standing(exact(np.ones((4, 20))), 0.5, np.random.default_rng(0))
    assert nothing.above.tolist() == nothing.below.tolist() == [1.0] * 4


def test_right_on_all_prompts_of_fifteen_clusters_is_above_the_level_at_every_checkpoint():
    found = exact(np.ones((24, 15)), kind="proportion")
    placed = standing(found, 0.6, np.random.default_rng(0))
    assert (placed.above <= 0.05).all()
    assert placed.above[0] == pytest.approx(2 * 24 * 0.6**15)
    ends = band(found, np.random.default_rng(0))
    assert ends.low == pytest.approx(np.full(24, (0.025 / 24) ** (1 / 15)))
    assert (ends.high == 1.0).all()


@pytest.mark.parametrize("truth", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("clusters", [15, 60])
def test_the_band_of_proportions_misses_no_more_often_than_its_level(truth, clusters):
    generator = np.random.default_rng(clusters)
    level = np.full(12, truth)
    high, low = misses(lambda: answers(generator, level, clusters), level, generator, 200)
    assert high + low <= allowed(0.05, 300)


def test_a_census_is_compared_exactly():
    found = exact([[1.0, 0.0], [1.0, 1.0], [1.0, 0.5]], kind="census")
    placed = standing(found, [0.5, 0.5, 1.0], np.random.default_rng(0))
    assert placed.above.tolist() == [1, 0, 1]
    assert placed.below.tolist() == [1, 1, 0]
    ends = band(found, np.random.default_rng(0))
    assert ends.low.tolist() == ends.high.tolist() == [0.5, 1.0, 0.75]


def test_the_band_of_recorded_means_is_normal_at_a_bonferroni_level():
    found = Curve.recorded(moments(octaves(10)), np.arange(10.0), [0.1] * 10)
    ends = band(found, np.random.default_rng(0))
    half = 0.1 * stats.norm.ppf(1 - 0.025 / 10)
    assert ends.low == pytest.approx(np.arange(10) - half)
    assert ends.high == pytest.approx(np.arange(10) + half)
    placed = standing(found, 1.7, np.random.default_rng(0))
    assert placed.above[2] == pytest.approx(20 * stats.norm.sf(3))
    assert placed.below[1] == pytest.approx(20 * stats.norm.sf(7), rel=1e-6, abs=0)


def test_recorded_means_without_errors_stand_nowhere():
    found = Curve.recorded(moments(octaves(3)), [0.0, 1.0, 2.0])
    placed = standing(found, 1.0, np.random.default_rng(0))
    assert placed.above.tolist() == placed.below.tolist() == [1.0] * 3


curves = st.tuples(
    st.integers(0, 1000),
    st.integers(1, 8),
    st.integers(8, 20),
    st.sampled_from(["mean", "proportion"]),
)


def made(seed, count, clusters, kind):
    generator = np.random.default_rng(seed)
    if kind == "proportion":
        return answers(generator, np.linspace(0.3, 0.95, count), clusters)
    return curve(generator, np.linspace(-1, 1, count), clusters, "shared")


@settings(deadline=None, max_examples=40)
@given(curves, st.floats(0.05, 0.9), st.sampled_from([0.8, 0.9, 0.95]))
def test_a_checkpoint_is_above_exactly_where_its_whole_band_is(spec, level, certainty):
    found = made(*spec)
    ends = band(found, np.random.default_rng(0), level=certainty, resamples=DRAWS)
    placed = standing(found, level, np.random.default_rng(0), resamples=DRAWS)
    sure = np.minimum(abs(ends.low - level), abs(ends.high - level)) > 1e-9
    assert ((placed.above <= 1 - certainty + 1e-9) == (ends.low > level))[sure].all()
    assert ((placed.below <= 1 - certainty + 1e-9) == (ends.high < level))[sure].all()
    assert not ((placed.above < 1) & (placed.below < 1) & (spec[3] == "mean")).any()


@settings(deadline=None, max_examples=30)
@given(curves, st.randoms(use_true_random=False))
def test_the_order_of_the_prompts_does_not_matter(spec, random):
    found = made(*spec)
    order = list(range(found.values.shape[1]))
    random.shuffle(order)
    points = tuple(Sample(p.values[order], p.cluster[order]) for p in found.points)
    shuffled = Curve(found.moments, points, found.kind)
    one, two = (standing(each, 0.4, np.random.default_rng(0)) for each in (found, shuffled))
    assert one.above == pytest.approx(two.above, abs=2e-3)
    assert one.below == pytest.approx(two.below, abs=2e-3)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.floats(0.1, 100), st.floats(-50, 50))
def test_scale_and_origin_do_not_matter(seed, scale, origin):
    found = made(seed, 6, 12, "mean")
    moved = exact(origin + scale * found.cluster_means)
    one = standing(found, 0.2, np.random.default_rng(0))
    two = standing(moved, origin + scale * 0.2, np.random.default_rng(0))
    assert one.above == pytest.approx(two.above, abs=2e-3)
    assert one.below == pytest.approx(two.below, abs=2e-3)
    mirrored = standing(-found, -0.2, np.random.default_rng(0))
    assert one.above == pytest.approx(mirrored.below, abs=2e-3)
