"""The plan: which measurements a run still needs, in which order, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

from mechtests import rules
from mechtests.claim import Claim
from mechtests.errors import MechtestsError, NotApplicable, UsageError
from mechtests.metrics.metric import Cost, Job, Need, digest
from mechtests.models.activations import layers_for
from mechtests.models.cell import Cell, Checkpoint, Source
from mechtests.models.shape import Shape
from mechtests.store import SCHEMA, Store
from mechtests.tasks.prompts import Task

Json = Any

DRAWS = {"quick": 19, "standard": 199, "full": 999}


@dataclass(frozen=True)
class Settings:
    """What is the same for every measurement of a run.

    Attributes:
        profile: How many prompts and draws: ``quick``, ``standard`` or ``full``.
        seed: The root of every random draw.
        dtype: The precision of the network.
        device: Where it runs; a fact beside the values, not part of their key.
        prompts: A user's own CSV file for a task, by the task's name.
        prompt_digests: SHA-256 of those files, by the task's name.
        prompt_counts: How many prompts they have, by the task's name.
    """

    profile: str = "quick"
    seed: int = 0
    dtype: str = "float32"
    device: str = "cpu"
    prompts: Mapping[str, str] = field(default_factory=dict)
    prompt_digests: Mapping[str, str] = field(default_factory=dict)
    prompt_counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def draws(self) -> int:
        """Random draws of the profile."""
        return DRAWS[self.profile]

    def prompts_of(self, task: Task) -> int:
        """How many prompts there are of a task: those of the profile, or of the user's file."""
        return self.prompt_counts.get(task.name, task.sizes[self.profile])

    def request(self, need: Need, identity: Json) -> Mapping[str, Json]:
        """Everything that decides the values of a measurement, as JSON."""
        tasks = {each.task.name: each.task for each in need.everything()}
        return {
            "schema": SCHEMA,
            **need.request(
                identity=identity,
                sizes={name: self.prompts_of(task) for name, task in tasks.items()},
                sources=self.prompt_digests,
                settings={"dtype": self.dtype, "attention": "explicit", "seed": self.seed},
                draws=self.draws,
            ),
        }

    def key(self, need: Need, identity: Json) -> str:
        """The store's key of a measurement in the cell of this identity."""
        return digest(self.request(need, identity))


@dataclass(frozen=True)
class Case:
    """One test: a claim in a cell."""

    claim: Claim
    cell: Cell

    @property
    def gate_needs(self) -> tuple[Need, ...]:
        """What tells whether the claim applies to the cell at all."""
        return () if self.claim.gate is None else (self.claim.gate.need,)

    @property
    def needs(self) -> tuple[Need, ...]:
        """All the claim reads, the gate first, inputs before what starts from them."""
        wanted = [*self.gate_needs, *self.claim.needs.values()]
        return tuple(dict.fromkeys(each for need in wanted for each in need.everything()))


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


@dataclass(frozen=True)
class CellPlan:
    """What one loading of one cell is for.

    Attributes:
        cell: The cell, trained or not.
        steps: Its measurements in order; those already stored are marked.
        download: Bytes still to be fetched before it can be loaded.
        forward: Forward passes the missing steps share, one prompt each.
        shared: What those passes cost, in floating point operations, by the task's name.
    """

    cell: Cell
    steps: tuple[Step, ...]
    download: int = 0
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


def trained(cell: Cell) -> Cell:
    """The cell itself, or the one an untrained cell has its configuration from."""
    return replace(cell, variant="trained")


@lru_cache(maxsize=256)  # a source is asked again for every need of every test
def step_zero(source: Source) -> Checkpoint | None:
    """The checkpoint of a model before any training, where it has one."""
    return next((c for c in source.checkpoints(offline=True) if c.step == 0), None)


def located(need: Need, cell: Cell) -> tuple[Need, Cell]:
    """What is measured for a need of a test in ``cell``, and in which cell.

    The untrained cell is step 0 of the same model, or else the same configuration freshly
    initialised (claims.md, Seeds).
    """
    if need.cell == "here":
        return need, cell
    first = step_zero(cell.source)
    if first is None:
        return need, replace(cell, variant="untrained")
    return need.here(), replace(cell, checkpoint=first)


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
    controls = set()
    for case in cases:
        identity = _identity(case.cell, known, errors, offline)
        if identity is None:
            continue
        shut = not refresh and _gate_shut(case, settings, store, identity)
        for need in case.gate_needs if shut else case.needs:
            what, cell = located(need, case.cell)
            wanted.setdefault(cell, {})[what] = None
            if cell != case.cell:
                controls.add(cell)
    cells = [
        _of_cell(cell, wanted[cell], settings, store, identity, offline, refresh)
        for cell in sorted(wanted, key=lambda cell: cell in controls)
        if (identity := _identity(cell, known, errors, offline)) is not None
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
        UsageError: A measurement starts from one of another cell.
    """
    for case in cases:
        for need in case.needs:
            for name, given in need.inputs:
                if given.cell != need.cell:
                    raise UsageError(
                        f"claim {case.claim.id!r}: {need.name} starts from {name!r}, "
                        f"{given.name}; both must be made in one cell"
                    )


def _of_cell(
    cell: Cell,
    needs: Iterable[Need],
    settings: Settings,
    store: Store,
    identity: Json,
    offline: bool,
    refresh: bool,
) -> CellPlan:
    """What one loading of a cell is for."""
    shape = _shape(cell, offline)
    steps = []
    for need in needs:
        key = settings.key(need, identity)
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
    return rules.gate(found, case.claim.gate.levels).state != rules.GateState.PASSED


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
    runs: dict[tuple[str, str | None], tuple[Task, set[str]]] = {}
    for step in steps:
        if not step.stored:
            task, metric = step.need.task, step.need.metric
            runs.setdefault((task.name, None), (task, set()))[1].update(metric.clean)
            if metric.corrupted:
                corrupted = runs.setdefault((task.name, step.need.corruption), (task, set()))
                corrupted[1].update(metric.corrupted)
    forward, flops = 0.0, dict.fromkeys((name for name, _ in runs), 0.0)
    for task, sites in runs.values():
        layers = 1 if shape is None else layers_for(shape, sorted(sites)) / shape.layers
        passes = settings.prompts_of(task) * layers
        forward += passes
        if shape is not None:
            flops[task.name] += 2.0 * shape.block_parameters * task.longest * passes
    cell = steps[0].cell
    wanted = any(not step.stored for step in steps) and cell.variant == "trained"
    download = cell.source.download_bytes(cell.checkpoint, offline=offline) if wanted else 0
    return CellPlan(cell, steps, download, forward, flops)
