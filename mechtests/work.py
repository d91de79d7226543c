"""One measurement as it is made: batch by batch, then as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mechtests.errors import MeasurementError, MechtestsError, NotApplicable
from mechtests.measurement import Measurement
from mechtests.metrics.metric import Batch, Need
from mechtests.tape import Played, Sites
from mechtests.tasks.prompts import Prompts

if TYPE_CHECKING:
    from mechtests.models.network import Network

Json = Any


def sites_of(needs: Iterable[Need]) -> Sites:
    """What some measurements read of the runs of their task."""
    return Sites.union(
        Sites(
            frozenset(need.metric.clean),
            {need.corruption: frozenset(need.metric.corrupted)}
            if need.metric.corrupted and need.corruption
            else {},
        )
        for need in needs
    )


def lacking(prompts: Prompts, need: Need) -> list[str]:
    """What a metric reads of the prompts and these do not have, in words."""
    reads = list(need.metric.needs)
    if need.metric.corrupted:
        reads.append(f"corrupted:{need.corruption}")
    given = {
        *(f"position:{name}" for name in prompts.positions),
        *(f"tokens:{name}" for name in prompts.tokens),
        *(f"corrupted:{name}" for name in prompts.corrupted),
        *(["answers"] if prompts.right is not None and prompts.wrong is not None else []),
    }
    return [name.replace(":", " ") for name in reads if name not in given]


@dataclass
class Work:
    """A measurement that is being made, batch by batch."""

    need: Need
    network: Network
    inputs: Mapping[str, Measurement]
    draws: int
    generator: Callable[[str], np.random.Generator]
    parts: list[tuple[np.ndarray, Mapping[str, np.ndarray]]] = field(default_factory=list)
    error: str = ""
    not_applicable: str = ""

    def take(self, played: Played) -> None:
        """Compute one batch; memory running out is the caller's affair, the rest is kept."""
        import torch

        if self.error or self.not_applicable:
            return
        need = self.need
        reads = need.metric.corrupted
        batch = Batch(
            network=self.network,
            prompts=played.prompts,
            clean=played.clean,
            corrupted=played.corrupted[need.corruption] if reads and need.corruption else None,  # type: ignore[arg-type]
            inputs=self.inputs,
            params=dict(need.params),
            draws=self.draws,
            rows=played.rows,
            generator=self.generator,
            corruption=need.corruption,
        )
        try:
            with torch.no_grad():
                values = need.metric.compute(batch)
            self.parts.append((played.rows, {name: _array(v) for name, v in values.items()}))
        except NotApplicable as reason:  # as of a task: it does not apply to this model
            self.not_applicable = str(reason)
        except Exception as error:  # whatever a metric does wrong is its own tests' error
            if out_of_memory(error) and len(played.rows) > 1 and not need.metric.whole:
                raise
            self.error = sentence(error)

    def measurement(self, prompts: Prompts, facts: dict[str, Json]) -> Measurement:
        """The batches as one, in the order of the prompts.

        Raises:
            MeasurementError: A value is not a finite number.
        """
        metric = self.need.metric
        values = {}
        for name, value in metric.values.items():
            pieces = [part[name] for _, part in self.parts]
            if metric.whole:
                joined = pieces[0]
            elif value.axes[0] == "prompt":
                joined = np.empty((len(prompts), *pieces[0].shape[1:]), pieces[0].dtype)
                for (rows, _), piece in zip(self.parts, pieces, strict=True):
                    joined[rows] = piece
            else:
                weights = [len(rows) for rows, _ in self.parts]
                joined = np.average(np.stack(pieces), axis=0, weights=weights)
            _finite(name, joined, value.axes, prompts)
            values[name] = joined
        return Measurement(
            name=metric.name,
            values=values,
            axes={name: value.axes for name, value in metric.values.items()},
            units={name: value.unit for name, value in metric.values.items()},
            cluster=prompts.cluster,
            template=prompts.template,
            half=prompts.half,
            facts=facts,
        )


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, as Python or torch says it."""
    said = str(error).lower() if isinstance(error, RuntimeError) else ""
    words = ("out of memory", "not enough memory", "allocate memory")
    return isinstance(error, MemoryError) or any(each in said for each in words)


def sentence(error: Exception, where: str = "") -> str:
    """What went wrong: our own sentences as they are, all else with where and its kind."""
    if isinstance(error, MechtestsError):
        return str(error)
    if out_of_memory(error):
        what = "out of memory; use a smaller model, or a machine with more memory"
    else:
        what = f"{type(error).__name__}: {error}"
    return f"{where}: {what}" if where else what


def _array(value: Any) -> np.ndarray[Any, Any]:
    """A tensor or array as numpy, in single precision where it is a real number."""
    array = np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _finite(
    name: str, array: np.ndarray[Any, Any], axes: tuple[str, ...], prompts: Prompts
) -> None:
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    where = np.argwhere(~np.isfinite(array))
    first = ", ".join(f"{axis} {int(i)}" for axis, i in zip(axes, where[0], strict=True))
    text = f" ({prompts.texts[int(where[0][0])]!r})" if axes[:1] == ("prompt",) else ""
    raise MeasurementError(
        f"{name} is not a finite number at {first or 'all'}{text} and {len(where) - 1} more of "
        f"{array.size}; the model gives NaN or infinite activations"
    )
