"""Between pytest's reports and the project's records: verdicts in, journal and summary out."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mechtests import judging
from mechtests.case import Case, located, trained
from mechtests.errors import MechtestsError
from mechtests.reporting import records, terminal, wording
from mechtests.reporting.page import encodes
from mechtests.reporting.record import Record, RecordedCell, RecordedCheckpoint
from mechtests.session import CASE, ENDED, PASSED, SESSION, VERDICT, Session
from mechtests.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

Json = Any
REPORT = "_mechtests"

FACTS = ("prompts", "batch", "notes", "bos", "recorded")
"""What a record says of each measurement."""
COLOURS = {"passed": "green", "failed": "red", "error": "red", "skipped": "yellow"}


def attach(item: pytest.Item, report: pytest.TestReport) -> None:
    """Put the record of a test on the report of the phase that decided it.

    That is the call; the set-up where the gate or an error ended the test there; the
    tear-down where the test forgot to judge.
    """
    case = item.stash.get(CASE, None)
    if case is None or (report.when == "setup" and report.passed):
        return
    if report.when == "call" and report.passed:
        item.stash[PASSED] = True
    verdict = item.stash.get(VERDICT, None)
    if report.when == "teardown" and (not report.failed or verdict is not None):
        return
    raised = report.failed and ENDED not in item.stash  # after a judgement that let it go on
    if verdict is None or raised:
        if report.passed:
            return
        verdict = Verdict(Outcome.ERROR, _sentence(report))
    session = item.config.stash[SESSION]
    record = _record(session, item, case, verdict, report)
    setattr(report, REPORT, json.dumps(record.to_json(), allow_nan=False))


def _sentence(report: pytest.TestReport) -> str:
    """The last line of what went wrong, or all of a sentence of ours."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message if crash is not None else report.longreprtext)
    return text.removeprefix("mechtests.errors.").strip()


def _record(
    session: Session, item: pytest.Item, case: Case, verdict: Verdict, report: pytest.TestReport
) -> Record:
    results = session.judged_from()
    weights, facts = _facts(case, session)
    one = not case.series
    checkpoint = case.cell.checkpoint if one else None
    return Record.from_verdict(
        verdict,
        claim=case.claim,
        run="",
        cell=RecordedCell(
            id=case.id,
            model=case.cell.model if case.claim.over != "scale" else case.id,
            checkpoint=None
            if checkpoint is None
            else RecordedCheckpoint(checkpoint.label, checkpoint.step, checkpoint.tokens),
            identity=results.identities.get(case.cell.id)
            if one
            else {cell.id: results.identities.get(cell.id) for cell in case.cells},
            weights=weights if one else None,
            dtype=session.settings.dtype,
            device=session.settings.device,
        ),
        measurements={
            name if one else f"{name} in {cell.id}": results.key(need, cell)
            for cell in case.cells
            if cell.id in results.identities
            for name, need in case.named_in(cell).items()
            if trained(located(need, cell)[1]).id in results.identities  # else behind a shut gate
            and (need.final is None or trained(need.final).id in results.identities)
        },
        expectation=judging.expectation(case),
        overridden=bool(case.claim.task and case.claim.task in session.settings.prompts),
        profile=session.settings.profile,
        seed=session.settings.seed,
        nodeid=item.nodeid,
        reproduce=_reproduce(session, item),
        facts=facts,
        seconds=round(report.duration, 3),
    )


def _facts(case: Case, session: Session) -> tuple[str | None, dict[str, Json]]:
    """The digest of the weights measured, and what else the measurements say of themselves.

    Of several cells the last one speaks, and the notes of all.
    """
    results = session.judged_from()
    weights, facts = None, {}
    for name in case.claim.needs:
        notes: dict[str, None] = {}
        for cell in case.cells:
            if (need := case.named_in(cell).get(name)) is None:
                continue
            try:
                found = results.measurement(need, cell).facts
            except MechtestsError:
                continue
            notes.update(dict.fromkeys(found.get("notes", ())))
            if cell == case.cell:
                if located(need, cell)[1] == cell:
                    weights = found.get("weights", weights)
                facts[name] = {k: found[k] for k in FACTS if k in found}
        if name in facts and notes:
            facts[name]["notes"] = list(notes)
    return weights, facts


def _reproduce(session: Session, item: pytest.Item) -> str:
    """The command that reaches this verdict again."""
    option = session.config.option
    case = item.stash[CASE]
    models = ",".join(session.selection.asked_as(model) for model in case.models)
    words = ["pytest", item.nodeid, f"--model={models}"]
    if option.mech_checkpoints:
        one = None if case.series else case.cell.checkpoint
        words += [f"--checkpoints={option.mech_checkpoints if one is None else one.label}"]
    for name, default in (("profile", "quick"), ("seed", 0), ("dtype", "float32")):
        if (value := getattr(session.settings, name)) != default:
            words += [f"--mech-{name}={value}"]
    for task, path in session.settings.prompts.items():
        words += [f"--mech-prompts={task}={path}"]
    return shlex.join(words)


def status(report: Any) -> tuple[str, str, tuple[str, Mapping[str, bool]]]:
    """One of pytest's own categories, with our letter and word."""
    record = Record.from_json(json.loads(getattr(report, REPORT)))
    shown = wording.WORDS[record.outcome]
    if record.expected:
        return "xfailed", "x", ("EXPECTED REFUTED", {"yellow": True})
    if report.failed:
        broken = record.outcome is Outcome.ERROR and report.when != "call"
        category = "error" if broken else "failed"
    else:
        category = "passed" if report.passed else "skipped"
    return category, shown.letter, (shown.word, {COLOURS[category]: True})


class Reporter:
    """Registered by the plugin in the process that reports, once there is a claim."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Append the record to the journal at once, so that a crash loses none."""
        text = getattr(report, REPORT, None)
        journal = self._session.journal
        if text is None or journal is None:
            return
        tree = json.loads(text)
        journal.append(Record.from_json({**tree, "run": journal.id}))

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Close the journal and write the reports that were asked for."""
        journal = self._session.journal
        if journal is None:
            return
        done = exitstatus not in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR)
        journal.finish(complete=done)
        self._session.records = records.correct(journal.records)
        for path in self._session.config.option.mech_report or []:
            write_report(Path(path), self._session.records)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """The claims by cells, what did not hold and why, and where the records are."""
        session = self._session
        for note in dict.fromkeys(session.notes):
            terminalreporter.write_line(f"note: {note}", yellow=True)
        if not session.records or session.journal is None:
            return
        writer = terminalreporter._tw
        text = terminal.render(
            session.records,
            width=writer.fullwidth,
            color=bool(writer.hasmarkup),
            ascii=not encodes(writer._file, "│─┼≥×"),
            verbosity=session.config.option.verbose,
            path=session.journal.records_path,
        )
        writer.line()
        writer.write(text if text.endswith("\n") else text + "\n")
        if session.config.option.verbose > -2 and (more := session.more_prompts()):
            terminalreporter.write_line(more)


def write_report(path: Path, found: Sequence[Record]) -> None:
    """Write the corrected records where ``--mech-report`` says."""
    trees = [record.to_json() for record in found]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(trees, indent=1, allow_nan=False) + "\n", "utf-8")
    else:
        lines = [json.dumps(tree, allow_nan=False) for tree in trees]
        path.write_text("".join(line + "\n" for line in lines), "utf-8")
