"""Joint path patches: against runs of one prompt, and against the patches of single heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mechtests.measurement import HALVES, Half, Head, Measurement
from mechtests.metrics import effects, paths
from mechtests.metrics.inhibition import s_inhibition
from mechtests.metrics.joint import Choose, jointly
from mechtests.metrics.metric import Metric
from mechtests.models.network import Network
from tests.measuring import measure
from tests.test_inhibition import choosing
from tests.test_paths import PROMPTS, Slowly, network
from tests.tiny import ARCHITECTURES

SENDERS: Mapping[Half, list[Head]] = {
    "selection": [(0, 1), (1, 2), (2, 0)],
    "evaluation": [(0, 0), (1, 3)],
}
RECEIVERS: Mapping[Half, list[Head]] = {
    "selection": [(1, 0), (2, 1), (2, 3)],
    "evaluation": [(2, 2)],
}
INTO = ("logits", "q", "k", "v")


def of(by_half: Mapping[Half, list[Head]]) -> Choose:
    return lambda given, half: by_half[half]


def metric(
    into: str,
    at_end: bool = False,
    senders: Mapping[Half, list[Head]] = SENDERS,
    receivers: Mapping[Half, list[Head]] = RECEIVERS,
) -> Metric:
    hearing = None if into == "logits" else of(receivers)
    return jointly("told", of(senders), hearing, inputs=(), into=into, at_end=at_end)


class Jointly(Slowly):
    """One prompt alone, all senders in one run with everything else frozen."""

    def joint(self, senders: list[Head], receivers: list[Head], into: str, at_end: bool) -> float:
        end = self.tokens.shape[1] - 1
        frozen = {each: self.clean["z", each].clone() for each in range(self.net.shape.layers)}
        for layer, head in senders:
            frozen[layer][0, :, head] = self.other["z", layer][0, :, head]
        edits: Any = {("z", each): (lambda value, each=each: frozen[each]) for each in frozen}
        keep = () if into == "logits" else (into,)
        heard = self.net.run(self.tokens, keep=keep, edits=edits)
        if into != "logits":
            group = self.net.shape.heads // self.clean[into, 0].shape[2]

            def edit(layer: int) -> Any:
                def edited(value: torch.Tensor) -> torch.Tensor:
                    value = value.repeat_interleave(group, 2).clone()
                    for head in [head for there, head in receivers if there == layer]:
                        for at in [end] if at_end else range(end + 1):
                            value[0, at, head] = heard[into, layer][0, at, head // group]
                    return value

                return edited

            told: Any = {(into, layer): edit(layer) for layer, _ in receivers}
            heard = self.net.run(self.tokens, edits=told)
        return self.difference(heard.final) - self.difference(self.clean.final)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("into", INTO)
def test_a_joint_patch_is_what_whole_runs_of_one_prompt_give(name: str, into: str) -> None:
    net = network(name)
    heads = [(layer, head) for layer in range(net.shape.layers) for head in range(net.shape.heads)]
    for at_end in (False, True):
        found = measure(net, metric(into, at_end), PROMPTS)
        for row in range(len(PROMPTS)):
            by = HALVES[1 - PROMPTS.half[row]]
            slow = Jointly(net, row)
            for value, senders in (("role", SENDERS[by]), ("every", heads)):
                wanted = slow.joint(senders, RECEIVERS[by], into, at_end)
                assert found[value][row] == pytest.approx(wanted, abs=1e-9)


def alone(head: Head) -> Mapping[Half, list[Head]]:
    return {half: [head] for half in HALVES}


def single(net: Network, into: str, head: Head) -> np.ndarray:
    """What the metrics of single heads say of one."""
    if into == "logits":
        return -measure(net, effects.direct_effects, PROMPTS)["direct_effect"][:, *head]
    if into == "q":
        given = choosing(net, RECEIVERS["selection"], RECEIVERS["evaluation"], PROMPTS)
        return measure(net, s_inhibition, PROMPTS, inputs=given)["logit_difference"][:, *head]
    into_told = paths.into_heads("told", of(RECEIVERS), inputs=(), into=into)
    return measure(net, into_told, PROMPTS)["logit_difference"][:, *head]


@pytest.mark.parametrize("into", ["logits", "q", "v"])
def test_a_role_of_one_head_has_the_effect_of_that_head(into: str) -> None:
    net, head = network("gpt_neox"), (0, 2)
    found = measure(net, metric(into, into == "q", senders=alone(head)), PROMPTS)
    np.testing.assert_allclose(found["role"], single(net, into, head), atol=1e-6)


def test_a_role_of_all_heads_is_every_head_and_none_or_no_receiver_changes_nothing() -> None:
    net = network("gpt2")
    heads = [(layer, head) for layer in range(net.shape.layers) for head in range(net.shape.heads)]
    none: Mapping[Half, list[Head]] = {half: [] for half in HALVES}
    whole = measure(net, metric("v", senders=dict.fromkeys(HALVES, heads)), PROMPTS)
    np.testing.assert_array_equal(whole["role"], whole["every"])
    silent = measure(net, metric("v", senders=none), PROMPTS)
    assert (silent["role"] == 0).all()
    assert (silent["every"] != 0).any()
    deaf = measure(net, metric("v", receivers=none), PROMPTS)
    assert (deaf["role"] == 0).all()
    assert (deaf["every"] == 0).all()


def test_it_says_who_spoke_to_whom_and_one_half_may_choose_for_all() -> None:
    net, asked = network("gpt2"), metric("v")
    found = measure(net, asked, PROMPTS)
    by_one = replace(asked, params={**asked.params, "chosen_by": "selection"})
    same = measure(net, by_one, PROMPTS)

    def marked(where: Measurement, value: str, index: int) -> list[Head]:
        return [(int(layer), int(head)) for layer, head in np.argwhere(where[value][index])]

    for value, heads in (("senders", SENDERS), ("into", RECEIVERS)):
        for index, half in enumerate(HALVES):
            assert marked(found, value, 1 - index) == heads[half]
            assert marked(same, value, index) == heads["selection"]
