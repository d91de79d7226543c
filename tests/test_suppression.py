from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mechtests.errors import MeasurementError
from mechtests.measurement import Measurement
from mechtests.metrics import suppression
from mechtests.metrics.divergence import Original, log_weights, sampled
from mechtests.metrics.metric import Job
from mechtests.metrics.preserving import kept_tokens
from mechtests.metrics.suppression import (
    contrast,
    cspa,
    mean_z_by_position,
    score,
    scores,
    suppression_heads,
)
from mechtests.models.network import Network
from mechtests.tasks.prompts import Prompts
from mechtests.tasks.text import documents, read, text
from tests.measuring import measure
from tests.plain_weights import Plain, loaded_smollm2, plain
from tests.planted import Stream
from tests.tiny import ARCHITECTURES, VOCABULARY, tiny
from tests.words import Numbers

HEADS = {
    "smollm2": [(24, 4), (24, 0)],
    "gpt_neox": [(0, 1), (1, 3), (2, 0)],
    "llama": [(0, 1), (1, 3), (2, 0)],
}
EVERY = 10**6
PROSE = (Path(__file__).parents[1] / "CONTRIBUTING.md", Path(__file__).parents[1] / "README.md")


# ---------------------------------------------------------------- the definition, slowly


def texts(vocabulary: int, n: int = 6, length: int = 24, seed: int = 0) -> Prompts:
    """Random documents in which half of the tokens come from a few; some are function words."""
    draw = np.random.default_rng(seed)
    few = draw.choice(np.arange(1, vocabulary), 8, replace=False)
    rare = draw.integers(1, vocabulary, (n, length))
    clean = np.where(draw.random((n, length)) < 0.5, draw.choice(few, (n, length)), rare)
    made = documents(Numbers(vocabulary), clean.tolist())
    return replace(made, tokens={"function": np.isin(clean, (*few[:2], 5, 6, 7)).astype(int)})


@lru_cache
def prompts_of(name: str) -> Prompts:
    if name != "smollm2":
        return texts(VOCABULARY)
    tokenizer = loaded_smollm2().tokenizer
    every = read(tokenizer, str(PROSE_FILE), 17)
    return every.select(np.arange(4))


PROSE_FILE = Path(__file__).with_name("test_suppression.py")  # replaced by the fixture below


@pytest.fixture(autouse=True, scope="module")
def prose(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The project's own pages as a text for a real model."""
    file = tmp_path_factory.mktemp("text") / "prose.txt"
    file.write_text("\n\n".join(path.read_text(encoding="utf-8") for path in PROSE))
    globals()["PROSE_FILE"] = file


@lru_cache
def network(name: str) -> Network:
    model = copy.deepcopy(loaded_smollm2().model) if name == "smollm2" else tiny(name)
    return Network.from_model(model, name=name, check=False)


class Slow:
    """Hugging Face's own run of some documents, and one head's ablations from the definition."""

    def __init__(self, model: Plain, prompts: Prompts) -> None:
        self.model, self.prompts = model, prompts
        norm, weight = model.final_norm, model.unembed.weight.double()
        self.centred = getattr(norm, "bias", None) is not None
        self.gain = norm.weight.double()
        folded = self.centre((weight - weight.mean(0)) * self.gain)
        self.unembedding = folded  # [token, width], of the folded and centred model
        self.runs = [self.run(tokens.tolist()) for tokens in prompts.clean]

    def centre(self, x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def run(self, tokens: list[int]) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
        """Residual streams before each block, attention, the last stream, and its logits."""
        last: list[Tensor] = []
        hook = self.model.final_norm.register_forward_pre_hook(lambda _, x: last.append(x[0]))
        out = self.model.model(
            torch.tensor([tokens]), output_attentions=True, output_hidden_states=True
        )
        hook.remove()
        streams = [stream[0] for stream in out.hidden_states]
        attention = [pattern[0].double() for pattern in out.attentions]
        return streams, attention, last[0][0].double(), out.logits[0].double()

    def scale(self, x: Tensor) -> Tensor:
        norm = self.model.final_norm
        eps = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
        return (self.centre(x).square().mean(-1, keepdim=True) + eps).sqrt()

    def values(self, row: int, layer: int, head: int) -> Tensor:
        """What each source position would write, ``[key, width]``."""
        maps = self.model.head(layer, head)
        v = self.model.ln1(layer)(self.runs[row][0][layer]) @ maps.value.T
        v = v if maps.value_bias is None else v + maps.value_bias
        return v.double() @ maps.output.double().T

    def kept(self, row: int, layer: int, query: int) -> list[int]:
        """Source positions whose token the query predicts enough."""
        tokens, function = self.prompts.clean[row], self.prompts.tokens["function"][row]
        final_scale = self.scale(self.runs[row][2])
        resid = self.centre(self.runs[row][0][layer][query].double()) / final_scale[query]
        logit = {int(t): float(resid @ self.unembedding[t]) for t in tokens[: query + 1]}
        allowed = {int(t) for k, t in enumerate(tokens[: query + 1]) if not function[k]}
        most = math.ceil((query + 1) * 5 / 100)
        best = sorted(allowed, key=lambda token: -logit[token])[:most]
        return [k for k in range(query + 1) if int(tokens[k]) in best]

    def divergences(self, layer: int, head: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean-ablated and preserved, each ``[prompt]``."""
        rows = range(len(self.prompts))
        written = [self.values(row, layer, head) for row in rows]
        patterns = [self.runs[row][1][layer][head] for row in rows]
        results = torch.stack([a @ w for a, w in zip(patterns, written, strict=True)])
        mean = results.mean(0)
        found = np.zeros((2, len(rows)))
        for row in rows:
            tokens = self.prompts.clean[row]
            preserved = []
            for query in range(len(tokens)):
                total = torch.zeros_like(mean[0])
                kept = self.kept(row, layer, query)
                for key in range(query + 1):
                    attention = patterns[row][query, key]
                    usual = attention * mean[query]
                    term = usual
                    if key in kept:
                        direction = self.unembedding[int(tokens[key])]
                        direction = direction / direction.norm()
                        along = (attention * written[row][key] - usual) @ direction
                        term = usual + min(float(along), 0.0) * direction
                    total = total + term
                preserved.append(total)
            for which, output in enumerate((mean, torch.stack(preserved))):
                found[which, row] = float(self.divergence(row, output - results[row]).mean())
        return found[0], found[1]

    def divergence(self, row: int, change: Tensor) -> Tensor:
        _, _, final, logits = self.runs[row]
        # the norm's bias and the unembedding's are in the logits; the scale is frozen
        moved = logits + self.centre(change) / self.scale(final) @ self.unembedding.T
        before, after = logits.log_softmax(-1), moved.log_softmax(-1)
        return (before.exp() * (before - after)).sum(-1)


def measured(net: Network, prompts: Prompts, *, tokens: int = EVERY) -> Measurement:
    prompts = replace(prompts, corrupted={"S2->IO": prompts.clean})  # which nothing reads
    mean = measure(net, mean_z_by_position, prompts)
    return measure(net, replace(cspa, params={"tokens": tokens}), prompts, inputs={"mean": mean})


@pytest.fixture
def some_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of SmolLM2 a few layers with the whole vocabulary, which all would take minutes for."""
    monkeypatch.setattr(
        suppression, "judged_layers", lambda n: range(n) if n <= 4 else range(24, 25)
    )


@torch.no_grad()
@pytest.mark.parametrize("name", HEADS)
@pytest.mark.usefixtures("some_layers")
def test_scores_equal_the_definition_with_every_logit_one_source_at_a_time(name: str) -> None:
    prompts = prompts_of(name)
    found = measured(network(name), prompts)
    slow = Slow(plain(name), prompts)
    ours = score(found["kl_preserved"], found["kl_mean_ablated"])
    expected = []
    for layer, head in HEADS[name]:
        ablated, preserved = slow.divergences(layer, head)
        assert ablated.mean() > 1e-4
        np.testing.assert_allclose(found["kl_mean_ablated"][:, layer, head], ablated, rtol=1e-3)
        theirs = 1 - preserved.sum() / ablated.sum()
        assert ours[layer, head] == pytest.approx(theirs, abs=1e-4)
        expected.append(theirs)
    assert max(map(abs, expected)) > 1e-3  # ten times the tolerance


@pytest.mark.usefixtures("some_layers")
def test_a_sample_of_the_vocabulary_gives_the_same_scores() -> None:
    net, prompts = network("smollm2"), prompts_of("smollm2")
    whole, some = measured(net, prompts), measured(net, prompts, tokens=suppression.TOKENS)
    heads = [(24, head) for head in range(9)]
    exact, estimated = scores(whole), scores(some)
    for at in heads:
        assert estimated[at] == pytest.approx(exact[at], abs=1e-3, nan_ok=True)
    for name in whole.values:
        np.testing.assert_allclose(some[name].mean(0)[24], whole[name].mean(0)[24], rtol=5e-3)


# ---------------------------------------------------------------- planted heads

SUPPRESSOR = (1, 2)
PLANTED_TOKENS = 60


def planted(gain: float | None) -> Network:
    """A bigram model that predicts what it just read, and a head that attends to it there.

    The head attends to where the present token, which the stream predicts, stands in the context,
    and writes ``gain`` times its code: below 0 against it, above 0 for it. None: noise alone.
    """
    stream = Stream(tokens=PLANTED_TOKENS, positions=40, width=256, heads=4, layers=2)
    tokens = range(1, PLANTED_TOKENS)
    if gain is not None:
        stream.plant(
            SUPPRESSOR,
            query={t: {t: 40.0} for t in tokens},
            key={t: {t: 1.0} for t in tokens},
            value={t: {t: 1.0} for t in tokens},
            output={t: t for t in tokens},
            gain=gain,
        )
    return stream.network()


def planted_documents() -> Prompts:
    made = texts(PLANTED_TOKENS, n=16, length=40, seed=3)
    return replace(made, tokens={"function": np.zeros_like(made.clean)})


def test_a_planted_suppressor_is_found_by_its_layer_and_head() -> None:
    found = measured(planted(-0.3), planted_documents())
    assert suppression_heads(found, "selection") == [SUPPRESSOR]
    assert suppression_heads(found, "evaluation") == [SUPPRESSOR]
    assert scores(found)[SUPPRESSOR] > 0.9
    assert contrast(found, 0.1, "evaluation", *SUPPRESSOR).values.min() > 0


def test_a_planted_head_that_copies_instead_is_none() -> None:
    found = measured(planted(0.3), planted_documents())
    assert found["kl_mean_ablated"].mean(0)[SUPPRESSOR] > 1e-3
    assert suppression_heads(found, "selection") == []
    assert scores(found)[SUPPRESSOR] < 0.1
    assert contrast(found, 0.1, "evaluation", *SUPPRESSOR).mean < 0


def test_heads_that_write_next_to_nothing_have_no_score_and_no_role() -> None:
    found = measured(planted(None), planted_documents())
    assert np.isnan(scores(found)).all()
    assert suppression_heads(found, "selection") == []


def test_function_words_are_never_suppressed() -> None:
    made = planted_documents()
    everything = replace(made, tokens={"function": np.ones_like(made.clean)})
    found = measured(planted(-0.3), everything)
    np.testing.assert_array_equal(found["kl_preserved"], found["kl_mean_ablated"])
    assert scores(found)[SUPPRESSOR] == 0.0


# ---------------------------------------------------------------- limits


def kls(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape) + 0.01


def test_preserving_everything_scores_1_and_nothing_0() -> None:
    ablated = kls(5, 3, 2)
    np.testing.assert_array_equal(score(np.zeros_like(ablated), ablated), np.ones((3, 2)))
    np.testing.assert_array_equal(score(ablated, ablated), np.zeros((3, 2)))


@given(scale=st.floats(0.0, 3.0), faint=st.floats(0.0, 0.9999e-4))
def test_a_score_is_a_ratio_of_sums_and_undefined_below_1e_4_nats(
    scale: float, faint: float
) -> None:
    ablated = kls(5, 1, 2)
    ablated[:, 0, 1] = faint
    found = score(scale * ablated, ablated)
    assert found[0, 0] == pytest.approx(1 - scale)
    assert math.isnan(found[0, 1])


@given(level=st.floats(-1.0, 1.0), seed=st.integers(0, 100))
def test_the_contrast_is_above_0_on_average_exactly_where_the_score_is_above_the_level(
    level: float, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    values = {"kl_mean_ablated": draw.random((8, 1, 2)), "kl_preserved": draw.random((8, 1, 2))}
    made = Measurement(
        name="made",
        values=values,
        axes=dict.fromkeys(values, ("prompt", "layer", "head")),
        units=dict.fromkeys(values, "nats"),
        cluster=np.arange(8),
        template=np.zeros(8, dtype=int),
        half=np.arange(8) % 2,
    )
    above = contrast(made, level, "evaluation", 0, 1).mean > 0
    assert above == (scores(made, "evaluation")[0, 1] > level)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_divergence_is_below_0_and_documents_do_not_matter_to_one_another(name: str) -> None:
    net, prompts = network(name), texts(VOCABULARY)
    together = measured(net, prompts)
    assert all((found >= 0).all() for found in together.values.values())
    assert together["kl_mean_ablated"].mean() > 1e-4
    mean = measure(net, mean_z_by_position, replace(prompts, corrupted={"S2->IO": prompts.clean}))
    alone = prompts.select(np.array([4]))
    alone = replace(alone, corrupted={"S2->IO": alone.clean})
    found = measure(net, cspa, alone, inputs={"mean": mean})
    for value, expected in together.values.items():
        np.testing.assert_allclose(found[value][0], expected[4], atol=1e-6, rtol=1e-4)


def test_gemmas_softcap_and_post_norms_are_those_of_a_run_with_the_scales_frozen() -> None:
    net, prompts = network("gemma2"), texts(VOCABULARY)
    found = measured(net, prompts)["kl_mean_ablated"]
    kept = ("z", "attn_out", "resid_post")
    run = net.run(torch.from_numpy(prompts.clean), keep=kept)
    for layer, head in [(0, 1), (2, 3)]:
        block = net.blocks[layer]
        assert block.attention_post is not None
        raw = block.output(run["z", layer].flatten(-2))
        one = run["z", layer][:, :, head] @ block.W_O[head] * block.attention_post.gain
        one = one / block.attention_post.scale(raw)
        final = run["resid_post", net.shape.layers - 1]
        change = (one.mean(0) - one) * net.final_norm.gain / net.final_norm.scale(final)
        logits = net.unembedding(net.final_norm(final))
        capped = [
            torch.tanh((logits + each) / 4.0) * 4.0 for each in (0.0, net.unembedding(change))
        ]
        before, after = (each.log_softmax(-1) for each in capped)
        expected = (before.exp() * (before - after)).sum(-1).mean(1)
        np.testing.assert_allclose(found[:, layer, head], expected, rtol=1e-3, atol=1e-7)


def test_documents_of_several_lengths_have_no_mean_at_a_position() -> None:
    uneven = replace(texts(VOCABULARY, n=2), length=np.array([3, 4]))
    with pytest.raises(MeasurementError, match="documents of one length, got lengths of 3 to 4"):
        measured(network("llama"), uneven)


@pytest.mark.parametrize(("layers", "first"), [(3, 0), (4, 0), (5, 2), (30, 2)])
def test_layers_from_2_on_are_judged_and_all_of_a_shallow_model(layers: int, first: int) -> None:
    assert suppression.judged_layers(layers) == range(first, layers)


# ---------------------------------------------------------------- the parts


def test_of_the_tokens_so_far_the_most_predicted_are_kept_wherever_they_stand() -> None:
    tokens = torch.tensor([7, 3, 7, 5, 3])
    lens = torch.tensor([1.0, 2.0, 1.0, 9.0, 2.0]).expand(5, 5)
    function = torch.tensor([0, 0, 0, 1, 0])
    kept = kept_tokens(lens, tokens, function)
    assert kept.int().tolist() == [
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 1, 0, 0, 1],
    ]


def test_a_position_keeps_a_twentieth_of_its_context_rounded_up() -> None:
    tokens = torch.arange(61)
    lens = torch.randn(61, 61, generator=torch.Generator().manual_seed(0))
    kept = kept_tokens(lens, tokens, torch.zeros(61))
    assert kept.sum(1).tolist() == [math.ceil((q + 1) * 5 / 100) for q in range(61)]


@given(
    seed=st.integers(0, 1000),
    vocabulary=st.integers(2, 200),
    most=st.integers(1, 250),
    sharp=st.floats(0.0, 5.0),
)
@settings(max_examples=60, deadline=None)
def test_a_sample_takes_as_many_tokens_as_asked_and_weighs_the_likely_ones_as_they_are(
    seed: int, vocabulary: int, most: int, sharp: float
) -> None:
    draw = np.random.default_rng(seed)
    p = torch.softmax(sharp * torch.from_numpy(draw.standard_normal(vocabulary)), 0).float()
    tokens, weights = sampled(p, most, float(draw.random()))
    assert len(set(tokens.tolist())) == len(tokens)
    assert abs(len(tokens) - min(most, vocabulary)) <= 1
    assert bool((weights >= p[tokens] * (1 - 1e-5)).all())
    if len(tokens) == vocabulary:
        torch.testing.assert_close(weights, p[tokens], rtol=1e-4, atol=1e-7)


def test_a_sample_is_right_on_average() -> None:
    p = torch.softmax(torch.linspace(0, 4, 50), 0)
    value = torch.linspace(-1, 2, 50).square()
    estimates = []
    for offset in (np.arange(2000) + 0.5) / 2000:
        tokens, weights = sampled(p, 12, float(offset))
        estimates.append(float((weights * value[tokens]).sum()))
    assert np.mean(estimates) == pytest.approx(float(p @ value), rel=2e-3)


@given(seed=st.integers(0, 1000), size=st.floats(1e-4, 5.0), softcap=st.sampled_from([None, 3.0]))
@settings(max_examples=40, deadline=None)
def test_a_divergence_is_that_of_the_two_distributions(
    seed: int, size: float, softcap: float | None
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(30, 8, generator=generator)
    logits = 2 * torch.randn(30, generator=generator)
    change = size * torch.randn(4, 8, generator=generator)

    def cap(x: torch.Tensor) -> torch.Tensor:
        return x if softcap is None else torch.tanh(x / softcap) * softcap

    log_p = cap(logits).log_softmax(-1)
    p = log_p.exp()
    found = Original(rows, p, log_p, p @ rows, logits, softcap).divergence(change)
    before = cap(logits).double().log_softmax(-1)
    after = cap(logits.double() + change.double() @ rows.double().T).log_softmax(-1)
    expected = (before.exp() * (before - after)).sum(-1).float()
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-8)
    assert bool((found >= 0).all())


def test_a_change_that_turns_a_sure_prediction_over_is_measured_in_full() -> None:
    logits, rows = torch.tensor([0.0, -150.0, -160.0]), torch.eye(3)
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    everything = torch.arange(3)
    logs = log_weights(log_p, everything, p)
    found = Original(rows, p, logs, p @ rows, None, None)
    change = torch.tensor([[0.0, 200.0, 0.0], [0.0, 100.0, 0.0]])
    after = (logits + change).log_softmax(-1)
    expected = (p * (log_p - after)).nan_to_num().sum(-1)
    assert float(p[1]) == 0.0
    torch.testing.assert_close(found.divergence(change), expected)


def test_the_cost_counts_both_changes_of_every_judged_head() -> None:
    shape = network("llama").shape
    cost = cspa.cost(Job(shape, 10, 24, 0, {"tokens": 2048}))
    logits = 2 * 3 * 4 * 64 * VOCABULARY
    changes = 3 * 4 * 64 * (16 + 24)
    kept = 3 * 4 * 16 * (64 + 24 + 1)
    runs = 3 * (64 + 3 * 64) * 24
    original = 2 * 64 * VOCABULARY + shape.block_parameters / 3
    assert cost.flops == 2 * 10 * 24 * (logits + changes + kept + runs + original)


def test_the_declaration_is_on_text_and_starts_from_the_mean() -> None:
    need = cspa(text, inputs={"mean": mean_z_by_position(text)})
    assert [each.metric.name for each in need.everything()] == [
        "suppression.mean_z_by_position",
        "suppression.cspa",
    ]
