"""A plain Hugging Face decoder cut into heads: what slow definitions of scores start from.

Nothing here passes through ``mechtests.models``, except that SmolLM2 is read from its file there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from mechtests.models import sources
from mechtests.store import default_folder
from tests.tiny import plain as plain_tiny


@dataclass(frozen=True)
class OneHead:
    """The maps of one head: ``value [head_width, width]``, ``output [width, head_width]``."""

    value: Tensor
    value_bias: Tensor | None
    output: Tensor


class Plain:
    """GPT-2, GPT-NeoX or Llama as Hugging Face runs it, with its parts under one name each."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.kind = model.config.model_type
        config = model.config
        self.layers, self.heads = config.num_hidden_layers, config.num_attention_heads
        self.head_width = config.hidden_size // self.heads
        body = {"gpt2": "transformer", "gpt_neox": "gpt_neox", "llama": "model"}[self.kind]
        self._body = getattr(model, body)
        self.unembed = model.get_output_embeddings()
        self.final_norm = {"gpt2": "ln_f", "gpt_neox": "final_layer_norm", "llama": "norm"}
        self.final_norm = getattr(self._body, self.final_norm[self.kind])

    def block(self, layer: int) -> Any:
        """The module of a block."""
        return (self._body.h if self.kind == "gpt2" else self._body.layers)[layer]

    def embedding(self, token: int) -> Tensor:
        """The row of the embedding, without any position."""
        row: Tensor = self.model.get_input_embeddings().weight[token]
        return row

    def ln1(self, layer: int) -> Any:
        """The norm before attention."""
        block = self.block(layer)
        return block.ln_1 if self.kind == "gpt2" else block.input_layernorm

    def ln2(self, layer: int) -> Any:
        """The norm before the MLP."""
        block = self.block(layer)
        return block.ln_2 if self.kind == "gpt2" else block.post_attention_layernorm

    def head(self, layer: int, head: int) -> OneHead:
        """One head's own weights, as each architecture lays them out."""
        block, size = self.block(layer), self.head_width
        mine = slice(head * size, (head + 1) * size)
        if self.kind == "gpt2":
            start = 2 * self.heads * size + head * size
            both = block.attn.c_attn
            return OneHead(
                both.weight[:, start : start + size].T,
                both.bias[start : start + size],
                block.attn.c_proj.weight[mine].T,
            )
        if self.kind == "gpt_neox":
            rows = slice(head * 3 * size + 2 * size, head * 3 * size + 3 * size)
            both = block.attention.query_key_value
            return OneHead(
                both.weight[rows], both.bias[rows], block.attention.dense.weight[:, mine]
            )
        attention, config = block.self_attn, self.model.config
        shared = head // (config.num_attention_heads // config.num_key_value_heads)
        rows = slice(shared * size, (shared + 1) * size)
        return OneHead(attention.v_proj.weight[rows], None, attention.o_proj.weight[:, mine])

    def run(self, tokens: list[int]) -> tuple[tuple[Tensor, ...], Tensor]:
        """One prompt alone: attention ``[head, query, key]`` by layer, and block 0's output."""
        out = self.model(torch.tensor([tokens]), output_attentions=True, output_hidden_states=True)
        return tuple(layer[0] for layer in out.attentions), out.hidden_states[1][0]


@lru_cache
def loaded_smollm2() -> Any:
    """SmolLM2 and its tokenizer, never bridged; skips where it was not fetched."""
    source = sources.resolve("smollm2-135m", cache=default_folder())
    try:
        return source.load(None, dtype="float32", device="cpu", offline=True)
    except Exception as error:
        pytest.skip(f"smollm2-135m is not here: {error}")


def plain(name: str) -> Plain:
    """The plain model of a name: ``"smollm2"``, or a tiny architecture."""
    return Plain(loaded_smollm2().model if name == "smollm2" else plain_tiny(name))
