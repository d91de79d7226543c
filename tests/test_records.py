"""mechtests.reporting.records: nothing that was reached is lost, and families are corrected."""

import math
from pathlib import Path

import pytest

from mechtests.claim import Claim
from mechtests.errors import LoadError, UsageError
from mechtests.reporting.record import Record, RecordedCell
from mechtests.reporting.records import (
    Journal,
    correct,
    find,
    header,
    in_a_family,
    latest,
    read,
)
from mechtests.verdict import Outcome, Verdict


def record_of(
    cell: str,
    p: float | None = 0.01,
    outcome: Outcome = Outcome.HOLDS,
    id: str = "paper.claim",
    family: str = "paper.claim",
) -> Record:
    return Record.from_verdict(
        Verdict(outcome, "a sentence", p=p),
        claim=Claim(id=id, says="s", rule="r", family=family),
        run="r",
        cell=RecordedCell(cell, cell),
        measurements={},
        profile="quick",
        seed=0,
        nodeid="n",
        reproduce="pytest n",
    )


def journal_in(folder: Path, **rest) -> Journal:
    return Journal(folder, {"argv": ["-k", "ioi"], "settings": {"seed": 7}}, **rest)


def test_a_record_is_on_disk_as_soon_as_it_is_appended(tmp_path):
    journal = journal_in(tmp_path)
    for cell in ("gpt2", "smollm2-135m"):
        journal.append(record_of(cell))
        assert read(journal.path) == journal.records
    assert journal.records_path == journal.path / "records.jsonl"
    assert read(journal.records_path) == [record_of("gpt2"), record_of("smollm2-135m")]


def test_the_header_says_how_and_on_what_and_stays_incomplete_until_the_end(tmp_path):
    journal = journal_in(tmp_path)
    begun = header(journal.path)
    assert begun["run"] == journal.path.name == journal.id
    assert begun["argv"] == ["-k", "ioi"]
    assert begun["settings"] == {"seed": 7}
    assert {"torch", "transformers", "numpy", "mechtests"} <= set(begun["versions"])
    assert begun["versions"]["torch"]
    assert begun["python"]
    assert begun["platform"]
    assert begun["end"] is None
    assert begun["complete"] is False
    journal.update(plan={"steps": 3, "rate": math.nan})
    journal.finish(complete=True)
    ended = header(journal.path)
    assert ended["plan"]["steps"] == 3
    assert math.isnan(ended["plan"]["rate"])
    assert ended["complete"] is True
    assert ended["end"] > ended["start"] == begun["start"]
    assert ended["argv"] == begun["argv"]


def test_a_header_that_cannot_be_read_is_refused_in_a_sentence(tmp_path):
    for text in (None, "", '{"run": ', "[]", '{"nonfinite": {"/a": "inf"}}'):
        if text is not None:
            (tmp_path / "run.json").write_text(text)
        if text == '{"nonfinite": {"/a": "inf"}}':
            assert header(tmp_path) == {"a": math.inf}
            continue
        with pytest.raises(LoadError, match=r"run\.json: the header of a run is needed"):
            header(tmp_path)


def test_a_run_in_a_repository_names_its_commit_and_one_outside_none(tmp_path, monkeypatch):
    import subprocess

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert journal_in(tmp_path).header["commit"] is None
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", *who, "commit", "-q", "--allow-empty", "-m", "m"], check=True)
    head = Path(".git/HEAD").read_text().removeprefix("ref: ").strip()
    assert journal_in(tmp_path).header["commit"] == Path(".git", head).read_text().strip()


def test_runs_that_start_at_once_have_folders_of_their_own_in_the_order_they_started(tmp_path):
    paths = [journal_in(tmp_path).path for _ in range(20)]
    assert sorted(set(paths)) == paths


def test_the_latest_run_is_the_newest_with_records(tmp_path):
    with pytest.raises(UsageError, match="a run with records is needed, and there is none"):
        latest(tmp_path)
    first, second = journal_in(tmp_path), journal_in(tmp_path)
    first.append(record_of("gpt2"))
    assert latest(tmp_path) == first.path
    second.append(record_of("gpt2"))
    journal_in(tmp_path)
    assert latest(tmp_path) == second.path


def test_a_run_is_found_by_its_id_and_by_its_folder_and_an_unknown_one_names_those_there(tmp_path):
    journal = journal_in(tmp_path)
    journal.append(record_of("gpt2"))
    assert find(tmp_path, journal.id) == journal.path
    assert find(tmp_path / "elsewhere", str(journal.path)) == journal.path
    with pytest.raises(UsageError, match=f"run 'yesterday'.*{journal.id}"):
        find(tmp_path, "yesterday")


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
    journal.update(plan={})
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


def test_a_family_is_corrected_together_and_a_hand_example_of_benjamini_and_hochberg_comes_out():
    ps = [0.01, 0.04, 0.03, 0.20]
    corrected = correct([record_of(str(p), p) for p in ps])
    # sorted: .01*4/1, .03*4/2, .04*4/3, .20*4/4, each at most the next
    assert [record.q for record in corrected] == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.20])


def test_two_claims_of_one_family_are_corrected_together_and_another_family_is_not():
    corrected = correct(
        [
            record_of("x", 0.02, id="paper.one", family="both"),
            record_of("x", 0.02, id="paper.two", family="both"),
            record_of("x", 0.03, id="paper.three", family="paper.three"),
        ]
    )
    assert [record.q for record in corrected] == pytest.approx([0.02, 0.02, 0.03])
    assert correct([record_of("x", 0.02), record_of("x", 0.9)])[0].q == pytest.approx(0.04)


@pytest.mark.parametrize(
    "outside",
    [
        record_of("x", 0.5, Outcome.NOT_APPLICABLE),
        record_of("x", 0.5, Outcome.ERROR),
        record_of("x", 0.5, id="sanity.gates"),
    ],
    ids=["not applicable", "error", "sanity"],
)
def test_what_is_in_no_family_has_no_q_and_costs_the_others_nothing(outside):
    inside, without = correct([record_of("x", 0.03), outside])
    assert inside.q == pytest.approx(0.03)
    assert without.q is None
    assert in_a_family(inside)
    assert not in_a_family(without)


@pytest.mark.parametrize("p", [None, math.nan])
def test_a_member_without_a_p_is_tried_and_not_found_so_it_counts_as_1(p):
    inside, without = correct([record_of("x", 0.03), record_of("x", p, Outcome.INCONCLUSIVE)])
    assert inside.q == pytest.approx(0.06)
    assert without.q == pytest.approx(1.0)


def test_correcting_again_gives_the_same_and_the_verdict_never_changes():
    records = [record_of("a", 0.04), record_of("b", 0.9, Outcome.REFUTED)]
    once = correct(records)
    assert correct(once) == once
    assert [record.verdict for record in once] == [record.verdict for record in records]


def test_a_claim_that_holds_by_itself_and_not_after_correction_says_so():
    held, other = correct([record_of("a", 0.04), record_of("b", 0.9, Outcome.REFUTED)])
    assert held.outcome is Outcome.HOLDS
    assert held.q == pytest.approx(0.08)
    assert held.not_after_correction
    assert not other.not_after_correction
    assert not correct([record_of("x", 0.04)])[0].not_after_correction
