"""A repository on the Hugging Face hub, or its copy in a cache: revisions are checkpoints."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from mechtests.errors import LoadError, UsageError
from mechtests.models import loading
from mechtests.models.cell import FINAL, Checkpoint, Json, Kind, Loaded
from mechtests.models.hub_errors import UnreachableError, sentences
from mechtests.models.revisions import PYTHIA, PYTHIA_STEPS, parse_revisions
from mechtests.models.tokenizer import EXTRAS, FILES

_SMALL = ("config.json", *FILES, *EXTRAS)


@dataclass(frozen=True)
class HubSource:
    """A model on the hub, its checkpoints being branches and tags.

    Every load reads the snapshot folder of a resolved commit: ``transformers`` silently
    ignores ``revision=`` for a folder, and a branch can move.

    Attributes:
        name: The short name.
        repo: ``owner/name``.
        cache_dir: The hub cache, or None for the user's own.
        cached_only: Whether to be what that cache holds and never ask the hub.
    """

    name: str
    repo: str
    cache_dir: Path | None = None
    cached_only: bool = False
    _refs: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def kind(self) -> Kind:
        """``"hub"``."""
        return "hub"

    def checkpoints(self, *, offline: bool) -> tuple[Checkpoint, ...]:
        """By step or tokens, ``main`` last as ``final``; Pythia's are known offline.

        Offline, or when the hub cannot be reached, those of other families are the
        cached ones.
        """
        pythia = bool(PYTHIA.fullmatch(self.repo))
        if pythia and not self.cached_only:
            return parse_revisions(self.repo, (f"step{step}" for step in PYTHIA_STEPS))
        names = set(self._revisions(offline))
        found = parse_revisions(self.repo, names)
        released = not pythia and (not self.cached_only or "main" in names)
        return (*found, Checkpoint(FINAL)) if found and released else found

    def identity(self, checkpoint: Checkpoint | None, *, offline: bool) -> dict[str, Json]:
        """Repository and commit."""
        return {"hub": self.repo, "commit": self._commit(checkpoint, offline)}

    def config(self, checkpoint: Checkpoint | None, *, offline: bool) -> dict[str, Json]:
        """``config.json`` of the commit, downloaded (a few KB) where it is not cached."""
        commit = self._commit(checkpoint, offline)
        folder = self._snapshot(commit)
        if not (folder / "config.json").is_file():
            self._refuse_offline(checkpoint, offline)
            folder = self._fetch("config.json", commit).parent
        return loading.read_config(folder, self.name)

    def download_bytes(self, checkpoint: Checkpoint | None, *, offline: bool) -> int:
        """The sizes of the files that are not in the cache yet."""
        commit = self._commit(checkpoint, offline)
        folder = self._snapshot(commit)
        if self._complete(commit, weights=True):
            return 0
        self._refuse_offline(checkpoint, offline)
        sizes = self._sizes(commit)
        missing = [name for name in self._wanted(commit, sizes) if not (folder / name).exists()]
        return sum(sizes[name] for name in missing)

    def load(
        self,
        checkpoint: Checkpoint | None,
        *,
        dtype: str,
        device: str,
        offline: bool,
        untrained_seed: int | None = None,
    ) -> Loaded:
        """The model of the commit, downloaded where needed (see ``cell.Source.load``)."""
        folder = self._here(checkpoint, offline=offline, weights=untrained_seed is None)
        return loading.from_folder(
            folder,
            name=self.name,
            dtype=dtype,
            device=device,
            untrained_seed=untrained_seed,
            remedy="delete it and the file it links to, and run again to download it anew",
        )

    def fetch(self, checkpoint: Checkpoint | None = None, *, offline: bool = False) -> Path:
        """The snapshot folder of the checkpoint's commit, downloaded where needed.

        Raises:
            LoadError: It cannot be downloaded; the message says why.
            UsageError: The repository has no such revision.
        """
        return self._here(checkpoint, offline=offline, weights=True)

    def _here(self, checkpoint: Checkpoint | None, *, offline: bool, weights: bool) -> Path:
        commit = self._commit(checkpoint, offline)
        if not self._complete(commit, weights=weights):
            self._refuse_offline(checkpoint, offline)
            self._download(checkpoint, commit, weights=weights)
        return self._snapshot(commit)

    def _offline(self, offline: bool) -> bool:
        words = (os.environ.get(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
        return (
            offline
            or self.cached_only
            or any((word or "").upper() in ("1", "ON", "YES", "TRUE") for word in words)
        )

    def _refuse_offline(self, checkpoint: Checkpoint | None, offline: bool) -> None:
        if self._offline(offline):
            raise self._not_cached(_revision(checkpoint))

    def _not_cached(self, revision: str) -> LoadError:
        remedy = (
            f"name the model {self.repo} to download it"
            if self.cached_only
            else "the run is offline; run once with network access (without --mech-offline and "
            "HF_HUB_OFFLINE)"
        )
        return LoadError(
            f"{self.name}: {self.repo} at {revision} is not wholly in the cache {self._cache}; "
            f"{remedy}"
        )

    @property
    def _cache(self) -> Path:
        from huggingface_hub import constants

        return Path(self.cache_dir or constants.HF_HUB_CACHE).expanduser()

    @property
    def _folder(self) -> Path:
        return self._cache / f"models--{self.repo.replace('/', '--')}"

    def _snapshot(self, commit: str) -> Path:
        return self._folder / "snapshots" / commit

    def _cached_refs(self) -> dict[str, str]:
        """Revision to commit, as the cache remembers them."""
        refs = self._folder / "refs"
        return {
            path.relative_to(refs).as_posix(): path.read_text(encoding="utf-8").strip()
            for path in sorted(refs.rglob("*"))
            if path.is_file()
        }

    def _revisions(self, offline: bool) -> dict[str, str]:
        """Revision to commit: the hub's, asked once, or where it is out of reach the cache's."""
        if self._offline(offline):
            return self._cached_refs()
        if not self._refs:
            try:
                self._refs.update(self._hub_refs())
            except UnreachableError:
                cached = self._cached_refs()
                if not cached:
                    raise
                return cached
        return self._refs

    def _hub_refs(self) -> dict[str, str]:
        from huggingface_hub import HfApi

        with sentences(self.repo):
            refs = HfApi().list_repo_refs(self.repo)
        return {ref.name: ref.target_commit for ref in (*refs.tags, *refs.branches)}

    def _commit(self, checkpoint: Checkpoint | None, offline: bool) -> str:
        revision = _revision(checkpoint)
        known = self._revisions(offline)
        if revision in known:
            return known[revision]
        last = f"step{PYTHIA_STEPS[-1]}"
        if revision == last and PYTHIA.fullmatch(self.repo) and "main" in known:
            return known["main"]  # the same weights, by the model card
        if self._offline(offline):
            raise self._not_cached(revision)
        steps = [c.label for c in parse_revisions(self.repo, known)]
        shown = ", ".join([*steps[:3], "...", *steps[-2:]] if len(steps) > 6 else steps or known)
        raise UsageError(f"{self.name}: {self.repo} has no revision {revision!r}; it has {shown}")

    def _complete(self, commit: str, *, weights: bool) -> bool:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            snapshot_download(
                self.repo,
                revision=commit,
                cache_dir=self._cache,
                local_files_only=True,
                allow_patterns=list(_SMALL),
            )
        except LocalEntryNotFoundError:
            return False
        folder = self._snapshot(commit)
        files = loading.weight_files(folder)
        here = (folder / "config.json").is_file() and any((folder / f).is_file() for f in FILES)
        return here and (not weights or (bool(files) and all((folder / f).exists() for f in files)))

    def _sizes(self, commit: str) -> dict[str, int]:
        from huggingface_hub import HfApi

        with sentences(self.repo):
            info = HfApi().model_info(self.repo, revision=commit, files_metadata=True)
        return {file.rfilename: file.size or 0 for file in info.siblings or ()}

    def _wanted(self, commit: str, names: Collection[str], *, weights: bool = True) -> list[str]:
        small = [name for name in _SMALL if name in names]
        if not weights:
            return small
        files = loading.choose_weights(names, lambda index: self._fetch(index, commit))
        if not files or "config.json" not in small:
            raise LoadError(
                f"{self.name}: the repository {self.repo} has no config.json with safetensors or "
                f"PyTorch weights, so transformers cannot load it"
            )
        return [*small, *files]

    def _fetch(self, file: str, commit: str) -> Path:
        from huggingface_hub import hf_hub_download

        with sentences(self.repo):
            return Path(hf_hub_download(self.repo, file, revision=commit, cache_dir=self._cache))

    def _download(self, checkpoint: Checkpoint | None, commit: str, *, weights: bool) -> None:
        from huggingface_hub import snapshot_download

        files = self._wanted(commit, self._sizes(commit), weights=weights)
        revision = _revision(checkpoint)
        with sentences(self.repo):
            # by its name, so that the cache remembers the revision for an offline run
            folder = snapshot_download(
                self.repo, revision=revision, cache_dir=self._cache, allow_patterns=files
            )
        if Path(folder).name != commit:
            raise LoadError(
                f"{self.name}: {self.repo} at {revision} moved from {commit[:8]} to "
                f"{Path(folder).name[:8]} during this run; run again"
            )


def _revision(checkpoint: Checkpoint | None) -> str:
    return "main" if checkpoint is None or checkpoint.label == FINAL else checkpoint.label
