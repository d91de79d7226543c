"""What the shipped family can do on combinations it never saw, and the claims on its control."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mechtests import engine, plan
from mechtests.case import Case
from mechtests.claim import Claim
from mechtests.metrics import attention, behaviour
from mechtests.models import embedded, sources
from mechtests.models.cell import Cell
from mechtests.results import Results
from mechtests.settings import Settings
from mechtests.store import Store
from mechtests.tasks.greater_than import greater_than
from mechtests.tasks.ioi import ioi
from mechtests.tasks.pronoun import pronoun
from mechtests.tasks.repeated_tokens import repeated_tokens
from mechtests.tasks.succession import succession
from mechtests.tasks.sva import sva
from mechtests.verdict import Outcome, Verdict
from tests.shipped_claims import ALL, CLAIMS, verdict_of
from training import evaluation

LARGEST, SMALLEST, CONTROL = "sprout-1m", "sprout-100k", "sprout-1m-control"
TASKS = (ioi, greater_than, pronoun, sva, succession)
NEEDS = {
    **{task.name: behaviour.answers(task.behaviour) for task in TASKS},
    "scores": attention.head_scores(repeated_tokens),
}
ABILITIES = Claim(id="test.abilities", says="", rule="", needs=NEEDS)


def cells(name: str) -> tuple[Cell, ...]:
    source = sources.resolve(name)
    return tuple(Cell(name, at, source) for at in source.checkpoints(offline=True))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("sprouts"))


def measured(case: Case, store: Store) -> Results:
    results = engine.run(plan.build([case], Settings(), store, offline=True), store, offline=True)
    assert not results.errors
    assert not results.cell_errors
    return results


def abilities(name: str, store: Store) -> dict[str, float]:
    """Each ability on all prompts; accuracies are against the wrong answers of the task."""
    cell = cells(name)[-1]
    results = measured(Case(ABILITIES, cell), store)
    found = {need: results.measurement(NEEDS[need], cell) for need in NEEDS}
    scores = found.pop("scores").mean("induction")
    values = {"greater_than": "probability_difference"}
    return {
        **{task: float(m.mean(values.get(task, "correct"))) for task, m in found.items()},
        "induction": float(scores.max()),
        **arithmetic(name),
    }


@cache
def arithmetic(name: str) -> dict[str, float]:
    """Accuracy of addition and subtraction of held-out operands, against every token."""
    cell = cells(name)[-1]
    loaded: Any = cell.source.load(cell.checkpoint, dtype="float32", device="cpu", offline=True)
    return {
        operation: evaluation.answers(loaded.model, operation)[operation]
        for operation in ("addition", "subtraction")
    }


LEAST = {
    "ioi": 0.95,
    "greater_than": 0.6,
    "pronoun": 0.95,
    "sva": 0.95,
    "succession": 0.95,
    "addition": 0.9,
    "subtraction": 0.8,
    "induction": 0.5,
}


def test_the_largest_does_every_task_on_combinations_it_never_saw(store: Store) -> None:
    found = abilities(LARGEST, store)
    assert {name: value for name, value in found.items() if value < LEAST[name]} == {}


def test_the_smallest_is_worse_by_more_than_sampling_on_two_of_them_or_more(store: Store) -> None:
    large, small = abilities(LARGEST, store), abilities(SMALLEST, store)
    worse = [name for name in LEAST if large[name] - small[name] > 0.15]  # 3 standard errors of 200
    assert len(worse) >= 2, (large, small)


def test_the_control_can_do_nothing(store: Store) -> None:
    found = abilities(CONTROL, store)
    chance = {"ioi": 0.6, "pronoun": 0.6, "sva": 0.6, "succession": 0.2, "greater_than": 0.2}
    above = {name: value for name, value in found.items() if value > chance.get(name, 0.1)}
    assert above == {}


def judged(claim: Claim, cell: Cell, store: Store) -> Verdict:
    case = Case(claim, cell)
    return verdict_of(case, measured(case, store))


MECHANISMS = [claim for claim in ALL if claim.over == "cell" and claim.paper != "sanity"]


@pytest.mark.parametrize("claim", MECHANISMS, ids=lambda claim: claim.id)
def test_with_the_gate_off_no_mechanism_holds_on_the_control_or_before_training(
    claim: Claim, store: Store
) -> None:
    for cell in (*cells(CONTROL), cells(LARGEST)[0], cells(SMALLEST)[0]):
        verdict = judged(replace(claim, gate=None), cell, store)
        assert verdict.outcome is not Outcome.HOLDS, (cell.id, verdict)


def test_the_largest_has_an_induction_head_and_the_claim_holds(store: Store) -> None:
    verdict = judged(CLAIMS["tigges2024.induction-present"], cells(LARGEST)[-1], store)
    assert verdict.outcome is Outcome.HOLDS, verdict


def test_the_family_takes_at_most_60_megabytes() -> None:
    size = sum(path.stat().st_size for path in Path(embedded.ROOT).rglob("*") if path.is_file())
    assert 0 < size <= 60e6
