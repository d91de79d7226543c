from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

import mechtests
from mechtests import shipped
from mechtests.errors import UsageError
from mechtests.reporting import methods, records
from mechtests.reporting.papers import PAPERS
from mechtests.reporting.record import Record
from mechtests.verdict import Outcome

HEADER = {"versions": {"mechtests": "9.8.7", "torch": "1.2.3", "numpy": "0.0.1"}}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    store = tmp_path_factory.mktemp("methods")
    claims = ["tigges2024.*", "nikankin2025.accuracy", "sanity.*"]
    found = mechtests.judge("sprout-100k", claims=claims, store=store, offline=True)
    return list(found.records)


def numbers_before(word: str, text: str) -> list[int]:
    return [int(each.replace(",", "")) for each in re.findall(rf"([\d,]+) {word}", text)]


def test_every_number_of_the_paragraph_is_counted_from_the_records(judged: list[Record]) -> None:
    text = methods.paragraph(judged, HEADER)
    cited = [record for record in judged if record.claim.paper != "sanity"]
    assert numbers_before("claims", text)[0] == len({record.claim.id for record in cited})
    assert set(numbers_before("verdicts", text)) >= {len(cited)}
    for outcome, word in (
        ("holds", "held[,.]"),
        ("inconclusive", "stayed"),
        ("not applicable", "did"),
    ):
        count = sum(record.outcome.value == outcome for record in cited)
        assert numbers_before(word, text) == ([count] if count else [])
    decided = sum(r.outcome in (Outcome.HOLDS, Outcome.REFUTED) for r in cited)
    assert f"{decided} decided" in text
    families = {r.claim.family for r in cited if records.in_a_family(r)}
    assert f"each of {len(families)} families" in text
    prompts = [record.verdict.prompts for record in cited if record.verdict.prompts]
    assert f"{min(prompts):,} to {max(prompts):,} prompts" in text
    assert "profile quick and seed 0" in text
    assert "mechtests 9.8.7" in text
    assert "torch 1.2.3" in text
    assert "sprout-100k:step4883" in text


def test_every_paper_that_is_cited_has_its_bibtex_and_no_other(judged: list[Record]) -> None:
    text = methods.methods(judged, HEADER)
    cited = set(re.findall(r"\\cite[tp]\{(\w+)\}", text))
    entries = set(re.findall(r"^@\w+\{(\w+),", text, re.MULTILINE))
    assert cited == entries == {"tigges2024", "nikankin2025", "mechtests"}
    only = [record for record in judged if record.claim.paper == "nikankin2025"]
    assert "tigges" not in methods.methods(only, HEADER)


def test_every_shipped_paper_is_known() -> None:
    assert {claim.paper for claim in shipped.claims()} - {"sanity"} == set(PAPERS)


def mine(record: Record, **claim: Any) -> Record:
    return replace(record, claim=replace(record.claim, **claim))


def test_a_paper_of_one_s_own_is_named_or_given(judged: list[Record]) -> None:
    own = [mine(judged[0], id="ada1843.note-g", family="ada1843.note-g")]
    assert "% ada1843: no BibTeX is known" in methods.methods(own)
    given = methods.methods(own, bibtex={"ada1843": "@book{ada1843,\n}"})
    assert "@book{ada1843," in given


def test_what_a_reader_must_know_is_said(judged: list[Record]) -> None:
    refuted = next(record for record in judged if record.outcome is Outcome.REFUTED)
    text = methods.paragraph([replace(refuted, expectation="the paper says so", overridden=True)])
    assert "Of the refutations 1 is expected by the paper itself" in text
    assert "In 1 verdict prompts of our own" in text


def test_records_of_several_runs_or_of_none_are_refused(judged: list[Record]) -> None:
    one, *_ = [record for record in judged if record.claim.paper != "sanity"]
    with pytest.raises(UsageError, match="profiles full, quick"):
        methods.methods([one, replace(one, profile="full")])
    with pytest.raises(UsageError, match="seeds 0, 5"):
        methods.methods([one, replace(one, seed=5)])
    with pytest.raises(UsageError, match="got none"):
        methods.methods([record for record in judged if record.claim.paper == "sanity"])
