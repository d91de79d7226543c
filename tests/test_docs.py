"""Every command and every block of code in the documentation runs, and says what is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
import yaml

from mechtests.cli import app
from tests import docs_pages
from tests.docs_pages import DOCS, PAGES, ROOT, Installed, blocks, calls, commands, missing

LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
SCRIPTS = ("sh", "console")
TEXTS = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """mechtests as from a wheel."""
    return Installed(tmp_path_factory.mktemp("docs"))


@pytest.fixture(scope="session")
def known(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The options of pytest and of each command of mechtests."""
    helped = installed.run(["pytest", "--help"], tmp_path_factory.mktemp("help")).stdout
    of_pytest = {*re.findall(r"--[a-z][a-z-]*", helped), "--model", "--checkpoints"}
    found = {"pytest": of_pytest}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        of_command = {each for parameter in command.params for each in parameter.opts}
        found[name] = of_command | (of_pytest if name in ("run", "plan") else set())
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_shows_is_what_happens(
    page: Path, installed: Installed, tmp_path: Path
) -> None:
    if wrong := docs_pages.play(page, installed, tmp_path):
        pytest.fail("\n".join(wrong), pytrace=False)


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.stem)
def test_commands_and_options_that_a_page_names_exist(
    page: Path, known: dict[str, set[str]]
) -> None:
    for block in blocks(page):
        for words in calls(block.text) if block.language in SCRIPTS else ():
            assert_known(words, known, f"{page.name}:{block.line}")
    named = set(re.findall(r"`(--mech-[a-z-]+)", page.read_text("utf-8")))
    assert named <= known["pytest"] | known["doctor"]
    for command in re.findall(r"`mechtests ([a-z]+)", page.read_text("utf-8")):
        assert command in known


def assert_known(words: list[str], known: dict[str, set[str]], where: str) -> None:
    command = words[0] if words[0] == "pytest" else words[1]
    assert command in known, f"{where}: no command {' '.join(words[:2])}"
    unknown = set(docs_pages.options(words)) - known[command]
    assert not unknown, f"{where}: {' '.join(words)} has unknown {unknown}"


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.stem)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_workflow_files_are_yaml_whose_commands_exist(known: dict[str, set[str]]) -> None:
    scripts = []
    for block in blocks(DOCS / "ci.md"):
        if block.language == "yaml":
            jobs = yaml.safe_load(block.text)
            scripts += list(scripts_of(jobs.get("jobs", jobs)))
    calls_of = [words for script in scripts for words in calls(script)]
    assert len(scripts) > 6
    assert {"pytest", "merge", "report"} <= {w[0] if w[0] == "pytest" else w[1] for w in calls_of}
    for words in calls_of:
        assert_known(words, known, "ci.md")


def scripts_of(tree: object) -> list[str]:
    """What a workflow runs: the texts under ``run`` and ``script``."""
    if isinstance(tree, list):
        return [text for each in tree for text in scripts_of(each)]
    if not isinstance(tree, dict):
        return []
    found = []
    for key, value in tree.items():
        if key in ("run", "script", "before_script"):
            found += [value] if isinstance(value, str) else list(value)
        else:
            found += scripts_of(value)
    return found


def test_every_page_is_on_the_map() -> None:
    linked = set(LINK.findall((DOCS / "index.md").read_text("utf-8")))
    assert {page.name for page in PAGES} - {"index.md"} <= linked


def test_the_page_on_metrics_names_tests_that_exist() -> None:
    text = (DOCS / "metrics.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    for row in rows:
        *_, last = row.strip("| ").split(" | ")
        files = re.findall(r"`(test_[a-z_]+\.py)`", last)
        assert files, row
        tests = "\n".join((ROOT / "tests" / file).read_text("utf-8") for file in files)
        for name in re.findall(r"`(test_[a-z0-9_]+)`", row):
            assert f"def {name}(" in tests, f"{name} is not in {', '.join(files)}"


def test_the_page_on_metrics_has_every_metric() -> None:
    text = (DOCS / "metrics.md").read_text("utf-8")
    declared = re.compile(r'Metric\(\s*name=f?"([a-z_]+\.[a-z_]*)')
    names = {
        name.rstrip(".")
        for file in (ROOT / "mechtests").rglob("*.py")
        for name in declared.findall(file.read_text("utf-8"))
    }
    assert len(names) > 25
    assert not [name for name in sorted(names) if f"`{name}" not in text]


def test_a_line_that_is_not_printed_is_found() -> None:
    assert missing(["one", "t...e"], "zero\none\ntwo\nthree\n") is None
    assert missing(["two", "one"], "one\ntwo\n") == "one"
    assert missing(["on"], "one\n") == "on"
    assert list(commands("$ a \\\n  b\nsaid\n...\n$ c\n")) == [("a    b", ["said"]), ("c", [])]
    assert list(calls("$ pytest -k ioi | tail\necho; mechtests run --model x  # --y")) == [
        ["pytest", "-k", "ioi"],
        ["mechtests", "run", "--model", "x"],
    ]
