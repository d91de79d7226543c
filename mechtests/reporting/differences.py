"""What a comparison says in the terminal: flips, then shifts, then what has no pair."""

from __future__ import annotations

from dataclasses import replace

from mechtests.reporting import wording
from mechtests.reporting.compare import Comparison
from mechtests.reporting.page import Page
from mechtests.reporting.record import LEVEL
from mechtests.reporting.shifts import How, Pair, Shift

SENTENCE = 200
"""So many characters of a verdict's sentence are printed unless all are asked for."""
MOST = 30
"""So many lines of a kind are printed unless all are asked for."""
HEADS = {
    How.PAIRED: "Effect shifts B - A, paired prompt by prompt",
    How.UNPAIRED: "Effect shifts B - A, not paired",
    How.ESTIMATES: "Differences of estimates B - A, without a test",
}


def render(
    found: Comparison,
    *,
    width: int = 100,
    color: bool = False,
    ascii: bool = False,
    whole: bool = False,
) -> str:
    """A comparison as text of a fixed width.

    Args:
        found: The comparison.
        width: In characters.
        color: Whether the text has ANSI colours.
        ascii: Whether it must do with ASCII.
        whole: Whether all shifts, all that has no pair, and whole sentences are printed.
    """
    page = Page(width, color, ascii)
    page.say(found.a.title, head="A: ", style="bold")
    page.say(found.b.title, head="B: ", style="bold")
    for note in found.notes:
        page.say(note, head="note: ", style="yellow", then=2)
    page.say("")
    _flips(page, found, whole)
    for how in How:
        _shifts(page, found, how, whole)
    _coverage(page, found, whole)
    return page.text


def _flips(page: Page, found: Comparison, whole: bool) -> None:
    page.say(f": {len(found.flips)} of {len(found.pairs)} verdicts", head="Flips", style="bold")
    for pair in found.flips:
        a, b = (wording.WORDS[each.verdict.outcome].word for each in (pair.a, pair.b))
        head = f"{a} {'->' if page.ascii else '→'} {b}"
        page.say(f"  {_name(pair, found)}", head=head, style="bold red", at=2, then=4)
        for name, each in (("A", pair.a), ("B", pair.b)):
            if sentence := each.verdict.sentence or wording.estimate(each.verdict):
                page.label(name, sentence if whole else shorten(sentence, SENTENCE))
    page.say("")


def _name(pair: Pair, found: Comparison) -> str:
    """The claim, and the cells where not all pairs are of the same two."""
    cells = {(each.a.place.cell, each.b.place.cell) for each in found.pairs}
    return pair.claim if len(cells) == 1 else pair.name


def shorten(sentence: str, most: int) -> str:
    """The first clauses of a sentence, as far as they fit."""
    if len(sentence) <= most:
        return sentence
    kept = sentence[: most + 1].rpartition("; ")[0] or sentence[:most].rpartition(" ")[0]
    return f"{kept}; ..."


def _shifts(page: Page, found: Comparison, how: How, whole: bool) -> None:
    every = [each for each in found.shifts if each.how is how]
    if not every:
        return
    sure = sum(each.q is not None and each.q <= LEVEL for each in every)
    tested = "" if how is How.ESTIMATES else f", {sure} of them with q at most {LEVEL:g}"
    page.say(tested, head=f"{HEADS[how]}: {len(every)}", style="bold")
    for why in dict.fromkeys(each.why for each in every if each.why):
        page.say(why, at=2, then=2)
    apart = every if whole else [each for each in every if not _same(each)]
    shown = apart if whole else apart[:MOST]
    rows = [_row(each) for each in shown]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if same := len(every) - len(apart):
        page.say(f"{same} {'does' if same == 1 else 'do'} not differ at all", at=2)
    for each, row in zip(shown, rows, strict=True):
        page.say(f": {each.what}" if each.what else "", head=_name(each.pair, found), at=2, then=4)
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        page.unbroken(line.rstrip(), at=4)
    _more(page, len(apart) - len(shown))
    page.say("")


def _same(shift: Shift) -> bool:
    return shift.how is How.PAIRED and shift.difference == 0.0 and shift.p is None


def _row(shift: Shift) -> tuple[str, ...]:
    """Both estimates, their difference, and how sure it is."""
    a, b = (wording.estimate(replace(each, unit="")) for each in (shift.a, shift.b))
    difference = wording.estimate(
        replace(shift.a, estimate=shift.difference, interval=shift.interval)
    )
    sure = "*" if shift.q is not None and shift.q <= LEVEL else ""
    q = "" if shift.p is None or shift.q is None else f"q {wording.probability(shift.q)}{sure}"
    return f"A {a}", f"B {b}", f"B - A {difference}", q


def _coverage(page: Page, found: Comparison, whole: bool) -> None:
    page.say(
        f": {len(found.pairs)} verdicts compared, {len(found.only_a)} only in A, "
        f"{len(found.only_b)} only in B",
        head="Coverage",
        style="bold",
    )
    if bare := len(found.pairs) - len({id(shift.pair) for shift in found.shifts}):
        page.say(
            f"{bare} of them have no estimate on both sides to subtract, such as a bracket of "
            "checkpoints, a count, or what does not apply: their verdicts alone are compared",
            at=2,
        )
    for pair in found.versions:
        versions = f"version {pair.a.version} in A, {pair.b.version} in B: not compared"
        page.say(f"{pair.name}: {versions}", at=2, then=4)
    for name, alone in (("only in A", found.only_a), ("only in B", found.only_b)):
        shown = alone if whole else alone[:MOST]
        for each in shown:
            page.say(f"{name}: {each.place}: {each.verdict.outcome}", at=2, then=4)
        _more(page, len(alone) - len(shown))


def _more(page: Page, left: int) -> None:
    if left > 0:
        page.say(f"and {left} more: --all prints them", at=2)
