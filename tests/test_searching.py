"""The search itself, on grammars of plain values, against rules that can be checked by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests.reporting.counterexample import Found
from mechtests.searching import BATCH, Trials, draws, search, shrink, spread
from mechtests.tasks.grammar import Choices, Grammar, free
from tests.falsified import ASKED, plain, trials

NAMES = [f"name{i}" for i in range(64)]
WIDE = plain(order=["a", "b"], giver=NAMES, place=list(range(12)), taker=NAMES)


def run(made: Trials, seed: int = 0, before: Choices | None = None) -> Found:
    return search(made, replace(ASKED, seed=seed), before=before)


@pytest.mark.parametrize("slot", ["giver", "taker"])
@pytest.mark.parametrize(("at", "seed"), [(0, 0), (1, 5), (17, 1), (40, 2), (63, 3), (63, 4)])
def test_one_bad_value_of_64_is_found_and_shrunk_within_200_prompts(
    at: int, slot: str, seed: int
) -> None:
    found = run(trials(WIDE, lambda each: each[slot] == NAMES[at], 200), seed)
    assert found.prompts <= 200
    assert found.smallest
    assert found.counterexample is not None
    simplest = {"order": "a", "giver": NAMES[0], "place": 0, "taker": NAMES[0]}
    assert found.counterexample.choices == {**simplest, slot: NAMES[at]}
    assert found.neighbour is not None
    assert not found.neighbour.breaks
    assert {**found.neighbour.choices, slot: NAMES[at]} == found.counterexample.choices


@pytest.mark.parametrize("seed", range(5))
def test_every_value_of_every_slot_has_its_turn_in_the_first_batches(seed: int) -> None:
    first = [each for batch in islice(draws(WIDE, seed), 6) for each in batch]
    for slot, options in WIDE.slots.items():
        assert {each[slot] for each in first} == set(options({}))


def test_equal_seeds_search_alike_and_others_do_not() -> None:
    made = [trials(WIDE, lambda each: False, 150) for _ in range(3)]
    found = [run(each, seed) for each, seed in zip(made, (7, 7, 8), strict=True)]
    assert found[0] == found[1]
    assert made[0].batches == made[1].batches  # type: ignore[attr-defined]
    assert made[0].batches != made[2].batches  # type: ignore[attr-defined]


PRINT = """
from itertools import islice
from mechtests.searching import draws
from tests.falsified import plain
wide = plain(order=["a", "b"], giver=list(range(300)), taker=list(range(64)))
print([list(each.values()) for batch in islice(draws(wide, 5), 3) for each in batch])
"""


def test_draws_do_not_depend_on_what_else_is_loaded_and_leave_no_files(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("NUMBERS = [1, 17, 23, 42, 57, 61, 63, 128, 255, 299]\n")
    root = Path(__file__).parents[1]
    path = os.pathsep.join((str(root), str(tmp_path)))
    said = [
        subprocess.run(
            [sys.executable, "-c", f"{start}{PRINT}"],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
        ).stdout
        for start in ("", "import mine, mechtests.tasks.arithmetic")
    ]
    assert said[0] == said[1]
    assert not (tmp_path / ".hypothesis").exists()


@pytest.mark.parametrize(
    ("budget", "seed", "share"), [(1, 0, 12), (7, 1, 11), (32, 2, 12), (33, 3, 11), (90, 4, 6)]
)
def test_no_more_prompts_are_run_than_the_budget_and_none_twice(
    budget: int, seed: int, share: int
) -> None:
    made = trials(WIDE, lambda each: each["place"] >= share, budget)
    found = run(made, seed)
    ran = [WIDE.key(each) for batch in made.batches for each in batch]  # type: ignore[attr-defined]
    assert len(ran) == len(set(ran)) == found.prompts == made.run <= budget
    assert all(len(batch) <= BATCH for batch in made.batches)  # type: ignore[attr-defined]


def test_where_none_breaks_the_whole_budget_is_run() -> None:
    found = run(trials(WIDE, lambda each: False, 150))
    assert found.counterexample is None
    assert (found.prompts, found.drawn, found.broken) == (150, 150, 0)
    assert not found.exhausted


@pytest.mark.parametrize(("cost", "most"), [(2.5, 60), (3.0, 50), (151.0, 0), (149.9, 1)])
def test_prompts_that_take_more_passes_are_fewer_and_no_pass_is_beyond_the_budget(
    cost: float, most: int
) -> None:
    found = run(trials(WIDE, lambda each: False, 150, cost))
    assert found.prompts == most
    assert most * cost <= found.passes <= 150


def test_a_small_grammar_is_run_whole_and_said_to_be() -> None:
    small = plain(one=[1, 2, 3], two=["a", "b"])
    made = trials(small, lambda each: False, 200)
    found = run(made)
    assert found.exhausted
    assert found.prompts == 6
    ran = {small.key(each) for batch in made.batches for each in batch}  # type: ignore[attr-defined]
    assert ran == set(product([1, 2, 3], ["a", "b"]))


@given(
    corner=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    start=st.tuples(st.integers(0, 40), st.integers(0, 40)),
)
@settings(deadline=None)
def test_where_larger_values_break_as_well_the_smallest_is_found(
    corner: tuple[int, int], start: tuple[int, int]
) -> None:
    """Whatever it starts from, every value ends where all below it pass: brute force agrees."""
    grid = plain(a=list(range(81)), b=list(range(81)))

    def breaks(each: Any) -> bool:
        return bool(each["a"] >= corner[0] and each["b"] >= corner[1])

    made = trials(grid, breaks, 10_000)
    (first,) = made([{"a": corner[0] + start[0], "b": corner[1] + start[1]}])
    best, smallest = shrink(made, first)
    assert smallest
    assert best.choices == {"a": corner[0], "b": corner[1]}


@given(bad=st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1), data=st.data())
@settings(deadline=None)
def test_a_shrunk_prompt_breaks_and_no_simpler_value_tried_in_a_slot_does(
    bad: set[tuple[int, int]], data: Any
) -> None:
    grid = plain(a=list(range(10)), b=list(range(10)))
    made = trials(grid, lambda each: (each["a"], each["b"]) in bad, 10_000)
    start = data.draw(st.sampled_from(sorted(bad)))
    (first,) = made([dict(zip("ab", start, strict=True))])
    best, smallest = shrink(made, first)
    assert smallest
    assert grid.key(best.choices) in bad
    assert grid.size(best.choices) <= grid.size(first.choices)
    for slot in "ab":
        for each in spread(grid.simpler(best.choices, slot)):
            assert grid.key(each) not in bad


def test_slots_that_depend_on_others_are_never_given_what_they_may_not_have() -> None:
    """Pairs in which the second is smaller than the first, as operands of a subtraction."""
    slots = {"first": free(range(1, 50)), "second": lambda chosen: range(int(chosen["first"]))}
    made = trials(Grammar(slots, plain().build), lambda each: each["second"] >= 20, 300)
    found = run(made)
    assert found.counterexample is not None
    assert found.counterexample.choices == {"first": 21, "second": 20}
    assert all(e.choices["second"] < e.choices["first"] for e in made.known.values())  # type: ignore[operator]


def test_what_was_found_before_is_run_first_and_shrunk_from() -> None:
    before = {"order": "b", "giver": NAMES[9], "place": 4, "taker": NAMES[30]}
    made = trials(WIDE, lambda each: each["taker"] == NAMES[30], 200)
    found = run(made, before=before)
    assert made.batches[0] == [before]  # type: ignore[attr-defined]
    assert found.replayed == "breaks"
    assert found.drawn == 0
    assert found.counterexample is not None
    simplest = {"order": "a", "giver": NAMES[0], "place": 0}
    assert found.counterexample.choices == {**simplest, "taker": NAMES[30]}


def test_what_was_found_before_and_passes_now_is_said_and_the_search_goes_on() -> None:
    before = {"order": "b", "giver": NAMES[9], "place": 4, "taker": NAMES[30]}
    found = run(trials(WIDE, lambda each: each["giver"] == NAMES[3], 200), before=before)
    assert found.replayed == "passes"
    assert found.counterexample is not None
    assert found.counterexample.choices["giver"] == NAMES[3]


def test_what_was_found_before_and_is_no_prompt_any_more_is_left_out() -> None:
    found = run(trials(WIDE, lambda each: False, 40), before={"giver": "nobody"})
    assert found.replayed is None
    assert found.prompts == 40


def test_a_budget_that_ends_while_shrinking_is_said_and_gone_on_with_the_next_time() -> None:
    def breaks(each: Any) -> bool:
        return bool(each["giver"] == NAMES[50] and each["place"] > 2)

    before = {"order": "b", "giver": NAMES[50], "place": 11, "taker": NAMES[30]}
    short = run(trials(WIDE, breaks, 4), before=before)
    assert not short.smallest
    assert short.counterexample is not None
    again = run(trials(WIDE, breaks, 200), before=short.counterexample.choices)
    assert again.smallest
    assert again.counterexample is not None
    wanted = {"order": "a", "giver": NAMES[50], "place": 3, "taker": NAMES[0]}
    assert again.counterexample.choices == wanted


def test_where_everything_breaks_there_is_no_neighbour() -> None:
    found = run(trials(WIDE, lambda each: True, 60))
    assert found.counterexample is not None
    assert WIDE.size(found.counterexample.choices) == (0, (0, 0, 0, 0))
    assert found.neighbour is None
    assert found.smallest


def test_a_neighbour_in_one_slot_is_looked_for_where_none_was_run() -> None:
    simplest = {"order": "a", "giver": NAMES[0], "place": 0, "taker": NAMES[0]}
    found = run(trials(WIDE, lambda each: each == simplest, 60), before=simplest)
    assert found.counterexample is not None
    assert found.neighbour is not None
    differ = [name for name in simplest if found.neighbour.choices[name] != simplest[name]]
    assert len(differ) == 1
