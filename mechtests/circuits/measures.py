"""The measurements of circuits: the scores of edges, and what circuits found with them keep.

Circuits are found with the scores of one half of the prompts and judged on the other half
(claims.md, Circuits). Edges outside a circuit carry the corrupted prompts' activations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mechtests.circuits import controls, search, selection
from mechtests.circuits.circuit import Circuit
from mechtests.circuits.finding import COARSE, chosen_circuit, graph_of, grid_of, ordering
from mechtests.circuits.graph import Graph, Ints
from mechtests.measurement import HALVES
from mechtests.metrics import behaviour
from mechtests.metrics.metric import Batch, Cost, Job, Metric, Need, Value
from mechtests.tasks.prompts import Prompts, Task

if TYPE_CHECKING:
    from torch import Tensor

LOGITS, PROBABILITY = "logit_difference", "probability_difference"
SHUFFLES = 3
MOST_DRAWS = 99
WORKING_BYTES = 256_000_000


def measured_by(task: Task) -> str:
    """What is attributed and kept on a task: what its gate reads, as in the paper.

    The logit difference where the gate has one (IOI, pronoun), else the probability difference
    (greater-than, agreement).
    """
    return LOGITS if task.levels and LOGITS in task.levels.above else PROBABILITY


def scores_on(task: Task) -> Need:
    """The declaration of the scores of a task's edges."""
    return edge_scores(task, metric=measured_by(task))


def sizes_on(task: Task) -> Need:
    """The declaration of what circuits of every size keep."""
    return sizes(task, inputs={"scores": scores_on(task)}, metric=measured_by(task))


def small_on(task: Task) -> Need:
    """The declaration of what small circuits keep, and circuits of shuffled scores."""
    return small(task, inputs={"scores": scores_on(task)}, metric=measured_by(task))


def random_on(task: Task) -> Need:
    """The declaration of what random circuits of the best small size keep."""
    inputs = {"scores": scores_on(task), "small": small_on(task)}
    return random(task, inputs=inputs, metric=measured_by(task))


def _kept(batch: Batch, resid: Tensor, prompts: Prompts) -> Tensor:
    """What is attributed and kept, a number a prompt, from the residual stream at END."""
    read = {LOGITS: behaviour.logit_difference, PROBABILITY: behaviour.probability_difference}
    return read[batch.params["metric"]](batch.network, resid, prompts)


def _edge_scores(batch: Batch) -> Mapping[str, object]:
    import torch

    from mechtests.circuits.attribution import attribute

    network, prompts = batch.network, batch.prompts
    present = sorted(set(prompts.half.tolist()))
    groups = np.searchsorted(present, prompts.half)

    def metric(resid: Tensor, rows: Tensor) -> Tensor:
        return _kept(batch, resid, prompts.select(rows.cpu().numpy()))

    clean, corrupted = _tokens(batch)
    found = attribute(
        network,
        clean,
        corrupted,
        metric,
        method=batch.params["method"],
        steps=batch.params["steps"],
        path=batch.params["path"],
        last=torch.as_tensor(prompts.end),
        groups=groups,
    )
    shape = network.shape
    scores: dict[str, object] = {half: np.zeros_like(found[0]) for half in HALVES}
    for place, half in enumerate(present):
        scores[HALVES[half]] = found[place] * (np.sum(prompts.half == half) / len(prompts))
    facts = (shape.layers, shape.heads, int(shape.parallel), shape.key_value_heads)
    return {**scores, "graph": np.array(facts, dtype=np.float64)}


def _tokens(batch: Batch) -> tuple[Tensor, Tensor]:
    import torch

    assert batch.corruption is not None
    clean, corrupted = batch.prompts.clean, batch.prompts.corrupted[batch.corruption]
    device = batch.network.device
    return torch.as_tensor(clean, device=device), torch.as_tensor(corrupted, device=device)


def _in_parts(batch: Batch) -> list[np.ndarray]:
    """Rows of the batch, prompts of like length together, as many as the memory holds."""
    shape, prompts = batch.network.shape, batch.prompts
    each = shape.heads * shape.head_width + shape.key_value_heads * shape.head_width + shape.width
    numbers = prompts.clean.shape[1] * (2 * shape.layers * each + shape.width * shape.heads)
    count = max(1, WORKING_BYTES // (4 * numbers))
    rows = np.argsort(prompts.length, kind="stable")
    return [rows[at : at + count] for at in range(0, len(rows), count)]


def _evaluated(
    batch: Batch, circuits: Mapping[tuple[int, ...], Sequence[Circuit]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What circuits keep on some prompts: clean, corrupted, and ``[prompt, circuit]``.

    Args:
        batch: The prompts.
        circuits: By the numbers of the halves whose prompts they run on, as many for each.
    """
    import torch

    from mechtests.circuits.evaluation import Evaluation
    from mechtests.circuits.others import corrupted as corrupted_run

    prompts, (clean, corrupted) = batch.prompts, _tokens(batch)
    most = max(map(len, circuits.values()), default=0)
    kept = np.zeros((len(prompts), most))
    ends = np.zeros((2, len(prompts)))
    for part in _in_parts(batch):
        for halves, several in circuits.items():
            rows = part[np.isin(prompts.half[part], halves)]
            if not len(rows):
                continue
            chosen = prompts.select(rows)
            at = torch.as_tensor(rows, device=clean.device)
            width = chosen.clean.shape[1]
            tokens = clean[at, :width], corrupted[at, :width]
            others = corrupted_run(batch.network, *tokens, last=torch.as_tensor(chosen.end))
            evaluation = Evaluation(batch.network, tokens[0], others)

            def metric(resid: Tensor, chosen: Prompts = chosen) -> Tensor:
                return _kept(batch, resid, chosen)

            kept[rows] = search.evaluated(several, partial(evaluation.values, metric=metric)).T
            for place, end in enumerate((evaluation.clean(), others.final)):
                ends[place, rows] = metric(end).double().cpu().numpy()
    return ends[0], ends[1], kept


def _circuits(order: selection.Ordering, sizes: Ints) -> list[Circuit]:
    return [order.circuit(min(int(n), len(order))) for n in sizes]


def _sizes(batch: Batch) -> Mapping[str, object]:
    scores, share = batch.inputs["scores"], batch.params["share"]
    sizes = grid_of(graph_of(scores), ratio=batch.params["ratio"], share=share)
    found: dict[tuple[int, ...], list[Circuit]] = {
        (1 - number,): _circuits(ordering(scores, half, share=share), sizes)
        for number, half in enumerate(HALVES)
    }
    clean, corrupted, kept = _evaluated(batch, found)
    return {"clean": clean, "corrupted": corrupted, "kept": kept}


def _small(batch: Batch) -> Mapping[str, object]:
    scores = batch.inputs["scores"]
    graph = graph_of(scores)
    sizes = grid_of(graph, ratio=COARSE)
    orders = [ordering(scores, "selection")]
    generator = batch.generator("shuffled scores")
    limit = search.limit_of(graph)
    for _ in range(batch.params["shuffles"]):
        drawn = controls.shuffled(graph, scores["selection"], generator)
        orders.append(selection.greedy(graph, drawn, limit=limit))
    circuits = [circuit for order in orders for circuit in _circuits(order, sizes)]
    clean, corrupted, kept = _evaluated(batch, {(0, 1): circuits})
    kept = kept.reshape(len(kept), len(orders), len(sizes))
    return {"clean": clean, "corrupted": corrupted, "circuit": kept[:, 0], "shuffled": kept[:, 1:]}


def _random(batch: Batch) -> Mapping[str, object]:
    circuit = chosen_circuit(batch.inputs["scores"], batch.inputs["small"])
    generator = batch.generator("random circuits")
    draws = min(batch.draws, batch.params["most"])
    drawn = [controls.random_circuit(circuit.graph, circuit.size, generator) for _ in range(draws)]
    _, _, kept = _evaluated(batch, {(1,): drawn})
    return {"kept": kept}


# ---------------------------------------------------------------- what it costs


def _attribution_cost(job: Job) -> Cost:
    steps = job.params["steps"]
    return Cost(forward=(steps + 2.0) * job.prompts, backward=float(steps * job.prompts))


def _passes(circuits: int, job: Job) -> Cost:
    """At most a whole pass for each circuit and prompt."""
    return Cost(forward=float((circuits + 2) * job.prompts))


def _graph(job: Job) -> Graph | None:
    shape = job.shape
    return None if shape is None else Graph(shape.layers, shape.heads, shape.parallel)


def _sizes_cost(job: Job) -> Cost:
    graph = _graph(job)
    if graph is None:
        return _passes(60, job)
    return _passes(len(grid_of(graph, ratio=job.params["ratio"], share=job.params["share"])), job)


def _small_cost(job: Job) -> Cost:
    graph = _graph(job)
    sizes = 14 if graph is None else len(grid_of(graph, ratio=COARSE))
    return _passes(sizes * (1 + job.params["shuffles"]), job)


def _random_cost(job: Job) -> Cost:
    return _passes(min(job.draws, job.params["most"]), job)


EDGES = Value(("writer", "reader"), "of the metric")
KEPT = Value(("prompt",), "of the metric")

edge_scores = Metric(
    name="circuits.edge_scores",
    version=1,
    compute=_edge_scores,
    values={
        "selection": EDGES,
        "evaluation": EDGES,
        "graph": Value(("size",), "count"),
    },
    params={"metric": LOGITS, "method": "eap-ig-inputs", "steps": 5, "path": "corrupted"},
    cost=_attribution_cost,
    clean=("final",),
    corrupted=("final",),
    needs=("answers",),
)
"""The scores of all edges by EAP-IG on inputs, from each half of the prompts alone.

A positive score: with the corrupted activation on this edge the metric falls, by about so much.
``selection`` and ``evaluation`` are sums over the prompts of the half over the number of all
prompts; ``graph`` holds layers, heads, whether blocks are parallel, and key and value heads.
Source: Hanna et al. 2024; Tigges et al. 2024, section 2, whose code takes 30 points, the corrupted
end among them (``path="corrupted"``) as here.
"""

sizes = Metric(
    name="circuits.sizes",
    version=1,
    compute=_sizes,
    values={"clean": KEPT, "corrupted": KEPT, "kept": Value(("prompt", "size"), "of the metric")},
    params={"metric": LOGITS, "ratio": search.RATIO, "share": search.SHARE},
    inputs=("scores",),
    cost=_sizes_cost,
    clean=("final",),
    corrupted=("final",),
    needs=("answers",),
)
"""What the circuit of the other half keeps on each prompt, at every size of the grid.

``kept[prompt, size]``: the metric with the corrupted prompt's activations on all other edges.
"""

small = Metric(
    name="circuits.small",
    version=1,
    compute=_small,
    values={
        "clean": KEPT,
        "corrupted": KEPT,
        "circuit": Value(("prompt", "size"), "of the metric"),
        "shuffled": Value(("prompt", "shuffle", "size"), "of the metric"),
    },
    params={"metric": LOGITS, "shuffles": SHUFFLES},
    inputs=("scores",),
    cost=_small_cost,
    clean=("final",),
    corrupted=("final",),
    needs=("answers",),
)
"""What circuits of the selection half keep on all prompts, at sizes up to 5% of the edges.

``shuffled``: the same search with the scores shuffled among edges of like layers and kind.
"""

random = Metric(
    name="circuits.random",
    version=1,
    compute=_random,
    values={"kept": Value(("prompt", "draw"), "of the metric")},
    params={"metric": LOGITS, "most": MOST_DRAWS},
    inputs=("scores", "small"),
    draws=True,
    cost=_random_cost,
    clean=("final",),
    corrupted=("final",),
    needs=("answers",),
)
"""What random connected circuits keep on the evaluation half (0 on the other), as large as the
small circuit with the best faithfulness on the selection half."""
