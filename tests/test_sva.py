from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests.errors import NotApplicable, UsageError
from mechtests.tasks import find
from mechtests.tasks.prompts import Prompts
from mechtests.tasks.sva import COORDINATED, IRREGULAR, NOUNS, STRUCTURES, VERBS, answers, sva
from mechtests.tasks.verbs import COMMON_VERBS
from tests.words import TaskWords

WORDS = TaskWords()
WITH_BOS = TaskWords(bos=0)
PLURAL = {noun + "s": noun for noun in NOUNS}
WITHIN = ("object relative within", "object relative within, no that", "sentential complement")


def prompts(n: int = 120, seed: int = 0, tokenizer: TaskWords = WORDS) -> Prompts:
    return sva.generate(tokenizer, n, np.random.default_rng(seed))


def structure(made: Prompts, row: int) -> str:
    return tuple(STRUCTURES)[made.template[row]]


def nouns(text: str) -> list[str]:
    return [word for word in text.split() if word in NOUNS or word in PLURAL]


def subject_and_attractor(text: str, kind: str) -> tuple[str, str]:
    """Read back from a text: an oracle of its own."""
    found = nouns(text)
    if kind in WITHIN:
        return found[1], found[0]
    return found[0], found[1] if len(found) > 1 else ""


def corrupted_texts(made: Prompts, tokenizer: TaskWords = WORDS) -> list[str]:
    rows = zip(made.corrupted["other number"], made.length, strict=True)
    return [tokenizer.decode(ids[:n]) for ids, n in rows]


def held_out(kind: str, *items: str) -> bool:
    assert kind == "nouns"
    assert set(items) <= set(NOUNS)
    return sum(NOUNS.index(item) for item in items) % 5 == 0


def test_the_lists_are_long_enough_and_nothing_is_there_twice() -> None:
    assert len(set(NOUNS)) == len(NOUNS) == 30
    assert len(set(VERBS)) == len(VERBS) == 25
    assert len(STRUCTURES) == 10
    assert set(COORDINATED) < set(VERBS)


def test_right_are_the_verbs_that_agree_with_the_subject_and_wrong_the_others() -> None:
    made = prompts()
    singular = {f" {verb}s" for verb in VERBS} | {f" {one}" for one, _ in IRREGULAR}
    plural = {f" {verb}" for verb in VERBS} | {f" {many}" for _, many in IRREGULAR}
    assert made.right is not None
    assert made.wrong is not None
    for row, text in enumerate(made.texts):
        subject, _ = subject_and_attractor(text, structure(made, row))
        ours = (plural, singular) if subject in PLURAL else (singular, plural)
        found = [{WORDS.decode([i]) for i in ids[row]} for ids in (made.right, made.wrong)]
        assert tuple(found) == ours


@pytest.mark.parametrize("tokenizer", [WORDS, WITH_BOS])
def test_the_corrupted_prompt_has_the_subject_in_the_other_number_and_its_verb(
    tokenizer: TaskWords,
) -> None:
    made = prompts(200, tokenizer=tokenizer)
    changed = made.corrupted["other number"] != made.clean
    for row, text in enumerate(made.texts):
        kind = structure(made, row)
        subject, _ = subject_and_attractor(text, kind)
        at = made.positions["subject"][row]
        assert tokenizer.decode([made.clean[row, at]]) == f" {subject}"
        other = PLURAL.get(subject, subject + "s")
        assert tokenizer.decode([made.corrupted["other number"][row, at]]) == f" {other}"
        places = np.flatnonzero(changed[row]).tolist()
        assert places == ([at, at + 1] if "coordination" in kind else [at])
    assert (made.positions["END"] == made.length - 1).all()


def test_a_verb_before_and_agrees_with_its_subject() -> None:
    made = prompts(200)
    for row, text in enumerate((*made.texts, *corrupted_texts(made))):
        if "coordination" in structure(made, row % len(made)):
            words = text.split()
            subject, verb = words[2:4]
            assert (verb if subject in PLURAL else verb.removesuffix("s")) in COORDINATED
            assert (verb in COORDINATED) == (subject in PLURAL)


def test_two_prompts_of_a_cluster_are_each_others_corrupted_prompt() -> None:
    made = prompts()
    other = corrupted_texts(made)
    assert (made.cluster[::2] == made.cluster[1::2]).all()
    assert list(made.texts[::2]) == other[1::2]
    assert list(made.texts[1::2]) == other[::2]


def test_attractors_come_in_both_numbers_with_subjects_of_both() -> None:
    made = prompts(600)
    seen: dict[str, set[tuple[bool, bool]]] = {}
    for row, text in enumerate(made.texts):
        subject, attractor = subject_and_attractor(text, structure(made, row))
        if attractor:
            numbers = (subject in PLURAL, attractor in PLURAL)
            seen.setdefault(structure(made, row), set()).add(numbers)
            assert PLURAL.get(subject, subject) != PLURAL.get(attractor, attractor)
    assert len(seen) == 7
    assert all(len(numbers) == 4 for numbers in seen.values())


def test_sixty_prompts_have_every_structure_in_both_halves() -> None:
    made = prompts(60)
    cells = set(zip(made.template.tolist(), made.half.tolist(), strict=True))
    assert len(cells) == 2 * len(STRUCTURES)


def test_halves_are_even_and_no_prompt_comes_twice() -> None:
    made = prompts(1200)
    assert made.half.mean() == 0.5
    assert len(set(made.texts)) == 1200
    assert len(set(made.cluster.tolist())) == 600
    assert set(np.bincount(made.template).tolist()) == {120}
    assert made.length.max() + 1 <= sva.longest


@given(n=st.integers(1, 150), seed=st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_fewer_prompts_are_a_prefix_and_no_cluster_crosses_halves(n: int, seed: int) -> None:
    many, few = prompts(150, seed), prompts(n, seed)
    assert few.digest == many.select(np.arange(n)).digest
    for cluster in set(few.cluster.tolist()):
        rows = few.cluster == cluster
        assert len(set(few.half[rows].tolist())) == 1
        assert len(set(few.template[rows].tolist())) == 1


def test_where_pairs_of_nouns_were_trained_on_only_others_come() -> None:
    made = prompts(600, tokenizer=TaskWords(unseen_are=held_out))
    for row, text in enumerate(made.texts):
        subject, attractor = subject_and_attractor(text, structure(made, row))
        if attractor:
            pair = (PLURAL.get(noun, noun) for noun in (subject, attractor))
            assert held_out("nouns", *pair)


def test_nouns_and_verbs_that_split_in_one_number_are_left_out() -> None:
    made = prompts(tokenizer=TaskWords(splits=("guards", "king", "sleeps", "know", "has")))
    assert not {"guard", "guards", "king", "kings"} & set(" ".join(made.texts).split())
    assert made.right is not None
    assert made.right.shape == (120, 25)
    assert not any(" sleep" in text for text in made.texts)


def test_verbs_that_only_the_tokenizer_knows_are_answers_too() -> None:
    forms = [form for pair in COMMON_VERBS[:3] for form in pair]
    made = prompts(4, tokenizer=TaskWords(names=forms))
    assert made.right is not None
    assert made.right.shape == (4, len(VERBS) + len(IRREGULAR) + 3)


def test_no_form_of_a_verb_is_one_of_another_verb() -> None:
    pairs = [*COMMON_VERBS, *IRREGULAR, *((verb + "s", verb) for verb in VERBS)]
    forms = [form for pair in pairs for form in pair]
    assert len(set(forms)) == len(forms)


def test_too_few_nouns_are_not_applicable_and_show_one() -> None:
    plurals = [noun + "s" for noun in NOUNS[:21]]
    with pytest.raises(
        NotApplicable, match=r"only 9 of 30 nouns .* 10 are needed; ' authors' is ' ', 'a', 'u'"
    ):
        prompts(tokenizer=TaskWords(splits=plurals))


def test_too_few_verbs_are_not_applicable_and_show_one() -> None:
    with pytest.raises(
        NotApplicable, match=r"only 9 of \d+ verbs .* 10 are needed; ' smile' is ' ', 's', 'm', 'i'"
    ):
        prompts(tokenizer=TaskWords(splits=VERBS[1:20]))
    with pytest.raises(NotApplicable, match=r'only 0 of 10 verbs that can come before "and"'):
        prompts(tokenizer=TaskWords(splits=COORDINATED))


def test_more_prompts_than_nouns_and_adjectives_make_are_refused() -> None:
    few = TaskWords(splits=NOUNS[10:])
    assert len(set(prompts(2000, tokenizer=few).texts)) == 2000
    with pytest.raises(UsageError, match="make at most 2000 that were not together"):
        prompts(2001, tokenizer=few)


def test_answers_for_a_number_are_those_of_the_prompts() -> None:
    right, wrong = answers(WORDS, [0, 1])
    assert (right[0] == wrong[1]).all()
    assert " walks" in [WORDS.decode([i]) for i in right[0]]


def test_the_task_is_found_by_its_file_name() -> None:
    assert find("sva") is sva
