from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests.measurement import Head, Measurement
from mechtests.shares import Effects, Share, explained, readings
from mechtests.statistics import summary
from mechtests.verdict import Outcome
from tests.test_margins import sample


def effects_of(array: np.ndarray, *, sign: float = 1.0, span: float = 4.0) -> Effects:
    """Effects [prompt, layer, head]; prompts in pairs, the pairs in halves in turn."""
    n = len(array)
    cluster = np.arange(n) // 2
    values = {"effect": sign * array, "clean": np.full(n, span), "corrupted": np.zeros(n)}
    found = Measurement(
        name="made up",
        values=values,
        axes={"effect": ("prompt", "layer", "head")},
        units={"effect": "logits"},
        cluster=cluster,
        template=0 * cluster,
        half=cluster % 2,
    )
    return Effects(found, "effect", found, sign)


def drawn(seed: int, means: list[list[float]], n: int = 80, spread: float = 0.3) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, spread, (n, *np.shape(means)))
    return np.array(means) + noise


MEANS = [[2.0, 1.0], [-1.0, 0.0]]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_signed_counts_harm_and_helpful_does_not(sign: float) -> None:
    found = readings(effects_of(drawn(0, MEANS), sign=sign), [(0, 0)], "selection", "evaluation")
    assert found["signed"].ratio == pytest.approx(2 / 2, abs=0.1)
    assert found["helpful"].ratio == pytest.approx(2 / 3, abs=0.1)
    assert found["signed"].above(0.7, what="x").outcome is Outcome.HOLDS
    assert found["helpful"].above(0.5, what="x").outcome is Outcome.HOLDS
    assert found["helpful"].above(0.75, what="x").outcome is Outcome.REFUTED


def test_the_whole_may_be_the_heads_of_a_circuit() -> None:
    effects = effects_of(drawn(1, MEANS, spread=0.1))
    found = readings(effects, [(0, 0), (0, 1)], "selection", "evaluation", among=[(0, 0), (1, 0)])
    assert found["signed"].ratio == pytest.approx(2 / 1, abs=0.2)
    assert found["helpful"].ratio == pytest.approx(1.0)


def test_a_share_of_nothing_is_no_number_and_no_warning() -> None:
    effects = effects_of(np.ones((20, 2, 2)))
    nothing = explained(effects, [(0, 0)], "evaluation", among=[])
    assert np.isnan(nothing.ratio)
    part = effects.total([(0, 0)], "evaluation")
    assert Share(part, part * 0.0, part).ratio == np.inf


def test_heads_help_that_surely_do_on_the_half_that_chooses() -> None:
    array = drawn(2, [[2.0, -2.0], [0.02, -0.2]], spread=0.1)
    array[effects_of(array).measurement.half == 1] *= -1
    effects = effects_of(array)
    assert effects.helping("selection") == [(0, 0)]
    assert effects.helping("evaluation") == [(0, 1), (1, 1)]
    assert effects.helping("selection", among=[(0, 1), (1, 1)]) == []
    assert effects.strongest(2, "selection", effects.heads()) == [(0, 0), (1, 0)]


def test_noise_is_helpful_in_one_of_forty_heads() -> None:
    effects = effects_of(drawn(3, np.zeros((40, 50)).tolist(), n=160))
    helping = len(effects.helping("selection"))
    assert 20 < helping < 100
    whole = explained(effects, effects.heads(), "evaluation", among=effects.helping("selection"))
    assert abs(summary(whole.whole).mean) < 4 * 0.3 * (helping / 80) ** 0.5


def test_a_single_cluster_helps_surely_nowhere() -> None:
    assert effects_of(drawn(4, MEANS, n=2)).helping("selection") == []


@given(st.integers(0, 10**6), st.permutations(list(range(40))))
@settings(max_examples=20, deadline=None)
def test_shares_do_not_depend_on_the_order_of_prompts(seed: int, order: list[int]) -> None:
    array = drawn(seed, MEANS, n=40)
    straight = effects_of(array)
    whole = straight.measurement
    turned = Effects(
        Measurement(
            name="turned",
            values={name: value[order] for name, value in whole.values.items()},
            axes=whole.axes,
            units=whole.units,
            cluster=whole.cluster[order],
            template=whole.template[order],
            half=whole.half[order],
        ),
        "effect",
        straight.span,
    )
    turned = Effects(turned.measurement, "effect", turned.measurement)
    heads: list[Head] = [(0, 0)]
    for reading, share in readings(straight, heads, "selection", "evaluation").items():
        other = readings(turned, heads, "selection", "evaluation")[reading]
        assert other.ratio == pytest.approx(share.ratio)


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_the_mean_of_a_shares_points_is_the_share_and_their_error_that_of_a_ratio(
    seed: int,
) -> None:
    generator = np.random.default_rng(seed)
    whole = generator.normal(4, 0.4, 60)
    part = 0.6 * whole + generator.normal(0, 0.3, 60)
    share = Share(sample(part), sample(whole), sample(whole))
    points = summary(share.points)
    assert points.mean == pytest.approx(share.ratio)
    clusters = points.clusters
    leave_one_out = [(part.sum() - a) / (whole.sum() - b) for a, b in zip(part, whole, strict=True)]
    jackknife = (clusters - 1) * np.std(leave_one_out)
    if clusters == 60:
        assert points.spread == pytest.approx(jackknife, rel=0.1)


def test_the_whole_must_be_above_its_guard() -> None:
    effects = effects_of(drawn(5, MEANS), span=100.0)
    share = readings(effects, [(0, 0)], "selection", "evaluation")["signed"]
    assert share.unguarded is not None
    assert "D - 0.1" in share.unguarded
    assert share.above(0.1, what="x").outcome is Outcome.INCONCLUSIVE
    assert (
        readings(effects_of(drawn(5, MEANS)), [], "selection", "evaluation")["signed"].unguarded
        is None
    )
