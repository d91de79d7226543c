from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests.errors import NotApplicable, UsageError
from mechtests.tasks import find, known
from mechtests.tasks.ioi import CLEAN, OBJECTS, PLACES, TEMPLATES, VARIANTS, ioi
from mechtests.tasks.names import FIRST_NAMES, single_token_names
from mechtests.tasks.prompts import Prompts
from tests.words import TaskWords, Words

WORDS = Words()
WITH_BOS = Words(bos=0)


def prompts(n: int = 120, seed: int = 0, tokenizer: Words = WORDS) -> Prompts:
    return ioi.generate(tokenizer, n, np.random.default_rng(seed))


def roles(ids: np.ndarray, made: Prompts, tokenizer: Words) -> list[str]:
    """The names of every prompt as letters, read back from its text: an oracle of its own."""
    patterns = []
    names = set(FIRST_NAMES)
    for row, length, io, subject in zip(
        ids, made.length, made.right[:, 0], made.wrong[:, 0], strict=True
    ):
        known_as = {tokenizer.decode([io]): "A", tokenizer.decode([subject]): "B"}
        found = [tokenizer.decode([i]) for i in row[:length]]
        fresh = iter("PQRS")
        pattern = ""
        for word in (w for w in found if w.strip() in names):
            if word not in known_as:
                known_as[word] = next(fresh)
            pattern += known_as[word]
        patterns.append(pattern)
    return patterns


def test_there_are_names_places_and_objects_enough_and_none_twice() -> None:
    assert len(FIRST_NAMES) == len(set(FIRST_NAMES)) >= 120
    assert len(set(PLACES)) >= 8
    assert len(set(OBJECTS)) >= 8
    assert TEMPLATES == 30


def test_a_clean_prompt_ends_before_the_indirect_object_and_has_abb_or_bab_names() -> None:
    made = prompts()
    orders = np.where(made.template < 15, "ABB", "BAB")
    assert roles(made.clean, made, WORDS) == orders.tolist()
    assert all(text.split()[-1] == "to" for text in made.texts)
    assert [WORDS.decode(ids[:n]) for ids, n in zip(made.clean, made.length, strict=True)] == list(
        made.texts
    )


@pytest.mark.parametrize(
    ("variant", "abba", "baba"),
    [
        ("S2->IO", "ABA", "BAA"),
        ("S2->third name", "ABP", "BAP"),
        ("random names", "PQQ", "PQP"),
        ("swapped order", "BAB", "ABB"),
        ("flip order and S2", "BAA", "ABA"),
        ("ABB->XYX", "PQP", "PQQ"),
    ],
)
def test_every_corruption_changes_the_names_as_the_paper_says(
    variant: str, abba: str, baba: str
) -> None:
    made = prompts()
    wanted = np.where(made.template < 15, abba, baba)
    assert roles(made.corrupted[variant], made, WORDS) == wanted.tolist()


def test_a_corruption_changes_nothing_but_names() -> None:
    made = prompts(tokenizer=WITH_BOS)
    places = np.arange(made.clean.shape[1])[None, :]
    at_name = sum((places == made.positions[name][:, None]) for name in ("IO", "S1", "S2"))
    for variant in VARIANTS:
        changed = made.corrupted[variant] != made.clean
        assert changed.any(1).all()
        assert not (changed & (at_name == 0)).any()
    only_s2 = made.corrupted["S2->IO"] != made.clean
    assert (only_s2.sum(1) == 1).all()
    assert only_s2[np.arange(len(made)), made.positions["S2"]].all()


@pytest.mark.parametrize("tokenizer", [WORDS, WITH_BOS])
def test_named_positions_hold_their_tokens(tokenizer: Words) -> None:
    made = prompts(tokenizer=tokenizer)
    rows = np.arange(len(made))
    assert made.right is not None
    assert made.wrong is not None
    for position, token in (("IO", made.right), ("S1", made.wrong), ("S2", made.wrong)):
        assert (made.clean[rows, made.positions[position]] == token[:, 0]).all()
    assert (made.positions["S1+1"] == made.positions["S1"] + 1).all()
    assert (made.positions["S2"] > made.positions["IO"]).all()
    assert (made.positions["S2"] > made.positions["S1"]).all()
    assert (made.positions["END"] == made.length - 1).all()
    assert (made.positions["IO"] < made.positions["S1"]).tolist() == (made.template < 15).tolist()


def test_bos_is_first_exactly_where_the_tokenizer_has_one() -> None:
    with_bos, without = prompts(tokenizer=WITH_BOS), prompts()
    assert (with_bos.clean[:, 0] == 0).all()
    assert (with_bos.length == without.length + 1).all()
    assert (without.clean[:, 0] != 0).all()


def test_two_prompts_of_a_cluster_swap_roles_and_keep_all_else() -> None:
    made = prompts()
    first, second = slice(0, None, 2), slice(1, None, 2)
    assert (made.cluster[first] == made.cluster[second]).all()
    assert made.right is not None
    assert made.wrong is not None
    assert (made.right[first] == made.wrong[second]).all()
    assert (made.wrong[first] == made.right[second]).all()
    assert (made.template[first] == made.template[second]).all()
    for a, b, x, y in zip(
        made.texts[first], made.texts[second], made.right[first], made.wrong[first], strict=True
    ):
        one, other = WORDS.decode(x), WORDS.decode(y)
        swapped = a.replace(one, "#").replace(other, one).replace("#", other)
        assert swapped == b


def test_the_absent_name_is_absent_from_the_prompt() -> None:
    made = prompts()
    assert not (made.clean == made.tokens["absent"][:, None]).any()
    names = set(single_token_names(WORDS).values())
    assert set(made.tokens["absent"].tolist()) <= names


def test_sixty_prompts_have_half_of_the_templates_a_pair_of_each_in_each_half() -> None:
    made = prompts(60)
    assert len(set(made.template.tolist())) == 15
    assert len(set((made.template % 15).tolist())) == 15  # every sentence, in one order or another
    assert sorted(np.bincount(made.template // 15).tolist()) == [28, 32]
    for template in set(made.template.tolist()):
        assert sorted(made.half[made.template == template].tolist()) == [0, 0, 1, 1]


def test_a_hundred_and_twenty_prompts_give_every_template_a_pair_in_each_half() -> None:
    made = prompts(120)
    for template in range(TEMPLATES):
        assert sorted(made.half[made.template == template].tolist()) == [0, 0, 1, 1]


@given(n=st.integers(1, 150), seed=st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_fewer_prompts_are_a_prefix_and_no_cluster_crosses_halves(n: int, seed: int) -> None:
    many, few = prompts(150, seed), prompts(n, seed)
    assert few.digest == many.select(np.arange(n)).digest
    for cluster in set(few.cluster.tolist()):
        assert len(set(few.half[few.cluster == cluster].tolist())) == 1


def test_halves_are_even_where_templates_do_not_come_out_even() -> None:
    made = prompts(400)
    assert made.half.mean() == 0.5
    counts = np.bincount(2 * (made.template < 15) + made.half, minlength=4)
    assert counts.max() - counts.min() <= 20
    for half in (0, 1):
        assert set(made.template[made.half == half].tolist()) == set(range(TEMPLATES))


def test_no_prompt_comes_twice() -> None:
    made = prompts(1200, tokenizer=Words(FIRST_NAMES[:20]))
    assert len(set(made.texts)) == 1200


def test_longest_is_long_enough() -> None:
    assert prompts(400, tokenizer=WITH_BOS).length.max() <= ioi.longest


def test_a_tokenizer_that_splits_names_is_not_applicable_and_shows_some() -> None:
    with pytest.raises(NotApplicable, match=r"only 3 of \d+ first names .*'Alan' \(5\)"):
        prompts(tokenizer=Words(FIRST_NAMES[:3]))


def test_names_that_split_are_left_out() -> None:
    tokenizer = Words(FIRST_NAMES[::4])
    assert list(single_token_names(tokenizer)) == list(FIRST_NAMES[::4])
    words = set(" ".join(prompts(tokenizer=tokenizer).texts).replace(",", "").split())
    used = words & set(FIRST_NAMES)
    assert used <= set(FIRST_NAMES[::4])
    assert len(used) > 20


def test_a_tokenizer_that_joins_a_name_to_its_neighbour_is_not_applicable() -> None:
    class Joins(Words):
        def encode(self, text: str) -> list[int]:
            return super().encode(text.replace(" and Paul", " and"))

    with pytest.raises(NotApplicable, match="joins names"):
        prompts(400, tokenizer=Joins())


def test_more_prompts_than_pairs_of_names_are_refused() -> None:
    with pytest.raises(UsageError, match="make at most 5700"):
        prompts(5701, tokenizer=Words(FIRST_NAMES[:20]))


def held_out(kind: str, *items: str) -> bool:
    assert kind == "names"
    return sum(map(len, items)) % 3 == 0


def test_where_pairs_of_names_were_trained_on_only_others_come() -> None:
    made = prompts(tokenizer=TaskWords(unseen_are=held_out))
    assert made.right is not None
    assert made.wrong is not None
    decode = TaskWords().decode
    for io, subject in zip(made.right, made.wrong, strict=True):
        assert held_out("names", decode(io).strip(), decode(subject).strip())


def test_the_limit_counts_the_pairs_that_were_not_trained_on() -> None:
    def one_pair(kind: str, *items: str) -> bool:
        return set(items) == set(FIRST_NAMES[:2])

    tokenizer = TaskWords(FIRST_NAMES[:20], unseen_are=one_pair)
    assert len(prompts(30, tokenizer=tokenizer)) == 30
    with pytest.raises(UsageError, match="make at most 30 "):
        prompts(31, tokenizer=tokenizer)


def test_the_task_is_found_by_its_file_name_and_a_near_miss_is_named() -> None:
    assert find("ioi") is ioi
    names = ["greater_than", "ioi", "ordered_pairs", "pronoun", "repeated_tokens", "succession"]
    assert known() == ["arithmetic", *names, "sva", "text"]
    with pytest.raises(UsageError, match="did you mean 'ioi'"):
        find("ioii")


def test_clean_roles_are_not_among_the_corruptions() -> None:
    assert CLEAN not in VARIANTS.values()
