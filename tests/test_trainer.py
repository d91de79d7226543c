"""Judging at each save of a real Trainer: training must not notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mechtests.errors import UsageError
from mechtests.trainer import JudgeOnSave, numbers
from mechtests.verdict import Outcome
from tests.saved import word_tokenizer
from tests.test_direct import looks_back, small

pytest.importorskip("accelerate")

# the Trainer warns of pinned memory, of a missing accelerator and of its own future
pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = 4


class Sequences(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Random token ids that repeat."""

    def __init__(self, vocabulary: int) -> None:
        half = torch.randint(vocabulary, (16, 12), generator=torch.Generator().manual_seed(0))
        self.ids = torch.cat((half, half), 1)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, at: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.ids[at], "labels": self.ids[at]}


def trained(folder: Path, callbacks: list[Any]) -> Any:
    """A tiny model with dropout, so that a touched random generator would show in its weights."""
    from transformers import Trainer, TrainingArguments, default_data_collator

    model = small(5, hidden_dropout=0.1).requires_grad_(True)
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=STEPS, save_steps=2, per_device_train_batch_size=4,
        report_to=[], use_cpu=True, disable_tqdm=True, seed=1, logging_steps=1, learning_rate=1e-3,
        dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=Sequences(model.config.vocab_size),
        processing_class=word_tokenizer(),
        data_collator=default_data_collator,
        callbacks=callbacks,
    )
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, JudgeOnSave]:
    callback = JudgeOnSave([looks_back])
    return trained(tmp_path_factory.mktemp("judged"), [callback]), callback


def test_it_judges_at_each_save_and_logs(run: tuple[Any, JudgeOnSave]) -> None:
    trainer, callback = run
    assert list(callback.history) == [2, 4]
    assert callback.errors == {}
    logged = [entry for entry in trainer.state.log_history if "mechtests/hold" in entry]
    assert [entry["step"] for entry in logged] == [2, 4]
    for entry, found in zip(logged, callback.history.values(), strict=True):
        key = "mechtests/mine.looks-back/repeated_tokens"
        assert entry[key] == found["mine.looks-back"].estimate
        assert sum(entry[f"mechtests/{word}"] for word in ("hold", "refuted", "inconclusive")) == 1
    first, second = (found.records[0].cell for found in callback.history.values())
    assert first.weights != second.weights  # it is the model of that step that was judged
    assert (first.id, second.id) == ("model-step2", "model-step4")


def test_what_was_judged_is_what_was_saved(run: tuple[Any, JudgeOnSave]) -> None:
    import mechtests

    trainer, callback = run
    folder = Path(trainer.args.output_dir) / "checkpoint-4"
    again = mechtests.open(str(folder), store="memory://saved", offline=True)
    found = again.measurement(next(iter(callback.history[4].cases[0].claim.needs.values())))
    live = callback.history[4]
    [need] = live.cases[0].claim.needs.values()
    mine = live.results.measurement(need, live.cases[0].cell)
    torch.testing.assert_close(
        torch.from_numpy(found["induction"]), torch.from_numpy(mine["induction"])
    )


def test_training_goes_on_as_without_it(run: tuple[Any, JudgeOnSave], tmp_path: Path) -> None:
    plain = trained(tmp_path, [])
    for name, weight in plain.model.state_dict().items():
        assert torch.equal(weight, run[0].model.state_dict()[name]), name
    assert run[0].model.training == plain.model.training


def test_an_error_ends_no_training_unless_it_is_asked_to(tmp_path: Path) -> None:
    callback = JudgeOnSave("nonesuch")
    assert trained(tmp_path / "a", [callback]).state.global_step == STEPS
    assert [type(error) for error in callback.errors.values()] == [UsageError, UsageError]
    with pytest.raises(UsageError, match="nonesuch"):
        trained(tmp_path / "b", [JudgeOnSave("nonesuch", raises=True)])


def test_it_can_judge_more_rarely_and_log_elsewhere(tmp_path: Path) -> None:
    said: list[dict[str, float]] = []
    callback = JudgeOnSave([looks_back], every=2, log=said.append)
    trainer = trained(tmp_path, [callback])
    assert list(callback.history) == [2]
    assert said == [numbers(callback.history[2])]
    assert not [entry for entry in trainer.state.log_history if "mechtests/hold" in entry]


def test_other_processes_than_the_first_judge_nothing() -> None:
    from types import SimpleNamespace

    callback = JudgeOnSave([looks_back])
    state = SimpleNamespace(is_world_process_zero=False, global_step=1, log_history=[])
    callback.on_save(SimpleNamespace(), state, None, model=None)
    assert callback.history == callback.errors == {}
    assert Outcome.HOLDS.value == "holds"
