"""The per-prompt values behind a run's estimates, kept beside its records.

A record has an estimate and its interval; two runs on the same prompts are compared in pairs
only with the values themselves. They are a line of ``samples.jsonl`` for each record: float32,
compressed, so that 60 prompts take about 300 characters. A run without the file has lost nothing
but that.
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

if TYPE_CHECKING:
    from mechtests.measurement import Sample

FILE = "samples.jsonl"
NEAR = 1e-9
"""A sample belongs to an estimate where its mean over clusters is this near, relatively."""

At = tuple[int, ...]


def estimates(verdict: Verdict, at: At = ()) -> Iterator[tuple[At, Verdict]]:
    """The verdicts that have an estimate: this one, or those of its parts, by their places."""
    if verdict.estimate is not None:
        yield at, verdict
        return
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
    import numpy as np

    steps = np.diff(sample.cluster, prepend=0)  # mostly equal, so that they compress
    return {
        "values": _packed(np.asarray(sample.values, dtype="<f4").tobytes()),
        "clusters": _packed(np.asarray(steps, dtype="<i4").tobytes()),
        "unit": sample.unit,
    }


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode("ascii")


def _unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


def decoded(tree: Mapping[str, Json]) -> Sample:
    """The sample that ``kept`` wrote, to the precision of float32."""
    import numpy as np

    from mechtests.measurement import Sample

    values = np.frombuffer(_unpacked(tree["values"]), dtype="<f4").astype(np.float64)
    steps = np.frombuffer(_unpacked(tree["clusters"]), dtype="<i4").astype(np.int64)
    return Sample(values, np.cumsum(steps), tree["unit"])


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
