"""Measurements of arithmetic at every checkpoint of a model: heuristics, and what they are for.

They are smaller than those of one cell (``heuristic_measures``, ``knockout_measures``): of the
neurons only the important ones are matched, without controls, and the quick profile takes fewer
problems. A checkpoint where no operator is gated has nothing to measure and is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mechtests.arithmetic.answers import answers
from mechtests.arithmetic.chosen import EVALUATION
from mechtests.arithmetic.components import late_layers
from mechtests.arithmetic.dynamics import OF, Triple
from mechtests.arithmetic.heuristic_measures import TOP, Columns, scores_of, seen
from mechtests.arithmetic.heuristics import ENCODED, associated, decoded, encoded
from mechtests.arithmetic.knockout_measures import CONTROLS, DRAWS
from mechtests.arithmetic.measures import (
    FACTS,
    NL,
    facts_of,
    gated_of,
    pairs_of,
    problems_of,
)
from mechtests.arithmetic.mutual import masks, mutual, neurons_of, random_subset
from mechtests.arithmetic.neuron_measures import FEWEST_LAYERS, GROUPS, LATE_SHARE
from mechtests.arithmetic.neuron_sets import count_of, top
from mechtests.errors import NotApplicable
from mechtests.metrics.metric import Batch, Cost, Metric, Need, Value
from mechtests.statistics import cluster_groups
from mechtests.tasks.arithmetic import NAMES, arithmetic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mechtests.arithmetic.averages import Averages
    from mechtests.arithmetic.heuristic_measures import Matched
    from mechtests.arithmetic.pools import Important
    from mechtests.arithmetic.problems import Problems
    from mechtests.measurement import Measurement
    from mechtests.models.network import Network

K = 10
"""Neurons of each layer that are knocked out at most (claims.md, ``knockout-beats-random``)."""
RANDOM_PARTS = 5
"""Random parts of a checkpoint's heuristic neurons, whose mean is the control."""
SERIES = replace(arithmetic, sizes={**arithmetic.sizes, "quick": 2_400})
"""The same problems; the quick profile takes the first 600 of each operator."""
SETS = 1 + GROUPS
"""Sets of important neurons: by all problems that rank, and without each tenth of them."""


# ---------------------------------------------------------------- heuristics


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
    _refuse_flat(network)
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


def _refuse_flat(network: Network) -> None:
    if network.shape.layers < FEWEST_LAYERS:
        raise NotApplicable(
            f"{network.name} has {network.shape.layers} layers, and middle and late ones are told "
            f"apart from {FEWEST_LAYERS} on"
        )


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
    cost=lambda job: Cost(forward=float(job.prompts) + 400, backward=400.0),
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


# ---------------------------------------------------------------- mutual neurons


def _mutual_neurons(batch: Batch) -> Mapping[str, Any]:
    here, final = batch.inputs["found"], batch.inputs["final"]
    operators = [int(op) for op in here["operators"] if op in final["operators"]]
    if not operators:
        raise NotApplicable(
            f"{batch.network.name} does no operator of arithmetic that the final model does"
        )
    problems, parts, found, counts = problems_of(batch), [], [], []
    means = _late_averages(batch.network, problems)
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


def _late_averages(network: Network, problems: Problems) -> Averages:
    """The means of the middle and late layers' neurons, operators weighing the same.

    As ``averages``, without what no circuit here replaces.
    """
    import torch

    from mechtests.arithmetic.averages import WORKING_BYTES, Averages
    from mechtests.models.activations import bytes_per_prompt

    keep = [f"post.{layer}" for layer in late_layers(network.shape.layers)]
    length = problems.tokens.shape[1]
    many = max(1, WORKING_BYTES // bytes_per_prompt(network.shape, keep, length))
    operators = np.unique(problems.operator)
    shape = network.shape.layers, length, network.shape.mlp_width
    total = torch.zeros(shape, dtype=torch.float64, device=network.device)
    for operator in operators:
        tokens = torch.from_numpy(problems.of_operator(int(operator)).tokens)
        for some in torch.split(tokens, many):
            run = network.run(some.to(network.device), keep=keep)
            for layer in late_layers(network.shape.layers):
                summed = run["post", layer].sum(0, dtype=torch.float64)
                total[layer] += summed / (len(tokens) * len(operators))
    nothing = torch.zeros(0, device=network.device)
    return Averages(nothing, nothing, total.to(network.dtype))


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


# ---------------------------------------------------------------- knock-outs


def _important_of(found: Measurement, operator: int) -> Important:
    """The important neurons of an operator, with the scores of what they match, else 0."""
    from mechtests.arithmetic.matching import matched
    from mechtests.arithmetic.pools import Important

    mine = np.flatnonzero((found["neurons"][:, 0] == operator) & (found["top"][:, 0] == 1))
    score = np.zeros((len(found["neurons"]), len(found["heuristics"])), np.float32)
    score[tuple(found["triples"].T)] = found["scores"]
    _, layer, index = found["neurons"][mine].T
    return Important(layer, index, found["effect"][mine], score[mine], matched(score[mine]))


def _knockouts(batch: Batch) -> Mapping[str, Any]:
    from mechtests.arithmetic import knockouts
    from mechtests.arithmetic.pools import guided_sets

    network, found = batch.network, batch.inputs["found"]
    _refuse_narrow(network)
    problems, named = problems_of(batch), [decoded(row) for row in found["heuristics"]]
    parts, done = [], []
    for operator in (int(op) for op in found["operators"]):
        pairs = pairs_of(batch, operator)["evaluation"]
        mine, important = problems.select(pairs.prompts), _important_of(found, operator)
        holds = associated(named, mine.first, mine.second, mine.result)
        draw, draws = batch.generator(f"controls of {NAMES[operator]}"), min(DRAWS, batch.draws)
        plan = guided_sets(important, holds, draw, ks=(K,), draws=draws)
        each = knockouts.guided(network, mine, important, plan)
        short = (each.pool < K).any(1)
        done.append((each.heuristic_right[0], each.control_right[:, 0].T, short))
        parts.append((operator, 1, pairs))
    names = ("heuristic", "control", "short")
    joined = (np.concatenate(each).astype(np.float32) for each in zip(*done, strict=True))
    return {**dict(zip(names, joined, strict=True)), **facts_of(parts)}


def _refuse_narrow(network: Network) -> None:
    count = count_of(LATE_SHARE, network.shape.mlp_width)
    if count < K:
        raise NotApplicable(
            f"{network.name} has {count} important neurons a layer, {LATE_SHARE:.1%} of "
            f"{network.shape.mlp_width}, and knock-outs take {K} a layer: no prompt has so many; "
            f"take a wider model"
        )


bag_knockouts = Metric(
    name="arithmetic.bag_knockouts",
    version=1,
    compute=_knockouts,
    values={
        "heuristic": Value(("pair",), "right or wrong"),
        "control": Value(("pair", "control"), "share of draws"),
        "short": Value(("pair",), "yes or no"),
        **FACTS,
    },
    inputs=("answers", "found"),
    draws=True,
    cost=lambda job: Cost(
        forward=len(NAMES) * EVALUATION * (1.0 + len(CONTROLS) * min(DRAWS, job.draws))
    ),
    whole=True,
)
"""Whether problems are still right without 10 neurons a layer of their heuristics, and of others.

As ``knockout_measures.guided`` with the deciding number of neurons alone.
"""


# ---------------------------------------------------------------- declarations


def answers_here() -> Need:
    """What the model answers, which gates its operators."""
    return answers(SERIES)


def bags_here(cell: str = "here") -> Need:
    """What its important neurons match."""
    return bags(SERIES, cell=cell, inputs={"answers": answers_here()})


def mutual_here() -> Need:
    """What the neurons explain that it shares with the final model."""
    inputs = {"answers": answers_here(), "found": bags_here(), "final": bags_here("final")}
    return mutual_neurons(SERIES, inputs=inputs)


def knockouts_here() -> Need:
    """Knock-outs guided by the prompt."""
    return bag_knockouts(SERIES, inputs={"answers": answers_here(), "found": bags_here()})
