"""What a user gives in place of a task's prompts: ``--mech-prompts TASK=FILE``.

A table of prompts and answers (``tasks.csv_prompts``), or where a task reads something else, such
as a text, what it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mechtests import tasks
from mechtests.errors import UsageError
from mechtests.models import datasets
from mechtests.tasks import csv_prompts
from mechtests.tasks.prompts import Reader

OPTION = "--mech-prompts"


def file(given: str, *, offline: bool) -> tuple[str, str]:
    """The task and the file of ``TASK=FILE``; that of a dataset of the hub is downloaded.

    Raises:
        UsageError: It is not written so, or there is no such file.
        LoadError: A dataset cannot be had.
    """
    task, equals, path = given.partition("=")
    if _reader(task) is not None and path.startswith(datasets.MARK):
        return task, str(datasets.text_file(path, offline=offline))
    if not equals or not Path(path).is_file():
        kind = "TASK=FILE.csv" if _reader(task) is None else f"{task}=FILE or hf:owner/name"
        raise UsageError(f"{OPTION} is {kind} with a file that exists, got {given!r}")
    return task, path


def identity(task: str, path: str) -> str:
    """What the store's key knows of the file.

    Raises:
        UsageError: The file is of no kind that the task reads.
    """
    reader = _reader(task)
    return csv_prompts.file_identity(path) if reader is None else reader.identity(path)


def counts(files: Sequence[tuple[str, str]]) -> dict[str, int]:
    """How many prompts the files have, where that does not depend on the tokenizer."""
    return {task: csv_prompts.count(path) for task, path in files if _reader(task) is None}


def settings(files: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What ``Settings`` are told of the files, each with its task."""
    return {
        "prompts": dict(files),
        "prompt_digests": {task: identity(task, path) for task, path in files},
        "prompt_counts": counts(files),
    }


def _reader(task: str) -> Reader | None:
    return tasks.find(task).reader if task in tasks.known() else None
