"""The claims over training do not hold on a real series whose checkpoints are shuffled.

What a sprout's checkpoints gave is put in a random order on a schedule of Pythia's, whose
windows the claims name. All measurements permuted together, what happens at one checkpoint still
happens together; each on its own, nothing is left that belongs together. In either case the
claims hold no more often than the 99% binomial bound of their level allows.

``behaviour-nondecreasing`` is true in many orders of a series that does the task at most of its
checkpoints, since a running median passes over single ones: it is tried where the three least
trained checkpoints come last, so that the task is lost. Claims about the series (``sanity``)
are left out: their truth is not about the order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from mechtests import engine, plan
from mechtests.case import Case
from mechtests.claim import Claim
from mechtests.errors import NotApplicable
from mechtests.measurement import Measurement
from mechtests.models import sources
from mechtests.models.cell import Cell
from mechtests.results import Results
from mechtests.settings import Settings
from mechtests.store import Store
from mechtests.verdict import Verdict
from tests.noise import STEPS
from tests.noise_results import PermutedResults, case_of
from tests.shipped_claims import verdict_of
from tests.test_noise_series import IDS, RUNS, SCHEDULES, TRAINING, check, few_resamples, outcomes

__all__ = ["few_resamples"]

SPROUT = "sprout-400k"
PERMUTED = STEPS[:4] + STEPS[5:17]
"""A step of Pythia's for each of a sprout's sixteen checkpoints."""
OF_ORDER = [name for name in IDS if not name.startswith("sanity.")]
ORDERS = RUNS // 2
"""Of each kind of permutation."""
COME_LAST = {"tigges2024.behaviour-nondecreasing": 3}

Found = Mapping[Any, Sequence[Measurement | NotApplicable]]


@pytest.fixture(scope="module")
def sprout(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What the claims and their gates read of a sprout at each of its checkpoints, by need."""
    store = Store(tmp_path_factory.mktemp("sprout"))
    source = sources.resolve(SPROUT)
    cells = tuple(Cell(SPROUT, at, source) for at in source.checkpoints(offline=True))
    claims = [claim for claim in TRAINING if claim.id in OF_ORDER]
    needs = {
        **{need: None for claim in claims for need in claim.needs.values()},
        **{claim.gate.need: None for claim in claims if claim.gate is not None},
    }
    all_ = {f"need_{place}": need for place, need in enumerate(needs)}
    case = Case(replace(claims[0], gate=None, needs=all_), cells[-1], cells, SPROUT)
    results = engine.run(plan.build([case], Settings(), store, offline=True), store, offline=True)
    assert not results.errors
    assert not results.cell_errors
    ended = {need: need.of_series(cells[-1]) for need in needs}
    return {need: [_found(results, ended[need], cell) for cell in cells] for need in needs}


def _found(results: Results, need: Any, cell: Cell) -> Measurement | NotApplicable:
    try:
        return results.measurement(need, cell)
    except NotApplicable as reason:
        return reason


@pytest.mark.parametrize("together", [True, False], ids=["together", "each on its own"])
@pytest.mark.parametrize("name", OF_ORDER)
def test_on_a_real_series_in_another_order_a_claim_holds_no_more_often_than_its_level_allows(
    name: str, together: bool, sprout: Found
) -> None:
    claims = [claim for claim in TRAINING if claim.id == name]
    every: list[str] = []
    for place, claim in enumerate(claims):
        judge = partial(in_another_order, claim, sprout, together)
        seeds = range(place, ORDERS, len(claims))
        found, holds = outcomes(judge, seeds)
        check(holds, len(seeds), f"{name} ({claim.task}), {SPROUT} permuted, {dict(found)}")
        every += holds
    check(every, ORDERS, name)


def in_another_order(claim: Claim, sprout: Found, together: bool, seed: int) -> Verdict:
    last = COME_LAST.get(claim.id, 0)
    steps = SCHEDULES.get(claim.id, PERMUTED)[: len(PERMUTED)]
    results: Any = PermutedResults(sprout, steps, seed, together=together, last=last)
    return verdict_of(case_of(claim, steps), results)
