"""Planted series that accumulate, that only turn over, and that jump; and what neurons explain."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mechtests.arithmetic import churning, dynamics
from mechtests.arithmetic.churning import stationary, turnovers
from mechtests.arithmetic.dynamics import accumulates, churn, trend
from mechtests.arithmetic.mutual import (
    Explained,
    masks,
    mutual,
    mutual_explains,
    neurons_of,
    over_checkpoints,
    random_subset,
)
from mechtests.arithmetic.triples import Heuristics
from mechtests.errors import MeasurementError, UsageError
from mechtests.margins import above
from mechtests.measurement import Sample
from mechtests.verdict import Outcome

CHECKPOINTS = 13
LAYERS = 3
NAMES = tuple(f"op1 = {n} mod 7" for n in range(7))

Series = list[set[tuple[str, int, int]]]


def pool(count: int, generator: np.random.Generator) -> list[tuple[str, int, int]]:
    """Distinct triples, a random heuristic of each of some neurons of three layers."""
    return [(str(generator.choice(NAMES)), n % LAYERS, n // LAYERS) for n in range(count)]


def accumulating(generator: np.random.Generator, late: float = 0.6) -> Series:
    """Final triples come one after the other to stay; the rest is another draw every time."""
    triples = pool(300, generator)
    final, other = triples[:80], triples[80:]
    arrival = generator.uniform(0, CHECKPOINTS / late, len(final))
    arrival = np.where(arrival > CHECKPOINTS - 1, CHECKPOINTS - 1, arrival)
    series = []
    for at in range(CHECKPOINTS):
        kept = {triple for triple, since in zip(final, arrival, strict=True) if since <= at}
        filler = generator.permutation(len(other))[: len(final) - len(kept)]
        series.append(kept | {other[i] for i in filler})
    return series


def drifting(
    generator: np.random.Generator, rate: float, *, bursts: bool = False, together: int = 1
) -> Series:
    """A stationary series: a part of the triples is replaced by others at every step.

    With bursts the part varies from step to step, around the same mean; ``together`` triples of a
    neuron come and go at once.
    """
    neurons = [
        {(NAMES[i], n % LAYERS, n // LAYERS) for i in range(together)}
        for n in range(240 // together)
    ]
    now = list(range(80 // together))
    series = [set().union(*(neurons[i] for i in now))]
    for _ in range(CHECKPOINTS - 1):
        part = rate * generator.uniform(0, 2) if bursts else rate
        gone = generator.random(len(now)) < part
        outside = generator.permutation(sorted(set(range(len(neurons))) - set(now)))
        new = outside[: int(gone.sum())].tolist()
        now = [i for i, lost in zip(now, gone, strict=True) if not lost] + new
        series.append(set().union(*(neurons[i] for i in now)))
    return series


def jumping(generator: np.random.Generator) -> Series:
    """A tenth of the final triples, then at one checkpoint nearly all; from then on they stay."""
    triples = pool(300, generator)
    final, other = triples[:80], triples[80:]
    series: Series = []
    for at in range(CHECKPOINTS):
        many = 8 + at // 3 if at < 7 else 68 + at - 7
        filler = generator.permutation(len(other))[: 80 - many]
        series.append(set(final[:many]) | {other[i] for i in filler})
    series[-1] = set(final)
    return series


# ---------------------------------------------------------------- accumulating


@pytest.mark.parametrize("seed", range(3))
def test_a_series_that_accumulates_holds(seed: int) -> None:
    generator = np.random.default_rng(seed)
    verdict = accumulates(accumulating(generator), generator)
    assert verdict.outcome is Outcome.HOLDS, str(verdict)
    assert "compared exactly" in verdict.parts[0].sentence
    deciding = [control for control in verdict.controls if control.decides]
    assert len(deciding) == 1
    assert deciding[0].p == deciding[0].p_min == 1 / 200


def test_a_jump_is_refuted_by_its_single_step_alone() -> None:
    generator = np.random.default_rng(0)
    verdict = accumulates(jumping(generator), generator)
    assert verdict.outcome is Outcome.REFUTED, str(verdict)
    assert [part.outcome for part in verdict.parts[:2]] == [Outcome.HOLDS, Outcome.REFUTED]
    assert "largest step" in verdict.sentence


def test_a_series_that_stays_as_it_is_is_refuted() -> None:
    triples = set(pool(50, np.random.default_rng(0)))
    verdict = accumulates([triples] * 8, np.random.default_rng(0))
    assert verdict.outcome is Outcome.REFUTED
    assert verdict.parts[0].estimate == 0


def test_a_series_in_reverse_is_not_said_to_accumulate() -> None:
    """Its last set is the first of another: nearer the end is less settled."""
    generator = np.random.default_rng(1)
    verdict = accumulates(accumulating(generator)[::-1], generator)
    assert verdict.outcome is not Outcome.HOLDS
    assert verdict.parts[2].outcome is Outcome.REFUTED


@pytest.mark.parametrize(
    ("rate", "bursts", "together"),
    [(0.1, False, 1), (0.3, False, 1), (0.15, True, 1), (0.15, False, 4)],
)
def test_churn_holds_no_more_often_than_a_twentieth(
    rate: float, bursts: bool, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(churning, "CHURNS", 19)  # the smallest p is the level; quicker
    runs, held, rises = 200, 0, 0
    for seed in range(runs):
        generator = np.random.default_rng([seed, int(100 * rate), bursts, together])
        series = drifting(generator, rate, bursts=bursts, together=together)
        verdict = accumulates(series, generator)
        held += verdict.outcome is Outcome.HOLDS
        rises += verdict.parts[0].outcome is Outcome.HOLDS
    assert rises > 0.9 * runs  # the share of final triples rises all the same
    assert held <= stats.binom.ppf(0.999, runs, 0.05)


def test_the_churn_null_is_calibrated_on_its_own_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(churning, "CHURNS", 39)
    runs, below = 200, 0
    for seed in range(runs):
        generator = np.random.default_rng(seed)
        control = churn(Heuristics.of(drifting(generator, 0.2)), generator)
        below += not control.reached
    assert stats.binom.ppf(0.001, runs, 0.05) <= below <= stats.binom.ppf(0.999, runs, 0.05)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9))
def test_a_stationary_series_has_the_sizes_of_every_layer(seed: int, checkpoints: int) -> None:
    generator = np.random.default_rng(seed)
    layers = generator.integers(0, LAYERS, 60)
    there = generator.random((checkpoints, 60)) < generator.random((checkpoints, 1))
    found = stationary(there, layers, generator)
    for layer in range(LAYERS):
        mine = layers == layer
        np.testing.assert_array_equal(found[:, mine].sum(1), there[:, mine].sum(1))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.6))
def test_a_stationary_series_has_the_runs_turnovers_in_another_order(
    seed: int, rate: float
) -> None:
    generator = np.random.default_rng(seed)
    there = Heuristics.of(drifting(generator, rate, bursts=True)).there
    one_layer = np.zeros(there.shape[1], np.int64)
    found = stationary(there, one_layer, generator)
    most = there.shape[1] / there[0].sum() - 1  # so large a part there is to come in
    wanted = np.minimum(turnovers(there), most)
    np.testing.assert_allclose(np.sort(turnovers(found)), np.sort(wanted))


def test_present_is_counted_as_by_hand() -> None:
    one, two, three, four = pool(4, np.random.default_rng(0))
    series = Heuristics.of([set(), {one}, {one, four}, {two, three, four}, {one, two, three}])
    np.testing.assert_allclose(series.present, [0, 1 / 3, 1 / 3, 2 / 3, 1])
    assert trend(np.arange(7.0)) == 5.0  # 5.5 - 0.5


def test_chance_is_the_mean_over_random_sets_of_every_layer() -> None:
    generator = np.random.default_rng(0)
    possible = [(name, layer, n) for name in NAMES for layer in range(2) for n in range(2 + layer)]
    now, final = set(possible[::3]), set(possible[::2])
    found = Heuristics.of([now, final]).by_chance({0: 14, 1: 21})[0]
    by_layer = [[each for each in possible if each[1] == layer] for layer in (0, 1)]
    counts = Counter(layer for _, layer, _ in now)
    drawn = [
        sum(
            len(final & {each[i] for i in generator.choice(len(each), counts[layer], False)})
            for layer, each in enumerate(by_layer)
        )
        / len(final)
        for _ in range(4000)
    ]
    assert found == pytest.approx(np.mean(drawn), abs=5 * np.std(drawn) / np.sqrt(4000))


def test_chance_refuses_more_triples_than_there_can_be() -> None:
    triples = set(pool(30, np.random.default_rng(0)))
    with pytest.raises(UsageError, match="more triples than it could have"):
        Heuristics.of([triples, triples]).by_chance(dict.fromkeys(range(LAYERS), 9))


def test_groups_left_out_give_an_interval_that_is_the_jackknifes() -> None:
    generator = np.random.default_rng(2)
    series = accumulating(generator)
    left_out = [
        [{t for t in sorted(each) if generator.random() > 0.03} or each for each in series]
        for _ in range(10)
    ]
    verdict = accumulates(series, generator, left_out=left_out)
    assert verdict.outcome is Outcome.HOLDS, str(verdict)
    values = [trend(Heuristics.of(each).present[:-1]) for each in left_out]
    error = np.sqrt(9 / 10 * np.sum((np.array(values) - np.mean(values)) ** 2))
    low, high = verdict.parts[0].interval or (0.0, 0.0)
    assert high - low == pytest.approx(2 * stats.t.ppf(0.975, 9) * error)
    alone, both = (accumulates(series, generator, left_out=each) for each in ((), left_out))
    wide, wider = (np.ptp(each.parts[2].interval or ()) for each in (alone, both))
    assert wider > wide
    assert "10 groups of prompts" in both.parts[0].sentence


def test_groups_that_change_nothing_leave_it_undecided() -> None:
    generator = np.random.default_rng(2)
    series = accumulating(generator)
    verdict = accumulates(series, generator, left_out=[series] * 10)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "no group of prompts changes it" in verdict.sentence


def test_too_few_checkpoints_are_not_applicable() -> None:
    triples = set(pool(9, np.random.default_rng(0)))
    verdict = accumulates([triples] * 6, np.random.default_rng(0))
    assert verdict.outcome is Outcome.NOT_APPLICABLE


def test_a_final_checkpoint_without_heuristics_is_refused() -> None:
    with pytest.raises(MeasurementError, match="none at the last of 7"):
        accumulates([set()] * 7, np.random.default_rng(0))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_names_of_heuristics_and_neurons_do_not_matter(seed: int) -> None:
    generator = np.random.default_rng(seed)
    series = accumulating(generator)
    numbers = generator.permutation(1000)
    renamed = [{(f"x {name}", at, int(numbers[n])) for name, at, n in each} for each in series]
    first, second = (Heuristics.of(each) for each in (series, renamed))
    np.testing.assert_array_equal(first.present, second.present)
    one, other = (dynamics.alike(each) for each in (first, second))
    assert one is not None
    assert other is not None
    assert (one.mean, one.error) == pytest.approx((other.mean, other.error))


# ---------------------------------------------------------------- several operators


def of(operator: str, series: Series) -> Series:
    return [{(f"{operator}: {name}", layer, n) for name, layer, n in each} for each in series]


def test_operators_weigh_the_same_however_many_triples_they_have() -> None:
    one, two, three, four = pool(4, np.random.default_rng(0))
    many, few = [{one, two}, {one, two, three, four}], [set(), {two}]
    both = [a | b for a, b in zip(of("addition", many), of("division", few), strict=True)]
    assert Heuristics.of(both).present.tolist() == [0.25, 1.0]


def test_likeness_and_trend_of_several_operators_are_the_means_of_theirs() -> None:
    generator = np.random.default_rng(3)
    parts = [accumulating(generator)[:10], drifting(generator, 0.2)[:10]]
    named = [of(name, each) for name, each in zip(("addition", "division"), parts, strict=True)]
    both = Heuristics.of([a | b for a, b in zip(*named, strict=True)])
    alone = [Heuristics.of(each) for each in parts]
    np.testing.assert_allclose(both.present, np.mean([each.present for each in alone], 0))
    likes = [dynamics.alike(each) for each in (both, *alone)]
    means = [like.mean for like in likes if like is not None]
    assert means[0] == pytest.approx(np.mean(means[1:]))


def test_every_operators_layers_keep_their_own_sizes_in_a_stationary_series() -> None:
    generator = np.random.default_rng(4)
    series = zip(
        of("addition", drifting(generator, 0.2)),
        of("division", accumulating(generator)),
        strict=True,
    )
    found = Heuristics.of([a | b for a, b in series])
    drawn = stationary(found.there, found.strata, generator)
    assert len(np.unique(found.strata)) == 2 * LAYERS
    for stratum in np.unique(found.strata):
        mine = found.strata == stratum
        np.testing.assert_array_equal(drawn[:, mine].sum(1), found.there[:, mine].sum(1))


# ---------------------------------------------------------------- sets of neurons


def test_a_mutual_neuron_has_the_same_heuristic_in_the_end() -> None:
    now = {("a", 0, 1), ("b", 0, 2), ("a", 1, 3), ("c", 1, 3)}
    final = {("a", 0, 1), ("c", 0, 2), ("c", 1, 3)}
    assert neurons_of(now) == {(0, 1), (0, 2), (1, 3)}
    assert mutual(now, final) == {(0, 1), (1, 3)}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_random_subset_has_as_many_neurons_in_every_layer(seed: int) -> None:
    generator = np.random.default_rng(seed)
    neurons = {(int(n) % 4, int(n)) for n in generator.permutation(60)[:40]}
    like = {each for each in neurons if generator.random() < 0.4}
    found = random_subset(neurons, like, generator)
    assert found <= neurons
    assert Counter(at for at, _ in found) == Counter(at for at, _ in like)
    assert random_subset(neurons, neurons, generator) == neurons


def test_every_neuron_of_a_layer_is_as_likely_in_a_random_subset() -> None:
    generator = np.random.default_rng(0)
    neurons, like = {(0, n) for n in range(6)} | {(1, 0)}, {(0, 0), (0, 1)}
    drawn = Counter(each for _ in range(3000) for each in random_subset(neurons, like, generator))
    assert stats.chisquare([drawn[0, n] for n in range(6)]).pvalue > 1e-4
    assert drawn[1, 0] == 0


def test_a_random_subset_is_of_the_neurons_it_is_like() -> None:
    with pytest.raises(UsageError, match="2 that are not among them"):
        random_subset({(0, 1)}, {(0, 1), (0, 2), (1, 1)}, np.random.default_rng(0))


def test_masks_are_the_same_neurons() -> None:
    found = masks({(2, 0), (2, 3), (3, 1)}, range(1, 4), 5)
    assert {at: np.flatnonzero(mask).tolist() for at, mask in found.items()} == {
        1: [],
        2: [0, 3],
        3: [1],
    }


# ---------------------------------------------------------------- what mutual neurons explain


def explained(
    generator: np.random.Generator,
    shares: tuple[float, float] = (0.8, 0.4),
    *,
    label: str = "step1",
    whole: float = 0.5,
    prompts: np.ndarray | None = None,
) -> Explained:
    """NL with given mean shares of mutual and of random neurons, noisy over prompts."""
    at = np.arange(150) if prompts is None else prompts
    floor = generator.normal(0.2, 0.1, len(at))
    size = generator.gamma(8, whole / 8, len(at))

    def nl(share: float) -> Sample:
        noise = generator.normal(0, 0.05, len(at))
        return Sample(floor + share * size + noise, at)

    return Explained(label, nl(1.0), nl(shares[0]), nl(shares[1]), Sample(floor, at))


def series_of(generator: np.random.Generator, shares: list[tuple[float, float]]) -> list[Explained]:
    return [explained(generator, each, label=f"step{at}") for at, each in enumerate(shares)]


def test_mutual_neurons_that_explain_most_hold() -> None:
    found = series_of(np.random.default_rng(0), [(0.7, 0.4), (0.75, 0.5), (0.9, 0.8)])
    verdict = mutual_explains(found)
    assert verdict.outcome is Outcome.HOLDS, str(verdict)
    assert verdict.shown["share"] == pytest.approx(np.mean(verdict.shown["shares"]))
    assert verdict.shown["share"] == pytest.approx(np.mean([0.7, 0.75, 0.9]), abs=0.02)


def test_mutual_neurons_that_explain_little_are_refuted() -> None:
    verdict = mutual_explains(series_of(np.random.default_rng(0), [(0.3, 0.1), (0.5, 0.1)]))
    assert verdict.outcome is Outcome.REFUTED


def test_a_random_part_that_explains_as_much_leaves_it_inconclusive() -> None:
    verdict = mutual_explains(series_of(np.random.default_rng(0), [(0.8, 0.8), (0.9, 0.9)]))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "the control reaches it" in verdict.sentence


def test_a_high_floor_is_no_share_explained() -> None:
    """Mutual neurons that add nothing have the floor's NL; the uncorrected ratio would be 0.8."""
    generator = np.random.default_rng(0)
    high = explained(generator, (0.02, 0.02), whole=0.3)
    parts = high.all, high.mutual, high.random, high.floor
    moved = Explained("high", *(each + 1.0 for each in parts))
    assert moved.mutual.mean / moved.all.mean > 0.75
    verdict = mutual_explains([moved])
    assert verdict.outcome is Outcome.REFUTED
    assert verdict.shown["share"] < 0.1


def test_checkpoints_below_the_guard_are_left_out_and_named() -> None:
    generator = np.random.default_rng(0)
    good = series_of(generator, [(0.8, 0.4), (0.8, 0.4)])
    bad = explained(generator, (-3.0, 0.0), label="early", whole=0.1)
    verdict, without = mutual_explains([bad, *good]), mutual_explains(good)
    assert verdict.outcome is Outcome.HOLDS
    assert "below the guard of 0.2: early" in verdict.sentence
    assert verdict.estimate == without.estimate
    alone = mutual_explains([bad])
    assert alone.outcome is Outcome.INCONCLUSIVE
    assert "denominator" in alone.sentence


def test_checkpoints_weigh_alike_whatever_their_denominators() -> None:
    generator = np.random.default_rng(0)
    small, large = (
        explained(generator, (share, 0.2), whole=whole) for share, whole in ((0.9, 0.3), (0.5, 3.0))
    )
    found = mutual_explains([small, large]).shown
    assert found["share"] == pytest.approx(0.7, abs=0.03)


def test_the_same_prompts_at_all_checkpoints_are_simply_averaged() -> None:
    values = np.random.default_rng(0).normal(size=(4, 30))
    found = over_checkpoints([Sample(each, np.arange(30)) for each in values])
    np.testing.assert_allclose(found.values, values.mean(0))


def test_the_interval_over_other_prompts_covers_as_often_as_it_says() -> None:
    """A prompt's own level is shared by the checkpoints at which it is answered right."""
    generator, covered, runs = np.random.default_rng(0), 0, 400
    for _ in range(runs):
        level = generator.normal(size=200)
        samples = []
        for at in range(5):
            prompts = np.sort(generator.permutation(200)[: 60 + 20 * at])
            samples.append(
                Sample(level[prompts] + generator.normal(at, 0.5, len(prompts)), prompts)
            )
        found = over_checkpoints(samples)
        assert found.mean == pytest.approx(np.mean([each.mean for each in samples]))
        low, high = above(found, 0.0, what="it").interval or (0.0, 0.0)
        covered += low <= 2.0 <= high
    assert abs(covered / runs - 0.95) < 0.035


def test_a_mean_over_checkpoints_takes_a_prompt_once() -> None:
    with pytest.raises(MeasurementError, match="one value a prompt"):
        over_checkpoints([Sample(np.zeros(3), np.array([0, 1, 1]))])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10), st.floats(-5, 5))
def test_the_share_does_not_change_with_the_scale_or_the_level_of_nl(
    seed: int, factor: float, shift: float
) -> None:
    generator = np.random.default_rng(seed)
    found = explained(generator, whole=3.0)
    moved = Explained(
        "moved",
        *(each * factor + shift for each in (found.all, found.mutual, found.random, found.floor)),
    )
    one, other = (mutual_explains([each]).shown["share"] for each in (found, moved))
    assert one == pytest.approx(other)
