"""Breaking a claim: the smallest prompt with which a model does not do what the claim says.

What ``mechtests falsify`` does: the claim's task gives the grammar (``tasks.grammar``), the model
runs its prompts, ``searching`` finds the smallest one that breaks the task's behaviour
(``answering``) or, where the behaviour is right, the number that decides the claim (``mechanism``),
and it is kept and run first the next time.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechtests import direct, mechanism, opening, shipped, tasks
from mechtests.answering import behaviour_of, margins
from mechtests.case import Case
from mechtests.claim import Claim
from mechtests.errors import MechtestsError, UsageError
from mechtests.mechanism import Mechanism
from mechtests.models import sources
from mechtests.models.cell import FINAL, Cell, select
from mechtests.opening import Opened
from mechtests.reporting import counterexample, folders
from mechtests.reporting.counterexample import Asked, Example, Found
from mechtests.searching import Examine, Trials, search
from mechtests.settings import Settings
from mechtests.store import default_folder
from mechtests.tasks.grammar import Choices, Grammar
from mechtests.tasks.prompts import Task

if TYPE_CHECKING:
    from mechtests.models.network import Network

BUDGET = 1000
KINDS = ("behaviour", "mechanism")
BEHAVIOURS = ("behaviour.answers", "arithmetic.answers")
"""What measures a behaviour, and no mechanism."""


def falsify(  # noqa: PLR0913  (what is searched of which model, and how far)
    claim: str,
    model: str,
    *,
    reports: Path,
    task: str | None = None,
    kind: str | None = None,
    checkpoint: str = FINAL,
    budget: int = BUDGET,
    seed: int = 0,
    offline: bool = False,
) -> Found:
    """Search a model for a prompt that breaks a claim, and keep what is found.

    Args:
        claim: The id of a claim that comes with mechtests.
        model: As for ``--model``.
        reports: The folder of reports, where counterexamples are kept.
        task: Which task, of a claim over several.
        kind: ``"behaviour"`` or ``"mechanism"``; unless said the mechanism, where the claim names
            one that single prompts can break.
        checkpoint: One of the model's, by its label or step.
        budget: How many forward passes the search may make. What the claim itself reads is
            measured before, unless it is in the store, with the default settings.
        seed: What the draws start from; equal seeds give equal searches.
        offline: Whether the network may not be asked.

    Raises:
        MechtestsError: The claim, model or checkpoint is not there, or has no such prompts.
    """
    found_task = searchable(claim, task)
    found_kind = kind_of(claim, found_task, kind)
    if budget < 1:
        raise UsageError(f"--budget is a number of forward passes from 1 on, got {budget}")
    cell = _cell(model, checkpoint, offline=offline)
    opened = Opened(cell, Settings(), opening.store_of((), None), offline=offline)
    assert found_task.grammar is not None
    grammar = found_task.grammar(opened.tokenizer)
    decides = None
    if found_kind == "mechanism":
        decides = _mechanism(claim, found_task, opened, offline=offline)
        if decides.claimed.cost > budget:
            raise UsageError(
                f"{claim}: a prompt takes about {decides.claimed.cost:.3g} forward passes, and "
                f"--budget is {budget}"
            )
    asked = Asked(
        claim=claim,
        task=found_task.name,
        cell=cell.id,
        behaviour=behaviour_of(found_task),
        seed=seed,
        budget=budget,
        claimed=None if decides is None else decides.claimed,
        again=_again(claim, model, found_task, found_kind, checkpoint, budget, seed, reports),
    )
    examine = examiner(opened.network, opened.tokenizer, grammar, asked.behaviour, decides)
    trials = Trials(grammar, examine, budget, 1.0 if decides is None else decides.claimed.cost)
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


def without_mechanism(claim: Claim) -> str | None:
    """Why no single prompt can break the mechanism of a claim, by its declaration; else None.

    What else speaks against it is known once the claim is judged in a cell (``mechanism.of``).
    """
    if claim.over != "cell":
        return f"it is over {claim.over}, and a prompt is run at one checkpoint"
    metrics = [
        need.metric
        for need in claim.needs.values()
        if need.task.name == claim.task and need.metric.name not in BEHAVIOURS
    ]
    if not metrics:
        return f"it is about the behaviour on {claim.task} itself"
    if all(metric.whole for metric in metrics):
        names = _listed(list(dict.fromkeys(metric.name for metric in metrics)))
        return f"{names} is made on all prompts at once, and no single one has a value"
    return None


def kind_of(claim: str, task: Task, kind: str | None) -> str:
    """What is searched of a claim: what was asked for, or what it is about.

    Raises:
        UsageError: There is no such kind, or the claim has no mechanism to search.
    """
    if kind not in (None, *KINDS):
        raise UsageError(f"what is searched is one of {', '.join(KINDS)}, got {kind!r}")
    reason = without_mechanism(direct.one_claim(claim, task.name)[0])
    if kind == "mechanism" and reason is not None:
        able = [
            each.id
            for each in shipped.claims()
            if without_mechanism(each) is None and tasks.find(str(each.task)).grammar is not None
        ]
        raise UsageError(
            f"{claim} has no mechanism that a prompt can break: {reason}; those of "
            f"{_listed(list(dict.fromkeys(able)))} can be searched"
        )
    return kind or ("behaviour" if reason else "mechanism")


def _mechanism(claim: str, task: Task, opened: Opened, *, offline: bool) -> Mechanism:
    """What decides a claim in a cell.

    Raises:
        UsageError: It is nothing that a single prompt has, or the claim is not applicable.
    """
    found, test = direct.one_claim(claim, task.name)
    try:
        return mechanism.of(Case(found, opened.cell), test, opened, offline=offline)
    except MechtestsError as error:
        raise UsageError(
            f"{error}; --search behaviour looks for a prompt of {task.name} that the model gets "
            "wrong"
        ) from error


def _again(
    claim: str,
    model: str,
    task: Task,
    kind: str,
    checkpoint: str,
    budget: int,
    seed: int,
    reports: Path,
) -> str:
    """The command that searches again."""
    words = ["mechtests", "falsify", claim, f"--task={task.name}", f"--model={model}"]
    words += [f"--search={kind}"]
    given = {"checkpoint": (checkpoint, FINAL), "budget": (budget, BUDGET), "seed": (seed, 0)}
    given["reports"] = (str(reports), str(folders.reports(Path.cwd())))
    words += [f"--{name}={value}" for name, (value, usual) in given.items() if value != usual]
    return shlex.join(words)


def examiner(
    network: Network,
    tokenizer: Any,
    grammar: Grammar,
    behaviour: str,
    decides: Mechanism | None = None,
) -> Examine:
    """What runs prompts of a grammar on a network: ``examine`` of ``Trials``.

    It raises ``MeasurementError`` where a margin is not a finite number.

    Args:
        network: Where they run.
        tokenizer: Its tokenizer.
        grammar: Whose prompts they are.
        behaviour: What is measured of them, as ``answering.behaviour_of`` gives it.
        decides: The number that decides a claim, where its mechanism is searched.
    """

    def examine(every: Sequence[Choices]) -> list[Example]:
        prompts = grammar.build(every)
        value: list[float | None] = [None] * len(every)
        beyond = value
        if decides is None:
            margin, guesses = margins(network, prompts, behaviour)
        else:
            values, margin, guesses = decides.at(prompts, behaviour)
            value = values.tolist()
            beyond = mechanism.beyond(values, decides.claimed).tolist()
        assert prompts.right is not None
        right, guess = (
            [tokenizer.decode([int(token)]) for token in ids]
            for ids in (prompts.right[:, 0], guesses)
        )
        columns = zip(
            every, prompts.texts, right, guess, margin.tolist(), value, beyond, strict=True
        )
        return [Example(dict(choices), *others) for choices, *others in columns]

    return examine
