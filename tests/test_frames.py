from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mechtests.errors import MeasurementError, UsageError
from mechtests.measurement import Measurement
from tests.test_watching import VALUES, measurement


def test_a_table_has_each_number_once_beside_its_axes() -> None:
    pytest.importorskip("pandas")
    table = measurement().to_pandas("effect")
    assert list(table) == ["prompt", "layer", "head", "half", "cluster", "template", "effect"]
    assert len(table) == VALUES.size
    for row in table.itertuples():
        assert row.effect == VALUES[row.prompt, row.layer, row.head]
        assert row.half == ("selection", "evaluation")[measurement().half[row.prompt]]
        assert row.cluster == row.prompt // 2
    assert table.attrs["units"] == {"effect": "logits"}


def test_means_of_the_table_are_the_measurement_s() -> None:
    pytest.importorskip("pandas")
    table = measurement().to_pandas("effect")
    means = table[table.half == "evaluation"].groupby(["layer", "head"]).effect.mean()
    expected = measurement().mean("effect", "evaluation")
    np.testing.assert_allclose(means.to_numpy().reshape(2, 3), expected, rtol=1e-6)


def test_values_of_other_axes_do_not_fit_one_table() -> None:
    pytest.importorskip("pandas")
    with pytest.raises(UsageError, match=r"effect \[prompt, layer, head\]; clean \[prompt\]"):
        measurement().to_pandas()
    with pytest.raises(MeasurementError, match="not 'nonesuch'"):
        measurement().to_pandas("effect", "nonesuch")
    assert list(measurement().to_pandas("clean").clean) == VALUES[:, 0, 0].tolist()


def test_values_without_a_prompt_axis_have_their_axes_alone() -> None:
    pytest.importorskip("pandas")
    means = Measurement(
        "made.up", {"z": VALUES[0], "one": np.array(3.0)}, {"z": ("layer", "head"), "one": ()},
        {}, *(3 * [np.zeros(0, dtype=np.int64)]),
    )  # fmt: skip
    assert list(means.to_pandas("z")) == ["layer", "head", "z"]
    assert means.to_pandas("one").one.tolist() == [3.0]


def test_a_data_set_has_named_axes_and_what_belongs_to_prompts() -> None:
    pytest.importorskip("xarray")
    made = replace(measurement(), facts={"device": "cpu"}).to_xarray()
    assert made.effect.dims == ("prompt", "layer", "head")
    np.testing.assert_array_equal(made.effect.to_numpy(), VALUES)
    np.testing.assert_array_equal(made.half.to_numpy(), measurement().half)
    assert made.effect.attrs["units"] == "logits"
    assert made.attrs == {"name": "made.up", "device": '"cpu"'}


def test_an_axis_of_two_lengths_fits_in_no_data_set() -> None:
    pytest.importorskip("xarray")
    odd = measurement(other=np.zeros((8, 2, 5)))
    odd.axes["other"] = ("prompt", "layer", "head")  # type: ignore[index]
    with pytest.raises(UsageError, match="'head' has 3 places in one value and 5 in other"):
        odd.to_xarray()


@pytest.mark.parametrize("library", ["pandas", "xarray"])
def test_a_library_that_is_missing_is_named(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    convert: Any = getattr(measurement(), f"to_{library}")
    with pytest.raises(UsageError, match=f"pip install {library}"):
        convert()
