"""Tiny random decoders of every architecture, made so that no part of them is trivial."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import transformers

from mechtests.models.network import Network

VOCABULARY = 120
WINDOW = 5
LAYERS = 3
HEADS = 4

_NEW = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 96,
    "max_position_embeddings": 64,
}
_OLD = {
    "vocab_size": VOCABULARY,
    "n_embd": 64,
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_inner": 96,
    "n_positions": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_GROUPED = {**_NEW, "num_key_value_heads": 2}
_GEMMA = {
    **_GROUPED,
    "head_dim": 24,
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "query_pre_attn_scalar": 20,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_MADE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt_neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", {**_NEW, "rotary_pct": 0.25}),
    "gpt_neox_sequential": (
        "GPTNeoXForCausalLM",
        "GPTNeoXConfig",
        {**_NEW, "rotary_pct": 0.5, "use_parallel_residual": False},
    ),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", _OLD),
    "gptj": ("GPTJForCausalLM", "GPTJConfig", {**_OLD, "rotary_dim": 8}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", _GROUPED),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", _GROUPED),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**_GROUPED, "head_dim": 24}),
    "gemma2": (
        "Gemma2ForCausalLM",
        "Gemma2Config",
        {**_GEMMA, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 4.0},
    ),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", _GEMMA),
}
ARCHITECTURES = list(_MADE)


def tiny(name: str, seed: int = 0, dtype: torch.dtype = torch.float32, **config: Any) -> Any:
    """A random Hugging Face decoder: 3 layers, 4 heads, width 64.

    Matrices are scaled up so that attention is far from uniform; norms and biases are
    perturbed so that no norm is the identity. Gemma's sliding layers see 5 positions.

    Args:
        name: One of ARCHITECTURES.
        seed: Equal seeds give equal weights.
        dtype: Of the weights, which are drawn in fp32.
        config: Overrides of the configuration.
    """
    model_class, config_class, settings = _MADE[name]
    made = getattr(transformers, config_class)(
        **{**settings, **config}, attn_implementation="eager"
    )
    generator = torch.Generator().manual_seed(seed)
    model = getattr(transformers, model_class)(made).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 2:
                parameter.copy_(0.12 * noise)
            else:
                parameter.add_(0.3 * noise)
    return model.to(dtype).requires_grad_(False)


def prompts(seed: int = 0, n: int = 3, position: int = 11) -> torch.Tensor:
    """Random token ids, shape ``[prompt, position]``; longer than the window."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCABULARY, (n, position), generator=generator)


@lru_cache
def plain(name: str) -> Any:
    """The plain Hugging Face model, never bridged: the oracle."""
    return tiny(name)


@lru_cache
def network(name: str, dtype: torch.dtype = torch.float32) -> Network:
    """The network of the same weights; shared between tests, so never change it."""
    return Network.from_model(tiny(name, dtype=dtype), name=name, check=False)


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest expected value."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())
