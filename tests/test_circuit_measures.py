"""The measurements of circuits: which half finds them, which half judges them, and batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mechtests.circuits import finding, measures
from mechtests.circuits.attribution import attribute
from mechtests.circuits.evaluation import Evaluation
from mechtests.circuits.others import corrupted
from mechtests.measurement import Measurement
from mechtests.metrics.behaviour import logit_difference, probability_difference
from mechtests.metrics.metric import Metric
from mechtests.models.network import Network
from mechtests.tasks.greater_than import greater_than
from mechtests.tasks.ioi import ioi
from mechtests.tasks.prompts import Prompts
from mechtests.tasks.pronoun import pronoun
from mechtests.tasks.sva import sva
from tests.measuring import batch_of, measure, random_prompts
from tests.tiny import VOCABULARY, tiny

PROMPTS = random_prompts(VOCABULARY, n=12)
NET = Network.from_model(tiny("llama"), name="llama", check=False)
SHARE = 0.3


def with_params(of: Metric, **params: Any) -> Metric:
    return replace(of, params={**of.params, **params})


SCORES = measure(NET, measures.edge_scores, PROMPTS)
INPUTS = {"scores": SCORES}
SIZES = measure(NET, with_params(measures.sizes, share=SHARE), PROMPTS, inputs=INPUTS)
SMALL = measure(NET, measures.small, PROMPTS, inputs=INPUTS)


def rows(half: int) -> np.ndarray:
    return np.flatnonzero(PROMPTS.half == half)


@pytest.mark.parametrize(("number", "half"), [(0, "selection"), (1, "evaluation")])
def test_scores_of_a_half_are_those_of_its_prompts_alone(number: int, half: str) -> None:
    mine = PROMPTS.select(rows(number))
    found = attribute(
        NET,
        torch.from_numpy(mine.clean),
        torch.from_numpy(mine.corrupted["S2->IO"]),
        lambda resid, at: logit_difference(NET, resid, mine.select(at.numpy())),
        last=torch.from_numpy(mine.end),
    )
    expected = found * len(mine) / len(PROMPTS)
    np.testing.assert_allclose(SCORES[half], expected, atol=1e-6 * np.abs(expected).max())


def test_scores_of_batches_average_to_those_of_all_prompts() -> None:
    """As ``Work`` joins batches: weighted by their prompts; one batch has no evaluation prompt."""
    parts = [rows(0)[:4], np.r_[rows(0)[4:], rows(1)]]
    found = [
        measures.edge_scores.compute(batch_of(NET, measures.edge_scores, PROMPTS.select(part)))
        for part in parts
    ]
    for half in ("selection", "evaluation"):
        joined = np.average([np.asarray(each[half]) for each in found], 0, [len(p) for p in parts])
        np.testing.assert_allclose(joined, SCORES[half], atol=1e-6 * np.abs(SCORES[half]).max())
    np.testing.assert_array_equal(found[0]["evaluation"], 0.0)


def evaluated(prompts: Prompts, circuit: Any) -> np.ndarray:
    """What a circuit keeps on some prompts, by itself."""
    clean, other = (torch.from_numpy(t) for t in (prompts.clean, prompts.corrupted["S2->IO"]))
    others = corrupted(NET, clean, other, last=torch.from_numpy(prompts.end))
    metric = lambda resid: logit_difference(NET, resid, prompts)  # noqa: E731
    return Evaluation(NET, clean, others).values([circuit], metric)[0]


@pytest.mark.parametrize(("number", "finder"), [(1, "selection"), (0, "evaluation")])
def test_each_prompt_is_judged_with_the_circuit_that_the_other_half_found(
    number: int, finder: Any
) -> None:
    grid = finding.grid_of(finding.graph_of(SCORES), ratio=1.15, share=SHARE)
    order = finding.ordering(SCORES, finder, share=SHARE)
    mine = PROMPTS.select(rows(number))
    for place in (len(grid) // 2, len(grid) - 1):
        expected = evaluated(mine, order.circuit(int(grid[place])))
        np.testing.assert_allclose(SIZES["kept"][rows(number), place], expected, atol=1e-4)


def test_clean_and_corrupted_are_the_whole_and_the_empty_circuit() -> None:
    for found in (SIZES, SMALL):
        for name, tokens in (("clean", PROMPTS.clean), ("corrupted", PROMPTS.corrupted["S2->IO"])):
            run = NET.run(torch.from_numpy(tokens), last=torch.from_numpy(PROMPTS.end))
            expected = logit_difference(NET, run.final, PROMPTS).numpy()
            np.testing.assert_allclose(found[name], expected, atol=1e-4)


def test_the_small_circuit_is_of_the_size_that_was_best_on_the_selection_half() -> None:
    grid = finding.grid_of(finding.graph_of(SCORES), ratio=finding.COARSE)
    place = finding.best_size(SMALL, SMALL["circuit"], "selection")
    of = SMALL.of("selection")
    means = SMALL["circuit"][of].mean(0)
    assert means[place] == means.max()
    chosen = finding.chosen_circuit(SCORES, SMALL)
    assert chosen.size == finding.ordering(SCORES, "selection").circuit(int(grid[place])).size


def test_random_circuits_are_judged_on_the_evaluation_half_alone() -> None:
    found = measure(NET, measures.random, PROMPTS, inputs={**INPUTS, "small": SMALL}, draws=5)
    assert found["kept"].shape == (len(PROMPTS), 5)
    np.testing.assert_array_equal(found["kept"][rows(0)], 0.0)
    assert np.abs(found["kept"][rows(1)]).max() > 0


def test_few_prompts_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "WORKING_BYTES", 1)
    found = measure(NET, with_params(measures.sizes, share=SHARE), PROMPTS, inputs=INPUTS)
    np.testing.assert_allclose(found["kept"], SIZES["kept"], atol=1e-5)


def test_what_is_kept_is_what_the_gate_of_the_task_reads() -> None:
    named = {task.name: measures.measured_by(task) for task in (ioi, pronoun, greater_than, sva)}
    assert named == {
        "ioi": "logit_difference",
        "pronoun": "logit_difference",
        "greater_than": "probability_difference",
        "sva": "probability_difference",
    }


def test_a_probability_difference_can_be_attributed_too() -> None:
    metric = with_params(measures.edge_scores, metric="probability_difference", steps=40)
    found = measure(NET, metric, PROMPTS)
    assert isinstance(found, Measurement)
    last = torch.from_numpy(PROMPTS.end)
    ends = [
        probability_difference(NET, NET.run(torch.from_numpy(t), last=last).final, PROMPTS).numpy()
        for t in (PROMPTS.clean, PROMPTS.corrupted["S2->IO"])
    ]
    # the edges out of the input carry the whole change of the metric
    whole = sum(found[half][0].sum() for half in ("selection", "evaluation"))
    assert whole == pytest.approx((ends[0] - ends[1]).mean(), abs=0.05 * float(np.abs(ends).max()))


def test_the_graph_is_that_of_the_network_and_what_is_no_edge_has_no_score() -> None:
    graph = finding.graph_of(SCORES)
    assert (graph.layers, graph.heads) == (NET.shape.layers, NET.shape.heads)
    assert SCORES["selection"].shape == graph.allowed.shape
    assert not SCORES["selection"][~graph.allowed].any()
