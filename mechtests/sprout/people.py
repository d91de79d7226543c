"""Documents about people: gifts between two of them, and names that come again elsewhere.

Giving sentences are those of the task ``ioi`` and others of the same kind. Around them names
are repeated, other people come in, and things are bound to names, so that neither "the name
that was there once" nor "the first name" nor "the last name" alone gives the next word.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from random import Random

from mechtests.sprout.held_out import unseen
from mechtests.sprout.lexicon import AFTER_GIFTS, ALONE, FACTS, GIFTS, NAMES, OBJECTS, PLACES, SO
from mechtests.sprout.words import fill, slots


@lru_cache(maxsize=1)
def known_pairs() -> tuple[tuple[str, str], ...]:
    """The pairs of names that are not held out."""
    return tuple(pair for pair in combinations(NAMES, 2) if not unseen("names", *pair))


def two_people(draw: Random) -> tuple[str, str]:
    """Two people who may meet, in a random order."""
    first, second = draw.choice(known_pairs())
    return (first, second) if draw.random() < 0.5 else (second, first)


def company(draw: Random, size: int) -> list[str]:
    """Some people of whom no two are held out."""
    people = list(two_people(draw))
    while len(people) < size:
        other = draw.choice(NAMES)
        if other not in people and not any(unseen("names", other, one) for one in people):
            people.append(other)
    return people


def gift(draw: Random) -> list[str]:
    """One sentence in which one of two people gives to the other, at times among other ones."""
    first, second = two_people(draw)
    giver, taker = (first, second) if draw.random() < 0.5 else (second, first)
    place, thing = draw.choice(PLACES), draw.choice(OBJECTS)
    words: list[str] = []
    before = draw.random()
    if before < 0.12:
        words += _about(draw, first, place, thing)
    elif before < 0.24:
        words += _about(draw, second, place, thing)
    elif before < 0.32:
        third = _stranger(draw, first, second)
        words += _about(draw, third, draw.choice(PLACES), draw.choice(OBJECTS))
    told = {"first": first, "second": second, "subject": giver, "place": place, "object": thing}
    words += fill(draw.choice(GIFTS), **told)
    words += fill(draw.choice(AFTER_GIFTS), name=taker, other=giver, place=place)
    if draw.random() < 0.3:
        words += _about(draw, draw.choice((first, second)), place, thing)
    return words


def _about(draw: Random, name: str, place: str, thing: str) -> list[str]:
    return fill(draw.choice(ALONE), name=name, place=place, object=thing)


def _stranger(draw: Random, *people: str) -> str:
    while True:
        name = draw.choice(NAMES)
        if name not in people and not any(unseen("names", name, one) for one in people):
            return name


def story(draw: Random) -> list[str]:
    """Who has what and who is where; told in part again, in another order."""
    people = company(draw, draw.randint(2, 4))
    things = draw.sample(OBJECTS, len(people))
    places = draw.sample(PLACES, len(people))
    facts = []
    for name, thing, place in zip(people, things, places, strict=True):
        sentence = draw.choice(FACTS)
        facts.append((sentence, {"name": name, "object": thing, "place": place}))
    words = [word for sentence, told in facts for word in fill(sentence, **told)]
    again = draw.sample(facts, draw.randint(1, len(facts)))
    for sentence, told in again:
        words += fill(sentence, **told)
    if draw.random() < 0.5:
        sentence, told = draw.choice(facts)
        what = "object" if "object" in slots(sentence) else "place"
        words += fill(SO, thing=told[what], name=told["name"])
    return words


def repeated_name(draw: Random) -> list[str]:
    """One person again and again: a name that was there comes back."""
    name = draw.choice(NAMES)
    words: list[str] = []
    for _ in range(draw.randint(2, 4)):
        words += _about(draw, name, draw.choice(PLACES), draw.choice(OBJECTS))
    return words
