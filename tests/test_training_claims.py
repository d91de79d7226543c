"""The shipped claims over training, on a series of hand-made networks: plan, measure, judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from mechtests import engine, plan
from mechtests.case import Case
from mechtests.metrics import weights
from mechtests.models.cell import Cell, Checkpoint, Loaded
from mechtests.settings import Settings
from mechtests.store import Store
from mechtests.verdict import Outcome, Verdict
from tests.planted import Planted, Stream, induction_stream, jittered
from tests.shipped_claims import CLAIMS, verdict_of
from tests.words import Numbers

ONSET = CLAIMS["tigges2024.induction-onset"]
DIFFER = CLAIMS["sanity.checkpoints-differ"]
WORDS = Numbers(120, bos=0)
STEPS = (0, 128, 256, 512, 1000, 2000, 4000, 8000, 16000)
PYTHIA = 2_097_152


@dataclass(frozen=True, kw_only=True)
class Grown(Planted):
    """Hand-made networks in a row: without the head up to a step, with it from then on."""

    without: Callable[[], Stream] = field(compare=False)
    from_step: float = 0.0
    copies: dict[int, int] = field(default_factory=dict, compare=False, hash=False)

    def identity(self, checkpoint: Any, *, offline: bool) -> dict[str, str]:
        step = self.copies.get(checkpoint.step, checkpoint.step)
        return {"sha256": f"{step >= self.from_step} {step} as {checkpoint.step}"}

    def load(self, checkpoint: Any, **how: Any) -> Loaded:
        self.loads.append(checkpoint.label)
        step = self.copies.get(checkpoint.step, checkpoint.step)
        model = deepcopy(planted(self.make if step >= self.from_step else self.without))
        jittered(model.parameters(), 1e-4 * (1 + STEPS.index(step)))
        return Loaded(model, self.words, {})


@cache
def planted(make: Callable[[], Stream]) -> Any:
    return make().model


WITH = partial(induction_stream, (0, 2), (1, 1), WORDS, width=512, strength=26.0)
WITHOUT = partial(induction_stream, (0, 2), None, WORDS, width=512, strength=26.0)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Equal checkpoints of several series are measured once."""
    return Store(tmp_path_factory.mktemp("shared"))


def series(name: str, from_step: float, steps: Sequence[int] = STEPS, **more: Any) -> Case:
    source = Grown(
        name=name,
        make=WITH,
        without=WITHOUT,
        words=WORDS,
        from_step=from_step,
        steps=tuple(Checkpoint(f"step{step}", step, PYTHIA * step) for step in steps),
        **more,
    )
    cells = tuple(Cell(name, checkpoint, source) for checkpoint in source.steps)  # type: ignore[arg-type]
    return Case(ONSET, cells[-1], cells, name)


def judged(case: Case, store: Store) -> Verdict:
    results = engine.run(plan.build([case], Settings(), store), store)
    assert not results.errors
    assert not results.cell_errors
    return verdict_of(case, results)


@pytest.mark.parametrize(
    ("from_step", "outcome", "says"),
    [
        (1000, Outcome.HOLDS, "after step512, by step1000"),
        (2000, Outcome.HOLDS, "after step1000, by step2000"),
        (4000, Outcome.REFUTED, "after step2000, by step4000"),
        (256, Outcome.REFUTED, "after step128, by step256"),
        (16000, Outcome.INCONCLUSIVE, "too few to confirm"),
        (float("inf"), Outcome.REFUTED, "never emerges"),
    ],
)
def test_a_planted_onset_is_found_between_its_two_checkpoints(
    from_step: float, outcome: Outcome, says: str, shared: Store
) -> None:
    verdict = judged(series("pythia-160m", from_step), shared)
    assert verdict.outcome is outcome, verdict
    assert says in verdict.sentence
    [curve] = verdict.shown["curves"]
    assert curve["labels"] == [f"step{step}" for step in STEPS]
    assert (max(curve["mean"]) > 0.4) == (from_step < float("inf"))


def test_outside_pythia_the_onset_is_shown_and_nothing_is_claimed(shared: Store) -> None:
    verdict = judged(series("grown", 1000), shared)
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert "between 1.07e9 and 2.1e9 tokens" in verdict.sentence


def test_fewer_than_six_checkpoints_are_not_loaded_at_all(tmp_path: Path) -> None:
    case = series("pythia-160m", 1000, STEPS[:5])
    made = plan.build([case], Settings(), Store(tmp_path))
    assert made.cells == ()
    verdict = judged(case, Store(tmp_path))
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert "has 5 checkpoints in this run, and a claim over training needs 6" in verdict.sentence


def test_the_final_checkpoint_is_measured_first_and_each_once(tmp_path: Path) -> None:
    case = series("pythia-160m", 1000)
    judged(case, Store(tmp_path))
    loads = case.cell.source.loads  # type: ignore[attr-defined]
    assert loads == ["step16000", *(f"step{step}" for step in STEPS[:-1])]


def test_an_interrupted_series_resumes_where_it_stopped(tmp_path: Path) -> None:
    case, store = series("pythia-160m", 1000), Store(tmp_path)
    part = replace(case, series=case.cells[-6:])
    judged(part, store)
    case.cell.source.loads.clear()  # type: ignore[attr-defined]
    judged(case, store)
    assert case.cell.source.loads == ["step0", "step128", "step256"]  # type: ignore[attr-defined]


def test_a_checkpoint_that_serves_the_weights_of_another_is_left_out_and_refutes_sanity(
    shared: Store,
) -> None:
    case = series("pythia-160m", 1000, copies={256: 8000})
    verdict = judged(replace(case, claim=DIFFER), shared)
    assert verdict.outcome is Outcome.REFUTED
    assert "step256 and step8000 are one" in verdict.sentence
    verdict = judged(case, shared)
    assert "step256" not in verdict.shown["curves"][0]["labels"]
    assert verdict.outcome is Outcome.HOLDS, verdict


def test_a_matrix_that_two_checkpoints_share_is_named(tmp_path: Path) -> None:
    class Shared(Grown):
        def load(self, checkpoint: Any, **how: Any) -> Loaded:
            loaded = super().load(checkpoint, **how)
            loaded.model.transformer.h[1].attn.c_attn.weight.data[:] = 0.01
            return loaded

    case = series("pythia-160m", 1000)
    source = case.cell.source
    spoilt = Shared(**{name: getattr(source, name) for name in source.__dataclass_fields__})  # type: ignore[attr-defined]
    cells = tuple(replace(cell, source=spoilt) for cell in case.cells)
    verdict = judged(Case(DIFFER, cells[-1], cells, "pythia-160m"), Store(tmp_path))
    assert verdict.outcome is Outcome.REFUTED
    assert "share 3 large matrices" in verdict.sentence


def test_different_checkpoints_are_said_to_differ(shared: Store) -> None:
    verdict = judged(replace(series("pythia-160m", 1000), claim=DIFFER), shared)
    assert verdict.outcome is Outcome.HOLDS
    assert verdict.sentence == "9 checkpoints, 9 different weights"
    assert weights.LARGE < 512 * 512
