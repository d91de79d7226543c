"""A model's circuit for a task, to keep in a file: what ``mechtests circuit`` does."""

from __future__ import annotations

from dataclasses import dataclass

from mechtests import engine, plan, tasks
from mechtests.case import Case
from mechtests.circuits import measures, search, selection, stability
from mechtests.circuits.circuit import Circuit
from mechtests.claim import Claim
from mechtests.errors import MeasurementError, UsageError
from mechtests.measurement import Measurement
from mechtests.models import sources
from mechtests.models.cell import FINAL, Cell, select
from mechtests.results import Results
from mechtests.settings import Settings
from mechtests.store import Store, default_folder


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
    task = tasks.find(task_name)
    if task.levels is None or task.corruption is None:
        raise UsageError(f"{task_name} has no answers and corrupted prompts, so it has no circuit")
    source = sources.resolve(model, cache=default_folder())
    chosen = select(source.checkpoints(offline=offline), checkpoint)
    if len(chosen) != 1:
        raise UsageError(f"a circuit is of one checkpoint, and {checkpoint} names {len(chosen)}")
    cell = Cell(source.name, chosen[0], source)
    needs = {"scores": measures.scores_on(task)}
    if edges is None:
        needs["sizes"] = measures.sizes_on(task)
    claim = Claim(id="circuit", says="", rule="", task=task.name, needs=needs)
    store = store or Store(default_folder())
    made = plan.build([Case(claim, cell)], Settings(profile=profile), store, offline=offline)
    results = engine.run(made, store, offline=offline)
    found = {name: _measured(results, need, cell) for name, need in needs.items()}
    if edges is None:
        return _smallest(found["scores"], found["sizes"], cell, faithfulness)
    scores = found["scores"]
    order = selection.greedy(measures.graph_of(scores), scores["selection"], limit=edges)
    circuit = order.circuit(min(edges, len(order)))
    said = f"{cell.id}, {task.name}: {circuit.size} of {circuit.graph.edges} edges"
    return Extracted(circuit, f"{said}, of the first {edges} of the greedy order")


def _measured(results: Results, need: object, cell: Cell) -> Measurement:
    """A measurement, or why it is not there.

    Raises:
        MechtestsError: It failed or does not apply.
    """
    if error := next(iter(results.cell_errors.values()), None):
        raise MeasurementError(error)
    return results.measurement(need, cell)  # type: ignore[arg-type]


def _smallest(
    scores: Measurement, sizes: Measurement, cell: Cell, faithfulness: float
) -> Extracted:
    size = stability.size_of(scores, sizes, "selection", threshold=faithfulness)
    graph = measures.graph_of(scores)
    grid = measures.grid_of(graph, ratio=search.RATIO)
    order = measures.ordering(scores, "selection")
    circuit = next(c for n in grid if (c := order.circuit(int(n))).size == size.edges)
    said = f"{cell.id}: {circuit.size} of {graph.edges} edges"
    if size.censored:
        return Extracted(
            circuit, f"{said}, the largest that was tried: none keeps {faithfulness:.0%}"
        )
    return Extracted(
        circuit,
        f"{said}, the first size on the grid that keeps {faithfulness:.0%} on held-out prompts",
    )
