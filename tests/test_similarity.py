"""How alike circuits are: the algebra of Jaccard indices, chance, and J*."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests.circuits.circuit import Circuit, empty
from mechtests.circuits.graph import Graph, Read
from mechtests.circuits.selection import greedy
from mechtests.circuits.similarity import (
    adjusted,
    by_chance,
    edge_jaccard,
    ewma,
    node_jaccard,
)
from mechtests.errors import MeasurementError, UsageError

graphs = st.builds(Graph, st.integers(1, 3), st.integers(1, 4), parallel=st.booleans())
seeds = st.integers(0, 2**32 - 1)
BIG = Graph(6, 12)


def circuit(graph: Graph, seed: int, n: int) -> Circuit:
    scores = np.random.default_rng(seed).normal(size=graph.allowed.shape)
    return greedy(graph, np.where(graph.allowed, scores, 0.0)).circuit(min(n, graph.edges))


def only(graph: Graph, *names: str) -> Circuit:
    """A circuit of some edges by name, each with a score of its own."""
    edges, scores = np.zeros_like(graph.allowed), np.zeros(graph.allowed.shape)
    for writer, reader in np.argwhere(graph.allowed).tolist():
        if (name := graph.edge_name(writer, reader)) in names:
            edges[writer, reader] = True
            scores[writer, reader] = 1.0 + names.index(name)
    assert edges.sum() == len(names)
    return Circuit(graph, edges, scores)


@given(graphs, seeds, seeds, st.integers(1, 60), st.integers(1, 60))
@settings(deadline=None)
def test_jaccard_is_symmetric_between_0_and_1_and_1_of_a_circuit_with_itself(graph, a, b, n, m):
    first, second = circuit(graph, a, n), circuit(graph, b, m)
    for similarity in (node_jaccard, edge_jaccard):
        assert similarity(first, first) == 1.0
        there, back = similarity(first, second), similarity(second, first)
        assert there == pytest.approx(back)
        assert 0.0 <= there <= 1.0


def test_disjoint_circuits_are_at_0_though_both_have_input_and_logits():
    graph = Graph(2, 2)
    first = only(graph, "input->a0.h0<v>", "a0.h0->logits")
    second = only(graph, "input->a0.h1<v>", "a0.h1->logits")
    assert node_jaccard(first, second) == 0.0
    assert edge_jaccard(first, second) == 0.0


def test_jaccard_counts_nodes_and_weighs_edges():
    graph = Graph(2, 2)
    first = only(graph, "input->m0", "m0->logits")  # weights 1/3, 2/3
    second = only(graph, "m0->logits", "input->m0", "input->m1", "m1->logits")  # .1 .2 .3 .4
    assert node_jaccard(first, second) == 0.5
    low, high = 0.2 + 0.1, 1 / 3 + 2 / 3 + 0.3 + 0.4
    assert edge_jaccard(first, second) == pytest.approx(low / high)


def test_a_weight_is_a_share_so_that_scale_and_sign_do_not_count():
    first, second = circuit(BIG, 0, 80), circuit(BIG, 1, 80)
    assert second.scores is not None
    scaled = Circuit(BIG, second.edges, -7.0 * second.scores)
    assert edge_jaccard(first, scaled) == pytest.approx(edge_jaccard(first, second))


def test_empty_circuits_are_alike_and_unlike_all_others():
    some = only(BIG, "input->m0", "m0->logits")
    direct = only(BIG, "input->logits")
    for similarity in (node_jaccard, edge_jaccard):
        assert similarity(empty(BIG), empty(BIG)) == 1.0
        assert similarity(empty(BIG), some) == 0.0
        assert similarity(direct, some) == 0.0
    assert node_jaccard(direct, empty(BIG)) == 0.0


def test_circuits_without_scores_or_of_other_graphs_are_refused():
    some = only(BIG, "input->m0", "m0->logits")
    with pytest.raises(MeasurementError, match="a circuit with scores"):
        edge_jaccard(some, Circuit(BIG, some.edges))
    with pytest.raises(MeasurementError, match="not all 0"):
        edge_jaccard(some, Circuit(BIG, some.edges, np.zeros(BIG.allowed.shape)))
    with pytest.raises(UsageError, match="circuits of one graph"):
        node_jaccard(some, empty(Graph(6, 11)))


def relabelled(circuit: Circuit, generator: np.random.Generator) -> Circuit:
    """The circuit with the heads of every layer in another, random order, edge by edge."""
    graph = circuit.graph
    assert circuit.scores is not None
    to = [generator.permutation(graph.heads).tolist() for _ in range(graph.layers)]
    edges, scores = np.zeros_like(circuit.edges), np.zeros(circuit.edges.shape)
    for writer, reader in np.argwhere(circuit.edges).tolist():
        layer, place = divmod(writer - 1, graph.heads + 1)
        goes = graph.head(layer, to[layer][place]) if writer and place < graph.heads else writer
        read = graph.reads[reader]
        comes = graph.reader(
            Read(read.layer, read.kind, to[read.layer][read.head])
            if read.kind in ("q", "k", "v")
            else read
        )
        edges[goes, comes] = True
        scores[goes, comes] = circuit.scores[writer, reader]
    return Circuit(graph, edges, scores)


@given(graphs, seeds, st.integers(1, 60))
@settings(deadline=None)
def test_a_relabelled_circuit_has_the_same_nodes_in_every_layer_and_the_same_scores(graph, seed, n):
    first = circuit(graph, seed, n)
    moved = relabelled(first, np.random.default_rng(seed))
    assert moved.connected
    assert moved.size == first.size
    for layer in range(graph.layers):
        heads = slice(graph.head(layer, 0), graph.mlp(layer))
        assert moved.nodes[heads].sum() == first.nodes[heads].sum()
        assert moved.nodes[graph.mlp(layer)] == first.nodes[graph.mlp(layer)]
    assert moved.scores is not None
    assert first.scores is not None
    np.testing.assert_array_equal(
        np.sort(moved.scores[moved.edges]), np.sort(first.scores[first.edges])
    )


def test_relabelling_moves_heads_and_keeps_their_edges_together():
    graph = Graph(2, 40)
    first = only(graph, "input->a0.h7<q>", "a0.h7->a1.h3<k>", "a1.h3->m1", "m1->logits")
    moved = relabelled(first, np.random.default_rng(0))
    assert node_jaccard(first, moved) < 1.0
    assert moved.size == 4
    assert moved.connected


def test_chance_is_what_sets_of_as_many_heads_in_each_layer_share():
    first, second = circuit(BIG, 0, 60), circuit(BIG, 1, 90)
    found = by_chance(first, second, node_jaccard, np.random.default_rng(0), pairs=400)
    generator, slow = np.random.default_rng(1), []
    for _ in range(400):
        shared = either = 0
        for layer in range(BIG.layers):
            sizes = [
                int(each.nodes[BIG.head(layer, 0) : BIG.mlp(layer)].sum())
                for each in (first, second)
            ]
            mine, theirs = (set(generator.permutation(BIG.heads)[:size]) for size in sizes)
            mlps = [bool(each.nodes[BIG.mlp(layer)]) for each in (first, second)]
            shared += len(mine & theirs) + all(mlps)
            either += len(mine | theirs) + any(mlps)
        slow.append(shared / either)
    error = np.hypot(found.std(), np.std(slow)) / 20
    assert abs(found.mean() - np.mean(slow)) < 4 * error


def test_chance_of_edges_is_that_of_circuits_with_their_heads_in_another_order():
    graph = Graph(3, 4)
    first, second = circuit(graph, 0, 40), circuit(graph, 0, 60)
    found = by_chance(first, second, edge_jaccard, np.random.default_rng(0), pairs=1000)
    generator = np.random.default_rng(1)
    slow = [edge_jaccard(relabelled(first, generator), second) for _ in range(1000)]
    error = np.hypot(found.std(), np.std(slow)) / np.sqrt(1000)
    assert abs(found.mean() - np.mean(slow)) < 4 * error
    np.testing.assert_allclose(
        np.quantile(found, [0.1, 0.9]), np.quantile(slow, [0.1, 0.9]), rtol=0.2
    )
    assert found.max() > 2 * found.min()


def test_chance_of_another_similarity_or_of_an_empty_circuit_is_said():
    some = only(BIG, "input->m0", "m0->logits")
    for similarity in (node_jaccard, edge_jaccard):
        np.testing.assert_array_equal(
            by_chance(some, empty(BIG), similarity, np.random.default_rng(0), pairs=3), 0.0
        )
    with pytest.raises(UsageError, match="node_jaccard and edge_jaccard"):
        by_chance(some, some, lambda a, b: 1.0, np.random.default_rng(0))


def test_j_star_is_0_at_chance_1_at_the_ceiling_and_undefined_between_near_ones():
    assert adjusted(0.3, 0.3, 0.8) == 0.0
    assert adjusted(0.8, 0.3, 0.8) == pytest.approx(1.0)
    assert adjusted(0.55, 0.3, 0.8) == pytest.approx(0.5)
    assert adjusted(0.2, 0.3, 0.8) == pytest.approx(-0.2)
    assert adjusted(0.5, 0.41, 0.5) is None


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=20), st.floats(0.05, 1.0))
def test_a_moving_average_stays_among_its_values_and_starts_at_the_first(values, alpha):
    smooth = ewma(values, alpha)
    assert len(smooth) == len(values)
    assert smooth[0] == values[0]
    assert min(values) - 1e-9 <= smooth.min()
    assert smooth.max() <= max(values) + 1e-9


def test_a_moving_average_weighs_the_last_value_by_alpha():
    np.testing.assert_allclose(ewma([0.0, 1.0, 1.0]), [0.0, 0.5, 0.75])
    np.testing.assert_allclose(ewma([2.0, 4.0, 8.0], 1.0), [2.0, 4.0, 8.0])
    with pytest.raises(UsageError, match="alpha above 0"):
        ewma([1.0], 0.0)
