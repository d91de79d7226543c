"""Knock-outs guided by the prompt at every checkpoint, with the number of neurons that decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

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
    parts, done = [], []
    for operator in (int(op) for op in found["operators"]):
        pairs = pairs_of(batch, operator)["evaluation"]
        mine, important = problems.select(pairs.prompts), important_of(found, operator)
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


bag_knockouts = Metric(
    name="arithmetic.bag_knockouts",
    version=2,
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


def knockouts_here() -> Need:
    """Knock-outs guided by the prompt."""
    return bag_knockouts(SERIES, inputs={"answers": answers_here(), "found": bags_here()})
