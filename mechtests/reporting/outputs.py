"""What a run can be written as, by the suffix of the file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mechtests.errors import UsageError
from mechtests.reporting.history import History
from mechtests.reporting.record import Record
from mechtests.store import Store

Json = Any
SUFFIXES = (".html", ".md", ".json", ".jsonl")


def write(
    path: Path,
    header: Mapping[str, Json],
    records: Sequence[Record],
    *,
    store: Store | None = None,
    history: History | None = None,
) -> None:
    """Write a run as a page, a summary or its records, as the file's suffix says.

    Args:
        path: Where to; its folder is made.
        header: What ``run.json`` says.
        records: Corrected by family (``records.correct``).
        store: Where the run's measurements are, for what a page draws of them.
        history: What earlier runs or baselines said.

    Raises:
        UsageError: Nothing is written under that suffix, or the file cannot be.
    """
    path = Path(path)
    text = _text(path, header, records, store, history)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(
            f"report {path}: cannot be written ({error.strerror or error}); name another file"
        ) from error


def check(path: str) -> str:
    """A path that ``write`` can write.

    Raises:
        UsageError: It has another suffix.
    """
    if Path(path).suffix not in SUFFIXES:
        raise UsageError(f"a report is PATH{', PATH'.join(SUFFIXES)}, got {path}")
    return path


def _text(
    path: Path,
    header: Mapping[str, Json],
    records: Sequence[Record],
    store: Store | None,
    history: History | None,
) -> str:
    match Path(check(str(path))).suffix:
        case ".html":
            from mechtests.reporting import html

            texts = getattr(store, "texts", None)
            return html.render(header, records, store=store, texts=texts, history=history)
        case ".md":
            from mechtests.reporting import markdown

            return markdown.render(header, records, history=history)
        case ".json":
            trees = [record.to_json() for record in records]
            return json.dumps(trees, indent=1, allow_nan=False) + "\n"
    lines = (json.dumps(record.to_json(), allow_nan=False) for record in records)
    return "".join(f"{line}\n" for line in lines)
