"""A file of text in a dataset of the Hugging Face hub, or of its copy in the cache."""

from __future__ import annotations

import re
from pathlib import Path

from mechtests.errors import LoadError, UsageError
from mechtests.models import hub_cache
from mechtests.models.hub_errors import UnreachableError, sentences

MARK = "hf:"
ENDINGS = (".parquet", ".jsonl", ".csv", ".txt")
"""What is read, and in this order of preference."""


def text_file(given: str, *, offline: bool) -> Path:
    """The first file of a dataset that text is read from, downloaded where it is not cached.

    Args:
        given: ``hf:owner/name``.
        offline: Whether the hub may not be asked.

    Raises:
        UsageError: The name cannot be read, or the dataset has no such file.
        LoadError: It cannot be downloaded and is not in the cache; the message says why.
    """
    from huggingface_hub import HfApi, hf_hub_download

    repo = given.removeprefix(MARK)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise UsageError(f"{given}: a dataset of the hub is written {MARK}owner/name")
    if hub_cache.is_offline(offline):
        return _cached(given, repo)
    where = f"datasets/{repo}"
    try:
        with sentences(where):
            names = HfApi().list_repo_files(repo, repo_type="dataset")
        name = _first(given, names)
        with sentences(where):
            return Path(hf_hub_download(repo, name, repo_type="dataset"))
    except UnreachableError as error:
        try:
            return _cached(given, repo)
        except LoadError:
            raise error from None


def _cached(given: str, repo: str) -> Path:
    """The file of the cached ``main``, without asking the hub."""
    from huggingface_hub import constants

    folder = hub_cache.folder_of(Path(constants.HF_HUB_CACHE), repo, "datasets")
    snapshot = folder / "snapshots" / hub_cache.refs(folder).get("main", "none")
    names = [
        path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()
    ]
    if not names:
        raise LoadError(
            f"{given}: the dataset {repo} is not in the cache {constants.HF_HUB_CACHE}, and the "
            f"run is offline; run once with network access, or give a file of text"
        )
    return snapshot / _first(given, names)


def _first(given: str, names: list[str]) -> str:
    for ending in ENDINGS:
        for name in sorted(names):
            if name.endswith(ending):
                return name
    raise UsageError(
        f"{given}: a text is read from a {', '.join(ENDINGS)} file, and this dataset has "
        f"{', '.join(sorted(names)[:8]) or 'no file'}; download the text and give it as a file"
    )
