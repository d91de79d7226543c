"""Tiny models as folders that ``from_pretrained`` reads, with a word-level tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.tiny import tiny
from tests.words import Words


def word_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of ``words.Words`` in the Hugging Face format."""
    vocabulary = Words().vocabulary
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<bos>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?\w+|[^\w\s]| "), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>")


def save(folder: Path, *, seed: int = 0, architecture: str = "gpt_neox", model: Any = None) -> Path:
    """Write a random tiny model, or the one that is given."""
    model = model or tiny(architecture, seed=seed, vocab_size=Words().size)
    model.config.max_position_embeddings = 256
    model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder
