"""A pytest run with claims: its cells, its plan, its results, its records."""

from __future__ import annotations

import difflib
import fnmatch
import json
import shlex
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, cast

import pytest

from mechtests import engine, given, judging, options, plan, shards
from mechtests.case import Case
from mechtests.claim import Claim, Declaration
from mechtests.errors import MechtestsError, UsageError
from mechtests.expecting import Expected
from mechtests.measured import Measured, MeasuredModels
from mechtests.measurement import HALVES
from mechtests.plan import Plan
from mechtests.reporting import explanation, records
from mechtests.reporting.record import Record
from mechtests.results import Results
from mechtests.selection import Selection
from mechtests.settings import Settings
from mechtests.store import Store, StoreWarning, default_folder
from mechtests.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from mechtests.opening import Opened

Json = Any
CASE = pytest.StashKey[Case]()
VERDICT = pytest.StashKey[Verdict]()
PASSED = pytest.StashKey[bool]()
ENDED = pytest.StashKey[bool]()
SESSION = pytest.StashKey["Session"]()


class Session:
    """The state of a run that has at least one claim.

    Args:
        config: pytest's configuration, with the options of the plugin.
    """

    def __init__(self, config: pytest.Config) -> None:
        option = config.option
        self.config = config
        self.offline: bool = option.mech_offline or option.mech_replay is not None
        self.notes: list[str] = []
        self.replayed = self._replayed()
        self.settings = self._settings()
        self.store = self._store()
        self.results: Results | None = None
        self.plan: Plan | None = None
        self.journal: records.Journal | None = None
        self.records: list[Record] = []
        self.cases_judged: list[Case] = []
        self.shard: dict[str, Json] | None = None
        self.rate = 0.0
        told = self.worker
        file = option.mech_baseline if told is None else told["baseline"]
        self.expected = Expected(
            None if file is None else Path(file), named=bool(options.named_files(config))
        )
        self.selection = Selection(
            option.mech_model or (),
            option.mech_checkpoints,
            offline=self.offline,
            replayed=None if self.replayed is None else self.replayed["models"],
            told=None if told is None else told["models"],
        )

    @property
    def worker(self) -> Mapping[str, Json] | None:
        """What the controller told this xdist worker, or None in the main process."""
        told = getattr(self.config, "workerinput", None)
        return None if told is None else cast("Mapping[str, Json]", told["mechtests"])

    @property
    def reports(self) -> Path:
        """The folder run records go to."""
        return self.config.rootpath / str(self.config.getini("mech_reports"))

    def _replayed(self) -> Mapping[str, Json] | None:
        """The header of the run that is replayed."""
        name = self.config.option.mech_replay
        if name is None:
            return None
        run = records.find(self.reports, name)
        return records.header(run)

    def _store(self) -> Store:
        url = self.config.option.mech_cache or default_folder()
        try:
            return Store(url)
        except (ImportError, ValueError) as error:  # fsspec lacks what the URL needs
            raise UsageError(f"--mech-cache {url}: cannot be opened ({error})") from error

    def _settings(self) -> Settings:
        option = self.config.option
        if self.replayed is not None:
            return Settings(**self.replayed["settings"])
        files = [given.file(each, offline=self.offline) for each in option.mech_prompts or []]
        return Settings(
            profile=option.mech_profile,
            seed=option.mech_seed,
            dtype=option.mech_dtype,
            device=option.mech_device,
            **given.settings(files),
        )

    def cases(self, declaration: Declaration) -> list[Case]:
        """The tests a declared claim becomes: its tasks, each in every cell, series or family."""
        return [
            Case(claim, subject.cells[-1], subject.cells if subject.id else (), subject.id)
            for claim in declaration.claims
            for subject in self.selection.subjects(claim.over)
        ]

    def selected(self, claim: Claim) -> bool:
        """Whether ``--mech-claims`` selects a claim."""
        globs = self.config.option.mech_claims
        return not globs or any(fnmatch.fnmatchcase(claim.id, glob) for glob in globs)

    def unmatched(self, claims: Iterable[str]) -> Iterator[str]:
        """What to say of each ``--mech-claims`` that selects none of some claims."""
        ids = sorted(set(claims))
        for glob in self.config.option.mech_claims or []:
            if not fnmatch.filter(ids, glob):
                near = difflib.get_close_matches(glob, ids, n=3)
                hint = f"; did you mean {' or '.join(near)}?" if near else ""
                yield f"--mech-claims {glob}: no collected claim has such an id{hint}"

    def make_plan(self, items: Sequence[pytest.Item]) -> Plan:
        """The plan of the collected tests; asks the network for commits unless offline.

        Raises:
            UsageError: ``--mech-prompts`` is for a task that no test is about.
        """
        cases = cases_of(items)
        tasks = {need.task.name for case in cases for need in case.needs}
        if unread := sorted(set(self.settings.prompts) - tasks):
            raise UsageError(
                f"--mech-prompts: no collected claim reads prompts of {', '.join(unread)}; "
                f"they read those of {', '.join(sorted(tasks))}"
            )
        self.plan = plan.build(
            cases,
            self.settings,
            self.store,
            offline=self.offline,
            refresh=self.config.option.mech_refresh,
            identities=None if self.replayed is None else self.replayed["identities"],
        )
        return self.plan

    def measure(self, items: Sequence[pytest.Item], meter_for: Any) -> None:
        """Make what is missing, unless this is a replay, and open the journal."""
        self.cases_judged = cases_of(items)
        self.expected.check(self.cases_judged)
        self.journal = records.Journal(
            self.reports,
            {
                "argv": [str(arg) for arg in self.config.invocation_params.args],
                "settings": asdict(self.settings),
                "store": self.store.url,
                "replays": None if self.replayed is None else self.replayed["run"],
                "models": self.selection.told(),
                "cases": len(self.cases_judged),
                "selection": options.selection(self.config),
                "narrowed": options.narrowed(self.config),
                "shard": self.shard,
                "baseline": self.config.option.mech_baseline,
            },
            warn=self.notes.append,
        )
        if self.replayed is not None:
            self.results = Results(self.settings, self.replayed["identities"], self.store)
        else:
            started = time.monotonic()
            with self._telling():
                made = self.make_plan(items)
                with meter_for(made) as meter:
                    self.results = engine.run(
                        made,
                        self.store,
                        offline=self.offline,
                        meter=meter,
                        keep_weights=self.config.option.mech_keep_weights,
                    )
            self.notes += self.results.notes
            self.rate = meter.done / max(time.monotonic() - started, 1e-3)
        self.journal.update(
            identities=dict(self.results.identities), loads=dict(self.results.loads)
        )

    def split(self, items: Sequence[pytest.Item]) -> list[pytest.Item]:
        """The tests of claims that belong to other shards of this run."""
        index, count = shards.parse(self.config.option.mech_shard)
        mine = [item for item in items if CASE in item.stash]
        parts = shards.split([item.stash[CASE] for item in mine], count, self.settings)
        of_item = list(zip(mine, parts, strict=True))
        order = {item.nodeid: at for at, (item, part) in enumerate(of_item) if part == index}
        self.shard = {"index": index, "of": count, "order": order}
        return [item for item, part in of_item if part != index]

    def more_prompts(self) -> str:
        """What the standard profile would decide of what this one leaves open, and its cost."""
        open_ = [r for r in self.records if r.outcome is Outcome.INCONCLUSIVE]
        if not open_ or self.plan is None or self.settings.profile != "quick":
            return ""
        standard = replace(self.settings, profile="standard")
        enough = {
            need.task.name: standard.prompts_of(need.task) // len(HALVES)
            for case in self.plan.cases
            for need in case.needs
        }
        decided = sum(
            0 < (r.verdict.needed or 0) <= enough.get(r.claim.task or "", 0) for r in open_
        )
        names = {(r.claim.id, r.cell.id) for r in open_}
        cases = [c for c in self.plan.cases if (c.claim.id, c.id) in names]
        more = plan.build(
            cases, standard, self.store, offline=True, identities=self.plan.identities
        )
        flops = sum(cell.flops for cell in more.cells)
        if not flops:  # what is recorded takes no more prompts
            return ""
        time_ = f", about {max(1, round(flops / self.rate / 60))} min" if self.rate else ""
        return (
            f"--mech-profile standard would decide about {decided} of {len(open_)} inconclusive "
            f"verdicts, for at most {flops / 1e12:.1f} TFLOP{time_}"
        )

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Turn warnings of the store into notes of the run, each said once."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", StoreWarning)
            try:
                yield
            finally:
                self.notes += dict.fromkeys(str(warning.message) for warning in caught)

    def tell_worker(self) -> dict[str, Json]:
        """What an xdist worker must know before it collects; the rest is in the file named."""
        file = self.config.option.mech_baseline
        return {
            "models": self.selection.told(),
            "state": str(self.state),
            "baseline": None if file is None else str(Path(file).resolve()),
        }

    @cached_property
    def state(self) -> Path:
        """The file workers find the results in; its folder is the system's to clear."""
        return Path(mkdtemp(prefix="mechtests-")) / "results.json"

    def share_results(self) -> None:
        """Leave for the workers where the measurements are and what went wrong."""
        assert self.results is not None
        stores = [self.store.url]
        if self.store.unwritten:
            stores.append(str(self.state.parent / "store"))
            self.store.copy_unwritten(Store(stores[-1]))
        state = {
            "stores": stores,
            "settings": asdict(self.settings),
            "identities": dict(self.results.identities),
            "errors": self.results.errors,
            "cell_errors": self.results.cell_errors,
        }
        self.state.write_text(json.dumps(state))

    def judged_from(self) -> Results:
        """The results this process judges from; a worker reads them when its first test runs."""
        if self.results is None:
            told = self.worker
            if told is None:
                raise MechtestsError("nothing was measured before the first test of a claim ran")
            state = json.loads(Path(told["state"]).read_text())
            store = Store(*state.pop("stores"))
            state["settings"] = Settings(**state["settings"])
            self.results = Results(store=store, **state)
        return self.results


class Judge:
    """Takes the verdict of one test, records it, and ends the test as pytest understands it."""

    def __init__(self, case: Case, request: pytest.FixtureRequest) -> None:
        self.case = case
        self._node = request.node
        self._session = request.config.stash[SESSION]
        self._fail_on = options.fail_on(request.config.option)
        self._dropped: dict[str, str] = {}

    def measured(self) -> Measured | MeasuredModels:
        """The claim's measurements; ends the test where the gate or the tokenizer decides."""
        __tracebackhide__ = True
        try:
            ready = judging.prepare(self.case, self._session.judged_from())
        except MechtestsError as error:  # a sentence says it all, without a traceback
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        if isinstance(ready, Verdict):
            self(ready)
        else:
            self._dropped = dict(ready.dropped)
        return cast("Measured | MeasuredModels", ready)

    def __call__(self, verdict: Verdict) -> None:
        """Record a verdict and end the test: passed, skipped, failed or xfailed."""
        __tracebackhide__ = True
        verdict = judging.with_left_out(verdict, self._dropped)
        self._node.stash[VERDICT] = verdict
        expected = self._session.expected.of(self.case)
        changed = expected.changed(verdict.outcome) and "changed" in self._fail_on
        if verdict.outcome is Outcome.HOLDS and not changed:
            return
        self._node.stash[ENDED] = True
        if expected.excuses(verdict.outcome):
            pytest.xfail(f"expected: {expected.reason}: {verdict.sentence}")
        if changed:
            what = expected.blessed or "a refutation"
            said = self._said(verdict, against=self._session.config.option.mech_baseline)
            pytest.fail(f"changed: {what} was expected ({expected.reason}), {said}", pytrace=False)
        if verdict.outcome.value in self._fail_on:
            pytest.fail(self._said(verdict), pytrace=False)
        pytest.skip(str(verdict))

    def _said(self, verdict: Verdict, *, against: str | None = None) -> str:
        """What a failing test says: the short form of its explanation.

        Args:
            verdict: What was found.
            against: The baseline that expects another verdict.
        """
        asked = self._session.selection.asked_as
        models = ",".join(asked(model) for model in self.case.models)
        words = ["mechtests", "explain", self.case.claim.id, f"--model={models}"]
        at = None if self.case.series else self.case.cell.checkpoint
        words += [] if at is None else [f"--checkpoint={at.label}"]
        words += [f"--task={self.case.claim.task}"] if self.case.claim.task else []
        settings, option = self._session.settings, self._session.config.option
        words += [f"--profile={settings.profile}"] if settings.profile != "quick" else []
        words += [f"--seed={settings.seed}"] if settings.seed else []
        words += [f"--prompts={task}={path}" for task, path in settings.prompts.items()]
        words += [f"--cache={option.mech_cache}"] if option.mech_cache else []
        words += [f"--baseline={against}"] if against else []
        return explanation.short(self.case.claim, verdict, shlex.join(words))

    @cached_property
    def opened(self) -> Opened:
        """The test's cell, to look into: its network, prompts and activations (``opening``)."""
        from mechtests.opening import Opened

        results = self._session.judged_from()
        offline = self._session.offline
        return Opened(self.case.cell, results.settings, results.store, offline=offline)

    def finish(self) -> None:
        """Refuse a test that ended without a verdict.

        Raises:
            UsageError: The test passed and never called judge.
        """
        if PASSED in self._node.stash and VERDICT not in self._node.stash:
            raise UsageError(
                f"claim {self.case.claim.id!r}: its test ended without a verdict; "
                "call judge(...) with one"
            )


def cases_of(items: Sequence[pytest.Item]) -> list[Case]:
    """The cases of the tests that judge claims."""
    return [item.stash[CASE] for item in items if CASE in item.stash]
