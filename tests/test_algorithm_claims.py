"""The claims on the shares of the IOI algorithm, on networks whose algorithm is planted.

What each head does is measured; which heads copy, suppress or find what came before is said, as
the planted networks have no room for the other tasks' prompts, and which edges matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pytest

from mechtests.circuits.graph import Graph, Read
from mechtests.measurement import HALVES, Head, Measurement
from mechtests.metrics import effects, stages
from mechtests.metrics.inhibition import s_inhibition
from mechtests.metrics.paths import into_s_inhibition
from mechtests.metrics.roles import s_inhibition_heads
from mechtests.models.network import Network
from mechtests.tasks.ioi import ioi
from mechtests.verdict import Outcome, Verdict
from tests.measuring import measure
from tests.planted import IOI_WORDS, ioi_stream
from tests.planted_inhibition import by_position_stream, unplugged
from tests.shipped_claims import TESTS, _JudgedError, _stop

HEADS = 20
"""A layer: so many that a head which is alone the best of them has p = 0.05."""
DUPLICATE, INHIBITION, MOVER = (0, 3), (1, 6), (2, 5)
PROMPTS = ioi.generate(IOI_WORDS, 40, np.random.default_rng(0))
MOVE, INHIBIT, FIND = (
    f"tigges2024.{name}-explain{s}"
    for name, s in (("name-movers", ""), ("s-inhibition", "s"), ("induction", "s"))
)


@cache
def network(kind: str) -> Network:
    if kind == "token":
        return ioi_stream(MOVER, DUPLICATE, INHIBITION, heads=HEADS).network()
    stream = by_position_stream(MOVER, DUPLICATE, INHIBITION, heads=HEADS)
    return (unplugged(stream, DUPLICATE) if kind == "no duplicate" else stream).network()


def said(value: str, heads: Sequence[Head], *others: str) -> Measurement:
    """Scores by which these heads have a role."""
    scores = np.full((len(PROMPTS), 3, HEADS), 0.01)
    for head in heads:
        scores[:, *head] = 0.9
    values = {value: scores, **{other: np.full_like(scores, 0.01) for other in others}}
    return Measurement(
        name="said",
        values=values,
        axes=dict.fromkeys(values, ("prompt", "layer", "head")),
        units={},
        cluster=PROMPTS.cluster,
        template=PROMPTS.template,
        half=PROMPTS.half,
    )


@cache
def chain() -> Measurement:
    """Scores of edges: one head tells the next, as in the networks, and all else is noise.

    Said and not measured: attention is so sure in these networks that no gradient reaches queries.
    """
    graph = Graph(3, HEADS)
    scores = 1e-4 * np.random.default_rng(0).random(graph.allowed.shape) * graph.allowed
    duplicate, inhibition, mover = (graph.head(*each) for each in (DUPLICATE, INHIBITION, MOVER))
    for writer, reader in (
        (0, Read(DUPLICATE[0], "v", DUPLICATE[1])),
        (duplicate, Read(INHIBITION[0], "v", INHIBITION[1])),
        (inhibition, Read(MOVER[0], "q", MOVER[1])),
        (mover, Read(3, "logits")),
    ):
        scores[writer, graph.reader(reader)] = 1.0
    axes = dict.fromkeys(HALVES, ("writer", "reader"))
    facts = np.array([3, HEADS, 0, HEADS], dtype=float)
    values = {**dict.fromkeys(HALVES, scores), "graph": facts}
    told = (PROMPTS.cluster, PROMPTS.template, PROMPTS.half)
    return Measurement("said", values, {**axes, "graph": ("size",)}, {}, *told)


@cache
def part(kind: str, mover: Head, name: str) -> Measurement:
    """One measurement of the IOI prompts, by the name a claim reads it under."""
    net, (base, _, swapped) = network(kind), name.partition("_swapped")
    if base == "copying":
        return said("copied", [mover], "copied_absent", "negative")
    if base == "effects":
        return measure(net, effects.direct_effects, PROMPTS)
    if base == "edges":
        return chain()
    by = "evaluation" if swapped else "selection"
    if base == "into_values":
        into = replace(into_s_inhibition, params={**into_s_inhibition.params, "chosen_by": by})
        given = {"inhibition": part(kind, mover, f"inhibition{swapped}")}
        return measure(net, into, PROMPTS, inputs=given)
    inhibition = replace(s_inhibition, params={"chosen_by": by})
    given = {each: part(kind, mover, each) for each in ("copying", "effects")}
    corruption = "swapped order" if base == "inhibition" else "S2->IO"
    return measure(net, inhibition, PROMPTS, corruption=corruption, inputs=given)


@dataclass(frozen=True)
class Found:
    """What a claim reads of a planted network, measured when it is read."""

    kind: str = "position"
    mover: Head = MOVER
    said: Mapping[str, Measurement] = field(default_factory=dict)

    stage: stages.Stage = stages.MOVE

    def __getitem__(self, name: str) -> Measurement:
        if name == "joint":
            return self.joint_patch()
        return self.said[name] if name in self.said else part(self.kind, self.mover, name)

    def joint_patch(self) -> Measurement:
        need = self.stage.jointly
        metric = replace(need.metric, params=dict(need.params))
        given = {name: self[name] for name, _ in need.inputs}
        return measure(network(self.kind), metric, PROMPTS, inputs=given)

    def __getattr__(self, name: str) -> Measurement:
        return self[name]

    def generator(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng(0)


def measured(
    kind: str = "position",
    mover: Head = MOVER,
    duplicate: Head = DUPLICATE,
    previous: Head | None = None,
    **more: Measurement,
) -> Found:
    scores = said("duplicate", [duplicate], "induction", "previous")
    if previous is not None:
        scores["previous"][:, *previous] = 0.9
    nothing = said("kl_mean_ablated", [], "kl_preserved")
    return Found(kind, mover, {"scores": scores, "cspa": nothing, **more})


STAGE_OF = {MOVE: stages.MOVE, INHIBIT: stages.INHIBIT, FIND: stages.FIND}


def judged(claim: str, found: Found) -> Verdict:
    found = replace(found, stage=STAGE_OF[claim])
    with pytest.raises(_JudgedError) as stopped:
        TESTS[claim](measured=found, judge=_stop)
    return stopped.value.verdict


def test_a_planted_chain_is_found_by_its_heads_on_both_halves() -> None:
    found = measured()
    for suffix in ("", "_swapped"):
        half = "selection" if not suffix else "evaluation"
        assert s_inhibition_heads(found[f"inhibition{suffix}"], half) == [INHIBITION]
        into = found[f"into_values{suffix}"]
        assert np.argwhere(into["into"]).tolist() == [[0, *INHIBITION], [1, *INHIBITION]]
        change = into.mean("logit_difference") / into.mean("clean")
        assert np.unravel_index(change.argmin(), change.shape) == DUPLICATE
        assert change[DUPLICATE] < -1.0
        change[DUPLICATE] = 0.0
        assert np.abs(change).max() < 0.01


@pytest.mark.parametrize("claim", [MOVE, INHIBIT, FIND])
def test_where_each_step_is_done_by_its_planted_head_the_claim_holds(claim: str) -> None:
    verdict = judged(claim, measured())
    assert verdict.outcome is Outcome.HOLDS, verdict
    head = dict(zip((MOVE, INHIBIT, FIND), (MOVER, INHIBITION, DUPLICATE), strict=True))[claim]
    assert f"heads {head[0]}.{head[1]} on evaluation" in verdict.sentence
    assert verdict.shown["replication"].startswith("holds"), verdict.shown["replication"]
    assert verdict.shown["shares"]["helpful"] > 0.95
    assert verdict.shown["ceiling_best_heads"]["heads"] == f"{head[0]}.{head[1]}"
    assert verdict.shown["patched_at_once"]["share"] > 0.95
    over_circuit = verdict.shown["over_circuit_heads"]
    assert over_circuit["heads"] == f"{head[0]}.{head[1]}"
    assert min(over_circuit["signed"], over_circuit["helpful"]) > 0.95


def test_where_a_head_that_copies_is_not_the_one_that_moves_names_the_share_is_refuted() -> None:
    verdict = judged(MOVE, measured(mover=(2, 6)))
    assert verdict.outcome is Outcome.REFUTED, verdict


def test_heads_that_tell_the_name_and_not_its_position_are_no_s_inhibition_heads() -> None:
    """By the three signs; what they tell reaches the queries all the same."""
    verdict = judged(INHIBIT, measured("token"))
    assert verdict.outcome is Outcome.REFUTED, verdict
    assert "heads none" in verdict.sentence
    verdict = judged(FIND, measured("token"))
    assert verdict.outcome is Outcome.NOT_APPLICABLE, verdict
    assert "no head is an S-inhibition head" in verdict.sentence


def test_where_another_head_finds_duplicates_than_the_one_that_is_heard_it_is_refuted() -> None:
    verdict = judged(FIND, measured(duplicate=(0, 4)))
    assert verdict.outcome is Outcome.REFUTED, verdict


def test_without_a_duplicate_token_head_none_of_the_later_steps_holds() -> None:
    for claim in (INHIBIT, FIND):
        assert judged(claim, measured("no duplicate")).outcome is not Outcome.HOLDS


def test_a_wrong_role_that_has_the_share_keeps_the_claim_from_holding() -> None:
    """The head that does it is a previous-token head, and the role's heads are all of the rest."""
    verdict = judged(FIND, measured(duplicate=(0, 4), previous=DUPLICATE))
    [wrong] = [each for each in verdict.controls if each.name == "previous-token heads"]
    assert wrong.reached, wrong
    verdict = judged(FIND, measured(previous=(0, 9)))
    [wrong] = [each for each in verdict.controls if each.name == "previous-token heads"]
    assert not wrong.reached, wrong
    assert verdict.outcome is Outcome.HOLDS, verdict


def test_without_a_name_mover_with_effect_the_later_steps_are_not_asked_about() -> None:
    found = part("position", MOVER, "effects")
    harm = -np.abs(found["direct_effect"])
    harms = replace(found, values={**found.values, "direct_effect": harm})
    verdict = judged(INHIBIT, measured(effects=harms))
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert "no head is a name mover with effect" in verdict.sentence


def test_over_the_heads_of_a_circuit_those_outside_are_neither_part_nor_whole() -> None:
    """The head that moves names is left out of the circuit, and with it all that can be shared."""
    edges = chain()
    scores = edges["selection"].copy()
    scores[Graph(3, HEADS).head(*MOVER)] = 0.0
    without = replace(edges, values={**edges.values, "selection": scores})
    verdict = judged(MOVE, measured(edges=without))
    assert verdict.outcome is Outcome.HOLDS, verdict  # shown, and decides nothing
    assert verdict.shown["over_circuit_heads"] == {"heads": "none", "signed": 0.0, "helpful": None}


def test_heads_of_the_role_that_are_not_heard_do_nothing_when_patched_at_once() -> None:
    at_once = judged(FIND, measured(duplicate=(0, 4))).shown["patched_at_once"]
    assert abs(at_once["share"]) < 0.01
    assert at_once["every_head"] > 1.0
