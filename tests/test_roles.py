from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mechtests.measurement import Measurement
from mechtests.metrics import roles


def measurement(**values: np.ndarray) -> Measurement:
    """Four prompts: two select, two evaluate."""
    return Measurement(
        name="made up",
        values=values,
        axes=dict.fromkeys(values, ("prompt", "layer", "head")),
        units={},
        cluster=np.array([0, 0, 1, 1]),
        template=np.zeros(4, dtype=np.int64),
        half=np.array([0, 0, 1, 1]),
    )


def per_half(selection: list[list[float]], evaluation: list[list[float]]) -> np.ndarray:
    return np.array([selection, selection, evaluation, evaluation], dtype=float)


def test_copying_heads_copy_more_than_a_tenth_and_more_than_of_absent_names() -> None:
    copying = measurement(
        copied=per_half([[0.1, 0.2, 0.5]], [[0.9, 0.0, 0.0]]),
        copied_absent=per_half([[0.0, 0.2, 0.4]], [[0.0, 0.0, 0.0]]),
    )
    assert roles.copying_heads(copying, "selection") == [(0, 2)]
    assert roles.copying_heads(copying, "evaluation") == [(0, 0)]


def test_name_movers_are_copying_heads_that_help_on_the_same_half() -> None:
    copying = measurement(
        copied=per_half([[0.9, 0.9], [0.9, 0.0]], [[0.9, 0.9], [0.9, 0.9]]),
        copied_absent=per_half([[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]),
    )
    effects = measurement(
        direct_effect=per_half([[0.5, -0.5], [0.1, 3.0]], [[-0.5, 0.0], [-0.1, 3.0]])
    )
    assert roles.name_movers(copying, effects, "selection") == [(0, 0), (1, 0)]
    assert roles.name_movers(copying, effects, "evaluation") == [(1, 1)]


def test_induction_heads_are_above_a_tenth_and_above_the_mean() -> None:
    scores = measurement(induction=per_half([[0.05, 0.3], [0.12, 0.9]], [[0.0, 0.09], [0.0, 0.0]]))
    assert roles.induction_heads(scores, "selection") == [(1, 1)]
    assert roles.induction_heads(scores, "evaluation") == []


def test_the_strongest_are_those_with_the_largest_effect_in_order_of_layers() -> None:
    effects = measurement(
        direct_effect=per_half([[1.0, 5.0], [4.0, -9.0]], [[0.0, 0.0], [0.0, 1.0]])
    )
    assert roles.strongest(effects, "selection", 2) == [(0, 1), (1, 0)]
    assert roles.strongest(effects, "evaluation", 1) == [(1, 1)]
    assert roles.strongest(effects, "evaluation", 0) == []


@given(st.permutations(range(4)), st.integers(0, 9))
def test_the_order_of_prompts_chooses_no_other_heads(order: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).random((4, 3, 4))
    scores = measurement(induction=values)
    turned = Measurement(
        name="turned",
        values={"induction": values[order]},
        axes=scores.axes,
        units={},
        cluster=scores.cluster[order],
        template=scores.template[order],
        half=scores.half[order],
    )
    for half in ("selection", "evaluation"):
        assert roles.induction_heads(scores, half) == roles.induction_heads(turned, half)
