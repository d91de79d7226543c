"""A cell opened for looking: its network, prompts, activations and measurements by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mechtests import direct, engine, judging, memory, tasks
from mechtests.case import Case
from mechtests.claim import Claim
from mechtests.errors import LoadError, NotApplicable, UsageError
from mechtests.judging import Test
from mechtests.measured import Measured, MeasuredModels
from mechtests.measurement import Measurement
from mechtests.metrics.metric import Metric, Need
from mechtests.models.cell import Cell, Loaded
from mechtests.models.live import LiveSource
from mechtests.results import Results
from mechtests.settings import Settings
from mechtests.store import Store, default_folder
from mechtests.tasks.prompts import Prompts, Task
from mechtests.verdict import Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from mechtests.models.activations import Activations
    from mechtests.models.network import Network


def open_(
    model: Any,
    tokenizer: Any = None,
    *,
    checkpoint: str | None = None,
    profile: str = "quick",
    seed: int = 0,
    dtype: str | None = None,
    store: Store | str | Path | None = None,
    offline: bool = False,
) -> Opened:
    """Open a cell: ``mechtests.open("pythia-160m", checkpoint="step1000")``.

    Nothing is loaded before it is asked for. Measurements are those a run with the same
    settings reads or makes, in the same store.

    Args:
        model: A name as for ``--model``, or a model object of transformers.
        tokenizer: Of a model object.
        checkpoint: One of the model's; its last unless said.
        profile: ``quick``, ``standard`` or ``full``.
        seed: The root of every random draw.
        dtype: The network's precision; fp32, or the model object's own, unless said.
        store: Where measurements are; the user's cache unless said, of an object memory.
        offline: Whether the network may not be asked.

    Raises:
        UsageError: There is no such model, or not one such checkpoint.
    """
    direct.check_profile(profile)
    models = direct.models_of([model], tokenizer, checkpoint, offline=offline)
    cells = [cell for each in models for cell in each.cells("cell")]
    if len(cells) != 1:
        raise UsageError(
            f"one cell is opened at a time, and this names {len(cells)}: "
            f"{', '.join(cell.id for cell in cells)}"
        )
    precision = {**direct.precision(models), **({} if dtype is None else {"dtype": dtype})}
    settings = Settings(profile=profile, seed=seed, **precision)
    held = None if isinstance(model, str) else model  # a source alone lets it go
    return Opened(cells[0], settings, store_of(models, store), offline=offline, held=held)


def store_of(models: Sequence[Any], store: Store | str | Path | None) -> Store:
    """The store that was asked for, or the user's own; memory for an object."""
    live = any(isinstance(model.source, LiveSource) for model in models)
    return memory.opened(default_folder() if store is None and not live else store)


class Opened:
    """A model at a checkpoint, to look into.

    Attributes:
        cell: The cell.
        settings: Profile, seed and precision, which measurements are known by.
        store: Where measurements are.
    """

    def __init__(
        self,
        cell: Cell,
        settings: Settings,
        store: Store,
        *,
        offline: bool = False,
        held: Any = None,
    ) -> None:
        self.cell = cell
        self.settings = settings
        self.store = store
        self._offline = offline
        self._held = held
        self._prompts: dict[tuple[str, int], Prompts] = {}

    def __repr__(self) -> str:
        """The cell, and what can be asked of it."""
        return (
            f"{self.cell.id} ({self.settings.profile}, {self.settings.dtype}): .network, "
            ".tokenizer, .prompts(task), .activations(task, *sites), .measurement(metric, task), "
            ".measured(claim), .verdict(claim)"
        )

    @cached_property
    def loaded(self) -> Loaded:
        """The model and its tokenizer, as the engine loads them.

        Raises:
            LoadError: They cannot be loaded.
        """
        return self.cell.source.load(
            self.cell.checkpoint,
            dtype=self.settings.dtype,
            device=self.settings.device,
            offline=self._offline,
        )

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, a ``models.tokenizer.CellTokenizer``."""
        return self.loaded.tokenizer

    @cached_property
    def network(self) -> Network:
        """The network: weights by head, ``run`` with edits, the bridge for hooks."""
        from mechtests.models.network import Network

        return Network.from_model(self.loaded.model, name=self.cell.id)

    def prompts(self, task: str | Task) -> Prompts:
        """The prompts of a task, those that measurements are made on.

        Raises:
            UsageError: There is no such task.
            NotApplicable: The task does not apply to the model.
        """
        asked = task_of(task)
        key = asked.name, self.settings.prompts_of(asked)
        if key not in self._prompts:
            self._prompts[key] = engine.prompts_of(asked, self.tokenizer, self.settings)
        return self._prompts[key]

    def activations(
        self,
        task: str | Task,
        *sites: str,
        corruption: str | None = None,
        rows: Sequence[int] | None = None,
        edits: Mapping[Any, Any] | None = None,
    ) -> Activations:
        """What a run of a task's prompts leaves at some sites.

        Args:
            task: The task.
            sites: Such as ``"z"``, ``"pattern.3"``, ``"resid_post@end"``
                (``models.activations.SITES``).
            corruption: Run this corrupted variant in place of the clean prompts.
            rows: Which of the prompts; all unless said.
            edits: By (site, layer), what is used in place of what was computed there.

        Raises:
            UsageError: The prompts have no such variant, or the network no such site.
        """
        import numpy as np
        import torch

        prompts = self.prompts(task)
        if corruption is not None and corruption not in prompts.corrupted:
            raise UsageError(
                f"prompts of {task_of(task).name} have no corrupted variant {corruption!r}, they "
                f"have {', '.join(prompts.corrupted) or 'none'}"
            )
        if rows is not None:
            prompts = prompts.select(np.asarray(rows))
        tokens = prompts.clean if corruption is None else prompts.corrupted[corruption]
        with torch.no_grad():
            return self.network.run(
                torch.from_numpy(np.ascontiguousarray(tokens)).to(self.network.device),
                keep=sites,
                edits=edits,
                last=torch.from_numpy(prompts.end).to(self.network.device),
            )

    def measurement(
        self, metric: str | Metric | Need, task: str | Task | None = None, **params: Any
    ) -> Measurement:
        """A measurement in this cell, from the store or made now.

        Args:
            metric: A declared measurement, a metric, or the name of one that a shipped claim
                reads: ``"attention.head_scores"``.
            task: On which task; of a name, the first that a claim reads it on unless said.
            params: Parameters of a metric.

        Raises:
            UsageError: No claim reads such a metric.
            LoadError: The cell cannot be loaded.
            MeasurementError: The measurement failed.
            NotApplicable: The task does not apply to the model.
        """
        need = self._need(metric, task, params)
        claim = Claim("opened.measurement", says="", rule="", task=None, needs={"it": need})
        case = Case(claim, self.cell)
        return self._results(case).measurement(need, self.cell)

    def measured(self, claim: str, task: str | None = None) -> Measured | MeasuredModels:
        """All that a claim reads, by the names its test reads it under.

        Raises:
            UsageError: There is no such claim over a cell.
            NotApplicable: The model does not do the task, or it is not decided whether it does.
        """
        case, _ = self.case(claim, task)
        ready = judging.prepare(case, self._results(case))
        if isinstance(ready, Verdict):
            raise NotApplicable(ready.sentence)
        return ready

    def verdict(self, claim: str, task: str | None = None) -> Verdict:
        """The verdict of a claim in this cell."""
        case, test = self.case(claim, task)
        return judging.verdict_of(case, self._results(case), test)

    def case(self, claim: str, task: str | None = None) -> tuple[Case, Test]:
        """A claim in this cell, and its test.

        Raises:
            UsageError: There is no such claim over a cell, or it is over several tasks.
        """
        found, test = direct.one_claim(claim, task, "cell")
        return Case(found, self.cell), test

    def _results(self, case: Case) -> Results:
        """What is measured for a case, made where it is missing.

        Raises:
            LoadError: The cell cannot be loaded.
        """
        results = direct.measure([case], self.settings, self.store, offline=self._offline)
        if error := next(iter(results.cell_errors.values()), None):
            raise LoadError(error)
        return results

    def _need(self, metric: Any, task: str | Task | None, params: Mapping[str, Any]) -> Need:
        if isinstance(metric, Need):
            return metric
        if isinstance(metric, Metric):
            if task is None:
                raise UsageError(f"{metric.name} is measured on a task: name it")
            return metric(task_of(task), **params)
        return _known_need(str(metric), None if task is None else task_of(task).name)


def _known_need(name: str, task: str | None) -> Need:
    """The measurement of this name that the first shipped claim reads in the cell itself.

    One on the task itself goes before one on more of its prompts.
    """
    from mechtests import shipped

    every = [
        need
        for claim in shipped.claims()
        for top in [*claim.needs.values(), *([] if claim.gate is None else [claim.gate.need])]
        for need in top.everything()
        if need.cell == "here"
    ]
    known: dict[tuple[str, str], Need] = {}
    for need in sorted(every, key=lambda need: need.task != task_of(need.task.name)):
        known.setdefault((need.metric.name, need.task.name), need)
    for (metric, on), need in known.items():
        if metric == name and task in (None, on):
            return need
    where = sorted({on for metric, on in known if metric == name})
    if where:
        raise UsageError(f"no claim reads {name} on {task}, only on {', '.join(where)}")
    names = sorted({metric for metric, _ in known})
    raise UsageError(f"no claim reads a metric {name!r}; they read {', '.join(names)}")


def task_of(task: str | Task) -> Task:
    """A task, or the one of a name.

    Raises:
        UsageError: There is no such task.
    """
    return task if isinstance(task, Task) else tasks.find(task)
