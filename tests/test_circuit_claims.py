"""The shipped claims about circuits, on measurements whose truth is planted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from mechtests.case import Case
from mechtests.circuits import finding, measures
from mechtests.circuits.graph import Graph, Read
from mechtests.measurement import Measurement
from mechtests.models.cell import Cell
from mechtests.settings import Settings
from mechtests.verdict import Outcome, Verdict
from tests.shipped_claims import ALL, verdict_of

GRAPH = Graph(4, 8, parallel=True)
PROMPTS = 80
GRID = finding.grid_of(GRAPH, ratio=finding.COARSE)
HOLDS, REFUTED, INCONCLUSIVE = Outcome.HOLDS, Outcome.REFUTED, Outcome.INCONCLUSIVE


ROLE = ((2, 1), (2, 4), (3, 2), (3, 5))
SERVE = ((0, 3), (0, 6), (1, 0), (1, 7))
MLP = 3


@dataclass(frozen=True)
class World:
    """What is true of a task's circuits, as shares of the clean run above the corrupted one."""

    circuit: float = 0.95
    shuffled: float = 0.2
    random: float = 0.0
    corrupted: float = -4.0
    role: tuple[tuple[int, int], ...] = ROLE
    inside: tuple[tuple[int, int], ...] = (*ROLE, (1, 0))
    successors: tuple[tuple[int, int], ...] = ((1, 3),)
    effect: float = 1.0
    induction: tuple[tuple[int, int], ...] = ()
    into_mlp: tuple[tuple[int, int], ...] = ()
    best: int = GRID[-1]
    generator: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def noisy(self, *shape: int, spread: float = 0.3) -> np.ndarray:
        return spread * self.generator.standard_normal(shape)


def scores(world: World) -> np.ndarray:
    """Each head of the circuit reads the input and writes the logits, strongly."""
    found = 1e-4 * np.random.default_rng(1).random(GRAPH.allowed.shape) * GRAPH.allowed
    for layer, head in world.inside:
        node = GRAPH.head(layer, head)
        found[node, -1] = 1.0
        readers = np.flatnonzero(GRAPH.nodes == node)
        found[0, readers] = 0.9
    for head in world.into_mlp:
        node = GRAPH.head(*head)
        found[0, np.flatnonzero(GRAPH.nodes == node)] = 0.9
        found[node, GRAPH.reader(Read(MLP, "mlp"))] = 0.95
        found[GRAPH.mlp(MLP), -1] = 1.0
    return found


def edge_scores(world: World) -> dict[str, np.ndarray]:
    facts = np.array([GRAPH.layers, GRAPH.heads, 1, GRAPH.heads], dtype=float)
    return {"selection": scores(world), "evaluation": scores(world), "graph": facts}


def kept(world: World, share: float, *shape: int) -> np.ndarray:
    corrupted = world.corrupted
    return corrupted + share * (4.0 - corrupted) + world.noisy(PROMPTS, *shape)


def small(world: World) -> dict[str, np.ndarray]:
    up = np.where(world.best >= GRID, np.linspace(0.5, 1.0, len(GRID)), 0.5)
    return {
        "clean": 4.0 + world.noisy(PROMPTS),
        "corrupted": world.corrupted + world.noisy(PROMPTS),
        "circuit": kept(world, 0.0, len(GRID)) + world.circuit * up * (4.0 - world.corrupted),
        "shuffled": kept(world, world.shuffled, measures.SHUFFLES, len(GRID)),
    }


def heads(value: float, chosen: tuple[tuple[int, int], ...], world: World) -> np.ndarray:
    found = np.abs(world.noisy(PROMPTS, GRAPH.layers, GRAPH.heads, spread=0.01))
    for head in chosen:
        found[:, *head] += value
    return found


PLANTS = {
    "circuits.edge_scores": edge_scores,
    "circuits.small": small,
    "circuits.random": lambda world: {"kept": kept(world, world.random, 19)},
    "copying.copy_scores": lambda world: {
        "copied": heads(0.8, world.role, world),
        "copied_absent": heads(0.0, (), world),
        "negative": heads(0.0, (), world),
    },
    "effects.direct_effects": lambda world: {
        "direct_effect": world.noisy(PROMPTS, GRAPH.layers, GRAPH.heads)
        + heads(world.effect, (*world.role, *world.into_mlp), world)
    },
    "succession.successor_scores": lambda world: {
        "succession": heads(0.8, world.successors, world),
        "shuffled": heads(0.0, (), world),
        "unnormed": heads(0.0, (), world),
    },
    "attention.head_scores": lambda world: {
        "induction": heads(0.8, world.induction, world),
        **dict.fromkeys(("duplicate", "previous", "induction_unrepeated"), heads(0.0, (), world)),
    },
    "years.year_reading": lambda world: {
        **{value: heads(0.9, world.into_mlp, world) for value in ("looks", "attention", "names")},
        "raised": np.tile([0.0, 0.0, 0.0, 2.0], (PROMPTS, 1)),
    },
}


class Results:
    """Where the judging finds what was planted."""

    settings = Settings()

    def __init__(self, world: World) -> None:
        self.world = world

    def recording(self, cell: Cell) -> None:
        """It is no recording."""

    def measurement(self, need: Any, cell: Cell) -> Measurement:
        values = PLANTS[need.metric.name](self.world)
        axes = {name: need.metric.values[name].axes for name in values}
        cluster = np.arange(PROMPTS)
        return Measurement(
            need.metric.name, values, axes, {}, cluster, np.zeros_like(cluster), cluster % 2
        )


def judged(name: str, task: str = "ioi", **how: Any) -> Verdict:
    claim = next(each for each in ALL if each.id == f"tigges2024.{name}" and each.task == task)
    claim = replace(claim, gate=None)
    source: Any = type("Source", (), {"name": "planted", "kind": "hub"})()
    results: Any = Results(World(**how))
    return verdict_of(Case(claim, Cell("planted", None, source)), results)


def test_a_small_circuit_that_keeps_most_of_the_behaviour_holds() -> None:
    verdict = judged("circuit-faithful")
    assert verdict.outcome is HOLDS, verdict
    assert verdict.shown["edges"] <= round(0.05 * GRAPH.edges)
    assert verdict.shown["faithfulness"] == pytest.approx(0.95, abs=0.05)


@pytest.mark.parametrize(
    ("how", "outcome", "said"),
    [
        ({"circuit": 0.6}, REFUTED, "0.8 of the full model"),
        ({"random": 0.97}, INCONCLUSIVE, "random connected circuits"),
        ({"shuffled": 0.97}, INCONCLUSIVE, "shuffle 1"),
        # a corrupted run that does the task already: the plain share is high, what is above it low
        ({"circuit": 0.3, "corrupted": 3.7}, REFUTED, "both above the corrupted"),
    ],
)
def test_a_circuit_that_keeps_too_little_or_no_more_than_its_controls_does_not_hold(
    how: dict[str, float], outcome: Outcome, said: str
) -> None:
    verdict = judged("circuit-faithful", **how)
    assert verdict.outcome is outcome, verdict
    assert said in verdict.sentence


def test_heads_with_the_role_that_are_in_the_circuit_and_help_hold() -> None:
    verdict = judged("components-in-circuit")
    assert verdict.outcome is HOLDS, verdict
    assert verdict.shown["role_heads"] == "2.1, 2.4, 3.2, 3.5"


EVERY = tuple((layer, head) for layer in range(4) for head in range(8))


@pytest.mark.parametrize(
    ("how", "outcome", "said"),
    [
        ({"inside": ((0, 1), (0, 2), (1, 5))}, INCONCLUSIVE, "the control reaches it"),
        ({"effect": -1.0}, REFUTED, "summed direct effect"),
        ({"successors": SERVE, "inside": (*ROLE, *SERVE)}, INCONCLUSIVE, "successor heads: 4 of 4"),
        ({"role": ()}, Outcome.NOT_APPLICABLE, "no copying heads"),
    ],
)
def test_heads_outside_the_circuit_or_that_hinder_do_not_hold(
    how: dict[str, Any], outcome: Outcome, said: str
) -> None:
    verdict = judged("components-in-circuit", **how)
    assert verdict.outcome is outcome, verdict
    assert said in verdict.sentence


def test_a_circuit_over_half_of_the_heads_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding.search, "limit_of", lambda graph, share=0.05: graph.edges)
    verdict = judged("components-in-circuit", inside=EVERY)
    assert verdict.outcome is INCONCLUSIVE
    assert "over half" in verdict.sentence


WRITE = ((2, 1), (2, 2), (2, 4), (2, 6))
YEARS: dict[str, Any] = {
    "task": "greater_than",
    "inside": (),
    "into_mlp": WRITE,
    "successors": WRITE[:2],
    "induction": WRITE[2:],
    "role": (),
    "best": 16,
}


def test_of_greater_than_successor_and_induction_heads_have_the_role() -> None:
    verdict = judged("components-in-circuit", **{**YEARS, "role": WRITE})
    assert verdict.outcome is HOLDS, verdict  # copying heads with another role do not count
    assert verdict.shown["role_heads"] == "2.1, 2.2, 2.4, 2.6"
    assert verdict.shown["in_circuit"] == 4
    nothing = judged("components-in-circuit", **{**YEARS, "successors": (), "induction": ()})
    assert nothing.outcome is Outcome.NOT_APPLICABLE
    assert "no successor and induction heads" in nothing.sentence
    wrong = judged("components-in-circuit", **{**YEARS, "inside": SERVE, "role": SERVE, "best": 32})
    assert wrong.outcome is INCONCLUSIVE, wrong
    assert "copying heads: 4 of 4 are in the circuit" in wrong.sentence


def test_of_greater_than_what_heads_and_mlps_of_the_circuit_do_with_the_year_is_shown() -> None:
    shown = judged("components-in-circuit", **{**YEARS, "inside": ((3, 5),)}).shown
    heads = ["2.1", "2.2", "2.4", "2.6"]  # 3.5 writes to the logits alone
    for value in ("heads_look_at_the_year", "heads_name_the_year"):
        assert list(shown[value]) == heads
        assert all(share > 0.85 for share in shown[value].values())
    assert shown["mlps_raise_later_years"] == {"m3": 2.0}
