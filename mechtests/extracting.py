"""A model's circuit for a task, to keep in a file: what ``mechtests circuit`` does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mechtests import engine, plan, tasks
from mechtests.case import Case
from mechtests.circuits import finding, measures, search, selection
from mechtests.circuits.circuit import Circuit
from mechtests.circuits.faithfulness import check_gap
from mechtests.claim import Claim
from mechtests.errors import MeasurementError, UsageError
from mechtests.measurement import Measurement
from mechtests.models import sources
from mechtests.models.cell import FINAL, Cell, select
from mechtests.seeds import generator
from mechtests.settings import DRAWS, Settings
from mechtests.store import Store, default_folder
from mechtests.tasks.prompts import Task


@dataclass(frozen=True)
class Extracted:
    """A circuit and how it was found.

    Attributes:
        circuit: With the scores of the selection half.
        sentence: What it is, with its numbers.
    """

    circuit: Circuit
    sentence: str


def extract(
    model: str,
    task_name: str,
    *,
    checkpoint: str = FINAL,
    edges: int | None = None,
    faithfulness: float = 0.8,
    profile: str = "quick",
    offline: bool = False,
    store: Store | None = None,
) -> Extracted:
    """Find the circuit of a task, by the measurements that claims read.

    Args:
        model: As for ``--model``.
        task_name: A task with answers and corrupted prompts.
        checkpoint: One of the model's, by its label or step.
        edges: Take so many edges of the greedy order; those on no path are pruned.
        faithfulness: Without ``edges``: the smallest circuit of up to 5% of the edges that keeps
            so much on the other half of the prompts, on the grid of sizes.
        profile: How many prompts.
        offline: Whether the network may not be asked.
        store: Where measurements are.

    Raises:
        MechtestsError: The model, task or checkpoint is not there, does not apply or fails.
    """
    task = _asked(task_name, edges, faithfulness, profile)
    source = sources.resolve(model, cache=default_folder())
    if source.kind == "recorded":
        raise UsageError(f"{model} has recorded values and no weights, so it has no circuit")
    chosen = select(source.checkpoints(offline=offline), checkpoint)
    if len(chosen) != 1:
        raise UsageError(f"a circuit is of one checkpoint, and {checkpoint} names {len(chosen)}")
    cell = Cell(source.name, chosen[0], source)
    needs = {"scores": measures.scores_on(task)}
    if edges is None:
        needs["sizes"] = measures.sizes_on(task)
    claim = Claim(id="circuit", says="", rule="", task=task.name, needs=needs)
    store = store or Store(default_folder())
    settings = Settings(profile=profile)
    made = plan.build([Case(claim, cell)], settings, store, offline=offline)
    results = engine.run(made, store, offline=offline)
    if error := next(iter(results.cell_errors.values()), None):
        raise MeasurementError(error)
    found = {name: results.measurement(need, cell) for name, need in needs.items()}
    said = f"{cell.id}, {task.name}"
    if edges is None:
        draws = generator(settings.seed, "circuit", cell.id, task.name)
        return _smallest(found["scores"], found["sizes"], said, faithfulness, draws)
    scores = found["scores"]
    order = selection.greedy(finding.graph_of(scores), scores["selection"], limit=edges)
    circuit = order.circuit(len(order))
    said = f"{said}: {circuit.size} of {circuit.graph.edges} edges"
    return Extracted(circuit, f"{said}, of the first {len(order)} of the greedy order")


def _asked(task_name: str, edges: int | None, faithfulness: float, profile: str) -> Task:
    """The task, where what is asked of it makes sense; no model is loaded yet.

    Raises:
        UsageError: It does not.
    """
    task = tasks.find(task_name)
    if task.levels is None or task.corruption is None:
        raise UsageError(f"{task_name} has no answers and corrupted prompts, so it has no circuit")
    if edges is not None and edges < 1:
        raise UsageError(f"--edges is a number of edges from 1 on, got {edges}")
    if not 0 < faithfulness <= 1:
        raise UsageError(f"--faithfulness is a share above 0 and at most 1, got {faithfulness:g}")
    if profile not in DRAWS:
        raise UsageError(f"--profile is one of {', '.join(DRAWS)}, got {profile!r}")
    return task


def _smallest(
    scores: Measurement,
    sizes: Measurement,
    said: str,
    threshold: float,
    draws: np.random.Generator,
) -> Extracted:
    """The smallest circuit of the selection half, with an interval over the other's prompts."""
    found = finding.smallest(scores, sizes, "selection", threshold=threshold)
    check_gap(found.clean, found.corrupted)
    order = finding.ordering(scores, "selection")
    circuit = order.circuit(found.size.n)
    said = f"{said}: {circuit.size} of {circuit.graph.edges} edges"
    if found.censored:
        return Extracted(circuit, f"{said}, the largest tried: none keeps {threshold:.0%}")
    around = search.interval(found, draws, cluster=sizes.cluster[sizes.of("evaluation")])
    low, high = ("more" if end is None else f"{end:.0f}" for end in (around.low, around.high))
    return Extracted(
        circuit,
        f"{said}, the first size on the grid that keeps {threshold:.0%} on held-out prompts "
        f"({low} to {high} edges with other prompts)",
    )
