"""What a page says of each verdict: words, numbers and pictures, before they are laid out."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from mechtests.reporting import heads, pictures, plots, wording
from mechtests.reporting.history import Past, alike, moved
from mechtests.reporting.record import Record
from mechtests.reporting.records import in_a_family
from mechtests.reporting.svg import Scale, numeral
from mechtests.reporting.wording import CHANGED, EXPECTED, EXPECTED_OPEN, UNCORRECTED, WORDS, Word
from mechtests.verdict import Control, Outcome, Verdict

Json = Any
DRAWN = ("curves", "heads", "maps", "prompts")
"""What of ``verdict.shown`` is drawn; lists of edges are drawn too, all else is said."""
MOST_ITEMS = 60


@dataclass(frozen=True)
class Sign:
    """How a verdict is marked: never by its colour alone.

    Attributes:
        word: ``"REFUTED"``.
        mark: A symbol: ``"✕"``.
        kind: The class its colour hangs on.
        meaning: For the legend.
    """

    word: str
    mark: str
    kind: str
    meaning: str


_MARKS = {
    WORDS[Outcome.HOLDS]: ("✓", "H"),
    UNCORRECTED: ("✓*", "U"),
    WORDS[Outcome.REFUTED]: ("✕", "R"),
    EXPECTED: ("⊗", "X"),
    EXPECTED_OPEN: ("⊘", "X"),
    WORDS[Outcome.INCONCLUSIVE]: ("?", "I"),
    WORDS[Outcome.NOT_APPLICABLE]: ("–", "N"),
    WORDS[Outcome.ERROR]: ("!", "E"),
}
_MARKS |= {
    word: (f"{mark}‼", kind)
    for outcome, word in CHANGED.items()
    for mark, kind in [_MARKS[WORDS[outcome]]]
}
SIGNS = {word: Sign(word.word, mark, kind, word.meaning) for word, (mark, kind) in _MARKS.items()}
"""In the order in which they are counted."""
IMPORTANCE = "NHUIXRE"
"""The kinds of signs from what can be said briefly to what must be said whole."""


def sign(record: Record) -> Sign:
    """How a record's verdict is marked."""
    return SIGNS[wording.word(record)]


def of_part(verdict: Verdict) -> Sign:
    """How a part of a verdict is marked."""
    word: Word = WORDS[verdict.outcome]
    return SIGNS[word]


def counts(records: Sequence[Record]) -> list[tuple[Sign, int]]:
    """How many verdicts of each kind there are, those that are there."""
    found = Counter(sign(record) for record in records)
    return [(each, found[each]) for each in SIGNS.values() if found[each]]


def scales(records: Sequence[Record]) -> dict[int, Scale]:
    """A scale for the strip of each record, by its identity: those of one unit share one."""
    alike: dict[Any, list[Record]] = {}
    for record in records:
        verdict = record.verdict
        if plots.drawn(verdict):
            key = verdict.unit, verdict.margin, verdict.relation
            alike.setdefault(key, []).append(record)
    width = plots.STRIP[0]
    return {
        id(record): scale
        for group in alike.values()
        for scale in [plots.domain([each.verdict for each in group], 2, width - 2)]
        for record in group
    }


def glued(text: str) -> str:
    """A text whose intervals are not broken between their ends."""
    return re.sub(r"\[[^][]{,40}\]", lambda found: found[0].replace(" ", "\xa0"), text)


def sentence(verdict: Verdict) -> str:
    """A verdict's sentence without what stands below it as a part or a control.

    >>> from mechtests.verdict import Control, Outcome, Verdict
    >>> step = Control("step 0", "step 0: 0.1, claimed below 0.2", False)
    >>> whole = "a score of 0.6, claimed above 0.4; step 0: 0.1, claimed below 0.2"
    >>> sentence(Verdict(Outcome.HOLDS, whole, controls=(step,)))
    'a score of 0.6, claimed above 0.4'
    """
    text = verdict.sentence
    for control in verdict.controls:
        text = text.replace(f"; {control.sentence}", "")
    for part in verdict.parts:
        text = text.replace(f"; {part.sentence}", "").replace(f": {part.sentence}", "")
    return glued(text if len(text) > 3 else verdict.sentence)


def numbers(record: Record, family: int) -> list[tuple[str, str]]:
    """The numbers of a verdict, each with its name; ``family`` is how many verdicts its own has."""
    verdict, said = record.verdict, []
    if verdict.estimate is not None:
        said.append(("estimate", wording.estimate(verdict)))
    if verdict.margin is not None:
        unit = f" {verdict.unit}" if verdict.unit else ""
        said.append(("margin", wording.margin(verdict) + unit))
    if verdict.prompts:
        said.append(("over", f"{verdict.prompts:,} prompts in {verdict.clusters:,} clusters"))
    if verdict.needed:
        said.append(("to decide", f"about {verdict.needed:,} prompts"))
    if verdict.p is not None and not math.isnan(verdict.p):
        said.append(("p", wording.probability(verdict.p)))
    if record.q is not None and in_a_family(record):
        of = f"over the {family} verdicts of its family" if family > 1 else "alone in its family"
        said.append(("q", f"{wording.probability(record.q)}, {of} (Benjamini-Hochberg)"))
    return said


def parts(verdict: Verdict) -> list[dict[str, Json]]:
    """The parts of a conjunction, each with its sign and its strip on a scale of its own."""
    return [
        {
            "sign": of_part(part),
            "sentence": glued(part.sentence),
            "strip": plots.strip(part) if plots.drawn(part) else "",
        }
        for part in verdict.parts
    ]


def controls(verdict: Verdict) -> list[dict[str, Json]]:
    """The controls, with how their draws are spread."""
    return [
        {
            "name": "" if _named(control) else control.name,
            "sentence": glued(control.sentence.removeprefix(f"{control.name}: ")),
            "state": _state(control),
            "reached": control.reached and control.decides,
            "draws": plots.draws(control),
        }
        for control in verdict.controls
    ]


def _named(control: Control) -> bool:
    """Whether a control's sentence names it in its course: ``"random heads (19 draws): ..."``."""
    return control.sentence.removeprefix(f"{control.name}: ").startswith(control.name)


def _state(control: Control) -> str:
    if not control.decides:
        return "shown, does not decide"
    return "reaches the claim" if control.reached else "does not reach it"


@dataclass(frozen=True)
class Picture:
    """A drawing with its caption.

    Attributes:
        kind: ``"curve"``, ``"heads"``, ``"map"``, ``"circuit"``.
        caption: What it is of.
        svg: The drawing.
        note: What it says in words.
    """

    kind: str
    caption: str
    svg: str
    note: str = ""


def drawings(verdict: Verdict, past: Sequence[Past] = ()) -> Iterator[Picture]:
    """What a verdict shows of its curves, heads, maps and circuits.

    A claim can show what it likes: what cannot be drawn is said to be so, and spoils nothing.
    """
    before = next((each for each in reversed(past) if each.curves), None)
    for entry in _entries(verdict, "curves"):
        yield _attempt("curve", entry, partial(_curve, before=before))
    for entry in _entries(verdict, "heads"):
        yield _attempt("heads", entry, _heads)
    yield from of_maps(_entries(verdict, "maps"))
    for name, value in verdict.shown.items():
        if _edges(value) and (svg := pictures.circuit(value)):
            note = "thicker is stronger; blue reads as query, orange as key, green as value"
            yield Picture("circuit", f"{name.replace('_', ' ')}: {len(value)}", svg, note)


def _attempt(
    kind: str, entry: Mapping[str, Json], draw: Callable[[Mapping[str, Json]], Picture]
) -> Picture:
    try:
        return draw(entry)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        why = f"cannot be drawn: {type(error).__name__}: {error}"
        return Picture(kind, str(entry.get("what", kind)), "", why)


def _curve(entry: Mapping[str, Json], before: Past | None) -> Picture:
    old = {} if before is None else before.curves or {}
    old = old.get(entry["what"], ())
    onset = f"{plots.above(entry)} (filled): {entry['onset']}" if "side" in entry else ""
    dashed = f"grey: {before.label}" if before and len(old) == len(entry["mean"]) else ""
    unit = f", {entry['unit']}" if entry.get("unit") else ""
    note = "; ".join(filter(None, (onset, dashed)))
    return Picture("curve", f"{entry['what']}{unit}", plots.curve(entry, old), note)


def _entries(verdict: Verdict, name: str) -> list[Mapping[str, Json]]:
    found = verdict.shown.get(name, ())
    whole = found if isinstance(found, list | tuple) else ()
    return [entry for entry in whole if isinstance(entry, Mapping)]


def _heads(entry: Mapping[str, Json]) -> Picture:
    rows, left = heads.rows(entry)
    lost = [f"{row['head']} at {row['lost']}" for row in rows if row.get("lost")]
    over = [f"{each['from']} → {each['to']} at {each['at']}" for each in entry["takeovers"]]
    said = [
        f"a square is a checkpoint, shaded from {entry['level']:g} up",
        f"lost: {', '.join(lost)}" if lost else "",
        f"taken over: {', '.join(over)}" if over else "",
        f"{left} more heads are left out" if left else "",
    ]
    unit = f", {entry['unit']}" if entry.get("unit") else ""
    svg = plots.head_strips(entry, rows)
    return Picture("heads", f"{entry['what']}{unit}", svg, "; ".join(filter(None, said)))


def of_maps(entries: Sequence[Mapping[str, Json]]) -> list[Picture]:
    """Maps of values, those of one unit in the same shades, with their strongest places."""
    tops: dict[str, float] = {}
    for entry in entries:
        unit = str(entry.get("unit", ""))
        with suppress(AttributeError, LookupError, TypeError, ValueError):  # said when it is drawn
            tops[unit] = max(tops.get(unit, 0.0), pictures.largest(entry))
    return [_attempt("map", entry, partial(_map, tops=tops)) for entry in entries]


def _map(entry: Mapping[str, Json], tops: Mapping[str, float]) -> Picture:
    unit = str(entry.get("unit", ""))
    shade = f"the fullest shade is {numeral(tops[unit])}"
    own = f"strongest: {pictures.strongest(entry)}; {shade}" if entry["rows"] == "layer" else ""
    note = "; ".join(filter(None, (own, str(entry.get("note", "")))))
    caption = f"{entry['what']}, {unit}" if unit else str(entry["what"])
    return Picture("map", caption, pictures.grid(entry, tops[unit]), note)


def _edges(value: Json) -> bool:
    """Whether a value is a list of edges: ``["m0->a2.h1<k>"]``."""
    listed = isinstance(value, list | tuple) and bool(value)
    return listed and all(isinstance(each, str) and "->" in each for each in value)


def beside(verdict: Verdict) -> list[dict[str, Json]]:
    """What else was shown: a list of bars where it is numbers by name, else words."""
    return [
        {"name": name.replace("_", " "), **_told(value)}
        for name, value in verdict.shown.items()
        if name not in DRAWN and not _edges(value) and value not in ({}, [], "", None)
    ]


def _told(value: Json) -> dict[str, Json]:
    if isinstance(value, Mapping):
        if len(value) > 1 and all(_number(each) for each in value.values()):
            return {"bars": _bars(value)}
        lines = [f"{name}: {said(each)}" for name, each in list(value.items())[:MOST_ITEMS]]
        return {"lines": lines} if len(lines) > 1 else {"text": "".join(lines)}
    if (
        isinstance(value, list | tuple)
        and len(value) > 1
        and any(isinstance(v, str) for v in value)
    ):
        return {"lines": [said(each) for each in value[:MOST_ITEMS]]}
    return {"text": said(value)}


def _bars(values: Mapping[str, Json]) -> list[dict[str, Json]]:
    top = max(abs(value) for value in values.values()) or 1.0
    return [
        {"name": name, "text": said(value), "share": round(100 * abs(value) / top)}
        for name, value in list(values.items())[:MOST_ITEMS]
    ]


def _number(value: Json) -> bool:
    whole = isinstance(value, int | float) and not isinstance(value, bool)
    return whole and math.isfinite(value)


def said(value: Json) -> str:
    """A value in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {said(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        more = f", and {len(value) - 12} more" if len(value) > 12 else ""
        return f"{', '.join(map(said, value[:12]))}{more}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return wording.number(value).replace("-", "−")
    return "nothing" if value is None else str(value)


def notes(record: Record, past: Sequence[Past]) -> list[str]:
    """What must be known of a verdict beside its numbers."""
    told = {
        "holds by itself, and not after its family is corrected": record.not_after_correction,
        f"{record.awaited} is expected: {record.expectation}": record.expectation is not None,
        f"changed since {past[-1].label if past else ''}": moved(record, past),
        "a setting from outside changed the claim's own rule": record.overridden,
    }
    return [*(note for note, so in told.items() if so), *record.notes]


def before(record: Record, past: Sequence[Past]) -> list[dict[str, Json]]:
    """What earlier runs and baselines said, oldest first; what is the same in a row once."""
    return [
        {
            "when": _when(each),
            "sign": SIGNS[WORDS[each[-1].outcome]],
            "estimate": each[-1].estimate,
            "label": each[-1].label
            + (f" and {len(each) - 1} before it, which say the same" if len(each) > 1 else ""),
            "rule": ""
            if each[-1].version == record.claim.version
            else f"by version {each[-1].version} of the rule",
        }
        for each in alike(past)
    ]


def _when(runs: Sequence[Past]) -> str:
    """The day of some runs, or from which to which."""
    first, last = (each.date.partition(" ")[0] for each in (runs[0], runs[-1]))
    return first if first == last else f"{first} to {last}"
