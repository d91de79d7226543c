"""Documents of grammar: pronouns that agree with a name, verbs that agree with a subject."""

from __future__ import annotations

from random import Random

from mechtests.sprout.held_out import unseen
from mechtests.sprout.lexicon import (
    ADJECTIVES,
    AFTER_VERBS,
    AGREEMENT,
    FEMALE,
    FORMS,
    NAMES,
    NOUNS,
    OBJECTS,
    PLACES,
    PRONOUNS,
    VERBS,
)
from mechtests.sprout.words import fill, slots, split
from mechtests.tasks import sva

COORDINATED = tuple((verb + "s", verb) for verb in sva.COORDINATED)
ADJECTIVAL = ("is", "are", "was", "were")


def pronoun(draw: Random) -> list[str]:
    """A sentence about one person; the name and the adjective are no held-out combination."""
    sentence = draw.choice(PRONOUNS)
    while True:
        name, word = draw.choice(NAMES), draw.choice(ADJECTIVES)
        if "word" not in slots(sentence) or not unseen("pronoun", name, word):
            break
    return fill(
        sentence,
        name=name,
        word=word,
        object=draw.choice(OBJECTS),
        place=draw.choice(PLACES),
        **FORMS["female" if name in FEMALE else "male"],
    )


def subject_of(
    draw: Random, structure: str, number: int, other: int, *, held_out: bool = False
) -> tuple[list[str], str, str]:
    """The words before the verb, the subject and the attractor ("" without one).

    ``number`` and ``other`` are the numbers of subject and attractor: 0 for one, 1 for many.
    The two nouns are a held-out combination if so asked, and otherwise never.
    """
    both = "attractor" in slots(structure)
    while True:
        subject, attractor = draw.sample(NOUNS, 2)
        if not both or unseen("nouns", subject, attractor) == held_out:
            break
    subject, attractor = subject + "s" * number, attractor + "s" * other
    words = fill(
        structure.replace("{where}", draw.choice(sva.WHERE)),
        word=draw.choice(sva.WORDS),
        subject=subject,
        attractor=attractor,
        preposition=draw.choice(sva.PREPOSITIONS),
        past=draw.choice(sva.PAST),
        said=draw.choice(sva.SAID),
        verb=draw.choice(COORDINATED)[number],
    )
    return words, subject, attractor if both else ""


def agreement(draw: Random) -> list[str]:
    """A sentence whose verbs agree with their subjects, most of the time past an attractor."""
    name = draw.choice(tuple(AGREEMENT))
    number, other = draw.randint(0, 1), draw.randint(0, 1)
    words, _, _ = subject_of(draw, AGREEMENT[name], number, other)
    words += predicate(draw, number, bare="within" in name)
    if "within" in name:
        words += predicate(draw, other)
    return [*words, "."]


def predicate(draw: Random, number: int, *, bare: bool = False) -> list[str]:
    """A verb of a number, and what follows it; only a verb where it is bare."""
    verb = draw.choice(VERBS)[number]
    if bare:
        return [verb]
    if verb in ADJECTIVAL:
        return [verb, draw.choice(ADJECTIVES)]
    if verb in ("has", "have"):
        return [verb, "a", draw.choice(OBJECTS)]
    return [verb, *split(draw.choice(AFTER_VERBS))]


def pronouns(draw: Random) -> list[str]:
    """One to three sentences with a pronoun."""
    return [word for _ in range(draw.randint(1, 3)) for word in pronoun(draw)]


def agreements(draw: Random) -> list[str]:
    """One to three sentences with verbs that agree."""
    return [word for _ in range(draw.randint(1, 3)) for word in agreement(draw)]
