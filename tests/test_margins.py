"""Deciders say holds no more often than their level allows, and see what is there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mechtests.errors import MeasurementError
from mechtests.margins import above, below, equivalent, share_above
from mechtests.measurement import Sample
from mechtests.verdict import Outcome

RUNS = 2000
HOLDS, REFUTED, INCONCLUSIVE = Outcome.HOLDS, Outcome.REFUTED, Outcome.INCONCLUSIVE


def sample(values, each=1, unit=""):
    values = np.asarray(values, dtype=np.float64)
    return Sample(values, np.arange(len(values)) // each, unit)


def normal(generator, clusters):
    return generator.normal(size=clusters)


def clustered(generator, clusters):
    return np.repeat(generator.normal(size=clusters // 2), 2) + generator.normal(size=clusters)


def heavy_tailed(generator, clusters):
    return generator.standard_t(3, clusters)


def discrete(generator, clusters):
    return generator.choice([-1.0, 0.0, 1.0], clusters, p=[0.2, 0.6, 0.2])


def uneven(generator, clusters):
    return np.where(np.arange(clusters) % 3 == 0, 4.0, 0.5) * generator.normal(size=clusters)


def outcomes(decide, runs=RUNS):
    found = [decide().outcome for _ in range(runs)]
    return {outcome: found.count(outcome) for outcome in Outcome}


def allowed(level, runs=RUNS):
    """What a decider with this level exceeds in one of a hundred series of runs."""
    return stats.binom.ppf(0.99, runs, level)


@pytest.mark.parametrize(
    ("noise", "clusters"), [(normal, 8), (heavy_tailed, 15), (discrete, 15), (uneven, 60)]
)
def test_at_the_margin_above_and_below_decide_no_more_often_than_their_level(noise, clusters):
    generator = np.random.default_rng(clusters)
    seen = outcomes(lambda: above(sample(0.3 + noise(generator, clusters)), 0.3, what="x"))
    assert seen[HOLDS] <= allowed(0.025)
    assert seen[REFUTED] <= allowed(0.025)
    assert seen[HOLDS] + seen[REFUTED] > 0


def test_at_the_margin_dependent_prompts_do_not_decide_more_often():
    generator = np.random.default_rng(0)
    seen = outcomes(lambda: below(sample(clustered(generator, 40), each=2), 0.0, what="x"))
    assert seen[HOLDS] <= allowed(0.025)
    assert seen[REFUTED] <= allowed(0.025)


@pytest.mark.parametrize("dependence", [0.0, 1.0])
@pytest.mark.parametrize(("margin", "clusters"), [(0.6, 23), (0.6, 60), (0.9, 60), (0.97, 30)])
def test_at_the_margin_a_proportion_decides_no_more_often_than_its_level(
    margin, clusters, dependence
):
    """Pairs whose prompts are independent, or the same; a t interval fails here: 4 to 40%."""
    generator = np.random.default_rng(clusters)

    def decide():
        first, second = generator.random((2, clusters)) < margin
        same = generator.random(clusters) < dependence
        pairs = np.stack([first, np.where(same, first, second)], axis=1)
        return above(sample(pairs.ravel(), each=2), margin, what="x", kind="proportion")

    seen = outcomes(decide)
    assert seen[HOLDS] <= allowed(0.025)
    assert seen[REFUTED] <= allowed(0.025)


def test_prompts_that_do_not_go_together_tell_more_than_their_clusters():
    generator = np.random.default_rng(0)
    apart = sample(generator.random(120) < 0.75, each=2)
    together = sample(np.repeat(apart.values[::2], 2), each=2)
    widths = [
        np.ptp(above(data, 0.6, what="x", kind="proportion").interval) for data in (apart, together)
    ]
    assert widths[0] < 0.85 * widths[1]


def test_a_planted_effect_is_seen_with_the_power_of_the_t_test():
    generator = np.random.default_rng(1)
    seen = outcomes(lambda: above(sample(generator.normal(0.5, 1.0, 40)), 0.0, what="x"))
    power = stats.nct.sf(stats.t.ppf(0.975, 39), 39, 0.5 * np.sqrt(40))
    assert seen[HOLDS] / RUNS == pytest.approx(power, abs=0.03)
    assert power > 0.8
    assert seen[REFUTED] == 0


@pytest.mark.parametrize(
    ("shift", "outcome"), [(1.0, HOLDS), (-1.0, REFUTED), (0.01, INCONCLUSIVE)]
)
def test_below_is_above_with_the_sides_exchanged(shift, outcome):
    data = sample(np.linspace(-0.5, 0.5, 20) + shift)
    up = above(data, 0.0, what="x")
    down = below(-data, 0.0, what="x")
    assert up.outcome is down.outcome is outcome
    assert down.p == pytest.approx(up.p)
    assert down.p_refuted == pytest.approx(up.p_refuted)
    assert (up.relation, down.relation) == (">", "<")


def test_a_verdict_has_its_numbers():
    data = sample(np.linspace(0.0, 1.0, 40), each=2, unit="logits")
    verdict = above(data, 0.1, what="x")
    interval = stats.ttest_1samp(data.values.reshape(20, 2).mean(1), 0.0).confidence_interval(0.95)
    assert verdict.interval == pytest.approx((interval.low, interval.high))
    assert verdict.estimate == pytest.approx(0.5)
    assert (verdict.margin, verdict.unit) == (0.1, "logits")
    assert (verdict.prompts, verdict.clusters, verdict.needed) == (40, 20, None)
    assert 0 < verdict.p < 0.025


def test_fewer_than_eight_clusters_decide_nothing():
    clear = np.linspace(0.9, 1.0, 14)
    assert above(sample(clear), 0.0, what="x").outcome is HOLDS
    verdict = above(sample(clear, each=2), 0.0, what="x")
    assert verdict.outcome is INCONCLUSIVE
    assert verdict.interval is not None
    assert verdict.p is None
    assert verdict.needed == 16
    assert verdict.sentence.endswith(
        "; fewer than 8 clusters decide nothing; about 16 prompts would decide"
    )


def test_eight_clusters_decide():
    assert above(sample(np.linspace(0.9, 1.0, 8)), 0.0, what="x").outcome is HOLDS


@pytest.mark.parametrize("decide", [above, below])
@pytest.mark.parametrize("value", [0.0, 0.7])
def test_values_that_do_not_vary_decide_nothing_as_a_mean(decide, value):
    verdict = decide(sample([value] * 50), 0.3, what="x")
    assert verdict.outcome is INCONCLUSIVE
    assert (verdict.interval, verdict.p, verdict.needed) == (None, None, None)
    assert verdict.sentence.endswith("nothing varies, so there is no interval")


@pytest.mark.parametrize(
    ("value", "up", "down"),
    [(0.7, HOLDS, REFUTED), (0.1, REFUTED, HOLDS), (0.3, REFUTED, REFUTED)],
)
def test_a_census_is_compared_exactly(value, up, down):
    data = sample([value] * 3)
    assert above(data, 0.3, what="x", kind="census").outcome is up
    assert below(data, 0.3, what="x", kind="census").outcome is down
    assert above(data, 0.3, what="x", kind="census").p == float(up is not HOLDS)


def test_a_proportion_at_one_has_the_exact_interval():
    """One trial a cluster: the prompts of a pair may be right for one reason."""
    verdict = above(sample([1.0] * 40, each=2), 0.6, what="x", kind="proportion")
    assert verdict.outcome is HOLDS
    assert verdict.interval == pytest.approx((0.025 ** (1 / 20), 1.0))
    assert verdict.p == pytest.approx(0.6**20)


def test_single_trials_have_the_clopper_pearson_interval():
    """But for one degree of freedom, which the variance between clusters takes."""
    verdict = above(sample([1.0] * 30 + [0.0] * 10), 0.6, what="x", kind="proportion")
    exact = stats.binomtest(30, 40).proportion_ci(0.95, method="exact")
    assert verdict.interval == pytest.approx((exact.low, exact.high), abs=0.01)
    assert verdict.estimate == 0.75


def test_a_proportion_at_one_that_does_not_decide_says_how_many_prompts_would():
    verdict = above(sample([1.0] * 20), 0.9, what="x", kind="proportion")
    assert verdict.outcome is INCONCLUSIVE
    enough = above(sample([1.0] * verdict.needed), 0.9, what="x", kind="proportion")
    assert enough.outcome is HOLDS


def test_a_proportion_outside_zero_to_one_is_an_error():
    with pytest.raises(MeasurementError, match=r"from 0 to 1, got -0\.5 to 1"):
        above(sample([1.0, -0.5]), 0.6, what="x", kind="proportion")


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_value_that_is_no_number_is_an_error_and_not_a_verdict(wrong):
    data = sample([0.1, 0.2, wrong, *[0.3] * 9])
    good = sample(np.linspace(1, 2, 12))
    for decide in (
        lambda: above(data, 0.0, what="x"),
        lambda: below(data, 0.0, what="x", kind="census"),
        lambda: above(data, 0.0, what="x", kind="proportion"),
        lambda: equivalent(data, 0.1, what="x"),
        lambda: share_above(data, good, 0.5, span=good, what="x"),
        lambda: share_above(good, data, 0.5, span=good, what="x"),
        lambda: share_above(good, good, 0.5, span=data, what="x"),
    ):
        with pytest.raises(MeasurementError, match="finite"):
            decide()


@pytest.mark.parametrize(
    ("noise", "clusters", "side"), [(normal, 8, 1), (normal, 60, -1), (heavy_tailed, 15, 1)]
)
def test_at_its_margin_equivalence_holds_and_is_refuted_no_more_than_allowed(noise, clusters, side):
    generator = np.random.default_rng(clusters)
    seen = outcomes(lambda: equivalent(sample(side + noise(generator, clusters)), 1.0, what="x"))
    assert seen[HOLDS] <= allowed(0.05)
    assert seen[REFUTED] <= allowed(0.025)


def test_no_difference_found_on_few_noisy_prompts_is_not_equivalence():
    generator = np.random.default_rng(2)
    seen = outcomes(lambda: equivalent(sample(generator.normal(size=10)), 0.3, what="x"), 500)
    assert seen[HOLDS] < 25
    assert seen[INCONCLUSIVE] > 450


@pytest.mark.parametrize(
    ("mean", "outcome", "level"), [(0.0, HOLDS, 90), (1.0, REFUTED, 95), (0.27, INCONCLUSIVE, 90)]
)
def test_equivalence_is_decided_by_the_interval_it_names(mean, outcome, level):
    data = sample(mean + np.linspace(-1, 1, 80) / 2)
    verdict = equivalent(data, 0.3, what="x")
    low, high = stats.ttest_1samp(data.values, 0.0).confidence_interval(level / 100)
    assert verdict.outcome is outcome
    assert f"({level}% interval)" in verdict.sentence
    assert (low > -0.3 and high < 0.3) == (outcome is HOLDS)
    assert verdict.p == pytest.approx(
        max(
            stats.ttest_1samp(data.values, 0.3, alternative="less").pvalue,
            stats.ttest_1samp(data.values, -0.3, alternative="greater").pvalue,
        )
    )


@pytest.mark.parametrize(("mean", "refutes"), [(0.0, False), (0.15, False), (0.6, True)])
def test_with_the_prompts_needed_equivalence_decides_four_times_in_five(mean, refutes):
    generator = np.random.default_rng(3)
    values = generator.normal(size=12)
    values = mean + (values - values.mean()) / values.std(ddof=1)
    needed = equivalent(sample(values), 0.3, what="x").needed
    seen = outcomes(
        lambda: equivalent(sample(generator.normal(mean, 1.0, needed)), 0.3, what="x"), 1000
    )
    assert 0.77 < seen[REFUTED if refutes else HOLDS] / 1000 < 0.93


def shares(generator, clusters, ratio, mean=2.0):
    denominator = generator.normal(mean, 1.0, clusters)
    numerator = ratio * denominator + generator.normal(0, 0.5, clusters)
    return sample(numerator), sample(denominator), sample(generator.normal(3.0, 1.0, clusters))


@pytest.mark.parametrize("clusters", [8, 30])
def test_at_exactly_the_share_it_holds_no_more_often_than_its_level(clusters):
    generator = np.random.default_rng(clusters)

    def decide():
        numerator, denominator, span = shares(generator, clusters, 0.7)
        return share_above(numerator, denominator, 0.7, span=span, what="x")

    seen = outcomes(decide)
    assert seen[HOLDS] <= allowed(0.025)
    assert seen[REFUTED] <= allowed(0.025)
    assert seen[HOLDS] + seen[REFUTED] > 0.02 * RUNS


def test_over_a_denominator_of_nothing_no_share_is_claimed_or_refuted():
    """The ratio of two noises is any number; the guard keeps it from being judged."""
    generator = np.random.default_rng(4)

    def decide():
        noise = sample(generator.normal(size=20)), sample(generator.normal(size=20))
        return share_above(*noise, 0.5, span=sample(generator.normal(3, 1, 20)), what="x")

    seen = outcomes(decide, 500)
    assert seen[INCONCLUSIVE] == 500


def test_a_share_over_a_denominator_below_its_guard_says_denominator():
    generator = np.random.default_rng(5)
    numerator, denominator, span = shares(generator, 40, 0.7)
    verdict = share_above(numerator * 0.01, denominator * 0.01, 0.5, span=span, what="share")
    assert verdict.outcome is INCONCLUSIVE
    assert verdict.sentence.startswith("share: denominator: D is not above its guard; D - 0.1 ")
    assert (verdict.p, verdict.needed) == (None, None)


def test_a_negative_span_does_not_let_a_negative_denominator_pass_its_guard():
    generator = np.random.default_rng(6)
    numerator, denominator, span = shares(generator, 40, 0.7)
    verdict = share_above(numerator, denominator * -0.1, 0.5, span=-span, what="x")
    assert verdict.outcome is INCONCLUSIVE
    assert "denominator" in verdict.sentence


@pytest.mark.parametrize(("ratio", "outcome"), [(0.9, HOLDS), (0.3, REFUTED)])
def test_a_planted_share_is_seen_and_its_fieller_interval_agrees(ratio, outcome):
    numerator, denominator, span = shares(np.random.default_rng(7), 60, ratio)
    verdict = share_above(numerator, denominator, 0.6, span=span, what="x")
    low, high = verdict.shown["share interval"]
    assert verdict.outcome is outcome
    assert low < ratio < high
    assert (low > 0.6) == (outcome is HOLDS)
    assert (high < 0.6) == (outcome is REFUTED)
    assert verdict.shown["share"] == pytest.approx(
        numerator.values.sum() / denominator.values.sum()
    )


def test_a_share_is_not_the_mean_of_ratios():
    """One prompt with a denominator near 0 would carry a mean of ratios anywhere."""
    numerator, denominator, span = shares(np.random.default_rng(8), 60, 0.3)
    numerator.values[0], denominator.values[0] = 1.0, 1e-6
    verdict = share_above(numerator, denominator, 0.6, span=span, what="x")
    assert (numerator.values / denominator.values).mean() > 1000
    assert verdict.outcome is REFUTED


prompt_values = st.lists(st.floats(-10, 10, width=32), min_size=16, max_size=40)


@given(prompt_values, st.randoms(use_true_random=False))
def test_the_order_of_the_prompts_does_not_matter(values, random):
    values = np.array(values, dtype=np.float64)
    cluster = np.arange(len(values)) // 2
    order = np.arange(len(values))
    random.shuffle(order)
    one, two = Sample(values, cluster), Sample(values[order], cluster[order])
    other, rest = one * 0.5 + 3.0, two * 0.5 + 3.0
    for first, second in (
        (above(one, 0.3, what="x"), above(two, 0.3, what="x")),
        (equivalent(one, 0.3, what="x"), equivalent(two, 0.3, what="x")),
        (
            share_above(one, other, 0.3, span=other, what="x"),
            share_above(two, rest, 0.3, span=rest, what="x"),
        ),
    ):
        assert first.outcome is second.outcome
        assert first.estimate == pytest.approx(second.estimate, abs=1e-9)
        assert (first.p is None) == (second.p is None)


def test_the_sentence_of_a_holding_verdict():
    data = sample(0.62 + np.linspace(-0.42, 0.42, 50))
    verdict = above(data, 0.4, what="induction score of head 5.3 on evaluation")
    assert str(verdict) == (
        "holds: induction score of head 5.3 on evaluation: 0.62 [0.55, 0.69] "
        "over 50 prompts in 50 clusters, claimed above 0.4"
    )


def test_the_sentence_of_an_inconclusive_verdict_ends_with_what_would_decide():
    data = sample(0.45 + np.linspace(-0.42, 0.42, 50))
    verdict = below(data, 0.41, what="x")
    assert verdict.sentence == (
        "x: 0.45 [0.38, 0.52] over 50 prompts in 50 clusters, claimed below 0.41; "
        "about 310 prompts would decide"
    )
    assert 300 < verdict.needed <= 310


@pytest.mark.parametrize("mean", [0.6204, 0.6234, 0.6264, 0.6294])
def test_a_sentence_never_rounds_a_decided_interval_onto_its_margin(mean):
    data = sample(mean + np.linspace(-0.42, 0.42, 50))
    margin = above(data, 0.4, what="x").interval[0] - 1e-4
    verdict = above(data, margin, what="x")
    shown = float(verdict.sentence.partition("[")[2].partition(",")[0])
    assert verdict.outcome is HOLDS
    assert shown > margin


@pytest.mark.parametrize(
    ("scale", "shown"),
    [
        (1.0, "0.50 [0.41, 0.59]"),
        (100.0, "50 [41, 59]"),
        (0.001, "0.00050 [0.00041, 0.00059]"),
        (0.0, "0"),
    ],
)
def test_numbers_have_the_digits_their_interval_supports(scale, shown):
    verdict = above(sample(scale * np.linspace(0, 1, 45)), -1e9, what="x")
    assert f"x: {shown} over" in verdict.sentence


def test_a_verdict_at_the_margin_promises_nothing():
    verdict = above(sample([0.0, 1.0] * 10), 0.5, what="x")
    assert verdict.needed is None
    assert verdict.sentence.endswith("at the margin, where no number of prompts would decide")
    far = above(sample([0.0, 1.0] * 10), 0.5 + 1e-7, what="x")
    assert far.sentence.endswith("not even 1,000,000 prompts would decide")


def test_an_undecided_proportion_always_needs_more_prompts_than_it_had():
    """Also where pairs of prompts are opposites, so that their means hardly vary."""
    values = np.tile([0.0, 1.0], 30)
    values[:4] = 1.0
    pairs = Sample(values, np.repeat(np.arange(30), 2))
    verdict = above(pairs, 0.6, what="accuracy", kind="proportion")
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.needed is not None
    assert verdict.needed > 60
