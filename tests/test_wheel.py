"""A model file fetched inside a Python package."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from types import MappingProxyType

import pytest

from mechtests.errors import LoadError
from mechtests.models.gguf import GgufSource
from mechtests.models.wheel import SMOLLM2, Wheel

CONTENT = b"GGUF and so on"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A wheel that pip finds in a folder and nowhere else."""
    index = tmp_path / "index"
    index.mkdir()
    write(index / "tiny_model-1.0-py3-none-any.whl", CONTENT)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    return Wheel("tiny-model", "1.0", "tiny_model/a.gguf", sha256, 100, MappingProxyType({}))


def write(path: Path, content: bytes, member: str = "tiny_model/a.gguf") -> None:
    info = "tiny_model-1.0.dist-info"
    wanted = "Requires-Dist: a-compiled-runtime-nobody-has\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", f"Name: tiny-model\nVersion: 1.0\n{wanted}")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")


def test_the_file_is_taken_out_of_the_wheel_without_its_dependencies(
    wheel: Wheel, tmp_path: Path
) -> None:
    target = tmp_path / "cache" / "models" / "a.gguf"
    wheel.fetch(target)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["a.gguf"]


def test_another_file_than_the_known_one_is_an_error_and_not_kept(
    wheel: Wheel, tmp_path: Path
) -> None:
    write(tmp_path / "index" / "tiny_model-1.0-py3-none-any.whl", b"something else")
    target = tmp_path / "cache" / "a.gguf"
    with pytest.raises(LoadError, match=f"SHA-256 is .*, not {wheel.sha256}; nothing was kept"):
        wheel.fetch(target)
    assert list(target.parent.iterdir()) == []


def test_a_wheel_without_the_file_is_an_error(wheel: Wheel, tmp_path: Path) -> None:
    write(tmp_path / "index" / "tiny_model-1.0-py3-none-any.whl", b"", member="other")
    with pytest.raises(LoadError, match=r"does not hold tiny_model/a\.gguf"):
        wheel.fetch(tmp_path / "a.gguf")


def test_a_package_that_pip_does_not_find_is_an_error_with_its_reason(
    wheel: Wheel, tmp_path: Path
) -> None:
    (tmp_path / "index" / "tiny_model-1.0-py3-none-any.whl").unlink()
    with pytest.raises(LoadError, match=r"could not download tiny-model==1\.0 \(ERROR: .*No match"):
        wheel.fetch(tmp_path / "a.gguf")


def test_a_cache_that_cannot_be_written_is_an_error_that_names_it(
    wheel: Wheel, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file, where a folder is needed")
    with pytest.raises(LoadError, match=r"cannot be kept in .*cache.*--mech-cache"):
        wheel.fetch(tmp_path / "cache" / "a.gguf")


def test_a_model_that_is_not_there_offline_names_the_command_that_fetches_it(
    tmp_path: Path,
) -> None:
    source = GgufSource("smollm2-135m", tmp_path / "a.gguf", tmp_path, SMOLLM2)
    with pytest.raises(LoadError, match="run 'mechtests fetch smollm2-135m' once"):
        source.load(dtype="float32", device="cpu", offline=True)


def test_a_plan_of_a_model_that_is_not_there_needs_no_download(tmp_path: Path) -> None:
    source = GgufSource("smollm2-135m", tmp_path / "a.gguf", tmp_path, SMOLLM2)
    assert source.identity(offline=True) == {"sha256": SMOLLM2.sha256}
    assert source.config(offline=True)["num_hidden_layers"] == 30
    assert source.download_bytes(offline=True) == SMOLLM2.size
