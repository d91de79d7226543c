from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mechtests
from mechtests import engine
from mechtests.errors import LoadError, NotApplicable, UsageError
from mechtests.metrics import attention
from mechtests.models import sources
from mechtests.opening import Opened
from mechtests.settings import Settings
from mechtests.store import Store
from mechtests.tasks.ioi import ioi
from mechtests.tasks.repeated_tokens import repeated_tokens
from mechtests.verdict import Outcome
from tests.fake_source import FakeSource
from tests.saved import word_tokenizer
from tests.test_direct import INDUCTION, small

NAME = "sprout-100k"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return mechtests.open(NAME, store=tmp_path_factory.mktemp("store"), offline=True)


def test_importing_mechtests_loads_nothing_heavy_and_knows_its_names() -> None:
    code = (
        "import sys, mechtests; names = [n for n in mechtests.__all__ if n != 'claim']; "
        "print([m for m in ('torch', 'transformers', 'numpy', 'mechtests.direct') "
        "if m in sys.modules]); print(all(getattr(mechtests, n) for n in names))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert done.stdout.split("\n")[:2] == ["[]", "True"]
    with pytest.raises(AttributeError, match="nonesuch"):
        mechtests.nonesuch  # noqa: B018


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    source = FakeSource()
    cell = Opened(source.cell, Settings(), Store("memory://opened"))
    assert "tiny-llama" in repr(cell)
    assert source.loads == []
    assert cell.network is cell.network
    assert source.loads == ["trained"]


def test_its_prompts_are_those_that_are_measured(opened: Opened) -> None:
    plain = engine.prompts_of(ioi, opened.tokenizer, opened.settings)
    assert opened.prompts("ioi").digest == plain.digest == opened.prompts(ioi).digest
    measured = opened.measurement("behaviour.answers", "ioi")
    assert measured.facts["prompts"] == plain.digest
    with pytest.raises(UsageError, match="no task is called 'io'"):
        opened.prompts("io")


def test_its_activations_are_those_of_the_plain_model(opened: Opened) -> None:
    plain = sources.resolve(NAME).load(None, dtype="float32", device="cpu", offline=True).model
    prompts = opened.prompts("ioi").select(np.array([0, 3]))
    tokens = torch.from_numpy(prompts.clean)
    with torch.no_grad():
        hidden = plain(input_ids=tokens, output_hidden_states=True).hidden_states[1]
    found = opened.activations("ioi", "resid_post.0", "resid_post.0@end", rows=[0, 3])
    torch.testing.assert_close(found["resid_post", 0], hidden, atol=1e-4, rtol=1e-4)
    ends = hidden[torch.arange(2), torch.from_numpy(prompts.end)]
    torch.testing.assert_close(found["resid_post@end", 0], ends, atol=1e-4, rtol=1e-4)


def test_a_corrupted_run_and_an_edit_change_what_is_behind_them(opened: Opened) -> None:
    clean = opened.activations("ioi", "final").final
    other = opened.activations("ioi", "final", corruption=ioi.corruption).final
    edited = opened.activations("ioi", "final", edits={("z", 0): torch.zeros_like}).final
    assert not torch.allclose(clean, other)
    assert not torch.allclose(clean, edited)
    with pytest.raises(UsageError, match="no corrupted variant 'x'"):
        opened.activations("ioi", "final", corruption="x")


def test_measurements_go_by_name_by_metric_and_by_claim(opened: Opened) -> None:
    by_name = opened.measurement("attention.head_scores")
    by_metric = opened.measurement(attention.head_scores, "repeated_tokens")
    by_need = opened.measurement(attention.head_scores(repeated_tokens))
    by_claim = opened.measured(INDUCTION).scores
    for each in (by_metric, by_need, by_claim):
        np.testing.assert_array_equal(each["induction"], by_name["induction"])
    with pytest.raises(UsageError, match=r"no claim reads a metric 'attention\.heads'"):
        opened.measurement("attention.heads")
    with pytest.raises(UsageError, match=r"no claim reads attention\.head_scores on ioi"):
        opened.measurement("attention.head_scores", "ioi")
    with pytest.raises(UsageError, match="name it"):
        opened.measurement(attention.head_scores)


def test_a_claim_s_verdict_is_that_of_judging(opened: Opened) -> None:
    judged = mechtests.judge(NAME, claims=INDUCTION, store=opened.store, offline=True)
    assert opened.verdict(INDUCTION) == judged[INDUCTION]


def test_what_a_gate_hides_is_said_and_not_measured() -> None:
    cell = mechtests.open(small(), word_tokenizer())
    verdict = cell.verdict("tigges2024.copying-heads-present")
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    with pytest.raises(NotApplicable, match="does not do the task ioi"):
        cell.measured("tigges2024.copying-heads-present")


def test_a_checkpoint_is_opened_by_its_name() -> None:
    cell = mechtests.open("sprout-1m", checkpoint="step781", store="memory://none", offline=True)
    assert cell.cell.id == "sprout-1m:step781"
    with pytest.raises(UsageError, match="names 2: sprout-1m:step0, sprout-1m:step781"):
        mechtests.open("sprout-1m", checkpoint="step0,step781", offline=True)
    with pytest.raises(UsageError, match="did you mean"):
        mechtests.open("sprout-1")


def test_a_cell_that_cannot_be_loaded_says_why() -> None:
    cell = Opened(FakeSource(broken="load").cell, Settings(), Store("memory://broken"))
    with pytest.raises(LoadError, match="truncated"):
        cell.measurement("behaviour.answers", "ioi")


def test_the_fixture_of_that_name_is_the_test_s_cell(
    pytester: pytest.Pytester, tmp_path: Path
) -> None:
    pytest.importorskip("mechtests.session")
    from mechtests.session import Judge

    if not hasattr(Judge, "opened"):
        pytest.skip("session.Judge has no .opened yet")
    pytester.makepyfile(
        """
        from mechtests import claim
        from mechtests.metrics import attention
        from mechtests.tasks.repeated_tokens import repeated_tokens
        from mechtests.verdict import exactly

        NEED = attention.head_scores(repeated_tokens)

        @claim("mine.x", says="", task=repeated_tokens, needs={"scores": NEED})
        def test_x(measured, judge, opened):
            same = opened.measurement(NEED)["induction"] == measured.scores["induction"]
            assert opened is judge.opened
            judge(exactly(bool(same.all()), "the same measurement"))
        """
    )
    done = pytester.runpytest_subprocess(
        "--model", NAME, "--mech-cache", str(tmp_path / "c"), "-p", "no:randomly"
    )
    done.assert_outcomes(passed=1)
