"""How outcomes and numbers are written, everywhere the same."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass

from mechtests.reporting.record import Record
from mechtests.verdict import Outcome, Verdict


@dataclass(frozen=True)
class Word:
    """How an outcome is shown.

    Attributes:
        word: Where there is room.
        letter: Where there is not.
        style: The colour, in rich's words.
        meaning: For the legend.
    """

    word: str
    letter: str
    style: str
    meaning: str


WORDS = {
    Outcome.HOLDS: Word("HOLDS", "H", "green", "holds"),
    Outcome.REFUTED: Word("REFUTED", "R", "bold red", "refuted"),
    Outcome.INCONCLUSIVE: Word("INCONCLUSIVE", "?", "yellow", "inconclusive"),
    Outcome.NOT_APPLICABLE: Word("N/A", "n", "dim", "not applicable"),
    Outcome.ERROR: Word("ERROR", "E", "bold magenta", "error"),
}
EXPECTED = Word("EXPECTED", "x", "cyan", "refuted, as expected")
EXPECTED_OPEN = Word("EXPECTED?", "x?", "cyan", "inconclusive, as expected")
UNCORRECTED = Word("HOLDS*", "H*", "green", "holds, not after correction")
CHANGED: dict[Outcome, Word] = {
    outcome: Word(f"{each.word}!", f"{each.letter}!", "bold red", f"{each.meaning}, changed")
    for outcome, each in WORDS.items()
    if outcome is not Outcome.ERROR
}
EVERY = (*WORDS.values(), UNCORRECTED, EXPECTED, EXPECTED_OPEN, *CHANGED.values())
"""Every word there is, in the order of a legend."""
SIDES = {">": "above", "<": "below", "within": "within", "=": "equal to"}

_ASCII = {
    "×": "x", "−": "-", "–": "-", "—": "-", "…": "...", "≥": ">=", "≤": "<=", "±": "+-", "→": "->",
    "·": ".", "‘": "'", "’": "'", "“": '"', "”": '"', "µ": "u",
}  # fmt: skip


def word(record: Record) -> Word:
    """How a record's verdict is shown."""
    if record.changed:
        return CHANGED[record.outcome]
    if record.expected and record.outcome is not Outcome.NOT_APPLICABLE:
        return EXPECTED if record.outcome is Outcome.REFUTED else EXPECTED_OPEN
    return UNCORRECTED if record.not_after_correction else WORDS[record.outcome]


def number(value: float, decimals: int | None = None) -> str:
    """A number with three significant digits, or with so many decimals.

    >>> number(0.12345), number(1234.5), number(2.1e9), number(0.0)
    ('0.123', '1,234', '2.1e9', '0')
    """
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if 0 < size < 1e-4 or size >= 1e6:
        digits, _, power = f"{value:.3g}".partition("e")
        return f"{digits}e{int(power)}" if power else digits
    if decimals is not None:
        return f"{value:,.{decimals}f}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.3g}"


def probability(p: float) -> str:
    """A p or q: two significant digits, and no false precision near zero."""
    return "< 0.0001" if 0 <= p < 1e-4 else f"{p:.2g}"


def estimate(verdict: Verdict) -> str:
    """The estimate with its interval and unit, as precise as the interval is narrow."""
    if verdict.estimate is None:
        return ""
    unit = f" {verdict.unit}" if verdict.unit else ""
    if verdict.interval is None:
        return number(verdict.estimate) + unit
    low, high = verdict.interval
    decimals = _decimals(high - low)
    centre, low_text, high_text = (number(x, decimals) for x in (verdict.estimate, low, high))
    return f"{centre} [{low_text}, {high_text}]{unit}"


def margin(verdict: Verdict) -> str:
    """The claimed side of the margin: ``"claimed above 0.4"``."""
    if verdict.margin is None:
        return ""
    return f"claimed {SIDES.get(verdict.relation, verdict.relation)} {number(verdict.margin)}"


def _decimals(width: float) -> int | None:
    """Decimals that give an interval of this width two digits."""
    if not (math.isfinite(width) and width > 0):
        return None
    return min(6, max(0, 1 - math.floor(math.log10(width))))


def ascii_only(text: str) -> str:
    """The text in ASCII, for a terminal or a log that has nothing else."""
    plain = "".join(_ASCII.get(each, each) for each in text)
    letters = (c for c in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(c))
    return "".join(letters).encode("ascii", "replace").decode()
