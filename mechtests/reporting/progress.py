"""How far the measuring is, and when it will be done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from mechtests.reporting.page import encodes
from mechtests.reporting.wording import ascii_only

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from mechtests.plan import CellPlan, Plan, Step

EVERY = 5.0  # seconds between two lines where there is no terminal
SOONEST = 1.0  # seconds of measuring before which a rate says nothing
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (0.0, ""))


class Progress:
    """Tells how much of a cost is done: a bar in a terminal, plain lines in a log.

    The time that is left is the cost that is left at the rate measured so far. What
    passes before a ``describe``, such as a download, counts as no measuring. The cost a
    plan gives is an upper bound, and so is the time; what turns out needless is taken off.

    Args:
        total: The cost of everything, in floating point operations.
        stream: Where it is told.
        enabled: Whether it is told at all.
        clock: The time in seconds.
    """

    def __init__(
        self,
        total: float,
        *,
        stream: TextIO,
        enabled: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self.done = 0.0
        self._stream = stream
        self._enabled = enabled and total > 0
        self._clock = clock
        self._text = ""
        self._measuring = 0.0
        self._start = self._mark = self._told = clock()
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        """Start."""
        self._start = self._mark = self._told = self._clock()
        if self._enabled and (bar := _bar(self._stream, self.figures)):
            self._bar = bar
            bar.start()
            bar.add_task("", total=self.total)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away and say what was done, where anything was."""
        if self._bar is not None:
            self._bar.stop()
        if self._enabled and self.done:
            took = duration(self._clock() - self._start)
            self._line(
                f"measured {cost(self.done)} in {took}" + ("" if kind is None else ", stopped")
            )

    def describe(self, text: str) -> None:
        """Say what comes next; the time until now was no measuring."""
        self._text = text
        self._mark = self._clock()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=text)

    def advance(self, amount: float) -> None:
        """Count what was done since the last call."""
        now = self._clock()
        self._measuring += now - self._mark
        self._mark = now
        self.done = min(self.done + amount, self.total)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self.done)
        elif self._enabled and now - self._told >= EVERY:
            self._told = now
            self._line(f"{self._text}: {self.figures()}".removeprefix(": "))

    def without(self, amount: float) -> None:
        """Take off what turned out not to be made: its cost is no longer to come."""
        self.total = max(self.total - amount, self.done)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], total=self.total)

    @property
    def left(self) -> float | None:
        """The seconds that are left, or None before there is a rate to go by."""
        if self._measuring < SOONEST or self.done <= 0:
            return None
        return (self.total - self.done) * self._measuring / self.done

    def figures(self) -> str:
        """The share that is done, of what, for how long, and the time that is left."""
        share = f"{self.done / (self.total or 1.0):.0%} of {cost(self.total)}"
        left = "" if self.left is None else f", about {duration(self.left)} left"
        return f"{share}, {duration(self._clock() - self._start)}{left}"

    def _line(self, text: str) -> None:
        text = text if encodes(self._stream, text) else ascii_only(text)
        self._stream.write(text + "\n")
        self._stream.flush()


class Meter(Protocol):
    """What is told of the measuring: a ``Progress``, or what stands for one."""

    def describe(self, text: str) -> None:
        """Say what is going on."""
        ...

    def advance(self, amount: float) -> None:
        """Count floating point operations that are done."""
        ...

    def without(self, amount: float) -> None:
        """Count those that turned out not to be made."""
        ...


class Silent:
    """A meter nobody reads."""

    def describe(self, text: str) -> None:
        """Say nothing."""

    def advance(self, amount: float) -> None:
        """Count nothing."""

    def without(self, amount: float) -> None:
        """Count nothing."""


class Ledger:
    """What of one cell's planned cost is neither done nor known to be needless.

    Args:
        plan: The cell's measurements, and the passes that some of them share.
        meter: What is told.
    """

    def __init__(self, plan: CellPlan, meter: Meter) -> None:
        self._plan, self._meter = plan, meter
        self._open = {step.key: step for step in plan.missing}
        self._left = {step.key: step.flops for step in plan.missing}
        self._passes = dict(plan.shared)

    def count(self, run: str, steps: Sequence[Step], share: float, *, passes: bool) -> None:
        """Count a share of some steps, and of the passes of their run; none of it twice."""
        done = sum(_taken(self._left, step.key, share * step.flops) for step in steps)
        if passes:
            done += _taken(self._passes, run, share * self._plan.shared.get(run, 0.0))
        self._meter.advance(done)

    def settle(self, steps: Sequence[Step]) -> None:
        """Take off what is left of some steps, of which nothing more is made."""
        needless = 0.0
        for step in steps:
            self._open.pop(step.key, None)
            needless += self._left.pop(step.key, 0.0)
        runs = {step.run for step in self._open.values()}
        for run in [run for run in self._passes if run not in runs]:
            needless += self._passes.pop(run)
        if needless > 0.0:
            self._meter.without(needless)

    def give_up(self, steps: Sequence[Step]) -> None:
        """Take off some steps that give nothing, and all that start from them."""
        given_up = {step.need: step for step in steps}
        following = list(given_up.values())
        while following:
            following = [
                step
                for step in self._open.values()
                if step.need not in given_up and any(n in given_up for _, n in step.need.inputs)
            ]
            given_up.update((step.need, step) for step in following)
        self.settle(list(given_up.values()))


def _taken(left: dict[str, float], name: str, amount: float) -> float:
    """As much of an amount as is left under a name, taken from there."""
    taken = min(amount, left.get(name, 0.0))
    if taken:
        left[name] -= taken
    return taken


def meter(plan: Plan, *, stream: TextIO) -> Progress:
    """What the measuring of a plan tells its progress."""
    return Progress(sum(cell.flops for cell in plan.cells), stream=stream)


def cost(flops: float) -> str:
    """Floating point operations with a prefix: ``"2.9 TFLOP"``."""
    size, prefix = next(each for each in _PREFIXES if flops >= each[0])
    return f"{flops / (size or 1.0):.3g} {prefix}FLOP"


def duration(seconds: float) -> str:
    """A time in its two largest units.

    >>> duration(7.4), duration(95), duration(3900)
    ('7 s', '1 min 35 s', '1 h 5 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _bar(stream: TextIO, figures: Callable[[], str]) -> Bar | None:
    """A bar at the bottom of a terminal that goes away; None where the stream is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    console = Console(file=stream)
    if not console.is_terminal or console.is_dumb_terminal:
        return None

    class Figures(ProgressColumn):
        """The figures, without a break."""

        def render(self, task: Task) -> Text:
            return Text(figures(), no_wrap=True)

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        Figures(),
        console=console,
        refresh_per_second=4,
        transient=True,
    )
