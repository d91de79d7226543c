"""Downloads ahead of the measuring, and weights that are freed behind it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Self

from mechtests.errors import MechtestsError
from mechtests.models.cell import Cell
from mechtests.models.downloads import NoRoomError
from mechtests.models.remote import Remote
from mechtests.plan import Plan

GLANCE = 0.1  # seconds between two looks for an interruption while a download is waited for
FAREWELL = 2.0  # seconds a download has to end in when the run is interrupted


@dataclass
class _Download:
    """The download of one cell, in a thread of its own."""

    cell: Cell
    to_free: bool
    shown: bool
    stop: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None

    def __post_init__(self) -> None:
        # a daemon, so that a network that hangs cannot keep the process from ending
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        source = self.cell.source
        assert isinstance(source, Remote)
        try:
            source.bring(
                self.cell.checkpoint, to_free=self.to_free, stop=self.stop, shown=self.shown
            )
        except BaseException as error:  # raised when the cell's turn comes
            self.error = error

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def wait(self, check: Callable[[], None]) -> None:
        """Wait for its end, in steps that an interruption can come between."""
        while not self.done:
            check()
            self._thread.join(GLANCE)

    def cancel(self) -> None:
        """Call it off, and give it a moment to take its half of a file away."""
        self.stop.set()
        self._thread.join(FAREWELL)


class Ahead:
    """Downloads one checkpoint while another is measured, and frees those that were.

    On disk are at most the checkpoint that is measured and the next one, beside weights that
    are not freed and weights that a later checkpoint of the plan shares. Where the disk has no
    room for two, the next is downloaded when the last is freed. In a thread of its own a
    checkpoint is only downloaded: one is in memory at a time.

    Leaving it by an exception keeps what is downloaded, for the run that goes on from there.

    Args:
        plan: The run.
        keep: Whether weights stay (``--mech-keep-weights``).
        offline: Whether the network may not be asked.
    """

    def __init__(self, plan: Plan, *, keep: bool, offline: bool) -> None:
        self._offline = offline
        self._keep = keep
        self._freed = {cell.cell for cell in plan.freed}
        self._waiting = {cell.cell for cell in plan.cells if cell.download and _remote(cell.cell)}
        self._later = [cell.cell for cell in plan.cells if cell.missing]
        self._begun: dict[Cell, _Download] = {}
        self._held: list[Cell] = []
        self._interrupted = False
        self.notes: list[str] = []

    def __enter__(self) -> Self:
        """Begin."""
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End: nothing is downloaded any more."""
        if signal.getsignal(signal.SIGINT) == self._interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        for download in self._begun.values():
            download.cancel()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Note an interruption, and raise it: some libraries swallow one while they load."""
        self._interrupted = True
        signal.default_int_handler(number, frame)

    def _check(self) -> None:
        """End the run where an interruption was swallowed.

        Raises:
            KeyboardInterrupt: There was one.
        """
        if self._interrupted:
            raise KeyboardInterrupt

    @property
    def idle(self) -> bool:
        """Whether a next download may begin: none has whose turn is still to come."""
        return not self._begun and bool(self._waiting)

    def waits(self, cell: Cell) -> bool:
        """Whether a cell is still to be downloaded, or its download to end."""
        return cell in self._waiting or cell in self._begun

    def begin(self, cell: Cell) -> None:
        """Begin to download a cell whose turn is still to come."""
        if self.idle and cell in self._waiting:
            self._start(cell, shown=False)

    def ready(self, cell: Cell) -> None:
        """Return when a cell whose turn has come is wholly here.

        Raises:
            LoadError: It could not be downloaded.
        """
        for download in self._begun.values():  # another that began is on disk, and stays there
            download.wait(self._check)
        begun = self._begun.pop(cell, None)
        if cell in self._waiting or (begun and isinstance(begun.error, NoRoomError)):
            self._start(cell, shown=True)
            self._begun[cell].wait(self._check)
            begun = self._begun.pop(cell)
        if begun and begun.error is not None:
            raise begun.error

    def _start(self, cell: Cell, *, shown: bool) -> None:
        self._waiting.discard(cell)
        to_free = cell in self._freed and not self._keep
        self._begun[cell] = _Download(cell, to_free, shown)

    def release(self, cell: Cell) -> None:
        """Free what was downloaded of a cell in which nothing more is to be measured."""
        self._check()
        self._later = [later for later in self._later if later != cell]
        self._waiting.discard(cell)
        if unwanted := self._begun.pop(cell, None):  # it was to be measured, and then was not
            unwanted.cancel()
        if cell in self._freed:
            self._held.append(cell)
        self._held = [held for held in self._held if not self._let_go(held)]

    def _let_go(self, cell: Cell) -> bool:
        """Free the weights of a cell; False where a later one needs them too."""
        source = cell.source
        assert isinstance(source, Remote)
        try:
            if self._keep:
                source.keep(cell.checkpoint, offline=self._offline)
                return True
            for later in self._later:
                if later.source == source and source.alike(
                    cell.checkpoint, later.checkpoint, offline=self._offline
                ):
                    return False
            source.release(cell.checkpoint, offline=self._offline)
        except (MechtestsError, OSError) as error:
            self.notes.append(str(error))
        return True


def _remote(cell: Cell) -> bool:
    return isinstance(cell.source, Remote) and cell.variant == "trained"
