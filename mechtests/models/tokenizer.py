"""A Hugging Face tokenizer as tasks see it: token ids, a BOS policy, a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mechtests.errors import LoadError

FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt")
"""Files that hold a vocabulary; a folder with none of them has no tokenizer."""

EXTRAS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


class CellTokenizer:
    """The tokenizer of a cell; satisfies ``tasks.prompts.Tokenizer``.

    Prompts start with BOS exactly where the model's own tokenizer puts it before plain
    text; a chat template is never used.

    Attributes:
        name: The model it belongs to.
        size: How many token ids the model knows (rows of its embedding).
        bos: The token every prompt starts with, or None.
        policy: The BOS policy in words, for the facts of a measurement.
        digest: SHA-256 over the vocabulary, the merges and the splitting rules.
        speak: ``speak(seed)`` gives documents of the model's own language, where we make it.
    """

    speak: Callable[[int], Iterator[str]] | None = None

    def __init__(
        self,
        tokenizer: Any,
        *,
        name: str,
        vocabulary: int,
        unseen: Callable[..., bool] | None = None,
    ) -> None:
        """Wrap a tokenizer of ``transformers`` for a model of ``vocabulary`` rows.

        Args:
            tokenizer: The tokenizer of ``transformers``.
            name: The model it belongs to.
            vocabulary: Rows of the model's embedding.
            unseen: ``unseen(kind, *items)`` where it is known which combinations were held
                out of the model's training; without it every combination counts as unseen.

        Raises:
            LoadError: The tokenizer and the model do not belong together.
        """
        _check_size(tokenizer, name, vocabulary)
        self._tokenizer = tokenizer
        self.name = name
        self.size = vocabulary
        self._unseen = unseen
        self.bos = _own_bos(tokenizer)
        self.policy = "no BOS" if self.bos is None else f"BOS {self.bos} before every prompt"
        self.digest = _digest(tokenizer)

    def encode(self, text: str) -> list[int]:
        """The token ids of a text, without any special token."""
        return [int(i) for i in self._tokenizer(text, add_special_tokens=False)["input_ids"]]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some token ids, spaces as they are."""
        return str(self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def unseen(self, kind: str, *items: str) -> bool:
        """Whether a combination was held out of training, as far as is known."""
        return self._unseen is None or self._unseen(kind, *items)


def read(
    folder: Path, *, name: str, vocabulary: int, unseen: Callable[..., bool] | None = None
) -> CellTokenizer:
    """The tokenizer in a model's folder.

    Raises:
        LoadError: The folder has no tokenizer files (transformers would silently make up
            a tokenizer of two tokens), they cannot be read, or do not fit the model.
    """
    if not any((folder / file).is_file() for file in FILES):
        raise LoadError(
            f"{name}: the folder {folder} has no tokenizer files (one of {', '.join(FILES)} is "
            f"needed); copy the tokenizer files of the model it was trained from into it"
        )
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise LoadError(
            f"{name}: the tokenizer in {folder} cannot be read ({first_line(error)}); download "
            f"or copy its files again"
        ) from error
    return CellTokenizer(tokenizer, name=name, vocabulary=vocabulary, unseen=unseen)


def first_line(error: Exception) -> str:
    """What a library had to say, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check_size(tokenizer: Any, name: str, vocabulary: int) -> None:
    known = int(tokenizer.vocab_size)  # without added ones: Gemma 3 1B has one it never uses
    if known > vocabulary:
        raise LoadError(
            f"{name}: its tokenizer has {known} tokens but the model only {vocabulary} "
            f"embeddings; the tokenizer files belong to another model"
        )
    if 2 * known < vocabulary:
        raise LoadError(
            f"{name}: its tokenizer has only {known} tokens for the model's {vocabulary} "
            f"embeddings; the tokenizer files are missing, cut short, or of another model"
        )


def _own_bos(tokenizer: Any) -> int | None:
    first = tokenizer("a")["input_ids"][:1]
    bos = tokenizer.bos_token_id
    return int(bos) if bos is not None and list(first) == [bos] else None


def _digest(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        content: Any = sorted(tokenizer.get_vocab().items())
    else:
        content = json.loads(backend.to_str())
        for state in ("version", "padding", "truncation"):
            content.pop(state, None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
