"""The measurements of knock-outs: of a problem's heuristics, and of single heuristics.

Both start from what the important neurons match (``heuristic_measures``), and take only problems
that the model answers right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mechtests.arithmetic import heuristic_measures, measures
from mechtests.arithmetic.chosen import right
from mechtests.arithmetic.heuristic_measures import KINDS, decoded, top_neurons
from mechtests.arithmetic.heuristics import VARIABLES
from mechtests.measurement import HALVES
from mechtests.metrics.metric import Batch, Cost, Metric, Need, Value
from mechtests.tasks.arithmetic import NAMES, arithmetic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mechtests.arithmetic.controls import Bag
    from mechtests.arithmetic.problems import Problems

KS = (5, 10, 25)
"""Neurons of each layer that are knocked out at most; the second decides."""
CONTROLS = ("unassociated", "attribution", "another prompt", "important")
DRAWS = 20
TYPES = tuple(f"{variable} {kind}" for variable in VARIABLES for kind in KINDS)


def _bag(batch: Batch, place: int, operator: int) -> Bag:
    """The top neurons of an operator, with the scores of what they match, else 0."""
    from mechtests.arithmetic.controls import Bag

    ranked, found = batch.inputs["attribution"], batch.inputs["heuristics"]
    layers = ranked["layers"]
    effect = ranked["effect"][place, 0].sum(0) / ranked["count"][place, 0].sum()
    at, index = np.nonzero(top_neurons(effect, measures.LATE_SHARE))
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
    return Bag(layers[at].astype(np.int64), index, score, effect[at, index].astype(np.float64))


def _holds(batch: Batch, problems: Problems) -> NDArray[np.bool_]:
    """Which heuristics hold for which problems, ``[heuristic, problem]``."""
    from mechtests.arithmetic.heuristics import associated

    named = [decoded(row) for row in batch.inputs["heuristics"]["heuristics"]]
    return associated(named, problems.first, problems.second, problems.result).T


def _guided(batch: Batch) -> Mapping[str, Any]:
    from mechtests.arithmetic.controls import choose
    from mechtests.arithmetic.knockouts import knock_out_prompts
    from mechtests.arithmetic.problems import Problems

    every = Problems.of(batch.prompts)
    parts, found = [], []
    for place, operator in enumerate(int(op) for op in batch.inputs["attribution"]["operators"]):
        pairs = measures.pairs_of(batch, operator)["evaluation"]
        problems = every.select(pairs.prompts)
        choices = choose(
            bag := _bag(batch, place, operator),
            _holds(batch, problems),
            batch.generator(f"controls of {NAMES[operator]}"),
            ks=KS,
            draws=min(DRAWS, batch.draws),
        )
        done = knock_out_prompts(batch.network, problems, bag, choices)
        found.append((done.heuristic, done.control, done.single, choices.short, choices.outside))
        parts.append((operator, 1, pairs))
    heuristic, control, single, short, outside = (
        np.concatenate(each).astype(np.float32) for each in zip(*found, strict=True)
    )
    return {
        "heuristic": heuristic,
        "control": control,
        "single": single,
        "short": short,
        "outside": outside,
        **measures.facts_of(parts),
    }


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
        "outside": Value(BY_CONTROL, "share of neurons"),
        **measures.FACTS,
    },
    inputs=("answers", "attribution", "heuristics"),
    draws=True,
    cost=lambda job: Cost(
        forward=len(NAMES) * 150 * len(KS) * (1.0 + len(CONTROLS) * min(DRAWS, job.draws or DRAWS))
    ),
    whole=True,
)
"""Whether problems are still right without their heuristics' neurons, and without as many others.

Up to ``KS`` neurons of each middle and late layer are 0 at all positions: those with the highest
score of a heuristic that holds for the problem, or as many by layer of each of ``CONTROLS``
(``controls.choose``), the mean over draws and the first draw alone. ``short``: some layer has fewer
than k such neurons. ``outside``: the part of a control's neurons that is not of its own pool.
Source: Nikankin et al. 2025, section 4.2, Figure 8. Problems are of the evaluation half; neurons
are the 1.5% that the selection half ranks first.
"""


def _by_heuristic(batch: Batch) -> Mapping[str, Any]:
    from mechtests.arithmetic.knockouts import knock_out_heuristics
    from mechtests.arithmetic.problems import Problems

    every, named = Problems.of(batch.prompts), batch.inputs["heuristics"]["heuristics"]
    rows: list[Any] = []
    for place, operator in enumerate(int(op) for op in batch.inputs["attribution"]["operators"]):
        mine = np.concatenate([right(batch.inputs["answers"], operator, half) for half in HALVES])
        problems = every.select(np.sort(mine))
        done = knock_out_heuristics(
            batch.network,
            problems,
            _bag(batch, place, operator),
            _holds(batch, problems),
            batch.generator(f"problems of {NAMES[operator]}"),
        )
        for at, heuristic in enumerate(done.heuristic):
            cluster = TYPES.index(decoded(named[heuristic]).type)
            rows.append(
                (operator, cluster, *done.accuracy[at], *done.control[at], done.overlap[at])
            )
    return {"tests": np.array(rows, np.float64).reshape(-1, 7)}


by_heuristic = Metric(
    name="arithmetic.heuristic_knockouts",
    version=1,
    compute=_by_heuristic,
    values={"tests": Value(("heuristic", "fact"), "see the docstring")},
    inputs=("answers", "attribution", "heuristics"),
    cost=lambda job: Cost(forward=len(NAMES) * 70 * 200 * 6.0),
    whole=True,
)
"""What is right without all neurons of one heuristic, on problems it holds for and on others.

Of every heuristic with 10 neurons or more: operator, its type (a place in ``TYPES``), the accuracy
on related and on unrelated problems, both again without as many other important neurons by layer,
and the part of those others that is the heuristic's own. Source: section 4.2, Figure 7.
"""


def _inputs() -> dict[str, Need]:
    return {
        "answers": measures.answers_here(),
        "attribution": measures.attribution_here(),
        "heuristics": heuristic_measures.heuristics_here(),
    }


def guided_here() -> Need:
    """Knock-outs guided by the prompt."""
    return guided(arithmetic, inputs=_inputs())


def by_heuristic_here() -> Need:
    """Knock-outs of single heuristics."""
    return by_heuristic(arithmetic, inputs=_inputs())
