"""Whether the three steps of the IOI algorithm are done as much at all checkpoints that do IOI.

Source: Tigges et al. 2024, section 4 and Figure 4; the rule is claims.md's ``algorithm-stable``,
which other claims over training ask about first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from mechtests.measurement import Head, named
from mechtests.metrics.gates import Emergence
from mechtests.metrics.stages import (
    FINDING,
    MOVING,
    STAGES,
    SUPPRESSING,
    Measured,
    Needs,
    Stage,
    inhibiting,
    speaking,
)
from mechtests.rules import absent, below, beside, every, value_control
from mechtests.series import Curve, Moment
from mechtests.shares import Share, explained, readings
from mechtests.showing import shown
from mechtests.trends import FEWEST_MOMENTS, equivalent_throughout, steady
from mechtests.verdict import Control, Outcome, Verdict

DRAWS = 199
"""Random sets at each checkpoint."""
WITHIN = 0.20
"""How far a share may be from its mean over checkpoints."""
TREND = 0.15
"""How far it may rise or fall."""

NEEDS: Needs = {
    **MOVING,
    **SUPPRESSING,
    **FINDING,
    **inhibiting("selection"),
    **speaking("selection"),
}
"""What the rule reads, under the names that the steps read it by."""


def stable(measured: Measured, found: Emergence) -> Verdict:
    """Whether each helpful share is the same at every checkpoint that does IOI from its onset on.

    Equivalent to its mean over them within 0.20, simultaneously, and its trend within 0.15. Roles
    are chosen at each checkpoint on the selection half. A denominator below its guard at over a
    fifth of them: inconclusive; fewer are left out and named. Random heads, drawn again at each
    checkpoint, must stay below the levels.

    Args:
        measured: A series for each of ``NEEDS``, and the claim's random draws.
        found: When IOI is learned.
    """
    series = {name: measured[name] for name in NEEDS}
    cells = [
        SimpleNamespace(**{name: each[at] for name, each in series.items()}) for at in found.formed
    ]
    moments = [found.onset.moments[at] for at in found.formed]
    courses = [Course.of(stage, moments, cells) for stage in STAGES]
    parts = [part for course in courses for part in course.parts(measured)]
    controls = [course.random(measured) for course in courses]
    curves = [curve for course in courses for curve in course.shown()]
    verdict = every(*parts, what="the shares of the algorithm")
    return beside(verdict, *controls).showing(curves=[*curves, *found.shown])


@dataclass(frozen=True, eq=False)
class Course:
    """One step's helpful share at the checkpoints that do the task.

    Attributes:
        stage: The step.
        moments: The checkpoints whose whole is above its guard.
        cells: What was measured at each of them.
        heads: The heads of the role at each.
        shares: Their helpful share at each.
        failing: The checkpoints whose whole is not above its guard.
    """

    stage: Stage
    moments: tuple[Moment, ...]
    cells: tuple[Measured, ...]
    heads: tuple[list[Head], ...]
    shares: tuple[Share, ...]
    failing: tuple[str, ...]

    @classmethod
    def of(cls, stage: Stage, moments: Sequence[Moment], cells: Sequence[Measured]) -> Course:
        """A step at some checkpoints, from what was measured at each."""
        heads = [stage.chosen(cell, "selection") for cell in cells]
        shares = [helpful(cell, stage, each) for cell, each in zip(cells, heads, strict=True)]
        kept = [at for at, share in enumerate(shares) if share.unguarded is None]
        return cls(
            stage,
            tuple(moments[at] for at in kept),
            tuple(cells[at] for at in kept),
            tuple(heads[at] for at in kept),
            tuple(shares[at] for at in kept),
            tuple(moment.label for at, moment in enumerate(moments) if at not in kept),
        )

    @property
    def open(self) -> str | None:
        """Why nothing can be said of the share over training, or None."""
        count = len(self.moments) + len(self.failing)
        if len(self.failing) > count / 5:
            return (
                f"denominator: D is not above its guard at {len(self.failing)} of {count} "
                f"checkpoints ({', '.join(self.failing)})"
            )
        if len(self.moments) < FEWEST_MOMENTS:
            return f"{FEWEST_MOMENTS} checkpoints that do IOI decide, there are {len(self.moments)}"
        return None

    def curve(self, shares: Sequence[Share]) -> Curve:
        """Shares over training, prompt by prompt."""
        return Curve.of(self.moments, [share.points for share in shares])

    def parts(self, measured: Measured) -> list[Verdict]:
        """Whether the share is the same at every checkpoint, and has no trend."""
        what = f"helpful {self.stage.what}"
        if self.open:
            return [Verdict(Outcome.INCONCLUSIVE, f"{what}: {self.open}")]
        curve = self.curve(self.shares)
        if self.failing:
            what += f" (without {', '.join(self.failing)}: denominator)"
        generator = measured.generator(f"band of the {self.stage.what}")
        return [
            equivalent_throughout(curve, WITHIN, of="mean", what=what, generator=generator),
            steady(curve, TREND, what=what),
        ]

    def random(self, measured: Measured) -> Control:
        """The control that random heads, drawn again at each checkpoint, stay below the level."""
        name, generator = f"random heads, {self.stage.level:g}", measured.generator("random heads")
        if self.open or not any(self.heads):
            return absent(name, "the share of the role is not known" if self.open else "no role")
        parts = []
        for cell, heads, moment in zip(self.cells, self.heads, self.moments, strict=True):
            sets = self.stage.matched(cell, heads, DRAWS, generator).sets
            found = self.stage.effects(cell)
            whole = found.helping("selection")
            each = [explained(found, one, "evaluation", among=whole) for one in sets]
            contrasts = [share.contrast(self.stage.level) for share in each]
            mean = sum(contrasts[1:], contrasts[0]) * (1 / len(contrasts))
            parts.append(below(mean, 0.0, what=f"N - {self.stage.level:g} D at {moment.label}"))
        return value_control(name, every(*parts, what=self.stage.what))

    def shown(self) -> list[Any]:
        """The share, and that of the first checkpoint's heads throughout, as curves."""
        if self.open:
            return []
        frozen = [helpful(cell, self.stage, self.heads[0]) for cell in self.cells]
        names = (self.stage.what, f"{self.stage.what}, heads {named(self.heads[0])} throughout")
        return [
            shown(self.curve(each), name)
            for each, name in zip((self.shares, frozen), names, strict=True)
        ]


def helpful(measured: Measured, stage: Stage, heads: Sequence[Head]) -> Share:
    """The helpful share of some heads on the evaluation half."""
    return readings(stage.effects(measured), heads, "selection", "evaluation")["helpful"]
