"""Where the records of runs are kept, as pytest's own settings say."""

from __future__ import annotations

import configparser
import tomllib
from pathlib import Path

INI = "mech_reports"
DEFAULT = ".mechtests"


def reports(start: Path) -> Path:
    """The folder of the settings that pytest finds from a folder on, or the default there.

    Args:
        start: Where pytest would be run.
    """
    for folder in (start, *start.parents):
        for name in ("pytest.toml", "pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg"):
            if (said := _said(folder / name)) is not None:
                return folder / said
    return start / DEFAULT


def _said(file: Path) -> str | None:
    """What a file of settings says; the default where it has pytest's settings without ours."""
    try:
        if file.suffix == ".toml":
            tree = tomllib.loads(file.read_text("utf-8"))
            tool = tree if file.name == "pytest.toml" else tree.get("tool", {})
            table = tool.get("pytest")
            if table is None:
                return None
            return str(table.get("ini_options", table).get(INI, DEFAULT))
        parser = configparser.RawConfigParser(strict=False)
        parser.read_string(file.read_text("utf-8"))
        section = "tool:pytest" if file.name == "setup.cfg" else "pytest"
        return parser.get(section, INI, fallback=DEFAULT) if section in parser else None
    except (OSError, ValueError, configparser.Error):
        return None
