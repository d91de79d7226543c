"""Circuits over training: equal spacing, fixed lags, churn, and the smallest faithful size."""

from __future__ import annotations

import numpy as np
import pytest

from mechtests import means
from mechtests.circuits import finding, stability
from mechtests.circuits.graph import Graph
from mechtests.circuits.similarity import jaccard
from mechtests.measurement import Measurement
from mechtests.verdict import Outcome
from tests.curves import allowed

GRAPH = Graph(4, 6, parallel=True)
COUNT = 16
RUNS = 200


def scores(*halves: np.ndarray) -> Measurement:
    """Edge scores of both halves."""
    values = dict(zip(("selection", "evaluation"), halves, strict=True))
    facts = np.array([GRAPH.layers, GRAPH.heads, GRAPH.parallel, GRAPH.heads], dtype=float)
    axes = dict.fromkeys(values, ("writer", "reader"))
    half = np.arange(20) % 2
    return Measurement(
        "circuits.edge_scores",
        {**values, "graph": facts},
        {**axes, "graph": ("size",)},
        {},
        np.arange(20),
        np.zeros(20, dtype=np.int64),
        half,
    )


def drawn(generator: np.random.Generator) -> np.ndarray:
    return generator.standard_normal((GRAPH.writers, GRAPH.readers)) * GRAPH.allowed


def circuits(series: list[np.ndarray], noise: float, seed: int = 0) -> stability.Circuits:
    """Circuits of 40 edges whose halves see the scores through noise."""
    generator = np.random.default_rng(seed)
    each = [scores(*(s + noise * drawn(generator) for _ in "SE")) for s in series]
    return stability.Circuits.of(each, 40, np.random.default_rng(1))


def test_checkpoints_in_equal_steps_are_all_taken_and_in_equal_octaves_too_few_are() -> None:
    assert stability.equally_spaced(np.arange(1.0, 9.0)) == list(range(8))
    assert stability.equally_spaced(2.0 ** np.arange(10)) == []


def test_of_a_schedule_that_becomes_even_the_even_part_is_taken() -> None:
    positions = np.array([0.3, 0.6, 1.1, 2.3, 4.5, 6.4, 9.0, 11.75, 14.5, 17.25, 20.0])
    assert stability.equally_spaced(positions[4:]) == [1, 2, 3, 4, 5, 6]


def test_the_same_circuit_throughout_has_j_star_1_at_every_lag() -> None:
    same = [drawn(np.random.default_rng(0))] * COUNT
    found = circuits(same, noise=0.0)
    for kind in stability.KINDS:
        for lag in stability.LAGS:
            np.testing.assert_allclose(found.alike(kind, lag, pairs=19), 1.0)


def test_circuits_that_have_nothing_to_do_with_each_other_have_j_star_0_on_average() -> None:
    generator = np.random.default_rng(0)
    found = circuits([drawn(generator) for _ in range(60)], noise=0.0)
    alike = found.alike("weighted edges", 1, pairs=19)
    assert abs(np.nanmean(alike)) < 0.05


def test_where_the_halves_agree_no_more_than_by_chance_j_star_is_undefined() -> None:
    generator = np.random.default_rng(0)
    found = circuits([drawn(generator) for _ in range(8)], noise=100.0)
    assert np.isnan(found.alike("weighted edges", 1, pairs=19)).all()


def wandering(turnovers: np.ndarray, seed: int) -> np.ndarray:
    """Node sets of which each step replaces so large a part, ``[moment, node]``."""
    generator = np.random.default_rng(seed)
    sets = np.zeros((len(turnovers) + 1, 60), dtype=bool)
    sets[0, :20] = True
    for at, turnover in enumerate(turnovers):
        gone = generator.permutation(np.flatnonzero(sets[at]))[: generator.binomial(20, turnover)]
        come = generator.permutation(np.flatnonzero(~sets[at]))[: len(gone)]
        sets[at + 1] = sets[at]
        sets[at + 1, gone], sets[at + 1, come] = False, True
    return sets


def contrast(sets: np.ndarray) -> means.Mean:
    found = stability.fixed_lag_contrast(lambda lag: jaccard(sets[:-lag], sets[lag:]), len(sets))
    assert found is not None
    return found


@pytest.mark.parametrize("count", [6, 20])
def test_a_stationary_series_is_called_converging_no_more_often_than_the_level(count: int) -> None:
    held = 0
    for seed in range(RUNS):
        found = contrast(wandering(np.full(count - 1, 0.3), seed))
        held += means.above(found, 0.05, what="x").outcome is Outcome.HOLDS
    assert held <= allowed(0.05, RUNS)


def test_a_series_whose_turnover_falls_is_found_and_not_reached_by_churn() -> None:
    sets = wandering(np.linspace(0.6, 0.0, 19), 0)
    verdict = means.above(contrast(sets), 0.05, what="x")
    assert verdict.outcome is Outcome.HOLDS, verdict


def test_churn_is_reached_by_a_stationary_series_and_not_by_one_that_settles() -> None:
    settled = drawn(np.random.default_rng(0))
    generator = np.random.default_rng(1)
    series = [settled + size * drawn(generator) for size in np.linspace(3.0, 0.0, COUNT)]
    settling = circuits(series, noise=0.0)
    still = circuits([settled + drawn(generator) for _ in range(COUNT)], noise=0.0)
    assert not stability.churn(settling, np.random.default_rng(2)).reached
    assert stability.churn(still, np.random.default_rng(2)).reached


def test_the_error_of_neighbours_is_a_jackknife_and_undefined_pairs_are_left_out() -> None:
    values = np.array([0.2, np.nan, 0.6, 0.4, 0.5])
    found = stability.neighbours(values)
    assert found is not None
    assert found.mean == pytest.approx(np.nanmean(values))
    assert 0 < found.error < 0.3
    assert stability.neighbours(np.array([0.1, np.nan, 0.2])) is None


def test_a_size_is_the_first_on_the_grid_that_keeps_80_percent_on_the_other_half() -> None:
    scored = scores(*[drawn(np.random.default_rng(0))] * 2)
    grid = finding.grid_of(GRAPH, ratio=1.15)
    half = np.arange(20) % 2
    kept = np.zeros((20, len(grid)))
    kept[half == 1, 5:] = 0.81
    kept[half == 0, 3:] = 0.7
    found = Measurement(
        "circuits.sizes",
        {"clean": np.ones(20), "corrupted": np.zeros(20), "kept": kept},
        {"clean": ("prompt",), "corrupted": ("prompt",), "kept": ("prompt", "size")},
        {},
        np.arange(20),
        np.zeros(20, dtype=np.int64),
        half,
    )
    size = finding.smallest(scored, found, "selection")
    assert not size.censored
    assert size.size.edges == finding.ordering(scored, "selection").circuit(int(grid[5])).size
    never = finding.smallest(scored, found, "evaluation")
    assert never.censored
    assert never.size.edges == finding.ordering(scored, "evaluation").circuit(int(grid[-1])).size


def test_a_stationary_series_has_the_sizes_of_the_run_where_few_nodes_are_left_to_come_in() -> None:
    sizes, nodes = np.array([3, 9, 5, 10, 8]), 10
    for seed in range(50):
        found = stability._wandering(sizes, 0.6, nodes, np.random.default_rng(seed))
        np.testing.assert_array_equal(found.sum(1), sizes)
