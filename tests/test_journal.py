"""mechtests.reporting.journal: nothing that was reached is lost."""

import json
from pathlib import Path

import pytest

from mechtests.claim import Claim
from mechtests.errors import LoadError, UsageError
from mechtests.reporting.journal import Journal, latest, read
from mechtests.reporting.records import Record, RecordedCell
from mechtests.verdict import Outcome, Verdict


def record_of(cell: str) -> Record:
    return Record.from_verdict(
        Verdict(Outcome.HOLDS, "it holds", p=0.01),
        claim=Claim(id="paper.claim", says="s", rule="r", family="paper.claim"),
        run="r",
        cell=RecordedCell(cell, cell),
        measurements={},
        profile="quick",
        seed=0,
        nodeid="n",
        reproduce="pytest n",
    )


def journal_in(folder: Path, **rest) -> Journal:
    return Journal(folder, argv=["-k", "ioi"], profile="quick", seed=7, **rest)


def header_of(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


def test_a_record_is_on_disk_as_soon_as_it_is_appended(tmp_path):
    journal = journal_in(tmp_path)
    for cell in ("gpt2", "smollm2-135m"):
        journal.append(record_of(cell))
        assert read(journal.path) == journal.records
    assert journal.records_path == journal.path / "records.jsonl"
    assert read(journal.records_path) == [record_of("gpt2"), record_of("smollm2-135m")]


def test_the_header_says_how_and_on_what_and_stays_incomplete_until_the_end(tmp_path):
    journal = journal_in(tmp_path, settings={"dtype": "float32"})
    begun = header_of(journal.path)
    assert begun["id"] == journal.path.name == journal.run.id
    assert begun["argv"] == ["-k", "ioi"]
    assert begun["profile"] == "quick"
    assert begun["seed"] == 7
    assert begun["settings"] == {"dtype": "float32"}
    assert {"torch", "transformers", "numpy", "mechtests"} <= set(begun["versions"])
    assert begun["versions"]["torch"]
    assert begun["python"]
    assert begun["platform"]
    assert begun["end"] is None
    assert begun["complete"] is False
    journal.planned({"steps": 3})
    journal.finish(complete=True)
    ended = header_of(journal.path)
    assert ended["plan"] == {"steps": 3}
    assert ended["complete"] is True
    assert ended["end"] > ended["start"] == begun["start"]


def test_a_run_in_a_repository_names_its_commit_and_one_outside_none(tmp_path, monkeypatch):
    import subprocess

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert journal_in(tmp_path).run.commit is None
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", *who, "commit", "-q", "--allow-empty", "-m", "m"], check=True)
    head = Path(".git/HEAD").read_text().removeprefix("ref: ").strip()
    assert journal_in(tmp_path).run.commit == Path(".git", head).read_text().strip()


def test_runs_that_start_at_once_have_folders_of_their_own_in_the_order_they_started(tmp_path):
    paths = [journal_in(tmp_path).path for _ in range(20)]
    assert sorted(set(paths)) == paths


def test_the_latest_run_is_the_newest_with_records(tmp_path):
    assert latest(tmp_path) is None
    first, second = journal_in(tmp_path), journal_in(tmp_path)
    first.append(record_of("gpt2"))
    assert latest(tmp_path) == first.path
    second.append(record_of("gpt2"))
    journal_in(tmp_path)
    assert latest(tmp_path) == second.path


def test_a_torn_last_line_is_passed_over_with_a_warning(tmp_path):
    journal = journal_in(tmp_path)
    journal.append(record_of("gpt2"))
    with journal.records_path.open("a") as file:
        file.write('{"schema": "mechtests-rec')
    with pytest.warns(UserWarning, match=r"records\.jsonl, line 2: not a whole record"):
        assert read(journal.path) == [record_of("gpt2")]


def test_bytes_that_are_no_text_are_passed_over_too(tmp_path):
    journal = journal_in(tmp_path)
    journal.append(record_of("gpt2"))
    with journal.records_path.open("ab") as file:
        file.write(b'\xff\xfe{"\n')
    said = []
    assert read(journal.path, warn=said.append) == [record_of("gpt2")]
    assert len(said) == 1


def test_a_whole_line_that_is_no_record_is_refused(tmp_path):
    (tmp_path / "records.jsonl").write_text("[1]\n")
    with pytest.raises(LoadError, match="line 1: a record is a JSON object"):
        read(tmp_path)


def test_a_folder_without_records_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"records\.jsonl is needed, and there is none"):
        read(tmp_path)


def test_where_the_folder_cannot_be_made_there_is_one_warning_and_memory_keeps_all(tmp_path):
    (tmp_path / "file").write_text("in the way")
    said = []
    journal = journal_in(tmp_path / "file", warn=said.append)
    journal.append(record_of("gpt2"))
    journal.append(record_of("smollm2-135m"))
    journal.planned({})
    journal.finish(complete=True)
    assert len(said) == 1
    assert "cannot be written" in said[0]
    assert [record.cell.id for record in journal.records] == ["gpt2", "smollm2-135m"]
    assert journal.records_path is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_fills_up_in_the_middle_costs_one_warning_and_no_verdict(tmp_path):
    said = []
    journal = journal_in(tmp_path, warn=said.append)
    journal.append(record_of("gpt2"))
    kept = journal.records_path.read_bytes()
    journal.records_path.unlink()
    journal.records_path.symlink_to("/dev/full")
    journal.append(record_of("smollm2-135m"))
    journal.append(record_of("pythia-70m"))
    assert len(said) == 1
    assert "No space left" in said[0]
    assert len(journal.records) == 3
    assert kept.endswith(b"\n")
