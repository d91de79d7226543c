"""mechtests.reporting.papers: cited as CITATION.cff cites them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mechtests import shipped
from mechtests.reporting.papers import PAPERS

CITATION = Path(__file__).parent.parent / "CITATION.cff"


def test_every_paper_that_a_shipped_claim_is_of_can_be_cited():
    assert {claim.paper for claim in shipped.claims()} - {"sanity"} <= PAPERS.keys()


@pytest.mark.skipif(not CITATION.is_file(), reason="the wheel and the sdist have no CITATION.cff")
@pytest.mark.parametrize("paper", PAPERS.values(), ids=PAPERS.keys())
def test_title_authors_year_and_address_are_those_of_the_citation_file(paper):
    text = CITATION.read_text()
    assert paper.title in text
    assert f"url: {paper.url}" in text
    for author in paper.authors:
        given, family = author.rsplit(" ", 1)
        assert f"family-names: {family}" in text
        assert f"given-names: {given}" in text


@pytest.mark.parametrize("paper", PAPERS.values(), ids=PAPERS.keys())
def test_the_bibtex_entry_is_whole(paper):
    entry = paper.bibtex
    assert entry.startswith(f"@inproceedings{{{paper.key},\n")
    assert entry.count("{") == entry.count("}")
    assert f"author = {{{' and '.join(paper.authors)}}}" in entry
    assert f"eprint = {{{paper.arxiv}}}" in entry
