from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch

from mechtests.measurement import Head, Measurement
from mechtests.metrics import copying, effects
from mechtests.metrics.inhibition import s_inhibition
from mechtests.metrics.metric import Job
from mechtests.metrics.roles import s_inhibition_heads
from mechtests.models.network import Network
from mechtests.tasks.ioi import ioi
from mechtests.tasks.prompts import Prompts
from tests.measuring import measure, random_prompts
from tests.planted import IOI_WORDS, Stream, ioi_stream
from tests.planted_inhibition import by_position_stream, doubled, unplugged
from tests.tiny import ARCHITECTURES, VOCABULARY, tiny

PROMPTS = random_prompts(VOCABULARY, n=8)
BY_SELECTION: list[Head] = [(1, 0), (2, 1), (2, 3)]
BY_EVALUATION: list[Head] = [(1, 2)]
CHANGES = ("logit_difference", "attention_io", "attention_s1")


def network(name: str) -> Network:
    return Network.from_model(tiny(name), name=name, check=False)


def choosing(
    net: Network, selection: Sequence[Head], evaluation: Sequence[Head], prompts: Prompts = PROMPTS
) -> dict[str, Measurement]:
    """Scores by which each half chooses the name movers it is told to."""
    copied = np.zeros((len(prompts), net.shape.layers, net.shape.heads))
    for half, heads in enumerate((selection, evaluation)):
        for layer, head in heads:
            copied[prompts.half == half, layer, head] = 1.0
    made = {
        "copying": {"copied": copied, "copied_absent": 0 * copied},
        "effects": {"direct_effect": np.ones_like(copied)},
    }
    return {
        name: Measurement(
            name=name,
            values=values,
            axes=dict.fromkeys(values, ("prompt", "layer", "head")),
            units={},
            cluster=prompts.cluster,
            template=prompts.template,
            half=prompts.half,
        )
        for name, values in made.items()
    }


def found_by(
    net: Network,
    selection: Sequence[Head] = BY_SELECTION,
    evaluation: Sequence[Head] = BY_EVALUATION,
) -> Measurement:
    return measure(net, s_inhibition, PROMPTS, inputs=choosing(net, selection, evaluation))


class Slowly:
    """One prompt at a time, whole sequences, heads frozen by edits, queries before rotary."""

    def __init__(self, net: Network, row: int, movers: Sequence[Head]) -> None:
        self.net, self.movers, self.row = net, movers, row
        size = int(PROMPTS.length[row])
        self.end = size - 1
        self.tokens = torch.from_numpy(PROMPTS.clean[row : row + 1, :size])
        other = torch.from_numpy(PROMPTS.corrupted["S2->IO"][row : row + 1, :size])
        self.clean = net.run(self.tokens, keep=("z", "q"))
        self.corrupted = net.run(other, keep=("z",))

    def read(self, queries: Mapping[Head, torch.Tensor]) -> np.ndarray:
        """Logit difference, attention to IO, to S1 of a run with these queries at END."""

        def edit(layer: int) -> object:
            def edited(q: torch.Tensor) -> torch.Tensor:
                q = q.clone()
                for at, head in queries:
                    if at == layer:
                        q[0, self.end, head] = queries[at, head]
                return q

            return edited

        edits = {("q", layer): edit(layer) for layer, _ in queries}
        run = self.net.run(self.tokens, keep=("pattern",), edits=edits)
        logits = self.net.logits(run.final)[0]
        right, wrong = PROMPTS.right[self.row, 0], PROMPTS.wrong[self.row, 0]
        looked = [
            np.mean([float(run["pattern", at][0, head, self.end, key]) for at, head in self.movers])
            for key in (PROMPTS.positions[name][self.row] for name in ("IO", "S1"))
        ]
        return np.array([float(logits[right] - logits[wrong]), *looked])

    def sent(self, sender: Head) -> dict[Head, torch.Tensor]:
        """The name movers' queries at END with one head's z at END of the other run."""
        layers = range(self.net.shape.layers)
        frozen = {layer: self.clean["z", layer].clone() for layer in layers}
        layer, head = sender
        frozen[layer][0, self.end, head] = self.corrupted["z", layer][0, self.end, head]
        edits = {("z", at): (lambda z, at=at: frozen[at]) for at in layers}
        run = self.net.run(self.tokens, keep=("q",), edits=edits)
        return {(at, head): run["q", at][0, self.end, head] for at, head in self.movers}

    def change(self, sender: Head) -> np.ndarray:
        return self.read(self.sent(sender)) - self.read({})


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_changes_are_those_of_two_whole_runs_one_with_frozen_heads_one_with_its_queries(
    name: str,
) -> None:
    net = network(name)
    found = found_by(net)
    largest = np.zeros(3)
    for row in range(len(PROMPTS)):
        movers = BY_EVALUATION if PROMPTS.half[row] == 0 else BY_SELECTION
        slow = Slowly(net, row, movers)
        clean = [found[f"clean_{value}"][row] for value in CHANGES]
        np.testing.assert_allclose(clean, slow.read({}), atol=1e-5)
        for sender in np.ndindex(net.shape.layers, net.shape.heads):
            change = np.array([found[value][row, *sender] for value in CHANGES])
            np.testing.assert_allclose(change, slow.change(sender), atol=1e-5, err_msg=str(sender))
            largest = np.maximum(largest, np.abs(change))
    assert (largest > 1e-3).all()


def test_a_prompt_patched_with_itself_changes_nothing() -> None:
    same = random_prompts(VOCABULARY, n=8)
    same.corrupted["S2->IO"][:] = same.clean
    net = network("llama")
    found = measure(net, s_inhibition, same, inputs=choosing(net, BY_SELECTION, BY_EVALUATION))
    for value in CHANGES:
        np.testing.assert_allclose(found[value], 0.0, atol=1e-5)


def test_a_head_above_all_name_movers_or_beside_the_last_changes_exactly_nothing() -> None:
    found = found_by(network("gpt_neox"), [(1, 1)], [(1, 1), (1, 3)])
    for value in CHANGES:
        assert (found[value][:, 1:] == 0).all()
        assert np.abs(found[value][:, 0]).max() > 1e-4


def test_a_half_that_chose_no_name_mover_leaves_the_other_with_zeros() -> None:
    found = found_by(network("gptj"), BY_SELECTION, [])
    on_selection = PROMPTS.half == 0
    for value in CHANGES:
        assert (found[value][on_selection] == 0).all()
        assert (found[f"clean_{value}"][on_selection] == 0).all()
        assert np.abs(found[value][~on_selection]).max() > 1e-4
    assert found["into"][0].sum() == 0
    assert [tuple(head) for head in np.argwhere(found["into"][1])] == BY_SELECTION
    assert s_inhibition_heads(found, "selection") == []


def test_name_movers_in_the_first_layer_hear_nobody() -> None:
    found = found_by(network("gpt2"), [(0, 2)], [(0, 1)])
    for value in CHANGES:
        assert (found[value] == 0).all()


def test_little_memory_and_batches_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network("gemma3")
    given = choosing(net, BY_SELECTION, BY_EVALUATION)
    together = measure(net, s_inhibition, PROMPTS, inputs=given)
    monkeypatch.setattr(effects, "WORKING_BYTES", 1)
    for rows in (np.arange(8), np.array([0, 1]), np.array([7, 2, 5])):
        part = measure(net, s_inhibition, PROMPTS.select(rows), inputs=given)
        for name, value in s_inhibition.values.items():
            wanted = together[name][rows] if value.axes[0] == "prompt" else together[name]
            np.testing.assert_allclose(part[name], wanted, atol=2e-5, err_msg=name)


def test_a_network_in_half_precision_gives_single_precision_values_near_its_own() -> None:
    whole, half = network("llama"), tiny("llama", dtype=torch.bfloat16)
    wanted = found_by(whole)
    found = found_by(Network.from_model(half, name="half", check=False))
    for value, array in found.values.items():
        assert array.dtype == np.float32, value
        scale = np.abs(wanted[value]).mean() + 1.0
        assert np.abs(array - wanted[value]).mean() < 0.1 * scale, value


def test_the_cost_is_every_direct_path_and_every_run_from_the_layer_above() -> None:
    shape = network("gpt2").shape
    cost = s_inhibition.cost(Job(shape, 10, 12, 19, {}))
    mlp, block = 2 * 64 * 96, shape.block_parameters // 3
    assert block == mlp + 4 * 64 * 64
    attended, outputs = 2 * 64 * 12, 3 * 4 * 64 * 64
    assert cost.flops == 2 * 10 * (4 * (2 + 1) * (mlp + block + attended) + outputs)


MOVER, INHIBITION = (2, 5), (1, 6)
VARIANTS = ("swapped order", "random names", "S2->IO")
IOI_PROMPTS = ioi.generate(IOI_WORDS, 60, np.random.default_rng(0))


def by_variant(stream: Stream, *, told: bool = False) -> dict[str, Measurement]:
    """S-inhibition from each corruption; ``told``: the name mover is said, not chosen."""
    net = stream.network()
    given = {
        "copying": measure(net, copying.copy_scores, IOI_PROMPTS),
        "effects": measure(net, effects.direct_effects, IOI_PROMPTS),
    }
    if told:
        given = choosing(net, [MOVER], [MOVER], IOI_PROMPTS)
    return {
        variant: measure(net, s_inhibition, IOI_PROMPTS, corruption=variant, inputs=given)
        for variant in VARIANTS
    }


@pytest.fixture(scope="module")
def position() -> dict[str, Measurement]:
    return by_variant(by_position_stream(MOVER, inhibition=INHIBITION))


@pytest.fixture(scope="module")
def token() -> dict[str, Measurement]:
    return by_variant(ioi_stream(MOVER, inhibition=INHIBITION))


@pytest.mark.parametrize("half", ["selection", "evaluation"])
def test_a_planted_s_inhibition_head_is_found_at_its_layer_and_head(
    position: dict[str, Measurement], half: str
) -> None:
    found = position["swapped order"]
    assert np.argwhere(found["into"]).tolist() == [[0, *MOVER], [1, *MOVER]]
    assert s_inhibition_heads(found, half) == [INHIBITION]
    assert found.mean("clean_attention_io").item() > 0.9
    assert found["attention_io"][:, *INHIBITION].max() < -0.9
    assert found["attention_s1"][:, *INHIBITION].min() > 0.9
    assert (found["logit_difference"][:, *INHIBITION] < -found["clean_logit_difference"]).all()


def test_the_same_head_elsewhere_is_found_there() -> None:
    stream = by_position_stream((2, 0), duplicate=(0, 1), inhibition=(1, 2))
    assert s_inhibition_heads(by_variant(stream)["swapped order"], "selection") == [(1, 2)]


@pytest.mark.parametrize(("works", "idle"), [((1, 6), (1, 2)), ((1, 2), (1, 6))])
def test_a_head_that_attends_alike_and_writes_nothing_is_not_found_beside_one_that_writes(
    works: Head, idle: Head
) -> None:
    stream = doubled(by_position_stream(MOVER, inhibition=works), works, idle)
    found = by_variant(unplugged(stream, idle))
    assert s_inhibition_heads(found["swapped order"], "selection") == [works]
    for variant in VARIANTS:
        for value in CHANGES:
            np.testing.assert_allclose(found[variant][value][:, *idle], 0.0, atol=1e-5)


def test_a_network_whose_only_such_head_writes_nothing_does_not_have_it() -> None:
    """The name mover is said: without the head it helps nobody and would not be chosen."""
    stream = unplugged(by_position_stream(MOVER, inhibition=INHIBITION), INHIBITION)
    for found in by_variant(stream, told=True).values():
        assert INHIBITION not in s_inhibition_heads(found, "selection")
        for value in CHANGES:
            np.testing.assert_allclose(found[value][:, *INHIBITION], 0.0, atol=1e-5)
        assert found["attention_io"].min() > -0.1


def test_a_signal_of_position_and_one_of_the_name_are_told_apart(
    position: dict[str, Measurement], token: dict[str, Measurement]
) -> None:
    """The position stays with random names, the name with a swapped order, neither with S2->IO."""
    heard = {
        kind: [variant for variant in VARIANTS if s_inhibition_heads(found[variant], "selection")]
        for kind, found in (("position", position), ("token", token))
    }
    assert heard == {
        "position": ["swapped order", "S2->IO"],
        "token": ["random names", "S2->IO"],
    }
    for found, same in ((position, "random names"), (token, "swapped order")):
        assert np.abs(found[same]["logit_difference"]).max() < 0.05
        assert s_inhibition_heads(found["S2->IO"], "selection") == [INHIBITION]


def made_up(clean: float, **changes: list[float]) -> Measurement:
    values = {name: np.tile(np.array([[change]]), (4, 1, 1)) for name, change in changes.items()}
    values["clean_logit_difference"] = np.full(4, clean)
    return Measurement(
        name="made up",
        values=values,
        axes={name: ("prompt", "layer", "head")[: array.ndim] for name, array in values.items()},
        units={},
        cluster=np.array([0, 0, 1, 1]),
        template=np.zeros(4, dtype=np.int64),
        half=np.array([0, 0, 1, 1]),
    )


def test_each_of_the_three_signs_and_a_thousandth_of_the_difference_is_needed() -> None:
    signs = {
        "logit_difference": [-1.0, 1.0, -1.0, -1.0, -0.0019],
        "attention_io": [-0.1, -0.1, 0.1, -0.1, -0.1],
        "attention_s1": [0.1, 0.1, 0.1, -0.1, 0.1],
    }
    assert s_inhibition_heads(made_up(2.0, **signs), "selection") == [(0, 0)]
    assert s_inhibition_heads(made_up(1.8, **signs), "selection") == [(0, 0), (0, 4)]
    assert s_inhibition_heads(made_up(-2.0, **signs), "selection") == []
