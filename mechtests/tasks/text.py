"""Text: documents of 61 tokens, for scores of what heads do on ordinary prose.

Source: Tigges et al. 2024 and its code, which takes 17 documents of OpenWebText and their first
61 tokens, BOS among them. Where we differ: no text is shipped or fetched unasked. The sprout
family is measured on its own language, on documents made for this; any other model on a text the
user gives, in the order of the file.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mechtests.errors import NotApplicable, UsageError
from mechtests.tasks.function_words import is_function_word
from mechtests.tasks.prompts import Prompts, Reader, Task, Tokenizer, padded

LENGTH = 61
FEWEST = 16
"""Eight documents a half: with fewer a verdict is inconclusive anyway (claims.md, Intervals)."""
COLUMN = "text"
GIVE = (
    "give one with --mech-prompts text=FILE, a .txt file (paragraphs apart by an empty line) or a "
    ".jsonl, .csv or .parquet file with a column 'text', or with "
    "--mech-prompts text=hf:owner/name, a dataset of the Hugging Face hub"
)


@runtime_checkable
class Speaker(Protocol):
    """A tokenizer of a model whose own language can be made at will."""

    @property
    def speak(self) -> Callable[[int], Iterator[str]] | None:
        """``speak(seed)`` gives documents without end that are not those of training."""
        ...


def generate(tokenizer: Tokenizer, n: int, generator: np.random.Generator) -> Prompts:
    """So many documents of the model's own language, several joined where they are short.

    Raises:
        NotApplicable: The language is not known, so that a text must be given.
    """
    speak = tokenizer.speak if isinstance(tokenizer, Speaker) else None
    if speak is None:
        raise NotApplicable(f"{tokenizer.name}: no text was given; {GIVE}")
    spoken = speak(int(generator.integers(2**31)))
    return documents(tokenizer, [_joined(tokenizer, spoken) for _ in range(n)])


def read(tokenizer: Tokenizer, path: str, n: int) -> Prompts:
    """The first n documents of a file that are long enough, or as many as there are.

    Raises:
        UsageError: The file cannot be read or has no column ``text``.
        NotApplicable: It has fewer than 16 documents of 61 tokens for this tokenizer.
    """
    file = Path(path)
    cut = _windows(tokenizer, file) if file.suffix == ".txt" else _rows(tokenizer, file)
    found = list(islice(cut, n))
    if len(found) < FEWEST:
        raise NotApplicable(
            f"{tokenizer.name}: {path} has {len(found)} documents of {LENGTH} tokens, and "
            f"{FEWEST} are needed; give a longer text"
        )
    return documents(tokenizer, found)


def documents(tokenizer: Tokenizer, tokens: list[list[int]]) -> Prompts:
    """Prompts of documents of one length; each is a cluster, and they alternate between halves.

    ``tokens["function"]``, shape ``[prompt, position]``, is 1 where a function word, a mark or
    BOS stands and else 0.
    """
    clean = padded(tokens)
    plain = {int(token): is_function_word(tokenizer, int(token)) for token in np.unique(clean)}
    length = np.array([len(ids) for ids in tokens])
    return Prompts(
        clean=clean,
        length=length,
        cluster=np.arange(len(tokens)),
        template=np.zeros(len(tokens), dtype=np.int64),
        half=np.arange(len(tokens)) % 2,
        texts=tuple(map(tokenizer.decode, tokens)),
        positions={"END": length - 1},
        tokens={"function": np.array([[int(plain[token]) for token in ids] for ids in tokens])},
    )


def identity(path: str) -> str:
    """SHA-256 of the bytes of a file of text, before any model is loaded.

    Raises:
        UsageError: It is of no kind that is read here, or cannot be read.
    """
    file = Path(path)
    if file.suffix not in (".txt", *_COLUMNS):
        raise UsageError(f"{path}: a text is read from a {', '.join(('.txt', *_COLUMNS))} file")
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"{path}: the text cannot be read: {error}") from error


def _start(tokenizer: Tokenizer) -> list[int]:
    return [] if tokenizer.bos is None else [tokenizer.bos]


def _joined(tokenizer: Tokenizer, spoken: Iterator[str]) -> list[int]:
    """Documents one behind the other, each behind BOS, as a row of training has them."""
    tokens: list[int] = []
    while len(tokens) < LENGTH:
        tokens += [*_start(tokenizer), *tokenizer.encode(next(spoken))]
    return tokens[:LENGTH]


def _rows(tokenizer: Tokenizer, file: Path) -> Iterator[list[int]]:
    """A document of each row; those that are too short are left out."""
    for text in _column(file):
        tokens = [*_start(tokenizer), *tokenizer.encode(text)]
        if len(tokens) >= LENGTH:
            yield tokens[:LENGTH]


def _windows(tokenizer: Tokenizer, file: Path) -> Iterator[list[int]]:
    """Documents that start where a paragraph does and share none."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: a text is read in UTF-8: {error}") from error
    text = "\n".join(line.strip() for line in lines)
    joined = ""
    for paragraph in filter(None, (part.strip() for part in text.split("\n\n"))):
        joined = f"{joined}\n\n{paragraph}" if joined else paragraph
        tokens = [*_start(tokenizer), *tokenizer.encode(joined)]
        if len(tokens) >= LENGTH:
            yield tokens[:LENGTH]
            joined = ""


def _column(file: Path) -> Iterator[str]:
    """The texts of a table, row by row.

    Raises:
        UsageError: It cannot be read, or has no column ``text``.
    """
    try:
        for number, text in enumerate(_COLUMNS[file.suffix](file), 1):
            if not isinstance(text, str):
                raise UsageError(f"{file}: row {number} has no {COLUMN!r}, or one that is no text")
            yield text
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{file}: the rows cannot be read: {error}") from error


def _of_jsonl(file: Path) -> Iterator[Any]:
    with file.open(encoding="utf-8-sig") as lines:
        for line in filter(str.strip, lines):
            row = json.loads(line)
            yield row.get(COLUMN) if isinstance(row, dict) else None


def _of_csv(file: Path) -> Iterator[Any]:
    with file.open(newline="", encoding="utf-8-sig") as lines:
        for row in csv.DictReader(lines):
            yield row.get(COLUMN)


def _of_parquet(file: Path) -> Iterator[Any]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(
            f"{file}: reading a .parquet file needs pyarrow: pip install pyarrow, or write the "
            f"texts as .jsonl, a row {{{COLUMN!r}: ...}} each"
        ) from error
    table = parquet.ParquetFile(file)
    if COLUMN not in table.schema_arrow.names:
        raise UsageError(
            f"{file}: no column {COLUMN!r}; found {', '.join(table.schema_arrow.names)}"
        )
    for batch in table.iter_batches(batch_size=64, columns=[COLUMN]):
        yield from batch.column(0).to_pylist()


_COLUMNS: dict[str, Callable[[Path], Iterator[Any]]] = {
    ".jsonl": _of_jsonl,
    ".csv": _of_csv,
    ".parquet": _of_parquet,
}

text = Task(
    name="text",
    version=1,
    generate=generate,
    sizes={"quick": 17, "standard": 50, "full": 100},
    longest=LENGTH,
    reader=Reader(identity, read),
)
