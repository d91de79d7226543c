"""Which cells a run is about: those of its options, or of the run it replays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NoReturn, cast

from mechtests.errors import LoadError, UsageError
from mechtests.models import sources
from mechtests.models.cell import FINAL, Cell, Checkpoint, Kind, Source, select
from mechtests.plan import step_zero
from mechtests.store import default_folder

Json = Any
DEFAULT_MODEL = "smollm2-135m"


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
class Model:
    """A model of the run: what was written for it, and its chosen checkpoints."""

    asked: str
    source: Source
    chosen: tuple[Checkpoint | None, ...]

    def told(self) -> dict[str, Json]:
        """What a worker or a replay must know of it, as JSON."""
        first = step_zero(self.source)
        return {
            "asked": self.asked,
            "checkpoints": [None if c is None else asdict(c) for c in self.chosen],
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
            found = [self._resolved(name) for name in asked or (DEFAULT_MODEL,)]
        self.models: dict[str, Model] = {}
        for model in found:
            if (other := self.models.setdefault(model.source.name, model)) is not model:
                raise UsageError(
                    f"--model {model.asked} and {other.asked} are both called "
                    f"{model.source.name}; judge them in two runs, or rename one folder"
                )

    def cells(self, over: str) -> tuple[Cell, ...]:
        """The cells that claims of a kind are judged in.

        Raises:
            UsageError: Claims of this kind cannot be judged yet.
        """
        if over != "cell":
            raise UsageError(
                f"claims over {over} cannot be judged by this version, only claims over cells; "
                "leave the claim out with --mech-claims or -k"
            )
        return tuple(
            Cell(name, checkpoint, model.source)
            for name, model in self.models.items()
            for checkpoint in model.chosen
        )

    def asked_as(self, model: str) -> str:
        """What the user wrote to name a model: its path, where it is a folder or file."""
        return self.models[model].asked

    def told(self) -> dict[str, Json]:
        """The models as JSON, for workers and replays."""
        return {name: model.told() for name, model in self.models.items()}

    def _resolved(self, name: str) -> Model:
        source = sources.resolve(name, cache=default_folder())
        asks = self._spec not in (None, FINAL)  # the final weights need no list from the network
        known = source.checkpoints(offline=self._offline or not asks)
        return Model(name, source, select(known, self._spec, "cell"))


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
    source = Remembered(name, None if first is None else Checkpoint(**first))
    chosen = tuple(None if c is None else Checkpoint(**c) for c in told["checkpoints"])
    return Model(told["asked"], cast("Source", source), chosen)
