"""Intervals cover, p are duals of intervals, and sizes and corrections are right."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mechtests import statistics
from mechtests.errors import MeasurementError
from mechtests.measurement import Sample

RUNS = 2000


def sample(values, each=1):
    values = np.asarray(values, dtype=np.float64)
    return Sample(values, np.arange(len(values)) // each)


def paired_noise(generator, clusters, mean=0.0):
    """Two prompts a cluster, strongly dependent; the cluster means have variance 1."""
    shared = generator.normal(0, np.sqrt(0.8), clusters)
    own = generator.normal(0, np.sqrt(0.4), 2 * clusters)
    return sample(mean + np.repeat(shared, 2) + own, each=2)


def within_99_percent(count, runs, rate):
    low, high = stats.binom.ppf([0.005, 0.995], runs, rate)
    return low <= count <= high


small_floats = st.floats(-1e3, 1e3, allow_nan=False, width=32)
samples = st.lists(small_floats, min_size=3, max_size=30).map(sample)


def test_the_interval_is_the_textbook_t_interval():
    values = [0.2, 0.5, 0.9, 0.4, 0.7]
    interval = statistics.mean_interval(sample(values))
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert interval.ends == pytest.approx((low, high))
    assert (interval.level, interval.degrees) == (0.95, 4)


def test_prompts_of_one_cluster_count_once():
    once = sample([0.1, 0.4, 0.3, 0.8])
    thrice = sample(np.repeat(once.values, 3), each=3)
    assert statistics.mean_interval(thrice).ends == pytest.approx(
        statistics.mean_interval(once).ends
    )


def test_clusters_of_any_size_weigh_the_same():
    uneven = Sample(np.array([1.0, 1.0, 1.0, 5.0]), np.array([7, 7, 7, 2]))
    assert statistics.cluster_means(uneven).tolist() == [5.0, 1.0]
    assert statistics.summary(uneven).mean == 3.0


@pytest.mark.parametrize("clusters", [8, 15, 60])
def test_the_interval_covers_as_often_as_it_says(clusters):
    generator = np.random.default_rng(clusters)
    covered = 0
    for _ in range(RUNS):
        interval = statistics.mean_interval(paired_noise(generator, clusters))
        covered += interval.low <= 0 <= interval.high
    assert within_99_percent(covered, RUNS, 0.95)


def test_ignoring_clusters_would_cover_too_seldom():
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(500):
        wrong = sample(paired_noise(generator, 15).values)
        interval = statistics.mean_interval(wrong)
        covered += interval.low <= 0 <= interval.high
    assert covered < stats.binom.ppf(0.005, 500, 0.95)


@given(samples, small_floats)
def test_p_is_within_the_tail_exactly_where_the_interval_misses_the_margin(data, margin):
    interval = statistics.mean_interval(data)
    p_above = statistics.one_sided_p(data, margin, "above")
    p_below = statistics.one_sided_p(data, margin, "below")
    if interval is None:
        assert p_above is None
        assert p_below is None
        return
    assert p_above + p_below == pytest.approx(1.0)
    near = 1e-6 * max(abs(interval.low), abs(interval.high), 1.0)
    if abs(interval.low - margin) > near:
        assert (p_above <= 0.025) == (interval.low > margin)
    if abs(interval.high - margin) > near:
        assert (p_below <= 0.025) == (interval.high < margin)


def test_one_sided_p_is_scipys():
    values = [0.2, 0.5, 0.9, 0.4, 0.7]
    expected = stats.ttest_1samp(values, 0.4, alternative="greater").pvalue
    assert statistics.one_sided_p(sample(values), 0.4, "above") == pytest.approx(expected)


@pytest.mark.parametrize(
    "data", [sample([0.3] * 12), sample([0.0] * 12), sample([0.1] * 3 + [0.1] * 9, each=3)]
)
def test_where_nothing_varies_there_is_no_interval(data):
    assert statistics.mean_interval(data) is None
    assert statistics.one_sided_p(data, 0.0, "above") is None
    assert statistics.prompts_needed(data, 0.2) is None


def test_one_cluster_has_no_interval():
    assert statistics.mean_interval(sample([0.1, 0.9], each=2)) is None


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_an_error_that_says_where(wrong):
    with pytest.raises(MeasurementError, match=r"1 of 3 prompts, the first at prompt 1"):
        statistics.mean_interval(sample([0.1, wrong, 0.2]))


def test_a_sample_without_prompts_is_an_error():
    with pytest.raises(MeasurementError, match="at least one prompt"):
        statistics.summary(sample([]))


@pytest.mark.parametrize(("successes", "n"), [(0, 12), (3, 12), (12, 12), (199, 200)])
def test_the_proportion_interval_is_scipys_exact_one(successes, n):
    expected = stats.binomtest(successes, n).proportion_ci(0.95, method="exact")
    assert statistics.proportion_interval(successes, n).ends == pytest.approx(
        (expected.low, expected.high)
    )


@pytest.mark.parametrize("side", ["above", "below"])
@pytest.mark.parametrize(("successes", "n"), [(0, 12), (3, 12), (12, 12)])
def test_the_proportion_p_is_scipys_exact_one(successes, n, side):
    alternative = {"above": "greater", "below": "less"}[side]
    expected = stats.binomtest(successes, n, 0.6, alternative=alternative).pvalue
    assert statistics.proportion_p(successes, n, 0.6, side) == pytest.approx(expected)


@given(st.integers(2, 60), st.floats(0, 1), st.floats(0.01, 0.99))
def test_the_proportion_p_is_the_dual_of_its_interval(n, share, margin):
    successes = share * n
    interval = statistics.proportion_interval(successes, n)
    assert 0.0 <= interval.low <= successes / n + 1e-9
    assert successes / n - 1e-9 <= interval.high <= 1.0
    if abs(interval.low - margin) > 1e-6:
        p = statistics.proportion_p(successes, n, margin, "above")
        assert (p <= 0.025) == (interval.low > margin)
    if abs(interval.high - margin) > 1e-6:
        p = statistics.proportion_p(successes, n, margin, "below")
        assert (p <= 0.025) == (interval.high < margin)


def ratio_data(generator, clusters, ratio, mean=1.0):
    denominator = generator.normal(mean, 0.6, clusters)
    numerator = ratio * denominator + generator.normal(0, 0.5, clusters)
    return sample(numerator), sample(denominator)


def test_fieller_is_the_set_of_ratios_the_contrast_test_does_not_reject():
    numerator, denominator = ratio_data(np.random.default_rng(3), 25, 0.6)
    interval = statistics.fieller(numerator, denominator)
    for end, side in ((interval.low, "above"), (interval.high, "below")):
        p = statistics.one_sided_p(numerator - denominator * end, 0.0, side)
        assert p == pytest.approx(0.025)


def test_fieller_agrees_with_a_bootstrap_of_the_ratio_of_sums():
    generator = np.random.default_rng(4)
    numerator, denominator = ratio_data(generator, 200, 0.6)
    rows = generator.integers(0, 200, (4000, 200))
    ratios = numerator.values[rows].sum(1) / denominator.values[rows].sum(1)
    interval = statistics.fieller(numerator, denominator)
    width = interval.high - interval.low
    assert interval.ends == pytest.approx(np.quantile(ratios, [0.025, 0.975]), abs=0.1 * width)


def test_fieller_covers_as_often_as_it_says():
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(RUNS):
        interval = statistics.fieller(*ratio_data(generator, 15, 0.6, mean=3.0))
        covered += interval.low <= 0.6 <= interval.high
    assert within_99_percent(covered, RUNS, 0.95)


def test_fieller_has_no_interval_over_a_denominator_that_could_be_zero():
    numerator, denominator = ratio_data(np.random.default_rng(6), 20, 0.6, mean=0.0)
    assert statistics.fieller(numerator, denominator) is None


def test_fieller_refuses_prompts_that_are_not_paired():
    with pytest.raises(MeasurementError, match="same prompts on both sides"):
        statistics.fieller(sample([1.0, 2.0, 3.0]), sample([1.0, 2.0]))


def standardised(generator, clusters, mean, spread):
    """A sample whose own mean and spread are exactly the truth it stands for."""
    values = generator.normal(size=clusters)
    return sample(mean + spread * (values - values.mean()) / values.std(ddof=1))


@pytest.mark.parametrize(("mean", "level"), [(0.5, 0.95), (0.9, 0.95), (0.1, 0.95), (0.5, 0.9)])
def test_with_the_prompts_needed_four_runs_in_five_decide(mean, level):
    generator = np.random.default_rng(7)
    needed = statistics.prompts_needed(standardised(generator, 30, mean, 1.0), 0.3, level)
    decided = 0
    for _ in range(RUNS):
        interval = statistics.mean_interval(sample(generator.normal(mean, 1.0, needed)), level)
        decided += interval.low > 0.3 or interval.high < 0.3
    assert 0.77 < decided / RUNS < 0.84


def test_prompts_needed_counts_prompts_and_not_clusters():
    single = sample(np.linspace(0, 1, 20))
    double = sample(np.repeat(single.values, 2), each=2)
    needed = statistics.prompts_needed(single, 0.45)
    assert abs(statistics.prompts_needed(double, 0.45) - 2 * needed) <= 1


def test_at_the_margin_no_number_of_prompts_decides():
    assert statistics.prompts_needed(sample([0.0, 1.0] * 10), 0.5) is None


def test_prompts_needed_are_capped():
    data = sample([0.0, 1.0] * 10)
    assert statistics.prompts_needed(data, 0.5 + 1e-9) == statistics.MOST_PROMPTS


def test_the_jackknife_of_a_mean_over_single_clusters_is_the_t_interval():
    data = sample(np.random.default_rng(8).normal(size=10))
    interval = statistics.jackknife(lambda kept: data.values[kept].mean(), data.cluster)
    assert interval.ends == pytest.approx(statistics.mean_interval(data).ends)


def test_the_jackknife_leaves_out_whole_clusters_and_each_once():
    clusters = np.repeat(np.arange(23), 3)
    left_out = []

    def look(kept):
        left_out.append(set(clusters[~kept].tolist()))
        assert not left_out[-1] & set(clusters[kept].tolist())
        return float(kept[:5].sum())

    statistics.jackknife(look, clusters)
    groups = [group for group in left_out if group]
    assert len(groups) == 10
    assert sorted(cluster for group in groups for cluster in group) == list(range(23))


def overlap(scores, kept):
    """The intersection over union of the top 10 of 40 heads on even and on odd prompts."""
    tops = [
        set(np.argsort(scores[start::2][kept[start::2]].mean(0))[-10:].tolist()) for start in (0, 1)
    ]
    return len(tops[0] & tops[1]) / len(tops[0] | tops[1])


def test_the_jackknife_covers_an_overlap():
    generator = np.random.default_rng(9)
    truth, everything, runs = np.linspace(0, 2, 40), np.ones(80, dtype=bool), 400
    drawn = [truth + generator.normal(0, 1.5, (80, 40)) for _ in range(runs)]
    expected = np.mean([overlap(scores, everything) for scores in drawn])
    clusters, covered = np.arange(80) // 2, 0
    for scores in drawn:
        interval = statistics.jackknife(lambda kept, s=scores: overlap(s, kept), clusters)
        covered += interval is not None and interval.low <= expected <= interval.high
    assert covered >= stats.binom.ppf(0.005, runs, 0.95)


def test_a_statistic_that_never_changes_has_no_jackknife_interval():
    assert statistics.jackknife(lambda kept: 0.7, np.arange(30)) is None


def test_benjamini_hochberg_gives_the_hand_worked_q():
    assert statistics.benjamini_hochberg([0.01, 0.04, 0.03, 0.5]) == pytest.approx(
        [0.04, 0.16 / 3, 0.16 / 3, 0.5]
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_benjamini_hochberg_rejects_what_the_step_up_procedure_rejects(ps):
    """The oracle: reject the k smallest p, for the largest k with p_(k) <= 0.05 k / m."""
    order = sorted(ps)
    largest = max((k for k, p in enumerate(order, 1) if p <= 0.05 * k / len(ps)), default=0)
    bound = order[largest - 1] if largest else -1.0
    for p, q in zip(ps, statistics.benjamini_hochberg(ps), strict=True):
        if abs(q - 0.05) > 1e-9:
            assert (q <= 0.05) == (p <= bound)


@given(st.lists(st.floats(0, 1), max_size=20))
def test_benjamini_yekutieli_is_hochberg_times_the_harmonic_sum(ps):
    factor = sum(1 / k for k in range(1, len(ps) + 1))
    expected = [min(1.0, q * factor) for q in statistics.benjamini_hochberg(ps)]
    loose = statistics.benjamini_yekutieli(ps)
    assert all(q >= e - 1e-9 or q == 1.0 for q, e in zip(loose, expected, strict=True))
    if ps and max(statistics.benjamini_hochberg(ps)) * factor < 1:
        assert loose == pytest.approx(expected)


def test_importing_the_rules_imports_neither_scipy_nor_torch():
    code = (
        "import sys, mechtests.rules; "
        "print([m for m in ('scipy', 'torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
