"""A store that lives as long as its object: for judging a model that is in memory itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from mechtests.store import Store

if TYPE_CHECKING:
    from pathlib import Path


class MemoryStore(Store):
    """Measurements by key, on no disk: nothing is read from the user's store or written to it."""

    def __init__(self) -> None:
        super().__init__("memory://mechtests")
        self._said: dict[str, list[str]] = {}

    def _read(self, key: str) -> NoReturn:
        raise FileNotFoundError(key)

    def write(self, entry: dict[str, Any], payload: bytes | None) -> None:
        """Nothing: ``put`` has kept the measurement."""

    def put_texts(self, digest: str, texts: Sequence[str]) -> None:
        """Keep prompts as text, in this object alone."""
        self._said[digest] = list(texts)

    def texts(self, digest: str) -> list[str] | None:
        """Prompts as text, or None where they are not kept."""
        return self._said.get(digest)


def opened(store: Store | str | Path | None) -> Store:
    """The store that was asked for: one, a folder or URL of one, or None for memory alone."""
    if store is None:
        return MemoryStore()
    return store if isinstance(store, Store) else Store(store)
