"""The pytest plugin: options and hooks.

Light and silent where there are no claims: it imports pytest and the standard library, and
everything else when the first claim is collected.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from mechtests import options, shipped

if TYPE_CHECKING:
    from mechtests.session import Session

REPORT = "_mechtests"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the options; the short ones come later."""
    options.add(parser)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser, args: list[str]) -> Iterator[None]:
    """Add the short options once every conftest has added its own."""
    options.refuse_split_path(args)
    yield
    options.add_aliases(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Register the fixtures, and refuse an unknown model before anything is collected."""
    for module in shipped.modules("fixtures"):
        config.pluginmanager.register(module, module.__name__)
    config.addinivalue_line("markers", "claim: set by @mechtests.claim; not for use by hand")
    option = config.option
    if option.mech_shard:
        config.pluginmanager.register(Shard(), "mechtests-shard")
    if option.mech_model or option.mech_prompts or option.mech_baseline or option.mech_bless:
        _session(config)


def _session(config: pytest.Config) -> Session:
    """The session of this run, made when it is first asked for."""
    from mechtests.errors import MechtestsError
    from mechtests.session import SESSION, Session

    if SESSION not in config.stash:
        try:
            session = Session(config)
        except MechtestsError as error:
            raise pytest.UsageError(str(error)) from None
        config.stash[SESSION] = session
        if session.worker is None:
            from mechtests.reporter import Reporter

            config.pluginmanager.register(Reporter(session), "mechtests-reporter")
    return config.stash[SESSION]


def _started(config: pytest.Config) -> Session | None:
    """The session, where there is one."""
    if "mechtests.session" not in sys.modules:
        return None
    from mechtests.session import SESSION

    return config.stash.get(SESSION, None)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each task of a claim and each cell."""
    declaration = getattr(metafunc.function, "mechtests_claim", None)
    if declaration is None:
        return
    from mechtests.errors import MechtestsError

    if "mech_case" not in metafunc.fixturenames:
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid}: a claim's test takes the fixtures measured and judge"
        )
    try:
        cases = _session(metafunc.config).cases(declaration)
    except MechtestsError as error:
        raise pytest.UsageError(str(error)) from None
    several = len(declaration.claims) > 1
    ids = [f"{case.claim.task}-{case.id}" if several else case.id for case in cases]
    metafunc.parametrize("mech_case", cases, ids=ids, indirect=True, scope="session")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Make a claim's words its keywords."""
    callspec = getattr(item, "callspec", None)
    case = None if callspec is None else callspec.params.get("mech_case")
    if case is not None:
        from mechtests.session import CASE

        item.stash[CASE] = case
        item.extra_keyword_matches.update(case.claim.keywords)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what ``--mech-claims`` does not select; run the sanity claims first."""
    session = _started(config)
    if session is None:
        return
    from mechtests.session import CASE

    collected = [item.stash[CASE].claim.id for item in items if CASE in item.stash]
    session.notes += session.unmatched(collected)
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        case = item.stash.get(CASE, None)
        chosen = case is None or session.selected(case.claim)
        (kept if chosen else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
    items[:] = sorted(kept, key=lambda item: not _sanity(item, CASE))
    _note_model_words(config, session, items)


class Shard:
    """Registered where there is ``--mech-shard``: after all others have left out what they do."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Leave out the claims of the other shards."""
        session = _started(config)
        if session is None:
            return
        if others := session.split(items):
            config.hook.pytest_deselected(items=others)
            left = set(map(id, others))
            items[:] = [item for item in items if id(item) not in left]


def _sanity(item: pytest.Item, key: Any) -> bool:
    case = item.stash.get(key, None)
    return case is not None and case.claim.paper == "sanity"


def _note_model_words(config: pytest.Config, session: Session, items: list[pytest.Item]) -> None:
    """Say where a word of ``-k`` selects by a model's name what it did not mean."""
    words = re.findall(r"[\w:+\-./]+", config.option.keyword or "")
    from mechtests.session import cases_of

    models = {case.id for case in cases_of(items)}
    for word in words:
        if word in ("and", "or", "not"):
            continue
        if hits := [model for model in models if word.lower() in model.lower()]:
            session.notes.append(
                f"-k {word} also matches every test on {', '.join(sorted(hits))}; "
                "--mech-claims selects by claim id alone"
            )


def _distributes(config: pytest.Config) -> bool:
    """Whether this process is the controller of xdist workers."""
    return config.pluginmanager.hasplugin("dsession")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker which cells there are; it never asks the network."""
    node.workerinput["mechtests"] = _session(node.config).tell_worker()


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Under xdist the controller collects too, and measures before the workers judge."""
    if not _distributes(session.config) or session.config.option.collectonly:
        return
    session.perform_collect()
    _measure(session)
    mine = _started(session.config)
    if mine is not None and mine.results is not None:
        mine.share_results()
    session.items = []
    session.testscollected = 0


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Print the plan, or measure, before the first test runs."""
    config = session.config
    broken = session.testsfailed and not config.option.continue_on_collection_errors
    if broken or config.option.collectonly or hasattr(config, "workerinput"):
        return None
    if config.option.mech_plan and (mine := _started(config)):
        from mechtests.reporting import plans

        made, keep = mine.make_plan(session.items), config.option.mech_keep_weights
        _write(config, plans.render(made, width=_width(config), keep_weights=keep))
        return True
    if not _distributes(config):
        _measure(session)
    return None


def _measure(session: pytest.Session) -> None:
    """Measure what the collected tests need."""
    from functools import partial

    mine = _started(session.config)
    if mine is None:
        return
    from mechtests.errors import MechtestsError
    from mechtests.reporting import progress
    from mechtests.session import cases_of

    if not cases_of(session.items):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        try:
            mine.measure(session.items, partial(progress.meter, stream=sys.stderr))
        except MechtestsError as error:
            raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Any:
    """Make it the verdict where what a claim reads is not there, or is too little."""
    __tracebackhide__ = True
    try:
        return (yield)
    except Exception as error:
        if _started(pyfuncitem.config) is not None:
            from mechtests import judging
            from mechtests.errors import NotApplicable, Undecidable
            from mechtests.session import CASE

            if CASE in pyfuncitem.stash and isinstance(error, NotApplicable | Undecidable):
                judge: Any = pyfuncitem.funcargs["judge"]
                judge(judging.unanswered(error))
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Put the verdict on the report, as JSON: so it crosses xdist and a crash loses nothing."""
    report = yield
    if _started(item.config) is not None:
        from mechtests.reporter import attach

        attach(item, report)
    return report


def pytest_report_teststatus(
    report: pytest.TestReport | pytest.CollectReport,
) -> tuple[str, str, Any] | None:
    """Our own word and letter, in pytest's own category: failures stay visible as such."""
    if not hasattr(report, REPORT):
        return None
    from mechtests.reporter import status

    return status(report)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say how to run the shipped claims where a model was named and no claim was found."""
    session = _started(config)
    if session is None or not config.option.mech_model or terminalreporter.stats:
        return
    if not terminalreporter._session.testscollected and not session.records:
        terminalreporter.write_line(
            "no claim was collected here; the claims that come with mechtests run with: "
            "pytest --pyargs mechtests.suite.assertions --model "
            + ",".join(config.option.mech_model)
        )


def _write(config: pytest.Config, text: str) -> None:
    reporter = config.pluginmanager.getplugin("terminalreporter")
    for line in text.splitlines():
        reporter.write_line(line)


def _width(config: pytest.Config) -> int:
    return int(config.get_terminal_writer().fullwidth)
