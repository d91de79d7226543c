"""A metric, and the declaration of a measurement it will make."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mechtests.errors import UsageError
from mechtests.tasks.prompts import Prompts, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mechtests.measurement import Measurement
    from mechtests.models.activations import Activations
    from mechtests.models.cell import Cell
    from mechtests.models.network import Network, Shape

Json = Any


CELLS = ("here", "untrained", "final")


@dataclass(frozen=True)
class Cost:
    """An upper bound on what a measurement costs, in units of one whole prompt.

    Attributes:
        forward: Forward passes over one prompt each (a fraction where only END is run).
        backward: Backward passes over one prompt each.
        flops: Floating point operations, where a metric knows them better.
    """

    forward: float = 0.0
    backward: float = 0.0
    flops: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """Both."""
        return Cost(
            self.forward + other.forward,
            self.backward + other.backward,
            self.flops + other.flops,
        )


@dataclass(frozen=True)
class Job:
    """What a metric is told of the work ahead before anything is loaded.

    Attributes:
        shape: The network's shape, or None where it is not known without loading.
        prompts: How many prompts there are.
        position: Tokens of the longest prompt.
        draws: Random draws of the profile.
        params: The parameters of the declaration.
    """

    shape: Shape | None
    prompts: int
    position: int
    draws: int
    params: Mapping[str, Json]


@dataclass(frozen=True, eq=False)
class Batch:
    """Some prompts on a network, with the activations that were asked for.

    Attributes:
        network: The loaded network.
        prompts: These prompts.
        clean: What the clean run kept.
        corrupted: What the corrupted run kept; empty where no metric reads it.
        inputs: The measurements this one starts from, over all prompts of their task.
        params: The parameters of the declaration.
        draws: Random draws of the profile.
        rows: Which prompts of the task these are, shape ``[prompt]``.
        corruption: The corrupted variant of the declaration.
        generator: ``generator(purpose)`` is a fresh numpy generator from (seed, metric,
            cell, purpose): the same in every batch of the cell.
    """

    network: Network
    prompts: Prompts
    clean: Activations
    corrupted: Activations
    inputs: Mapping[str, Measurement]
    params: Mapping[str, Json]
    draws: int
    rows: NDArray[np.int64]
    generator: Callable[[str], np.random.Generator] = field(repr=False)
    corruption: str | None = None


@dataclass(frozen=True)
class Value:
    """One array a metric gives: its axes and its unit."""

    axes: tuple[str, ...]
    unit: str


@dataclass(frozen=True)
class Metric:
    """A function from a batch to named arrays, with what it reads and costs.

    Attributes:
        name: ``<family>.<function>``.
        version: Raised when the numbers change, so that stored ones go stale.
        compute: ``compute(batch)`` gives every array of ``values``.
        values: The arrays. Without a ``prompt`` axis: a mean over the batch's prompts,
            averaged over batches by their prompts.
        clean: Sites of the clean run it reads (see ``models.activations``).
        corrupted: Sites of the corrupted run it reads.
        cost: Its own passes, beside the shared runs.
        inputs: The names of the measurements it starts from.
        draws: Whether it draws as often as the profile says.
        needs: Names the prompts must have: ``"answers"``, ``"position:S2"``,
            ``"tokens:absent"``, ``"corrupted:no-repeat"``.
        params: Parameters and their defaults.
        whole: Whether it is computed once, on all prompts of the task in one batch without
            runs: then it makes its own passes, batches them itself, and its arrays may have
            any axes.
    """

    name: str
    version: int
    compute: Callable[[Batch], Mapping[str, Any]] = field(repr=False, compare=False)
    values: Mapping[str, Value] = field(hash=False)
    clean: tuple[str, ...] = ()
    corrupted: tuple[str, ...] = ()
    cost: Callable[[Job], Cost] = field(default=lambda job: Cost(), repr=False, compare=False)
    inputs: tuple[str, ...] = ()
    draws: bool = False
    needs: tuple[str, ...] = ()
    params: Mapping[str, Json] = field(default_factory=dict, hash=False)
    whole: bool = False

    def __call__(
        self,
        task: Task,
        *,
        cell: str = "here",
        corruption: str | None = None,
        inputs: Mapping[str, Need] | None = None,
        **params: Json,
    ) -> Need:
        """Declare this measurement on a task.

        Args:
            task: The task whose prompts it is made on.
            cell: ``"here"``; ``"untrained"``: the same configuration, not trained; or
                ``"final"``: the series' final cell, for what others start from.
            corruption: The corrupted variant, the task's own unless said.
            inputs: The measurements it starts from, by name.
            params: Parameters, where the default will not do.

        Raises:
            UsageError: An input is missing or unknown, or a parameter is unknown.
        """
        given = dict(inputs or {})
        if set(given) != set(self.inputs):
            raise UsageError(
                f"{self.name} starts from the measurements {list(self.inputs)}, got {list(given)}"
            )
        if unknown := set(params) - set(self.params):
            raise UsageError(
                f"{self.name} has the parameters {list(self.params)}, got {sorted(unknown)}"
            )
        if cell not in CELLS:
            raise UsageError(f"{self.name}: cell is one of {', '.join(CELLS)}, got {cell!r}")
        return Need(
            metric=self,
            task=task,
            cell=cell,
            corruption=corruption or task.corruption,
            inputs=tuple(sorted(given.items())),
            params=tuple(sorted({**self.params, **params}.items())),
        )


@dataclass(frozen=True)
class Need:
    """A measurement that is declared and not yet made.

    Hashable; two declarations of the same measurement are equal.

    Attributes:
        final: Of one that starts from another in the series' final cell, which cell that is;
            None as declared (see ``of_series``).
    """

    metric: Metric
    task: Task = field(hash=False)
    cell: str
    corruption: str | None
    inputs: tuple[tuple[str, Need], ...]
    params: tuple[tuple[str, Json], ...]
    final: Cell | None = None

    @property
    def name(self) -> str:
        """The metric, the task and where, for people."""
        where = "" if self.cell == "here" else f" ({self.cell})"
        return f"{self.metric.name} on {self.task.name}{where}"

    def here(self) -> Need:
        """The same measurement in the cell itself, with all it starts from."""
        inputs = tuple((name, need.here()) for name, need in self.inputs)
        return replace(self, cell="here", inputs=inputs, final=None)

    def of_series(self, final: Cell | None) -> Need:
        """The same measurement in a series that ends with a cell, or as declared, of any.

        What starts from nothing in the final cell stays as it is.
        """
        if not any(need.cell == "final" for need in self.everything()):
            return self
        inputs = tuple((name, need.of_series(final)) for name, need in self.inputs)
        return replace(self, inputs=inputs, final=final)

    def everything(self) -> Sequence[Need]:
        """This need after all it starts from, inputs first.

        What one in the final cell starts from is made in the final cell too.
        """
        found: dict[Need, None] = {}
        for _, need in self.inputs:
            found.update(dict.fromkeys(need.everything()))
        if self.cell == "final":
            found = {replace(need, cell="final"): None for need in found}
        found[self] = None
        return tuple(found)

    def request(
        self,
        *,
        identity: Json,
        sizes: Mapping[str, int],
        sources: Mapping[str, Json],
        settings: Mapping[str, Json],
        draws: int,
        final: Json = None,
    ) -> Mapping[str, Json]:
        """All that decides the values, as JSON: what the store's key is the digest of.

        Args:
            identity: The cell's identity (commit, or digests of its files).
            sizes: Prompts for each task.
            sources: The file each task's prompts come from, where it is a user's own.
            settings: dtype, attention, seed: what is the same for the whole run.
            draws: Random draws of the profile.
            final: The identity of the series' final cell, where something starts from it.

        Raises:
            UsageError: Something starts from the final cell, and there is none.
        """
        if self.cell == "final":
            if final is None:
                raise UsageError(f"{self.name} needs the final cell of a series; see of_series")
            identity, final = final, None
        same = {
            "identity": identity,
            "final": final,
            "sizes": sizes,
            "sources": sources,
            "settings": settings,
            "draws": draws,
        }
        return {
            "metric": self.metric.name,
            "version": self.metric.version,
            "params": dict(self.params),
            "task": self.task.name,
            "task_version": self.task.version,
            "n": sizes[self.task.name],
            "prompts": sources.get(self.task.name),
            "corruption": self.corruption,
            "cell": "here" if self.cell == "final" else self.cell,
            "identity": identity,
            **settings,
            **({"draws": draws} if self.metric.draws else {}),
            "inputs": {name: digest(need.request(**same)) for name, need in self.inputs},
        }


def digest(request: Json) -> str:
    """SHA-256 of the canonical JSON of a request: the store's key."""
    canonical = json.dumps(request, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
