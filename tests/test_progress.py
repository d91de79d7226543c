"""mechtests.reporting.progress: honest in a terminal, and few lines in a log."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from mechtests import engine, plan
from mechtests.case import Case
from mechtests.claim import Claim
from mechtests.errors import NotApplicable
from mechtests.metrics import ablation, behaviour, copying, effects, gates
from mechtests.metrics.metric import Cost, Metric, Value
from mechtests.plan import CellPlan
from mechtests.reporting.progress import Ledger, Progress, cost, duration, meter
from mechtests.settings import Settings
from mechtests.store import Store
from mechtests.tasks.ioi import ioi
from tests.fake_source import FakeSource


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Latin(io.TextIOWrapper):
    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode("ascii")


@pytest.fixture
def time() -> Time:
    return Time()


def test_the_time_left_is_the_cost_left_at_the_rate_of_the_measuring(time):
    with Progress(100e9, stream=io.StringIO(), clock=time) as progress:
        progress.describe("loading gpt2")
        assert progress.left is None
        time.passes(60)  # a slow download is no measuring
        progress.describe("measuring gpt2")
        time.passes(2)
        progress.advance(10e9)
        assert progress.left == pytest.approx(18.0)
        time.passes(6)  # slower steps make it longer
        progress.advance(10e9)
        assert progress.left == pytest.approx(80 / 20 * 8)


def test_before_there_is_a_second_of_measuring_no_time_left_is_claimed(time):
    with Progress(100.0, stream=io.StringIO(), clock=time) as progress:
        time.passes(0.5)
        progress.advance(50)
        assert progress.left is None
        assert "left" not in progress.figures()


def test_a_log_gets_plain_lines_at_most_every_five_seconds_and_a_last_one(time):
    log = io.StringIO()
    with Progress(100e12, stream=log, clock=time) as progress:
        progress.describe("measuring gpt2")
        for _ in range(100):
            time.passes(0.25)
            progress.advance(1e12)
    lines = log.getvalue().splitlines()
    assert lines[0] == "measuring gpt2: 20% of 100 TFLOP, 5 s, about 20 s left"
    assert len(lines) == 25 / 5 + 1
    assert lines[-1] == "measured 100 TFLOP in 25 s"
    assert log.getvalue().isprintable() is False  # newlines, and nothing else
    assert log.getvalue().replace("\n", "").isprintable()


def test_more_work_than_planned_is_never_more_than_all_of_it(time):
    with Progress(10.0, stream=io.StringIO(), clock=time) as progress:
        time.passes(10)
        progress.advance(25)
        assert progress.figures() == "100% of 10 FLOP, 10 s, about 0 s left"


@pytest.mark.parametrize("how", [{"enabled": False}, {"total": 0.0}])
def test_disabled_or_with_nothing_to_do_it_says_nothing(time, how):
    stream = io.StringIO()
    with Progress(**{"total": 10.0, "stream": stream, "clock": time, **how}) as progress:
        progress.describe("measuring")
        time.passes(60)
        progress.advance(5)
    assert stream.getvalue() == ""


def test_an_interrupted_measuring_says_how_far_it_came_and_passes_the_interrupt_on(time):
    log = io.StringIO()

    def measure() -> None:
        with Progress(10.0, stream=log, clock=time) as progress:
            time.passes(2)
            progress.advance(4)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure()
    assert log.getvalue() == "measured 4 FLOP in 2 s, stopped\n"


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for name in ("TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    terminal = Terminal()
    with Progress(1e9, stream=terminal) as progress:
        progress.describe("measuring gpt2 [on ioi]")
        progress.advance(5e8)
        progress._bar.refresh()
    assert "measuring gpt2 [on ioi]" in terminal.getvalue()
    assert "50% of 1 GFLOP" in terminal.getvalue()
    assert "\x1b[2K" in terminal.getvalue()  # the line of the bar is erased
    assert terminal.getvalue().endswith("measured 500 MFLOP in 0 s\n")


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(monkeypatch, time):
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    with Progress(10.0, stream=terminal, clock=time) as progress:
        time.passes(6)
        progress.advance(5)
    assert "\x1b" not in terminal.getvalue()
    assert terminal.getvalue().startswith("50% of 10 FLOP, 6 s, about 6 s left\n")


def test_a_log_that_knows_only_ascii_breaks_nothing(time):
    log = Latin(io.BytesIO(), encoding="ascii")
    with Progress(10.0, stream=log, clock=time) as progress:
        progress.describe("measuring modèle")
        time.passes(6)
        progress.advance(5)
    assert log.text().startswith("measuring modele: 50%")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3599.6, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_durations_round_without_a_sixtieth_second(seconds, text):
    assert duration(seconds) == text


def test_costs_have_three_digits_and_a_prefix():
    assert [cost(x) for x in (0, 12, 3.1e9, 2.94e14)] == [
        "0 FLOP",
        "12 FLOP",
        "3.1 GFLOP",
        "294 TFLOP",
    ]


def test_the_meter_of_a_plan_counts_the_cost_of_all_its_cells():
    plan = SimpleNamespace(cells=[SimpleNamespace(flops=2e9), SimpleNamespace(flops=1e9)])
    assert meter(plan, stream=io.StringIO()).total == 3e9


def test_what_turns_out_needless_is_taken_off_and_the_share_is_of_what_is_left(time):
    log = io.StringIO()
    with Progress(100.0, stream=log, clock=time) as progress:
        time.passes(5)
        progress.advance(5)
        progress.without(90)
        assert progress.figures() == "50% of 10 FLOP, 5 s, about 5 s left"
        progress.without(90)
        assert progress.figures() == "100% of 5 FLOP, 5 s, about 0 s left"
    with Progress(9.0, stream=io.StringIO(), clock=time) as progress:
        progress.without(9)
        assert progress.figures().startswith("0% of 0 FLOP")


class Counter:
    """A meter that sums what it is told."""

    def __init__(self) -> None:
        self.done = self.needless = 0.0
        self.told: list[tuple[str, float]] = []

    def describe(self, text: str) -> None:
        pass

    def advance(self, amount: float) -> None:
        self.done += amount
        self.told.append(("done", amount))

    def without(self, amount: float) -> None:
        self.needless += amount
        self.told.append(("needless", amount))


class Need:
    def __init__(self, *inputs: Need) -> None:
        self.inputs = [("", each) for each in inputs]


def a_cell() -> tuple[dict[str, SimpleNamespace], CellPlan]:
    """Two tasks: ``b`` starts from ``a``, ``c`` from ``b``; ``x`` is of the other."""
    needs: dict[str, Need] = {}
    steps = {}
    for name, flops, run, inputs in (
        ("a", 10.0, "one", ()), ("b", 20.0, "one", ("a",)), ("c", 40.0, "one", ("b",)),
        ("x", 80.0, "two", ()),
    ):  # fmt: skip
        needs[name] = Need(*(needs[each] for each in inputs))
        steps[name] = SimpleNamespace(key=name, flops=flops, run=run, need=needs[name])
    cell = SimpleNamespace(missing=tuple(steps.values()), shared={"one": 1.0, "two": 2.0})
    return steps, cell


def test_what_starts_from_nothing_goes_with_it_and_the_passes_with_the_last_of_a_run():
    steps, cell = a_cell()
    counter = Counter()
    ledger = Ledger(cell, counter)
    ledger.give_up([steps["b"]])
    assert counter.needless == 60.0  # b and c; a still reads the run's passes
    ledger.count("one", [steps["a"]], 0.5, passes=True)
    assert counter.done == 5.5
    ledger.settle([steps["a"]])
    assert counter.needless == 65.5
    ledger.give_up([steps["a"]])
    assert counter.needless == 65.5
    ledger.count("two", [steps["x"]], 1.0, passes=True)
    ledger.settle([steps["x"]])
    assert counter.done + counter.needless == 153.0


def test_a_batch_that_is_run_again_is_not_counted_again():
    steps, cell = a_cell()
    counter = Counter()
    ledger = Ledger(cell, counter)
    for share in (0.5, 0.25, 0.25, 0.25, 0.25):
        ledger.count("two", [steps["x"]], share, passes=True)
    assert counter.done == pytest.approx(82.0)


EFFECTS = effects.direct_effects(ioi)
ABLATION = ablation.ablate_heads(
    ioi,
    inputs={"copying": copying.copy_scores(ioi), "effects": EFFECTS, "mean_z": effects.mean_z(ioi)},
)


def none_here(batch):
    raise NotApplicable("no operator is there")


def metric(name, **how):
    return Metric(
        name, 1, none_here, {"x": Value(("prompt",), "")}, cost=lambda job: Cost(flops=1e9), **how
    )


NONE_HERE = metric("none.here", whole=True)(ioi)
AFTER = metric("after.none", inputs=("a",))(ioi, inputs={"a": NONE_HERE})
SHUT = gates.BehaviourGate(behaviour.answers(ioi), {"correct": 0.99})


@pytest.mark.parametrize(
    ("needs", "gate", "names", "all_done"),
    [
        ({"ablation": ABLATION}, None, None, True),
        ({"ablation": ABLATION}, SHUT, None, False),
        ({"after": AFTER, "effects": EFFECTS}, None, None, False),
        ({"effects": EFFECTS}, None, ("Mary", "John"), False),
    ],
    ids=["measured", "the gate is shut", "a metric does not apply", "the task does not apply"],
)
def test_whatever_is_measured_nothing_of_the_plan_is_left_open(
    tmp_path, needs, gate, names, all_done
):
    source = FakeSource(**({"names": names} if names else {}))
    claim = Claim(id="test.claim", says="", rule="", task="ioi", gate=gate, needs=needs)
    store = Store(tmp_path)
    made = plan.build([Case(claim, source.cell)], Settings(), store)
    counter = Counter()
    engine.run(made, store, meter=counter)
    planned = sum(cell.flops for cell in made.cells)
    assert counter.done + counter.needless == pytest.approx(planned)
    assert (counter.done == pytest.approx(planned)) is all_done
    if "after" in needs:
        assert ("needless", 2e9) in counter.told  # at once, before the other task is measured
        assert counter.told[-1] != ("needless", 2e9)
