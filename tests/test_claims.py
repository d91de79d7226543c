"""The shipped claims on planted and on random networks, through the real engine and judging."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from mechtests import engine, plan
from mechtests.case import Case
from mechtests.claim import Claim
from mechtests.measurement import Head
from mechtests.models.cell import Cell
from mechtests.models.network import Network
from mechtests.reporting import records
from mechtests.settings import Settings
from mechtests.store import Store
from mechtests.tape import Sites, Tape
from mechtests.tasks.prompts import Prompts, Task, Tokenizer
from mechtests.verdict import Outcome, Verdict
from tests.planted import IOI_WORDS, Planted, Stream, induction_stream, ioi_stream
from tests.random_networks import from_recipe, random_cell
from tests.shipped_claims import CLAIMS, verdict_of
from tests.words import Numbers

INDUCTION = CLAIMS["tigges2024.induction-present"]
COPYING = CLAIMS["tigges2024.copying-heads-present"]
MATTER = CLAIMS["tigges2024.name-movers-matter"]


@dataclass(frozen=True)
class Few(Settings):
    """The fewest prompts that decide, 8 clusters a half, and the standard profile's draws.

    With 199 draws the 20 heads of a layer are enumerated, so that a head which is alone the
    best of them gives p = 1/20; 19 draws would hold the observed set itself with p = 0.6.
    """

    profile: str = "standard"

    def prompts_of(self, task: Task) -> int:
        return {"ioi": 32, "repeated_tokens": 16}[task.name]


def judged(
    cell: Cell, store: Store, claims: Sequence[Claim], settings: Settings | None = None
) -> list[Verdict]:
    """Verdicts of some claims: plan, measure, judge."""
    cases = [Case(claim, cell) for claim in claims]
    results = engine.run(plan.build(cases, settings or Few(), store), store)
    assert not results.errors
    assert not results.cell_errors
    return [verdict_of(case, results) for case in cases]


def ungated(claim: Claim) -> Claim:
    return replace(claim, gate=None)


# ---------------------------------------------------------------- planted truth


def induction_cell(head: Head | None) -> Cell:
    words = Numbers(120, bos=0)
    make = partial(induction_stream, (0, 2), head, words, width=512, strength=26.0)
    return Planted(f"induction-{head}", make=make, words=words).cell


def ioi_cell(mover: Head | None) -> Cell:
    make = partial(ioi_stream, mover, heads=20, rare=1000)
    return Planted(f"ioi-{mover}", make=make, words=IOI_WORDS).cell


def ablated_ioi_cell(mover: Head) -> Cell:
    def make() -> Stream:
        stream = ioi_stream(mover, heads=20, rare=1000)
        size = stream.width // stream.heads
        written = stream.model.transformer.h[mover[0]].attn.c_proj.weight
        written.data[mover[1] * size : (mover[1] + 1) * size] = 0.0
        return stream

    return Planted(f"ioi-without-{mover}", make=make, words=IOI_WORDS).cell


@pytest.mark.parametrize("head", [(1, 1), (1, 3)])
def test_a_planted_induction_head_is_found_by_its_name(head: Head, tmp_path: Path) -> None:
    [verdict] = judged(induction_cell(head), Store(tmp_path), [INDUCTION])
    assert verdict.outcome is Outcome.HOLDS, verdict
    assert f"induction score of head {head[0]}.{head[1]} on evaluation" in verdict.sentence


def test_without_the_induction_head_induction_is_refuted(tmp_path: Path) -> None:
    [verdict] = judged(induction_cell(None), Store(tmp_path), [INDUCTION])
    assert verdict.outcome is Outcome.REFUTED, verdict


@pytest.mark.parametrize("mover", [(2, 5), (2, 17)])
def test_a_planted_name_mover_is_found_by_its_name_and_matters(mover: Head, tmp_path: Path) -> None:
    present, matters = judged(ioi_cell(mover), Store(tmp_path), [COPYING, MATTER])
    assert present.outcome is Outcome.HOLDS, present
    assert matters.outcome is Outcome.HOLDS, matters
    name = "{}.{}".format(*mover)
    assert f"of the name movers {name} on evaluation" in present.sentence
    assert f"drop of name movers {name} minus" in matters.sentence


@pytest.mark.parametrize(
    "cell", [ioi_cell(None), ablated_ioi_cell((2, 5))], ids=["never there", "ablated"]
)
def test_without_the_name_mover_the_gate_is_shut_and_without_the_gate_nothing_holds(
    cell: Cell, tmp_path: Path
) -> None:
    claims = [COPYING, MATTER, ungated(COPYING), ungated(MATTER)]
    *gated, present, matters = judged(cell, Store(tmp_path), claims)
    for verdict in gated:
        assert verdict.outcome in {Outcome.NOT_APPLICABLE, Outcome.INCONCLUSIVE}, verdict
        assert "the task ioi" in verdict.sentence
    assert present.outcome is Outcome.REFUTED, present
    assert matters.outcome is Outcome.NOT_APPLICABLE, matters
    assert "no head is a name mover" in matters.sentence


# ---------------------------------------------------------------- calibration

NETWORKS = 400
LEVEL = 0.025
"""One-sided, of the 95% interval every mechanism claim is decided by."""


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    make_cheap(monkeypatch)


def make_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes become networks; what takes longer than measuring and checks nothing here is off.

    No self-check (``test_selfcheck`` has it), one reading of the installed versions, no collection
    of what reference counts free anyway, and repeats of 16 tokens: attention to fewer tokens
    makes scores higher by chance, never lower. The same prompts are made once.
    """
    monkeypatch.setattr("mechtests.tasks.repeated_tokens.SHORTEST", 16)
    monkeypatch.setattr(Network, "from_model", from_recipe)
    versions = records.installed_versions()
    monkeypatch.setattr(records, "installed_versions", lambda: versions)
    monkeypatch.setattr(gc, "collect", lambda: 0)
    generate, made = engine.prompts_of, {}

    def once(task: Task, tokenizer: Tokenizer, settings: Settings) -> Prompts:
        key = (task.name, tokenizer.name, tokenizer.size, settings.seed)
        if key not in made:
            made[key] = generate(task, tokenizer, settings)
        return made[key]

    monkeypatch.setattr(engine, "prompts_of", once)


def test_on_random_networks_no_claim_holds_more_often_than_its_level_allows(cheap: None) -> None:
    """By chance half of them have heads that copy some names: those decide about name movers.

    The controls alone would keep a claim from holding, so its interval is held to the bound too.
    """
    claims = [ungated(claim) for claim in (INDUCTION, COPYING, MATTER)]
    store = Store("memory://random-networks")  # thousands of small files wait for the disk
    verdicts = [
        judged(random_cell(seed), store, claims, Few("quick", seed % 20))
        for seed in range(NETWORKS)
    ]
    for claim, found in zip(claims, zip(*verdicts, strict=True), strict=True):
        asked = [each for each in found if each.interval is not None]
        assert len(asked) > NETWORKS / 5, claim.id
        most = stats.binom.ppf(0.99, len(asked), LEVEL)
        assert sum(each.outcome is Outcome.HOLDS for each in found) <= most, claim.id
        assert sum(each.interval[0] > each.margin for each in asked) <= most, claim.id


# ---------------------------------------------------------------- what a verdict does not depend on

ALL = [CLAIMS["sanity.gates"], INDUCTION, COPYING, MATTER, ungated(COPYING), ungated(MATTER)]
SEEDS = (6, 9, 40)  # random networks some of whose heads seem to be name movers


def small_ioi_cell(jitter: float = 0.0) -> Cell:
    """With 8 heads a layer, random sets come from all layers: one claim holds, one is undecided."""
    make = partial(ioi_stream, (2, 5), rare=1000)
    return Planted("small-ioi", make=make, words=IOI_WORDS, jitter=jitter).cell


def cells(jitter: float = 0.0) -> list[Cell]:
    return [small_ioi_cell(jitter), *(random_cell(seed, jitter) for seed in SEEDS)]


def all_verdicts(folder: Path, jitter: float = 0.0) -> list[list[Verdict]]:
    return [judged(cell, Store(folder), ALL) for cell in cells(jitter)]


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> list[list[Verdict]]:
    """The verdicts of every claim in every cell, with nothing unusual about the run."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_cheap(monkeypatch)
        return all_verdicts(tmp_path_factory.mktemp("usual"))


def same(found: Verdict, expected: Verdict) -> bool:
    """The same outcome about the same heads, and numbers that are equal but for rounding."""
    said, meant = (each.sentence.partition(":")[0] for each in (found, expected))
    if (found.outcome, said, found.prompts) != (expected.outcome, meant, expected.prompts):
        return False
    if expected.estimate is None:
        return found.estimate is None
    numbers = [(each.estimate, *(each.interval or ())) for each in (found, expected)]
    return bool(np.allclose(*numbers, atol=1e-4))


def test_the_cells_below_have_verdicts_of_every_kind(usual: list[list[Verdict]]) -> None:
    outcomes = {verdict.outcome for verdicts in usual for verdict in verdicts}
    assert outcomes == set(Outcome) - {Outcome.ERROR}


def test_a_claim_judged_alone_has_the_verdict_it_has_among_others(
    cheap: None, usual: list[list[Verdict]], tmp_path: Path
) -> None:
    for cell, expected in zip(cells(), usual, strict=True):
        for index in range(1, 4):
            [alone] = judged(cell, Store(tmp_path / str(index)), [ALL[index]])
            assert str(alone) == str(expected[index])


def test_verdicts_do_not_depend_on_the_order_of_prompts_in_batches(
    cheap: None, usual: list[list[Verdict]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shuffled(tape: Tape, sites: Sites) -> Iterator[np.ndarray]:
        yield from np.array_split(np.random.default_rng(1).permutation(len(tape.prompts)), 7)

    monkeypatch.setattr(Tape, "_batches", shuffled)
    for found, expected in zip(all_verdicts(tmp_path), usual, strict=True):
        assert all(map(same, found, expected)), list(zip(found, expected, strict=True))


def test_verdicts_do_not_depend_on_rounding(
    cheap: None, usual: list[list[Verdict]], tmp_path: Path
) -> None:
    for found, expected in zip(all_verdicts(tmp_path, jitter=1e-6), usual, strict=True):
        assert all(map(same, found, expected)), list(zip(found, expected, strict=True))
