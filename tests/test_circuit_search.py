"""The search on curves made by hand, and on planted networks whose circuit is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests.circuits import others as other_edges
from mechtests.circuits.circuit import Circuit, Floats, names_of, whole
from mechtests.circuits.controls import random_circuit, shuffled
from mechtests.circuits.evaluation import Evaluation
from mechtests.circuits.faithfulness import faithfulness
from mechtests.circuits.graph import Graph
from mechtests.circuits.search import Found, grid, interval, limit_of, scan, smallest
from mechtests.circuits.selection import Ordering, greedy
from mechtests.errors import MeasurementError, UsageError
from tests.planted_circuits import PLANTED, PlantedCircuit

GRAPH = Graph(4, 5)
PROMPTS = 40


def ordering() -> Ordering:
    """Scores by which circuits of n edges have n or n - 1 after they are pruned."""
    scores = np.random.default_rng(0).random(GRAPH.allowed.shape)
    scores[0] += 10.0
    return greedy(GRAPH, scores)


class Curve:
    """Values that depend on the number of edges alone; counts what it is asked."""

    def __init__(self, share: Callable[[int], float], spread: float = 0.0) -> None:
        self.share = share
        self.noise = spread * np.random.default_rng(1).normal(size=PROMPTS)
        self.asked: list[int] = []

    def __call__(self, circuits: Sequence[Circuit]) -> Floats:
        self.asked += [circuit.size for circuit in circuits]
        return np.array(
            [10 * self.share(c.size) + self.noise * self.share(c.size) for c in circuits]
        )

    @property
    def clean(self) -> Floats:
        return 10.0 + self.noise


def searched(
    share: Callable[[int], float], spread: float = 0.0, **how: float
) -> tuple[Found, Curve]:
    curve = Curve(share, spread)
    how = {"limit": 200, **how}
    return smallest(ordering(), curve, curve.clean, None, **how), curve


def step(at: int) -> Callable[[int], float]:
    return lambda edges: 0.9 if edges >= at else 0.3


@given(st.integers(1, 5000), st.floats(1.05, 3.0))
def test_a_grid_rises_to_its_limit_by_steps_of_its_ratio(limit, ratio):
    sizes = grid(limit, ratio=ratio)
    assert sizes[0] == 1
    assert sizes[-1] == limit
    assert (np.diff(sizes) >= 1).all()
    assert (sizes[1:] <= sizes[:-1] * ratio + 1.0 + ratio).all()


def test_a_grid_without_sizes_is_refused():
    with pytest.raises(UsageError, match="limit of 1 at least"):
        grid(0)
    with pytest.raises(UsageError, match="ratio above 1"):
        grid(10, ratio=1.0)


@given(st.integers(1, 195))
@settings(deadline=None, max_examples=40)
def test_where_a_single_step_is_the_smallest_circuit_is_found_to_the_edge(at):
    found, _ = searched(step(at))
    assert found.smallest is not None
    order = ordering()
    enough = (n for n in range(1, 201) if order.circuit(n).size >= at)
    assert found.smallest.n == next(enough, 0)
    assert not found.censored


def test_the_first_crossing_counts_where_the_curve_falls_again():
    found, curve = searched(lambda n: 0.85 if 30 <= n < 60 or n >= 120 else 0.2)
    assert found.smallest is not None
    assert found.smallest.n == 30
    assert max(curve.asked) < 120


def test_a_search_goes_up_and_stops_a_little_behind_the_crossing():
    found, curve = searched(step(20), beyond=4)
    assert [point.n for point in found.grid] == grid(200)[: len(found.grid)].tolist()
    assert int((found.faithfulness(found.grid) >= 0.8).sum()) == 5
    assert max(curve.asked) == found.grid[-1].edges


def test_a_search_that_never_crosses_is_censored_at_the_end_of_the_grid():
    found, curve = searched(lambda n: 0.79)
    assert found.censored
    assert found.smallest is None
    assert (found.limit, found.grid[-1].n) == (200, 200)
    assert max(curve.asked) == 200
    drawn = interval(found, np.random.default_rng(0))
    assert (drawn.low, drawn.high, drawn.censored) == (None, None, 1.0)


def test_a_first_size_that_is_enough_needs_no_refining():
    found, _ = searched(lambda n: 1.0)
    assert found.smallest is not None
    assert found.smallest.n == 1
    assert found.refined == ()


def test_without_refining_the_size_is_one_of_the_grid():
    found, _ = searched(step(150), refine=False)
    assert found.smallest is not None
    assert found.smallest.n in grid(200)
    assert found.smallest.n >= 150


def test_prompts_without_a_gap_are_refused():
    curve = Curve(lambda n: 1.0)
    with pytest.raises(MeasurementError, match="needs a clean mean above 11"):
        smallest(ordering(), curve, curve.clean, curve.clean + 1.0, limit=20)


def test_the_normalised_share_is_what_the_search_compares_where_corrupted_values_are_given():
    curve = Curve(lambda n: n / 200)
    corrupted = np.full(PROMPTS, 5.0)
    found = smallest(ordering(), curve, curve.clean, corrupted, limit=200)
    assert found.smallest is not None
    assert found.smallest.n == 180  # (9 - 5) / (10 - 5) = 0.8
    np.testing.assert_allclose(found.faithfulness([found.smallest]), [0.8])


def test_the_interval_of_a_size_is_wide_where_prompts_disagree():
    def crossing(circuits: Sequence[Circuit]) -> Floats:
        each = np.linspace(20, 120, PROMPTS)  # every prompt has a size of its own
        return np.array([np.clip(c.size / each, 0, 1) for c in circuits])

    clean = np.ones(PROMPTS)
    found = smallest(ordering(), crossing, clean, None, limit=200, beyond=8)
    assert found.smallest is not None
    drawn = interval(found, np.random.default_rng(0))
    assert drawn.low is not None
    assert drawn.high is not None
    assert drawn.low <= found.smallest.edges <= drawn.high
    assert drawn.high > 1.1 * drawn.low
    pairs = interval(found, np.random.default_rng(0), cluster=np.arange(PROMPTS) // 10)
    assert pairs.low is not None
    assert pairs.low <= drawn.low
    alike, _ = searched(step(20))
    narrow = interval(alike, np.random.default_rng(0), of="n")
    assert narrow.low == narrow.high == min(p.n for p in alike.grid if p.n >= 20)


def test_sizes_that_are_pruned_to_the_same_edges_are_evaluated_once():
    scores = np.zeros(GRAPH.allowed.shape)
    scores[1:, -1] = 5.0  # first come edges to the logits that nothing reaches
    scores[0, -1] = 1.0
    asked: list[int] = []

    def evaluate(circuits: Sequence[Circuit]) -> Floats:
        asked.extend(circuit.size for circuit in circuits)
        return np.array([[float(circuit.size)] for circuit in circuits])

    points = scan(greedy(GRAPH, scores), evaluate, [1, 5, 10, GRAPH.writers])
    assert asked == [0, 1]
    assert [point.edges for point in points] == [0, 0, 0, 1]
    assert [point.values.tolist() for point in points] == [[0.0], [0.0], [0.0], [1.0]]


def test_the_limit_is_a_share_of_the_edges():
    assert limit_of(Graph(12, 12, parallel=True)) == 1617
    assert limit_of(Graph(1, 1), 0.0) == 1


# ---------------------------------------------------------------- planted circuits


def evaluated(planted: PlantedCircuit) -> tuple[Evaluation, Floats, Floats]:
    """Its circuits, and each edge's exact score: what the answer loses without it."""
    others = other_edges.corrupted(planted.network, planted.clean, planted.corrupted)
    evaluation = Evaluation(planted.network, planted.clean, others)
    graph = evaluation.graph
    without = []
    for edge in np.argwhere(graph.allowed):
        edges = whole(graph).edges.copy()
        edges[tuple(edge)] = False
        without.append(Circuit(graph, edges))
    clean = planted.difference(evaluation.clean()).double().numpy()
    scores = np.zeros(graph.allowed.shape)
    lost = clean - evaluation.values(without, planted.difference)
    scores[graph.allowed] = lost.mean(1)
    return evaluation, scores, clean


@pytest.mark.parametrize("name", PLANTED)
def test_of_a_planted_network_the_edges_of_its_circuit_alone_have_an_effect(name):
    planted = PLANTED[name]()
    _, scores, clean = evaluated(planted)
    strong = Circuit(Graph(2, 4), np.abs(scores) > 0.1 * clean.mean(), scores)
    assert set(names_of(strong)) == planted.edges
    rest = np.abs(scores)[~strong.edges]
    assert rest.max() < 1e-3 * clean.mean()


@pytest.mark.parametrize("name", PLANTED)
def test_the_search_finds_a_planted_circuit_exactly_and_no_extra_edge(name):
    planted = PLANTED[name]()
    evaluation, scores, clean = evaluated(planted)
    order = greedy(evaluation.graph, scores)

    def evaluate(circuits: Sequence[Circuit]) -> Floats:
        return evaluation.values(circuits, planted.difference)

    corrupted = planted.difference(evaluation.others.final).double().numpy()
    found = smallest(order, evaluate, clean, corrupted, threshold=0.99, limit=40)
    assert found.smallest is not None
    circuit = order.circuit(found.smallest.n)
    assert set(names_of(circuit)) == planted.edges
    assert abs(found.faithfulness([found.smallest])[0] - 1) < 1e-3


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_circuit_without_one_of_its_edges_keeps_nothing(name):
    planted = PLANTED[name]()
    evaluation, scores, clean = evaluated(planted)
    order = greedy(evaluation.graph, scores)
    circuit = order.circuit(len(planted.edges))
    corrupted = planted.difference(evaluation.others.final).double().numpy()
    fewer = []
    for edge in np.argwhere(circuit.edges):
        edges = circuit.edges.copy()
        edges[tuple(edge)] = False
        fewer.append(Circuit(evaluation.graph, edges))
    values = evaluation.values(fewer, planted.difference)
    assert np.abs(faithfulness(values, clean, corrupted)).max() < 1e-3


@pytest.mark.parametrize("name", PLANTED)
def test_random_circuits_and_shuffled_scores_miss_a_planted_circuit(name):
    planted = PLANTED[name]()
    evaluation, scores, clean = evaluated(planted)
    generator = np.random.default_rng(0)
    n = len(planted.edges)
    graph = evaluation.graph
    random = [random_circuit(graph, n, generator) for _ in range(20)]
    random += [greedy(graph, shuffled(graph, scores, generator)).circuit(n) for _ in range(20)]
    corrupted = planted.difference(evaluation.others.final).double().numpy()
    shares = faithfulness(evaluation.values(random, planted.difference), clean, corrupted)
    assert (np.abs(shares) < 0.1).mean() > 0.7
