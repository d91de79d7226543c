"""Controls of heuristic neurons: as many, as important, and no heuristic; from wider strata."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests.arithmetic.partners import (
    MATCHED,
    SHORT,
    Classified,
    controls,
    lacking,
    widened,
)
from mechtests.errors import UsageError
from mechtests.matched import STRATA

NEURONS, HEURISTICS = 12, 3


def drawn(seed: int, layers: int = 4, share: float = 0.3) -> tuple[list[Classified], np.ndarray]:
    """Layers of neurons of which some match heuristics, and which of these hold for 15 prompts."""
    draw = np.random.default_rng(seed)
    found = []
    for layer in range(layers):
        matches = draw.random((NEURONS, HEURISTICS)) < 0.6
        matches[draw.random(NEURONS) > share] = False
        found.append(
            Classified(2 * layer, np.arange(NEURONS), matches, draw.exponential(size=NEURONS))
        )
    return found, draw.random((15, HEURISTICS)) < 0.5


Layer = tuple[list[float], list[bool]]


def planted(*layers: Layer) -> list[Classified]:
    """Layers with one heuristic: what each neuron is attributed, and whether it matches."""
    return [
        Classified(at, np.arange(len(attributed)), np.array(matches)[:, None], np.array(attributed))
        for at, (attributed, matches) in enumerate(layers)
    ]


SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from(STRATA), st.floats(0.1, 0.9))
def test_controls_match_nothing_and_are_as_many_as_their_stratum_lets_them(
    seed: int, stratum: str, share: float
) -> None:
    layers, held = drawn(seed, share=share)
    working = [each.at_work(held) for each in layers]
    found = controls(layers, working, stratum)
    parts = {"layer": [[0], [1], [2], [3]], "third of depth": [[0, 1], [2], [3]]}
    for band in parts.get(stratum, [[0, 1, 2, 3]]):
        asked = sum(working[at].sum(1) for at in band)
        free = sum(int((~layers[at].matches.any(1)).sum()) for at in band)
        got = sum(found[at].sum(1) for at in band)
        np.testing.assert_array_equal(got, np.minimum(asked, free))
    for each, chosen in zip(layers, found, strict=True):
        assert not (chosen & each.matches.any(1)).any()


def test_controls_are_the_nearest_in_attribution_of_all_choices() -> None:
    draw = np.random.default_rng(0)
    first, second = [True, True, False, False, False], [True, False, False, False]
    for _ in range(20):
        attributions = draw.normal(size=9)
        layers = planted((attributions[:5].tolist(), first), (attributions[5:].tolist(), second))
        working = [each.at_work(np.ones((1, 1), bool)) for each in layers]
        chosen = np.flatnonzero(np.concatenate(controls(layers, working, "any layer"), 1)[0])
        mine, pool = [0, 1, 5], [2, 3, 4, 6, 7, 8]

        def off(them: tuple[int, ...], a: np.ndarray = attributions, m: list[int] = mine) -> float:
            return float(np.abs(a[m] - a[list(them)]).sum())

        best = min(off(them) for them in permutations(pool, 3))
        assert min(off(them) for them in permutations(chosen.tolist())) == pytest.approx(best)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_a_wider_stratum_has_no_fewer_controls_and_none_further_off(seed: int) -> None:
    layers, held = drawn(seed)
    working = [each.at_work(held) for each in layers]
    attribution = np.concatenate([each.attribution for each in layers])

    def told(stratum: str) -> tuple[np.ndarray, np.ndarray]:
        mask = np.concatenate(controls(layers, working, stratum), 1)
        mine = np.concatenate(working, 1)
        off = [
            np.abs(np.sort(attribution[one]) - np.sort(attribution[other])).sum()
            if one.sum() == other.sum()
            else np.nan
            for one, other in zip(mine, mask, strict=True)
        ]  # sorted against sorted is the least there is on a line
        return mask.sum(1), np.array(off)

    (narrow, off), (wide, less) = told("layer"), told("any layer")
    assert (wide >= narrow).all()
    both = np.isfinite(off) & np.isfinite(less)
    assert (less[both] <= off[both] + 1e-9).all()


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from(STRATA))
def test_controls_do_not_depend_on_the_order_of_layers_or_neurons(seed: int, stratum: str) -> None:
    layers, held = drawn(seed)
    draw = np.random.default_rng(seed + 1)
    turns = [draw.permutation(NEURONS) for _ in layers]
    turned = [
        Classified(each.layer, each.neurons[at], each.matches[at], each.attribution[at])
        for each, at in zip(layers, turns, strict=True)
    ][::-1]
    straight, back = (
        {
            (each.layer, int(n)): mask[:, at]
            for each, mask in zip(
                some, controls(some, [one.at_work(held) for one in some], stratum), strict=True
            )
            for at, n in enumerate(each.neurons)
        }
        for some in (layers, turned)
    )
    assert straight.keys() == back.keys()
    for neuron, mask in straight.items():
        np.testing.assert_array_equal(mask, back[neuron])


def test_an_unknown_stratum_is_refused() -> None:
    layers, held = drawn(0)
    with pytest.raises(UsageError, match="got 'model'"):
        controls(layers, [each.at_work(held) for each in layers], "model")


ENOUGH, NONE = ([1.0, 1.0, 0.9], [True, False, False]), ([1.0, 1.0, 0.9], [True, True, True])

LONELY, SPARE = ([1.0], [True]), ([0.9] * 3, [False] * 3)


@pytest.mark.parametrize(
    ("layers", "stratum"),
    [
        ([ENOUGH, ENOUGH, ENOUGH], "layer"),
        ([LONELY, SPARE, ENOUGH, ENOUGH, ENOUGH, ENOUGH], "third of depth"),
        ([LONELY, LONELY, SPARE], "any layer"),
        ([([1.0, 0.1], [True, False]), ([1.0, 1.0, 0.8], [True, False, False])], "layer"),
        ([([1.0, 0.1], [True, False]), ([0.2, 0.8], [False, False])], "any layer"),
    ],
)
def test_the_stratum_is_the_narrowest_with_as_many_neurons_of_half_the_attribution(
    layers: list[Layer], stratum: str
) -> None:
    found, sides = widened(planted(*layers), np.ones((10, 1), bool))
    assert found == stratum
    assert not lacking(*sides.count, *sides.attribution)


def test_where_no_stratum_has_enough_the_last_is_taken_and_lacks_something() -> None:
    found, sides = widened(planted(NONE, NONE), np.ones((10, 1), bool))
    assert found == STRATA[-1]
    assert "on 100% of the prompts there are fewer" in lacking(*sides.count, *sides.attribution)


def test_stratum_and_controls_are_the_same_in_any_unit_of_attribution() -> None:
    layers, held = drawn(3, share=0.6)
    found = widened(layers, held)
    stretched = [replace(each, attribution=7 * each.attribution) for each in layers]
    other = widened(stretched, held)
    assert found[0] == other[0]
    for one, two in zip(found[1].controls, other[1].controls, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("short", "part", "said"),
    [
        (SHORT, MATCHED, ""),
        (SHORT + 0.01, 1.0, "on 21% of the prompts there are fewer neurons"),
        (0.0, MATCHED - 0.01, "are attributed 1.5 logits a prompt, the heuristic ones 3"),
    ],
)
def test_what_lacks_is_said_from_the_limits_on(short: float, part: float, said: str) -> None:
    count = np.full(100, 5)
    controls_ = count - (np.arange(100) < round(100 * short))
    found = lacking(count, controls_, np.full(100, 3.0), np.full(100, 3.0 * part))
    assert (said in found) if said else found == ""
