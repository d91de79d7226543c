"""GGUF files of planted models, and copies of GGUF files at another precision or with noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

BLOCK = 32
"""A quantised row is made of blocks of so many weights, which share a scale."""

_LAYER = {
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
}
"""transformers' names of GPT-2's weights, and GGUF's."""


def write_gpt2(path: Path, model: Any, kind: Kind = Kind.F32) -> Path:
    """A GPT-2 of transformers as a GGUF file, its tokens named by letters and numbers."""
    config = model.config
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_name(path.stem)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.n_inner)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_tokenizer_model("gpt2")
    names = ["<s>", "a", "b", "ab", *(f"a{i}" for i in range(4, config.vocab_size))]
    writer.add_token_list(names)
    writer.add_token_types([1] * config.vocab_size)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    for name, values in _tensors(model).items():
        _add(writer, name, values, kind)
    return _written(writer, path)


def _tensors(model: Any) -> dict[str, NDArray[np.float32]]:
    """Every weight under GGUF's name, matrices as rows of what they give."""
    state = {name: value.detach().float().numpy() for name, value in model.state_dict().items()}
    made = {
        "token_embd.weight": state["transformer.wte.weight"],
        "position_embd.weight": state["transformer.wpe.weight"],
        "output_norm.weight": state["transformer.ln_f.weight"],
        "output_norm.bias": state["transformer.ln_f.bias"],
    }
    for layer in range(model.config.n_layer):
        for theirs, ours in _LAYER.items():
            for part in ("weight", "bias"):
                values = state[f"transformer.h.{layer}.{theirs}.{part}"]
                made[f"blk.{layer}.{ours}.{part}"] = values.T if values.ndim == 2 else values
    return made


def requantized(source: Path, path: Path, kind: Kind, *, noise: float = 0.0, seed: int = 0) -> Path:
    """A copy of a GGUF file with its matrices in another type.

    Args:
        source: The file.
        path: Where the copy is written.
        kind: The type of the copy's matrices; other tensors stay as they are.
        noise: Standard deviation of what is added to each matrix, in standard deviations of it.
        seed: Of the noise.
    """
    reader = gguf.GGUFReader(source)
    generator = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, str(reader.fields["general.architecture"].contents()))
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            inner = field.types[1] if field.types[0] is gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), field.types[0], sub_type=inner)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        if values.ndim == 2 and noise:
            drawn = generator.standard_normal(values.shape, dtype=np.float32)
            values = values + noise * values.std() * drawn
        _add(writer, tensor.name, values, kind)
    return _written(writer, path)


def _add(writer: gguf.GGUFWriter, name: str, values: NDArray[np.float32], kind: Kind) -> None:
    """A tensor; what is no matrix of whole blocks stays in 32 bits."""
    whole = values.ndim == 2 and values.shape[1] % BLOCK == 0
    own = kind if whole else Kind.F32
    made = np.ascontiguousarray(values, dtype=np.float32)
    writer.add_tensor(name, gguf.quantize(made, own), raw_dtype=own)


def _written(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
