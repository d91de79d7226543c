"""From a plain Hugging Face decoder to a bridge over it, and what is recorded before."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from mechtests.errors import LoadError
from mechtests.models.blocks import ARCHITECTURES
from mechtests.models.shape import Shape


def refuse_unsupported(model: Any, name: str) -> None:
    """Refuse, by name, what the adapter was not made for.

    Raises:
        LoadError: The architecture or an option of it is not supported, or the model
            already is inside a network.
    """
    kind, config = type(model).__name__, model.config
    if kind not in ARCHITECTURES:
        raise LoadError(
            f"{name}: the architecture {kind} is not supported; supported are "
            f"{', '.join(ARCHITECTURES)}"
        )
    if any("_original_component" in parameter for parameter, _ in model.named_parameters()):
        raise LoadError(
            f"{name}: this model was bridged before; load it again and pass the new one"
        )
    unsupported = {
        "attention_bias": kind == "GPTNeoXForCausalLM" and not config.attention_bias,
        "add_cross_attention": getattr(config, "add_cross_attention", False),
        "use_bidirectional_attention": getattr(config, "use_bidirectional_attention", False),
    }
    for option, found in unsupported.items():
        if found:
            value = getattr(config, option)
            raise LoadError(
                f"{name}: {kind} needs {option}={not value}, its configuration says {value}; "
                "no measurement on it would be right"
            )


def digest_weights(model: Any) -> str:
    """SHA-256 over every tensor's name, type, shape and bytes, by name, tied ones once."""
    sha = hashlib.sha256()
    seen: set[int] = set()
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        sha.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        sha.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


@torch.no_grad()
def plain_logits(model: Any) -> tuple[Tensor, Tensor]:
    """Two fixed random prompts, and the plain model's logits at every position of them.

    Returns:
        Token ids ``[prompt, position]`` and logits ``[prompt, position, vocabulary]``.
    """
    position = min(12, Shape.from_config(model.config.to_dict()).positions)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.config.vocab_size, (2, position), generator=generator)
    tokens = tokens.to(model.device)
    return tokens, model(input_ids=tokens, use_cache=False).logits


def bridge_model(model: Any, name: str) -> Any:
    """A raw ``TransformerBridge`` over the model, in place: flags off, frozen.

    GPT-NeoX's fused projection is freed: the bridge computes with split copies of it
    only, and the original is a quarter of a block's weights.
    """
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    bridge = build_bridge_from_module(
        model, type(model).__name__, hf_config=model.config, model_name=name
    )
    if type(model).__name__ == "GPTNeoXForCausalLM":
        for block in bridge.blocks:
            fused = block.attn.qkv.original_component
            fused.weight = torch.nn.Parameter(fused.weight.new_empty(0))
            fused.bias = torch.nn.Parameter(fused.bias.new_empty(0))
    model.requires_grad_(False)
    return bridge
