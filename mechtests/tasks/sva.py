"""Subject-verb agreement: "The kind author near the guards" -> " walks", not " walk".

Source: Tigges et al. 2024 and its code (sentences after Marvin and Linzen 2018): prompts that end
before a verb, whose number is that of one noun; the corrupted prompt has that noun in the other
number; right answers are all verbs that agree, wrong ones those that do not. Sentences, nouns
and verbs are our own. Where we differ: verbs inside a relative clause are in the past tense, so
that only the noun tells its number; both versions of a sentence are prompts, so that a model's
taste for one number cancels; a verb is used only where both its forms are one token.

The probability difference is over the whole vocabulary, so it cannot exceed the probability that
a verb comes next at all: that is why answers are as many verbs as the tokenizer has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice, permutations

import numpy as np

from mechtests.errors import NotApplicable, UsageError
from mechtests.tasks.assembled import assembled, first_change, one_token, pieces
from mechtests.tasks.grammar import Choices, Grammar, Value, free
from mechtests.tasks.prompts import Column, Ids, Levels, Prompts, Task, Tokenizer
from mechtests.tasks.verbs import COMMON_VERBS

STRUCTURES = {
    "simple": "The {word} {subject}",
    "prepositional": "The {word} {subject} {preposition} the {attractor}",
    "subject relative": "The {word} {subject} that {past} the {attractor}",
    "object relative across": "The {word} {subject} that the {attractor} {past}",
    "object relative across, no that": "The {word} {subject} the {attractor} {past}",
    "object relative within": "The {word} {attractor} that the {subject}",
    "object relative within, no that": "The {word} {attractor} the {subject}",
    "sentential complement": "The {word} {attractor} {said} that the {subject}",
    "coordination": "The {word} {subject} {verb} and",
    "long coordination": "The {word} {subject} {verb} {where} every day and",
}
"""``{subject}`` is the noun whose number decides the verb that comes next; ``{verb}`` agrees
with it; ``{attractor}`` is another noun, of either number."""
SHORTEST_FIRST = tuple(sorted(STRUCTURES, key=lambda name: len(STRUCTURES[name])))
NUMBERS = ("singular", "plural")

NOUNS = (
    *("author", "teacher", "doctor", "farmer", "guard", "pilot", "driver", "singer", "writer"),
    *("actor", "student", "king", "queen", "friend", "neighbor", "girl", "boy", "brother"),
    *("sister", "artist", "player", "officer", "lawyer", "parent", "leader", "worker"),
    *("soldier", "dancer", "manager", "customer"),
)
"""Their plural is the word with an s."""

WORDS = ("kind", "careful", "quiet", "brave", "clever", "young", "funny", "tall", "old", "famous")
PREPOSITIONS = ("near", "behind", "beside", "with")
PAST = ("liked", "knew", "saw", "helped", "called", "met", "watched", "loved")
SAID = ("said", "thought", "knew", "hoped")
WHERE = ("in the park", "at the market", "in the library", "at school", "at home")

COORDINATED = (
    *("laugh", "smile", "sing", "sleep", "wait", "walk", "talk", "work", "read", "write"),
)
VERBS = (
    *COORDINATED,
    *("run", "play", "speak", "know", "like", "see", "want", "need", "help", "love", "make"),
    *("take", "give", "come", "look"),
)
"""Their singular is the word with an s."""
IRREGULAR = (("is", "are"), ("was", "were"), ("has", "have"))
"""Singular and plural."""
FEWEST_NOUNS = 10
FEWEST_VERBS = 10

Forms = tuple[str, str]


@dataclass(frozen=True)
class Row:
    """A pair of prompts in words: its structure, and what is in it."""

    structure: str
    words: dict[str, str]
    subject: str
    verb: str

    def text(self, plural: bool) -> str:
        """The sentence with the subject in this number, up to the verb."""
        return STRUCTURES[self.structure].format(
            subject=self.subject + "s" * plural, verb=self.verb + "s" * (not plural), **self.words
        )


def nouns(tokenizer: Tokenizer) -> list[str]:
    """The nouns of which both numbers are one token.

    Raises:
        NotApplicable: There are fewer than 10.
    """
    pairs = [(noun, noun + "s") for noun in NOUNS]
    return [one for one, _ in _whole(tokenizer, pairs, FEWEST_NOUNS, "nouns")]


def verbs(tokenizer: Tokenizer) -> list[Forms]:
    """The verbs of which both numbers are one token: singular and plural.

    Raises:
        NotApplicable: There are fewer than 10, or none that can come before "and".
    """
    regular = [(verb + "s", verb) for verb in VERBS]
    before_and = [pair for pair in regular if pair[1] in COORDINATED]
    _whole(tokenizer, before_and, 1, 'verbs that can come before "and"')
    every = list(dict.fromkeys([*regular, *IRREGULAR, *COMMON_VERBS]))
    return _whole(tokenizer, every, FEWEST_VERBS, "verbs")


def _whole(tokenizer: Tokenizer, pairs: Sequence[Forms], fewest: int, what: str) -> list[Forms]:
    """The pairs of which both are one token."""
    tokens = {form: one_token(tokenizer, form) for pair in pairs for form in pair}
    found = [pair for pair in pairs if all(tokens[form] is not None for form in pair)]
    if len(found) < fewest:
        split = next(form for form, token in tokens.items() if token is None)
        raise NotApplicable(
            f"{tokenizer.name}: only {len(found)} of {len(pairs)} {what} are one token in both "
            f"numbers and {fewest} are needed; {pieces(tokenizer, f' {split}')}; take a model with "
            "a larger vocabulary, or give prompts of your own as a CSV"
        )
    return found


def answers(tokenizer: Tokenizer, plural: Sequence[int]) -> tuple[Ids, Ids]:
    """The verbs that agree and those that do not, each ``[prompt, answer]``.

    Args:
        tokenizer: Whose verbs they are.
        plural: 1 for each prompt with a plural subject, 0 for the others.

    Raises:
        NotApplicable: Too few verbs are one token in both numbers.
    """
    forms = np.array([[one_token(tokenizer, form) for form in pair] for pair in verbs(tokenizer)])
    by_number = forms.astype(np.int64).T
    number = np.asarray(plural, dtype=np.int64)
    return by_number[number], by_number[1 - number]


def rows(
    pairs: Sequence[tuple[str, str]], before_and: Sequence[str], generator: np.random.Generator
) -> Iterator[Row]:
    """Pairs of prompts without end, structure by structure; none comes twice.

    Args:
        pairs: The nouns that may be subject and attractor of one sentence, in the singular.
        before_and: The verbs that may come before "and", in the plural.
        generator: Draws the words.
    """
    structures = tuple(STRUCTURES)
    seen: set[str] = set()
    for i in count():
        while True:
            subject, attractor = pairs[int(generator.integers(len(pairs)))]
            words = {
                "attractor": attractor + "s" * int(generator.integers(2)),
                "word": str(generator.choice(WORDS)),
                "preposition": str(generator.choice(PREPOSITIONS)),
                "past": str(generator.choice(PAST)),
                "said": str(generator.choice(SAID)),
                "where": str(generator.choice(WHERE)),
            }
            verb = str(generator.choice(before_and))
            row = Row(structures[i % len(structures)], words, subject, verb)
            if row.text(False) not in seen:
                break
        seen.add(row.text(False))
        yield row


def generate(tokenizer: Tokenizer, n: int, generator: np.random.Generator) -> Prompts:
    """The first n prompts of the generator's sequence; fewer are always a prefix of more.

    Both versions of a sentence follow each other, the singular one first.

    Raises:
        NotApplicable: Too few nouns or verbs are one token in both numbers.
        UsageError: There are more prompts than nouns and adjectives make.
    """
    known = verbs(tokenizer)
    pairs = [pair for pair in permutations(nouns(tokenizer), 2) if tokenizer.unseen("nouns", *pair)]
    most = 2 * len(STRUCTURES) * len(WORDS) * len({subject for subject, _ in pairs})
    if n > most:
        raise UsageError(
            f"sva: {n} prompts asked for, and the nouns that are one token for {tokenizer.name} "
            f"make at most {most} that were not together in training; ask for fewer"
        )
    made = islice(rows(pairs, _before_and(known), generator), (n + 1) // 2)
    both = [(row, plural, _stratum(i)) for i, row in enumerate(made) for plural in (False, True)]
    return _prompts(tokenizer, both[:n])


def _before_and(known: Sequence[Forms]) -> list[str]:
    """The verbs that may come before "and", in the plural."""
    return [plural for _, plural in known if plural in COORDINATED]


def _prompts(
    tokenizer: Tokenizer, made: Sequence[tuple[Row, bool, tuple[int, int, int]]]
) -> Prompts:
    """The prompts of some rows, each in a number and with its cluster, template and half."""
    prompts = assembled(
        tokenizer,
        [row.text(plural) for row, plural, _ in made],
        {"other number": [row.text(not plural) for row, plural, _ in made]},
        strata=[stratum for _, _, stratum in made],
        answers=answers(tokenizer, [int(plural) for _, plural, _ in made]),
        varied="nouns",
    )
    return annotate(tokenizer, prompts)


def grammar(tokenizer: Tokenizer) -> Grammar:
    """Structure (shortest first), the subject's number, and the words of the sentence.

    Subject and attractor were not together in training; of a word that a structure does not
    have only the first is there.

    Raises:
        NotApplicable: Too few nouns or verbs are one token, or no two nouns were held out.
    """
    before_and, known = _before_and(verbs(tokenizer)), nouns(tokenizer)
    partners = {a: [b for b in known if a != b and tokenizer.unseen("nouns", a, b)] for a in known}
    paired = [noun for noun, others in partners.items() if others]
    if not paired:
        raise NotApplicable(f"{tokenizer.name}: no pair of nouns was held out of its training")

    def where_said(word: str, values: Sequence[Value]) -> Callable[[Choices], Sequence[Value]]:
        return lambda chosen: values if _has(chosen, word) else values[:1]

    def attractors(chosen: Choices) -> Sequence[Value]:
        others = partners[str(chosen["subject"])]
        return others if _has(chosen, "attractor") else others[:1]

    slots = {
        "structure": free(SHORTEST_FIRST),
        "number": free(NUMBERS),
        "word": free(WORDS),
        "subject": free(paired),
        "attractor": attractors,
        "attractor's number": where_said("attractor", NUMBERS),
        "preposition": where_said("preposition", PREPOSITIONS),
        "past": where_said("past", PAST),
        "said": where_said("said", SAID),
        "where": where_said("where", WHERE),
        "verb": where_said("verb", before_and),
    }
    return Grammar(slots, lambda every: _prompts(tokenizer, [_row(*at) for at in enumerate(every)]))


def _has(chosen: Choices, word: str) -> bool:
    return f"{{{word}}}" in STRUCTURES[str(chosen["structure"])]


def _row(place: int, chosen: Choices) -> tuple[Row, bool, tuple[int, int, int]]:
    """Some choices as a row in its number, a cluster of its own."""
    words = {name: str(chosen[name]) for name in ("word", "preposition", "past", "said", "where")}
    words["attractor"] = str(chosen["attractor"]) + "s" * _plural(chosen["attractor's number"])
    structure = str(chosen["structure"])
    row = Row(structure, words, str(chosen["subject"]), str(chosen["verb"]))
    return row, _plural(chosen["number"]), (place, list(STRUCTURES).index(structure), place % 2)


def _plural(number: Value) -> bool:
    return bool(NUMBERS.index(str(number)))


def _stratum(cluster: int) -> tuple[int, int, int]:
    """Cluster, template and half: pairs of one structure alternate, structures begin in turn."""
    turn, structure = divmod(cluster, len(STRUCTURES))
    return cluster, structure, (turn + structure) % 2


def annotate(tokenizer: Tokenizer, prompts: Prompts) -> Prompts:
    """The prompts with positions subject and END.

    The subject's noun is where the corrupted prompt first differs (a verb that agrees with it
    may differ too).

    Raises:
        NotApplicable: A prompt is the same as its corrupted one.
    """
    positions = {"subject": first_change(prompts, "other number"), "END": prompts.end}
    return replace(prompts, positions=positions)


sva = Task(
    name="sva",
    version=1,
    generate=generate,
    sizes={"quick": 60, "standard": 600, "full": 1200},
    behaviour_sizes={"quick": 480, "standard": 600, "full": 1200},
    longest=18,
    levels=Levels({"probability_difference": 0.20}),
    corruption="other number",
    annotate=annotate,
    column=Column("plural", range(2), answers),
    grammar=grammar,
)
