"""Where the heuristics that most neurons match hold, over both operands: for reports."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from mechtests.arithmetic.heuristics import Heuristic, decoded
from mechtests.arithmetic.problems import OPERATORS
from mechtests.measurement import Measurement
from mechtests.tasks.arithmetic import NAMES

Json = Any
BINS = 20
EACH = 2


def commonest(found: Measurement, answers: Measurement, each: int = EACH) -> list[Json]:
    """Entries of a verdict's ``shown["maps"]``: what most neurons of each operator match.

    Args:
        found: ``arithmetic.heuristics``.
        answers: ``arithmetic.answers``: its problems are those that are mapped.
        each: How many an operator, no two of one type.
    """
    pairs = Counter((int(row[0]), int(row[3])) for row in found["triples"])
    shown: dict[tuple[int, str], Json] = {}
    for (operator, place), neurons in sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0])):
        heuristic = decoded(found["heuristics"][place])
        mine = sum(known == operator for known, _ in shown)
        if mine < each and (operator, heuristic.type) not in shown:
            shown[operator, heuristic.type] = _map(heuristic, operator, neurons, answers)
    return [entry for _, entry in sorted(shown.items(), key=lambda pair: pair[0][0])]


def _map(heuristic: Heuristic, operator: int, neurons: int, answers: Measurement) -> Json:
    """The share of an operator's problems for which a heuristic holds, by their operands."""
    of = answers["operator"] == operator
    first, second, result = (answers[name][of] for name in ("first", "second", "result"))
    held = heuristic.holds(first, second, result)
    sizes = [max(1, -(-(int(each.max()) + 1) // BINS)) for each in (first, second)]
    at = first // sizes[0], second // sizes[1]
    total = np.zeros((int(at[0].max()) + 1, int(at[1].max()) + 1))
    count = np.zeros_like(total)
    np.add.at(total, at, held)
    np.add.at(count, at, 1)
    return {
        "what": f"{NAMES[operator]}: {heuristic.name}",
        "unit": "share of problems",
        "rows": "operand 1",
        "columns": "operand 2",
        "row_labels": [row * sizes[0] for row in range(total.shape[0])],
        "column_labels": [column * sizes[1] for column in range(total.shape[1])],
        "values": [
            [round(t / c, 3) if c else None for t, c in zip(*rows, strict=True)]
            for rows in zip(total.tolist(), count.tolist(), strict=True)
        ],
        "up": True,
        "note": f"{neurons} neuron{'s match' if neurons > 1 else ' matches'} it; "
        f"{OPERATORS[operator]} of both operands",
    }
