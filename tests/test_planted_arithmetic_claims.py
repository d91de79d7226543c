"""The shipped claims tell a bag of heuristics from an algorithm and from a table of answers."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from mechtests import engine, plan
from mechtests.arithmetic import knockout_measures
from mechtests.case import Case
from mechtests.models.cell import Cell
from mechtests.reporting.conclusions import BAG
from mechtests.settings import Settings
from mechtests.store import Store
from mechtests.verdict import Outcome, Verdict
from tests.planted_arithmetic import source
from tests.shipped_claims import CLAIMS, verdict_of

SPARSE, CLASSIFIED, BEATS, RELATED = (
    f"nikankin2025.{name}"
    for name in (
        "neurons-sparse",
        "heuristics-classified",
        "knockout-beats-random",
        "knockout-related",
    )
)
FAILED = {
    "fourier": {
        SPARSE: (Outcome.REFUTED, "faithfulness: share 0.1"),
        CLASSIFIED: (Outcome.INCONCLUSIVE, "the control reaches it: rotations"),
        BEATS: (Outcome.INCONCLUSIVE, "nothing varies"),
    },
    "digits": {
        CLASSIFIED: (Outcome.INCONCLUSIVE, "the control reaches it: rotations"),
        BEATS: (Outcome.INCONCLUSIVE, "prompts have fewer than 10 such neurons in some layer"),
        RELATED: (Outcome.INCONCLUSIVE, "15 in 8 are needed"),
    },
    "lookup": {
        CLASSIFIED: (Outcome.REFUTED, "share of top neurons that match: 0.0"),
        BEATS: (Outcome.INCONCLUSIVE, "nothing varies"),
        RELATED: (Outcome.INCONCLUSIVE, "15 in 8 are needed"),
    },
}
"""What each network that is no bag fails of what a bag needs, and why.

No neuron of the Fourier network or the table is missed at all, and too few neurons of the digit
adder match heuristics that hold for a problem.
"""
PROMPTS, DRAWS = 1_500, 3
"""Problems, of which each half of an operator has enough; and draws of a knock-out's controls."""


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """The verdicts of some claims on a planted network."""

    def verdicts(kind: str, names: Collection[str]) -> dict[str, Verdict]:
        made_of = source(kind)
        cell = Cell(made_of.name, None, made_of)
        cases = [Case(CLAIMS[name], cell) for name in names]
        store = Store(tmp_path_factory.mktemp(kind))
        settings = Settings(prompt_counts={"arithmetic": PROMPTS})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(knockout_measures, "DRAWS", DRAWS)
            results = engine.run(plan.build(cases, settings, store), store)
        assert results.errors == results.cell_errors == {}
        return {case.claim.id: verdict_of(case, results) for case in cases}

    return verdicts


def test_a_bag_of_heuristics_has_what_the_conclusion_asks_for(judged) -> None:
    for name, verdict in judged("bag", BAG).items():
        assert verdict.outcome is Outcome.HOLDS, (name, verdict.sentence)


@pytest.mark.parametrize("kind", FAILED)
def test_an_algorithm_and_a_memory_fail_what_a_bag_needs(judged, kind: str) -> None:
    assert set(BAG) & set(FAILED[kind])
    for name, verdict in judged(kind, FAILED[kind]).items():
        outcome, words = FAILED[kind][name]
        assert verdict.outcome is outcome, verdict.sentence
        assert words in verdict.sentence
