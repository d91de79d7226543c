"""Run a plan in this process: each cell is loaded once, and what it gives is stored at once."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mechtests.ahead import Ahead
from mechtests.case import trained
from mechtests.errors import MeasurementError, MechtestsError, NotApplicable
from mechtests.measurement import Measurement
from mechtests.metrics.metric import Need, digest
from mechtests.plan import CellPlan, Plan, Step, in_stages
from mechtests.reporting import records
from mechtests.reporting.progress import Ledger, Meter, Silent
from mechtests.results import Results, needs_wanted
from mechtests.seeds import generator, seed_of
from mechtests.settings import Settings
from mechtests.store import Store
from mechtests.tape import Tape
from mechtests.tasks import csv_prompts
from mechtests.tasks.prompts import Prompts, Task
from mechtests.work import Work, lacking, out_of_memory, sentence, sites_of

if TYPE_CHECKING:
    from mechtests.models.network import Network

Json = Any
BUDGET_SHARE = 0.2  # of the fp32 weights: activations kept for a later stage, or of one batch
Made = dict[tuple[str, str, str], Prompts]
"""Prompts by source, digest of its tokenizer and run: alike at all checkpoints of a series."""
COMPUTES = ("torch", "transformers", "transformer-lens", "numpy")


def run(
    plan: Plan,
    store: Store,
    *,
    offline: bool = False,
    meter: Meter | None = None,
    keep_weights: bool = False,
) -> Results:
    """Make every missing measurement of a plan.

    Nothing a cell or a measurement does wrong ends the run: it is kept for the tests that
    need it. An interruption does, and what was measured by then is in the store. While a
    cell is measured, the next one is downloaded; a series' weights are freed behind it, unless
    they are to be kept.
    """
    results = Results(plan.settings, plan.identities, store)
    results.cell_errors.update({cell: str(error) for cell, error in plan.errors.items()})
    made: Made = {}
    with Ahead(plan, keep=keep_weights, offline=offline) as ahead:
        try:
            for cell_plan in plan.cells:
                _Session(plan, cell_plan, results, offline, meter or Silent(), ahead, made).run()
                ahead.release(cell_plan.cell)
                gc.freeze()  # what outlives a cell, all modules above all, is not looked at again
        finally:
            gc.unfreeze()
    results.notes += ahead.notes
    return results


class _Session:
    """One cell, loaded when the first missing measurement needs it, freed at the end."""

    def __init__(
        self,
        plan: Plan,
        cell_plan: CellPlan,
        results: Results,
        offline: bool,
        meter: Meter,
        ahead: Ahead,
        made: Made,
    ) -> None:
        self.plan = plan
        self.cell = cell_plan.cell
        self.cell_plan = cell_plan
        self.results = results
        self.settings = plan.settings
        self.store = results.store
        self.offline = offline
        self.meter = meter
        self.ledger = Ledger(cell_plan, meter)
        self.ahead = ahead
        self.made = made
        self.tapes: dict[str, Tape] = {}
        self.passed: set[str] = set()
        self.network: Network | None = None

    def run(self) -> None:
        """Gates first; what is behind one that is not passed is not measured."""
        gates = {need for case in self.plan.cases for need in case.gate_needs}
        missing = self.cell_plan.missing
        stages = [
            [step for step in missing if step.need in gates],
            *in_stages([step for step in missing if step.need not in gates]),
        ]
        try:
            for index, stage in enumerate(stages):
                wanted = needs_wanted(self.plan.cases, self.cell, self.results)
                steps = [step for step in stage if step.need in wanted]
                later = [step for level in stages[index + 1 :] for step in level]
                self.ledger.settle([e for e in [*stage, *later] if e.need not in wanted])
                if steps:
                    self._stage(steps, [step for step in later if step.need in wanted])
                self.ledger.settle(steps)
        except Exception as error:  # an error of this cell's tests, never of the session
            self.results.cell_errors[self.cell.id] = sentence(error, self.cell.id)
        finally:
            self.ledger.settle(missing)
            self.network = None
            self.tapes.clear()
            gc.collect()

    def _stage(self, steps: Sequence[Step], later: Sequence[Step]) -> None:
        """Measurements that start from nothing of one another, task by task."""
        self._load()
        self._look_ahead()
        for run in dict.fromkeys(step.run for step in steps):
            mine = [step for step in steps if step.run == run]
            rest = [step for step in later if step.run == run]
            try:
                tape = self._tape(mine[0])
            except NotApplicable as reason:
                for step in mine:
                    request = self._request(step)
                    self.store.put_not_applicable(step.key, str(reason), request)
                self.ledger.give_up(mine)
                continue
            except MechtestsError as error:
                self.results.errors.update({step.key: str(error) for step in mine})
                self.ledger.give_up(mine)
                continue
            self._measure(tape, mine, rest)
        self._look_ahead()  # a gate that was measured may have decided

    def _look_ahead(self) -> None:
        """Begin to download the next cell that is sure to be measured."""
        following = self.plan.cells[self.plan.cells.index(self.cell_plan) + 1 :]
        for later in following if self.ahead.idle else ():
            if later.borrowed:  # it is here, from a run that was interrupted: that is enough
                return
            if self.ahead.waits(later.cell):
                sure = needs_wanted(self.plan.cases, later.cell, self.results, sure=True)
                if any(step.need in sure for step in later.missing):
                    self.ahead.begin(later.cell)
                    return

    def _measure(self, tape: Tape, steps: Sequence[Step], later: Sequence[Step]) -> None:
        """Run a task's prompts and put what each measurement makes of them into the store."""
        started = time.monotonic()
        begun = {step.need: made for step in steps if (made := self._begin(step, tape))}
        self.ledger.give_up([step for step in steps if step.need not in begun])
        work = list(begun.values())
        try:
            while work and not self._played(tape, work, steps, later):
                tape.smaller()
                for each in work:
                    each.parts.clear()
        except Exception as error:  # the model fails on these prompts, not on others
            for each in work:
                each.error = each.error or sentence(error)
        for step in steps:
            if step.need in begun:
                self._finish(step, begun[step.need], tape, time.monotonic() - started)

    def _played(
        self, tape: Tape, work: Sequence[Work], steps: Sequence[Step], later: Sequence[Step]
    ) -> bool:
        """Let every measurement take every batch; False where the memory ran out."""
        run = steps[0].run
        kept = sites_of(step.need for step in later)
        try:
            steps_of = {step.need: step for step in steps}
            batched = [each for each in work if not each.need.metric.whole]
            if not batched:  # nobody reads a run, and none is made
                self._tick(run, [], 1.0)
            sites = sites_of(each.need for each in batched)
            for played in tape.play(sites, kept) if batched else ():
                for each in batched:
                    each.take(played)
                mine = self._going_on(batched, steps_of)
                self._tick(run, mine, len(played.rows) / len(tape.prompts))
            self.passed.add(run)
            for each in work:
                if each.need.metric.whole:
                    each.take(tape.unplayed())
                    self._tick(run, self._going_on([each], steps_of), 1.0)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            gc.collect()
            return False
        return True

    def _going_on(self, work: Sequence[Work], steps_of: Mapping[Need, Step]) -> list[Step]:
        """The steps whose work gives something; the others are not counted any more."""
        over = [steps_of[each.need] for each in work if each.error or each.not_applicable]
        self.ledger.give_up(over)
        return [step for each in work if (step := steps_of[each.need]) not in over]

    def _tick(self, run: str, steps: Sequence[Step], share: float) -> None:
        """Count the share of a batch: its own work, and its part of the shared passes."""
        self.ledger.count(run, steps, share, passes=run not in self.passed)

    def _begin(self, step: Step, tape: Tape) -> Work | None:
        """A measurement about to be made, or None where what it starts from is not there."""
        inputs = {}
        if lacks := lacking(tape.prompts, step.need):
            self.results.errors[step.key] = (
                f"{step.need.name} in {self.cell.id}: it reads {', '.join(lacks)}, which these "
                "prompts do not have; give them in the CSV file, or leave the claim out"
            )
            return None
        for name, need in step.need.inputs:
            try:
                where = trained(self.cell)
                if need.cell == "final":
                    where = step.need.final or where
                inputs[name] = self.results.measurement(need, where)
            except NotApplicable as reason:
                self.store.put_not_applicable(step.key, str(reason), self._request(step))
                return None
            except MechtestsError as error:
                self.results.errors[step.key] = f"{step.need.name} starts from {need.name}: {error}"
                return None
        identity = digest(self.results.identities[trained(self.cell).id])
        draw = partial(generator, self.settings.seed, step.need.metric.name, identity)
        assert self.network is not None
        return Work(step.need, self.network, inputs, self.settings.draws, draw)

    def _finish(self, step: Step, work: Work, tape: Tape, seconds: float) -> None:
        if work.error:
            self.results.errors[step.key] = f"{step.need.name} in {self.cell.id}: {work.error}"
            return
        if work.not_applicable:
            self.store.put_not_applicable(step.key, work.not_applicable, self._request(step))
            return
        try:
            measurement = work.measurement(tape.prompts, self._facts(tape, seconds))
        except MeasurementError as error:
            self.results.errors[step.key] = f"{step.need.name} in {self.cell.id}: {error}"
            return
        self.store.put(step.key, measurement, self._request(step))

    def _request(self, step: Step) -> Mapping[str, Json]:
        identity = self.results.identities[trained(self.cell).id]
        return self.settings.request(step.need, identity, self.results.final(step.need))

    def _facts(self, tape: Tape, seconds: float) -> dict[str, Json]:
        assert self.network is not None
        return {
            "cell": self.cell.id,
            "weights": self.network.digest,
            "parameters": self.network.shape.block_parameters,
            "prompts": tape.prompts.digest,
            "device": str(self.network.device),
            "seconds_of_its_stage": round(seconds, 3),
            "batch": tape.batch,
            "notes": list(tape.notes),
            "versions": records.installed_versions(),
            **self.loaded_facts,
        }

    def _load(self) -> None:
        """Load the cell, once, and hold what is stored of it against what was loaded."""
        if self.network is not None:
            return
        from mechtests.models.network import Network

        if self.ahead.waits(self.cell):
            self.meter.describe(f"downloading {self.cell.id}")
            self.ahead.ready(self.cell)
        self.meter.describe(f"loading {self.cell.id}")
        self.results.loads[self.cell.id] = self.results.loads.get(self.cell.id, 0) + 1
        untrained = self.cell.variant == "untrained"
        loaded = self.cell.source.load(
            self.cell.checkpoint,
            dtype=self.settings.dtype,
            device=self.settings.device,
            offline=self.offline,
            untrained_seed=seed_of(self.settings.seed, "untrained") % 2**63 if untrained else None,
        )
        self.tokenizer = loaded.tokenizer
        self.loaded_facts = dict(loaded.facts)
        self.network = Network.from_model(loaded.model, name=self.cell.id)
        self.meter.describe(f"measuring {self.cell.id}")
        self._verify("weights", self.network.digest, self.cell_plan.steps)
        self._compare_versions()

    def _tape(self, step: Step) -> Tape:
        if step.run not in self.tapes:
            prompts = self._prompts(step)
            mine = [other for other in self.cell_plan.steps if other.run == step.run]
            self._verify("prompts", prompts.digest, mine)
            self.store.put_texts(prompts.digest, prompts.texts)
            assert self.network is not None
            budget = int(BUDGET_SHARE * 4 * self.network.shape.parameters)
            self.tapes[step.run] = Tape(self.network, prompts, budget=max(budget, 2**26))
        return self.tapes[step.run]

    def _prompts(self, step: Step) -> Prompts:
        """The prompts of a run, made once for all cells whose tokenizer is alike."""
        alike = getattr(self.tokenizer, "digest", self.cell.id)
        key = self.cell.source.name, alike, step.run
        if key not in self.made:
            self.made[key] = prompts_of(step.need.task, self.tokenizer, self.settings)
        return self.made[key]

    def _compare_versions(self) -> None:
        """Note where stored measurements were made with other versions of what computes."""
        now = records.installed_versions()
        for step in self.cell_plan.steps:
            stored = self._stored(step)
            made = {} if stored is None else stored.facts.get("versions", {})
            if other := [
                f"{p} {v} (now {now[p]})" for p, v in made.items() if p in COMPUTES and now[p] != v
            ]:
                self.results.notes.append(
                    f"{self.cell.id}: some stored measurements were made with {', '.join(other)}; "
                    "--mech-refresh makes them again"
                )
                return

    def _stored(self, step: Step) -> Measurement | None:
        """What is stored of a step that is not made now."""
        try:
            return self.store.get(step.key) if step.stored else None
        except NotApplicable:
            return None

    def _verify(self, fact: str, loaded: str, steps: Sequence[Step]) -> None:
        """Refuse to mix what is stored with what was loaded where they differ."""
        for step in steps:
            stored = self._stored(step)
            if stored is not None and stored.facts.get(fact) != loaded:
                raise MeasurementError(
                    f"{self.cell.id}: {step.need.name} was stored with {fact} "
                    f"{str(stored.facts.get(fact))[:12]}, but the {fact} loaded now have "
                    f"{loaded[:12]}; measure all of it again with --mech-refresh"
                )


def prompts_of(task: Task, tokenizer: Any, settings: Settings) -> Prompts:
    """The prompts of a task for a tokenizer: generated, or from the user's own file."""
    count = settings.prompts_of(task)
    if task.name in settings.prompts:
        given = settings.prompts[task.name]
        if task.reader is not None:
            return task.reader.read(tokenizer, given, count)
        return csv_prompts.read(task, given, tokenizer)
    return task.generate(tokenizer, count, generator(settings.seed, task.name, "prompts"))
