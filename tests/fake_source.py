"""A source of tiny models for tests of what stands above the models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mechtests.errors import LoadError
from mechtests.models.cell import Cell, Checkpoint, Loaded
from tests.tiny import tiny
from tests.words import Words


@dataclass(frozen=True)
class FakeSource:
    """A tiny random model; its loads are counted."""

    name: str = "tiny-llama"
    architecture: str = "llama"
    seed: int = 0
    broken: str = ""
    names: tuple[str, ...] | None = None
    loads: list[str] = field(default_factory=list, compare=False, hash=False)
    model: Any = field(default=None, compare=False, hash=False)
    kind: str = "folder"
    steps: tuple[Checkpoint, ...] = ()

    def tokenizer(self) -> Words:
        return Words() if self.names is None else Words(names=self.names)

    def checkpoints(self, *, offline: bool) -> tuple[Checkpoint, ...]:
        return self.steps

    def at(self, checkpoint: Checkpoint) -> Cell:
        return Cell(self.name, checkpoint, self)  # type: ignore[arg-type]

    def identity(self, checkpoint: Any, *, offline: bool) -> Mapping[str, str]:
        if self.broken == "identity":
            raise LoadError(f"{self.name}: not cached, and the network may not be asked")
        return {
            "sha256": hashlib.sha256(
                f"{self.architecture}{self.seed}{checkpoint}".encode()
            ).hexdigest()
        }

    def config(self, checkpoint: Any, *, offline: bool) -> dict[str, Any]:
        return dict(self._model(0).config.to_dict())

    def download_bytes(self, checkpoint: Any, *, offline: bool) -> int:
        return 0

    def _model(self, seed: int) -> Any:
        size = self.tokenizer().size
        return tiny(self.architecture, seed=seed, vocab_size=size, max_position_embeddings=256)

    def load(
        self, checkpoint: Any, *, dtype: str, device: str, offline: bool, untrained_seed: Any = None
    ) -> Loaded:
        self.loads.append("untrained" if untrained_seed is not None else "trained")
        if self.broken == "load":
            raise LoadError(f"{self.name}: model.safetensors is truncated; delete it")
        step = 0 if checkpoint is None else checkpoint.step
        model = self._model(self.seed + step if untrained_seed is None else 1000)
        if self.broken == "nan":
            model.model.norm.weight.data[:] = float("nan")
        return Loaded(self.model or model, self.tokenizer(), {"bos": "none"})

    @property
    def cell(self) -> Cell:
        return Cell(self.name, None, self)  # type: ignore[arg-type]
