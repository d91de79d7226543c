"""Folders of Hugging Face files: a model, or a series of checkpoints."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mechtests.errors import LoadError, UsageError
from mechtests.models import local
from mechtests.models.cell import FINAL, Checkpoint, Loaded
from mechtests.models.local import LocalSource, file_digest
from tests import folders


def load(path: Path, checkpoint: Checkpoint | None = None, **asked: Any) -> Loaded:
    settings = {"dtype": "float32", "device": "cpu", **asked}
    return LocalSource("tiny", path).load(checkpoint, **settings)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("saved")
    return folder, folders.write_model(folder)


@pytest.fixture
def model(saved: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of a saved model, to be spoiled."""
    return Path(shutil.copytree(saved[0], tmp_path / "model"))


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    for seed, step in enumerate((100, 9, 20)):
        folders.write_model(folder / f"checkpoint-{step}", seed)
    state = {"global_step": 20, "num_input_tokens_seen": 40960}
    (folder / "checkpoint-20" / "trainer_state.json").write_text(json.dumps(state))
    (folder / "checkpoint-50").mkdir()
    return folder


def test_a_folder_gives_its_own_model(saved: tuple[Path, Any]) -> None:
    folder, model = saved
    loaded = load(folder)
    assert torch.equal(folders.logits(loaded.model), folders.logits(model))
    assert LocalSource("tiny", folder).checkpoints() == ()


def test_a_loaded_model_is_in_eval_mode_frozen_and_eager(saved: tuple[Path, Any]) -> None:
    model = load(saved[0]).model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.config._attn_implementation == "eager"


def test_a_model_comes_in_the_dtype_asked_for_and_the_facts_say_so(
    saved: tuple[Path, Any],
) -> None:
    loaded = load(saved[0], dtype="bfloat16")
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.facts["dtype"] == "bfloat16"
    assert loaded.facts["architecture"] == "GPTNeoXForCausalLM"
    assert loaded.facts["bos"] == "no BOS"
    assert loaded.facts["tokenizer"] == loaded.tokenizer.digest
    assert json.loads(json.dumps(loaded.facts)) == loaded.facts


def test_loading_prints_nothing_and_leaves_the_progress_bars_as_they_were(
    saved: tuple[Path, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled(), logging.get_verbosity()
    load(saved[0])
    assert capfd.readouterr() == ("", "")
    assert (logging.is_progress_bar_enabled(), logging.get_verbosity()) == before


def test_checkpoint_folders_are_a_series_in_numeric_order_with_the_trainers_tokens(
    series: Path,
) -> None:
    assert LocalSource("run", series).checkpoints() == (
        Checkpoint("checkpoint-9", 9),
        Checkpoint("checkpoint-20", 20, 40960),
        Checkpoint("checkpoint-100", 100),
    )


def test_a_series_with_a_model_of_its_own_has_it_as_final(series: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(series, tmp_path / "run"))
    folders.write_model(run, seed=7)
    source = LocalSource("run", run)
    assert source.checkpoints()[-1] == Checkpoint(FINAL)
    assert torch.equal(
        folders.logits(load(run, Checkpoint(FINAL)).model), folders.logits(folders.neox(7))
    )


def test_each_checkpoint_has_its_own_weights_and_identity(series: Path) -> None:
    source = LocalSource("run", series)
    known = source.checkpoints()
    said = [folders.logits(load(series, checkpoint).model) for checkpoint in known]
    for seed, found in zip((1, 2, 0), said, strict=True):
        assert torch.equal(found, folders.logits(folders.neox(seed)))
    assert len({source.identity(c)["sha256"] for c in known}) == 3


def test_a_checkpoint_that_is_no_folder_is_an_error(series: Path) -> None:
    with pytest.raises(UsageError, match="has no checkpoint-7"):
        LocalSource("run", series).config(Checkpoint("checkpoint-7", 7))


def test_the_identity_follows_what_is_loaded_and_nothing_else(model: Path) -> None:
    source = LocalSource("tiny", model)
    before = source.identity(None)
    (model / "optimizer.pt").write_bytes(b"no part of the model")
    (model / "README.md").write_text("nor this")
    assert source.identity(None) == before
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "rotary_pct": 0.5}))
    assert source.identity(None) != before


def test_the_configuration_needs_no_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()
    assert LocalSource("tiny", model).config(None)["num_hidden_layers"] == 1
    assert LocalSource("tiny", model).download_bytes(None) == 0


def test_a_digest_is_remembered_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, cache = tmp_path / "weights", tmp_path / "cache"
    file.write_bytes(b"one")
    reads = []
    real = hashlib.file_digest
    monkeypatch.setattr(
        local.hashlib, "file_digest", lambda *given: reads.append(given) or real(*given)
    )
    expected = hashlib.sha256(b"one").hexdigest()
    assert [file_digest(file, cache) for _ in range(3)] == [expected] * 3
    assert len(reads) == 1
    file.write_bytes(b"three")
    assert file_digest(file, cache) == hashlib.sha256(b"three").hexdigest()
    assert len(reads) == 2


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"x": 3}'])
def test_a_damaged_memory_of_digests_is_read_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "digests.json").write_text(content)
    (tmp_path / "weights").write_bytes(b"one")
    assert file_digest(tmp_path / "weights", tmp_path) == hashlib.sha256(b"one").hexdigest()


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, where a folder is needed")
    (tmp_path / "weights").write_bytes(b"one")
    digest = file_digest(tmp_path / "weights", tmp_path / "cache")
    assert digest == hashlib.sha256(b"one").hexdigest()


def test_untrained_is_the_configuration_initialised_from_the_seed_without_weights(
    model: Path,
) -> None:
    (model / "model.safetensors").unlink()
    first, same, other = (load(model, untrained_seed=seed).model for seed in (3, 3, 4))
    assert torch.equal(folders.logits(first), folders.logits(folders.neox(3)))
    assert torch.equal(folders.logits(first), folders.logits(same))
    assert not torch.equal(folders.logits(first), folders.logits(other))


def test_initialising_leaves_the_global_generator_as_it_was(model: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load(model, untrained_seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_pickled_weights_and_shards_are_read_too(saved: tuple[Path, Any], model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    torch.save(weights, model / "pytorch_model.bin")
    assert torch.equal(folders.logits(load(model).model), folders.logits(saved[1]))
    (model / "pytorch_model.bin").unlink()
    shards: dict[str, dict[str, torch.Tensor]] = {"a.safetensors": {}, "b.safetensors": {}}
    for i, (key, value) in enumerate(sorted(weights.items())):
        shards["ab"[i % 2] + ".safetensors"][key] = value
    for file, part in shards.items():
        save_file(part, model / file, metadata={"format": "pt"})
    table = {key: file for file, part in shards.items() for key in part}
    (model / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": table})
    )
    assert torch.equal(folders.logits(load(model).model), folders.logits(saved[1]))
    before = LocalSource("tiny", model).identity(None)
    save_file({k: v + 1 for k, v in shards["b.safetensors"].items()}, model / "b.safetensors")
    assert LocalSource("tiny", model).identity(None) != before
    (model / "b.safetensors").unlink()
    with pytest.raises(LoadError, match=r"b\.safetensors is missing; copy or save it again"):
        load(model)


@pytest.mark.parametrize("content", ["{", "[]", '{"metadata": {}}'])
def test_a_damaged_index_of_shards_is_an_error_that_names_it(model: Path, content: str) -> None:
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(content)
    with pytest.raises(LoadError, match=r"index\.json is no index of weights"):
        load(model)


@pytest.mark.parametrize("left", [0, 5, 500, -1])
def test_a_truncated_weights_file_is_named_with_what_to_do(model: Path, left: int) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(
        LoadError, match=r"model\.safetensors is damaged or cut short .*; copy or save it again"
    ):
        load(model)


def test_a_truncated_pickle_is_named_with_what_to_do(model: Path) -> None:
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    file = model / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(LoadError, match=r"could not load pytorch_model\.bin .*copy or save"):
        load(model)


def test_a_folder_without_weights_is_an_error(model: Path) -> None:
    (model / "model.safetensors").unlink()
    with pytest.raises(LoadError, match="has no weights"):
        load(model)


def test_a_folder_without_tokenizer_files_is_an_error(model: Path) -> None:
    for file in model.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(LoadError, match="has no tokenizer files"):
        load(model)


def change(model: Path, drop: str | None = None, **add: torch.Tensor) -> None:
    weights = load_file(model / "model.safetensors")
    if drop is not None:
        del weights[drop]
    save_file({**weights, **add}, model / "model.safetensors", metadata={"format": "pt"})


def test_a_missing_weight_is_an_error_that_names_it(model: Path) -> None:
    change(model, drop="gpt_neox.layers.0.attention.dense.bias")
    with pytest.raises(LoadError, match=r"misses 1 of the weights \(gpt_neox.*attention\.dense"):
        load(model)


def test_a_weight_too_many_is_an_error_that_names_it(model: Path) -> None:
    change(model, **{"gpt_neox.layers.1.extra": torch.ones(1)})
    with pytest.raises(LoadError, match=r"no place for, 1 of the weights \(gpt_neox\.layers\.1"):
        load(model)


def test_weights_of_another_shape_are_an_error(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    with pytest.raises(LoadError, match=r"has in another shape 3 of the weights \(.*mlp"):
        load(model)


def test_causal_masks_that_old_files_carry_are_no_weights(
    saved: tuple[Path, Any], model: Path
) -> None:
    change(
        model,
        **{
            "gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 4, 4),
            "gpt_neox.layers.0.attention.masked_bias": torch.ones(1),
            "gpt_neox.layers.0.attention.rotary_emb.inv_freq": torch.ones(4),
        },
    )
    assert torch.equal(folders.logits(load(model).model), folders.logits(saved[1]))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "mine", "auto_map": {"AutoConfig": "mine.py"}}, "mechtests does not run"),
        ({"model_type": "mine"}, "does not know its architecture, model_type 'mine'"),
        ({}, "does not know its architecture, model_type None"),
        ({"model_type": "t5"}, "t5 model, not a decoder"),
        ({"model_type": "gpt_neox", "hidden_size": 7}, "does not describe a gpt_neox model"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_an_error(
    model: Path, config: dict[str, Any], said: str
) -> None:
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(LoadError, match=said):
        load(model)


@pytest.mark.parametrize(
    ("content", "said"), [(None, "has no config.json"), ("{", "as JSON"), ("[]", "not a model")]
)
def test_a_missing_or_damaged_configuration_is_an_error(
    model: Path, content: str | None, said: str
) -> None:
    (model / "config.json").unlink()
    if content is not None:
        (model / "config.json").write_text(content)
    with pytest.raises(LoadError, match=said):
        load(model)
