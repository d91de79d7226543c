from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformer_lens import head_detector

from mechtests.measurement import Head, Measurement
from mechtests.metrics.attention import head_scores
from mechtests.metrics.roles import induction_heads
from mechtests.models.network import Network
from mechtests.tape import Sites, Tape
from mechtests.tasks.prompts import Prompts, padded
from mechtests.tasks.repeated_tokens import repeated_tokens
from tests.measuring import batch_of, measure
from tests.planted import INDUCTION_NUMBERS, induction_network
from tests.tiny import VOCABULARY, tiny

PERIODS = (5, 9, 7)
REPEATS = repeated_tokens.generate(INDUCTION_NUMBERS, 8, np.random.default_rng(0))


def sequences(bos: bool) -> Prompts:
    """Repeats of distinct tokens of several lengths, so that rows are padded."""
    draw = np.random.default_rng(1)
    start = [0] if bos else []
    drawn = [(draw.permutation(VOCABULARY - 1)[: 2 * n] + 1).tolist() for n in PERIODS]
    clean = [start + 2 * ids[:n] for ids, n in zip(drawn, PERIODS, strict=True)]
    period = np.array(PERIODS)
    return Prompts(
        clean=padded(clean),
        length=len(start) + 2 * period,
        cluster=np.arange(3),
        template=np.zeros(3, dtype=np.int64),
        half=np.arange(3) % 2,
        texts=("", "", ""),
        corrupted={"no repeat": padded([start + ids for ids in drawn])},
        positions={"second": len(start) + period, "period": period},
    )


def scores(net: Network, prompts: Prompts) -> Measurement:
    return measure(net, head_scores, prompts, corruption="no repeat")


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("name", ["gpt_neox", "gpt2", "llama", "gptj"])
def test_scores_are_the_attention_that_transformerlens_finds_on_its_detection_patterns(
    name: str, bos: bool
) -> None:
    net, prompts = Network.from_model(tiny(name), name=name, check=False), sequences(bos)
    found = scores(net, prompts)
    detectors = {
        "induction": head_detector.get_induction_head_detection_pattern,
        "duplicate": head_detector.get_duplicate_token_head_detection_pattern,
        "previous": head_detector.get_previous_token_head_detection_pattern,
    }
    for row, (length, second) in enumerate(
        zip(prompts.length, prompts.positions["second"], strict=True)
    ):
        tokens = torch.from_numpy(prompts.clean[row : row + 1, :length])
        _, cache = net.bridge.run_with_cache(tokens)
        for kind, detect in detectors.items():
            wanted = detect(tokens)[second:].bool()
            if kind == "induction":
                # TransformerLens marks what followed any earlier occurrence: one key a query
                wanted &= torch.ones_like(wanted).tril(int(second) - 1)
            assert (wanted.sum(1) == 1).all()
            for layer in range(net.shape.layers):
                pattern = cache[f"blocks.{layer}.attn.hook_pattern"][0][:, second:]
                mean = (pattern * wanted).sum(-1).mean(-1)
                np.testing.assert_allclose(found[kind][row, layer], mean, atol=1e-5)


def test_the_unrepeated_score_looks_as_far_back_where_there_is_nothing() -> None:
    net, prompts = Network.from_model(tiny("qwen3"), name="tiny", check=False), sequences(True)
    found = scores(net, prompts)
    run = net.run(torch.from_numpy(prompts.corrupted["no repeat"]), keep=("pattern",))
    for row, period in enumerate(PERIODS):
        for layer, head in np.ndindex(net.shape.layers, net.shape.heads):
            looked = [
                float(run["pattern", layer][row, head, query, query - (period - 1)])
                for query in range(1 + period, 1 + 2 * period)
            ]
            assert found["induction_unrepeated"][row, layer, head] == pytest.approx(
                np.mean(looked), abs=1e-6
            )
    assert np.abs(found["induction_unrepeated"] - found["induction"]).max() > 0.01


def test_padding_and_order_of_sequences_do_not_matter() -> None:
    net, prompts = Network.from_model(tiny("gemma3"), name="tiny", check=False), sequences(False)
    together = scores(net, prompts)
    for row in (2, 0, 1):
        alone = scores(net, prompts.select(np.array([row])))
        for name in together.values:
            np.testing.assert_allclose(alone[name][0], together[name][row], atol=1e-5)


def test_uniform_attention_scores_one_over_the_keys_it_sees() -> None:
    model = tiny("llama")
    for block in model.model.layers:
        block.self_attn.q_proj.weight.zero_()
    prompts = sequences(False)
    found = scores(Network.from_model(model, name="uniform", check=False), prompts)
    for row, period in enumerate(PERIODS):
        wanted = np.mean([1 / (query + 1) for query in range(period, 2 * period)])
        for name in found.values:
            np.testing.assert_allclose(found[name][row], wanted, rtol=1e-5)


@pytest.mark.parametrize(("previous", "induction"), [((0, 2), (1, 1)), ((0, 0), (1, 3))])
def test_a_planted_induction_head_is_found_at_its_layer_and_head(
    previous: Head, induction: Head
) -> None:
    found = scores(induction_network(previous, induction), REPEATS)
    for half in ("selection", "evaluation"):
        assert found.strongest("induction", half) == induction
        assert found.strongest("previous", half) == previous
        assert induction_heads(found, half) == [induction]
    assert found["induction"][:, *induction].min() > 0.9
    assert found["previous"][:, *previous].min() > 0.9
    assert found["induction_unrepeated"][:, *induction].max() < 0.1
    assert found["duplicate"].max() < 0.1


def test_a_twin_without_an_induction_head_has_none() -> None:
    found = scores(induction_network(induction=None), REPEATS)
    assert found["induction"].max() < 0.1
    assert induction_heads(found, "selection") == []
    assert found["previous"][:, 0, 2].min() > 0.9


@pytest.mark.parametrize("name", ["gpt_neox", "llama", "gemma2"])
def test_what_the_prompts_share_is_run_once_and_changes_nothing(name: str) -> None:
    net, prompts = Network.from_model(tiny(name), name=name, check=False), sequences(bos=True)
    tape = Tape(net, prompts, budget=2**26)
    sites = Sites(frozenset(["pattern"]), {"no repeat": frozenset(["pattern@changed"])})
    whole = scores(net, prompts)["induction_unrepeated"]
    for played in tape.play(sites, Sites()):
        run = played.corrupted["no repeat"]
        assert run.start == played.prompts.positions["second"].min()
        assert run["pattern@changed", 1].shape[2] == played.prompts.length.max() - run.start
        batch = replace(
            batch_of(net, head_scores, prompts, corruption="no repeat"),
            prompts=played.prompts,
            clean=played.clean,
            corrupted=run,
        )
        found = head_scores.compute(batch)["induction_unrepeated"]
        np.testing.assert_allclose(found, whole[played.rows], atol=1e-6)
