"""Conjunctions, controls, gates and families follow the common rules to the letter."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mechtests.errors import MeasurementError, UsageError
from mechtests.matched import matched_draws
from mechtests.measurement import Measurement, Sample
from mechtests.rules import (
    GateState,
    above,
    below,
    beside,
    every,
    family,
    gate,
    matched_random,
    value_control,
)
from mechtests.verdict import Control, Outcome, Verdict

HOLDS, REFUTED, INCONCLUSIVE = Outcome.HOLDS, Outcome.REFUTED, Outcome.INCONCLUSIVE
NOT_APPLICABLE = Outcome.NOT_APPLICABLE

PARTS = {
    HOLDS: Verdict(HOLDS, "a holds", p=0.01, p_refuted=0.99),
    REFUTED: Verdict(REFUTED, "b is refuted", p=0.999, p_refuted=0.001),
    INCONCLUSIVE: Verdict(INCONCLUSIVE, "c is open", p=0.3, p_refuted=0.7, needed=120),
    NOT_APPLICABLE: Verdict(NOT_APPLICABLE, "d does not apply"),
}


def sample(values, each=1):
    values = np.asarray(values, dtype=np.float64)
    return Sample(values, np.arange(len(values)) // each)


def allowed(level, runs):
    """What a decider with this level exceeds in one of a hundred series of runs."""
    return stats.binom.ppf(0.99, runs, level)


@pytest.mark.parametrize("kinds", product(PARTS, repeat=3))
def test_a_conjunction_holds_with_all_and_is_refuted_by_one(kinds):
    verdict = every(*(PARTS[kind] for kind in kinds), what="all")
    if REFUTED in kinds:
        assert verdict.outcome is REFUTED
        assert "b is refuted" in verdict.sentence
        assert "a holds" not in verdict.sentence
    elif set(kinds) == {HOLDS}:
        assert verdict.outcome is HOLDS
        assert verdict.p == 0.01
    else:
        assert verdict.outcome is INCONCLUSIVE
        assert ("c is open" in verdict.sentence) == (INCONCLUSIVE in kinds)
        assert ("d does not apply" in verdict.sentence) == (NOT_APPLICABLE in kinds)
    assert len(verdict.parts) == 3


def test_a_conjunction_of_many_parts_speaks_of_the_first_few():
    sentence = every(*[PARTS[HOLDS]] * 12, what="all").sentence
    assert sentence == "all: holds in 12 of 12 parts: a holds; a holds; a holds; and 9 more"


def test_the_p_of_a_conjunction_is_its_largest():
    one, two = PARTS[HOLDS], replace(PARTS[HOLDS], p=0.02)
    assert every(one, two, what="x").p == 0.02
    assert every(one, replace(two, p=None), what="x").p is None


def test_a_conjunction_names_what_is_open_and_how_many_prompts_would_decide():
    slow = replace(PARTS[INCONCLUSIVE], sentence="e is open", needed=900)
    verdict = every(PARTS[HOLDS], PARTS[INCONCLUSIVE], slow, what="both")
    assert verdict.sentence == "both: undecided in 2 of 3 parts: c is open; e is open"
    assert verdict.needed == 900
    never = replace(slow, needed=None)
    assert every(PARTS[INCONCLUSIVE], never, what="both").needed is None


@pytest.mark.parametrize(
    ("ps", "refuted"),
    [
        ([0.02], True),
        ([0.02, 0.02], False),
        ([0.012, 0.02], True),
        ([0.012, 0.012, 0.012], False),
        ([0.008, 0.9, 0.9], True),
    ],
)
def test_refuting_one_of_many_parts_takes_holm(ps, refuted):
    parts = [
        Verdict(REFUTED if p <= 0.025 else HOLDS, f"part {p}", p=1 - p, p_refuted=p) for p in ps
    ]
    verdict = every(*parts, what="x")
    assert verdict.outcome is (REFUTED if refuted else INCONCLUSIVE)
    assert verdict.p_refuted == pytest.approx(min(1.0, len(ps) * min(ps)))
    assert ("refuted alone" in verdict.sentence) == (not refuted)


def test_holm_steps_down_so_that_a_second_part_is_named_too():
    parts = [Verdict(REFUTED, name, p=1.0, p_refuted=p) for name, p in (("a", 0.001), ("b", 0.02))]
    assert every(*parts, what="x").sentence == "x: refuted in 2 of 2 parts: a; b"


def test_a_part_refuted_for_certain_refutes_however_many_parts_there_are():
    nothing_found = Verdict(REFUTED, "no head has the role")
    assert every(*[PARTS[HOLDS]] * 40, nothing_found, what="x").outcome is REFUTED


def test_a_conjunction_of_conjunctions_is_one_of_their_parts():
    inner = every(PARTS[HOLDS], PARTS[REFUTED], what="inner")
    assert inner.p_refuted == 0.002
    assert every(PARTS[HOLDS], inner, what="outer").outcome is REFUTED


def test_a_conjunction_of_nothing_is_an_error():
    with pytest.raises(UsageError, match="at least one part"):
        every(what="x")


def test_where_every_part_is_at_its_margin_a_conjunction_errs_no_more_than_allowed():
    generator, runs = np.random.default_rng(0), 600
    seen = [
        every(
            *(above(sample(generator.normal(size=15)), 0.0, what="x") for _ in range(5)), what="x"
        ).outcome
        for _ in range(runs)
    ]
    assert seen.count(HOLDS) <= allowed(0.025, runs)
    assert 0 < seen.count(REFUTED) <= allowed(0.025, runs)


def test_where_only_one_part_fails_a_conjunction_holds_no_more_often_than_its_level():
    generator, runs = np.random.default_rng(1), 1000
    true = above(sample(np.linspace(0.9, 1.1, 20)), 0.0, what="true")
    seen = [
        every(true, above(sample(generator.normal(size=20)), 0.0, what="x"), what="x").outcome
        for _ in range(runs)
    ]
    assert 0 < seen.count(HOLDS) <= allowed(0.025, runs)


FAR = Control("far", "far: 0.1", reached=False, p=0.005, p_min=0.005)
NEAR = Control("near", "near: 0.9", reached=True, p=0.4, p_min=0.005)
ALONE = Control("alone", "alone: 0.1", reached=True, p=0.25, p_min=0.25)


def test_a_claim_holds_beside_a_control_that_does_not_reach_it():
    verdict = beside(PARTS[HOLDS], FAR)
    assert (verdict.outcome, verdict.controls, verdict.p) == (HOLDS, (FAR,), 0.01)
    assert verdict.sentence == "a holds; far: 0.1"


def test_a_claim_its_control_reaches_is_inconclusive():
    verdict = beside(PARTS[HOLDS], FAR, NEAR)
    assert (verdict.outcome, verdict.p) == (INCONCLUSIVE, 0.4)
    assert verdict.sentence == "a holds; the control reaches it: near: 0.9"
    assert verdict.controls == (FAR, NEAR)


def test_a_claim_whose_control_has_no_alternatives_is_inconclusive():
    verdict = beside(PARTS[HOLDS], ALONE)
    assert verdict.outcome is INCONCLUSIVE
    assert verdict.sentence == "a holds; no alternative sets: the smallest possible p is 0.25"


def test_nineteen_draws_are_alternatives_enough():
    control = matched_random(1.0, np.linspace(-1, 0.5, 19))
    assert (control.p_min, control.reached) == (0.05, False)
    assert beside(PARTS[HOLDS], control).outcome is HOLDS


def test_a_control_that_does_not_decide_is_shown_and_changes_nothing():
    verdict = beside(PARTS[HOLDS], replace(NEAR, decides=False))
    assert (verdict.outcome, verdict.p, len(verdict.controls)) == (HOLDS, 0.01, 1)


@pytest.mark.parametrize("outcome", [REFUTED, INCONCLUSIVE, NOT_APPLICABLE])
@pytest.mark.parametrize("control", [FAR, NEAR, ALONE])
def test_a_control_never_changes_a_claim_that_does_not_hold(outcome, control):
    verdict = beside(PARTS[outcome], control)
    assert verdict.outcome is outcome
    assert verdict.sentence == PARTS[outcome].sentence
    assert verdict.controls == (control,)


def test_a_reached_control_without_p_counts_as_one():
    assert beside(PARTS[HOLDS], replace(NEAR, p=None)).p == 1.0
    assert beside(PARTS[HOLDS], replace(FAR, p=None)).p == 0.01


def test_controls_added_one_after_another_are_all_kept():
    verdict = beside(beside(PARTS[HOLDS], FAR), NEAR)
    assert verdict.controls == (FAR, NEAR)
    assert verdict.outcome is INCONCLUSIVE


def test_a_matched_random_control_tells_its_numbers():
    control = matched_random(2.0, [0.5, 1.0, 1.5] * 33, stratum="third of depth")
    assert (control.p, control.p_min, control.reached) == (0.01, 0.01, False)
    assert control.sentence == (
        "matched random sets (same count by third of depth, 99 draws): 1 on average, "
        "at most 1.5, against 2, p = 0.01"
    )
    assert len(control.values) == 99


def test_a_matched_random_control_of_all_sets_is_exact():
    control = matched_random(3.0, [1.0, 2.0, 3.0], enumerated=True)
    assert control.p == control.p_min == pytest.approx(1 / 3)
    assert control.reached


def test_a_matched_random_control_without_draws_is_an_error():
    with pytest.raises(MeasurementError, match="at least one draw"):
        matched_random(1.0, [])


def test_a_value_control_is_reached_unless_its_verdict_holds():
    low, high = sample(np.linspace(0.0, 0.05, 20)), sample(np.linspace(0.3, 0.5, 20))
    passed = value_control("untrained cell", below(low, 0.1, what="score"))
    reached = value_control("untrained cell", below(high, 0.1, what="score"))
    open_one = value_control("untrained cell", below(low, 0.025, what="score"))
    assert (passed.reached, reached.reached, open_one.reached) == (False, True, True)
    assert passed.sentence.startswith("untrained cell: score: 0.025 [")
    assert passed.values == pytest.approx((0.025,))
    assert passed.p < 0.025


def test_heads_that_do_nothing_hold_no_more_often_than_the_level_allows():
    """The whole decision of "ablating them matters more than ablating random heads"."""
    generator, runs, seen = np.random.default_rng(2), 400, []
    pool = {layer: range(6) for layer in range(4)}
    for _ in range(runs):
        effects = generator.normal(size=(30, 4, 6))
        observed = [(1, 2), (1, 4), (3, 0)]
        draws = matched_draws(observed, pool, 19, generator)
        chosen, drawn = (
            np.stack([sum(effects[:, *head] for head in one) for one in sets], axis=1)
            for sets in ([observed], draws.sets)
        )
        contrast = above(sample(chosen[:, 0] - drawn.mean(axis=1)), 0.0, what="drop")
        control = matched_random(chosen.mean(), drawn.mean(axis=0), stratum=draws.stratum)
        seen.append(beside(contrast, control).outcome)
    assert seen.count(HOLDS) <= allowed(0.025, runs)


def test_one_set_luckier_than_its_alternatives_is_not_enough():
    """Every head has an effect of its own: any set beats 0, so the control must decide."""
    generator, runs, seen = np.random.default_rng(3), 400, []
    pool = {layer: range(6) for layer in range(4)}
    for _ in range(runs):
        effects = generator.normal(size=(4, 6))
        observed = [(1, int(h)) for h in generator.choice(6, 2, replace=False)]
        observed.append((3, int(generator.integers(6))))
        draws = matched_draws(observed, pool, 19, generator)
        value, *drawn = (sum(effects[head] for head in one) for one in (observed, *draws.sets))
        prompts = sample(value - np.mean(drawn) + 0.05 * generator.normal(size=30))
        seen.append(beside(above(prompts, 0.0, what="drop"), matched_random(value, drawn)).outcome)
    assert 0 < seen.count(HOLDS) <= allowed(0.05, runs)
    assert seen.count(INCONCLUSIVE) > 0.3 * runs


def behaviour(correct, logit_difference=None, half=1):
    prompts = len(correct)
    if logit_difference is None:
        logit_difference = np.linspace(0.5, 1.5, prompts)
    return Measurement(
        name="behaviour.answers",
        values={"correct": np.asarray(correct), "logit_difference": np.asarray(logit_difference)},
        axes={"correct": ("prompt",), "logit_difference": ("prompt",)},
        units={"correct": "share", "logit_difference": "logits"},
        cluster=np.arange(prompts) // 2,
        template=np.zeros(prompts, dtype=int),
        half=np.full(prompts, half),
    )


LEVELS = {"correct": 0.60, "logit_difference": 0.0}


def share_correct(share, prompts=100):
    return np.repeat(np.arange(prompts // 2) % 10 < 10 * share, 2)


@pytest.mark.parametrize(
    ("share", "state"),
    [(1.0, "passed"), (0.9, "passed"), (0.6, "undecided"), (0.3, "failed"), (0.0, "failed")],
)
def test_the_gate_passes_fails_or_is_undecided_by_accuracy(share, state):
    result = gate(behaviour(share_correct(share)), LEVELS)
    assert result.state == state
    assert result.verdict.parts[0].estimate == pytest.approx(share)
    assert result.verdict.parts[0].sentence.startswith("accuracy on evaluation: ")
    assert len(result.verdict.parts) == 2


def test_a_right_answer_on_every_prompt_passes_the_gate():
    result = gate(behaviour([True] * 60), LEVELS)
    assert result.state is GateState.PASSED
    accuracy, _ = result.verdict.parts
    assert accuracy.interval == pytest.approx((0.025 ** (1 / 30), 1.0))


def test_the_gate_needs_every_level():
    wrong = behaviour(share_correct(0.9), np.linspace(-1.5, -0.5, 100))
    assert gate(wrong, LEVELS).state is GateState.FAILED
    unsure = behaviour(share_correct(0.9), np.linspace(-1.0, 1.02, 100))
    assert gate(unsure, LEVELS).state is GateState.UNDECIDED
    assert gate(unsure, {"correct": 0.60}).state is GateState.PASSED


def test_an_undecided_gate_says_how_many_prompts_would_decide():
    result = gate(behaviour(share_correct(0.7, 40)), {"correct": 0.60})
    assert result.state is GateState.UNDECIDED
    assert result.needed > 40
    assert result.sentence.startswith("accuracy on evaluation:")
    assert result.sentence.endswith("prompts would decide")


def test_the_gate_reads_the_half_it_is_given():
    found = behaviour([True] * 40 + [False] * 40)
    mixed = replace(found, half=np.repeat([0, 1], 40))
    assert gate(mixed, {"correct": 0.60}).state is GateState.FAILED
    assert gate(mixed, {"correct": 0.60}, "selection").state is GateState.PASSED


def test_a_gate_on_a_missing_value_or_without_prompts_is_an_error():
    with pytest.raises(MeasurementError, match="not 'rank'"):
        gate(behaviour([True] * 20), {"rank": 0.0})
    with pytest.raises(MeasurementError, match="at least one prompt"):
        gate(behaviour([True] * 20, half=0), LEVELS)


def test_guessing_passes_the_gate_no_more_often_than_its_level():
    generator, runs = np.random.default_rng(4), 500
    seen = [
        gate(
            behaviour(np.repeat(generator.random(30) < 0.6, 2), generator.normal(1, 1, 60)), LEVELS
        ).state
        for _ in range(runs)
    ]
    assert seen.count(GateState.PASSED) <= allowed(0.025, runs)
    assert seen.count(GateState.FAILED) <= allowed(0.025, runs)


@given(st.integers(0, 40), st.randoms(use_true_random=False))
def test_the_gate_does_not_depend_on_the_order_of_the_prompts(right, random):
    found = behaviour(np.arange(40) < right)
    order = np.arange(40)
    random.shuffle(order)
    shuffled = replace(
        found,
        values={name: values[order] for name, values in found.values.items()},
        cluster=found.cluster[order],
    )
    assert gate(found, LEVELS).state is gate(shuffled, LEVELS).state


def test_a_family_is_corrected_over_its_members():
    assert family([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])
    assert family([0.04]) == [0.04]
    assert family([]) == []


def test_a_member_without_p_counts_as_one():
    assert family([0.02, None]) == pytest.approx([0.04, 1.0])


def test_dependent_families_are_corrected_harder():
    ps = [0.01, 0.02, 0.5]
    assert family(ps, dependent=True) == pytest.approx(
        np.minimum(np.multiply(family(ps), 1 + 1 / 2 + 1 / 3), 1.0)
    )


def test_among_twenty_null_cells_a_family_keeps_false_discoveries_to_its_level():
    generator, runs = np.random.default_rng(5), 400
    uncorrected = corrected = 0
    for _ in range(runs):
        ps = generator.random(20).tolist()
        uncorrected += min(ps) <= 0.05
        corrected += min(family(ps)) <= 0.05
    assert uncorrected > 0.5 * runs
    assert corrected <= allowed(0.05, runs)
