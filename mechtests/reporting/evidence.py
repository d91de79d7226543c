"""What the store still has of a verdict's measurements, as entries that a report draws.

A record keeps the keys of its measurements, and the store keeps per-prompt and per-head values
with named axes. So every claim has its maps and its worst prompts without saying so; what a
claim itself shows under the same name comes before it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mechtests.errors import NotApplicable
from mechtests.measurement import Half
from mechtests.reporting.record import Record
from mechtests.store import Store, StoreWarning
from mechtests.verdict import Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mechtests.measurement import Measurement

Json = Any
Texts = Callable[[str], Sequence[str] | None]
"""The prompts as text, by their digest; None where they are not kept."""

HALF: Half = "evaluation"
MOST_MAPS = 6
WORST = 5
MOST_COLUMNS = 6
LONGEST = 160
"""Of a longer prompt so many characters are shown: its end, where it is answered."""
OPERATORS = "+-*/"
BINS = 20
"""A map over two operands has at most so many rows and columns."""


def of(record: Record, store: Store, texts: Texts | None = None) -> dict[str, Json]:
    """``maps`` and ``prompts`` of a verdict in one cell; nothing over training or scale.

    Those are followed by their curves, and each has measurements of every checkpoint.
    """
    if record.claim.over != "cell":
        return {}
    found = dict(_measured(record, store))
    alone = len(record.measurements) == 1
    maps = [
        entry
        for name, each in found.items()
        for entry in [*_maps(name, each), *(_by_operands(name, each) if alone else ())]
    ]
    own = record.verdict.shown.get("prompts")
    table = _texted(own, texts) if own else _prompts(record.verdict, found, texts)
    return {"maps": maps[:MOST_MAPS], **({"prompts": table} if table else {})}


def _measured(record: Record, store: Store) -> Iterator[tuple[str, Measurement]]:
    """What is stored of a record's measurements; silent where it is not there, or damaged."""
    for name, key in record.measurements.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StoreWarning)
            try:
                measurement = store.get(key)
            except NotApplicable:
                continue
        if measurement is not None:
            yield name, measurement


def _maps(name: str, measurement: Measurement) -> Iterator[Json]:
    """A map for every value by layer and head."""
    for value, axes in measurement.axes.items():
        if axes[-2:] == ("layer", "head") and axes[0] in ("prompt", "layer"):
            means = measurement.mean(value, HALF)
            if means.any():
                yield _map(
                    f"{name}: {_spaced(value)}",
                    measurement.units.get(value, ""),
                    means,
                    ("layer", "head"),
                )


def _map(
    what: str, unit: str, values: NDArray[np.float64], axes: tuple[str, str], **more: Json
) -> Json:
    """An entry of ``maps``; what is not a number is null."""
    rows = [[float(v) if math.isfinite(v) else None for v in row] for row in values.tolist()]
    return {"what": what, "unit": unit, "rows": axes[0], "columns": axes[1], "values": rows, **more}


def _by_operands(name: str, measurement: Measurement) -> Iterator[Json]:
    """The share of right answers over both operands, a map an operator, where they are known."""
    import numpy as np

    if not {"first", "second", "operator", "correct"} <= measurement.values.keys():
        return
    operator, right = measurement["operator"], np.asarray(measurement["correct"], dtype=np.float64)
    for place, sign in enumerate(OPERATORS):
        chosen = operator == place
        if not chosen.any():
            continue
        first, second = measurement["first"][chosen], measurement["second"][chosen]
        sizes = [max(1, math.ceil((int(each.max()) + 1) / BINS)) for each in (first, second)]
        at = (first // sizes[0]).astype(int), (second // sizes[1]).astype(int)
        total = np.zeros((at[0].max() + 1, at[1].max() + 1))
        count = np.zeros_like(total)
        np.add.at(total, at, right[chosen])
        np.add.at(count, at, 1)
        shares = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        yield _map(
            f"{name}: right answers of {sign}",
            "share",
            shares,
            ("operand 1", "operand 2"),
            row_labels=[int(each) * sizes[0] for each in range(len(shares))],
            column_labels=[int(each) * sizes[1] for each in range(shares.shape[1])],
            up=True,
            note="fuller where more are right; no square where there is no such problem",
        )


def _prompts(
    verdict: Verdict, found: Mapping[str, Measurement], texts: Texts | None
) -> Json | None:
    """The worst prompts by the values whose mean is the estimate, or that of a part.

    Unit, numbers of prompts and clusters, and mean find them; where other values agree in all
    of these, nothing tells them apart and nothing is shown.
    """
    judged = [verdict, *sorted(verdict.parts, key=lambda part: -(part.p or 0.0))]
    for each in judged:
        fits = [
            (name, value, values)
            for name, measurement in found.items()
            for value, values in _fitting(measurement, each)
        ]
        if fits and all((values == fits[0][2]).all() for *_, values in fits):
            name, value, values = fits[0]
            return _table(each, name, found[name], value, values, texts)
    return None


def _fitting(
    measurement: Measurement, verdict: Verdict
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Per-prompt values, of all or of a head, that a verdict's estimate is the mean of.

    That mean is over clusters (``statistics.summary``), of the half that decides; up to single
    precision, and never 0, which is the mean of much.
    """
    import numpy as np

    if measurement.recorded or not verdict.estimate:
        return
    chosen = measurement.of(HALF)
    _, index, sizes = np.unique(
        measurement.cluster[chosen], return_inverse=True, return_counts=True
    )
    if (len(index), len(sizes)) != (verdict.prompts, verdict.clusters):
        return
    weights = 1.0 / (len(sizes) * sizes[index])
    for value, axes in measurement.axes.items():
        by_prompt = axes in (("prompt",), ("prompt", "layer", "head"))
        if not by_prompt or measurement.units.get(value, "") != verdict.unit:
            continue
        values = np.asarray(measurement[value][chosen], dtype=np.float64)
        means = np.tensordot(weights, values, 1)
        for head in np.argwhere(np.isclose(means, verdict.estimate, rtol=1e-5, atol=1e-9)):
            of = f" of {head[0]}.{head[1]}" if len(head) else ""
            yield _spaced(value) + of, values[(slice(None), *head)]


def _table(
    verdict: Verdict,
    name: str,
    measurement: Measurement,
    value: str,
    values: NDArray[np.float64],
    texts: Texts | None,
) -> Json:
    """The prompts with the worst values for the claim, and what else was measured of them."""
    import numpy as np

    rows = np.flatnonzero(measurement.of(HALF))
    badness = {"<": -values, "within": -abs(values)}.get(verdict.relation, values)
    worst = np.argsort(badness, kind="stable")[:WORST]
    more = [other for other, axes in measurement.axes.items() if axes == ("prompt",)]
    others = [other for other in more if _spaced(other) != value][: MOST_COLUMNS - 1]
    said = texts(str(measurement.facts.get("prompts", ""))) if texts else None
    known = said is not None and len(said) == len(measurement.half)
    return {
        "what": f"{name}: {value}",
        "unit": verdict.unit,
        "of": len(values),
        "columns": [value, *map(_spaced, others)],
        "rows": [
            {
                "prompt": int(rows[place]),
                "text": _short(said[int(rows[place])]) if said is not None and known else None,
                "cluster": int(measurement.cluster[rows[place]]),
                "values": [
                    float(values[place]),
                    *(float(measurement[other][rows[place]]) for other in others),
                ],
            }
            for place in worst.tolist()
        ],
        "values": [float(f"{each:.3g}") for each in values[:400].tolist()],
    }


def _texted(table: Json, texts: Texts | None) -> Json:
    """A table that a claim shows, with the prompts as text where their ``digest`` finds them."""
    if not isinstance(table, Mapping) or not isinstance(table.get("rows"), list):
        return table
    said = texts(str(table["digest"])) if texts and "digest" in table else None
    if said is None:
        return table
    try:
        rows = [
            {**row, "text": _short(said[row["prompt"]])} if 0 <= row["prompt"] < len(said) else row
            for row in table["rows"]
        ]
    except (LookupError, TypeError):
        return table
    return {**table, "rows": rows}


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"… {text[-LONGEST:]}"


def _spaced(value: str) -> str:
    return value.replace("_", " ")
