"""The words of the small language, by what they do in a sentence.

What the prompts of the tasks are made of is taken from the tasks' own modules, so that every
word of a prompt is a word of the training text; the rest is our own.
"""

from __future__ import annotations

import string
from functools import lru_cache

from mechtests.tasks import greater_than, ioi, pronoun, succession, sva

BOS = "<|endoftext|>"
UNKNOWN = "<unk>"

FEMALE = pronoun.FEMALE
MALE = pronoun.MALE
NAMES = FEMALE + MALE
PLACES = ioi.PLACES
OBJECTS = ioi.OBJECTS
EVENTS = greater_than.NOUNS
CENTURIES = greater_than.CENTURIES

NUMBERS = tuple(str(number) for number in range(199))
DIGITS = tuple(f"{number:02d}" for number in range(100))
"""Years are two of these; 10 to 99 are the same words as the numbers."""
OPERATORS = ("+", "-", "*", "/")
SIGNS = (".", ",", "?", ":", "=")

LISTS: dict[str, tuple[str, ...]] = succession.LISTS
CYCLIC = succession.CYCLIC

ADJECTIVES = tuple(dict.fromkeys(pronoun.WORDS + sva.WORDS))
NOUNS = sva.NOUNS
VERBS: tuple[tuple[str, str], ...] = (
    *((verb + "s", verb) for verb in sva.VERBS),
    *sva.IRREGULAR,
)
"""Singular and plural."""

SPANS = (
    *greater_than.SENTENCES,
    "The {noun} lasted from {first} to {century}",
    "From {first} to {century}",
    "There was a {noun} from {first} to {century}",
    "Between the year {first} and the year {century}",
)
DATED = (
    "In {first} the {noun} was over.",
    "The {noun} of {first} was long.",
    "It was the year {first}, and the {noun} was near.",
)
GIFTS = (
    *ioi.SENTENCES,
    "At the {place}, {first} met {second}. {subject} showed the {object} to",
    "{first} and {second} were at the {place}. {subject} gave a {object} to",
    "Yesterday {first} and {second} walked to the {place}, and {subject} sold the {object} to",
    "When {first} came to the {place}, {second} was there. {subject} sent a {object} to",
    "{first} saw {second} at the {place}. Then {subject} brought the {object} to",
    "After a long day {first} and {second} left the {place}. {subject} wrote a letter to",
    "{first} and {second} had a {object}. At the {place}, {subject} said to",
    "Because {first} and {second} were friends, {subject} wanted to give the {object} to",
)
AFTER_GIFTS = (
    "{name}.",
    "{name}.",
    "{name}.",
    "{name}, and {name} was happy.",
    "{name} at the {place}.",
    "{name}. Then {other} went home.",
    "{name}. {name} said thanks to {other}.",
)
ALONE = (
    "{name} was at the {place}.",
    "{name} has a {object}.",
    "In the morning {name} bought a {object}.",
    "{name} likes the {place}, and the {place} is near.",
    "Yesterday {name} lost the {object} at the {place}.",
    "{name} wanted to see the {place}. So {name} went to the {place}.",
)
FACTS = (
    "{name} has the {object}.",
    "{name} bought the {object}.",
    "{name} took the {object}.",
    "{name} wanted the {object}.",
    "{name} went to the {place}.",
    "{name} is at the {place}.",
    "{name} likes the {place}.",
)
SO = "So the {thing} is for {name}."
PRONOUNS = (
    *(f"{sentence} {{nominative}}?" for sentence in pronoun.SENTENCES),
    *("{name} was {word} because {nominative} had {possessive} {object}.",),
    "When {name} came to the {place}, {nominative} was {word}.",
    "{name} took {possessive} {object} to the {place}, and {nominative} was {word}.",
    "{name} went home, and we saw {objective} at the {place}.",
    "{name} lost {possessive} {object} at the {place}.",
    "{name} is {word}, and I like {objective}.",
)
FORMS = {
    "female": {"nominative": "she", "possessive": "her", "objective": "her"},
    "male": {"nominative": "he", "possessive": "his", "objective": "him"},
}
AGREEMENT: dict[str, str] = sva.STRUCTURES
AFTER_VERBS = ("", "every day", "again", *sva.WHERE)

_FILLER = """
    river stone wind cloud forest valley hill sand rain snow fire light shadow dream song voice
    silver gold iron wood glass paper wolf bear fox hare deer crow swan goose horse goat
    red blue green white black bright dark soft falls grows burns turns hides floats flies jumps
    slowly softly always never under over road bridge gate wall tower field lake shore ship bell
"""
FILLER: tuple[str, ...] = tuple(_FILLER.split())


@lru_cache(maxsize=1)
def vocabulary() -> tuple[str, ...]:
    """Every word of the language once, numbers first; BOS and <unk> are not among them."""
    from mechtests.sprout.words import literal

    sentences = (*SPANS, *DATED, *GIFTS, *AFTER_GIFTS, *ALONE, *FACTS, SO, *PRONOUNS)
    structures = (*AGREEMENT.values(), *AFTER_VERBS, *sva.PREPOSITIONS, *sva.PAST, *sva.SAID)
    words = [
        *(*NUMBERS, *DIGITS, *OPERATORS, *SIGNS),
        *(*NAMES, *PLACES, *OBJECTS, *EVENTS, *ADJECTIVES, *FILLER),
        *(word for items in LISTS.values() for word in items),
        *(word for noun in NOUNS for word in (noun, noun + "s")),
        *(word for pair in VERBS for word in pair),
        *(word for forms in FORMS.values() for word in forms.values()),
        *(word for template in (*sentences, *structures) for word in literal(template)),
        *("After", "Before", "comes", "then", "and", *string.ascii_uppercase),
    ]
    return tuple(dict.fromkeys(words))
