"""A low-rank adapter on a model: ``base+adapter`` is a cell whose weights are merged.

Merging is exact: ``W + s B A`` with ``s = alpha / r``, or ``alpha / sqrt(r)`` of rank-stabilized
adapters (rsLoRA), as the adapter adds it at every position. What changes the model in another way
is refused by a sentence.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechtests.errors import LoadError, UsageError
from mechtests.models.cell import Checkpoint, Json, Kind, Loaded, Source
from mechtests.models.local import file_digest

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
SEPARATOR = "+"
PREFIX = "base_model.model."
INITIALISED = (True, False, "gaussian", "orthogonal", "eva")
"""Ways to initialise that leave the base model's weights as they were."""
_NONE: Mapping[str, tuple[Json, ...]] = {
    "use_dora": (None, False),
    "use_qalora": (None, False),
    "bias": (None, "none"),
    "lora_bias": (None, False),
    "modules_to_save": (None, []),
    "alpha_pattern": (None, {}),
    "layer_replication": (None, []),
    "trainable_token_indices": (None, [], {}),
    "target_parameters": (None, []),
    "megatron_config": (None,),
    "arrow_config": (None,),
    "alora_invocation_tokens": (None, []),
}
"""What an adapter may say of itself and still be a sum of low-rank products."""


@dataclass(frozen=True)
class AdapterSource:
    """A model with an adapter merged into its final weights.

    Attributes:
        base: The model the adapter was trained on.
        folder: The adapter's folder, as ``save_pretrained`` of peft or the Trainer writes it.
        cache: Where SHA-256 of files are remembered, or None.
    """

    base: Source
    folder: Path
    cache: Path | None = None

    @property
    def name(self) -> str:
        """The base's name and the folder's."""
        return f"{self.base.name}{SEPARATOR}{self.folder.name}"

    @property
    def kind(self) -> Kind:
        """That of the base."""
        return self.base.kind

    def checkpoints(self, *, offline: bool) -> tuple[Checkpoint, ...]:
        """None: an adapter belongs to one checkpoint, the base's last."""
        return ()

    def identity(self, checkpoint: Checkpoint | None, *, offline: bool) -> Mapping[str, Json]:
        """The base's, and one SHA-256 over the adapter's configuration and weights."""
        digests = [
            f"{name} {file_digest(self._file(name), self.cache)}" for name in (CONFIG, WEIGHTS)
        ]
        sha = hashlib.sha256("\n".join(digests).encode()).hexdigest()
        return {**self.base.identity(self._last(offline), offline=offline), "adapter": sha}

    def config(self, checkpoint: Checkpoint | None, *, offline: bool) -> dict[str, Json]:
        """The base's."""
        return self.base.config(self._last(offline), offline=offline)

    def download_bytes(self, checkpoint: Checkpoint | None, *, offline: bool) -> int:
        """What the base still needs."""
        return self.base.download_bytes(self._last(offline), offline=offline)

    def fetch(self, checkpoint: Checkpoint | None = None, *, offline: bool = False) -> Path:
        """The base's files; the adapter's are here."""
        return self.base.fetch(self._last(offline), offline=offline)

    def load(
        self,
        checkpoint: Checkpoint | None,
        *,
        dtype: str,
        device: str,
        offline: bool,
        untrained_seed: int | None = None,
    ) -> Loaded:
        """The base with the adapter merged; untrained it has none (see ``cell.Source.load``)."""
        loaded = self.base.load(
            self._last(offline),
            dtype=dtype,
            device=device,
            offline=offline,
            untrained_seed=untrained_seed,
        )
        if untrained_seed is None:
            merge(loaded.model, self.folder, self.name)
        return loaded

    def _last(self, offline: bool) -> Checkpoint | None:
        found = self.base.checkpoints(offline=offline)
        return found[-1] if found else None

    def _file(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise LoadError(
                f"{self.name}: the adapter {self.folder} has no {name}; save it with peft's "
                "save_pretrained(safe_serialization=True)"
            )
        return path


def resolve(base: Source, adapter: str, cache: Path | None) -> AdapterSource:
    """The source of a model and the folder of an adapter.

    Raises:
        UsageError: The folder is none of an adapter, or the base has no weights.
    """
    folder = Path(adapter).expanduser().absolute()
    if not (folder / CONFIG).is_file():
        raise UsageError(
            f"model {base.name}{SEPARATOR}{adapter}: {folder} has no {CONFIG}; after the + an "
            "adapter's local folder is named, as peft's save_pretrained writes it"
        )
    if base.kind == "recorded":
        raise UsageError(f"{base.name} is a recording without weights; name the model itself")
    return AdapterSource(base, folder, cache)


def merge(model: Any, folder: Path, name: str) -> None:
    """Add an adapter's low-rank products to a model's weights, in place.

    They are multiplied and added in at least fp32, and rounded once to the model's type.

    Args:
        model: The base model.
        folder: The adapter's.
        name: For messages.

    Raises:
        LoadError: The adapter is of another kind, or belongs to another model.
    """
    import torch

    config = _config(folder, name)
    factors = _factors(folder, name)
    modules = dict(model.named_modules())
    if unknown := sorted(set(factors) - set(modules)):
        raise LoadError(
            f"{name}: the adapter changes {len(unknown)} modules that the model does not have "
            f"({', '.join(unknown[:3])}); it was trained on another model"
        )
    with torch.no_grad():
        for at, (down, up) in sorted(factors.items()):
            _add(modules[at], at, down, up, config, name, model.get_input_embeddings().weight)


def _add(
    module: Any,
    at: str,
    down: Tensor,
    up: Tensor,
    config: Mapping[str, Json],
    name: str,
    tied: Tensor,
) -> None:
    """W + s B A, transposed where the module keeps its weight as ``[in, out]`` (GPT-2)."""
    import torch

    rank = down.shape[0]
    alpha = float(config.get("lora_alpha", rank))
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    weight = getattr(module, "weight", None)
    kind = type(module).__name__
    if kind not in ("Linear", "Conv1D") or weight is None:
        raise LoadError(f"{name}: the adapter changes {at}, a {kind}; only linear maps are merged")
    if weight is tied:
        raise LoadError(
            f"{name}: the adapter changes {at}, whose weight is the embedding too (tied), so that "
            "merging it would change both; untie the model, merge it with peft, and name its folder"
        )
    wide = torch.promote_types(weight.dtype, torch.float32)
    product = scale * (up.to(weight.device, wide) @ down.to(weight.device, wide))
    product = product.T if kind == "Conv1D" else product
    if product.shape != weight.shape:
        raise LoadError(
            f"{name}: the adapter's product for {at} is {tuple(product.shape)}, the model's "
            f"weight {tuple(weight.shape)}; it was trained on another model"
        )
    weight.copy_((weight.to(wide) + product).to(weight.dtype))


def _config(folder: Path, name: str) -> dict[str, Json]:
    """The adapter's configuration, if merging it is all there is to it.

    Raises:
        LoadError: It is damaged, no LoRA, or says something more.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = str(config.get("peft_type", "")).upper()
    except (OSError, ValueError, AttributeError) as error:
        raise LoadError(
            f"{name}: {path} cannot be read ({error}); save the adapter again"
        ) from error
    if kind != "LORA":
        raise LoadError(
            f"{name}: the adapter is of the kind {kind or 'unknown'}, and LoRA is merged"
        )
    said = {key: config.get(key) for key, fine in _NONE.items() if config.get(key) not in fine}
    if (start := config.get("init_lora_weights", True)) not in INITIALISED:
        said["init_lora_weights"] = start
    if said:
        listed = ", ".join(f"{key}={value!r}" for key, value in said.items())
        raise LoadError(
            f"{name}: the adapter says {listed}, which is more than W + s B A; merge it with peft "
            "(merge_and_unload), save the model, and name its folder"
        )
    return dict(config)


def _factors(folder: Path, name: str) -> dict[str, tuple[Tensor, Tensor]]:
    """A ``[rank, in]`` and B ``[out, rank]`` of each module.

    Raises:
        LoadError: The file is damaged, or has something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    if not path.is_file():
        raise LoadError(f"{name}: {folder} has no {WEIGHTS}; save the adapter as safetensors")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise LoadError(f"{name}: {path} is damaged ({error}); save the adapter again") from error
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        module, _, part = key.removeprefix(PREFIX).rpartition(".lora_")
        if not module or part not in ("A.weight", "B.weight") or tensor.ndim != 2:
            raise LoadError(
                f"{name}: the adapter holds {key}, which is no low-rank factor of a linear map; "
                "merge it with peft (merge_and_unload), save the model, and name its folder"
            )
        parts.setdefault(module, {})[part[0]] = tensor
    if halves := sorted(module for module, pair in parts.items() if set(pair) != {"A", "B"}):
        raise LoadError(f"{name}: of {', '.join(halves[:3])} one factor is missing in {path}")
    return {module: (pair["A"], pair["B"]) for module, pair in parts.items()}
