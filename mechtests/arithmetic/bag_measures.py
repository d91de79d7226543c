"""What the important neurons match at every checkpoint of a model.

It is smaller than the measurement of one cell (``heuristic_measures``): of the neurons only the
important ones are matched, without controls, and the quick profile takes fewer problems. In other
profiles the final cell is matched twice, here and there: counterfactuals are drawn for each
measurement. A checkpoint where no operator is gated has nothing to measure and is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mechtests.arithmetic.answers import answers
from mechtests.arithmetic.chosen import SELECTION
from mechtests.arithmetic.components import late_layers
from mechtests.arithmetic.heuristic_measures import TOP, Columns, seen
from mechtests.arithmetic.heuristics import ENCODED, decoded, encoded
from mechtests.arithmetic.measures import gated_of, pairs_of, problems_of
from mechtests.arithmetic.neuron_measures import GROUPS, LATE_SHARE, refuse_flat
from mechtests.arithmetic.neuron_sets import count_of, top
from mechtests.arithmetic.pools import Important
from mechtests.arithmetic.triples import OF, Triple
from mechtests.metrics.metric import Batch, Cost, Metric, Need, Value
from mechtests.statistics import cluster_groups
from mechtests.tasks.arithmetic import NAMES, arithmetic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mechtests.arithmetic.matching import Matched
    from mechtests.arithmetic.problems import Problems
    from mechtests.measurement import Measurement
    from mechtests.models.network import Network

SERIES = replace(arithmetic, sizes={**arithmetic.sizes, "quick": 2_400})
"""The same problems; the quick profile takes the first 600 of each operator."""


@dataclass(frozen=True, eq=False)
class _Bag:
    """The important neurons of an operator: layer and number, effect, and in which sets."""

    layer: NDArray[np.int64]
    neuron: NDArray[np.int64]
    effect: NDArray[np.float64]
    top: NDArray[np.bool_]


def _important(batch: Batch, operator: int, problems: Problems) -> _Bag:
    """The 1.5% of each middle and late layer, in the order of layers, for any tenth left out."""
    from mechtests.arithmetic.neurons import attributions

    network, pairs = batch.network, pairs_of(batch, operator)["selection"]
    layers = list(late_layers(network.shape.layers))
    effect = attributions(
        network,
        problems.select(pairs.prompts),
        problems.select(pairs.counterfactuals),
        layers=layers,
        groups=cluster_groups(pairs.prompts, GROUPS),
    ).effect
    count = count_of(LATE_SHARE, network.shape.mlp_width)
    sets = np.stack([top(effect.mean(group), count) for group in (None, *range(GROUPS))])
    at, neuron = np.nonzero(sets.any(0))
    return _Bag(np.array(layers)[at], neuron, effect.mean()[at, neuron], sets[:, at, neuron].T)


def _matched(network: Network, problems: Problems, operator: int, bag: _Bag) -> Matched:
    """What the neurons match on the problems of their operator."""
    from mechtests.arithmetic.matching import scores_of

    mine = problems.of_operator(operator)
    columns = [
        Columns(int(layer), bag.neuron[bag.layer == layer], TOP) for layer in np.unique(bag.layer)
    ]
    acts, lens = (np.concatenate(each, 1) for each in seen(network, mine, columns))
    gated = network.blocks[0].mlp_gate is not None
    return scores_of(mine, operator, acts, lens, gated=gated, alone=False)


def _bags(batch: Batch) -> Mapping[str, Any]:
    from mechtests.arithmetic.matching import matched

    network, problems = batch.network, problems_of(batch)
    refuse_flat(network)
    operators = gated_of(batch)
    important: list[_Bag] = []
    libraries, triples, values = [], [], []
    table: dict[tuple[int, ...], int] = {}
    for operator in operators:
        bag = _important(batch, operator, problems)
        found = _matched(network, problems, operator, bag)
        before = sum(len(each.neuron) for each in important)
        for row, heuristic in zip(*np.nonzero(matched(found.with_lens)), strict=True):
            key = tuple(encoded(found.library.heuristics[heuristic]))
            triples.append((before + row, table.setdefault(key, len(table))))
            values.append(found.with_lens[row, heuristic])
        important.append(bag)
        libraries.append(len(found.library))
    of = np.repeat(operators, [len(each.neuron) for each in important])
    layer, neuron, effect, sets = (
        np.concatenate([getattr(each, name) for each in important])
        for name in ("layer", "neuron", "effect", "top")
    )
    return {
        "neurons": np.column_stack((of, layer, neuron)),
        "effect": effect,
        "top": sets.astype(np.int64),
        "heuristics": np.array(list(table), np.int64).reshape(-1, ENCODED),
        "triples": np.array(triples, np.int64).reshape(-1, 2),
        "scores": np.array(values, np.float64),
        "operators": np.array(operators),
        "libraries": np.array(libraries),
        "width": np.array([network.shape.mlp_width]),
    }


bags = Metric(
    name="arithmetic.bags",
    version=1,
    compute=_bags,
    values={
        "neurons": Value(("neuron", "fact"), "operator, layer, number"),
        "effect": Value(("neuron",), "logits"),
        "top": Value(("neuron", "set"), "yes or no"),
        "heuristics": Value(("heuristic", "number"), "encoded"),
        "triples": Value(("triple", "fact"), "places of a neuron and a heuristic"),
        "scores": Value(("triple",), "share"),
        "operators": Value(("operator",), "place among + - * /"),
        "libraries": Value(("operator",), "heuristics"),
        "width": Value(("one",), "neurons"),
    },
    inputs=("answers",),
    cost=lambda job: Cost(
        forward=job.prompts + 2.0 * len(NAMES) * SELECTION,
        backward=float(len(NAMES) * SELECTION),
    ),
    whole=True,
)
"""What the important neurons of every gated operator match.

``neurons``: the 1.5% of each middle and late layer with the largest mean ``effect`` on the
selection half (``top``, set 0), and those that are among them where a tenth of its problems is left
out (set 1 + tenth). ``triples``: which matches which of ``heuristics`` (``heuristics.encoded``), at
0.6 or more. ``libraries``: how many heuristics there are to match. Nikankin et al. 2025, page 8.
"""


def triples_of(
    found: Measurement, operators: Sequence[int], without: int | None = None
) -> frozenset[Triple]:
    """The triples of some operators; their names begin with the operator's.

    Args:
        found: A measurement of ``bags``.
        operators: Those whose triples count.
        without: The tenth of the problems that does not rank; all rank unless said.
    """
    names = [decoded(row).name for row in found["heuristics"]]
    inside = found["top"][:, 0 if without is None else 1 + without] == 1
    neurons = found["neurons"].tolist()
    return frozenset(
        (f"{NAMES[neurons[at][0]]}{OF}{names[heuristic]}", neurons[at][1], neurons[at][2])
        for at, heuristic in found["triples"].tolist()
        if inside[at] and neurons[at][0] in operators
    )


def important_of(found: Measurement, operator: int) -> Important:
    """The important neurons of an operator, with the scores of what they match, else 0."""
    from mechtests.arithmetic.matching import matched

    mine = np.flatnonzero((found["neurons"][:, 0] == operator) & (found["top"][:, 0] == 1))
    score = np.zeros((len(found["neurons"]), len(found["heuristics"])), np.float32)
    score[tuple(found["triples"].T)] = found["scores"]
    _, layer, index = found["neurons"][mine].T
    return Important(layer, index, found["effect"][mine], score[mine], matched(score[mine]))


def answers_here() -> Need:
    """What the model answers, which gates its operators."""
    return answers(SERIES)


def bags_here(cell: str = "here") -> Need:
    """What its important neurons match."""
    return bags(SERIES, cell=cell, inputs={"answers": answers_here()})
