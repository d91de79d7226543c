"""The sizes of a network, from its configuration alone: what a plan needs and no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mechtests.errors import LoadError

# model types of the configurations the adapter reads, and whether their embeddings are
# tied where the configuration does not say
TIED = {
    "gpt2": True,
    "gpt_neox": False,
    "gptj": False,
    "llama": False,
    "qwen2": False,
    "qwen3": False,
    "gemma2": True,
    "gemma3_text": True,
}
GATED = frozenset({"llama", "qwen2", "qwen3", "gemma2", "gemma3_text"})
POST_NORM = frozenset({"gemma2", "gemma3_text"})
HEAD_NORM = frozenset({"qwen3", "gemma3_text"})
LAYER_NORM = frozenset({"gpt2", "gpt_neox", "gptj"})


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder.

    Attributes:
        layers: Blocks.
        heads: Query heads of a block.
        key_value_heads: Key and value heads of a block; fewer with grouped queries.
        width: Of the residual stream.
        head_width: Of a query, a key and a value.
        mlp_width: Neurons of a block's MLP.
        vocabulary: Rows of the unembedding.
        parallel: The MLP reads what attention reads, not what it wrote.
        parameters: All parameters, tied ones once.
        block_parameters: Entries of the blocks' weight matrices: a forward pass takes
            twice as many floating point operations a token, attention itself apart.
        positions: The longest prompt the model was made for.
    """

    layers: int
    heads: int
    key_value_heads: int
    width: int
    head_width: int
    mlp_width: int
    vocabulary: int
    parallel: bool
    parameters: int
    block_parameters: int
    positions: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Shape:
        """The shape a Hugging Face ``config.json`` describes.

        Raises:
            LoadError: The architecture is not one the adapter knows.
        """
        kind = str(config.get("model_type"))
        if kind not in TIED:
            raise LoadError(
                f"a model of type {kind!r} is not supported; supported are {', '.join(TIED)}"
            )
        sizes = _old_names(config) if kind in ("gpt2", "gptj") else _new_names(config)
        parallel = kind == "gptj" or (
            kind == "gpt_neox" and bool(config.get("use_parallel_residual", True))
        )
        matrices = _matrices(kind, sizes)
        rest = _rest(kind, config, sizes)
        return cls(
            **sizes,
            parallel=parallel,
            parameters=matrices + rest,
            block_parameters=matrices,
        )


def _old_names(config: Mapping[str, Any]) -> dict[str, int]:
    width, heads = config["n_embd"], config["n_head"]
    return {
        "layers": config["n_layer"],
        "heads": heads,
        "key_value_heads": heads,
        "width": width,
        "head_width": width // heads,
        "mlp_width": config.get("n_inner") or 4 * width,
        "vocabulary": config["vocab_size"],
        "positions": config["n_positions"],
    }


def _new_names(config: Mapping[str, Any]) -> dict[str, int]:
    width, heads = config["hidden_size"], config["num_attention_heads"]
    return {
        "layers": config["num_hidden_layers"],
        "heads": heads,
        "key_value_heads": config.get("num_key_value_heads") or heads,
        "width": width,
        "head_width": config.get("head_dim") or width // heads,
        "mlp_width": config["intermediate_size"],
        "vocabulary": config["vocab_size"],
        "positions": config["max_position_embeddings"],
    }


def _matrices(kind: str, sizes: Mapping[str, int]) -> int:
    """Entries of all weight matrices of all blocks."""
    heads = 2 * sizes["heads"] + 2 * sizes["key_value_heads"]
    rows = heads * sizes["head_width"] + (3 if kind in GATED else 2) * sizes["mlp_width"]
    return sizes["layers"] * sizes["width"] * rows


def _rest(kind: str, config: Mapping[str, Any], sizes: Mapping[str, int]) -> int:
    """Embeddings, norms and biases."""
    width, vocabulary = sizes["width"], sizes["vocabulary"]
    tied = config.get("tie_word_embeddings", TIED[kind])
    embeddings = vocabulary * width * (1 if tied else 2)
    embeddings += sizes["positions"] * width if kind == "gpt2" else 0
    embeddings += vocabulary if kind == "gptj" else 0
    norms = {"gptj": 1}.get(kind, 4 if kind in POST_NORM else 2)
    norm = 2 * width if kind in LAYER_NORM else width
    head_norms = 2 * sizes["head_width"] if kind in HEAD_NORM else 0
    block = norms * norm + head_norms + _biases(kind, config, sizes)
    return embeddings + norm + sizes["layers"] * block


def _biases(kind: str, config: Mapping[str, Any], sizes: Mapping[str, int]) -> int:
    """Biases of one block."""
    queries = sizes["heads"] * sizes["head_width"]
    keys_values = 2 * sizes["key_value_heads"] * sizes["head_width"]
    attention = queries + keys_values + sizes["width"]
    mlp = sizes["mlp_width"] * (2 if kind in GATED else 1) + sizes["width"]
    if kind in ("gpt2", "gpt_neox"):
        return attention + mlp
    if kind == "gptj":
        return mlp
    if kind == "qwen2":
        return queries + keys_values
    return (attention if config.get("attention_bias") else 0) + (
        mlp if config.get("mlp_bias") else 0
    )
