"""Knocked-out sets and their controls are what they are said to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests.arithmetic.one_heuristic import related_sets
from mechtests.arithmetic.pools import (
    CONTROLS,
    DECILES,
    GuidedSets,
    Important,
    guided_sets,
    packed,
)
from mechtests.errors import UsageError

DRAWS = 4


def neurons(
    seed: int = 0,
    sizes: tuple[int, ...] = (60, 25, 40),
    heuristics: int = 12,
    share: float = 0.12,
) -> Important:
    """Random important neurons of some layers, in no order.

    Scores are a match from 0.6 on; of a tenth of the neurons only with every other heuristic.
    """
    draw = np.random.default_rng(seed)
    layer = draw.permutation(np.repeat(np.arange(len(sizes)) * 2 + 1, sizes))
    index = draw.choice(500, len(layer), replace=False)
    score = np.where(draw.random((len(layer), heuristics)) < share, 0.6, 0.0)
    score += 0.39 * draw.random(score.shape).round(1)
    matched = score >= 0.6
    matched[::10, ::2] = False
    return Important(layer, index, draw.random(len(layer)), score, matched)


def holding(
    seed: int = 0, prompts: int = 9, heuristics: int = 12, share: float = 0.3
) -> np.ndarray:
    return np.random.default_rng(seed + 99).random((prompts, heuristics)) < share


@st.composite
def worlds(draw) -> tuple[Important, np.ndarray, tuple[int, ...], int]:
    seed = draw(st.integers(0, 2**32))
    sizes = tuple(draw(st.lists(st.integers(1, 40), min_size=1, max_size=3)))
    heuristics = draw(st.integers(1, 15))
    important = neurons(seed, sizes, heuristics, draw(st.sampled_from([0.02, 0.1, 0.5])))
    holds = holding(seed, draw(st.integers(2, 6)), heuristics, draw(st.sampled_from([0.1, 0.5])))
    ks = tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=3, unique=True)))
    return important, holds, ks, seed


def plan(world, **kwargs) -> GuidedSets:
    important, holds, ks, seed = world
    asked = {"draws": DRAWS, "generator": np.random.default_rng(seed), **kwargs}
    return guided_sets(important, holds, ks=ks, **asked)


def members(rows: np.ndarray) -> list[int]:
    """The rows of a set, which is padded at its end alone and has none twice."""
    found = rows[rows >= 0].tolist()
    assert (rows[: len(found)] >= 0).all()
    assert len(set(found)) == len(found)
    return found


def by_layer(important: Important, rows: list[int]) -> dict[int, int]:
    return {at: int((important.layer[rows] == at).sum()) for at in important.layers.tolist()}


def slow_ranked(important: Important, holds: np.ndarray) -> list[int]:
    """A prompt's neurons, best first, one by one."""
    found = []
    for neuron in range(len(important)):
        scores = [
            important.score[neuron, h] for h in np.flatnonzero(holds & important.matched[neuron])
        ]
        if scores:
            found.append((-max(scores), neuron))
    return [neuron for _, neuron in sorted(found)]


def first_of(important: Important, ranked: list[int], counts: dict[int, int]) -> set[int]:
    found = set()
    for layer, count in counts.items():
        found |= set([n for n in ranked if important.layer[n] == layer][:count])
    return found


@settings(deadline=None, max_examples=60)
@given(worlds())
def test_a_prompt_loses_the_best_neurons_of_its_heuristics_in_each_layer(world) -> None:
    important, holds, ks, _ = world
    found = plan(world)
    for prompt, row in enumerate(holds):
        ranked = slow_ranked(important, row)
        assert found.pool[prompt].tolist() == list(by_layer(important, ranked).values())
        for at, k in enumerate(ks):
            expected = first_of(important, ranked, dict.fromkeys(important.layers.tolist(), k))
            assert set(members(found.sets[prompt, at, 0])) == expected
            assert found.knocked[at, prompt] == len(expected)


@settings(deadline=None, max_examples=60)
@given(worlds())
def test_controls_have_as_many_in_each_layer_or_say_how_many_are_missing(world) -> None:
    important, holds, ks, _ = world
    found = plan(world)
    assert found.sets.shape[2] == 1 + DRAWS * len(CONTROLS)
    for prompt, at in np.ndindex(len(holds), len(ks)):
        own = members(found.sets[prompt, at, 0])
        counts = by_layer(important, own)
        ranked = slow_ranked(important, holds[prompt])
        for control, name in enumerate(CONTROLS):
            drawn = [members(found.sets[prompt, at, 1 + control * DRAWS + d]) for d in range(DRAWS)]
            missing = np.mean([len(own) - len(each) for each in drawn])
            assert found.shortfall[control, at, prompt] == pytest.approx(missing)
            also = np.mean([len(set(each) & set(ranked)) for each in drawn])
            assert found.overlap[control, at, prompt] == pytest.approx(also)
            if name == "other":
                continue
            if name == "unassociated":
                free = set(np.flatnonzero(important.matched.any(1))) - set(ranked)
            else:
                free = set(range(len(important))) - set(own)
            have = by_layer(important, sorted(free))
            wanted = {layer: min(count, have[layer]) for layer, count in counts.items()}
            for each in drawn:
                assert set(each) <= free
                assert by_layer(important, each) == wanted


@settings(deadline=None, max_examples=60)
@given(worlds())
def test_another_prompts_neurons_are_its_best_by_the_same_ranking(world) -> None:
    important, holds, ks, _ = world
    found = plan(world)
    start = 1 + CONTROLS.index("other") * DRAWS
    for prompt, at in np.ndindex(len(holds), len(ks)):
        counts = by_layer(important, members(found.sets[prompt, at, 0]))
        others = [
            first_of(important, slow_ranked(important, holds[other]), counts)
            for other in range(len(holds))
            if other != prompt
        ]
        drawn = [set(members(found.sets[prompt, at, start + d])) for d in range(DRAWS)]
        assert all(each in others for each in drawn)
        if len(others) <= DRAWS:  # each comes once before any comes twice
            assert all(each in drawn for each in others)


def deciles(important: Important) -> np.ndarray:
    found, values = np.zeros(len(important), int), important.attribution
    for layer in important.layers:
        mine = np.flatnonzero(important.layer == layer)
        for neuron in mine:
            below = int((values[mine] < values[neuron]).sum())
            found[neuron] = below * DECILES // len(mine)
    return found


def test_matched_controls_have_the_same_deciles_while_there_are_others_in_them() -> None:
    important, holds = neurons(sizes=(200, 300), share=0.04), holding(prompts=12, share=0.3)
    found = plan((important, holds, (3, 9), 0))
    start, moved = 1 + CONTROLS.index("attribution") * DRAWS, 0
    cells = important.layer * DECILES + deciles(important)
    for prompt, at, draw in np.ndindex(12, 2, DRAWS):
        own, other = (members(found.sets[prompt, at, b]) for b in (0, start + draw))
        assert len(own) == len(other)
        assert not set(own) & set(other)
        assert sorted(cells[own]) == sorted(cells[other])
        moved += sorted(cells[own]) != sorted(cells[members(found.sets[prompt, at, 1])])
    assert moved > 50  # the paper's control does not


def one_layer(chosen: list[int], size: int = 20) -> GuidedSets:
    """Two neurons a decile of which some are matched by the only heuristic, one prompt's."""
    matched = np.isin(np.arange(size), chosen)[:, None]
    at = np.arange(size)
    important = Important(0 * at, at, at / size, matched * 1.0, matched)
    holds = np.array([[True], [False]])
    return guided_sets(important, holds, np.random.default_rng(0), ks=[size], draws=30)


@pytest.mark.parametrize(
    ("chosen", "always", "half"),
    [
        ([8], {9}, set()),  # its own decile
        ([8, 9], {10, 11}, set()),  # the decile above, before the one below
        ([18, 19], {16, 17}, set()),  # nothing is above
        ([8, 9, 10, 11], {12, 13, 6, 7}, set()),  # each to its nearest
        ([10, 11, 9], {8}, {12, 13, 6, 7}),
        (list(range(10, 20)), set(range(10)), set()),
        (list(range(5, 20)), set(range(5)), set()),  # all there is
    ],
)
def test_a_decile_that_is_used_up_gives_way_to_the_nearest(
    chosen: list[int], always: set[int], half: set[int]
) -> None:
    found = one_layer(chosen)
    start = 1 + CONTROLS.index("attribution") * 30
    drawn = [set(members(each)) for each in found.sets[0, 0, start : start + 30]]
    for each in drawn:
        assert always <= each <= always | half
        assert len(each) == min(len(chosen), 20 - len(chosen))
    missing = max(0, 2 * len(chosen) - 20)
    assert found.shortfall[CONTROLS.index("attribution"), 0, 0] == missing


def test_random_controls_are_uniform() -> None:
    important, holds = neurons(sizes=(40,), share=0.1), holding(prompts=2)
    found = plan((important, holds, (3,), 5), draws=4000)
    free = set(np.flatnonzero(important.matched.any(1))) - set(slow_ranked(important, holds[0]))
    drawn = found.sets[0, 0, 1:4001]
    counts = np.bincount(drawn[drawn >= 0], minlength=40)
    assert set(np.flatnonzero(counts)) == free
    assert len(free) > 6
    expected = counts.sum() / len(free)
    assert abs(counts[sorted(free)] - expected).max() < 5 * np.sqrt(expected)


def test_fewer_neurons_are_the_first_of_more() -> None:
    found = plan((neurons(), holding(), (2, 5, 9), 0))
    for prompt, at in np.ndindex(9, 2):
        for branch in range(1 + DRAWS):  # the prompt's own, and the paper's control
            less, more = (set(members(found.sets[prompt, at + i, branch])) for i in (0, 1))
            assert less <= more


def test_equal_generators_give_equal_sets_and_others_other_controls() -> None:
    world = neurons(), holding(), (2, 5), 0
    one, same, other = plan(world), plan(world), plan(world, generator=np.random.default_rng(9))
    assert (one.sets == same.sets).all()
    assert (one.sets[:, :, 0] == other.sets[:, :, 0]).all()
    assert (one.sets != other.sets).any()


def test_the_order_of_heuristics_does_not_matter() -> None:
    important, holds = neurons(), holding()
    order = np.random.default_rng(2).permutation(12)
    turned = replace(
        important, score=important.score[:, order], matched=important.matched[:, order]
    )
    found = plan((important, holds, (4,), 0))
    assert (plan((turned, holds[:, order], (4,), 0)).sets == found.sets).all()


def test_rows_become_layer_times_width_plus_index() -> None:
    important = neurons(sizes=(2, 1))
    rows = np.array([[2, 0], [1, -1]], np.int32)
    flat = important.flat(rows, 1000)
    for row, neuron in zip(rows.ravel(), flat.ravel(), strict=True):
        expected = -1 if row < 0 else important.layer[row] * 1000 + important.index[row]
        assert neuron == expected


@given(st.integers(0, 2**32), st.integers(0, 5), st.integers(0, 9))
def test_packed_sets_are_those_of_the_masks(seed: int, many: int, rows: int) -> None:
    mask = np.random.default_rng(seed).random((many, rows)) < 0.4
    found = packed(mask)
    assert [members(each) for each in found] == [np.flatnonzero(each).tolist() for each in mask]


# ---------------------------------------------------------------- by heuristic


def test_unrelated_prompts_have_none_that_the_heuristic_holds_for() -> None:
    """The code drew from all prompts but the 100 related ones it had drawn."""
    important, holds = neurons(share=0.3), holding(prompts=1000, share=0.5)
    found = related_sets(important, holds, np.random.default_rng(0))
    assert len(found.heuristic) == 12
    for at, heuristic in enumerate(found.heuristic):
        related, unrelated = members(found.related[at]), members(found.unrelated[at])
        assert len(related) == len(unrelated) == 100
        assert holds[related, heuristic].all()
        assert not holds[unrelated, heuristic].any()
        pool = np.setdiff1d(np.arange(1000), related)
        assert holds[pool, heuristic].mean() > 0.3  # what the code drew from


def test_a_heuristics_control_has_as_many_others_in_each_layer() -> None:
    important, holds = neurons(share=0.3), holding(prompts=50)
    important.matched[important.layer == 3, 0] = True  # no other is left in a layer
    found = related_sets(important, holds, np.random.default_rng(0), fewest_neurons=1)
    assert found.own.shape == found.control.shape
    for at, heuristic in enumerate(found.heuristic):
        own, control = members(found.own[at]), members(found.control[at])
        assert own == np.flatnonzero(important.matched[:, heuristic]).tolist()
        assert by_layer(important, own) == by_layer(important, control)
        shared = by_layer(important, sorted(set(own) & set(control)))
        sizes = by_layer(important, list(range(len(important))))
        for layer, count in by_layer(important, own).items():
            assert shared[layer] == max(0, 2 * count - sizes[layer])
        assert found.shared[at] == sum(shared.values())
    assert found.shared[0] == 25


def test_heuristics_of_few_neurons_or_of_one_kind_of_prompts_are_left_out() -> None:
    important, holds = neurons(share=0.3), holding(prompts=50)
    important.matched[:, 2] = np.arange(len(important)) < 9
    important.matched[:, 3] = np.arange(len(important)) < 10
    holds[:, 5], holds[:, 7] = True, False
    found = related_sets(important, holds, np.random.default_rng(0), most_prompts=20)
    assert found.heuristic.tolist() == [0, 1, 3, 4, 6, 8, 9, 10, 11]
    for at, heuristic in enumerate(found.heuristic):
        held = int(holds[:, heuristic].sum())
        assert len(members(found.related[at])) == min(held, 20)
        assert len(members(found.unrelated[at])) == min(50 - held, 20)
    again = related_sets(important, holds, np.random.default_rng(0), most_prompts=20)
    assert (again.control == found.control).all()
    assert (again.unrelated == found.unrelated).all()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ks": (0, 5)}, r"k = \(0, 5\)"),
        ({"ks": ()}, "some k from 1 on"),
        ({"draws": 0}, "0 draws"),
        ({"holds": holding(prompts=1)}, "1 prompts"),
        ({"holds": holding(heuristics=5)}, "12 heuristics were scored, and 5"),
        ({"important": neurons(sizes=())}, "0 neurons"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changed: dict, words: str) -> None:
    asked = {
        "important": neurons(),
        "holds": holding(),
        "ks": (3,),
        "draws": 2,
        "generator": np.random.default_rng(0),
        **changed,
    }
    with pytest.raises(UsageError, match=words):
        guided_sets(**asked)


def test_heuristics_of_another_library_are_refused() -> None:
    with pytest.raises(UsageError, match="12 heuristics were scored, and 5"):
        related_sets(neurons(), holding(heuristics=5), np.random.default_rng(0))


def test_important_neurons_that_do_not_fit_are_refused() -> None:
    fine = neurons()
    with pytest.raises(UsageError, match="pass those of one list"):
        replace(fine, attribution=fine.attribution[1:])
    with pytest.raises(UsageError, match="pass those of one list"):
        replace(fine, matched=fine.matched[:, 1:])
    with pytest.raises(UsageError, match="given twice"):
        replace(fine, layer=0 * fine.layer, index=fine.index // 2)
