"""A task's prompts on a network: run once, batch by batch, and what was read is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from mechtests.errors import MeasurementError
from mechtests.tasks.prompts import Ids, Prompts

if TYPE_CHECKING:
    from mechtests.models.activations import Activations
    from mechtests.models.network import Network

TOKENS_A_BATCH = 2048


@dataclass(frozen=True)
class Sites:
    """Which activations are read, of the clean run and of each corrupted one."""

    clean: frozenset[str] = frozenset()
    corrupted: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def __or__(self, other: Sites) -> Sites:
        """Both."""
        names = self.corrupted.keys() | other.corrupted.keys()
        nothing: frozenset[str] = frozenset()
        return Sites(
            self.clean | other.clean,
            {
                name: self.corrupted.get(name, nothing) | other.corrupted.get(name, nothing)
                for name in sorted(names)
            },
        )

    def __le__(self, other: Sites) -> bool:
        """Whether all of these are among the others."""
        return self.clean <= other.clean and all(
            name in other.corrupted and sites <= other.corrupted[name]
            for name, sites in self.corrupted.items()
        )

    @classmethod
    def union(cls, each: Iterable[Sites]) -> Sites:
        """All of several."""
        total = cls()
        for sites in each:
            total = total | sites
        return total


@dataclass(frozen=True)
class Played:
    """One batch: its rows among the task's prompts, and the runs that were asked for."""

    rows: Ids
    prompts: Prompts
    clean: Activations
    corrupted: Mapping[str, Activations]


class Tape:
    """The runs of a task's prompts on one network.

    Args:
        network: Where they run.
        prompts: All prompts of the task.
        budget: Bytes of activations a batch may take, and of those kept for a later stage.
    """

    def __init__(self, network: Network, prompts: Prompts, *, budget: int) -> None:
        self.prompts = prompts
        self.notes: list[str] = []
        self._network = network
        self._budget = budget
        self._most = TOKENS_A_BATCH // int(prompts.length.max()) or 1
        self._size = self._most
        self._kept: list[Played] = []
        self._holds = Sites()

    def play(self, now: Sites, later: Sites) -> Iterator[Played]:
        """Every batch with the activations of ``now``; those of ``later`` are kept if they fit."""
        if self._kept and now <= self._holds:
            yield from self._kept
            return
        keep = later if self._fits(later) else Sites()
        self._kept, kept = [], []
        for rows in self._batches(now | keep):
            played = self._run(rows, now | keep)
            yield played
            kept.append(_only(self._network, played, keep))
        if keep != Sites():
            self._kept, self._holds = kept, keep

    def unplayed(self) -> Played:
        """All prompts as one batch without any run, for what makes its own passes."""
        import torch

        from mechtests.models.activations import Activations

        device = self._network.device
        last = torch.from_numpy(self.prompts.end).to(device)
        nothing = Activations({}, torch.zeros(len(last), 0, device=device), last)
        corrupted = dict.fromkeys(self.prompts.corrupted, nothing)
        return Played(np.arange(len(self.prompts)), self.prompts, nothing, corrupted)

    def smaller(self) -> None:
        """Halve the batch after the memory ran out.

        Raises:
            MeasurementError: A single prompt does not fit.
        """
        self._kept = []
        if self._size == 1:
            raise MeasurementError(
                f"{self._network.name}: out of memory with a batch of a single prompt of "
                f"{int(self.prompts.length.max())} tokens; use a smaller model or more memory"
            )
        self._most = self._size // 2
        self.notes.append(f"out of memory: batches of at most {self._most} prompts")

    @property
    def batch(self) -> int:
        """The prompts a batch had in the last run."""
        return self._size

    def _bytes(self, sites: Sites, *, kept: bool = False) -> int:
        """Bytes of one prompt's activations, with what a block works with or only those kept."""
        from mechtests.models.activations import bytes_kept, bytes_per_prompt

        position = int(self.prompts.length.max())
        size = bytes_kept if kept else bytes_per_prompt
        cached = CACHED if sites.corrupted and not kept else frozenset()  # for shared prefixes
        each = [sites.clean | cached, *sites.corrupted.values()]
        return sum(size(self._network.shape, sorted(keep), position) for keep in each)

    def _fits(self, sites: Sites) -> bool:
        whole = self._bytes(sites, kept=True) * len(self.prompts)
        return sites != Sites() and whole <= self._budget

    def _batches(self, sites: Sites) -> Iterator[Ids]:
        """Rows in batches of like length, so that little is padded."""
        fit = self._budget // max(1, self._bytes(sites))
        self._size = max(1, min(self._most, fit, len(self.prompts)))
        order = np.argsort(self.prompts.length, kind="stable")
        for start in range(0, len(order), self._size):
            yield np.sort(order[start : start + self._size])

    def _run(self, rows: Ids, sites: Sites) -> Played:
        """The clean run, and the corrupted ones from where they first differ from it."""
        prompts = self.prompts.select(rows)
        shared = {
            name: _shared(prompts, name) if _late_only(keep) else 0
            for name, keep in sites.corrupted.items()
        }
        past = CACHED if any(shared.values()) else frozenset()
        clean = self._pass(prompts.clean, prompts, sites.clean | past)
        corrupted = {
            name: self._pass(prompts.corrupted[name], prompts, keep, clean, shared[name])
            for name, keep in sites.corrupted.items()
        }
        return Played(rows, prompts, _kept(self._network, clean, sites.clean), corrupted)

    def _pass(
        self,
        tokens: Ids,
        prompts: Prompts,
        keep: frozenset[str],
        clean: Activations | None = None,
        shared: int = 0,
    ) -> Activations:
        import torch

        from mechtests.models.activations import layers_for
        from mechtests.models.attention import Prefix

        network = self._network
        run = network.run(
            torch.from_numpy(np.ascontiguousarray(tokens[:, shared:])).to(network.device),
            keep=sorted(keep),
            stop=layers_for(network.shape, sorted(keep)),
            last=torch.from_numpy(prompts.end - shared).to(network.device),
            prefix=Prefix(clean, shared) if clean is not None and shared else None,
        )
        return replace(run, start=shared)


CACHED = frozenset(("rot_k", "v"))


def _late_only(keep: frozenset[str]) -> bool:
    """Whether a run is read where it differs alone, so that its first positions need not be run."""
    return all(name == "final" or name.endswith(("@end", "@changed")) for name in keep)


def _shared(prompts: Prompts, corruption: str) -> int:
    """How many first positions every prompt has in common with its corrupted variant."""
    differs = prompts.clean != prompts.corrupted[corruption]
    first = np.where(differs.any(1), differs.argmax(1), prompts.end)
    return int(min(first.min(), prompts.end.min()))


def _only(network: Network, played: Played, sites: Sites) -> Played:
    """A batch without what no later measurement reads."""
    return Played(
        played.rows,
        played.prompts,
        _kept(network, played.clean, sites.clean),
        {
            name: _kept(network, played.corrupted[name], keep)
            for name, keep in sites.corrupted.items()
        },
    )


def _kept(network: Network, run: Activations, keep: frozenset[str]) -> Activations:
    from mechtests.models.activations import wanted

    named = wanted(network.shape, sorted(keep))
    held = {(name, layer) for (_, layer), names in named.items() for name in names}
    return replace(run, kept={at: tensor for at, tensor in run.kept.items() if at in held})
