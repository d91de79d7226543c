"""Greater-than: "The war began in the year 1732 and ended in the year 17" -> a later year.

Source: Tigges et al. 2024 and its code (after Hanna et al. 2023): years of two tokens, a century
and two digits; right answers are the later two-digit years, wrong ones the others; the corrupted
year is 01. Sentences and nouns are our own. Where we differ: four sentences instead of one, and
every prompt also has the answers that would be right for another prompt's year, since a fixed
taste for late years is not the task.

In what follows XX is the century and YY the two digits of the first year.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np

from mechtests.errors import NotApplicable, UsageError
from mechtests.tasks.assembled import assembled, one_token, pieces
from mechtests.tasks.grammar import Choices, Grammar, free
from mechtests.tasks.prompts import Column, Ids, Levels, Prompts, Task, Tokenizer, padded

SENTENCES = (
    "The {noun} went on from the year {first} until the year {century}",
    "The {noun} began in the year {first} and ended in the year {century}",
    "People say that the {noun} continued from the year {first} to the year {century}",
    "It was in the year {first} that the {noun} began, and it ended in the year {century}",
)
SHORTEST_FIRST = tuple(sorted(SENTENCES, key=len))
NOUNS = (
    *("war", "siege", "reign", "voyage", "treaty", "famine", "strike", "festival", "empire"),
    *("plague", "rebellion", "expedition", "dynasty", "alliance", "project", "program"),
    *("campaign", "conflict", "dispute", "trial", "journey", "drought", "blockade"),
    *("occupation", "revolt", "crusade", "truce", "tour", "study", "exhibition", "debate"),
    *("crisis", "boom", "flood", "feud", "mission", "recession", "regime", "search"),
    "partnership",
)
CENTURIES = tuple(str(century) for century in range(11, 18))
FIRST_YEAR, LAST_YEAR = 2, 98
"""The two-digit years of clean prompts; answers are 00 to 99."""
CORRUPTED_YEAR = "01"
FEWEST = 20
"""With fewer two-digit years, a year says little about the ones that are later."""
LOOK_AHEAD = 16
OTHER = ("other_right", "other_wrong")

Year = tuple[str, int]


@dataclass(frozen=True)
class Row:
    """One prompt in words."""

    noun: int
    template: int
    half: int
    century: str
    year: int

    def text(self, year: str) -> str:
        """The sentence with this first year in its century, up to the answer."""
        return SENTENCES[self.template].format(
            noun=NOUNS[self.noun], first=self.century + year, century=self.century
        )


@dataclass(frozen=True)
class Years:
    """How a tokenizer splits years.

    Attributes:
        tokens: The token of each two-digit year (0 to 99) as it follows a century.
        clean: The years for clean prompts, as century and two digits; none was trained on.
    """

    tokens: dict[int, int]
    clean: list[Year]


def split_years(tokenizer: Tokenizer) -> Years:
    """The years of two tokens, without the first and the last of each century.

    Raises:
        NotApplicable: Too few years are a century and two digits, or were held out.
    """
    split: dict[str, list[int]] = {century: [] for century in CENTURIES}
    tokens: dict[int, int] = {}
    failed = ""
    for century in CENTURIES:
        first = one_token(tokenizer, century)
        for year in range(100):
            token = _second_token(tokenizer, century, first, year)
            if token is not None and tokens.setdefault(year, token) == token:
                split[century].append(year)
            else:
                failed = failed or pieces(tokenizer, f" {century}{year:02d}")
    known = [(century, year) for century, years in split.items() for year in _inner(years)]
    _check_enough(
        tokenizer,
        known,
        f"are two tokens, a century and two digits ({failed}); take a model whose tokenizer "
        "splits years so",
    )
    clean = [
        (century, year)
        for century, year in known
        if tokenizer.unseen("years", century, f"{year:02d}")
    ]
    _check_enough(tokenizer, clean, "were held out of training; hold out more")
    return Years(tokens | _alone(tokenizer, tokens), clean)


def _second_token(tokenizer: Tokenizer, century: str, first: int | None, year: int) -> int | None:
    """The token of the two digits, where the other is the century as it stands alone."""
    ids = tokenizer.encode(f" {century}{year:02d}")
    if len(ids) != 2 or ids[0] != first:
        return None
    return ids[1] if tokenizer.decode(ids[1:]).strip() == f"{year:02d}" else None


def _inner(years: list[int]) -> list[int]:
    """The years that prompts may have: a year of the century before and after; 01 to put there."""
    inner = years[1:-1] if int(CORRUPTED_YEAR) in years else []
    return [year for year in inner if FIRST_YEAR <= year <= LAST_YEAR]


def _alone(tokenizer: Tokenizer, known: dict[int, int]) -> dict[int, int]:
    """Two-digit years that follow no century, but are one token by themselves."""
    rest = {year: tokenizer.encode(f"{year:02d}") for year in range(100) if year not in known}
    return {
        year: ids[0]
        for year, ids in rest.items()
        if len(ids) == 1 and tokenizer.decode(ids) == f"{year:02d}"
    }


def _check_enough(tokenizer: Tokenizer, years: list[Year], what: str) -> None:
    found = len({year for _, year in years})
    if found < FEWEST:
        raise NotApplicable(
            f"{tokenizer.name}: greater-than needs {FEWEST} two-digit years, and there are {found} "
            f"among the years {CENTURIES[0]}00 to {CENTURIES[-1]}99 that {what}"
        )


def answers(tokenizer: Tokenizer, years: Sequence[int]) -> tuple[Ids, Ids]:
    """The tokens of the later two-digit years and of the others, each ``[prompt, answer]``.

    Raises:
        NotApplicable: The tokenizer does not split years in two.
    """
    return _answers(split_years(tokenizer).tokens, years)


def _answers(tokens: dict[int, int], years: Sequence[int]) -> tuple[Ids, Ids]:
    ordered = sorted(tokens.items())
    right = [[token for other, token in ordered if other > year] for year in years]
    wrong = [[token for other, token in ordered if other <= year] for year in years]
    width = len(tokens)
    return padded(right, fill=-1, width=width), padded(wrong, fill=-1, width=width)


def rows(years: Sequence[Year], generator: np.random.Generator) -> Iterator[Row]:
    """Prompts without end: sentences and halves in turn, nouns in turn in each; none comes twice.

    The nouns are dealt to the halves once, so that a noun is in one half in all sentences.
    """
    order = generator.permutation(len(NOUNS))
    nouns = [order[half::2].tolist() for half in (0, 1)]
    each = len(nouns[1])
    drawn = _in_turn(years, generator)
    seen: set[tuple[int, int, Year]] = set()
    for i in count():
        step, slot = divmod(i, 2 * len(SENTENCES))
        template, half = divmod(slot, 2)
        noun = nouns[half][(step + template * each // len(SENTENCES)) % each]
        century, year = next(y for y in drawn if (noun, template, y) not in seen)
        seen.add((noun, template, (century, year)))
        yield Row(noun, template, half, century, year)


def _in_turn(years: Sequence[Year], generator: np.random.Generator) -> Iterator[Year]:
    """Every two-digit year once, then again in another order, each in any of its centuries."""
    centuries: dict[int, list[str]] = {}
    for century, year in years:
        centuries.setdefault(year, []).append(century)
    while True:
        for year in generator.permutation(sorted(centuries)).tolist():
            yield str(generator.choice(centuries[year])), year


def generate(tokenizer: Tokenizer, n: int, generator: np.random.Generator) -> Prompts:
    """The first n prompts of the generator's sequence; fewer are always a prefix of more.

    The other year of a prompt is that of the next prompt of its half with another one.

    Raises:
        NotApplicable: The tokenizer does not split years in two.
        UsageError: There are more prompts than nouns, sentences and years make.
    """
    years = split_years(tokenizer)
    most = len(NOUNS) * len(SENTENCES) * len(years.clean) - LOOK_AHEAD
    if n > most:
        raise UsageError(
            f"greater_than: {n} prompts asked for, and the {len(years.clean)} years of "
            f"{tokenizer.name} make at most {most}; ask for fewer"
        )
    made = list(islice(rows(years.clean, generator), n + LOOK_AHEAD))
    year = [row.year for row in made]
    others = [next(y for y in year[i + 2 :: 2] if y != year[i]) for i in range(n)]
    return _prompts(tokenizer, years, made[:n], others)


def _prompts(
    tokenizer: Tokenizer, years: Years, made: Sequence[Row], others: Sequence[int]
) -> Prompts:
    """The prompts of some rows, with the other year of each."""
    prompts = assembled(
        tokenizer,
        [row.text(f"{row.year:02d}") for row in made],
        {"year 01": [row.text(CORRUPTED_YEAR) for row in made]},
        strata=[(row.noun, row.template, row.half) for row in made],
        answers=_answers(years.tokens, [row.year for row in made]),
        varied="years",
    )
    prompts = replace(prompts, tokens=_other(years.tokens, others))
    return _annotated(tokenizer, years.tokens, prompts)


def grammar(tokenizer: Tokenizer) -> Grammar:
    """Sentence (shortest first), noun, century and a year of it.

    The other year of a prompt is the smallest one, or the largest for the smaller half.

    Raises:
        NotApplicable: The tokenizer does not split years in two.
    """
    years = split_years(tokenizer)
    by_century: dict[str, list[int]] = {}
    for century, year in years.clean:
        by_century.setdefault(century, []).append(year)
    known = sorted({year for _, year in years.clean})
    middle = known[len(known) // 2]

    def build(every: Sequence[Choices]) -> Prompts:
        made = [
            Row(
                NOUNS.index(str(each["noun"])),
                SENTENCES.index(str(each["sentence"])),
                i % 2,
                str(each["century"]),
                int(each["year"]),
            )
            for i, each in enumerate(every)
        ]
        others = [known[-1] if row.year < middle else known[0] for row in made]
        return _prompts(tokenizer, years, made, others)

    slots = {
        "sentence": free(SHORTEST_FIRST),
        "noun": free(NOUNS),
        "century": free(list(by_century)),
        "year": lambda chosen: by_century[str(chosen["century"])],
    }
    return Grammar(slots, build)


def _other(tokens: dict[int, int], years: Sequence[int]) -> dict[str, Ids]:
    right, wrong = _answers(tokens, years)
    return dict(zip(OTHER, (right, wrong), strict=True))


def annotate(tokenizer: Tokenizer, prompts: Prompts) -> Prompts:
    """The prompts with positions XX1, YY, XX2, END and tokens YY, other_right, other_wrong.

    END is XX2, the century; XX1 is the same token further up with a two-digit year, YY, behind
    it. ``other_right`` and ``other_wrong`` are the right and wrong answers for the year of
    another prompt of the half, each ``[prompt, answer]``, -1 padded: kept where the prompts have
    them, else for the next prompt of the half that has another year (its own, if none has).

    Raises:
        NotApplicable: Some prompt does not have one such year.
    """
    return _annotated(tokenizer, split_years(tokenizer).tokens, prompts)


def _annotated(tokenizer: Tokenizer, tokens: dict[int, int], prompts: Prompts) -> Prompts:
    year_of = {token: year for year, token in tokens.items()}
    ids, place = prompts.clean, np.arange(prompts.clean.shape[1])
    century = ids[np.arange(len(prompts)), prompts.end]
    starts = (ids == century[:, None]) & (place < prompts.end[:, None] - 1)
    starts[:, :-1] &= np.isin(ids[:, 1:], list(year_of))
    bad = np.flatnonzero(starts.sum(1) != 1)
    if len(bad):
        raise NotApplicable(
            f"greater_than: {len(bad)} of {len(prompts)} prompts for {tokenizer.name} do not end "
            "with the century of one year further up, in one token and two digits behind it; the "
            f"first is {prompts.texts[bad[0]]!r}"
        )
    first = starts.argmax(1)
    year = ids[np.arange(len(prompts)), first + 1]
    positions = {"XX1": first, "YY": first + 1, "XX2": prompts.end, "END": prompts.end}
    other = {name: prompts.tokens[name] for name in OTHER if name in prompts.tokens}
    if not other:
        others = [year_of[int(year[i])] for i in _partners(year, prompts.half)]
        other = _other(tokens, others)
    return replace(prompts, positions=positions, tokens={"YY": year, **other})


def _partners(year: Ids, half: Ids) -> list[int]:
    """For each prompt the next of its half with another year, round the end; itself if none."""
    n = len(year)
    turns = ((np.arange(n) + i + 1) % n for i in range(n))
    return [
        next((int(j) for j in turn if half[j] == half[i] and year[j] != year[i]), i)
        for i, turn in enumerate(turns)
    ]


greater_than = Task(
    name="greater_than",
    version=1,
    generate=generate,
    sizes={"quick": 60, "standard": 400, "full": 1000},
    behaviour_sizes={"quick": 400, "standard": 400, "full": 1000},
    longest=28,
    levels=Levels({"probability_difference": 0.20, "beyond_other_prompt": 0.0}),
    corruption="year 01",
    annotate=annotate,
    column=Column("correct_idx", range(99), answers),
    grammar=grammar,
)
