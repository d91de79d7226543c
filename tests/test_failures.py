"""Failures that are planted in heuristic neurons, and failures that have another cause."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mechtests.arithmetic import contributions as contributing
from mechtests.arithmetic.contributions import (
    Contributions,
    contributions,
    counts,
    direct_effects,
    without_heuristic,
)
from mechtests.arithmetic.failures import (
    VARIABLES,
    not_fewer,
    pairs,
    weaker,
    wins,
)
from mechtests.arithmetic.heuristics import Heuristic
from mechtests.arithmetic.libraries import library
from mechtests.arithmetic.logit_lens import value_logits
from mechtests.arithmetic.matching import result_sets
from mechtests.arithmetic.partners import Classified, controls
from mechtests.arithmetic.problems import Problems
from mechtests.errors import NotApplicable, UsageError
from mechtests.matched import STRATA
from mechtests.verdict import Outcome
from tests.tiny import ARCHITECTURES, LAYERS, VOCABULARY, network

WIDTH = 96
HEURISTICS = (
    Heuristic("op1", "modulo", (0, 2)),
    Heuristic("op2", "range", (10, 40)),
    Heuristic("result", "range", (30, 90)),
    Heuristic("both", "identical"),
)


def problems(n: int, seed: int = 0, largest: int = 60) -> Problems:
    """Additions whose tokens are random but for the answer's, which is the result's."""
    draw = np.random.default_rng(seed)
    tokens = draw.integers(2, VOCABULARY, (n, 5))
    first, second = draw.integers(0, largest, (2, n))
    result = first + second
    return Problems(np.zeros(n, np.int64), first, second, result, tokens, result % VOCABULARY)


def classified(seed: int = 0, neurons: int = 40, share: float = 0.5) -> list[Classified]:
    """Neurons of two layers, about half of which match some heuristics."""
    draw = np.random.default_rng(seed)
    found = []
    for layer in (1, 2):
        matches = draw.random((neurons, len(HEURISTICS))) < 0.4
        matches[draw.random(neurons) > share] = False
        numbers = draw.permutation(WIDTH)[:neurons].astype(np.int64)
        found.append(Classified(layer, numbers, matches, draw.exponential(size=neurons)))
    return found


def by_hand(problem: Problems, at: int, layers: list[Classified]) -> set[tuple[int, int]]:
    """The neurons at work on a prompt, as the definition says it, in plain Python."""
    a, b, r = (int(each[at]) for each in (problem.first, problem.second, problem.result))
    holds = [a % 2 == 0, 10 <= b < 40, 30 <= r < 90, a == b]
    return {
        (each.layer, int(number))
        for each in layers
        for number, row in zip(each.neurons, each.matches, strict=True)
        if any(matched and held for matched, held in zip(row, holds, strict=True))
    }


# ---------------------------------------------------------------- neurons at work


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_direct_effects_are_activations_times_a_centred_logit_lens(name: str) -> None:
    net, mine = network(name), problems(6)
    found = direct_effects(net, mine, {1: np.array([3, 90, 7]), 2: np.array([11])})
    run = net.run(torch.from_numpy(mine.tokens), keep=("post",))
    for layer, numbers in ((1, [3, 90, 7]), (2, [11])):
        block, norm = net.blocks[layer], net.final_norm
        rows = net.unembedding.weight.float()
        for column, neuron in enumerate(numbers):
            value = block.mlp_out.weight[:, neuron].float()
            if block.mlp_post is not None:
                value = value * block.mlp_post.gain.float()
            value = value - value.mean() if norm.centred else value
            logits = rows @ (value * norm.gain.float())
            wanted = run["post", layer][:, -1, neuron] * (logits - logits.mean())[mine.answer]
            np.testing.assert_allclose(
                found[layer][:, column], wanted.detach().numpy(), rtol=1e-4, atol=1e-5
            )


def test_each_neuron_at_work_counts_once() -> None:
    mine, layers = problems(50), classified()
    found = counts(mine, layers, HEURISTICS)
    assert found.tolist() == [len(by_hand(mine, at, layers)) for at in range(50)]


def test_contributions_are_sums_over_the_neurons_at_work() -> None:
    net, mine, layers = network("llama"), problems(30), classified()
    found = contributions(net, mine, layers, HEURISTICS)
    effects = direct_effects(net, mine, {each.layer: each.neurons for each in layers})
    single = {
        (each.layer, int(number)): effects[each.layer][:, column]
        for each in layers
        for column, number in enumerate(each.neurons)
    }
    for at in range(30):
        working = by_hand(mine, at, layers)
        assert found.count[at] == len(working)
        assert found.contribution[at] == pytest.approx(sum(single[n][at] for n in working))
    np.testing.assert_array_equal(found.count, counts(mine, layers, HEURISTICS))


def test_controls_add_what_the_neurons_of_their_masks_do() -> None:
    net, mine, layers = network("llama"), problems(30), classified()
    found = contributions(net, mine, layers, HEURISTICS)
    effects = direct_effects(net, mine, {each.layer: each.neurons for each in layers})
    held = np.stack([h.holds(mine.first, mine.second, mine.result) for h in HEURISTICS], 1)
    working = [each.at_work(held) for each in layers]
    masks = controls(layers, working, STRATA[found.stratum[0]])
    for at in range(30):
        rows = [(place, n) for place in (0, 1) for n in np.flatnonzero(masks[place][at])]
        assert found.controls[at] == len(rows)
        assert found.control[at] == pytest.approx(
            sum(effects[layers[place].layer][at, n] for place, n in rows)
        )
        assert found.control_attribution[at] == pytest.approx(
            sum(layers[place].attribution[n] for place, n in rows)
        )


@pytest.mark.parametrize(("operator", "name"), [(0, "gpt2"), (3, "llama")])
def test_neurons_without_a_heuristic_match_none_of_the_library(operator: int, name: str) -> None:
    """By Algorithm 1 as it is said: the k largest of each heuristic's k, and the k smallest."""
    first, second = np.divmod(np.arange(900), 30)
    first, second = first + 1, second + 1
    result = first + second if operator == 0 else first // second
    tokens = np.stack([first, first, first, second, second], 1) % VOCABULARY
    ops = np.full(900, operator)
    mine = Problems(ops, first, second, result, tokens, result % VOCABULARY)
    net, neurons = network(name), {1: np.array([5, 7, 40]), 2: np.arange(20)}
    found = without_heuristic(net, mine, neurons)
    gated = net.blocks[0].mlp_gate is not None
    run = net.run(torch.from_numpy(tokens), keep=("post",))
    for layer, numbers in neurons.items():
        acts = run["post", layer][:, -1].detach().numpy()[:, numbers].astype(np.float64)
        results, codes = np.unique(result, return_inverse=True)
        lens = value_logits(net, layer, numbers.tolist(), (results % VOCABULARY).tolist())
        named = library(operator, first, second, result)
        if operator == 3:
            sets = result_sets(acts.astype(np.float32), named, lens)
            named = library(operator, first, second, result, sets=sets)
        for column in range(len(numbers)):
            best = 0.0
            for at, heuristic in enumerate(named.heuristics):
                mask, k = named.mask(at), int(named.sizes[at])
                scale = lens[codes, column] if heuristic.direct else 1.0
                order = np.argsort(-acts[:, column] * scale, kind="stable")
                ends = [order[:k], order[-k:]] if gated and not heuristic.direct else [order[:k]]
                best = max(best, *(float(mask[end].mean()) for end in ends), 0.0)
            if abs(best - 0.6) > 0.02:  # ties at the edge are of no order
                assert found[layer][column] == (best < 0.6)
    assert 0 < np.concatenate(list(found.values())).mean() < 1


def test_layers_are_held_together_as_memory_allows_and_no_matter_how(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = np.divmod(np.arange(400), 20)
    tokens = np.stack([first, first, first, second, second], 1)
    mine = Problems(0 * first, first, second, first + second, tokens, first + second)
    neurons = {0: np.arange(4), 1: np.arange(9), 2: np.arange(3)}
    whole = without_heuristic(network("gpt2"), mine, neurons)
    monkeypatch.setattr(contributing, "MEMORY", 1)
    apart = without_heuristic(network("gpt2"), mine, neurons)
    for layer, mask in whole.items():
        np.testing.assert_array_equal(mask, apart[layer])


def test_prompts_without_a_heuristic_contribute_nothing() -> None:
    layers = [replace(each, matches=np.zeros_like(each.matches)) for each in classified()]
    found = contributions(network("gpt2"), problems(5), layers, HEURISTICS)
    assert not found.count.any()
    assert not found.contribution.any()
    assert not found.attribution.any()


@pytest.mark.parametrize("seed", range(3))
def test_contributions_do_not_depend_on_the_order_of_prompts_or_neurons(seed: int) -> None:
    draw = np.random.default_rng(seed)
    net, mine, layers = network("qwen3"), problems(25), classified()
    found = contributions(net, mine, layers, HEURISTICS)
    order = draw.permutation(25)
    turned = []
    for each in layers[::-1]:
        at = draw.permutation(len(each.neurons))
        turned.append(
            Classified(each.layer, each.neurons[at], each.matches[at], each.attribution[at])
        )
    other = contributions(net, mine.select(order), turned, HEURISTICS)
    mixed = found.select(order)
    np.testing.assert_array_equal(other.count, mixed.count)
    for name in ("contribution", "control", "attribution", "control_attribution"):
        np.testing.assert_allclose(
            getattr(other, name), getattr(mixed, name), rtol=1e-3, atol=1e-4, err_msg=name
        )
    assert LAYERS == 3


# ---------------------------------------------------------------- pairs of prompts


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 80), st.integers(0, 80), st.integers(1, 6))
def test_pairs_share_every_bin_and_are_as_many_as_strata_allow(
    seed: int, right: int, wrong: int, bins: int
) -> None:
    correct, incorrect = problems(right, seed % 1000), problems(wrong, seed % 1000 + 1, 40)
    found = pairs(correct, incorrect, np.random.default_rng(seed), bins=bins, fewest=0)

    def stratum(of: Problems, at: int) -> tuple[int, ...]:
        cuts = [np.quantile(getattr(incorrect, v), np.arange(1, bins) / bins) for v in VARIABLES]
        return tuple(
            sum(int(getattr(of, v)[at]) >= cut for cut in c)
            for v, c in zip(VARIABLES, cuts, strict=True)
        )

    mine = [stratum(correct, at) for at in range(right)] if wrong else []
    theirs = [stratum(incorrect, at) for at in range(wrong)]
    wanted = sum(min(mine.count(each), theirs.count(each)) for each in set(mine))
    assert len(found) == wanted
    assert len(set(found.correct.tolist())) == len(set(found.incorrect.tolist())) == wanted
    for one, other in zip(found.correct, found.incorrect, strict=True):
        assert mine[one] == theirs[other]


def test_fewer_than_a_hundred_pairs_are_not_applicable() -> None:
    correct, incorrect = problems(3000), problems(90, 1)
    with pytest.raises(
        NotApplicable, match=r"addition: \d+ pairs .* 90 incorrect .* 100 are needed"
    ):
        pairs(correct, incorrect, np.random.default_rng(0))


def test_a_perfect_model_has_no_pairs() -> None:
    with pytest.raises(NotApplicable, match="0 pairs"):
        pairs(problems(500), problems(0), np.random.default_rng(0))


def test_no_more_pairs_than_asked_for_are_kept() -> None:
    correct, incorrect = problems(3000), problems(400, 1)
    every = pairs(correct, incorrect, np.random.default_rng(0))
    some = pairs(correct, incorrect, np.random.default_rng(0), most=150)
    assert len(some) == 150 < len(every)
    whole = set(zip(every.correct.tolist(), every.incorrect.tolist(), strict=True))
    assert set(zip(some.correct.tolist(), some.incorrect.tolist(), strict=True)) < whole
    assert len(set(some.stratum.tolist())) > 20


def test_the_first_pairs_are_a_random_draw_of_all() -> None:
    correct, incorrect = problems(3000), problems(400, 1)
    every = pairs(correct, incorrect, np.random.default_rng(0))
    few = pairs(correct, incorrect, np.random.default_rng(0), most=40, fewest=0)
    assert few.incorrect.tolist() == every.incorrect[:40].tolist()
    strata = len(set(every.stratum.tolist()))
    assert len(set(every.stratum[: strata // 2].tolist())) > strata // 4  # not one after another


def test_matching_takes_away_that_failures_have_larger_operands() -> None:
    draw, everything = np.random.default_rng(0), problems(6000)
    wrong = draw.random(6000) < everything.result / 1000
    correct, incorrect = everything.select(~wrong), everything.select(wrong)
    found = pairs(correct, incorrect, draw)
    before = incorrect.result.mean() - correct.result.mean()
    after = found.apart(correct, incorrect)
    assert before > 10
    assert abs(after["result"]) < 2
    assert abs(after["first"]) < 2


def test_pairs_are_of_one_operator() -> None:
    other = replace(problems(5), operator=np.ones(5, np.int64))
    with pytest.raises(UsageError, match="one operator"):
        pairs(problems(5), other, np.random.default_rng(0))


# ---------------------------------------------------------------- weaker


def found(
    contribution: np.ndarray,
    control: np.ndarray,
    count: int = 20,
    controls: int = 20,
    stratum: str = "layer",
) -> Contributions:
    many = np.full(len(contribution), count)
    return Contributions(
        many,
        contribution,
        control,
        np.full(len(contribution), controls),
        np.ones(len(contribution)),
        np.ones(len(contribution)),
        np.full(len(contribution), STRATA.index(stratum)),
    )


def drawn(
    generator: np.random.Generator, gap: float, control_gap: float = 0.0, n: int = 150
) -> tuple[Contributions, Contributions]:
    """Contributions of pairs: the correct prompt has more by a gap in standard deviations."""
    level, control = generator.normal(size=(2, n))
    noise = generator.normal(size=(4, n))
    return (
        found(level + gap + noise[0], control + control_gap + noise[1]),
        found(level + noise[2], control + noise[3]),
    )


def test_planted_weaker_neurons_hold() -> None:
    verdict = weaker(*drawn(np.random.default_rng(0), 2.0))
    assert verdict.outcome is Outcome.HOLDS, str(verdict)
    wanted = stats.norm.cdf(2 / np.sqrt(2))
    low, high = verdict.interval or (0.0, 0.0)
    assert low < wanted < high


def test_failures_that_have_nothing_to_do_with_it_are_refuted_at_one_half() -> None:
    verdict = weaker(*drawn(np.random.default_rng(0), 0.0))
    assert verdict.outcome is Outcome.REFUTED
    assert verdict.estimate == pytest.approx(0.5, abs=0.1)


def test_anything_is_lower_when_the_answer_loses_is_not_enough() -> None:
    verdict = weaker(*drawn(np.random.default_rng(0), 2.0, 2.0))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "the control reaches it" in verdict.sentence


def test_the_order_of_two_perfectly_apart_is_still_decided() -> None:
    generator = np.random.default_rng(0)
    verdict = weaker(*drawn(generator, 50.0))
    assert verdict.outcome is Outcome.HOLDS
    assert verdict.estimate == 1.0


@pytest.mark.parametrize("short", [True, False])
def test_too_few_controls_leave_it_undecided(short: bool) -> None:
    correct, incorrect = drawn(np.random.default_rng(0), 2.0)
    many = np.full(len(correct), 20)
    many[: 90 if short else 20] = 7  # of 300 prompts: 30% or 7%
    correct = replace(correct, controls=many)
    verdict = weaker(correct, incorrect)
    assert verdict.outcome is (Outcome.INCONCLUSIVE if short else Outcome.HOLDS)
    assert ("no alternative sets by layer" in verdict.sentence) is short


@pytest.mark.parametrize("part", [0.1, 0.9])
def test_controls_of_little_attribution_leave_it_undecided(part: float) -> None:
    generator = np.random.default_rng(0)
    correct, incorrect = (
        replace(each, control_attribution=part * each.attribution) for each in drawn(generator, 2.0)
    )
    verdict = weaker(correct, incorrect)
    assert verdict.outcome is (Outcome.INCONCLUSIVE if part < 0.5 else Outcome.HOLDS)
    assert ("attributed" in verdict.sentence) is (part < 0.5)
    refuted = weaker(incorrect, correct)
    assert refuted.outcome is Outcome.REFUTED


def test_the_auc_at_its_margin_holds_no_more_often_than_it_may() -> None:
    gap = float(stats.norm.ppf(0.7) * np.sqrt(2))
    outcomes = [weaker(*drawn(np.random.default_rng(s), gap)).outcome for s in range(400)]
    for outcome in (Outcome.HOLDS, Outcome.REFUTED):
        assert outcomes.count(outcome) <= stats.binom.ppf(0.999, 400, 0.025)


def test_wins_are_the_auc_of_a_pair_and_ties_are_half() -> None:
    sample = wins(np.array([1.0, 2.0, 3.0, 0.0]), np.array([0.0, 2.0, 4.0, -1.0]))
    assert sample.values.tolist() == [1.0, 0.5, 0.0, 1.0]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 5), st.floats(-3, 3))
def test_the_verdict_is_the_same_of_any_increasing_scale(
    seed: int, factor: float, shift: float
) -> None:
    generator = np.random.default_rng(seed)
    one = drawn(generator, 1.0, 0.3)
    other = [
        replace(c, contribution=np.exp(factor * c.contribution / 5) + shift, control=c.control * 3)
        for c in one
    ]
    first, second = weaker(*one), weaker(other[0], other[1])
    assert (first.outcome, first.estimate, first.p) == (second.outcome, second.estimate, second.p)
    order = generator.permutation(150)
    turned = weaker(*(c.select(order) for c in one))
    assert turned.estimate == pytest.approx(first.estimate)
    back = weaker(one[1], one[0])
    assert back.estimate == pytest.approx(1 - (first.estimate or 0.0))


# ---------------------------------------------------------------- not fewer


def numbers(mean: float, seed: int, n: int = 150, shared: int = 0) -> np.ndarray:
    """Counts around a mean, which vary with what pairs share and by themselves."""
    both = np.random.default_rng(shared).normal(0, 10, n)
    return np.round(mean + both + np.random.default_rng(seed).normal(0, 3, n)).astype(np.int64)


@pytest.mark.parametrize(
    ("incorrect", "outcome"),
    [
        (100.0, Outcome.HOLDS),
        (110.0, Outcome.HOLDS),
        (98.0, Outcome.HOLDS),
        (90.0, Outcome.REFUTED),
        (95.0, Outcome.INCONCLUSIVE),
    ],
)
def test_counts_are_not_fewer_within_a_twentieth(incorrect: float, outcome: Outcome) -> None:
    verdict = not_fewer(numbers(100.0, 1), numbers(incorrect, 2))
    assert verdict.outcome is outcome, str(verdict)


def test_not_fewer_holds_at_the_margin_no_more_often_than_it_may() -> None:
    mean = 100 * 39 / 41  # 5% of the mean of both fewer
    held = sum(
        not_fewer(numbers(100.0, s, shared=s), numbers(mean, 9000 + s, shared=s)).outcome
        is Outcome.HOLDS
        for s in range(400)
    )
    assert held <= stats.binom.ppf(0.999, 400, 0.025)


def test_an_unmatched_difference_is_shown_and_decides_nothing() -> None:
    matched = numbers(100.0, 1), numbers(100.0, 2)
    alone = not_fewer(*matched)
    beside = not_fewer(*matched, unmatched=[(numbers(100.0, 3), numbers(60.0, 4))])
    assert beside.outcome is alone.outcome is Outcome.HOLDS
    assert beside.p == alone.p
    assert beside.controls[0].values[0] == pytest.approx(-40, abs=2)


def test_what_is_unmatched_is_a_mean_over_operators_however_often_each_fails() -> None:
    """Pooled over prompts it would be -36: the operator that fails more has fewer neurons."""
    unmatched = [
        (np.full(900, 100), np.full(100, 99)),
        (np.full(100, 60), np.full(900, 61)),
    ]
    verdict = not_fewer(numbers(100.0, 1), numbers(100.0, 2), unmatched=unmatched)
    assert verdict.controls[0].values == (0.0,)


def test_no_heuristic_neurons_at_all_decide_nothing() -> None:
    none = np.zeros(150, np.int64)
    assert not_fewer(none, none).outcome is Outcome.INCONCLUSIVE


def test_prompts_that_are_not_in_pairs_are_refused() -> None:
    with pytest.raises(UsageError, match="got 3 and 2"):
        wins(np.zeros(3), np.zeros(2))
    with pytest.raises(UsageError, match="got 1 and 2"):
        not_fewer(np.zeros(1, np.int64), np.zeros(2, np.int64))
