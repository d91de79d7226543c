"""Documents that go through ordered lists: days, months, ordinals, letters, numbers."""

from __future__ import annotations

from random import Random

from mechtests.sprout.lexicon import CYCLIC, LISTS, NUMBERS

SEPARATORS: tuple[tuple[str, ...], ...] = ((), (), (",",), (",",), ("then",), ("and",))
ORDERED = {**LISTS, "numbers": NUMBERS}
NAMES = (*ORDERED, "numbers", "numbers", "numbers")
"""Lists as often as they are drawn: numbers have the most items."""
SHORTEST = 3
STRIDES = (2, 5, 10, 10, 10)
"""Numbers are also counted by these, from any number below."""
LENGTHS = (6, 24)
"""Items shown, if the list has so many more; so a list seldom ends where one might stop."""


def lists(draw: Random) -> list[str]:
    """A stretch of an ordered list, or steps from any place in one."""
    name = draw.choice(NAMES)
    items = ORDERED[name]
    if name in CYCLIC:
        items = items * 3
    if draw.random() < 0.25:
        return _steps(draw, items)
    if name == "numbers" and draw.random() < 0.5:
        items = _every(draw.choice(STRIDES), items, draw)
    start = draw.randint(0, len(items) - SHORTEST)
    length = draw.randint(*LENGTHS)
    between = draw.choice(SEPARATORS)
    words: list[str] = []
    for item in items[start : start + length]:
        words += [item, *between]
    return [*words[: len(words) - len(between)], "."]


def _every(stride: int, items: tuple[str, ...], draw: Random) -> tuple[str, ...]:
    return items[draw.randrange(stride) :: stride]


def _steps(draw: Random, items: tuple[str, ...]) -> list[str]:
    words: list[str] = []
    for _ in range(draw.randint(1, 3)):
        at = draw.randint(0, len(items) - 2)
        if draw.random() < 0.5:
            words += ["After", items[at], "comes", items[at + 1], "."]
        else:
            words += ["Before", items[at + 1], "comes", items[at], "."]
    return words
