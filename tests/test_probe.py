from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from mechtests.arithmetic import probe as room
from mechtests.arithmetic.probe import (
    LENIENT,
    PENALTY,
    SHRINKAGE,
    Probed,
    best_probe,
    fit,
    logistic,
    probe,
)
from mechtests.arithmetic.probe_labels import (
    POSITIONS,
    PROMPTS_A_CLASS,
    TEST,
    TRAINING,
    VALIDATION,
    Labels,
    covered,
    enough,
    parts,
    training_problems,
)
from mechtests.arithmetic.problems import EQUALS, SECOND, Problems
from mechtests.errors import Undecidable
from mechtests.models import sources
from mechtests.models.network import Network
from mechtests.tasks.arithmetic import arithmetic
from tests.numerals import problems as prompts_of_arithmetic
from tests.planted_arithmetic import network as planted_network
from tests.planted_arithmetic_problems import MINUS, OVER, PLUS
from tests.planted_arithmetic_problems import problems as planted_problems
from tests.tiny import ARCHITECTURES, network

CLASSES, WIDTH, COUNT = 12, 16, 600
Read = Callable[[torch.Tensor, Labels], np.ndarray]
BOTH = pytest.mark.parametrize("read", [fit, logistic])


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def planted(seed: int = 0, noise: float = 0.4) -> tuple[torch.Tensor, np.ndarray]:
    """Features ``[problem, width]`` that hold a result linearly, and the results."""
    generator = draw(seed)
    results = generator.integers(0, CLASSES, COUNT)
    directions = generator.normal(size=(CLASSES, WIDTH))
    features = directions[results] + noise * generator.normal(size=(COUNT, WIDTH))
    return torch.from_numpy(features), results


def accuracy(read: Read, features: torch.Tensor, results: np.ndarray) -> float:
    labels = Labels.of(results, parts(COUNT))
    return float(labels.hits(read(features, labels), TEST).mean())


# ---------------------------------------------------------------- a fit


@BOTH
def test_a_result_that_is_held_linearly_is_read(read: Read) -> None:
    assert accuracy(read, *planted()) > 0.95


@BOTH
def test_noise_and_misaligned_labels_are_read_no_better_than_by_chance(read: Read) -> None:
    features, results = planted()
    # 120 test problems, 1 in 12 right by chance: above 0.2 once in 10,000
    noise = torch.randn(COUNT, WIDTH, generator=torch.Generator().manual_seed(0))
    assert accuracy(read, noise, results) < 0.2
    assert accuracy(read, features, draw(5).permutation(results)) < 0.2
    assert accuracy(read, features[draw(6).permutation(COUNT)], results) < 0.2


@BOTH
def test_labels_that_are_shuffled_within_their_part_are_not_read(read: Read) -> None:
    features, results = planted()
    part = parts(COUNT)
    labels = Labels.of(results, part)
    wrong = labels.shuffled(draw(2))
    assert wrong.hits(read(features, wrong), TEST).mean() < 0.2
    for each in (TRAINING, VALIDATION, TEST):
        mine = part == each
        assert sorted(wrong.number[mine]) == sorted(labels.number[mine])
        assert (wrong.number[mine] != labels.number[mine]).mean() > 0.8


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_one_order_of_features_labels_and_parts_changes_nothing_and_of_labels_alone_all(
    seed: int,
) -> None:
    features, results = planted(noise=1.0)
    part, order = parts(COUNT), draw(seed).permutation(COUNT)
    labels = Labels.of(results, part)
    one = fit(features, labels)
    other = fit(features[order], Labels.of(results[order], part[order]))
    assert (one[order] == other).mean() > 0.995  # sums in another order
    alone = Labels.of(results[order], part)
    right = labels.hits(one, TEST).mean()
    assert right > 0.6
    assert alone.hits(fit(features, alone), TEST).mean() < 0.25


@BOTH
def test_what_is_tested_teaches_nothing(read: Read) -> None:
    features, results = planted(noise=1.0)
    part = parts(COUNT)
    before = read(features, Labels.of(results, part))
    spoiled = results.copy()
    spoiled[part != TRAINING] = draw(3).integers(0, CLASSES, (part != TRAINING).sum())
    other = features.clone()
    other[part == TEST] = 1e3
    after = read(other, Labels.of(spoiled, part))
    np.testing.assert_array_equal(before[part != TEST], after[part != TEST])


@pytest.mark.parametrize("shrinkage", [1e-5, 0.1, 0.6, 1.0])
def test_the_fit_says_the_likeliest_of_gaussian_classes_with_the_shrunk_covariance(
    shrinkage: float,
) -> None:
    features, results = planted(noise=1.5)
    results = np.where(draw(8).random(COUNT) < 0.4, 3, results)  # classes are not equally common
    labels = Labels.of(results, parts(COUNT))
    mine = labels.part == TRAINING
    x = features.numpy()
    x = (x - x[mine].mean(0)) / x[mine].std(0)
    means = np.stack([x[mine & (labels.number == c)].mean(0) for c in range(labels.classes)])
    within = np.cov((x - means[labels.number])[mine].T, bias=True)
    # the class means' own mean is that of their problems, so that residuals have mean 0
    shrunk = (1 - shrinkage) * within + shrinkage * np.eye(WIDTH) * np.diag(within).mean()
    share = np.bincount(labels.number[mine]) / mine.sum()
    logs = [
        multivariate_normal(mean, shrunk).logpdf(x) + np.log(part)
        for mean, part in zip(means, share, strict=True)
    ]
    wanted = np.stack(logs).argmax(0)
    assert (fit(features, labels, shrinkage=shrinkage) == wanted).mean() > 0.998


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3), shift=st.floats(-10, 10))
def test_units_and_origin_of_features_do_not_matter(seed: int, scale: float, shift: float) -> None:
    features, results = planted(seed % 5, noise=1.0)
    labels = Labels.of(results, parts(COUNT))
    moved = features * scale * torch.from_numpy(draw(seed).uniform(0.5, 2, WIDTH)) + scale * shift
    assert (fit(features, labels) == fit(moved, labels)).mean() > 0.995


@BOTH
def test_features_that_never_vary_and_results_of_few_problems_are_no_fault(read: Read) -> None:
    features, results = planted()
    part = parts(COUNT)
    results[np.flatnonzero(part == TEST)[:3]] = 999
    features[:, 0] = 5.0
    labels = Labels.of(results, part)
    assert labels.classes == CLASSES
    hits = labels.hits(read(features, labels), TEST)
    assert len(hits) == (part == TEST).sum() - 3
    assert hits.mean() > 0.95
    nothing = read(torch.full((COUNT, WIDTH), 0.1), labels)
    np.testing.assert_array_equal(nothing, labels.constant)


def sums_of_codes(seed: int = 0) -> tuple[torch.Tensor, Labels]:
    """Random codes of two numbers below 40 side by side, and their sums as labels."""
    first, second = np.divmod(draw(seed).permutation(1600), 40)
    codes = torch.from_numpy(draw(seed + 1).normal(size=(40, 64)))
    return torch.cat((codes[first], codes[second]), 1), Labels.of(first + second, parts(1600))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_lenient_probe_adds_what_lies_side_by_side_and_the_shrunk_one_does_not(
    seed: int,
) -> None:
    features, labels = sums_of_codes(seed)
    lenient = labels.hits(fit(features, labels, shrinkage=LENIENT), TEST).mean()
    assert lenient > 0.95
    assert labels.hits(best_probe(features, labels), TEST).mean() > 0.95
    assert labels.hits(fit(features, labels), TEST).mean() < 0.1
    assert SHRINKAGE == 0.1


# ---------------------------------------------------------------- labels and parts


def test_what_chooses_is_of_the_selection_half_and_what_tests_of_the_evaluation_half() -> None:
    prompts = prompts_of_arithmetic()
    for operator in range(4):
        mine = prompts.tokens["operator"] == operator
        part, half = parts(int(mine.sum())), prompts.half[mine]
        assert set(half[part == VALIDATION]) == {0}
        assert set(half[part == TEST]) == {1}
    np.testing.assert_array_equal(np.bincount(parts(1000)), [700, 100, 200])


def test_results_with_fewer_than_ten_training_problems_are_no_classes() -> None:
    results = np.repeat([5, 7, 9], (40, 13, 60))
    part = np.full(113, TRAINING)
    part[40:44] = TEST  # leaves 9 of the result 7
    part[:5] = VALIDATION
    part[53:58] = TEST
    labels = Labels.of(results, part)
    assert labels.classes == 2
    assert set(labels.number[results == 7]) == {-1}
    assert labels.of_part(TEST).sum() == 5
    found, counts = training_problems(results, part)
    assert (found.tolist(), counts.tolist()) == ([5, 7, 9], [35, 9, 55])
    assert covered(counts) == pytest.approx(90 / 99)
    assert set(labels.constant) == {1}


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [((10, 10), True), ((10, 9), False), ((10, 10, *[5] * 4), True), ((10, 10, *[7] * 3), False)],
)
def test_two_results_that_cover_half_of_the_problems_are_enough(
    counts: tuple[int, ...], wanted: bool
) -> None:
    assert PROMPTS_A_CLASS == 10
    assert enough(np.array(counts)) is wanted


def test_where_nothing_trains_nothing_is_enough() -> None:
    assert not enough(np.zeros(0, np.int64))
    assert Labels.of(np.arange(20), parts(20)).classes == 0
    labels = Labels.of(np.arange(400), parts(400))
    with pytest.raises(Undecidable, match="got 0 results of 400 problems"):
        probe(network("gpt2"), firsts(), labels, draw())


# ---------------------------------------------------------------- the stream


def firsts(count: int = 400) -> Problems:
    """Problems whose result is their first operand, of 8; the second of 40."""
    generator = draw(3)
    first, second = generator.integers(0, 8, count), generator.integers(0, 40, count)
    one = np.ones(count, np.int64)
    tokens = np.stack((0 * one, 10 + first, 3 * one, 30 + second, one), 1)
    return Problems(0 * one, first, second, first, tokens, 10 + first)


def probed(net: Network, problems: Problems, results: Any = None) -> Probed:
    results = problems.result if results is None else results
    labels = Labels.of(results, parts(len(problems)))
    return probe(net, problems, labels, draw(2))


def best_of(found: Probed, position: int) -> int:
    return int(found.validation[:, POSITIONS.index(position)].argmax())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_stream_is_read_where_the_result_is_and_not_where_it_cannot_be(name: str) -> None:
    net, problems = network(name), firsts()
    found = probed(net, problems)
    layers = net.shape.layers
    np.testing.assert_array_equal(found.problems, np.flatnonzero(parts(400) == TEST))
    assert found.hits.shape == (len(found.problems), layers + 1, 4)
    accuracies = found.hits.mean(0)
    assert (accuracies[:, 0] == 1).all()  # the operand is read at itself, at every depth
    assert accuracies[0, 1:].max() < 0.35  # before attention nothing has moved
    assert accuracies[-1, 3] > 0.9  # and then it has
    assert found.operands.mean() == 1
    assert found.shuffled.mean() < 0.35
    assert found.constant.mean() < 0.35
    assert found.validation.shape == (layers + 1, len(POSITIONS))
    assert found.last.mean() > 0.9
    assert (found.second == found.hits[:, best_of(found, SECOND), 2]).mean() > 0.6


def test_streams_belong_to_the_problem_with_the_same_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "prompts_at_once", lambda *_: 7)
    net, problems = network("llama"), firsts(25)
    streams = list(room._streams(net, problems, [SECOND, EQUALS]))
    for row in (0, 9, 24):
        run = net.run(torch.from_numpy(problems.tokens[row : row + 1]), keep=("resid_post",))
        wanted = run["resid_post", 1][0, [-2, -1]]
        torch.testing.assert_close(streams[2][:, row], wanted, rtol=1e-4, atol=1e-5)


def test_what_decides_is_read_at_the_depth_that_validation_chose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[torch.Tensor] = []

    def noted(features: torch.Tensor, labels: Labels) -> Any:
        asked.append(features)
        return best_probe(features, labels)

    monkeypatch.setattr(room, "best_probe", noted)
    net, problems = network("gpt2"), firsts()
    found = probed(net, problems)
    last, second, shuffled, operands = asked
    streams = list(room._streams(net, problems, [SECOND, EQUALS]))
    torch.testing.assert_close(last, streams[best_of(found, EQUALS)][1])
    torch.testing.assert_close(second, streams[best_of(found, SECOND)][0])
    assert shuffled is last
    assert operands.shape == (len(problems), 2 * net.shape.width)


def test_the_same_draws_give_the_same_probes() -> None:
    one, other = (probed(network("gpt2"), firsts()) for _ in range(2))
    np.testing.assert_array_equal(one.hits, other.hits)
    np.testing.assert_array_equal(one.shuffled, other.shuffled)


# ---------------------------------------------------------------- planted networks


@cache
def of_planted(kind: str) -> Probed:
    """Probes of differences, of which the networks solve nearly all."""
    asked = planted_problems(MINUS)
    asked = asked.select(draw(4).permutation(len(asked))[:3000])
    return probed(planted_network(kind), asked)


@pytest.mark.parametrize("kind", ["bag", "fourier", "digits"])
def test_a_planted_answer_is_read_at_the_last_position_once_it_is_made_and_nowhere_else(
    kind: str,
) -> None:
    """Heads bring the operands in block 1, and blocks 4 and 5 put them together."""
    found = of_planted(kind)
    accuracies = found.hits.mean(0)
    assert accuracies[:5].max() < 0.1
    assert accuracies[5, 3] > 0.5
    assert accuracies[6:, 3].min() > 0.85
    assert accuracies[:, :3].max() < 0.1
    assert found.last.mean() > 0.95
    for low in (found.second, found.shrunk, found.shuffled):
        assert low.mean() < 0.1


def test_a_memory_of_problems_is_read_as_far_as_its_layers_have_written() -> None:
    """Each of its blocks from 4 on knows a quarter of the problems."""
    accuracies = of_planted("lookup").hits.mean(0)
    assert accuracies[:5].max() < 0.1
    np.testing.assert_allclose(accuracies[5:, 3], [0.25, 0.5, 0.75, 1.0], atol=0.06)


def test_what_is_not_made_yet_is_read_by_a_lenient_probe_of_a_network_that_adds_digits() -> None:
    """Why the covariance is shrunk: its heads bring digits that a linear softmax adds itself."""
    found = of_planted("digits")
    assert found.operands.mean() > 0.9
    assert found.hits[:, 3, 3].mean() < 0.1


# ---------------------------------------------------------------- a real model, and the exact fit


def optimum(features: torch.Tensor, labels: Labels, steps: int = 2000) -> np.ndarray:
    """The optimum of a multinomial logistic regression with the same penalty, by scipy."""
    mine = labels.of_part(TRAINING)
    x = features.numpy().astype(np.float64)
    spread = x[mine].std(0)
    x = (x - x[mine].mean(0)) / np.where(spread > 1e-6, spread, np.inf)
    y, width = labels.number[mine], x.shape[1]
    one_hot = np.eye(labels.classes)[y]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        table = flat.reshape(width + 1, labels.classes)
        scores = x[mine] @ table[:-1] + table[-1]
        scores -= scores.max(1, keepdims=True)
        logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        error = (np.exp(logs) - one_hot) / len(y)
        slope = np.concatenate((x[mine].T @ error + PENALTY * table[:-1], error.sum(0)[None]))
        value = -logs[np.arange(len(y)), y].mean() + PENALTY / 2 * (table[:-1] ** 2).sum()
        return float(value), slope.ravel()

    start = np.zeros((width + 1) * labels.classes)
    how = {"maxiter": steps, "ftol": 1e-14, "gtol": 1e-8}
    table = minimize(loss, start, jac=True, method="L-BFGS-B", options=how).x
    table = table.reshape(width + 1, labels.classes)
    guesses: np.ndarray = (x @ table[:-1] + table[-1]).argmax(1)
    return guesses


def test_the_logistic_regression_is_the_optimum_of_an_independent_solver() -> None:
    features, results = planted(noise=1.5)
    labels = Labels.of(results, parts(COUNT))
    assert (logistic(features, labels) == optimum(features, labels)).mean() > 0.99


def test_the_best_is_the_one_that_validates_best() -> None:
    features, results = planted(noise=1.5)
    labels = Labels.of(results, parts(COUNT))
    reads = (fit, logistic, partial(fit, shrinkage=LENIENT))
    right = [labels.hits(read(features, labels), VALIDATION).mean() for read in reads]
    chosen = labels.hits(best_probe(features, labels), VALIDATION).mean()
    assert chosen == max(right)


@cache
def sprout(name: str, untrained: int | None = None) -> tuple[Network, Problems]:
    """A model of the family, with some problems of it that have another answer than 0."""
    source: Any = sources.resolve(name)
    at = source.checkpoints(offline=True)[-1]
    how = {"dtype": "float32", "device": "cpu", "offline": True, "untrained_seed": untrained}
    loaded = source.load(at, **how)
    asked = Problems.of(arithmetic.generate(loaded.tokenizer, 8_000, draw(5)))
    return Network.from_model(loaded.model, name=name), asked.select(asked.result != 0)


def depth_chosen(by_depth: Any, labels: Labels) -> float:
    """The exact regression's test accuracy at the depth at which it validates best."""
    said = [optimum(x, labels, 400) for x in by_depth]
    best = max(said, key=lambda each: labels.hits(each, VALIDATION).mean())
    return float(labels.hits(best, TEST).mean())


@pytest.mark.parametrize("operator", [MINUS, OVER])
def test_on_a_real_model_what_decides_is_read_as_by_the_exact_regression(operator: int) -> None:
    """At "=" and at operand 2, each at the depth and by the probe that validate best.

    Some hundred validation problems choose, so that of quotients at operand 2 the choice is 0.07
    below the regression's own; the discriminant alone is up to 0.12 below.
    """
    net, every = sprout("sprout-100k")
    asked = every.of_operator(operator)
    labels = Labels.of(asked.result, parts(len(asked)))
    found = probe(net, asked, labels, draw())
    streams = list(room._streams(net, asked, [SECOND, EQUALS]))
    exact = np.array([depth_chosen(each, labels) for each in zip(*streams, strict=True)])
    ours = np.array([found.second.mean(), found.last.mean()])
    assert (ours > exact - 0.08).all(), (ours, exact)
    alone = np.array([found.hits[:, best_of(found, at), POSITIONS.index(at)].mean()
                      for at in (SECOND, EQUALS)])  # fmt: skip
    assert (alone > exact - 0.12).all(), (alone, exact)


@pytest.mark.parametrize("untrained", [None, 3])
@pytest.mark.parametrize("operator", [PLUS, MINUS])
def test_on_a_real_model_a_lenient_probe_adds_and_subtracts_embeddings_trained_or_not(
    operator: int, untrained: int | None
) -> None:
    """So that to read a sum would say no more than that both operands are there."""
    net, every = sprout("sprout-1m", untrained)
    asked = every.of_operator(operator)
    labels, features = Labels.of(asked.result, parts(len(asked))), room._operands(net, asked)
    assert labels.hits(fit(features, labels, shrinkage=LENIENT), TEST).mean() > 0.8
    assert labels.hits(best_probe(features, labels), TEST).mean() > 0.8
    assert labels.hits(fit(features, labels), TEST).mean() < 0.1
