"""mechtests.reporting.evidence: maps of what the store has, prompts of the sample that decided."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from mechtests.margins import above, below
from mechtests.measurement import Measurement, Sample
from mechtests.reporting import evidence, samples
from mechtests.reporting.record import Record
from mechtests.rules import every
from mechtests.statistics import summary
from mechtests.store import Store
from mechtests.verdict import Outcome, Verdict
from mechtests.watching import Watched
from tests.many_records import TABLE, record_of

KEY = "ab" * 32
HALF = np.array([0, 1] * 6)
CLUSTER = np.array([0, 10, 1, 11, 2, 12, 3, 13, 4, 14, 4, 14])  # the last of a half has two
CLEAN = np.arange(12.0) - 4
SCORES = np.random.default_rng(0).normal(size=(12, 2, 3))


MEAN = summary(Sample(CLEAN[HALF == 1], CLUSTER[HALF == 1])).mean


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


def sample(value: str, *index: int) -> Sample:
    """The evaluation half of what is stored, as a claim reads it."""
    stored = measurement(logit_difference=CLEAN, rank=CLEAN[::-1].copy(), effect=SCORES)
    return Watched.around(stored, "behaviour").sample(value, "evaluation", *index)


def shown(verdict: Verdict, store: Store | None, texts=None, **rest) -> dict:
    """The prompts of a verdict whose samples the run kept."""
    facts = {"behaviour": {"prompts": "digest"}, **rest.pop("facts", {})}
    record = record_of(verdict, facts=facts, **rest)
    record = Record.from_json(record.to_json())  # a page has no more than the records
    return evidence.of(record, store, texts, samples.kept(verdict)).get("prompts", {})


@pytest.mark.parametrize(("rule", "worst"), [(above, [-3, -1, 1, 3, 5]), (below, [7, 5, 3, 1, -1])])
def test_the_worst_prompts_are_those_furthest_from_the_claimed_side(store, rule, worst):
    found = shown(rule(sample("logit_difference"), 0.0, what="it"), store)
    assert [row["values"][0] for row in found["rows"]] == worst
    assert found["columns"] == ["behaviour.logit_difference", "rank"]
    assert (found["of"], found["unit"]) == (6, "logits")
    for row in found["rows"]:
        assert CLEAN[row["prompt"]] == row["values"][0]
        assert CLEAN[::-1][row["prompt"]] == row["values"][1]
        assert row["cluster"] == CLUSTER[row["prompt"]]
        assert row["text"] is None


def test_what_decided_is_shown_however_it_is_made(store):
    contrast = sample("effect", 1, 2) - 0.5 * sample("logit_difference")
    found = shown(above(contrast, 0.0, what="it"), store)
    made = SCORES[:, 1, 2] - 0.5 * CLEAN
    assert found["what"] == "behaviour.effect of head 1.2 - 0.5 behaviour.logit_difference"
    assert found["rows"][0]["values"][0] == pytest.approx(made[HALF == 1].min())
    assert found["columns"][1:] == ["logit difference", "rank"]
    for row in found["rows"]:
        assert row["values"][0] == pytest.approx(made[row["prompt"]])


def test_of_a_conjunction_the_part_that_decides_is_shown(store):
    parts = [
        replace(above(sample(name), 0.0, what=name), outcome=Outcome.REFUTED, p_refuted=p)
        for name, p in (("logit_difference", 0.01), ("rank", 0.001))
    ]
    whole = every(*parts, what="both")
    assert whole.outcome is Outcome.REFUTED
    assert shown(whole, store)["what"] == "behaviour.rank"
    nearest = [replace(part, outcome=Outcome.HOLDS, p=part.p_refuted) for part in parts]
    assert shown(every(*nearest, what="both"), store)["what"] == "behaviour.logit_difference"


def test_without_the_store_the_values_are_there_and_without_the_samples_nothing(store):
    decided = above(sample("logit_difference"), 0.0, what="it")
    found = shown(decided, None)
    assert found["columns"] == ["behaviour.logit_difference"]
    assert found["rows"][0]["prompt"] == 1
    assert "prompts" not in evidence.of(record_of(decided), store)
    assert shown(Verdict(Outcome.NOT_APPLICABLE, "no such head"), store) == {}


def test_a_sample_that_says_not_what_it_is_of_is_known_by_its_clusters(store):
    plain = Sample(CLEAN[HALF == 1], CLUSTER[HALF == 1], "logits")
    found = shown(above(plain, 0.0, what="it"), store)
    assert found["what"] == "the number that decided, of behaviour"
    assert found["rows"][0]["prompt"] == 1
    other = Sample(CLEAN[HALF == 1], np.arange(6) + 900, "logits")
    found = shown(above(other, 0.0, what="it"), store)
    assert (found["what"], found["columns"][1:]) == ("the number that decided", [])
    assert found["rows"][0] == {"prompt": 0, "text": None, "cluster": 900, "values": [-3.0]}


def test_texts_are_shown_where_they_are_kept_for_as_many_prompts(store):
    decided = above(sample("logit_difference"), 0.0, what="it")
    texts = {"digest": [f"prompt number {n}" for n in range(12)]}
    assert shown(decided, store, texts.get)["rows"][0]["text"] == "prompt number 1"
    assert shown(decided, None, texts.get)["rows"][0]["text"] == "prompt number 1"
    long = {"digest": ["x" * 500 + f"end {n}" for n in range(12)]}
    ended = shown(decided, store, long.get)["rows"][0]["text"]
    assert ended.startswith("… xxx")
    assert ended.endswith("xend 1")
    assert shown(decided, store, {"digest": ["one"]}.get)["rows"][0]["text"] is None
    assert shown(decided, store, {}.get)["rows"][0]["text"] is None


def test_a_table_that_the_claim_shows_stands_in_for_a_sample_and_gets_its_texts_by_their_digest(
    store,
):
    own = {**TABLE, "digest": "digest", "rows": [{**TABLE["rows"][1], "prompt": 11}]}
    record = record_of(verdict(MEAN, shown={"prompts": own}))
    texts = {"digest": [f"prompt number {n}" for n in range(12)]}
    found = evidence.of(record, store, texts.get)["prompts"]
    assert found["what"] == TABLE["what"]
    assert found["rows"][0]["text"] == "prompt number 11"
    assert evidence.of(record, store)["prompts"] == own
    assert evidence.of(record, store, {}.get)["prompts"] == own
    decided = replace(above(sample("rank"), 0.0, what="it"), shown={"prompts": own})
    assert shown(decided, store)["what"] == "behaviour.rank"


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
