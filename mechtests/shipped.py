"""The claims and fixtures that come with the package: files that are loaded by their path."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from mechtests.claim import ATTRIBUTE, Claim


def folder(name: str) -> Path:
    """``assertions`` or ``fixtures``: in the wheel's suite, or beside the package in a checkout."""
    package = Path(__file__).parent
    inside = package / "suite" / name
    return inside if inside.is_dir() else package.parent / name


def as_arguments() -> list[str]:
    """How pytest is told to collect the claims: a package's name, or in a checkout the folder.

    Of a folder pytest would take what it has in common with the current one for its root, and
    keep the records there; of a name it does not.
    """
    suite = folder("assertions")
    inside = suite.parent.name == "suite"
    return ["--pyargs", "mechtests.suite.assertions"] if inside else [str(suite)]


def modules(name: str) -> Iterator[ModuleType]:
    """Every module of one of the folders, loaded once, in the order of their names."""
    for path in sorted(folder(name).glob("[a-z]*.py")):
        full = f"mechtests_{name}_{path.stem}"
        if full not in sys.modules:
            spec = importlib.util.spec_from_file_location(full, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[full] = module
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[full]  # else the next call gives half of it
                raise
        yield sys.modules[full]


def tests() -> Iterator[tuple[Claim, Callable[..., Any]]]:
    """Every claim that comes with the package, with the test that judges it."""
    for module in modules("assertions"):
        for test in vars(module).values():
            yield from declared(test)


def declared(test: Any) -> list[tuple[Claim, Callable[..., Any]]]:
    """The claims a test was declared with, each with the test; none of anything else."""
    declaration = getattr(test, ATTRIBUTE, None)
    return [] if declaration is None else [(claim, test) for claim in declaration.claims]


def claims() -> Iterator[Claim]:
    """Every claim that comes with the package."""
    return (claim for claim, _ in tests())
