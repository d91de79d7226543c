"""The heads of a role over training: a strip of shades a head, and which takes over from which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from mechtests.reporting.curves import tokens

Json = Any
Mean = float | None
BLOCKS = "░▒▓█"
PLAIN = ".:-=+*#@"
UNKNOWN = {False: "·", True: "?"}
MOST_ROWS = 12
FEWEST_SIGNS = 20
"""With less room for a row's strip, what stands behind it moves below."""


def lines(entry: Mapping[str, Json], *, ascii: bool, width: int = 100) -> list[str]:
    """What an entry of a verdict's ``shown["heads"]`` says (``showing.heads_shown``).

    One row a head, in the order in which they first reach the level, and one sign a checkpoint,
    the same shade for the same score in all rows: blank below the level, then from the level
    up to the highest score of any of them. Behind it the head's peak, and where it was lost.

    Args:
        entry: ``what``, ``unit``, ``axis``, ``labels``, ``tokens``, ``level``, ``heads`` and
            ``takeovers``.
        ascii: Whether to do with ASCII.
        width: In characters. A longer series is thinned to it: a sign is then the highest of
            some neighbours. Only words without a blank can be wider.
    """
    rows = _rows(entry)
    kept = _kept(rows, {each[end] for each in entry["takeovers"] for end in ("from", "to")})
    top = max((mean for row in rows for mean in row["mean"] if mean is not None), default=None)
    tails = [_tail(row, entry) for row in kept]
    names = max((len(row["head"]) for row in kept), default=0)
    room = width - names - 5 - max(map(len, tails), default=0)
    behind = room >= min(len(entry["labels"]), FEWEST_SIGNS)
    if not behind:
        tails = [_peak(row, entry) for row in kept]
        room = width - names - 5 - max(map(len, tails), default=0)
    each = max(1, -(-len(entry["labels"]) // max(room, 1)))  # rounded up
    strips = [_strip(row["mean"], entry["level"], top, each, ascii) for row in kept]
    drawn = [
        f"{row['head']:>{names}} |{strip}|  {tail}"
        for row, strip, tail in zip(kept, strips, tails, strict=True)
    ]
    said = [_title(entry, len(rows), each)]
    below = [] if behind else _losses(kept)
    below += _left_out(rows, kept, entry)
    below += [_takeover(pair, entry) for pair in entry["takeovers"]]
    below.append(_legend(entry, top, UNKNOWN[ascii] in "".join(strips), ascii))
    return [*_wrapped(said, width), *drawn, *_wrapped(below, width)]


def rows(entry: Mapping[str, Json]) -> tuple[list[Mapping[str, Json]], int]:
    """The heads for which there is room, in the order of ``lines``, and how many are left out."""
    every = _rows(entry)
    kept = _kept(every, {each[end] for each in entry["takeovers"] for end in ("from", "to")})
    return kept, len(every) - len(kept)


def _rows(entry: Mapping[str, Json]) -> list[Mapping[str, Json]]:
    """The heads by when they first reach the level, then by their peak, highest first."""
    level, never = entry["level"], len(entry["labels"])

    def order(row: Mapping[str, Json]) -> tuple[int, float]:
        reached = (i for i, mean in enumerate(row["mean"]) if mean is not None and mean >= level)
        return next(reached, never), -_highest(row)

    return sorted(entry["heads"], key=order)


def _highest(row: Mapping[str, Json]) -> float:
    return max((mean for mean in row["mean"] if mean is not None), default=float("-inf"))


def _kept(rows: Sequence[Mapping[str, Json]], named: set[str]) -> list[Mapping[str, Json]]:
    """The rows for which there is room: those of the takeovers, then the highest peaks."""
    ranked = sorted(rows, key=lambda row: (row["head"] not in named, -_highest(row)))
    kept = {row["head"] for row in ranked[:MOST_ROWS]}
    return [row for row in rows if row["head"] in kept]


def _strip(means: Sequence[Mean], level: float, top: Mean, each: int, ascii: bool) -> str:
    """One sign for every so many checkpoints: the highest that is known of them."""
    signs = PLAIN if ascii else BLOCKS
    parts = [means[start : start + each] for start in range(0, len(means), each)]
    highest = [max((mean for mean in part if mean is not None), default=None) for part in parts]
    return "".join(
        UNKNOWN[ascii] if mean is None else _sign(mean, level, top, signs) for mean in highest
    )


def _sign(mean: float, level: float, top: Mean, signs: str) -> str:
    if mean < level:
        return " "
    span = mean if top is None else top - level
    share = (mean - level) / span if span > 0 else 1.0
    return signs[min(int(share * len(signs)), len(signs) - 1)]


def _peak(row: Mapping[str, Json], entry: Mapping[str, Json]) -> str:
    """The score at the head's peak; the highest known one where that is not known there."""
    at = row.get("peak")
    mean = row["mean"][entry["labels"].index(at)] if at in entry["labels"] else None
    highest = _highest(row) if mean is None else mean
    return f"{highest:.2g}" if highest > float("-inf") else "unknown"


def _tail(row: Mapping[str, Json], entry: Mapping[str, Json]) -> str:
    lost = f", lost at {row['lost']}" if row.get("lost") else ""
    return _peak(row, entry) + lost


def _title(entry: Mapping[str, Json], heads: int, each: int) -> str:
    at, count = entry["tokens"], len(entry["labels"])
    unit = f", {entry['unit']}" if entry.get("unit") else ""
    span = f", {tokens(at[0])} to {tokens(at[-1])} {entry['axis']}" if at else ""
    thinned = f"; a sign is the highest of {each} checkpoints" if each > 1 else ""
    of = f"{heads} head" if heads == 1 else f"{heads} heads"
    return f"{entry['what']}{unit}: {of} at {count} checkpoints{span}, with their peaks{thinned}"


def _losses(rows: Sequence[Mapping[str, Json]]) -> list[str]:
    lost = [f"{row['head']} at {row['lost']}" for row in rows if row.get("lost")]
    return [f"lost: {', '.join(lost)}"] if lost else []


def _left_out(
    rows: Sequence[Mapping[str, Json]],
    kept: Sequence[Mapping[str, Json]],
    entry: Mapping[str, Json],
) -> list[str]:
    shown = {row["head"] for row in kept}
    left = [row for row in rows if row["head"] not in shown]
    if not left:
        return []
    best = max(left, key=_highest)
    more = "1 more head is" if len(left) == 1 else f"{len(left)} more heads are"
    return [f"{more} left out, the highest peak of them {_peak(best, entry)} ({best['head']})"]


def _takeover(pair: Mapping[str, Json], entry: Mapping[str, Json]) -> str:
    """Which head takes over from which, and where: ``8.1 -> 9.7 at step105000 (220B tokens)``."""
    at = pair["at"]
    known = at in entry["labels"]
    count = tokens(entry["tokens"][entry["labels"].index(at)]) if known else ""
    place = f" ({count} {entry['axis']})" if known and entry["axis"] == "tokens" else ""
    return f"{pair['from']} -> {pair['to']} at {at}{place}"


def _legend(entry: Mapping[str, Json], top: Mean, unknown: bool, ascii: bool) -> str:
    """What the signs mean: the scale and the level."""
    level, signs = entry["level"], PLAIN if ascii else BLOCKS
    unsaid = f", {UNKNOWN[ascii]} unknown" if unknown else ""
    blank = f"blank: below the level, {level:g}"
    if top is None or top < level:
        highest = "" if top is None else f", which none reaches; the highest is {top:.2g}"
        return f"{blank}{highest}{unsaid}"
    return f"{blank}; {signs} from there to {top:.2g} in equal steps{unsaid}"


def _wrapped(texts: Sequence[str], width: int) -> list[str]:
    return [
        line
        for text in texts
        for line in wrap(
            text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
    ]
