"""From a verdict to its cause: which prompts, which heads, at which margin, and what to try."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechtests import against, behind, direct, earlier, given, judging, plan
from mechtests.case import Case
from mechtests.earlier import Earlier
from mechtests.errors import MechtestsError
from mechtests.judging import Test
from mechtests.measured import Measured, MeasuredModels
from mechtests.measurement import HALVES, Measurement
from mechtests.models import recording
from mechtests.models.cell import Cell
from mechtests.models.live import LiveSource
from mechtests.opening import Opened, store_of
from mechtests.reporting.explanation import Against, Explanation, Nearby, deciding
from mechtests.reporting.folders import reports
from mechtests.results import Results
from mechtests.selection import Model
from mechtests.settings import DRAWS, Settings
from mechtests.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from mechtests.store import Store

MANY = 2000
"""More prompts than that are not run to compare heads that a claim does not read."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """A verdict, with what its test read.

    Attributes:
        case: What was judged.
        verdict: What was found.
        results: What was measured.
        read: The claim's measurements in the cell itself, watched, by name; none over several.
        models: The models it was judged on, as they were named.
    """

    case: Case
    verdict: Verdict
    results: Results
    read: dict[str, Measurement]
    models: tuple[Model, ...]


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
    prompts: Sequence[str] = (),
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
        baseline: What it is held against head by head. Another model: an object, a name, or one
            checkpoint of a name as a cell is called: ``"sprout-1m:step1099"``. Or what was
            judged before: a run (its id, its folder, ``"latest"``) or a blessed ``FILE.json``,
            by what is still stored of it.
        profile: ``quick``, ``standard`` or ``full``.
        seed: The root of every random draw.
        prompts: Your own prompts, each ``TASK=FILE`` as for ``--mech-prompts``.
        store: Where measurements are; the user's cache unless said, of an object memory.
        offline: Whether the network may not be asked.

    Raises:
        UsageError: There is no such claim, model or checkpoint, or not one of them.
    """
    direct.check_profile(profile)
    found, test = direct.one_claim(claim, task)
    named = list(model) if isinstance(model, list | tuple) else [model]
    models = direct.models_of(named, tokenizer, checkpoint, offline=offline)
    kept = store_of(models, store)
    own = given.settings([given.file(each, offline=offline) for each in prompts])
    settings = Settings(profile=profile, seed=seed, **own, **direct.precision(models))
    case = direct.one_case(found, models)
    before = _earlier(baseline, case, kept)  # refused before anything is measured
    judged = judge_watched(case, test, settings, kept, models, offline=offline)
    opened = Opened(case.cell, settings, kept, offline=offline)
    held: Against | None = None
    if before is not None:
        held = _against_earlier(judged, before, opened, offline)
    elif baseline is not None:
        name, at = _at_checkpoint(baseline)
        others = direct.models_of([name], tokenizer, at, offline=offline)
        theirs = direct.one_case(found, others)
        second = Opened(theirs.cell, settings, kept, offline=offline)
        other = judge_watched(theirs, test, settings, kept, others, offline=offline)
        held = _against(judged, other, opened, second, offline)
    return _explained(judged, opened, test, held, before)


def _earlier(baseline: Any, case: Case, store: Store) -> Earlier | None:
    """The baseline as a verdict that was reached before; None where it is a model."""
    if not isinstance(baseline, str | Path):
        return None
    return earlier.find(str(baseline), case, store, reports(Path.cwd()))


def _at_checkpoint(baseline: Any) -> tuple[Any, str | None]:
    """A model and one of its checkpoints, from a cell's id; of all else the model alone."""
    if not isinstance(baseline, str) or baseline.startswith(recording.PREFIX):
        return baseline, None
    name, _, at = baseline.rpartition(":")
    return (name, at) if name else (baseline, None)


def judge_watched(
    case: Case,
    test: Test,
    settings: Settings,
    store: Store,
    models: Sequence[Model],
    *,
    offline: bool = False,
) -> Judgement:
    """Judge a claim, measuring what is missing, and keep what its test reads."""
    results = direct.measure([case], settings, store, offline=offline)
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
    return Judgement(case, verdict, results, read, tuple(models))


def _explained(
    judged: Judgement,
    opened: Opened,
    test: Test,
    held: Against | None,
    before: Earlier | None,
) -> Explanation:
    case, verdict, notes = judged.case, judged.verdict, []
    if before is not None and before.missing:
        notes.append(f"nothing is compared head by head: {before.missing}")
    part = deciding(verdict)
    sample = part.sample
    one = not case.series
    contrast = behind.contrast(part, sample, judged.read) if one else None
    if contrast is not None and sample is not None:
        try:
            prompts = behind.prompts_of(sample, judged.read, case, opened)
            if prompts is not None:
                contrast = behind.told(contrast, prompts, opened.tokenizer)
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
        heads=behind.heads(sample, judged.read) if one else (),
        against=held,
        nearby=nearby,
        advice=tuple(_advice(judged, part, nearby, held)),
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
    judged: Judgement, theirs: Judgement, opened: Opened, other: Opened, offline: bool
) -> Against:
    """The same claim in a baseline: its verdict, and what differs head by head."""
    both = ((judged, opened), (theirs, other))
    mine, before = (each.read or _behind_the_gate(each, at.store, offline) for each, at in both)
    if not (against.by_head(mine) or judged.case.series):
        mine, before = (_direct_effects(each, at) for each, at in both)
    changes, same = against.changes(mine, before)
    return Against(
        cell=theirs.case.id,
        verdict=theirs.verdict,
        changes=changes,
        weights=against.weights(opened, other),
        same_prompts=same,
    )


def _direct_effects(judged: Judgement, opened: Opened) -> dict[str, Measurement]:
    """What each head tells the logits on the claim's task, for a claim that reads no head.

    Nothing where the task has no answers, or so many prompts that it would take long.
    """
    from mechtests import tasks
    from mechtests.metrics.effects import direct_effects

    name = judged.case.claim.task
    if name is None or opened.settings.prompts_of(tasks.find(name)) > MANY:
        return {}
    try:
        return {"effects": opened.measurement(direct_effects, name)}
    except MechtestsError:
        return {}


def _against_earlier(judged: Judgement, before: Earlier, opened: Opened, offline: bool) -> Against:
    """The same claim in a run or a baseline: its verdict, and what of its heads is stored."""
    mine = judged.read
    if before.read and not mine:
        mine = _behind_the_gate(judged, opened.store, offline)
    changes, same = against.changes(mine, before.read)
    return Against(
        cell=before.cell,
        verdict=before.verdict,
        changes=changes,
        weights=None,
        same_prompts=same,
    )


def _behind_the_gate(judged: Judgement, store: Store, offline: bool) -> dict[str, Measurement]:
    """What a claim would read where its gate is shut: measured to be compared, not to be judged."""
    case = replace(judged.case, claim=replace(judged.case.claim, gate=None))
    results = direct.measure([case], judged.results.settings, store, offline=offline)
    return against.measured(results, case)


def _nearby(judged: Judgement, test: Test, store: Store) -> Nearby | None:
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
    mine = behind.place(case.cell.checkpoint or there[-1], there)
    holding = [each for each in found if each[2].outcome is Outcome.HOLDS]
    nearest = min(holding, key=lambda e: abs(behind.place(e[0], there) - mine), default=None)
    return Nearby(
        judged=tuple((cell, verdict) for _, cell, verdict in found),
        nearest=None if nearest is None else nearest[1:],
        command=(
            f"mechtests run --mech-claims={case.claim.id} --model={judged.models[0].asked} "
            "--checkpoints=all"
        ),
    )


def _advice(
    judged: Judgement, part: Verdict, nearby: Nearby | None, held: Against | None
) -> list[str]:
    """What to try, by the outcome; a baseline where it is not held against one yet."""
    case, verdict = judged.case, judged.verdict
    said = []
    if verdict.outcome is Outcome.INCONCLUSIVE:
        said += _deciders(judged, verdict.needed or part.needed)
        said += [
            f"the control decides ({control.name}): more prompts change nothing while it reaches "
            "the claim, more draws (a larger profile) may"
            for control in verdict.controls
            if control.reached and control.decides
        ]
    if held is None:
        said += _baselines(judged, nearby)
    if verdict.outcome is Outcome.NOT_APPLICABLE:
        said.append(
            "the model cannot be asked: another checkpoint or size that does the task, or "
            f"sanity.gates on {case.claim.task or 'the task'} for what is missing"
        )
    if verdict.outcome is Outcome.ERROR:
        said.append("nothing was found about the model: mend the error, and judge again")
    said.append(f"judge it again: {direct.command(case, judged.results.settings, judged.models)}")
    return said


def _baselines(judged: Judgement, nearby: Nearby | None) -> list[str]:
    """What it may be held against, where it does not hold."""
    outcome = judged.verdict.outcome
    if outcome is not Outcome.HOLDS and nearby is not None and nearby.nearest:
        cell = nearby.nearest[0]
        return [f"hold it against the nearest checkpoint that has it: --baseline {cell}"]
    if outcome in (Outcome.REFUTED, Outcome.INCONCLUSIVE) and judged.read:
        live = isinstance(judged.case.cell.source, LiveSource)
        of = "baseline=..." if live else "--baseline NAME"
        return [f"hold it against a model that has it, head by head: {of}"]
    return []


def _deciders(judged: Judgement, needed: int | None) -> list[str]:
    """Which profile has enough prompts to decide."""
    if needed is None:
        return []
    settings, profiles = judged.results.settings, list(DRAWS)
    larger = profiles[profiles.index(settings.profile) + 1 :]
    sizes = {
        profile: min(
            (
                replace(settings, profile=profile).prompts_of(need.task) // len(HALVES)
                for need in judged.case.needs
                if need.task.name == judged.case.claim.task or judged.case.claim.task is None
            ),
            default=0,
        )
        for profile in larger
    }
    for profile, count in sizes.items():
        if count >= needed:
            return [f"--mech-profile {profile}: {count} prompts, about {needed:,} would decide"]
    most = max(sizes.values(), default=0)
    return [
        f"about {needed:,} prompts would decide, more than any profile has"
        + (f" ({most:,} at most)" if most else "")
        + "; give your own with --mech-prompts"
    ]
