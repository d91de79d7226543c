"""Selecting and pruning: algebra on random graphs, files, and the reference implementation."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests.circuits.circuit import Circuit, empty, names_of, whole
from mechtests.circuits.controls import random_circuit, shuffled
from mechtests.circuits.graph import Graph
from mechtests.circuits.selection import Ordering, greedy, strongest
from mechtests.errors import MeasurementError, UsageError


def same(first: Circuit, second: Circuit) -> bool:
    """Whether two circuits of one graph have the same edges."""
    return first.graph == second.graph and bool((first.edges == second.edges).all())


FILE = Path(__file__).parents[2] / "shared/reference/eap_ig_smollm2_ioi20.safetensors"

graphs = st.builds(
    Graph, st.integers(1, 4), st.integers(1, 4), parallel=st.booleans(), groups=st.none()
)
seeds = st.integers(0, 2**32 - 1)


def drawn(graph: Graph, seed: int, *, ties: bool = False) -> np.ndarray:
    """Scores, with only a few different values where ties are wanted."""
    scores = np.random.default_rng(seed).normal(size=graph.allowed.shape)
    return np.round(scores) if ties else scores


def some_edges(graph: Graph, seed: int, share: float) -> Circuit:
    generator = np.random.default_rng(seed)
    return Circuit(graph, graph.allowed & (generator.random(graph.allowed.shape) < share))


def slowly(graph: Graph, scores: np.ndarray, n: int) -> np.ndarray:
    """The definition: n times the strongest edge into a node of the circuit."""
    edges, nodes = np.zeros_like(graph.allowed), {graph.writers}
    for _ in range(n):
        open_ = graph.allowed & ~edges & np.isin(graph.nodes, list(nodes))[None, :]
        if not open_.any():
            break
        best = np.where(open_, np.abs(scores), -1.0)
        place = np.unravel_index(int(best.argmax()), best.shape)
        edges[place] = True
        nodes.add(int(place[0]))
    return edges


def dead(circuit: Circuit) -> set[int]:
    """Nodes with an edge that have none in, or none out, by brute force."""
    graph, found = circuit.graph, set()
    for node in np.flatnonzero(circuit.nodes).tolist():
        into = circuit.edges[:, graph.nodes == node].any()
        out = node == graph.writers or circuit.edges[node].any()
        if not ((into or node == 0) and out):
            found.add(node)
    return found


@given(graphs, seeds, st.booleans(), st.integers(0, 60))
@settings(deadline=None)
def test_greedy_takes_the_strongest_edge_into_the_circuit_each_time(graph, seed, ties, n):
    scores = drawn(graph, seed, ties=ties)
    order = greedy(graph, scores)
    n = min(n, len(order))
    assert (order.first(n).edges == slowly(graph, scores, n)).all()
    assert len(order) == graph.edges


@given(graphs, seeds, st.booleans(), st.sampled_from([greedy, strongest]))
@settings(deadline=None)
def test_circuits_of_more_edges_hold_those_of_fewer(graph, seed, ties, choose):
    order: Ordering = choose(graph, drawn(graph, seed, ties=ties))
    before = empty(graph)
    for n in range(0, len(order) + 1, 1 + len(order) // 12):
        circuit = order.first(n)
        assert circuit.size == n
        assert not (before.edges & ~circuit.edges).any()
        assert not (before.pruned().edges & ~circuit.pruned().edges).any()
        before = circuit
    assert same(order.first(len(order)), whole(graph))


@given(graphs, seeds, st.floats(0, 1))
@settings(deadline=None)
def test_a_pruned_circuit_has_no_dead_node_and_is_not_pruned_again(graph, seed, share):
    circuit = some_edges(graph, seed, share)
    pruned = circuit.pruned()
    assert not dead(pruned)
    assert pruned.connected
    assert same(pruned.pruned(), pruned)
    assert not (pruned.edges & ~circuit.edges).any()
    # what was pruned is on no path: an edge of it, put back, is pruned again
    for edge in np.argwhere(circuit.edges & ~pruned.edges)[:5]:
        more = pruned.edges.copy()
        more[tuple(edge)] = True
        assert same(Circuit(graph, more).pruned(), pruned)


@given(graphs, seeds)
@settings(deadline=None)
def test_every_node_of_a_greedy_circuit_reaches_the_logits_before_it_is_pruned(graph, seed):
    circuit = greedy(graph, drawn(graph, seed)).first(graph.edges // 3)
    assert not (circuit.nodes & ~circuit.needed)[:-1].any()


def test_pruning_needs_more_than_one_pass_where_a_chain_is_dead():
    graph = Graph(4, 1)
    edges = np.zeros_like(graph.allowed)
    readers = {read: place for place, read in enumerate(graph.reads)}
    chain = [read for read in readers if read.kind == "mlp"]
    for before, after in pairwise(chain):
        edges[graph.mlp(before.layer), readers[after]] = True
    circuit = Circuit(graph, edges)
    assert circuit.size == 3
    assert circuit.pruned().size == 0  # nothing enters it, and nothing leaves it
    edges[0, graph.reader(chain[0])] = True
    assert circuit.pruned().size == 0  # a dead end still
    edges[graph.mlp(3), -1] = True
    assert Circuit(graph, edges).pruned().size == 5


def test_ties_go_to_the_earlier_writer_and_reader():
    graph = Graph(2, 2)
    order = greedy(graph, np.ones(graph.allowed.shape))
    assert order.writers[0] == 0
    assert graph.reads[order.readers[0]].kind == "logits"
    assert (np.diff(strongest(graph, np.ones(graph.allowed.shape)).writers) >= 0).all()


def test_a_limit_stops_the_ordering_and_more_is_refused():
    graph = Graph(3, 3)
    scores = drawn(graph, 0)
    few, all_ = greedy(graph, scores, limit=10), greedy(graph, scores)
    assert (few.writers == all_.writers[:10]).all()
    assert (few.readers == all_.readers[:10]).all()
    with pytest.raises(MeasurementError, match="11 edges was asked for, and 10"):
        few.circuit(11)


def test_scores_that_cannot_be_ordered_are_refused():
    graph = Graph(2, 2)
    with pytest.raises(UsageError, match=r"shape \[writer, reader\]"):
        greedy(graph, np.zeros((2, 2)))
    scores = drawn(graph, 0)
    scores[0, 0] = np.nan
    with pytest.raises(MeasurementError, match="NaN or infinity at 1 of"):
        strongest(graph, scores)
    scores[0, 0], scores[-1, 0] = 0.0, np.nan
    assert len(greedy(graph, scores)) == graph.edges  # what is no edge is not read


def test_edges_that_go_backwards_are_refused():
    graph = Graph(2, 2)
    edges = graph.allowed.copy()
    edges[-1, 0] = True
    with pytest.raises(UsageError, match="from a writer to a reader behind it"):
        Circuit(graph, edges)


# ---------------------------------------------------------------- files


@given(graphs, seeds, st.booleans(), st.integers(1, 4))
@settings(deadline=None)
def test_a_circuit_comes_back_from_its_file_as_it_was(graph, seed, scored, groups):
    graph = Graph(graph.layers, graph.heads, graph.parallel, groups)
    scores = np.where(graph.allowed, drawn(graph, seed), 0.0) if scored else None
    circuit = Circuit(graph, some_edges(graph, seed, 0.3).edges, scores)
    read = Circuit.from_json(json.loads(json.dumps(circuit.to_json(width=64))))
    assert same(read, circuit)
    if scores is None:
        assert read.scores is None
    else:
        np.testing.assert_array_equal(read.scores, scores)


def test_a_file_has_the_layout_that_eap_ig_reads(tmp_path):
    graph = Graph(1, 2)
    circuit = greedy(graph, np.where(graph.allowed, drawn(graph, 1), 0.0)).circuit(6)
    circuit.save(tmp_path / "circuit.json", width=8)
    content = json.loads((tmp_path / "circuit.json").read_text())
    assert content["cfg"] == {
        "n_layers": 1,
        "n_heads": 2,
        "parallel_attn_mlp": False,
        "d_model": 8,
    }
    assert list(content["nodes"]) == ["input", "a0.h0", "a0.h1", "m0", "logits"]
    assert all(isinstance(there, bool) for there in content["nodes"].values())
    heads = [f"input->a0.h{h}<{kind}>" for kind in "qkv" for h in range(2)]
    into_mlp = ["input->m0", "a0.h0->m0", "a0.h1->m0"]
    into_logits = ["input->logits", "a0.h0->logits", "a0.h1->logits", "m0->logits"]
    assert set(content["edges"]) == {*heads, *into_mlp, *into_logits}
    assert {name for name, edge in content["edges"].items() if edge["in_graph"]} == set(
        names_of(circuit)
    )
    assert same(Circuit.load(tmp_path / "circuit.json"), circuit)


def test_files_that_are_no_circuits_are_refused(tmp_path):
    with pytest.raises(UsageError, match="a circuit file needs 'cfg'"):
        Circuit.from_json({"nodes": {}})
    content = whole(Graph(1, 1)).to_json()
    content["edges"]["m7->logits"] = {"score": None, "in_graph": True}
    with pytest.raises(UsageError, match="names the edge 'm7->logits'"):
        Circuit.from_json(content)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UsageError, match=r"broken\.json: a circuit file is JSON"):
        Circuit.load(tmp_path / "broken.json")


# ---------------------------------------------------------------- controls


@given(graphs, seeds, st.floats(0, 1))
@settings(deadline=None)
def test_random_circuits_are_connected_and_of_the_size_asked_for(graph, seed, share):
    n = round(share * graph.edges)
    circuit = random_circuit(graph, n, np.random.default_rng(seed))
    assert circuit.size == n
    assert circuit.connected


def test_random_circuits_differ_and_come_again_from_their_seed():
    graph = Graph(4, 4)
    first, again, other = (
        random_circuit(graph, 30, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert same(first, again)
    assert not same(first, other)
    with pytest.raises(UsageError, match="the graph has"):
        random_circuit(graph, graph.edges + 1, np.random.default_rng(0))


@given(graphs, seeds)
@settings(deadline=None)
def test_shuffled_scores_stay_among_edges_of_like_kind_and_layers(graph, seed):
    scores = np.where(graph.allowed, drawn(graph, seed), 0.0)
    found = shuffled(graph, scores, np.random.default_rng(seed))
    kinds: dict[tuple[object, ...], list[tuple[int, int]]] = {}
    for writer, reader in np.argwhere(graph.allowed).tolist():
        name, read = graph.names[writer], graph.reads[reader]
        kinds.setdefault((name.split(".")[0], read.layer, read.kind), []).append((writer, reader))
    for places in kinds.values():
        rows, columns = zip(*places, strict=True)
        assert sorted(found[rows, columns]) == sorted(scores[rows, columns])
    assert (found[~graph.allowed] == 0).all()


def test_shuffled_scores_are_in_other_places():
    graph = Graph(4, 6)
    scores = drawn(graph, 0)
    found = shuffled(graph, scores, np.random.default_rng(0))
    assert (found != scores)[graph.allowed].mean() > 0.7


# ---------------------------------------------------------------- the reference implementation


@pytest.mark.skipif(not FILE.is_file(), reason="the reference values are not here")
def test_greedy_circuits_have_the_sizes_of_the_reference_implementation():
    from safetensors.numpy import load_file

    graph = Graph(30, 9, groups=3)
    order = greedy(graph, load_file(FILE)["scores"].astype(np.float64), limit=4000)
    sizes = [order.circuit(n).size for n in (100, 400, 1000, 4000)]
    assert sizes == [92, 369, 971, 3945]
    assert graph.edges == 123_211
