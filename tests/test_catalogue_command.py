"""``mechtests claims``, and where ``mechtests run`` collects."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mechtests import shipped
from mechtests.cli import app
from mechtests.reporting.papers import PAPERS
from tests.docs_pages import Installed


def test_each_paper_is_cited_once_before_its_first_claim() -> None:
    told = " ".join(CliRunner().invoke(app, ["claims"]).output.split())
    for key, paper in PAPERS.items():
        first = next(claim.id for claim in shipped.claims() if claim.paper == key)
        assert told.count(paper.citation) == 1
        assert told.index(paper.citation) < told.index(first)


def test_every_claim_is_listed_with_its_rule_and_where_the_paper_says_it() -> None:
    told = " ".join(CliRunner().invoke(app, ["claims"]).output.split())
    for claim in shipped.claims():
        assert claim.id in told
        assert claim.rule in told
    assert "tigges2024.induction-present (repeated_tokens) over cell, v1, section 3" in told
    assert "v1, Table 3" in told


def test_a_bibliography_has_the_papers_alone() -> None:
    told = CliRunner().invoke(app, ["claims", "--bibtex"]).output
    assert told.strip() == "\n\n".join(paper.bibtex for paper in PAPERS.values())


def test_run_of_an_installed_package_keeps_its_records_in_the_current_folder(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "of" / "mine"
    folder.mkdir(parents=True)
    words = ["mechtests", "plan", "--model", "sprout-100k"]
    done = Installed(tmp_path / "elsewhere").run(words, folder)
    assert done.returncode == 0, done.stdout
    assert f"rootdir: {folder}\n" in done.stdout
    assert "plan:" in done.stdout
    assert "Warning" not in done.stdout


def test_in_a_checkout_the_folder_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shipped.as_arguments() == [str(shipped.folder("assertions"))]
    monkeypatch.setattr(shipped, "folder", lambda name: Path("mechtests/suite") / name)
    assert shipped.as_arguments() == ["--pyargs", "mechtests.suite.assertions"]
