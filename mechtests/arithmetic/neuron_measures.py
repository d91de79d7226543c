"""The measurements of neurons: what each is attributed, and what few of them keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mechtests.arithmetic.components import late_layers
from mechtests.arithmetic.measures import (
    FACTS,
    NL,
    NL_OF,
    PAIRS,
    answers_here,
    averages_of,
    facts_of,
    gated_of,
    pairs_of,
    problems_of,
)
from mechtests.arithmetic.neuron_sets import count_of, sparse_circuits, top
from mechtests.errors import NotApplicable
from mechtests.measurement import HALVES, Half
from mechtests.metrics.metric import Batch, Cost, Job, Metric, Need, Value
from mechtests.statistics import cluster_groups
from mechtests.tasks.arithmetic import NAMES, arithmetic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mechtests.arithmetic.faithfulness import Kept
    from mechtests.measurement import Measurement
    from mechtests.models.network import Network

GROUPS = 10
"""Groups of problems of which one is left out at a time (claims.md, Intervals)."""
FEWEST_LAYERS = 4
"""With fewer there are no middle and late layers (claims.md, Nikankin et al.)."""
LATE_SHARE, FIRST_SHARE = 0.015, 0.01
CURVE = (0.0025, 0.005, 0.01, 0.03, 0.06, 0.125, 0.25, 0.5)
"""Shares of a layer's neurons at which faithfulness is shown."""


def refuse_flat(network: Network) -> None:
    """Refuse a network without middle and late layers.

    Raises:
        NotApplicable: It has too few layers.
    """
    if network.shape.layers < FEWEST_LAYERS:
        raise NotApplicable(
            f"{network.name} has {network.shape.layers} layers, and middle and late ones are told "
            f"apart from {FEWEST_LAYERS} on"
        )


def mean_effect(ranked: Measurement, place: int) -> NDArray[np.float64]:
    """The mean effect of each neuron on the selection half, ``[layer, neuron]``.

    Args:
        ranked: A measurement of ``attribution``.
        place: The operator's place in it.
    """
    effect: NDArray[np.float64] = (
        ranked["effect"][place, 0].sum(0) / ranked["count"][place, 0].sum()
    )
    return effect


def _attributions(batch: Batch) -> Mapping[str, Any]:
    from mechtests.arithmetic.neurons import attributions, first_mlp_attributions

    network, problems = batch.network, problems_of(batch)
    refuse_flat(network)
    late = list(late_layers(network.shape.layers))
    found: dict[str, list[Any]] = {name: [] for name in ("effect", "count", "size", "spread")}
    first: list[Any] = []
    operators = gated_of(batch)
    for operator in operators:
        for pairs in pairs_of(batch, operator).values():
            mine, their = (problems.select(at) for at in (pairs.prompts, pairs.counterfactuals))
            groups = cluster_groups(pairs.prompts, GROUPS)
            each = attributions(network, mine, their, layers=late, groups=groups)
            found["effect"].append(each.effect.total)
            found["count"].append(each.effect.count)
            found["size"].append(each.by_size())
            found["spread"].append(each.effect.spread())
            first.append(first_mlp_attributions(network, mine, their).by_mean()[0])
    by_half = {
        name: np.stack(some).reshape(len(operators), len(HALVES), *np.shape(some[0]))
        for name, some in {**found, "first": first}.items()
    }
    return {**by_half, "operators": np.array(operators), "layers": np.array(late)}


def _attribution_cost(job: Job) -> Cost:
    pairs = len(NAMES) * PAIRS
    return Cost(forward=4.0 * pairs, backward=2.0 * pairs)


OF_NEURONS = ("operator", "half", "layer", "neuron")

attribution = Metric(
    name="arithmetic.attribution",
    version=1,
    compute=_attributions,
    values={
        "effect": Value(("operator", "half", "group", "layer", "neuron"), "logits"),
        "count": Value(("operator", "half", "group"), "prompts"),
        "size": Value(OF_NEURONS, "activation times length"),
        "spread": Value(OF_NEURONS, "logits"),
        "first": Value(("operator", "half", "neuron"), "logits"),
        "operators": Value(("operator",), "place among + - * /"),
        "layers": Value(("layer",), "layer"),
    },
    inputs=("answers",),
    cost=_attribution_cost,
    whole=True,
)
"""What every neuron of the middle and late layers is attributed at ``=``, by operator and half.

``effect``: sums over the pairs of each of 10 groups, so that one can be left out; over ``count``
it is the mean effect, which ranks. ``spread``: the standard deviation that the released code adds.
``size``: spread of the activation times length of what the neuron writes, blind to the answer.
``first``: the mean effect of MLP 0's neurons at the operands and the operator.
Source: Nikankin et al. 2025, page 5; by the exact identity of attribution patching with Eq. 1.
"""


def top_neurons(
    ranked: Measurement, place: int, half: Half = "selection", kept: Any = slice(None)
) -> NDArray[np.bool_]:
    """The 1.5% of each middle and late layer with the largest mean effect, ``[layer, neuron]``.

    Args:
        ranked: A measurement of ``attribution``.
        place: The operator's place in it.
        half: The half whose problems rank.
        kept: The groups of them that count; all unless said.
    """
    effect = ranked["effect"][place, HALVES.index(half)][kept].sum(0)
    return top(effect, count_of(LATE_SHARE, effect.shape[-1]))


def _late_circuits(batch: Batch, place: int, draw: np.random.Generator) -> list[Kept]:
    """The whole, the floor, top neurons by three rankings, the curve, and random ones."""
    from mechtests.arithmetic.faithfulness import Kept, random_neurons

    found, shape = batch.inputs["attribution"], batch.network.shape
    layers = [int(layer) for layer in found["layers"]]
    whole = Kept.everything(shape)
    mean = mean_effect(found, place)
    others = (mean + found["spread"][place, 0], found["size"][place, 0])
    count = count_of(LATE_SHARE, shape.mlp_width)
    masks = (top_neurons(found, place), *(top(scores, count) for scores in others))
    tops = [dict(zip(layers, mask, strict=True)) for mask in masks]
    counts = [0, *(count_of(share, shape.mlp_width) for share in CURVE)]
    floor, *curve = sparse_circuits(whole, layers, mean, counts)
    drawn = random_neurons(tops[0], batch.draws, draw)
    again = [drawn[i % len(drawn)] for i in range(batch.draws)]
    named = [whole.with_neurons(masks) for masks in (*tops, *again)]
    return [whole, Kept.nothing(shape), floor, *named[:3], *curve, *named[3:]]


def _first_circuits(batch: Batch, place: int, draw: np.random.Generator) -> list[Kept]:
    """MLP 0 without any neuron, with its top ones, and with random ones."""
    from mechtests.arithmetic.faithfulness import first_mlp_cut, random_neurons

    shape = batch.network.shape
    scores = batch.inputs["attribution"]["first"][place, 0][None]
    [best] = top(scores, count_of(FIRST_SHARE, shape.mlp_width))
    drawn = random_neurons({0: best}, batch.draws, draw)
    again = [drawn[i % len(drawn)] for i in range(batch.draws)]
    none = np.zeros(shape.mlp_width, bool)
    return [first_mlp_cut(shape, each) for each in (none, best, *(some[0] for some in again))]


def _neuron_circuits(batch: Batch) -> Mapping[str, Any]:
    from mechtests.arithmetic.faithfulness import run_circuits

    network, problems, means = batch.network, problems_of(batch), averages_of(batch)
    parts, found = [], []
    for place, operator in enumerate(int(op) for op in batch.inputs["attribution"]["operators"]):
        draw = batch.generator(f"neurons for {NAMES[operator]}")
        circuits = [*_late_circuits(batch, place, draw), *_first_circuits(batch, place, draw)]
        pairs = pairs_of(batch, operator)["evaluation"]
        on = problems.select(pairs.prompts)
        found.append(run_circuits(network, on, means, circuits).normalised)
        parts.append((operator, 1, pairs))
    nl = np.concatenate(found)
    names = ("whole", "nothing", "late_floor", "late", "late_spread", "late_size")
    late = len(names) + len(CURVE) + batch.draws
    return {
        **{name: nl[:, place] for place, name in enumerate(names)},
        "curve": nl[:, len(names) : len(names) + len(CURVE)],
        "late_random": nl[:, len(names) + len(CURVE) : late],
        "first_floor": nl[:, late],
        "first": nl[:, late + 1],
        "first_random": nl[:, late + 2 :],
        **facts_of(parts),
    }


neuron_circuits = Metric(
    name="arithmetic.neuron_circuits",
    version=1,
    compute=_neuron_circuits,
    values={
        **dict.fromkeys(("whole", "nothing", "late_floor", "late", "late_spread", "late_size"), NL),
        **dict.fromkeys(("first_floor", "first"), NL),
        "curve": NL_OF["size"],
        **dict.fromkeys(("late_random", "first_random"), NL_OF["draw"]),
        **FACTS,
    },
    inputs=("answers", "attribution"),
    draws=True,
    cost=lambda job: Cost(forward=len(NAMES) * PAIRS * (2 * job.draws + 20.0) + job.prompts),
    whole=True,
)
"""NL of the network with only some neurons of some layers, the others at their mean.

``late``: the 1.5% of each middle and late layer with the largest mean effect on the selection half
(``late_spread``: mean plus standard deviation; ``late_size``: blind to the answer; ``curve``: the
shares ``CURVE``), ``late_random`` as many by layer, ``late_floor`` none. ``first``: 1% of MLP 0 at
the operands and the operator, likewise. ``nothing``: no head and no MLP, the floor of the paper.
Source: Nikankin et al. 2025, Figures 4 and 12.
"""


def _task_neurons(batch: Batch) -> Mapping[str, Any]:
    from mechtests.arithmetic.neurons import task_attributions

    assert batch.corruption is not None
    refuse_flat(batch.network)
    late = list(late_layers(batch.network.shape.layers))
    return {
        "effect": task_attributions(batch.network, batch.prompts, batch.corruption, late),
        "layers": np.array(late),
    }


task_neurons = Metric(
    name="arithmetic.task_neurons",
    version=1,
    compute=_task_neurons,
    values={
        "effect": Value(("half", "layer", "neuron"), "logits"),
        "layers": Value(("layer",), "layer"),
    },
    needs=("answers",),
    cost=lambda job: Cost(forward=2.0 * job.prompts, backward=float(job.prompts)),
    whole=True,
)
"""What the same neurons are attributed at END of another task, the mean over each half's prompts.

By the identity of ``attribution``: p' is the corrupted prompt, and its answer the wrong one. A
control of the claims about sets of neurons, which large neurons pass whatever they are for.
"""


def attribution_here() -> Need:
    """What neurons are attributed."""
    return attribution(arithmetic, inputs={"answers": answers_here()})


def neuron_circuits_here() -> Need:
    """What few neurons keep."""
    inputs = {"answers": answers_here(), "attribution": attribution_here()}
    return neuron_circuits(arithmetic, inputs=inputs)
