"""The shipped claims tell a bag of heuristics from an algorithm and from a table of answers."""

from __future__ import annotations

from functools import cache

import pytest

from mechtests import engine, plan
from mechtests.case import Case
from mechtests.models.cell import Cell
from mechtests.settings import Settings
from mechtests.store import Store
from mechtests.verdict import Outcome, Verdict
from tests.planted_arithmetic import source
from tests.shipped_claims import CLAIMS, verdict_of

NEEDED = ("neurons-sparse", "heuristics-classified", "knockout-beats-random")
PROMPTS = 1_600


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """The verdicts of some claims on a planted network."""

    @cache
    def verdicts(kind: str) -> dict[str, Verdict]:
        made_of = source(kind)
        cell = Cell(made_of.name, None, made_of)
        cases = [Case(CLAIMS[f"nikankin2025.{name}"], cell) for name in NEEDED]
        store = Store(tmp_path_factory.mktemp(kind))
        settings = Settings(prompt_counts={"arithmetic": PROMPTS})
        results = engine.run(plan.build(cases, settings, store), store)
        assert results.errors == results.cell_errors == {}
        return dict(zip(NEEDED, (verdict_of(case, results) for case in cases), strict=True))

    return verdicts


def test_a_bag_of_heuristics_has_what_these_claims_ask_for(judged) -> None:
    for name, verdict in judged("bag").items():
        assert verdict.outcome is Outcome.HOLDS, (name, verdict.sentence)


@pytest.mark.parametrize("kind", ["fourier"])
def test_an_algorithm_and_a_memory_fail_what_a_bag_needs(judged, kind: str) -> None:
    verdicts = judged(kind)
    assert verdicts["neurons-sparse"].outcome is Outcome.REFUTED, verdicts["neurons-sparse"]
    for name in NEEDED[1:]:
        assert verdicts[name].outcome is not Outcome.HOLDS, verdicts[name].sentence
