"""Downloading a commit of a hub repository: what it has, room for it, and a way to stop."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mechtests.errors import LoadError
from mechtests.models.hub_cache import folder_of
from mechtests.models.hub_errors import sentences

PATIENCE = 0.1  # seconds to wait for the lock of a file that is being downloaded


class NoRoomError(LoadError):
    """The disk is too full for a download."""


class StoppedError(LoadError):
    """A download was called off."""


class Listed(NamedTuple):
    """A file as the hub lists it: its bytes, and what the cache calls its content."""

    size: int
    blob: str


def ask(repo: str, commit: str) -> dict[str, Listed]:
    """The files of a commit, by name.

    Raises:
        LoadError: The hub does not say.
    """
    from huggingface_hub import HfApi

    with sentences(repo):
        info = HfApi().model_info(repo, revision=commit, files_metadata=True)
    return {
        file.rfilename: Listed(file.size or 0, file.lfs.sha256 if file.lfs else file.blob_id or "")
        for file in info.siblings or ()
    }


def missing(folder: Path, commit: str, files: Mapping[str, Listed]) -> int:
    """The bytes of files of a commit that a repository's folder has under no revision."""
    snapshot, blobs = folder / "snapshots" / commit, folder / "blobs"
    return sum(
        listed.size
        for name, listed in files.items()
        if not (snapshot / name).exists() and not (listed.blob and (blobs / listed.blob).exists())
    )


def download(
    repo: str,
    revision: str,
    cache: Path,
    *,
    small: Sequence[str],
    large: Sequence[str],
    commit: str,
    bars: type[Any] | None = None,
) -> str:
    """Download files of a revision, the small ones first; gives the commit that came.

    The revision is asked for by its name, so that the cache remembers it for an offline run.
    Large files come one after the other in the calling thread: the library's own threads
    would hold the process back when it is to end.

    Args:
        repo: ``owner/name``.
        revision: A branch or tag.
        cache: The hub cache.
        small: Configuration and tokenizer files.
        large: The weights, which are not asked for where another commit comes.
        commit: The commit that is expected.
        bars: The class of the progress bars (see ``bars``), or None for the library's own.

    Raises:
        LoadError: The hub or the disk refuses.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    with sentences(repo):
        folder = snapshot_download(
            repo,
            revision=revision,
            cache_dir=cache,
            allow_patterns=list(small),
            tqdm_class=bars,
        )
        came = Path(folder).name
        for name in large if came == commit else ():
            file = hf_hub_download(repo, name, revision=revision, cache_dir=cache, tqdm_class=bars)
            came = Path(file).parents[name.count("/")].name
    return came


def check_room(cache: Path, size: int, what: str) -> None:
    """Refuse a download that the disk has no room for.

    Args:
        cache: The cache, which may not exist yet.
        size: Bytes to download.
        what: What they are, beginning a sentence.

    Raises:
        NoRoomError: The disk has fewer bytes free.
    """
    there = next(path for path in (cache.absolute(), *cache.absolute().parents) if path.exists())
    room = shutil.disk_usage(there).free
    if room < size:
        raise NoRoomError(
            f"{what}: {size / 1e6:,.1f} MB are to be downloaded into {cache}, and its disk has "
            f"{room / 1e6:,.1f} MB free; make room there, or set HF_HOME to another folder"
        )


def sweep(cache: Path, repo: str, blobs: Iterable[str]) -> None:
    """Delete what downloads of these blobs left half done when their process was killed.

    The hub library takes no such file up again. One that is being downloaded is locked, and
    stays.
    """
    from filelock import Timeout
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    folder = folder_of(cache, repo)
    for blob in blobs:
        halves = list((folder / "blobs").glob(f"{blob}.*incomplete")) if blob else []
        if halves:
            lock = cache / ".locks" / folder.name / f"{blob}.lock"
            with contextlib.suppress(OSError, Timeout), WeakFileLock(lock, timeout=PATIENCE):
                for half in halves:
                    half.unlink(missing_ok=True)


def bars(stop: threading.Event, *, shown: bool) -> type[Any]:
    """Progress bars for the hub library that end a download when ``stop`` is set."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        """Told of every chunk."""

        def __init__(self, *args: Any, **how: Any) -> None:
            super().__init__(*args, **(how if shown else {**how, "disable": True}))  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            if stop.is_set():
                raise StoppedError("the download was called off")
            return super().update(n)  # type: ignore[no-any-return]

    return Bar
