from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest

from mechtests.errors import NotApplicable, UsageError
from mechtests.tasks.csv_prompts import file_identity, read
from mechtests.tasks.greater_than import greater_than
from mechtests.tasks.ioi import ioi
from mechtests.tasks.prompts import Levels, Task
from mechtests.tasks.repeated_tokens import repeated_tokens
from mechtests.tasks.sva import sva
from tests.words import TaskWords, Words

TASK_WORDS = TaskWords(bos=0)
WORDS = Words(bos=0)
OURS = ioi.generate(WORDS, 60, np.random.default_rng(0))
PLAIN = Task("facts", 1, ioi.generate, {"quick": 9}, 20, Levels({"correct": 0.5}), "other")


def write(path: Path, columns: dict[str, list[str]]) -> Path:
    file = path / "prompts.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return file


def columns() -> dict[str, list[str]]:
    assert OURS.right is not None
    assert OURS.wrong is not None
    corrupted = [
        WORDS.decode(ids[1:n]) for ids, n in zip(OURS.corrupted["S2->IO"], OURS.length, strict=True)
    ]
    return {
        "clean": list(OURS.texts),
        "corrupted": corrupted,
        "answer": [WORDS.decode(ids) for ids in OURS.right],
        "wrong": [WORDS.decode(ids) for ids in OURS.wrong],
    }


def test_our_own_prompts_written_to_a_file_are_read_back_with_their_positions(
    tmp_path: Path,
) -> None:
    given = columns() | {
        "template": list(map(str, OURS.template)),
        "cluster": list(map(str, OURS.cluster)),
    }
    made = read(ioi, write(tmp_path, given), WORDS)
    assert made.texts == OURS.texts
    for ours, theirs in (
        (OURS.clean, made.clean),
        (OURS.corrupted["S2->IO"], made.corrupted["S2->IO"]),
        (OURS.right, made.right),
        (OURS.wrong, made.wrong),
        (OURS.cluster, made.cluster),
        (OURS.template[:, None] == OURS.template, made.template[:, None] == made.template),
        (OURS.half, made.half),
        *((OURS.positions[name], made.positions[name]) for name in OURS.positions),
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert not (made.clean == made.tokens["absent"][:, None]).any()


def test_the_published_layout_is_read_and_its_hard_corruption_is_the_tasks(tmp_path: Path) -> None:
    given = columns()
    third = [
        WORDS.decode(ids[1:n])
        for ids, n in zip(OURS.corrupted["S2->third name"], OURS.length, strict=True)
    ]
    assert OURS.right is not None
    assert OURS.wrong is not None
    file = write(
        tmp_path,
        {
            "": list(map(str, range(60))),
            "clean": given["clean"],
            "corrupted": third,
            "corrupted_hard": given["corrupted"],
            "correct_idx": [str(i) for i in OURS.right[:, 0]],
            "incorrect_idx": [str(i) for i in OURS.wrong[:, 0]],
        },
    )
    made = read(ioi, file, WORDS)
    np.testing.assert_array_equal(made.corrupted["S2->IO"], OURS.corrupted["S2->IO"])
    np.testing.assert_array_equal(made.corrupted["corrupted"], OURS.corrupted["S2->third name"])
    np.testing.assert_array_equal(made.right, OURS.right)


def test_rows_alone_are_clusters_and_alternate_between_halves(tmp_path: Path) -> None:
    seven = {name: column[:7] for name, column in columns().items()}
    made = read(ioi, write(tmp_path, seven), WORDS)
    assert made.cluster.tolist() == list(range(7))
    assert made.half.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert set(made.template.tolist()) == {0}


def test_another_task_gets_its_answers_and_its_end(tmp_path: Path) -> None:
    made = read(PLAIN, write(tmp_path, columns()), WORDS)
    assert list(made.corrupted) == ["other"]
    assert list(made.positions) == ["END"]
    assert (made.positions["END"] == made.length - 1).all()


def test_the_identity_of_a_file_is_the_digest_of_its_bytes(tmp_path: Path) -> None:
    file = write(tmp_path, columns())
    assert file_identity(file) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_missing_columns_are_named_with_those_found(tmp_path: Path) -> None:
    file = write(tmp_path, {"clean": ["a"], "answer": [" a"], "label": ["1"]})
    with pytest.raises(
        UsageError,
        match=r"missing column corrupted, answer and wrong \(or .*\); found clean, answer, label",
    ):
        file_identity(file)


def test_all_rows_that_are_not_aligned_are_named(tmp_path: Path) -> None:
    given = columns()
    for row in (3, 10):
        given["corrupted"][row] += " to"
    with pytest.raises(UsageError, match=r"row 4 \(\d+ and \d+\), 11 \(\d+ and \d+\) has another"):
        read(ioi, write(tmp_path, given), WORDS)


def test_all_answers_that_are_not_one_token_are_named(tmp_path: Path) -> None:
    given = columns()
    given["answer"][1] = " Bartholomew"
    given["wrong"][5] = " Ebenezer"
    with pytest.raises(
        UsageError, match=r"row 2 \(' Bartholomew' is 12\), 6 \(' Ebenezer' is 9\) has an answer"
    ):
        read(ioi, write(tmp_path, given), WORDS)


def test_ids_outside_the_vocabulary_are_named(tmp_path: Path) -> None:
    given = columns()
    del given["answer"], given["wrong"]
    given |= {"clean_answer_idx": ["3"] * 59 + ["x"], "corrupted_answer_idx": ["4"] * 60}
    given["corrupted_answer_idx"][0] = str(WORDS.size)
    with pytest.raises(UsageError, match=rf"row 1 \(3, {WORDS.size}\), 60 \(x, 4\) has an answer"):
        read(ioi, write(tmp_path, given), WORDS)


def test_one_token_cannot_be_right_and_wrong(tmp_path: Path) -> None:
    given = columns()
    given["wrong"][2] = given["answer"][2]
    with pytest.raises(UsageError, match="row 3 has one token as both"):
        read(ioi, write(tmp_path, given), WORDS)


def test_a_cluster_that_several_templates_have_stays_in_one_half(tmp_path: Path) -> None:
    given = columns() | {
        "template": [str(row % 3) for row in range(60)],
        "cluster": [str(row // 6) for row in range(60)],
    }
    made = read(ioi, write(tmp_path, given), WORDS)
    assert made.cluster.tolist() == [row // 6 for row in range(60)]
    assert made.template.tolist() == [row % 3 for row in range(60)]
    assert made.half.tolist() == [(row // 6) % 2 for row in range(60)]


def test_rows_with_the_same_two_prompts_are_one_cluster(tmp_path: Path) -> None:
    given = columns()
    for name, other in (("clean", "corrupted"), ("corrupted", "clean")):
        given[name][5] = columns()[other][4]
    given["answer"][5], given["wrong"][5] = given["wrong"][4], given["answer"][4]
    facts = read(PLAIN, write(tmp_path, given), WORDS)
    assert facts.cluster[:7].tolist() == [0, 1, 2, 3, 4, 4, 5]
    assert facts.half[4] == facts.half[5]


def test_ioi_prompts_without_their_names_are_not_applicable(tmp_path: Path) -> None:
    given = columns()
    given["answer"][0], given["wrong"][0] = given["wrong"][0], given["answer"][0]
    with pytest.raises(NotApplicable, match=r"1 of 60 prompts .* right answer's token once"):
        read(ioi, write(tmp_path, given), WORDS)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "missing column clean, corrupted, .* found none"),
        (b"clean,corrupted,answer,wrong\n", "columns and no row"),
        (b"clean,corrupted,answer,wrong\na,b\n", "row 1 has fewer fields"),
        (b"clean,corrupted\xff\n", "CSV file in UTF-8"),
    ],
)
def test_a_file_that_is_no_table_is_a_sentence(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    file = tmp_path / "bad.csv"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=sentence):
        file_identity(file)


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.csv: prompts are read from a CSV file"):
        file_identity(tmp_path / "none.csv")


def test_a_task_without_answers_reads_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="makes its own prompts"):
        read(repeated_tokens, write(tmp_path, columns()), WORDS)


def pair_columns(task: Task) -> dict[str, list[str]]:
    made = task.generate(TASK_WORDS, 40, np.random.default_rng(0))
    assert task.corruption is not None
    return {
        column: [TASK_WORDS.decode(ids[1:n]) for ids, n in zip(rows, made.length, strict=True)]
        for column, rows in (("clean", made.clean), ("corrupted", made.corrupted[task.corruption]))
    }


def test_greater_than_reads_the_published_two_digit_year(tmp_path: Path) -> None:
    ours = greater_than.generate(TASK_WORDS, 40, np.random.default_rng(0))
    years = [str(int(TASK_WORDS.decode([token]))) for token in ours.tokens["YY"]]
    file = write(tmp_path, pair_columns(greater_than) | {"correct_idx": years})
    made = read(greater_than, file, TASK_WORDS)
    np.testing.assert_array_equal(made.right, ours.right)
    np.testing.assert_array_equal(made.wrong, ours.wrong)
    for name in ours.positions:
        np.testing.assert_array_equal(made.positions[name], ours.positions[name])


def test_agreement_reads_the_published_number_and_its_groups(tmp_path: Path) -> None:
    ours = sva.generate(TASK_WORDS, 40, np.random.default_rng(0))
    given = pair_columns(sva) | {
        "group": [f"kind {template}" for template in ours.template],
        "plural": [str(row % 2) for row in range(40)],
    }
    made = read(sva, write(tmp_path, given), TASK_WORDS)
    np.testing.assert_array_equal(made.right, ours.right)
    np.testing.assert_array_equal(made.wrong, ours.wrong)
    np.testing.assert_array_equal(made.cluster, ours.cluster)
    np.testing.assert_array_equal(made.template, ours.template)
    np.testing.assert_array_equal(made.positions["subject"], ours.positions["subject"])


def test_a_number_that_no_prompt_can_have_is_named(tmp_path: Path) -> None:
    given = pair_columns(sva) | {"plural": ["0"] * 38 + ["2", "yes"]}
    with pytest.raises(
        UsageError, match=r"row 39 \(2\), 40 \(yes\) has a plural that is none of 0"
    ):
        read(sva, write(tmp_path, given), TASK_WORDS)


def test_a_number_means_nothing_to_a_task_without_such_a_column(tmp_path: Path) -> None:
    file = write(tmp_path, pair_columns(sva) | {"plural": ["0"] * 40})
    file_identity(file)
    with pytest.raises(UsageError, match=r"the task 'ioi' needs the columns answer and wrong"):
        read(ioi, file, TASK_WORDS)
    with pytest.raises(UsageError, match=r"or correct_idx; found clean, corrupted, plural"):
        read(greater_than, file, TASK_WORDS)
