"""The bracket of an onset contains it, and where there is none none is found."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests.errors import MeasurementError
from mechtests.measurement import Sample
from mechtests.onsets import State, before, onset, since
from mechtests.series import Curve
from tests.curves import (
    HOLDS,
    INCONCLUSIVE,
    REFUTED,
    allowed,
    answers,
    curve,
    drift,
    exact,
    moments,
    octaves,
)

RUNS = 300
DRAWS = 299
LEVEL = 0.4


def planted(count=20, at=10, rise=0.25, floor=-0.5, top=1.5):
    """A curve that is first above the level at checkpoint ``at``."""
    steps = np.arange(count) - at + 0.5
    return np.clip(LEVEL + rise * steps, floor, top)


def first_above(truth):
    """The true onset: the first checkpoint above whose next two are above as well."""
    above = truth > LEVEL
    return next(i for i in range(len(truth) - 2) if above[i : i + 3].all())


def found_in(generator, truth, clusters=30, kind="independent", spread=0.5):
    data = curve(generator, truth, clusters, kind, spread)
    return onset((data, LEVEL), what="x", generator=generator, resamples=DRAWS)


def steady(means, level=0.0, spread=1e-3):
    """The onset of a curve that is known almost exactly."""
    values = np.asarray(means)[:, None] + spread * np.linspace(-1, 1, 10)
    return onset((exact(values), level), what="x", generator=np.random.default_rng(0))


@pytest.mark.parametrize("kind", ["independent", "shared", "autocorrelated"])
@pytest.mark.parametrize("clusters", [15, 60])
def test_the_bracket_contains_the_planted_onset_and_is_narrow(kind, clusters):
    generator = np.random.default_rng(clusters)
    truth = planted()
    place, missed, widths = octaves(20)[first_above(truth)], 0, []
    for _ in range(RUNS):
        found = found_in(generator, truth, clusters, kind)
        missed += not found.low < place <= found.high
        widths.append(np.log2(found.high / found.low) if not found.is_open else np.inf)
    assert missed <= allowed(0.05, RUNS)
    assert np.mean(np.isfinite(widths)) > 0.9
    assert np.median(widths) < (2.6 if clusters == 15 else 1.6)


@pytest.mark.parametrize("kind", ["independent", "shared", "autocorrelated"])
def test_the_bracket_contains_an_onset_that_rises_slowly_past_its_level(kind):
    generator = np.random.default_rng(6)
    truth = planted(rise=0.03)
    place, missed = octaves(20)[first_above(truth)], 0
    for _ in range(RUNS):
        found = found_in(generator, truth, 20, kind)
        missed += not found.low < place <= found.high
    assert missed <= allowed(0.05, RUNS)


def test_the_bracket_is_of_this_run_with_the_wandering_that_all_prompts_share():
    generator = np.random.default_rng(1)
    missed = 0
    for _ in range(RUNS):
        truth = planted(rise=0.5) + drift(generator, 20, 0.15)
        found = found_in(generator, truth, kind="shared")
        missed += not found.low < octaves(20)[first_above(truth)] <= found.high
    assert missed <= allowed(0.05, RUNS)


@pytest.mark.parametrize("kind", ["independent", "shared", "autocorrelated"])
def test_a_curve_that_stays_at_its_level_has_an_onset_no_more_often_than_allowed(kind):
    generator = np.random.default_rng(2)
    states = [found_in(generator, np.full(16, LEVEL), 20, kind).state for _ in range(RUNS)]
    assert states.count(State.FOUND) <= allowed(0.025, RUNS)
    assert states.count(State.NEVER) <= allowed(0.025, RUNS)


@pytest.mark.parametrize("size", [0.05, 0.15])
def test_a_wandering_plateau_below_the_level_never_has_an_onset(size):
    generator = np.random.default_rng(3)
    seen = []
    for _ in range(RUNS):
        wander = np.minimum(drift(generator, 16, size) - 0.1, LEVEL - 1e-3)
        seen.append(found_in(generator, wander, 30, "shared").state)
    assert seen.count(State.FOUND) <= allowed(0.025, RUNS)
    assert seen.count(State.NEVER) > 0.7 * RUNS


def test_right_or_wrong_has_its_planted_onset():
    generator = np.random.default_rng(4)
    truth = np.r_[np.full(6, 0.5), 0.55, 0.65, 0.8, np.full(9, 0.97)]
    missed = decided = 0
    for _ in range(RUNS):
        data = answers(generator, truth, 60)
        found = onset((data, 0.6), what="x", generator=generator, resamples=DRAWS)
        missed += not found.low < octaves(18)[7] <= found.high
        decided += found.state is State.FOUND
    assert missed <= allowed(0.05, RUNS)
    assert decided > 0.95 * RUNS


def test_accuracy_that_is_one_everywhere_after_its_onset_is_above():
    values = np.r_[np.zeros((6, 15)), np.ones((10, 15))]
    found = onset(
        (exact(values, kind="proportion"), 0.6), what="x", generator=np.random.default_rng(0)
    )
    assert found.state is State.FOUND
    assert (found.low, found.high) == (octaves(16)[5], octaves(16)[6])


def test_of_two_behaviours_the_later_decides_and_the_band_holds_for_both():
    generator = np.random.default_rng(5)
    accuracy = np.r_[np.full(6, 0.3), np.full(10, 0.95)]
    difference = np.r_[np.full(8, -1.0), np.full(8, 2.0)]
    missed = 0
    for _ in range(RUNS):
        found = onset(
            (answers(generator, accuracy, 40), 0.6),
            (curve(generator, difference, 40, "shared"), 0.0),
            what="ioi",
            generator=generator,
            resamples=DRAWS,
        )
        missed += not found.low < octaves(16)[8] <= found.high
    assert missed <= allowed(0.05, RUNS)


def test_a_conjunction_is_above_where_all_are_and_below_where_any_is():
    high, low = np.full(8, 1.0), np.full(8, -1.0)
    early = np.r_[low[:2], high[:6]]
    late = np.r_[low[:4], high[:4]]
    curves = [exact(m[:, None] + 1e-3 * np.linspace(-1, 1, 10)) for m in (early, late, -late)]
    generator = np.random.default_rng(0)
    both = onset((curves[0], 0.0), (curves[1], 0.0), what="x", generator=generator)
    assert (both.after, both.by) == (curves[0].moments[3], curves[0].moments[4])
    never = onset((curves[0], 0.0), (curves[2], 0.0), what="x", generator=generator)
    assert never.state is State.NEVER


def test_two_bands_hold_at_once_since_they_share_their_error():
    right, wrong = (exact(np.full((8, 15), share), kind="proportion") for share in (1.0, 0.0))
    generator = np.random.default_rng(0)
    alone = onset((right, 0.6), what="x", generator=generator)
    assert alone.above == pytest.approx(np.full(8, 2 * 8 * 0.6**15), abs=0, rel=1e-6)
    both = onset((right, 0.6), (right, 0.6), what="x", generator=generator)
    assert both.above == pytest.approx(2 * alone.above, abs=0, rel=1e-6)
    none = onset((right, 0.6), (wrong, 0.6), what="x", generator=generator)
    assert none.below == pytest.approx(np.full(8, 2 * 2 * 8 * 0.4**15), abs=0, rel=1e-6)


def test_curves_of_other_checkpoints_have_no_common_onset():
    one, two = exact(np.eye(8)), exact(np.eye(8)[:5])
    with pytest.raises(MeasurementError, match=r"same checkpoints .* 2 of 8, 5 checkpoints"):
        onset((one, 0.0), (two, 0.0), what="x", generator=np.random.default_rng(0))
    with pytest.raises(MeasurementError, match="at least one, got 0"):
        onset(what="x", generator=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("means", "state", "after", "by"),
    [
        ([-1, -1, 1, 1, 1, 1], State.FOUND, 1, 2),
        ([-1, 1, 1, -1, 1, 1, 1], State.FOUND, 3, 4),  # two above are not confirmed
        ([-1, 1, 1, 1, -1, -1, -1], State.FOUND, 0, 1),  # a task that is forgotten was learned
        ([-1, 0, 0, 1, 1, 1], State.FOUND, 0, 3),  # unclear between
        ([1, 1, 1, -1], State.FOUND, None, 0),  # open at 0
        ([-1, -1, -1, -1], State.NEVER, 3, None),
        ([-1, 1, 1, -1], State.NEVER, 3, None),
        ([-1, -1, -1, 1], State.UNCONFIRMED, 2, None),
        ([-1, -1, 1, 1], State.UNCONFIRMED, 1, None),
        ([-1, -1, 0, 0], State.UNCLEAR, 1, None),
        ([0, 0, 0, 0], State.UNCLEAR, None, None),
        ([-1, 1, 1, 0], State.UNCLEAR, 0, None),
    ],
)
def test_the_bracket_is_read_off_what_is_above_and_below(means, state, after, by):
    found = steady(means)
    assert found.state is state
    assert found.after == (None if after is None else found.moments[after])
    assert found.by == (None if by is None else found.moments[by])
    assert found.is_open == (after is None or by is None)
    outcome = {State.FOUND: HOLDS, State.NEVER: REFUTED}.get(state, INCONCLUSIVE)
    assert found.verdict().outcome is outcome


def test_a_level_may_differ_between_checkpoints():
    means = [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    found = steady(means, level=[1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    assert (found.after, found.by) == (found.moments[1], found.moments[2])


def test_the_sentences_of_an_onset():
    after, by = "after step1000, by step1414", "between 1e6 and 1.41e6 tokens"
    assert steady([-1, 1, 1, 1]).sentence == f"x emerges {by} ({after})"
    assert (
        steady([1, 1, 1]).sentence == "x emerges by 1e6 tokens (none is below before, by step1000)"
    )
    assert steady([-1, -1]).sentence == (
        "x never emerges: below at the last checkpoint, step1414 (1.41e6 tokens)"
    )
    assert steady([-1, 1, 1]).verdict().sentence == (
        "x is above from step1414 to the last checkpoint, step2000, too few to confirm: 2 more "
        "must follow the first; later checkpoints would decide"
    )
    assert steady([-1, 0, 0]).verdict().sentence == (
        "x is unclear: nowhere above at 3 checkpoints in a row, last below at step1000, and not "
        "below at the last, step2000; more prompts would decide: step1414, step2000 are neither "
        "above nor below"
    )


def test_few_clusters_and_unknown_errors_place_nothing():
    few = onset((exact(np.eye(6)), 5.0), what="x", generator=np.random.default_rng(0))
    recorded = Curve.recorded(moments(octaves(6)), [0.0, 0, 0, 9, 9, 9])
    unknown = onset((recorded, 5.0), what="x", generator=np.random.default_rng(0))
    for found, why in ((few, "fewer than 8 clusters"), (unknown, "recorded data cannot decide")):
        assert (found.state, found.is_open) == (State.UNCLEAR, True)
        assert why in found.sentence
        assert (found.verdict().outcome, found.verdict().p) == (INCONCLUSIVE, None)


def test_recorded_means_with_errors_have_an_onset():
    recorded = Curve.recorded(moments(octaves(6)), [0.0, 0, 0, 9, 9, 9], [0.5] * 6)
    found = onset((recorded, 5.0), what="x", generator=np.random.default_rng(0))
    assert (found.low, found.high) == (octaves(6)[2], octaves(6)[3])


def test_what_is_before_and_since_an_onset():
    data = exact(np.random.default_rng(0).normal(size=(7, 10)))
    found = steady([-1, -1, 0, 1, 1, 1, 1])
    assert before(data, found).labels == data.labels[:3]
    assert since(data, found).labels == data.labels[3:]
    never = steady([-1] * 7)
    assert before(data, never).labels == data.labels
    assert since(data, never) is None
    unclear = steady([-1, -1, 0, 0, 0, 0, 0])
    assert before(data, unclear).labels == data.labels[:2]
    assert before(data, steady([1] * 7)) is None
    assert before(data, steady([0] * 7)) is None


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.sampled_from(["independent", "shared"]))
def test_the_p_of_an_onset_is_within_the_tail_exactly_where_it_is_decided(seed, kind):
    generator = np.random.default_rng(seed)
    found = found_in(generator, planted(12, 6, 0.15), 12, kind)
    verdict = found.verdict()
    assert (verdict.p <= 0.025) == (verdict.outcome is HOLDS)
    assert (verdict.p_refuted <= 0.025) == (verdict.outcome is REFUTED)
    assert found.at(2 * verdict.p).state is State.FOUND or verdict.p > 0.5


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.floats(0.01, 1000), st.randoms(use_true_random=False))
def test_prompt_order_and_the_scale_of_tokens_do_not_matter(seed, scale, random):
    generator = np.random.default_rng(seed)
    data = curve(generator, planted(12, 6, 0.3), 20, "shared", 0.5)
    order = list(range(40))
    random.shuffle(order)
    points = tuple(Sample(p.values[order], p.cluster[order]) for p in data.points)
    moved = Curve(moments(scale * 1000 * octaves(12)), points)
    one, two = (
        onset((each, LEVEL), what="x", generator=np.random.default_rng(0)) for each in (data, moved)
    )
    assert one.above == pytest.approx(two.above, abs=2e-3)
    sure = np.abs(np.r_[one.above, one.below] - 0.05).min() > 2e-3
    if sure:
        assert one.state is two.state
        assert two.low == pytest.approx(one.low * scale * 1000, rel=1e-5)


def test_the_verdict_says_how_many_prompts_it_rests_on():
    verdict = steady([-1, -1, 1, 1, 1]).verdict()
    assert (verdict.prompts, verdict.clusters, verdict.unit) == (20, 10, "tokens")


def test_a_whole_pythia_series_of_six_hundred_prompts_is_decided():
    generator = np.random.default_rng(0)
    tokens = octaves(154, 0.1)
    right = answers(generator, np.r_[np.full(70, 0.4), np.full(84, 0.9)], 300, tokens)
    difference = np.r_[np.full(70, -1.0), np.full(84, 2.0)]
    data = curve(generator, difference, 300, "shared", tokens=tokens)
    found = onset((right, 0.6), (data, 0.0), what="x", generator=generator)
    assert (found.low, found.high) == (tokens[69], tokens[70])
    assert found.verdict().outcome is HOLDS
