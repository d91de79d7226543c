"""Neurons of tasks that are not arithmetic, and the claim that is held against them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mechtests.arithmetic import neuron_measures, other_tasks
from mechtests.arithmetic import neurons as room
from mechtests.arithmetic.neuron_measures import task_neurons
from mechtests.arithmetic.neurons import attributions, task_attributions
from mechtests.arithmetic.problems import Problems
from mechtests.errors import NotApplicable
from mechtests.measurement import Measurement
from mechtests.metrics import behaviour
from mechtests.models.network import Network
from mechtests.tasks.ioi import ioi
from mechtests.tasks.prompts import Prompts
from mechtests.verdict import Outcome, Verdict
from tests.measuring import measure, random_prompts
from tests.numerals import able
from tests.numerals import problems as sums
from tests.planted_arithmetic import bag
from tests.planted_arithmetic_bag import planted_bag
from tests.planted_arithmetic_problems import MINUS, PLUS, sign
from tests.planted_arithmetic_problems import problems as planted_problems
from tests.problems import problems
from tests.shipped_claims import TESTS
from tests.tiny import ARCHITECTURES, LAYERS, VOCABULARY, network

WIDTH = 96
DOUBLE = torch.float64
CLAIM = "nikankin2025.neurons-shared"
Floats = NDArray[np.float64]


# ---------------------------------------------------------------- what is attributed


def difference(logits: Tensor, right: list[int], wrong: list[int]) -> float:
    """Mean logit of the wrong answers minus that of the right ones."""
    answers = [logits[[each for each in some if each >= 0]].mean() for some in (wrong, right)]
    return float(answers[0] - answers[1])


def slow(net: Network, prompts: Prompts, row: int, layer: int, neuron: int) -> float:
    """Half the slope of the difference along the patch, of one prompt run alone and unpadded."""
    length = int(prompts.length[row])
    clean, other = (
        torch.from_numpy(each[row : row + 1, :length])
        for each in (prompts.clean, prompts.corrupted["S2->IO"])
    )
    of_clean, of_other = (net.run(each, keep=("post",))["post", layer] for each in (clean, other))
    change = float(of_other[0, -1, neuron] - of_clean[0, -1, neuron])
    assert prompts.right is not None
    assert prompts.wrong is not None
    right, wrong = prompts.right[row].tolist(), prompts.wrong[row].tolist()

    def at(amount: float) -> float:
        def edit(post: Tensor) -> Tensor:
            post = post.clone()
            post[0, -1, neuron] += amount * change
            return post

        final = net.run(clean, edits={("post", layer): edit}).final
        return difference(net.logits(final)[0], right, wrong)

    return (at(1e-4) - at(-1e-4)) / 2e-4 / 2


def with_fewer_answers(prompts: Prompts) -> Prompts:
    """The same, where one prompt has one answer of each kind and others two."""
    assert prompts.right is not None
    assert prompts.wrong is not None
    right, wrong = prompts.right.copy(), prompts.wrong.copy()
    right[0, 1] = wrong[1, 1] = -1
    return replace(prompts, right=right, wrong=wrong)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_tasks_neurons_are_attributed_the_slope_of_each_prompt_run_alone(name: str) -> None:
    net = network(name, DOUBLE)
    prompts = with_fewer_answers(random_prompts(VOCABULARY, n=4, seed=1, answers=2))
    found = task_attributions(net, prompts, "S2->IO", range(LAYERS))
    assert found.shape == (2, LAYERS, WIDTH)
    for half in (0, 1):
        rows = np.flatnonzero(prompts.half == half).tolist()
        for layer, neuron in ((0, 5), (1, 17), (2, 90)):
            wanted = np.mean([slow(net, prompts, row, layer, neuron) for row in rows])
            assert found[half, layer, neuron] == pytest.approx(wanted, rel=1e-4, abs=1e-8)


def as_task(mine: Problems, others: Problems) -> Prompts:
    """Problems as prompts of a task, whose wrong answer is right for the corrupted variant."""
    at = np.arange(len(mine))
    return Prompts(
        clean=mine.tokens,
        length=np.full(len(mine), mine.tokens.shape[1]),
        cluster=at,
        template=0 * at,
        half=at % 2,
        texts=tuple(map(str, at)),
        corrupted={"S2->IO": others.tokens},
        right=mine.answer[:, None],
        wrong=others.answer[:, None],
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_problems_as_a_task_are_attributed_what_arithmetic_is(name: str) -> None:
    net, mine, others = network(name), problems(7, seed=1), problems(7, seed=2)
    found = task_attributions(net, as_task(mine, others), "S2->IO", [1, 2])
    for half in (0, 1):
        rows = np.arange(7) % 2 == half
        wanted = attributions(net, mine.select(rows), others.select(rows), layers=[1, 2])
        np.testing.assert_allclose(found[half], wanted.by_mean(), rtol=1e-4, atol=1e-6)


def test_neither_batches_nor_padding_change_what_a_task_is_attributed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, prompts = network("gemma2"), random_prompts(VOCABULARY, n=8, seed=3)
    whole = task_attributions(net, prompts, "S2->IO", [0, 2])
    noise = np.random.default_rng(0).integers(0, VOCABULARY, (8, 3))
    wider = replace(
        prompts,
        clean=np.concatenate((prompts.clean, noise), 1),
        corrupted={
            name: np.concatenate((ids, noise), 1) for name, ids in prompts.corrupted.items()
        },
    )
    np.testing.assert_allclose(task_attributions(net, wider, "S2->IO", [0, 2]), whole, atol=1e-6)
    monkeypatch.setattr(room, "prompts_at_once", lambda *_: 3)
    np.testing.assert_allclose(task_attributions(net, prompts, "S2->IO", [0, 2]), whole, atol=1e-6)


def test_prompts_that_are_not_corrupted_attribute_nothing() -> None:
    net, prompts = network("llama"), random_prompts(VOCABULARY, n=4)
    same = replace(prompts, corrupted={"S2->IO": prompts.clean})
    assert not task_attributions(net, same, "S2->IO", range(LAYERS)).any()


def test_a_network_without_late_layers_is_not_asked() -> None:
    with pytest.raises(NotApplicable, match="has 3 layers"):
        measure(network("gpt2"), task_neurons, random_prompts(VOCABULARY))


def adding() -> Prompts:
    """Sums of the planted bag as a task."""
    every = planted_problems(PLUS)
    rows = np.random.default_rng(0).permutation(len(every))
    mine, others = every.select(rows[:200]), every.select(rows[200:400])
    apart = mine.answer != others.answer
    return as_task(mine.select(apart), others.select(apart))


def test_the_neurons_of_a_task_are_those_that_were_planted_for_it() -> None:
    effect = measure(bag(), task_neurons, adding())["effect"]
    planted = {(each.layer, each.neuron) for each in planted_bag().neurons}
    for layer in (4, 5, 6, 7):
        order = np.argsort(-effect[0, layer - 4])
        assert all((layer, int(neuron)) in planted for neuron in order[:30])


def test_a_task_whose_answers_no_neuron_writes_has_no_neurons() -> None:
    """The unembedding of "+" and "-" reads nothing of the stream."""
    prompts = adding()
    right, wrong = (np.full((len(prompts), 1), sign(each)) for each in (PLUS, MINUS))
    effect = measure(bag(), task_neurons, replace(prompts, right=right, wrong=wrong))["effect"]
    assert not effect.any()


# ---------------------------------------------------------------- the claim

NEURONS, COUNT, OPERATORS = 400, 6, (0, 1)
"""Neurons of a layer, 1.5% of them, and two operators."""
OWN, LARGE, IOI = (slice(start, start + COUNT) for start in (0, 100, 200))


def made(
    values: Mapping[str, Any], axes: Mapping[str, tuple[str, ...]], prompts: int
) -> Measurement:
    at = np.arange(prompts)
    return Measurement("x", values, axes, {}, at, 0 * at, at % 2)


def effects(*places: slice, noise: float = 0.0, seed: int = 0) -> Floats:
    """What two layers' neurons are attributed: 1 of some, and noise, ``[half, layer, neuron]``."""
    found = noise * np.random.default_rng(seed).random((2, 2, NEURONS))
    for place in places:
        found[..., place] += 1.0
    return found


def attributed() -> Measurement:
    """Two operators that share five of their six neurons, which are not the largest ones."""
    each = np.stack([effects(slice(0, COUNT)), effects(slice(1, COUNT + 1))])
    effect = np.repeat(each[:, :, None], 10, 2)
    # without a tenth of the problems one layer has another neuron
    effect[0, 0, :, 0, COUNT - 1] = np.eye(10)[0] * 10
    effect[0, 0, :, 0, COUNT + 1] = 0.5
    return made(
        {
            "effect": effect,
            "count": np.full((2, 2, 10), 10),
            "size": np.stack([effects(LARGE)] * 2),
            "operators": np.array(OPERATORS),
        },
        {
            "effect": ("operator", "half", "group", "layer", "neuron"),
            "count": ("operator", "half", "group"),
            "size": ("operator", "half", "layer", "neuron"),
            "operators": ("operator",),
        },
        4,
    )


def behaving(right: float) -> Measurement:
    """What a model answers on a task, right so often."""
    draw = np.random.default_rng(3).random(400) < right
    values = {name: np.where(draw, 2.0, -2.0) for name in behaviour.answers.values}
    values["correct"] = draw.astype(float)
    values["probability_difference"] = np.where(draw, 0.9, -0.9)
    return made(values, dict.fromkeys(values, ("prompt",)), 400)


class Told:
    """What the claim reads of a model that was made up."""

    def __init__(self, **tasks: tuple[float, Floats]) -> None:
        self.answers = able(sums(198, 8_000), (1.0, 1.0, 0.0, 0.0))
        self.found = attributed()
        axes = {"effect": ("half", "layer", "neuron")}
        self.tasks: dict[str, Measurement] = {}
        for name, (right, effect) in tasks.items():
            self.tasks[name] = behaving(right)
            self.tasks[f"{name}_neurons"] = made({"effect": effect}, axes, 400)

    def __getitem__(self, name: str) -> Measurement:
        if name not in self.tasks:
            raise NotApplicable(f"{name} is not for this tokenizer")
        return self.tasks[name]


class _JudgedError(Exception):
    pass


def judged(**tasks: tuple[float, Floats]) -> Verdict:
    found: list[Verdict] = []

    def judge(verdict: Verdict) -> None:
        found.append(verdict)
        raise _JudgedError

    with pytest.raises(_JudgedError):
        TESTS[CLAIM](measured=Told(**tasks), judge=judge)
    return found[0]


def test_operators_that_share_neurons_of_their_own_hold() -> None:
    verdict = judged(ioi=(0.95, effects(IOI)))
    assert verdict.outcome is Outcome.HOLDS, verdict
    assert "top neurons of the task ioi share 0.00, ours 0.83" in verdict.sentence
    by_name = {control.name: control for control in verdict.controls}
    assert [name for name, each in by_name.items() if each.decides] == ["by size alone", "ioi"]
    assert "sva is not for this tokenizer" in by_name["sva"].sentence


def test_operators_that_share_what_every_task_uses_do_not_hold() -> None:
    verdict = judged(ioi=(0.95, effects(slice(0, COUNT))))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "the control reaches it: ioi: top neurons of the task ioi share 0.9" in verdict.sentence


def test_one_task_that_shares_as_much_is_enough_to_leave_it_open() -> None:
    verdict = judged(ioi=(0.95, effects(IOI)), sva=(0.95, effects(slice(0, COUNT))))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "the control reaches it: sva" in verdict.sentence


@pytest.mark.parametrize(
    ("tasks", "why"),
    [
        ({}, "pronoun is not for this tokenizer"),
        ({"ioi": (0.3, effects(IOI))}, "its gate is failed: accuracy on evaluation"),
        ({"ioi": (0.6, effects(IOI))}, "its gate is undecided"),
        ({"ioi": (0.95, effects(noise=1.0))}, "its two halves share 0."),
    ],
)
def test_without_a_task_that_the_model_does_by_neurons_of_its_own_it_is_open(
    tasks: dict[str, Any], why: str
) -> None:
    verdict = judged(**tasks)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "no task but arithmetic to compare with" in verdict.sentence
    assert why in verdict.sentence
    assert verdict.p == 1.0


def test_neurons_of_a_task_are_the_same_share_of_each_layer_from_its_selection_half() -> None:
    both = np.concatenate([effects(IOI)[:1], effects(slice(203, 203 + COUNT))[1:]])
    found = other_tasks.top_neurons(Told(ioi=(0.95, both)), ioi)
    assert found.shape == (2, NEURONS)
    assert (found.sum(1) == COUNT).all()
    assert found[:, IOI].all()


def test_every_task_is_declared_with_its_behaviour_and_its_neurons() -> None:
    needs = other_tasks.needs()
    assert {need.task.name for need in needs.values()} == {"ioi", "pronoun", "sva"}
    assert {need.metric.name for need in needs.values()} == {
        "behaviour.answers",
        neuron_measures.task_neurons.name,
    }
