from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests.metrics.behaviour import answers, logit_difference
from mechtests.models.network import Network
from mechtests.tasks.prompts import Prompts
from tests.measuring import measure, random_prompts
from tests.tiny import VOCABULARY, tiny

NET = Network.from_model(tiny("qwen2"), name="tiny", check=False)
PLAIN = tiny("qwen2")
ONE = random_prompts(VOCABULARY, n=8)
GROUPS = random_prompts(VOCABULARY, n=8, answers=3)
RAGGED = dataclasses.replace(
    GROUPS,
    right=np.where(np.arange(3) < 2, GROUPS.right, -1),
    wrong=np.where(np.arange(3) < 1, GROUPS.wrong, -1),
)


def rows_of_logits(tokens: np.ndarray, prompts: Prompts) -> np.ndarray:
    """Logits at END by the plain model, one unpadded prompt at a time."""
    rows = []
    for ids, length in zip(tokens, prompts.length, strict=True):
        with torch.no_grad():
            rows.append(PLAIN(torch.from_numpy(ids[:length])[None]).logits[0, -1].double().numpy())
    return np.stack(rows)


@pytest.mark.parametrize("prompts", [ONE, GROUPS, RAGGED])
def test_every_value_is_what_a_loop_over_the_plain_models_logits_gives(prompts: Prompts) -> None:
    found = measure(NET, answers, prompts)
    clean = rows_of_logits(prompts.clean, prompts)
    corrupted = rows_of_logits(prompts.corrupted["S2->IO"], prompts)
    for row in range(len(prompts)):
        right = [i for i in prompts.right[row] if i >= 0]
        wrong = [i for i in prompts.wrong[row] if i >= 0]
        p = np.exp(clean[row]) / np.exp(clean[row]).sum()
        wanted = {
            "logit_difference": clean[row][right].mean() - clean[row][wrong].mean(),
            "corrupted_logit_difference": corrupted[row][right].mean()
            - corrupted[row][wrong].mean(),
            "correct": float(clean[row][right].max() > clean[row][wrong].max()),
            "probability_difference": p[right].sum() - p[wrong].sum(),
            "rank": 1 + sorted(clean[row])[::-1].index(clean[row][right].max()),
        }
        for name, value in wanted.items():
            assert found[name][row] == pytest.approx(value, abs=2e-5), name


def test_a_prompt_that_is_padded_gives_what_it_gives_alone() -> None:
    together = measure(NET, answers, ONE)
    for row in range(len(ONE)):
        alone = measure(NET, answers, ONE.select(np.array([row])))
        for name in together.values:
            assert alone[name][0] == pytest.approx(together[name][row], abs=1e-5), name


@given(st.permutations(range(8)))
@settings(max_examples=10, deadline=None)
def test_the_order_of_prompts_does_not_matter(order: list[int]) -> None:
    straight = measure(NET, answers, GROUPS)
    turned = measure(NET, answers, GROUPS.select(np.array(order)))
    for name in straight.values:
        np.testing.assert_allclose(turned[name], straight[name][order], atol=1e-5)


def test_right_and_wrong_exchanged_change_the_sign() -> None:
    turned = dataclasses.replace(GROUPS, right=GROUPS.wrong, wrong=GROUPS.right)
    there, back = measure(NET, answers, GROUPS), measure(NET, answers, turned)
    for name in ("logit_difference", "corrupted_logit_difference", "probability_difference"):
        np.testing.assert_allclose(there[name], -back[name], atol=1e-6)
    np.testing.assert_array_equal(there["correct"], 1 - back["correct"])


def test_a_logit_difference_of_many_branches_is_that_of_each() -> None:
    resid = torch.randn(8, 2, 5, NET.shape.width, generator=torch.Generator().manual_seed(0))
    found = logit_difference(NET, resid, GROUPS)
    assert found.shape == (8, 2, 5)
    torch.testing.assert_close(found[:, 1, 3], logit_difference(NET, resid[:, 1, 3], GROUPS))
