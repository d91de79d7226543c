"""The pages of the documentation: their blocks of code, and a place to run them."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
FENCE = re.compile(r"^```(\w*)(?: +file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOCTOR = "mechtests doctor"
"""``test_doctor.py`` runs it, and holds it against the page."""
OTHERS = ("hypothesispytest", "randomly", "jaxtyping", "typeguard", "anyio", "xdist")
"""Plugins of pytest that a wheel does not bring, and that cost a second at every start."""
OPTION = re.compile(r"--[a-z][a-z-]*")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        language: ``console``: commands after ``$ `` with some lines of what they print;
            ``python``: a program, or examples after ``>>> ``; ``sh``: commands that need a
            network or another machine, of which the words are checked; ``yaml``, ``csv``.
        file: What it is written to before anything below it runs.
        text: The block.
        line: Where it starts, from 1.
    """

    language: str
    file: str | None
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    """Every fenced block of a page."""
    text = page.read_text("utf-8")
    for found in FENCE.finditer(text):
        yield Block(found[1], found[2], found[3], text.count("\n", 0, found.start()) + 1)


def commands(console: str) -> Iterator[tuple[str, list[str]]]:
    r"""Each command of a console, joined where a line ends in ``\``, and the lines shown of it."""
    joined = console.replace("\\\n", " ")
    for part in re.split(r"^\$ ", joined, flags=re.MULTILINE)[1:]:
        command, *shown = part.splitlines()
        yield command, [line.rstrip() for line in shown if line.strip() not in ("", "...")]


def missing(shown: list[str], printed: str) -> str | None:
    """The first line that is shown and not printed after those before it; ``...`` is anything."""
    lines = iter(printed.splitlines())
    for each in shown:
        pattern = ".*".join(map(re.escape, each.strip().split("...")))
        if not any(re.fullmatch(pattern, line.strip()) for line in lines):
            return each
    return None


def calls(text: str) -> Iterator[list[str]]:
    """The words of every call of pytest or mechtests in a script, up to a pipe or an operator."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"\|\||&&|[|;]", line):
            words = shlex.split(part.replace("$ ", "", 1), comments=True)
            if words and words[0] in ("pytest", "mechtests"):
                yield words


def options(words: list[str]) -> list[str]:
    """The long options among the words of a call, without their values."""
    return [found[0] for word in words if (found := OPTION.match(word))]


class Installed:
    """mechtests as a wheel installs it, and the two commands, for folders that have nothing.

    The package is a folder of links, with the claims and fixtures inside as in the wheel;
    ``make wheel`` proves the wheel itself.

    Args:
        folder: Where it is kept, with the store that all pages share.
    """

    def __init__(self, folder: Path) -> None:
        package, bin_ = folder / "site" / "mechtests", folder / "bin"
        suite = package / "suite"
        for made in (suite, bin_):
            made.mkdir(parents=True)
        for entry in (ROOT / "mechtests").iterdir():
            if entry.name != "__pycache__":
                (package / entry.name).symlink_to(entry)
        (suite / "__init__.py").touch()
        for name in ("assertions", "fixtures"):
            (suite / name).symlink_to(ROOT / name)
        for command in ("pytest", "mechtests"):
            script = bin_ / command
            script.write_text(f'#!/bin/sh\nexec {sys.executable} -m {command} "$@"\n')
            script.chmod(0o755)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "MECHTESTS"))}
        self.environment = {
            **kept,
            "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder / "site"),
            "MECHTESTS_CACHE": str(folder / "store"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "100",
            "PYTEST_ADDOPTS": " ".join(f"-p no:{plugin}" for plugin in OTHERS),
        }

    def run(self, command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a command in a folder; what it prints to either stream is together."""
        return subprocess.run(
            command,
            cwd=folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )


def play(page: Path, installed: Installed, folder: Path) -> list[str]:
    """Run what a page shows, from its first block to its last, in one folder.

    Returns:
        What was other than shown, a text a fault.
    """
    wrong: list[str] = []
    names: dict[str, object] = {}
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if block.file:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, "utf-8")
        elif block.text.startswith(">>>"):
            wrong += [f"{where}: {said}" for said in _examples(block, names)]
        elif block.language == "python":
            wrong += [f"{where}: {said}" for said in _python(block, installed, folder)]
        elif block.language == "console":
            wrong += [f"{where}: {said}" for said in _console(block, installed, folder)]
    return wrong


def _python(block: Block, installed: Installed, folder: Path) -> Iterator[str]:
    done = installed.run([sys.executable, "-c", block.text], folder)
    if done.returncode:
        yield f"exit code {done.returncode}\n{done.stdout}"


def _examples(block: Block, names: dict[str, object]) -> Iterator[str]:
    """Examples see the names of those above them on the page."""
    said: list[str] = []
    parsed = doctest.DocTestParser().get_doctest(block.text, names, "page", None, block.line)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    failed = runner.run(parsed, out=said.append, clear_globs=False).failed
    names.update(parsed.globs)
    if failed:
        yield "".join(said)


def _console(block: Block, installed: Installed, folder: Path) -> Iterator[str]:
    for command, shown in commands(block.text):
        if command == DOCTOR:
            continue
        done = installed.run(["bash", "-c", command], folder)
        if done.returncode:
            yield f"{command}: exit code {done.returncode}\n{done.stdout}"
        elif (line := missing(shown, done.stdout)) is not None:
            yield f"{command}: it does not print {line!r}, but\n{done.stdout}"
