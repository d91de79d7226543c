"""What matches heuristics without being one, as often as the simulation in the specification."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage, stats

from mechtests.arithmetic.libraries import Library, library
from mechtests.arithmetic.matching import matched, scores
from mechtests.arithmetic.nulls import rotated, rotation, share_differences, shifted
from mechtests.errors import UsageError
from mechtests.matched import permutation_p

A, B = (x.ravel() for x in np.indices((300, 300)))
GRID = np.arange(300.0)
NEURONS = 60
PERIODS = (2, 5, 10, 50, 100)


@pytest.fixture(scope="module")
def additions() -> Library:
    """The paper's 622 + 622 + 1,039 conditions, those for few pairs included."""
    return library(0, A, B, A + B, fewest=1)


def smooth(generator: np.random.Generator, length: float = 50.0) -> np.ndarray:
    """A random smooth function of an operand: a Gaussian process of that length scale."""
    kernel = np.exp(-((GRID[:, None] - GRID) ** 2) / (2 * length**2))
    values, vectors = np.linalg.eigh(kernel)
    drawn: np.ndarray = vectors @ (np.sqrt(np.maximum(values, 0)) * generator.normal(size=300))
    return drawn


def cosine(generator: np.random.Generator, values: np.ndarray) -> np.ndarray:
    return np.cos(2 * np.pi * (values / generator.choice(PERIODS) + generator.random()))


def clock(generator: np.random.Generator) -> np.ndarray:
    """The product of two cosines of one period, each of one operand."""
    period, phases = generator.choice(PERIODS), generator.random(2)
    a, b = (np.cos(2 * np.pi * (v / period + p)) for v, p in zip((A, B), phases, strict=True))
    return a * b


def plane(g: np.random.Generator) -> np.ndarray:
    a, b = g.normal(size=2)
    return a * A + b * B


def waves(g: np.random.Generator) -> np.ndarray:
    """Random plane waves of length scale 50: a Gaussian process over both operands."""
    angles, phases = g.normal(size=(30, 2)) / 50, g.random(30) * 2 * np.pi
    return sum(np.cos(x * A + y * B + p) for (x, y), p in zip(angles, phases, strict=True))


Drawn = Callable[[np.random.Generator], np.ndarray]
KINDS: dict[str, Drawn] = {
    "noise": lambda g: g.normal(size=90000),
    "table": lambda g: ndimage.uniform_filter(g.normal(size=(300, 300)), 3, mode="wrap").ravel(),
    "lookups": lambda g: g.normal(size=300)[A] + g.normal(size=300)[B],
    "operand lookup": lambda g: g.normal(size=300)[A],
    "result lookup": lambda g: g.normal(size=599)[A + B],
    "smooth": lambda g: smooth(g)[A] + smooth(g)[B],
    "waves": waves,
    "plane": plane,
    "units adder": lambda g: g.integers(10) == (A + B) % 10,
    "fourier operand": lambda g: np.maximum(cosine(g, A), 0),
    "fourier result": lambda g: np.maximum(cosine(g, A + B), 0),
    "carry": lambda g: A % 10 + B % 10 >= 10,
    "clock": clock,
}

# kind: rates in the specification's table, over how many of its neurons: all heuristics, and
# without single values (no rate given for the last four)
TABLE = {
    "noise": (0.00, 0.00, 200),
    "table": (0.00, 0.00, 200),
    "lookups": (0.01, 0.00, 200),
    "operand lookup": (0.96, 0.01, 200),
    "result lookup": (0.91, 0.00, 200),
    "smooth": (0.99, 0.99, 200),
    "waves": (0.62, 0.61, 200),
    "plane": (1.00, 1.00, 200),
    "units adder": (1.00, None, 100),
    "fourier operand": (0.87, None, 100),
    "fourier result": (0.76, None, 100),
    "clock": (0.23, None, 100),
}


def drawn(kind: str, neurons: int = NEURONS) -> tuple[np.ndarray, np.ndarray]:
    """Neurons of a kind with a little noise, and their logit lens.

    As in the table, it is random in the first eight rows and well aligned in the others: the
    mean activation of the pairs with a result.
    """
    generator = np.random.default_rng(list(KINDS).index(kind))
    columns = np.stack([KINDS[kind](generator) for _ in range(neurons)], 1).astype(np.float32)
    columns /= columns.std(0)
    columns += 0.05 * generator.normal(size=columns.shape).astype(np.float32)
    if list(KINDS).index(kind) < 8:
        return columns, generator.normal(size=(599, neurons)).astype(np.float32)
    sums = np.stack([np.bincount(A + B, column) for column in columns.T], 1)
    return columns, (sums / np.bincount(A + B)[:, None]).astype(np.float32)


@pytest.mark.parametrize("kind", list(TABLE))
def test_neurons_without_a_heuristic_match_as_often_as_in_the_simulation(
    kind: str, additions: Library
) -> None:
    """Two samples of one rate: Fisher's exact p above 0.001. Scored as those of a gated MLP."""
    columns, lens = drawn(kind)
    single = np.array([heuristic.variable != "both" for heuristic in additions.heuristics])
    matches = matched(scores(columns, additions, lens=lens, gated=True)) & single
    *rates, neurons = TABLE[kind]
    for rate, which in zip(rates, (matches, matches & ~additions.excluded), strict=True):
        if rate is not None:
            ours, theirs = int(which.any(1).sum()), round(rate * neurons)
            table = [[ours, NEURONS - ours], [theirs, neurons - theirs]]
            assert stats.fisher_exact(table).pvalue > 0.001, f"{ours} of {NEURONS}, not {rate}"


def test_a_well_aligned_carry_detector_matches_the_digit_it_tells_most_of(
    additions: Library,
) -> None:
    """Nine in ten sums that end in 0 carry, more than of any other ending."""
    columns, lens = drawn("carry", 3)
    at = [h.name for h in additions.heuristics].index("result like ..0")
    assert scores(columns, additions, lens=lens)[:, at] == pytest.approx(0.9, abs=0.01)


# ---------------------------------------------------------------------------------- rotations


def test_a_rotation_writes_the_same_function_in_another_basis() -> None:
    generator = np.random.default_rng(0)
    activations = generator.exponential(size=(500, 7)) * 10.0 ** np.arange(-3, 4)
    activations[:, 2] = 5.0  # a constant neuron writes nothing that varies
    lens = generator.normal(size=(20, 7))
    mixed, written = rotated(activations, lens, generator)
    centred = activations - activations.mean(0)
    expected = centred @ lens.T
    assert np.abs(mixed @ written.T - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.abs(mixed.mean(0)).max() < 1e-5
    assert ((mixed**3).mean(0) > 0).all()
    covariance = mixed.T @ mixed / 500
    assert np.trace(covariance) == pytest.approx(6, rel=1e-4)
    again, _ = rotated(activations, lens, np.random.default_rng(1))
    assert np.abs(again - mixed).max() > 0.1


def test_one_neuron_alone_is_its_own_rotation_whichever_way_up() -> None:
    generator = np.random.default_rng(0)
    activations, lens = generator.exponential(size=(300, 1)), generator.normal(size=(5, 1))
    expected = (activations - activations.mean()) / activations.std()
    for sign in (1, -1):
        mixed, written = rotated(sign * activations, sign * lens, generator)
        np.testing.assert_allclose(mixed, expected, atol=1e-5)
        np.testing.assert_allclose(written, lens * activations.std(), rtol=1e-5)


def test_rotations_are_orthogonal_and_uniform() -> None:
    generator = np.random.default_rng(0)
    turns = np.stack([rotation(3, generator) for _ in range(2000)])
    assert np.abs(turns @ turns.transpose(0, 2, 1) - np.eye(3)).max() < 1e-12
    corners = turns[:, 0, 0]  # of a uniform rotation in three dimensions, uniform in [-1, 1]
    assert stats.kstest(corners, stats.uniform(-1, 2).cdf).pvalue > 0.001
    assert 0.45 < (np.linalg.det(turns) > 0).mean() < 0.55


def planted(found: Library, neurons: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Neurons that each indicate a heuristic and, of a direct one, write its results."""
    generator = np.random.default_rng(seed)
    at = generator.choice(np.flatnonzero(~found.excluded), neurons, replace=False)
    active = np.stack([found.mask(i) for i in at], 1) + 0.1 * generator.normal(
        size=(len(found.first), neurons)
    )
    every = np.bincount(found.result)
    lens = np.stack([np.bincount(found.result, found.mask(i)) / every for i in at], 1)
    noise = 0.2 * generator.normal(size=lens.shape)
    return active.astype(np.float32), np.where(found.direct[at], lens, noise)


def share(found: Library, activations: np.ndarray, lens: np.ndarray) -> float:
    matches = matched(scores(activations, found, lens=lens, gated=True))
    return float(matches[:, ~found.excluded].any(1).mean())


@pytest.mark.parametrize("seed", range(2))
def test_of_many_neurons_with_heuristics_few_rotations_match(seed: int) -> None:
    found = library(0, A, B, A + B)
    neurons = planted(found, NEURONS, seed)
    assert share(found, *neurons) == 1
    assert share(found, *rotated(*neurons, np.random.default_rng(seed))) < 0.4


def test_of_few_neurons_with_heuristics_most_rotations_match() -> None:
    """A mixture of few is largest where its largest part is: so few the control cannot judge."""
    found = library(0, A, B, A + B)
    neurons = planted(found, 4, 0)
    assert share(found, *rotated(*neurons, np.random.default_rng(0))) > 0.7


# ------------------------------------------------------------------------------------- shifts


def test_a_shift_of_a_full_grid_is_a_roll() -> None:
    a, b = (x.ravel() for x in np.indices((7, 5)))
    some = np.random.default_rng(0).permutation(35)
    values = np.arange(35).reshape(7, 5)
    for by in ((2, 3), (0, 0), (-1, 9)):
        moved = values.ravel()[some][shifted(a[some], b[some], by)]
        assert (moved == np.roll(values, by, (0, 1)).ravel()[some]).all()


def test_a_shift_of_missing_pairs_moves_each_value_once() -> None:
    a, b = (x.ravel() for x in np.indices((9, 9)))
    a, b = a[a >= b], b[a >= b]
    source = shifted(a, b, (2, 3))
    assert sorted(source.tolist()) == list(range(len(a)))
    assert (source != np.arange(len(a))).any()
    assert (a[shifted(a, b, (0, 4))] == a).all()
    assert (b[shifted(a, b, (5, 0))] == b).all()


# ------------------------------------------------------------------------------------- labels


def columns_of(generator: np.random.Generator, rates: tuple[float, float]):
    """Columns of three layers, top or control, with a share matched in each."""
    layers = np.repeat([0, 1, 2], [30, 20, 40])
    control = generator.random(90) < np.array([0.3, 0.5, 0.7])[layers]
    return generator.random(90) < np.where(control, *rates), control, layers


def test_drawn_differences_are_those_of_labels_permuted_within_layers() -> None:
    generator = np.random.default_rng(0)
    hit, control, layers = columns_of(generator, (0.3, 0.6))
    observed, drawn_differences = share_differences(hit, control, layers, 4000, generator)
    assert observed == pytest.approx(hit[~control].mean() - hit[control].mean())
    slow = []
    for _ in range(4000):
        labels = control.copy()
        for layer in range(3):
            labels[layers == layer] = generator.permutation(control[layers == layer])
        slow.append(hit[~labels].mean() - hit[labels].mean())
    assert stats.ks_2samp(np.round(drawn_differences, 9), np.round(slow, 9)).pvalue > 0.001


def test_its_p_is_small_where_tops_match_more_and_valid_where_they_do_not() -> None:
    generator = np.random.default_rng(1)

    def p(rates: tuple[float, float]) -> float:
        return permutation_p(*share_differences(*columns_of(generator, rates), 199, generator))

    assert np.mean([p((0.2, 0.7)) <= 0.05 for _ in range(50)]) > 0.9
    null = [p((0.4, 0.4)) for _ in range(400)]
    assert sum(each <= 0.05 for each in null) <= stats.binom.ppf(0.999, 400, 0.05)


def test_a_layer_that_matches_more_is_no_difference_between_labels() -> None:
    """All columns of one layer match, none of the other: labels within layers explain it."""
    layers = np.repeat([0, 1], 20)
    control = np.concatenate([np.arange(20) < 3, np.arange(20) < 17])
    observed, draws = share_differences(layers == 0, control, layers, 19, np.random.default_rng(0))
    assert observed > 0.5
    assert draws == pytest.approx(np.full(19, observed))


def test_shares_of_nothing_are_refused() -> None:
    one = np.ones(3, bool)
    with pytest.raises(UsageError, match="0 top neurons and 3 controls"):
        share_differences(one, one, np.zeros(3, int), 9, np.random.default_rng(0))
