"""What a verdict's measurements say beside its numbers, as entries that a report draws.

A record keeps the keys of its measurements, and the store keeps per-head values with named axes:
so every claim has its maps without saying so. The prompts are those of the sample that decided,
which the run keeps (``samples``); where there is none, those that the claim itself shows.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mechtests.errors import NotApplicable
from mechtests.measurement import Half
from mechtests.reporting import samples
from mechtests.reporting.explanation import deciding
from mechtests.reporting.record import Record
from mechtests.store import Store, StoreWarning
from mechtests.verdict import Verdict
from mechtests.watching import Watched, rows_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mechtests.measurement import Measurement, Sample

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


def of(
    record: Record,
    store: Store | None,
    texts: Texts | None = None,
    kept: Sequence[Json] = (),
) -> dict[str, Json]:
    """``maps`` and ``prompts`` of a verdict in one cell; nothing over training or scale.

    Those are followed by their curves, and each has measurements of every checkpoint.

    Args:
        record: The verdict.
        store: Where its measurements are.
        texts: The prompts as text, by their digest.
        kept: The samples behind its estimates, as ``samples.lines`` has them.
    """
    if record.claim.over != "cell":
        return {}
    found = {} if store is None else dict(_measured(record, store))
    alone = len(record.measurements) == 1
    maps = [
        entry
        for name, each in found.items()
        for entry in [*_maps(name, each), *(_by_operands(name, each) if alone else ())]
    ]
    table = _prompts(record, found, texts, kept) or _own(record.verdict, texts)
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
    record: Record,
    found: Mapping[str, Measurement],
    texts: Texts | None,
    kept: Sequence[Json],
) -> Json | None:
    """The worst prompts by the values that decided; None where none were kept.

    A sample that does not say which prompts it is of is known by its clusters
    (``watching.rows_of``); where those tell nothing, its values are shown without text.
    """
    part, tree = _decided(record.verdict, kept)
    if tree is None:
        return None
    sample = samples.decoded(tree)
    watched = [Watched.around(each, name) for name, each in found.items()]
    name, rows = rows_of(sample, watched) or ("", None)
    what = tree.get("made_of") or f"the number that decided{f', of {name}' if name else ''}"
    beside = {} if rows is None or name not in found else _beside(found[name], sample, rows)
    digest = (record.facts.get(name) or {}).get("prompts")
    said = texts(str(digest)) if texts and digest else None
    return _table(part, what, sample, rows, beside, said)


def _decided(verdict: Verdict, kept: Sequence[Json]) -> tuple[Verdict, Json | None]:
    """The part that decided, and what is kept of its sample."""
    part = deciding(verdict)
    at = next((at for at, each in samples.estimates(verdict) if each is part), None)
    return part, next((tree for tree in kept if tuple(tree["at"]) == at), None)


def _beside(
    measurement: Measurement, sample: Sample, rows: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """What else was measured of the same prompts, but what the sample itself is."""
    import numpy as np

    each = {
        value: np.asarray(measurement[value], dtype=np.float64)[rows]
        for value, axes in measurement.axes.items()
        if axes == ("prompt",) and rows.max(initial=-1) < len(measurement[value])
    }
    others = {
        _spaced(value): values
        for value, values in each.items()
        if not np.allclose(values, sample.values, rtol=1e-6, atol=1e-9)
    }
    return dict(list(others.items())[: MOST_COLUMNS - 1])


def _table(
    verdict: Verdict,
    what: str,
    sample: Sample,
    rows: NDArray[np.int64] | None,
    beside: Mapping[str, NDArray[np.float64]],
    said: Sequence[str] | None,
) -> Json:
    """The prompts with the worst values for the claim, and what else was measured of them."""
    import numpy as np

    values, places = sample.values, np.arange(len(sample)) if rows is None else rows
    badness = {"<": -values, "within": -abs(values)}.get(verdict.relation, values)
    worst = np.argsort(badness, kind="stable")[:WORST].tolist()
    texts = said if rows is not None and said and rows.max(initial=-1) < len(said) else None
    return {
        "what": what,
        "unit": sample.unit,
        "of": len(values),
        "columns": [what, *beside],
        "rows": [
            {
                "prompt": int(places[at]),
                "text": None if texts is None else _short(texts[int(places[at])]),
                "cluster": int(sample.cluster[at]),
                "values": [float(values[at]), *(float(each[at]) for each in beside.values())],
            }
            for at in worst
        ],
        "values": [float(f"{each:.3g}") for each in values[:400].tolist()],
    }


def _own(verdict: Verdict, texts: Texts | None) -> Json | None:
    """A table that a claim shows, with the prompts as text where their ``digest`` finds them."""
    table = verdict.shown.get("prompts")
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
