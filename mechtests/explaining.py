"""From a verdict to its cause: which prompts, which heads, at which margin, and what to try."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mechtests import comparing, contributions, direct, engine, judging, plan
from mechtests.case import Case
from mechtests.errors import MechtestsError
from mechtests.measured import Measured, MeasuredModels
from mechtests.measurement import HALVES, Measurement
from mechtests.models import recording
from mechtests.models.cell import Cell
from mechtests.models.live import LiveSource
from mechtests.opening import Opened, store_of
from mechtests.reporting.explanation import Against, Explanation, Nearby, deciding
from mechtests.results import Results
from mechtests.settings import Settings
from mechtests.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from mechtests.store import Store

PROFILES = ("quick", "standard", "full")


@dataclass(frozen=True, eq=False)
class Judgement:
    """A verdict, with what its test read.

    Attributes:
        case: What was judged.
        verdict: What was found.
        results: What was measured.
        read: The claim's measurements in the cell itself, watched, by name; none over several.
    """

    case: Case
    verdict: Verdict
    results: Results
    read: dict[str, Measurement]


def explain(  # noqa: PLR0913  (which verdict, and the settings it is known by)
    claim: str,
    model: Any,
    tokenizer: Any = None,
    *,
    checkpoint: str | None = None,
    task: str | None = None,
    baseline: Any = None,
    profile: str = "quick",
    seed: int = 0,
    store: Store | str | Path | None = None,
    offline: bool = False,
) -> Explanation:
    """Why a claim has the verdict it has on a model; what is not measured yet is.

    Args:
        claim: The claim's id.
        model: A name as for ``--model``, or a model object of transformers.
        tokenizer: Of model objects.
        checkpoint: One of the model's; its last unless said.
        task: Which task, of a claim over several.
        baseline: Another model that it is held against head by head: an object, a name, or one
            checkpoint of a name as a cell is called: ``"sprout-1m:step1099"``.
        profile: ``quick``, ``standard`` or ``full``.
        seed: The root of every random draw.
        store: Where measurements are; the user's cache unless said, of an object memory.
        offline: Whether the network may not be asked.

    Raises:
        UsageError: There is no such claim, model or checkpoint, or not one of them.
    """
    found, test = direct.one_claim(claim, task)
    given = list(model) if isinstance(model, list | tuple) else [model]
    models = direct.models_of(given, tokenizer, checkpoint, offline=offline)
    kept = store_of(models, store)
    settings = Settings(profile=profile, seed=seed, **direct.precision(models))
    case = direct.one_case(found, models)
    judged = judge_watched(case, test, settings, kept, offline=offline)
    opened = Opened(case.cell, settings, kept, offline=offline)
    held: Against | None = None
    if baseline is not None:
        name, at = _at_checkpoint(baseline)
        other = direct.models_of([name], tokenizer, at, offline=offline)
        second = Opened(direct.one_case(found, other).cell, settings, kept, offline=offline)
        held = _against(judged, opened, second, test, offline)
    return _explained(judged, opened, test, held)


def _at_checkpoint(baseline: Any) -> tuple[Any, str | None]:
    """A model and one of its checkpoints, from a cell's id; of all else the model alone."""
    if not isinstance(baseline, str) or baseline.startswith(recording.PREFIX):
        return baseline, None
    name, _, at = baseline.rpartition(":")
    return (name, at) if name else (baseline, None)


def judge_watched(
    case: Case, test: direct.Test, settings: Settings, store: Store, *, offline: bool = False
) -> Judgement:
    """Judge a claim, measuring what is missing, and keep what its test reads."""
    made = plan.build([case], settings, store, offline=offline)
    with direct.calm():
        results = engine.run(made, store, offline=offline)
    return watch(case, test, results)


def watch(case: Case, test: direct.Test, results: Results) -> Judgement:
    """Judge a claim on what is measured, and keep what its test reads."""
    read: dict[str, Measurement] = {}

    def seen(ready: Measured | MeasuredModels) -> Measured | MeasuredModels:
        watched = ready.watched()
        if isinstance(watched, Measured):
            mine = {name for name, need in case.claim.needs.items() if need.cell == "here"}
            read.update(
                (name, each)
                for name, each in watched.everything().items()
                if name in mine and isinstance(each, Measurement)
            )
        return watched

    verdict = judging.verdict_of(case, results, test, seen=seen)
    return Judgement(case, verdict, results, read)


def _explained(
    judged: Judgement, opened: Opened, test: direct.Test, held: Against | None
) -> Explanation:
    case, verdict, notes = judged.case, judged.verdict, []
    part = deciding(verdict)
    sample = part.sample
    one = not case.series
    contrast = contributions.contrast(part, sample, judged.read) if one else None
    if contrast is not None and sample is not None:
        try:
            prompts = contributions.prompts_of(sample, judged.read, case, opened)
            if prompts is not None:
                contrast = contributions.told(contrast, prompts, opened.tokenizer)
        except MechtestsError as error:
            notes.append(f"the prompts have no text here: {error}")
    if part.estimate is not None and sample is None:
        notes.append("the number that decided is of no value for each prompt, so none is listed")
    nearby = _nearby(judged, test, opened.store) if one else None
    return Explanation(
        claim=replace(case.claim, needs={}, gate=None),
        cell=case.id,
        verdict=verdict,
        deciding=part,
        gate=_gate(judged),
        contrast=contrast,
        heads=contributions.heads(sample, judged.read) if one else (),
        against=held,
        nearby=nearby,
        advice=tuple(_advice(judged, part, None if held else nearby)),
        notes=tuple(notes),
    )


def _gate(judged: Judgement) -> str | None:
    """What the gate says, on its own evaluation half."""
    gate = judged.case.claim.gate
    if gate is None:
        return None
    try:
        found = judged.results.measurement(gate.need, judged.case.cell)
    except MechtestsError as error:
        return f"not measured: {error}"
    said = gate.judged(found)
    return f"{said.state}: {said.sentence}"


def _against(
    judged: Judgement, opened: Opened, other: Opened, test: direct.Test, offline: bool
) -> Against:
    """The same claim in a baseline: its verdict, and what differs head by head."""
    case = Case(judged.case.claim, other.cell)
    theirs = judge_watched(case, test, other.settings, other.store, offline=offline)
    mine, before = (
        each.read or _behind_the_gate(each, store, offline)
        for each, store in ((judged, opened.store), (theirs, other.store))
    )
    changes, same = comparing.changes(mine, before)
    return Against(
        cell=other.cell.id,
        verdict=theirs.verdict,
        changes=changes,
        weights=comparing.weights(opened, other),
        same_prompts=same,
    )


def _behind_the_gate(judged: Judgement, store: Store, offline: bool) -> dict[str, Measurement]:
    """What a claim would read where its gate is shut: measured to be compared, not to be judged."""
    case = replace(judged.case, claim=replace(judged.case.claim, gate=None))
    made = plan.build([case], judged.results.settings, store, offline=offline)
    with direct.calm():
        results = engine.run(made, store, offline=offline)
    return comparing.measured(results, case)


def _nearby(judged: Judgement, test: direct.Test, store: Store) -> Nearby | None:
    """The claim at the model's other checkpoints, as far as they are measured already."""
    case, source = judged.case, judged.case.cell.source
    try:
        there = source.checkpoints(offline=True)
    except MechtestsError:
        return None
    others = [at for at in there if at != case.cell.checkpoint]
    if not others or source.kind == "recorded":
        return None
    settings, found = judged.results.settings, []
    for at in others:
        other = Case(case.claim, Cell(case.cell.model, at, source))
        made = plan.build([other], settings, store, offline=True)
        if made.cells and not made.missing and not made.errors:
            results = Results(settings, made.identities, store)
            found.append((at, other.cell.id, judging.verdict_of(other, results, test)))
    mine = contributions.place(case.cell.checkpoint or there[-1], there)
    holding = [each for each in found if each[2].outcome is Outcome.HOLDS]
    nearest = min(holding, key=lambda e: abs(contributions.place(e[0], there) - mine), default=None)
    return Nearby(
        judged=tuple((cell, verdict) for _, cell, verdict in found),
        nearest=None if nearest is None else nearest[1:],
        command=(
            f"mechtests run --mech-claims={case.claim.id} --model={case.cell.model} "
            "--checkpoints=all"
        ),
    )


def _advice(judged: Judgement, part: Verdict, nearby: Nearby | None) -> list[str]:
    """What to try, by the outcome; ``nearby`` where there is no baseline yet."""
    case, verdict = judged.case, judged.verdict
    live = isinstance(case.cell.source, LiveSource)
    said = []
    if verdict.outcome is Outcome.INCONCLUSIVE:
        said += _deciders(judged, verdict.needed or part.needed)
        said += [
            f"the control decides ({control.name}): more prompts change nothing while it reaches "
            "the claim, more draws (a larger profile) may"
            for control in verdict.controls
            if control.reached and control.decides
        ]
    if verdict.outcome is not Outcome.HOLDS and nearby is not None and nearby.nearest:
        cell = nearby.nearest[0]
        said.append(f"hold it against the nearest checkpoint that has it: --baseline {cell}")
    elif verdict.outcome in (Outcome.REFUTED, Outcome.INCONCLUSIVE) and judged.read:
        of = "baseline=..." if live else "--baseline NAME"
        said.append(f"hold it against a model that has it, head by head: {of}")
    if verdict.outcome is Outcome.NOT_APPLICABLE:
        said.append(
            "the model cannot be asked: another checkpoint or size that does the task, or "
            f"sanity.gates on {case.claim.task or 'the task'} for what is missing"
        )
    if verdict.outcome is Outcome.ERROR:
        said.append("nothing was found about the model: mend the error, and judge again")
    said.append(f"judge it again: {direct.command(case, judged.results.settings)}")
    return said


def _deciders(judged: Judgement, needed: int | None) -> list[str]:
    """Which profile has enough prompts to decide."""
    settings = judged.results.settings
    larger = PROFILES[PROFILES.index(settings.profile) + 1 :]
    sizes = {
        profile: min(
            replace(settings, profile=profile).prompts_of(need.task) // len(HALVES)
            for need in judged.case.needs
            if need.task.name == judged.case.claim.task or judged.case.claim.task is None
        )
        for profile in larger
    }
    if needed is None:
        return []
    for profile, count in sizes.items():
        if count >= needed:
            return [f"--mech-profile {profile}: {count} prompts, about {needed:,} would decide"]
    most = max(sizes.values(), default=0)
    return [
        f"about {needed:,} prompts would decide, more than any profile has"
        + (f" ({most:,} at most)" if most else "")
        + "; give your own with --mech-prompts"
    ]


__all__ = ["Explanation", "Judgement", "explain", "judge_watched", "watch"]
