"""The claim that a model does arithmetic, on the sprouts and on models that are made up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mechtests import engine, plan
from mechtests.case import Case
from mechtests.measurement import Measurement
from mechtests.models import sources
from mechtests.models.cell import Cell
from mechtests.settings import Settings
from mechtests.store import Store
from mechtests.tasks.arithmetic import NAMES, arithmetic
from mechtests.verdict import Outcome, Verdict
from tests.fake_source import FakeSource
from tests.numerals import Numerals, able, answered, problems
from tests.shipped_claims import ALL, CLAIMS, TESTS, verdict_of

ACCURACY = CLAIMS["nikankin2025.accuracy"]
(GATES,) = (c for c in ALL if c.id == "sanity.gates" and c.task == "arithmetic")
CENSUS = arithmetic.sizes["standard"]
MODEL = "made-up"


@dataclass(frozen=True)
class Digits(FakeSource):
    """A tiny random model that spells numbers."""

    def tokenizer(self) -> Any:
        return Numerals(9)


class Told:
    """What a claim reads of a model that was made up."""

    def __init__(self, answers: Measurement, model: str = MODEL) -> None:
        self.answers = answers
        self.model = model


class _JudgedError(Exception):
    pass


def judged(answers: Measurement, model: str = MODEL) -> Verdict:
    found: list[Verdict] = []

    def judge(verdict: Verdict) -> None:
        found.append(verdict)
        raise _JudgedError

    with pytest.raises(_JudgedError):
        TESTS[ACCURACY.id](measured=Told(answers, model), judge=judge)
    return found[0]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("arithmetic"))


def on(name: str, store: Store, *, first: bool = False, profile: str = "quick") -> list[Verdict]:
    source: Any = sources.resolve(name)
    at = source.checkpoints(offline=True)[0 if first else -1]
    cases = [Case(claim, Cell(name, at, source)) for claim in (ACCURACY, GATES)]
    results = engine.run(
        plan.build(cases, Settings(profile=profile), store, offline=True), store, offline=True
    )
    assert not results.errors
    assert not results.cell_errors
    return [verdict_of(case, results) for case in cases]


@pytest.mark.parametrize("name", ["sprout-100k", "sprout-1m"])
def test_a_sprout_does_arithmetic_and_passes_every_gate(name: str, store: Store) -> None:
    does, gate = on(name, store)
    assert does.outcome is Outcome.HOLDS, does
    assert does.p is not None
    assert does.p < 1e-6
    assert all(f"{operator} passed" in gate.sentence for operator in NAMES)
    assert does.shown["addition"]["held_out"] > 0.9
    assert 200 < does.shown["addition"]["held_out_problems"] < 500


def test_a_census_of_sprout_has_no_interval_and_all_its_problems(store: Store) -> None:
    does, _ = on("sprout-100k", store, profile="standard")
    sample, _ = on("sprout-100k", store)
    assert does.interval is None
    assert does.prompts == 21_085
    assert sample.interval is not None
    assert sample.interval[0] - 0.01 < does.estimate < sample.interval[1] + 0.01  # type: ignore[operator]


@pytest.mark.parametrize(("name", "first"), [("sprout-1m-control", False), ("sprout-1m", True)])
def test_the_control_and_an_untrained_sprout_do_not(name: str, first: bool, store: Store) -> None:
    does, gate = on(name, store, first=first)
    assert does.outcome is Outcome.REFUTED, does
    assert gate.outcome is Outcome.HOLDS
    assert all(f"{operator} failed" in gate.sentence for operator in NAMES)


def test_a_tokenizer_that_splits_numbers_makes_the_claim_not_applicable(tmp_path: Path) -> None:
    source = Digits()
    case = Case(ACCURACY, source.cell)
    made = plan.build([case], Settings(), Store(tmp_path))
    results = engine.run(made, Store(tmp_path))
    verdict = verdict_of(case, results)
    assert verdict.outcome is Outcome.NOT_APPLICABLE, verdict
    assert "'10' is '1', '0'" in verdict.sentence


@cache
def census(*accuracies: float) -> Measurement:
    return able(problems(999, CENSUS), accuracies)


def test_figures_of_the_papers_models_give_the_verdicts_of_their_floors() -> None:
    large, small = census(0.97, 0.96, 0.84, 0.92), census(0.23, 0.09, 0.2, 0.64)
    assert judged(large).outcome is Outcome.HOLDS
    found = judged(small)
    assert found.outcome is Outcome.REFUTED
    assert "on the other side: addition 0.2" in found.sentence
    parts = {part.sentence.split(":")[0]: part.outcome for part in found.parts}
    assert parts["accuracy of division"] is Outcome.REFUTED  # 0.64 is hardly above 0.58


def test_a_model_that_says_0_to_every_division_is_no_better_than_its_floor() -> None:
    prompts = problems(999, CENSUS)
    assert prompts.right is not None
    said = prompts.right[:, 0] + 1
    zero = (prompts.template == 3) & (prompts.tokens["result"] == 0)
    said[zero] -= 1
    found = judged(answered(prompts, said))
    assert found.outcome is Outcome.REFUTED
    assert found.shown["division"]["accuracy"] == pytest.approx(0.498, abs=0.001)
    assert found.shown["division"]["score"] < 0
    assert found.shown["division_without_zero_answers"]["accuracy"] == 0.0


def test_the_printed_figures_are_held_against_a_census_of_the_papers_models_alone() -> None:
    found = census(0.97, 0.96, 0.84, 0.92)
    assert judged(found, "meta-llama/Meta-Llama-3-8B").shown["table_3"].endswith("within 0.02")
    apart = judged(found, "Llama-3-70B").shown["table_3"]
    assert apart.endswith("further than 0.02 from it: subtraction, multiplication, division")
    assert "table_3" not in judged(found).shown
    sample = able(problems(999), (0.97, 0.96, 0.84, 0.92))
    assert "a sample cannot" in judged(sample, "gpt-j-6b").shown["table_3"]
    assert np.isfinite(judged(sample).p)  # type: ignore[arg-type]
