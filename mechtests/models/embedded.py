"""The models that come inside the package: the sprout family, with its training checkpoints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mechtests.errors import LoadError, UsageError
from mechtests.models import loading, tokenizer
from mechtests.models.cell import Checkpoint, Json, Kind, Loaded
from mechtests.models.local import file_digest

FAMILY = "sprout"
SIZES = ("sprout-100k", "sprout-400k", "sprout-1m")
"""The family over scale, smallest first."""
NAMES = (*SIZES, "sprout-400k-seed1", "sprout-1m-control")
"""All of them: a second seed of the middle size, and a control without mechanisms too."""
ROOT = Path(__file__).parents[1] / "sprout" / "models"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class EmbeddedSource:
    """One of our own models, its checkpoints being folders of the package.

    ``<root>/<name>/<label>/model.safetensors`` has the weights of a checkpoint, in half
    precision; ``config.json``, ``checkpoints.json`` and the tokenizer lie beside these
    folders, the tokenizer for the whole family in the root where a model has none.

    Attributes:
        name: The model's name.
        root: The family's folder.
    """

    name: str
    root: Path = ROOT

    @property
    def kind(self) -> Kind:
        """``"embedded"``."""
        return "embedded"

    @property
    def path(self) -> Path:
        """The model's folder."""
        return self.root / self.name

    def checkpoints(self, *, offline: bool = True) -> tuple[Checkpoint, ...]:
        """As the package lists them, in the order of training."""
        found = [Checkpoint(str(c["label"]), int(c["step"]), int(c["tokens"])) for c in self._list]
        return tuple(sorted(found, key=lambda checkpoint: checkpoint.step or 0))

    def identity(self, checkpoint: Checkpoint | None, *, offline: bool = True) -> dict[str, Json]:
        """One SHA-256 over the weights as listed, the configuration and the tokenizer."""
        names = ("config.json", *tokenizer.FILES, *tokenizer.EXTRAS)
        files = [path for name in names if (path := self._shared(name)) is not None]
        digests = [f"{path.name} {file_digest(path, None)}" for path in files]
        digests.append(f"{WEIGHTS} {self._listed(checkpoint)['sha256']}")
        return {"sha256": hashlib.sha256("\n".join(digests).encode()).hexdigest()}

    def config(self, checkpoint: Checkpoint | None = None, *, offline: bool = True) -> Json:
        """The model's ``config.json``, the same at every checkpoint."""
        return loading.read_config(self.path, self.name)

    def download_bytes(self, checkpoint: Checkpoint | None, *, offline: bool = True) -> int:
        """Nothing."""
        return 0

    def fetch(self, checkpoint: Checkpoint | None = None, *, offline: bool = False) -> Path:
        """The checkpoint's folder."""
        return self.path / str(self._listed(checkpoint)["label"])

    def load(
        self,
        checkpoint: Checkpoint | None,
        *,
        dtype: str,
        device: str,
        offline: bool = True,
        untrained_seed: int | None = None,
    ) -> Loaded:
        """The model of a checkpoint in the dtype asked for (see ``cell.Source.load``)."""
        if untrained_seed is None:
            self._verify(checkpoint)
        loaded = loading.from_folder(
            self.fetch(checkpoint),
            beside=(self.path, self.root),
            name=self.name,
            dtype=dtype,
            device=device,
            untrained_seed=untrained_seed,
            remedy=REMEDY,
            unseen=_held_out(),
        )
        loaded.tokenizer.speak = _documents
        return loaded

    def _verify(self, checkpoint: Checkpoint | None) -> None:
        """Refuse weights that are not the ones that were shipped."""
        path = self.fetch(checkpoint) / WEIGHTS
        listed = self._listed(checkpoint)["sha256"]
        if not path.is_file():
            raise LoadError(f"{self.name}: the weights file {path} is missing; {REMEDY}")
        if (found := file_digest(path, None)) != listed:
            raise LoadError(
                f"{self.name}: the weights file {path} is damaged (its SHA-256 is "
                f"{found[:12]}, and {listed[:12]} was shipped); {REMEDY}"
            )

    @property
    def _list(self) -> list[dict[str, Json]]:
        """What the package lists as the model's checkpoints."""
        path = self.path / "checkpoints.json"
        try:
            found: list[dict[str, Json]] = json.loads(path.read_text(encoding="utf-8"))
            if not found or not all({"label", "step", "tokens", "sha256"} <= set(c) for c in found):
                raise ValueError("a checkpoint has a label, step, tokens and sha256")
        except (OSError, ValueError, TypeError) as error:
            raise LoadError(
                f"{self.name}: its list of checkpoints {path} cannot be read ({error}); {REMEDY}"
            ) from error
        return found

    def _listed(self, checkpoint: Checkpoint | None) -> dict[str, Json]:
        """The entry of a checkpoint; None is the last one.

        Raises:
            UsageError: There is no such checkpoint.
        """
        listed = self._list
        if checkpoint is None:
            return max(listed, key=lambda each: int(each["step"]))
        for each in listed:
            if each["label"] == checkpoint.label:
                return each
        labels = ", ".join(str(each["label"]) for each in listed)
        raise UsageError(f"{self.name} has no checkpoint {checkpoint.label}; it has {labels}")

    def _shared(self, name: str) -> Path | None:
        """A file of the model, or else of the family."""
        return next((f / name for f in (self.path, self.root) if (f / name).is_file()), None)


REMEDY = "reinstall mechtests"


def _held_out() -> Callable[..., bool]:
    """What tells which combinations the training text never had."""
    from mechtests.sprout.held_out import unseen

    return unseen


def _documents(seed: int) -> Iterator[str]:
    """Documents of the training text's grammar; its rows are drawn from other seeds."""
    from mechtests.sprout import corpus

    return (" ".join(words) for _, words in corpus.documents(seed))
