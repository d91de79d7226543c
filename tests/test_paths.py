from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from mechtests.errors import UsageError
from mechtests.measurement import HALVES, Half, Head, Measurement
from mechtests.metrics import effects, paths
from mechtests.metrics.behaviour import logit_difference
from mechtests.metrics.inhibition import s_inhibition
from mechtests.metrics.metric import Job
from mechtests.metrics.patching import INTO, path_effects
from mechtests.models.network import Network
from mechtests.tasks.prompts import Prompts
from tests.measuring import batch_of, measure, random_prompts
from tests.test_inhibition import choosing
from tests.tiny import ARCHITECTURES, VOCABULARY, tiny

RECEIVERS: list[Head] = [(1, 0), (2, 1), (2, 3)]
BY_HALF: Mapping[Half, list[Head]] = {"selection": RECEIVERS, "evaluation": [(1, 2)]}


def told(inputs: Mapping[str, Measurement], half: Half) -> list[Head]:
    return BY_HALF[half]


INTO_TOLD = paths.into_heads("into_told", told, inputs=(), into="v")


def sharing(n: int = 8, seed: int = 0) -> Prompts:
    """Random prompts that share their first few tokens with their corrupted variant."""
    prompts = random_prompts(VOCABULARY, n=n, seed=seed)
    shared = np.random.default_rng(seed).integers(2, prompts.length - 1)
    before = np.arange(prompts.clean.shape[1]) < shared[:, None]
    corrupted = np.where(before, prompts.clean, prompts.corrupted["S2->IO"])
    differs = np.arange(n), shared
    corrupted[differs] = (prompts.clean[differs] + 1) % VOCABULARY
    return replace(prompts, corrupted={"S2->IO": corrupted})


PROMPTS = sharing()


def network(name: str) -> Network:
    """In double precision, so that equal is equal."""
    return Network.from_model(tiny(name, dtype=torch.float64), name=name, check=False)


class Slowly:
    """One prompt and one sender at a time: whole runs, with heads and MLPs frozen by edits."""

    def __init__(self, net: Network, row: int, prompts: Prompts = PROMPTS) -> None:
        self.net, size = net, int(prompts.length[row])
        self.prompts = prompts.select(np.array([row]))
        self.tokens = torch.from_numpy(prompts.clean[row : row + 1, :size])
        other = torch.from_numpy(prompts.corrupted["S2->IO"][row : row + 1, :size])
        self.clean = net.run(self.tokens, keep=("z", "q", "k", "v", "mlp_out"))
        self.other = net.run(other, keep=("z",))

    def difference(self, final: torch.Tensor) -> float:
        return float(logit_difference(self.net, final, self.prompts)[0])

    def heard(self, sender: Head, into: str, mlps: bool, at: int | None) -> Mapping[int, object]:
        """What all heads of each layer hear of a sender, or the last stream."""
        layers, (layer, head) = range(self.net.shape.layers), sender
        frozen = {each: self.clean["z", each].clone() for each in layers}
        where = slice(None) if at is None else at
        frozen[layer][0, where, head] = self.other["z", layer][0, where, head]
        edits = {("z", each): (lambda z, each=each: frozen[each]) for each in layers}
        if not mlps:
            kept = self.clean
            edits |= {
                ("mlp_out", each): (lambda m, each=each: kept["mlp_out", each]) for each in layers
            }
        keep = (into,) if into != "logits" else ()
        run = self.net.run(self.tokens, keep=keep, edits=edits)
        return {each: run[into, each] for each in layers} if keep else {-1: run.final}

    def change(
        self,
        sender: Head,
        receivers: Sequence[Head],
        into: str,
        mlps: bool = True,
        at: int | None = None,
    ) -> float:
        found = self.heard(sender, into, mlps, at)
        group = self.net.shape.heads // self.clean[into, 0].shape[2]

        def edit(layer: int) -> object:
            def edited(value: torch.Tensor) -> torch.Tensor:
                value = value.repeat_interleave(group, 2)
                for there, head in receivers:
                    if there == layer:
                        value[:, :, head] = found[layer][:, :, head // group]
                return value

            return edited

        edits = {(into, layer): edit(layer) for layer, _ in receivers}
        patched = self.net.run(self.tokens, edits=edits).final
        return self.difference(patched) - self.difference(self.clean.final)


def found_by(net: Network, prompts: Prompts = PROMPTS, metric=INTO_TOLD, **params) -> Measurement:
    return measure(net, replace(metric, params={**metric.params, **params}), prompts)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("into", INTO)
def test_a_path_is_what_whole_runs_of_one_sender_at_a_time_give(name: str, into: str) -> None:
    """Every other head frozen in the first run, the receivers as they heard it in the second."""
    net = network(name)
    for mlps, at in ((True, None), (False, None), (True, "S2")):
        found = found_by(net, into=into, mlps=mlps, at=at)["logit_difference"]
        largest = 0.0
        for row in range(0, len(PROMPTS), 3):
            receivers = BY_HALF[HALVES[1 - PROMPTS.half[row]]]
            slow = Slowly(net, row)
            where = None if at is None else int(PROMPTS.positions[at][row])
            for sender in product(range(net.shape.layers), range(net.shape.heads)):
                change = slow.change(sender, receivers, into, mlps, where)
                np.testing.assert_allclose(
                    found[row, *sender], change, atol=1e-9, err_msg=f"{row} {sender}"
                )
                largest = max(largest, abs(change))
        assert largest > 1e-4, (mlps, at)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_direct_effects_without_mlps_are_those_of_runs_with_frozen_mlps(name: str) -> None:
    net = network(name)
    metric = effects.direct_effects
    with_mlps = measure(net, metric, PROMPTS)
    without = measure(net, replace(metric, params={"mlps": False}), PROMPTS)
    for row, sender in product((0, 5), product(range(net.shape.layers), range(net.shape.heads))):
        slow = Slowly(net, row)
        for mlps, found in ((True, with_mlps), (False, without)):
            [final] = slow.heard(sender, "logits", mlps, None).values()
            lost = slow.difference(slow.clean.final) - slow.difference(final)
            np.testing.assert_allclose(found["direct_effect"][row, *sender], lost, atol=1e-9)
    assert np.abs(with_mlps["direct_effect"] - without["direct_effect"]).max() > 1e-4


def test_a_path_into_queries_at_end_is_the_one_that_s_inhibition_measures() -> None:
    net = network("qwen3")
    given = choosing(net, RECEIVERS, [(1, 2)], PROMPTS)
    for by in ("other half", "evaluation"):
        inhibition = replace(s_inhibition, params={"chosen_by": by})
        wanted = measure(net, inhibition, PROMPTS, inputs=given)["logit_difference"]
        found = found_by(net, into="q", at="END", chosen_by=by)["logit_difference"]
        np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_a_prompt_patched_with_itself_changes_nothing() -> None:
    same = random_prompts(VOCABULARY, n=6)
    same.corrupted["S2->IO"][:] = same.clean
    for name in ("llama", "gpt_neox"):
        found = found_by(network(name), same)
        np.testing.assert_allclose(found["logit_difference"], 0.0, atol=1e-12)
        np.testing.assert_allclose(found["clean"], found["corrupted"], atol=1e-12)


def test_a_head_beside_or_above_the_last_receiver_changes_exactly_nothing() -> None:
    net = network("gpt2")
    change = found_by(net, chosen_by="evaluation")["logit_difference"]
    assert (change[:, 1:] == 0).all()
    assert np.abs(change[:, 0]).max() > 1e-4


@pytest.mark.parametrize("into", INTO)
def test_receivers_in_the_first_layer_hear_nobody(into: str) -> None:
    metric = paths.into_heads("first", lambda inputs, half: [(0, 1)], inputs=(), into=into)
    assert (found_by(network("gpt2"), metric=metric)["logit_difference"] == 0).all()


def test_without_receivers_all_is_zero_and_the_receivers_are_told_by_half() -> None:
    none = {"selection": [], "evaluation": RECEIVERS}
    metric = paths.into_heads("some", lambda inputs, half: none[half], inputs=(), into="v")
    found = found_by(network("gptj"), metric=metric)
    on_selection = PROMPTS.half == 0
    assert (found["logit_difference"][~on_selection] == 0).all()
    assert np.abs(found["logit_difference"][on_selection]).max() > 1e-4
    assert [tuple(head) for head in np.argwhere(found["into"][0])] == RECEIVERS
    assert found["into"][1].sum() == 0


def test_one_half_may_choose_for_all_prompts() -> None:
    net = network("llama")
    other, by_selection = found_by(net), found_by(net, chosen_by="selection")
    on_evaluation = PROMPTS.half == 1
    value = "logit_difference"
    np.testing.assert_allclose(other[value][on_evaluation], by_selection[value][on_evaluation])
    assert np.abs(other[value] - by_selection[value])[~on_evaluation].max() > 1e-4


@pytest.mark.parametrize("name", ["gemma3", "qwen2"])
def test_little_memory_and_batches_give_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network(name)
    together = found_by(net)
    monkeypatch.setattr(effects, "WORKING_BYTES", 1)
    for rows in (np.arange(8), np.array([0, 1]), np.array([7, 2, 5])):
        part = found_by(net, PROMPTS.select(rows))
        np.testing.assert_allclose(
            part["logit_difference"], together["logit_difference"][rows], atol=1e-9
        )


def test_in_single_precision_it_is_within_a_hundred_thousandth() -> None:
    single = Network.from_model(tiny("gpt_neox"), name="single", check=False)
    wanted = found_by(network("gpt_neox"))["logit_difference"]
    np.testing.assert_allclose(found_by(single)["logit_difference"], wanted, atol=1e-5)


def test_unknown_positions_and_inputs_are_refused_in_a_sentence() -> None:
    batch, rows = batch_of(network("gpt2"), INTO_TOLD, PROMPTS), torch.arange(2)
    with pytest.raises(UsageError, match="hear through one of q, k, v, got 'z'"):
        path_effects(batch, rows, RECEIVERS, "z")
    with pytest.raises(UsageError, match="not 'nowhere'"):
        path_effects(batch, rows, RECEIVERS, "v", at="nowhere")


def test_the_cost_is_every_path_and_every_run_from_the_layer_above_at_every_position() -> None:
    shape = network("gpt2").shape
    cost = paths.into_s_inhibition.cost(Job(shape, 10, 12, 19, {}))
    end_only = s_inhibition.cost(Job(shape, 10, 12, 19, {}))
    assert cost.flops == 12 * end_only.flops
