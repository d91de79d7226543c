"""Cells and which checkpoints of a model were asked for."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechtests.errors import UsageError
from mechtests.models.cell import FINAL, Cell, Checkpoint, select
from mechtests.models.revisions import PYTHIA_STEPS, parse_revisions

PYTHIA = parse_revisions("EleutherAI/pythia-160m", [f"step{step}" for step in PYTHIA_STEPS])
SOURCE: Any = None


def labels(spec: str, known: Any = PYTHIA) -> list[str]:
    return [checkpoint.label for checkpoint in select(known, spec)]


def test_an_id_is_the_model_its_checkpoint_and_whether_it_is_untrained() -> None:
    step = Checkpoint("step1000", 1000)
    assert Cell("pythia-160m", step, SOURCE).id == "pythia-160m:step1000"
    assert Cell("smollm2-135m", None, SOURCE).id == "smollm2-135m"
    assert Cell("pythia-160m", step, SOURCE, "untrained").id == "pythia-160m:step1000:untrained"


def test_the_released_weights_of_a_model_with_checkpoints_are_called_by_its_name() -> None:
    assert Cell("olmo", Checkpoint(FINAL), SOURCE).id == Cell("olmo", None, SOURCE).id == "olmo"


@given(st.text(min_size=1), st.text(min_size=1))
def test_every_id_is_made_of_characters_that_pytest_k_can_read(model: str, label: str) -> None:
    assert re.fullmatch(r"[\w:+\-./]+", Cell(model, Checkpoint(label, 1), SOURCE).id)


def test_equal_cells_are_one_key() -> None:
    cells = {Cell("a", Checkpoint("step1", 1), SOURCE) for _ in range(2)}
    assert len(cells) == 1


def test_final_is_the_last_checkpoint() -> None:
    assert labels("final") == ["step143000"]


def test_log_spaced_checkpoints_are_even_in_the_logarithm_of_one_more_than_the_step() -> None:
    known = [Checkpoint(f"step{step}", step) for step in range(1024)]
    assert labels("log:11", known=known) == [f"step{2**i - 1}" for i in range(11)]


@given(st.sets(st.integers(0, 10**6), min_size=1), st.integers(1, 40))
def test_log_spacing_keeps_the_first_and_last_and_the_count(steps: set[int], count: int) -> None:
    known = [Checkpoint(f"step{step}", step) for step in sorted(steps)]
    chosen = select(known, f"log:{count}")
    assert len(chosen) == len(set(chosen)) == min(count, len(known))
    assert chosen[-1] == known[-1]
    assert count == 1 or chosen[0] == known[0]
    assert list(chosen) == sorted(chosen, key=known.index)


def test_all_are_all_in_numeric_order() -> None:
    chosen = select(PYTHIA, "all")
    assert len(chosen) == 154
    assert [c.step for c in chosen if c] == sorted(PYTHIA_STEPS)


def test_steps_are_named_in_any_order_and_come_in_training_order() -> None:
    assert labels("step:1000, 0") == ["step0", "step1000"]


def test_tokens_mean_the_nearest_checkpoint_on_a_logarithmic_scale() -> None:
    assert labels("tokens:2e9") == ["step1000"]
    assert labels("tokens:1e9") == ["step512"]
    halfway = math.sqrt(512 * 1000) * 2_097_152
    assert labels(f"tokens:{0.99 * halfway},{1.01 * halfway}") == ["step512", "step1000"]
    assert labels("tokens:0") == ["step0"]


def test_a_range_holds_both_its_ends() -> None:
    assert labels("1000..4000") == ["step1000", "step2000", "step3000", "step4000"]


def test_a_label_names_its_checkpoint() -> None:
    assert labels("step512,step8") == ["step8", "step512"]


@pytest.mark.parametrize("spec", ["step:1001", "step9", "600..700", "last"])
def test_a_checkpoint_that_does_not_exist_is_an_error_that_names_what_exists(spec: str) -> None:
    with pytest.raises(UsageError, match=r"no such checkpoint; (154|\d+) exist: step0, step1.*143"):
        select(PYTHIA, spec)


@pytest.mark.parametrize("spec", ["step:", "step:many", "tokens:-1", "tokens:nan", "log:0"])
def test_a_spec_that_cannot_be_read_is_an_error(spec: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--checkpoints {spec}:")):
        select(PYTHIA, spec)


def test_asking_by_tokens_where_none_are_counted_says_to_ask_by_step() -> None:
    with pytest.raises(UsageError, match="ask by step"):
        select([Checkpoint("checkpoint-10", 10)], "tokens:1e9")


def test_a_model_without_checkpoints_has_only_its_final_weights() -> None:
    assert select((), "all") == (None,)
    assert select((), "final") == (None,)
    with pytest.raises(UsageError, match="no checkpoints, only its final weights"):
        select((), "step:1000")


def test_released_weights_are_final_and_never_part_of_the_series() -> None:
    known = [Checkpoint("step1", 1), Checkpoint("step2", 2), Checkpoint(FINAL)]
    assert labels("final", known=known) == [FINAL]
    assert labels("all", known=known) == labels("log:5", known=known) == ["step1", "step2"]
