"""Which cells a run is about: those of its options, or of the run it replays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NoReturn, cast

from mechtests.case import step_zero
from mechtests.errors import LoadError, UsageError
from mechtests.models import sources
from mechtests.models.cell import FINAL, Cell, Checkpoint, Kind, Source, select
from mechtests.store import default_folder

Json = Any
DEFAULT_MODEL = "sprout"
WHOLE_SERIES = ("embedded", "recorded")
"""Kinds of source whose checkpoints are all at hand, so that a series takes every one."""


@dataclass(frozen=True)
class Remembered:
    """The source of a model in a run that is replayed: nothing of it need be here any more.

    Attributes:
        name: The model's short name.
        first: Its step 0, where it had one.
    """

    name: str
    first: Checkpoint | None
    kind: Kind = "folder"

    def checkpoints(self, *, offline: bool) -> tuple[Checkpoint, ...]:
        """Step 0, which controls may have been measured at."""
        return () if self.first is None else (self.first,)

    def _gone(self, *_: object, **__: object) -> NoReturn:
        raise LoadError(f"{self.name}: a replay loads no model; run without --mech-replay")

    identity = config = download_bytes = fetch = load = _gone


@dataclass(frozen=True)
class Subject:
    """What one test of a claim is about.

    Attributes:
        id: Empty for one cell, which has its own; a model's name, or a family's.
        cells: Its cells, model by model, each in the order of training.
    """

    id: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Model:
    """A model of the run: what was written for it, and its chosen checkpoints.

    Attributes:
        asked: What the user wrote to name it.
        source: Where it comes from.
        family: The models it is compared with over scale.
        spec: What ``--checkpoints`` said, or None.
        offline: Whether the network may not be asked.
        known: Its checkpoints of each kind of claim, where another process told of them.
    """

    asked: str
    source: Source
    family: str
    spec: str | None = None
    offline: bool = True
    known: Mapping[str, tuple[Checkpoint | None, ...]] = field(default_factory=dict, hash=False)

    @cached_property
    def final(self) -> tuple[Checkpoint | None, ...]:
        """The checkpoints that claims over a cell are judged at."""
        if "cell" in self.known:
            return self.known["cell"]
        asks = self.spec not in (None, FINAL)  # the final weights need no list from the network
        found = self.source.checkpoints(offline=self.offline or not asks)
        return select(found, self.spec or FINAL)

    @cached_property
    def series(self) -> tuple[Checkpoint | None, ...]:
        """The checkpoints that claims over training are judged over."""
        if "training" in self.known:
            return self.known["training"]
        found = self.source.checkpoints(offline=self.offline)
        default = "all" if not found or self.source.kind in WHOLE_SERIES else "log:12"
        return select(found, self.spec or default)

    def cells(self, over: str) -> tuple[Cell, ...]:
        """Its cells for claims of a kind."""
        chosen = self.final if over == "cell" else self.series
        return tuple(Cell(self.source.name, checkpoint, self.source) for checkpoint in chosen)

    def told(self) -> dict[str, Json]:
        """What a worker or a replay must know of it, as JSON."""
        first = step_zero(self.source)
        return {
            "asked": self.asked,
            "family": self.family,
            "kind": self.source.kind,
            "checkpoints": [None if c is None else asdict(c) for c in self.final],
            "series": [None if c is None else asdict(c) for c in self.series],
            "step_zero": None if first is None else asdict(first),
        }


class Selection:
    """The cells of a run, resolved once and without a download.

    Args:
        names: What ``--model`` was given; empty for the default model, or all of a replay.
        spec: What ``--checkpoints`` was given, or None.
        offline: Whether the network may not be asked.
        replayed: The models of the run that is replayed, as ``told`` gave them.
        told: What the controller told this xdist worker of its models.

    Raises:
        UsageError: A model or a checkpoint does not exist.
    """

    def __init__(
        self,
        names: Sequence[str],
        spec: str | None,
        *,
        offline: bool,
        replayed: Mapping[str, Json] | None = None,
        told: Mapping[str, Json] | None = None,
    ) -> None:
        self._spec = spec
        self._offline = offline
        asked = sources.parse_models(names)
        if told is not None:
            found = [_model(name, each) for name, each in told.items()]  # a worker loads no model
        elif replayed is not None:
            found = list(_remembered(asked, replayed))
        else:
            default = sources.parse_models([DEFAULT_MODEL])
            found = [self._resolved(name) for name in asked or default]
        self.models: dict[str, Model] = {}
        for model in found:
            if (other := self.models.setdefault(model.source.name, model)) is not model:
                raise UsageError(
                    f"--model {model.asked} and {other.asked} are both called "
                    f"{model.source.name}; judge them in two runs, or rename one folder"
                )

    def subjects(self, over: str) -> tuple[Subject, ...]:
        """What claims of a kind are judged on: cells, series, or the models of a family.

        Raises:
            UsageError: Claims of this kind cannot be judged yet.
        """
        models = self.models.values()
        if over == "cell":
            return tuple(Subject("", (cell,)) for model in models for cell in model.cells(over))
        if over == "training":
            return tuple(Subject(model.source.name, model.cells(over)) for model in models)
        if over == "scale":
            families: dict[str, tuple[Cell, ...]] = {}
            for model in models:
                families[model.family] = families.get(model.family, ()) + model.cells(over)
            return tuple(Subject(family, cells) for family, cells in families.items())
        raise UsageError(
            f"claims over {over} cannot be judged by this version, only claims over a cell, "
            "training or scale; leave the claim out with --mech-claims or -k"
        )

    def asked_as(self, model: str) -> str:
        """What the user wrote to name a model: its path, where it is a folder or file."""
        return self.models[model].asked

    def told(self) -> dict[str, Json]:
        """The models as JSON, for workers and replays."""
        return {name: model.told() for name, model in self.models.items()}

    def _resolved(self, name: str) -> Model:
        source = sources.resolve(name, cache=default_folder())
        model = Model(name, source, sources.family(source.name), self._spec, self._offline)
        if self._spec is not None:  # a checkpoint that does not exist is refused at once
            _ = model.final
        return model


def _remembered(asked: Sequence[str], replayed: Mapping[str, Json]) -> Iterator[Model]:
    """The models of a run that is replayed: those asked for, or all."""
    for wanted in asked or replayed:
        named = [name for name, told in replayed.items() if wanted in (name, told["asked"])]
        if not named:
            raise UsageError(
                f"--mech-replay: that run has no model {wanted!r}, it has "
                f"{', '.join(replayed) or 'none'}; name one of them with --model"
            )
        yield _model(named[0], replayed[named[0]])


def _model(name: str, told: Mapping[str, Json]) -> Model:
    """A model as another process or run told of it."""
    first = told["step_zero"]
    source = Remembered(name, None if first is None else Checkpoint(**first), told["kind"])
    known = {
        over: tuple(None if c is None else Checkpoint(**c) for c in told[each])
        for over, each in (("cell", "checkpoints"), ("training", "series"))
    }
    return Model(told["asked"], cast("Source", source), told["family"], known=known)
