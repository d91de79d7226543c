"""The recorded values of a metric at one checkpoint as a measurement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mechtests.measurement import Recorded
from mechtests.models.cell import Checkpoint
from mechtests.models.revisions import pythia_grid, pythia_parameters

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mechtests.models.recording import Entry

Json = Any


def joined(model: str, entries: Iterable[Entry], checkpoint: Checkpoint | None) -> Recorded:
    """What is recorded of one metric on one task at a checkpoint.

    A value of heads is an array of all the model's layers and heads, NaN where nothing was
    recorded: Pythia's sizes are known by the name, another model's reach as far as what was
    recorded of it at any checkpoint. It is equally large at all checkpoints.

    Args:
        model: The model's name.
        entries: All that is recorded of the metric on the task, at any checkpoint.
        checkpoint: The checkpoint, at which there is at least one of them.
    """
    of_value: dict[str, list[Entry]] = {}
    here: dict[str, list[Entry]] = {}
    for entry in entries:
        of_value.setdefault(entry.value, []).append(entry)
        if checkpoint in entry.checkpoints:
            here.setdefault(entry.value, []).append(entry)
    filled = {
        value: _filled(parts, checkpoint, _size(model, of_value[value]))
        for value, parts in here.items()
    }
    return _recorded(model, here, filled)


def _size(model: str, entries: Sequence[Entry]) -> tuple[int, ...]:
    """How large the array of a value is: the model's sizes, or as far as the indices reach."""
    grid = pythia_grid(model)
    return tuple(
        max(grid.get(axis, 0), *(entry.index[place] + 1 for entry in entries))
        for place, axis in enumerate(entries[0].axes)
    )


def _filled(
    entries: Sequence[Entry], checkpoint: Checkpoint | None, size: tuple[int, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The means and their standard errors, NaN where nothing is known."""
    import numpy as np

    means, errors = np.full(size, np.nan), np.full(size, np.nan)
    for entry in entries:
        at = entry.checkpoints.index(checkpoint)
        error = entry.errors[at]
        means[entry.index] = entry.means[at]
        errors[entry.index] = np.nan if error is None else error
    return means, errors


def _recorded(
    model: str,
    of_value: Mapping[str, Sequence[Entry]],
    filled: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> Recorded:
    import numpy as np

    none = np.zeros(0, dtype=np.int64)
    first = {value: entries[0] for value, entries in of_value.items()}
    return Recorded(
        name=next(iter(first.values())).metric,
        values={value: means for value, (means, _) in filled.items()},
        axes={value: entry.axes for value, entry in first.items()},
        units={value: entry.unit for value, entry in first.items()},
        cluster=none,
        template=none,
        half=none,
        facts={"recorded": _provenance(first), **_parameters(model)},
        model=model,
        errors={value: errors for value, (_, errors) in filled.items()},
        prompts={value: entry.prompts for value, entry in first.items()},
    )


def _parameters(model: str) -> dict[str, int]:
    """The model's non-embedding parameters, where they are known by its name."""
    known = pythia_parameters(model)
    return {} if known is None else {"parameters": known}


def _provenance(first: Mapping[str, Entry]) -> Json:
    """Where each value comes from, for records."""
    return {
        value: {**entry.provenance, "error_from": entry.error_from}
        for value, entry in first.items()
    }
