"""Documents without a meaning: random words that repeat, and words in pairs that go together."""

from __future__ import annotations

from functools import lru_cache
from random import Random

from mechtests.sprout.lexicon import FILLER, vocabulary

LONGEST = 100
FOLLOWERS = 6


def span_length(draw: Random) -> int:
    """A length from 3 to 100 words, short and long ones alike often on a log scale."""
    return min(LONGEST, int(3 * (LONGEST / 3 + 0.35) ** draw.random()))


def repeats(draw: Random) -> list[str]:
    """Random words, then the same words again, at once or after others, up to some times."""
    words = vocabulary()
    length = span_length(draw)
    span = draw.sample(words, length)
    times = 2 if length > 40 else draw.randint(2, min(5, 2 + 60 // length))
    gapped = draw.random() < 0.4
    text: list[str] = draw.sample(words, draw.randint(1, 12)) if draw.random() < 0.3 else []
    for turn in range(times):
        if gapped and turn:
            text += draw.sample(words, draw.randint(1, 20))
        text += span
    return text


def scattered(draw: Random) -> list[str]:
    """Random pairs and triples of words, in a random order, each coming more than once."""
    words = vocabulary()
    count = draw.randint(4, 12)
    groups = [draw.sample(words, draw.randint(2, 4)) for _ in range(count)]
    return [word for _ in range(draw.randint(30, 60) // 3) for word in draw.choice(groups)]


@lru_cache(maxsize=1)
def followers() -> dict[str, tuple[str, ...]]:
    """The words that may follow each filler word, the likeliest first."""
    draw = Random("followers")
    return {word: tuple(draw.sample(FILLER, FOLLOWERS)) for word in FILLER}


def filler(draw: Random) -> list[str]:
    """Words of which each depends on the one before: half of the time the likeliest follower."""
    table = followers()
    word = draw.choice(FILLER)
    text = [word]
    for _ in range(draw.randint(8, 40)):
        likely = draw.random()
        word = table[word][0 if likely < 0.5 else draw.randint(1, FOLLOWERS - 1)]
        text.append(word)
    return [*text, "."]
