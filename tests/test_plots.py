"""mechtests.reporting.plots and pictures: what stands where in a drawing."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechtests.reporting import pictures, plots
from mechtests.verdict import Control, Outcome, Verdict
from tests.many_records import CURVE, DRAWS, EDGES, HEADS, HOLDS, MAP

NUMBER = r"-?\d+(?:\.\d+)?"


def paths(svg: str, kind: str) -> list[str]:
    """The paths of a class."""
    return [e.get("d", "") for e in ET.fromstring(svg).iter("path") if e.get("class") == kind]


def corners(svg: str, kind: str) -> list[tuple[float, float]]:
    """Where the subpaths of a class begin."""
    return [
        (float(x), float(y))
        for path in paths(svg, kind)
        for x, y in re.findall(rf"M({NUMBER}) ({NUMBER})", path)
    ]


def box(svg: str, kind: str) -> tuple[float, float]:
    """The left and right end of a rectangle."""
    [path] = paths(svg, kind)
    x, _, wide = map(float, re.findall(rf"M({NUMBER}) ({NUMBER})h({NUMBER})", path)[0])
    return x, x + wide


def test_the_interval_lies_right_of_the_margin_where_the_claim_above_it_holds():
    svg = plots.interval(HOLDS)
    [(margin, _)] = corners(svg, "mg")
    [whisker] = paths(svg, "iv")
    low, high = (float(x) for x in re.findall(rf"[ML]({NUMBER})", whisker))
    assert margin < low < high
    assert box(svg, "cl")[0] == margin
    assert "0.62 [0.55, 0.69] attention, claimed above 0.4" in svg


@pytest.mark.parametrize("relation", [">", "<", "within"])
@given(
    low=st.floats(-5, 5), width=st.floats(0.01, 5), margin=st.floats(0.1, 5)
)  # fmt: skip
def test_the_interval_is_drawn_inside_the_claimed_side_exactly_where_it_is(
    relation, low, width, margin
):
    high = low + width
    verdict = Verdict(
        Outcome.HOLDS, "", estimate=(low + high) / 2, interval=(low, high), margin=margin,
        relation=relation,
    )  # fmt: skip
    inside = {">": low > margin, "<": high < margin, "within": -margin < low < high < margin}
    svg = plots.interval(verdict)
    left, right = box(svg, "cl")
    start, end = (float(x) for x in re.findall(rf"[ML]({NUMBER})", paths(svg, "iv")[0]))
    drawn = left - 1.2 <= start and end <= right + 1.2  # a minimal width, and rounded twice
    if inside[relation]:
        assert drawn
    elif min(abs(low - margin), abs(high - margin), abs(low + margin), abs(high + margin)) > 0.1:
        assert not drawn


def test_an_open_interval_runs_to_the_edge_and_nothing_to_draw_is_no_drawing():
    open_ = replace(HOLDS, estimate=None, interval=(0.5, float("inf")))
    [whisker] = paths(plots.strip(open_), "iv")
    assert re.findall(rf"L({NUMBER})", whisker) == ["148"]
    assert not plots.drawn(replace(HOLDS, estimate=None, interval=None))
    assert not plots.drawn(replace(HOLDS, estimate=float("nan"), interval=None))


def test_strips_on_one_scale_have_their_margin_at_one_place():
    other = replace(HOLDS, estimate=3.0, interval=(2.0, 4.0))
    scale = plots.domain([HOLDS, other], 2, 148)
    assert corners(plots.strip(HOLDS, scale), "mg") == corners(plots.strip(other, scale), "mg")


def test_a_controls_draws_are_counted_whole_and_the_observed_value_is_marked_where_it_is_kept():
    svg = plots.draws(Control("c", "c: x", False, values=(0.0, 0.0, 0.0, 1.0)))
    tall = [float(h) for path in paths(svg, "hi") for h in re.findall(rf"v({NUMBER})", path)]
    assert sorted(tall) == pytest.approx([32 / 3, 32.0], abs=0.1)
    assert "4 draws of c, 0 to 1" in svg
    assert not paths(svg, "ob")
    observed = Control("c", "c: x", False, values=(0.0, 1.0))
    object.__setattr__(observed, "observed", 2.0)
    [mark] = corners(plots.draws(observed), "ob")
    assert mark[0] > max(x for x, _ in corners(plots.draws(observed), "hi"))


def test_one_value_is_no_distribution():
    assert plots.draws(Control("c", "c: x", False, values=(0.3,))) == ""


def test_a_curves_bracket_spans_the_checkpoints_between_which_its_onset_lies():
    svg = plots.curve(CURVE)
    at = dict(zip(CURVE["tokens"], plots._along(CURVE["tokens"], 20, 42, 330), strict=True))
    left, right = box(svg, "br")
    assert left == pytest.approx(at[CURVE["bracket"][0]], abs=0.1)
    assert right == pytest.approx(at[CURVE["bracket"][1]], abs=0.2)
    sides = CURVE["side"]
    for kind, side in (("up", "above"), ("dn", "below"), ("un", "unclear")):
        assert len(corners(svg, kind)) == sides.count(side)
    level = [y for _, y in corners(svg, "lv")]
    assert all(y <= level[0] for _, y in corners(svg, "up"))  # smaller is higher
    assert all(y > level[0] for _, y in corners(svg, "dn"))


def test_an_open_bracket_runs_to_the_end_and_a_curve_without_level_has_none():
    assert box(plots.curve({**CURVE, "bracket": [CURVE["tokens"][9], None]}), "br open")[1] == 330
    plain = {k: v for k, v in CURVE.items() if k not in ("level", "side", "onset", "bracket")}
    assert not paths(plots.curve(plain), "br")
    assert len(corners(plots.curve(plain), "pt")) == 20


def test_checkpoints_stand_by_the_logarithm_of_their_tokens_and_step_0_before_them():
    assert plots._along([0, 1, 10, 100], 4, 0.0, 226.0) == pytest.approx([0, 26, 126, 226])
    assert plots._along([None, None, None], 3, 0.0, 10.0) == [0, 5, 10]
    assert plots._along([7], 1, 3.0, 10.0) == [3]


def test_sides_of_several_curves_together_are_said_to_be_so():
    assert "above all its levels: between" in plots.curve({**CURVE, "joint": True})
    assert "above 1: between" in plots.curve(CURVE)


def test_a_baseline_is_drawn_beside_a_curve_of_the_same_checkpoints_alone():
    assert len(paths(plots.curve(CURVE, [1.0] * 20), "bl")) == 1
    assert not paths(plots.curve(CURVE, [1.0] * 3), "bl")


def test_unknown_means_leave_holes_and_a_curve_of_none_is_still_drawn():
    holes = {**CURVE, "mean": [None, *CURVE["mean"][1:]]}
    assert len(corners(plots.curve(holes), "dn")) == CURVE["side"].count("below") - 1
    assert "unknown" in plots.curve({**CURVE, "mean": [None] * 20})


@given(st.floats(0, 1, exclude_max=True))
def test_shades_are_equal_steps(share):
    assert plots.shade(share, 0.0, 1.0) == int(share * plots.SHADES)


def test_a_heads_squares_are_those_at_its_level_and_its_loss_is_marked():
    svg = plots.head_strips(HEADS, HEADS["heads"])
    known = [m for row in HEADS["heads"] for m in row["mean"] if m is not None]
    shaded = [e for e in ET.fromstring(svg).iter("path") if re.match(r"s s\d", e.get("class", ""))]
    assert sum(e.get("d", "").count("M") for e in shaded) == sum(m >= 0.2 for m in known)
    assert len(corners(svg, "s s-")) == 3  # step 0 of each is unknown
    assert len(corners(svg, "lost")) == 2


def test_a_map_has_a_square_a_value_in_shades_of_its_size_and_sign():
    svg = pictures.grid(MAP)
    assert len(corners(svg, "s n7")) == 1  # -0.7, the largest
    assert len(corners(svg, "s s1")) == 1  # 0.1
    assert len(corners(svg, "s s0")) == 1  # 0
    assert len(corners(svg, "s s-")) == 1  # not known
    assert "strongest" not in svg
    assert "1.0 −0.7, 0.0 0.1" in svg
    assert len(corners(pictures.grid(MAP, 7.0), "s n0")) == 1


def test_a_map_that_is_up_has_its_first_row_below():
    entry = {**MAP, "values": [[1.0], [0.0]], "rows": "operand 1"}
    [(_, above)] = corners(pictures.grid(entry), "s s7")
    [(_, below)] = corners(pictures.grid({**entry, "up": True}), "s s7")
    assert above < below


def test_a_circuits_edges_run_upwards_and_the_first_is_the_thickest():
    svg = pictures.circuit(EDGES)
    edges = [e for e in ET.fromstring(svg).iter("path") if e.get("class", "").startswith("e ")]
    broad = [float(e.get("stroke-width", "")) for e in edges]
    assert len(edges) == len(EDGES)
    assert broad == sorted(broad)
    for edge in edges:
        y = re.findall(rf"{NUMBER} ({NUMBER})", edge.get("d", ""))
        assert float(y[0]) > float(y[-1])
    assert [e.get("class") for e in edges].count("e k") == 1
    texts = [e.text for e in ET.fromstring(svg).iter("text")]
    assert set(texts) == {"input", "MLP 0", "2.1", "MLP 3", "logits"}


@pytest.mark.parametrize("edges", [[], ["a->b"], ["input->m0", "<script>->m1"], ["m0"]])
def test_names_that_are_no_circuits_are_not_drawn(edges):
    assert pictures.circuit(edges) == ""


def test_every_prompt_of_a_table_is_a_mark():
    svg = pictures.values_of({"values": [-1.0, 2.0, None, 3.0]})
    assert len(corners(svg, "pr")) == 3
    assert pictures.values_of({"values": [1.0]}) == ""


def test_draws_of_a_record_are_all_there():
    assert "19 draws of matched random heads" in plots.draws(DRAWS)
