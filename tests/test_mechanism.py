"""The number that decides a claim, at prompts that are searched: on networks made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mechtests import cli, direct, falsifying, mechanism, rules, shipped, tasks
from mechtests.answering import behaviour_of
from mechtests.case import Case
from mechtests.claim import Claim
from mechtests.errors import NotApplicable, UsageError
from mechtests.falsifying import kind_of, without_mechanism
from mechtests.measurement import Sample
from mechtests.mechanism import Mechanism, beyond
from mechtests.metrics import attention, effects
from mechtests.metrics.metric import Batch, Metric, Value
from mechtests.opening import Opened, store_of
from mechtests.reporting import counterexample
from mechtests.reporting.counterexample import Claimed, Example, Found
from mechtests.settings import Settings
from mechtests.tasks.ioi import ioi
from tests.falsified import MOVER, lapsing_source
from tests.planted import IOI_WORDS, NAMES, Planted

COPYING = "tigges2024.copying-heads-present"
MATTER = "tigges2024.name-movers-matter"
LAPSE = NAMES[13]
BUDGET = 200


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def folder(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MECHTESTS_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Callable[[Planted], None]:
    """Make a planted model the one that any name is of."""

    def give(source: Planted) -> None:
        monkeypatch.setattr(falsifying.sources, "resolve", lambda model, cache: source)

    return give


def falsify(claim: str, folder: Path, **given: Any) -> Found:
    options = {"budget": BUDGET, "kind": "mechanism", **given}
    return falsifying.falsify(claim, "planted", reports=folder / "reports", **options)


def opened(source: Planted, seed: int = 0) -> Opened:
    return Opened(source.cell, Settings(seed=seed), store_of((), None))


def decided(claim: str, source: Planted) -> Mechanism:
    found, test = direct.one_claim(claim, "ioi")
    there = opened(source)
    return mechanism.of(Case(found, there.cell), test, there)


def simplest() -> dict[str, Any]:
    made = tasks.find("ioi").grammar
    assert made is not None
    chosen: dict[str, Any] = {}
    for slot, options in made(IOI_WORDS).slots.items():
        chosen[slot] = options(chosen)[0]
    return chosen


def as_subject(name: str) -> dict[str, Any]:
    return {**simplest(), "S": name}


def as_object(name: str) -> dict[str, Any]:
    first = simplest()
    return {**first, "IO": name, "S": first["IO"]}


# ---------------------------------------------------------------- a weakness that was planted


@pytest.mark.parametrize(
    ("claim", "name", "seed"), [(COPYING, LAPSE, 0), (COPYING, NAMES[2], 5), (MATTER, LAPSE, 1)]
)
def test_a_name_at_which_the_name_mover_fails_is_found_and_shrunk_to_it(
    claim: str, name: str, seed: int, folder: Path, model: Callable[[Planted], None]
) -> None:
    model(lapsing_source(name))
    found = falsify(claim, folder, seed=seed)
    assert found.passes <= BUDGET
    assert found.smallest
    broken, close = found.counterexample, found.neighbour
    assert broken is not None
    assert close is not None
    assert broken.choices in (as_object(name), as_subject(name))
    assert broken.answered
    assert broken.value is not None
    assert close.value is not None
    assert broken.value <= 0 < close.value
    assert close.passes
    assert name not in (close.choices["IO"], close.choices["S"])
    differ = [slot for slot in broken.choices if broken.choices[slot] != close.choices[slot]]
    assert len(differ) == 1


@pytest.mark.parametrize("claim", [COPYING, MATTER])
def test_a_name_mover_that_never_fails_is_not_broken_and_the_whole_budget_is_spent(
    claim: str, folder: Path, model: Callable[[Planted], None]
) -> None:
    model(lapsing_source(None))
    found = falsify(claim, folder)
    assert found.counterexample is None
    assert found.asked.claimed is not None
    assert found.prompts == int(BUDGET / found.asked.claimed.cost) > 50
    assert BUDGET - found.asked.claimed.cost < found.passes <= BUDGET
    assert not (folder / "reports").exists()


def test_a_prompt_that_the_model_gets_wrong_breaks_no_mechanism(
    folder: Path, model: Callable[[Planted], None]
) -> None:
    """Without the backup the model cannot say the name: what is left is the name as the subject."""
    model(lapsing_source(LAPSE, backup=False))
    found = falsify(COPYING, folder)
    assert found.counterexample is not None
    assert found.counterexample.choices == as_subject(LAPSE)
    assert found.wrong > 0
    behaviour = falsify(COPYING, folder, kind="behaviour")
    assert behaviour.counterexample is not None
    assert behaviour.counterexample.choices == as_object(LAPSE)
    assert behaviour.passes == behaviour.prompts


def test_equal_seeds_search_alike(folder: Path, model: Callable[[Planted], None]) -> None:
    model(lapsing_source(LAPSE))
    first, second = (falsify(COPYING, folder / str(turn), seed=3, budget=100) for turn in (0, 1))
    assert first == second
    assert first.counterexample is not None


def test_a_counterexample_is_run_first_the_next_time_and_kept_apart_from_the_behaviours(
    folder: Path, model: Callable[[Planted], None]
) -> None:
    model(lapsing_source(LAPSE, backup=False))
    arguments = ["falsify", COPYING, "--model", "planted", f"--budget={BUDGET}"]
    first, again, other = (
        CliRunner().invoke(cli.app, [*arguments, *more])
        for more in ([], ["--seed", "9"], ["--search", "behaviour"])
    )
    assert first.exit_code == again.exit_code == other.exit_code == 1, first.output
    assert "a counterexample to its mechanism (" in first.output
    assert f" of {BUDGET}, " in first.output
    assert "of the prompts answered wrong, which do not count" in first.output
    assert f"effects.direct_effect of head {MOVER[0]}.{MOVER[1]}: -" in first.output
    assert "logits, claimed above 0" in first.output
    assert "run first and breaks it still" in again.output
    assert "run first" not in other.output
    command = f"mechtests falsify {COPYING} --task=ioi --model=planted --search=mechanism"
    assert f"run it again, before all others: {command} --budget={BUDGET}" in first.output
    kept = sorted(each.name for each in (folder / ".mechtests").rglob("*.json"))
    cell = lapsing_source(LAPSE, backup=False).name
    assert len(kept) == 2
    assert kept[1].endswith(".mechanism.json")
    assert all(each.startswith(cell) for each in kept)
    (file,) = (folder / ".mechtests").rglob("*.mechanism.json")
    tree = json.loads(file.read_text())
    assert tree["drawn"] == 0
    assert tree["counterexample"]["value"] < 0


# ---------------------------------------------------------------- the number of a prompt


@pytest.mark.parametrize("claim", [COPYING, MATTER])
def test_the_claims_own_prompts_have_the_values_that_decided_in_any_company(claim: str) -> None:
    found = decided(claim, lapsing_source(LAPSE))
    sample = mechanism.deciding(found.judged.verdict).sample
    prompts = found.opened.prompts(ioi)
    rows = np.flatnonzero(prompts.half == found.half)
    assert sample is not None
    order = np.random.default_rng(0).permutation(len(rows))
    for some in (order, order[:7], order[-1:]):
        values, _, _ = found.at(prompts.select(rows[some]), behaviour_of(ioi))
        np.testing.assert_allclose(values, sample.values[some], atol=1e-4)


def test_other_prompts_have_the_values_the_engine_measures_on_them() -> None:
    """The oracle: a run with another seed, whose prompts are others, at the heads of the first."""
    found = decided(COPYING, lapsing_source(LAPSE))
    other = opened(lapsing_source(LAPSE), seed=7)
    prompts = other.prompts(ioi)
    assert prompts.digest != found.opened.prompts(ioi).digest
    measured = other.measurement(effects.direct_effects(ioi))["direct_effect"]
    (part,) = found.parts
    assert part.heads == (MOVER,)
    values, margins, guesses = found.at(prompts, behaviour_of(ioi))
    np.testing.assert_allclose(values, measured[:, MOVER[0], MOVER[1]], atol=1e-5)
    clean = other.measurement(effects.direct_effects(ioi))["clean"]
    np.testing.assert_allclose(margins, clean, atol=1e-5)
    assert prompts.right is not None
    assert ((guesses == prompts.right[:, 0]) == (margins > 0)).mean() > 0.9


def test_no_head_is_chosen_on_prompts_that_are_searched() -> None:
    """The same prompts, but of a network with another mover there: the head stays the first's."""
    found = decided(COPYING, lapsing_source(LAPSE))
    twin = replace(found, opened=opened(lapsing_source(None)))
    assert twin.parts == found.parts
    prompts = twin.opened.prompts(ioi)
    values, _, _ = twin.at(prompts, behaviour_of(ioi))
    assert (values > 0).all()


def test_beyond_is_how_far_a_value_is_on_the_claimed_side() -> None:
    values = np.array([-1.0, 0.25, 2.0])
    claimed = Claimed("it", "", 0.5, ">", 2.0, "holds")
    assert beyond(values, claimed).tolist() == [-1.5, -0.25, 1.5]
    assert beyond(values, replace(claimed, relation="<")).tolist() == [1.5, 0.25, -1.5]
    assert beyond(values, replace(claimed, relation="within")).tolist() == [-0.5, 0.25, -1.5]


# ---------------------------------------------------------------- claims of one's own


def own(test: Callable[..., None], **needs: Any) -> Mechanism:
    there = opened(lapsing_source(LAPSE))
    claim = Claim("mine.own", says="", rule="", task="ioi", needs=needs)
    return mechanism.of(Case(claim, there.cell), test, there)


def test_a_constant_that_a_claim_adds_and_its_factors_are_part_of_the_number() -> None:
    def test(measured: Any, judge: Any) -> None:
        looks = measured.attention.sum_over("IO", [MOVER, (1, 2)], "evaluation")
        speaks = measured.effects.sample("direct_effect", "evaluation", *MOVER)
        judge(rules.below(0.5 * looks - 2 * speaks + 1.5, 0.25, what="mine"))

    found = own(test, attention=attention.end_attention(ioi), effects=effects.direct_effects(ioi))
    prompts = found.opened.prompts(ioi)
    values, _, _ = found.at(prompts, behaviour_of(ioi))
    looks = found.opened.measurement(attention.end_attention(ioi))["IO"]
    speaks = found.opened.measurement(effects.direct_effects(ioi))["direct_effect"]
    expected = 0.5 * (looks[:, 2, 5] + looks[:, 1, 2]) - 2.0 * speaks[:, 2, 5] + 1.5
    np.testing.assert_allclose(values, expected, atol=1e-4)
    assert (found.claimed.margin, found.claimed.relation) == (0.25, "<")
    assert found.claimed.side == "below 0.25"
    assert found.constant == pytest.approx(1.5, abs=1e-5)


def test_a_number_that_is_no_sum_of_values_is_refused() -> None:
    def test(measured: Any, judge: Any) -> None:
        speaks = measured.effects.sample("direct_effect", "evaluation", *MOVER)
        judge(rules.above(Sample(speaks.values**2, speaks.cluster), 0.0, what="squares"))

    with pytest.raises(UsageError, match="no sum of values of single prompts"):
        own(test, effects=effects.direct_effects(ioi))


def test_a_number_that_depends_on_the_prompts_beside_it_is_refused() -> None:
    def compute(batch: Batch) -> Any:
        return {"above_others": batch.clean.final[:, 0] * 0 + len(batch.prompts)}

    company = Metric(
        name="mine.company",
        version=1,
        compute=compute,
        values={"above_others": Value(("prompt",), "")},
        clean=("final",),
    )

    def test(measured: Any, judge: Any) -> None:
        judge(rules.above(measured.it.sample("above_others", "evaluation"), 0.0, what="company"))

    with pytest.raises(UsageError, match="depends on the prompts beside it"):
        own(test, it=company(ioi))


def test_a_number_of_other_prompts_is_refused() -> None:
    def test(measured: Any, judge: Any) -> None:
        speaks = measured.it.sample("direct_effect", "evaluation", *MOVER)
        judge(rules.above(speaks, 0.0, what="other"))

    there = opened(lapsing_source(LAPSE))
    need = effects.direct_effects(ioi)
    claim = Claim("mine.own", says="", rule="", task="pronoun", needs={"it": need})
    with pytest.raises(UsageError, match=r"is effects.direct_effects on ioi, not .* of pronoun"):
        mechanism.of(Case(claim, there.cell), test, there)


def test_a_claim_that_does_not_apply_has_no_mechanism_to_search(
    folder: Path, model: Callable[[Planted], None]
) -> None:
    source = replace(lapsing_source(None), name="ablated", make=ablated)
    with pytest.raises(NotApplicable, match="no mechanism to search here: whether ablated does"):
        decided(COPYING, source)
    model(source)
    done = CliRunner().invoke(cli.app, ["falsify", COPYING, "--model", "planted"])
    assert done.exit_code == 4
    assert "has no mechanism to search here" in done.output
    assert "--search behaviour looks for a prompt of ioi that the model gets wrong" in done.output


def ablated() -> Any:
    stream = lapsing_source(None).make()
    size = stream.width // stream.heads
    written = stream.model.transformer.h[MOVER[0]].attn.c_proj.weight
    written.data[MOVER[1] * size : (MOVER[1] + 1) * size] = 0.0
    return stream


def test_a_budget_that_is_too_small_for_a_single_prompt_is_refused(
    folder: Path, model: Callable[[Planted], None]
) -> None:
    model(lapsing_source(None))
    with pytest.raises(UsageError, match=r"a prompt takes about .* and --budget is 1"):
        falsify(COPYING, folder, budget=1)


# ---------------------------------------------------------------- which claims have one


def test_claims_that_name_no_mechanism_of_single_prompts_are_refused_with_those_that_do() -> None:
    with pytest.raises(UsageError, match="about the behaviour on arithmetic itself; those of") as e:
        kind_of("nikankin2025.accuracy", tasks.find("arithmetic"), "mechanism")
    assert COPYING in str(e.value)
    assert MATTER in str(e.value)
    with pytest.raises(UsageError, match="it is over training, and a prompt"):
        kind_of("tigges2024.name-mover-onset", tasks.find("ioi"), "mechanism")
    with pytest.raises(UsageError, match=r"arithmetic.effects is made on all prompts at once"):
        kind_of("nikankin2025.mlps-over-heads", tasks.find("arithmetic"), "mechanism")
    with pytest.raises(UsageError, match="one of behaviour, mechanism, got 'rule'"):
        kind_of(COPYING, tasks.find("ioi"), "rule")


def test_a_claim_is_searched_for_its_mechanism_where_it_has_one_and_else_for_its_behaviour() -> (
    None
):
    assert kind_of(COPYING, tasks.find("ioi"), None) == "mechanism"
    assert kind_of(COPYING, tasks.find("ioi"), "behaviour") == "behaviour"
    for claim in shipped.claims():
        if claim.over != "cell" or claim.paper == "sanity":
            assert without_mechanism(claim) is not None


# ---------------------------------------------------------------- in words


def test_the_lines_of_a_mechanism_have_the_value_against_its_margin_and_the_command() -> None:
    claimed = Claimed("effects.direct_effect of head 2.5", "logits", 0.0, ">", 2.5, "holds")
    asked = counterexample.Asked(
        "mine.claim", "plain", "nobody:final", "margin", 4, 200, claimed, "mechtests falsify it"
    )
    broken = Example({"name": "Mary"}, "Mary is", " here", " here", 1.25, -0.5, -0.5)
    close = Example({"name": "John"}, "John is", " here", " here", 2.0, 3.0, 3.0)
    found = Found(
        asked, broken, close, prompts=40, drawn=32, broken=2, smallest=True, passes=100, wrong=3
    )
    assert counterexample.render(found).splitlines() == [
        "mine.claim (plain) on nobody:final: a counterexample to its mechanism (40 prompts run, "
        "100 forward passes of 200, 3 of the prompts answered wrong, which do not count; 2 of 32 "
        "drawn break it; no simpler value tried in any one of its slots breaks it too), seed 4",
        "  breaks: Mary is",
        "          right ' here', first guess ' here', margin 1.25",
        "          effects.direct_effect of head 2.5: -0.5 logits, claimed above 0",
        "  passes: John is",
        "          right ' here', first guess ' here', margin 2",
        "          effects.direct_effect of head 2.5: 3 logits, claimed above 0",
        "  they differ in name (Mary / John)",
        "  one prompt does not refute a claim about many (its verdict here: holds): the claim is "
        "judged by pytest --mech-claims 'mine.claim'",
        "  run it again, before all others: mechtests falsify it",
    ]
    nothing = replace(found, counterexample=None, neighbour=None, exhausted=True)
    assert counterexample.render(nothing) == (
        "mine.claim (plain) on nobody:final: none in 40 prompts breaks its mechanism (100 forward "
        "passes of 200, 3 of the prompts answered wrong, which do not count, no further prompts "
        "were drawn), seed 4"
    )


def test_where_the_model_is_wrong_neither_side_of_a_margin_breaks_or_passes() -> None:
    wrong = Example({}, "", "", "", -1.0, 3.0, 3.0)
    for beyond_margin in (3.0, -3.0):
        each = replace(wrong, beyond=beyond_margin)
        assert not each.breaks
        assert not each.passes
    right = replace(wrong, margin=1.0)
    assert right.passes
    assert replace(right, beyond=0.0).breaks
    assert replace(right, value=None, beyond=None).passes
