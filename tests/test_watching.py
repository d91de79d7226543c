"""Samples that know what they are made of, and rules that are watched without knowing it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechtests.means import combination
from mechtests.measurement import Measurement, Sample
from mechtests.rules import above
from mechtests.watching import Traced, Watched, rows_of, spoken

VALUES = np.random.default_rng(0).normal(size=(8, 2, 3)).astype(np.float32)


def measurement(**more: Any) -> Measurement:
    return Measurement(
        name="made.up",
        values={"effect": VALUES, "clean": VALUES[:, 0, 0], **more},
        axes={"effect": ("prompt", "layer", "head"), "clean": ("prompt",)},
        units={"effect": "logits", "clean": "logits"},
        cluster=np.array([0, 0, 1, 1, 2, 2, 3, 3]),
        template=np.zeros(8, dtype=np.int64),
        half=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    )


def watched(**more: Any) -> Watched:
    made = Watched.around(measurement(**more), "effects")
    assert isinstance(made, Watched)
    return made


def rebuilt(sample: Traced, whole: Measurement) -> np.ndarray[Any, Any]:
    """The sample's values from its parts and rows alone."""
    total = np.zeros(len(sample))
    for part in sample.parts:
        array = np.asarray(whole[part.value], dtype=np.float64)[sample.rows]
        for index in part.heads or [part.index]:
            total += part.factor * array[(slice(None), *index)]
    return total


TERMS = st.sampled_from(["one", "two", "sum", "clean"])
STEPS = st.lists(
    st.tuples(st.sampled_from("+-*n"), TERMS, st.floats(-3, 3).filter(lambda x: abs(x) > 0.01)),
    max_size=8,
)


@given(TERMS, STEPS)
def test_a_sample_is_the_sum_of_its_parts_however_it_is_made(first: str, steps: Any) -> None:
    whole = watched()
    samples = {
        "one": whole.sample("effect", "evaluation", 0, 1),
        "two": whole.sample("effect", "evaluation", 1, 2),
        "sum": whole.sum_over("effect", [(0, 0), (1, 1)], "evaluation"),
        "clean": whole.sample("clean", "evaluation"),
    }
    sample: Any = samples[first]
    for step, name, factor in steps:
        if step == "*":
            sample = factor * sample
        elif step == "n":
            sample = -sample
        else:
            sample = sample + samples[name] if step == "+" else sample - samples[name]
    assert isinstance(sample, Traced)
    np.testing.assert_allclose(sample.values, rebuilt(sample, measurement()), atol=1e-9)


def test_watching_changes_no_value() -> None:
    plain, seen = measurement(), watched()
    for half in ("selection", "evaluation", None):
        one, other = (m.sample("effect", half, 1, 0) for m in (plain, seen))
        np.testing.assert_array_equal(one.values, other.values)
        np.testing.assert_array_equal(one.cluster, other.cluster)
        np.testing.assert_array_equal(plain.mean("effect", half), seen.mean("effect", half))
    assert plain.strongest("effect", "selection") == seen.strongest("effect", "selection")
    assert above(plain.sample("clean"), 0.0, what="x") == above(seen.sample("clean"), 0.0, what="x")


def test_it_notes_which_values_are_read_and_no_other() -> None:
    seen = watched(spare=VALUES)
    seen.mean("effect", "selection")
    assert list(seen.read) == ["effect"]
    seen.sample("clean")
    assert list(seen.read) == ["effect", "clean"]


def test_a_verdict_keeps_the_sample_that_decides_with_what_it_is_made_of() -> None:
    traced = watched().sample("clean", "evaluation") * 2.0
    kept = above(traced, 0.0, what="x").sample
    assert kept is traced
    assert isinstance(kept, Traced)
    assert [(part.factor, part.value) for part in kept.parts] == [(2.0, "clean")]


def test_rows_are_known_by_trace_by_half_and_by_pairs() -> None:
    seen = watched()
    traced = seen.sample("clean", "evaluation") - seen.sample("effect", "evaluation", 0, 0)
    name, rows = rows_of(traced, []) or ("", np.array([]))
    assert (name, rows.tolist()) == ("effects", [2, 3, 6, 7])
    plain = measurement().sample("clean", "evaluation")
    name, rows = rows_of(plain, [seen]) or ("", np.array([]))
    assert (name, rows.tolist()) == ("effects", [2, 3, 6, 7])
    pairs = watched(prompt=np.array([4, 5, 7]))
    of_pairs = Sample(np.zeros(2), np.array([7, 4]))
    name, rows = rows_of(of_pairs, [pairs]) or ("", np.array([]))
    assert rows.tolist() == [7, 4]
    assert rows_of(Sample(np.zeros(2), np.array([90, 91])), [seen]) is None
    apart = replace(watched(), cluster=np.arange(8)[::-1] * 10)
    some = Sample(np.zeros(3), np.array([70, 0, 20]))
    name, rows = rows_of(some, [apart]) or ("", np.array([]))
    assert rows.tolist() == [0, 7, 5]
    assert rows_of(some, [apart, replace(apart, cluster=np.arange(8) * 10)]) is None
    assert rows_of(some, [seen]) is None


def test_a_number_that_is_added_is_no_part() -> None:
    sample = watched().sample("clean") - 1.0
    assert isinstance(sample, Traced)
    assert len(sample.parts) == 1
    assert sample.mean == pytest.approx(float(VALUES[:, 0, 0].mean()) - 1.0)


def test_a_combination_of_samples_is_made_of_all_of_them() -> None:
    whole = watched()
    one, two = (whole.sample("effect", "evaluation", 0, head) for head in (1, 2))
    sample = combination((1.0, one), (-0.5, two), (2.0, one))
    assert isinstance(sample, Traced)
    np.testing.assert_allclose(sample.values, 3 * one.values - 0.5 * two.values, atol=1e-12)
    np.testing.assert_allclose(sample.values, rebuilt(sample, measurement()), atol=1e-12)
    assert spoken(sample) == "3 effects.effect of head 0.1 - 0.5 effects.effect of head 0.2"


def test_a_sample_is_spoken_of_in_the_claims_own_words() -> None:
    whole = watched()
    drop = whole.sample("clean") - whole.sum_over("effect", [(0, 0), (1, 1)])
    assert spoken(drop) == "effects.clean - effects.effect of heads 0.0, 1.1"
    draws = [whole.sample("effect", None, 0, 1) * 0.5 for _ in range(2)]
    assert spoken(draws[0] + draws[1]) == "effects.effect of head 0.1 (mean of 2)"
    none = whole.sum_over("effect", [])
    assert spoken(none - whole.sample("clean")) == "- effects.clean"
    assert spoken(measurement().sample("clean")) == ""


def test_where_measurements_of_other_prompts_fit_as_well_the_rows_are_not_known() -> None:
    plain = measurement().sample("clean", "evaluation")
    seen = [
        Watched.around(replace(measurement(), facts={"prompts": digest}), name)
        for name, digest in (("one", "a"), ("two", "a"), ("three", "b"))
    ]
    assert (rows_of(plain, seen[:2]) or "")[0] == "one"
    assert rows_of(plain, seen) is None
