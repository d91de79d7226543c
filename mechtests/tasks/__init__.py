"""Tasks: one file each, found by its name."""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from mechtests.errors import UsageError
from mechtests.tasks.prompts import Task


def known() -> list[str]:
    """The names of the tasks there are: the files that define a task of their own name."""
    files = (each.name for each in pkgutil.iter_modules(__path__))
    return sorted(name for name in files if _task(name) is not None)


def find(name: str) -> Task:
    """The task of a name: ``find("ioi")``.

    Raises:
        UsageError: There is no such task; near matches are named.
    """
    names = known()
    if name not in names:
        near = difflib.get_close_matches(name, names)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        raise UsageError(f"no task is called {name!r}; {hint}")
    found = _task(name)
    assert found is not None
    return found


def _task(file: str) -> Task | None:
    found = getattr(importlib.import_module(f"{__name__}.{file}"), file, None)
    return found if isinstance(found, Task) else None
