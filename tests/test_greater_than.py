from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests.errors import NotApplicable, UsageError
from mechtests.tasks import find
from mechtests.tasks.greater_than import NOUNS, SENTENCES, answers, greater_than, split_years
from mechtests.tasks.prompts import Prompts
from tests.words import TaskWords

WORDS = TaskWords()
WITH_BOS = TaskWords(bos=0)


def prompts(n: int = 120, seed: int = 0, tokenizer: TaskWords = WORDS) -> Prompts:
    return greater_than.generate(tokenizer, n, np.random.default_rng(seed))


def years(ids: np.ndarray) -> list[int]:
    return [int(WORDS.decode([i])) for i in ids if i >= 0]


def year_of(text: str) -> tuple[str, int]:
    """Century and two digits, read back from a text: an oracle of its own."""
    number = next(word.strip(",") for word in text.split() if word.strip(",").isdigit())
    assert len(number) == 4
    return number[:2], int(number[2:])


def held_out(kind: str, *items: str) -> bool:
    assert kind == "years"
    century, year = items
    return (int(century) + int(year)) % 5 == 0


def test_there_are_forty_nouns_and_four_sentences_and_none_twice() -> None:
    assert len(set(NOUNS)) == len(NOUNS) == 40
    assert len(set(SENTENCES)) == 4


@pytest.mark.parametrize("tokenizer", [WORDS, WITH_BOS])
def test_right_are_the_later_years_and_wrong_the_others(tokenizer: TaskWords) -> None:
    made = prompts(tokenizer=tokenizer)
    assert made.right is not None
    assert made.wrong is not None
    for text, right, wrong in zip(made.texts, made.right, made.wrong, strict=True):
        _, year = year_of(text)
        assert years(right) == list(range(year + 1, 100))
        assert years(wrong) == list(range(year + 1))


@pytest.mark.parametrize("tokenizer", [WORDS, WITH_BOS])
def test_a_prompt_ends_with_the_century_of_its_year_and_positions_hold_them(
    tokenizer: TaskWords,
) -> None:
    made = prompts(tokenizer=tokenizer)
    for row, text in enumerate(made.texts):
        century, year = year_of(text)
        assert text.endswith(f"the year {century}")
        held = {
            name: tokenizer.decode([made.clean[row, at[row]]])
            for name, at in made.positions.items()
        }
        assert held == {
            "XX1": f" {century}",
            "YY": f"{year:02d}",
            "XX2": f" {century}",
            "END": f" {century}",
        }
        assert made.tokens["YY"][row] == made.clean[row, made.positions["YY"][row]]
    assert (made.positions["END"] == made.length - 1).all()


def test_the_corrupted_year_is_01_and_nothing_else_changes() -> None:
    made = prompts(tokenizer=WITH_BOS)
    changed = made.corrupted["year 01"] != made.clean
    assert (changed.sum(1) == 1).all()
    rows = np.arange(len(made))
    assert changed[rows, made.positions["YY"]].all()
    assert {WITH_BOS.decode([i]) for i in made.corrupted["year 01"][changed]} == {"01"}


def test_the_years_of_clean_prompts_are_balanced_and_leave_out_the_ends() -> None:
    made = prompts(97)
    assert sorted(year_of(text)[1] for text in made.texts) == list(range(2, 99))


def test_the_other_year_is_that_of_another_prompt_of_the_half() -> None:
    made = prompts()
    assert made.wrong is not None
    own = [year_of(text)[1] for text in made.texts]
    other = [years(row)[-1] for row in made.tokens["other_wrong"]]
    assert [years(row)[0] for row in made.tokens["other_right"]] == [year + 1 for year in other]
    assert all(a != b for a, b in zip(own, other, strict=True))
    for half in (0, 1):
        rows = np.flatnonzero(made.half == half)
        assert [other[row] for row in rows[:-1]] == [own[row] for row in rows[1:]]


def test_a_fixed_taste_for_late_years_is_not_above_its_score_against_other_years() -> None:
    made = prompts(1000)
    tokens = split_years(WORDS).tokens
    taste = np.zeros(WORDS.size)
    taste[[tokens[year] for year in range(100)]] = np.arange(100) / np.arange(100).sum()
    assert made.right is not None
    assert made.wrong is not None

    def score(right: np.ndarray, wrong: np.ndarray) -> float:
        mass = [np.where(ids >= 0, taste[ids], 0.0).sum(1) for ids in (right, wrong)]
        return float((mass[0] - mass[1]).mean())

    own = score(made.right, made.wrong)
    assert own > 0.3
    other = score(made.tokens["other_right"], made.tokens["other_wrong"])
    assert other == pytest.approx(own, abs=0.01)


def test_sixty_prompts_have_every_sentence_in_both_halves_and_every_noun() -> None:
    made = prompts(60)
    cells = set(zip(made.template.tolist(), made.half.tolist(), strict=True))
    assert len(cells) == 2 * len(SENTENCES)
    assert len(set(made.cluster.tolist())) == len(NOUNS)


def test_every_noun_is_in_every_sentence_after_as_many_prompts() -> None:
    made = prompts(160)
    assert len(set(zip(made.template.tolist(), made.cluster.tolist(), strict=True))) == 160
    for text, cluster in zip(made.texts, made.cluster, strict=True):
        assert f" {NOUNS[cluster]} " in text


@given(n=st.integers(1, 150), seed=st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_fewer_prompts_are_a_prefix_and_no_noun_crosses_halves(n: int, seed: int) -> None:
    many, few = prompts(150, seed), prompts(n, seed)
    assert few.digest == many.select(np.arange(n)).digest
    for cluster in set(few.cluster.tolist()):
        assert len(set(few.half[few.cluster == cluster].tolist())) == 1


def test_halves_are_even_and_no_prompt_comes_twice() -> None:
    made = prompts(1000)
    assert made.half.mean() == 0.5
    assert len(set(made.texts)) == 1000
    assert made.length.max() + 1 <= greater_than.longest


def test_where_years_were_trained_on_only_others_come() -> None:
    made = prompts(400, tokenizer=TaskWords(unseen_are=held_out))
    found = [year_of(text) for text in made.texts]
    assert all(held_out("years", century, str(year)) for century, year in found)
    assert len(set(found)) > 100


def test_a_tokenizer_that_splits_digits_is_not_applicable_and_shows_the_first_year() -> None:
    with pytest.raises(
        NotApplicable,
        match=r"words: .* there are 0 among the years 1100 to 1799 that are two tokens.*"
        r"\(' 1100' is ' ', '1', '1', '0', '0'\)",
    ):
        prompts(tokenizer=TaskWords(digits=True))


def test_years_that_are_one_token_or_split_elsewhere_are_left_out() -> None:
    class Odd(TaskWords):
        """1732 is one token, 1745 is "174" and "5"; 1799 does not split, so 1798 is last."""

        def _split(self, text: str) -> list[str]:
            odd = {" 1732": [" king"], " 1745": [" queen", "5"], " 1799": [" son"]}
            return odd[text] if text in odd else super()._split(text)

    clean = split_years(Odd()).clean
    of_17 = [year for century, year in clean if century == "17"]
    assert of_17 == [year for year in range(2, 98) if year not in {32, 45}]
    assert [year for century, year in clean if century == "16"] == list(range(2, 99))


def test_a_century_without_its_year_01_is_left_out() -> None:
    class Odd(TaskWords):
        def _split(self, text: str) -> list[str]:
            return [" king"] if text == " 1401" else super()._split(text)

    assert "14" not in {century for century, _ in split_years(Odd()).clean}


def test_too_few_years_that_were_held_out_are_not_applicable() -> None:
    def nearly_all(kind: str, century: str, year: str) -> bool:
        return int(year) < 12

    with pytest.raises(
        NotApplicable, match=r"there are 10 among the years .* were held out of training"
    ):
        prompts(tokenizer=TaskWords(unseen_are=nearly_all))


def test_more_prompts_than_there_are_are_refused() -> None:
    def one_century(kind: str, century: str, year: str) -> bool:
        return century == "17" and int(year) < 30

    few = TaskWords(unseen_are=one_century)
    with pytest.raises(UsageError, match="the 28 years of words make at most 4464"):
        prompts(4465, tokenizer=few)
    assert len(set(prompts(4464, tokenizer=few).texts)) == 4464


def test_prompts_without_a_year_are_not_applicable() -> None:
    made = prompts(5)
    cut = replace(made, clean=made.clean[:, :-1], length=made.length - 1)
    with pytest.raises(NotApplicable, match=r"5 of 5 prompts for words do not end"):
        greater_than.annotate(WORDS, cut)


def test_prompts_of_ones_own_get_the_other_year_of_their_next() -> None:
    made = prompts(9)
    own = replace(made, tokens={}, half=np.array([0, 0, 0, 0, 0, 1, 1, 1, 1]))
    again = greater_than.annotate(WORDS, own)
    year = [year_of(text)[1] for text in made.texts]
    other = [years(row)[-1] for row in again.tokens["other_wrong"]]
    assert other == [*year[1:5], year[0], *year[6:9], year[5]]


def test_answers_for_a_number_are_those_of_the_prompts() -> None:
    right, wrong = answers(WORDS, [0, 98])
    assert years(right[0]) == list(range(1, 100))
    assert years(right[1]) == [99]
    assert years(wrong[0]) == [0]


def test_the_task_is_found_by_its_file_name() -> None:
    assert find("greater_than") is greater_than
