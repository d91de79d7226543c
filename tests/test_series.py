"""A curve keeps its prompts apart from its checkpoints, and refuses what is no curve."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechtests.errors import MeasurementError
from mechtests.means import Mean, mean_of
from mechtests.measurement import Estimate, Sample
from mechtests.series import Curve, Moment, spoken_count
from mechtests.statistics import summary
from tests.curves import curve, exact, moments, octaves

MOMENTS = moments([1e6, 2e6, 4e6])


def sample(values, cluster=None):
    values = np.asarray(values, dtype=np.float64)
    return Sample(values, np.arange(len(values)) if cluster is None else np.asarray(cluster))


def test_the_mean_of_a_curve_is_that_of_its_clusters():
    points = tuple(sample([i, i, 3.0], cluster=[0, 0, 1]) for i in (0.0, 1.0, 5.0))
    found = Curve(MOMENTS, points)
    assert found.means.tolist() == [summary(point).mean for point in points] == [1.5, 2.0, 4.0]
    assert found.cluster_means.tolist() == [[0, 3], [1, 3], [5, 3]]
    assert found.errors.tolist() == [mean_of(point).error for point in points]


def test_a_point_is_found_by_its_label():
    found = exact([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], [1e6, 2e6, 4e6])
    assert found.at("step2000").values.tolist() == [2, 2, 3, 3]
    assert found.between("step2000").labels == ("step2000", "step4000")
    assert found.between(last="step2000").labels == ("step1000", "step2000")
    with pytest.raises(MeasurementError, match=r"has step1000, step2000, step4000, not step3"):
        found.at("step3")


def test_a_weighted_sum_is_taken_prompt_by_prompt():
    found = exact([[0.0, 1.0], [2.0, 5.0], [4.0, 5.0]], each=1)
    assert found.weighted([-1.0, 0.0, 1.0]).values.tolist() == [4, 4]
    assert found.over_last(2).values.tolist() == [3, 5]
    assert found.over_last(9).values == pytest.approx(found.values.mean(axis=0))
    rows = np.array([[1.0, 0, 0], [0, 0.5, 0.5], [0, 0, 2.0]])
    assert found.mixed(rows).values == pytest.approx(rows @ found.values)


def test_the_difference_of_two_curves_is_paired():
    generator = np.random.default_rng(0)
    one = curve(generator, [0.0, 1.0, 2.0])
    hard = one * 1.0 - one
    assert np.abs(hard.values).max() == 0
    assert (one - (-one)).values == pytest.approx(2 * one.values)
    assert (0.5 * one).means == pytest.approx(one.means / 2)


def test_the_difference_of_proportions_is_no_proportion():
    right = exact([[1.0, 0.0]] * 3, kind="proportion")
    assert (right - right).kind == "mean"


def test_what_is_recorded_has_means_and_errors_and_no_prompts():
    found = Curve.recorded(MOMENTS, [0.0, 1.0, 3.0], [0.1, 0.2, 0.2], unit="logits")
    assert found.is_recorded
    assert found.means.tolist() == [0, 1, 3]
    total = found.weighted([0.0, -1.0, 1.0])
    assert (total.mean, total.unit) == (2.0, "logits")
    assert total.error == pytest.approx(0.2 * np.sqrt(2))
    assert found.undecidable is None


def test_recorded_means_without_errors_decide_nothing():
    for unknown in (None, [0.1, None, 0.1], [0.1, float("nan"), 0.1]):
        found = Curve.recorded(MOMENTS, [0.0, 1.0, 3.0], unknown)
        assert "recorded data cannot decide" in found.undecidable


def test_recorded_estimates_make_a_curve():
    found = Curve.of(MOMENTS, [Estimate(0.5, 0.1, 70), Estimate(0.6, None, 70), Mean(1.0, 0.2)])
    assert found.means.tolist() == [0.5, 0.6, 1.0]
    assert np.isnan(found.errors[1])
    assert found.at("step1000").prompts == 70


def test_the_sum_of_a_census_is_exact():
    found = exact([[0.0, 1.0], [1.0, 1.0], [1.0, 1.0]], kind="census")
    assert found.weighted([-1.0, 0.0, 1.0]) == Mean(0.5, 0.0)
    assert found.undecidable is None


def test_few_clusters_decide_nothing():
    assert exact(np.eye(7)).undecidable == "fewer than 8 clusters decide nothing"
    assert exact(np.eye(8)).undecidable is None


def test_a_curve_runs_over_tokens_or_else_over_steps():
    points = (sample([0.0]), sample([1.0]))
    assert Curve(moments([1e6, 2e6]), points).axis == "tokens"
    steps = Curve((Moment("a", 1), Moment("b", 2, 2000)), points)
    assert (steps.axis, steps.positions.tolist()) == ("steps", [1, 2])
    with pytest.raises(MeasurementError, match="neither is known of all of a, b"):
        Curve((Moment("a"), Moment("b", 2)), points)


@pytest.mark.parametrize(
    ("tokens", "points", "kind", "says"),
    [
        ([], [], "mean", "got 0 moments and 0 points"),
        ([1e6], [[1.0], [2.0]], "mean", "got 1 moments and 2 points"),
        ([2e6, 1e6], [[1.0], [2.0]], "mean", r"got step1000 after step2000; sort them"),
        ([1e6, 1e6], [[1.0], [2.0]], "mean", r"each once, got step1000 after step1000"),
        ([1e6, 2e6], [[1.0], [2.0, 3.0]], "mean", "same prompts at all moments, got others"),
        ([1e6, 2e6], [[1.0], [np.nan]], "mean", "finite values, got NaN or infinity at step2000"),
        ([1e6, 2e6], [[1.0], [2.0]], "proportion", "from 0 to 1, got 1 to 2"),
    ],
)
def test_what_is_no_curve_is_refused(tokens, points, kind, says):
    with pytest.raises(MeasurementError, match=says):
        Curve(moments(tokens), tuple(map(sample, points)), kind)


def test_measured_and_recorded_points_do_not_mix():
    with pytest.raises(MeasurementError, match="not mixed"):
        Curve(MOMENTS[:2], (sample([1.0]), Mean(1.0, 0.1)))


def test_a_recorded_mean_must_be_a_number():
    with pytest.raises(MeasurementError, match="finite values, got NaN or infinity at step2000"):
        Curve.recorded(MOMENTS, [0.0, np.nan, 1.0])


@given(st.integers(1, 10**13))
def test_a_count_is_spoken_with_three_digits(count):
    assert float(spoken_count(count)) == pytest.approx(count, rel=5e-3)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (12, "12"), (84_000, "84e3"), (9e5, "0.9e6"), (1.3e6, "1.3e6"), (2.1e9, "2.1e9")],
)
def test_a_count_is_spoken_as_a_person_writes_it(count, text):
    assert spoken_count(count) == text


def test_importing_what_judges_series_imports_neither_scipy_nor_torch():
    code = (
        "import sys, mechtests.alignment, mechtests.falls, mechtests.orders, mechtests.trends; "
        "print([m for m in ('scipy', 'torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_octaves_double():
    assert octaves(3, 1.0, 1e6).tolist() == [1e6, 2e6, 4e6]
