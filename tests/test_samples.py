"""mechtests.reporting.samples: the values behind estimates, kept beside the records."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechtests import margins, rules, statistics
from mechtests.claim import Claim
from mechtests.measurement import Sample
from mechtests.reporting import records, samples
from mechtests.reporting.place import Place
from mechtests.reporting.record import Record, RecordedCell
from mechtests.verdict import Outcome, Verdict, refuted

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


def test_sixty_prompts_take_about_three_hundred_characters():
    verdict = margins.above(drawn(0, 60, 30), 0.0, what="it")
    [tree] = samples.kept(verdict)
    assert len(tree["values"]) < 350
    assert len(tree["clusters"]) < 60
