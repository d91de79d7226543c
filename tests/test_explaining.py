"""From a verdict to its cause: planted causes must be found, and the sums must add up."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mechtests
from mechtests import shipped
from mechtests.errors import UsageError
from mechtests.measurement import Sample
from mechtests.reporting import explanation as reporting
from mechtests.reporting import explanation_page, wording
from mechtests.rules import above, below, equivalent, every
from mechtests.store import Store
from mechtests.verdict import Outcome, Verdict
from tests.planted import INDUCTION_NUMBERS, IOI_WORDS, induction_stream, ioi_stream
from tests.test_direct import INDUCTION, Wrapped, sprout

COPYING = "tigges2024.copying-heads-present"


def with_noise(model: Any, head: tuple[int, int], size: float, heads: int = 4) -> Any:
    """A copy with noise in the queries, keys, values and outputs of one head of a GPT-2."""
    noisy = copy.deepcopy(model)
    layer, index = head
    width = noisy.config.n_embd // heads
    attention = noisy.transformer.h[layer].attn
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        parts = [*attention.c_attn.weight.chunk(3, dim=1)]
        for part in parts:
            mine = part[:, index * width : (index + 1) * width]
            mine += size * mine.std() * torch.randn(mine.shape, generator=generator)
        mine = attention.c_proj.weight[index * width : (index + 1) * width]
        mine += size * mine.std() * torch.randn(mine.shape, generator=generator)
    return noisy


@pytest.fixture(scope="module")
def induction() -> Any:
    return induction_stream(strength=26.0).model


def test_noise_in_the_induction_head_is_found_there(induction: Any) -> None:
    noisy = with_noise(induction, (1, 1), 2.0)
    found = mechtests.explain(INDUCTION, noisy, Wrapped(INDUCTION_NUMBERS), baseline=induction)
    assert found.verdict.outcome is Outcome.REFUTED
    assert found.against is not None
    assert found.against.verdict.outcome is Outcome.HOLDS
    first = found.against.changes[0]
    assert (first.head, first.name) == ((1, 1), "scores.induction")
    assert first.before > 0.4 > first.after
    assert first.interval is not None
    assert first.interval[1] < 0
    assert found.against.same_prompts
    assert found.against.weights is not None
    assert [name for name, _ in found.against.weights] == ["head 1.1"]
    assert "most changed: head 1.1" in str(found)
    assert "differ in head 1.1" in str(found)


def test_noise_in_the_head_it_depends_on_is_found_in_the_weights(induction: Any) -> None:
    noisy = with_noise(induction, (0, 2), 1.0)
    found = mechtests.explain(INDUCTION, noisy, Wrapped(INDUCTION_NUMBERS), baseline=induction)
    assert found.verdict.outcome is Outcome.REFUTED
    assert found.against is not None
    assert found.against.weights is not None
    assert [name for name, _ in found.against.weights] == ["head 0.2"]
    first = found.against.changes[0]  # what broke of it: where it looks is as before
    assert (first.head, first.name) == ((1, 1), "scores.induction")


def test_noise_in_the_name_mover_is_found_there() -> None:
    model = ioi_stream(heads=20, rare=1000).model
    noisy = with_noise(model, (2, 5), 3.0, heads=20)
    found = mechtests.explain(COPYING, noisy, Wrapped(IOI_WORDS), baseline=model)
    assert found.against is not None
    assert found.against.verdict.outcome is Outcome.HOLDS, found.against.verdict
    assert found.verdict.outcome is not Outcome.HOLDS
    assert found.against.changes[0].head == (2, 5)
    assert [name for name, _ in found.against.weights or ()] == ["head 2.5"]


def test_the_same_model_has_no_change(induction: Any) -> None:
    tokenizer = Wrapped(INDUCTION_NUMBERS)
    found = mechtests.explain(INDUCTION, induction, tokenizer, baseline=copy.deepcopy(induction))
    assert found.against is not None
    assert found.against.weights == ()
    assert found.against.changes == ()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("explained"))


def explained(claim: str, store: Store, model: str = "sprout-1m", **how: Any) -> Any:
    return mechtests.explain(claim, model, store=store, offline=True, **how)


CLAIMS = ["tigges2024.name-movers-explain", "tigges2024.name-movers-matter", COPYING, INDUCTION]


@pytest.mark.parametrize("claim", CLAIMS)
def test_prompts_and_heads_sum_to_the_number_that_decided(claim: str, store: Store) -> None:
    found = explained(claim, store)
    contrast = found.contrast
    assert contrast is not None
    assert contrast.count == found.deciding.prompts
    worst, best = ([each.value for each in some] for some in (contrast.worst, contrast.best))
    assert worst == sorted(worst)
    assert best == sorted(best, reverse=True)
    assert worst[-1] <= best[-1]
    assert all(each.text for each in (*contrast.worst, *contrast.best))
    given = [each.given for table in found.heads for each in table.shown if each.factor is not None]
    if given:
        assert sum(given) == pytest.approx(found.deciding.estimate, abs=1e-4)


def test_each_prompt_has_its_own_value_and_text(store: Store) -> None:
    found = explained(COPYING, store)
    opened = mechtests.open("sprout-1m", store=store, offline=True)
    prompts = opened.prompts("ioi")
    [table] = [each for each in found.heads if each.name == "effects.direct_effect"]
    heads = [each.head for each in table.shown if each.factor is not None]
    effect = opened.measured(COPYING).effects["direct_effect"].astype(np.float64)
    for each in (*found.contrast.worst, *found.contrast.best):
        assert each.text == prompts.texts[each.row]
        assert prompts.half[each.row] == 1
        assert each.value == pytest.approx(sum(effect[each.row][head] for head in heads))
        right = opened.tokenizer.decode([int(prompts.right[each.row, 0])]).strip()
        assert each.answers.startswith(right)


def test_the_nearest_checkpoint_that_holds_is_found_in_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path)
    early = explained(INDUCTION, store, checkpoint="step781")
    assert early.verdict.outcome is Outcome.REFUTED
    assert early.nearby.nearest is None
    assert "--checkpoints=all" in early.nearby.command
    mechtests.judge(
        "sprout-1m", claims=INDUCTION, checkpoints="step562,step1099,step1562,step4883",
        store=store, offline=True,
    )  # fmt: skip
    early = explained(INDUCTION, store, checkpoint="step781")
    assert early.nearby.nearest[0] == "sprout-1m:step1099"
    assert {"sprout-1m:step562", "sprout-1m:step4883"} <= {cell for cell, _ in early.nearby.judged}
    assert "Nearest where it held: sprout-1m:step1099" in str(early)
    assert any("--baseline sprout-1m:step1099" in each for each in early.advice)
    held = explained(INDUCTION, store, checkpoint="step781", baseline="sprout-1m:step1099")
    assert held.against.cell == "sprout-1m:step1099"
    assert held.against.verdict.outcome is Outcome.HOLDS


def test_a_baseline_file_that_is_not_there_is_said_to_be_a_file(store: Store) -> None:
    with pytest.raises(UsageError, match=r"baseline nope\.json: a file that --mech-bless wrote"):
        explained(INDUCTION, store, baseline="nope.json")


def test_an_inconclusive_verdict_says_what_would_decide(store: Store) -> None:
    found = explained("tigges2024.circuit-faithful", store, task="ioi")
    assert found.verdict.outcome is Outcome.INCONCLUSIVE
    assert found.contrast.count == found.deciding.prompts  # its circuit is no head, its prompts are
    needed = found.verdict.needed
    [said] = [each for each in found.advice if "would decide" in each]
    assert f"{needed:,}" in said
    profile, size = ("standard", 50) if needed <= 50 else ("full", 600)
    assert said.startswith(f"--mech-profile {profile}") or size < needed


def test_a_gate_that_is_undecided_is_the_explanation(store: Store) -> None:
    found = explained(COPYING, store, model="sprout-1m-control")
    assert found.verdict.outcome is Outcome.INCONCLUSIVE
    assert found.gate.startswith("undecided: ")
    assert found.contrast is None
    assert any("would decide" in each for each in found.advice)


def test_a_gate_that_is_failed_is_the_explanation() -> None:
    model = ioi_stream().model  # it names the subject: its name mover writes with the other sign
    model.transformer.h[2].attn.c_proj.weight.data.neg_()
    found = mechtests.explain(COPYING, model, Wrapped(IOI_WORDS))
    assert found.verdict.outcome is Outcome.NOT_APPLICABLE
    assert found.gate is not None
    assert found.gate.startswith("failed: ")
    assert found.contrast is None
    assert "sanity.gates on ioi" in " ".join(found.advice)


def test_every_shipped_claim_over_a_cell_can_be_explained(store: Store) -> None:
    for claim, _ in shipped.tests():
        if claim.over == "cell" and claim.paper == "tigges2024":
            found = explained(claim.id, store, model="sprout-100k", task=claim.task)
            for text in (explanation_page.render(found, width=width) for width in (60, 100)):
                assert claim.id in text
                assert "To try" in text


def test_a_claim_over_training_is_explained_without_prompts(store: Store) -> None:
    found = explained("tigges2024.induction-onset", store, model="sprout-100k")
    assert found.cell == "sprout-100k"
    assert found.contrast is None
    assert found.verdict.sentence.split()[0] in str(found)


def test_watching_changes_no_verdict(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(claim: str) -> Any:
        return mechtests.judge("sprout-1m", claims=claim, store=store, offline=True)[claim]

    watched = {claim: judged(claim) for claim in CLAIMS}
    assert all(explained(claim, store).verdict == watched[claim] for claim in CLAIMS)
    monkeypatch.setattr("mechtests.measured.Measured.watched", lambda self: self)
    assert {claim: judged(claim) for claim in CLAIMS} == watched


def test_a_users_own_prompts_are_explained_and_named_in_what_to_try(
    store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "mine.csv"
    names = [("John", "Mary"), ("Mary", "John"), ("Paul", "Anna"), ("Anna", "Paul")] * 8
    story = "Then, {} and {} went to the store. {} gave a ring to"
    rows = [f'"{story.format(io, s, s)}","{story.format(io, s, io)}", {io}, {s}' for io, s in names]
    file.write_text("\n".join(["clean,corrupted,answer,wrong", *rows, ""]))
    own = f"ioi={file}"
    found = explained(COPYING, store, prompts=[own])
    assert f"--mech-prompts={own}" in str(found)
    assert "--mech-prompts" not in str(explained(COPYING, store))
    with pytest.raises(UsageError, match="with a file that exists"):
        explained(COPYING, store, prompts=["ioi=nowhere.csv"])


def test_a_claim_over_several_tasks_needs_one(store: Store) -> None:
    with pytest.raises(UsageError, match="4 tasks of one claim: ioi"):
        explained("tigges2024.circuit-faithful", store)
    with pytest.raises(UsageError, match="2 of these"):
        mechtests.explain(INDUCTION, ["sprout-1m", "sprout-100k"], store=store, offline=True)


# ------------------------------------------------------------------------------- its words


def verdict(margin: float, values: list[float], rule: Any = above) -> Verdict:
    sample = Sample(np.array(values), np.arange(len(values)))
    return rule(sample, margin, what="x")  # type: ignore[no-any-return]


SPREAD = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]


@pytest.mark.parametrize("rule", [above, below])
@pytest.mark.parametrize("margin", [-3.0, 0.5, 4.5, 8.0, 20.0])
def test_the_tipping_margin_is_where_the_rule_tips(rule: Any, margin: float) -> None:
    found = verdict(margin, SPREAD, rule)
    low, high = found.interval or (0.0, 0.0)
    near, far, sign = (low, high, 1) if rule is above else (high, low, -1)
    assert verdict(near - sign * 1e-9, SPREAD, rule).outcome is Outcome.HOLDS
    assert verdict(near + sign * 1e-9, SPREAD, rule).outcome is not Outcome.HOLDS
    assert verdict(far + sign * 1e-9, SPREAD, rule).outcome is Outcome.REFUTED
    said = reporting.tipping(found)
    assert wording.number(near) in said
    assert ("would hold" in said) == (found.outcome is not Outcome.HOLDS)
    if found.outcome is Outcome.HOLDS:
        assert "holds with every margin" in said


def test_an_equivalence_tips_at_the_farther_end() -> None:
    found = verdict(1.0, SPREAD, equivalent)
    assert found.interval is not None
    assert wording.number(found.interval[1]) in reporting.tipping(found)
    assert reporting.tipping(Verdict(Outcome.REFUTED, "no head")) == ""


def test_the_part_that_decides_a_conjunction_is_explained() -> None:
    holds, sure, less = verdict(0.0, SPREAD), verdict(50.0, SPREAD), verdict(8.0, SPREAD)
    assert reporting.deciding(every(holds, less, sure, what="all")) is sure
    undecided = verdict(4.6, SPREAD)
    assert reporting.deciding(every(holds, undecided, what="all")) is undecided
    nearer = verdict(2.0, SPREAD)
    assert reporting.deciding(every(holds, nearer, what="all")) is nearer
    nested = every(holds, every(holds, sure, what="inner"), what="outer")
    assert reporting.deciding(nested) is sure
    assert reporting.deciding(holds) is holds


def test_the_short_form_says_the_margin_the_reached_control_and_the_command() -> None:
    claim = next(claim for claim in shipped.claims() if claim.id == COPYING)
    from mechtests.rules import beside
    from mechtests.verdict import Control

    reached = Control("random heads", "random heads: as much", reached=True)
    missed = Control("untrained", "untrained: nothing", reached=False)
    told = reporting.short(
        claim, beside(verdict(0.0, SPREAD), reached, missed), "mechtests explain x"
    )
    lines = told.splitlines()
    assert lines[0].startswith("inconclusive: x: ")
    assert lines[1] == f"  claimed: {claim.says}"
    assert "the margin is not what decides" in lines[2]
    assert lines[3].startswith("  control: random heads: as much")
    assert lines[4] == "  why:     mechtests explain x"
    assert "untrained" not in told


def test_a_long_prompt_is_cut_at_its_start() -> None:
    assert explanation_page.cut("a b", 12) == "a b"
    assert explanation_page.cut("one two three four", 12) == "...hree four"
    assert explanation_page.cut("a\n b", 12) == "a b"


def test_ascii_and_colour_change_no_word(store: Store) -> None:
    found = explained(INDUCTION, store)
    plain = explanation_page.render(found, ascii=True)
    assert plain.isascii()
    assert "\x1b[" in explanation_page.render(found, color=True)


def test_an_object_is_explained_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MECHTESTS_CACHE", str(tmp_path))
    model, tokenizer = sprout()
    found = mechtests.explain(INDUCTION, model, tokenizer)
    assert found.nearby is None
    assert "mechtests.judge(model" in found.advice[-1]
    assert list(tmp_path.rglob("*")) == []
