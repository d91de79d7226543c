from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from mechtests import given
from mechtests.engine import prompts_of
from mechtests.errors import LoadError, NotApplicable, UsageError
from mechtests.models import datasets, sources
from mechtests.settings import Settings
from mechtests.sprout import corpus
from mechtests.tasks.function_words import is_function_word
from mechtests.tasks.text import LENGTH, generate, identity, read, text
from tests import hub_server
from tests.words import Words

WORDS = Words(bos=0)
PLAIN = Words(bos=None)
LONG = "Then, Mary and John went to the store. " * 10
SHORT = "Mary and John went."


def lines(n: int) -> list[str]:
    return [f"{LONG} {'John ' * i}" for i in range(n)]


def written(path: Path, ending: str, rows: list[str]) -> str:
    file = path / f"rows.{ending}"
    if ending == "txt":
        file.write_text("\n\n".join(rows), encoding="utf-8")
    elif ending == "jsonl":
        file.write_text("".join(json.dumps({"id": 1, "text": row}) + "\n" for row in rows))
    elif ending == "csv":
        with file.open("w", newline="") as out:
            csv.writer(out).writerows([("id", "text"), *((1, row) for row in rows)])
    else:
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.table({"text": rows}), file)
    return str(file)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet", "txt"])
def test_a_document_is_the_first_61_tokens_of_each_row_that_is_long_enough(
    tmp_path: Path, ending: str
) -> None:
    rows = [LONG, *([SHORT] if ending != "txt" else []), *lines(20)]
    made = read(WORDS, written(tmp_path, ending, rows), 17)
    assert made.clean.shape == (17, LENGTH)
    assert (made.clean[:, 0] == WORDS.bos).all()
    expected = WORDS.encode(LONG)[: LENGTH - 1]
    assert made.clean[0, 1:].tolist() == expected
    assert made.cluster.tolist() == list(range(17))
    assert made.half.tolist() == [i % 2 for i in range(17)]
    assert (made.positions["END"] == LENGTH - 1).all()


def test_without_bos_the_text_itself_fills_all_61_tokens(tmp_path: Path) -> None:
    made = read(PLAIN, written(tmp_path, "jsonl", lines(17)), 17)
    assert made.clean[0].tolist() == PLAIN.encode(LONG)[:LENGTH]


def test_windows_start_at_paragraphs_join_short_ones_and_share_no_text(tmp_path: Path) -> None:
    names = [first + second for first in "abcdefgh" for second in "abcdefgh"]
    paragraphs = [f"Mary gave {name} the ring." + " the store" * 3 for name in names]
    made = read(PLAIN, written(tmp_path, "txt", paragraphs), 20)
    # each is a third to a half of a document; the rest of the last one is left out
    starts = [names.index(row[10:12]) for row in made.texts]
    assert all(row.startswith("Mary gave ") for row in made.texts)
    assert {after - before for before, after in pairwise(starts)} <= {2, 3}


def test_a_text_with_fewer_documents_than_asked_for_gives_what_it_has(tmp_path: Path) -> None:
    assert len(read(WORDS, written(tmp_path, "jsonl", lines(20)), 50)) == 20


@pytest.mark.parametrize("ending", ["jsonl", "csv", "txt"])
def test_under_8_documents_a_half_are_not_applicable(tmp_path: Path, ending: str) -> None:
    file = written(tmp_path, ending, lines(15))
    with pytest.raises(NotApplicable, match="has 15 documents of 61 tokens, and 16 are needed"):
        read(WORDS, file, 50)


def test_without_a_text_it_is_said_what_to_give() -> None:
    with pytest.raises(NotApplicable, match=r"--mech-prompts text=FILE.*hf:owner/name"):
        generate(WORDS, 17, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", '{"body": "x"}\n', "row 1 has no 'text'"),
        ("a.jsonl", "no json\n", "the rows cannot be read"),
        ("a.csv", "body\nx\n", "row 1 has no 'text'"),
        ("a.txt", b"\xff\xfe\xff", "a text is read in UTF-8"),
    ],
)
def test_a_file_that_is_no_text_is_a_sentence(
    tmp_path: Path, name: str, content: str | bytes, sentence: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=sentence):
        read(WORDS, str(file), 17)


def test_a_parquet_file_needs_its_column_and_pyarrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"body": ["x"]}), file)
    with pytest.raises(UsageError, match="no column 'text'; found body"):
        read(WORDS, str(file), 17)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="needs pyarrow: pip install pyarrow"):
        read(WORDS, str(file), 17)


def test_function_words_marks_and_bos_are_marked(tmp_path: Path) -> None:
    made = read(WORDS, written(tmp_path, "jsonl", lines(17)), 17)
    marked = {WORDS.decode([t]) for t in np.unique(made.clean[made.tokens["function"] == 1])}
    others = {WORDS.decode([t]) for t in np.unique(made.clean[made.tokens["function"] == 0])}
    assert marked == {"<bos>", "Then", ",", " and", " to", " the", ".", " "}
    assert {" Mary", " John", " went"} <= others
    assert is_function_word(WORDS, WORDS.encode(" the")[0])


# ---------------------------------------------------------------- the option


def test_a_given_text_is_read_by_the_task_and_its_bytes_are_in_the_key(tmp_path: Path) -> None:
    file = written(tmp_path, "txt", lines(20))
    task, path = given.file(f"text={file}", offline=True)
    settings = Settings(prompts={task: path}, prompt_digests={task: given.identity(task, path)})
    assert given.counts([(task, path)]) == {}
    assert len(prompts_of(text, WORDS, settings)) == 17
    before = identity(file)
    Path(file).write_text("\n\n".join(lines(21)))
    assert identity(file) != before


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("text", "is text=FILE or hf:owner/name with a file that exists"),
        ("text=none.txt", "is text=FILE or hf:owner/name with a file that exists"),
        ("ioi=none.csv", r"is TASK=FILE\.csv with a file that exists"),
        ("text=hf:nothing", "is written hf:owner/name"),
    ],
)
def test_what_cannot_be_read_is_a_usage_error(said: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        given.file(said, offline=True)


def test_a_file_of_another_kind_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "a.pdf"
    file.write_bytes(b"x")
    with pytest.raises(UsageError, match=r"a text is read from a \.txt, \.jsonl"):
        given.identity("text", str(file))


# ---------------------------------------------------------------- datasets of the hub


def served(path: Path) -> Path:
    folder = path / "dataset"
    folder.mkdir()
    written(folder, "txt", lines(18))
    written(folder, "jsonl", lines(20))
    (folder / "README.md").write_text("about it\n")
    return folder


ASK = (
    "import sys; from mechtests import given\n"
    "from mechtests.errors import MechtestsError\n"
    "try: print(given.file(sys.argv[1], offline=len(sys.argv) > 2)[1])\n"
    "except MechtestsError as error: print(type(error).__name__, error)\n"
)


def ask(cache: Path, url: str, *words: str) -> str:
    """The hub library reads its settings when it is imported, so each question is a process."""
    found = subprocess.run(
        [sys.executable, "-c", ASK, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0"},
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


def test_a_dataset_of_the_hub_is_downloaded_once_and_then_had_offline(tmp_path: Path) -> None:
    with hub_server.serving() as hub:
        hub.add("someone/prose", "main", served(tmp_path))
        first = ask(tmp_path / "cache", hub.url, "text=hf:someone/prose")
        assert Path(first).name == "rows.jsonl"
        assert len(read(WORDS, first, 50)) == 20
        asked = len(hub.asked)
        assert ask(tmp_path / "cache", hub.url, "text=hf:someone/prose", "offline") == first
        assert len(hub.asked) == asked
        missing = ask(tmp_path / "cache", hub.url, "text=hf:someone/nothing")
        assert missing.startswith("LoadError")
        assert "datasets/someone/nothing" in missing
    again = ask(tmp_path / "cache", hub.url, "text=hf:someone/prose")  # it is gone by now
    assert again == first
    unreachable = ask(tmp_path / "empty", hub.url, "text=hf:someone/prose")
    assert unreachable.startswith("UnreachableError")


def test_a_dataset_without_a_file_of_text_is_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "README.md").write_text("about it\n")
    with hub_server.serving() as hub:
        hub.add("someone/none", "main", folder)
        said = ask(tmp_path / "cache", hub.url, "text=hf:someone/none")
    assert said.startswith("UsageError")
    assert "this dataset has README.md" in said


def test_offline_without_a_copy_it_is_said_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(LoadError, match=r"not in the cache .* run once with network access"):
        datasets.text_file("hf:someone/prose", offline=True)


# ---------------------------------------------------------------- the sprout family


@pytest.fixture(scope="module")
def sprout() -> Iterator[object]:
    source = sources.resolve("sprout-100k")
    loaded = source.load(None, dtype="float32", device="cpu", offline=True)
    return loaded.tokenizer


def test_sprout_speaks_its_own_language_without_a_file(sprout) -> None:
    made = prompts_of(text, sprout, Settings(profile="standard"))
    assert made.clean.shape == (50, LENGTH)
    assert (made.clean[:, 0] == sprout.bos).all()
    unknown = corpus.ids()["<unk>"]
    assert not (made.clean == unknown).any()
    assert (made.clean[:, 1:] == sprout.bos).any()  # several documents in one


def test_sprouts_text_is_the_same_every_time_and_a_prefix_of_more(sprout) -> None:
    some = generate(sprout, 17, np.random.default_rng(5))
    more = generate(sprout, 50, np.random.default_rng(5))
    np.testing.assert_array_equal(some.clean, more.clean[:17])
    other = generate(sprout, 17, np.random.default_rng(6))
    assert (some.clean != other.clean).any()


def test_sprouts_text_is_made_of_whole_documents_of_the_corpus_grammar(sprout) -> None:
    words = [words for _, words in islice(corpus.documents(3), 200)]
    spoken = list(islice(sprout.speak(3), 200))
    ids = corpus.ids()
    for said, document in zip(spoken, words, strict=True):
        assert sprout.encode(said) == [ids[word] for word in document]
