"""mechtests.reporting.samples: the values behind estimates, kept beside the records."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mechtests import margins, means, rules, statistics
from mechtests.claim import Claim
from mechtests.measurement import Sample
from mechtests.reporting import records, samples, sides
from mechtests.reporting.compare import compare
from mechtests.reporting.place import Place
from mechtests.reporting.record import Record, RecordedCell
from mechtests.reporting.shifts import How
from mechtests.verdict import Outcome, Verdict, refuted
from mechtests.watching import Part, Traced

SETTINGS = {"profile": "quick", "seed": 0, "dtype": "float32", "prompt_digests": {}}
SAMPLES = st.lists(
    st.tuples(st.floats(-1e6, 1e6, width=32), st.integers(-5, 10**6)), min_size=1, max_size=40
).map(
    lambda rows: Sample(
        np.array([value for value, _ in rows]), np.array([cluster for _, cluster in rows]), "logits"
    )
)


def drawn(seed: int, prompts: int = 40, clusters: int = 20) -> Sample:
    values = np.random.default_rng(seed).normal(1.0, 1.0, prompts)
    return Sample(values, np.arange(prompts) % clusters, "logits")


def record_of(verdict: Verdict, cell: str = "gpt2") -> Record:
    return Record.from_verdict(
        verdict,
        claim=Claim(id="paper.claim", says="s", rule="r", task="ioi"),
        run="r",
        cell=RecordedCell(cell, cell),
        measurements={},
        facts={"answers": {"prompts": "ab12"}},
        profile="quick",
        seed=0,
        nodeid="n",
        reproduce="pytest n",
    )


@given(SAMPLES)
def test_a_sample_comes_back_with_its_clusters_and_its_values_to_float32(sample):
    verdict = Verdict(Outcome.HOLDS, "s", estimate=statistics.summary(sample).mean, sample=sample)
    [tree] = json.loads(json.dumps(samples.kept(verdict), allow_nan=False))
    again = samples.decoded(tree)
    assert (again.values == sample.values.astype(np.float32)).all()
    assert (again.cluster == sample.cluster).all()
    assert again.unit == "logits"


@pytest.mark.parametrize("kind", ["mean", "census"])
def test_a_verdict_of_a_margin_keeps_the_sample_that_it_is_of(kind):
    sample = drawn(0)
    verdict = margins.above(sample, 0.0, what="it", kind=kind)
    [tree] = samples.kept(verdict)
    assert tree["at"] == []
    assert statistics.summary(samples.decoded(tree)).mean == pytest.approx(verdict.estimate)


def test_equivalence_and_shares_keep_theirs():
    one, span = drawn(1), drawn(2) + 5.0
    assert len(samples.kept(margins.equivalent(one, 3.0, what="it"))) == 1
    share = margins.share_above(one, span, 0.1, span=span, what="it")
    [tree] = samples.kept(share)
    contrast = (one - span * 0.1).values
    assert samples.decoded(tree).values == pytest.approx(contrast, rel=1e-6)


def test_of_a_conjunction_each_part_keeps_its_own_by_its_place():
    parts = [margins.above(drawn(seed), 0.0, what=f"part {seed}") for seed in range(3)]
    both = rules.every(parts[0], rules.every(*parts[1:], what="inner"), what="outer")
    assert [tree["at"] for tree in samples.kept(both)] == [[0], [1, 0], [1, 1]]
    assert samples.kept(refuted("nothing there")) == []


def test_what_is_pooled_and_each_part_of_it_keep_their_own():
    parts = tuple(margins.above(drawn(seed), 0.0, what=f"part {seed}") for seed in range(2))
    whole = margins.above(drawn(5), 0.0, what="pooled")
    pooled = replace(whole, parts=parts)
    assert [at for at, _ in samples.estimates(pooled)] == [(), (0,), (1,)]
    assert [tree["at"] for tree in samples.kept(pooled)] == [[], [0], [1]]
    assert [tree["at"] for tree in samples.kept(replace(pooled, sample=None))] == [[0], [1]]


def test_what_is_similar_keeps_its_difference_and_what_has_other_prompts_keeps_none():
    one, other, scale = drawn(1), drawn(2), drawn(3) + 9.0
    found = means.similar([(1.0, one), (-1.0, other)], scale, 0.5, what="it")
    [tree] = samples.kept(found)
    assert samples.decoded(tree).values == pytest.approx((one - other).values, rel=1e-6, abs=1e-6)
    few = drawn(4, prompts=20)
    assert samples.kept(means.similar([(1.0, one), (-1.0, few)], scale, 0.5, what="it")) == []


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40))
def test_a_traced_sample_comes_back_with_the_prompts_it_is_of(rows):
    parts = (Part(1.0, "answers", "clean"), Part(-0.5, "scores", "effect", (1, 2)))
    values, clusters = np.linspace(1.0, 2.0, len(rows)), np.arange(len(rows))
    sample = Traced(values, clusters, "logits", parts, np.array(rows), "answers")
    verdict = Verdict(Outcome.HOLDS, "s", estimate=float(values.mean()), sample=sample)
    [tree] = json.loads(json.dumps(samples.kept(verdict)))
    assert tree["made_of"] == "answers.clean - 0.5 scores.effect of head 1.2"
    again = samples.decoded(tree)
    assert isinstance(again, Traced)
    assert (again.name, again.rows.tolist()) == ("answers", rows)
    many = replace(sample, parts=tuple(Part(1.0, "m", f"value_{n}") for n in range(99)))
    [tree] = samples.kept(replace(verdict, sample=many))
    assert len(tree["made_of"]) == samples.LONGEST


def test_a_sample_that_is_not_of_the_estimate_any_more_is_not_kept():
    verdict = margins.above(drawn(0), 0.0, what="it")
    moved = Verdict(Outcome.HOLDS, "s", estimate=verdict.estimate + 0.1, sample=verdict.sample)
    assert samples.kept(moved) == []


def test_a_journal_keeps_samples_and_a_run_without_the_file_has_none(tmp_path):
    journal = records.Journal(tmp_path, {})
    for cell in ("gpt2", "gpt2-xl"):
        verdict = margins.above(drawn(len(cell)), 0.0, what="it")
        journal.append(record_of(verdict, cell), samples.kept(verdict))
    journal.append(record_of(refuted("none"), "gpt2-large"), [])
    found = samples.read(journal.path)
    assert set(found) == {Place("paper.claim", "ioi", cell) for cell in ("gpt2", "gpt2-xl")}
    got = found["paper.claim", "ioi", "gpt2"][()]
    assert got.values == pytest.approx(drawn(4).values, rel=1e-6)
    with (journal.path / samples.FILE).open("a") as file:
        file.write('{"claim": "half a li')
    assert set(samples.read(journal.path)) == set(found)
    (journal.path / samples.FILE).unlink()
    assert samples.read(journal.path) == {}
    assert set(journal.samples) == set(found)


def test_sixty_prompts_take_about_three_hundred_characters():
    verdict = margins.above(drawn(0, 60, 30), 0.0, what="it")
    [tree] = samples.kept(verdict)
    assert len(tree["values"]) < 350
    assert len(tree["clusters"]) < 60


def pooled(seed: int, mean: float) -> Verdict:
    """As accuracy is pooled: an estimate of its own, and a part for each operator."""
    each = [drawn(seed + at) + mean for at in range(3)]
    parts = tuple(margins.above(of, 0.0, what=f"operator {at}") for at, of in enumerate(each))
    whole = sum(each[1:], each[0]) * (1 / 3)
    return replace(margins.above(whole, 0.0, what="pooled"), parts=parts)


@pytest.mark.parametrize("its_own", [True, False])
def test_what_is_pooled_is_paired_and_each_part_of_it_as_a_paired_t_test_says(tmp_path, its_own):
    runs, verdicts = [], [pooled(0, 1.0), pooled(7, 1.4)]
    for verdict in verdicts:
        journal = records.Journal(tmp_path, {"settings": SETTINGS})
        kept = samples.kept(verdict if its_own else replace(verdict, sample=None))
        journal.append(record_of(verdict), kept)
        runs.append(sides.of_run(journal.path))
    found = {shift.what: shift for shift in compare(*runs).shifts}
    parts = {f"operator {at}": [each.parts[at] for each in verdicts] for at in range(3)}
    assert found.keys() == {"pooled", *parts}
    assert found["pooled"].how is (How.PAIRED if its_own else How.ESTIMATES)
    for name, pair in {**({"pooled": verdicts} if its_own else {}), **parts}.items():
        shift, (a, b) = found[name], (each.sample for each in pair)
        test = stats.ttest_rel(statistics.cluster_means(b), statistics.cluster_means(a))
        assert shift.how is How.PAIRED
        assert shift.p == pytest.approx(test.pvalue, rel=1e-4)
        ends = tuple(test.confidence_interval(0.95))
        assert shift.interval == pytest.approx(ends, rel=1e-4, abs=1e-6)
        assert shift.difference == pytest.approx(b.mean - a.mean, rel=1e-4, abs=1e-6)
