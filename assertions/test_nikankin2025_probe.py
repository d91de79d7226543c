"""Nikankin et al. 2025, Arithmetic Without Algorithms: a Bag of Heuristics.

arXiv 2410.21272, pages 4 and 19: where in the stream the answer can be read linearly.
"""

from dataclasses import replace

import numpy as np

from mechtests import claim
from mechtests.arithmetic import gates, measures, probe_measures
from mechtests.arithmetic.neuron_measures import FEWEST_LAYERS
from mechtests.arithmetic.probe_labels import POSITIONS
from mechtests.arithmetic.probe_measures import CHOSEN, as_many, at_best, shared, too_few
from mechtests.arithmetic.problems import EQUALS
from mechtests.arithmetic.reading import pooled
from mechtests.measurement import Sample
from mechtests.rules import above, below, beside, every, value_control
from mechtests.tasks.arithmetic import NAMES, arithmetic
from mechtests.verdict import Outcome, Verdict, not_applicable

LAST = POSITIONS.index(EQUALS)
PLACES = ("operand 1", "operator", "operand 2", "=")
ABOVE, BEYOND = 0.2, 0.1


class Read:
    """What was read of test problems at "=" and elsewhere, one number a problem."""

    def __init__(self, found):
        layers = found["hits"].shape[1] - 1
        self.found, self.layers = found, layers
        self.constant = self.of("constant")
        self.half = (at_best(found, LAST) + self.constant) / 2
        self.early = at_best(found, LAST, upto=-(-layers // 4) - 1)  # below a quarter
        self.middle = at_best(found, LAST, upto=3 * layers // 4)

    def of(self, name):
        """Whether one of the chosen probes reads it, 0 or 1."""
        return self.found[name].astype(float)

    def sample(self, values, operators):
        """Of some operators, as many problems of each, without those that have no value."""
        mine = as_many(self.found, operators) & np.isfinite(values)
        return Sample(values[mine], self.found["prompt"][mine], "accuracy")

    def rule(self, operators):
        """The four parts of the claim, over some operators."""
        last = self.of("last")
        contrasts = {
            "accuracy at = minus the commonest result's": (above, last - self.constant, ABOVE),
            "accuracy at = minus at operand 2": (above, last - self.of("second"), ABOVE),
            "at = before 1/4 of depth, minus half": (below, self.early - self.half, 0.0),
            "at = up to 3/4 of depth, minus half": (above, self.middle - self.half, 0.0),
        }
        parts = [
            side(self.sample(values, operators), margin, what=what)
            for what, (side, values, margin) in contrasts.items()
        ]
        return every(*parts, what="answer")

    def beyond(self, name, values, operators):
        """The control that the same probe reads less by over 0.1 elsewhere."""
        sample = self.sample(self.of("last") - values, operators)
        if not len(sample):
            return value_control(name, Verdict(Outcome.INCONCLUSIVE, "no problem in common"))
        return value_control(name, above(sample, BEYOND, what="accuracy at = minus its"))

    def accuracies(self):
        """By operator, of each position by depth, and of the controls."""
        shown = {}
        for operator in self.found["probed"].tolist():
            mine = self.found["operator"] == operator
            accuracy = self.found["hits"][mine].mean(0)
            chosen = {name: float(self.found[name][mine].mean()) for name in CHOSEN}
            by_depth = dict(zip(PLACES, np.round(accuracy.T, 3).tolist(), strict=True))
            shown[NAMES[operator]] = {**by_depth, **chosen, "test_problems": int(mine.sum())}
        return shown


@claim(
    "nikankin2025.answer-at-last",
    section="Figure 3",
    says="The answer becomes linearly readable at the last position in the middle layers, and "
    "only there.",
    task=arithmetic,
    components=["residual stream", "probe"],
    gate=gates.does(),
    needs={
        "answers": measures.answers_here(),
        "found": probe_measures.probes_here(),
        "untrained": probe_measures.untrained_here(),
    },
    controls=[
        "shuffled labels",
        "the same probe on both operands' embeddings side by side",
        "the same probe on the untrained cell",
    ],
)
def test_the_answer_can_be_read_at_the_last_position_from_the_middle_on(measured, judge):
    """A linear probe's accuracy at ``=``, at its best depth, and half of that in the middle.

    Above the commonest result's by 0.2, above the best at operand 2 by 0.2 (elsewhere causality
    forbids it), and half of its height over the commonest result's is first reached between 1/4
    and 3/4 of depth: the best depth before 1/4 is below half, the best up to 3/4 above. Each best
    depth is chosen on a validation part. Problems are correct ones with another answer than 0,
    70% train; results with fewer than 10 training problems are left out, and so is an operator
    where they are over half of the problems; with none left it is inconclusive. Operators weigh
    the same. Each control is below by 0.1.

    The map over depths is a discriminant's whose covariance is shrunk by a tenth; where accuracies
    are compared, the best on validation of it, one that is hardly shrunk, and a penalised logistic
    regression. A linear softmax free to use any direction adds and subtracts by itself what lies
    side by side, also from untrained embeddings: where the operands control does that, reading the
    answer does not show that the network computed it, and the claim is inconclusive.
    Llama 3 8B at ``=``, mean over operators: .09 behind 16 of 32 blocks, .30 behind 17, .60 behind
    19, .88 at most; 70B .04 behind 40 of 80, .56 behind 42, 1; Pythia 6.9B .34 behind 1 of 32, .56
    behind 15, .80; GPT-J .29 behind 1 of 28, .39 behind 15, .77. Elsewhere not comparable: the
    released script misaligns the labels of all positions but ``=``.
    """
    found, gated = measured.found, gates.gated_operators(measured.answers)
    operators, why = found["probed"].tolist(), too_few(found, gated.operators)
    if (layers := found["hits"].shape[1] - 1) < FEWEST_LAYERS:
        judge(not_applicable(f"{layers} layers have no middle ones"))
        return
    if not operators:
        said = "; ".join(why.values())
        few = Verdict(Outcome.INCONCLUSIVE, f"too few problems to fit a probe: {said}")
        left_out = {NAMES[op]: each for op, each in {**gated.reasons, **why}.items()}
        judge(few.showing(left_out=left_out))
        return
    read = Read(found)
    controls = {
        "shuffled labels": read.of("shuffled"),
        "both operands' embeddings": read.of("operands"),
        "the untrained cell": shared(found, measured.untrained, measured.untrained["last"]),
    }
    verdict = pooled(read.rule, operators, replace(gated, reasons={**gated.reasons, **why}))
    by_control = [read.beyond(name, each, operators) for name, each in controls.items()]
    judge(beside(verdict, *by_control).showing(accuracy=read.accuracies()))
