from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechtests.circuits.attribution import graph_of
from mechtests.circuits.graph import Graph, Read
from tests.tiny import ARCHITECTURES, HEADS, LAYERS, network

DIMS = Path(__file__).parents[2] / "shared/reference/recorded/pythia_dims_and_graph_sizes.csv"
SIZES = {  # layers, heads, edges: section 4.1 of the notes on Tigges et al. 2024
    "70m": (6, 8, 3_580),
    "160m": (12, 12, 32_347),
    "410m": (24, 16, 231_493),
    "1b": (16, 8, 27_545),
    "2.8b": (32, 32, 1_591_857),
    "12b": (36, 40, 3_131_263),
}
graphs = st.builds(Graph, layers=st.integers(1, 5), heads=st.integers(1, 6), parallel=st.booleans())


@pytest.mark.parametrize("size", SIZES)
def test_the_graph_of_each_pythia_has_the_papers_number_of_edges(size):
    layers, heads, edges = SIZES[size]
    assert Graph(layers, heads, parallel=True).edges == edges


def test_smollm2_has_the_edges_of_the_reference_implementation():
    graph = Graph(30, 9, groups=3)
    assert (graph.writers, graph.readers, graph.edges) == (301, 841, 123_211)


@pytest.mark.skipif(not DIMS.exists(), reason="the reference values are not here")
def test_graph_sizes_are_the_recorded_ones():
    with DIMS.open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        names = {key.lower(): value for key, value in row.items()}
        layers, heads, edges = (
            int(next(value for key, value in names.items() if part in key))
            for part in ("layer", "head", "edge")
        )
        assert Graph(layers, heads, parallel=True).edges == edges


@given(graphs)
def test_edges_are_what_comes_earlier_to_what_comes_later(graph):
    """Counted from the definition, one pair at a time."""

    def written_at(writer: int) -> float:
        name = graph.names[writer]
        if name == "input":
            return -1.0
        layer = int(name[1:].split(".")[0])
        late = 0.5 if name.startswith("m") and not graph.parallel else 0.0
        return layer + late

    def reads_at(read: Read) -> float:
        return read.layer + (0.5 if read.kind == "mlp" and not graph.parallel else 0.0)

    for column, read in enumerate(graph.reads):
        before = [written_at(writer) < reads_at(read) for writer in range(graph.writers)]
        assert graph.allowed[:, column].tolist() == before
    assert graph.edges == graph.allowed.sum()


@given(graphs)
def test_every_reader_and_writer_is_at_its_own_place(graph):
    assert [graph.reader(read) for read in graph.reads] == list(range(graph.readers))
    assert len(set(graph.names)) == len(graph.names) == graph.writers
    for layer in range(graph.layers):
        assert graph.names[graph.mlp(layer)] == f"m{layer}"
        for head in range(graph.heads):
            assert graph.names[graph.head(layer, head)] == f"a{layer}.h{head}"
    for read, node in zip(graph.reads, graph.nodes, strict=True):
        if read.kind == "logits":
            assert node == graph.writers
        else:
            kind = "m" if read.kind == "mlp" else "a"
            assert graph.names[node].startswith(f"{kind}{read.layer}")


@given(graphs)
def test_no_node_reads_what_it_writes_itself(graph):
    rows = graph.nodes[: graph.readers - 1]
    assert not graph.allowed[rows, np.arange(graph.readers - 1)].any()


@given(graphs)
def test_edge_names_are_all_different(graph):
    edges = np.argwhere(graph.allowed)
    assert len({graph.edge_name(*edge) for edge in edges.tolist()}) == graph.edges


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_graph_of_a_network_has_its_shape(name):
    graph, shape = graph_of(network(name)), network(name).shape
    assert (graph.layers, graph.heads) == (LAYERS, HEADS)
    assert graph.parallel == (name in ("gpt_neox", "gptj")) == shape.parallel
    assert graph.groups == shape.key_value_heads
