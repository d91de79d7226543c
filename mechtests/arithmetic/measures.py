"""The measurements of arithmetic: where answers are made, and by which heads and neurons.

Each starts from what the model answers to all problems and chooses its own problems from it
(``chosen``): correct ones with another answer than 0, operator by operator, some to select on and
some to evaluate on. Their arrays have an axis of these ``pair``s of a problem and a counterfactual,
and say of each its operator, its half, and which prompt of the task it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mechtests.arithmetic.answers import answers
from mechtests.arithmetic.chosen import Pairs, choose, of_another_operator
from mechtests.arithmetic.gates import gated_operators
from mechtests.errors import NotApplicable
from mechtests.measurement import HALVES, Head
from mechtests.metrics.metric import Batch, Cost, Job, Metric, Need, Value
from mechtests.statistics import cluster_groups
from mechtests.tasks.arithmetic import NAMES, arithmetic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mechtests.arithmetic.averages import Averages
    from mechtests.arithmetic.faithfulness import Kept
    from mechtests.arithmetic.problems import Problems
    from mechtests.models.shape import Shape

GROUPS = 10
"""Groups of problems of which one is left out at a time (claims.md, Intervals)."""
PAIRS = 250
"""Of an operator, of both halves."""
HEAD_SHARE, FEWEST_HEADS, TIMES_FOR_MULTIPLICATION = 0.02, 3, 3
LATE_SHARE, FIRST_SHARE = 0.015, 0.01
WORKING_BYTES = 256_000_000
CURVE = (0.0025, 0.005, 0.01, 0.03, 0.06, 0.125, 0.25, 0.5)
"""Shares of a layer's neurons at which faithfulness is shown."""
SHARE_OF_PASS = 0.3
"""What a patch costs at most on average; ``patches.passes`` has it exactly, behind torch."""
FEWEST_LAYERS = 4
"""With fewer there are no middle and late layers (claims.md, Nikankin et al.)."""
MULTIPLICATION = NAMES.index("multiplication")


# ------------------------------------------------------------------ which problems


def _operators(batch: Batch) -> tuple[int, ...]:
    """The gated operators.

    Raises:
        NotApplicable: There is none, and so no correct problem to measure on.
    """
    gated = gated_operators(batch.inputs["answers"])
    if not gated.operators:
        why = "; ".join(gated.reasons.values())
        raise NotApplicable(f"{batch.network.name} does no operator of arithmetic: {why}")
    return gated.operators


def pairs_of(batch: Batch, operator: int) -> dict[str, Pairs]:
    """The pairs of an operator, by half; the same for every measurement of a cell."""
    found = choose(
        batch.inputs["answers"],
        operator,
        batch.generator(f"pairs of {NAMES[operator]}"),
        among=_operators(batch),
    )
    return {"selection": found.selection, "evaluation": found.evaluation}


def _problems(batch: Batch) -> Problems:
    from mechtests.arithmetic.problems import Problems

    return Problems.of(batch.prompts)


def _averages(batch: Batch) -> Averages:
    from mechtests.arithmetic.averages import averages

    return averages(batch.network, _problems(batch))


def facts_of(parts: Sequence[tuple[int, int, Pairs]]) -> dict[str, NDArray[np.int64]]:
    """The facts of pairs that were measured operator by operator and half by half."""
    return {
        "operator": np.concatenate([np.full(len(pairs), op) for op, _, pairs in parts]),
        "half": np.concatenate([np.full(len(pairs), half) for _, half, pairs in parts]),
        "prompt": np.concatenate([pairs.prompts for _, _, pairs in parts]),
    }


FACTS = {
    "operator": Value(("pair",), "place among + - * /"),
    "half": Value(("pair",), "0 selection, 1 evaluation"),
    "prompt": Value(("pair",), "row of the task"),
}
NL = Value(("pair",), "share of the highest logit")
NL_OF = {axis: Value(("pair", axis), "share of the highest logit") for axis in ("size", "draw")}


# ------------------------------------------------------------------ components


def _effects(batch: Batch) -> Mapping[str, Any]:
    from mechtests.arithmetic.faithfulness import Kept, first_mlp_averaged, run_circuits
    from mechtests.arithmetic.localisation import localise
    from mechtests.arithmetic.patches import PLACES
    from mechtests.arithmetic.problems import EQUALS

    network, problems, means = batch.network, _problems(batch), _averages(batch)
    circuits = [Kept.everything(network.shape), first_mlp_averaged(network.shape, EQUALS)]
    parts, found = [], []
    for operator in _operators(batch):
        for half, pairs in enumerate(pairs_of(batch, operator).values()):
            draw = batch.generator(f"other operators for {NAMES[operator]}, {HALVES[half]}")
            try:
                others = of_another_operator(batch.inputs["answers"], pairs, draw).counterfactuals
            except NotApplicable:
                others = pairs.counterfactuals
            mine = problems.select(pairs.prompts)
            theirs, other = problems.select(pairs.counterfactuals), problems.select(others)
            averaged = run_circuits(network, mine, means, circuits, theirs).robust(0)[:, 1]
            by_operator = localise(network, mine, other).robust[:, PLACES.index("operator")]
            found.append((localise(network, mine, theirs).robust, by_operator, averaged))
            parts.append((operator, half, pairs))
    robust, by_operator, averaged = (np.concatenate(each) for each in zip(*found, strict=True))
    shape = network.shape
    return {
        "robust": robust,
        "other_operator": by_operator,
        "first_mlp_averaged": averaged,
        "shape": np.array([shape.layers, shape.heads]),
        **facts_of(parts),
    }


def _effects_cost(job: Job) -> Cost:
    if job.shape is None:
        return Cost()
    patches = 5 * (1 + job.shape.layers * (job.shape.heads + 2))
    each = 2 * (SHARE_OF_PASS * patches + 2) + 2
    return Cost(forward=len(NAMES) * PAIRS * each + job.prompts)


effects = Metric(
    name="arithmetic.effects",
    version=1,
    compute=_effects,
    values={
        "robust": Value(("pair", "place", "component"), "nats"),
        "other_operator": Value(("pair", "component"), "nats"),
        "first_mlp_averaged": Value(("pair",), "nats"),
        "shape": Value(("size",), "count"),
        **FACTS,
    },
    inputs=("answers",),
    cost=_effects_cost,
    whole=True,
)
"""What patching every component from another problem does to the answer: Eq. 1's robust twin.

``robust``: places are ``patches.PLACES``, components ``localisation.Components`` of ``shape``.
``other_operator``: at the operator, from a problem of another one. ``first_mlp_averaged``: MLP 0
at its mean at ``=``, where patching changes nothing, since the last token never changes.
Source: Nikankin et al. 2025, section 3; Eq. 1 itself has no finite scale (its mean is that of a
few problems), so the twin decides.
"""


def most_heads(operator: int, shape: Shape) -> int:
    """How many heads are a few: 2%, three at least, and three times as many for products."""
    few = max(FEWEST_HEADS, int(np.ceil(HEAD_SHARE * shape.layers * shape.heads)))
    times = TIMES_FOR_MULTIPLICATION if operator == MULTIPLICATION else 1
    return min(times * few, shape.layers * shape.heads)


def _ranked(batch: Batch, operator: int) -> list[Head]:
    """Heads by their mean effect over places on the selection half, the largest first."""
    from mechtests.arithmetic.localisation import Components

    found, shape = batch.inputs["effects"], batch.network.shape
    mine = (found["operator"] == operator) & (found["half"] == 0)
    single = found["robust"][mine][:, :-1].mean((0, 1))  # the last place is all of them
    heads = np.asarray(Components(shape.layers, shape.heads).head(single), np.float64)
    order = np.argsort(-heads, axis=None, kind="stable")
    return [(int(at) // shape.heads, int(at) % shape.heads) for at in order]


def _few_heads(batch: Batch) -> Mapping[str, Any]:
    from mechtests.arithmetic.faithfulness import Kept, faithfulness, run_circuits
    from mechtests.matched import matched_draws

    network, problems, means = batch.network, _problems(batch), _averages(batch)
    shape = network.shape
    whole, floor = Kept.everything(shape), Kept.of_heads(shape, ())
    every = {layer: range(shape.heads) for layer in range(shape.layers)}
    parts, found, counts = [], [], []
    for operator in _operators(batch):
        ranked, pairs = _ranked(batch, operator), pairs_of(batch, operator)
        sizes = np.unique(np.geomspace(1, most_heads(operator, shape), 12).round().astype(int))
        circuits = [whole, floor, *(Kept.of_heads(shape, ranked[:n]) for n in sizes)]
        on = problems.select(pairs["selection"].prompts)
        nl = run_circuits(network, on, means, circuits).normalised
        best = int(np.argmax(np.nan_to_num(faithfulness(nl[:, 2:], nl[:, 1], nl[:, 0]), nan=-1)))
        chosen = ranked[: sizes[best]]
        drawn = matched_draws(
            chosen, every, batch.draws, batch.generator(f"heads for {NAMES[operator]}")
        )
        again = [drawn.sets[i % len(drawn.sets)] for i in range(batch.draws)]
        circuits = [whole, floor, *(Kept.of_heads(shape, heads) for heads in (chosen, *again))]
        off = problems.select(pairs["evaluation"].prompts)
        found.append(run_circuits(network, off, means, circuits).normalised)
        counts.append(len(chosen))
        parts.append((operator, 1, pairs["evaluation"]))
    nl = np.concatenate(found)
    return {
        "whole": nl[:, 0],
        "floor": nl[:, 1],
        "circuit": nl[:, 2],
        "random": nl[:, 3:],
        "heads": np.array(counts),
        "shape": np.array([shape.layers, shape.heads]),
        **facts_of(parts),
    }


def _circuit_cost(job: Job) -> Cost:
    return Cost(forward=len(NAMES) * PAIRS * (job.draws + 15.0) + job.prompts)


few_heads = Metric(
    name="arithmetic.few_heads",
    version=1,
    compute=_few_heads,
    values={
        **dict.fromkeys(("whole", "floor", "circuit"), NL),
        "random": NL_OF["draw"],
        "heads": Value(("operator",), "count"),
        "shape": Value(("size",), "count"),
        **FACTS,
    },
    inputs=("answers", "effects"),
    draws=True,
    cost=_circuit_cost,
    whole=True,
)
"""NL of all MLPs with a few heads, all else at its mean, on the evaluation half.

Heads are ranked by their effect on the selection half, where also their number is chosen, of at
most 2% (three at least; three times as many for products). ``floor``: no head; ``random``: as many
heads by layer; ``heads``: how many were chosen, by operator in the order of ``operator``.
Source: Nikankin et al. 2025, section 3.2 and appendix A.
"""


# ------------------------------------------------------------------ neurons


def _attributions(batch: Batch) -> Mapping[str, Any]:
    from mechtests.arithmetic.faithfulness import late_layers
    from mechtests.arithmetic.neurons import attributions, first_mlp_attributions

    network, problems = batch.network, _problems(batch)
    if network.shape.layers < FEWEST_LAYERS:
        raise NotApplicable(
            f"{network.name} has {network.shape.layers} layers, and middle and late ones are told "
            f"apart from {FEWEST_LAYERS} on"
        )
    late = list(late_layers(network.shape))
    found: dict[str, list[Any]] = {name: [] for name in ("effect", "count", "size", "spread")}
    first: list[Any] = []
    operators = _operators(batch)
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
Source: Nikankin et al. 2025, section 4; by the exact identity of attribution patching with Eq. 1.
"""


def _masks(shape: Shape, layers: Sequence[int], scores: Any, share: float) -> dict[int, Any]:
    from mechtests.arithmetic.neuron_sets import count_of, top

    return dict(zip(layers, top(scores, count_of(share, shape)), strict=True))


def _late_circuits(batch: Batch, place: int, draw: np.random.Generator) -> list[Kept]:
    """The whole, the floor, top neurons by three rankings, the curve, and random ones."""
    from mechtests.arithmetic.faithfulness import Kept, random_neurons
    from mechtests.arithmetic.neuron_sets import count_of, sparse_circuits

    found, shape = batch.inputs["attribution"], batch.network.shape
    layers = [int(layer) for layer in found["layers"]]
    whole = Kept.everything(shape)
    mean = found["effect"][place, 0].sum(0) / found["count"][place, 0].sum()
    rankings = (mean, mean + found["spread"][place, 0], found["size"][place, 0])
    tops = [_masks(shape, layers, scores, LATE_SHARE) for scores in rankings]
    counts = [0, *(count_of(share, shape) for share in CURVE)]
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
    top = _masks(shape, [0], scores, FIRST_SHARE)
    drawn = random_neurons(top, batch.draws, draw)
    again = [drawn[i % len(drawn)] for i in range(batch.draws)]
    none = np.zeros(shape.mlp_width, bool)
    return [first_mlp_cut(shape, each) for each in (none, top[0], *(some[0] for some in again))]


def _neuron_circuits(batch: Batch) -> Mapping[str, Any]:
    from mechtests.arithmetic.faithfulness import run_circuits

    network, problems, means = batch.network, _problems(batch), _averages(batch)
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
Source: Nikankin et al. 2025, section 4 and Figures 4 and 12.
"""


# ------------------------------------------------------------------ declarations


def answers_here() -> Need:
    """What the model answers to all problems."""
    return answers(arithmetic)


def effects_here() -> Need:
    """The effects of components."""
    return effects(arithmetic, inputs={"answers": answers_here()})


def few_heads_here() -> Need:
    """What few heads keep."""
    return few_heads(arithmetic, inputs={"answers": answers_here(), "effects": effects_here()})


def attribution_here() -> Need:
    """What neurons are attributed."""
    return attribution(arithmetic, inputs={"answers": answers_here()})


def neuron_circuits_here() -> Need:
    """What few neurons keep."""
    inputs = {"answers": answers_here(), "attribution": attribution_here()}
    return neuron_circuits(arithmetic, inputs=inputs)
