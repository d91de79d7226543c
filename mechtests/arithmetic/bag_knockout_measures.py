"""Knock-outs guided by the prompt at every checkpoint, with the number of neurons that decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechtests.arithmetic.bag_measures import SERIES, answers_here, bags_here, important_of
from mechtests.arithmetic.chosen import EVALUATION
from mechtests.arithmetic.heuristics import associated, decoded
from mechtests.arithmetic.knockout_measures import DRAWS
from mechtests.arithmetic.measures import FACTS, facts_of, pairs_of, problems_of
from mechtests.arithmetic.pools import CONTROLS, guided_sets
from mechtests.metrics.metric import Batch, Cost, Metric, Need, Value
from mechtests.tasks.arithmetic import NAMES

K = 10
"""Neurons of each layer that are knocked out at most (claims.md, ``knockout-beats-random``)."""


def _knockouts(batch: Batch) -> Mapping[str, Any]:
    from mechtests.arithmetic import knockouts

    network, found = batch.network, batch.inputs["found"]
    problems, named = problems_of(batch), [decoded(row) for row in found["heuristics"]]
    parts, planned = [], []
    for operator in (int(op) for op in found["operators"]):
        pairs = pairs_of(batch, operator)["evaluation"]
        mine, important = problems.select(pairs.prompts), important_of(found, operator)
        holds = associated(named, mine.first, mine.second, mine.result)
        draw, draws = batch.generator(f"controls of {NAMES[operator]}"), min(DRAWS, batch.draws)
        planned.append((mine, important, guided_sets(important, holds, draw, ks=(K,), draws=draws)))
        parts.append((operator, 1, pairs))
    short = [np.any(plan.pool < K, axis=1) for *_, plan in planned]
    enough = not all(each.all() for each in short)
    done = []
    for (mine, important, plan), few in zip(planned, short, strict=True):
        right: tuple[NDArray[Any], ...] = (
            np.zeros(len(few)),
            np.zeros((len(few), len(CONTROLS))),
        )
        if enough:
            each = knockouts.guided(network, mine, important, plan)
            right = each.heuristic_right[0], each.control_right[:, 0].T
        done.append((*right, few, np.full(len(few), enough)))
    names = ("heuristic", "control", "short", "done")
    joined = (np.concatenate(each).astype(np.float32) for each in zip(*done, strict=True))
    return {**dict(zip(names, joined, strict=True)), **facts_of(parts)}


bag_knockouts = Metric(
    name="arithmetic.bag_knockouts",
    version=2,
    compute=_knockouts,
    values={
        "heuristic": Value(("pair",), "right or wrong"),
        "control": Value(("pair", "control"), "share of draws"),
        "short": Value(("pair",), "yes or no"),
        "done": Value(("pair",), "yes or no"),
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

As ``knockout_measures.guided`` with the deciding number of neurons alone. Where every prompt of
every operator is ``short`` of them in some layer, which leaves the claim undecided whatever they
do, nothing is knocked out: ``done`` says so, and the other values are 0.
"""


def knockouts_here() -> Need:
    """Knock-outs guided by the prompt."""
    return bag_knockouts(SERIES, inputs={"answers": answers_here(), "found": bags_here()})
