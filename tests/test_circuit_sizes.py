"""The sizes of circuits: what both halves share over training, and how they go with parameters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mechtests import means
from mechtests.circuits import sizes
from mechtests.circuits.search import Found, Point
from mechtests.measurement import Measurement
from mechtests.verdict import Outcome, Verdict
from tests.curves import allowed

RUNS = 400
HOLDS, REFUTED, INCONCLUSIVE = Outcome.HOLDS, Outcome.REFUTED, Outcome.INCONCLUSIVE


def series(
    generator: np.random.Generator, count: int, together: float, apart: float, line: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of both halves' circuits, and tokens half an octave apart."""
    places = 0.5 * np.arange(count)
    logs = 6.0 + line * places[:, None] + together * generator.standard_normal((count, 1))
    logs = logs + apart * generator.standard_normal((count, 2))
    return 2.0**logs, 1e6 * 2.0**places


def judged(seed: int, count: int, together: float, apart: float, line: float = 0.0) -> Verdict:
    found = series(np.random.default_rng(seed), count, together, apart, line)
    return sizes.fluctuates(*found, what="x")


def outcomes(count: int, together: float, apart: float, line: float = 0.0) -> list[Outcome]:
    return [judged(seed, count, together, apart, line).outcome for seed in range(RUNS)]


def test_the_covariance_is_that_of_the_residuals_of_two_separate_regressions() -> None:
    found, tokens = series(np.random.default_rng(0), 12, 0.5, 0.5, 0.3)
    left = []
    for half in found.T:
        line = stats.linregress(np.log2(tokens), np.log2(half))
        left.append(np.log2(half) - line.intercept - line.slope * np.log2(tokens))
    assert sizes.covariance(found, tokens) == pytest.approx(np.dot(*left) / 10)


def test_the_covariance_of_what_is_shared_is_not_biased_by_the_line() -> None:
    found = [
        sizes.covariance(*series(np.random.default_rng(seed), 8, 0.5, 1.0, 2.0))
        for seed in range(4000)
    ]
    assert np.mean(found) == pytest.approx(0.25, abs=3 * np.std(found) / np.sqrt(len(found)))


def test_the_error_is_the_jackknife_with_the_line_drawn_again() -> None:
    found, tokens = series(np.random.default_rng(3), 20, 1.0, 0.2)
    without = []
    for at in range(20):
        kept = np.arange(20) != at
        without.append(sizes.covariance(found[kept], tokens[kept]))
    error = np.sqrt(19 / 20 * np.sum((np.array(without) - np.mean(without)) ** 2))
    verdict = sizes.fluctuates(found, tokens, what="x")
    assert verdict.interval is not None
    low, high = (end * abs(end) for end in verdict.interval)
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 19) * error)
    assert (high + low) / 2 == pytest.approx(sizes.covariance(found, tokens))


@given(st.integers(0, 1000), st.floats(-3, 3), st.floats(-3, 3), st.floats(0.1, 100), st.booleans())
@settings(max_examples=50, deadline=None)
def test_neither_a_line_nor_the_unit_of_tokens_nor_which_half_is_first_matters(
    seed: int, one: float, other: float, scale: float, swapped: bool
) -> None:
    found, tokens = series(np.random.default_rng(seed), 12, 0.5, 0.5)
    lines = (tokens[:, None] / 1e6) ** np.array([one, other])
    tilted = 2.0**30 * found * lines  # so large that none is below 1
    turned = tilted[:, ::-1] if swapped else tilted
    assert sizes.covariance(turned, scale * tokens) == pytest.approx(
        sizes.covariance(found, tokens), abs=1e-9
    )


def test_sizes_that_vary_together_hold_and_those_that_vary_apart_do_not() -> None:
    together, apart = outcomes(20, 1.0, 0.2), outcomes(20, 0.0, 0.5)
    assert together.count(HOLDS) > 0.8 * RUNS
    assert together.count(REFUTED) == 0
    assert apart.count(HOLDS) == 0


@pytest.mark.parametrize("count", [6, 12, 20])
@pytest.mark.parametrize(
    ("together", "apart"), [(0.0, 1.0), (0.25, 0.02), (0.25, 0.25), (0.25, 1.0)]
)
def test_at_the_margin_and_below_it_holds_no_more_often_than_the_level(
    count: int, together: float, apart: float
) -> None:
    assert outcomes(count, together, apart).count(HOLDS) <= allowed(0.025, RUNS)


@pytest.mark.parametrize(("count", "level"), [(6, 0.10), (12, 0.07), (20, 0.05), (40, 0.04)])
@pytest.mark.parametrize("apart", [0.02, 0.25, 1.0])
def test_at_the_margin_it_is_refuted_about_as_often_as_is_said(
    count: int, level: float, apart: float
) -> None:
    assert outcomes(count, 0.25, apart).count(REFUTED) <= allowed(level, RUNS)


def test_a_steep_line_is_no_fluctuation_and_sizes_on_it_are_refuted() -> None:
    found = outcomes(20, 0.0, 0.1, line=1.0)
    assert found.count(HOLDS) == 0
    assert found.count(REFUTED) > 0.9 * RUNS


def test_sizes_that_never_change_have_no_interval_and_decide_nothing() -> None:
    for line in (0.0, 0.5):
        verdict = judged(0, 12, 0.0, 0.0, line)
        assert verdict.outcome is INCONCLUSIVE, verdict
        assert "nothing varies" in verdict.sentence


def test_a_checkpoint_before_any_training_is_left_out_and_fewer_than_six_decide_nothing() -> None:
    found, tokens = series(np.random.default_rng(0), 7, 1.0, 0.1)
    untrained = np.r_[0.0, tokens[1:]]
    at_first = sizes.fluctuates(found, untrained, what="x")
    assert at_first.estimate == sizes.fluctuates(found[1:], tokens[1:], what="x").estimate
    few = sizes.fluctuates(found[1:], untrained[:6], what="x")
    assert few.outcome is INCONCLUSIVE
    assert "6 checkpoints after the start decide, there are 5" in few.sentence


def test_the_sentence_has_the_root_its_interval_and_the_number_of_checkpoints() -> None:
    verdict = judged(1, 20, 1.0, 0.2)
    assert verdict.estimate == pytest.approx(
        np.sqrt(sizes.covariance(*series(np.random.default_rng(1), 20, 1.0, 0.2)))
    )
    assert "octaves over 20 checkpoints, claimed above 0.25" in verdict.sentence


def test_a_permuted_half_is_below_what_varies_together_and_not_below_what_varies_apart() -> None:
    def reached(seed: int, together: float) -> bool:
        found = series(np.random.default_rng(seed), 12, together, 0.5)
        return sizes.permuted(*found, np.random.default_rng(seed)).reached

    assert sum(reached(seed, 1.5) for seed in range(100)) <= 5
    passed = sum(not reached(seed, 0.0) for seed in range(RUNS))
    assert passed <= allowed(0.07, RUNS)  # a line takes two of twelve, so that p is a little small


def test_the_permuted_control_says_what_p_it_could_have_had() -> None:
    found = series(np.random.default_rng(0), 12, 1.0, 0.1)
    assert sizes.permuted(*found, np.random.default_rng(0)).p_min == pytest.approx(0.001)
    five = series(np.random.default_rng(0), 5, 1.0, 0.1)
    assert sizes.permuted(*five, np.random.default_rng(0)).p_min == pytest.approx(1 / 120)


def circuit(edges: int, kept: Sequence[float], smallest: bool = True) -> Found:
    """The smallest circuit of a grid of two, what each keeps being the same on all prompts."""
    values = np.outer(kept, np.ones(20))
    points = tuple(Point(e, e, e // 2, v) for e, v in zip((edges, 2 * edges), values, strict=True))
    found = Found.on_grid(points, np.ones(20), np.zeros(20), 0.8)
    assert (found.smallest is not None) == smallest
    return found


def test_sizes_are_counted_by_checkpoint_and_half() -> None:
    pairs = [[circuit(8, (0.9, 0.9)), circuit(8, (0.7, 0.9))], [circuit(4, (0.9, 1.0))] * 2]
    assert sizes.counts(pairs, "edges").tolist() == [[8, 16], [4, 4]]
    assert sizes.counts(pairs, "nodes").tolist() == [[4, 8], [2, 2]]


def test_where_over_a_tenth_of_the_sizes_are_ends_of_grids_nothing_is_decided() -> None:
    found, never = circuit(8, (0.9, 0.9)), circuit(8, (0.1, 0.2), smallest=False)
    verdict = Verdict(HOLDS, "sizes vary", p=0.001)
    tenth = [[found, found]] * 9 + [[found, never], [found, never]]
    assert sizes.uncensored(verdict, [[found, found]] * 9 + [[never, never]]) is verdict
    assert sizes.uncensored(verdict, tenth) is verdict
    more = sizes.uncensored(verdict, [[found, never]] * 2 + [[found, found]] * 3)
    assert more.outcome is INCONCLUSIVE
    assert more.sentence.startswith("2 of 10 circuits never keep 80%")


def test_a_log_size_is_a_mean_over_checkpoints_of_both_halves() -> None:
    found = sizes.log_size(np.array([[8, 32], [16, 64], [32, 128]]))
    assert found.mean == pytest.approx(5.0)
    assert found.error == pytest.approx(1 / np.sqrt(3))
    assert "3 checkpoints" in means.above(found, 0.0, what="size").sentence
    empty = sizes.log_size(np.array([[0, 1], [1, 4]]))
    assert empty.mean == pytest.approx(0.5)


def test_prompts_drawn_again_move_the_size_where_prompts_disagree_and_only_there() -> None:
    kept = np.outer((0.9, 0.9), np.ones(20))
    apart = np.stack([np.where(np.arange(20) < 9, 0.0, 1.5), np.ones(20)])
    shown = []
    for values in (kept, apart):
        points = tuple(Point(e, e, e, v) for e, v in zip((8, 16), values, strict=True))
        found = Found.on_grid(points, np.ones(20), np.zeros(20), 0.8)
        half = np.arange(40) % 2
        measured = Measurement(
            "circuits.sizes", {}, {}, {}, np.arange(40), np.zeros(40, dtype=np.int64), half
        )
        shown.append(sizes.redrawn([found, found], measured, np.random.default_rng(0)))
    same, other = shown
    assert same == [{"edges": 8.0, "low": 8.0, "high": 8.0}] * 2
    assert all((each["low"], each["high"]) == (8.0, 16.0) for each in other)


PARAMETERS = {"70m": 70e6, "160m": 160e6, "410m": 410e6, "1.4b": 1.4e9, "2.8b": 2.8e9}
RECORDED = {
    "ioi": ((28.9, 43.3, 88.3, 46.6, 135.4), 0.789, 0.11),
    "greater_than": ((13.2, 17.3, 36.7, 35.0, 72.8), 0.941, 0.017),
    "pronoun": ((17.7, 23.7, 39.3, 56.6, 42.3), 0.631, 0.25),
    "sva": ((15.0, 34.7, 51.8, 93.9, 97.8), 0.890, 0.043),
}
"""Mean nodes that Tigges et al. recorded of five Pythia models, and r and p with true sizes."""


@pytest.mark.parametrize("task", RECORDED)
def test_the_recorded_circuits_go_with_true_parameter_counts_as_scipy_says(task: str) -> None:
    nodes, r, p = RECORDED[task]
    counts = {name: np.full((3, 2), each) for name, each in zip(PARAMETERS, nodes, strict=True)}
    parameters = {name: int(count) for name, count in PARAMETERS.items()}
    found = sizes.with_parameters(dict(reversed(counts.items())), parameters)
    assert found["pearson"] == pytest.approx(r, abs=0.002)
    assert found["pearson_p"] == pytest.approx(p, rel=0.1)
    expected = stats.pearsonr(list(PARAMETERS.values()), nodes)
    assert (found["pearson"], found["pearson_p"]) == pytest.approx(tuple(expected))
    tau = stats.kendalltau(list(PARAMETERS.values()), nodes, alternative="greater")
    assert (found["kendall"], found["kendall_p"]) == pytest.approx(tuple(tau))


def test_two_models_or_sizes_that_are_all_alike_have_no_correlation() -> None:
    two = {"a": np.ones((1, 2)), "b": 2 * np.ones((1, 2))}
    alike = dict.fromkeys("abc", np.ones((1, 2)))
    for counts in (two, alike):
        found = sizes.with_parameters(counts, {name: at + 1 for at, name in enumerate(counts)})
        assert set(found.values()) == {None}
