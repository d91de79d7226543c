"""A repository on the Hugging Face hub, or its copy in a cache: revisions are checkpoints."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mechtests.errors import LoadError, UsageError
from mechtests.models import downloads, hub_cache, loading
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
    _lists: dict[str, dict[str, downloads.Listed]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

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
        if self._complete(commit, weights=True):
            return 0
        self._refuse_offline(checkpoint, offline)
        return downloads.missing(self._folder, commit, self._files(commit, weights=True))

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

    def bring(
        self,
        checkpoint: Checkpoint | None,
        *,
        to_free: bool,
        stop: threading.Event,
        shown: bool,
    ) -> None:
        """Download a checkpoint in a thread, maybe for ``release`` (see ``remote.Remote``)."""
        commit = self._commit(checkpoint, offline=False)
        if self._complete(commit, weights=True):
            return
        before = hub_cache.weights(self._snapshot(commit))
        bars = downloads.bars(stop, shown=shown)
        try:
            self._download(checkpoint, commit, weights=True, bars=bars)
        finally:  # of several shards some may be here
            mine = hub_cache.weights(self._snapshot(commit)) - before
            if mine and to_free:
                hub_cache.borrow(self._folder, commit, mine)

    def borrowed(self, checkpoint: Checkpoint | None, *, offline: bool) -> bool:
        """Whether weights are here that a series has downloaded and not freed."""
        return bool(hub_cache.borrowed(self._folder, self._commit(checkpoint, offline)))

    def release(self, checkpoint: Checkpoint | None, *, offline: bool) -> None:
        """Delete the borrowed weights of a checkpoint, and nothing else."""
        hub_cache.free(self._cache, self.repo, self._commit(checkpoint, offline))

    def keep(self, checkpoint: Checkpoint | None, *, offline: bool) -> None:
        """Let the borrowed weights of a checkpoint stay for good."""
        hub_cache.keep(self._folder, self._commit(checkpoint, offline))

    def alike(self, one: Checkpoint | None, other: Checkpoint | None, *, offline: bool) -> bool:
        """Whether two checkpoints are known to share a weight file; asks nobody."""
        mine, theirs = (
            {
                listed.blob
                for name, listed in self._lists.get(self._commit(each, offline), {}).items()
                if name.endswith((".safetensors", ".bin")) and listed.blob
            }
            for each in (one, other)
        )
        return bool(mine & theirs)

    def _here(self, checkpoint: Checkpoint | None, *, offline: bool, weights: bool) -> Path:
        commit = self._commit(checkpoint, offline)
        if not self._complete(commit, weights=weights):
            self._refuse_offline(checkpoint, offline)
            self._download(checkpoint, commit, weights=weights)
        return self._snapshot(commit)

    def _offline(self, offline: bool) -> bool:
        return self.cached_only or hub_cache.is_offline(offline)

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
        return hub_cache.folder_of(self._cache, self.repo)

    def _snapshot(self, commit: str) -> Path:
        return self._folder / "snapshots" / commit

    def _cached_refs(self) -> dict[str, str]:
        """Revision to commit, as the cache remembers them."""
        return hub_cache.refs(self._folder)

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
        return hub_cache.complete(
            self._cache, self.repo, commit, small=_SMALL, weights_too=weights
        ) and any((self._snapshot(commit) / file).is_file() for file in FILES)

    def _listed(self, commit: str) -> dict[str, downloads.Listed]:
        """The files of a commit, which never change: asked once."""
        if commit not in self._lists:
            self._lists[commit] = downloads.ask(self.repo, commit)
        return self._lists[commit]

    def _files(self, commit: str, *, weights: bool) -> dict[str, downloads.Listed]:
        """The files of a commit that loading reads."""
        listed = self._listed(commit)
        small = [name for name in _SMALL if name in listed]
        files = loading.choose_weights(listed, lambda i: self._fetch(i, commit)) if weights else ()
        if weights and not (files and "config.json" in small):
            raise LoadError(
                f"{self.name}: the repository {self.repo} has no config.json with safetensors or "
                f"PyTorch weights, so transformers cannot load it"
            )
        return {name: listed[name] for name in (*small, *files)}

    def _fetch(self, file: str, commit: str) -> Path:
        from huggingface_hub import hf_hub_download

        with sentences(self.repo):
            return Path(hf_hub_download(self.repo, file, revision=commit, cache_dir=self._cache))

    def _download(
        self,
        checkpoint: Checkpoint | None,
        commit: str,
        *,
        weights: bool,
        bars: type[Any] | None = None,
    ) -> None:
        files, revision = self._files(commit, weights=weights), _revision(checkpoint)
        downloads.sweep(self._cache, self.repo, [listed.blob for listed in files.values()])
        size = downloads.missing(self._folder, commit, files)
        downloads.check_room(self._cache, size, f"{self.name} at {revision}")
        came = downloads.download(
            self.repo,
            revision,
            self._cache,
            small=[name for name in files if name in _SMALL],
            large=[name for name in files if name not in _SMALL],
            commit=commit,
            bars=bars,
        )
        if came != commit:
            raise LoadError(
                f"{self.name}: {self.repo} at {revision} moved from {commit[:8]} to "
                f"{came[:8]} during this run; run again"
            )


def _revision(checkpoint: Checkpoint | None) -> str:
    return "main" if checkpoint is None or checkpoint.label == FINAL else checkpoint.label
