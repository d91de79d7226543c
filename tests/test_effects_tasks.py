"""Direct effects on every task, in logits also where its behaviour is judged by probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mechtests.measurement import Measurement
from mechtests.metrics import effects
from mechtests.models.network import Network
from mechtests.tasks.greater_than import greater_than
from mechtests.tasks.ioi import ioi
from mechtests.tasks.prompts import Prompts, Task
from mechtests.tasks.pronoun import pronoun
from mechtests.tasks.succession import succession
from mechtests.tasks.sva import sva
from tests.measuring import measure
from tests.planted import IOI_WORDS, ioi_network
from tests.planted_answers import answering_stream
from tests.tiny import tiny
from tests.words import TaskWords

WORDS = TaskWords(bos=0)
TASKS = (ioi, greater_than, pronoun, sva, succession)
ANSWERED = TASKS[1:]
"""Those that one word decides; IOI has its own network."""
HALVES = ("selection", "evaluation")


def named(tasks: tuple[Task, ...]) -> object:
    return pytest.mark.parametrize("task", tasks, ids=[task.name for task in tasks])


def prompts_of(task: Task, n: int = 60) -> Prompts:
    return task.generate(WORDS, n, np.random.default_rng(0))


def measured(net: Network, task: Task, prompts: Prompts) -> Measurement:
    assert task.corruption is not None
    return measure(net, effects.direct_effects, prompts, corruption=task.corruption)


def difference(net: Network, final: torch.Tensor, prompts: Prompts) -> list[float]:
    """Answer by answer from all logits."""
    assert prompts.right is not None
    assert prompts.wrong is not None
    logits = net.logits(final).double().numpy()
    means = [
        [
            np.mean([row[answer] for answer in ids if answer >= 0])
            for row, ids in zip(logits, each, strict=True)
        ]
        for each in (prompts.right, prompts.wrong)
    ]
    return [right - wrong for right, wrong in zip(*means, strict=True)]


@named(TASKS)
@pytest.mark.parametrize("name", ["gpt_neox", "llama"])
def test_a_direct_effect_is_what_a_whole_run_with_all_other_heads_frozen_loses(
    name: str, task: Task
) -> None:
    net = Network.from_model(tiny(name, vocab_size=WORDS.size), name=name, check=False)
    prompts = prompts_of(task).select(np.arange(0, 60, 9))
    found = measured(net, task, prompts)
    tokens, last = torch.from_numpy(prompts.clean), torch.from_numpy(prompts.end)
    clean = net.run(tokens, keep=("z",), last=last)
    other = net.run(torch.from_numpy(prompts.corrupted[task.corruption]), keep=("z",), last=last)
    before = np.array(difference(net, clean.final, prompts))
    np.testing.assert_allclose(found["clean"], before, atol=1e-5)
    rows = torch.arange(len(prompts))
    for layer, head in np.ndindex(net.shape.layers, net.shape.heads):
        frozen = {each: clean["z", each].clone() for each in range(net.shape.layers)}
        frozen[layer][rows, last, head] = other["z", layer][rows, last, head]
        edits = {("z", each): (lambda z, frozen=frozen, each=each: frozen[each]) for each in frozen}
        left = difference(net, net.run(tokens, edits=edits, last=last).final, prompts)
        np.testing.assert_allclose(found["direct_effect"][:, layer, head], before - left, atol=1e-5)
    assert np.abs(found["direct_effect"]).max() > 1e-3


@named(ANSWERED)
@pytest.mark.parametrize("head", [(1, 2), (0, 0)])
def test_a_planted_head_that_answers_has_the_direct_effect(
    task: Task, head: tuple[int, int]
) -> None:
    prompts = prompts_of(task)
    net = answering_stream(prompts, task.corruption, WORDS.size, head).network()
    found = measured(net, task, prompts)
    others = found["direct_effect"].copy()
    others[:, *head] = 0.0
    for half in HALVES:
        assert found.strongest("direct_effect", half) == head
        assert found.mean("direct_effect", half)[head] > 20 * np.abs(others).max()
    if task is not succession:  # whose last token may be the word itself, and speak for itself
        span = found["clean"] - found["corrupted"]
        np.testing.assert_allclose(found["direct_effect"][:, *head], span, rtol=0.01, atol=0.1)


@named(ANSWERED)
def test_a_twin_without_it_has_no_head_with_an_effect(task: Task) -> None:
    prompts = prompts_of(task)
    net = answering_stream(prompts, task.corruption, WORDS.size, None).network()
    assert np.abs(measured(net, task, prompts)["direct_effect"]).max() < 0.1


def test_a_planted_name_mover_has_the_direct_effect_on_ioi_and_its_twin_has_none() -> None:
    prompts = ioi.generate(IOI_WORDS, 60, np.random.default_rng(0))
    found = measured(ioi_network((2, 5)), ioi, prompts)
    assert [found.strongest("direct_effect", half) for half in HALVES] == [(2, 5), (2, 5)]
    twin = measured(ioi_network(mover=None), ioi, prompts)
    assert np.abs(twin["direct_effect"]).max() < 0.1 < found.mean("direct_effect")[2, 5]
