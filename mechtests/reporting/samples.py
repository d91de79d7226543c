"""The per-prompt values behind a run's estimates, kept beside its records.

A record has an estimate and its interval; two runs on the same prompts are compared in pairs
only with the values themselves, and the prompts behind a verdict are found only by the sample that
decided. They are a line of ``samples.jsonl`` for each record: float32, compressed, so that 60
prompts take about 300 characters. A run without the file has lost nothing but that.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mechtests.reporting.json_values import Json
from mechtests.reporting.place import Place
from mechtests.verdict import Verdict
from mechtests.watching import Traced, spoken

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mechtests.measurement import Sample

FILE = "samples.jsonl"
NEAR = 1e-9
"""A sample belongs to an estimate where its mean over clusters is this near, relatively."""

LONGEST = 300
"""Characters of what a sample is made of."""

At = tuple[int, ...]


def estimates(verdict: Verdict, at: At = ()) -> Iterator[tuple[At, Verdict]]:
    """The verdicts that have an estimate, this one and those of its parts, by their places.

    What is pooled has one of its own, and so has each part of it.
    """
    if verdict.estimate is not None:
        yield at, verdict
    for index, part in enumerate(verdict.parts):
        yield from estimates(part, (*at, index))


def kept(verdict: Verdict) -> list[Json]:
    """The samples of a verdict as JSON, each where its mean is the estimate that is said."""
    return [
        {"at": list(at), **_encoded(each.sample)}
        for at, each in estimates(verdict)
        if each.sample is not None and _is_of(each.sample, each.estimate)
    ]


def _is_of(sample: Sample, estimate: float | None) -> bool:
    from mechtests import statistics

    if estimate is None or not math.isfinite(estimate):
        return False
    return math.isclose(statistics.summary(sample).mean, estimate, rel_tol=NEAR, abs_tol=NEAR)


def _encoded(sample: Sample) -> dict[str, Json]:
    """A sample, and of a traced one what it is made of and which prompts it is of."""
    import numpy as np

    tree: dict[str, Json] = {
        "values": _packed(np.asarray(sample.values, dtype="<f4").tobytes()),
        "clusters": _packed(_steps(sample.cluster)),
        "unit": sample.unit,
    }
    if isinstance(sample, Traced) and sample.rows is not None and len(sample.rows) == len(sample):
        said = spoken(sample)
        tree |= {
            "measurement": sample.name,
            "rows": _packed(_steps(sample.rows)),
            "made_of": said if len(said) <= LONGEST else f"{said[: LONGEST - 1]}…",
        }
    return tree


def _steps(numbers: NDArray[np.int64]) -> bytes:
    """Numbers as their differences, which are mostly equal, so that they compress."""
    import numpy as np

    return np.asarray(np.diff(numbers, prepend=0), dtype="<i4").tobytes()


def _numbers(data: bytes) -> NDArray[np.int64]:
    import numpy as np

    return np.cumsum(np.frombuffer(data, dtype="<i4").astype(np.int64))


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode("ascii")


def _unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


def decoded(tree: Mapping[str, Json]) -> Sample:
    """The sample that ``kept`` wrote, to the precision of float32; traced where it was."""
    import numpy as np

    from mechtests.measurement import Sample

    values = np.frombuffer(_unpacked(tree["values"]), dtype="<f4").astype(np.float64)
    clusters, unit = _numbers(_unpacked(tree["clusters"])), tree["unit"]
    if "rows" not in tree:
        return Sample(values, clusters, unit)
    rows = _numbers(_unpacked(tree["rows"]))
    return Traced(values, clusters, unit, rows=rows, name=tree["measurement"])


def line(place: Place, found: Sequence[Json]) -> str:
    """The line of a record."""
    return json.dumps({**place._asdict(), "samples": list(found)}, allow_nan=False) + "\n"


def lines(run: Path) -> dict[Place, list[Json]]:
    """What a run kept, still encoded; of a line that is not whole nothing."""
    file = run / FILE
    found: dict[Place, list[Json]] = {}
    for text in file.read_text("utf-8").splitlines() if file.is_file() else ():
        try:
            tree = json.loads(text)
            found[Place(tree["claim"], tree["task"], tree["cell"])] = tree["samples"]
        except (ValueError, KeyError, TypeError):
            continue
    return found


def read(run: Path) -> dict[Place, dict[At, Sample]]:
    """The samples of a run's records, by the place of each estimate in its verdict."""
    return {
        place: {tuple(each["at"]): decoded(each) for each in trees}
        for place, trees in lines(run).items()
    }
