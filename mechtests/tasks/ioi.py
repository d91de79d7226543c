"""Indirect-object identification: "... Mary and John ... John gave a book to" -> " Mary".

Source: Tigges et al. 2024, Figure 1 and its code (after Wang et al. 2022): 15 kinds of
sentence in two orders of names, three distinct names, a place and an object. Sentences,
names, places and objects here are our own. Where we differ: prompts come in role-swapped
pairs, so that a model's taste for a name cancels; only names that are one token are used;
BOS is there where the model's own tokenizer puts it (the paper leaves it out).

In what follows A is the indirect object (IO) and B the subject (S).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice

import numpy as np

from mechtests.errors import NotApplicable, UsageError
from mechtests.tasks.assembled import assembled
from mechtests.tasks.grammar import Choices, Grammar, Value, free
from mechtests.tasks.names import single_token_names
from mechtests.tasks.prompts import Ids, Levels, Prompts, Task, Tokenizer

SENTENCES = (
    "Then, {first} and {second} walked to the {place}. {subject} handed a {object} to",
    "Then, {first} and {second} spent a long day at the {place}. {subject} gave a {object} to",
    "Then, {first} and {second} were busy at the {place}. {subject} offered a {object} to",
    "Then, {first} and {second} talked about the {place}. {subject} had to give a {object} to",
    "Then, {first} and {second} had a loud quarrel, and later {subject} said to",
    "Then, {first} and {second} did not agree at all. Afterwards {subject} said to",
    "After {first} and {second} arrived at the {place}, {subject} gave a {object} to",
    "After the concert, {first} and {second} went to the {place}. {subject} gave a {object} to",
    "Later that day, {first} and {second} met at the {place}. {subject} brought a {object} to",
    "When {first} and {second} bought a {object} at the {place}, {subject} chose to give it to",
    "When {first} and {second} saw a {object} at the {place}, {subject} gave the {object} to",
    "While {first} and {second} were waiting at the {place}, {subject} passed a {object} to",
    "While {first} and {second} were driving to the {place}, {subject} gave a {object} to",
    "The {place} that {first} and {second} visited sold a {object}. {subject} gave it to",
    "Two friends, {first} and {second}, picked up a {object} at the {place}. {subject} gave it to",
)
SHORTEST_FIRST = tuple(sorted(SENTENCES, key=len))
ORDERS = ("ABBA", "BABA")
TEMPLATES = len(SENTENCES) * len(ORDERS)
PLACES = (
    *("market", "library", "museum", "park", "beach", "airport", "hotel", "church", "farm"),
    *("theater", "harbor", "clinic"),
)
OBJECTS = (
    *("book", "letter", "lamp", "ball", "map", "phone", "cake", "watch", "basket", "camera"),
    *("flower", "jacket"),
)

# variant -> (first name, second name, subject) where the clean prompt has (A, B, B), and where
# it has (B, A, B); Z, X and Y are names the clean prompt does not have
VARIANTS: dict[str, tuple[str, str]] = {
    "S2->IO": ("ABA", "BAA"),
    "S2->third name": ("ABZ", "BAZ"),
    "random names": ("XYY", "YXY"),
    "swapped order": ("BAB", "ABB"),
    "flip order and S2": ("BAA", "ABA"),
    "ABB->XYX": ("XYX", "XYY"),
}
CLEAN = ("ABB", "BAB")


@dataclass(frozen=True)
class Row:
    """One prompt in words: its template, and who and what is in it."""

    cluster: int
    template: int
    names: dict[str, str]
    place: str
    object: str

    def text(self, roles: tuple[str, str]) -> str:
        """The sentence with these roles, up to the answer."""
        order, sentence = divmod(self.template, len(SENTENCES))
        first, second, subject = (self.names[role] for role in roles[order])
        return SENTENCES[sentence].format(
            first=first, second=second, subject=subject, place=self.place, object=self.object
        )


def pairs(
    names: list[str], generator: np.random.Generator, unseen: Callable[[str, str], bool]
) -> Iterator[Row]:
    """Role-swapped pairs without end, template by template; no pair of names comes twice in one.

    A and B are an unseen pair of names.
    """
    seen: set[tuple[int, frozenset[str]]] = set()
    cluster = 0
    while True:
        template = template_of(cluster)
        a, b, z, x, y = (names[i] for i in generator.choice(len(names), size=5, replace=False))
        place, thing = generator.choice(PLACES), generator.choice(OBJECTS)
        if (template, frozenset((a, b))) in seen or not unseen(a, b):
            continue
        seen.add((template, frozenset((a, b))))
        for roles in (
            {"A": a, "B": b, "Z": z, "X": x, "Y": y},
            {"A": b, "B": a, "Z": z, "X": y, "Y": x},
        ):
            yield Row(cluster, template, roles, str(place), str(thing))
        cluster += 1


def template_of(cluster: int) -> int:
    """The template of a cluster: every sentence twice in one order of names, then in the other.

    So that few prompts already have each of their templates in both halves.
    """
    turn, sentence = divmod(cluster, len(SENTENCES))
    order = (sentence + turn // 2) % len(ORDERS)
    return order * len(SENTENCES) + sentence


def halves(cluster: Ids) -> Ids:
    """The half of each prompt: clusters of one template alternate, sentences begin in turn."""
    turn, sentence = np.divmod(cluster, len(SENTENCES))
    half: Ids = (turn + sentence) % 2
    return half


def generate(tokenizer: Tokenizer, n: int, generator: np.random.Generator) -> Prompts:
    """The first n prompts of the generator's sequence; fewer are always a prefix of more.

    Raises:
        NotApplicable: Too few first names are one token, or the tokens of a sentence
            depend on the names in it.
        UsageError: There are more prompts than distinct unseen pairs of names.
    """
    names = single_token_names(tokenizer)

    def unseen(*pair: str) -> bool:
        return tokenizer.unseen("names", *pair)

    most = TEMPLATES * sum(unseen(*pair) for pair in combinations(names, 2))
    if n > most:
        raise UsageError(
            f"ioi: {n} prompts asked for, and the {len(names)} names that are one token for "
            f"{tokenizer.name} make at most {most} whose two names were not together in training; "
            "ask for fewer"
        )
    return _prompts(tokenizer, names, list(islice(pairs(list(names), generator, unseen), n)))


def _prompts(tokenizer: Tokenizer, names: dict[str, int], rows: Sequence[Row]) -> Prompts:
    """The prompts of some rows."""
    cluster = np.array([row.cluster for row in rows])
    template = [row.template for row in rows]
    prompts = assembled(
        tokenizer,
        [row.text(CLEAN) for row in rows],
        {variant: [row.text(roles) for row in rows] for variant, roles in VARIANTS.items()},
        strata=list(zip(cluster.tolist(), template, halves(cluster).tolist(), strict=True)),
        answers=(
            np.array([[names[row.names["A"]]] for row in rows]),
            np.array([[names[row.names["B"]]] for row in rows]),
        ),
        varied="names",
    )
    absent = np.array([names[row.names["Z"]] for row in rows])
    return annotate(tokenizer, replace(prompts, tokens={"absent": absent}))


def grammar(tokenizer: Tokenizer) -> Grammar:
    """Sentence (shortest first), order of names, place, object and an unseen pair of names.

    The names that only corrupted prompts have are the first others there are.

    Raises:
        NotApplicable: Too few first names are one token, or none was held out with another.
    """
    names = single_token_names(tokenizer)
    partners = {a: [b for b in names if a != b and tokenizer.unseen("names", a, b)] for a in names}
    paired = [name for name, others in partners.items() if others]
    if not paired:
        raise NotApplicable(f"{tokenizer.name}: no pair of names was held out of its training")

    def where_named(word: str, values: Sequence[Value]) -> Callable[[Choices], Sequence[Value]]:
        return lambda chosen: values if f"{{{word}}}" in str(chosen["sentence"]) else values[:1]

    def build(every: Sequence[Choices]) -> Prompts:
        return _prompts(tokenizer, names, [_row(i, each, names) for i, each in enumerate(every)])

    slots = {
        "sentence": free(SHORTEST_FIRST),
        "order": free(ORDERS),
        "place": where_named("place", PLACES),
        "object": where_named("object", OBJECTS),
        "IO": free(paired),
        "S": lambda chosen: partners[str(chosen["IO"])],
    }
    return Grammar(slots, build)


def _row(cluster: int, chosen: Choices, names: dict[str, int]) -> Row:
    a, b = str(chosen["IO"]), str(chosen["S"])
    others = islice((name for name in names if name not in (a, b)), 3)
    template = ORDERS.index(str(chosen["order"])) * len(SENTENCES)
    template += SENTENCES.index(str(chosen["sentence"]))
    roles = {"A": a, "B": b, **dict(zip("ZXY", others, strict=True))}
    return Row(cluster, template, roles, str(chosen["place"]), str(chosen["object"]))


def annotate(tokenizer: Tokenizer, prompts: Prompts) -> Prompts:
    """The prompts with positions IO, S1, S1+1, S2, END and tokens IO, S, absent.

    Positions are found from the ids of the answers: the right one is there once, the wrong
    one twice. The absent name is kept where the prompts have one already.

    Raises:
        NotApplicable: Some prompt does not have its names so often.
    """
    if prompts.right is None or prompts.wrong is None:
        raise NotApplicable("ioi: the prompts have no answers, so IO and S cannot be found")
    io, subject = prompts.right[:, 0], prompts.wrong[:, 0]
    real = np.arange(prompts.clean.shape[1]) < prompts.length[:, None]
    is_io = (prompts.clean == io[:, None]) & real
    is_subject = (prompts.clean == subject[:, None]) & real
    bad = np.flatnonzero((is_io.sum(1) != 1) | (is_subject.sum(1) != 2))
    if len(bad):
        raise NotApplicable(
            f"ioi: {len(bad)} of {len(prompts)} prompts for {tokenizer.name} do not have the right "
            f"answer's token once and the wrong answer's twice; the first is "
            f"{prompts.texts[bad[0]]!r}; are the answers ids of this tokenizer, or text with its "
            "leading space?"
        )
    first = is_subject.argmax(1)
    second = prompts.clean.shape[1] - 1 - is_subject[:, ::-1].argmax(1)
    positions = {"IO": is_io.argmax(1), "S1": first, "S1+1": first + 1, "S2": second}
    tokens = {"IO": io, "S": subject, **_absent(tokenizer, prompts)}
    return replace(prompts, positions={**positions, "END": prompts.end}, tokens=tokens)


def _absent(tokenizer: Tokenizer, prompts: Prompts) -> dict[str, Ids]:
    """A name that each prompt does not have, where the tokenizer knows enough names."""
    if "absent" in prompts.tokens:
        return {"absent": prompts.tokens["absent"]}
    names = np.array(list(single_token_names(tokenizer).values()))
    rows = []
    for i, ids in enumerate(prompts.clean):
        others = names[~np.isin(names, ids)]
        rows.append(others[i % len(others)])
    return {"absent": np.array(rows)}


ioi = Task(
    name="ioi",
    version=2,
    generate=generate,
    sizes={"quick": 60, "standard": 400, "full": 1200},
    behaviour_sizes={"quick": 480, "standard": 1200, "full": 2400},
    longest=24,
    levels=Levels({"correct": 0.60, "logit_difference": 0.0}),
    corruption="S2->IO",
    annotate=annotate,
    grammar=grammar,
)
