"""A metric that makes its own passes gets all prompts once, and its arrays may have any axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mechtests import engine, plan
from mechtests.case import Case
from mechtests.claim import Claim
from mechtests.errors import MeasurementError
from mechtests.metrics import behaviour
from mechtests.metrics.metric import Batch, Metric, Need, Value
from mechtests.models.network import Network
from mechtests.results import Results
from mechtests.settings import Settings
from mechtests.store import Store
from mechtests.tasks.ioi import ioi
from tests.fake_source import FakeSource

BEHAVIOUR = behaviour.answers(ioi)
PROMPTS = Settings().prompts_of(ioi)
VALUES = {
    "scalar": Value((), "prompts"),
    "by_layer": Value(("layer", "prompt"), "one"),
    "each": Value(("prompt",), "logits"),
}


def whole(compute: Callable[[Batch], Mapping[str, Any]], **more: Any) -> Metric:
    return Metric("test.whole", 1, compute, VALUES, whole=True, **more)


def given(batch: Batch) -> dict[str, Any]:
    rows = batch.rows
    return {
        "scalar": torch.tensor(float(len(batch.prompts))),
        "by_layer": np.arange(3)[:, None] + np.zeros(len(rows)),
        "each": rows.astype(float),
    }


def run(tmp_path: Path, *needs: Need, source: FakeSource | None = None) -> Results:
    named = {f"need_{place}": need for place, need in enumerate(needs)}
    claim = Claim(id="test.whole", says="", rule="", needs=named)
    store = Store(tmp_path / "store")
    case = Case(claim, (source or FakeSource()).cell)
    return engine.run(plan.build([case], Settings(), store), store)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mechtests.tape.TOKENS_A_BATCH", 100)


def test_a_whole_metric_gets_all_prompts_once_whatever_the_batch(tmp_path: Path) -> None:
    seen: list[int] = []

    def compute(batch: Batch) -> Mapping[str, Any]:
        seen.append(len(batch.prompts))
        return given(batch)

    source = FakeSource()
    need = whole(compute)(ioi)
    results = run(tmp_path, BEHAVIOUR, need, source=source)
    assert not results.errors
    assert seen == [PROMPTS]
    found = results.measurement(need, source.cell)
    assert found["scalar"].shape == ()
    assert found["scalar"] == PROMPTS
    assert found["by_layer"].shape == (3, PROMPTS)
    assert found["each"].tolist() == list(range(PROMPTS))
    assert found.half.shape == (PROMPTS,)
    assert results.measurement(BEHAVIOUR, source.cell).facts["batch"] < PROMPTS


def test_what_a_whole_metric_computes_itself_is_what_the_runs_of_others_give(
    tmp_path: Path,
) -> None:
    def compute(batch: Batch) -> Mapping[str, Any]:
        prompts = batch.prompts
        last = torch.from_numpy(prompts.end)
        run = batch.network.run(torch.from_numpy(prompts.clean), keep=["final"], last=last)
        own = behaviour.logit_difference(batch.network, run.final, prompts)
        stored = batch.inputs["answers"]["logit_difference"]
        return {**given(batch), "each": own - torch.from_numpy(stored)}

    source = FakeSource()
    need = whole(compute, inputs=("answers",))(ioi, inputs={"answers": BEHAVIOUR})
    results = run(tmp_path, need, source=source)
    assert not results.errors
    np.testing.assert_allclose(results.measurement(need, source.cell)["each"], 0.0, atol=1e-4)


def test_a_whole_metric_alone_costs_no_block_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = []
    plain = Network.run

    def counted(self: Network, *tokens: Any, **how: Any) -> Any:
        layers.append(how.get("stop"))
        return plain(self, *tokens, **how)

    monkeypatch.setattr("mechtests.models.selfcheck.check", lambda *a, **k: {})
    monkeypatch.setattr(Network, "run", counted)
    assert not run(tmp_path, whole(given)(ioi)).errors
    assert set(layers) <= {0}


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory")])
def test_out_of_memory_is_a_whole_metrics_own_error_and_is_not_tried_again(
    tmp_path: Path, error: Exception
) -> None:
    tries = []

    def compute(batch: Batch) -> Mapping[str, Any]:
        tries.append(batch)
        raise error

    source = FakeSource()
    need = whole(compute)(ioi)
    results = run(tmp_path, BEHAVIOUR, need, source=source)
    assert len(tries) == 1
    with pytest.raises(MeasurementError, match=r"^test\.whole on ioi in tiny-llama: out of memory"):
        results.measurement(need, source.cell)
    assert results.measurement(BEHAVIOUR, source.cell)["correct"].shape == (PROMPTS,)


@pytest.mark.parametrize(
    ("value", "where"),
    [("scalar", "at all and 0 more of 1"), ("by_layer", "at layer 0, prompt 0 and"),
     ("each", r"at prompt 0 \('")],
)  # fmt: skip
def test_a_value_that_is_no_number_is_named_with_its_place_whatever_its_axes(
    tmp_path: Path, value: str, where: str
) -> None:
    def compute(batch: Batch) -> Mapping[str, Any]:
        values = given(batch)
        return {**values, value: np.asarray(values[value], dtype=float) * np.nan}

    source = FakeSource()
    need = whole(compute)(ioi)
    results = run(tmp_path, need, source=source)
    with pytest.raises(MeasurementError, match=f"{value} is not a finite number {where}"):
        results.measurement(need, source.cell)
