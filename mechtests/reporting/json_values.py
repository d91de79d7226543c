"""Python values as strict JSON: arrays as lists, and no NaN or infinity, which JSON cannot say."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

Json = Any

NONFINITE = "nonfinite"


def plain(value: Any) -> Json:
    """A value as JSON has it: arrays and tuples as lists, what it has no word for as text."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [plain(each) for each in value]
    if dataclasses.is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    return plain(value.tolist()) if hasattr(value, "tolist") else str(value)


def finite(tree: Mapping[str, Json]) -> dict[str, Json]:
    """The object with null for every number that is not finite.

    Which number it was stands under ``nonfinite``, by its JSON pointer (RFC 6901):
    ``{"/interval/1": "inf"}``.
    """
    found: dict[str, str] = {}
    return {**_finite(tree, "", found), NONFINITE: found}


def whole(tree: Mapping[str, Json]) -> dict[str, Json]:
    """The object before ``finite``: its numbers that are not finite put back.

    Raises:
        KeyError, IndexError, ValueError, TypeError: A pointer leads nowhere.
    """
    restored: dict[str, Json] = {k: copy.deepcopy(v) for k, v in tree.items() if k != NONFINITE}
    for pointer, number in tree.get(NONFINITE, {}).items():
        *path, last = map(_unescaped, pointer.split("/")[1:])
        inside: Json = restored
        for step in path:
            inside = inside[_step(inside, step)]
        inside[_step(inside, last)] = float(number)
    return restored


def _finite(tree: Json, pointer: str, found: dict[str, str]) -> Json:
    if isinstance(tree, Mapping):
        return {k: _finite(v, f"{pointer}/{_escaped(k)}", found) for k, v in tree.items()}
    if isinstance(tree, list):
        return [_finite(v, f"{pointer}/{i}", found) for i, v in enumerate(tree)]
    if isinstance(tree, float) and not math.isfinite(tree):
        found[pointer] = str(tree)
        return None
    return tree


def _step(inside: Json, step: str) -> int | str:
    return int(step) if isinstance(inside, list) else step


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _unescaped(name: str) -> str:
    return name.replace("~1", "/").replace("~0", "~")
