from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from mechtests.arithmetic import probe as room
from mechtests.arithmetic.probe import (
    PENALTY,
    TEST,
    TRAINING,
    VALIDATION,
    Labels,
    fit,
    parts,
    probe,
)
from mechtests.arithmetic.problems import EQUALS, FIRST, SECOND, Problems
from mechtests.errors import Undecidable
from tests.tiny import ARCHITECTURES, network

CLASSES, WIDTH, COUNT = 12, 16, 600


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def planted(seed: int = 0, noise: float = 0.4) -> tuple[torch.Tensor, np.ndarray]:
    """Features ``[problem, width]`` that hold a result linearly, and the results."""
    generator = draw(seed)
    results = generator.integers(0, CLASSES, COUNT)
    directions = generator.normal(size=(CLASSES, WIDTH))
    features = directions[results] + noise * generator.normal(size=(COUNT, WIDTH))
    return torch.from_numpy(features), results


def accuracy(features: torch.Tensor, results: np.ndarray, seed: int = 1) -> float:
    labels = Labels.of(results, parts(COUNT, draw(seed)))
    return float(labels.hits(fit(features, labels), TEST).mean())


def test_a_result_that_is_held_linearly_is_read() -> None:
    assert accuracy(*planted()) > 0.95


def test_noise_and_misaligned_labels_are_read_no_better_than_by_chance() -> None:
    features, results = planted()
    # 120 test problems, 1 in 12 right by chance: above 0.2 once in 10,000
    assert (
        accuracy(torch.randn(COUNT, WIDTH, generator=torch.Generator().manual_seed(0)), results)
        < 0.2
    )
    assert accuracy(features, draw(5).permutation(results)) < 0.2
    assert accuracy(features[draw(6).permutation(COUNT)], results) < 0.2


def test_labels_that_are_shuffled_within_their_part_are_not_read() -> None:
    features, results = planted()
    part = parts(COUNT, draw(1))
    labels = Labels.of(results, part)
    wrong = labels.shuffled(draw(2))
    assert wrong.hits(fit(features, wrong), TEST).mean() < 0.2
    for each in (TRAINING, VALIDATION, TEST):
        mine = part == each
        assert sorted(wrong.number[mine]) == sorted(labels.number[mine])
        assert (wrong.number[mine] != labels.number[mine]).mean() > 0.8


def test_the_order_of_problems_does_not_matter_as_features_labels_and_parts_share_it() -> None:
    features, results = planted(noise=1.0)
    part, order = parts(COUNT, draw(1)), draw(9).permutation(COUNT)
    one = fit(features, Labels.of(results, part))
    other = fit(features[order], Labels.of(results[order], part[order]))
    assert (one[order] == other).mean() > 0.99


def test_what_is_tested_teaches_nothing() -> None:
    features, results = planted(noise=1.0)
    part = parts(COUNT, draw(1))
    before = fit(features, Labels.of(results, part))
    spoiled = results.copy()
    spoiled[part != TRAINING] = draw(3).integers(0, CLASSES, (part != TRAINING).sum())
    other = features.clone()
    other[part == TEST] = 1e3
    after = fit(other, Labels.of(spoiled, part))
    np.testing.assert_array_equal(before[part != TEST], after[part != TEST])


def test_the_fit_is_the_optimum_of_an_independent_solver() -> None:
    features, results = planted(noise=1.5)
    part = parts(COUNT, draw(1))
    labels = Labels.of(results, part)
    mine = part == TRAINING
    x = features.numpy()
    x = (x - x[mine].mean(0)) / x[mine].std(0)
    y = labels.number[mine]
    one_hot = np.eye(CLASSES)[y]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = flat[: WIDTH * CLASSES].reshape(WIDTH, CLASSES), flat[WIDTH * CLASSES :]
        scores = x[mine] @ weight + bias
        logs = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
        error = (np.exp(logs) - one_hot) / len(y)
        slope = x[mine].T @ error + PENALTY * weight
        value = -logs[np.arange(len(y)), y].mean() + PENALTY / 2 * (weight**2).sum()
        return value, np.concatenate((slope.ravel(), error.sum(0)))

    best = minimize(loss, np.zeros((WIDTH + 1) * CLASSES), jac=True, method="L-BFGS-B",
                    options={"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-8}).x  # fmt: skip
    weight, bias = best[: WIDTH * CLASSES].reshape(WIDTH, CLASSES), best[WIDTH * CLASSES :]
    wanted = (x @ weight + bias).argmax(1)
    assert (fit(features, labels) == wanted).mean() > 0.99


def test_a_feature_that_never_varies_and_a_result_without_training_are_no_fault() -> None:
    features, results = planted()
    part = parts(COUNT, draw(1))
    results[np.flatnonzero(part == TEST)[:3]] = 999
    features[:, 0] = 5.0
    labels = Labels.of(results, part)
    assert labels.classes == CLASSES
    hits = labels.hits(fit(features, labels), TEST)
    assert not hits[:3].any()
    assert hits[3:].mean() > 0.95


def test_parts_are_disjoint_shares_drawn_once() -> None:
    found = parts(1000, draw(4))
    assert np.bincount(found).tolist() == [700, 100, 200]
    np.testing.assert_array_equal(found, parts(1000, draw(4)))


def test_too_few_problems_a_result_decide_nothing() -> None:
    results = np.arange(200) % 20
    with pytest.raises(Undecidable, match="10 training problems for each result, got 140 for 20"):
        Labels.of(results, parts(200, draw()))
    assert Labels.of(results % 14, parts(200, draw())).classes == 14


def test_the_constant_is_the_commonest_training_result() -> None:
    results = np.where(draw(1).random(COUNT) < 0.4, 7, draw(2).integers(0, CLASSES, COUNT))
    labels = Labels.of(results, parts(COUNT, draw()))
    guess = labels.constant
    assert set(guess) == {7}
    hits = labels.hits(guess, TEST)
    np.testing.assert_array_equal(hits, results[labels.part == TEST] == 7)


def sums(count: int = 400) -> Problems:
    """Problems whose result is their first operand, of 8; the second of 40."""
    generator = draw(3)
    first, second = generator.integers(0, 8, count), generator.integers(0, 40, count)
    one = np.ones(count, np.int64)
    tokens = np.stack((0 * one, 10 + first, 3 * one, 30 + second, one), 1)
    return Problems(0 * one, first, second, first, tokens, 10 + first)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_stream_is_read_where_the_result_is_and_not_where_it_cannot_be(name: str) -> None:
    net, problems = network(name), sums()
    part = parts(len(problems), draw(1))
    found = probe(net, problems, part, draw(2))
    layers, tested = net.shape.layers, int((part == TEST).sum())
    assert found.hits.shape == (tested, layers + 1, 3)
    assert found.positions == (FIRST, SECOND, EQUALS)
    np.testing.assert_array_equal(found.problems, np.flatnonzero(part == TEST))
    accuracies = found.hits.mean(0)
    assert (accuracies[:, 0] == 1).all()  # the operand is read at itself, at every depth
    assert accuracies[0, 1:].max() < 0.35  # before attention nothing has moved
    assert accuracies[-1, 2] > 0.9  # and then it has
    assert found.operands.mean() == 1
    assert found.shuffled.mean() < 0.35
    assert found.constant.mean() < 0.35
    assert found.classes == 8
    assert found.validation.shape == (layers + 1, 3)
    assert found.validation[found.best_depth(EQUALS), 2] == found.validation[:, 2].max()


def test_streams_belong_to_the_problem_with_the_same_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "prompts_at_once", lambda *_: 7)
    net, problems = network("llama"), sums(25)
    streams = list(room._streams(net, problems, [SECOND, EQUALS]))
    for row in (0, 9, 24):
        run = net.run(torch.from_numpy(problems.tokens[row : row + 1]), keep=("resid_post",))
        wanted = run["resid_post", 1][0, [-2, -1]]
        torch.testing.assert_close(streams[2][:, row], wanted, rtol=1e-4, atol=1e-5)


def test_the_same_draws_give_the_same_probes() -> None:
    net, problems = network("gpt2"), sums()
    part = parts(len(problems), draw(1))
    one, other = (probe(net, problems, part, draw(2)) for _ in range(2))
    np.testing.assert_array_equal(one.hits, other.hits)
    np.testing.assert_array_equal(one.shuffled, other.shuffled)
    with pytest.raises(Undecidable):
        probe(net, replace(problems, result=problems.second), part, draw(2))
