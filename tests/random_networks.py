"""Hundreds of small random networks with an untrained twin each, cheaply, for calibration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from mechtests.errors import LoadError
from mechtests.models.cell import Cell, Loaded
from mechtests.models.components import Linear, Norm
from mechtests.models.network import Network
from tests.fake_source import FakeSource
from tests.planted import IOI_WORDS, jittered
from tests.tiny import tiny

SMALL = {"vocab_size": IOI_WORDS.size, "bos_token_id": 0, "eos_token_id": 0}
NEW = {
    **SMALL,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 12,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
}
OLD = {**SMALL, "n_embd": 48, "n_layer": 2, "n_head": 12, "n_inner": 48, "n_positions": 128}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt_neox": NEW,
    "gpt2": OLD,
    "llama": NEW,
    "gemma2": {**NEW, "head_dim": 4, "layer_types": ["sliding_attention", "full_attention"]},
}
SCALES = (0.02, 0.12, 0.4)
"""Of the weights, in turn: as new models are made, as in ``tiny``, and with sharp attention."""
UNTRAINED = 10**6
"""Seeds of the untrained twins begin here."""


@dataclass(frozen=True)
class Recipe:
    """Random weights that a network of this architecture is to have."""

    architecture: str
    seed: int
    scale: float
    jitter: float = 0.0


bridged = Network.from_model  # before a test replaces it


@lru_cache
def built(architecture: str) -> Network:
    model = tiny(architecture, **ARCHITECTURES[architecture])
    return bridged(model, name=architecture, check=False)


def filled(recipe: Recipe) -> Network:
    """The network of the recipe: the one of its architecture with every weight drawn again.

    Building it anew (the model, the bridge, its hooks) takes longer than all measurements.
    """
    network = built(recipe.architecture)
    generator = torch.Generator().manual_seed(recipe.seed)
    for tensor in weights_of(network):
        noise = torch.randn(tensor.shape, generator=generator)
        tensor.copy_(recipe.scale * noise + (1.0 if tensor.ndim == 1 else 0.0))
    for bias in biases_of(network):
        bias.copy_(recipe.scale * torch.randn(bias.shape, generator=generator))
    jittered(weights_of(network), recipe.jitter)
    network.digest = repr(recipe)
    return network


def parts_of(network: Network) -> Iterator[Linear | Norm]:
    for block in network.blocks:
        yield from (part for part in vars(block).values() if isinstance(part, Linear | Norm))
    yield from (network.final_norm, network.unembedding)


def weights_of(network: Network) -> Iterator[torch.Tensor]:
    """Matrices, and the gains of norms, which are around 1."""
    for part in parts_of(network):
        yield part.weight if isinstance(part, Linear) else part.gain
    yield network._embedding.weight
    if network._positions is not None:
        yield network._positions.weight


def biases_of(network: Network) -> Iterator[torch.Tensor]:
    yield from (part.bias for part in parts_of(network) if part.bias is not None)


@dataclass(frozen=True)
class Random(FakeSource):
    """A random network, and an untrained twin with another seed, as new models are made."""

    jitter: float = 0.0

    def tokenizer(self) -> Any:
        return IOI_WORDS

    def config(self, checkpoint: Any, *, offline: bool) -> dict[str, Any]:
        raise LoadError(f"{self.name}: its configuration is not needed")

    def load(self, checkpoint: Any, *, untrained_seed: int | None = None, **how: Any) -> Loaded:
        scale = SCALES[self.seed % len(SCALES)]
        seed = self.seed
        if untrained_seed is not None:
            scale, seed = SCALES[0], UNTRAINED + self.seed
        return Loaded(Recipe(self.architecture, seed, scale, self.jitter), IOI_WORDS, {})


def random_cell(seed: int, jitter: float = 0.0) -> Cell:
    architecture = list(ARCHITECTURES)[seed % len(ARCHITECTURES)]
    return Random(f"random-{seed}", architecture, seed, jitter=jitter).cell


def from_recipe(model: Any, *, name: str) -> Network:
    return filled(model) if isinstance(model, Recipe) else bridged(model, name=name, check=False)
