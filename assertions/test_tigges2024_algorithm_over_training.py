"""Tigges et al. 2024, LLM Circuit Analyses Are Consistent Across Training and Scale.

arXiv 2407.10827, section 4 and Figure 4: whether the heads that are known for the steps of the IOI
algorithm do as much of each once it is formed.
"""

from types import SimpleNamespace

from mechtests import claim
from mechtests.measurement import named
from mechtests.metrics import behaviour, gates
from mechtests.metrics.stages import FINDING, MOVING, STAGES, SUPPRESSING, inhibiting, speaking
from mechtests.rules import absent, below, beside, every, value_control
from mechtests.series import Curve
from mechtests.shares import explained, readings
from mechtests.showing import shown
from mechtests.tasks.ioi import ioi
from mechtests.trends import FEWEST_MOMENTS, equivalent_throughout, steady
from mechtests.verdict import Outcome, Verdict

DRAWS = 199  # at each checkpoint


def helpful(measured, stage, heads):
    """The helpful share of some heads on the evaluation half."""
    return readings(stage.effects(measured), heads, "selection", "evaluation")["helpful"]


class OverTraining:
    """One step's helpful share at the checkpoints that do the task.

    Attributes:
        cells: What was measured at each checkpoint whose whole is above its guard.
        failing: The checkpoints where it is not.
    """

    def __init__(self, stage, moments, cells):
        self.stage = stage
        heads = [stage.chosen(cell, "selection") for cell in cells]
        found = [helpful(cell, stage, each) for cell, each in zip(cells, heads, strict=True)]
        small = [share.unguarded is not None for share in found]
        self.failing = [moment.label for moment, no in zip(moments, small, strict=True) if no]
        self.kept = [at for at, no in enumerate(small) if not no]
        self.cells = [cells[at] for at in self.kept]
        self.moments = [moments[at] for at in self.kept]
        self.heads = [heads[at] for at in self.kept]
        self.shares = [found[at] for at in self.kept]

    @property
    def open(self):
        """Why nothing can be said of the share over training, or None."""
        count = len(self.kept) + len(self.failing)
        if len(self.failing) > count / 5:
            return (
                f"denominator: D is not above its guard at {len(self.failing)} of {count} "
                f"checkpoints ({', '.join(self.failing)})"
            )
        if len(self.kept) < FEWEST_MOMENTS:
            return f"{FEWEST_MOMENTS} checkpoints that do IOI decide, there are {len(self.kept)}"
        return None

    def curve(self, shares):
        """Shares over training, prompt by prompt."""
        return Curve.of(self.moments, [share.points for share in shares])

    def parts(self, measured):
        """Whether the share is the same at every checkpoint, and has no trend."""
        what = f"helpful {self.stage.what}"
        if self.open:
            return [Verdict(Outcome.INCONCLUSIVE, f"{what}: {self.open}")]
        curve = self.curve(self.shares)
        if self.failing:
            what += f" (without {', '.join(self.failing)}: denominator)"
        generator = measured.generator(f"band of the {self.stage.what}")
        return [
            equivalent_throughout(curve, 0.20, of="mean", what=what, generator=generator),
            steady(curve, 0.15, what=what),
        ]

    def random(self, measured):
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

    def shown(self):
        """The share, and that of the first checkpoint's heads throughout, as curves."""
        if self.open:
            return []
        frozen = [helpful(cell, self.stage, self.heads[0]) for cell in self.cells]
        names = (self.stage.what, f"{self.stage.what}, heads {named(self.heads[0])} throughout")
        return [
            shown(self.curve(each), name)
            for each, name in zip((self.shares, frozen), names, strict=True)
        ]


@claim(
    "tigges2024.algorithm-stable",
    section="4",
    says="Once the IOI algorithm is formed, the three shares stay stable.",
    over="training",
    task=ioi,
    components=["algorithm", "name-mover", "s-inhibition", "induction"],
    gate=gates.does(ioi, patched=True),
    needs={
        "ioi": behaviour.answers(ioi.behaviour),
        **MOVING,
        **SUPPRESSING,
        **FINDING,
        **inhibiting("selection"),
        **speaking("selection"),
    },
    controls=["random heads, redrawn at each checkpoint, stay below 0.70, 0.50 and 0.50"],
)
def test_the_shares_of_the_algorithm_stay_stable_once_it_is_formed(measured, judge):
    """At every checkpoint that does IOI from its onset on, each helpful share is as on average.

    Equivalent to its mean over them within 0.20, simultaneously, and its trend within 0.15. Roles
    are chosen at each checkpoint on the selection half. A denominator below its guard at over a
    fifth of them: inconclusive; fewer are left out and named.
    """
    found = gates.emergence(measured.ioi, ioi, measured.generator("onset"))
    if open_ := found.unasked:
        judge(open_)
    names = (*MOVING, *SUPPRESSING, *FINDING, *inhibiting("selection"), "into_values")
    series = {name: measured[name] for name in names}
    cells = [
        SimpleNamespace(**{name: each[at] for name, each in series.items()}) for at in found.formed
    ]
    moments = [found.onset.moments[at] for at in found.formed]
    parts, controls, curves = [], [], []
    for stage in STAGES:
        course = OverTraining(stage, moments, cells)
        parts += course.parts(measured)
        controls.append(course.random(measured))
        curves += course.shown()
    verdict = every(*parts, what="the shares of the algorithm")
    judge(beside(verdict, *controls).showing(curves=[*curves, *found.shown]))
