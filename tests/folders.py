"""Folders, caches and GGUF files of tiny random models, as other tools would write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = ("<unk>", "<s>", "the", "cat", "sat", "on", "a", "mat", "Mary", "John", *"bcdefghijklmno")
VOCABULARY = 32


def tokenizer(*, bos: bool = False, words: tuple[str, ...] = WORDS) -> Any:
    """A Hugging Face tokenizer with a token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos:
        inner.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", unk_token="<unk>")


def neox(seed: int = 0, **config: Any) -> Any:
    """A random GPT-NeoX of one layer, two heads and width 16."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 32,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPTNeoXForCausalLM(
            GPTNeoXConfig(**{**settings, **config}, attn_implementation="eager")
        ).eval()


def write_model(folder: Path, seed: int = 0, *, tokenized: bool = True, **config: Any) -> Any:
    """Save a random model and its tokenizer into a folder; gives the model."""
    import torch
    from safetensors.torch import save_file

    model = neox(seed, **config)
    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    weights = {key: value.contiguous().clone() for key, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if tokenized:
        tokenizer().save_pretrained(folder)
    assert all(torch.isfinite(value).all() for value in weights.values())
    return model


def write_cached_revisions(cache: Path, repo: str, revisions: dict[str, int]) -> dict[str, str]:
    """A hub cache that holds revisions of a repository, each from a seed; gives the commits."""
    root = cache / f"models--{repo.replace('/', '--')}"
    commits = {}
    for revision, seed in revisions.items():
        commits[revision] = f"{seed:040x}"
        write_model(root / "snapshots" / commits[revision], seed)
        (root / "refs").mkdir(exist_ok=True)
        (root / "refs" / revision).write_text(commits[revision])
    return commits


def logits(model: Any) -> Any:
    """What a model says to a fixed prompt, shape ``[position, vocabulary]``."""
    import torch

    with torch.no_grad():
        return model(torch.tensor([[2, 3, 4, 5, 6, 7]])).logits[0]
