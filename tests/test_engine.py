from dataclasses import replace

import numpy as np
import pytest

from mechtests import engine, judging, plan
from mechtests.case import Case
from mechtests.claim import Claim
from mechtests.errors import LoadError, MeasurementError, NotApplicable
from mechtests.metrics import ablation, attention, behaviour, copying, effects, gates
from mechtests.metrics.metric import Metric, Value
from mechtests.models.cell import Checkpoint
from mechtests.reporting import records
from mechtests.settings import Settings
from mechtests.store import Store
from mechtests.tasks.ioi import ioi
from mechtests.tasks.repeated_tokens import repeated_tokens
from mechtests.verdict import Outcome
from tests.fake_source import FakeSource
from tests.words import Words

COPYING = copying.copy_scores(ioi)
EFFECTS = effects.direct_effects(ioi)
ABLATION = ablation.ablate_heads(
    ioi, inputs={"copying": COPYING, "effects": EFFECTS, "mean_z": effects.mean_z(ioi)}
)
BEHAVIOUR = behaviour.answers(ioi)
PROMPTS = Settings().prompts_of(ioi)


def claim(gate=None, **needs):
    return Claim(id="test.claim", says="", rule="", task="ioi", gate=gate, needs=needs)


def run(source, tmp_path, *claims, refresh=False, settings=None):
    store = Store(tmp_path / "store")
    cases = [Case(each, source.cell) for each in claims]
    made = plan.build(cases, settings or Settings(), store, refresh=refresh)
    return made, engine.run(made, store)


def test_a_cell_is_loaded_once_and_all_is_measured_inputs_first(tmp_path):
    source = FakeSource()
    made, results = run(source, tmp_path, claim(behaviour=BEHAVIOUR), claim(ablation=ABLATION))
    assert source.loads == ["trained"]
    assert results.errors == {}
    assert results.measurement(ABLATION, source.cell)["drop"].shape == (PROMPTS,)
    order = [step.need.metric.name for step in made.steps]
    assert order.index("copying.copy_scores") < order.index("ablation.ablate_heads")


def test_a_series_makes_prompts_once_for_each_number_of_them(tmp_path, monkeypatch):
    plain, made = engine.prompts_of, []
    monkeypatch.setattr(
        engine, "prompts_of", lambda task, *how: made.append(1) or plain(task, *how)
    )
    monkeypatch.setattr(Words, "digest", "alike at every checkpoint", raising=False)
    source, more = FakeSource(), behaviour.answers(ioi.behaviour)
    cells = [source.at(Checkpoint(f"step{step}", step)) for step in (1, 2)]
    both, store = claim(few=BEHAVIOUR, many=more), Store(tmp_path / "store")
    cases = [Case(both, cell) for cell in cells]
    results = engine.run(plan.build(cases, Settings(), store), store)
    assert len(made) == 2
    for need in (BEHAVIOUR, more):
        wanted = plain(need.task, source.tokenizer(), Settings()).digest
        found = [results.measurement(need, cell).facts for cell in cells]
        assert [each["prompts"] for each in found] == [wanted, wanted]
        assert found[0]["weights"] != found[1]["weights"]


def test_a_second_run_loads_nothing_and_gives_the_same(tmp_path):
    source = FakeSource()
    _, first = run(source, tmp_path, claim(effects=EFFECTS))
    made, second = run(source, tmp_path, claim(effects=EFFECTS))
    assert source.loads == ["trained"]
    assert made.missing == ()
    one, two = (r.measurement(EFFECTS, source.cell) for r in (first, second))
    np.testing.assert_array_equal(one["direct_effect"], two["direct_effect"])


def test_refresh_measures_again(tmp_path):
    source = FakeSource()
    run(source, tmp_path, claim(effects=EFFECTS))
    run(source, tmp_path, claim(effects=EFFECTS), refresh=True)
    assert source.loads == ["trained", "trained"]


def test_clean_prompts_run_once_for_all_measurements_that_read_them(tmp_path, monkeypatch):
    from mechtests.models.network import Network

    prompts = []
    plain = Network.run
    monkeypatch.setattr(
        Network,
        "run",
        lambda self, tokens, **how: prompts.append(len(tokens)) or plain(self, tokens, **how),
    )
    monkeypatch.setattr("mechtests.models.selfcheck.check", lambda *a, **k: {})
    run(FakeSource(), tmp_path, claim(a=BEHAVIOUR, b=COPYING, c=EFFECTS, d=ABLATION))
    assert sum(prompts) == 2 * PROMPTS  # the clean prompts and the corrupted ones


def test_what_does_not_fit_in_memory_is_run_again_with_the_same_values(tmp_path, monkeypatch):
    needs = {"behaviour": BEHAVIOUR, "ablation": ABLATION}
    source = FakeSource()
    _, roomy = run(source, tmp_path / "a", claim(**needs))
    monkeypatch.setattr("mechtests.tape.Tape._fits", lambda self, sites: False)
    _, tight = run(source, tmp_path / "b", claim(**needs))
    for value in ("drop", "drop_random"):
        one, two = (r.measurement(ABLATION, source.cell)[value] for r in (roomy, tight))
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_values_do_not_depend_on_the_batch(tmp_path, monkeypatch):
    source = FakeSource()
    _, large = run(source, tmp_path / "a", claim(effects=EFFECTS))
    monkeypatch.setattr("mechtests.tape.TOKENS_A_BATCH", 50)
    _, small = run(source, tmp_path / "b", claim(effects=EFFECTS))
    one, two = (r.measurement(EFFECTS, source.cell)["direct_effect"] for r in (large, small))
    np.testing.assert_allclose(one, two, atol=1e-5)


@pytest.mark.parametrize(
    ("level", "outcome", "says"),
    [
        (0.95, Outcome.NOT_APPLICABLE, "does not do the task ioi"),
        (0.50, Outcome.INCONCLUSIVE, "is undecided"),
    ],
)
def test_a_gate_that_is_not_passed_hides_what_is_behind_it(tmp_path, level, outcome, says):
    source = FakeSource()  # a random model answers as a coin does
    gated = claim(gate=gates.BehaviourGate(BEHAVIOUR, {"correct": level}), effects=EFFECTS)
    made, results = run(source, tmp_path, gated)
    assert not results.store.has(results.key(EFFECTS, source.cell))
    verdict = judging.prepare(made.cases[0], results)
    assert verdict.outcome is outcome
    assert says in verdict.sentence
    again, _ = run(source, tmp_path, gated)
    assert again.missing == ()


def test_an_untrained_need_is_measured_in_the_cells_untrained_twin(tmp_path):
    source = FakeSource()
    here, there = (attention.head_scores(repeated_tokens, cell=c) for c in ("here", "untrained"))
    _, results = run(source, tmp_path, claim(here=here, there=there))
    assert sorted(source.loads) == ["trained", "untrained"]
    one, two = (results.measurement(need, source.cell) for need in (here, there))
    assert one.facts["weights"] != two.facts["weights"]
    assert two.facts["cell"] == "tiny-llama:untrained"


def test_a_cell_that_does_not_load_is_an_error_of_its_tests_only(tmp_path):
    broken, sound = FakeSource(name="broken", broken="load"), FakeSource()
    store = Store(tmp_path)
    cases = [Case(claim(b=BEHAVIOUR), source.cell) for source in (broken, sound)]
    results = engine.run(plan.build(cases, Settings(), store), store)
    with pytest.raises(LoadError, match="truncated"):
        results.measurement(BEHAVIOUR, broken.cell)
    assert len(results.measurement(BEHAVIOUR, sound.cell)["correct"]) == PROMPTS


def test_a_cell_without_an_identity_is_an_error_of_its_tests(tmp_path):
    source = FakeSource(broken="identity")
    _, results = run(source, tmp_path, claim(b=BEHAVIOUR))
    with pytest.raises(LoadError, match="not cached"):
        results.measurement(BEHAVIOUR, source.cell)


def test_too_few_names_of_one_token_is_not_applicable_also_from_the_store(tmp_path):
    source = FakeSource(names=("Mary", "John"))
    for _ in range(2):
        made, results = run(source, tmp_path, claim(gate=gates.does(ioi), effects=EFFECTS))
        with pytest.raises(NotApplicable, match="one token"):
            results.measurement(BEHAVIOUR, source.cell)
        assert judging.prepare(made.cases[0], results).outcome is Outcome.NOT_APPLICABLE
    assert source.loads == ["trained"]


def test_a_metric_that_fails_is_an_error_of_what_starts_from_it_and_of_nothing_else(tmp_path):
    def fails(batch):
        raise ValueError("no such thing")

    bad = Metric("bad.metric", 1, fails, {"x": Value(("prompt",), "")})(ioi)
    after = Metric("after.metric", 1, fails, {"x": Value(("prompt",), "")}, inputs=("bad",))(
        ioi, inputs={"bad": bad}
    )
    source = FakeSource()
    _, results = run(source, tmp_path, claim(a=after, b=BEHAVIOUR))
    with pytest.raises(MeasurementError, match=r"bad.metric on ioi.*no such thing"):
        results.measurement(bad, source.cell)
    with pytest.raises(MeasurementError, match=r"starts from bad.metric on ioi"):
        results.measurement(after, source.cell)
    assert results.measurement(BEHAVIOUR, source.cell)


def test_a_value_that_is_not_finite_is_an_error_that_names_it_and_its_prompt(tmp_path):
    def half_nan(batch):
        values = np.arange(len(batch.prompts), dtype=np.float32)
        values[batch.rows == 7] = np.nan
        return {"x": values}

    need = Metric("odd.metric", 1, half_nan, {"x": Value(("prompt",), "")})(ioi)
    source = FakeSource()
    _, results = run(source, tmp_path, claim(x=need))
    with pytest.raises(MeasurementError, match=r"x is not a finite number at prompt 7"):
        results.measurement(need, source.cell)


def test_out_of_memory_halves_the_batch_and_the_facts_say_so(tmp_path):
    def hungry(batch):
        if len(batch.prompts) > 20:
            raise MemoryError
        return {"x": np.ones(len(batch.prompts))}

    need = Metric("hungry.metric", 1, hungry, {"x": Value(("prompt",), "")})(ioi)
    source = FakeSource()
    _, results = run(source, tmp_path, claim(x=need))
    found = results.measurement(need, source.cell)
    assert found["x"].sum() == PROMPTS
    assert any("out of memory" in note for note in found.facts["notes"])


def test_the_batch_that_is_halved_is_the_one_that_did_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr("mechtests.tape.Tape._bytes", lambda self, sites, **how: self._budget // 12)
    sizes = []

    def hungry(batch):
        sizes.append(len(batch.prompts))
        if len(sizes) == 1:
            raise MemoryError
        return {"x": np.ones(len(batch.prompts))}

    need = Metric("hungry.metric", 1, hungry, {"x": Value(("prompt",), "")})(ioi)
    source = FakeSource()
    _, results = run(source, tmp_path, claim(x=need))
    facts = results.measurement(need, source.cell).facts
    assert sizes[:2] == [12, 6]
    assert facts["batch"] == 6
    assert facts["notes"] == ["out of memory: batches of at most 6 prompts"]


def test_memory_that_never_suffices_is_an_error_of_that_measurement(tmp_path):
    def insatiable(batch):
        raise MemoryError

    need = Metric("hungry.metric", 1, insatiable, {"x": Value(("prompt",), "")})(ioi)
    source = FakeSource()
    _, results = run(source, tmp_path, claim(x=need, b=BEHAVIOUR))
    with pytest.raises(MeasurementError, match="out of memory; use a smaller model"):
        results.measurement(need, source.cell)
    assert len(results.measurement(BEHAVIOUR, source.cell)["correct"]) == PROMPTS


def test_stored_values_of_other_weights_are_refused_naming_both(tmp_path):
    source = FakeSource()
    run(source, tmp_path, claim(b=BEHAVIOUR))
    other = FakeSource(model=FakeSource(seed=5)._model(5))
    _, results = run(other, tmp_path, claim(b=BEHAVIOUR, e=EFFECTS))
    with pytest.raises(LoadError, match=r"was stored with weights \w{12}.*--mech-refresh"):
        results.measurement(EFFECTS, other.cell)


def test_a_plan_costs_no_load_and_names_each_missing_measurement_once(tmp_path):
    source = FakeSource()
    store = Store(tmp_path)
    cases = [Case(claim(a=ABLATION), source.cell), Case(claim(e=EFFECTS), source.cell)]
    made = plan.build(cases, Settings(profile="standard"), store)
    assert source.loads == []
    names = [step.need.metric.name for step in made.missing]
    assert len(names) == len(set(names)) == 4
    assert all(cell.flops > 0 for cell in made.cells)
    assert made.cells[0].forward == 800  # 400 clean and 400 corrupted prompts


def test_the_key_depends_on_profile_seed_precision_and_weights(tmp_path):
    identity = FakeSource().identity(None, offline=True)
    settings = [
        Settings(),
        Settings(profile="standard"),
        Settings(seed=1),
        Settings(dtype="bfloat16"),
        Settings(prompt_digests={"ioi": "abc"}),
    ]
    keys = {each.key(EFFECTS, identity) for each in settings}
    keys.add(Settings().key(EFFECTS, FakeSource(seed=1).identity(None, offline=True)))
    keys.add(Settings().key(BEHAVIOUR, identity))
    assert len(keys) == len(settings) + 2
    assert Settings().key(EFFECTS, identity) == Settings(device="cuda").key(EFFECTS, identity)


def test_the_untrained_twin_of_a_model_with_a_step_0_is_its_step_0(tmp_path):
    first, last = Checkpoint("step0", 0, 0), Checkpoint("step10", 10, 20)
    source = FakeSource(steps=(first, last))
    cell = replace(source.cell, checkpoint=last)
    here, there = (attention.head_scores(repeated_tokens, cell=c) for c in ("here", "untrained"))
    store = Store(tmp_path)
    made = plan.build([Case(claim(here=here, there=there), cell)], Settings(), store)
    assert [each.cell.id for each in made.cells] == ["tiny-llama:step10", "tiny-llama:step0"]
    results = engine.run(made, store)
    assert source.loads == ["trained", "trained"]
    one, two = (results.measurement(need, cell) for need in (here, there))
    assert (one.facts["cell"], two.facts["cell"]) == ("tiny-llama:step10", "tiny-llama:step0")
    assert one.facts["weights"] != two.facts["weights"]
    judged_too = plan.build([Case(claim(here=here), source.at(first))], Settings(), store)
    assert judged_too.missing == ()  # it is the measurement of step 0 itself


def test_measurements_of_other_library_versions_are_said(tmp_path, monkeypatch):
    source = FakeSource()
    run(source, tmp_path, claim(b=BEHAVIOUR))
    now = {**records.installed_versions(), "torch": "9.9.9"}
    monkeypatch.setattr(records, "installed_versions", lambda: now)
    _, results = run(source, tmp_path, claim(b=BEHAVIOUR, e=EFFECTS))
    assert len(results.notes) == 1
    assert "(now 9.9.9)" in results.notes[0]
    assert "--mech-refresh" in results.notes[0]
