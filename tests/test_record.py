"""mechtests.reporting.record: a verdict as JSON and back."""

import json
import math
import subprocess
import sys

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechtests.claim import Claim
from mechtests.errors import LoadError
from mechtests.measurement import Sample
from mechtests.reporting.record import Record, RecordedCell, RecordedCheckpoint, schema
from mechtests.verdict import Control, Outcome, Verdict

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
MAYBE = st.none() | NUMBERS
COUNTS = st.integers(0, 10**9)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
CONTROLS = st.builds(
    Control,
    name=st.text(),
    sentence=st.text(),
    reached=st.booleans(),
    p=MAYBE,
    p_min=MAYBE,
    values=st.lists(NUMBERS, max_size=3).map(tuple),
    decides=st.booleans(),
)


def verdicts_of(parts: st.SearchStrategy[tuple[Verdict, ...]]) -> st.SearchStrategy[Verdict]:
    return st.builds(
        Verdict,
        outcome=st.sampled_from(Outcome),
        sentence=st.text(),
        estimate=MAYBE,
        interval=st.none() | st.tuples(NUMBERS, NUMBERS),
        margin=MAYBE,
        relation=st.sampled_from([">", "<", "within", "="]),
        unit=st.text(),
        prompts=COUNTS,
        clusters=COUNTS,
        p=MAYBE,
        needed=st.none() | COUNTS,
        controls=st.lists(CONTROLS, max_size=2).map(tuple),
        parts=parts,
        shown=st.dictionaries(st.text().filter(lambda name: name != "heads"), VALUES, max_size=3),
        p_refuted=MAYBE,
    )


VERDICTS = verdicts_of(st.lists(verdicts_of(st.just(())), max_size=2).map(tuple))


def record_of(
    verdict: Verdict, *, id: str = "paper.claim", family: str = "", cell: str = "gpt2", **rest
) -> Record:
    claim = Claim(
        id=id,
        says="Heads exist.",
        rule="Some head is above 0.4.",
        section="3.1",
        task="ioi",
        components=("name-mover",),
        needs={"scores": object()},
        controls=("untrained cell",),
        family=family or id,
        exceptions={"gpt2": "the paper says so"},
    )
    known = {
        "run": "20260101-000000-000000",
        "cell": RecordedCell(
            cell,
            "gpt2",
            RecordedCheckpoint("step1000", 1000, 2_097_152_000),
            identity={"hub": "gpt2", "commit": "ab12"},
            weights="cd34",
            dtype="float32",
            device="cpu",
        ),
        "measurements": {"scores": "ef56"},
        "profile": "quick",
        "seed": 0,
        "nodeid": "test_it.py::test_heads[gpt2]",
        "reproduce": "pytest 'test_it.py::test_heads[gpt2]'",
    }
    return Record.from_verdict(verdict, claim=claim, **{**known, **rest})


def with_p(p: float | None, outcome: Outcome = Outcome.HOLDS, **rest) -> Record:
    return record_of(Verdict(outcome, "a sentence", p=p), **rest)


@given(VERDICTS)
def test_any_verdict_goes_through_a_line_of_strict_json_and_back_unchanged(verdict):
    record = record_of(verdict)
    line = json.dumps(record.to_json(), allow_nan=False)
    assert "\n" not in line
    again = Record.from_json(json.loads(line))
    # repr tells NaN from NaN no better than a reader does, and -0.0 from 0.0
    assert repr(again) == repr(record)


@given(VERDICTS)
def test_any_record_is_as_the_shipped_schema_says(verdict):
    jsonschema.Draft202012Validator(schema()).validate(record_of(verdict).to_json())


def test_the_schema_is_a_schema_and_refuses_a_record_with_an_unknown_outcome_or_a_missing_field():
    described = schema()
    jsonschema.Draft202012Validator.check_schema(described)
    valid = with_p(0.01).to_json()
    for broken in (
        {**valid, "verdict": "true"},
        {key: value for key, value in valid.items() if key != "sentence"},
        {**valid, "schema": "mechtests-record/2"},
        {**valid, "interval": [0.1]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, described)


def test_every_field_of_a_record_is_described_in_the_schema():
    described = schema()
    control = Control("random", "0.1", reached=False)
    part = Verdict(Outcome.HOLDS, "a part")
    tree = record_of(Verdict(Outcome.HOLDS, "all", controls=(control,), parts=(part,))).to_json()
    verdict = described["$defs"]["verdict"]["properties"]
    fields = {**described["properties"], **verdict}
    pairs = [
        (tree, fields),
        (tree["claim"], fields["claim"]["properties"]),
        (tree["cell"], fields["cell"]["properties"]),
        (tree["cell"]["checkpoint"], fields["cell"]["properties"]["checkpoint"]["properties"]),
        (tree["controls"][0], verdict["controls"]["items"]["properties"]),
        (tree["parts"][0], verdict),
    ]
    for written, known in pairs:
        assert set(written) == set(known) & set(written), set(written) - set(known)
        assert all(known[name]["description"] for name in written)


def test_numbers_that_are_not_finite_are_null_and_named_by_their_pointer():
    verdict = Verdict(
        Outcome.INCONCLUSIVE,
        "no end",
        estimate=math.nan,
        interval=(0.5, math.inf),
        shown={"a/b~c": {"ratio": -math.inf}},
    )
    tree = record_of(verdict).to_json()
    assert tree["estimate"] is None
    assert tree["interval"] == [0.5, None]
    assert tree["nonfinite"] == {
        "/estimate": "nan",
        "/interval/1": "inf",
        "/shown/a~1b~0c/ratio": "-inf",
    }


def test_numpy_values_in_what_is_shown_become_plain_numbers_and_lists():
    shown = {"value": np.float32(0.5), "heads": np.array([[5, 3]]), "flag": np.bool_(True)}
    tree = record_of(Verdict(Outcome.HOLDS, "yes", shown=shown)).to_json()
    assert json.loads(json.dumps(tree))["shown"] == {"value": 0.5, "heads": [[5, 3]], "flag": True}


def test_a_key_of_a_later_version_is_passed_over_when_read():
    record = with_p(0.01)
    tree = record.to_json()
    for inside in (tree, tree["claim"], tree["cell"], tree["cell"]["checkpoint"]):
        inside["of_tomorrow"] = 1
    assert Record.from_json(tree) == record


def test_a_record_of_another_schema_or_without_a_field_is_refused_in_a_sentence():
    tree = with_p(0.01).to_json()
    with pytest.raises(LoadError, match=r"'mechtests-record/9'.*reads 'mechtests-record/1'"):
        Record.from_json({**tree, "schema": "mechtests-record/9"})
    del tree["sentence"]
    with pytest.raises(LoadError, match=r"record of the run '20260101.*record\.schema\.json"):
        Record.from_json(tree)


def test_only_a_refutation_is_as_expected():
    reason = "the paper says so"
    assert with_p(0.9, Outcome.REFUTED, expectation=reason).expected
    assert not with_p(0.01, Outcome.HOLDS, expectation=reason).expected
    assert not with_p(0.9, Outcome.REFUTED).expected


EVERY = list(Outcome)


@pytest.mark.parametrize("outcome", EVERY)
@pytest.mark.parametrize("blessed", [each for each in EVERY if each is not Outcome.ERROR])
def test_a_blessed_verdict_is_as_expected_or_changed_and_an_error_is_neither(outcome, blessed):
    record = with_p(0.5, outcome, expectation="the baseline", expects=blessed)
    assert record.expected == (outcome is blessed and outcome is not Outcome.HOLDS)
    assert record.changed == (outcome not in (blessed, Outcome.ERROR))
    tree = record.to_json()
    jsonschema.Draft202012Validator(schema()).validate(tree)
    assert Record.from_json(tree) == record


def test_of_an_exception_the_paper_states_only_a_claim_that_holds_is_a_change():
    changed = [each for each in EVERY if with_p(0.5, each, expectation="the paper").changed]
    assert changed == [Outcome.HOLDS]
    assert not with_p(0.5, Outcome.REFUTED).changed


def test_a_record_from_before_there_were_baselines_is_read_as_one_without():
    tree = with_p(0.9, Outcome.REFUTED, expectation="the paper").to_json()
    del tree["expects"]
    assert Record.from_json(tree).expects is None
    assert Record.from_json(tree).expected


def test_the_samples_behind_a_verdict_are_no_part_of_its_record():
    sample = Sample(np.ones(3), np.arange(3))
    verdict = Verdict(Outcome.HOLDS, "yes", estimate=1.0, sample=sample)
    assert verdict == Verdict(Outcome.HOLDS, "yes", estimate=1.0)
    assert "sample" not in record_of(verdict).to_json()


def test_records_are_read_and_written_without_torch_numpy_or_rich():
    script = (
        "import sys; from mechtests.reporting import progress, records, terminal; "
        "print(sorted({'torch', 'numpy', 'scipy', 'rich', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
