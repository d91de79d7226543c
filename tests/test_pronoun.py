from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests.errors import NotApplicable, UsageError
from mechtests.tasks import find
from mechtests.tasks.names import FIRST_NAMES
from mechtests.tasks.prompts import Prompts
from mechtests.tasks.pronoun import FEMALE, MALE, SENTENCES, WORDS, pronoun
from tests.words import TaskWords

TOKENS = TaskWords()
WITH_BOS = TaskWords(bos=0)
NAMES = {*MALE, *FEMALE}


def prompts(n: int = 120, seed: int = 0, tokenizer: TaskWords = TOKENS) -> Prompts:
    return pronoun.generate(tokenizer, n, np.random.default_rng(seed))


def name_of(text: str) -> str:
    (name,) = NAMES & set(text.replace(",", "").split())
    return name


def word_of(text: str) -> str:
    (word,) = set(WORDS) & set(text.replace(",", "").split())
    return word


def corrupted_texts(made: Prompts, tokenizer: TaskWords = TOKENS) -> list[str]:
    rows = zip(made.corrupted["other gender"], made.length, strict=True)
    return [tokenizer.decode(ids[:n]) for ids, n in rows]


def held_out(kind: str, *items: str) -> bool:
    assert kind == "pronoun"
    name, word = items
    assert name in NAMES
    assert word in WORDS
    return (len(name) + WORDS.index(word)) % 3 == 0


def test_names_are_of_the_list_of_first_names_and_of_one_gender() -> None:
    assert set(FIRST_NAMES) >= NAMES
    assert len(NAMES) == len(MALE) + len(FEMALE)
    assert min(len(MALE), len(FEMALE)) >= 20
    assert len(set(SENTENCES)) == len(set(WORDS)) == 10


def test_the_right_pronoun_is_the_names_and_the_wrong_one_the_other() -> None:
    made = prompts()
    assert made.right is not None
    assert made.wrong is not None
    for text, right, wrong in zip(made.texts, made.right, made.wrong, strict=True):
        ours = [" he", " she"] if name_of(text) in MALE else [" she", " he"]
        assert [TOKENS.decode(right), TOKENS.decode(wrong)] == ours


@pytest.mark.parametrize("tokenizer", [TOKENS, WITH_BOS])
def test_the_corrupted_prompt_has_a_name_of_the_other_gender_and_nothing_else_changes(
    tokenizer: TaskWords,
) -> None:
    made = prompts(tokenizer=tokenizer)
    changed = made.corrupted["other gender"] != made.clean
    assert (changed.sum(1) == 1).all()
    assert changed[np.arange(len(made)), made.positions["name"]].all()
    assert (made.positions["END"] == made.length - 1).all()
    for text, other in zip(made.texts, corrupted_texts(made, tokenizer), strict=True):
        assert (name_of(text) in MALE) != (name_of(other) in MALE)


def test_both_names_of_a_prompt_are_of_its_half() -> None:
    made = prompts(400)
    half = {name_of(text): h for text, h in zip(made.texts, made.half, strict=True)}
    for other, h in zip(corrupted_texts(made), made.half, strict=True):
        assert half[name_of(other)] == h


def test_four_hundred_prompts_are_forty_names_in_ten_sentences() -> None:
    made = prompts(400)
    cells = set(zip(made.template.tolist(), made.cluster.tolist(), strict=True))
    assert len(cells) == 400
    assert len(set(made.cluster.tolist())) == 40
    assert {name_of(t): c for t, c in zip(made.texts, made.cluster, strict=True)}.keys() <= NAMES
    assert made.half.mean() == 0.5
    assert len(set(made.texts)) == 400


def test_sixty_prompts_have_every_sentence_in_both_halves_with_both_genders() -> None:
    made = prompts(60)
    assert made.right is not None
    cells = zip(made.template.tolist(), made.half.tolist(), made.right[:, 0].tolist(), strict=True)
    assert len(set(cells)) == 40


def test_when_every_name_was_in_every_sentence_adjectives_change() -> None:
    made = prompts(800)
    first, again = made.texts[:400], made.texts[400:]
    assert len(set(made.texts)) == 800
    words = {(int(t), word_of(x)) for t, x in zip(made.template[:400], first, strict=True)}
    assert len(words) == 10
    assert not words & {
        (int(t), word_of(x)) for t, x in zip(made.template[400:], again, strict=True)
    }


@given(n=st.integers(1, 150), seed=st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_fewer_prompts_are_a_prefix_and_no_name_crosses_halves(n: int, seed: int) -> None:
    many, few = prompts(150, seed), prompts(n, seed)
    assert few.digest == many.select(np.arange(n)).digest
    for cluster in set(few.cluster.tolist()):
        rows = few.cluster == cluster
        assert len(set(few.half[rows].tolist())) == 1
        assert len({name_of(few.texts[row]) for row in np.flatnonzero(rows)}) == 1


def test_where_names_with_adjectives_were_trained_on_only_others_come() -> None:
    made = prompts(400, tokenizer=TaskWords(unseen_are=held_out))
    for text in (*made.texts, *corrupted_texts(made)):
        assert held_out("pronoun", name_of(text), word_of(text))
    assert len(set(zip(made.template.tolist(), made.half.tolist(), strict=True))) == 20


def test_names_that_split_are_left_out_and_genders_stay_even() -> None:
    made = prompts(tokenizer=TaskWords(splits=(*MALE[::2], *FEMALE[:3])))
    used = {name_of(text) for text in made.texts}
    assert not used & {*MALE[::2], *FEMALE[:3]}
    assert len(used) == 32
    assert len(used & set(MALE)) == 16


def test_too_few_names_of_a_gender_are_not_applicable_and_show_one() -> None:
    with pytest.raises(
        NotApplicable, match=r"only 7 of 32 female names .* 8 are needed; ' Mary' is ' ', 'M', 'a'"
    ):
        prompts(tokenizer=TaskWords(names=(*MALE, *FEMALE[1:8])))


def test_a_pronoun_of_two_tokens_is_not_applicable() -> None:
    with pytest.raises(NotApplicable, match=r"one token each, and ' she' is ' ', 's', 'h', 'e'"):
        prompts(tokenizer=TaskWords(splits=("she",)))


def test_more_prompts_than_there_are_are_refused() -> None:
    assert len(set(prompts(4000).texts)) == 4000
    with pytest.raises(UsageError, match=r"the 40 names .* make at most 4000; ask for fewer"):
        prompts(4001)


def test_longest_is_long_enough() -> None:
    assert prompts(400, tokenizer=WITH_BOS).length.max() <= pronoun.longest


def test_a_pair_of_one_prompt_is_not_applicable() -> None:
    made = prompts(5)
    same = replace(made, corrupted={"other gender": made.clean})
    assert pronoun.annotate is not None
    with pytest.raises(NotApplicable, match=r"5 of 5 prompts are the same as their corrupted"):
        pronoun.annotate(TOKENS, same)


def test_the_task_is_found_by_its_file_name() -> None:
    assert find("pronoun") is pronoun
