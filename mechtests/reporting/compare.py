"""Two sides compared claim by claim: which verdicts flip, which effects shift, what has no pair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mechtests.reporting.json_values import Json, finite, plain
from mechtests.reporting.shifts import Pair, Shift, corrected, shifts
from mechtests.reporting.sides import Judged, Side

SCHEMA = "mechtests-comparison/1"
Key = tuple[str, str | None, str]


@dataclass(frozen=True)
class Comparison:
    """Two sides, compared.

    Attributes:
        a: Side A.
        b: Side B.
        pairs: The claims judged on both.
        shifts: What can be said of their estimates, the surest shift first.
        only_a: What was judged on side A alone.
        only_b: What was judged on side B alone.
        versions: The claims whose rule has another version on the other side.
        notes: What a reader should know before reading further.
    """

    a: Side
    b: Side
    pairs: tuple[Pair, ...]
    shifts: tuple[Shift, ...]
    only_a: tuple[Judged, ...]
    only_b: tuple[Judged, ...]
    versions: tuple[Pair, ...]
    notes: tuple[str, ...]

    @property
    def flips(self) -> tuple[Pair, ...]:
        """The claims whose verdicts differ."""
        return tuple(pair for pair in self.pairs if pair.flips)

    def to_json(self) -> dict[str, Json]:
        """The comparison as JSON; numbers that are not finite as in a record."""
        return finite(
            {
                "schema": SCHEMA,
                "a": {"asked": self.a.asked, "title": self.a.title},
                "b": {"asked": self.b.asked, "title": self.b.title},
                "notes": list(self.notes),
                "compared": len(self.pairs),
                "flips": [_flip(pair) for pair in self.flips],
                "shifts": [_shift(each) for each in self.shifts],
                "only_a": [plain(each.place._asdict()) for each in self.only_a],
                "only_b": [plain(each.place._asdict()) for each in self.only_b],
                "versions": [
                    {**_names(each), "a": each.a.version, "b": each.b.version}
                    for each in self.versions
                ],
            }
        )


def _names(pair: Pair) -> dict[str, Json]:
    claim, task, cell = pair.a.place
    return {"claim": claim, "task": task, "cell_a": cell, "cell_b": pair.b.place.cell}


def _flip(pair: Pair) -> dict[str, Json]:
    a, b = pair.a.verdict, pair.b.verdict
    return {
        **_names(pair),
        "a": {"verdict": a.outcome.value, "sentence": a.sentence},
        "b": {"verdict": b.outcome.value, "sentence": b.sentence},
    }


def _shift(shift: Shift) -> dict[str, Json]:
    sides = {
        name: {"estimate": each.estimate, "interval": plain(each.interval)}
        for name, each in (("a", shift.a), ("b", shift.b))
    }
    kept = ("difference", "interval", "p", "q", "how", "why", "prompts", "clusters")
    rest = {name: plain(getattr(shift, name)) for name in kept}
    return {**_names(shift.pair), "what": shift.what, "unit": shift.a.unit, **sides, **rest}


def compare(a: Side, b: Side) -> Comparison:
    """Compare two sides claim by claim."""
    matched = list(_matched(a, b))
    pairs = tuple(pair for pair in matched if pair.a.version == pair.b.version)
    of_a, of_b = ({id(getattr(pair, side)) for pair in matched} for side in ("a", "b"))
    return Comparison(
        a,
        b,
        pairs,
        tuple(corrected(shift for pair in pairs for shift in shifts(pair))),
        tuple(each for each in a.judged.values() if id(each) not in of_a),
        tuple(each for each in b.judged.values() if id(each) not in of_b),
        tuple(pair for pair in matched if pair.a.version != pair.b.version),
        tuple(_notes(a, b)),
    )


def _notes(a: Side, b: Side) -> Iterable[str]:
    if a.settings is not None and b.settings is not None:
        for each in a.settings.differences(b.settings):
            yield f"settings differ: {each.replace(', now ', ' in A, in B ')}"
    if a.title == b.title and a.judged.keys() == b.judged.keys():
        yield "A and B are the same verdicts"


def _matched(a: Side, b: Side) -> Iterable[Pair]:
    """Each claim with itself: in the same cell, or of two single models where they correspond."""
    single = len(a.models) == 1 and len(b.models) == 1
    groups = _groups(a), _groups(b)
    for key in (each for each in groups[0] if each in groups[1]):
        mine, theirs = groups[0][key], groups[1][key]
        for cell, judged in mine.items():
            if cell in theirs:
                yield Pair(judged, theirs[cell])
            elif single and (other := _corresponding(judged, mine, theirs)) is not None:
                yield Pair(judged, other)


def _corresponding(
    judged: Judged, mine: Mapping[str, Judged], theirs: Mapping[str, Judged]
) -> Judged | None:
    """What another model has where this one has a verdict: alone, or at the same checkpoint."""
    if len(mine) == 1 and len(theirs) == 1:
        return next(iter(theirs.values()))
    return next(
        (
            each
            for each in theirs.values()
            if each.model != judged.model and each.checkpoint == judged.checkpoint
        ),
        None,
    )


def _groups(side: Side) -> dict[Key, dict[str, Judged]]:
    """The verdicts of each claim, by cell."""
    groups: dict[Key, dict[str, Judged]] = {}
    for (claim, task, cell), each in side.judged.items():
        groups.setdefault((claim, task, each.over), {})[cell] = each
    return groups
