"""The claims on failures, on values that are made up and on a bag whose neurons are planted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests.arithmetic import chosen, failure_measures
from mechtests.arithmetic.failure_measures import (
    BY_SIDE,
    CENSUS,
    FAILED,
    LOGITS,
    OPERATOR,
    PAIRS,
    contributed,
    contributed_here,
)
from mechtests.arithmetic.heuristics import Heuristic, encoded
from mechtests.arithmetic.neuron_measures import attribution
from mechtests.errors import NotApplicable
from mechtests.matched import STRATA
from mechtests.measurement import Measurement
from mechtests.metrics.metric import Batch, Metric
from mechtests.tasks.arithmetic import NAMES, arithmetic
from mechtests.tasks.prompts import Prompts
from mechtests.verdict import Outcome, Verdict
from tests.numerals import able, answered, problems
from tests.planted_arithmetic import MADE, bag
from tests.planted_arithmetic_problems import PLUS, SUMS
from tests.shipped_claims import TESTS, _JudgedError, _stop

WEAKER, NOT_FEWER = (f"nikankin2025.failures-{name}" for name in ("weaker", "not-fewer"))


class Told:
    """What a claim reads."""

    def __init__(self, answers: Measurement, found: Measurement) -> None:
        self.answers, self.found = answers, found


def judged(claim: str, answers: Measurement, found: Measurement) -> Verdict:
    with pytest.raises(_JudgedError) as told:
        TESTS[claim](measured=Told(answers, found), judge=_stop)
    return told.value.verdict


# ---------------------------------------------------------------- made up


@cache
def answers() -> Measurement:
    return able(problems(), (0.7, 0.7, 0.7, 0.7))


def drawn(seed: int, pairs: int, gap: float, control_gap: float = 0.0, fewer: float = 0.0) -> Any:
    """Pairs that share a level; the correct problem has more by a gap in standard deviations.

    Where there are fewer neurons on the failed problem, it is by a share of 100 of them.
    """
    draw = np.random.default_rng(seed)
    level = draw.normal(size=(4, pairs, 1))
    noise = draw.normal(size=(2, pairs, 2))
    more = np.array([1.0, 0.0])
    count = np.round(100 + 8 * level[2] + draw.normal(0, 2, (pairs, 2)) + 100 * fewer * (more - 1))
    return {
        "contribution": level[0] + noise[0] + gap * more,
        "control": level[1] + noise[1] + control_gap * more,
        "count": count.astype(np.int64),
        "controls": count.astype(np.int64),
        "attribution": np.full((pairs, 2), 2.0),
        "control_attribution": np.full((pairs, 2), 1.8),
    }


def made(
    values: Mapping[int, Any],
    *,
    stratum: str = "layer",
    few: Sequence[tuple[int, int]] = (),
    census: bool = True,
) -> Measurement:
    """A measurement of these values by operator, and of operators with too few failures."""
    told = answers()
    joined: dict[str, list[Any]] = {}
    facts = [(op, 500, pairs + 7, pairs, int(census)) for op, pairs in few]
    for operator, of in values.items():
        right = chosen.right(told, operator, "evaluation")
        wrong = chosen.failures(told, operator)
        pairs = len(of["count"])
        facts.append((operator, len(right), len(wrong), pairs, int(census)))
        rows = np.concatenate((right, wrong))
        failed = np.repeat((0, 1), (len(right), len(wrong)))
        parts = {
            **of,
            "prompt": np.stack((right[:pairs], wrong[:pairs]), 1),
            "operator": np.full(pairs, operator),
            "stratum": np.full(pairs, STRATA.index(stratum)),
            "problems": np.stack((rows, 0 * rows + operator, failed, 90 - 30 * failed), 1),
        }
        for name, part in parts.items():
            joined.setdefault(name, []).append(part)
    arrays = {name: np.concatenate(each) for name, each in joined.items()}
    return of_arrays({**arrays, "operators": np.array(sorted(facts))}, told)


def of_arrays(arrays: Mapping[str, Any], told: Measurement) -> Measurement:
    axes = {name: value.axes for name, value in contributed.values.items()}
    return Measurement(contributed.name, arrays, axes, {}, told.cluster, told.template, told.half)


def test_planted_weaker_neurons_hold_and_the_stratum_is_said() -> None:
    found = made({0: drawn(0, 150, 2.0)}, stratum="any layer", few=[(2, 12)])
    verdict = judged(WEAKER, answers(), found)
    assert verdict.outcome is Outcome.HOLDS, verdict
    assert "without a heuristic, by any layer" in verdict.sentence
    assert "over 150 pairs" in verdict.sentence
    assert "left out: multiplication" in verdict.sentence
    assert verdict.shown["left_out"] == {
        "multiplication": "multiplication fails at 19, in 12 pairs"
    }
    assert verdict.shown["contribution"]["correct"] > verdict.shown["contribution"]["incorrect"] + 1


@pytest.mark.parametrize(("gap", "outcome"), [(0.0, Outcome.REFUTED), (-1.0, Outcome.REFUTED)])
def test_neurons_that_add_as_much_or_more_refute_it(gap: float, outcome: Outcome) -> None:
    assert judged(WEAKER, answers(), made({0: drawn(0, 150, gap)})).outcome is outcome


def test_a_control_that_is_as_much_weaker_stops_it() -> None:
    verdict = judged(WEAKER, answers(), made({0: drawn(0, 150, 2.0, control_gap=2.0)}))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "the control reaches it" in verdict.sentence


@pytest.mark.parametrize("lacks", ["number", "attribution"])
def test_controls_that_cannot_be_had_stop_it(lacks: str) -> None:
    values = drawn(0, 150, 2.0)
    if lacks == "number":
        values["controls"] = values["controls"] - (np.arange(150) < 40)[:, None]
    else:
        values["control_attribution"] = values["control_attribution"] / 2
    verdict = judged(WEAKER, answers(), made({0: values}, stratum="any layer"))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "no alternative sets by any layer" in verdict.sentence
    refuted = judged(WEAKER, answers(), made({0: {**values, "contribution": values["control"]}}))
    assert refuted.outcome is Outcome.REFUTED


@pytest.mark.parametrize(
    ("fewer", "outcome"),
    [(0.0, Outcome.HOLDS), (-0.1, Outcome.HOLDS), (0.1, Outcome.REFUTED), (0.05, None)],
)
def test_counts_that_drop_refute_that_they_do_not(fewer: float, outcome: Outcome | None) -> None:
    found = made({0: drawn(0, 150, 2.0, fewer=fewer)})
    verdict = judged(NOT_FEWER, answers(), found)
    assert verdict.outcome is (outcome or Outcome.INCONCLUSIVE), verdict
    assert judged(WEAKER, answers(), found).outcome is Outcome.HOLDS  # the one is not the other


def test_what_is_not_matched_is_shown_and_decides_nothing() -> None:
    verdict = judged(NOT_FEWER, answers(), made({0: drawn(0, 150, 0.0), 1: drawn(1, 150, 0.0)}))
    [control] = verdict.controls
    assert verdict.outcome is Outcome.HOLDS
    assert control.values == (-30.0,)
    assert not control.decides


def test_operators_weigh_the_same_and_one_on_the_other_side_is_named() -> None:
    values = {0: drawn(0, 100, 9.0), 1: drawn(1, 120, 9.0), 3: drawn(2, 150, -9.0)}
    verdict = judged(WEAKER, answers(), made({0: values[0], 3: values[3]}))
    assert verdict.estimate == pytest.approx(0.5)
    assert verdict.prompts == 200
    three = judged(WEAKER, answers(), made(values))
    assert three.estimate == pytest.approx(2 / 3)
    assert three.prompts == 300
    alone = three.shown["by_operator"]
    assert alone["addition"].startswith("holds")
    assert "over 150 pairs" in alone["division"]
    held = judged(WEAKER, answers(), made({0: values[0], 1: values[1], 3: drawn(2, 150, 0.0)}))
    assert held.outcome is Outcome.HOLDS
    assert "on the other side alone: division" in held.sentence


@pytest.mark.parametrize("claim", [WEAKER, NOT_FEWER])
def test_a_sample_with_too_few_failures_says_how_many_problems_would_do(claim: str) -> None:
    few = [(0, 0), (1, 80), (2, 3), (3, 50)]
    arrays = {name: np.zeros((0, 2)) for name in BY_SIDE}
    facts = np.array([(op, 500, pairs + 7, pairs, 0) for op, pairs in few])
    verdict = judged(claim, answers(), of_arrays({**arrays, "operators": facts}, answers()))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "subtraction fails at 87, in 80 pairs, of a sample" in verdict.sentence
    assert verdict.needed == 10_000
    facts[1:, PAIRS] = 7  # 114,286 problems, and there are 21,085
    never = judged(claim, answers(), of_arrays({**arrays, "operators": facts}, answers()))
    assert never.needed is None


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 50.0), st.sampled_from([WEAKER, NOT_FEWER]))
def test_neither_order_nor_unit_matters_and_sides_are_mirrored(
    seed: int, factor: float, claim: str
) -> None:
    values = drawn(seed, 120, 1.0, 0.2, 0.03)
    first = judged(claim, answers(), made({0: values}))
    order = np.random.default_rng(seed).permutation(120)
    scaled = {name: v[order] * (factor if name in LOGITS else 1) for name, v in values.items()}
    second = judged(claim, answers(), made({0: scaled}))
    assert second.outcome is first.outcome
    assert second.estimate == pytest.approx(first.estimate)
    assert second.p == pytest.approx(first.p)
    if claim == WEAKER:
        turned = judged(claim, answers(), made({0: {n: v[:, ::-1] for n, v in values.items()}}))
        assert turned.estimate == pytest.approx(1 - (first.estimate or 0.0))


# ---------------------------------------------------------------- planted


COUNT = 12_000
LATE = range(4, 8)


@pytest.fixture(autouse=True)
def as_many_more_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not eight times as many: beyond the planted neurons the bag's have nothing to say."""
    monkeypatch.setattr(failure_measures, "LOOKED_AT", 2)


@cache
def prompts() -> Prompts:
    return arithmetic.generate(SUMS, COUNT, np.random.default_rng(0))


def measure(metric: Metric, given: Prompts, inputs: Mapping[str, Measurement]) -> Measurement:
    """A metric that makes its own passes, without the engine."""
    none: Any = None
    made = Batch(
        network=bag(),
        prompts=given,
        clean=none,
        corrupted=none,
        inputs=inputs,
        params={},
        draws=19,
        rows=np.arange(len(given)),
        generator=lambda purpose: np.random.default_rng(list(purpose.encode())),
    )
    values = metric.compute(made)
    assert set(values) == set(metric.values)
    axes = {name: value.axes for name, value in metric.values.items()}
    return Measurement(metric.name, values, axes, {}, given.cluster, given.template, given.half)


@cache
def said() -> np.ndarray:
    """What the bag answers to sums, token ids; other problems count as answered wrong."""
    given = prompts()
    assert given.right is not None
    tokens = given.right[:, 0] + 1
    mine = np.flatnonzero(given.template == PLUS)
    with torch.no_grad():
        for rows in np.array_split(mine, 10):
            run = bag().run(torch.from_numpy(given.clean[rows]))
            tokens[rows] = bag().logits(run.final).argmax(1).numpy()
    return tokens


@cache
def ranked() -> Measurement:
    given = {"answers": answered(prompts(), said())}
    return measure(attribution, prompts(), given)


Kind = str


def named(*kinds: Kind) -> tuple[list[Heuristic], list[tuple[int, int, int, int]]]:
    """Heuristics of planted neurons of the late layers, as triples; a kind may be halved."""
    table: dict[Heuristic, int] = {}
    rows = []
    for at, each in enumerate(MADE["bag"]().neurons):
        half = "odd" if at % 2 else "even"
        if each.layer not in LATE or not {each.kind, f"{half} {each.kind}"} & set(kinds):
            continue
        if each.operator not in (None, PLUS):
            continue
        low, high = each.numbers
        numbers = (max(low, 0), high) if each.kind == "range" else (low % high, high)
        place = table.setdefault(Heuristic(each.variable, each.kind, numbers), len(table))
        rows.append((PLUS, each.layer, each.neuron, place))
    return list(table), rows


def told_of(*kinds: Kind) -> Measurement:
    """``arithmetic.heuristics`` of a matcher that sees only some kinds."""
    heuristics, rows = named(*kinds)
    values = {
        "heuristics": np.array([encoded(each) for each in heuristics]),
        "triples": np.array(rows),
        "scores": np.ones(len(rows)),
    }
    given = prompts()
    axes = dict.fromkeys(values, ("row", "fact"))
    return Measurement("told", values, axes, {}, given.cluster, given.template, given.half)


@cache
def really_failed(*kinds: Kind) -> tuple[Measurement, Measurement]:
    """What the claims read where a matcher sees some kinds, and the bag fails as it does."""
    return failed(*kinds, tokens=said())


def failed(*kinds: Kind, tokens: np.ndarray) -> tuple[Measurement, Measurement]:
    """What the claims read where a matcher sees some kinds, and the bag is said to fail so."""
    given = {
        "answers": answered(prompts(), tokens),
        "attribution": ranked(),
        "heuristics": told_of(*kinds),
    }
    return given["answers"], measure(contributed, prompts(), given)


def test_the_bag_fails_by_its_windows_and_residues_are_the_control() -> None:
    """It fails where windows of the result end; residues of failed problems are as strong."""
    told, found = really_failed("range")
    verdict = judged(WEAKER, told, found)
    assert verdict.outcome is Outcome.HOLDS, verdict
    assert (verdict.estimate or 0.0) > 0.85
    counts = judged(NOT_FEWER, told, found)
    assert counts.outcome is not Outcome.REFUTED, counts


def test_residues_of_failed_problems_are_as_strong() -> None:
    verdict = judged(WEAKER, *really_failed("modulo"))
    assert verdict.outcome is Outcome.REFUTED, verdict
    assert verdict.estimate == pytest.approx(0.5, abs=0.15)


def test_a_bag_of_nothing_but_heuristics_leaves_no_control() -> None:
    verdict = judged(WEAKER, *really_failed("range", "modulo"))
    assert verdict.outcome is Outcome.INCONCLUSIVE, verdict
    assert "no alternative sets by any layer" in verdict.sentence


def at_random(share: float = 0.1) -> np.ndarray:
    """Answers of a model whose failures have nothing to do with the neurons."""
    given = prompts()
    assert given.right is not None
    wrong = np.random.default_rng(1).random(len(given)) < share
    tokens: np.ndarray = given.right[:, 0] + (wrong | (given.template != PLUS))
    return tokens


@pytest.mark.parametrize("kinds", [("range",), ("range", "modulo")])
def test_failures_at_random_refute_it_and_have_as_many_neurons(kinds: tuple[Kind, ...]) -> None:
    told, found = failed(*kinds, tokens=at_random())
    verdict = judged(WEAKER, told, found)
    assert verdict.outcome is Outcome.REFUTED, verdict
    assert judged(NOT_FEWER, told, found).outcome is Outcome.HOLDS


def test_failures_for_want_of_neurons_refute_that_there_are_no_fewer() -> None:
    """It is said to fail at the tenth of the problems with the fewest neurons at work."""
    kinds = ("even range", "even modulo")
    _, found = failed(*kinds, tokens=at_random())
    rows, _, _, count = found["problems"].T
    order = np.lexsort((np.random.default_rng(2).random(len(rows)), count))
    given = prompts()
    assert given.right is not None
    fewest = np.isin(np.arange(len(given)), rows[order[: len(rows) // 10]])
    tokens = given.right[:, 0] + (fewest | (given.template != PLUS))
    verdict = judged(NOT_FEWER, *failed(*kinds, tokens=tokens))
    assert verdict.outcome is Outcome.REFUTED, verdict


def test_every_pair_is_a_correct_and_a_failed_problem_of_the_evaluation_half() -> None:
    told, found = really_failed("range")
    correct, wrong = found["prompt"].T
    assert (told["correct"][correct] == 1).all()
    assert (told["correct"][wrong] == 0).all()
    for rows in (correct, wrong):
        assert (told.half[rows] == 1).all()
        assert (told["operator"][rows] == PLUS).all()
        assert (told["result"][rows] != 0).all()
        assert len(set(rows.tolist())) == len(rows)
    facts = found["operators"]
    assert facts[:, OPERATOR].tolist() == [PLUS]
    assert facts[0, FAILED] == len(chosen.failures(told, PLUS))
    assert facts[0, CENSUS] == 0
    problem = {int(row): count for row, _, _, count in found["problems"]}
    for side in (0, 1):
        wanted = [problem[int(row)] for row in found["prompt"][:, side]]
        assert found["count"][:, side].tolist() == wanted


def test_a_census_without_failures_is_not_applicable_and_says_how_many_there_were() -> None:
    given = problems(n=10**6)  # what is measured needs no network here
    assert given.right is not None
    answer = given.right[:, 0]
    five = np.flatnonzero((given.template == 1) & (given.half == 1) & (given.tokens["result"] > 2))
    inputs = {
        "answers": answered(given, answer + np.isin(np.arange(len(given)), five[:5])),
        "attribution": Measurement(
            "told",
            {"operators": np.arange(4)},
            {"operators": ("operator",)},
            {},
            given.cluster,
            given.template,
            given.half,
        ),
        "heuristics": told_of("range"),
    }
    with pytest.raises(NotApplicable) as refused:
        measure(contributed, given, inputs)
    sentence = str(refused.value)
    assert "subtraction fails at 5, in 5 pairs" in sentence
    assert all(f"{name} fails at" in sentence for name in NAMES)
    assert "of a sample" not in sentence


def test_the_need_starts_from_neurons_of_the_selection_half() -> None:
    names = [need.metric.name for need in contributed_here().everything()]
    assert names[-1] == "arithmetic.failures"
    assert {"arithmetic.answers", "arithmetic.attribution", "arithmetic.heuristics"} < set(names)
