"""The claim that the answer can be read at the last position, on what probes may have read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mechtests import engine, plan
from mechtests.arithmetic import probe_measures
from mechtests.arithmetic.probe_labels import PROMPTS_A_CLASS, TEST, parts
from mechtests.arithmetic.probe_measures import (
    CHOSEN,
    as_many,
    at_best,
    probes,
    shared,
    too_few,
    untrained_probes,
)
from mechtests.case import Case
from mechtests.measurement import Measurement
from mechtests.metrics.metric import Batch, Job, Metric
from mechtests.models.cell import Cell
from mechtests.models.network import Network
from mechtests.settings import Settings
from mechtests.store import Store
from mechtests.tasks.arithmetic import arithmetic
from mechtests.tasks.prompts import Prompts
from mechtests.verdict import Outcome, Verdict
from tests.numerals import answered, problems
from tests.planted_arithmetic import network, source
from tests.planted_arithmetic_problems import SUMS
from tests.shipped_claims import CLAIMS, TESTS, verdict_of

CLAIM = CLAIMS["nikankin2025.answer-at-last"]
LAYERS, COUNT = 8, 300
READS = (0.02, 0.02, 0.02, 0.02, 0.02, 0.9, 0.95, 0.95, 0.95)
"""Accuracy at "=" by depth where the answer is made in block 4 of 8."""


@dataclass
class Told:
    """What the claim reads, made up."""

    found: Measurement
    untrained: Measurement
    answers: Measurement = field(default_factory=lambda: ANSWERS)


PROMPTS = problems(n=8_000)
assert PROMPTS.right is not None
ANSWERS = answered(PROMPTS, PROMPTS.right[:, 0])


def of_metric(metric: Metric, values: Mapping[str, Any]) -> Measurement:
    assert set(values) == set(metric.values)
    return Measurement(
        name=metric.name,
        values={name: np.asarray(value) for name, value in values.items()},
        axes={name: value.axes for name, value in metric.values.items()},
        units={name: value.unit for name, value in metric.values.items()},
        cluster=PROMPTS.cluster,
        template=PROMPTS.template,
        half=PROMPTS.half,
    )


def made(
    reads: Sequence[float] = READS,
    *,
    operators: Sequence[int] = (0, 1, 2, 3),
    counts: Sequence[int] = (COUNT,) * 4,
    few: Sequence[int] = (),
    seed: int = 0,
    **chosen: float | Sequence[float],
) -> Measurement:
    """Probes that read so much at "=" by depth, and elsewhere by name, operator by operator."""
    draw = np.random.default_rng(seed)
    accuracies = {"last": max(reads), **dict.fromkeys(CHOSEN[1:], 0.02), **chosen}
    operator = np.concatenate([np.full(counts[op], op) for op in operators])
    prompts = [np.flatnonzero(PROMPTS.tokens["operator"] == op)[: counts[op]] for op in operators]
    hits = np.zeros((len(operator), len(reads), 4), bool)
    hits[:, :, 3] = draw.random((len(operator), 1)) < np.array(reads)  # nested, as depths are
    values = {
        "hits": hits,
        "validation": np.stack([hits[operator == op].mean(0) for op in operators]),
        "probed": np.array(operators),
        "operator": operator,
        "prompt": np.concatenate(prompts),
        "half": np.ones(len(operator), np.int64),
        "results": np.array([(op, result, 8) for op in few for result in range(30)]).reshape(-1, 3),
    }
    for name, each in accuracies.items():
        by = np.full(4, each) if np.isscalar(each) else np.array(each)
        values[name] = draw.random(len(operator)) < by[operator]
    return of_metric(probes, values)


def judged(found: Measurement, untrained: Measurement | None = None, **told: Any) -> Verdict:
    verdicts: list[Verdict] = []

    class _JudgedError(Exception):
        pass

    def judge(verdict: Verdict) -> None:
        verdicts.append(verdict)
        raise _JudgedError

    other = made((0.02,) * len(READS), seed=9) if untrained is None else untrained
    with pytest.raises(_JudgedError):
        TESTS[CLAIM.id](measured=Told(found, other, **told), judge=judge)
    return verdicts[0]


# ---------------------------------------------------------------- the rule, part by part

HOLDS, REFUTED, OPEN = Outcome.HOLDS, Outcome.REFUTED, Outcome.INCONCLUSIVE


def at(*depths: int, low: float = 0.02, high: float = 0.95) -> tuple[float, ...]:
    """So much at some depths and above the last of them, and little elsewhere."""
    return tuple(high if d in depths or d > depths[-1] else low for d in range(LAYERS + 1))


def step(depth: int, value: float) -> tuple[float, ...]:
    """Little before a depth, so much at it, and 0.95 behind it."""
    return tuple(0.02 if d < depth else value if d == depth else 0.95 for d in range(LAYERS + 1))


@pytest.mark.parametrize(
    ("reads", "chosen", "outcome"),
    [
        (READS, {}, HOLDS),
        # above the commonest result by 0.2
        (READS, {"constant": 0.9}, REFUTED),
        (READS, {"constant": 0.75}, OPEN),
        (READS, {"constant": 0.5}, HOLDS),
        (READS, {"last": 0.1}, REFUTED),
        # above operand 2 by 0.2
        (READS, {"second": 0.9}, REFUTED),
        (READS, {"second": 0.75}, OPEN),
        (READS, {"second": 0.6}, HOLDS),
        # not before a quarter of depth
        (at(0), {}, REFUTED),
        (at(1), {}, REFUTED),
        (at(2), {}, HOLDS),
        (step(1, 0.485), {}, OPEN),
        (step(1, 0.3), {}, HOLDS),
        # by three quarters
        (at(6), {}, HOLDS),
        (at(7), {}, REFUTED),
        (at(8), {}, REFUTED),
        (step(6, 0.485), {}, OPEN),
        (step(6, 0.3), {}, REFUTED),
        # controls
        (READS, {"shuffled": 0.9}, OPEN),
        (READS, {"operands": 0.9}, OPEN),
        (READS, {"operands": 0.7}, HOLDS),
        (READS, {"shrunk": 1.0}, HOLDS),
    ],
)
def test_each_part_of_the_rule_decides(
    reads: tuple[float, ...], chosen: dict[str, float], outcome: Outcome
) -> None:
    verdict = judged(made(reads, **chosen))
    assert verdict.outcome is outcome, verdict


@pytest.mark.parametrize(
    ("name", "chosen"),
    [("shuffled labels", {"shuffled": 0.9}), ("both operands' embeddings", {"operands": 0.9})],
)
def test_a_control_that_reads_as_much_is_named(name: str, chosen: dict[str, float]) -> None:
    verdict = judged(made(**chosen))
    assert f"the control reaches it: {name}" in verdict.sentence


def test_an_untrained_cell_that_reads_as_much_leaves_it_open() -> None:
    verdict = judged(made(), made(seed=9))
    assert verdict.outcome is OPEN
    assert "the control reaches it: the untrained cell" in verdict.sentence
    nothing = made(seed=9)
    nothing.values["prompt"][:] = -1
    verdict = judged(made(), nothing)
    assert verdict.outcome is OPEN
    assert "no problem in common" in verdict.sentence


def test_the_first_and_the_last_depth_of_the_middle_count_at_every_number_of_layers() -> None:
    for layers in (4, 5, 6, 7, 9, 12):
        quarter, three = -(-layers // 4), 3 * layers // 4
        for depth in range(layers + 1):
            reads = [0.95 if d >= depth else 0.02 for d in range(layers + 1)]
            found, untrained = made(reads), made((0.02,) * (layers + 1), seed=9)
            wanted = HOLDS if quarter <= depth <= three else REFUTED
            assert judged(found, untrained).outcome is wanted, (layers, depth)


def test_a_stream_that_says_the_same_whatever_is_asked_does_not_hold() -> None:
    found = made((0.02,) * (LAYERS + 1))
    found.values["hits"][:, :, 3] = found["constant"][:, None]
    found.values["last"][:] = found["constant"]
    assert judged(found).outcome is not HOLDS


def test_operators_weigh_the_same_and_the_one_on_the_other_side_is_named() -> None:
    found = made(counts=(1_000, 300, 100, 300), second=(0.02, 0.02, 0.02, 0.9))
    verdict = judged(found)
    assert verdict.outcome is HOLDS, verdict
    assert verdict.parts[0].prompts == 400
    assert "on the other side alone: division" in verdict.sentence
    assert verdict.shown["by_operator"]["division"].startswith("refuted")
    mine = as_many(found, [0, 2])
    assert np.bincount(found["operator"][mine]).tolist() == [100, 0, 100]


def test_an_operator_with_too_few_problems_is_left_out_and_all_of_them_leave_it_open() -> None:
    verdict = judged(made(operators=(0, 1, 3), few=(2,)))
    assert verdict.outcome is HOLDS
    assert "left out: multiplication" in verdict.sentence
    why = verdict.shown["left_out"]["multiplication"]
    assert why.startswith("multiplication: 0 of 30 results have 10 training problems")
    found = made(operators=(0,), few=(0, 1, 2, 3))
    none = replace(
        found,
        values={**found.values, "probed": np.zeros(0, np.int64), "operator": np.zeros(0, np.int64)},
    )
    verdict = judged(none)
    assert verdict.outcome is OPEN
    assert "too few problems to fit a probe: addition" in verdict.sentence
    assert set(too_few(none, (0, 3))) == {0, 3}


def test_three_layers_have_no_middle_ones() -> None:
    assert judged(made((0.0, 0.9, 0.9, 0.9))).outcome is Outcome.NOT_APPLICABLE


def test_what_is_shown_has_the_accuracies_of_every_position_and_depth() -> None:
    shown = judged(made()).shown["accuracy"]["addition"]
    assert shown["="][-1] == pytest.approx(0.95, abs=0.05)
    assert shown["operand 2"] == [0.0] * (LAYERS + 1)
    assert set(CHOSEN) < set(shown)
    assert shown["test_problems"] == COUNT


# ---------------------------------------------------------------- what it reads of measurements


def test_the_best_depth_is_chosen_on_validation_and_read_on_test_operator_by_operator() -> None:
    found = made(operators=(0, 3))
    validation = np.zeros_like(found["validation"])
    validation[0, (3, 5), 3] = 0.5  # the first of equals
    validation[1, 7, 3], validation[1, 2, 3] = 0.9, 0.4
    found = replace(found, values={**found.values, "validation": validation})
    hits, division = found["hits"][:, :, 3], found["operator"] == 3
    wanted = np.where(division, hits[:, 7], hits[:, 3])
    np.testing.assert_array_equal(at_best(found, 3), wanted)
    wanted = np.where(division, hits[:, 2], hits[:, 0])
    np.testing.assert_array_equal(at_best(found, 3, upto=2), wanted)


def test_values_of_the_untrained_cell_are_those_of_the_same_problems() -> None:
    found, other = made(operators=(0, 1)), made(operators=(1, 2), seed=3)
    got = shared(found, other, np.arange(2 * COUNT, dtype=float))
    np.testing.assert_array_equal(np.isnan(got), found["operator"] == 0)
    np.testing.assert_array_equal(got[found["operator"] == 1], np.arange(COUNT))


# ---------------------------------------------------------------- what is measured


def prompts_of(n: int = 3_000) -> Prompts:
    return arithmetic.generate(SUMS, n, np.random.default_rng(1))


def measured(
    net: Network, prompts: Prompts, metric: Metric, answers: Measurement | None = None
) -> Measurement:
    batch = Batch(
        network=net,
        prompts=prompts,
        clean=None,  # type: ignore[arg-type]
        corrupted=None,  # type: ignore[arg-type]
        inputs={} if answers is None else {"answers": answers},
        params={},
        draws=0,
        rows=np.arange(len(prompts)),
        generator=lambda purpose: np.random.default_rng(list(purpose.encode())),
    )
    with torch.no_grad():
        found = of_metric(metric, metric.compute(batch))
    return replace(found, cluster=prompts.cluster, template=prompts.template, half=prompts.half)


def fresh() -> Network:
    """An untrained twin of a planted network."""
    loaded = source("bag").load(None, untrained_seed=7)
    return Network.from_model(loaded.model, name="untrained", check=False)


@pytest.fixture(scope="module")
def untrained() -> tuple[Prompts, Measurement, Measurement]:
    """Probes of an untrained network that is said to be wrong at one problem in seven, and all."""
    prompts, net = prompts_of(), fresh()
    assert prompts.right is not None
    said = prompts.right[:, 0].copy()
    said[::7] += 1
    answers = answered(prompts, said)
    return (
        prompts,
        measured(net, prompts, probes, answers),
        measured(net, prompts, untrained_probes),
    )


def test_what_is_tested_is_right_of_the_evaluation_half_and_has_trained_results(
    untrained: tuple[Prompts, Measurement, Measurement],
) -> None:
    prompts, found, _ = untrained
    rows, results = found["prompt"], prompts.tokens["result"]
    assert len(rows) == len(set(rows.tolist())) > 100
    assert not (rows % 7 == 0).any()
    assert (results[rows] != 0).all()
    assert set(found["half"].tolist()) == {1}
    np.testing.assert_array_equal(prompts.tokens["operator"][rows], found["operator"])
    trained = {(op, r): n for op, r, n in found["results"].tolist()}
    for op, row in zip(found["operator"].tolist(), rows.tolist(), strict=True):
        assert trained[op, int(results[row])] >= PROMPTS_A_CLASS


def test_training_problems_are_counted_by_result(
    untrained: tuple[Prompts, Measurement, Measurement],
) -> None:
    prompts, found, every = untrained
    for operator in range(4):
        mine = np.flatnonzero(prompts.tokens["operator"] == operator)
        trains = mine[parts(len(mine)) < TEST - 1]
        trains = trains[prompts.tokens["result"][trains] != 0]
        for each, rows in ((found, trains[trains % 7 != 0]), (every, trains)):
            table = each["results"][each["results"][:, 0] == operator]
            wanted, counts = np.unique(prompts.tokens["result"][rows], return_counts=True)
            np.testing.assert_array_equal(table[:, 1:], np.column_stack((wanted, counts)))
    assert set(found["probed"].tolist()) <= set(every["probed"].tolist())
    assert set(found["prompt"].tolist()) <= set(every["prompt"].tolist())


def test_a_network_without_the_mechanism_does_not_hold_though_it_is_said_to_be_right(
    untrained: tuple[Prompts, Measurement, Measurement],
) -> None:
    prompts, found, every = untrained
    assert prompts.right is not None
    told = answered(prompts, prompts.right[:, 0])
    verdict = judged(found, every, answers=told)
    assert verdict.outcome is REFUTED, verdict


def test_the_answer_of_a_planted_bag_is_read_at_the_last_position_in_the_middle(
    tmp_path: Path,
) -> None:
    made_of = source("bag")
    case = Case(CLAIM, Cell(made_of.name, None, made_of))
    store, settings = Store(tmp_path), Settings(prompt_counts={"arithmetic": 5_000})
    results = engine.run(plan.build([case], settings, store), store)
    assert results.errors == results.cell_errors == {}
    verdict = verdict_of(case, results)
    assert verdict.outcome is HOLDS, verdict
    shown = verdict.shown["accuracy"]["subtraction"]
    assert max(shown["="][:5]) < 0.1
    assert shown["="][5] > 0.9


def test_it_costs_what_its_fits_do_and_more_for_more_of_anything() -> None:
    shape = network("bag").shape
    few = probes.cost(Job(shape, 8_000, 5, 0, {}))
    many = probes.cost(Job(shape, 16_000, 5, 0, {}))
    wide = probes.cost(Job(replace(shape, width=2 * shape.width), 8_000, 5, 0, {}))
    assert few.forward == 8_000
    assert 2 * few.flops < many.flops < 4 * few.flops  # more problems, and more results
    assert few.flops < wide.flops
    most = 4 * probe_measures.MOST
    assert probes.cost(Job(shape, 10 * most, 5, 0, {})).forward == most
    assert probes.cost(Job(None, 8_000, 5, 0, {})).forward == 8_000
