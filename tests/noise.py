"""Series of measurements without a mechanism: noise at twenty checkpoints, whose truth is known.

A world says what is true at every checkpoint; the noise around it is that of the prompts, alone
(``independent``) or as real series have it (``autocorrelated``): half of a prompt's noise is
the same at all checkpoints, the other half and the run's own wandering, which all prompts
share, are autoregressive with a lag-1 correlation drawn from 0.5 to 0.9 for each series.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from mechtests.circuits import finding, search
from mechtests.circuits.graph import Graph
from mechtests.tasks.prompts import Task

Kind = Literal["independent", "autocorrelated"]
KINDS: tuple[Kind, ...] = ("independent", "autocorrelated")
STEPS = (
    0, 64, 128, 256, 512, 1000, 2000, 3000, 4000, 6000, 8000, 11000, 16000, 23000, 32000, 45000,
    64000, 90000, 128000, 143000,
)  # fmt: skip
COUNT = len(STEPS)
EVEN = tuple(8000 * step for step in range(COUNT))
"""As many checkpoints in equal steps."""
PROMPTS = 100  # a head that seldom copies is then surely below 0.1 on either half
SHAPE = (3, 4)
WANDER = 0.03
"""How far recorded copy scores of Pythia-160m wander about their own trend, of 1."""
EARLY = 0.15
"""The part of that by which behaviour wanders where nothing is learned: 0.01 logits of 3."""
CONSTANT = (0.01, 0.1, 0.4, 0.7)
"""What a head's score may be at all checkpoints: no role, at a role's threshold, the level at
which an induction head counts as there, a role that stays."""

Arrays = Mapping[str, np.ndarray]
Behaviour = Literal["noise", "learned", "learned at once", "falls", "dips", "wrong"]
Heads = Literal[
    "constant", "none", "threshold", "turn over", "emerge", "emerge late", "named", "algorithm"
]
Course = Literal["steady", "trend", "dip"]
Sizes = Literal["apart", "rising", "margin", "together"]
Bag = Literal["none", "margin", "there"]


def _learned(at: int = 6) -> np.ndarray:
    return np.r_[np.zeros(at), 0.5, np.ones(COUNT - at - 1)]


def _after_a_dip(at: int = 6) -> np.ndarray:
    course = _learned(at)
    course[at - 3 : at] = -0.2
    return course


def _times(first: int, stop: int, factor: float) -> np.ndarray:
    course = _learned()
    course[first:stop] *= factor
    return course


COURSES: Mapping[Behaviour, np.ndarray] = {
    "noise": np.zeros(COUNT),
    "learned": _after_a_dip(),  # at 2e9 to 6e9 tokens, in every window
    "learned at once": _learned(),
    "falls": _times(13, COUNT, 0.7),
    "dips": _times(9, 11, 0.7),  # after the peak of the head that then turns over
    "wrong": -np.ones(COUNT),
}
"""What is learned of a task, as a share."""
NAMED = ((4, 6), (5, 9), (8, 1), (8, 2), (8, 10), (9, 4), (9, 7))
TURN = 12
"""The checkpoint from which on heads turn over, by its place."""
LATE = 13
"""Greater-than is learned more than 2 octaves after IOI, so that pairings can be told apart."""


MOVER, INHIBITION, DUPLICATE = (2, 1), (1, 1), (0, 1)
"""The heads of the IOI algorithm, each beside a head without a role that does the rest."""


def _share(course: Course) -> np.ndarray:
    """What a head does of its step: always the same, or exactly what is not allowed any more."""
    share = np.full(COUNT, 0.85)
    if course == "trend":
        share[TURN + 1 :] -= 0.15  # in the middle third of the checkpoints that do IOI
    if course == "dip":
        formed = COUNT - 6
        share[TURN] -= 0.20 * formed / (formed - 1)
    return share


def _planted(heads: Heads) -> Mapping[tuple[int, int], np.ndarray]:
    """The scores of the heads that have a role for a while, by layer and head."""
    early, course = np.arange(COUNT) < TURN, 0.9 * _learned()
    if heads == "named":
        ends = {(8, 2): 0.9, (8, 10): 0.9, (9, 7): 0.45}
        return {head: np.where(early, course, ends.get(head, 0.1)) for head in NAMED}
    return {
        "emerge": {(1, 1): course},
        "algorithm": {MOVER: course},
        "emerge late": {(1, 1): 0.9 * _learned(LATE)},
        "turn over": {
            (1, 1): np.where(early, np.where(np.arange(COUNT) == 7, 0.95, 0.8 * course), 0.05),
            (2, 2): np.where(early, 0.0, 0.9),
        },
    }.get(heads, {})


@dataclass(frozen=True)
class World:
    """What is true at every checkpoint.

    Attributes:
        name: In words.
        behaviour: Nothing is learned; it is learned at 2e9 to 6e9 tokens (greater-than at 3e10
            to 7e10), as real series do after a dip, so that it is surely not there before; it
            is learned there without one, at once; it then loses the 30% that
            ``behaviour-nondecreasing`` does not allow, for good or for a while; or the model
            prefers the wrong answers throughout.
        heads: Every score is constant over training (``CONSTANT``); no head has a role; the
            strongest is exactly at a role's threshold of 0.1; one head loses its role from the
            twelfth checkpoint on, and another one rises; one emerges, with IOI or with
            greater-than; what ``named-heads-160m`` says of them is so, but that 9.7 ends at
            exactly half of its peak; or each step of the IOI algorithm has its head.
        course: What the head of the last of those steps does of it over training.
        sizes: What the smallest faithful circuits do over training: each half's varies by itself,
            by half an octave; and both rise along a line by three octaves; vary together by
            exactly the 0.25 octaves that ``circuit-size-fluctuates`` must exceed; or are together
            at times an octave larger and at times an octave smaller.
            None where the claim is about something else.
        bag: Of the heuristics of arithmetic: they only turn over, and their neurons are no better
            than others; their neurons do exactly what is not enough (knock-outs at one checkpoint);
            or the final ones accumulate, and their neurons do what is claimed.
        others: The heads of single metrics, by name, where they differ.
        twins: Two checkpoints have the same weights.
        untold: The tokens of a checkpoint are not known.
    """

    name: str
    behaviour: Behaviour = "noise"
    heads: Heads = "constant"
    course: Course = "steady"
    sizes: Sizes | None = None
    bag: Bag = "none"
    others: Mapping[str, Heads] = field(default_factory=dict, hash=False)
    twins: bool = False
    untold: bool = False


@dataclass(frozen=True, eq=False)
class Draw:
    """One series of a world.

    Attributes:
        world: What is true.
        kind: The noise around it.
        generator: The source of all draws.
        shape: Layers and heads.
        within: The heads' truth is drawn among the constants up to this one.
    """

    world: World
    kind: Kind
    generator: np.random.Generator
    shape: tuple[int, int]
    within: int

    @cached_property
    def correlation(self) -> float:
        """Of neighbouring checkpoints."""
        return float(self.generator.uniform(0.5, 0.9))

    @cached_property
    def _mixing(self) -> np.ndarray:
        """What makes independent noise autoregressive, shape ``[moment, moment]``."""
        lags = np.abs(np.subtract.outer(np.arange(COUNT), np.arange(COUNT)))
        return np.linalg.cholesky(self.correlation**lags).astype(np.float32)

    def regressive(self, *rest: int) -> np.ndarray:
        """Stationary autoregressive noise of variance 1, shape ``[moment, ...]``."""
        noise = self.generator.standard_normal((COUNT, int(np.prod(rest))), dtype=np.float32)
        return (self._mixing @ noise).reshape(COUNT, *rest)

    def noise(self, *rest: int) -> np.ndarray:
        """The prompts' noise of variance 1, shape ``[moment, prompt, ...]``."""
        if self.kind == "independent":
            return self.generator.standard_normal((COUNT, PROMPTS, *rest), dtype=np.float32)
        always = self.generator.standard_normal((PROMPTS, *rest), dtype=np.float32)
        return np.sqrt(0.5) * (always + self.regressive(PROMPTS, *rest))

    def wandering(self, *rest: int) -> np.ndarray | float:
        """The run's own noise, which all prompts share, shape ``[moment, 1, ...]``."""
        return WANDER * self.regressive(1, *rest) if self.kind == "autocorrelated" else 0.0

    @property
    def heads(self) -> list[tuple[int, int]]:
        """The heads that have noise: all, or those that a claim names."""
        if self.world.heads == "named":
            return list(NAMED)
        return [(int(layer), int(head)) for layer, head in np.ndindex(*self.shape)]

    def truth(self, metric: str) -> np.ndarray:
        """The score of these heads at every checkpoint, shape ``[moment, 1, head]``."""
        heads = self.world.others.get(metric, self.world.heads)
        within = {"constant": self.within, "threshold": 1}.get(heads, 0)
        scores = self.generator.choice(CONSTANT[: within + 1], len(self.heads))
        truth = np.tile(scores, (COUNT, 1, 1))
        if heads == "threshold":
            truth[..., 0] = CONSTANT[1]
        for head, course in _planted(heads).items():
            at = self.heads.index(head)
            truth[:, 0, at] = np.maximum(truth[:, 0, at], course)
        wandering = self.wandering(len(self.heads))
        if heads == "named" and self.kind == "autocorrelated":
            wandering[..., -1] = 0.0
        return truth + (np.abs(wandering) if heads == "threshold" else wandering)

    def placed(self, values: np.ndarray) -> np.ndarray:
        """Values of these heads by layer and head; nothing of the others."""
        if len(self.heads) == np.prod(self.shape):
            return values.reshape(COUNT, PROMPTS, *self.shape)
        placed = np.zeros((COUNT, PROMPTS, *self.shape))
        placed[:, :, *zip(*self.heads, strict=True)] = values
        return placed

    def shares(self, metric: str) -> np.ndarray:
        """At how many of three places each head does it, prompt by prompt, as a share."""
        return self.thirds(self.truth(metric))

    def seldom(self) -> np.ndarray:
        """The same for what no head does."""
        return self.thirds(np.full((COUNT, 1, len(self.heads)), CONSTANT[0]))

    def thirds(self, truth: np.ndarray) -> np.ndarray:
        """Noise of three places to a prompt, whose mean is the truth, from 0 to 1."""
        from scipy.special import ndtri

        truth = np.clip(truth, 1e-3, 1 - 1e-3)
        noise, apart = self.noise(len(self.heads)), 0.99 * np.minimum(truth, 1 - truth)
        places = [noise < ndtri(truth + each * apart) for each in (-1, 0, 1)]
        return self.placed(np.sum(places, axis=0) / 3.0)

    def normal(self, spread: float) -> np.ndarray:
        """Noise of every head around 0."""
        return self.placed(spread * self.noise(len(self.heads)))

    def divided(self, role: tuple[int, int], size: float = 3.0) -> np.ndarray:
        """Effects that a head and its neighbour have of one step, the rest noise of size 0.3."""
        found = self.normal(0.3)
        if self.world.heads == "algorithm":
            share = _share(self.world.course if role == DUPLICATE else "steady")[:, None]
            layer, head = role
            found[:, :, layer, head] += size * share
            found[:, :, layer, head - 1] += size * (1.0 - share)
        return found

    def scores(self, metric: str, spread: float = 0.05) -> np.ndarray:
        """How far each head does it, prompt by prompt, from 0 to 1."""
        found = self.truth(metric) + spread * self.noise(len(self.heads))
        return self.placed(np.clip(found, 0.0, 1.0))


def _answers(draw: Draw, task: Task) -> Arrays:
    late = draw.world.behaviour == "learned" and task.name == "greater_than"
    course = (_after_a_dip(LATE) if late else COURSES[draw.world.behaviour])[:, None]
    course = course * (1.0 + draw.wandering()) + EARLY * draw.wandering()
    difference = 3.0 * course + draw.noise()
    corrupted = draw.noise() + 3.0 * EARLY * draw.wandering()
    gained = 0.6 * course + 0.1 * draw.noise()
    return {
        "logit_difference": difference,
        "corrupted_logit_difference": corrupted,
        "clean_minus_corrupted": difference - corrupted,
        "correct": (difference > 0).astype(np.float64),
        "probability_difference": gained,
        "beyond_other_prompt": gained,
        "rank": 1.0 + (difference < 0),
    }


def _head_scores(draw: Draw, task: Task) -> Arrays:
    low = np.abs(draw.normal(0.02))
    found = {"induction": draw.scores("attention.head_scores"), "induction_unrepeated": low}
    duplicate = low.copy()
    if draw.world.heads == "algorithm":
        duplicate[:, :, *DUPLICATE] += 0.8
    return {**found, "duplicate": duplicate, "previous": low}


def _copy_scores(draw: Draw, task: Task) -> Arrays:
    seldom = draw.seldom()
    copied = draw.shares("copying.copy_scores")
    return {"copied": copied, "copied_absent": seldom, "negative": seldom}


def _direct_effects(draw: Draw, task: Task) -> Arrays:
    """Every head's effect is noise; heads that come or go have one while they copy."""
    effect = draw.divided(MOVER)
    if draw.world.heads in ("turn over", "emerge"):
        effect = effect + draw.placed(np.tile(draw.truth("effects"), (1, PROMPTS, 1)))
    answers = _answers(draw, task)
    return {
        "direct_effect": effect,
        "clean": answers["logit_difference"],
        "corrupted": answers["corrupted_logit_difference"],
    }


def _successor_scores(draw: Draw, task: Task) -> Arrays:
    score = draw.shares("succession.successor_scores")
    return {"succession": score, "shuffled": draw.seldom(), "unnormed": score}


def _cspa(draw: Draw, task: Task) -> Arrays:
    """What is left of a head's effect is all but its score."""
    ablated = 0.02 * np.exp(0.3 * draw.noise(len(draw.heads)))
    left = 1.0 - draw.truth("suppression.cspa") + 0.2 * draw.noise(len(draw.heads))
    kept = ablated * np.maximum(left, 0.0)
    return {"kl_mean_ablated": draw.placed(ablated), "kl_preserved": draw.placed(kept)}


def _end_attention(draw: Draw, task: Task) -> Arrays:
    return {name: 0.2 + draw.normal(0.05) for name in ("IO", "S1", "S2")}


def _edge_scores(draw: Draw, task: Task) -> Arrays:
    """Edges that always matter as much, with the run's own wandering about that."""
    graph = Graph(*draw.shape, parallel=True)
    if draw.world.sizes is not None:
        return _one_head_after_another(graph)
    always = draw.generator.standard_normal((graph.writers, graph.readers))
    wandering = 0.5 * draw.regressive(graph.writers, graph.readers)
    own = 0.2 * draw.generator.standard_normal((2, COUNT, graph.writers, graph.readers))
    halves = (always + wandering + own) * graph.allowed
    facts = np.tile([*draw.shape, 1.0, draw.shape[1]], (COUNT, 1))
    return {"selection": halves[0], "evaluation": halves[1], "graph": facts}


def _one_head_after_another(graph: Graph) -> Arrays:
    """Scores by which the first n edges join the input with the logits, but for the last few.

    One head after another writes the logits and reads the input.
    """
    scores = np.zeros((graph.writers, graph.readers))
    for head in range(graph.layers * graph.heads):
        node = graph.head(*divmod(head, graph.heads))
        scores[node, -1] = 2.0 ** -float(head)
        scores[0, np.flatnonzero(graph.nodes == node)] = 0.9 * 2.0 ** -float(head)
    both = np.tile(scores, (COUNT, 1, 1))
    facts = np.tile([graph.layers, graph.heads, 1.0, graph.heads], (COUNT, 1))
    return {"selection": both, "evaluation": both, "graph": facts}


def _octaves(draw: Draw) -> np.ndarray:
    """Log2 sizes of the halves' smallest faithful circuits, ``[moment, half]``."""

    def vary(size: float, halves: int) -> np.ndarray:
        if draw.kind == "autocorrelated":
            return size * draw.regressive(halves)
        return size * draw.generator.standard_normal((COUNT, halves))

    found = 3.4 + np.zeros((COUNT, 2))
    if draw.world.sizes == "rising":
        line = np.log2(np.maximum(STEPS, 1.0))
        found += 0.5 * (line[:, None] - line[-1]) + 1.5
    if draw.world.sizes == "together":
        return found + draw.generator.choice((-1.0, 1.0), (COUNT, 1)) + vary(0.2, 2)
    if draw.world.sizes == "margin":
        return found + vary(0.25, 1) + vary(0.2, 2)
    return found + vary(0.5, 2)


def _sizes(draw: Draw, task: Task) -> Arrays:
    """Circuits keep 0.85 of the behaviour from their size on, and 0.7 below it."""
    grid = finding.grid_of(Graph(*draw.shape, parallel=True), ratio=search.RATIO)
    enough = np.log2(grid) >= _octaves(draw)[..., None]
    enough[..., -1] = True
    judged_on = 1 - np.arange(PROMPTS) % 2
    kept = np.where(enough, 0.85, 0.7)[:, judged_on]
    return {
        "clean": np.ones((COUNT, PROMPTS)),
        "corrupted": np.zeros((COUNT, PROMPTS)),
        "kept": kept,
    }


def _into(draw: Draw, role: tuple[int, int]) -> np.ndarray:
    """How the logit difference changes when heads below the receivers say something else."""
    change = -draw.divided(role)
    change[:, :, role[0] + 1 :] = 0.0
    return change


def _s_inhibition(draw: Draw, task: Task) -> Arrays:
    """Every head turns the name movers away or not by chance, and in the algorithm one does."""
    there = draw.world.heads == "algorithm"
    seen = {"attention_io": 0.1 * there + draw.normal(0.05), "attention_s1": draw.normal(0.05)}
    if there:
        seen["attention_io"][:, :, *INHIBITION] -= 0.5
        seen["attention_s1"][:, :, *INHIBITION] += 0.5
    return {
        "logit_difference": _into(draw, INHIBITION),
        **seen,
        "clean_logit_difference": _answers(draw, task)["logit_difference"],
        "clean_attention_io": np.full((COUNT, PROMPTS), 0.7),
        "clean_attention_s1": np.full((COUNT, PROMPTS), 0.1),
        "into": _received(draw, MOVER),
    }


def _into_s_inhibition(draw: Draw, task: Task) -> Arrays:
    answers = _answers(draw, task)
    return {
        "logit_difference": _into(draw, DUPLICATE),
        "clean": answers["logit_difference"],
        "corrupted": answers["corrupted_logit_difference"],
        "into": _received(draw, INHIBITION),
    }


def _received(draw: Draw, role: tuple[int, int]) -> np.ndarray:
    """Which heads are spoken to, by half."""
    into = np.zeros((COUNT, 2, *draw.shape))
    into[:, :, *role] = 1.0
    return into


PROBLEMS = 300
"""Of each operator, half of them to select on."""
MODULUS = 7


def _arithmetic(draw: Draw, task: Task) -> dict[str, Any]:
    """Addition is answered right from where the task is learned on, and nothing else ever."""
    operator = np.repeat(np.arange(4), PROBLEMS)
    learned = COURSES[draw.world.behaviour] >= 0.5
    correct = (learned[:, None] & (operator == 0)).astype(float)
    always = {
        "operator": operator,
        "result": np.tile(np.arange(1, 1 + PROBLEMS) % 190 + 1, 4),
        "largest": np.full(len(operator), 198),
        **dict.fromkeys(("predicted", "answer", "first", "second", "unseen"), operator * 0),
        **dict.fromkeys(("answer_logit", "normalized_logit"), operator * 0.0),
    }
    return {"correct": correct, **{name: np.tile(v, (COUNT, 1)) for name, v in always.items()}}


def _present(draw: Draw) -> np.ndarray:
    """Which of 240 triples there are, ``[moment, triple]``: 80 at a time."""
    generator, present = draw.generator, np.zeros((COUNT, 240), bool)
    arrival = generator.uniform(5, COUNT, 80)
    for at in range(COUNT):
        if draw.world.bag == "there":
            present[at, :80] = (arrival <= at) | (at == COUNT - 1)
            present[at, 80 + generator.permutation(160)[: 80 - present[at].sum()]] = True
            continue
        rate = generator.uniform(0, 0.3) if draw.kind == "autocorrelated" else 0.15
        before = present[at - 1] if at else np.arange(240) < 80
        present[at] = before & (generator.random(240) > rate)
        outside = generator.permutation(np.flatnonzero(~before))
        present[at, outside[: 80 - present[at].sum()]] = True
    return present


def _bags(draw: Draw, task: Task) -> dict[str, Any]:
    """A heuristic of each of some neurons of two layers, a few lost with any tenth of problems."""
    present = _present(draw)
    rows = [np.flatnonzero(each) for each in present]
    steady = draw.generator.random((240, 11)) > 0.02
    steady[:, 0] = True
    heuristics = np.array([[0, 2, of, MODULUS, -1, -1, 0] for of in range(MODULUS)])
    facts = {"heuristics": heuristics, "operators": [0], "libraries": [500], "width": [1000]}
    return {
        "neurons": [np.column_stack((0 * at, 2 + at % 2, at)) for at in rows],
        "effect": [np.ones(len(at)) for at in rows],
        "top": [steady[at].astype(np.int64) for at in rows],
        "triples": [np.column_stack((np.arange(len(at)), at % MODULUS)) for at in rows],
        "scores": [np.full(len(at), 0.8) for at in rows],
        **{name: [np.array(value)] * COUNT for name, value in facts.items()},
    }


def _pairs() -> dict[str, Any]:
    facts = {"operator": 0, "half": 1}
    found = {name: np.full((COUNT, PROMPTS), value) for name, value in facts.items()}
    return {**found, "prompt": np.tile(np.arange(PROMPTS), (COUNT, 1))}


def _mutual_neurons(draw: Draw, task: Task) -> dict[str, Any]:
    """Shared neurons explain 0.6 of all: exactly what is not enough; or as random ones; or 0.8."""
    share = {"none": 0.8, "margin": 0.6, "there": 0.8}[draw.world.bag]
    random = 0.8 if draw.world.bag == "none" else 0.3
    floor = 0.2 + 0.05 * draw.noise()
    whole = 0.5 * np.exp(0.3 * draw.noise())
    return {
        "floor": floor,
        "all": floor + whole,
        "mutual": floor + share * whole + 0.03 * draw.noise(),
        "random": floor + random * whole + 0.03 * draw.noise(),
        "counts": np.tile([[0, 80, 60]], (COUNT, 1, 1)),
        **_pairs(),
    }


def _knockouts(draw: Draw, task: Task) -> dict[str, Any]:
    """Random neurons are needed as much; or 0.10 less at one checkpoint and 0.5 less else."""
    from scipy.special import ndtri

    less = {"none": np.zeros(COUNT), "margin": np.full(COUNT, 0.5), "there": np.full(COUNT, 0.5)}
    gap = less[draw.world.bag]
    if draw.world.bag == "margin":
        gap[TURN] = 0.1
    heuristic = draw.noise() < ndtri(0.8 - gap)[:, None]
    control = [draw.noise() < ndtri(0.8) for _ in range(3)]
    return {
        "heuristic": heuristic.astype(float),
        "control": np.stack(control, -1).astype(float),
        "short": np.zeros((COUNT, PROMPTS)),
        "done": np.ones((COUNT, PROMPTS)),
        **_pairs(),
    }


PLANTS: dict[str, Callable[[Draw, Task], Arrays]] = {
    "behaviour.answers": _answers,
    "attention.head_scores": _head_scores,
    "attention.end_attention": _end_attention,
    "copying.copy_scores": _copy_scores,
    "effects.direct_effects": _direct_effects,
    "inhibition.s_inhibition": _s_inhibition,
    "paths.into_s_inhibition": _into_s_inhibition,
    "succession.successor_scores": _successor_scores,
    "suppression.cspa": _cspa,
    "circuits.edge_scores": _edge_scores,
    "circuits.sizes": _sizes,
    "arithmetic.answers": _arithmetic,
    "arithmetic.bags": _bags,
    "arithmetic.mutual_neurons": _mutual_neurons,
    "arithmetic.bag_knockouts": _knockouts,
}
"""What each metric gives in a series, by its name: arrays ``[moment, prompt, ...]``."""
WEIGHTS = "weights.fingerprints"
"""The one metric without prompts, planted by ``noise_results``."""
