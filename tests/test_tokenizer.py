"""A Hugging Face tokenizer as tasks see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mechtests.errors import LoadError
from mechtests.models.tokenizer import CellTokenizer, read
from mechtests.tasks.prompts import Tokenizer
from tests import folders

SIZE = folders.VOCABULARY


def wrap(**made: object) -> CellTokenizer:
    return CellTokenizer(folders.tokenizer(**made), name="tiny", vocabulary=SIZE)  # type: ignore[arg-type]


def test_it_is_what_a_task_needs() -> None:
    found: Tokenizer = wrap()
    assert (found.name, found.size) == ("tiny", SIZE)
    assert found.encode("the cat sat") == [2, 3, 4]
    assert found.decode([2, 3, 4]) == "the cat sat"


def test_bos_is_prepended_exactly_where_the_own_tokenizer_does_so() -> None:
    with_bos, without = wrap(bos=True), wrap(bos=False)
    assert with_bos.bos == 1
    assert with_bos.policy == "BOS 1 before every prompt"
    assert without.bos is None
    assert without.policy == "no BOS"


def test_combinations_count_as_unseen_unless_it_is_known_which_are() -> None:
    assert wrap().unseen("years", "17", "32")
    known = CellTokenizer(
        folders.tokenizer(),
        name="tiny",
        vocabulary=SIZE,
        unseen=lambda kind, *items: (kind, *items) == ("years", "17", "32"),
    )
    assert known.unseen("years", "17", "32")
    assert not known.unseen("years", "17", "33")


def test_encoding_never_adds_a_special_token() -> None:
    assert wrap(bos=True).encode("Mary") == wrap(bos=False).encode("Mary") == [8]


def test_decoding_keeps_spaces_as_they_are() -> None:
    words = (*folders.WORDS[:-1], ".")
    assert wrap(words=words).decode([2, words.index(".")]) == "the ."


def test_the_digest_names_the_vocabulary_and_the_rules_and_nothing_else(tmp_path: Path) -> None:
    digest = wrap().digest
    folders.tokenizer().save_pretrained(tmp_path)
    assert read(tmp_path, name="again", vocabulary=SIZE).digest == digest
    assert wrap(bos=True).digest != digest
    assert wrap(words=(*folders.WORDS[:-1], "other")).digest != digest
    padded = folders.tokenizer()
    padded.backend_tokenizer.enable_padding(length=4)
    assert CellTokenizer(padded, name="tiny", vocabulary=SIZE).digest == digest


def test_a_folder_without_tokenizer_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt_neox"}')
    with pytest.raises(LoadError, match=r"tiny: the folder .* has no tokenizer files"):
        read(tmp_path, name="tiny", vocabulary=SIZE)


def test_a_damaged_tokenizer_file_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    folders.tokenizer().save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": ')
    with pytest.raises(LoadError, match=r"tiny: the tokenizer in .* cannot be read \("):
        read(tmp_path, name="tiny", vocabulary=SIZE)


def test_a_tokenizer_with_more_tokens_than_the_model_is_an_error() -> None:
    with pytest.raises(LoadError, match=f"has {len(folders.WORDS)} tokens but the model only 10"):
        CellTokenizer(folders.tokenizer(), name="tiny", vocabulary=10)


def test_a_tokenizer_of_two_tokens_for_a_large_model_is_an_error() -> None:
    with pytest.raises(LoadError, match="only 24 tokens for the model's 50000 embeddings"):
        CellTokenizer(folders.tokenizer(), name="tiny", vocabulary=50_000)
