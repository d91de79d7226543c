"""mechtests.reporting.matrix: every verdict in its place."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechtests.claim import Claim
from mechtests.reporting.matrix import Matrix, Row, fold
from mechtests.reporting.record import Record, RecordedCell, RecordedCheckpoint
from mechtests.verdict import Outcome, Verdict

CELLS = [
    *(
        RecordedCell(f"pythia-70m:step{n}", "pythia-70m", RecordedCheckpoint("", n))
        for n in range(40)
    ),
    *(RecordedCell(name, name) for name in ("gpt2", "smollm2-135m", "qwen3-0.6b")),
]


def record_of(cell: RecordedCell, id: str = "a.claim", outcome: Outcome = Outcome.HOLDS) -> Record:
    return Record.from_verdict(
        Verdict(outcome, "s"),
        claim=Claim(id=id, says="s", rule="r"),
        run="r",
        cell=cell,
        measurements={},
        profile="quick",
        seed=0,
        nodeid="n",
        reproduce="pytest",
    )


@given(st.text(alphabet="abc123-:_/ ()."), st.integers(2, 20))
def test_a_folded_name_fits_and_loses_nothing_but_blanks(text, width):
    folded = fold(text, width)
    assert max(map(len, folded.split("\n"))) <= width
    assert "".join(folded.split()) == "".join(text.split())


def test_a_name_is_folded_where_it_has_a_joint():
    assert fold("pythia-160m:step1000", 12) == "pythia-160m:\nstep1000"
    assert fold("smollm2-135m", 8) == "smollm2-\n135m"
    assert fold("qwen3-0.6b", 8) == "qwen3-\n0.6b"
    assert fold("gpt2", 8) == "gpt2"


@given(st.lists(st.sampled_from(CELLS), min_size=1, unique_by=lambda c: c.id), st.integers(1, 90))
def test_every_cell_stands_in_exactly_one_block_whatever_the_room(cells, room):
    matrix = Matrix.of([record_of(cell) for cell in cells])
    blocks = matrix.in_letters(room)
    assert sorted(cell for block in blocks for cell in block.cells) == sorted(c.id for c in cells)
    for block in blocks:
        assert len(block.heads) == len(block.cells)
        assert sum(matrix.widths(block)) <= room or len(block.cells) == 1


def test_of_two_records_for_one_place_the_later_stands():
    cell = RecordedCell("gpt2", "gpt2")
    matrix = Matrix.of([record_of(cell), record_of(cell, outcome=Outcome.REFUTED)])
    assert matrix.word(Row("a", "a.claim", None), "gpt2").word == "REFUTED"
    assert len(matrix.of_claim("a.claim")) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [("pythia-70m", "pythia-160m"), ("pythia-410m", "pythia-1b"), ("pythia-1.4b", "pythia-2.8b")],
)
def test_models_stand_by_the_size_in_their_name(first, second):
    cells = [RecordedCell(name, name) for name in (second, first)]
    assert [cell.id for cell in Matrix.of([record_of(c) for c in cells]).cells] == [first, second]


def test_checkpoints_stand_by_step_with_the_final_weights_last():
    def at(step: int | None) -> RecordedCell:
        label = "final" if step is None else f"step{step}"
        return RecordedCell(f"m:{label}", "m", RecordedCheckpoint(label, step))

    cells = [at(None), at(1000), at(512), at(0)]
    matrix = Matrix.of([record_of(cell) for cell in cells])
    assert [cell.id for cell in matrix.cells] == ["m:step0", "m:step512", "m:step1000", "m:final"]
    (block,) = matrix.in_letters(80)
    assert block.heads == ("step0", "step512", "step1000", "final")  # not all of them are steps
    assert block.title == "m"


def test_cells_of_one_step_are_told_apart_by_more_than_the_step():
    cells = [
        RecordedCell(f"m:step1000{variant}", "m", RecordedCheckpoint("step1000", 1000))
        for variant in ("", ":untrained")
    ]
    (block,) = Matrix.of([record_of(cell) for cell in cells]).in_letters(80)
    assert block.heads == ("step1000", "step1000:\nuntrained")


@pytest.mark.parametrize(("steps", "shared"), [((0, 8, 16), True), ((16,), False), ((0, 8), False)])
def test_a_series_and_its_last_cell_share_a_column_and_no_other_cell_does(steps, shared):
    ids = [f"pythia-70m:step{step}" for step in steps]
    whole = RecordedCell("pythia-70m", "pythia-70m", identity={key: {} for key in ids})
    over = Claim(id="a.series", says="s", rule="r", over="training")
    cell = RecordedCell("pythia-70m:step16", "pythia-70m", RecordedCheckpoint("step16", 16))
    matrix = Matrix.of([replace(record_of(whole), claim=over), record_of(cell)])
    assert len(matrix.cells) == (1 if shared else 2)
