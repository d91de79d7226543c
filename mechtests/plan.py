"""The plan: which measurements a run still needs, in which order, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mechtests import rules
from mechtests.case import Case, located, trained
from mechtests.errors import MechtestsError, NotApplicable, UsageError
from mechtests.metrics.metric import Cost, Job, Need
from mechtests.models.activations import layers_for
from mechtests.models.cell import Cell, Source
from mechtests.models.remote import Remote
from mechtests.models.shape import Shape
from mechtests.settings import Settings
from mechtests.store import Store
from mechtests.tasks.prompts import Task

Json = Any


@dataclass(frozen=True)
class Step:
    """One measurement in one cell."""

    need: Need
    cell: Cell
    key: str
    prompts: int
    cost: Cost
    flops: float
    stored: bool

    @property
    def run(self) -> str:
        """Which prompts it reads: steps of one cell and one run share its passes."""
        return f"{self.need.task.name} ({self.prompts})"


@dataclass(frozen=True)
class CellPlan:
    """What one loading of one cell is for.

    Attributes:
        cell: The cell, trained or not.
        steps: Its measurements in order; those already stored are marked.
        download: Bytes still to be fetched before it can be loaded.
        borrowed: Whether its weights are here from a series that was interrupted.
        forward: Forward passes the missing steps share, one prompt each.
        shared: What those passes cost, in floating point operations, by ``Step.run``.
    """

    cell: Cell
    steps: tuple[Step, ...]
    download: int = 0
    borrowed: bool = False
    forward: float = 0.0
    shared: Mapping[str, float] = field(default_factory=dict)

    @property
    def shared_flops(self) -> float:
        """What the passes cost that missing steps share."""
        return sum(self.shared.values())

    @property
    def missing(self) -> tuple[Step, ...]:
        """The steps that are not stored."""
        return tuple(step for step in self.steps if not step.stored)

    @property
    def flops(self) -> float:
        """An upper bound on the floating point operations of the missing steps."""
        return self.shared_flops + sum(step.flops for step in self.missing)

    @property
    def cost(self) -> Cost:
        """Passes of the missing steps, the shared ones among them."""
        return sum((step.cost for step in self.missing), Cost(forward=self.forward))


@dataclass(frozen=True)
class Plan:
    """The measurements of a run, cell by cell.

    Attributes:
        settings: What is the same for all of them.
        cases: The tests they are for.
        cells: One entry for each loading, in order.
        identities: The identity of each trained cell, by its id.
        errors: Why a cell cannot be measured, by its id.
    """

    settings: Settings
    cases: tuple[Case, ...]
    cells: tuple[CellPlan, ...]
    identities: Mapping[str, Json]
    errors: Mapping[str, MechtestsError]

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Every measurement of the run."""
        return tuple(step for cell in self.cells for step in cell.steps)

    @property
    def missing(self) -> tuple[Step, ...]:
        """The measurements that are not stored."""
        return tuple(step for step in self.steps if not step.stored)

    @cached_property
    def freed(self) -> tuple[CellPlan, ...]:
        """The cells whose weights a run frees again: of a model it downloads a series of.

        A series is more than one checkpoint to download; what is left of an interrupted one
        belongs to it. A single download stays in the hub's cache, as anybody expects.
        """
        downloads: dict[Source, int] = {}
        for cell in self.cells:
            if cell.download and isinstance(cell.cell.source, Remote):
                downloads[cell.cell.source] = downloads.get(cell.cell.source, 0) + 1
        return tuple(
            cell
            for cell in self.cells
            if cell.borrowed or (cell.download and downloads.get(cell.cell.source, 0) > 1)
        )

    @property
    def most_on_disk(self) -> int:
        """Bytes of downloads that are on disk at once, at most.

        Of a series those of the checkpoint that is measured and of the one that is
        downloaded meanwhile, and all that is not freed.
        """
        freed = [cell.download for cell in self.freed]
        pairs = [one + other for one, other in zip(freed, [*freed[1:], 0], strict=True)]
        return sum(cell.download for cell in self.cells) - sum(freed) + max(pairs, default=0)


def build(
    cases: Sequence[Case],
    settings: Settings,
    store: Store,
    *,
    offline: bool = False,
    refresh: bool = False,
    identities: Mapping[str, Json] | None = None,
) -> Plan:
    """The plan of some tests: no weight is loaded and no tokenizer either.

    Args:
        cases: The tests.
        settings: Profile, seed, precision.
        store: What is measured already.
        offline: Whether the network may not be asked.
        refresh: Whether what is stored is measured again.
        identities: Identities that are known already.
    """
    check(cases)
    known: dict[str, Json] = dict(identities or {})
    errors: dict[str, MechtestsError] = {}
    wanted: dict[Cell, dict[Need, None]] = {}
    finals, here = set(), set()
    for case, cell in [(each, cell) for each in cases for cell in each.cells]:
        final = case.final(cell)
        if _identity(cell, known, errors, offline) is None:
            continue
        identity = _identity(final, known, errors, offline)
        shut = not refresh and identity is not None and _gate_shut(case, settings, store, identity)
        finals.add(final)
        here.add(cell)
        for need in case.needs_in(cell, shut=shut):
            what, where = located(need, cell)
            if what.final is None or identity is not None:
                wanted.setdefault(where, {})[what] = None
    cells = [
        _of_cell(
            cell, _keyed(wanted[cell], cell, settings, known), settings, store, offline, refresh
        )
        for cell in sorted(wanted, key=lambda cell: (cell not in finals, cell not in here))
        if _identity(cell, known, errors, offline) is not None
        and cell.source.kind != "recorded"  # what is recorded is there, and nothing more can be
    ]
    return Plan(settings, tuple(cases), tuple(cells), known, errors)


def _identity(
    cell: Cell, known: dict[str, Json], errors: dict[str, MechtestsError], offline: bool
) -> Json | None:
    """The identity of a cell's weights, asked for once; None where it cannot be had."""
    base = trained(cell)
    if base.id not in known and base.id not in errors:
        try:
            known[base.id] = base.source.identity(base.checkpoint, offline=offline)
        except MechtestsError as error:
            errors[base.id] = error
    return known.get(base.id)


def check(cases: Sequence[Case]) -> None:
    """Refuse before anything is loaded a need whose inputs are made elsewhere.

    Raises:
        UsageError: A measurement starts from one of another cell than the series' final one.
    """
    for case in cases:
        for need in case.needs:
            for name, given in need.inputs:
                allowed = {need.cell, "final"} if need.cell == "here" else {need.cell}
                if given.cell not in allowed and need.cell != "final":
                    raise UsageError(
                        f"claim {case.claim.id!r}: {need.name} starts from {name!r}, "
                        f"{given.name}; both must be made in one cell, or what it starts from in "
                        "the final one of the series"
                    )


def _keyed(
    needs: Iterable[Need], cell: Cell, settings: Settings, known: Mapping[str, Json]
) -> dict[Need, str]:
    """The key of each need in a cell, from the identities of the cells."""
    identity = known[trained(cell).id]
    finals = {need: need.final and known[trained(need.final).id] for need in needs}
    return {need: settings.key(need, identity, final) for need, final in finals.items()}


def _of_cell(
    cell: Cell,
    keys: Mapping[Need, str],
    settings: Settings,
    store: Store,
    offline: bool,
    refresh: bool,
) -> CellPlan:
    """What one loading of a cell is for."""
    shape = _shape(cell, offline)
    steps = []
    for need, key in keys.items():
        job = _job(need, settings, shape)
        cost = need.metric.cost(job)
        stored = store.has(key) and not refresh
        steps.append(Step(need, cell, key, job.prompts, cost, _flops(cost, need, shape), stored))
    return _with_shared_passes(tuple(steps), shape, settings, offline)


def _gate_shut(case: Case, settings: Settings, store: Store, identity: Json) -> bool:
    """Whether the stored gate is not passed, so that the verdict needs no more."""
    if case.claim.gate is None:
        return False
    try:
        found = store.get(settings.key(case.claim.gate.need, identity))
    except NotApplicable:
        return True
    if found is None:
        return False
    gate: rules.Gate = case.claim.gate.judged(found)
    return gate.state != rules.GateState.PASSED


def _shape(cell: Cell, offline: bool) -> Shape | None:
    """The shape of a cell's network, where its configuration is at hand."""
    try:
        return Shape.from_config(cell.source.config(cell.checkpoint, offline=offline))
    except MechtestsError:
        return None


def _job(need: Need, settings: Settings, shape: Shape | None) -> Job:
    return Job(
        shape=shape,
        prompts=settings.prompts_of(need.task),
        position=need.task.longest,
        draws=settings.draws if need.metric.draws else 0,
        params=dict(need.params),
    )


def _flops(cost: Cost, need: Need, shape: Shape | None) -> float:
    """Operations of a step: its own figure, or its passes at two a weight and token."""
    if cost.flops or shape is None:
        return cost.flops
    whole = 2.0 * shape.block_parameters * need.task.longest
    return (cost.forward + 2 * cost.backward) * whole


def _with_shared_passes(
    steps: tuple[Step, ...], shape: Shape | None, settings: Settings, offline: bool
) -> CellPlan:
    """Add the passes that steps on the same prompts share, clean and corrupted."""
    runs: dict[tuple[str, str | None], tuple[Task, int, set[str]]] = {}
    for step in steps:
        if not step.stored:
            task, metric = step.need.task, step.need.metric
            for corruption, sites in (
                (None, metric.clean),
                (step.need.corruption, metric.corrupted),
            ):
                if sites or corruption is None:
                    at = step.run, corruption
                    runs.setdefault(at, (task, step.prompts, set()))[2].update(sites)
    forward, flops = 0.0, dict.fromkeys((name for name, _ in runs), 0.0)
    for (name, _), (task, prompts, read) in runs.items():
        layers = 1 if shape is None else layers_for(shape, sorted(read)) / shape.layers
        passes = prompts * layers
        forward += passes
        if shape is not None:
            flops[name] += 2.0 * shape.block_parameters * task.longest * passes
    cell = steps[0].cell
    wanted = any(not step.stored for step in steps) and cell.variant == "trained"
    download, borrowed = _on_disk(cell, wanted, offline)
    return CellPlan(cell, steps, download, borrowed, forward, flops)


def _on_disk(cell: Cell, wanted: bool, offline: bool) -> tuple[int, bool]:
    """Bytes to fetch for a cell, and whether its weights are left from an interrupted series.

    What cannot be told counts as nothing; loading the cell will say why.
    """
    source, at = cell.source, cell.checkpoint
    try:
        borrowed = isinstance(source, Remote) and source.borrowed(at, offline=offline)
        download = source.download_bytes(at, offline=offline) if wanted else 0
    except MechtestsError:
        return 0, False
    return download, borrowed and cell.variant == "trained"


def in_stages(steps: Sequence[Step]) -> list[list[Step]]:
    """The steps in stages: each starts only from what earlier stages or the store have."""
    waiting = {step.need: step for step in steps}
    stages = []
    while waiting:
        ready = [
            step
            for need, step in waiting.items()
            if not any(given in waiting for _, given in need.inputs)
        ]
        stages.append(ready)
        for step in ready:
            del waiting[step.need]
    return stages
