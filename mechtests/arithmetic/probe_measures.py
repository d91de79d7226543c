"""The measurement of probes: from where in the stream the answer can be read linearly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mechtests.arithmetic.chosen import right
from mechtests.arithmetic.measures import answers_here, gated_of
from mechtests.arithmetic.probe_labels import (
    COVERED,
    POSITIONS,
    PROMPTS_A_CLASS,
    STEPS,
    Labels,
    covered,
    enough,
    parts,
    training_problems,
)
from mechtests.measurement import HALVES
from mechtests.metrics.metric import Batch, Cost, Job, Metric, Need, Value
from mechtests.tasks.arithmetic import LARGEST, NAMES, arithmetic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mechtests.arithmetic.probe import Probed
    from mechtests.measurement import Measurement

    Ids = NDArray[np.int64]
    Floats = NDArray[np.float64]

MOST = 20_000
"""Problems of an operator: so the streams of a depth stay within two gigabytes at width 4,096."""
CHOSEN = ("last", "second", "constant", "shuffled", "operands", "shrunk")
"""What is read of each test problem at a depth of its own, or at none."""


# ------------------------------------------------------------------ measuring


def _of_operators(
    batch: Batch,
    operators: Sequence[int],
    rows_of: Callable[[int], Ids],
    share: float,
) -> dict[str, Any]:
    """Probes of some operators, fitted to some rows of the task, where they cover a share."""
    from mechtests.arithmetic.probe import probe
    from mechtests.arithmetic.problems import Problems

    every = Problems.of(batch.prompts)
    table: list[Any] = [np.zeros((0, 3), np.int64)]
    done: list[tuple[int, Ids, Probed]] = []
    for operator in operators:
        turns = np.flatnonzero(every.operator == operator)
        part, asked = parts(len(turns)), np.isin(turns, rows_of(operator))
        rows, part = turns[asked][:MOST], part[asked][:MOST]
        problems = every.select(rows)
        results, counts = training_problems(problems.result, part)
        table.append(np.column_stack((np.full_like(results, operator), results, counts)))
        if enough(counts, share):
            labels = Labels.of(problems.result, part)
            draw = batch.generator(f"labels of {NAMES[operator]}")
            found = probe(batch.network, problems, labels, draw)
            done.append((operator, rows[found.problems], found))
    return {"results": np.concatenate(table), **_joined(batch, done)}


def _joined(batch: Batch, done: Sequence[tuple[int, Ids, Probed]]) -> dict[str, Any]:
    """The probes of all operators, one after the other."""
    none = (0, batch.network.shape.layers + 1, len(POSITIONS))
    hits: list[Any] = [np.zeros(none, bool)]
    validation: list[Any] = [np.zeros(none)]
    operators: list[Any] = [np.zeros(0, np.int64)]
    prompts: list[Any] = [np.zeros(0, np.int64)]
    chosen: dict[str, list[Any]] = {name: [np.zeros(0, bool)] for name in CHOSEN}
    for operator, rows, found in done:
        hits.append(found.hits)
        validation.append(found.validation[None])
        operators.append(np.full(len(rows), operator))
        prompts.append(rows)
        for name, some in chosen.items():
            some.append(getattr(found, name))
    prompt = np.concatenate(prompts)
    return {
        "hits": np.concatenate(hits),
        "validation": np.concatenate(validation),
        "probed": np.array([operator for operator, _, _ in done], np.int64),
        "operator": np.concatenate(operators),
        "prompt": prompt,
        "half": np.asarray(batch.prompts.half)[prompt],
        **{name: np.concatenate(some) for name, some in chosen.items()},
    }


def _probes(batch: Batch) -> Mapping[str, Any]:
    answers = batch.inputs["answers"]

    def rows(operator: int) -> Ids:
        return np.concatenate([right(answers, operator, half) for half in HALVES])

    return _of_operators(batch, gated_of(batch), rows, COVERED)


def _without_training(batch: Batch) -> Mapping[str, Any]:
    rows = np.flatnonzero(batch.prompts.tokens["result"] != 0)
    return _of_operators(batch, range(len(NAMES)), lambda _: rows, 0.0)


def _cost(job: Job) -> Cost:
    """All problems run once; for each discriminant a covariance, its solution and all scores.

    Of the logistic regressions, three of the stream and one of twice its width, scores and slopes
    at every step, and a third more for those that only look. An operator has half of the problems
    at most, and a result ten of the 70% that train.
    """
    problems = float(min(job.prompts, len(NAMES) * MOST))
    if job.shape is None:
        return Cost(forward=problems)
    width, depths = job.shape.width, job.shape.layers + 1
    classes = min(LARGEST + 1.0, 0.7 * problems / 2 / PROMPTS_A_CLASS)

    def solved(size: int) -> float:
        return 2 * problems * size * (size + classes) + len(NAMES) * float(size) ** 3

    run = 2.0 * job.shape.block_parameters * job.position * problems
    discriminants = (len(POSITIONS) * depths + 3) * solved(width) + 2 * solved(2 * width)
    regressions = (3 + 2) * 4 * problems * width * classes * STEPS * 4 / 3
    return Cost(forward=problems, flops=run + discriminants + regressions)


HIT = Value(("problem",), "yes or no")
VALUES = {
    "hits": Value(("problem", "depth", "position"), "yes or no"),
    "validation": Value(("operator", "depth", "position"), "accuracy"),
    "probed": Value(("operator",), "place among + - * /"),
    "results": Value(("result", "fact"), "operator, result, training problems"),
    "operator": Value(("problem",), "place among + - * /"),
    "prompt": Value(("problem",), "row of the task"),
    "half": Value(("problem",), "0 selection, 1 evaluation"),
    **dict.fromkeys(CHOSEN, HIT),
}

probes = Metric(
    name="arithmetic.probes",
    version=1,
    compute=_probes,
    values=VALUES,
    inputs=("answers",),
    needs=("tokens:operator", "tokens:result"),
    cost=_cost,
    whole=True,
)
"""Whether a linear probe reads the result of problems that the model answers right.

``hits``: of test problems, by a discriminant at every depth (0 is the embedding, d the stream
behind d blocks) and position (``POSITIONS``), and what it says of validation problems, by operator
as in ``probed``. At the depth that is best on those, the best of it, one that may use directions of
little variance, and a logistic regression:
``last`` at ``=``, ``second`` at operand 2, ``shuffled`` at ``=`` with shuffled labels; ``operands``
from both operands' embeddings side by side. ``shrunk``: from these, by the discriminant;
``constant``: the commonest result. ``results``: how many training
problems each result has; those with fewer than 10 are left out, and operators of which less than
half is left are not probed. Source: Nikankin et al. 2025, Figure 3.
"""

untrained_probes = Metric(
    name="arithmetic.untrained_probes",
    version=1,
    compute=_without_training,
    values=VALUES,
    needs=("tokens:operator", "tokens:result"),
    cost=_cost,
    whole=True,
)
"""The same for an untrained cell, which answers nothing right: on all problems.

Problems are in the same parts as those of ``probes``, so that those of both can be paired.
"""


def probes_here() -> Need:
    """What probes read."""
    return probes(arithmetic, inputs={"answers": answers_here()})


def untrained_here() -> Need:
    """What probes read of the untrained cell."""
    return untrained_probes(arithmetic, cell="untrained")


# ------------------------------------------------------------------ reading


def at_best(found: Measurement, position: int, upto: float = np.inf) -> Floats:
    """Whether discriminants read the result at a position, each operator's at its best depth.

    Args:
        found: A measurement of ``probes``.
        position: A place in ``POSITIONS``.
        upto: The largest depth among which the best is chosen, on the validation part.

    Returns:
        0 or 1, ``[problem]``.
    """
    read = np.zeros(len(found["operator"]))
    for place, operator in enumerate(found["probed"].tolist()):
        accuracy = found["validation"][place, :, position]
        best = int(accuracy[: int(min(upto, len(accuracy))) + 1].argmax())
        mine = found["operator"] == operator
        read[mine] = found["hits"][mine, best, position]
    return read


def as_many(found: Measurement, operators: Sequence[int]) -> NDArray[np.bool_]:
    """The first test problems of some operators, of each as many as the rarest has, ``[problem]``.

    They come in a random order, so that operators weigh the same.
    """
    rows = [np.flatnonzero(found["operator"] == operator) for operator in operators]
    many = min(map(len, rows))
    return np.isin(np.arange(len(found["operator"])), np.concatenate([r[:many] for r in rows]))


def shared(found: Measurement, other: Measurement, values: Floats) -> Floats:
    """Values of another measurement's problems for those of this one, NaN where it has them not."""
    at = {int(prompt): float(v) for prompt, v in zip(other["prompt"], values, strict=True)}
    return np.array([at.get(int(prompt), np.nan) for prompt in found["prompt"]])


def too_few(found: Measurement, operators: Sequence[int]) -> dict[int, str]:
    """Why some of the gated operators were not probed, by operator."""
    rows, why = found["results"], {}
    for operator in operators:
        counts = rows[rows[:, 0] == operator, 2]
        if operator not in found["probed"]:
            many = int((counts >= PROMPTS_A_CLASS).sum())
            why[operator] = (
                f"{NAMES[operator]}: {many} of {len(counts)} results have {PROMPTS_A_CLASS} "
                f"training problems, and with them {covered(counts):.0%} of the problems"
            )
    return why
