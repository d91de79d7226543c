"""The tokenizer of the small language: one word, one token; a year is two."""

from __future__ import annotations

import json
from pathlib import Path

from mechtests.sprout.corpus import CONTEXT, ids
from mechtests.sprout.lexicon import BOS, UNKNOWN
from mechtests.sprout.words import WORD


def write(folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` as transformers reads them.

    A space before a word changes nothing, and BOS comes before every text, as before every
    document of the corpus.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel(ids(), unk_token=UNKNOWN))
    tokenizer.add_special_tokens([BOS, UNKNOWN])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, ids()[BOS])]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": BOS,
        "unk_token": UNKNOWN,
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": True,
    }
    text = json.dumps(settings, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
