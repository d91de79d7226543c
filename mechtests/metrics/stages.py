"""The three steps of the IOI algorithm: who does each, for whom, and what it is measured by.

Source: Tigges et al. 2024, Figure 4 (B, C, D) and its code of consistency over training: name
movers and copy suppression heads write the answer; S-inhibition heads tell the name movers'
queries where not to look; induction and duplicate-token heads tell the S-inhibition heads' values
that S was there before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from mechtests.matched import Draws, matched_draws
from mechtests.measurement import Half, Head
from mechtests.metrics import attention, effects, inhibition, joint, paths, roles
from mechtests.metrics.copying import copy_scores
from mechtests.metrics.metric import Need
from mechtests.metrics.suppression import cspa, mean_z_by_position, suppression_heads
from mechtests.shares import Effects
from mechtests.tasks.ioi import ioi
from mechtests.tasks.repeated_tokens import repeated_tokens
from mechtests.tasks.text import text

Needs = Mapping[str, Need]
Measured = Any
"""What has each need's measurement under the need's name."""

MOVING: Needs = {"copying": copy_scores(ioi), "effects": effects.direct_effects(ioi)}
SUPPRESSING: Needs = {"cspa": cspa(text, inputs={"mean": mean_z_by_position(text)})}
FINDING: Needs = {"scores": attention.head_scores(repeated_tokens)}


def inhibiting(by: Half) -> Needs:
    """What S-inhibition heads are, and what each head tells the name movers' queries.

    Args:
        by: The half that chooses the name movers.
    """
    return {
        "inhibition": inhibition.s_inhibition(
            ioi, corruption="swapped order", inputs=MOVING, chosen_by=by
        ),
        "into_queries": inhibition.s_inhibition(ioi, inputs=MOVING, chosen_by=by),
    }


def speaking(by: Half) -> Needs:
    """What S-inhibition heads are, and what each head tells their values.

    Args:
        by: The half that chooses name movers and S-inhibition heads.
    """
    role = inhibiting(by)["inhibition"]
    into = paths.into_s_inhibition(ioi, inputs={"inhibition": role}, chosen_by=by)
    return {"inhibition": role, "into_values": into}


@dataclass(frozen=True)
class Stage:
    """One step of the algorithm.

    Attributes:
        name: Where to the heads of the role speak: ``into_logits``.
        what: Whose share of what, in words.
        level: The share that the paper claims.
        holders: The heads of the role, from what was measured and the half that chooses.
        effects: Each head's effect on the receivers.
        reads: What holders and receivers read.
        receivers: The heads that receive it; None where the logits do.
        lacking: What is said where there is no receiver.
        hears: How the receivers do, see ``joint.jointly``.
    """

    name: str
    what: str
    level: float
    holders: Callable[[Measured, Half], list[Head]]
    effects: Callable[[Measured], Effects]
    reads: Needs
    receivers: Callable[[Measured, Half], list[Head]] | None = None
    lacking: str = ""
    hears: Mapping[str, Any] = field(default_factory=dict)

    @property
    def jointly(self) -> Need:
        """What all heads of the role say at once, as the selection half has them."""
        hearing = None if self.receivers is None else _given(self.receivers)
        metric = joint.jointly(
            self.name, _given(self.holders), hearing, inputs=tuple(self.reads), **self.hears
        )
        return metric(ioi, inputs=self.reads, chosen_by="selection")

    def below(self, measured: Measured, half: Half) -> range:
        """The layers whose heads can speak to the receivers that a half chose."""
        layers = range(measured.effects["direct_effect"].shape[1])
        if self.receivers is None:
            return layers
        return layers[: max((layer for layer, _ in self.receivers(measured, half)), default=0)]

    def chosen(self, measured: Measured, half: Half) -> list[Head]:
        """The heads of the role in those layers."""
        layers = self.below(measured, half)
        return [head for head in self.holders(measured, half) if head[0] in layers]

    def matched(
        self, measured: Measured, heads: list[Head], count: int, generator: np.random.Generator
    ) -> Draws:
        """Matched random sets among those layers, as the selection half has them."""
        of_layer = range(measured.effects["direct_effect"].shape[2])
        layers = dict.fromkeys(self.below(measured, "selection"), of_layer)
        return matched_draws(heads, layers, count, generator)


def _given(choose: Callable[[Measured, Half], list[Head]]) -> joint.Choose:
    """The same choice, from measurements by their names."""
    return lambda given, half: choose(SimpleNamespace(**given), half)


def movers(measured: Measured, half: Half) -> list[Head]:
    """Name movers and copy suppression heads, by their scores without their effect.

    So their effect is not what they were chosen by, and matched random heads are a fair control.
    """
    copying = roles.copying_heads(measured.copying, half)
    return sorted({*copying, *suppression_heads(measured.cspa, half)})


def finders(measured: Measured, half: Half) -> list[Head]:
    """Induction and duplicate-token heads."""
    kinds = ("induction", "duplicate")
    found = [roles.attention_heads(kind, measured.scores, half) for kind in kinds]
    return sorted({head for heads in found for head in heads})


ROLE: Needs = {"inhibition": inhibiting("selection")["inhibition"]}

MOVE = Stage(
    "into_logits",
    "share of name mover and copy suppression heads in the direct effect on IOI",
    0.70,
    movers,
    lambda found: Effects(found.effects, "direct_effect", found.effects),
    {"copying": MOVING["copying"], **SUPPRESSING},
)
INHIBIT = Stage(
    "into_queries",
    "share of S-inhibition heads in the effect on the name movers' queries",
    0.50,
    lambda found, half: roles.s_inhibition_heads(found.inhibition, half),
    lambda found: Effects(found.into_queries, "logit_difference", found.effects, -1.0),
    {**MOVING, **ROLE},
    lambda found, half: roles.name_movers(found.copying, found.effects, half),
    "no head is a name mover with effect",
    {"into": "q", "at_end": True},
)
FIND = Stage(
    "into_values",
    "share of induction and duplicate-token heads in the effect on the S-inhibition heads' values",
    0.50,
    finders,
    lambda found: Effects(found.into_values, "logit_difference", found.into_values, -1.0),
    {**FINDING, **ROLE},
    lambda found, half: roles.s_inhibition_heads(found.inhibition, half),
    "no head is an S-inhibition head",
    {"into": "v"},
)
STAGES = (MOVE, INHIBIT, FIND)
