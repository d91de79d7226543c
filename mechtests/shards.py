"""Split a run into parts that measure as little twice as can be, the same on every machine.

What is never torn apart is a cell, the series of a model, or a family: all claims on one go to
one part. Nothing that differs between machines has a say, neither what is stored nor which
configurations were downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mechtests.case import Case, located
from mechtests.metrics.metric import Job, Need
from mechtests.models.cell import Cell
from mechtests.settings import Settings

SIZES = {"k": 1e3, "m": 1e6, "b": 1e9}
Work = Mapping[tuple[Need, Cell], float]
"""What is measured where, with its cost."""


def parse(option: str) -> tuple[int, int]:
    """The part and how many there are, of ``"1/4"``."""
    index, _, count = option.partition("/")
    return int(index), int(count)


def split(cases: Sequence[Case], count: int, settings: Settings) -> list[int]:
    """The part of each case, from 1 to ``count``, whatever the order of the cases.

    Cells, series and families are dealt out, the costliest first: each to a part that measures
    all of it already, or else to the part that has least to do with it.
    """
    units: dict[str, list[Case]] = {}
    for case in cases:
        units.setdefault(case.id, []).append(case)
    work = {name: _work(mine, settings) for name, mine in units.items()}
    loads: list[dict[tuple[Need, Cell], float]] = [{} for _ in range(count)]
    part: dict[str, int] = {}
    for name in sorted(units, key=lambda name: (-sum(work[name].values()), name)):
        mine = work[name]
        best = min(range(count), key=lambda i: (*_after(loads[i], mine), i))
        loads[best].update(mine)
        part[name] = best + 1
    return [part[case.id] for case in cases]


def _after(load: Work, more: Work) -> tuple[bool, float]:
    """Whether a part with more to do would measure anything new, and what it would do then."""
    return not more.keys() <= load.keys(), sum({**load, **more}.values())


def _work(cases: Sequence[Case], settings: Settings) -> Work:
    """All that is measured for some cases, at most, with what each costs."""
    found: dict[tuple[Need, Cell], float] = {}
    for case in cases:
        for cell in case.cells:
            for need in case.needs_in(cell, shut=False):
                at = located(need, cell)
                if at not in found:
                    found[at] = _cost(need, settings) * size(cell.model)
    return found


def _cost(need: Need, settings: Settings) -> float:
    """Passes of a prompt, times its tokens; the plan's own figure needs the network's shape."""
    task, prompts = need.task, settings.prompts_of(need.task)
    draws = settings.draws if need.metric.draws else 0
    cost = need.metric.cost(Job(None, prompts, task.longest, draws, dict(need.params)))
    return (prompts + cost.forward + 2 * cost.backward) * task.longest


def size(model: str) -> float:
    """The parameters that a model's name says it has, or 1.

    >>> size("pythia-160m"), size("smollm2-1.7b"), size("gpt2")
    (160000000.0, 1700000000.0, 1.0)
    """
    said = re.search(r"(\d+(?:\.\d+)?)([kmb])(?![a-z0-9])", model.lower())
    return float(said[1]) * SIZES[said[2]] if said else 1.0
