"""A model of which only a recording is here: nothing is loaded, nothing is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from mechtests.errors import LoadError
from mechtests.models import recording
from mechtests.models.cell import Checkpoint, Json, Kind


@dataclass(frozen=True)
class RecordedSource:
    """The recorded values of a model (``models.recording``).

    Attributes:
        model: The model's own name: ``"pythia-410m"``.
    """

    model: str

    @property
    def name(self) -> str:
        """``"recorded:pythia-410m"``: never taken for the model itself."""
        return f"{recording.PREFIX}{self.model}"

    @property
    def kind(self) -> Kind:
        """``"recorded"``."""
        return "recorded"

    def checkpoints(self, *, offline: bool = True) -> tuple[Checkpoint, ...]:
        """The moments at which anything is recorded."""
        return recording.read(self.model).checkpoints

    def identity(self, checkpoint: Checkpoint | None, *, offline: bool = True) -> dict[str, Json]:
        """The model's name and the digest of its recording."""
        return {recording.KEY: self.model, "sha256": recording.read(self.model).sha256}

    def download_bytes(self, checkpoint: Checkpoint | None, *, offline: bool = True) -> int:
        """Nothing."""
        return 0

    def _no_model(self, *_: object, **__: object) -> NoReturn:
        raise LoadError(
            f"{self.name} is a recording, which has no weights and no configuration; name the "
            f"model itself, {self.model}, to measure it"
        )

    config = fetch = load = _no_model
