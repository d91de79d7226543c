"""A record: a verdict with everything needed to read it years later, as one line of JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mechtests.claim import Claim
from mechtests.errors import LoadError
from mechtests.reporting.json_values import Json, finite, plain, whole
from mechtests.verdict import Control, Expectation, Outcome, Verdict

SCHEMA = "mechtests-record/1"
LEVEL = 0.05  # the false discovery rate in a family (claims.md, Families)


@dataclass(frozen=True)
class RecordedCheckpoint:
    """Where in training a cell is.

    Attributes:
        label: As published: ``"step1000"``.
        step: Optimizer steps, or None where the label does not say.
        tokens: Tokens seen, or None where it is not known.
    """

    label: str
    step: int | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class RecordedCell:
    """What a verdict is about: a model at a checkpoint, or a whole series.

    Attributes:
        id: As in the test's id: ``"pythia-160m:step1000"``.
        model: The model's short name.
        checkpoint: None for a model without checkpoints and for a whole series.
        identity: What the name resolved to: a commit, or digests of files.
        weights: Digest of the loaded weights; None where nothing was loaded.
        dtype: The dtype it was measured in.
        device: The device it was measured on.
    """

    id: str
    model: str
    checkpoint: RecordedCheckpoint | None = None
    identity: Json = None
    weights: str | None = None
    dtype: str = ""
    device: str = ""


@dataclass(frozen=True)
class Record:
    """A verdict, what it is about, and how to get it again.

    Attributes:
        run: The id of the run that reached it.
        claim: The claim in its own words, without what it needs and its gate.
        cell: The model at a checkpoint.
        measurements: The store's key of every measurement, by the name the claim gave it.
        verdict: The outcome with its numbers.
        profile: How much was measured: ``"quick"``, ``"standard"``, ``"full"``.
        seed: The seed of every random draw.
        nodeid: The test's id in pytest.
        reproduce: The command that reaches this verdict again.
        q: The p corrected over the family; None until ``correct``.
        expectation: Why a verdict is expected here, or None.
        expects: The verdict that a baseline has here; None where there is no baseline, and an
            expectation is then the paper's own of a refutation.
        overridden: Whether a setting from outside changed the claim's own rule.
        facts: What the measurements say of themselves, by name; the ``notes`` of each are shown.
        seconds: How long measuring and judging took.
    """

    run: str
    claim: Claim
    cell: RecordedCell
    measurements: Mapping[str, str]
    verdict: Verdict
    profile: str
    seed: int
    nodeid: str
    reproduce: str
    q: float | None = None
    expectation: str | None = None
    expects: Outcome | None = None
    overridden: bool = False
    facts: Mapping[str, Json] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def from_verdict(cls, verdict: Verdict, *, claim: Claim, **rest: Any) -> Record:
        """The record of a verdict; ``rest`` are the other attributes, by name."""
        said = replace(claim, needs={}, gate=None, exceptions={})
        return cls(verdict=verdict, claim=said, **rest)

    @property
    def outcome(self) -> Outcome:
        """The verdict's outcome."""
        return self.verdict.outcome

    @property
    def expected(self) -> bool:
        """Whether it does not hold, and was not expected to."""
        return Expectation(self.expectation, self.expects).excuses(self.outcome)

    @property
    def awaited(self) -> str:
        """What a baseline or the paper expects: ``"holds"``, ``"a refutation"``."""
        return "a refutation" if self.expects is None else str(self.expects)

    @property
    def notes(self) -> list[str]:
        """What the measurements say of themselves, each once."""
        said = [facts for facts in self.facts.values() if isinstance(facts, Mapping)]
        return list(dict.fromkeys(str(note) for each in said for note in each.get("notes", ())))

    @property
    def changed(self) -> bool:
        """Whether another verdict was expected; see ``Expectation.changed``."""
        return Expectation(self.expectation, self.expects).changed(self.outcome)

    @property
    def not_after_correction(self) -> bool:
        """Whether it holds by itself, and not after its family is corrected."""
        return self.outcome is Outcome.HOLDS and self.q is not None and self.q > LEVEL

    def to_json(self) -> dict[str, Json]:
        """What ``record.schema.json`` describes.

        Numbers that are not finite are null, and named in ``nonfinite``.
        """
        tree = {
            "schema": SCHEMA,
            "run": self.run,
            "claim": _claim_to_json(self.claim),
            "cell": plain(self.cell),
            "measurements": plain(self.measurements),
            **_verdict_to_json(self.verdict),
            **{name: plain(getattr(self, name)) for name in _BESIDE},
        }
        return finite(tree)

    @classmethod
    def from_json(cls, tree: Mapping[str, Json]) -> Record:
        """The record that ``to_json`` gave; unknown keys are passed over.

        Raises:
            LoadError: It is of another schema, or a field is missing.
        """
        if tree.get("schema") != SCHEMA:
            raise LoadError(
                f"record of the schema {tree.get('schema')!r}: this version of mechtests reads "
                f"{SCHEMA!r}; read it with the version that wrote it"
            )
        try:
            return cls._from_whole(whole(tree))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise LoadError(
                f"record of the run {tree.get('run')!r}: it is not as record.schema.json says "
                f"({type(error).__name__}: {error})"
            ) from error

    @classmethod
    def _from_whole(cls, tree: Mapping[str, Json]) -> Record:
        at = tree["cell"].get("checkpoint")
        checkpoint = None if at is None else RecordedCheckpoint(**_known(RecordedCheckpoint, at))
        return cls(
            run=tree["run"],
            claim=_claim_from_json(tree["claim"]),
            cell=RecordedCell(**{**_known(RecordedCell, tree["cell"]), "checkpoint": checkpoint}),
            measurements=tree["measurements"],
            verdict=_verdict_from_json(tree),
            **{name: tree[name] for name in _BESIDE if name in tree and name != "expects"},
            expects=None if tree.get("expects") is None else Outcome(tree["expects"]),
        )


# what a record keeps beside its claim, cell and verdict, in the order it is written
_BESIDE = (
    "q", "expectation", "expects", "overridden", "profile", "seed", "nodeid", "reproduce", "facts",
    "seconds",
)  # fmt: skip
_OF_A_CLAIM = (
    "id", "version", "paper", "section", "says", "rule", "over", "task", "components", "family",
    "controls",
)  # fmt: skip
_NESTED = ("outcome", "controls", "parts", "shown", "sample")
_OF_A_VERDICT = tuple(each.name for each in dataclasses.fields(Verdict) if each.name not in _NESTED)


def schema() -> dict[str, Json]:
    """The JSON Schema of a record, every field described."""
    from importlib.resources import files

    text = files("mechtests.reporting").joinpath("record.schema.json").read_text("utf-8")
    described: dict[str, Json] = json.loads(text)
    return described


def _claim_to_json(claim: Claim) -> dict[str, Json]:
    return {name: plain(getattr(claim, name)) for name in _OF_A_CLAIM}


def _claim_from_json(tree: Mapping[str, Json]) -> Claim:
    known = _known(Claim, {name: tree[name] for name in _OF_A_CLAIM if name in tree})
    return Claim(**{name: _tupled(value) for name, value in known.items()})


def _verdict_to_json(verdict: Verdict) -> dict[str, Json]:
    return {
        "verdict": verdict.outcome.value,
        **{name: plain(getattr(verdict, name)) for name in _OF_A_VERDICT},
        "controls": plain(verdict.controls),
        "parts": [_verdict_to_json(part) for part in verdict.parts],
        "shown": plain(verdict.shown),
    }


def _verdict_from_json(tree: Mapping[str, Json]) -> Verdict:
    known = {name: _tupled(tree[name]) for name in _OF_A_VERDICT if name in tree}
    controls = [_known(Control, control) for control in tree.get("controls", ())]
    return Verdict(
        outcome=Outcome(tree["verdict"]),
        **known,
        controls=tuple(
            Control(**{name: _tupled(value) for name, value in control.items()})
            for control in controls
        ),
        parts=tuple(_verdict_from_json(part) for part in tree.get("parts", ())),
        shown=tree.get("shown", {}),
    )


def _known(kind: type, tree: Mapping[str, Json]) -> dict[str, Json]:
    names = {each.name for each in dataclasses.fields(kind)}
    return {name: value for name, value in tree.items() if name in names}


def _tupled(value: Json) -> Json:
    return tuple(value) if isinstance(value, list) else value
