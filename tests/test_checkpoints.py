"""mechtests.checkpoints, and what is read from a series: roles, gates, fingerprints, strips."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechtests.checkpoints import Series
from mechtests.errors import NotApplicable, Undecidable
from mechtests.measurement import Measurement, Recorded
from mechtests.metrics import gates, roles, weights
from mechtests.onsets import State
from mechtests.reporting import curves
from mechtests.series import Moment
from mechtests.showing import shown
from mechtests.tasks.ioi import ioi

PROMPTS, LAYERS, HEADS = 64, 2, 3
MOMENTS = tuple(Moment(f"step{2**k}", 2**k, 1000 * 2**k) for k in range(8))


def measurement(name: str, values: dict[str, np.ndarray], **facts: object) -> Measurement:
    cluster = np.arange(PROMPTS) // 2
    axes = {key: ("prompt", "layer", "head")[: value.ndim] for key, value in values.items()}
    return Measurement(
        name,
        values,
        axes,
        {key: "share" if key != "logit_difference" else "logits" for key in values},
        cluster,
        cluster * 0,
        cluster % 2,
        facts,
    )


def scores(best: tuple[int, int], high: float) -> np.ndarray:
    draw = np.random.default_rng(0)
    found = 0.05 + 0.01 * draw.normal(size=(PROMPTS, LAYERS, HEADS))
    found[:, best[0], best[1]] += high
    return found


def series_of(*measurements: Measurement) -> Series:
    return Series(MOMENTS[: len(measurements)], measurements)


def test_the_strongest_head_of_one_half_is_followed_on_the_other() -> None:
    heads = [(0, 1), (1, 2), (1, 0)]
    found = series_of(*(measurement("m", {"s": scores(head, 0.5)}) for head in heads))
    assert found.strongest("s") == tuple(heads)
    curve = found.follow("s", found.strongest("s"))
    assert np.allclose(curve.means, 0.55, atol=0.02)
    assert found.strongest("s", among=[(0, 0), (0, 1)])[0] == (0, 1)


def test_the_halves_of_a_curve_are_the_prompts_of_each() -> None:
    values = np.where((np.arange(PROMPTS) // 2) % 2, 0.75, 0.25)
    found = series_of(measurement("m", {"x": values}), measurement("m", {"x": values / 2}))
    assert found.curve("x", "selection").means.tolist() == [0.25, 0.125]
    assert found.curve("x").means.tolist() == [0.75, 0.375]
    assert found.curve("x").kind == "proportion"
    assert len(found) == 2
    assert found[-1].mean("x") == 0.25


def recorded(mean: float) -> Recorded:
    none = np.zeros(0, dtype=np.int64)
    return Recorded(
        "behaviour.answers",
        {"logit_difference": np.array(mean)},
        {"logit_difference": ()},
        {"logit_difference": "logits"},
        none,
        none,
        none,
        {},
        model="pythia-70m",
        errors={"logit_difference": np.array(0.1)},
    )


def test_recorded_means_make_a_curve_of_what_is_there_and_no_halves() -> None:
    found = series_of(recorded(-1.0), recorded(float("nan")), recorded(2.0))
    curve = found.curve("logit_difference")
    assert curve.labels == ("step1", "step4")
    assert curve.is_recorded
    assert curve.errors.tolist() == [0.1, 0.1]
    with pytest.raises(NotApplicable, match="has no correct"):
        found.curve("correct")
    with pytest.raises(Undecidable, match="cannot decide"):
        found.strongest("logit_difference")


def answers(accuracy: float, difference: float, seed: int) -> Measurement:
    draw = np.random.default_rng(seed)
    return measurement(
        "behaviour.answers",
        {
            "correct": (draw.random(PROMPTS) < accuracy).astype(float),
            "logit_difference": difference + 0.2 * draw.normal(size=PROMPTS),
        },
    )


def test_a_task_emerges_where_accuracy_and_logit_difference_both_pass() -> None:
    made = [(0.0, -1.0)] * 3 + [(0.0, 3.0)] + [(1.0, 3.0)] * 4
    found = series_of(*(answers(*each, seed) for seed, each in enumerate(made)))
    learned = gates.emergence(found, ioi, np.random.default_rng(0))
    assert learned.onset.state is State.FOUND
    assert (learned.onset.low, learned.onset.high) == (8000, 16000)
    assert not learned.fails_at_end
    assert [curve["what"] for curve in learned.shown] == ["ioi: accuracy", "ioi: logit difference"]
    assert "bracket" not in learned.shown[0]  # type: ignore[operator]
    assert learned.shown[1]["joint"]  # type: ignore[index]
    assert learned.shown[1]["bracket"] == [8000, 16000]  # type: ignore[index]


def test_of_a_recording_only_what_it_has_decides_the_onset() -> None:
    found = series_of(*map(recorded, (-1.0, -1.0, 2.0, 2.0, 2.0)))
    learned = gates.emergence(found, ioi, np.random.default_rng(0))
    assert learned.missing == ("correct",)
    assert (learned.onset.low, learned.onset.high) == (2000, 4000)


def test_name_movers_at_any_checkpoint_that_does_the_task_are_candidates() -> None:
    def pair(head: tuple[int, int]) -> tuple[Measurement, Measurement]:
        copied = measurement(
            "copying", {"copied": scores(head, 0.5), "copied_absent": scores(head, 0.0)}
        )
        return copied, measurement("effects", {"direct_effect": scores(head, 1.0)})

    pairs = [pair(head) for head in ((0, 0), (0, 1), (1, 2))]
    copying, effects = (series_of(*each) for each in zip(*pairs, strict=True))
    found = roles.name_mover_candidates(copying, effects, "selection", [False, True, True])
    assert found == [(0, 1), (1, 2)]


def test_checkpoints_with_a_matrix_in_common_are_named_and_others_are_not() -> None:
    draw = np.random.default_rng(0)
    prints = [draw.normal(size=(3, 4)) for _ in range(4)]
    prints[3][1] = prints[1][1]
    found = series_of(*(measurement("w", {}) for _ in prints))
    made = Series(
        found.moments,
        tuple(
            Measurement(
                "w", {"fingerprint": p}, {"fingerprint": ("tensor", "statistic")}, {}, *[m.half] * 3
            )
            for p, m in zip(prints, found, strict=True)
        ),
    )
    assert weights.shared(made) == ["step2 and step8 share 1 large matrices"]
    assert weights.shared(Series(made.moments[:3], made.measurements[:3])) == []


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40), st.booleans())
def test_a_strip_has_a_sign_a_checkpoint_and_keeps_the_order_of_heights(
    values: list[float], ascii: bool
) -> None:
    strip = curves.strip(values, ascii=ascii)
    assert len(strip) == len(values)
    signs = curves.PLAIN if ascii else curves.BLOCKS
    heights = [signs.index(sign) for sign in strip]
    for (a, high), (b, low) in zip(
        zip(values, heights, strict=True),
        zip(values[::-1], heights[::-1], strict=True),
        strict=True,
    ):
        assert (a <= b) <= (high <= low)
    assert not ascii or strip.isascii()


def test_a_curve_is_said_with_its_ends_and_where_it_is_above_its_level() -> None:
    made = [(0.0, -1.0)] * 4 + [(1.0, 3.0)] * 4
    found = series_of(*(answers(*each, seed) for seed, each in enumerate(made)))
    learned = gates.emergence(found, ioi, np.random.default_rng(0))
    tree = shown(learned.curves["correct"], "accuracy", level=0.6, onset=learned.onset)
    first, second = curves.lines(tree, ascii=False)
    assert first == "▁▁▁▁████  accuracy: 0 to 1 over 8 checkpoints, 1k to 128k tokens"
    assert second.startswith("....++++  above 0.6: between 8e3 and 16e3 tokens")


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0"), (999, "999"), (2.1e9, "2.1B"), (3e11, "300B"), (24e6, "24M")]
)
def test_tokens_are_said_as_people_write_them(count: float, said: str) -> None:
    assert curves.tokens(count) == said
