"""Sources whose weights are downloaded, and can be deleted again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from mechtests.models.cell import Checkpoint, Source

if TYPE_CHECKING:
    import threading


@runtime_checkable
class Remote(Source, Protocol):
    """A source that can download the weights of a checkpoint and delete them again."""

    def bring(
        self,
        checkpoint: Checkpoint | None,
        *,
        to_free: bool,
        stop: threading.Event,
        shown: bool,
    ) -> None:
        """Download what is missing of a checkpoint.

        Args:
            checkpoint: One of ``checkpoints``, or None where there are none.
            to_free: Whether weights that come are borrowed: marked for ``release``.
            stop: Ends the download when it is set.
            shown: Whether to show its progress.

        Raises:
            LoadError: It cannot be downloaded, or was stopped.
        """
        ...

    def borrowed(self, checkpoint: Checkpoint | None, *, offline: bool) -> bool:
        """Whether weights are here that were borrowed and not released."""
        ...

    def release(self, checkpoint: Checkpoint | None, *, offline: bool) -> None:
        """Delete the borrowed weights of a checkpoint; others and small files stay.

        Raises:
            LoadError: They cannot be deleted.
        """
        ...

    def keep(self, checkpoint: Checkpoint | None, *, offline: bool) -> None:
        """Make borrowed weights ordinary ones, which nobody releases."""
        ...

    def alike(self, one: Checkpoint | None, other: Checkpoint | None, *, offline: bool) -> bool:
        """Whether two checkpoints are known to have a weight file in common."""
        ...
