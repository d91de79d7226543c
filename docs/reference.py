"""The reference of the documentation, made of docstrings and of the options themselves."""

from __future__ import annotations

import argparse
import importlib
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

PUBLIC: dict[str, tuple[str, ...]] = {
    "mechtests": ("claim", "judge", "open", "explain"),
    "mechtests.claim": ("Claim",),
    "mechtests.verdict": ("Outcome", "Verdict", "Control", "refuted", "exactly", "not_applicable"),
    "mechtests.measurement": ("Sample", "Measurement", "Recorded"),
    "mechtests.measured": ("Measured", "MeasuredModels"),
    "mechtests.checkpoints": ("Series",),
    "mechtests.series": ("Moment", "Curve"),
    "mechtests.means": ("above", "below", "equivalent", "similar"),
    "mechtests.rules": (
        "every", "beside", "matched_random", "random_heads", "value_control", "absent", "family",
    ),
    "mechtests.onsets": ("onset", "Onset"),
    "mechtests.octaves": ("within_octaves",),
    "mechtests.statistics": (
        "mean_interval", "proportion_interval", "fieller", "jackknife", "benjamini_hochberg",
    ),
    "mechtests.matched": ("matched_draws", "permutation_p"),
    "mechtests.tasks.prompts": ("Task", "Prompts", "Levels", "Tokenizer"),
    "mechtests.tasks.assembled": ("assembled", "one_token"),
    "mechtests.metrics.metric": ("Metric", "Value", "Need"),
    "mechtests.metrics.gates": ("does",),
    "mechtests.errors": (
        "MechtestsError", "UsageError", "LoadError", "SelfCheckError", "MeasurementError",
        "NotApplicable", "Undecidable",
    ),
}  # fmt: skip
"""What a claim, a task or a metric of one's own is written with, by module."""
TOP = """# Reference

Made by `make docs` from docstrings and options; do not edit it by hand.
"""


def page() -> str:
    """The page, in Markdown."""
    parts = [TOP, "## pytest's options\n", *_pytest_options(), "## Commands\n", *_commands()]
    for module, names in PUBLIC.items():
        parts.append(f"## `{module}`\n")
        parts += [_entry(module, name) for name in names]
    return "\n".join(parts).rstrip() + "\n"


def _entry(module: str, name: str) -> str:
    """One public name: how it is called, and its docstring as it is written."""
    found = getattr(importlib.import_module(module), name)
    if isinstance(found, type):
        kind, called = "class ", ""
    else:
        kind, called = "", _called(found)
    doc = inspect.getdoc(found) or ""
    methods = "".join(_methods(found)) if isinstance(found, type) else ""
    return f"### {kind}`{name}{called}`\n\n{_docstring(doc)}\n" + (
        f"\n*Methods*\n\n{methods}" if methods else ""
    )


def _methods(found: type) -> Iterator[str]:
    """A line a public method or property of a class, with the first line of its docstring."""
    for name, member in vars(found).items():
        of = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        read = isinstance(member, property | cached_property)
        if name.startswith("_") or not (inspect.isfunction(of) or read) or not of.__doc__:
            continue
        called = "" if read else _called(of).replace("(self, ", "(").replace("(self)", "()")
        first = of.__doc__.strip().splitlines()[0].replace("``", "`")
        yield f"- `.{name}{called.replace('(cls, ', '(')}`: {first}\n"


def _called(function: Any) -> str:
    """The arguments of a function, without their types."""
    shown = inspect.signature(function)
    bare = [
        p.replace(annotation=inspect.Parameter.empty, default=_default(p.default))
        for p in shown.parameters.values()
    ]
    return str(shown.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def _default(value: Any) -> Any:
    """A default that reads the same in every process."""
    plain = value is inspect.Parameter.empty or isinstance(value, str | int | float | tuple | None)
    return value if plain else ...


def _docstring(doc: str) -> str:
    """A docstring with its sections as lists: Args, Attributes, Returns, Raises."""
    lines: list[str] = []
    in_section = False
    for line in doc.splitlines():
        text = line.strip()
        if text in ("Args:", "Attributes:", "Returns:", "Raises:") and line == text:
            in_section = True
            lines += [f"*{text[:-1]}*", ""]
        elif in_section and line.startswith("    ") and not line.startswith("     "):
            name, colon, rest = text.partition(": ")
            lines.append(f"- `{name}`: {rest}" if colon and " " not in name else f"- {text}")
        elif in_section and text:
            lines.append(f"  {text}")
        else:
            in_section = in_section and not text
            lines.append(_code(line))
    return "\n".join(lines).replace("``", "`")


def _code(line: str) -> str:
    """A line of text; one that is indented, or shows an example, stays as it is."""
    return f"    {line}" if line.startswith(">>>") else line


@dataclass
class _Options:
    """What ``options.add`` registers, in its order; a stand-in for pytest's parser and group."""

    found: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def getgroup(self, name: str, description: str = "") -> _Options:
        return self

    def addoption(self, option: str, **how: Any) -> None:
        self.found.append((option, how))

    def addini(self, *said: Any, **how: Any) -> None:
        pass


def _pytest_options() -> Iterator[str]:
    """A line an option of the plugin."""
    from mechtests import options

    seen = _Options()
    options.add(seen)  # type: ignore[arg-type]
    rows = ((name, _value(how), str(how.get("help", ""))) for name, how in seen.found)
    yield from _table(rows)


def _value(how: dict[str, Any]) -> str:
    """What an option takes."""
    if "choices" in how:
        return "\\|".join(how["choices"])
    if how.get("action") == "store_true":
        return ""
    metavar = str(how.get("metavar", "NAME"))
    return f"[{metavar}]" if how.get("nargs") == "?" else metavar


def _commands() -> Iterator[str]:
    """Each command of ``mechtests`` with its arguments and options."""
    import typer

    from mechtests.cli import app

    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        help_ = " ".join(str(command.help or "").split())
        yield f"### `mechtests {name}`\n\n{help_}\n"
        rows = [
            (", ".join(each.opts) if each.opts[0].startswith("-") else "", *_parameter(each))
            for each in command.params
            if each.name != "help"
        ]
        if rows:
            yield from _table(rows)


def _parameter(parameter: Any) -> tuple[str, str]:
    """What a parameter of a command takes, and its help."""
    flag = getattr(parameter, "is_flag", False)
    metavar = "" if flag else str(parameter.metavar or parameter.name.upper().rstrip("_"))
    return metavar, str(getattr(parameter, "help", None) or "")


def _table(rows: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    yield "| option | takes | meaning |\n|---|---|---|"
    for name, takes, meaning in rows:
        shown = f"`{name}`" if name else ""
        yield f"| {shown} | {takes} | {' '.join(meaning.split()).replace('|', chr(92) + '|')} |"
    yield ""


def main() -> None:
    """Write the page to a file: ``python docs/reference.py docs/reference.md``."""
    from pathlib import Path

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("file", type=Path)
    parser.parse_args().file.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
