"""mechtests.reporting.terminal: what a reader of a run sees."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests.claim import Claim
from mechtests.reporting.record import Record, RecordedCell, RecordedCheckpoint
from mechtests.reporting.records import correct
from mechtests.reporting.terminal import render
from mechtests.verdict import Control, Outcome, Verdict

DRAWS = Control("matched random heads", "22 of 199 draws do as well, p 0.11", True, p=0.11)
SHOWN_ONLY = Control("heads by effect", "the ceiling is 1.2", False, decides=False)
HOLDS = Verdict(
    Outcome.HOLDS,
    "induction score of head 5.3: 0.62 [0.55, 0.69] over 50 prompts in 50 clusters, "
    "claimed above 0.4",
    estimate=0.62,
    interval=(0.55, 0.69),
    margin=0.4,
    unit="attention",
    prompts=50,
    clusters=50,
    p=0.0003,
    shown={"swapped": 0.61234, "levels": {"0.2": "holds"}},
)
REFUTED = Verdict(
    Outcome.REFUTED,
    "the name movers do not matter",
    estimate=-0.3123,
    interval=(-0.5512, -0.0734),
    margin=0.0,
    unit="logits",
    prompts=1200,
    clusters=600,
    p=0.99,
    controls=(DRAWS, SHOWN_ONLY),
)
INCONCLUSIVE = Verdict(
    Outcome.INCONCLUSIVE,
    "1 of 2 parts holds",
    p=0.2,
    needed=1340,
    parts=(Verdict(Outcome.HOLDS, "to IO"), Verdict(Outcome.INCONCLUSIVE, "to S")),
)
NOT_APPLICABLE = Verdict(Outcome.NOT_APPLICABLE, "the gate failed: accuracy 0.41, above 0.6 needed")
ERROR = Verdict(Outcome.ERROR, "the logits are NaN from layer 4 on")
EACH = {
    "HOLDS": HOLDS,
    "REFUTED": REFUTED,
    "INCONCLUSIVE": INCONCLUSIVE,
    "N/A": NOT_APPLICABLE,
    "ERROR": ERROR,
}


def record_of(
    verdict: Verdict,
    *,
    id: str = "tigges2024.name-movers-matter",
    cell: str = "gpt2",
    task: str | None = "ioi",
    says: str = "Ablating the name movers drops IOI.",
    **rest,
) -> Record:
    model, _, label = cell.partition(":")
    step = int(label.removeprefix("step")) if label else None
    return Record.from_verdict(
        verdict,
        claim=Claim(
            id=id, says=says, rule="The drop is above 0.", section="3.2", task=task, family=id
        ),
        run="20260101-000000-000000",
        cell=RecordedCell(cell, model, RecordedCheckpoint(label, step) if label else None),
        measurements={},
        profile="quick",
        seed=0,
        nodeid="n",
        reproduce=f"pytest 'assertions/test_{'long_' * 12}.py::test_it[{cell}]' --mech-seed=3",
        **rest,
    )


def shown(records: list[Record], width: int = 80, **how) -> str:
    return render(correct(records), width=width, **{"verbosity": 0, **how})


def line_with(text: str, *words: str) -> str:
    found = [line for line in text.splitlines() if all(word in line for word in words)]
    assert found, f"no line with {words} in:\n{text}"
    return found[0]


def one_of_each() -> list[Record]:
    return [record_of(verdict, id=f"a.{word.lower()}") for word, verdict in EACH.items()]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("word", EACH)
def test_a_verdict_stands_as_a_word_in_its_claims_row(word, width):
    text = shown([record_of(EACH[word])], width, verbosity=-1)
    assert line_with(text, "  name-movers-matter").split() == ["name-movers-matter", word]
    assert "tigges2024" in text.splitlines()


def test_a_refutation_says_the_papers_words_numbers_margin_controls_and_how_to_see_it_again():
    text = shown([record_of(REFUTED)])
    lines = text.splitlines()
    at = lines.index("  REFUTED  gpt2")
    assert lines[at - 2 : at] == [
        "tigges2024.name-movers-matter, section 3.2",
        "  Ablating the name movers drops IOI.",
    ]
    said = " ".join(" ".join(lines[at + 1 :]).split())
    assert said.startswith(
        "the name movers do not matter "
        "estimate -0.31 [-0.55, -0.07] logits, claimed above 0, 1,200 prompts in 600 clusters "
        "p 0.99 "
        "control matched random heads: 22 of 199 draws do as well, p 0.11; it reaches the claim "
        "control heads by effect: the ceiling is 1.2 (shown, does not decide) "
        "reproduce pytest "
    )


def test_the_command_is_on_one_line_so_that_it_can_be_pasted():
    record = record_of(REFUTED)
    line = line_with(shown([record]), "reproduce").strip()
    assert line.removeprefix("reproduce").strip() == record.reproduce
    assert shlex.split(record.reproduce)[0] == "pytest"


def test_numbers_the_sentence_says_are_not_said_twice():
    refuted = Verdict(**{**vars(HOLDS), "outcome": Outcome.REFUTED})
    text = shown([record_of(refuted)])
    assert text.count("0.62") == 1
    assert "estimate" not in text


def test_an_inconclusive_verdict_names_its_parts_and_how_many_prompts_would_decide():
    text = shown([record_of(INCONCLUSIVE)])
    assert " ".join(line_with(text, "needed").split()) == "needed about 1,340 prompts would decide"
    assert line_with(text, "part", "HOLDS: to IO")
    assert line_with(text, "part", "INCONCLUSIVE: to S")
    assert "reproduce" in text


def test_what_holds_takes_two_lines_at_most():
    text = shown([record_of(HOLDS), record_of(REFUTED, cell="pythia-70m")])
    lines = text.splitlines()
    at = lines.index(line_with(text, "  HOLDS  gpt2: induction score of head 5.3"))
    assert lines[at + 2].startswith("  REFUTED  pythia-70m")


def test_a_reason_why_claims_do_not_apply_is_said_once_for_all_of_them():
    cells = ("pythia-70m", "pythia-160m")
    lines = shown([record_of(NOT_APPLICABLE, cell=cell) for cell in cells]).splitlines()
    at = lines.index("Not applicable")
    assert lines[at + 1].startswith(f"  {NOT_APPLICABLE.sentence[:20]}")
    assert sum(NOT_APPLICABLE.sentence[:20] in line for line in lines) == 1


def test_verbose_shows_the_rule_and_what_decides_nothing_for_every_verdict():
    text = shown([record_of(HOLDS)], verbosity=1)
    assert "  Rule: The drop is above 0." in text.splitlines()
    assert line_with(text, "shown", "swapped: 0.612")
    assert line_with(text, "shown", "levels: 0.2 holds")
    assert "reproduce" in text


def test_quiet_shows_the_matrix_and_the_totals_and_twice_quiet_the_totals_alone():
    path = Path("reports/runs/1/records.jsonl")
    quiet = shown(one_of_each(), verbosity=-1, path=path)
    assert "reproduce" not in quiet
    assert "Families" not in quiet
    totals = "5 verdicts: 1 holds, 1 refuted, 1 inconclusive, 1 not applicable, 1 error\n"
    assert quiet.endswith(f"{totals}records: {path}\n")
    assert "REFUTED" in quiet
    twice = shown(one_of_each(), verbosity=-2, path=path)
    assert twice == f"{totals}records: {path}\n"


def test_records_kept_nowhere_are_said_to_be_nowhere():
    assert "records" not in shown(one_of_each())
    assert shown([]) == "no verdicts\n"


def test_an_expected_refutation_is_told_apart_from_a_refutation():
    reason = "gpt2 is the paper's exception"
    text = shown([record_of(REFUTED, expectation=reason), record_of(REFUTED, cell="pythia-70m")])
    assert line_with(text, "  name-movers-matter").split()[1:] == ["EXPECTED", "REFUTED"]
    assert "  EXPECTED REFUTED  gpt2" in text.splitlines()
    assert line_with(text, "expected", reason)
    assert "2 verdicts: 1 refuted, 1 refuted, as expected" in text


def test_a_family_has_a_line_with_its_counts_and_its_q():
    text = shown(
        [
            record_of(HOLDS),
            record_of(REFUTED, cell="pythia-70m"),
            record_of(INCONCLUSIVE, cell="pythia-160m"),
            record_of(NOT_APPLICABLE, cell="pythia-410m"),
            record_of(HOLDS, id="tigges2024.induction-present"),
        ]
    )
    line = "tigges2024.name-movers-matter holds 1, refuted 1, inconclusive 1 (q 0.0009 to 0.99)"
    assert line in " ".join(text.split())
    assert "1 family of one verdict: nothing to correct, q is p" in text


def test_a_claim_that_holds_only_before_correction_is_marked_in_the_matrix_and_explained():
    weak = Verdict(**{**vars(HOLDS), "p": 0.04})
    records = [record_of(weak), record_of(REFUTED, cell="pythia-70m")]
    text = shown(records)
    assert line_with(text, "  name-movers-matter").split()[1:] == ["HOLDS*", "REFUTED"]
    assert "HOLDS* holds, not after correction" in text.splitlines()
    assert "  HOLDS, NOT AFTER CORRECTION  gpt2" in text.splitlines()
    assert line_with(text, "p ", "0.04, q 0.08 in its family")


def test_notes_of_the_measurements_and_an_overridden_rule_are_said_once_each():
    facts = {name: {"notes": ["out of memory: batches of at most 8 prompts"]} for name in "ab"}
    text = shown([record_of(REFUTED, facts=facts, overridden=True)])
    assert text.count("out of memory: batches of at most 8 prompts") == 1
    assert line_with(text, "note", "a setting from outside changed the claim's own rule")


def test_a_long_claim_id_and_its_task_are_folded_and_keep_their_row():
    long = "tigges2024." + "-".join(["copy", "suppression", "heads"] * 6)
    records = [record_of(HOLDS, id=long), record_of(REFUTED, id=long, task="greater-than")]
    text = shown(records, verbosity=-1)
    assert max(map(len, text.splitlines())) <= 80
    rows = [line for line in text.splitlines() if line.startswith("  copy-")]
    assert sorted(row.split()[-1] for row in rows) == ["HOLDS", "REFUTED"]
    assert "".join(text.split()).count("(greater-than)") == 1


def test_sixty_cells_are_letters_in_blocks_a_series_each_with_steps_as_headings():
    steps = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *range(1000, 10_000, 1000)]
    models = ["pythia-1b", "pythia-70m", "pythia-160m"]
    verdicts = list(EACH.values())
    records = [
        record_of(verdicts[place % 5], cell=f"{model}:step{step}")
        for model in models
        for place, step in enumerate(steps)
    ]
    text = shown(records, verbosity=-1)
    assert max(map(len, text.splitlines())) <= 80
    heads = [line for line in text.splitlines() if " at step " in line]
    assert [head.split(" at step")[0] for head in heads] == [
        model for model in ("pythia-70m", "pythia-160m", "pythia-1b") for _ in range(2)
    ]
    labels = [label for head in heads[:2] for label in head.split(" at step")[1].split()]
    assert labels == [*map(str, steps[:11]), *(f"{n}k" for n in range(1, 10))]
    rows = [line.split()[1:] for line in text.splitlines() if "name-movers-matter" in line]
    assert "".join(letter for row in rows[:2] for letter in row) == "HR?nE" * 4
    assert "H holds   R refuted   ? inconclusive   n not applicable   E error" in text


def test_a_place_that_was_not_judged_is_told_apart_from_every_verdict():
    records = [record_of(HOLDS, cell=f"gpt{n}-medium") for n in range(12)]
    text = shown([*records, record_of(HOLDS, id="a.other", cell="gpt0-medium")], verbosity=-1)
    assert line_with(text, "  other").split()[1:] == ["H", *["."] * 6]
    assert line_with(text, ". not judged")


def test_sanity_comes_first_and_models_stand_by_size_in_whatever_order_records_come():
    cells = ["pythia-70m", "pythia-160m", "pythia-1b"]
    ids = ["sanity.gates", "a.claim"]
    records = [record_of(NOT_APPLICABLE, id=each, cell=cell) for each in ids for cell in cells]
    text = shown(records)
    assert text.splitlines()[0].split() == cells
    assert text.index("sanity") < text.index("claim")
    assert shown(records[::-1]) == text


@settings(max_examples=20)
@given(st.permutations(one_of_each()))
def test_the_order_in_which_tests_ran_changes_nothing(records):
    assert shown(records) == shown(one_of_each())


@pytest.mark.parametrize("verbosity", [0, -1, 1])
def test_ascii_means_ascii_and_without_colour_there_is_no_escape(verbosity):
    unusual = Verdict(Outcome.REFUTED, "a “ratio” ≥ 2 × σ … naïve − 1 → 東")
    records = [*one_of_each(), record_of(unusual, says="Größe ± 1")]
    text = shown(records, ascii=True, verbosity=verbosity)
    assert text.isascii()
    assert "\x1b" not in text
    assert not re.search(r"[^\n\x20-\x7e]", text)
    if verbosity >= 0:
        assert 'a "ratio" >= 2 x ? ... naive - 1 -> ?' in text
    assert "─" in shown(records, verbosity=verbosity)


def test_colour_changes_no_word(monkeypatch):
    plain = shown(one_of_each())
    colored = shown(one_of_each(), color=True)
    assert "\x1b[" in colored
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", colored)
    assert [line.rstrip() for line in stripped.splitlines()] == plain.splitlines()
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "33")
    assert shown(one_of_each()) == plain


@pytest.mark.parametrize("width", [50, 80, 120])
@pytest.mark.parametrize("cells", [1, 2, 4, 7, 60])
def test_only_commands_and_paths_are_wider_than_asked(cells, width):
    records = [
        record_of(verdict, id=f"a.{word.lower()}", cell=f"pythia-{n}m:step{n}000")
        for word, verdict in EACH.items()
        for n in range(cells)
    ]
    for line in shown(records, width, path=Path("r" * 130)).splitlines():
        assert len(line) <= width or line.strip().startswith(("reproduce", "records:"))
        assert line == line.rstrip()


def test_no_interval_is_broken_over_two_lines():
    for pad in range(40, 80):
        verdict = Verdict(Outcome.HOLDS, "x" * pad + " 0.62 [0.55, 0.69] over 50 prompts")
        assert "[0.55, 0.69]" in shown([record_of(verdict)])
