"""mechtests.reporting.progress: honest in a terminal, and few lines in a log."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from mechtests.reporting.progress import Progress, cost, duration, meter


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
