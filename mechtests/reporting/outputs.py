"""What a run can be written as, by how the file's name ends."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mechtests.errors import UsageError
from mechtests.reporting.history import History
from mechtests.reporting.place import Place
from mechtests.reporting.record import Record
from mechtests.store import Store

Json = Any
Kept = Mapping[Place, Sequence[Json]]
SUFFIXES = (".html", ".md", ".json", ".jsonl")
WITH_A_PAST = (".html", ".md")
"""What also tells of earlier runs, which take time to read."""
BADGE = "badge.json"
"""How the name of a badge ends: ``badge.json``, ``pythia-badge.json``."""


def write(
    path: Path,
    header: Mapping[str, Json],
    records: Sequence[Record],
    *,
    store: Store | None = None,
    history: History | None = None,
    kept: Kept | None = None,
) -> None:
    """Write a run as a page, a summary, a badge or its records, as the file's name ends.

    Args:
        path: Where to; its folder is made.
        header: What ``run.json`` says.
        records: Corrected by family (``records.correct``).
        store: Where the run's measurements are, for what a page draws of them.
        history: What earlier runs or baselines said.
        kept: The samples behind its estimates (``samples.lines``), for a page's worst prompts.

    Raises:
        UsageError: Nothing is written under such a name, or the file cannot be.
    """
    path = Path(path)
    text = _text(path, header, records, store, history, kept)
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
        raise UsageError(f"a report is PATH{', PATH'.join(SUFFIXES)} or {BADGE}, got {path}")
    return path


def _text(
    path: Path,
    header: Mapping[str, Json],
    records: Sequence[Record],
    store: Store | None,
    history: History | None,
    kept: Kept | None,
) -> str:
    suffix = Path(check(str(path))).suffix
    if suffix == ".html":
        from mechtests.reporting import html

        texts = getattr(store, "texts", None)
        return html.render(header, records, store=store, texts=texts, history=history, kept=kept)
    if suffix == ".md":
        from mechtests.reporting import markdown

        return markdown.render(header, records, history=history)
    if path.name.endswith(BADGE):
        from mechtests.reporting import markdown

        return json.dumps(markdown.badge(records), indent=1) + "\n"
    trees = [record.to_json() for record in records]
    if suffix == ".json":
        return json.dumps(trees, indent=1, allow_nan=False) + "\n"
    return "".join(f"{json.dumps(tree, allow_nan=False)}\n" for tree in trees)
