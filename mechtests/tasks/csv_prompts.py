"""A user's own prompts, read from a CSV file, in place of a task's.

Columns: ``clean``, ``corrupted`` and the answers, one of these:

    answer, wrong                          text, tokenised as written (" Mary", with its space)
    correct_idx, incorrect_idx             token ids, as published with EAP-IG
    clean_answer_idx, corrupted_answer_idx
    correct_idx                            greater-than: the two-digit year
    plural                                 agreement: 1 where the subject is plural, else 0

``corrupted`` is the task's own corruption. In the published files that also have
``corrupted_hard`` (for IOI: the subject replaced by IO, as in the task's ``S2->IO``), that
one is, and ``corrupted`` is kept under that name. Optional: ``template`` (the stratum, called
``group`` in the published agreement file) and ``cluster`` (prompts that belong together; each row
alone unless said, but for rows with the same two prompts, either way round).
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mechtests.errors import UsageError
from mechtests.tasks.prompts import Ids, Prompts, Task, Tokenizer, padded

TEXT_ANSWERS = ("answer", "wrong")
ID_ANSWERS = (("correct_idx", "incorrect_idx"), ("clean_answer_idx", "corrupted_answer_idx"))
NUMBER_ANSWERS = ("correct_idx", "plural")
STRATA = ("template", "group")
SHOWN = 20

Row = dict[str, str]


def file_identity(path: str | Path) -> str:
    """What the store's key knows of a file of prompts: the SHA-256 of its bytes.

    Raises:
        UsageError: The file cannot be read or lacks a column, before any model is loaded.
    """
    _rows(Path(path))
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def count(path: str | Path) -> int:
    """How many prompts a file has."""
    return len(_rows(Path(path)))


def read(task: Task, path: str | Path, tokenizer: Tokenizer) -> Prompts:
    """The prompts of a file in place of the task's.

    Raises:
        UsageError: The task has no answers, so that a file cannot give its prompts; the file
            lacks a column; or rows are at fault, all of which are named.
        NotApplicable: The task does not find its named positions in some prompt.
    """
    path = Path(path)
    if task.levels is None or task.corruption is None:
        raise UsageError(f"{path}: the task {task.name!r} makes its own prompts; it reads no file")
    rows = _rows(path)
    start = [] if tokenizer.bos is None else [tokenizer.bos]

    def encoded(column: str) -> list[list[int]]:
        return [start + tokenizer.encode(row[column]) for row in rows]

    clean = encoded("clean")
    right, wrong = _answers(path, task, rows, tokenizer)
    cluster, template, half = _strata(path, rows)
    prompts = Prompts(
        clean=padded(clean),
        length=np.array([len(ids) for ids in clean]),
        cluster=cluster,
        template=template,
        half=half,
        texts=tuple(row["clean"] for row in rows),
        corrupted={
            variant: _aligned(path, column, clean, encoded(column))
            for variant, column in _variants(task.corruption, rows[0]).items()
        },
        right=right,
        wrong=wrong,
        positions={"END": np.array([len(ids) - 1 for ids in clean])},
    )
    return task.annotate(tokenizer, prompts) if task.annotate else prompts


def _rows(path: Path) -> list[Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            columns = [name for name in reader.fieldnames or () if name]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: prompts are read from a CSV file in UTF-8: {error}") from error
    _check_columns(path, columns)
    if not rows:
        raise UsageError(f"{path}: the file has columns and no row; give one prompt a row")
    short = {i: "" for i, row in enumerate(rows) if any(row[name] is None for name in columns)}
    _refuse(path, short, "has fewer fields than the header has columns")
    return rows


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    missing = [name for name in ("clean", "corrupted") if name not in columns]
    known = (TEXT_ANSWERS, *ID_ANSWERS, *((name,) for name in NUMBER_ANSWERS))
    if not any(set(names) <= set(columns) for names in known):
        missing.append("answer and wrong (or correct_idx and incorrect_idx)")
    if missing:
        raise UsageError(
            f"{path}: missing column {', '.join(missing)}; found {', '.join(columns) or 'none'}"
        )


def _variants(corruption: str, row: Row) -> dict[str, str]:
    if "corrupted_hard" in row:
        return {corruption: "corrupted_hard", "corrupted": "corrupted"}
    return {corruption: "corrupted"}


def _aligned(path: Path, column: str, clean: list[list[int]], corrupted: list[list[int]]) -> Ids:
    lengths = zip(map(len, clean), map(len, corrupted), strict=True)
    _refuse(
        path,
        {i: f" ({a} and {b})" for i, (a, b) in enumerate(lengths) if a != b},
        f"has another number of tokens in clean than in {column}; patching needs the two aligned",
    )
    return padded(corrupted)


def _answers(path: Path, task: Task, rows: list[Row], tokenizer: Tokenizer) -> tuple[Ids, Ids]:
    pairs = (TEXT_ANSWERS, *ID_ANSWERS)
    columns = next((pair for pair in pairs if set(pair) <= set(rows[0])), None)
    if columns is None:
        return _number_answers(path, task, rows, tokenizer)
    read = _text_answers if columns == TEXT_ANSWERS else _id_answers
    both = read(path, [[row[column] for column in columns] for row in rows], tokenizer)
    same = np.flatnonzero(both[:, 0] == both[:, 1]).tolist()
    _refuse(path, dict.fromkeys(same, ""), "has one token as both the right and the wrong answer")
    return both[:, :1], both[:, 1:]


def _number_answers(
    path: Path, task: Task, rows: list[Row], tokenizer: Tokenizer
) -> tuple[Ids, Ids]:
    """The answers that the task makes of one number a row."""
    column = task.column
    if column is None or column.name not in rows[0]:
        takes = "" if column is None else f" or {column.name}"
        raise UsageError(
            f"{path}: the task {task.name!r} needs the columns answer and wrong (or correct_idx "
            f"and incorrect_idx){takes}; found {', '.join(rows[0])}"
        )
    texts = [row[column.name].strip() for row in rows]
    allowed = set(map(str, column.values))
    _refuse(
        path,
        {i: f" ({text})" for i, text in enumerate(texts) if text not in allowed},
        f"has a {column.name} that is none of {column.values[0]} to {column.values[-1]}",
    )
    return column.answers(tokenizer, [int(text) for text in texts])


def _text_answers(path: Path, answers: list[list[str]], tokenizer: Tokenizer) -> Ids:
    ids = [[tokenizer.encode(text) for text in both] for both in answers]
    bad = {}
    for i, (texts, tokens) in enumerate(zip(answers, ids, strict=True)):
        split = [f"{t!r} is {len(k)}" for t, k in zip(texts, tokens, strict=True) if len(k) != 1]
        if split:
            bad[i] = f" ({', '.join(split)})"
    _refuse(
        path,
        bad,
        f"has an answer that is not one token for {tokenizer.name}; answers are tokenised as "
        "written, so a leading space counts",
    )
    return np.array(ids)[:, :, 0]


def _id_answers(path: Path, answers: list[list[str]], tokenizer: Tokenizer) -> Ids:
    def is_token(text: str) -> bool:
        return text.strip().isdigit() and int(text) < tokenizer.size

    _refuse(
        path,
        {
            i: f" ({', '.join(both)})"
            for i, both in enumerate(answers)
            if not all(map(is_token, both))
        },
        f"has an answer that is no token id of {tokenizer.name}: 0 to {tokenizer.size - 1}",
    )
    return np.array([[int(text) for text in both] for both in answers])


def _strata(path: Path, rows: list[Row]) -> tuple[Ids, Ids, Ids]:
    """Cluster, template and half of each row; a template's clusters alternate between halves.

    A cluster that several templates have stays in the half where it comes first.
    """
    templates: dict[str, int] = {}
    clusters: dict[str, tuple[int, int]] = {}
    seen: dict[int, int] = {}
    found: list[tuple[int, int, int]] = []
    stratum = next((name for name in STRATA if name in rows[0]), "")
    for row in rows:
        template = templates.setdefault(row.get(stratum, ""), len(templates))
        key = row.get("cluster", "\n".join(sorted((row["clean"], row["corrupted"]))))
        if key not in clusters:
            clusters[key] = (len(clusters), (seen.get(template, 0) + template) % 2)
            seen[template] = seen.get(template, 0) + 1
        cluster, half = clusters[key]
        found.append((cluster, template, half))
    cluster_of, template_of, half_of = np.array(found).T
    return cluster_of, template_of, half_of


def _refuse(path: Path, bad: Mapping[int, str], what: str) -> None:
    """Name every row at fault, counted from 1 after the header.

    Raises:
        UsageError: There are any.
    """
    if bad:
        shown = ", ".join(f"{i + 1}{detail}" for i, detail in list(bad.items())[:SHOWN])
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise UsageError(f"{path}: row {shown}{more} {what}")
