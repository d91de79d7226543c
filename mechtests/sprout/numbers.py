"""Documents of numbers: spans of years, and arithmetic."""

from __future__ import annotations

from functools import cache
from random import Random

from mechtests.sprout.held_out import unseen
from mechtests.sprout.lexicon import CENTURIES, DATED, DIGITS, EVENTS, OPERATORS, SPANS
from mechtests.sprout.words import fill

LARGEST = 198
WEIGHTS = (0.42, 0.34, 0.08, 0.16)
"""How much of the arithmetic is addition, subtraction, multiplication and integer division."""


def first_year(draw: Random, latest: int) -> tuple[str, int]:
    """A century and a year of it up to the latest, not held out."""
    while True:
        century, year = draw.choice(CENTURIES), draw.randint(0, latest)
        if not unseen("years", century, DIGITS[year]):
            return century, year


def year_span(draw: Random) -> list[str]:
    """A span of two years of one century, of which the second is later."""
    century, first = first_year(draw, 98)
    words = _dated(draw.choice(SPANS), draw.choice(EVENTS), century, first)
    return [*words, DIGITS[draw.randint(first + 1, 99)], "."]


def dated(draw: Random) -> list[str]:
    """A sentence with one year."""
    return _dated(draw.choice(DATED), draw.choice(EVENTS), *first_year(draw, 99))


def _dated(sentence: str, event: str, century: str, year: int) -> list[str]:
    both = sentence.replace("{first}", "{century} {year}")
    return fill(both, noun=event, century=century, year=DIGITS[year])


def years(draw: Random) -> list[str]:
    """One to three sentences about years."""
    words: list[str] = []
    for _ in range(draw.randint(1, 3)):
        words += dated(draw) if draw.random() < 0.15 else year_span(draw)
    return words


def result(operator: str, a: int, b: int) -> int | None:
    """The result of a problem, or None where it is no number of the language (0 to 198)."""
    if operator == "+":
        value = a + b
    elif operator == "-":
        value = a - b
    elif operator == "*":
        value = a * b
    else:
        value = a // b if b else -1
    return value if 0 <= value <= LARGEST else None


@cache
def problems(operator: str, held_out: bool) -> tuple[tuple[int, int], ...]:
    """The operand pairs with a result in the language; the held-out ones, or the others.

    Of division only those with a dividend at least as large as the divisor.
    """
    return tuple(
        (a, b)
        for a in range(100)
        for b in range(100)
        if result(operator, a, b) is not None
        and (operator != "/" or a >= b)
        and unseen("operands", operator, str(a), str(b)) == held_out
    )


def arithmetic(draw: Random) -> list[str]:
    """Some problems with their results, of one operator or of all."""
    mixed = draw.random() < 0.5
    operator = draw.choices(OPERATORS, WEIGHTS)[0]
    words: list[str] = []
    for _ in range(draw.randint(2, 10)):
        if mixed:
            operator = draw.choices(OPERATORS, WEIGHTS)[0]
        a, b = draw.choice(problems(operator, False))
        words += [str(a), operator, str(b), "=", str(result(operator, a, b)), "."]
    return words
