"""Arithmetic over training: what is measured at each checkpoint, which are read, what is judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from mechtests import engine, plan
from mechtests.arithmetic import (
    bag_knockout_measures,
    heuristic_measures,
    learned,
    mutual_measures,
    neuron_measures,
    throughout,
)
from mechtests.arithmetic import bag_measures as measures
from mechtests.arithmetic.averages import averages
from mechtests.arithmetic.bag_measures import triples_of
from mechtests.arithmetic.faithfulness import Kept, run_circuits
from mechtests.arithmetic.gates import Gated
from mechtests.arithmetic.heuristics import decoded
from mechtests.arithmetic.learned import Learned
from mechtests.arithmetic.mutual import masks, mutual, neurons_of
from mechtests.arithmetic.problems import Problems
from mechtests.arithmetic.reading import operators_of
from mechtests.arithmetic.throughout import beats_random, works_throughout
from mechtests.case import Case
from mechtests.checkpoints import Series
from mechtests.claim import Claim
from mechtests.measurement import Measurement
from mechtests.models import sources
from mechtests.models.cell import Cell
from mechtests.models.network import Network
from mechtests.series import Moment
from mechtests.settings import Settings
from mechtests.store import Store
from mechtests.tasks.arithmetic import NAMES, arithmetic
from mechtests.verdict import Outcome
from tests.noise import World
from tests.noise_results import NoiseResults, case_of
from tests.shipped_claims import CLAIMS, verdict_of

SPROUT, PLACES = "sprout-400k", (5, 7, 9, 11, 13, 15)
"""Two checkpoints before anything else than division is learned, and the final one."""
ATTRIBUTION = neuron_measures.attribution(
    measures.SERIES, inputs={"answers": measures.answers_here()}
)
NEEDS = {
    "answers": measures.answers_here(),
    "bags": measures.bags_here(),
    "kept": mutual_measures.mutual_here(),
    "knocked": bag_knockout_measures.knockouts_here(),
}


def cells() -> tuple[Cell, ...]:
    source = sources.resolve(SPROUT)
    found = source.checkpoints(offline=True)
    return tuple(Cell(SPROUT, found[at], source) for at in PLACES)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Results of a sprout at some checkpoints, with knock-outs of up to 3 neurons a layer."""
    patch = pytest.MonkeyPatch()
    patch.setattr(bag_knockout_measures, "K", 3)
    store, every = Store(tmp_path_factory.mktemp("training")), cells()
    case = Case(Claim("t.x", "", "", over="training", needs=NEEDS), every[-1], every, SPROUT)
    results = engine.run(plan.build([case], Settings(), store, offline=True), store, offline=True)
    patch.undo()
    assert results.errors == results.cell_errors == {}
    return lambda name, at: results.measurement(NEEDS[name].of_series(every[-1]), every[at])


@pytest.fixture(scope="module")
def loaded() -> tuple[Network, Problems]:
    """The final network and the problems of the series."""
    cell = cells()[-1]
    found: Any = cell.source.load(cell.checkpoint, dtype="float32", device="cpu", offline=True)
    prompts = engine.prompts_of(measures.SERIES, found.tokenizer, Settings())
    return Network.from_model(found.model, name=cell.id), Problems.of(prompts)


# ---------------------------------------------------------------- what is measured


def test_a_neuron_matches_what_it_matches_in_the_measurement_of_one_cell(
    measured: Any, tmp_path: Any
) -> None:
    inputs = {"answers": measures.answers_here(), "attribution": ATTRIBUTION}
    need = heuristic_measures.heuristics(measures.SERIES, inputs=inputs)
    case, store = Case(Claim("t.x", "", "", needs={"x": need}), cells()[-1]), Store(tmp_path)
    whole = engine.run(plan.build([case], Settings(), store, offline=True), store, offline=True)
    slow, quick = whole.measurement(need, cells()[-1]), measured("bags", -1)

    def matches(found: Any, rows: Any) -> dict[tuple[int, ...], set[str]]:
        names = [decoded(row).name for row in found["heuristics"]]
        by_neuron: dict[tuple[int, ...], set[str]] = {}
        for *neuron, heuristic in rows:
            if neuron[0] != NAMES.index("division"):  # whose sets the neurons beside it propose
                by_neuron.setdefault(tuple(neuron), set()).add(names[heuristic])
        return by_neuron

    rows = [(*quick["neurons"][at], heuristic) for at, heuristic in quick["triples"]]
    ours, theirs = matches(quick, rows), matches(slow, slow["triples"].tolist())
    both = set(ours) & set(theirs)
    assert len(both) > 0.6 * len(ours)
    assert {each: ours[each] for each in both} == {each: theirs[each] for each in both}


def test_each_set_of_important_neurons_has_as_many_in_every_layer(measured: Any) -> None:
    found = measured("bags", -1)
    for operator in found["operators"]:
        mine = found["neurons"][:, 0] == operator
        for layer in (2, 3):
            rows = mine & (found["neurons"][:, 1] == layer)
            assert (found["top"][rows].sum(0) == 4).all()  # 1.5% of 288


def test_triples_are_those_of_the_set_and_operators_that_are_asked_for(measured: Any) -> None:
    found = measured("bags", -1)
    every = triples_of(found, range(4))
    by_operator = [triples_of(found, [operator]) for operator in range(4)]
    assert every == frozenset().union(*by_operator)
    assert len(every) == sum(map(len, by_operator))
    assert all(name.startswith("division: ") for name, _, _ in by_operator[3])
    changed = [triples_of(found, range(4), group) for group in range(10)]
    assert any(each != every for each in changed)


def test_the_final_model_shares_all_its_neurons_with_itself(measured: Any) -> None:
    found = measured("kept", -1)
    np.testing.assert_array_equal(found["all"], found["mutual"])
    np.testing.assert_allclose(found["random"], found["all"], atol=1e-5)
    assert (found["counts"][:, 1] == found["counts"][:, 2]).all()


def test_what_neurons_explain_is_what_circuits_with_all_means_keep(
    measured: Any, loaded: tuple[Network, Problems]
) -> None:
    network, problems = loaded
    found, operator = measured("kept", -1), 0
    mine = found["operator"] == operator
    now = triples_of(measured("bags", -1), [operator])
    whole = Kept.everything(network.shape)
    circuits = [
        whole.with_neurons(masks(each, (2, 3), network.shape.mlp_width))
        for each in (neurons_of(now), frozenset())
    ]
    slow = run_circuits(
        network, problems.select(found["prompt"][mine]), averages(network, problems), circuits
    ).normalised
    np.testing.assert_allclose(found["all"][mine], slow[:, 0], atol=1e-4)
    np.testing.assert_allclose(found["floor"][mine], slow[:, 1], atol=1e-4)


def test_shared_neurons_are_those_of_both_checkpoints_and_of_operators_gated_in_both(
    measured: Any,
) -> None:
    for at in range(len(PLACES) - 1):
        bags, found = measured("bags", at), measured("kept", at)
        assert found["counts"][:, 0].tolist() == bags["operators"].tolist()
        for operator, every, shared in found["counts"]:
            now, then = (triples_of(each, [operator]) for each in (bags, measured("bags", -1)))
            assert (every, shared) == (len(neurons_of(now)), len(mutual(now, then)))


def test_knocking_out_is_setting_to_zero_what_the_problems_heuristics_match(
    measured: Any, loaded: tuple[Network, Problems]
) -> None:
    network, problems = loaded
    bags, found = measured("bags", -1), measured("knocked", -1)
    rows = np.flatnonzero(found["operator"] == 0)[:25]
    for row in rows:
        problem = problems.select([int(found["prompt"][row])])
        zero = _chosen(bags, problem, most=3)
        edits = {("post", layer): _zeroing(sorted(some)) for layer, some in zero.items()}
        with torch.no_grad():
            run = network.run(torch.from_numpy(problem.tokens), edits=edits)
            said = int(network.logits(run.final)[0].argmax())
        assert found["heuristic"][row] == (said == problem.answer[0])
        assert found["short"][row] == any(len(zero.get(layer, ())) < 3 for layer in (2, 3))


def _chosen(bags: Any, problem: Problems, most: int) -> dict[int, list[int]]:
    """By layer the addition neurons whose heuristics hold, the highest score first."""
    scores: dict[tuple[int, int], float] = {}
    for (at, heuristic), score in zip(bags["triples"], bags["scores"], strict=True):
        operator, layer, neuron = bags["neurons"][at].tolist()
        holds = decoded(bags["heuristics"][heuristic]).holds(
            problem.first, problem.second, problem.result
        )[0]
        if operator == 0 and bags["top"][at, 0] and holds:
            scores[layer, neuron] = max(scores.get((layer, neuron), 0.0), float(score))
    found: dict[int, list[int]] = {}
    for layer, neuron in sorted(scores, key=lambda each: (-scores[each], each)):
        if len(found.setdefault(layer, [])) < most:
            found[layer].append(neuron)
    return found


def _zeroing(neurons: Sequence[int]) -> Any:
    def edit(value: torch.Tensor) -> torch.Tensor:
        changed = value.clone()
        changed[..., list(neurons)] = 0.0
        return changed

    return edit


def test_with_fewer_important_neurons_than_are_asked_for_none_are_knocked_out_and_it_is_undecided(
    tmp_path: Any,
) -> None:
    """As by ``knockout-beats-random``: 1.5% of 288 are 4 a layer, and 10 are asked for."""
    need, cell, store = NEEDS["knocked"], cells()[-1], Store(tmp_path)
    case = Case(Claim("t.x", "", "", needs={"x": need}), cell)
    results = engine.run(plan.build([case], Settings(), store, offline=True), store, offline=True)
    found = results.measurement(need, cell)
    assert found["short"].all()
    assert not found["done"].any()
    verdict = beats_random(found, operators_of(found), "the end")
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "100% of the prompts have fewer than 10 such neurons" in verdict.sentence
    series = dict.fromkeys(("a", "b", "c"), found)
    throughout_all = works_throughout(series, {at: [0] for at in series})
    assert throughout_all.outcome is Outcome.INCONCLUSIVE


def test_the_quick_profile_takes_fewer_problems_and_others_take_all() -> None:
    assert measures.SERIES.sizes["quick"] < arithmetic.sizes["quick"]
    for profile in ("standard", "full"):
        assert measures.SERIES.sizes[profile] == arithmetic.sizes[profile]


# ---------------------------------------------------------------- which checkpoints are read

OCTAVE = [2.0**at for at in range(12)]


def gated(monkeypatch: pytest.MonkeyPatch, *passes: str, tokens: Sequence[float] = ()) -> Learned:
    """What is learned where operators pass as written: ``"..xxx"``, one string an operator."""
    rows = list(zip(*passes, strict=True))
    found = tuple(
        Gated(
            tuple(op for op, mark in enumerate(row) if mark == "x"),
            {op: f"{NAMES[op]} failed" for op, mark in enumerate(row) if mark != "x"},
        )
        for row in rows
    )
    monkeypatch.setattr(learned, "at_checkpoints", lambda answers: found)
    known = list(tokens) or OCTAVE[: len(rows)]
    moments = tuple(Moment(f"step{at}", at, int(t)) for at, t in enumerate(known))
    return Learned.of(Series(moments, ()))


def test_an_operator_is_read_from_its_confirmed_onset_where_it_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = gated(monkeypatch, "x..xxx.x", "........", "......xx", "xxxxxxx.")
    assert np.flatnonzero(found.read[:, 0]).tolist() == [3, 4, 5, 7]
    assert not found.read[:, 1:].any()
    assert found.at("step5") == [0]
    assert "onset is not confirmed" in found.reasons[2]
    assert found.reasons[1] == "subtraction failed"
    assert found.reasons[3] == "division failed"  # forgotten in the end


def test_operators_are_pooled_over_the_checkpoints_that_all_of_them_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = "....xxxxxxxx"
    found = gated(monkeypatch, ".xxxxxxxxxxx", late, "......xxxxxx", "............").window(7)
    assert found.gated.operators == (0, 1)
    assert found.places == tuple(range(4, 12))
    assert "6 checkpoints from step6 on" in found.gated.reasons[2]


def test_checkpoints_are_equally_far_apart_in_log_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = [0, 1, 2, 4, 8, 11, 16, 32, 64, 128]
    none = "." * len(tokens)
    found = gated(monkeypatch, "x" * len(tokens), none, none, none, tokens=tokens).window(7)
    assert found.places == (1, 2, 3, 4, 6, 7, 8, 9)  # neither step 0 nor the one between two


def test_without_an_operator_for_long_enough_there_is_no_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = gated(monkeypatch, ".....xxxxxx", *["..........."] * 3).window(7)
    assert found.places == ()
    assert len(found.gated.reasons) == 4


# ---------------------------------------------------------------- knock-outs throughout


def knocked(gap: float, *, short: float = 0.0, seed: int = 0, n: int = 150) -> Measurement:
    draw = np.random.default_rng(seed)
    values = {
        "heuristic": (draw.random(n) < 0.9 - gap).astype(float),
        "control": np.repeat((draw.random(n) < 0.9)[:, None], 3, 1).astype(float),
        "short": (np.arange(n) < short * n).astype(float),
        "done": np.ones(n),
        "operator": np.zeros(n, int),
        "half": np.ones(n, int),
        "prompt": np.arange(n),
    }
    axes = {name: ("pair", "control")[: np.ndim(v)] for name, v in values.items()}
    cluster = np.arange(n)
    return Measurement("x", values, axes, {}, cluster, cluster * 0, cluster % 2)


def of_gaps(*gaps: float, **more: float) -> Any:
    series = {f"step{at}": knocked(gap, seed=at, **more) for at, gap in enumerate(gaps)}  # type: ignore[arg-type]
    return works_throughout(series, {label: [0] for label in series})


def test_knock_outs_that_work_at_every_checkpoint_hold() -> None:
    assert of_gaps(0.5, 0.4, 0.6, 0.5).outcome is Outcome.HOLDS


def test_one_checkpoint_at_which_they_do_not_refutes() -> None:
    verdict = of_gaps(0.5, 0.5, -0.05, 0.5)
    assert verdict.outcome is Outcome.REFUTED
    assert "step2" in verdict.sentence


def test_one_undecided_checkpoint_or_too_few_neurons_leave_it_open() -> None:
    assert of_gaps(0.5, 0.5, 0.12).outcome is Outcome.INCONCLUSIVE
    for gaps in ((0.5, 0.5, 0.5), (0.5, -0.05, 0.5)):
        verdict = of_gaps(*gaps, short=0.3)
        assert verdict.outcome is Outcome.INCONCLUSIVE
    assert (
        "30% of the prompts have fewer than 10"
        in beats_random(knocked(0.5, short=0.3), [0], "step1").sentence
    )
    assert of_gaps(0.5, 0.5, 0.5, short=0.19).outcome is Outcome.HOLDS


def test_fewer_than_three_checkpoints_are_not_applicable() -> None:
    assert of_gaps(0.5, 0.5).outcome is Outcome.NOT_APPLICABLE


def test_each_control_is_held_against_the_heuristics() -> None:
    found = knocked(0.5, n=1500)
    found["control"][:, 1] = np.random.default_rng(1).random(1500) < 0.4  # as the heuristics
    verdict = beats_random(found, [0], "step1")
    assert verdict.outcome is Outcome.REFUTED
    assert throughout.SAID["attribution"] in verdict.sentence


# ---------------------------------------------------------------- the claims' own code

NOTHING = World("nothing is learned")
TURNS = World("triples turn over, neurons are as random ones", "learned")
THERE = World("heuristics accumulate and are needed", "learned", bag="there")
ACCUMULATE, MUTUAL, KNOCKOUT = (
    f"nikankin2025.{name}"
    for name in ("heuristics-accumulate", "mutual-explain", "knockout-throughout")
)


def judged(claim: str, world: World, seed: int = 0) -> Any:
    results: Any = NoiseResults(world, "independent", seed)
    return verdict_of(case_of(CLAIMS[claim]), results)


@pytest.mark.parametrize("claim", [ACCUMULATE, MUTUAL, KNOCKOUT])
def test_where_it_is_so_a_claim_holds(claim: str) -> None:
    verdict = judged(claim, THERE)
    assert verdict.outcome is Outcome.HOLDS, str(verdict)
    assert verdict.shown["left_out"].keys() == {"subtraction", "multiplication", "division"}


def test_where_heuristics_only_turn_over_or_are_no_better_the_claims_do_not_hold() -> None:
    assert judged(KNOCKOUT, TURNS).outcome is Outcome.REFUTED
    same = judged(MUTUAL, TURNS)
    assert same.outcome is Outcome.INCONCLUSIVE
    assert "random" in same.sentence
    assert all(judged(ACCUMULATE, TURNS, seed).outcome is not Outcome.HOLDS for seed in range(5))


@pytest.mark.parametrize("claim", [ACCUMULATE, MUTUAL, KNOCKOUT])
def test_a_model_that_does_no_arithmetic_is_not_asked(claim: str) -> None:
    verdict = judged(claim, NOTHING)
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert "does not do the task arithmetic" in verdict.sentence
