"""A text as words, exactly as the tokenizer splits it, and templates filled with words."""

from __future__ import annotations

import re
from functools import cache

WORD = r"\d{2}(?=\d{2}(?!\d))|\d+|[A-Za-z]+(?:'[a-z]+)?|[^\w\s]"
"""One word: a number, a word with its apostrophe, or one sign; "1732" is "17" and "32"."""

_WORDS = re.compile(WORD)
_SLOT = re.compile(r"(\{\w+\})")


def split(text: str) -> list[str]:
    """The words of a text."""
    return _WORDS.findall(text)


@cache
def _parts(template: str) -> tuple[tuple[bool, str], ...]:
    parts: list[tuple[bool, str]] = []
    for piece in _SLOT.split(template):
        if _SLOT.fullmatch(piece):
            parts.append((True, piece[1:-1]))
        else:
            parts.extend((False, word) for word in split(piece))
    return tuple(parts)


def fill(template: str, **slots: str) -> list[str]:
    """The words of a template whose ``{slots}`` are filled with single words."""
    return [slots[part] if slot else part for slot, part in _parts(template)]


def literal(template: str) -> list[str]:
    """The words of a template that are not in its slots."""
    return [part for slot, part in _parts(template) if not slot]


def slots(template: str) -> list[str]:
    """The names of a template's slots, in order."""
    return [part for slot, part in _parts(template) if slot]
