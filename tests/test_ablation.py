from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from mechtests.matched import STRATA, matched_draws
from mechtests.measurement import Head, Measurement
from mechtests.metrics import ablation, behaviour, copying, effects
from mechtests.metrics.ablation import ablate_heads
from mechtests.metrics.behaviour import logit_difference
from mechtests.metrics.metric import Job
from mechtests.models.network import Network
from mechtests.tasks.ioi import ioi
from mechtests.tasks.prompts import Prompts
from tests.measuring import batch_of, measure, random_prompts
from tests.planted import IOI_WORDS, ioi_network
from tests.tiny import ARCHITECTURES, VOCABULARY, tiny

PROMPTS = random_prompts(VOCABULARY, n=8)
BY_SELECTION: list[Head] = [(0, 1), (2, 0), (2, 3)]
BY_EVALUATION: list[Head] = [(1, 2)]


def network(name: str) -> Network:
    return Network.from_model(tiny(name), name=name, check=False)


def inputs(
    net: Network,
    selection: Sequence[Head] = BY_SELECTION,
    evaluation: Sequence[Head] = BY_EVALUATION,
) -> dict[str, Measurement]:
    """Scores by which each half chooses the heads it is told to, and an ordering of effects."""
    shape = (len(PROMPTS), net.shape.layers, net.shape.heads)
    copied = np.zeros(shape)
    for half, heads in enumerate((selection, evaluation)):
        for layer, head in heads:
            copied[PROMPTS.half == half, layer, head] = 1.0
    effect = 1.0 + np.random.default_rng(5).random(shape)
    made = {
        "copying": {"copied": copied, "copied_absent": 0 * copied},
        "effects": {"direct_effect": effect},
    }
    scores = {
        name: Measurement(
            name=name,
            values=values,
            axes=dict.fromkeys(values, ("prompt", "layer", "head")),
            units={},
            cluster=PROMPTS.cluster,
            template=PROMPTS.template,
            half=PROMPTS.half,
        )
        for name, values in made.items()
    }
    return {**scores, "mean_z": measure(net, effects.mean_z, PROMPTS)}


def whole_run(net: Network, heads: Sequence[Head], by: str) -> np.ndarray:
    """How much the logit difference falls in whole runs whose z is edited at END."""
    tokens, last = torch.from_numpy(PROMPTS.clean), torch.from_numpy(PROMPTS.end)
    clean = net.run(tokens, keep=("z@end",), last=last)
    other = net.run(torch.from_numpy(PROMPTS.corrupted["S2->IO"]), keep=("z@end",), last=last)
    rows = torch.arange(len(PROMPTS))

    def edit(layer: int) -> object:
        def edited(z: torch.Tensor) -> torch.Tensor:
            z = z.clone()
            for head in (head for at, head in heads if at == layer):
                z[rows, last, head] = {
                    "resample": other["z@end", layer][:, head],
                    "mean": clean["z@end", layer][:, head].mean(0),
                    "zero": torch.tensor(0.0),
                }[by]
            return z

        return edited

    edits = {("z", layer): edit(layer) for layer, _ in heads}
    left = net.run(tokens, edits=edits, last=last).final
    drop = logit_difference(net, clean.final, PROMPTS) - logit_difference(net, left, PROMPTS)
    return drop.numpy()


def by_half(selection: np.ndarray, evaluation: np.ndarray) -> np.ndarray:
    """Each half's prompts with what the other half chose."""
    return np.where(PROMPTS.half == 1, selection, evaluation)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_drop_is_that_of_whole_runs_edited_at_end_with_the_other_halfs_heads(name: str) -> None:
    net = network(name)
    found = measure(net, ablate_heads, PROMPTS, inputs=inputs(net), draws=3)
    for value, by in (("drop", "resample"), ("drop_mean", "mean"), ("drop_zero", "zero")):
        wanted = by_half(*(whole_run(net, heads, by) for heads in (BY_SELECTION, BY_EVALUATION)))
        np.testing.assert_allclose(found[value], wanted, atol=2e-5, err_msg=value)
    assert np.abs(found["drop"]).max() > 1e-3


def test_random_draws_are_those_of_matched_sets_and_the_ceiling_has_the_largest_effects() -> None:
    net = network("gpt_neox")
    given = inputs(net)
    found = measure(net, ablate_heads, PROMPTS, inputs=given, draws=5)
    batch = batch_of(net, ablate_heads, PROMPTS, inputs=given, draws=5)
    sets = [ablation.sets_for(batch, half) for half in ("selection", "evaluation")]
    for draw in range(5):
        drops = [whole_run(net, mine.random.sets[draw], "resample") for mine in sets]
        np.testing.assert_allclose(found["drop_random"][:, draw], by_half(*drops[::-1]), atol=2e-5)
    effect = given["effects"]
    for mine, other, count in zip(sets, ("evaluation", "selection"), (1, 3), strict=True):
        assert len(mine.ceiling) == count
        mean = effect.mean("direct_effect", other)
        least = min(mean[head] for head in mine.ceiling)
        assert sorted(mean.flatten())[-count] == least
    ceilings = [whole_run(net, mine.ceiling, "resample") for mine in sets]
    np.testing.assert_allclose(found["drop_ceiling"], by_half(*ceilings[::-1]), atol=2e-5)


def test_what_was_ablated_is_said_by_half() -> None:
    net = network("llama")
    found = measure(net, ablate_heads, PROMPTS, inputs=inputs(net), draws=20)
    assert [tuple(head) for head in np.argwhere(found["ablated"][1])] == BY_SELECTION
    assert [tuple(head) for head in np.argwhere(found["ablated"][0])] == BY_EVALUATION
    # a single head of 12 offers 12 sets in all: they are enumerated; the three heads offer 24
    assert found["enumerated"].tolist() == [1.0, 0.0]
    assert found["draws"].tolist() == [12.0, 20.0]
    whole = {layer: range(4) for layer in range(3)}
    for half, heads in ((0, BY_EVALUATION), (1, BY_SELECTION)):
        stratum = matched_draws(heads, whole, 20, np.random.default_rng(0)).stratum
        assert STRATA[int(found["stratum"][half])] == stratum


def test_enumerated_sets_come_again_from_the_first_where_there_are_too_few() -> None:
    net = network("llama")
    drops = measure(net, ablate_heads, PROMPTS, inputs=inputs(net), draws=20)["drop_random"]
    on_selection = drops[PROMPTS.half == 0]
    np.testing.assert_array_equal(on_selection[:, :8], on_selection[:, 12:])
    assert len(np.unique(on_selection[0, :12])) == 12


def test_no_name_mover_gives_no_drop_and_says_that_there_is_none() -> None:
    net = network("gptj")
    found = measure(net, ablate_heads, PROMPTS, inputs=inputs(net, [], []), draws=3)
    for name in ("drop", "drop_mean", "drop_zero", "drop_ceiling", "drop_random"):
        np.testing.assert_array_equal(found[name], np.zeros_like(found[name]))
    assert found["ablated"].sum() == 0


def test_one_half_without_a_name_mover_leaves_the_other_alone() -> None:
    net = network("gptj")
    found = measure(net, ablate_heads, PROMPTS, inputs=inputs(net, BY_SELECTION, []), draws=3)
    assert (found["drop"][PROMPTS.half == 0] == 0).all()
    both = measure(net, ablate_heads, PROMPTS, inputs=inputs(net), draws=3)
    on_evaluation = PROMPTS.half == 1
    np.testing.assert_allclose(found["drop"][on_evaluation], both["drop"][on_evaluation], atol=1e-6)


def test_batches_draw_the_same_sets_and_give_the_same_drops() -> None:
    net = network("gemma3")
    given = inputs(net)
    together = measure(net, ablate_heads, PROMPTS, inputs=given, draws=4)
    for rows in (np.array([0, 1]), np.array([7, 2, 5])):
        part = measure(net, ablate_heads, PROMPTS.select(rows), inputs=given, draws=4)
        for name, value in ablate_heads.values.items():
            wanted = together[name][rows] if value.axes[0] == "prompt" else together[name]
            np.testing.assert_allclose(part[name], wanted, atol=2e-5, err_msg=name)


def test_little_memory_gives_the_same_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network("gpt2")
    given = inputs(net)
    together = measure(net, ablate_heads, PROMPTS, inputs=given, draws=4)
    monkeypatch.setattr(effects, "WORKING_BYTES", 1)
    alone = measure(net, ablate_heads, PROMPTS, inputs=given, draws=4)
    for name in ablate_heads.values:
        np.testing.assert_allclose(alone[name], together[name], atol=2e-5, err_msg=name)


def test_the_cost_is_every_branch_through_every_block_at_end() -> None:
    shape = network("gpt2").shape
    cost = ablate_heads.cost(Job(shape, 10, 12, 19, {}))
    attended = 2 * 3 * 64 * 12
    assert cost.flops == 2 * 10 * (4 + 19) * (shape.block_parameters + attended)


def planted(net: Network) -> tuple[Prompts, dict[str, Measurement]]:
    prompts = ioi.generate(IOI_WORDS, 60, np.random.default_rng(0))
    made = {
        "copying": measure(net, copying.copy_scores, prompts),
        "effects": measure(net, effects.direct_effects, prompts),
        "mean_z": measure(net, effects.mean_z, prompts),
    }
    return prompts, made


@pytest.mark.parametrize("mover", [(2, 5), (2, 0)])
def test_a_planted_name_mover_is_found_and_its_ablation_turns_the_answer(mover: Head) -> None:
    net = ioi_network(mover)
    prompts, made = planted(net)
    assert made["copying"].strongest("copied", "selection") == mover
    assert made["copying"].mean("copied")[mover] == 1.0
    assert made["copying"].mean("copied_absent")[mover] < 0.1
    assert made["effects"].strongest("direct_effect", "selection") == mover
    span = made["effects"]["clean"] - made["effects"]["corrupted"]
    np.testing.assert_allclose(made["effects"]["direct_effect"][:, *mover], span, rtol=0.01)
    found = measure(net, ablate_heads, prompts, inputs=made)
    assert np.argwhere(found["ablated"]).tolist() == [[0, *mover], [1, *mover]]
    np.testing.assert_allclose(found["drop"], span, rtol=0.01)
    for name, tolerance in (("drop_mean", 0.2), ("drop_zero", 0.01)):
        np.testing.assert_allclose(found[name], made["effects"]["clean"], rtol=tolerance)
    harmless = np.abs(found["drop_random"]) < 0.1
    assert harmless.mean() > 0.75


def test_a_twin_without_a_name_mover_has_none() -> None:
    net = ioi_network(mover=None)
    prompts, made = planted(net)
    assert made["copying"].mean("copied").max() < 0.1
    assert np.abs(made["effects"]["direct_effect"]).max() < 0.1
    found = measure(net, ablate_heads, prompts, inputs=made)
    assert found["ablated"].sum() == 0
    assert np.abs(found["drop"]).max() == 0


def test_a_network_in_half_precision_gives_single_precision_values_near_its_own() -> None:
    whole = network("llama")
    half = Network.from_model(tiny("llama", dtype=torch.bfloat16), name="half", check=False)
    wanted: dict[str, Measurement] = {}
    for net, made in ((whole, wanted), (half, {})):
        made["behaviour"] = measure(net, behaviour.answers, PROMPTS)
        made["effects"] = measure(net, effects.direct_effects, PROMPTS)
        made["copying"] = measure(net, copying.copy_scores, PROMPTS)
        made["mean_z"] = measure(net, effects.mean_z, PROMPTS)
        scores = {"effects": inputs(net)["effects"], "copying": inputs(net)["copying"]}
        given = {**scores, "mean_z": made["mean_z"]}
        made["ablation"] = measure(net, ablate_heads, PROMPTS, inputs=given, draws=3)
    for name, measurement in made.items():
        for value, array in measurement.values.items():
            assert array.dtype == np.float32, (name, value)
            scale = np.abs(wanted[name][value]).mean() + 1.0
            assert np.abs(array - wanted[name][value]).mean() < 0.1 * scale, (name, value)
