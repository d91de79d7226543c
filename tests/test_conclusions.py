"""mechtests.reporting.conclusions: what three verdicts say together, and what one never says."""

from __future__ import annotations

from itertools import product

import pytest

from mechtests.reporting import conclusions, html, markdown, terminal
from mechtests.reporting.conclusions import BAG
from mechtests.reporting.record import Record
from mechtests.verdict import Outcome, Verdict
from tests.many_records import HEADER, record_of

CONSISTENT = "consistent with a bag of heuristics"


def judged(*outcomes: Outcome, cell: str = "m", q: float | None = None) -> list[Record]:
    return [
        record_of(Verdict(outcome, "said"), id=name, cell=cell, q=q)
        for name, outcome in zip(BAG, outcomes, strict=False)
    ]


@pytest.mark.parametrize("outcomes", list(product(Outcome, repeat=3)))
def test_it_is_said_where_all_three_hold_and_nowhere_else(outcomes: tuple[Outcome, ...]) -> None:
    said = " ".join(conclusions.sentences(judged(*outcomes)))
    assert (CONSISTENT in said) == (set(outcomes) == {Outcome.HOLDS})


def test_what_holds_not_after_correction_is_not_enough() -> None:
    said = conclusions.sentences(judged(*[Outcome.HOLDS] * 3, q=0.2))
    assert said == [
        "m: not shown to be a bag of heuristics: heuristics-classified holds, not after "
        "correction, knockout-beats-random holds, not after correction, neurons-sparse holds, "
        "not after correction"
    ]


def test_each_cell_speaks_for_itself_and_one_that_lacks_a_claim_is_silent() -> None:
    records = [
        *judged(Outcome.HOLDS, Outcome.HOLDS, Outcome.HOLDS, cell="one"),
        *judged(Outcome.HOLDS, Outcome.INCONCLUSIVE, Outcome.REFUTED, cell="two"),
        *judged(Outcome.HOLDS, Outcome.HOLDS, cell="three"),
    ]
    assert conclusions.sentences(records) == [
        f"one: {CONSISTENT}: heuristics-classified, knockout-beats-random, neurons-sparse hold",
        "two: not shown to be a bag of heuristics: knockout-beats-random is inconclusive, "
        "neurons-sparse is refuted",
    ]


def test_every_report_says_it() -> None:
    records = judged(*[Outcome.HOLDS] * 3)
    assert CONSISTENT in terminal.render(records)
    assert CONSISTENT in markdown.render(HEADER, records)
    assert CONSISTENT in html.render(HEADER, records)
