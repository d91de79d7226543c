"""The hub library's cache of a repository, and weights that leave it again.

What a series downloads only to be measured is *borrowed*: a mark in the repository's folder
says which weight files of a commit, ``<repository>/.borrowed-<commit>``. Whoever frees weights
frees those and no others, so that what somebody else downloaded stays; and what a run that
was killed had borrowed is freed by the run that takes it up.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path

from mechtests.errors import LoadError
from mechtests.models import loading

TRIES, PAUSE = 10, 0.1  # the library's scan stumbles over a reference that is being written


def is_offline(offline: bool) -> bool:
    """Whether the hub may not be asked: by the run, or by the variables its libraries read."""
    words = (os.environ.get(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return offline or any((word or "").upper() in ("1", "ON", "YES", "TRUE") for word in words)


def folder_of(cache: Path, repo: str, kind: str = "models") -> Path:
    """The folder a cache keeps a repository in: of ``"models"`` or ``"datasets"``."""
    return cache / f"{kind}--{repo.replace('/', '--')}"


def refs(folder: Path) -> dict[str, str]:
    """Revision to commit, as a repository's folder remembers them."""
    there = folder / "refs"
    return {
        path.relative_to(there).as_posix(): path.read_text(encoding="utf-8").strip()
        for path in sorted(there.rglob("*"))
        if path.is_file()
    }


def complete(
    cache: Path, repo: str, commit: str, *, small: Collection[str], weights_too: bool
) -> bool:
    """Whether the cache has the configuration of a commit, its small files and its weights."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot_download(
            repo,
            revision=commit,
            cache_dir=cache,
            local_files_only=True,
            allow_patterns=list(small),
        )
    except LocalEntryNotFoundError:
        return False
    folder = folder_of(cache, repo) / "snapshots" / commit
    files = loading.weight_files(folder)
    here = bool(files) and all((folder / file).exists() for file in files)
    return (folder / "config.json").is_file() and (here or not weights_too)


def weights(snapshot: Path) -> frozenset[str]:
    """The weight files of a commit that are here; an index of shards is none."""
    names = loading.weight_files(snapshot)
    return frozenset(n for n in names if not n.endswith(".json") and (snapshot / n).exists())


def borrowed(folder: Path, commit: str) -> frozenset[str]:
    """The weight files of a commit that a series downloaded and has not freed."""
    try:
        return frozenset(_mark(folder, commit).read_text(encoding="utf-8").splitlines())
    except OSError:
        return frozenset()


def borrow(folder: Path, commit: str, names: Collection[str]) -> None:
    """Mark weight files of a commit as downloaded for a series."""
    lines = "\n".join(sorted({*names, *borrowed(folder, commit)}))
    _mark(folder, commit).write_text(lines, encoding="utf-8")


def keep(folder: Path, commit: str) -> None:
    """Take the mark away: the weights stay."""
    _mark(folder, commit).unlink(missing_ok=True)


def _mark(folder: Path, commit: str) -> Path:
    """A file of its own: one is written in a thread while another is deleted."""
    return folder / f".borrowed-{commit}"


def free(cache: Path, repo: str, commit: str) -> None:
    """Delete the borrowed weights of a commit; its small files and its reference stay.

    The hub library's ``delete_files`` deletes them: it spares a blob that another revision in
    the cache links to, and clears its store of blobs shared by repositories
    (``delete_revisions`` would take the reference and the configuration too).

    Raises:
        LoadError: The hub library refuses the folder as damaged.
    """
    folder = folder_of(cache, repo)
    names, problem = borrowed(folder, commit), ""
    for attempt in range(TRIES):
        if not names & weights(folder / "snapshots" / commit):
            keep(folder, commit)
            return
        time.sleep(PAUSE if attempt else 0.0)
        try:
            problem = _delete(cache, repo, commit, names)
        except OSError as error:
            problem = str(error)
    raise LoadError(
        f"{repo} at {commit[:8]}: its weights could not be deleted from {folder} ({problem}); "
        "a next run over these checkpoints tries again"
    )


def _delete(cache: Path, repo: str, commit: str, names: Collection[str]) -> str:
    """Delete files of a commit; gives what the library finds wrong with the repository."""
    from huggingface_hub import scan_cache_dir

    found = scan_cache_dir(cache)
    files = [
        file
        for each in found.repos
        if each.repo_id == repo and each.repo_type == "model"
        for revision in each.revisions
        if revision.commit_hash == commit
        for file in revision.files
        if file.file_path.relative_to(revision.snapshot_path).as_posix() in names
    ]
    if files:
        found.delete_files(*files).execute()
    mine = folder_of(cache, repo).name
    return "; ".join(str(warning) for warning in found.warnings if mine in str(warning))
