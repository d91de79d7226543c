"""Gendered pronouns: "So Mary was the most careful driver that night, wasn't" -> " she".

Source: Tigges et al. 2024 and its code (after Mathwin et al.): 5 sentences and 20 names; the
corrupted prompt has a name of the other gender; the metric is the logit difference of the two
pronouns. Sentences are our own. Where we differ: 10 sentences and up to 40 names, and the
adjective of a sentence varies when every name has been in every sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product

import numpy as np

from mechtests.errors import NotApplicable, UsageError
from mechtests.tasks.assembled import assembled, first_change, one_token, pieces
from mechtests.tasks.grammar import Choices, Grammar, free
from mechtests.tasks.prompts import Levels, Prompts, Task, Tokenizer

SENTENCES = (
    "Well, {name} is a {word} singer, isn't",
    "I hear {name} is such a {word} neighbor, isn't",
    "So {name} was the most {word} driver that night, wasn't",
    "You know, {name} was a {word} teacher, wasn't",
    "Oh, {name} is really a {word} dancer, isn't",
    "Surely {name} is too {word} for that job, isn't",
    "As we know, {name} is quite {word} at home, isn't",
    "That day {name} was very {word} at school, wasn't",
    "Of course {name} is always {word} in the morning, isn't",
    "I think {name} is rather {word} about money, isn't",
)
SHORTEST_FIRST = tuple(sorted(SENTENCES, key=len))
WORDS = (
    *("kind", "careful", "gifted", "patient", "quiet", "brave", "cheerful", "clever"),
    *("young", "funny"),
)
"""The distinguishing word of a prompt; every one goes with every sentence."""

MALE = (
    *("John", "Paul", "David", "James", "Michael", "Robert", "William", "Richard", "Thomas"),
    *("Charles", "Daniel", "George", "Peter", "Jack", "Henry", "Edward", "Joseph", "Andrew"),
    *("Brian", "Kevin", "Eric", "Steve", "Tom", "Jim", "Bob", "Carl", "Simon", "Martin"),
    *("Matthew", "Adam", "Scott", "Tony"),
)
FEMALE = (
    *("Mary", "Anna", "Sarah", "Elizabeth", "Jennifer", "Susan", "Lisa", "Karen", "Emily"),
    *("Emma", "Jane", "Helen", "Alice", "Laura", "Julie", "Julia", "Amy", "Rachel", "Linda"),
    *("Barbara", "Margaret", "Maria", "Nancy", "Lucy", "Kate", "Anne", "Ruth", "Diana"),
    *("Carol", "Rebecca", "Michelle", "Jessica"),
)
PRONOUNS = ("he", "she")
FEWEST = 8
"""Names of either gender; with fewer, a half has too few to tell the name from the sentence."""
MOST = 20
"""Names of either gender that are used, so that each comes with every sentence soon."""


@dataclass(frozen=True)
class Name:
    """A name that is one token, its gender (0 is male), its half and its cluster."""

    text: str
    gender: int
    half: int
    cluster: int


@dataclass(frozen=True)
class Row:
    """One prompt in words."""

    template: int
    name: Name
    other: str
    word: str

    def text(self, name: str) -> str:
        """The sentence with this name, up to the pronoun."""
        return SENTENCES[self.template].format(name=name, word=self.word)


def usable_names(tokenizer: Tokenizer, generator: np.random.Generator) -> list[Name]:
    """As many names of either gender that are one token, dealt to the halves in random order.

    Of a model whose training is known only names that were held out of it with some adjective.

    Raises:
        NotApplicable: There are fewer than 8 of a gender.
    """
    known = _known(tokenizer)
    asked = [
        [name for name in names if any(tokenizer.unseen("pronoun", name, word) for word in WORDS)]
        for names in known
    ]
    used = min(MOST, *map(len, asked))
    drawn = [generator.permutation(names)[:used].tolist() for names in asked]
    return [
        Name(text, gender, i % 2, 2 * i + gender)
        for gender, names in enumerate(drawn)
        for i, text in enumerate(names)
    ]


def _known(tokenizer: Tokenizer) -> list[list[str]]:
    """The male and the female names that are one token.

    Raises:
        NotApplicable: There are fewer than 8 of a gender.
    """
    known = [
        [name for name in names if one_token(tokenizer, name) is not None]
        for names in (MALE, FEMALE)
    ]
    for what, names, found in zip(("male", "female"), (MALE, FEMALE), known, strict=True):
        if len(found) < FEWEST:
            split = next(name for name in names if name not in found)
            raise NotApplicable(
                f"{tokenizer.name}: only {len(found)} of {len(names)} {what} names are one token "
                f"and {FEWEST} are needed; {pieces(tokenizer, f' {split}')}; take a model whose "
                "tokenizer knows names, or give prompts of your own as a CSV"
            )
    return known


def rows(tokenizer: Tokenizer, names: list[Name], generator: np.random.Generator) -> Iterator[Row]:
    """Prompts until all are made: sentences, halves and genders in turn, and names in each.

    Only names whose combination with the adjective is unseen, the other name's too.
    """
    turns = [
        _one_turn(tokenizer, names, template, half, gender)
        for template, half, gender in product(range(len(SENTENCES)), (0, 1), (0, 1))
    ]
    while turns:
        for turn in tuple(turns):
            found = next(turn, None)
            if found is None:
                turns.remove(turn)
                continue
            template, name, word, others = found
            yield Row(template, name, str(generator.choice(others)), word)


def _one_turn(
    tokenizer: Tokenizer, names: list[Name], template: int, half: int, gender: int
) -> Iterator[tuple[int, Name, str, list[str]]]:
    """The names of a gender and half in one sentence, with their adjective and other names."""
    ours = [name for name in names if (name.half, name.gender) == (half, gender)]
    others = [name.text for name in names if name.half == half and name.gender != gender]
    for again, step in product(range(len(WORDS)), range(len(ours))):
        name, word = ours[(template + step) % len(ours)], WORDS[(template + again) % len(WORDS)]
        unseen = [other for other in others if tokenizer.unseen("pronoun", other, word)]
        if unseen and tokenizer.unseen("pronoun", name.text, word):
            yield template, name, word, unseen


def generate(tokenizer: Tokenizer, n: int, generator: np.random.Generator) -> Prompts:
    """The first n prompts of the generator's sequence; fewer are always a prefix of more.

    Raises:
        NotApplicable: Too few names are one token, or a pronoun is not.
        UsageError: There are more prompts than names, sentences and adjectives make.
    """
    pronouns(tokenizer)
    names = usable_names(tokenizer, generator)
    made = list(islice(rows(tokenizer, names, generator), n))
    if len(made) < n:
        raise UsageError(
            f"pronoun: {n} prompts asked for, and the {len(names)} names that are one token for "
            f"{tokenizer.name} make at most {len(made)}; ask for fewer"
        )
    return _prompts(tokenizer, made)


def _prompts(tokenizer: Tokenizer, made: Sequence[Row]) -> Prompts:
    """The prompts of some rows."""
    he, she = pronouns(tokenizer)
    gender = np.array([row.name.gender for row in made])
    prompts = assembled(
        tokenizer,
        [row.text(row.name.text) for row in made],
        {"other gender": [row.text(row.other) for row in made]},
        strata=[(row.name.cluster, row.template, row.name.half) for row in made],
        answers=(np.where(gender, she, he)[:, None], np.where(gender, he, she)[:, None]),
        varied="names",
    )
    return annotate(tokenizer, prompts)


def grammar(tokenizer: Tokenizer) -> Grammar:
    """Sentence (shortest first), adjective, and a name that was not in training with it.

    The name of the corrupted prompt is the first of the other gender that was not either.

    Raises:
        NotApplicable: Too few names are one token, or a pronoun is not.
    """
    pronouns(tokenizer)
    genders = {name: gender for gender, names in enumerate(_known(tokenizer)) for name in names}
    unseen = {
        word: [name for name in genders if tokenizer.unseen("pronoun", name, word)]
        for word in WORDS
    }
    words = [word for word, names in unseen.items() if len({genders[n] for n in names}) > 1]
    if not words:
        raise NotApplicable(f"{tokenizer.name}: no adjective was held out with names of both kinds")

    def build(every: Sequence[Choices]) -> Prompts:
        rows = []
        for i, each in enumerate(every):
            name, word = str(each["name"]), str(each["word"])
            other = next(n for n in unseen[word] if genders[n] != genders[name])
            template = SENTENCES.index(str(each["sentence"]))
            rows.append(Row(template, Name(name, genders[name], i % 2, i), other, word))
        return _prompts(tokenizer, rows)

    slots = {
        "sentence": free(SHORTEST_FIRST),
        "word": free(words),
        "name": lambda chosen: unseen[str(chosen["word"])],
    }
    return Grammar(slots, build)


def pronouns(tokenizer: Tokenizer) -> tuple[int, int]:
    """The tokens of " he" and " she".

    Raises:
        NotApplicable: One of them is more than one token.
    """
    he, she = (one_token(tokenizer, word) for word in PRONOUNS)
    if he is None or she is None:
        split = PRONOUNS[0] if he is None else PRONOUNS[1]
        raise NotApplicable(
            f"{tokenizer.name}: the pronouns must be one token each, and "
            f"{pieces(tokenizer, f' {split}')}"
        )
    return he, she


def annotate(tokenizer: Tokenizer, prompts: Prompts) -> Prompts:
    """The prompts with positions name (its first token) and END.

    The name is where the corrupted prompt first differs.

    Raises:
        NotApplicable: A prompt is the same as its corrupted one.
    """
    positions = {"name": first_change(prompts, "other gender"), "END": prompts.end}
    return replace(prompts, positions=positions)


pronoun = Task(
    name="pronoun",
    version=1,
    generate=generate,
    sizes={"quick": 60, "standard": 400, "full": 400},
    behaviour_sizes={"quick": 400, "standard": 400, "full": 400},
    longest=20,
    levels=Levels({"correct": 0.60, "logit_difference": 0.0}),
    corruption="other gender",
    annotate=annotate,
    grammar=grammar,
)
