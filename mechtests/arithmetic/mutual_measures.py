"""What the neurons explain, at every checkpoint, that it shares with the final model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mechtests.arithmetic.bag_measures import SERIES, answers_here, bags_here, triples_of
from mechtests.arithmetic.chosen import EVALUATION
from mechtests.arithmetic.components import late_layers
from mechtests.arithmetic.measures import FACTS, NL, facts_of, pairs_of, problems_of
from mechtests.arithmetic.mutual import masks, mutual, neurons_of, random_subset
from mechtests.errors import NotApplicable
from mechtests.metrics.metric import Batch, Cost, Metric, Need, Value
from mechtests.tasks.arithmetic import NAMES

if TYPE_CHECKING:
    from mechtests.arithmetic.averages import Averages
    from mechtests.arithmetic.problems import Problems
    from mechtests.arithmetic.triples import Triple
    from mechtests.models.network import Network

RANDOM_PARTS = 5
"""Random parts of a checkpoint's heuristic neurons, whose mean is the control."""


def _mutual_neurons(batch: Batch) -> Mapping[str, Any]:
    from mechtests.arithmetic.averages import averages

    here, final = batch.inputs["found"], batch.inputs["final"]
    operators = [int(op) for op in here["operators"] if op in final["operators"]]
    if not operators:
        raise NotApplicable(
            f"{batch.network.name} does no operator of arithmetic that the final model does"
        )
    problems, parts, found, counts = problems_of(batch), [], [], []
    late = late_layers(batch.network.shape.layers)
    means = averages(batch.network, problems, sites=["post"], layers=late)
    for operator in operators:
        pairs = pairs_of(batch, operator)["evaluation"]
        now, then = (triples_of(each, [operator]) for each in (here, final))
        draw = batch.generator(f"random parts for {NAMES[operator]}")
        nl = _explained(batch.network, problems.select(pairs.prompts), means, (now, then), draw)
        found.append(nl)
        counts.append((operator, len(neurons_of(now)), len(mutual(now, then))))
        parts.append((operator, 1, pairs))
    everything, shared, floor, *drawn = np.concatenate(found).T
    return {
        "all": everything,
        "mutual": shared,
        "random": np.mean(drawn, 0),
        "floor": floor,
        "counts": np.array(counts),
        **facts_of(parts),
    }


def _explained(
    network: Network,
    problems: Problems,
    means: Averages,
    triples: tuple[frozenset[Triple], frozenset[Triple]],
    generator: np.random.Generator,
) -> Any:
    """NL with all heuristic neurons, with mutual ones, with none, and with random parts."""
    from mechtests.arithmetic.faithfulness import Kept, run_circuits

    every, shared = neurons_of(triples[0]), mutual(*triples)
    drawn = [random_subset(every, shared, generator) for _ in range(RANDOM_PARTS)]
    layers, whole = late_layers(network.shape.layers), Kept.everything(network.shape)
    circuits = [
        whole.with_neurons(masks(some, layers, network.shape.mlp_width))
        for some in (every, shared, frozenset[tuple[int, int]](), *drawn)
    ]
    return run_circuits(network, problems, means, circuits).normalised


mutual_neurons = Metric(
    name="arithmetic.mutual_neurons",
    version=1,
    compute=_mutual_neurons,
    values={
        **dict.fromkeys(("all", "mutual", "random", "floor"), NL),
        "counts": Value(("operator", "fact"), "operator, neurons, mutual ones"),
        **FACTS,
    },
    inputs=("answers", "final", "found"),
    cost=lambda job: Cost(forward=job.prompts + len(NAMES) * EVALUATION * (3.0 + RANDOM_PARTS)),
    whole=True,
)
"""NL with only some neurons of the middle and late layers, the others at their mean.

``all``: those that match a heuristic; ``mutual``: that match one they match in the final model too;
``random``: the mean over random parts of all, with as many neurons a layer as are mutual; ``floor``
none. Of the operators gated here and in the end. Nikankin et al. 2025, Figure 10b.
"""


def mutual_here() -> Need:
    """What the neurons explain that it shares with the final model."""
    inputs = {"answers": answers_here(), "found": bags_here(), "final": bags_here("final")}
    return mutual_neurons(SERIES, inputs=inputs)
