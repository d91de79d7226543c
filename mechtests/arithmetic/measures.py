"""The measurements of arithmetic: where answers are made, and by which heads.

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
from mechtests.arithmetic.chosen import EVALUATION, SELECTION, Pairs, choose, of_another_operator
from mechtests.arithmetic.components import PLACES, Components
from mechtests.arithmetic.gates import gated_operators
from mechtests.errors import NotApplicable
from mechtests.matched import STRATA, matched_draws
from mechtests.measurement import HALVES, Head
from mechtests.metrics.metric import Batch, Cost, Job, Metric, Need, Value
from mechtests.tasks.arithmetic import NAMES, arithmetic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mechtests.arithmetic.averages import Averages
    from mechtests.arithmetic.problems import Problems
    from mechtests.models.shape import Shape

PAIRS = SELECTION + EVALUATION
"""Of an operator, of both halves."""
HEAD_SHARE, FEWEST_HEADS, TIMES_FOR_MULTIPLICATION = 0.02, 3, 3
SHARE_OF_PASS = 0.3
"""What a patch costs at most on average; ``patches.passes`` has it exactly, behind torch."""
MULTIPLICATION = NAMES.index("multiplication")


# ------------------------------------------------------------------ which problems


def gated_of(batch: Batch) -> tuple[int, ...]:
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
    """The pairs of an operator, by half.

    Every measurement of a cell has the same problems, each with counterfactuals of its own draw.
    """
    found = choose(
        batch.inputs["answers"],
        operator,
        batch.generator(f"pairs of {NAMES[operator]}"),
        among=gated_of(batch),
    )
    return {"selection": found.selection, "evaluation": found.evaluation}


def problems_of(batch: Batch) -> Problems:
    """All problems of the task."""
    from mechtests.arithmetic.problems import Problems

    return Problems.of(batch.prompts)


def averages_of(batch: Batch) -> Averages:
    """What every component does on average over them."""
    from mechtests.arithmetic.averages import averages

    return averages(batch.network, problems_of(batch))


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
    from mechtests.arithmetic.problems import EQUALS

    network, problems, means = batch.network, problems_of(batch), averages_of(batch)
    circuits = [Kept.everything(network.shape), first_mlp_averaged(network.shape, EQUALS)]
    parts, found = [], []
    for operator in gated_of(batch):
        for half, pairs in enumerate(pairs_of(batch, operator).values()):
            draw = batch.generator(f"other operators for {NAMES[operator]}, {HALVES[half]}")
            try:
                others = of_another_operator(batch.inputs["answers"], pairs, draw).counterfactuals
            except NotApplicable:  # nothing changes at the operator then, which the claim guards
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

``robust``: places are and components as in ``components``, of ``shape``.
``other_operator``: at the operator, from a problem of another one. ``first_mlp_averaged``: MLP 0
at its mean at ``=``, where patching changes nothing, since the last token never changes.
Source: Nikankin et al. 2025, page 3; Eq. 1 itself has no finite scale (its mean is that of a
few problems), so the twin decides.
"""


def most_heads(operator: int, shape: Shape) -> int:
    """How many heads are a few: 2%, three at least, and three times as many for products."""
    few = max(FEWEST_HEADS, int(np.ceil(HEAD_SHARE * shape.layers * shape.heads)))
    times = TIMES_FOR_MULTIPLICATION if operator == MULTIPLICATION else 1
    return min(times * few, shape.layers * shape.heads)


def _ranked(batch: Batch, operator: int) -> list[Head]:
    """Heads by their mean effect over places on the selection half, the largest first."""
    found, shape = batch.inputs["effects"], batch.network.shape
    mine = (found["operator"] == operator) & (found["half"] == 0)
    single = found["robust"][mine][:, :-1].mean((0, 1))  # the last place is all of them
    heads = np.asarray(Components(shape.layers, shape.heads).head(single), np.float64)
    order = np.argsort(-heads, axis=None, kind="stable")
    return [(int(at) // shape.heads, int(at) % shape.heads) for at in order]


def _few_heads(batch: Batch) -> Mapping[str, Any]:
    from mechtests.arithmetic.faithfulness import Kept, faithfulness, run_circuits

    network, problems, means = batch.network, problems_of(batch), averages_of(batch)
    shape = network.shape
    whole, floor = Kept.everything(shape), Kept.of_heads(shape, ())
    every = {layer: range(shape.heads) for layer in range(shape.layers)}
    parts, found, counts, strata = [], [], [], []
    for operator in gated_of(batch):
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
        strata.append(STRATA.index(drawn.stratum))
        parts.append((operator, 1, pairs["evaluation"]))
    nl = np.concatenate(found)
    return {
        "whole": nl[:, 0],
        "floor": nl[:, 1],
        "circuit": nl[:, 2],
        "random": nl[:, 3:],
        "heads": np.array(counts),
        "stratum": np.array(strata),
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
        "stratum": Value(("operator",), "place in matched.STRATA"),
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
heads; ``heads``: how many were chosen, and ``stratum``: what random ones match in, as an index of
``matched.STRATA``, by operator in the order of ``operator``.
Source: Nikankin et al. 2025, pages 14 to 16, Table 1 and Figure 11.
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
