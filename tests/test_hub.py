"""Models of the Hugging Face hub: in a cache, and from a hub on the loopback interface."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mechtests.errors import LoadError, UsageError
from mechtests.models.cell import FINAL, Checkpoint, Loaded
from mechtests.models.hub import HubSource
from mechtests.models.hub_errors import UnreachableError
from mechtests.models.sources import resolve
from tests import folders, hub_server

REPO = "someone/tiny-neox"
STEP0, STEP1000 = Checkpoint("step0", 0), Checkpoint("step1000", 1000)


def load(source: Any, checkpoint: Checkpoint | None, *, offline: bool = True) -> Loaded:
    loaded: Loaded = source.load(checkpoint, dtype="float32", device="cpu", offline=offline)
    return loaded


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub cache with two revisions of a Pythia and of another model."""
    folder = tmp_path_factory.mktemp("cache")
    for repo in ("EleutherAI/pythia-14m", REPO):
        revisions = {"step0": 1, "step1000": 2, "main": 2}
        folders.write_cached_revisions(folder, repo, revisions)
    return folder


@pytest.mark.parametrize("repo", ["EleutherAI/pythia-14m", REPO])
def test_two_cached_revisions_are_two_models(cache: Path, repo: str) -> None:
    source = resolve(str(cache / f"models--{repo.replace('/', '--')}"))
    first, second = (load(source, checkpoint).model for checkpoint in (STEP0, STEP1000))
    assert torch.equal(folders.logits(first), folders.logits(folders.neox(1)))
    assert torch.equal(folders.logits(second), folders.logits(folders.neox(2)))
    assert source.identity(STEP0, offline=True) == {"hub": repo, "commit": f"{1:040x}"}
    assert source.identity(STEP1000, offline=True) == {"hub": repo, "commit": f"{2:040x}"}


def test_what_is_cached_is_the_series_of_a_cache_folder(cache: Path) -> None:
    pythia = resolve(str(cache / "models--EleutherAI--pythia-14m"))
    assert pythia.checkpoints(offline=False) == (
        Checkpoint("step0", 0, 0),
        Checkpoint("step1000", 1000, 2_097_152_000),
    )
    other = resolve(str(cache / "models--someone--tiny-neox"))
    assert other.checkpoints(offline=False) == (STEP0, STEP1000, Checkpoint(FINAL))


def test_pythia_has_its_154_checkpoints_without_a_network_or_a_cache(tmp_path: Path) -> None:
    known = HubSource("pythia", "EleutherAI/pythia-160m", tmp_path).checkpoints(offline=True)
    assert (len(known), known[0].label, known[-1].label) == (154, "step0", "step143000")


def test_the_main_branch_of_a_pythia_stands_in_for_its_last_step(cache: Path) -> None:
    source = HubSource("pythia-14m", "EleutherAI/pythia-14m", cache)
    last = source.checkpoints(offline=True)[-1]
    assert source.identity(last, offline=True)["commit"] == f"{2:040x}"


def test_a_cached_model_needs_no_download_and_gives_its_configuration(cache: Path) -> None:
    source = HubSource("tiny", REPO, cache)
    assert source.download_bytes(STEP0, offline=True) == 0
    assert source.config(STEP0, offline=True)["model_type"] == "gpt_neox"
    assert source.fetch(STEP0, offline=True).name == f"{1:040x}"


@pytest.mark.parametrize("ask", ["identity", "config", "download_bytes", "fetch"])
def test_offline_and_not_cached_is_an_error_that_says_so(tmp_path: Path, ask: str) -> None:
    source = HubSource("tiny", REPO, tmp_path)
    with pytest.raises(
        LoadError, match=rf"tiny: {REPO} at step7 is not wholly in the cache .*the run is offline"
    ):
        getattr(source, ask)(Checkpoint("step7", 7), offline=True)


def test_a_cache_folder_that_lacks_a_revision_says_how_to_download_it(cache: Path) -> None:
    source = resolve(str(cache / "models--someone--tiny-neox"))
    with pytest.raises(LoadError, match=f"at step7 is not wholly .*; name the model {REPO} to"):
        source.fetch(Checkpoint("step7", 7))


@pytest.mark.parametrize("lost", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_cached_revision_that_lacks_a_file_is_not_cached(
    cache: Path, tmp_path: Path, lost: str
) -> None:
    copy = Path(shutil.copytree(cache, tmp_path / "cache"))
    source = HubSource("tiny", REPO, copy)
    (copy / "models--someone--tiny-neox" / "snapshots" / f"{1:040x}" / lost).unlink()
    with pytest.raises(LoadError, match="not wholly in the cache"):
        load(source, STEP0)


def test_a_damaged_cached_file_is_named_with_what_to_delete(cache: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(cache, tmp_path / "cache"))
    snapshots = copy / "models--someone--tiny-neox" / "snapshots"
    (snapshots / f"{1:040x}" / "model.safetensors").write_bytes(b"short")
    with pytest.raises(LoadError, match=r"model\.safetensors is damaged .* delete it"):
        load(HubSource("tiny", REPO, copy), STEP0)


# --- a hub on the loopback interface ---------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_server.Hub]:
    """A hub with one model in two revisions, and an empty cache."""
    from huggingface_hub import constants

    with hub_server.serving() as served:
        files = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        online(monkeypatch)
        for revision, seed in (("step0", 1), ("step1000", 2), ("main", 2)):
            folders.write_model(tmp_path / "served" / revision, seed)
            served.add(REPO, revision, tmp_path / "served" / revision)
        yield served


def online(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_a_revision_is_downloaded_once_and_is_there_offline(hub: hub_server.Hub) -> None:
    source = HubSource("tiny", REPO)
    assert source.checkpoints(offline=False) == (STEP0, STEP1000, Checkpoint(FINAL))
    first = load(source, STEP0, offline=False).model
    assert torch.equal(folders.logits(first), folders.logits(folders.neox(1)))
    asked = len(hub.gets("resolve"))
    again = load(source, STEP0, offline=False).model
    assert torch.equal(folders.logits(again), folders.logits(first))
    assert len(hub.gets("resolve")) == asked
    before = list(hub.asked)
    offline = HubSource("tiny", REPO)
    assert torch.equal(folders.logits(load(offline, STEP0).model), folders.logits(first))
    assert hub.asked == before


def test_revisions_resolve_to_commits_with_one_request(hub: hub_server.Hub) -> None:
    source = HubSource("tiny", REPO)
    branches = hub.repos[REPO].branches
    for checkpoint in (*source.checkpoints(offline=False), None):
        revision = "main" if checkpoint is None or checkpoint.label == FINAL else checkpoint.label
        identity = source.identity(checkpoint, offline=False)
        assert identity == {"hub": REPO, "commit": branches[revision]}
    assert hub.asked == [f"GET /api/models/{REPO}/refs"]


def test_the_bytes_to_download_are_those_of_the_files_that_are_read(
    hub: hub_server.Hub, tmp_path: Path
) -> None:
    served = tmp_path / "served" / "step0"
    expected = sum(path.stat().st_size for path in served.iterdir())
    (served / "pytorch_model.bin").write_bytes(b"the same weights again")
    (served / "README.md").write_text("no part of the model")
    source = HubSource("tiny", REPO)
    assert source.download_bytes(STEP0, offline=False) == expected
    assert hub.gets("resolve") == []
    load(source, STEP0, offline=False)
    assert source.download_bytes(STEP0, offline=False) == 0
    assert hub.gets("pytorch_model.bin") == hub.gets("README.md") == []


def test_the_configuration_costs_one_small_file(hub: hub_server.Hub) -> None:
    config = HubSource("tiny", REPO).config(STEP1000, offline=False)
    assert config["num_hidden_layers"] == 1
    assert [line.rsplit("/", 1)[1] for line in hub.gets("resolve")] == ["config.json"]


def test_an_untrained_model_downloads_no_weights(hub: hub_server.Hub) -> None:
    HubSource("tiny", REPO).load(
        STEP0, dtype="float32", device="cpu", offline=False, untrained_seed=0
    )
    assert hub.gets("tokenizer.json")
    assert hub.gets("safetensors") == []


def test_a_download_that_breaks_off_is_taken_up_again(hub: hub_server.Hub) -> None:
    hub.breaks_after = 6000
    model = load(HubSource("tiny", REPO), STEP0, offline=False).model
    assert torch.equal(folders.logits(model), folders.logits(folders.neox(1)))
    assert hub.breaks_after is None
    assert len(hub.gets("model.safetensors")) == 2


def test_a_revision_that_does_not_exist_is_an_error_that_names_those_that_do(
    hub: hub_server.Hub,
) -> None:
    with pytest.raises(UsageError, match="no revision 'step7'; it has step0, step1000"):
        HubSource("tiny", REPO).identity(Checkpoint("step7", 7), offline=False)


def test_a_repository_that_does_not_exist_is_an_error(hub: hub_server.Hub) -> None:
    with pytest.raises(LoadError, match=r"no model someone/else on http.*check its name.*HF_TOKEN"):
        HubSource("else", "someone/else").checkpoints(offline=False)


def test_a_revision_that_moves_during_a_run_is_an_error_not_another_model(
    hub: hub_server.Hub,
) -> None:
    source = HubSource("tiny", REPO)
    planned = source.identity(STEP0, offline=False)["commit"]
    moved = hub.repos[REPO].branches["step1000"]
    hub.repos[REPO].branches["step0"] = moved
    with pytest.raises(LoadError, match=f"moved from {planned[:8]} to {moved[:8]} during this run"):
        load(source, STEP0, offline=False)


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_repository_is_an_error_that_names_its_page_and_the_token(
    hub: hub_server.Hub, status: int
) -> None:
    hub.repos[REPO].refuses = (status, "GatedRepo")
    page = re.escape(f"{hub.url}/{REPO}")
    with pytest.raises(LoadError, match=rf"gated \(HTTP {status}\).*{page}.*HF_TOKEN"):
        load(HubSource("tiny", REPO), STEP0, offline=False)


def test_access_refused_without_a_reason_names_the_page_and_the_token(
    hub: hub_server.Hub,
) -> None:
    hub.repos[REPO].refuses = (403, "")
    with pytest.raises(LoadError, match=r"refuses access \(HTTP 403\).*HF_TOKEN"):
        load(HubSource("tiny", REPO), STEP0, offline=False)


def test_shards_are_downloaded_by_their_index(hub: hub_server.Hub, tmp_path: Path) -> None:
    served = tmp_path / "served" / "step0"
    (served / "model.safetensors").rename(served / "part.safetensors")
    names = folders.neox().state_dict()
    table = {"metadata": {}, "weight_map": dict.fromkeys(names, "part.safetensors")}
    (served / "model.safetensors.index.json").write_text(json.dumps(table))
    model = load(HubSource("tiny", REPO), STEP0, offline=False).model
    assert torch.equal(folders.logits(model), folders.logits(folders.neox(1)))


def test_a_repository_without_weights_for_transformers_is_an_error(
    hub: hub_server.Hub, tmp_path: Path
) -> None:
    (tmp_path / "served" / "step0" / "model.safetensors").rename(
        tmp_path / "served" / "step0" / "model.onnx"
    )
    with pytest.raises(LoadError, match=r"no config\.json with safetensors or PyTorch weights"):
        load(HubSource("tiny", REPO), STEP0, offline=False)


def test_a_repository_without_a_tokenizer_is_an_error(hub: hub_server.Hub, tmp_path: Path) -> None:
    for file in (tmp_path / "served" / "step0").glob("tokenizer*"):
        file.unlink()
    with pytest.raises(LoadError, match="has no tokenizer files"):
        load(HubSource("tiny", REPO), STEP0, offline=False)


@pytest.mark.parametrize("word", ["1", "true", "ON"])
def test_the_environment_can_forbid_the_network(
    hub: hub_server.Hub, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", word)
    with pytest.raises(LoadError, match="the run is offline"):
        load(HubSource("tiny", REPO), STEP0, offline=False)
    assert hub.asked == []


def test_no_network_is_an_error_unless_it_is_cached(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    online(monkeypatch)
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9 cannot be reached for someone"):
        HubSource("tiny", REPO, tmp_path).checkpoints(offline=False)
    cached = HubSource("tiny", REPO, cache)
    assert cached.identity(STEP0, offline=False)["commit"] == f"{1:040x}"
    assert load(cached, STEP0, offline=False).model is not None


def test_a_hub_that_is_down_is_an_error(
    hub: hub_server.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_server, "_refs", lambda repo: 1 / 0)
    with pytest.raises(UnreachableError, match="cannot be reached"):
        HubSource("tiny", REPO).checkpoints(offline=False)


def test_a_cache_that_cannot_be_written_is_an_error_that_names_it(
    hub: hub_server.Hub, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file, where a folder is needed")
    with pytest.raises(LoadError, match=r"cannot be written to the cache .*HF_HOME"):
        load(HubSource("tiny", REPO), STEP0, offline=False)


def test_the_endpoint_and_the_cache_of_the_environment_are_used(
    hub: hub_server.Hub, tmp_path: Path
) -> None:
    code = (
        "from mechtests.models.sources import resolve\n"
        "from mechtests.models.cell import Checkpoint\n"
        f"print(resolve('{REPO}').fetch(Checkpoint('step0', 0)))"
    )
    env = {key: value for key, value in os.environ.items() if not key.endswith("OFFLINE")}
    env.update(HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "home"))
    ran = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    folder = Path(ran.stdout.strip())
    assert folder.is_relative_to(tmp_path / "home")
    assert folder.name == hub.repos[REPO].branches["step0"]
    assert "Fetching" in ran.stderr or "%" in ran.stderr
