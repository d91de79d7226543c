"""Problems of arithmetic: which are legal, and as which tokens they are asked."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests.arithmetic.problems import EQUALS, FIRST, OPERATOR, SECOND, Problems
from mechtests.errors import NotApplicable, UsageError
from mechtests.models import tokenizer
from mechtests.models.embedded import ROOT
from mechtests.models.tokenizer import CellTokenizer
from mechtests.settings import Settings
from mechtests.sprout import held_out, numbers
from mechtests.tasks import csv_prompts, find
from mechtests.tasks.arithmetic import NAMES, OPERATORS, arithmetic, legal, symbols
from mechtests.tasks.prompts import Prompts
from tests.numerals import Numerals

CENSUS = arithmetic.sizes["standard"]


def prompts(tokens: Numerals, n: int = 400, seed: int = 0) -> Prompts:
    return arithmetic.generate(tokens, n, np.random.default_rng(seed))


@cache
def sprout() -> CellTokenizer:
    return tokenizer.read(
        ROOT / "sprout-1m", name="sprout-1m", vocabulary=780, unseen=held_out.unseen
    )


def tuples(operator: int, largest: int) -> list[tuple[int, int, int]]:
    every = legal(operator, largest)
    return list(
        zip(every.first.tolist(), every.second.tolist(), every.result.tolist(), strict=True)
    )


# ---------------------------------------------------------------- which problems


@pytest.mark.parametrize(
    ("largest", "counts"),
    [
        (999, (90_000, 45_150, 5_784, 89_401)),
        (530, (87_585, 45_150, 3_550, 89_401)),
        (520, (86_840, 45_150, 3_497, 89_401)),
        (198, (10_000, 5_050, 1_085, 4_950)),
    ],
)
def test_there_are_as_many_problems_as_in_the_paper(largest: int, counts: tuple[int, ...]) -> None:
    assert tuple(len(legal(operator, largest)) for operator in range(4)) == counts


@pytest.mark.parametrize("largest", [999, 530, 520])
def test_the_problems_are_those_of_the_papers_generator(largest: int) -> None:
    add = [(a, b, a + b) for a in range(300) for b in range(min(largest - a, 300))]
    sub = [(a, b, a - b) for a in range(300) for b in range(a + 1)]
    last = {a: 299 if a == 0 else min(largest // a, 299) for a in range(300)}
    mul = [(a, b, a * b) for a in range(300) for b in range(last[a] + 1)]
    div = [(a, b, a // b) for a in range(1, 300) for b in range(1, 300)]
    for operator, every in enumerate((add, sub, mul, div)):
        assert tuples(operator, largest) == every


def test_the_problems_of_a_small_vocabulary_are_those_of_sprouts_language() -> None:
    for operator, sign in enumerate(OPERATORS):
        ours = tuples(operator, 198)
        theirs = {*numbers.problems(sign, True), *numbers.problems(sign, False)}
        assert {(a, b) for a, b, _ in ours} == theirs
        assert len(ours) == len(theirs)
        assert all(numbers.result(sign, a, b) == result for a, b, result in ours)


@given(largest=st.integers(99, 999), operator=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_operands_and_results_are_numbers_of_one_token(largest: int, operator: int) -> None:
    every = legal(operator, largest)
    assert len(set(zip(every.first.tolist(), every.second.tolist(), strict=True))) == len(every)
    for numbers_ in (every.first, every.second, every.result):
        assert numbers_.min() >= 0
        assert numbers_.max() <= largest


def test_a_census_of_the_largest_vocabulary_is_what_the_profiles_ask_for() -> None:
    assert sum(len(legal(operator, 999)) for operator in range(4)) == CENSUS
    assert Settings(profile="full").prompts_of(arithmetic) == CENSUS


# ---------------------------------------------------------------- the prompts


@pytest.mark.parametrize("bos", [None, 0])
def test_a_prompt_is_one_token_a_number_and_a_sign_and_says_its_problem(bos: int | None) -> None:
    tokens = Numerals(198, bos=bos)
    made = prompts(tokens)
    assert made.right is not None
    assert made.clean.shape == (400, 4 if bos is None else 5)
    for text, ids, right in zip(made.texts, made.clean.tolist(), made.right, strict=True):
        assert ids == ([] if bos is None else [bos]) + tokens.encode(text)
        assert right.tolist() == tokens.encode(str(eval(text[:-1].replace("/", "//"))))


def test_the_problems_are_read_off_the_prompts_by_place() -> None:
    made = prompts(Numerals(198, bos=0))
    found = Problems.of(made)
    known = symbols(Numerals(198))
    assert (found.tokens[:, FIRST] == known.numbers[found.first]).all()
    assert (found.tokens[:, OPERATOR] == known.operators[found.operator]).all()
    assert (found.tokens[:, SECOND] == known.numbers[found.second]).all()
    assert (found.tokens[:, EQUALS] == known.equals).all()
    assert (found.answer == known.numbers[found.result]).all()
    places = {"first": FIRST, "operator": OPERATOR, "second": SECOND, "END": EQUALS}
    for name, place in places.items():
        assert (made.positions[name] == made.clean.shape[1] + place).all()
    assert (made.template == found.operator).all()
    assert (made.tokens["largest"] == 198).all()


def test_sprouts_own_tokenizer_reads_every_problem_as_it_is_asked() -> None:
    made = arithmetic.generate(sprout(), CENSUS, np.random.default_rng(0))
    assert len(made) == 21_085
    for row in range(0, len(made), 7):
        assert [sprout().bos, *sprout().encode(made.texts[row])] == made.clean[row].tolist()
    assert made.right is not None
    assert sprout().decode(made.right[0].tolist()) == str(made.tokens["result"][0])
    assert made.length.max() <= arithmetic.longest


def test_operands_that_were_kept_out_of_training_are_marked() -> None:
    made = arithmetic.generate(sprout(), 500, np.random.default_rng(0))
    for text, unseen in zip(made.texts, made.tokens["unseen"], strict=True):
        a, sign, b, _ = (
            text.replace("=", " =")
            .replace("+", " + ")
            .replace("-", " - ")
            .replace("*", " * ")
            .replace("/", " / ")
            .split()
        )
        assert unseen == held_out.unseen("operands", sign, a, b)
    assert 0.05 < made.tokens["unseen"].mean() < 0.3
    assert prompts(Numerals(198)).tokens["unseen"].all()


# ---------------------------------------------------------------- their order


@given(n=st.integers(1, 1000), seed=st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_fewer_prompts_are_a_prefix_and_operators_come_in_turn(n: int, seed: int) -> None:
    many, few = prompts(Numerals(198), 1000, seed), prompts(Numerals(198), n, seed)
    assert few.digest == many.select(np.arange(n)).digest
    assert np.ptp(np.bincount(few.template, minlength=4)) <= 1


@pytest.mark.parametrize("n", [400, 8_000, CENSUS])
def test_two_of_five_are_for_selection_in_every_operator(n: int) -> None:
    made = prompts(Numerals(198), n)
    for operator in range(4):
        half = made.half[made.template == operator]
        assert abs(len(half) * 0.4 - (half == 0).sum()) <= 1


def test_the_census_has_every_problem_once_and_a_sample_some_of_them() -> None:
    census, sample = prompts(Numerals(198), CENSUS), prompts(Numerals(198), 8_000)
    assert len(set(census.texts)) == len(census) == 21_085
    assert len(set(census.cluster.tolist())) == len(census)
    for operator, name in enumerate(NAMES):
        asked = (census.template == operator).sum()
        assert asked == len(legal(operator, 198)), name
    assert np.bincount(sample.template).tolist() == [2305, 2305, 1085, 2305]
    half = dict(zip(census.texts, census.half.tolist(), strict=True))
    assert all(half[text] == h for text, h in zip(sample.texts, sample.half, strict=True))


def test_a_problem_has_its_cluster_whatever_the_seed() -> None:
    one, two = (prompts(Numerals(198), CENSUS, seed) for seed in (0, 1))
    assert one.texts != two.texts
    cluster = dict(zip(one.texts, one.cluster.tolist(), strict=True))
    assert [cluster[text] for text in two.texts] == two.cluster.tolist()


# ---------------------------------------------------------------- other tokenizers


@pytest.mark.parametrize(("last", "largest"), [(530, 530), (520, 520), (1500, 999), (99, 99)])
def test_the_largest_number_is_the_one_before_the_first_that_splits(
    last: int, largest: int
) -> None:
    assert symbols(Numerals(last)).largest == largest


def test_a_tokenizer_that_splits_numbers_is_not_applicable_and_the_first_is_named() -> None:
    with pytest.raises(NotApplicable, match=r"^numerals: .* 0 to 99 .* and '10' is '1', '0'; take"):
        prompts(Numerals(9))
    with pytest.raises(NotApplicable, match=r"'99' is '9', '9'"):
        prompts(Numerals(98))
    assert len(prompts(Numerals(99), 40)) == 40


def test_a_sign_that_is_no_token_is_not_applicable() -> None:
    with pytest.raises(NotApplicable, match=r"signs .* one token each, and '\*' is '\?', '\?'"):
        prompts(Numerals(198, split="*"))
    with pytest.raises(NotApplicable, match=r"'=' is '\?', '\?'"):
        prompts(Numerals(198, split="="))


@pytest.mark.parametrize("joined", ["7=", "12+", "=198", "-3", "0*"])
def test_a_tokenizer_that_joins_a_number_and_a_sign_is_not_applicable(joined: str) -> None:
    with pytest.raises(NotApplicable, match=r"one token a number and one a sign, and '"):
        prompts(Numerals(198, joined=[joined]), 8_000)


def test_a_users_own_file_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "mine.csv"
    file.write_text("clean,corrupted,answer,wrong\n1+1=,1+2=,2,3\n")
    with pytest.raises(UsageError, match=r"'arithmetic' makes its own prompts; it reads no file"):
        csv_prompts.read(arithmetic, file, Numerals(198))


def test_the_task_is_found_by_its_file_name() -> None:
    assert find("arithmetic") is arithmetic
    assert Counter(OPERATORS) == Counter("+-*/")
