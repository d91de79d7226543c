"""Measurements on disk, addressed by what was asked for.

An entry is two files: ``<key>.safetensors`` with the arrays and ``<key>.json`` with the
request, the facts and the SHA-256 of the arrays. The JSON file is written last, so an entry
without it does not exist; two writers of one key write the same thing. Beside them
``texts/<digest>.json`` has prompts as text, a user's own too, for reports to show.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechtests.errors import MeasurementError, NotApplicable

if TYPE_CHECKING:
    from mechtests.measurement import Measurement

SCHEMA = 1
Json = Any


class StoreWarning(UserWarning):
    """Something about the store the user should know; nothing measured was lost."""


def default_folder() -> Path:
    """``MECHTESTS_CACHE``, or the user's cache folder for mechtests."""
    import platformdirs

    return Path(
        os.environ.get("MECHTESTS_CACHE")
        or platformdirs.user_cache_dir("mechtests", appauthor=False)
    )


class Store:
    """Measurements by key, in a folder or at any fsspec URL.

    What cannot be written (a read-only or full disk) is kept in memory for this process and
    said once. A damaged entry counts as missing, with a warning, and is measured again.

    Args:
        url: A folder or an fsspec URL such as ``s3://bucket/mechtests``.
        beside: A second one that is only read, for what the first does not have.
    """

    def __init__(self, url: str | Path, beside: str | Path | None = None) -> None:
        from fsspec.core import url_to_fs

        self.url = str(url)
        self._files, self._root = url_to_fs(self.url)
        self._local = "file" in self._files.protocol
        self._beside = None if beside is None else Store(beside)
        self._kept: dict[str, Measurement | NotApplicable] = {}
        self._unwritten: dict[str, tuple[dict[str, Json], bytes | None]] = {}

    def _path(self, key: str, suffix: str) -> str:
        return f"{self._root.rstrip('/')}/v{SCHEMA}/{key[:2]}/{key}.{suffix}"

    def has(self, key: str) -> bool:
        """Whether an entry is there and whole; a damaged one counts as missing, with a warning."""
        try:
            return self.get(key) is not None
        except NotApplicable:
            return True

    def get(self, key: str) -> Measurement | None:
        """The measurement of a key, or None where it is missing or damaged.

        Raises:
            NotApplicable: What is stored is that the task does not apply, and why.
        """
        if key not in self._kept:
            try:
                self._kept[key] = self._read(key)
            except (ValueError, KeyError, TypeError, OSError) as error:
                if not isinstance(error, FileNotFoundError | NotADirectoryError):
                    warnings.warn(
                        f"the stored measurement {key[:12]} in {self.url} is damaged "
                        f"({type(error).__name__}: {error}); it will be measured again",
                        StoreWarning,
                        stacklevel=2,
                    )
                return None if self._beside is None else self._beside.get(key)
        found = self._kept[key]
        if isinstance(found, NotApplicable):
            raise found
        return found

    def _read(self, key: str) -> Measurement | NotApplicable:
        from safetensors.numpy import load

        from mechtests.measurement import Measurement

        entry = json.loads(self._files.cat_file(self._path(key, "json")))
        if entry["schema"] != SCHEMA or entry["key"] != key:
            raise ValueError("its facts belong to another entry")
        if reason := entry.get("not_applicable"):
            return NotApplicable(reason)
        payload = self._files.cat_file(self._path(key, "safetensors"))
        if hashlib.sha256(payload).hexdigest() != entry["sha256"]:
            raise ValueError("its values do not have the recorded digest")
        arrays = load(payload)
        prompt = {name: arrays.pop(f"prompt.{name}") for name in ("cluster", "template", "half")}
        return Measurement(
            name=entry["name"],
            values=arrays,
            axes={name: tuple(axes) for name, axes in entry["axes"].items()},
            units=entry["units"],
            facts=entry["facts"],
            **prompt,
        )

    def put(self, key: str, measurement: Measurement, request: Json) -> None:
        """Keep a measurement under its key, in memory where the disk refuses it."""
        import numpy as np
        from safetensors.numpy import save

        self._kept[key] = measurement
        arrays = {name: np.ascontiguousarray(array) for name, array in measurement.values.items()}
        for name in ("cluster", "template", "half"):
            arrays[f"prompt.{name}"] = np.ascontiguousarray(getattr(measurement, name))
        payload = save(arrays)
        facts = {
            "name": measurement.name,
            "axes": {name: list(axes) for name, axes in measurement.axes.items()},
            "units": dict(measurement.units),
            "facts": dict(measurement.facts),
            "sha256": hashlib.sha256(payload).hexdigest(),
        }
        self.write({"schema": SCHEMA, "key": key, "request": request, **facts}, payload)

    def put_not_applicable(self, key: str, reason: str, request: Json) -> None:
        """Keep that a task does not apply to a cell, and why."""
        self._kept[key] = NotApplicable(reason)
        entry = {"schema": SCHEMA, "key": key, "request": request, "not_applicable": reason}
        self.write(entry, None)

    def write(self, entry: dict[str, Json], payload: bytes | None) -> None:
        """Write an entry as it is; what the disk refuses stays in memory."""
        key = entry["key"]
        try:
            if payload is not None:
                self._replace(self._path(key, "safetensors"), payload)
            self._replace(self._path(key, "json"), json.dumps(entry, indent=1).encode())
        except OSError as error:
            if not self._unwritten:
                warnings.warn(
                    f"the store {self.url} cannot be written ({error}); measurements are kept for "
                    "this run only. Give another folder with --mech-cache or MECHTESTS_CACHE",
                    StoreWarning,
                    stacklevel=3,
                )
            self._unwritten[key] = entry, payload

    @property
    def unwritten(self) -> bool:
        """Whether something is in memory only."""
        return bool(self._unwritten)

    def put_texts(self, digest: str, texts: Sequence[str]) -> None:
        """Keep prompts as text by their digest, for reports; what cannot be written is not kept."""
        path = self._texts(digest)
        try:
            if not self._files.exists(path):
                self._replace(path, json.dumps(list(texts)).encode())
        except OSError:
            return

    def texts(self, digest: str) -> list[str] | None:
        """Prompts as text, or None where they are not kept."""
        try:
            found: list[str] = json.loads(self._files.cat_file(self._texts(digest)))
        except (OSError, ValueError):
            return None if self._beside is None else self._beside.texts(digest)
        return found

    def _texts(self, digest: str) -> str:
        return f"{self._root.rstrip('/')}/v{SCHEMA}/texts/{digest}.json"

    def copy_unwritten(self, other: Store) -> None:
        """Write into another store what could not be written into this one."""
        for entry, payload in self._unwritten.values():
            other.write(entry, payload)

    def _replace(self, path: str, payload: bytes) -> None:
        """Write under another name first, so that a reader never sees half a file."""
        folder, _, name = path.rpartition("/")
        temporary = f"{folder}/.{name}.{uuid.uuid4().hex}"
        self._files.makedirs(folder, exist_ok=True)
        try:
            if self._local:
                with Path(temporary).open("wb") as file:
                    file.write(payload)
                    file.flush()
                    os.fsync(file.fileno())
                Path(temporary).replace(path)
            else:
                self._files.pipe_file(path, payload)
        finally:
            if self._local:
                Path(temporary).unlink(missing_ok=True)

    def require(self, key: str, name: str) -> Measurement:
        """The measurement of a key.

        Raises:
            MeasurementError: It is missing or damaged.
            NotApplicable: What is stored is that the task does not apply.
        """
        found = self.get(key)
        if found is None:
            raise MeasurementError(
                f"{name}: needed the stored measurement {key[:12]}, and {self.url} does not have "
                "it; run once without --mech-replay to measure it"
            )
        return found
