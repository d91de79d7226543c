"""Succession: "Then: Monday Tuesday Wednesday" -> " Thursday".

Source: the ordered lists are those of the succession score of Tigges et al. 2024 and its code
(after Gould et al. 2023); the paper has no such prompts, they are our own. The right answer is
the item that follows, wrong ones are all others of its list, as for the succession score. The
corrupted prompt is as long a stretch from elsewhere in the list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import NamedTuple

import numpy as np

from mechtests.errors import NotApplicable
from mechtests.tasks.assembled import assembled, last_change, one_token, pieces
from mechtests.tasks.grammar import Choices, Grammar, Value, free
from mechtests.tasks.prompts import Levels, Prompts, Task, Tokenizer, padded

LISTS = {
    "days": (*("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),),
    "months": (
        *("January", "February", "March", "April", "May", "June", "July", "August"),
        *("September", "October", "November", "December"),
    ),
    "number words": (
        *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
        *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
        *("eighteen", "nineteen", "twenty"),
    ),
    "ordinals": (
        *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"),
        *("ninth", "tenth"),
    ),
    "letters": tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    "numbers": tuple(str(number) for number in range(1, 101)),
}
CYCLIC = ("days", "months")
"""The first item follows the last."""
SHORTEST, LONGEST = 2, 5
"""So many items of a list are shown."""
FORMS = (("Then:", ""), ("So it is", ","))
"""What comes before the items, and the mark behind each of them, the last one too.

Words before them give the first item the space that the others have; a tokenizer to which a
word is the same with and without it needs none.
"""
FEWEST = 20
"""Ordered pairs, as the catalogue of claims needs them."""
FEWEST_ENDS = 4
"""Places where a prompt may end: two in each half, and another one to corrupt it with."""


Known = dict[str, list[int | None]]
"""The token of every item of some lists, None where it is not one token."""
Ends = dict[int, list[int]]
"""Where a prompt may end in a list, and how many items it may show there."""


class OrderedPair(NamedTuple):
    """Two tokens of a list, of which the second follows the first."""

    list: str
    item: int
    successor: int


@dataclass(frozen=True)
class Row:
    """One prompt in words: where in its list it ends, how many items it shows, and how."""

    list: str
    last: int
    shown: int
    form: int
    elsewhere: int

    def text(self, last: int, *, led: bool = True) -> str:
        """As many items, up to this one; ``led`` by words before them or not."""
        lead, mark = FORMS[self.form]
        items = LISTS[self.list]
        stretch = (items[i % len(items)] for i in range(last - self.shown + 1, last + 1))
        shown = "".join(f" {item}{mark}" for item in stretch)
        return lead + shown if led else shown.lstrip()


def tokens(tokenizer: Tokenizer) -> Known:
    """The token of every item of every list, None where it is not one token."""
    return {name: [one_token(tokenizer, item) for item in items] for name, items in LISTS.items()}


def needs_lead(tokenizer: Tokenizer) -> bool:
    """Whether some item is another token at the start of a text than behind a space."""
    items = [item for items in LISTS.values() for item in items]
    return any(
        tokenizer.encode(item) != tokenizer.encode(f" {item}")
        for item in items
        if one_token(tokenizer, item) is not None
    )


def ordered_pairs(tokenizer: Tokenizer) -> list[OrderedPair]:
    """All pairs of neighbours in a list that are both one token, with a space before them.

    Raises:
        NotApplicable: There are fewer than 20.
    """
    found = [
        OrderedPair(name, item, following)
        for name, ids in tokens(tokenizer).items()
        for item, following in zip(ids, _followers(name, ids), strict=True)
        if item is not None and following is not None
    ]
    if len(found) < FEWEST:
        split = next(
            item
            for name, ids in tokens(tokenizer).items()
            for item, token in zip(LISTS[name], ids, strict=True)
            if token is None
        )
        raise NotApplicable(
            f"{tokenizer.name}: only {len(found)} ordered pairs of days, months, numbers, letters "
            f"are one token each and {FEWEST} are needed; {pieces(tokenizer, f' {split}')}; take "
            "a model with a larger vocabulary, or give prompts of your own as a CSV"
        )
    return found


def _followers(name: str, ids: list[int | None]) -> list[int | None]:
    return [*ids[1:], ids[0] if name in CYCLIC else None]


def stretches(name: str, ids: list[int | None]) -> Ends:
    """Where a prompt may end in a list, and how many items it may show there.

    All items shown, and the one that follows, are one token.
    """
    n, cyclic = len(ids), name in CYCLIC
    found: Ends = {}
    for last in range(n if cyclic else n - 1):
        for shown in range(SHORTEST, LONGEST + 1):
            places = range(last - shown + 1, last + 2)
            inside = cyclic or places[0] >= 0
            if inside and all(ids[i % n] is not None for i in places):
                found.setdefault(last, []).append(shown)
    return found


def rows(known: Known, generator: np.random.Generator) -> Iterator[tuple[Row, int]]:
    """Prompts without end and the half of each: lists and halves in turn, pairs in turn in each.

    A prompt comes again, beside another corrupted one, only where its list has no more.
    """
    turns = []
    for number, (name, ids) in enumerate(known.items()):
        ends = stretches(name, ids)
        turns += [_one_turn(name, ends, half, (half + number) % 2, generator) for half in (0, 1)]
    while True:
        for turn in turns:
            yield next(turn)


def _one_turn(
    name: str, ends: Ends, half: int, first: int, generator: np.random.Generator
) -> Iterator[tuple[Row, int]]:
    """The prompts of one half of a list: every second place where a prompt may end."""
    ours = generator.permutation(sorted(ends)[first::2]).tolist()
    for step in count():
        again, place = divmod(step, len(ours))
        last = ours[place]
        others = _elsewhere(ends, last)
        ways = [(shown, form) for shown in others if others[shown] for form in range(len(FORMS))]
        shown, form = ways[(again + place) % len(ways)]
        yield Row(name, last, shown, form, int(generator.choice(others[shown]))), half


def _elsewhere(ends: Ends, last: int) -> Ends:
    """Where else in the list as long a stretch ends, by the number of items it shows."""
    return {
        shown: [end for end in ends if end != last and shown in ends[end]] for shown in ends[last]
    }


def generate(tokenizer: Tokenizer, n: int, generator: np.random.Generator) -> Prompts:
    """The first n prompts of the generator's sequence; fewer are always a prefix of more.

    Raises:
        NotApplicable: Fewer than 20 ordered pairs are single tokens, or no list has stretches
            of them in two places of each half.
    """
    known = _usable(tokenizer)
    return _prompts(tokenizer, known, list(islice(rows(known, generator), n)))


def _usable(tokenizer: Tokenizer) -> Known:
    """The lists that have enough places where a prompt may end.

    Raises:
        NotApplicable: Fewer than 20 ordered pairs are single tokens, or there is no such list.
    """
    ordered_pairs(tokenizer)
    known = {
        name: ids
        for name, ids in tokens(tokenizer).items()
        if len(stretches(name, ids)) >= FEWEST_ENDS
    }
    if not known:
        raise NotApplicable(
            f"{tokenizer.name}: no ordered list has {FEWEST_ENDS} places with {SHORTEST + 1} items "
            "in a row that are one token each"
        )
    return known


def _prompts(tokenizer: Tokenizer, known: Known, made: Sequence[tuple[Row, int]]) -> Prompts:
    """The prompts of some rows, each with its half."""
    right = [known[row.list][(row.last + 1) % len(LISTS[row.list])] for row, _ in made]
    wrong = [
        [token for token in known[row.list] if token not in (None, answer)]
        for (row, _), answer in zip(made, right, strict=True)
    ]
    led = needs_lead(tokenizer)
    prompts = assembled(
        tokenizer,
        [row.text(row.last, led=led) for row, _ in made],
        {"elsewhere": [row.text(row.elsewhere, led=led) for row, _ in made]},
        strata=[(*_cluster_and_list(row), half) for row, half in made],
        answers=(
            np.array(right)[:, None],
            padded(wrong, fill=-1, width=max(map(len, known.values()))),
        ),
        varied="items",
    )
    return annotate(tokenizer, prompts)


def grammar(tokenizer: Tokenizer) -> Grammar:
    """The list, the item a prompt ends with, how many are shown, and in which form.

    The corrupted prompt is the first stretch elsewhere that is as long.

    Raises:
        NotApplicable: Fewer than 20 ordered pairs are single tokens, or no list has stretches
            of them in two places of each half.
    """
    known = _usable(tokenizer)
    elsewhere: dict[str, dict[int, Ends]] = {}
    for name, ids in known.items():
        ends = stretches(name, ids)
        elsewhere[name] = {last: _elsewhere(ends, last) for last in sorted(ends)}

    def lasts(chosen: Choices) -> Sequence[Value]:
        name = str(chosen["list"])
        places = elsewhere[name].items()
        return [LISTS[name][last] for last, others in places if any(others.values())]

    def others_of(chosen: Choices) -> Ends:
        name = str(chosen["list"])
        return elsewhere[name].get(LISTS[name].index(str(chosen["last"])), {})

    def row(chosen: Choices) -> Row:
        name, shown = str(chosen["list"]), int(chosen["shown"])
        form = [lead for lead, _ in FORMS].index(str(chosen["form"]))
        last = LISTS[name].index(str(chosen["last"]))
        return Row(name, last, shown, form, others_of(chosen)[shown][0])

    def build(every: Sequence[Choices]) -> Prompts:
        return _prompts(tokenizer, known, [(row(each), i % 2) for i, each in enumerate(every)])

    slots = {
        "list": free(list(known)),
        "last": lasts,
        "shown": lambda chosen: [shown for shown, ends in others_of(chosen).items() if ends],
        "form": free([lead for lead, _ in FORMS]),
    }
    return Grammar(slots, build)


def _cluster_and_list(row: Row) -> tuple[int, int]:
    """The place of the last item shown among the items of all lists, and the list's place."""
    template = list(LISTS).index(row.list)
    before = sum(len(items) for items in list(LISTS.values())[:template])
    return before + row.last, template


def annotate(tokenizer: Tokenizer, prompts: Prompts) -> Prompts:
    """The prompts with positions item, the last one shown, and END.

    The last item is where the corrupted prompt last differs; a mark may follow it.

    Raises:
        NotApplicable: A prompt is the same as its corrupted one.
    """
    positions = {"item": last_change(prompts, "elsewhere"), "END": prompts.end}
    return replace(prompts, positions=positions)


succession = Task(
    name="succession",
    version=2,
    generate=generate,
    sizes={"quick": 60, "standard": 300, "full": 600},
    longest=18,
    levels=Levels({"correct": 0.60}),
    corruption="elsewhere",
    annotate=annotate,
    grammar=grammar,
)
