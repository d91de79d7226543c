"""What the doctor says of a sound installation, and of one that is not."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mechtests import doctor
from mechtests.cli import app
from mechtests.doctor import Check
from mechtests.models import selfcheck
from tests.docs_pages import DOCS, DOCTOR, Installed, blocks, commands, missing


def test_a_sound_installation_says_what_the_page_shows_and_exits_with_0(tmp_path: Path) -> None:
    shown = [
        lines
        for block in blocks(DOCS / "first-run.md")
        if block.language == "console"
        for command, lines in commands(block.text)
        if command == DOCTOR
    ]
    done = Installed(tmp_path / "installed").run(["mechtests", "doctor"], tmp_path)
    assert done.returncode == 0, done.stdout
    assert len(shown) == 1
    assert missing(shown[0], done.stdout) is None, done.stdout
    assert len(done.stdout.splitlines()) == len(shown[0])


def test_a_wrong_check_says_what_to_do_and_the_command_exits_with_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checks = [Check("one", "fine"), Check("two", "3 of 4", "add one"), Check("three", "fine")]
    monkeypatch.setattr(doctor, "examine", lambda store: iter(checks))
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert done.output.splitlines()[1] == "WRONG two              3 of 4; add one"
    assert [line.split()[0] for line in done.output.splitlines()] == ["ok", "WRONG", "ok"]


def test_a_package_of_another_version_is_named_with_what_is_supported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert doctor.versions().sound
    real = metadata.version
    other = {"transformer-lens": "5.0", "numpy": "1.0"}
    monkeypatch.setattr(metadata, "version", lambda name: other.get(name) or real(name))
    found = doctor.versions()
    assert not found.sound
    assert "transformer-lens 5.0 is not <5,>=4.3" in found.found
    assert "numpy 1.0 is not >=1.26" in found.found
    assert "torch" not in found.found


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "gguf":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    assert doctor.versions().found == "gguf is not installed"


def test_a_plugin_that_pytest_does_not_find_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.plugin().sound
    monkeypatch.setattr(metadata, "entry_points", lambda **_: ())
    assert "missing" in str(doctor.plugin())


def test_a_store_that_cannot_be_written_names_the_option(tmp_path: Path) -> None:
    assert doctor.storage(str(tmp_path / "store")).sound
    assert not list((tmp_path / "store").iterdir())
    (tmp_path / "file").write_text("a file, where a folder is needed")
    found = doctor.storage(str(tmp_path / "file"))
    assert not found.sound
    assert "--mech-cache" in str(found)


def test_a_store_of_no_known_kind_is_wrong_and_no_traceback() -> None:
    found = doctor.storage("nowhere://store")
    assert not found.sound
    assert "nowhere" in str(found)


def test_a_store_anywhere_is_tried_and_has_no_known_room() -> None:
    found = doctor.storage("memory://mechtests")
    assert found == Check("store", "memory://mechtests can be written")


def test_a_full_disk_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "FREE", 1e18)
    assert "free some of the disk" in str(doctor.storage(str(tmp_path)))


def test_more_threads_than_processors_and_a_slow_torch_are_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    assert doctor.rate().sound
    monkeypatch.setattr(doctor, "SLOWEST", 1e18)
    assert "install a build of torch" in str(doctor.rate())
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10_000)
    assert "OMP_NUM_THREADS" in str(doctor.rate())


def test_a_model_that_is_not_the_plain_one_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert doctor.embedded().sound
    monkeypatch.setitem(selfcheck.TOLERANCE, torch.float32, 0.0)
    monkeypatch.setattr(doctor, "versions", lambda: Check("versions", ""))
    monkeypatch.setattr(doctor, "tiny_claim", lambda: Check("a tiny claim", ""))
    wrong = [check for check in doctor.examine("memory://mechtests") if not check.sound]
    assert [check.name for check in wrong] == ["embedded family"]
    assert "the self-check" in wrong[0].found


def test_a_tiny_claim_that_does_not_hold_or_does_not_run_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "CLAIM", "raise RuntimeError('no')")
    found = doctor.tiny_claim()
    assert not found.sound
    assert "pytest ended with 2" in found.found
