"""A measurement as a pandas table or an xarray data set, for a notebook."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mechtests.errors import UsageError

if TYPE_CHECKING:
    from mechtests.measurement import Measurement

OF_A_PROMPT = ("half", "cluster", "template")
NAMED_HALVES = ("selection", "evaluation")


def pandas_of(measurement: Measurement, values: Sequence[str] = ()) -> Any:
    """Values as a long table: a column an axis, a column a value, a row an index.

    With a prompt axis its half, cluster and template stand beside it. ``table.attrs`` has the
    units.

    Args:
        measurement: What was measured.
        values: Which values; all, where they have the same axes.

    Raises:
        UsageError: pandas is not installed, or the values have different axes.
        MeasurementError: There is no such value.
    """
    import numpy as np

    pandas = _library("pandas", "measurement.to_pandas()")
    chosen = list(values) or list(measurement.values)
    axes = {value: measurement.axes[value] for value in chosen if value in measurement.axes}
    if len(set(axes.values())) > 1:
        said = "; ".join(f"{name} [{', '.join(each)}]" for name, each in axes.items())
        raise UsageError(
            f"{measurement.name}: one table has values of the same axes, and these have "
            f"different ones ({said}); name some: to_pandas({chosen[0]!r})"
        )
    arrays = {value: np.asarray(measurement[value]) for value in chosen}
    first = next(iter(arrays.values()))
    named = axes[chosen[0]]
    index = np.indices(first.shape).reshape(first.ndim, first.size)
    columns: dict[str, Any] = dict(zip(named, index, strict=True))
    if named[:1] == ("prompt",):
        prompt = columns["prompt"]
        columns["half"] = np.asarray(NAMED_HALVES)[measurement.half[prompt]]
        columns["cluster"] = measurement.cluster[prompt]
        columns["template"] = measurement.template[prompt]
    columns.update((value, array.reshape(-1)) for value, array in arrays.items())
    table = pandas.DataFrame(columns)
    table.attrs["units"] = {value: measurement.units.get(value, "") for value in chosen}
    return table


def xarray_of(measurement: Measurement) -> Any:
    """All values, with named axes; half, cluster and template are coordinates of the prompts.

    Raises:
        UsageError: xarray is not installed, or one axis has two lengths.
    """
    xarray = _library("xarray", "measurement.to_xarray()")
    lengths: dict[str, int] = {}
    for value, array in measurement.values.items():
        for axis, length in zip(measurement.axes[value], array.shape, strict=True):
            if lengths.setdefault(axis, length) != length:
                raise UsageError(
                    f"{measurement.name}: its axis {axis!r} has {lengths[axis]} places in one "
                    f"value and {length} in {value}, so they fit in no one data set; take "
                    f"measurement[{value!r}]"
                )
    arrays = {
        value: (measurement.axes[value], array, {"units": measurement.units.get(value, "")})
        for value, array in measurement.values.items()
    }
    beside = {}
    if lengths.get("prompt") == len(measurement.half):
        beside = {name: ("prompt", getattr(measurement, name)) for name in OF_A_PROMPT}
    facts = {name: json.dumps(fact, default=str) for name, fact in measurement.facts.items()}
    return xarray.Dataset(arrays, coords=beside, attrs={"name": measurement.name, **facts})


def _library(name: str, what: str) -> Any:
    """An optional library.

    Raises:
        UsageError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"{what} needs {name}, which cannot be imported ({error}); pip install {name}"
        ) from error
