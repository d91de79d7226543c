"""Between pytest's reports and the project's records: verdicts in, journal and summary out."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mechtests import filing, shipped
from mechtests.errors import MechtestsError
from mechtests.expecting import place_of
from mechtests.options import fail_on
from mechtests.reporting import (
    blessing,
    history,
    junit,
    outputs,
    records,
    samples,
    terminal,
    wording,
)
from mechtests.reporting.page import encodes
from mechtests.reporting.record import Record
from mechtests.session import CASE, ENDED, PASSED, SESSION, VERDICT, Session
from mechtests.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

Json = Any
REPORT = "_mechtests"
SAMPLES = "_mechtests_samples"

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
    record = filing.record(
        case,
        verdict,
        session.judged_from(),
        nodeid=item.nodeid,
        reproduce=_reproduce(session, item),
        seconds=report.duration,
        expected=session.expected.of(case),
    )
    setattr(report, REPORT, json.dumps(record.to_json(), allow_nan=False))
    setattr(report, SAMPLES, json.dumps(samples.kept(verdict), allow_nan=False))
    item.user_properties += junit.properties(record)  # pytest reads them at the tear-down
    if report.when == "teardown":
        report.user_properties += junit.properties(record)


def _sentence(report: pytest.TestReport) -> str:
    """The last line of what went wrong, or all of a sentence of ours."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message if crash is not None else report.longreprtext)
    return text.removeprefix("mechtests.errors.").strip()


def _reproduce(session: Session, item: pytest.Item) -> str:
    """The command that reaches this verdict again."""
    option = session.config.option
    case = item.stash[CASE]
    models = ",".join(session.selection.asked_as(model) for model in case.models)
    words = ["pytest", *named_test(item), f"--model={models}"]
    if option.mech_checkpoints:
        one = None if case.series else case.cell.checkpoint
        words += [f"--checkpoints={option.mech_checkpoints if one is None else one.label}"]
    for name, default in (("profile", "quick"), ("seed", 0), ("dtype", "float32")):
        if (value := getattr(session.settings, name)) != default:
            words += [f"--mech-{name}={value}"]
    for task, path in session.settings.prompts.items():
        words += [f"--mech-prompts={task}={path}"]
    return shlex.join(words)


def named_test(item: pytest.Item) -> list[str]:
    """How pytest finds a test again from where it was run: by its file, or by its module.

    The file of a claim of the installed wheel is in no folder of the user's.
    """
    _, _, test = item.nodeid.partition("::")
    package, *flags = reversed(shipped.as_arguments())
    if flags and item.path.parent.resolve() == shipped.folder("assertions").resolve():
        return [*flags, f"{package}.{item.path.stem}::{test}"]
    file = Path(os.path.relpath(item.path, item.config.invocation_params.dir))
    return [f"{file.as_posix()}::{test}"]


def status(report: Any) -> tuple[str, str, tuple[str, Mapping[str, bool]]]:
    """One of pytest's own categories, with our letter and word."""
    record = Record.from_json(json.loads(getattr(report, REPORT)))
    shown = wording.WORDS[record.outcome]
    if record.expected:
        return "xfailed", "x", (f"EXPECTED {shown.word}", {"yellow": True})
    if record.changed and report.failed:
        return "failed", shown.letter, (f"CHANGED TO {shown.word}", {"red": True})
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
        self._said: list[str] = []

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Remember which claims were left out, so that no baseline misses them."""
        left_out = (place_of(item.stash[CASE]) for item in items if CASE in item.stash)
        self._session.expected.left_out.update(left_out)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Append the record to the journal at once, so that a crash loses none."""
        text = getattr(report, REPORT, None)
        journal = self._session.journal
        if text is None or journal is None:
            return
        tree = json.loads(text)
        found = json.loads(getattr(report, SAMPLES, "[]"))
        journal.append(Record.from_json({**tree, "run": journal.id}), found)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Close the journal and write the reports that were asked for."""
        journal = self._session.journal
        if journal is None:
            self._refuse_nothing(session)
            return
        done = exitstatus not in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR)
        every = len(journal.records) >= len(self._session.cases_judged)
        journal.finish(complete=done and every)
        self._session.records = records.correct(journal.records)
        self._write_reports(journal)
        self._hold(session)
        self._bless(session, journal.header)

    def _write_reports(self, journal: records.Journal) -> None:
        """Write what ``--mech-report`` asks for, with what was said before this run."""
        mine = self._session
        if not (asked := mine.config.option.mech_report):
            return
        told = any(path.endswith(outputs.WITH_A_PAST) for path in asked)
        past = history.own(journal.header, mine.records, mine.reports) if told else {}
        for path in asked:
            try:
                outputs.write(
                    Path(path),
                    journal.header,
                    mine.records,
                    store=mine.store,
                    history=past,
                    kept=journal.samples,
                )
            except MechtestsError as error:  # the verdicts stand, and pytest still says them
                mine.notes.append(str(error))

    def _refuse_nothing(self, session: pytest.Session) -> None:
        """Nothing was judged: say so where that was to be blessed."""
        option = self._session.config.option
        if option.mech_bless and not (option.mech_plan or option.collectonly):
            why = f"--mech-bless {option.mech_bless}: not blessed, because no claim was judged"
            self._session.notes.append(why)
            session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def _hold(self, session: pytest.Session) -> None:
        """Say what is other than the baseline has it; what is missing may fail the run."""
        mine = self._session
        assert mine.journal is not None
        found = mine.expected.regression(mine.cases_judged, mine.records, mine.journal.header)
        if found is None:
            return
        self._said += found.lines()
        if found.missing and "missing" in fail_on(mine.config.option):
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def _bless(self, session: pytest.Session, header: Mapping[str, Json]) -> None:
        """Make the verdicts a baseline, or say why not and fail the run."""
        option = self._session.config.option
        if option.mech_bless is None:
            return
        try:
            self._said += blessing.bless(
                Path(option.mech_bless),
                self._session.records,
                header,
                inconclusive=option.mech_bless_inconclusive,
            )
        except (MechtestsError, OSError) as error:
            self._said.append(f"--mech-bless {error}")
            session.exitstatus = pytest.ExitCode.USAGE_ERROR

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
        for line in self._said:
            terminalreporter.write_line(line)
        if session.config.option.verbose > -2 and (more := session.more_prompts()):
            terminalreporter.write_line(more)
