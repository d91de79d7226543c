"""The models of the package: folders of checkpoints that share a configuration."""

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
from mechtests.models.cell import Checkpoint, Loaded, select
from mechtests.models.embedded import NAMES, ROOT, SIZES, EmbeddedSource
from mechtests.sprout.held_out import unseen
from tests import folders

NAME = "sprout-1m"
STEPS = (0, 100, 20)
TOKENS_PER_STEP = 8192


def write_family(root: Path, *, dtype: torch.dtype = torch.bfloat16) -> None:
    """A family of one model with three checkpoints, in the layout of the package."""
    whole = root.parent / "whole"
    listed = []
    for seed, step in enumerate(STEPS):
        folders.write_model(whole, seed)
        folder = root / NAME / f"step{step}"
        folder.mkdir(parents=True)
        halved = {key: value.to(dtype) for key, value in load_file(whole / WEIGHTS).items()}
        save_file(halved, folder / WEIGHTS, metadata={"format": "pt"})
        digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        tokens = step * TOKENS_PER_STEP
        listed.append({"label": folder.name, "step": step, "tokens": tokens, "sha256": digest})
    (root / NAME / "checkpoints.json").write_text(json.dumps(listed))
    shutil.copy(whole / "config.json", root / NAME / "config.json")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(whole / file, root / file)
    shutil.rmtree(whole)


WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("package") / "models"
    write_family(root)
    return root


@pytest.fixture
def root(shipped: Path, tmp_path: Path) -> Path:
    """A copy of the family, to be spoiled."""
    return Path(shutil.copytree(shipped, tmp_path / "models"))


def load(root: Path, checkpoint: Checkpoint | None = None, **asked: Any) -> Loaded:
    settings = {"dtype": "float32", "device": "cpu", **asked}
    return EmbeddedSource(NAME, root).load(checkpoint, **settings)


def test_the_checkpoints_come_in_the_order_of_training_with_their_tokens(shipped: Path) -> None:
    found = EmbeddedSource(NAME, shipped).checkpoints()
    assert found == tuple(Checkpoint(f"step{s}", s, s * TOKENS_PER_STEP) for s in sorted(STEPS))
    assert select(found, "final") == (found[-1],)


def test_each_checkpoint_is_its_own_weights_in_the_dtype_asked_for(shipped: Path) -> None:
    for seed, step in enumerate(STEPS):
        model = load(shipped, Checkpoint(f"step{step}", step)).model
        assert model.dtype == torch.float32
        halved = folders.neox(seed).to(torch.bfloat16).to(torch.float32)
        assert torch.equal(folders.logits(model), folders.logits(halved))
    assert load(shipped, dtype="bfloat16").model.dtype == torch.bfloat16


def test_no_checkpoint_is_the_last_one(shipped: Path) -> None:
    source = EmbeddedSource(NAME, shipped)
    assert source.fetch() == shipped / NAME / "step100"
    assert source.identity(None) == source.identity(Checkpoint("step100", 100))
    last = load(shipped, Checkpoint("step100", 100)).model
    assert torch.equal(folders.logits(load(shipped).model), folders.logits(last))


def test_a_tokenizer_of_the_family_serves_a_model_without_one_and_its_own_goes_first(
    root: Path,
) -> None:
    shared = load(root).tokenizer
    assert shared.encode("the cat") == [2, 3]
    words = ("<unk>", "<s>", "cat", "the", *folders.WORDS[4:])
    folders.tokenizer(words=words).save_pretrained(root / NAME)
    own = load(root).tokenizer
    assert own.encode("the cat") == [3, 2]
    assert own.digest != shared.digest


def test_the_tokenizer_knows_what_was_held_out_of_training(shipped: Path) -> None:
    known = load(shipped).tokenizer
    pairs = [(a, b) for a in ("Mary", "John", "Tom", "Anna") for b in ("Paul", "Lisa", "Jack")]
    assert [known.unseen("names", *pair) for pair in pairs] == [
        unseen("names", *pair) for pair in pairs
    ]


def test_the_identity_follows_weights_configuration_and_tokenizer_and_reads_no_weights(
    root: Path,
) -> None:
    source = EmbeddedSource(NAME, root)
    known = source.checkpoints()
    before = [source.identity(c) for c in known]
    assert len({each["sha256"] for each in before}) == 3
    for file in root.rglob(WEIGHTS):
        file.unlink()
    assert [source.identity(c) for c in known] == before
    for file in (root / NAME / "config.json", root / "tokenizer.json"):
        content = json.loads(file.read_text())
        file.write_text(json.dumps({**content, "more": 1}))
        assert source.identity(known[0]) != before[0]
        file.write_text(json.dumps(content))


def test_planning_needs_no_weights_no_network_and_no_download(root: Path) -> None:
    for file in root.rglob(WEIGHTS):
        file.unlink()
    source = EmbeddedSource(NAME, root)
    assert source.config()["num_hidden_layers"] == 1
    assert source.download_bytes(None) == 0


def test_nothing_is_written(root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    source = EmbeddedSource(NAME, root)
    source.identity(source.checkpoints()[0])
    load(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_untrained_is_the_configuration_from_a_seed_and_reads_no_weights(root: Path) -> None:
    for file in root.rglob(WEIGHTS):
        file.unlink()
    model = load(root, untrained_seed=3).model
    assert torch.equal(folders.logits(model), folders.logits(folders.neox(3)))


@pytest.mark.parametrize("damage", ["a byte", "cut short", "gone"])
def test_a_damaged_weights_file_is_an_error_that_says_to_reinstall(root: Path, damage: str) -> None:
    file = root / NAME / "step20" / WEIGHTS
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content if damage == "a byte" else content[:-300])
    said = "missing" if damage == "gone" else r"damaged \(its SHA-256 is"
    with pytest.raises(LoadError, match=rf"step20.*{said}.*reinstall mechtests"):
        load(root, Checkpoint("step20", 20))
    load(root, Checkpoint("step100", 100))


@pytest.mark.parametrize("content", [None, "{", "[]", '[{"label": "step1"}]', "3"])
def test_a_damaged_list_of_checkpoints_is_an_error_that_says_to_reinstall(
    root: Path, content: str | None
) -> None:
    path = root / NAME / "checkpoints.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(LoadError, match=r"checkpoints\.json cannot be read.*reinstall mechtests"):
        EmbeddedSource(NAME, root).checkpoints()


def test_a_checkpoint_that_does_not_exist_is_an_error_that_names_those_that_do(
    shipped: Path,
) -> None:
    with pytest.raises(UsageError, match="no checkpoint step7; it has step0, step100, step20"):
        EmbeddedSource(NAME, shipped).identity(Checkpoint("step7", 7))


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_checkpoint_is_whole_and_loads(name: str) -> None:
    source = EmbeddedSource(name)
    if not (ROOT / name / "checkpoints.json").is_file():
        pytest.skip(f"{name} is not trained yet")
    found = source.checkpoints()
    for checkpoint in found:
        loaded = source.load(checkpoint, dtype="float32", device="cpu")
        assert all(torch.isfinite(p).all() for p in loaded.model.parameters())
    assert len({source.identity(c)["sha256"] for c in found}) == len(found)
    assert name not in SIZES or found[0].step == 0
