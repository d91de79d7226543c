"""A folder of Hugging Face files: one model, or a series of ``stepN/`` folders."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mechtests.errors import LoadError, UsageError
from mechtests.models import loading, tokenizer
from mechtests.models.cell import FINAL, Checkpoint, Json, Kind, Loaded

STEP_FOLDER = re.compile(r"(?:step|checkpoint|ckpt)[-_]?(\d+)")
"""The names of folders that are checkpoints of a series."""


@dataclass(frozen=True)
class LocalSource:
    """A model, or the checkpoints of one, in a local folder.

    Attributes:
        name: The short name.
        path: The folder: it has a ``config.json``, or ``stepN/`` or ``checkpoint-N/``
            folders that have one, or both (then its own weights are the final ones).
        cache: Where SHA-256 of large files are remembered, or None.
    """

    name: str
    path: Path
    cache: Path | None = None

    @property
    def kind(self) -> Kind:
        """``"folder"``."""
        return "folder"

    def checkpoints(self, *, offline: bool = True) -> tuple[Checkpoint, ...]:
        """By step; tokens where the Trainer counted them (``num_input_tokens_seen``)."""
        found = [
            Checkpoint(folder.name, int(match[1]), _tokens_seen(folder))
            for folder in sorted(self.path.iterdir())
            if (match := STEP_FOLDER.fullmatch(folder.name)) and (folder / "config.json").is_file()
        ]
        found.sort(key=lambda checkpoint: checkpoint.step or 0)
        if found and (self.path / "config.json").is_file():
            found.append(Checkpoint(FINAL))
        return tuple(found)

    def identity(self, checkpoint: Checkpoint | None, *, offline: bool = True) -> dict[str, Json]:
        """One SHA-256 over the files that loading reads."""
        folder = self._folder(checkpoint)
        names = {"config.json", *tokenizer.FILES, *tokenizer.EXTRAS, *loading.weight_files(folder)}
        files = [folder / name for name in sorted(names) if (folder / name).is_file()]
        digests = [f"{path.name} {file_digest(path, self.cache)}" for path in files]
        return {"sha256": hashlib.sha256("\n".join(digests).encode()).hexdigest()}

    def config(self, checkpoint: Checkpoint | None, *, offline: bool = True) -> dict[str, Json]:
        """The folder's ``config.json``."""
        return loading.read_config(self._folder(checkpoint), self.name)

    def download_bytes(self, checkpoint: Checkpoint | None, *, offline: bool = True) -> int:
        """Nothing."""
        return 0

    def fetch(self, checkpoint: Checkpoint | None = None, *, offline: bool = False) -> Path:
        """The checkpoint's folder."""
        return self._folder(checkpoint)

    def load(
        self,
        checkpoint: Checkpoint | None,
        *,
        dtype: str,
        device: str,
        offline: bool = True,
        untrained_seed: int | None = None,
    ) -> Loaded:
        """The model in the checkpoint's folder (see ``cell.Source.load``)."""
        return loading.from_folder(
            self._folder(checkpoint),
            name=self.name,
            dtype=dtype,
            device=device,
            untrained_seed=untrained_seed,
            remedy="copy or save it again",
        )

    def _folder(self, checkpoint: Checkpoint | None) -> Path:
        if checkpoint is None or checkpoint.label == FINAL:
            return self.path
        folder = self.path / checkpoint.label
        if not folder.is_dir():
            raise UsageError(f"{self.name}: the folder {self.path} has no {checkpoint.label}")
        return folder


def file_digest(path: Path, cache: Path | None) -> str:
    """SHA-256 of a file; read again only when its size or time has changed.

    What is remembered lies in ``digests.json`` of the cache folder, which may be missing,
    damaged or read-only: then the file is simply read.

    Raises:
        LoadError: The file cannot be read.
    """
    try:
        status = path.stat()
        key, stamp = str(path.resolve()), [status.st_size, status.st_mtime_ns]
        memory = cache / "digests.json" if cache is not None else None
        known = read_json(memory).get(key)
        if isinstance(known, list) and known[:2] == stamp:
            return str(known[2])
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise LoadError(f"{path} cannot be read ({error.strerror})") from error
    if memory is not None:
        write_json(memory, {**read_json(memory), key: [*stamp, digest]})
    return digest


def write_json(path: Path, content: Mapping[str, Json]) -> None:
    """Write a small JSON file at once or not at all; a folder that refuses is let be."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=path.parent, suffix=".json")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(content, stream)
        Path(draft).replace(path)


def read_json(path: Path | None) -> dict[str, Json]:
    """What a small JSON file says; empty where it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path is not None else {}
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _tokens_seen(folder: Path) -> int | None:
    state = read_json(folder / "trainer_state.json")
    tokens = state.get("num_input_tokens_seen")
    return int(tokens) if isinstance(tokens, int | float) and tokens > 0 else None
