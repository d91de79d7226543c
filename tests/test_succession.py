from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests.errors import NotApplicable
from mechtests.tasks import find
from mechtests.tasks.prompts import Prompts
from mechtests.tasks.succession import (
    CYCLIC,
    FORMS,
    LISTS,
    LONGEST,
    SHORTEST,
    needs_lead,
    ordered_pairs,
    succession,
)
from tests.words import TaskWords

WORDS = TaskWords()
WITH_BOS = TaskWords(bos=0)
NAMES = tuple(LISTS)


def prompts(n: int = 120, seed: int = 0, tokenizer: TaskWords = WORDS) -> Prompts:
    return succession.generate(tokenizer, n, np.random.default_rng(seed))


def shown(text: str) -> tuple[list[str], int]:
    """The items a text shows and the form it has: an oracle of its own."""
    (form,) = [i for i, (lead, _) in enumerate(FORMS) if text.startswith(lead + " ")]
    lead, mark = FORMS[form]
    items = text.removeprefix(lead).split()
    assert all(item.endswith(mark) for item in items)
    return [item.removesuffix(mark) for item in items], form


def after(name: str, item: str) -> str | None:
    items = LISTS[name]
    place = items.index(item) + 1
    return items[place] if place < len(items) else (items[0] if name in CYCLIC else None)


def others(*names: str) -> list[str]:
    return [item for name in NAMES if name not in names for item in LISTS[name]]


def test_every_list_has_its_items_once() -> None:
    assert all(len(set(items)) == len(items) for items in LISTS.values())
    every = [item for items in LISTS.values() for item in items]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("tokenizer", [WORDS, WITH_BOS])
def test_a_prompt_shows_items_in_order_and_the_answer_follows_the_last(
    tokenizer: TaskWords,
) -> None:
    made = prompts(300, tokenizer=tokenizer)
    assert made.right is not None
    assert made.wrong is not None
    for row, text in enumerate(made.texts):
        name = NAMES[made.template[row]]
        items, _ = shown(text)
        assert SHORTEST <= len(items) <= LONGEST
        assert [after(name, item) for item in items[:-1]] == items[1:]
        answer = after(name, items[-1])
        assert tokenizer.decode(made.right[row]) == f" {answer}"
        wrong = {tokenizer.decode([i]).strip() for i in made.wrong[row] if i >= 0}
        assert wrong == set(LISTS[name]) - {answer}
        at = made.positions["item"][row]
        assert tokenizer.decode([made.clean[row, at]]) == f" {items[-1]}"
    assert (made.positions["END"] == made.length - 1).all()


def test_the_corrupted_prompt_is_as_long_a_stretch_from_elsewhere_in_the_list() -> None:
    made = prompts(300)
    for row, text in enumerate(made.texts):
        ids = made.corrupted["elsewhere"][row, : made.length[row]]
        name = NAMES[made.template[row]]
        ours, theirs = shown(text), shown(WORDS.decode(ids))
        assert ours[1] == theirs[1]
        assert len(ours[0]) == len(theirs[0])
        assert [after(name, item) for item in theirs[0][:-1]] == theirs[0][1:]
        assert theirs[0][-1] != ours[0][-1]
        assert after(name, theirs[0][-1]) is not None


def test_a_cluster_is_a_pair_of_neighbours() -> None:
    made = prompts(600)
    pairs: dict[int, set[str]] = {}
    for text, cluster in zip(made.texts, made.cluster, strict=True):
        pairs.setdefault(int(cluster), set()).add(shown(text)[0][-1])
    assert all(len(items) == 1 for items in pairs.values())
    assert len({item for items in pairs.values() for item in items}) == len(pairs) > 100


def test_sixty_prompts_have_every_list_in_both_halves_as_often() -> None:
    made = prompts(60)
    cells = list(zip(made.template.tolist(), made.half.tolist(), strict=True))
    assert {cell: cells.count(cell) for cell in cells} == {
        (template, half): 5 for template in range(len(LISTS)) for half in (0, 1)
    }


def test_a_prompt_comes_again_only_when_its_list_has_no_more() -> None:
    made = prompts(600)
    assert len(set(made.texts[:84])) == 84
    ways = (LONGEST - SHORTEST + 1) * len(FORMS)
    days = {text for text, t in zip(made.texts, made.template, strict=True) if NAMES[t] == "days"}
    assert len(days) == len(LISTS["days"]) * ways
    numbers = [text for text, t in zip(made.texts, made.template, strict=True) if t == 5]
    assert len(set(numbers)) == len(numbers) == 100


@given(n=st.integers(1, 150), seed=st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_fewer_prompts_are_a_prefix_and_no_pair_crosses_halves(n: int, seed: int) -> None:
    many, few = prompts(150, seed), prompts(n, seed)
    assert few.digest == many.select(np.arange(n)).digest
    for cluster in set(few.cluster.tolist()):
        assert len(set(few.half[few.cluster == cluster].tolist())) == 1


def test_longest_is_long_enough_and_halves_are_even() -> None:
    made = prompts(600, tokenizer=WITH_BOS)
    assert made.length.max() <= succession.longest
    assert made.half.mean() == 0.5


def test_ordered_pairs_are_all_neighbours_and_wrap_where_a_list_is_a_cycle() -> None:
    pairs = ordered_pairs(WORDS)
    read = {name: [] for name in NAMES}
    for name, item, successor in pairs:
        read[name].append((WORDS.decode([item]).strip(), WORDS.decode([successor]).strip()))
    for name, items in LISTS.items():
        neighbours = [(item, after(name, item)) for item in items]
        assert read[name] == [pair for pair in neighbours if pair[1] is not None]


def test_lists_are_cut_where_an_item_splits() -> None:
    tokenizer = TaskWords(splits=("Wednesday",), digits=True)
    days = [
        (tokenizer.decode([a]).strip(), tokenizer.decode([b]).strip())
        for name, a, b in ordered_pairs(tokenizer)
        if name == "days"
    ]
    assert ("Tuesday", "Wednesday") not in days
    assert ("Sunday", "Monday") in days
    assert len(days) == 5
    made = prompts(300, tokenizer=tokenizer)
    assert not any("Wed" in text for text in made.texts)
    assert not re.search(r"\d", " ".join(made.texts))
    assert set(made.template.tolist()) == set(range(5))


def test_too_few_pairs_are_not_applicable_and_show_the_first_word_that_splits() -> None:
    tokenizer = TaskWords(splits=others("days", "months", "numbers"), digits=True)
    assert len(ordered_pairs(TaskWords(splits=others("months", "ordinals")))) == 21
    with pytest.raises(
        NotApplicable, match=r"only 19 ordered pairs .* 20 are needed; ' one' is ' ', 'o', 'n', 'e'"
    ):
        prompts(tokenizer=tokenizer)


def test_a_few_pairs_make_as_many_prompts_as_are_asked_for() -> None:
    made = prompts(300, tokenizer=TaskWords(splits=others("months", "ordinals")))
    assert len(made) == 300
    assert set(made.template.tolist()) == {1, 3}


def test_a_pair_of_one_prompt_is_not_applicable() -> None:
    made = prompts(5)
    same = replace(made, corrupted={"elsewhere": made.clean})
    assert succession.annotate is not None
    with pytest.raises(NotApplicable, match=r"5 of 5 prompts are the same as their corrupted"):
        succession.annotate(WORDS, same)


def test_the_task_is_found_by_its_file_name() -> None:
    assert find("succession") is succession


class Blind(TaskWords):
    """A word is one token with a space before it and without."""

    def encode(self, text: str) -> list[int]:
        return super().encode(" " + text.lstrip())


def test_where_a_space_makes_no_difference_the_items_come_without_words_before_them() -> None:
    assert needs_lead(WORDS)
    assert not needs_lead(Blind())
    plain, led = prompts(tokenizer=Blind()), prompts()
    for bare, whole in zip(plain.texts, led.texts, strict=True):
        assert any(whole == f"{lead} {bare}" for lead, _ in FORMS)
    assert np.array_equal(plain.right, led.right)
