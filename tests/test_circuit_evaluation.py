"""Circuits against brute force: every reader is given its own stream, block by block."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mechtests.circuits import others as other_edges
from mechtests.circuits.circuit import Circuit, empty, whole
from mechtests.circuits.controls import random_circuit
from mechtests.circuits.evaluation import Evaluation
from mechtests.circuits.faithfulness import check_gap, faithfulness
from mechtests.circuits.graph import Graph
from mechtests.circuits.others import Others
from mechtests.circuits.search import limit_of, smallest
from mechtests.circuits.selection import greedy
from mechtests.errors import MeasurementError, UsageError
from mechtests.models.activations import Activations
from mechtests.models.edges import Reader, attention_constant, reading, writers
from mechtests.models.network import Network
from tests.plain_weights import loaded_smollm2
from tests.tiny import ARCHITECTURES, HEADS, LAYERS, network, off, plain, prompts, tiny

on_every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)
EXACT = 1e-5
LAST = torch.tensor([10, 4, 7])
FILE = Path(__file__).parents[2] / "shared/reference/eap_ig_smollm2_ioi20.safetensors"


def pair(first: int = 3) -> tuple[Tensor, Tensor]:
    """Clean prompts, and corrupted ones that agree with them before a position."""
    clean, corrupted = prompts(0), prompts(1)
    corrupted[:, :first] = clean[:, :first]
    return clean, corrupted


def graph_of(net: Network) -> Graph:
    shape = net.shape
    return Graph(shape.layers, shape.heads, shape.parallel, shape.key_value_heads)


def agree(found: Tensor, expected: Tensor) -> None:
    """To 1e-5 of the largest; nothing but zeros is expected of networks without biases at zero."""
    if float(expected.abs().max()) > 0:
        assert off(found, expected) < EXACT
    else:
        assert float(found.abs().max()) == 0


class Slowly:
    """What every writer writes on the other edges, and circuits over them, reader by reader."""

    def __init__(self, net: Network, clean: Tensor, kind: str, tokens: Tensor, last: Tensor):
        self.net, self.clean, self.graph = net, clean, graph_of(net)
        run = net.run(tokens, keep=["z", "mlp_out"])
        self.z = [run["z", layer] for layer in range(LAYERS)]
        parts = [net.embed(tokens)]
        for layer in range(LAYERS):
            parts += [*writers(net, run, layer).unbind(2), run["mlp_out", layer]]
        self.constant = [attention_constant(net, run, layer) for layer in range(LAYERS)]
        if kind == "mean":
            there = torch.arange(tokens.shape[1])[None] <= last[:, None]
            self.z = [self.mean(z, there) for z in self.z]
            parts = [self.mean(part, there) for part in parts]
        if kind == "zero":
            self.z = [torch.zeros_like(z) for z in self.z]
            parts = [torch.zeros_like(part) for part in parts]
        self.otherwise = torch.stack(parts)

    def mean(self, value: Tensor, there: Tensor) -> Tensor:
        rows = [value[there[:, at], at].mean(0) for at in range(value.shape[1])]
        return torch.stack(rows).expand(len(self.clean), *torch.stack(rows).shape)

    def final(self, circuit: Circuit, last: Tensor) -> Tensor:
        net, graph = self.net, self.graph
        now = self.otherwise.clone()
        now[0] = net.embed(self.clean)

        def stream(reader: int) -> Tensor:
            total = torch.zeros_like(now[0])
            for writer in range(int(graph.sources[reader])):
                source = now if circuit.edges[writer, reader] else self.otherwise
                total = total + source[writer]
            read = graph.reads[reader]
            before = read.layer + (read.kind == "mlp" and not graph.parallel)
            return total + sum(self.constant[:before], torch.zeros(()))

        for layer in range(LAYERS):
            places = [r for r, read in enumerate(graph.reads) if read.layer == layer]
            heads = [r for r in places if graph.reads[r].kind in ("q", "k", "v")]
            inputs = {Reader(*graph.reads[r]): stream(r) for r in heads}
            only = {"start": layer, "stop": layer + 1, "resid": torch.zeros_like(now[0])}
            run = net.run(self.clean, keep=[f"z.{layer}"], edits=reading(net, inputs), **only)
            z = self.z[layer].clone()
            for head in range(HEADS):
                place = graph.head(layer, head)
                if circuit.nodes[place]:
                    z[:, :, head] = run["z", layer][:, :, head]
            made = Activations({("z", layer): z}, run.final, run.last)
            for head, written in enumerate(writers(net, made, layer).unbind(2)):
                place = graph.head(layer, head)
                if circuit.nodes[place]:
                    now[place] = written
            if circuit.nodes[graph.mlp(layer)]:
                (mlp,) = (r for r in places if graph.reads[r].kind == "mlp")
                edits = reading(net, {Reader(layer, "mlp"): stream(mlp)})
                run = net.run(self.clean, keep=[f"mlp_out.{layer}"], edits=edits, **only)
                now[graph.mlp(layer)] = run["mlp_out", layer]
        return stream(graph.readers - 1)[torch.arange(len(last)), last]


def circuits_of(graph: Graph) -> list[Circuit]:
    """Of every kind: random, connected, greedy, whole, empty, and one without its input."""
    generator = np.random.default_rng(0)
    random = [Circuit(graph, graph.allowed & (generator.random(graph.allowed.shape) < 0.4))]
    connected = [random_circuit(graph, n, generator) for n in (1, 6, 25, 90)]
    scores = generator.normal(size=graph.allowed.shape)
    chosen = [greedy(graph, scores).first(n) for n in (10, 40, 120)]
    without = whole(graph).edges.copy()
    without[0] = False
    return [*random, *connected, *chosen, whole(graph), empty(graph), Circuit(graph, without)]


def others_of(net: Network, kind: str) -> tuple[Others, Slowly, Tensor]:
    clean, corrupted = pair()
    if kind == "corrupted":
        others = other_edges.corrupted(net, clean, corrupted, last=LAST)
    elif kind == "mean":
        others = other_edges.mean(net, clean, corrupted, last=LAST, tokens_last=LAST)
    else:
        others = other_edges.zero(net, clean, last=LAST)
    return others, Slowly(net, clean, kind, corrupted, LAST), clean


@on_every_architecture
@pytest.mark.parametrize("kind", ["corrupted", "mean", "zero"])
def test_circuits_are_what_patching_every_reader_gives(name, kind):
    net = network(name)
    others, slowly, clean = others_of(net, kind)
    evaluation = Evaluation(net, clean, others)
    circuits = circuits_of(evaluation.graph)
    for circuit, found in zip(circuits, evaluation.finals(circuits), strict=True):
        agree(found, slowly.final(circuit.pruned(), LAST))


# behind a post-norm a dead head shares the scale of the others: circuits are defined pruned
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if "gemma" not in name])
def test_dead_edges_change_nothing_where_the_other_edges_carry_a_corrupted_run(name):
    net = network(name)
    others, slowly, clean = others_of(net, "corrupted")
    evaluation = Evaluation(net, clean, others)
    circuits = [c for c in circuits_of(evaluation.graph) if not c.connected]
    assert len(circuits) >= 2
    for circuit, found in zip(circuits, evaluation.finals(circuits), strict=True):
        assert off(found, slowly.final(circuit, LAST)) < EXACT


@on_every_architecture
@pytest.mark.parametrize("kind", ["corrupted", "mean", "zero"])
def test_the_whole_graph_is_the_clean_run_and_the_empty_circuit_is_the_other_edges(name, kind):
    net = network(name)
    others, slowly, clean = others_of(net, kind)
    evaluation = Evaluation(net, clean, others)
    all_, none = evaluation.finals([whole(evaluation.graph), empty(evaluation.graph)])
    rows = torch.arange(3)
    expected = net.run(clean, last=LAST).final
    assert off(all_, expected) < EXACT
    assert off(evaluation.clean(), expected) < EXACT
    logits = plain(name)(clean).logits[rows, LAST]
    assert off(net.logits(all_), logits) < EXACT
    assert torch.equal(none, others.final)
    if kind == "corrupted":
        corrupted = plain(name)(pair()[1]).logits[rows, LAST]
        assert off(net.logits(none), corrupted) < EXACT
    else:
        agree(none, slowly.final(empty(evaluation.graph), LAST))


@on_every_architecture
def test_circuits_together_are_what_they_are_one_by_one(name):
    net = network(name)
    others, _, clean = others_of(net, "corrupted")
    evaluation = Evaluation(net, clean, others)
    circuits = circuits_of(evaluation.graph)
    together = evaluation.finals(circuits)
    for circuit, found in zip(circuits, together, strict=True):
        (alone,) = evaluation.finals([circuit])
        assert off(found, alone) < EXACT


@on_every_architecture
def test_leaving_out_the_shared_positions_changes_nothing(name):
    net, (clean, corrupted) = network(name), pair(4)
    shared = other_edges.corrupted(net, clean, corrupted, last=LAST)
    all_ = other_edges.corrupted(net, clean, corrupted, last=LAST, share=False)
    assert (shared.shared, all_.shared) == (4, 0)
    circuits = circuits_of(graph_of(net))
    few, many = (Evaluation(net, clean, each).finals(circuits) for each in (shared, all_))
    for found, expected in zip(few, many, strict=True):
        assert off(found, expected) < EXACT


@on_every_architecture
def test_a_prompt_does_not_depend_on_the_others_nor_on_padding(name):
    net, (clean, corrupted) = network(name), pair()
    circuits = circuits_of(graph_of(net))
    together = list(
        Evaluation(net, clean, other_edges.corrupted(net, clean, corrupted, last=LAST)).finals(
            circuits
        )
    )
    short = slice(0, int(LAST[1]) + 1)
    own = other_edges.corrupted(net, clean[1:2, short], corrupted[1:2, short])
    alone = Evaluation(net, clean[1:2, short], own).finals(circuits)
    for found, expected in zip(alone, together, strict=True):
        assert off(found, expected[1:2]) < EXACT


def test_circuits_in_double_precision_equal_brute_force_to_its_rounding():
    net = network("gemma2", torch.float64)
    others, slowly, clean = others_of(net, "corrupted")
    evaluation = Evaluation(net, clean, others)
    circuits = circuits_of(evaluation.graph)
    for circuit, found in zip(circuits, evaluation.finals(circuits), strict=True):
        assert off(found, slowly.final(circuit.pruned(), LAST)) < 1e-12


def test_many_circuits_that_do_not_fit_at_once_come_in_their_order(monkeypatch):
    net = network("llama")
    others, _, clean = others_of(net, "corrupted")
    evaluation = Evaluation(net, clean, others)
    circuits = [*circuits_of(evaluation.graph)] * 2
    expected = evaluation.values(circuits, lambda final: final[:, 0])
    monkeypatch.setattr("mechtests.circuits.evaluation.WORKING_BYTES", 1)
    found = evaluation.values(circuits, lambda final: final[:, 0])
    assert found.shape == (len(circuits), 3)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert evaluation.values([], lambda final: final[:, 0]).shape == (0, 3)


def test_what_does_not_fit_is_refused():
    net, (clean, corrupted) = network("llama"), pair()
    others = other_edges.corrupted(net, clean, corrupted)
    with pytest.raises(UsageError, match="of 3 prompts, and there are 2"):
        Evaluation(net, clean[:2], others)
    with pytest.raises(UsageError, match="does not fit llama"):
        list(Evaluation(net, clean, others).finals([whole(Graph(2, 4))]))
    with pytest.raises(UsageError, match="aligned with the clean ones"):
        other_edges.corrupted(net, clean, corrupted[:, :5])
    with pytest.raises(UsageError, match="means at 11 positions are needed"):
        other_edges.mean(net, clean, corrupted[:, :5])


def test_a_bias_behind_which_a_norm_stands_is_refused():
    model = tiny("gemma2", attention_bias=True)
    net = Network.from_model(model, name="biased", check=False)
    with pytest.raises(UsageError, match="circuits of such a network are not defined"):
        other_edges.corrupted(net, *pair())


def test_faithfulness_is_a_ratio_of_means():
    values = np.array([[2.0, 0.0], [1.0, 3.0]])
    clean, corrupted = np.array([3.0, 1.0]), np.array([1.0, -1.0])
    np.testing.assert_allclose(faithfulness(values, clean, corrupted), [0.5, 1.0])
    np.testing.assert_allclose(faithfulness(values, clean), [0.5, 1.0])
    weights = np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    drawn = faithfulness(values, clean, corrupted, weights=weights)
    np.testing.assert_allclose(drawn, [[0.5, 0.0], [0.5, 2.0], [0.5, 1.0]])
    assert np.isnan(faithfulness(values, -clean)).all()
    with pytest.raises(MeasurementError, match="no circuit of it can"):
        check_gap(-clean, corrupted)


# ---------------------------------------------------------------- the reference implementation


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    if not FILE.is_file():
        pytest.skip("the reference values are not here")
    from safetensors.numpy import load_file

    return load_file(FILE)


@pytest.fixture(scope="module")
def smollm2() -> Network:
    model = copy.deepcopy(loaded_smollm2().model)  # bridging changes it in place
    return Network.from_model(model, name="smollm2", check=False)


def test_circuits_of_smollm2_have_the_reference_implementations_metric(reference, smollm2):
    clean, corrupted, answers = (
        torch.from_numpy(reference[key]) for key in ("clean_ids", "corrupted_ids", "answer_ids")
    )

    def difference(final: Tensor) -> Tensor:
        logits = smollm2.logits(final, answers)
        return logits[:, 0] - logits[:, 1]

    others = other_edges.corrupted(smollm2, clean, corrupted)
    evaluation = Evaluation(smollm2, clean, others)
    ordering = greedy(evaluation.graph, reference["scores"].astype(np.float64))
    recorded = {100: -0.2914, 400: 3.0797, 1000: 4.0166, 4000: 4.5602, 10000: 4.3368}
    circuits = [ordering.circuit(n) for n in recorded] + [whole(evaluation.graph)]
    values = evaluation.values(circuits, difference)
    np.testing.assert_allclose(values[:-1].mean(1), list(recorded.values()), atol=1e-3)
    np.testing.assert_allclose(values[-1], reference["baseline_logit_difference"], atol=1e-3)


def test_the_search_on_smollm2_ends_at_the_first_crossing(reference, smollm2):
    rows = slice(0, 4)
    clean, corrupted, answers = (
        torch.from_numpy(reference[key])[rows]
        for key in ("clean_ids", "corrupted_ids", "answer_ids")
    )

    def difference(final: Tensor) -> Tensor:
        logits = smollm2.logits(final, answers)
        return logits[:, 0] - logits[:, 1]

    others = other_edges.corrupted(smollm2, clean, corrupted)
    evaluation = Evaluation(smollm2, clean, others)
    ordering = greedy(
        evaluation.graph, reference["scores"].astype(np.float64), limit=limit_of(evaluation.graph)
    )
    clean_values = difference(evaluation.clean()).double().numpy()
    found = smallest(
        ordering,
        lambda circuits: evaluation.values(circuits, difference),
        clean_values,
        None,
        threshold=0.5,
    )
    assert found.smallest is not None
    assert 100 < found.smallest.n < 1000
    shares = found.faithfulness(found.grid)
    below = [point.n for point in found.grid if point.n < found.smallest.n]
    assert (shares[: len(below)] < 0.5).all()
    assert found.faithfulness([found.smallest])[0] >= 0.5
