"""A search of a task's grammar for the smallest prompt that breaks a behaviour or a mechanism.

Hypothesis draws the choices of prompts; they are run in batches, as long as the budget of forward
passes lasts. The simplest prompt of the first batch that has one which breaks is shrunk: slot by
slot its value gives way to simpler ones, some at a time, as long as the prompt still breaks.
Hypothesis's own shrinker runs one example at a time and knows nothing of a prompt's slots, and
with few slots of ordered values there is little left for it to find.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from mechtests.reporting.counterexample import Asked, Example, Found
from mechtests.seeds import seed_of
from mechtests.tasks.grammar import Choices, Grammar, Value

Examine = Callable[[Sequence[Choices]], list[Example]]

BATCH = 32
WAITING = 8 * BATCH
"""So many drawn prompts wait at least, to choose from which are run."""
SPARE_BITS = 3
"""So many more than a slot's options need, so that none is drawn much more often than another."""
MOST_BITS = 32
BARREN = 3
"""After so many rounds of draws without a new one there are taken to be no others."""


class Trials:
    """Prompts run, each once, as long as the budget lasts.

    Args:
        grammar: Whose prompts they are.
        examine: What comes of some choices when they are run, in their order.
        budget: How many forward passes may be made.
        cost: Forward passes that a prompt takes.
    """

    def __init__(self, grammar: Grammar, examine: Examine, budget: int, cost: float = 1.0) -> None:
        self.grammar = grammar
        self.run = 0
        self.known: dict[tuple[Value, ...], Example] = {}
        self._examine = examine
        self._cost = cost
        self._most = int(budget / cost)

    @property
    def left(self) -> int:
        """Prompts that may still be run."""
        return self._most - self.run

    @property
    def passes(self) -> int:
        """Forward passes that were made, a fraction as one."""
        return math.ceil(self.run * self._cost)

    def counted(self, found: Found) -> Found:
        """What was found, with the prompts and passes that it took."""
        wrong = sum(not each.answered for each in self.known.values())
        return replace(found, prompts=self.run, passes=self.passes, wrong=wrong)

    def __call__(self, every: Sequence[Choices]) -> list[Example]:
        """What came of some choices, in their order; without those the budget is too small for."""
        keys = {self.grammar.key(each): each for each in every}
        new = [key for key in keys if key not in self.known][: self.left]
        for start in range(0, len(new), BATCH):
            some = new[start : start + BATCH]
            examples = self._examine([keys[key] for key in some])
            self.known.update(zip(some, examples, strict=True))
            self.run += len(some)
        known = (self.known.get(self.grammar.key(each)) for each in every)
        return [example for example in known if example is not None]


def search(trials: Trials, asked: Asked, *, before: Choices | None = None) -> Found:
    """The smallest prompt within the budget that breaks what is asked.

    Args:
        trials: Where prompts are run.
        asked: What is searched.
        before: The choices of the counterexample that was found the last time; run first.
    """
    nothing = Found(asked, None, None, 0, 0, 0)
    if before is not None and trials.grammar.allows(before):
        (again,) = trials([before])
        nothing = replace(nothing, replayed="breaks" if again.breaks else "passes")
        if again.breaks:
            return _shrunk(trials, again, nothing)
    for drawn in draws(trials.grammar, seed_of(asked.seed, asked.task, "falsify")):
        if not trials.left:
            break
        seen = trials(drawn)
        broken = [each for each in seen if each.breaks]
        nothing = replace(nothing, drawn=nothing.drawn + len(seen), broken=len(broken))
        if broken:
            simplest = min(broken, key=lambda each: trials.grammar.size(each.choices))
            return _shrunk(trials, simplest, nothing)
    return trials.counted(replace(nothing, exhausted=trials.left > 0))


def _shrunk(trials: Trials, start: Example, found: Found) -> Found:
    best, smallest = shrink(trials, start)
    close = neighbour(trials, best)
    return trials.counted(replace(found, counterexample=best, neighbour=close, smallest=smallest))


def draws(grammar: Grammar, seed: int) -> Iterator[list[Choices]]:
    """Batches of choices drawn by Hypothesis, none twice, until no new ones come.

    Of those that wait to be run the ones go first whose values were run least, and for a value
    that none has one is made from a drawn one, so that every name and every operand soon has its
    turn. By chance alone one of 64 names is not among 200 prompts once in 23 times, and Hypothesis,
    which likes to repeat itself, misses it more often.

    Args:
        grammar: Whose choices.
        seed: Equal seeds give equal draws, with one version of Hypothesis.
    """
    waiting: list[Choices] = []
    had: Counter[tuple[str, Value]] = Counter()
    rounds = _rounds(grammar, seed)
    made: list[Choices] = []
    while True:
        while len(waiting) < WAITING and (new := next(rounds, None)) is not None:
            waiting += [each for each in new if each not in made]
        if not had:
            waiting += (made := _missing(grammar, waiting))
        if not waiting:
            return
        yield [_rarest(waiting, had) for _ in range(min(BATCH, len(waiting)))]


def _rarest(waiting: list[Choices], had: Counter[tuple[str, Value]]) -> Choices:
    """Take the choices out whose values were had least, the first of equal ones."""
    at = max(range(len(waiting)), key=lambda i: sum(1 / (1 + had[v]) for v in waiting[i].items()))
    chosen = waiting.pop(at)
    had.update(chosen.items())
    return chosen


def _missing(grammar: Grammar, drawn: Sequence[Choices]) -> list[Choices]:
    """For each value that no drawn choices have, where it is possible, some of them with it."""
    made: list[Choices] = []
    for slot, options in grammar.slots.items():
        had = {each[slot] for each in drawn}
        values = [value for base in drawn for value in options(base) if value not in had]
        for turn, value in enumerate(dict.fromkeys(values)):
            bases = (drawn[(turn + i) % len(drawn)] for i in range(len(drawn)))
            changed = ({**base, slot: value} for base in bases)
            made += islice((new for new in changed if grammar.allows(new)), 1)
    return made


def _rounds(grammar: Grammar, seed: int) -> Iterator[list[Choices]]:
    """What Hypothesis draws, round by round, none twice, until some rounds bring nothing new.

    Options are drawn by bits: integers would be drawn in part among the numbers that Hypothesis
    finds in whatever modules are loaded, so that one seed would not always give the same.
    """
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st

    found: dict[tuple[Value, ...], Choices] = {}
    widths = {width: st.tuples(*[st.booleans()] * width) for width in range(MOST_BITS)}

    @st.composite
    def choices(draw: st.DrawFn) -> Choices:
        chosen: dict[str, Value] = {}
        for name, options in grammar.slots.items():
            values = options(chosen)
            width = (len(values) - 1).bit_length() + SPARE_BITS if len(values) > 1 else 0
            number = sum(bit << i for i, bit in enumerate(draw(widths[width])))
            chosen[name] = values[number % len(values)]
        return chosen

    @settings(
        max_examples=2 * BATCH,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(choices())
    def collect(chosen: Choices) -> None:
        found.setdefault(grammar.key(chosen), chosen)

    barren = rounds = 0
    while barren < BARREN:
        before = len(found)
        seeded(seed + rounds)(collect)()
        new = list(found.values())[before:]
        yield new
        rounds, barren = rounds + 1, 0 if new else barren + 1


def shrink(trials: Trials, start: Example) -> tuple[Example, bool]:
    """A simpler prompt that breaks as well, and whether the budget sufficed.

    Slot by slot, the simplest of some simpler values with which it still breaks is taken, until
    none of them in any slot does.
    """
    best = start
    while True:
        before, tried_all = best, True
        for slot in trials.grammar.slots:
            simpler = spread(trials.grammar.simpler(best.choices, slot))
            tried = trials(simpler)
            tried_all &= len(tried) == len(simpler)
            best = next((each for each in tried if each.breaks), best)
        if best == before:
            return best, tried_all
        if not trials.left:
            return best, False


def spread(values: Sequence[Choices]) -> list[Choices]:
    """Some of many: the first two, those at a quarter and a half, and the last."""
    n = len(values)
    return [values[i] for i in sorted({0, 1, n // 4, n // 2, n - 1}) if 0 <= i < n]


def neighbour(trials: Trials, broken: Example) -> Example | None:
    """The prompt most like one that breaks which was run and passes: fewest slots differ.

    Where none of those differs in one slot alone, some that do are run, if the budget allows.
    """
    close = _closest(trials, broken)
    if close is None or len(_differing(close, broken)) > 1:
        grammar = trials.grammar
        beside = [spread(grammar.beside(broken.choices, slot)) for slot in grammar.slots]
        trials([each for some in beside for each in some])
        close = _closest(trials, broken)
    return close


def _closest(trials: Trials, broken: Example) -> Example | None:
    """The passing prompt with fewest other slots, then with later ones, then with nearer values."""
    names = list(trials.grammar.slots)
    _, here = trials.grammar.size(broken.choices)

    def far(each: Example) -> tuple[int, list[int], int, tuple[int, ...]]:
        differing = [-names.index(name) for name in _differing(each, broken)]
        _, there = trials.grammar.size(each.choices)
        apart = sum(abs(a - b) for a, b in zip(here, there, strict=True))
        return len(differing), differing, apart, there

    return min((e for e in trials.known.values() if e.passes), key=far, default=None)


def _differing(one: Example, other: Example) -> list[str]:
    return [name for name in one.choices if one.choices[name] != other.choices[name]]
