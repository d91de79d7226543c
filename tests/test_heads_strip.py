"""mechtests.reporting.heads and showing.heads_shown: heads of a role over training, as text."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechtests.checkpoints import Series
from mechtests.errors import MeasurementError
from mechtests.measurement import Measurement, Recorded
from mechtests.reporting.heads import MOST_ROWS, lines
from mechtests.reporting.record import schema
from mechtests.reporting.terminal import render
from mechtests.series import Moment
from mechtests.showing import heads_shown
from mechtests.verdict import Outcome, Verdict
from tests.test_terminal import record_of

STEPS = (0, 512, 1000, 2000, 5000, 8000, 16000, 30000, 60000, 90000, 105000, 126000, 143000)
TOKENS = 2_097_152
RISES = (0, 0, 0.02, 0.05, 0.2, 0.6, 0.99, 0.97, 0.98, 0.97, 0.9, 0.45, 0.3)
TAKES_OVER = (0, 0, 0, 0, 0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 0.85, 0.85)
NEVER = (0,) * 12 + (0.05,)
PLANTED = {(8, 1): RISES, (9, 7): TAKES_OVER, (2, 0): NEVER}
OFFSET = {"selection": 0.0, "evaluation": 0.01}


def moments(steps=STEPS):
    return tuple(Moment(f"step{step}", step, TOKENS * step) for step in steps)


def measured(planted=PLANTED, steps=STEPS, layers=12):
    """Copy scores that are exactly those planted on one half, and 0.01 more on the other."""
    found = []
    half = np.array([0, 1, 0, 1])
    for place in range(len(steps)):
        values = np.zeros((4, layers, 12))
        for head, scores in planted.items():
            values[:, head[0], head[1]] = scores[place] + 0.01 * half
        found.append(
            Measurement(
                "copying.copy_scores",
                {"copied": values},
                {"copied": ("prompt", "layer", "head")},
                {"copied": "share"},
                np.arange(4),
                np.zeros(4, dtype=int),
                half,
            )
        )
    return Series(moments(steps), tuple(found))


def recorded(planted, steps=STEPS):
    """The same as recorded means, NaN where a checkpoint lacks a head."""
    nothing = np.zeros(0, dtype=np.int64)
    found = []
    for place in range(len(steps)):
        values = np.full((12, 12), np.nan)
        for head, scores in planted.items():
            if scores[place] is not None:
                values[head] = scores[place]
        found.append(
            Recorded(
                "copying.copy_scores",
                {"copied": values},
                {"copied": ("layer", "head")},
                {"copied": "share"},
                nothing,
                nothing,
                nothing,
                model="pythia-160m",
                errors={"copied": np.full((12, 12), np.nan)},
            )
        )
    return Series(moments(steps), tuple(found))


def shown(series=None, heads=tuple(PLANTED), **rest):
    how = {"half": "selection", "takeovers": [((8, 1), (9, 7), "step105000")], **rest}
    return heads_shown(
        "copy score (name movers)", series or measured(), "copied", heads, 0.1, **how
    )


def entry(planted, steps=None):
    """An entry of so many heads, by name, without going through a series."""
    count = len(next(iter(planted.values())))
    steps = steps or range(count)
    return {
        "what": "copy score (name movers)",
        "unit": "share",
        "axis": "tokens",
        "labels": [f"step{step}" for step in steps],
        "tokens": [TOKENS * step for step in steps],
        "level": 0.1,
        "heads": [
            {"head": head, "mean": list(means), "peak": None, "lost": None, "gained": None}
            for head, means in planted.items()
        ],
        "takeovers": [],
    }


def row(drawn, head):
    [found] = [line for line in drawn if line.lstrip().startswith(f"{head} |")]
    return found


def strip(drawn, head):
    return row(drawn, head).partition("|")[2].rpartition("|")[0]


def test_a_planted_takeover_is_drawn_and_said():
    assert lines(shown(), ascii=False) == [
        "copy score (name movers), share: 3 heads at 13 checkpoints, 0 to 300B tokens, with their "
        "peaks",
        "8.1 |    ░▓█████▒░|  0.99, lost at step126000",
        "9.7 |       ░░▒███|  0.85",
        "2.0 |             |  0.05",
        "8.1 -> 9.7 at step105000 (220B tokens)",
        "blank: below the level, 0.1; ░▒▓█ from there to 0.99 in equal steps",
    ]


def test_in_ascii_it_is_ascii_with_more_shades():
    drawn = lines(shown(), ascii=True)
    assert "\n".join(drawn).isascii()
    assert row(drawn, "8.1") == "8.1 |    .+@@@@@=:|  0.99, lost at step126000"
    assert row(drawn, "9.7") == "9.7 |       ..-###|  0.85"
    assert drawn[-1] == "blank: below the level, 0.1; .:-=+*#@ from there to 0.99 in equal steps"


def test_one_shade_is_one_score_in_all_rows():
    drawn = lines(entry({"0.0": (0.9, 0.5, 0.2), "0.1": (0.2, 0.2, 0.5)}), ascii=False)
    assert strip(drawn, "0.0") == "█▓░"
    assert strip(drawn, "0.1") == "░░▓"


def test_heads_stand_by_when_they_first_reach_the_level_then_by_their_peak():
    late, early, high, never = (0, 0, 0.9), (0, 0.2, 0.1), (0, 0.5, 0), (0.09, 0.09, 0)
    drawn = lines(entry({"1.0": late, "2.0": early, "3.0": high, "4.0": never}), ascii=False)
    assert [line.split()[0] for line in drawn if "|" in line] == ["3.0", "2.0", "1.0", "4.0"]


def test_what_is_not_known_has_its_own_sign_and_is_neither_blank_nor_a_shade():
    series = recorded({(8, 1): (None, 0.0, 0.5), (9, 7): (None, None, None)}, STEPS[:3])
    found = heads_shown("copy score", series, "copied", [(8, 1), (9, 7)], 0.1)
    assert [each["mean"] for each in found["heads"]] == [[None, 0.0, 0.5], [None, None, None]]
    assert found["heads"][1] == {
        "head": "9.7", "mean": [None] * 3, "peak": None, "gained": None, "lost": None
    }  # fmt: skip
    drawn = lines(found, ascii=False)
    assert row(drawn, "8.1") == "8.1 |· █|  0.5"
    assert row(drawn, "9.7") == "9.7 |···|  unknown"
    assert drawn[-1].endswith("· unknown")
    assert strip(lines(found, ascii=True), "8.1") == "? @"
    assert "unknown" not in lines(shown(), ascii=False)[-1]


def test_without_any_known_score_there_is_still_a_picture():
    drawn = lines(entry({"0.0": (None, None)}), ascii=False)
    assert row(drawn, "0.0") == "0.0 |··|  unknown"
    none = heads_shown("copy score", measured(), "copied", [], 0.1)
    assert lines(none, ascii=True)[0].startswith("copy score, share: 0 heads at 13")


def test_where_none_reaches_the_level_the_legend_says_how_high_they_get():
    drawn = lines(entry({"0.0": (0.01, 0.08)}), ascii=False)
    assert drawn[-1] == "blank: below the level, 0.1, which none reaches; the highest is 0.08"
    assert strip(drawn, "0.0") == "  "


def test_a_wide_series_is_thinned_to_the_highest_of_neighbours_and_says_so():
    means = [0.0] * 154
    means[50], means[77] = 0.9, 0.3
    drawn = lines(entry({"8.1": means}), ascii=False, width=65)
    assert "154 checkpoints" in drawn[0]
    assert "; a sign is the highest of 3 checkpoints" in " ".join(" ".join(drawn).split())
    assert len(strip(drawn, "8.1")) == -(-154 // 3)
    assert strip(drawn, "8.1").index("█") == 50 // 3
    assert strip(drawn, "8.1").index("░") == 77 // 3
    wide = lines(entry({"8.1": means}), ascii=False, width=200)
    assert len(strip(wide, "8.1")) == 154
    assert "highest of" not in wide[0]


def test_thinning_keeps_what_is_known_among_neighbours_that_are_not():
    means = [None] * 100 + [0.5] + [None] * 99
    drawn = strip(lines(entry({"8.1": means}), ascii=False, width=40), "8.1")
    assert drawn.count("█") == 1
    assert set(drawn) == {"·", "█"}


def test_at_most_twelve_rows_are_drawn_and_what_is_left_out_is_counted():
    many = {f"{n}.0": (0.0, 0.11 + 0.01 * n) for n in range(15)}
    found = entry(many)
    drawn = lines(found, ascii=False)
    rows = [line for line in drawn if "|" in line]
    assert len(rows) == MOST_ROWS
    assert "3 more heads are left out, the highest peak of them 0.13 (2.0)" in drawn
    found["takeovers"] = [{"from": "0.0", "to": "14.0", "at": "step1"}]
    named = lines(found, ascii=False)
    assert row(named, "0.0")
    assert "3 more heads are left out, the highest peak of them 0.14 (3.0)" in named


@pytest.mark.parametrize("width", [36, 50, 65, 105])
@pytest.mark.parametrize("count", [5, 20, 154])
@pytest.mark.parametrize("ascii", [True, False])
def test_nothing_is_wider_than_asked_and_rows_are_as_long_as_each_other(width, count, ascii):
    scores = np.linspace(0, 1, count).tolist()
    found = entry({"8.1": scores, "10.11": scores[::-1]}, range(0, 1000 * count, 1000))
    found["heads"][1]["lost"] = found["labels"][-1]
    found["takeovers"] = [{"from": "10.11", "to": "8.1", "at": found["labels"][-1]}]
    drawn = lines(found, ascii=ascii, width=width)
    assert max(map(len, drawn)) <= width
    assert len(strip(drawn, "8.1")) == len(strip(drawn, "10.11"))
    assert found["labels"][-1] in " ".join(drawn)  # where it is lost is said even where narrow


@given(
    st.lists(st.lists(st.none() | st.floats(-1, 2), min_size=9, max_size=9), max_size=20),
    st.booleans(),
)
def test_any_scores_give_a_sign_a_checkpoint_and_never_more_rows_than_heads(scores, ascii):
    found = entry({f"{n}.0": means for n, means in enumerate(scores)} or {"0.0": [None] * 9})
    drawn = lines(found, ascii=ascii)
    rows = [line for line in drawn if "|" in line]
    assert len(rows) == min(len(found["heads"]), MOST_ROWS)
    for line in rows:
        assert len(line.partition("|")[2].rpartition("|")[0]) == 9


def test_peak_gain_and_loss_are_those_of_the_shown_half_unless_a_rule_says_otherwise():
    [first, second, third] = shown()["heads"]
    assert (first["peak"], first["gained"], first["lost"]) == (
        "step16000", "step5000", "step126000",
    )  # fmt: skip
    assert (second["peak"], second["gained"], second["lost"]) == ("step126000", "step30000", None)
    assert (third["gained"], third["lost"]) == (None, None)
    told = shown(events={(8, 1): {"lost": "step143000"}})["heads"][0]
    assert (told["peak"], told["lost"]) == ("step16000", "step143000")


def test_a_dip_that_is_made_good_is_no_loss():
    planted = {(8, 1): (0.0, 0.9, 0.2, 0.9, 0.2, 0.1)}
    [head] = shown(measured(planted, STEPS[:6]), [(8, 1)])["heads"]
    assert head["lost"] == "step5000"
    planted = {(8, 1): (0.0, 0.9, 0.2, 0.2, 0.2, 0.9)}
    [head] = shown(measured(planted, STEPS[:6]), [(8, 1)])["heads"]
    assert head["lost"] is None


@pytest.mark.parametrize("half", OFFSET)
def test_the_means_are_those_of_the_half_that_was_asked_for(half):
    found = shown(half=half)["heads"][0]["mean"]
    assert found == pytest.approx([score + OFFSET[half] for score in RISES])


def test_moments_out_of_order_are_refused():
    series = measured()
    with pytest.raises(MeasurementError, match="in training order"):
        shown(replace(series, moments=series.moments[::-1]))


def test_steps_stand_in_for_tokens_that_are_not_known():
    series = measured()
    blind = tuple(replace(moment, tokens=None) for moment in series.moments)
    found = shown(replace(series, moments=blind))
    assert found["axis"] == "steps"
    drawn = lines(found, ascii=False)
    assert "0 to 143k steps" in drawn[0]
    assert "8.1 -> 9.7 at step105000" in drawn


def test_a_report_draws_the_heads_of_a_record_and_its_schema_describes_them():
    verdict = Verdict(Outcome.HOLDS, "the name movers change", shown={"heads": [shown()]})
    record = record_of(verdict)
    tree = json.loads(json.dumps(record.to_json(), allow_nan=False))
    validator = jsonschema.Draft202012Validator(schema())
    validator.validate(tree)
    for plain in (True, False):
        text = render([type(record).from_json(tree)], ascii=plain, verbosity=1)
        for line in lines(shown(), ascii=plain, width=80 - 15):
            assert line.rstrip() in text
        assert "shown" not in text
    del tree["shown"]["heads"][0]["heads"][0]["mean"]
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(tree)
