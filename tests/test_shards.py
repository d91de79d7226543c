"""mechtests.shards: a run split by cell, the same on every machine."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechtests import shards
from mechtests.case import Case
from mechtests.claim import Claim
from mechtests.metrics import attention, behaviour
from mechtests.models.cell import Cell, Checkpoint
from mechtests.settings import Settings
from mechtests.tasks.ioi import ioi
from mechtests.tasks.repeated_tokens import repeated_tokens

NEEDS = {"answers": behaviour.answers(ioi), "scores": attention.head_scores(repeated_tokens)}
LABELS = [Checkpoint(f"step{step}", step, step) for step in range(7)]


@dataclass(frozen=True)
class Bare:
    """A source that can be asked for nothing but its checkpoints."""

    name: str

    def checkpoints(self, *, offline: bool) -> tuple[Checkpoint, ...]:
        assert offline
        return tuple(LABELS)


def cell(model: str, step: int = 6) -> Cell:
    return Cell(model, LABELS[step], Bare(model))  # type: ignore[arg-type]


def claim(over: str, *names: str) -> Claim:
    needs = {name: NEEDS[name] for name in names}
    return Claim(id=f"p.{over}-{'-'.join(names)}", says="", rule="", over=over, needs=needs)


def cases(models: list[str]) -> list[Case]:
    """Two claims on the final cell of each model, one over its training, one over scale."""
    series = {model: tuple(cell(model, step) for step in range(7)) for model in models}
    found = [
        Case(claim("cell", name), cell(model)) for model in models for name in ("answers", "scores")
    ]
    found += [Case(claim("training", "scores"), each[-1], each, m) for m, each in series.items()]
    every = tuple(each for cells in series.values() for each in cells)
    return [*found, Case(claim("scale", "answers"), every[-1], every, "family")]


MODELS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6, unique=True)


@given(MODELS, st.integers(1, 5), st.randoms())
def test_a_split_is_into_parts_by_cell_whatever_the_order_of_the_tests(models, count, random):
    found = cases(models)
    parts = shards.split(found, count, Settings())
    assert all(1 <= part <= count for part in parts)
    mine = dict(zip(map(id, found), parts, strict=True))
    shuffled = list(found)
    random.shuffle(shuffled)
    assert shards.split(shuffled, count, Settings()) == [mine[id(case)] for case in shuffled]
    of_unit: dict[str, set[int]] = {}
    for case, part in zip(found, parts, strict=True):
        of_unit.setdefault(case.id, set()).add(part)
    assert all(len(each) == 1 for each in of_unit.values())


def test_one_part_is_everything():
    assert set(shards.split(cases(["a", "b"]), 1, Settings())) == {1}


def test_equal_models_are_dealt_out_evenly():
    found = [Case(claim("cell", "answers"), cell(model)) for model in "abcdefgh"]
    assert set(Counter(shards.split(found, 4, Settings())).values()) == {2}


def test_a_large_model_is_alone_where_the_others_cost_less_together():
    models = ["m-7b", "m-70m", "m-160m", "m-410m"]
    found = [Case(claim("cell", "answers"), cell(model)) for model in models]
    parts = dict(zip(models, shards.split(found, 2, Settings()), strict=True))
    assert Counter(parts.values())[parts["m-7b"]] == 1


def test_the_final_cell_goes_where_its_series_is_measured_already():
    cells = tuple(cell("a", step) for step in range(7))
    training = Case(claim("training", "scores"), cells[-1], cells, "a")
    final = Case(claim("cell", "scores"), cells[-1])
    others = [Case(claim("cell", "answers"), cell("b", step)) for step in range(7)]
    parts = shards.split([training, final, *others], 3, Settings())
    assert parts[0] == parts[1]


@pytest.mark.parametrize(
    ("name", "size"),
    [("pythia-160m", 160e6), ("sprout-100k", 1e5), ("pythia-6.9b-deduped", 6.9e9), ("gpt2", 1)],
)
def test_a_models_size_is_read_off_its_name(name, size):
    assert shards.size(name) == size
