"""mechtests.reporting.evidence: what the store has, found by keys, units and means."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from mechtests.measurement import Measurement, Sample
from mechtests.reporting import evidence
from mechtests.statistics import summary
from mechtests.store import Store
from mechtests.verdict import Outcome, Verdict
from tests.many_records import TABLE, record_of

KEY = "ab" * 32
HALF = np.array([0, 1] * 6)
CLUSTER = np.array([0, 10, 1, 11, 2, 12, 3, 13, 4, 14, 4, 14])  # the last of a half has two
CLEAN = np.arange(12.0) - 4
SCORES = np.random.default_rng(0).normal(size=(12, 2, 3))


MEAN = summary(Sample(CLEAN[HALF == 1], CLUSTER[HALF == 1])).mean


def mean_of_head(layer: int, head: int) -> float:
    return summary(Sample(SCORES[HALF == 1][:, layer, head], CLUSTER[HALF == 1])).mean


def measurement(**values) -> Measurement:
    axes = {1: ("prompt",), 3: ("prompt", "layer", "head")}
    return Measurement(
        name="planted",
        values=values,
        axes={name: axes[array.ndim] for name, array in values.items()},
        units=dict.fromkeys(values, "logits"),
        cluster=CLUSTER,
        template=np.zeros(12, int),
        half=HALF,
        facts={"prompts": "digest"},
    )


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    store.put(KEY, measurement(logit_difference=CLEAN, rank=CLEAN[::-1].copy(), effect=SCORES), {})
    return store


def verdict(estimate: float, **rest) -> Verdict:
    said = {"unit": "logits", "prompts": 6, "clusters": 5, "margin": 0.0, "estimate": estimate}
    return Verdict(Outcome.HOLDS, "", **{**said, **rest})


def test_a_value_by_layer_and_head_is_a_map_of_its_means_on_the_half_that_decides(store):
    [entry] = evidence.of(record_of(verdict(9.0)), store)["maps"]
    assert entry["what"] == "behaviour: effect"
    assert (entry["rows"], entry["columns"], entry["unit"]) == ("layer", "head", "logits")
    assert np.allclose(entry["values"], SCORES[HALF == 1].mean(0))


@pytest.mark.parametrize(("relation", "worst"), [(">", [-3, -1, 1, 3, 5]), ("<", [7, 5, 3, 1, -1])])
def test_the_worst_prompts_are_those_furthest_from_the_claimed_side(store, relation, worst):
    found = evidence.of(record_of(verdict(MEAN, relation=relation)), store)["prompts"]
    assert [row["values"][0] for row in found["rows"]] == worst
    assert found["columns"] == ["logit difference", "rank"]
    assert found["of"] == 6
    for row in found["rows"]:
        assert CLEAN[row["prompt"]] == row["values"][0]
        assert CLEAN[::-1][row["prompt"]] == row["values"][1]
        assert row["cluster"] == CLUSTER[row["prompt"]]
        assert row["text"] is None


def test_a_claim_about_one_head_has_that_heads_prompts(store):
    found = evidence.of(record_of(verdict(mean_of_head(1, 2))), store)["prompts"]
    assert found["what"] == "behaviour: effect of 1.2"
    assert found["rows"][0]["values"][0] == pytest.approx(SCORES[HALF == 1][:, 1, 2].min())


def test_the_part_that_is_worst_supported_is_looked_for_first(store):
    parts = (verdict(MEAN, p=0.01), verdict(mean_of_head(0, 0), p=0.5))
    whole = Verdict(Outcome.REFUTED, "", parts=parts)
    found = evidence.of(record_of(whole), store)["prompts"]
    assert found["what"] == "behaviour: effect of 0.0"


@pytest.mark.parametrize(
    "other",
    [
        verdict(MEAN + 0.1),
        verdict(MEAN, unit="share"),
        verdict(MEAN, prompts=12),
        verdict(MEAN, clusters=6),
        verdict(float(CLEAN[HALF == 1].mean())),
        verdict(0.0),
        Verdict(Outcome.NOT_APPLICABLE, "no such head"),
    ],
)
def test_prompts_that_are_not_what_the_estimate_is_the_mean_of_are_not_shown(store, other):
    assert "prompts" not in evidence.of(record_of(other), store)


def test_two_values_with_one_mean_are_not_told_apart(tmp_path):
    store = Store(tmp_path)
    store.put(KEY, measurement(a=CLEAN, b=np.full(12, MEAN)), {})
    assert "prompts" not in evidence.of(record_of(verdict(MEAN)), store)
    store.put(KEY, measurement(a=CLEAN, b=CLEAN.copy()), {})
    assert evidence.of(record_of(verdict(MEAN)), store)["prompts"]["what"] == "behaviour: a"


def test_texts_are_shown_where_they_are_kept_for_as_many_prompts(store):
    texts = {"digest": [f"prompt number {n}" for n in range(12)]}
    found = evidence.of(record_of(verdict(MEAN)), store, texts.get)["prompts"]
    assert found["rows"][0]["text"] == "prompt number 1"
    long = {"digest": ["x" * 500 + f"end {n}" for n in range(12)]}
    ended = evidence.of(record_of(verdict(MEAN)), store, long.get)["prompts"]["rows"][0]["text"]
    assert ended.startswith("… xxx")
    assert ended.endswith("xend 1")
    few = evidence.of(record_of(verdict(MEAN)), store, {"digest": ["one"]}.get)["prompts"]
    assert few["rows"][0]["text"] is None


def test_a_table_that_the_claim_shows_comes_first_and_gets_its_texts_by_their_digest(store):
    own = {**TABLE, "digest": "digest", "rows": [{**TABLE["rows"][1], "prompt": 11}]}
    record = record_of(verdict(MEAN, shown={"prompts": own}))
    texts = {"digest": [f"prompt number {n}" for n in range(12)]}
    found = evidence.of(record, store, texts.get)["prompts"]
    assert found["what"] == TABLE["what"]
    assert found["rows"][0]["text"] == "prompt number 11"
    assert evidence.of(record, store)["prompts"] == own
    assert evidence.of(record, store, {}.get)["prompts"] == own


def test_the_share_of_right_answers_is_mapped_over_both_operands_where_they_are_all_there_is(
    tmp_path,
):
    grid = np.array([(a, b) for a in range(40) for b in range(40)])
    right = (grid[:, 0] < 20).astype(float)
    values = {"first": grid[:, 0], "second": grid[:, 1], "correct": right}
    values["operator"] = np.full(len(grid), 2)
    found = replace(
        measurement(a=CLEAN),
        values=values,
        axes=dict.fromkeys(values, ("prompt",)),
        half=np.ones(len(grid), int),
        cluster=np.arange(len(grid)),
        template=np.zeros(len(grid), int),
    )
    store = Store(tmp_path)
    store.put(KEY, found, {})
    [entry] = evidence.of(record_of(verdict(9.0)), store)["maps"]
    assert entry["what"] == "behaviour: right answers of *"
    assert entry["values"] == [[1.0] * 20] * 10 + [[0.0] * 20] * 10
    assert entry["row_labels"][:3] == [0, 2, 4]
    several = record_of(verdict(9.0), measurements={"answers": KEY, "found": "cd" * 32})
    assert evidence.of(several, store)["maps"] == []


def test_a_store_that_lacks_or_spoils_a_measurement_gives_nothing_and_says_nothing(store, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lost = record_of(verdict(MEAN), measurements={"behaviour": "ef" * 32})
        assert evidence.of(lost, store) == {"maps": []}
        [file] = tmp_path.rglob(f"{KEY}.safetensors")
        file.write_bytes(b"spoilt")
        assert evidence.of(record_of(verdict(MEAN)), Store(tmp_path)) == {"maps": []}
        store.put_not_applicable("cd" * 32, "no such task", {})
        refused = record_of(verdict(MEAN), measurements={"behaviour": "cd" * 32})
        assert evidence.of(refused, store) == {"maps": []}


def test_over_training_the_curves_say_it_and_the_store_is_not_asked(store):
    assert evidence.of(record_of(verdict(MEAN), over="training"), store) == {}
