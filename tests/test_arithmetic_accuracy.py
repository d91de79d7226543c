"""Floors, accuracies, the gate of each operator, and what is measured of the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mechtests import engine, judging, plan
from mechtests.arithmetic import accuracy, gates
from mechtests.arithmetic.accuracy import Accuracy
from mechtests.arithmetic.answers import answers
from mechtests.arithmetic.floors import Floors, floors, of_operator
from mechtests.case import Case
from mechtests.checkpoints import Series
from mechtests.claim import Claim
from mechtests.measurement import Measurement, Sample
from mechtests.metrics.metric import Metric, Value
from mechtests.reporting import samples
from mechtests.rules import GateState
from mechtests.series import Moment
from mechtests.settings import Settings
from mechtests.store import Store
from mechtests.tasks.arithmetic import Legal, arithmetic, legal
from mechtests.verdict import Outcome
from tests.fake_source import FakeSource
from tests.numerals import Numerals, able, answered, problems

CENSUS = arithmetic.sizes["standard"]

# ---------------------------------------------------------------- floors


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=30
    )
)
def test_a_floor_is_the_best_of_all_predictors_of_its_kind(
    rows: list[tuple[int, int, int]],
) -> None:
    first, second, result = (np.array(column) for column in zip(*rows, strict=True))
    found = floors(Legal(first, second, result))

    def best(seen: Sequence[int]) -> float:
        kinds = sorted(set(seen))
        tables = (
            dict(zip(kinds, said, strict=True)) for said in product(range(5), repeat=len(kinds))
        )
        return max(
            sum(table[s] == r for s, r in zip(seen, result.tolist(), strict=True)) / len(rows)
            for table in tables
        )

    assert found.constant == pytest.approx(best([0] * len(rows)))
    assert found.first == pytest.approx(best(first.tolist()))
    assert found.second == pytest.approx(best(second.tolist()))
    assert found.best == max(found.first, found.second) >= found.constant


@pytest.mark.parametrize(
    ("largest", "constant"),
    [
        (999, (0.003, 0.007, 0.104, 0.498)),
        (530, (0.003, 0.007, 0.169, 0.498)),
        (520, (0.003, 0.007, 0.171, 0.498)),
    ],
)
def test_floors_are_those_that_are_known_of_the_papers_problems(
    largest: int, constant: tuple[float, ...]
) -> None:
    found = [of_operator(operator, largest) for operator in range(4)]
    assert [round(each.constant, 3) for each in found] == list(constant)
    assert [round(found[3].first, 3), round(found[3].second, 3)] == [0.583, 0.5]
    for each in found[:3]:  # an operand alone says no more than a constant
        assert each.best == pytest.approx(each.constant)
    counts = Counter(legal(3, largest).result.tolist())
    assert counts[0] / len(legal(3, largest)) == found[3].constant


def test_without_zero_answers_division_has_another_floor() -> None:
    every = legal(3, 999)
    rest = Counter(every.result[every.result != 0].tolist())
    found = of_operator(3, 999, zero=False)
    assert found.constant == pytest.approx(rest[1] / sum(rest.values()))


def test_floors_of_no_problem_are_refused() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    with pytest.raises(ValueError, match="got none"):
        floors(Legal(nothing, nothing, nothing))


# ---------------------------------------------------------------- accuracies


def test_a_census_is_compared_exactly_and_a_sample_by_clopper_pearson() -> None:
    for n, census in ((CENSUS, True), (8_000, False)):
        found = accuracy.of(able(problems(n=n), (0.5, 0.5, 0.5, 0.5)), 0)
        assert found.census == census
        verdict = found.above(0.47)
        assert (verdict.interval is None) == census
        assert verdict.outcome is Outcome.HOLDS
    small = accuracy.of(able(problems(n=8_000), (0.5,) * 4), 2)
    assert small.census  # multiplication has so few problems that a sample has them all


def test_an_accuracy_is_that_of_its_operators_problems_in_both_halves() -> None:
    prompts = problems()
    found = able(prompts, (0.9, 0.1, 0.5, 0.3))
    for operator in range(4):
        rows = prompts.template == operator
        each = accuracy.of(found, operator)
        assert each.correct.mean == pytest.approx(found["correct"][rows].mean())
        nonzero = rows & (prompts.tokens["result"] != 0)
        without = accuracy.of(found, operator, zero=False)
        assert without.correct.mean == pytest.approx(found["correct"][nonzero].mean())
        assert without.legal == (legal(operator, 198).result != 0).sum()


def test_a_predictor_that_sees_one_operand_scores_0_and_a_perfect_one_1() -> None:
    prompts = problems(n=CENSUS)
    assert prompts.right is not None
    result, first = prompts.tokens["result"], prompts.tokens["first"]
    best = {a: Counter(result[(prompts.template == 3) & (first == a)]) for a in np.unique(first)}
    said = np.array([best[a].most_common(1)[0][0] if best[a] else 0 for a in first.tolist()])
    token = prompts.right[:, 0] - result + said  # in this tokenizer numbers follow one another
    of_one = accuracy.of(answered(prompts, token), 3)
    assert of_one.score == pytest.approx(of_one.floors.first - of_one.floors.best, abs=1e-9)
    perfect = answered(prompts, prompts.right[:, 0])
    assert [accuracy.of(perfect, operator).score for operator in range(4)] == [1.0] * 4


def test_problems_that_were_never_trained_on_are_shown_where_others_were() -> None:
    n = 4_000
    tokens = Numerals(198, unseen_are=lambda kind, sign, a, b: int(a) % 2 == 0)
    known = arithmetic.generate(tokens, n, np.random.default_rng(0))
    assert known.right is not None
    unseen = known.tokens["unseen"] == 1
    found = answered(known, np.where(unseen, known.right[:, 0] + 1, known.right[:, 0]))
    each = accuracy.of(found, 0)
    assert each.unseen.mean == 0.0
    assert each.shown["held_out_problems"] == (unseen & (known.template == 0)).sum()
    assert "held_out" not in accuracy.of(able(problems(), (1.0,) * 4), 0).shown


def made(successes: int, n: int, floor: float = 0.0, legal_problems: int = 10**6) -> Accuracy:
    values = np.r_[np.ones(successes), np.zeros(n - successes)]
    nothing = Sample(np.zeros(0), np.zeros(0, dtype=np.int64))
    floors_ = Floors(floor, floor, floor)
    return Accuracy("x", Sample(values, np.arange(n)), legal_problems, floors_, nothing)


@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    floor=st.floats(0, 0.6),
    margin=st.floats(-0.5, 0.9),
)
@example(counts=[0], floor=0.0, margin=5e-324)  # as near as a float comes: no number of problems
@example(counts=[0, 1], floor=0.0, margin=5e-324)
@settings(max_examples=60, deadline=None)
def test_the_pooled_p_is_the_dual_of_its_interval(
    counts: list[int], floor: float, margin: float
) -> None:
    found = accuracy.pooled([made(count, 40, floor) for count in counts], margin, what="x")
    low, high = found.interval  # type: ignore[misc]
    assert (found.p <= 0.025) == (low > margin)  # type: ignore[operator]
    assert (found.p_refuted <= 0.025) == (high < margin)  # type: ignore[operator]
    assert low <= found.estimate <= high  # type: ignore[operator]
    expected = np.mean([(count / 40 - floor) / (1 - floor) for count in counts])
    assert found.estimate == pytest.approx(expected)


def test_what_is_pooled_keeps_a_number_for_each_problem_whose_mean_is_the_mean_score() -> None:
    parts = [made(13, 40, 0.1), made(30, 40, 0.3), made(2, 20)]
    apart = [
        replace(part, correct=replace(part.correct, cluster=part.correct.cluster + 100 * at))
        for at, part in enumerate(parts)
    ]
    found = accuracy.pooled(apart, 0.2, what="x")
    score = ((13 / 40 - 0.1) / 0.9 + (30 / 40 - 0.3) / 0.7 + 2 / 20) / 3
    assert found.estimate == pytest.approx(score)
    kept = {tuple(tree["at"]): samples.decoded(tree) for tree in samples.kept(found)}
    assert kept.keys() == {(), (0,), (1,), (2,)}
    assert kept[()].mean == pytest.approx(score, rel=1e-6)
    assert len(kept[()]) == 100


def test_one_operator_pooled_alone_has_its_own_interval() -> None:
    found = accuracy.pooled([made(13, 40)], 0.2, what="x")
    alone = made(13, 40).above(0.2)
    assert found.interval == pytest.approx(alone.interval)
    assert found.p == pytest.approx(alone.p, rel=1e-6)
    assert found.outcome is alone.outcome


@pytest.mark.parametrize("truth", [(0.3, 0.1, 0.25, 0.15), (0.99, 0.98, 1.0, 0.97), (0.02,) * 4])
def test_the_pooled_interval_covers_as_often_as_it_says(truth: tuple[float, ...]) -> None:
    draws = np.random.default_rng(3).binomial(60, truth, size=(600, 4))
    mean, missed = np.mean(truth), 0
    for row in draws.tolist():
        parts = [made(count, 60) for count in row]
        low, high = accuracy._ends(parts, float(np.mean(row) / 60), 0.025)
        missed += not low <= mean <= high
    assert missed <= 45  # 30 expected of 600 at 5%; 45 is 2.8 standard deviations more


def test_a_pooled_census_is_exact_and_names_operators_on_the_other_side() -> None:
    parts = [made(count, 100, legal_problems=100) for count in (90, 90, 5, 20)]
    parts[2] = replace(parts[2], what="multiplication")
    found = accuracy.pooled(parts, 0.2, what="x")
    assert found.outcome is Outcome.HOLDS
    assert (found.p, found.p_refuted, found.interval) == (0.0, 1.0, None)
    assert "on the other side: multiplication 0.05, x 0.2" in found.sentence
    assert [part.outcome.value for part in found.parts] == ["holds", "holds", "refuted", "refuted"]
    at = accuracy.pooled([made(20, 100, legal_problems=100)], 0.2, what="x")
    assert (at.outcome, at.p, at.p_refuted) == (Outcome.REFUTED, 1.0, 0.0)


def test_an_undecided_sample_says_how_many_problems_would_decide() -> None:
    found = accuracy.pooled([made(22, 100), made(24, 100)], 0.2, what="x")
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "problems would decide" in found.sentence.replace("prompts", "problems")
    assert found.needed is not None
    factor = found.needed / 200
    times = [made(round(count * factor), round(100 * factor)) for count in (22, 24)]
    decided = accuracy.pooled(times, 0.2, what="x")
    assert decided.p is not None
    assert 0.0005 < decided.p < 0.025  # with power 0.8 at 95%: about 2.8 standard errors
    few = accuracy.pooled([made(22, 100, legal_problems=150)], 0.2, what="x")
    assert few.needed == 150


# ---------------------------------------------------------------- the gate


def states(found: Measurement) -> list[str]:
    return [str(each.state) for each in gates.by_operator(found).values()]


def test_an_operator_passes_well_above_its_floor_and_fails_at_it() -> None:
    found = able(problems(n=CENSUS), (0.9, 0.0, 0.18, 0.6))  # floors .01 .02 .18 .505
    assert states(found) == ["passed", "failed", "failed", "passed"]
    gated = gates.gated_operators(found)
    assert gated.operators == (0, 3)
    assert list(gated.reasons) == [1, 2]
    assert gated.reasons[1].startswith("subtraction failed: accuracy of subtraction: 0 over 5050")
    assert gates.does().judged(found).state is GateState.PASSED


def test_a_census_must_be_above_the_floor_by_two_points() -> None:
    prompts = problems(n=CENSUS)
    assert prompts.right is not None
    rows = np.flatnonzero(prompts.template == 3)
    answer = prompts.right[:, 0]
    level = of_operator(3, 198).best + gates.MARGIN
    for count, state in (
        (int(level * len(rows)), "failed"),
        (int(level * len(rows)) + 1, "passed"),
    ):
        said = answer + 1
        said[rows[:count]] = answer[rows[:count]]
        assert states(answered(prompts, said))[3] == state


def test_too_few_right_problems_fail_a_census() -> None:
    prompts = problems(n=CENSUS)  # every product of 0 right, and few others
    assert prompts.right is not None
    nonzero = np.flatnonzero((prompts.template == 2) & (prompts.tokens["result"] != 0))
    for wrong, state in ((650, "failed"), (450, "passed")):  # of 886
        said = prompts.right[:, 0].copy()
        said[nonzero[:wrong]] += 1
        found = answered(prompts, said)
        assert accuracy.of(found, 2).correct.mean > of_operator(2, 198).best + gates.MARGIN
        gate = gates.by_operator(found)[2]
        assert gate.state == state, gate
        assert "100 and 150 needed" in gate.verdict.parts[1].sentence


def test_too_few_right_problems_of_a_sample_leave_it_open() -> None:
    found = able(problems(999), (0.1,) * 4)
    gate = gates.by_operator(found)[0]
    assert gate.state is GateState.UNDECIDED
    assert "this is a sample, all problems may have enough" in gate.sentence


def test_a_sample_about_its_level_is_undecided_and_the_whole_gate_too_where_none_passes() -> None:
    prompts = problems()
    level = of_operator(3, 198).best + gates.MARGIN
    found = able(prompts, (0.0, 0.0, 0.0, level))
    assert states(found) == ["failed", "failed", "failed", "undecided"]
    gate = gates.does().judged(found)
    assert gate.state is GateState.UNDECIDED
    assert "division undecided: accuracy of division" in gate.sentence
    assert "all 4,950 problems would decide" in gate.sentence
    assert gate.needed == 4950
    assert gates.does().decided(found).outcome is Outcome.INCONCLUSIVE
    one = gates.does().judged(able(prompts, (0.9, 0.0, 0.0, level)))
    assert one.state is GateState.PASSED
    assert gates.does().decided(able(prompts, (0.9, 0.0, 0.0, level))).outcome is (
        Outcome.INCONCLUSIVE
    )


def test_the_gate_fails_where_every_operator_does_and_that_is_decided() -> None:
    found = able(problems(), (0.0,) * 4)
    gate = gates.does().judged(found)
    assert gate.state is GateState.FAILED
    assert gates.gated_operators(found).operators == ()
    assert all(name in gate.sentence for name in ("addition failed", "division failed"))
    decided = gates.does().decided(found)
    assert decided.outcome is Outcome.HOLDS
    assert decided.sentence.startswith("arithmetic gates: addition failed: ")


def test_over_training_each_checkpoint_has_its_own_operators() -> None:
    prompts = problems()
    learned = [(0.0,) * 4, (0.9, 0.0, 0.0, 0.0), (0.9, 0.9, 0.9, 0.9)]
    series = Series(
        tuple(Moment(str(step), step, step) for step in range(3)),
        tuple(able(prompts, each) for each in learned),
    )
    found = [each.operators for each in gates.at_checkpoints(series)]
    assert found == [(), (0,), (0, 1, 2, 3)]


# ---------------------------------------------------------------- measured


@dataclass(frozen=True)
class NumberSource(FakeSource):
    """A tiny random model that reads numbers."""

    def tokenizer(self) -> Any:
        return Numerals(99, bos=0)


@dataclass(frozen=True)
class Few(Settings):
    def prompts_of(self, task: Any) -> int:
        return 2000


def _sum(batch: Any) -> dict[str, Any]:
    return {"total": np.array([float(batch.inputs["answers"]["correct"].sum())])}


BEHIND = Metric(
    name="test.behind",
    version=1,
    compute=_sum,
    values={"total": Value(("one",), "problems")},
    inputs=("answers",),
    whole=True,
)
ANSWERS = answers(arithmetic)


@cache
def store_of(folder: str) -> Store:
    return Store(folder)


def measured(tmp_path: Path, source: NumberSource, *claims: Claim) -> Any:
    store = store_of(str(tmp_path / "store"))
    cases = [Case(claim, source.cell) for claim in claims]
    return cases, engine.run(plan.build(cases, Few(), store), store)


def test_answers_are_those_of_the_plain_model(tmp_path: Path) -> None:
    source = NumberSource()
    claim = Claim(id="test.answers", says="", rule="", needs={"answers": ANSWERS})
    _, results = measured(tmp_path, source, claim)
    found = results.measurement(ANSWERS, source.cell)
    prompts = engine.prompts_of(arithmetic, source.tokenizer(), Few())
    assert prompts.right is not None
    with torch.no_grad():
        logits = source._model(0)(torch.from_numpy(prompts.clean)).logits[:, -1].double().numpy()
    logits -= logits.mean(1, keepdims=True)
    right = logits[np.arange(len(prompts)), prompts.right[:, 0]]
    np.testing.assert_array_equal(found["predicted"], logits.argmax(1))
    np.testing.assert_array_equal(found["correct"], logits.argmax(1) == prompts.right[:, 0])
    np.testing.assert_allclose(found["answer_logit"], right, atol=1e-4)
    np.testing.assert_allclose(found["normalized_logit"], right / logits.max(1), atol=1e-4)
    for name in ("operator", "first", "second", "result", "largest", "unseen"):
        np.testing.assert_array_equal(found[name], prompts.tokens[name])
    assert all(found[name].shape == (2000,) for name in answers.values)


def test_a_gate_of_arithmetic_that_is_shut_hides_what_is_behind_it(tmp_path: Path) -> None:
    source = NumberSource()  # a random model does no arithmetic
    behind = BEHIND(arithmetic, inputs={"answers": ANSWERS})
    claim = Claim(
        id="test.gated",
        says="",
        rule="",
        task="arithmetic",
        gate=gates.does(),
        needs={"behind": behind},
    )
    (case,), results = measured(tmp_path, source, claim)
    assert results.store.has(results.key(ANSWERS, source.cell))
    assert not results.store.has(results.key(behind, source.cell))
    verdict = judging.prepare(case, results)
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert "does not do the task arithmetic: addition failed: accuracy" in verdict.sentence
    again = plan.build([case], Few(), results.store)
    assert again.missing == ()
    _, open_ = measured(tmp_path, source, replace(claim, gate=None))
    assert open_.measurement(behind, source.cell)["total"].shape == (1,)


def test_the_floor_does_not_change_with_what_is_sampled() -> None:
    levels = [accuracy.of(able(problems(n=n), (0.5,) * 4), 3).floors for n in (400, 8_000, CENSUS)]
    assert all(one == other for one, other in pairwise(levels))
