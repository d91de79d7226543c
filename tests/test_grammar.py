"""A task is a grammar once: what is sampled is among what can be searched, prompt for prompt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests import tasks
from mechtests.models import tokenizer
from mechtests.models.embedded import ROOT
from mechtests.sprout.held_out import unseen
from mechtests.tasks import arithmetic, greater_than, ioi, pronoun, succession, sva
from mechtests.tasks.assembled import one_token
from mechtests.tasks.grammar import Choices, Grammar
from mechtests.tasks.names import single_token_names
from mechtests.tasks.prompts import Prompts
from tests.words import TaskWords

SEARCHABLE = ("arithmetic", "greater_than", "ioi", "pronoun", "succession", "sva")
BEFORE = {
    ("ioi", "words", 60, 0): "c85a0aa052a1a14c",
    ("ioi", "sprout", 60, 0): "6878e93575037caa",
    ("ioi", "words", 150, 3): "d4036ad55b4dd35b",
    ("ioi", "sprout", 150, 3): "e2bb1ebf0c6bacb5",
    ("greater_than", "words", 60, 0): "8326a52234a6097c",
    ("greater_than", "sprout", 60, 0): "df11aef86f78e316",
    ("greater_than", "words", 150, 3): "55c53dc6540fd325",
    ("greater_than", "sprout", 150, 3): "21918ae5826f81ac",
    ("pronoun", "words", 60, 0): "bc326209fefff9f5",
    ("pronoun", "sprout", 60, 0): "cf6c4a3c1aefbfac",
    ("pronoun", "words", 150, 3): "52bfabb399d559df",
    ("pronoun", "sprout", 150, 3): "1ef6e51f6cf4299f",
    ("succession", "words", 60, 0): "030d8f57d4cbabc2",
    ("succession", "sprout", 60, 0): "99a36dc5e91b3e5b",
    ("succession", "words", 150, 3): "b40579baddd720d4",
    ("succession", "sprout", 150, 3): "2a3edbcb589edaae",
    ("sva", "words", 60, 0): "640e6f26157d6c23",
    ("sva", "sprout", 60, 0): "aaffb176180b8a0f",
    ("sva", "words", 33, 5): "57a362ecece3dcbc",
    ("sva", "sprout", 33, 5): "2f7be8640437b3a6",
    ("sva", "words", 150, 3): "a19c146873140d18",
    ("sva", "sprout", 150, 3): "45ea2c1ff39f8bd3",
    ("arithmetic", "sprout", 60, 0): "8de91973293864d6",
    ("arithmetic", "sprout", 150, 3): "7baa574370c64158",
}
"""Digests of prompts from before tasks had a grammar to search."""


def sprout() -> Any:
    return tokenizer.read(ROOT / "sprout-1m", name="sprout", vocabulary=746, unseen=unseen)


SPROUT = sprout()
TOKENIZERS = {"words": TaskWords(bos=0), "sprout": SPROUT}


def grammar(name: str, tokens: Any = SPROUT) -> Grammar:
    made = tasks.find(name).grammar
    assert made is not None
    return made(tokens)


@pytest.mark.parametrize("at", BEFORE)
def test_no_prompt_that_is_sampled_was_changed_by_the_grammar(
    at: tuple[str, str, int, int],
) -> None:
    name, tokens, n, seed = at
    made = tasks.find(name).generate(TOKENIZERS[tokens], n, np.random.default_rng(seed))
    assert made.digest.startswith(BEFORE[at])


def of_ioi(draws: np.random.Generator) -> list[Choices]:
    names = list(single_token_names(SPROUT))
    sampled = ioi.pairs(names, draws, lambda a, b: unseen("names", a, b))
    return [
        {
            "sentence": ioi.SENTENCES[row.template % len(ioi.SENTENCES)],
            "order": ioi.ORDERS[row.template // len(ioi.SENTENCES)],
            "place": row.place,
            "object": row.object,
            "IO": row.names["A"],
            "S": row.names["B"],
        }
        for row in islice(sampled, 60)
    ]


def of_arithmetic(draws: np.random.Generator) -> list[Choices]:
    told = arithmetic.generate(SPROUT, 60, draws).tokens
    columns = (told[name].tolist() for name in ("operator", "first", "second"))
    return [
        {"operator": arithmetic.OPERATORS[sign], "first": a, "second": b}
        for sign, a, b in zip(*columns, strict=True)
    ]


def of_greater_than(draws: np.random.Generator) -> list[Choices]:
    sampled = greater_than.rows(greater_than.split_years(SPROUT).clean, draws)
    return [
        {
            "sentence": greater_than.SENTENCES[row.template],
            "noun": greater_than.NOUNS[row.noun],
            "century": row.century,
            "year": row.year,
        }
        for row in islice(sampled, 60)
    ]


def of_pronoun(draws: np.random.Generator) -> list[Choices]:
    sampled = pronoun.rows(SPROUT, pronoun.usable_names(SPROUT, draws), draws)
    return [
        {
            "sentence": pronoun.SENTENCES[row.template],
            "word": row.word,
            "name": row.name.text,
        }
        for row in islice(sampled, 60)
    ]


def of_sva(draws: np.random.Generator) -> list[Choices]:
    pairs = [pair for pair in permutations(sva.nouns(SPROUT), 2) if unseen("nouns", *pair)]
    before_and = [plural for _, plural in sva.verbs(SPROUT) if plural in sva.COORDINATED]
    return [
        {
            "structure": row.structure,
            "number": number,
            "word": row.words["word"],
            "subject": row.subject,
            "attractor": row.words["attractor"].removesuffix("s"),
            "attractor's number": sva.NUMBERS[row.words["attractor"].endswith("s")],
            **{slot: row.words[slot] for slot in ("preposition", "past", "said", "where")},
            "verb": row.verb,
        }
        for row in islice(sva.rows(pairs, before_and, draws), 30)
        for number in sva.NUMBERS
    ]


def of_succession(draws: np.random.Generator) -> list[Choices]:
    known = succession.tokens(SPROUT)
    known = {n: ids for n, ids in known.items() if len(succession.stretches(n, ids)) >= 4}
    return [
        {
            "list": row.list,
            "last": succession.LISTS[row.list][row.last],
            "shown": row.shown,
            "form": succession.FORMS[row.form][0],
        }
        for row, _ in islice(succession.rows(known, draws), 60)
    ]


SAMPLED = {
    "ioi": of_ioi,
    "sva": of_sva,
    "succession": of_succession,
    "arithmetic": of_arithmetic,
    "greater_than": of_greater_than,
    "pronoun": of_pronoun,
}


@pytest.mark.parametrize("name", SEARCHABLE)
def test_every_sampled_prompt_is_one_of_the_grammar_token_for_token(name: str) -> None:
    task, searched = tasks.find(name), grammar(name)
    sampled = task.generate(SPROUT, 60, np.random.default_rng(5))
    choices = SAMPLED[name](np.random.default_rng(5))
    for each in choices:  # what is not said in a sentence is the first there is
        for slot, options in searched.slots.items():
            if len(options(each)) == 1:
                each[slot] = options(each)[0]  # type: ignore[index]
    assert all(map(searched.allows, choices))
    built = searched.build(choices)
    assert built.texts == sampled.texts
    assert (built.clean == sampled.clean).all()
    assert (built.length == sampled.length).all()
    assert built.right is not None
    assert (built.right == sampled.right).all()
    if sampled.wrong is not None:
        assert (built.wrong == sampled.wrong).all()
    for position, at in sampled.positions.items():
        assert (built.positions[position] == at).all()


def drawn(searched: Grammar, draw: st.DrawFn) -> Choices:
    chosen: dict[str, Any] = {}
    for name, options in searched.slots.items():
        chosen[name] = draw(st.sampled_from(list(options(chosen))))
    return chosen


@pytest.mark.parametrize("name", SEARCHABLE)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_what_a_prompt_is_does_not_depend_on_those_beside_it(name: str, data: Any) -> None:
    searched = grammar(name)
    several = [drawn(searched, data.draw) for _ in range(3)]
    assert all(map(searched.allows, several))
    together = searched.build(several)
    for i, each in enumerate(several):
        alone = searched.build([each])
        assert same(alone, together, i)


def same(alone: Prompts, together: Prompts, i: int) -> bool:
    length = int(alone.length[0])
    rows = [(alone.clean[0], together.clean[i])]
    rows += [(ids[0], together.corrupted[name][i]) for name, ids in alone.corrupted.items()]
    plain: Sequence[Any] = [(alone.right, together.right), (alone.wrong, together.wrong)]
    plain += [(ids, together.tokens[name]) for name, ids in alone.tokens.items()]
    return (
        length == together.length[i]
        and all((a[:length] == b[:length]).all() for a, b in rows)
        and all(np.array_equal(a[0], b[i]) for a, b in plain if a is not None)
    )


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_only_combinations_that_were_held_out_are_searched(data: Any) -> None:
    two = drawn(grammar("ioi"), data.draw)
    assert two["IO"] != two["S"]
    assert unseen("names", str(two["IO"]), str(two["S"]))
    year = drawn(grammar("greater_than"), data.draw)
    assert unseen("years", str(year["century"]), f"{year['year']:02d}")
    agreeing = drawn(grammar("sva"), data.draw)
    assert agreeing["subject"] != agreeing["attractor"]
    assert unseen("nouns", str(agreeing["subject"]), str(agreeing["attractor"]))
    her = drawn(grammar("pronoun"), data.draw)
    assert unseen("pronoun", str(her["name"]), str(her["word"]))


def test_arithmetic_has_every_legal_problem_and_no_other() -> None:
    searched = grammar("arithmetic")
    for number, sign in enumerate(arithmetic.OPERATORS):
        every = arithmetic.legal(number, 198)
        expected = set(zip(every.first.tolist(), every.second.tolist(), strict=True))
        firsts = searched.slots["first"]({"operator": sign})
        found = {
            (first, second)
            for first in firsts
            for second in searched.slots["second"]({"operator": sign, "first": first})
        }
        assert found == expected
    assert not searched.allows({"operator": "-", "first": 3, "second": 4})
    assert not searched.allows({"operator": "+", "first": 3})


def test_succession_has_every_stretch_of_single_tokens_that_goes_on_and_no_other() -> None:
    searched = grammar("succession")
    expected = set()
    for name, items in succession.LISTS.items():
        whole = [one_token(SPROUT, item) is not None for item in items]
        around = 2 if name in succession.CYCLIC else 1
        for shown in range(succession.SHORTEST, succession.LONGEST + 1):
            for start in range(len(items)):
                stretch = [at % len(items) for at in range(start, start + shown + 1)]
                inside = start + shown < around * len(items)
                if inside and all(whole[at] for at in stretch):
                    expected.add((name, items[stretch[-2]], shown))
    found = {
        (name, last, shown)
        for name in searched.slots["list"]({})
        for last in searched.slots["last"]({"list": name})
        for shown in searched.slots["shown"]({"list": name, "last": last})
    }
    assert found == {each for each in expected if each[0] in searched.slots["list"]({})}
    assert len(found) > 100
    assert not searched.allows({"list": "days", "last": "May", "shown": 2, "form": "Then:"})


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_sentence_of_agreement_differs_from_the_other_number_in_what_agrees(data: Any) -> None:
    searched = grammar("sva")
    one = drawn(searched, data.draw)
    other = {**one, "number": sva.NUMBERS[one["number"] == "singular"]}
    built = searched.build([one, other])
    assert (built.corrupted["other number"][0] == built.clean[1]).all()
    assert (built.corrupted["other number"][1] == built.clean[0]).all()
    assert built.right is not None
    assert built.wrong is not None
    assert (built.right[0] == built.wrong[1]).all()
    at = int(built.positions["subject"][0])
    subject = SPROUT.decode([int(built.clean[0, at])]).strip()
    assert subject == str(one["subject"]) + "s" * (one["number"] == "plural")


def test_the_first_values_are_the_simplest_and_size_counts_from_them() -> None:
    searched = grammar("ioi")
    simplest: dict[str, Any] = {}
    for name, options in searched.slots.items():
        simplest[name] = options(simplest)[0]
    assert searched.size(simplest) == (0, (0,) * 6)
    assert len(str(simplest["sentence"])) == min(map(len, ioi.SENTENCES))
    assert all(searched.simpler(simplest, slot) == [] for slot in searched.slots)
    other = {**simplest, "order": "BABA"}
    assert searched.size(other) == (1, (0, 1, 0, 0, 0, 0))
    assert searched.simpler(other, "order") == [simplest] == searched.beside(other, "order")


def test_a_place_that_a_sentence_does_not_have_is_not_searched() -> None:
    searched = grammar("ioi")
    quarrel = next(each for each in ioi.SENTENCES if "quarrel" in each)
    assert list(searched.slots["place"]({"sentence": quarrel})) == [ioi.PLACES[0]]
    assert list(searched.slots["object"]({"sentence": quarrel})) == [ioi.OBJECTS[0]]
