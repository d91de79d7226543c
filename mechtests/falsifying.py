"""Breaking a claim: the smallest prompt with which a model does not do a claim's task.

What ``mechtests falsify`` does: the claim's task gives the grammar (``tasks.grammar``), the model
runs its prompts, ``searching`` finds the smallest one that breaks the task's behaviour, and it is
kept and run first the next time. What breaks it is told by one number a prompt (``margins``): not
above 0.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mechtests import shipped, tasks
from mechtests.errors import MeasurementError, UsageError
from mechtests.models import sources
from mechtests.models.cell import FINAL, Cell, select
from mechtests.reporting import counterexample
from mechtests.reporting.counterexample import Asked, Example, Found
from mechtests.searching import Examine, Trials, search
from mechtests.store import default_folder
from mechtests.tasks.grammar import Choices, Grammar
from mechtests.tasks.prompts import Prompts, Task

if TYPE_CHECKING:
    from mechtests.models.network import Network

BUDGET = 1000


def falsify(
    claim: str,
    model: str,
    *,
    reports: Path,
    task: str | None = None,
    checkpoint: str = FINAL,
    budget: int = BUDGET,
    seed: int = 0,
    offline: bool = False,
) -> Found:
    """Search a model for a prompt that breaks a claim's behaviour, and keep what is found.

    Args:
        claim: The id of a claim that comes with mechtests.
        model: As for ``--model``.
        reports: The folder of reports, where counterexamples are kept.
        task: Which task, of a claim over several.
        checkpoint: One of the model's, by its label or step.
        budget: How many prompts may be run.
        seed: What the draws start from; equal seeds give equal searches.
        offline: Whether the network may not be asked.

    Raises:
        MechtestsError: The claim, model or checkpoint is not there, or has no such prompts.
    """
    found_task = searchable(claim, task)
    if budget < 1:
        raise UsageError(f"--budget is a number of prompts from 1 on, got {budget}")
    cell = _cell(model, checkpoint, offline=offline)
    asked = Asked(claim, found_task.name, cell.id, behaviour_of(found_task), seed, budget)
    loaded = cell.source.load(cell.checkpoint, dtype="float32", device="cpu", offline=offline)
    assert found_task.grammar is not None
    grammar = found_task.grammar(loaded.tokenizer)

    from mechtests.models.network import Network

    network = Network.from_model(loaded.model, name=cell.id)
    examine = examiner(network, loaded.tokenizer, grammar, asked.behaviour)
    trials = Trials(grammar, examine, budget)
    file = counterexample.path(reports, asked)
    found = search(trials, asked, before=counterexample.stored(file))
    counterexample.write(file, found)
    return found


def searchable(claim: str, task: str | None = None) -> Task:
    """The task of a claim whose prompts can be searched; no model is loaded yet.

    Raises:
        UsageError: There is no such claim, it is over several such tasks, or over none.
    """
    every = list(shipped.claims())
    same = [each for each in every if each.id == claim]
    if not same:
        near = difflib.get_close_matches(claim, [each.id for each in every], 1)
        hint = f"did you mean {near[0]!r}?" if near else "mechtests claims lists them"
        raise UsageError(f"no claim is called {claim!r}; {hint}")
    names = [each.task for each in same if each.task is not None]
    if task is not None:
        if task not in names:
            raise UsageError(f"{claim} is over {_listed(names)}, not over {task!r}")
        names = [task]
    able = [found for name in names if (found := tasks.find(name)).grammar is not None]
    if not able:
        every_able = [name for name in tasks.known() if tasks.find(name).grammar is not None]
        raise UsageError(
            f"{claim} is over {_listed(names)}, whose prompts have no grammar that can be "
            f"searched; {_listed(every_able)} have one"
        )
    if len(able) > 1:
        options = _listed([each.name for each in able])
        raise UsageError(f"{claim} is over several tasks; say which with --task: {options}")
    return able[0]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "no one task"


def _cell(model: str, checkpoint: str, *, offline: bool) -> Cell:
    source = sources.resolve(model, cache=default_folder())
    if source.kind == "recorded":
        raise UsageError(f"{model} has recorded values and no weights, so no prompt can be run")
    chosen = select(source.checkpoints(offline=offline), checkpoint)
    if len(chosen) != 1:
        raise UsageError(f"falsify is about one checkpoint, and {checkpoint} names {len(chosen)}")
    return Cell(source.name, chosen[0], source)


def behaviour_of(task: Task) -> str:
    """What tells whether a prompt breaks a task's behaviour: what its gate is about."""
    levels = {} if task.levels is None else task.levels.above
    if "logit_difference" in levels:
        return "logit difference"
    if "probability_difference" in levels:
        return "probability difference"
    return "lead of the right answer's logit"


def examiner(network: Network, tokenizer: Any, grammar: Grammar, behaviour: str) -> Examine:
    """What runs prompts of a grammar on a network: ``examine`` of ``Trials``.

    It raises ``MeasurementError`` where a margin is not a finite number.

    Args:
        network: Where they run.
        tokenizer: Its tokenizer.
        grammar: Whose prompts they are.
        behaviour: What is measured of them, as ``behaviour_of`` gives it.
    """

    def examine(every: Sequence[Choices]) -> list[Example]:
        prompts = grammar.build(every)
        values, guesses = margins(network, prompts, behaviour)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise MeasurementError(
                f"{network.name}: the {behaviour} of {prompts.texts[bad[0]]!r} is not a finite "
                "number; the model gives NaN or infinite activations"
            )
        assert prompts.right is not None
        right, guess = (
            [tokenizer.decode([int(token)]) for token in ids]
            for ids in (prompts.right[:, 0], guesses)
        )
        columns = zip(every, prompts.texts, right, guess, values.tolist(), strict=True)
        return [Example(dict(choices), *others) for choices, *others in columns]

    return examine


def margins(network: Network, prompts: Prompts, behaviour: str) -> tuple[np.ndarray, np.ndarray]:
    """By how much the model does the task, and its first guess, each ``[prompt]``.

    Args:
        network: The network.
        prompts: With right answers, and wrong ones unless it is the lead that is asked for.
        behaviour: One of those ``behaviour_of`` gives: the first two are those of
            ``behaviour.answers``; the lead is the right answer's logit minus the highest other one.
    """
    import torch

    from mechtests.metrics.behaviour import logit_difference, probability_difference

    device = network.device
    tokens = torch.from_numpy(np.ascontiguousarray(prompts.clean)).to(device)
    with torch.no_grad():
        final = network.run(tokens, last=torch.from_numpy(prompts.end).to(device)).final
        logits = network.logits(final).float()
        if behaviour == "logit difference":
            found = logit_difference(network, final, prompts)
        elif behaviour == "probability difference":
            found = probability_difference(network, final, prompts)
        else:
            assert prompts.right is not None
            right = torch.as_tensor(prompts.right[:, :1], device=device)
            others = logits.scatter(1, right, float("-inf"))
            found = logits.gather(1, right)[:, 0] - others.amax(-1)
    return found.double().cpu().numpy(), logits.argmax(-1).cpu().numpy()
