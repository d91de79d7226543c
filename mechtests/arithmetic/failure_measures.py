"""The measurement of failures: what heuristic neurons do where the model is wrong.

Each failed problem of the evaluation half is paired with a correct one that is alike
(``failures.pairs``). Neurons are ranked on correct problems of the selection half, which is why no
problem here was seen when they were chosen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mechtests.arithmetic import accuracy, heuristic_measures, measures, neuron_measures
from mechtests.arithmetic.chosen import failures, right
from mechtests.arithmetic.components import late_layers
from mechtests.arithmetic.contributions import MEMORY, Contributions
from mechtests.arithmetic.failures import FEWEST_PAIRS, VARIABLES, pairs
from mechtests.arithmetic.gates import Gated
from mechtests.arithmetic.heuristics import decoded
from mechtests.arithmetic.neuron_measures import LATE_SHARE
from mechtests.arithmetic.neuron_sets import count_of
from mechtests.errors import NotApplicable
from mechtests.metrics.metric import Batch, Cost, Job, Metric, Need, Value
from mechtests.tasks.arithmetic import NAMES, OPERATORS, arithmetic, legal
from mechtests.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mechtests.arithmetic.partners import Classified
    from mechtests.arithmetic.problems import Problems
    from mechtests.measurement import Measurement
    from mechtests.tasks.prompts import Ids

MOST_PAIRS = 150
"""Of an operator (claims.md, standard profile)."""
LOOKED_AT = 8
"""Times as many neurons as are important, the next in rank among them, may be controls."""

LOGITS = ("contribution", "control", "attribution", "control_attribution")
BY_SIDE = {
    **dict.fromkeys(LOGITS, Value(("pair", "side"), "logits")),
    **dict.fromkeys(("count", "controls"), Value(("pair", "side"), "neurons")),
}
BY_PAIR = {
    **BY_SIDE,
    "prompt": Value(("pair", "side"), "row of the task"),
    "operator": Value(("pair",), "place among + - * /"),
    "stratum": Value(("pair",), "place in matched.STRATA"),
}
PROBLEMS = 4
"""Numbers told of each problem."""
FACTS = OPERATOR, CORRECT, FAILED, PAIRS, CENSUS = range(5)
"""Those told of each operator."""


# ------------------------------------------------------------------ computing


def _classified(batch: Batch, place: int, problems: Problems) -> list[Classified]:
    """Heuristic neurons, and those without a heuristic that may be their controls, by layer.

    Heuristic neurons are important ones, the 1.5% of each layer. Few of these match nothing, so
    the next in rank are looked at too, and kept where they match nothing.

    Args:
        batch: The batch.
        place: The operator's place in the measurement of ``attribution``.
        problems: All problems of the operator.
    """
    from mechtests.arithmetic.contributions import without_heuristic
    from mechtests.arithmetic.partners import Classified

    ranked, found = batch.inputs["attribution"], batch.inputs["heuristics"]
    layers = [int(layer) for layer in ranked["layers"]]
    effect = neuron_measures.mean_effect(ranked, place)
    top = neuron_measures.top_neurons(ranked, place)
    many = int(top[0].sum())
    next_ = [np.argsort(-each, kind="stable")[many : LOOKED_AT * many] for each in effect]
    spare = without_heuristic(batch.network, problems, dict(zip(layers, next_, strict=True)))
    matches = np.zeros((*top.shape, len(found["heuristics"])), bool)
    mine = found["triples"][found["triples"][:, 0] == ranked["operators"][place]]
    matches[np.searchsorted(layers, mine[:, 1]), mine[:, 2], mine[:, 3]] = True
    made = []
    for at, layer in enumerate(layers):
        kept = top[at].copy()
        kept[next_[at][spare[layer]]] = True
        kept &= top[at] | ~matches[at].any(1)
        numbers = np.flatnonzero(kept)
        attribution = effect[at, numbers].astype(np.float64)
        made.append(Classified(layer, numbers, matches[at, numbers], attribution))
    return made


@dataclass(frozen=True, eq=False)
class _Paired:
    """Correct and failed problems of an operator, as rows of the task.

    Attributes:
        facts: A row of ``operators``.
        correct: Shape ``[problem]``.
        failed: Shape ``[problem]``.
        prompt: A correct and a failed one that is alike, shape ``[pair, side]``.
    """

    facts: tuple[int, ...]
    correct: Ids
    failed: Ids
    prompt: Ids


def _paired(batch: Batch, operator: int, every: Problems) -> _Paired:
    """An operator's pairs, however few."""
    answers = batch.inputs["answers"]
    correct, failed = right(answers, operator, "evaluation"), failures(answers, operator)
    draw = batch.generator(f"pairs of {NAMES[operator]}")
    sides = every.select(correct), every.select(failed)
    found = pairs(*sides, draw, fewest=0, most=MOST_PAIRS)
    census = int(accuracy.of(answers, operator).census)
    prompt = np.stack((correct[found.correct], failed[found.incorrect]), 1)
    return _Paired(
        (operator, len(correct), len(failed), len(found), census), correct, failed, prompt
    )


def _failures(batch: Batch) -> Mapping[str, Any]:
    every = measures.problems_of(batch)
    operators = [int(op) for op in batch.inputs["attribution"]["operators"]]
    found = [_paired(batch, operator, every) for operator in operators]
    facts = np.array([each.facts for each in found], np.int64).reshape(-1, len(FACTS))
    if not enough(facts) and facts[:, CENSUS].all():
        raise NotApplicable(f"{batch.network.name}: {too_few(facts)}")
    parts = [
        _of_operator(batch, place, each, every)
        for place, each in enumerate(found)
        if each.facts[PAIRS] >= FEWEST_PAIRS
    ]
    none = {name: np.zeros((0, 2)[: len(value.axes)]) for name, value in BY_PAIR.items()}
    parts.append({**none, "problems": np.zeros((0, PROBLEMS))})
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for name in joined.keys() - set(LOGITS):
        joined[name] = joined[name].astype(np.int64)
    return {**joined, "operators": facts}


def _of_operator(
    batch: Batch, place: int, paired: _Paired, every: Problems
) -> dict[str, NDArray[Any]]:
    from mechtests.arithmetic.contributions import contributions, counts

    operator = paired.facts[OPERATOR]
    bag = _classified(batch, place, every.of_operator(operator))
    named = [decoded(row) for row in batch.inputs["heuristics"]["heuristics"]]
    on = every.select(paired.prompt.T.reshape(-1))
    done = contributions(batch.network, on, bag, named)
    sides = {name: getattr(done, name).reshape(2, -1).T for name in BY_SIDE}
    rows = np.concatenate((paired.correct, paired.failed))
    wrong = np.repeat((0, 1), (len(paired.correct), len(paired.failed)))
    many = counts(every.select(rows), bag, named)
    return {
        **sides,
        "stratum": done.stratum[: len(paired.prompt)],
        "prompt": paired.prompt,
        "operator": np.full(len(paired.prompt), operator),
        "problems": np.stack((rows, np.full(len(rows), operator), wrong, many), 1),
    }


def _cost(job: Job) -> Cost:
    if job.shape is None:
        return Cost(forward=2.0 * job.prompts)
    late = len(late_layers(job.shape.layers))
    neurons = LOOKED_AT * count_of(LATE_SHARE, job.shape.mlp_width)
    runs = math.ceil(4 * late * neurons * job.prompts / MEMORY)
    return Cost(forward=float(runs * job.prompts + len(NAMES) * 2 * MOST_PAIRS))


contributed = Metric(
    name="arithmetic.failures",
    version=1,
    compute=_failures,
    values={
        **BY_PAIR,
        "problems": Value(("problem", "fact"), "see the docstring"),
        "operators": Value(("operator", "fact"), "see the docstring"),
    },
    inputs=("answers", "attribution", "heuristics"),
    cost=_cost,
    whole=True,
)
"""What heuristic neurons at work add to the right answer, on correct and on failed problems alike.

By pair, in a random order, and side (correct, failed), as in ``contributions.Contributions``;
``prompt`` says which problems. An operator with fewer than 100 pairs has none. ``problems``: row,
operator, whether failed, and how many heuristic neurons are at work, of all problems of the
evaluation half that pairs were made of. ``operators``: operator, how many correct and how many
failed problems, how many pairs, and whether these are all problems that there are.
Source: Nikankin et al. 2025, page 8 and Figure 9.
"""


def contributed_here() -> Need:
    """What heuristic neurons add where the model is right and where it is not."""
    inputs = {
        "answers": measures.answers_here(),
        "attribution": neuron_measures.attribution_here(),
        "heuristics": heuristic_measures.heuristics_here(),
    }
    return contributed(arithmetic, inputs=inputs)


# ------------------------------------------------------------------ reading


def enough(facts: NDArray[np.int64]) -> list[int]:
    """The operators with 100 pairs or more.

    Args:
        facts: ``operators`` of a measurement.
    """
    return [int(row[OPERATOR]) for row in facts if row[PAIRS] >= FEWEST_PAIRS]


def too_few(facts: NDArray[np.int64]) -> str:
    """How often the model fails, operator by operator, where that is too seldom."""
    counted = "; ".join(_counted(row) for row in facts if row[PAIRS] < FEWEST_PAIRS)
    return (
        f"{counted}; {FEWEST_PAIRS} pairs of a failed and a correct problem with operands and "
        "answer in the same bins are needed, and a model that is always right has none"
    )


def _counted(row: NDArray[np.int64]) -> str:
    here = "" if row[CENSUS] else ", of a sample: all problems may have enough"
    return f"{NAMES[row[OPERATOR]]} fails at {row[FAILED]}, in {row[PAIRS]} pairs{here}"


def undecided(answers: Measurement, found: Measurement) -> Verdict:
    """The verdict of a sample in which no operator fails often enough."""
    facts, largest = found["operators"], int(answers["largest"][0])
    sampled, most = len(answers.half), int(facts[:, PAIRS].max())
    every = sum(len(legal(operator, largest)) for operator in range(len(OPERATORS)))
    needed = math.ceil(sampled * FEWEST_PAIRS / most) if most else None
    return Verdict(
        Outcome.INCONCLUSIVE,
        too_few(facts),
        needed=needed if needed is not None and needed <= every else None,
    )


def speaking_of(found: Measurement, gated: Gated) -> Gated:
    """The gated operators that fail often enough, and why the others are left out."""
    facts = found["operators"]
    few = {int(row[OPERATOR]): _counted(row) for row in facts if row[PAIRS] < FEWEST_PAIRS}
    return Gated(tuple(enough(facts)), {**gated.reasons, **few})


def paired(found: Measurement, operators: Sequence[int]) -> Ids:
    """Rows of the correct and of the failed problem of each pair in ``sides``, ``[pair, side]``."""
    rows: Ids = found["prompt"][_rows(found, operators)]
    return rows


def _rows(found: Measurement, operators: Sequence[int]) -> Ids:
    """The first pairs of each operator, as many as all of them have."""
    of = [np.flatnonzero(found["operator"] == operator) for operator in operators]
    return np.concatenate([each[: min(map(len, of))] for each in of])


def sides(found: Measurement, operators: Sequence[int]) -> tuple[Contributions, Contributions]:
    """What is done on correct and on failed problems of some operators, with as many pairs each.

    Args:
        found: A measurement of ``contributed``.
        operators: Those that are pooled, with equal weights.
    """
    rows = _rows(found, operators)
    correct, failed = (
        Contributions(
            **{name: found[name][rows, side] for name in BY_SIDE}, stratum=found["stratum"][rows]
        )
        for side in (0, 1)
    )
    return correct, failed


def unmatched(found: Measurement, operators: Sequence[int]) -> list[tuple[Ids, Ids]]:
    """How many neurons are at work on all correct and on all failed problems, by operator."""
    row = found["problems"]
    return [
        tuple(row[(row[:, 1] == operator) & (row[:, 2] == wrong), 3] for wrong in (0, 1))
        for operator in operators
    ]


def apart(answers: Measurement, found: Measurement, operator: int) -> dict[str, float]:
    """How far pairs are still apart in operands and answer: failed minus correct, on average."""
    correct, failed = paired(found, [operator]).T
    return {
        name: float(answers[name][failed].mean() - answers[name][correct].mean())
        for name in VARIABLES
    }
