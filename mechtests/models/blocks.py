"""One block of a decoder: its parts, read from a bridge, and the functions they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mechtests.models.components import Linear, Norm, Rotary

ARCHITECTURES = {
    "GPT2LMHeadModel": "gpt2",
    "GPTNeoXForCausalLM": "gpt_neox",
    "GPTJForCausalLM": "gptj",
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3_text",
}


@dataclass(frozen=True, eq=False)
class Block:
    """The parts of one block; tensors are views of the bridge's parameters.

    Attributes:
        ln1: What attention reads the residual stream through.
        ln2: What the MLP reads it through; ln1 again in GPT-J.
        query: To all query heads.
        key: To all key heads.
        value: To all value heads.
        output: From all heads to the residual stream.
        query_norm: Of each query (Qwen 3, Gemma 3), or None.
        key_norm: Of each key, or None.
        mlp_in: To the neurons.
        mlp_gate: To the gates of the neurons, or None.
        mlp_out: From the neurons.
        activation: Of the neurons, or of their gates.
        attention_post: Norm of what attention writes (Gemma), or None.
        mlp_post: Norm of what the MLP writes (Gemma), or None.
        rotary: None with learned positions.
        scale: Of attention scores.
        softcap: Of attention scores (Gemma 2), or None.
        window: How many positions a query sees, or None for all before it.
        parallel: The MLP reads what attention reads.
        head_width: Of a query, key or value.
    """

    ln1: Norm
    ln2: Norm
    query: Linear
    key: Linear
    value: Linear
    output: Linear
    query_norm: Norm | None
    key_norm: Norm | None
    mlp_in: Linear
    mlp_gate: Linear | None
    mlp_out: Linear
    activation: Callable[[Tensor], Tensor]
    attention_post: Norm | None
    mlp_post: Norm | None
    rotary: Rotary | None
    scale: float
    softcap: float | None
    window: int | None
    parallel: bool
    head_width: int

    @property
    def W_Q(self) -> Tensor:  # noqa: N802  (the field's name)
        """``[head, width, head_width]``."""
        return self._by_head(self.query)

    @property
    def W_K(self) -> Tensor:  # noqa: N802
        """``[key_value_head, width, head_width]``."""
        return self._by_head(self.key)

    @property
    def W_V(self) -> Tensor:  # noqa: N802
        """``[key_value_head, width, head_width]``."""
        return self._by_head(self.value)

    @property
    def W_O(self) -> Tensor:  # noqa: N802
        """``[head, head_width, width]``."""
        return self.output.weight.T.reshape(-1, self.head_width, self.output.weight.shape[0])

    def _by_head(self, linear: Linear) -> Tensor:
        width = linear.weight.shape[1]
        return linear.weight.view(-1, self.head_width, width).transpose(1, 2)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v before any norm or rotary, each ``[..., head, head_width]``."""
        parts = (self.query(x), self.key(x), self.value(x))
        q, k, v = (part.view(*part.shape[:-1], -1, self.head_width) for part in parts)
        return q, k, v

    def rotated_query(self, q: Tensor, positions: Tensor) -> Tensor:
        """The query as attention uses it: normed and rotated where the model does so."""
        q = q if self.query_norm is None else self.query_norm(q)
        return q if self.rotary is None else self.rotary(q, positions)

    def rotated_key(self, k: Tensor, positions: Tensor) -> Tensor:
        """The key as attention uses it: normed and rotated where the model does so."""
        k = k if self.key_norm is None else self.key_norm(k)
        return k if self.rotary is None else self.rotary(k, positions)

    def attention_out(self, z: Tensor) -> Tensor:
        """What attention writes, from z ``[..., head, head_width]``."""
        written = self.output(z.flatten(-2))
        return written if self.attention_post is None else self.attention_post(written)

    def neurons(self, x: Tensor) -> Tensor:
        """The MLP's neurons, after activation and gate, from its normed input ``[..., width]``."""
        if self.mlp_gate is None:
            return self.activation(self.mlp_in(x))
        return self.activation(self.mlp_gate(x)) * self.mlp_in(x)

    def mlp(self, x: Tensor) -> Tensor:
        """What the MLP writes, from its normed input ``[..., width]``."""
        return self.neurons_out(self.neurons(x))

    def neurons_out(self, neurons: Tensor) -> Tensor:
        """What the MLP writes, from its neurons ``[..., mlp_width]``."""
        written = self.mlp_out(neurons)
        return written if self.mlp_post is None else self.mlp_post(written)


def read_blocks(bridge: Any, config: Any, kind: str, *, parallel: bool) -> tuple[Block, ...]:
    """The blocks of a bridge whose wrapped model has this configuration and model type."""
    blocks = list(bridge.blocks)
    types = getattr(config, "layer_types", None) or ["full_attention"] * len(blocks)
    rotaries = {kept: _rotary(bridge, kind, kept) for kept in dict.fromkeys(types)}
    return tuple(
        _read_block(block, config, kind, rotaries[layer_type], parallel)
        for block, layer_type in zip(blocks, types, strict=True)
    )


def _read_block(block: Any, config: Any, kind: str, rotary: Rotary | None, parallel: bool) -> Block:
    attn, mlp = block.attn, block.mlp
    module = attn.original_component
    scale = module.scaling if hasattr(module, "scaling") else 1 / float(module.scale_attn)
    query = Linear.of(attn.q.original_component)
    parts = mlp.original_component
    return Block(
        ln1=Norm.of(block.ln1.original_component),
        ln2=Norm.of((block.ln2 if "ln2" in block.submodules else block.ln1).original_component),
        query=query,
        key=Linear.of(attn.k.original_component),
        value=Linear.of(attn.v.original_component),
        output=Linear.of(attn.o.original_component),
        query_norm=_norm(attn, "q_norm"),
        key_norm=_norm(attn, "k_norm"),
        mlp_in=Linear.of(mlp.submodules["in"].original_component),
        mlp_gate=Linear.of(mlp.gate.original_component) if "gate" in mlp.submodules else None,
        mlp_out=Linear.of(mlp.submodules["out"].original_component),
        activation=parts.act_fn if hasattr(parts, "act_fn") else parts.act,
        attention_post=_norm(block, "ln1_post"),
        mlp_post=_norm(block, "ln2_post"),
        rotary=rotary,
        scale=float(scale),
        softcap=config.attn_logit_softcapping if kind == "gemma2" else None,
        window=getattr(module, "sliding_window", None),
        parallel=parallel,
        head_width=query.weight.shape[0] // config.num_attention_heads,
    )


def _norm(parent: Any, name: str) -> Norm | None:
    if name not in parent.submodules:
        return None
    return Norm.of(getattr(parent, name).original_component)


def _rotary(bridge: Any, kind: str, layer_type: str) -> Rotary | None:
    """The model's own rotary embedding, or None where positions are learned."""
    if kind == "gpt2":
        return None
    attention = bridge.blocks[0].attn
    weight = attention.q.original_component.weight
    if kind == "gptj":
        return Rotary(lambda n: _sinusoids(attention.original_component, n, weight), True)
    module = bridge.rotary_emb.original_component
    by_type = {"layer_type": layer_type} if kind == "gemma3_text" else {}

    def source(n: int) -> tuple[Tensor, Tensor]:
        positions = torch.arange(n, device=weight.device)[None]
        cos, sin = module(weight.new_empty(0), positions, **by_type)
        return cos[0], sin[0]

    return Rotary(source, False)


def _sinusoids(module: Any, n: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """GPT-J's table, ``[sin | cos]`` of each pair of channels, one value for each channel."""
    sin, cos = module.embed_positions[:n].to(like).chunk(2, dim=-1)
    return cos.repeat_interleave(2, -1), sin.repeat_interleave(2, -1)
