"""A task emerges together over models only where tasks can be told apart."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests.alignment import _labellings, _spread, aligned, no_sooner_beyond, permuted_labels
from mechtests.rules import beside
from mechtests.verdict import Outcome
from tests.curves import HOLDS, INCONCLUSIVE, REFUTED, allowed, bracket

INF = float("inf")


def at(octave, width=0.5):
    """An onset in the bracket around so many octaves."""
    return bracket(2.0 ** (octave - width / 2), 2.0 ** (octave + width / 2))


def table(rows):
    return {
        f"task{i}": {f"m{j}": at(place) for j, place in enumerate(row)}
        for i, row in enumerate(rows)
    }


@pytest.mark.parametrize(
    ("octaves", "outcome"),
    [([10, 10.5, 11], HOLDS), ([10, 10.5, 13], REFUTED), ([10, 11, 12], INCONCLUSIVE)],
)
def test_every_two_models_must_be_within_the_octaves(octaves, outcome):
    onsets = {f"m{i}": at(each) for i, each in enumerate(octaves)}
    verdict = aligned(onsets, octaves=2, what="ioi")
    assert verdict.outcome is outcome
    assert len(verdict.parts) == 3


def test_never_learners_are_named_and_left_out():
    onsets = {"small": bracket(2.0**20, INF), **{f"m{i}": at(10 + i / 4) for i in range(3)}}
    verdict = aligned(onsets, octaves=2, what="ioi")
    assert verdict.outcome is HOLDS
    assert verdict.shown["never"] == ["small"]
    assert verdict.sentence.startswith("ioi; never learned by small: holds")
    few = aligned({"a": bracket(4, INF), "b": at(3), "c": at(3)}, octaves=2, what="ioi")
    assert few.outcome is Outcome.NOT_APPLICABLE
    assert few.sentence == (
        "ioi: a claim over scale needs 3 models that learn it, got 2 (b, c); never learned by a"
    )


def test_tasks_at_different_places_are_told_apart_and_tasks_at_one_place_are_not():
    generator = np.random.default_rng(0)
    apart = permuted_labels(table([[10, 10.2, 10.1], [14, 14.1, 13.9], [18, 18.2, 18]]), generator)
    assert not apart.reached
    assert apart.p == apart.p_min == pytest.approx(1 / 36)
    mixed = permuted_labels(table([[10, 14, 18], [14, 18, 10], [18, 10, 14]]), generator)
    assert mixed.reached
    assert mixed.sentence.endswith(": everything emerges together")
    holds = aligned({f"m{i}": at(10) for i in range(3)}, octaves=2, what="x")
    assert beside(holds, apart).outcome is HOLDS
    assert beside(holds, mixed).outcome is INCONCLUSIVE


def test_too_few_tasks_or_models_cannot_reach_the_level():
    control = permuted_labels(table([[10, 10, 10], [14, 14, 14]]), np.random.default_rng(0))
    assert control.p == control.p_min == 0.25
    holds = aligned({f"m{i}": at(10) for i in range(3)}, octaves=2, what="x")
    assert "no alternative sets" in beside(holds, control).sentence


def test_with_one_task_the_control_is_absent_and_says_so():
    for tasks in (table([[10, 11, 12]]), {}):
        control = permuted_labels(tasks, np.random.default_rng(0))
        assert "absent, since there is one task" in control.sentence
        assert not control.decides


def test_where_labels_mean_nothing_they_are_told_apart_no_more_often_than_the_level():
    generator = np.random.default_rng(1)
    runs = 300
    told = sum(
        not permuted_labels(table(generator.normal(10, 2, (3, 3))), generator).reached
        for _ in range(runs)
    )
    assert told <= allowed(0.05, runs)
    assert told > 0


def test_models_that_learn_everything_later_do_not_hide_that_tasks_have_their_places():
    generator = np.random.default_rng(2)
    told = 0
    for _ in range(100):
        places = np.array([[10.0], [15], [20]]) + generator.normal(0, 0.7, (3, 4))
        told += not permuted_labels(table(places), generator).reached
    assert told > 95


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(2, 3), st.integers(2, 3), st.booleans())
def test_all_labellings_are_those_of_every_permutation_in_every_model(seed, tasks, count, holes):
    places = np.random.default_rng(seed).normal(size=(tasks, count))
    if holes:
        places[0, 0] = np.nan
    found, enumerated = _labellings(places, np.random.default_rng(0))
    assert enumerated
    known = [np.flatnonzero(np.isfinite(column)) for column in places.T]
    slow = []
    for ways in product(*(permutations(rows) for rows in known)):
        dealt = places.copy()
        for model, way in enumerate(ways):
            dealt[known[model], model] = places[list(way), model]
        slow.append(_spread(dealt[None])[0])
    fast = _spread(found)
    assert set(np.round(fast, 9)) == set(np.round(slow, 9))
    observed = _spread(places[None])[0]
    assert (fast <= observed + 1e-9).mean() == pytest.approx(
        (np.array(slow) <= observed + 1e-9).mean()
    )


def test_many_labellings_are_drawn():
    generator = np.random.default_rng(3)
    places = np.arange(10, 34, 4.0)[:, None] + generator.normal(0, 0.1, (6, 4))
    control = permuted_labels(table(places), generator)
    assert control.p == pytest.approx(1e-4)
    assert "(draws of 9999 ways)" in control.sentence


def test_an_onset_without_an_upper_end_is_left_out_of_the_labels():
    tasks = table([[10, 10.2, 10.1], [14, 14.1, 13.9], [18, 18.2, 18]])
    tasks["task0"]["m2"] = bracket(2.0**30, INF)
    control = permuted_labels(tasks, np.random.default_rng(0))
    assert control.p == control.p_min == pytest.approx(2 / 72)  # tasks 1 and 2 may change names


SCALE = {"xs": 16, "s": 12, "m": 12, "l": 12.2}


@pytest.mark.parametrize(
    ("octaves", "outcome"),
    [(SCALE, HOLDS), ({**SCALE, "l": 9}, REFUTED), ({**SCALE, "l": 11}, INCONCLUSIVE)],
)
def test_beyond_the_threshold_no_model_may_lead_by_more_than_an_octave(octaves, outcome):
    onsets = {name: at(each) for name, each in octaves.items()}
    verdict = no_sooner_beyond(onsets, "s", octaves=1, what="ioi")
    assert verdict.outcome is outcome
    assert "no threshold seen" not in verdict.sentence
    assert not verdict.controls[0].reached


def test_without_a_later_smaller_model_no_threshold_is_seen():
    early = {name: at(each) for name, each in {**SCALE, "xs": 12}.items()}
    none = {name: at(each) for name, each in SCALE.items() if name != "xs"}
    never = {**none, "xs": bracket(2.0**20, INF)}
    for onsets, seen in ((early, False), (none, False), ({"xs": never["xs"], **none}, True)):
        verdict = no_sooner_beyond(onsets, "s", octaves=1, what="ioi")
        assert verdict.outcome is HOLDS
        assert ("no threshold seen" not in verdict.sentence) == seen


def test_a_threshold_needs_two_models_beyond_it_and_a_model_at_it_that_learns():
    onsets = {name: at(each) for name, each in SCALE.items()}
    few = no_sooner_beyond(onsets, "m", octaves=1, what="ioi")
    assert few.outcome is Outcome.NOT_APPLICABLE
    assert "got 1" in few.sentence
    never = no_sooner_beyond({**onsets, "s": bracket(4, INF)}, "s", octaves=1, what="ioi")
    assert never.outcome is Outcome.NOT_APPLICABLE
