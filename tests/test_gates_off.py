"""With the behaviour gates switched off no mechanism over training holds where there is none.

Two series without a mechanism are judged as Pythia's, whose windows and heads the claims name:
sixteen networks that were initialised and never trained, and such networks with the control
model's checkpoints at the end. Every task counts as learned from the first checkpoint on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from mechtests import engine, plan
from mechtests.case import Case
from mechtests.claim import Claim
from mechtests.errors import NotApplicable
from mechtests.metrics import gates
from mechtests.models import sources
from mechtests.models.cell import Cell, Checkpoint, Loaded, Source
from mechtests.settings import Settings
from mechtests.store import Store
from mechtests.verdict import Outcome
from tests.noise import STEPS
from tests.noise_results import PermutedResults, case_of
from tests.shipped_claims import ALL, verdict_of
from tests.test_noise_series import SCHEDULES

CONTROL, LARGEST = "sprout-1m-control", "sprout-1m"
MECHANISMS = [
    claim
    for claim in ALL
    if claim.over == "training"
    and claim.paper != "sanity"
    and set(claim.components) - {"behaviour"}
]
COUNT = 16


@dataclass(frozen=True)
class Fresh:
    """A model whose every checkpoint is initialised anew and not trained."""

    of: Source

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of, name)

    def checkpoints(self, *, offline: bool = False) -> tuple[Checkpoint, ...]:
        return tuple(Checkpoint(f"step{step}", step, step) for step in range(COUNT))

    def identity(self, checkpoint: Checkpoint | None, *, offline: bool) -> dict[str, Any]:
        assert checkpoint is not None
        return {"fresh": checkpoint.label, **self.of.identity(self._first, offline=offline)}

    def config(self, checkpoint: Checkpoint | None, *, offline: bool) -> dict[str, Any]:
        return self.of.config(self._first, offline=offline)

    def download_bytes(self, checkpoint: Checkpoint | None, *, offline: bool) -> int:
        return 0

    def load(self, checkpoint: Checkpoint | None, **how: Any) -> Loaded:
        assert checkpoint is not None
        seed = 1000 + int(checkpoint.step or 0)
        return self.of.load(self._first, **{**how, "untrained_seed": seed})

    @property
    def _first(self) -> Checkpoint:
        return self.of.checkpoints(offline=True)[0]


def series(name: str) -> tuple[Cell, ...]:
    """The cells of a series without a mechanism."""
    source: Any = sources.resolve(CONTROL if name == "control" else LARGEST)
    trained = source.checkpoints(offline=True) if name == "control" else ()
    fresh = Fresh(source).checkpoints()[: COUNT - len(trained)]
    return (
        *(Cell(f"fresh-{source.name}", at, Fresh(source)) for at in fresh),  # type: ignore[arg-type]
        *(Cell(source.name, at, source) for at in trained),
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the claims read in each series, by need and checkpoint."""
    store = Store(tmp_path_factory.mktemp("fresh"))

    @cache
    def found(name: str) -> dict[Any, list[Any]]:
        cells = series(name)
        assert len(cells) == COUNT
        needs = dict.fromkeys(need for claim in MECHANISMS for need in claim.needs.values())
        named = {f"need_{place}": need for place, need in enumerate(needs)}
        case = Case(replace(MECHANISMS[0], gate=None, needs=named), cells[-1], cells, name)
        made = plan.build([case], Settings(), store, offline=True)
        results = engine.run(made, store, offline=True)
        assert not results.errors
        assert not results.cell_errors
        return {
            need: [_one(results, need.of_series(case.final(cell)), cell) for cell in cells]
            for need in needs
        }

    return found


def _one(results: Any, need: Any, cell: Cell) -> Any:
    try:
        return results.measurement(need, cell)
    except NotApplicable as reason:
        return reason


@pytest.fixture(autouse=True)
def learned_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every task counts as learned from the first checkpoint on: the gate is off."""
    emergence = gates.emergence

    def always(*given: Any) -> gates.Emergence:
        found = emergence(*given)
        here, never = np.zeros_like(found.onset.above), np.ones_like(found.onset.below)
        return replace(found, onset=replace(found.onset, above=here, below=never, undecidable=None))

    monkeypatch.setattr(gates, "emergence", always)


@pytest.mark.parametrize("name", ["control", "untrained"])
@pytest.mark.parametrize(
    "claim", MECHANISMS, ids=[f"{claim.id}-{claim.task}" for claim in MECHANISMS]
)
def test_with_the_gate_off_no_mechanism_over_training_holds_where_nothing_was_learned(
    claim: Claim, name: str, measured: Any
) -> None:
    found = measured(name)
    steps = SCHEDULES.get(claim.id, STEPS)[: len(series(name))]
    results: Any = PermutedResults(found, steps, 0, together=True, shuffle=False)
    verdict = verdict_of(case_of(replace(claim, gate=None), steps), results)
    assert verdict.outcome is not Outcome.HOLDS, str(verdict)
