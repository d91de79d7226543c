"""A series of checkpoints of a hub model: downloaded ahead, measured, freed, taken up again."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mechtests import engine, plan
from mechtests.case import Case
from mechtests.claim import Claim
from mechtests.errors import LoadError
from mechtests.metrics import attention, behaviour, gates
from mechtests.models import downloads, hub_cache
from mechtests.models.cell import FINAL, Cell, Checkpoint
from mechtests.models.hub import HubSource
from mechtests.models.sources import resolve
from mechtests.reporting import plans
from mechtests.settings import Settings
from mechtests.store import Store
from mechtests.tasks.ioi import ioi
from mechtests.tasks.repeated_tokens import repeated_tokens
from tests import hub_server
from tests.fake_source import FakeSource
from tests.saved import save

REPO = "someone/tiny-series"
STEPS = (0, 1, 2, 4, 8, 16, 32, 64)
LABELS = tuple(f"step{step}" for step in STEPS)
ORDER = (LABELS[-1], *LABELS[:-1])  # the final cell first, for its gates
SCORES = attention.head_scores(repeated_tokens)
FEW = LABELS[:3]
PATIENCE = 60.0


@dataclass
class Told:
    """A meter that notes what is measured, and may do something then."""

    events: list[str]
    measuring: Any = None
    cell: str = ""

    def describe(self, text: str) -> None:
        self.events.append(text)
        self.cell = text.rpartition(":")[2] if text.startswith("measuring") else ""

    def advance(self, amount: float) -> None:
        if self.cell and self.measuring is not None:
            self.measuring(self.cell)
        self.events.append(f"measured {self.cell}")

    def without(self, amount: float) -> None:
        pass


@dataclass
class World:
    """A hub with a series, a cache and a store."""

    hub: hub_server.Hub
    cache: Path
    store: Path
    served: Path
    events: list[str] = field(default_factory=list)
    peak: int = 0
    before: Any = None

    def request(self, line: str) -> None:
        self.events.append(line)
        self.peak = max(self.peak, len(self.on_disk()))
        if self.before is not None:
            self.before(line)

    def on_disk(self) -> set[str]:
        """The blobs of weights in the cache, whole or half."""
        names = {digest(folder) for folder in self.served.iterdir()}
        folder = hub_cache.folder_of(self.cache, REPO) / "blobs"
        return {path.name for path in folder.glob("*") if path.name.split(".")[0] in names}

    def weights(self) -> list[str]:
        """The revisions whose weights the cache has."""
        folder = hub_cache.folder_of(self.cache, REPO)
        commits = {commit: label for label, commit in hub_cache.refs(folder).items()}
        found = [
            path.parent.name for path in folder.glob("snapshots/*/*.safetensors") if path.exists()
        ]
        return sorted(commits[commit] for commit in found)

    def marks(self) -> list[Path]:
        """What says of weights that they are borrowed."""
        return list(hub_cache.folder_of(self.cache, REPO).glob(".borrowed-*"))

    def fetched(self) -> Counter[str]:
        """How often the weights of each revision were asked for."""
        return Counter(
            match[1]
            for line in self.events
            if (match := re.fullmatch(r"GET .*/resolve/(\w+)/model.safetensors", line))
        )

    def plan(self, *labels: str, claims: Any = None, offline: bool = False) -> plan.Plan:
        source = HubSource("tiny", REPO)
        known = {c.label: c for c in source.checkpoints(offline=offline)}
        cells = tuple(Cell("tiny", known[label], source) for label in labels or LABELS)
        several = cells if len(cells) > 1 else ()
        cases = [Case(each, cells[-1], several, "tiny") for each in claims or (claim(),)]
        return plan.build(cases, Settings(), Store(self.store), offline=offline)

    def run(self, *labels: str, claims: Any = None, measuring: Any = None, **how: Any) -> Any:
        self.events.clear()
        made = self.plan(*labels, claims=claims)
        told = Told(self.events, measuring)
        return engine.run(made, Store(self.store), meter=told, **how)

    def stored(self) -> int:
        return len(list(self.store.rglob("*.safetensors")))


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def claim(**how: Any) -> Claim:
    needs = how.pop("needs", {"scores": SCORES})
    given = {"id": "sanity.some", "says": "", "rule": "", "task": "repeated_tokens"}
    return Claim(**{**given, "over": "training", "needs": needs, **how})


@pytest.fixture(autouse=True)
def interruptible():
    """An interruption raises, whatever started the tests: a background job ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of weights for each step; the main branch has those of the last."""
    folder = tmp_path_factory.mktemp("served")
    for step in STEPS:
        save(folder / f"step{step}", seed=step)
    shutil.copytree(folder / LABELS[-1], folder / "main")
    return folder


@pytest.fixture
def world(models, tmp_path, monkeypatch):
    from huggingface_hub import constants

    with hub_server.serving() as served:
        files = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        for label in (*LABELS, "main"):
            served.add(REPO, label, models / label)
        made = World(served, tmp_path / "hub", tmp_path / "store", models)
        served.on_request = made.request
        yield made


def test_the_next_checkpoint_is_downloaded_while_one_is_measured(world):
    def measuring(cell):
        following = ORDER[ORDER.index(cell) + 1 :]
        deadline = time.monotonic() + PATIENCE
        while following and not world.fetched()[following[0]] and time.monotonic() < deadline:
            time.sleep(0.01)

    results = world.run(measuring=measuring)
    assert results.cell_errors == results.errors == {}
    assert world.stored() == len(STEPS)
    first = {label: world.events.index(f"measured {label}") for label in ORDER}
    asked = {label: _asked(world, label) for label in ORDER}
    for label, following in pairwise(ORDER):
        assert asked[following] < first[label], (label, following)
        assert asked[following] > world.events.index(f"loading tiny:{label}")


def _asked(world, label):
    return world.events.index(f"GET /{REPO}/resolve/{label}/model.safetensors")


def test_a_series_leaves_no_weights_and_what_tells_its_identity(world):
    results = world.run()
    assert world.stored() == len(STEPS)
    assert results.notes == []
    assert world.on_disk() == set()
    assert world.fetched() == dict.fromkeys(LABELS, 1)
    folder = hub_cache.folder_of(world.cache, REPO)
    assert set(hub_cache.refs(folder)) == set(LABELS)
    assert len(list(folder.glob("snapshots/*/config.json"))) == len(STEPS)
    assert len(list(folder.glob("snapshots/*/tokenizer.json"))) == len(STEPS)
    assert world.marks() == []
    world.events.clear()
    again = world.plan(offline=True)
    assert again.errors == {}
    assert again.missing == ()
    assert world.events == []


def test_at_most_two_checkpoints_are_on_disk_at_once(world):
    def measuring(cell):
        following = ORDER[ORDER.index(cell) + 1 :]
        assert not following or _within(lambda: following[0] in world.weights())
        world.request("measuring")

    assert world.run(measuring=measuring).errors == {}
    assert world.peak == 2


def test_what_is_stored_is_not_downloaded_again(world):
    world.run(*FEW)
    assert world.fetched() == dict.fromkeys(FEW, 1)
    world.run(*FEW)
    assert world.fetched() == {}


def test_weights_are_kept_where_that_is_asked_for(world):
    world.run(*FEW, keep_weights=True)
    assert world.weights() == sorted(FEW)
    assert world.marks() == []
    shutil.rmtree(world.store)
    world.run(*FEW)
    assert world.weights() == sorted(FEW)  # they were there before this run


def test_weights_that_were_there_before_stay(world):
    source = HubSource("tiny", REPO)
    source.fetch(Checkpoint("step4", 4))
    source.fetch(Checkpoint("step64", 64))
    world.run()
    assert world.stored() == len(STEPS)
    assert world.weights() == ["step4", "step64"]
    assert world.fetched() == dict.fromkeys(set(LABELS) - {"step4", "step64"}, 1)


def test_a_single_checkpoint_stays_in_the_cache(world):
    world.run("step8", claims=[claim(over="cell")])
    assert world.stored() == 1
    assert world.weights() == ["step8"]
    assert world.marks() == []


def test_weights_that_two_checkpoints_share_are_downloaded_once_and_freed(world):
    labels = (*LABELS, FINAL)
    world.run(*labels)
    assert world.stored() == len(labels)
    assert sum(world.fetched()[each] for each in (LABELS[-1], "main")) == 1
    assert world.on_disk() == set()


def test_weights_shared_with_a_revision_of_the_user_stay(world):
    HubSource("tiny", REPO).fetch(None)
    world.run()
    assert world.stored() == len(STEPS)
    assert world.on_disk() == {digest(world.served / "main")}
    assert "main" in world.weights()
    assert world.fetched() == dict.fromkeys(LABELS[:-1], 1)


def test_a_failed_download_is_an_error_of_its_cell_alone_and_is_made_up_for(world):
    made = world.plan()
    repo = world.hub.repos[REPO]
    commit = repo.branches["step2"]
    bare = world.store.parent / "bare"
    shutil.copytree(repo.folders[commit], bare)
    (bare / "model.safetensors").unlink()
    whole, repo.folders[commit] = repo.folders[commit], bare
    results = engine.run(made, Store(world.store), meter=Told(world.events))
    assert list(results.cell_errors) == ["tiny:step2"]
    assert "HTTP 404" in results.cell_errors["tiny:step2"]
    assert results.errors == {}
    assert world.stored() == len(STEPS) - 1
    with pytest.raises(LoadError, match="404"):
        results.measurement(SCORES, next(c for c in made.cases[0].cells if "step2" in c.id))
    assert world.on_disk() == set()
    repo.folders[commit] = whole
    results = world.run()
    assert results.cell_errors == {}
    assert world.fetched() == {"step2": 1}
    assert world.stored() == len(STEPS)


@pytest.mark.parametrize("next_one_is_here", [True, False])
def test_an_interrupted_series_goes_on_where_it_was(world, next_one_is_here):
    def interrupt(cell):
        if cell == ORDER[3]:
            if next_one_is_here:
                assert _within(lambda: ORDER[4] in world.weights())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.run(measuring=interrupt)
    assert world.stored() == 3
    left = world.on_disk()
    assert not [name for name in left if "incomplete" in name]
    assert len(left) <= 2
    here = world.weights()
    assert ORDER[3] in here
    world.peak = 0

    def measuring(cell):  # what is downloaded ahead, where anything is, is on disk by now
        following = ORDER[ORDER.index(cell) + 1 :]
        wanted = [label for label in following if label not in here]
        if wanted:
            _within(lambda: wanted[0] in world.weights(), seconds=0.5)
        world.request("measuring")

    results = world.run(measuring=measuring)
    assert results.cell_errors == {}
    assert 1 <= world.peak <= 2
    assert world.stored() == len(STEPS)
    assert world.fetched() == dict.fromkeys(set(ORDER[3:]) - set(here), 1)
    assert world.on_disk() == set()  # also what the interrupted run had left


def _within(holds, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return holds()


def test_a_mark_is_made_while_another_is_taken_away(tmp_path):
    failed, done = [], threading.Event()

    def downloads_one():
        try:
            for at in range(3000):
                hub_cache.borrow(tmp_path, f"next{at}", ["model.safetensors"])
                assert hub_cache.borrowed(tmp_path, f"next{at}") == {"model.safetensors"}
                hub_cache.keep(tmp_path, f"next{at}")
        except (AssertionError, OSError) as error:
            failed.append(error)
        done.set()

    thread = threading.Thread(target=downloads_one)
    thread.start()
    while not done.is_set():
        hub_cache.borrow(tmp_path, "this", ["model.safetensors"])
        hub_cache.keep(tmp_path, "this")
    thread.join()
    assert failed == []
    assert list(tmp_path.iterdir()) == []


def test_of_several_files_those_that_were_there_before_stay(world, tmp_path):
    shards = tmp_path / "shards"
    shutil.copytree(world.served / "step1", shards)
    (shards / "model.safetensors").unlink()
    for part in ("one", "two"):
        (shards / f"{part}.safetensors").write_bytes(part.encode())
    table = {"weight_map": {part: f"{part}.safetensors" for part in ("one", "two")}}
    (shards / "model.safetensors.index.json").write_text(json.dumps(table))
    commit = world.hub.add(REPO, "step128", shards)
    source, step = HubSource("tiny", REPO), Checkpoint("step128", 128)
    snapshot = source.fetch(step)
    folder = hub_cache.folder_of(world.cache, REPO)
    assert hub_cache.weights(snapshot) == {"one.safetensors", "two.safetensors"}
    source.release(step, offline=False)
    assert hub_cache.weights(snapshot) == {"one.safetensors", "two.safetensors"}
    blob = (snapshot / "two.safetensors").resolve()
    (snapshot / "two.safetensors").unlink()
    blob.unlink()
    source.bring(step, to_free=True, stop=threading.Event(), shown=False)
    assert hub_cache.borrowed(folder, commit) == {"two.safetensors"}
    source.release(step, offline=False)
    assert hub_cache.weights(snapshot) == {"one.safetensors"}
    assert (snapshot / "model.safetensors.index.json").is_file()


def test_the_last_checkpoint_of_an_interrupted_series_is_freed_too(world):
    def interrupt(cell):
        if cell == ORDER[-1]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.run(measuring=interrupt)
    assert world.weights() == [ORDER[-1]]
    assert len(world.marks()) == 1
    world.run()
    assert world.fetched() == {}
    assert world.on_disk() == set()


def test_an_interruption_does_not_wait_for_a_download(world):
    stuck, go_on = threading.Event(), threading.Event()

    def hold(line):
        if line == f"GET /{REPO}/resolve/{ORDER[1]}/model.safetensors":
            stuck.set()
            go_on.wait(PATIENCE * 3)

    def interrupt(cell):
        assert stuck.wait(PATIENCE)
        raise KeyboardInterrupt

    world.before = hold
    try:
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            world.run(measuring=interrupt)
        assert time.monotonic() - started < PATIENCE
    finally:
        go_on.set()
    deadline = time.monotonic() + PATIENCE
    while [name for name in world.on_disk() if "incomplete" in name]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("waits", [True, False])
def test_an_interruption_that_a_library_swallows_ends_the_run_all_the_same(world, waits):
    go_on, interrupted = threading.Event(), []

    def hold(line):
        if waits and line == f"GET /{REPO}/resolve/{ORDER[1]}/model.safetensors":
            go_on.wait(PATIENCE * 6)

    def swallow(cell):
        if not interrupted:
            interrupted.append(cell)
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)

    world.before = hold
    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            world.run(measuring=swallow)
        assert time.monotonic() - started < PATIENCE * 3
    finally:
        go_on.set()
    assert world.stored() == 1  # the cell that it came in is measured to its end
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_half_a_file_of_a_killed_run_is_swept_unless_it_is_being_written(world):
    from filelock import FileLock

    blobs = hub_cache.folder_of(world.cache, REPO) / "blobs"
    blobs.mkdir(parents=True)
    name = digest(world.served / "step4")
    locked = digest(world.served / "step8")
    for each in (name, locked):
        (blobs / f"{each}.12345678.incomplete").write_bytes(b"half")
    locks = world.cache / ".locks" / blobs.parent.name
    locks.mkdir(parents=True)
    with FileLock(locks / f"{locked}.lock"):
        downloads.sweep(world.cache, REPO, [name, locked])
    assert world.on_disk() == {f"{locked}.12345678.incomplete"}
    world.run()
    assert world.on_disk() == set()


def test_a_disk_too_small_is_said_before_the_download(world, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    results = world.run()
    assert set(results.cell_errors) == {f"tiny:{label}" for label in LABELS}
    said = results.cell_errors["tiny:step4"]
    assert re.search(r"tiny at step4: 0\.\d MB are to be .* 0\.0 MB free; make room there", said)
    assert world.fetched() == {}


def test_a_disk_with_room_for_one_checkpoint_gets_them_one_by_one(world, monkeypatch):
    size = (world.served / "main" / "model.safetensors").stat().st_size

    def usage(path):
        small = 200_000  # configurations and tokenizers
        whole = [name for name in world.on_disk() if "incomplete" not in name]
        return SimpleNamespace(free=small + size - size * len(whole))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert size > 400_000
    results = world.run()
    assert results.cell_errors == {}
    assert world.stored() == len(STEPS)
    assert world.peak == 1


def test_behind_a_shut_gate_nothing_is_downloaded(world):
    gate = gates.BehaviourGate(behaviour.answers(ioi), {"correct": 0.95})
    world.run(claims=[claim(task="ioi", gate=gate)])
    assert world.fetched() == {LABELS[-1]: 1}
    assert world.on_disk() == set()
    world.run(claims=[claim(task="ioi", gate=gate), claim(id="my.other")])
    assert world.stored() == len(STEPS) + 1


def test_pythias_154_checkpoints_are_planned_without_weights(world, monkeypatch):
    repo = hub_server.Repo()
    source = resolve("pythia-160m")
    known = source.checkpoints(offline=True)
    for at, checkpoint in enumerate(known):
        repo.branches[checkpoint.label] = f"{at:040x}"
        repo.folders[f"{at:040x}"] = world.served / LABELS[at % len(LABELS)]
    world.hub.repos["EleutherAI/pythia-160m"] = repo
    loads = []
    monkeypatch.setattr(HubSource, "load", lambda *a, **k: loads.append(a))
    cells = tuple(Cell("pythia-160m", checkpoint, source) for checkpoint in known)
    case = Case(claim(), cells[-1], cells, "pythia-160m")
    made = plan.build([case], Settings(), Store(world.store))
    assert len(made.cells) == len(made.missing) == len(made.freed) == 154
    assert loads == []
    assert world.hub.gets("safetensors") == []
    assert made.most_on_disk < 3 * made.cells[0].download
    text = " ".join(plans.render(made, width=100).split())
    assert "plan: 1 verdicts in 154 cells" in text
    assert "the weights of 154 checkpoints are deleted once they are measured" in text


def test_the_plan_says_what_is_downloaded_and_the_most_on_disk_at_once(world):
    made = world.plan()
    total = sum(cell.download for cell in made.cells)
    largest = max(cell.download for cell in made.cells)
    read = ("tokenizer.json", "tokenizer_config.json", "model.safetensors")
    here = [world.served / label / name for label in LABELS for name in read]
    assert total == sum(path.stat().st_size for path in here)  # the configuration is here
    assert made.most_on_disk == pytest.approx(2 * largest, rel=0.01)
    text = " ".join(plans.render(made, width=100).split())
    assert f"{total / 1e6:,.0f} MB to download, of which {made.most_on_disk / 1e6:,.0f} MB" in text
    kept = " ".join(plans.render(made, width=100, keep_weights=True).split())
    assert "MB to download, which stay on disk, those of 8 checkpoints" in kept
    alone = plans.render(world.plan("step8", claims=[claim(over="cell")]), width=100)
    assert "on disk" not in alone


def test_an_offline_plan_of_what_was_freed_is_no_error_of_the_run(world):
    world.run(*FEW)
    other = claim(needs={"other": behaviour.answers(ioi)})
    made = world.plan(*FEW, claims=[other], offline=True)
    assert len(made.missing) == len(FEW)
    results = engine.run(made, Store(world.store), offline=True)
    assert "the run is offline" in results.cell_errors["tiny:step0"]


@dataclass(frozen=True)
class Watched(FakeSource):
    """Counts the models of earlier loads that are alive when the next is loaded."""

    models: list[Any] = field(default_factory=list, compare=False, hash=False)
    alive: list[int] = field(default_factory=list, compare=False, hash=False)

    def load(self, *args: Any, **how: Any) -> Any:
        self.alive.append(sum(model() is not None for model in self.models))
        loaded = super().load(*args, **how)
        self.models.append(weakref.ref(loaded.model))
        return loaded


def test_a_network_is_freed_before_the_next_is_loaded_and_after_the_last(tmp_path):
    def fails(batch):
        raise ValueError("no such thing")

    from mechtests.metrics.metric import Metric, Value

    bad = Metric("bad.metric", 1, fails, {"x": Value(("prompt",), "")})(ioi)
    source = Watched(steps=tuple(Checkpoint(f"step{step}", step) for step in STEPS))
    cells = tuple(source.at(checkpoint) for checkpoint in source.steps)
    needs = {"scores": SCORES, "answers": behaviour.answers(ioi), "bad": bad}
    store = Store(tmp_path)
    made = plan.build([Case(claim(needs=needs), cells[-1], cells, "x")], Settings(), store)
    gc.disable()  # what is freed is freed by the engine
    try:
        results = engine.run(made, store)
        assert len(results.errors) == len(STEPS)
        assert source.alive == [0] * len(STEPS)
        assert [model() for model in source.models] == [None] * len(STEPS)
    finally:
        gc.enable()


# --- as its user meets it --------------------------------------------------------------------

CLAIMS = '''
from mechtests import claim
from mechtests.metrics import attention
from mechtests.rules import above
from mechtests.tasks.repeated_tokens import repeated_tokens

@claim("mine.training", says="It attends.", over="training", task=repeated_tokens,
       needs={"scores": attention.head_scores(repeated_tokens)})
def test_training(measured, judge):
    """Some attention is there."""
    last = measured.scores.measurements[-1]
    judge(above(last.sample("induction", "evaluation", 0, 0), -1.0, what="score"))
'''


@pytest.fixture
def project(world, tmp_path):
    """What runs pytest on the claim in a process of its own, against the hub."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "test_mine.py").write_text(CLAIMS)
    offline = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    environment = {
        **{name: value for name, value in os.environ.items() if name not in offline},
        "HF_ENDPOINT": world.hub.url,
        "HF_HUB_CACHE": str(world.cache),
        "MECHTESTS_CACHE": str(world.store),
    }

    def start(*arguments):
        world.events.clear()
        command = [sys.executable, "-m", "pytest", "-p", "no:randomly", "--mech-model", REPO]
        return subprocess.Popen(
            [*command, "--mech-checkpoints=all", *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


@pytest.mark.parametrize("how", [["-n2"], ["--mech-keep-weights"]])
def test_a_run_of_pytest_frees_a_series_also_under_xdist(world, project, how):
    process = project("-v", *how)
    said, _ = process.communicate(timeout=5 * PATIENCE)
    assert process.returncode == 0, said
    assert "HOLDS" in said
    assert world.fetched() == dict.fromkeys(LABELS, 1)
    assert len(world.on_disk()) == (len(LABELS) if "--mech-keep-weights" in how else 0)


def test_control_c_ends_a_run_at_once_in_the_middle_of_a_download(world, project):
    stuck, go_on = threading.Event(), threading.Event()

    def hold(line):
        if line == f"GET /{REPO}/resolve/{ORDER[3]}/model.safetensors":
            stuck.set()
            go_on.wait(PATIENCE * 10)

    world.before = hold
    process = project()
    try:
        assert stuck.wait(PATIENCE * 5)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=3 * PATIENCE)
        assert time.monotonic() - started < 3 * PATIENCE, said
    finally:
        go_on.set()
        process.kill()
    assert process.returncode == 2, said
    world.before = None
    done = world.stored()
    again = project()
    said, _ = again.communicate(timeout=5 * PATIENCE)
    assert again.returncode == 0, said
    assert set(world.fetched()) <= set(ORDER[done:])
    assert world.on_disk() == set()
