"""The shipped claims about turnover, on hand-made networks in a row and on recorded Pythia."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mechtests import engine, plan
from mechtests.case import Case
from mechtests.models.cell import Cell, Checkpoint, Loaded
from mechtests.settings import Settings
from mechtests.store import Store
from mechtests.verdict import Outcome, Verdict
from tests.planted import induction_stream, jittered
from tests.shipped_claims import ALL, verdict_of
from tests.test_training_claims import PYTHIA, STEPS, WITHOUT, WORDS, Grown, planted

[CHANGE] = [
    claim
    for claim in ALL
    if claim.id == "tigges2024.heads-turn-over" and claim.task == "repeated_tokens"
]
FIRST = partial(induction_stream, (0, 2), (1, 1), WORDS, width=512, strength=26.0)
SECOND = partial(induction_stream, (0, 2), (1, 2), WORDS, width=512, strength=26.0)


@dataclass(frozen=True, kw_only=True)
class Replaced(Grown):
    """Hand-made networks in a row: no head, then one, then another in its place."""

    until: float = 4000

    def identity(self, checkpoint: Any, *, offline: bool) -> dict[str, str]:
        return {"sha256": f"{self.until} {checkpoint.step}"}

    def load(self, checkpoint: Any, **how: Any) -> Loaded:
        make = FIRST if checkpoint.step < self.until else SECOND
        model = deepcopy(planted(make if checkpoint.step >= self.from_step else self.without))
        jittered(model.parameters(), 1e-4 * (1 + STEPS.index(checkpoint.step)))
        return Loaded(model, self.words, {})


def judged(until: float, store: Store) -> Verdict:
    source = Replaced(
        name="replaced",
        make=FIRST,
        without=WITHOUT,
        words=WORDS,
        from_step=128,
        until=until,
        steps=tuple(Checkpoint(f"step{step}", step, PYTHIA * step) for step in STEPS),
    )
    cells = tuple(Cell("replaced", checkpoint, source) for checkpoint in source.steps)  # type: ignore[arg-type]
    case = Case(CHANGE, cells[-1], cells, "replaced")
    results = engine.run(plan.build([case], Settings(), store), store)
    assert not results.errors
    assert not results.cell_errors
    return verdict_of(case, results)


def test_a_planted_head_that_another_one_replaces_is_a_turnover(tmp_path: Path) -> None:
    verdict = judged(2000, Store(tmp_path))
    assert verdict.outcome is Outcome.HOLDS, verdict
    [strip] = verdict.shown["heads"]
    assert [(each["from"], each["to"]) for each in strip["takeovers"]] == [("1.1", "1.2")]


def test_a_planted_head_that_stays_refutes_it(tmp_path: Path) -> None:
    verdict = judged(float("inf"), Store(tmp_path))
    assert verdict.outcome is Outcome.REFUTED, verdict
