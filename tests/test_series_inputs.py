"""A series may lack checkpoints, and a measurement may start from one in the series' final cell."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mechtests import engine, judging, plan
from mechtests.case import Case
from mechtests.claim import ATTRIBUTE, Claim, claim
from mechtests.errors import NotApplicable, UsageError
from mechtests.measured import Measured
from mechtests.metrics.metric import Batch, Metric, Need, Value
from mechtests.models.cell import Cell, Checkpoint, Loaded
from mechtests.results import Results
from mechtests.settings import Settings
from mechtests.store import Store
from mechtests.tasks.ioi import ioi
from mechtests.verdict import Outcome, Verdict
from tests.fake_source import FakeSource

ONE = {"number": Value(("one",), "one")}
STEPS = 7


@dataclass(frozen=True)
class Trained(FakeSource):
    """A tiny model whose every checkpoint has weights of its own."""

    last: int = STEPS - 1
    loaded: list[str] = field(default_factory=list, hash=False, compare=False)

    def checkpoints(self, *, offline: bool = True) -> tuple[Checkpoint, ...]:
        return tuple(Checkpoint(f"step{s}", s, 10 * s) for s in range(1, 2 + self.last))

    def identity(self, checkpoint: Checkpoint | None, *, offline: bool) -> dict[str, Any]:
        assert checkpoint is not None
        return {"made": checkpoint.label}

    def load(self, checkpoint: Checkpoint | None, **how: Any) -> Loaded:
        assert checkpoint is not None
        self.loaded.append(checkpoint.label)
        loaded = super().load(checkpoint, **how)
        loaded.model.get_input_embeddings().weight.data[0] = float(checkpoint.step or 0)
        return loaded


def number_of(batch: Batch) -> float:
    """The step, as the weights say it."""
    import torch

    return float(batch.network.embed(torch.zeros(1, 1, dtype=torch.long))[0, 0, 0])


def step(batch: Batch) -> dict[str, Any]:
    return {"number": np.array([number_of(batch)])}


def even(batch: Batch) -> dict[str, Any]:
    if number_of(batch) % 2:
        raise NotApplicable(f"{batch.network.name} is odd")
    return step(batch)


def beside(batch: Batch) -> dict[str, Any]:
    own, last = (float(batch.inputs[name]["number"][0]) for name in ("own", "last"))
    return {"number": np.array([100 * own + last])}


STEP = Metric("test.step", 1, step, ONE, whole=True)
EVEN = Metric("test.even", 1, even, ONE, whole=True)
BESIDE = Metric("test.beside", 1, beside, ONE, inputs=("own", "last"), whole=True)


def from_the_end(last: Metric = STEP) -> Need:
    inputs = {"own": STEP(ioi), "last": last(ioi, cell="final")}
    return BESIDE(ioi, inputs=inputs)


def case_of(needs: dict[str, Need], source: Trained | None = None, *partial: str) -> Case:
    made = source or Trained()
    cells = tuple(Cell(made.name, at, made) for at in made.checkpoints())
    told = Claim("test.x", "", "", over="training", needs=needs, where_applicable=partial)
    return Case(told, cells[-1], cells, made.name)


def run(case: Case, store: Store) -> Results:
    results = engine.run(plan.build([case], Settings(), store), store)
    assert results.errors == results.cell_errors == {}
    return results


def numbers(ready: Measured | Any, name: str) -> list[float]:
    return [float(each["number"][0]) for each in ready[name]]


# ---------------------------------------------------------------- where it applies


def test_checkpoints_where_a_measurement_does_not_apply_are_left_out_and_named(
    tmp_path: Path,
) -> None:
    case = case_of({"even": EVEN(ioi), "step": STEP(ioi)}, None, "even")
    ready = judging.prepare(case, run(case, Store(tmp_path)))
    assert numbers(ready, "even") == [2, 4, 6]
    assert numbers(ready, "step") == [1, 2, 3, 4, 5, 6, 7]
    left_out = ready.even.left_out  # type: ignore[union-attr]
    assert list(left_out) == ["step1", "step3", "step5", "step7"]
    assert "step3 is odd" in left_out["step3"]


def test_without_being_told_one_such_checkpoint_makes_the_series_not_applicable(
    tmp_path: Path,
) -> None:
    case = case_of({"even": EVEN(ioi), "step": STEP(ioi)})
    ready = judging.prepare(case, run(case, Store(tmp_path)))
    assert isinstance(ready, Measured)
    assert "step1 is odd" in (ready.lacks("even") or "")
    assert len(numbers(ready, "step")) == STEPS


def test_a_series_that_applies_nowhere_is_not_applicable_for_the_last_ones_reason(
    tmp_path: Path,
) -> None:
    def never(batch: Batch) -> dict[str, Any]:
        raise NotApplicable(f"{batch.network.name} cannot")

    case = case_of({"x": replace(EVEN, name="test.never", compute=never)(ioi)}, None, "x")
    verdict = judging.prepare(case, run(case, Store(tmp_path)))
    assert isinstance(verdict, Verdict)
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert "step7 cannot" in verdict.sentence


def test_only_what_is_needed_may_lack_checkpoints() -> None:
    with pytest.raises(UsageError, match=r"where_applicable names needs, and odd is none of even"):
        claim("t.x", says="", over="training", needs={"even": EVEN(ioi)}, where_applicable=["odd"])(
            lambda: None
        )
    found = claim("t.x", says="", needs={"even": EVEN(ioi)}, where_applicable=["even"])(lambda: 0)
    assert getattr(found, ATTRIBUTE).claims[0].where_applicable == ("even",)


# ---------------------------------------------------------------- from the final cell


def test_a_measurement_at_every_checkpoint_may_start_from_the_final_cell(tmp_path: Path) -> None:
    source = Trained()
    case = case_of({"both": from_the_end()}, source)
    ready = judging.prepare(case, run(case, Store(tmp_path)))
    assert numbers(ready, "both") == [100.0 * at + STEPS for at in range(1, 1 + STEPS)]
    assert source.loaded == ["step7", *(f"step{at}" for at in range(1, STEPS))]


def test_what_it_starts_from_in_the_final_cell_is_made_there_alone(tmp_path: Path) -> None:
    last = replace(STEP, name="test.only")
    case = case_of({"both": from_the_end(last)}, None)
    made = plan.build([case], Settings(), Store(tmp_path))
    where = [s.cell.id.rpartition(":")[2] for s in made.steps if s.need.metric.name == "test.only"]
    assert where == ["step7"]
    assert [len(cell.steps) for cell in made.cells] == [3, *[2] * (STEPS - 1)]


def test_it_is_stored_with_the_end_of_its_series(tmp_path: Path) -> None:
    """The same checkpoint in a longer series is measured again, and nothing else is."""
    store, whole = Store(tmp_path), case_of({"both": from_the_end(), "step": STEP(ioi)})
    short = replace(whole, cell=whole.series[5], series=whole.series[:6])
    run(short, store)
    missing = plan.build([whole], Settings(), store).missing
    assert sum(each.need.metric is BESIDE for each in missing) == STEPS
    assert sum(each.need.metric is STEP for each in missing) == 1
    found = [numbers(judging.prepare(case, run(case, store)), "both") for case in (short, whole)]
    assert [each[0] for each in found] == [106.0, 107.0]
    assert not plan.build([short, whole], Settings(), store).missing


def test_where_the_final_cell_has_it_not_it_applies_nowhere(tmp_path: Path) -> None:
    case = case_of({"both": from_the_end(EVEN)}, None, "both")
    verdict = judging.prepare(case, run(case, Store(tmp_path)))
    assert isinstance(verdict, Verdict)
    assert "step7 is odd" in verdict.sentence


def test_keys_of_what_starts_from_no_final_cell_are_as_ever() -> None:
    need, identity = STEP(ioi), {"made": "step1"}
    key = Settings().key(need, identity)
    assert Settings().key(need, identity, {"made": "step7"}) == key
    assert Settings().key(need.of_series(case_of({"a": need}).cell), identity) == key
    with pytest.raises(UsageError, match="needs the final cell of a series"):
        Settings().key(from_the_end(), identity)


def test_a_claim_over_one_cell_starts_from_that_cell(tmp_path: Path) -> None:
    case = case_of({"both": from_the_end()})
    one = replace(case, claim=replace(case.claim, over="cell"), series=(), cell=case.series[2])
    ready = judging.prepare(one, run(one, Store(tmp_path)))
    assert float(ready.both["number"][0]) == 303.0  # type: ignore[union-attr, index]
