"""The measurements of knock-outs: of a problem's heuristics, and of single heuristics.

Both start from what the important neurons match (``heuristic_measures``), and take only problems
that the model answers right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mechtests.arithmetic import heuristic_measures, measures, neuron_measures
from mechtests.arithmetic.chosen import EVALUATION, right
from mechtests.arithmetic.heuristics import KINDS, VARIABLES, Heuristic, associated, decoded
from mechtests.arithmetic.pools import CONTROLS, Important, guided_sets
from mechtests.measurement import HALVES
from mechtests.metrics.metric import Batch, Cost, Job, Metric, Need, Value
from mechtests.tasks.arithmetic import NAMES, arithmetic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mechtests.arithmetic.problems import Problems

KS = (5, 10, 25)
"""Neurons of each layer that are knocked out at most; the second decides."""
DRAWS = 20
TYPES = tuple(f"{variable} {kind}" for variable in VARIABLES for kind in KINDS)


def _bag(batch: Batch, place: int, operator: int) -> Important:
    """The top neurons of an operator, with the scores of what they match, else 0."""
    from mechtests.arithmetic.matching import matched

    ranked, found = batch.inputs["attribution"], batch.inputs["heuristics"]
    layers = ranked["layers"]
    effect = neuron_measures.mean_effect(ranked, place)
    at, index = np.nonzero(neuron_measures.top_neurons(ranked, place))
    neurons = {
        (int(layers[a]), int(n)): row for row, (a, n) in enumerate(zip(at, index, strict=True))
    }
    score = np.zeros((len(at), len(found["heuristics"])), np.float32)
    mine = found["triples"][:, 0] == operator
    for (_, layer, neuron, number), value in zip(
        found["triples"][mine].tolist(), found["scores"][mine].tolist(), strict=True
    ):
        if (layer, neuron) in neurons:
            score[neurons[layer, neuron], number] = value
    ranked_by = effect[at, index].astype(np.float64)
    return Important(layers[at].astype(np.int64), index, ranked_by, score, matched(score))


def _named(batch: Batch) -> list[Heuristic]:
    return [decoded(row) for row in batch.inputs["heuristics"]["heuristics"]]


def _holds(batch: Batch, problems: Problems) -> NDArray[np.bool_]:
    """Which heuristics hold for which problems, ``[problem, heuristic]``."""
    return associated(_named(batch), problems.first, problems.second, problems.result)


def _guided(batch: Batch) -> Mapping[str, Any]:
    from mechtests.arithmetic import knockouts
    from mechtests.arithmetic.problems import Problems

    every = Problems.of(batch.prompts)
    parts, found = [], []
    for place, operator in enumerate(int(op) for op in batch.inputs["attribution"]["operators"]):
        pairs = measures.pairs_of(batch, operator)["evaluation"]
        problems, bag = every.select(pairs.prompts), _bag(batch, place, operator)
        plan = guided_sets(
            bag,
            _holds(batch, problems),
            batch.generator(f"controls of {NAMES[operator]}"),
            ks=KS,
            draws=min(DRAWS, batch.draws),
        )
        done = knockouts.guided(batch.network, problems, bag, plan)
        missing = done.shortfall / np.maximum(done.knocked, 1)
        short = (done.pool[:, None] < np.array(KS)[:, None]).any(-1)
        by_control = (done.control_right, done.single_right, missing)
        found.append((done.heuristic_right.T, short, *(each.T for each in by_control)))
        parts.append((operator, 1, pairs))
    names = ("heuristic", "short", "control", "single", "missing")
    joined = (np.concatenate(each).astype(np.float32) for each in zip(*found, strict=True))
    return {**dict(zip(names, joined, strict=True)), **measures.facts_of(parts)}


def _guided_cost(job: Job) -> Cost:
    branches = 1.0 + len(CONTROLS) * min(DRAWS, job.draws)
    return Cost(forward=len(NAMES) * EVALUATION * len(KS) * branches)


BY_CONTROL = ("pair", "k", "control")

guided = Metric(
    name="arithmetic.knockouts",
    version=1,
    compute=_guided,
    values={
        "heuristic": Value(("pair", "k"), "right or wrong"),
        "control": Value(BY_CONTROL, "share of draws"),
        "single": Value(BY_CONTROL, "right or wrong"),
        "short": Value(("pair", "k"), "yes or no"),
        "missing": Value(BY_CONTROL, "share of neurons"),
        **measures.FACTS,
    },
    inputs=("answers", "attribution", "heuristics"),
    draws=True,
    cost=_guided_cost,
    whole=True,
)
"""Whether problems are still right without their heuristics' neurons, and without as many others.

Up to ``KS`` neurons of each middle and late layer are 0 at all positions: those with the highest
score of a heuristic that holds for the problem, or as many by layer of each of ``CONTROLS``
(``pools.guided_sets``), the mean over draws and the first draw alone. ``short``: some layer has
fewer than k such neurons. ``missing``: the part of them that a control has none for.
Source: Nikankin et al. 2025, Figure 8. Problems are of the evaluation half; neurons
are the 1.5% that the selection half ranks first.
"""


def _single_heuristics(batch: Batch) -> Mapping[str, Any]:
    from mechtests.arithmetic.one_heuristic import by_heuristic, related_sets
    from mechtests.arithmetic.problems import Problems

    every, named = Problems.of(batch.prompts), _named(batch)
    rows: list[Any] = []
    for place, operator in enumerate(int(op) for op in batch.inputs["attribution"]["operators"]):
        mine = np.concatenate([right(batch.inputs["answers"], operator, half) for half in HALVES])
        problems, bag = every.select(np.sort(mine)), _bag(batch, place, operator)
        draw = batch.generator(f"problems of {NAMES[operator]}")
        plan = related_sets(bag, _holds(batch, problems), draw)
        done = by_heuristic(batch.network, problems, bag, plan, named)
        for at, cluster in enumerate(done.cluster):
            shared = done.shared[at] / done.neurons[at]
            rows.append((operator, TYPES.index(cluster), *done.right[at].ravel(), shared))
    return {"tests": np.array(rows, np.float64).reshape(-1, 7)}


single_heuristics = Metric(
    name="arithmetic.heuristic_knockouts",
    version=1,
    compute=_single_heuristics,
    values={"tests": Value(("heuristic", "fact"), "see the docstring")},
    inputs=("answers", "attribution", "heuristics"),
    cost=lambda job: Cost(forward=len(NAMES) * 70 * 200 * 6.0),
    whole=True,
)
"""What is right without all neurons of one heuristic, on problems it holds for and on others.

Of every heuristic with 10 neurons or more: operator, its type (a place in ``TYPES``), the accuracy
on related and on unrelated problems, both again without as many other important neurons by layer,
and the part of those others that is the heuristic's own. Source: Figure 7.
"""


def _inputs() -> dict[str, Need]:
    return {
        "answers": measures.answers_here(),
        "attribution": neuron_measures.attribution_here(),
        "heuristics": heuristic_measures.heuristics_here(),
    }


def guided_here() -> Need:
    """Knock-outs guided by the prompt."""
    return guided(arithmetic, inputs=_inputs())


def single_heuristics_here() -> Need:
    """Knock-outs of single heuristics."""
    return single_heuristics(arithmetic, inputs=_inputs())
