"""What a model can do, on combinations that never occurred in its training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import numpy as np
import torch

from mechtests.sprout import grammar, numbers
from mechtests.sprout.corpus import ids
from mechtests.sprout.held_out import unseen
from mechtests.sprout.lexicon import (
    AGREEMENT,
    CENTURIES,
    CYCLIC,
    DIGITS,
    EVENTS,
    FEMALE,
    LISTS,
    NAMES,
    OBJECTS,
    PLACES,
    VERBS,
)
from mechtests.sprout.words import fill
from mechtests.tasks import greater_than, ioi, pronoun, succession

PROMPTS = 300
PERIOD, SEQUENCES = 50, 20
BATCH = 100


@dataclass(frozen=True)
class Question:
    """A prompt in words, its right answers and its wrong ones (none where any other word is)."""

    words: list[str]
    right: Sequence[str]
    wrong: Sequence[str]


def ioi_question(draw: Random) -> Question:
    """A sentence of the task ``ioi`` with two names that never met."""
    while True:
        first, second = draw.sample(NAMES, 2)
        if unseen("names", first, second):
            break
    subject, other = (first, second) if draw.random() < 0.5 else (second, first)
    words = fill(
        draw.choice(ioi.SENTENCES),
        first=first,
        second=second,
        subject=subject,
        place=draw.choice(PLACES),
        object=draw.choice(OBJECTS),
    )
    return Question(words, [other], [subject])


def year_question(draw: Random) -> Question:
    """A sentence of the task ``greater_than`` with a first year that was never one."""
    while True:
        century = draw.choice(CENTURIES)
        year = draw.randint(greater_than.FIRST_YEAR, greater_than.LAST_YEAR)
        if unseen("years", century, DIGITS[year]):
            break
    sentence = draw.choice(greater_than.SENTENCES).replace("{first}", "{century} {year}")
    words = fill(sentence, noun=draw.choice(EVENTS), century=century, year=DIGITS[year])
    return Question(words, DIGITS[year + 1 :], DIGITS[: year + 1])


def pronoun_question(draw: Random) -> Question:
    """A sentence of the task ``pronoun`` with a name and an adjective that never met."""
    while True:
        name, word = draw.choice(NAMES), draw.choice(pronoun.WORDS)
        if unseen("pronoun", name, word):
            break
    words = fill(draw.choice(pronoun.SENTENCES), name=name, word=word)
    answers = (["she"], ["he"]) if name in FEMALE else (["he"], ["she"])
    return Question(words, *answers)


def agreement_question(draw: Random) -> Question:
    """A structure of the task ``sva`` with an attractor, of two nouns that never met."""
    structures = [one for one in AGREEMENT.values() if "{attractor}" in one]
    number, other = draw.randint(0, 1), draw.randint(0, 1)
    words, _, _ = grammar.subject_of(draw, draw.choice(structures), number, other, held_out=True)
    return Question(words, [verb[number] for verb in VERBS], [verb[1 - number] for verb in VERBS])


def successor_question(draw: Random) -> Question:
    """Two to five items of an ordered list, as in the task ``succession``."""
    name = draw.choice(tuple(LISTS))
    items = LISTS[name] * (2 if name in CYCLIC else 1)
    shown = draw.randint(succession.SHORTEST, succession.LONGEST)
    start = draw.randint(0, len(items) - shown - 1)
    between = draw.choice(([], [","]))
    words = [word for item in items[start : start + shown] for word in (item, *between)]
    return Question(words, [items[start + shown]], [])


def arithmetic_question(operator: str) -> Callable[[Random], Question]:
    """A problem of an operator whose operands were never seen with it."""

    def question(draw: Random) -> Question:
        a, b = draw.choice(numbers.problems(operator, True))
        answer = str(numbers.result(operator, a, b))
        return Question([str(a), operator, str(b), "="], [answer], [])

    return question


QUESTIONS: dict[str, Callable[[Random], Question]] = {
    "ioi": ioi_question,
    "greater-than": year_question,
    "pronoun": pronoun_question,
    "agreement": agreement_question,
    "successor": successor_question,
    "addition": arithmetic_question("+"),
    "subtraction": arithmetic_question("-"),
    "multiplication": arithmetic_question("*"),
    "division": arithmetic_question("/"),
}


@cache
def questions(task: str) -> list[Question]:
    """The questions of a task, always the same."""
    draw = Random(f"questions {task}")
    return [QUESTIONS[task](draw) for _ in range(PROMPTS)]


def last_logits(model: Any, prompts: list[list[str]]) -> torch.Tensor:
    """Logits behind the last word of each prompt, shape ``[prompt, token]``."""
    known = ids()
    found = []
    for start in range(0, len(prompts), BATCH):
        some = prompts[start : start + BATCH]
        longest = max(map(len, some)) + 1
        tokens = torch.zeros(len(some), longest, dtype=torch.long)
        for line, words in zip(tokens, some, strict=True):
            line[1 : len(words) + 1] = torch.tensor([known[word] for word in words])
        ends = torch.tensor([len(words) for words in some])
        found.append(model(tokens).logits[torch.arange(len(some)), ends].float())
    return torch.cat(found)


def answers(model: Any, task: str) -> dict[str, float]:
    """Accuracy of a task; of greater-than the probability difference, of IOI also logits.

    With wrong answers, an answer is right where the right ones together are likelier than the
    wrong ones; without, where the right one is the likeliest token of all.
    """
    known = ids()
    asked = questions(task)
    logits = last_logits(model, [question.words for question in asked])
    chances = logits.softmax(-1)
    correct, differences, first = [], [], []
    for row, question in enumerate(asked):
        right = torch.tensor([known[word] for word in question.right])
        wrong = torch.tensor([known[word] for word in question.wrong], dtype=torch.long)
        first.append(int(logits[row].argmax()) in right.tolist())
        difference = float(chances[row, right].sum() - chances[row, wrong].sum())
        differences.append(difference)
        correct.append(difference > 0 if question.wrong else first[-1])
    values = {task: float(np.mean(correct))}
    if task == "greater-than":
        values = {task: float(np.mean(differences)), "greater-than accuracy": values[task]}
    if task == "ioi":
        io = [known[question.right[0]] for question in asked]
        s = [known[question.wrong[0]] for question in asked]
        rows = torch.arange(len(asked))
        values["ioi logit difference"] = float((logits[rows, io] - logits[rows, s]).mean())
        values["ioi first"] = float(np.mean(first))
    return values


def induction(model: Any) -> dict[str, float]:
    """The strongest head's attention, on repeated random tokens, to what followed last time.

    Mean over the second half of sequences of period 50, as ``attention.head_scores`` has it.
    """
    draw = Random("repeated tokens")
    rows = []
    for _ in range(SEQUENCES):
        half = draw.sample(range(1, len(ids())), PERIOD)
        rows.append([0, *half, *half])
    tokens = torch.tensor(rows)
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    output = model(tokens, output_attentions=True)
    model.set_attn_implementation(before)
    queries = torch.arange(PERIOD + 1, 2 * PERIOD + 1)
    scores = torch.stack(
        [pattern[:, :, queries, queries - PERIOD + 1].mean((0, 2)) for pattern in output.attentions]
    )
    chances = output.logits[:, PERIOD:-1].float().log_softmax(-1)
    loss = -chances.gather(-1, tokens[:, PERIOD + 1 :, None]).mean()
    layer, head = divmod(int(scores.argmax()), scores.shape[1])
    return {
        "induction": float(scores.max()),
        "induction head": layer + head / 10,
        "repeat loss": float(loss),
    }


@torch.no_grad()
def evaluate(model: Any) -> dict[str, float]:
    """Every value of the curves."""
    values: dict[str, float] = {}
    for task in QUESTIONS:
        values.update(answers(model, task))
    return values | induction(model)
