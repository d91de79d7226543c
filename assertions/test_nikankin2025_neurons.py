"""Nikankin et al. 2025, Arithmetic Without Algorithms: a Bag of Heuristics.

arXiv 2410.21272, pages 5, 15 and 17: a few neurons of each layer make the answer.
"""

from itertools import combinations, permutations

import numpy as np

from mechtests import claim
from mechtests.arithmetic import gates, measures, neuron_measures, other_tasks, reading
from mechtests.arithmetic.neuron_measures import LATE_SHARE, top_neurons
from mechtests.arithmetic.neuron_sets import chance, count_of, overlap, top
from mechtests.arithmetic.reading import kept, mean_faithfulness, pooled
from mechtests.measurement import HALVES
from mechtests.rules import beside, matched_random, value_control
from mechtests.tasks.arithmetic import NAMES, arithmetic
from mechtests.verdict import exactly, not_applicable

NEEDS = {"answers": measures.answers_here(), "kept": neuron_measures.neuron_circuits_here()}
PAPER = "the paper's own figures have it: few neurons do not suffice there"


def faithful(measured, circuit, floor, share, draws):
    """The pooled verdict on a circuit's faithfulness, beside as many random neurons."""
    found, gated = measured.kept, gates.gated_operators(measured.answers)
    operators = reading.operators_of(found)

    def rule(some):
        return kept(found, some, circuit, floor).above(share, what="faithfulness")

    ours = kept(found, operators, circuit, floor).ratio
    drawn = mean_faithfulness(found, found[draws], floor, operators)
    return beside(
        pooled(rule, operators, gated),
        matched_random(ours, np.nan_to_num(drawn).tolist(), what="random neurons"),
    )


@claim(
    "nikankin2025.neurons-sparse",
    section="Figure 4b",
    says="1.5% of the neurons of each middle and late layer suffice.",
    task=arithmetic,
    components=["neurons", "faithfulness"],
    gate=gates.does(),
    needs=NEEDS,
    controls=["as many random neurons of each layer"],
    exceptions={"*pythia*": PAPER, "*gpt-j*": PAPER},
)
def test_a_few_neurons_of_each_late_layer_suffice(measured, judge):
    """Faithfulness with the top 1.5% is above 0.75 over that without any neuron of these layers.

    Layers from half of the depth on; all else runs as it does. Neurons are ranked by their mean
    effect on the selection half, layer by layer. Shown: the released code's ranking, a ranking
    that does not see the answer, the paper's raw form, and the curve over how many neurons.
    Paper: Llama 3 8B .94 .97 .76 .93 (+ - x /), Pythia 6.9B .68 .80 .54 .12, GPT-J .84 .81 .83 .21.
    """
    found = measured.kept
    operators = reading.operators_of(found)
    curve = mean_faithfulness(found, found["curve"], "late_floor", operators)
    judge(
        faithful(measured, "late", "late_floor", 0.75, "late_random").showing(
            by_mean_and_spread=kept(found, operators, "late_spread", "late_floor").ratio,
            by_size_alone=kept(found, operators, "late_size", "late_floor").ratio,
            raw=kept(found, operators, "late", "nothing").ratio,
            by_share_of_neurons=dict(
                zip(map(str, neuron_measures.CURVE), curve.tolist(), strict=True)
            ),
        )
    )


@claim(
    "nikankin2025.first-mlp-sparse",
    section="Figure 12b",
    says="1% of the neurons of MLP 0 suffice.",
    task=arithmetic,
    components=["neurons", "faithfulness"],
    gate=gates.does(),
    needs=NEEDS,
    controls=["as many random neurons of MLP 0"],
)
def test_a_few_neurons_of_the_first_mlp_suffice(measured, judge):
    """With MLP 0 cut to its top 1% at the operands and the operator, faithfulness is above 0.75.

    Over all of MLP 0 at its mean there; the rest of the network is whole (the paper cuts the late
    layers to 1% at the same time: + .94, - .92, x .72, / .93 on Llama 3 8B).
    """
    judge(faithful(measured, "first", "first_floor", 0.75, "first_random"))


def shared(found, one, other, groups=slice(None)):
    """The shared part of two operators' sets, from opposite halves, both ways."""
    ways = [
        overlap(top_neurons(found, one, mine, groups), top_neurons(found, other, their, groups))
        for mine, their in (HALVES, HALVES[::-1])
    ]
    return float(np.mean(ways))


def by_size_alone(found, mine, ours):
    """The control that the sets share less with the largest neurons of another operator."""
    count = count_of(LATE_SHARE, found["size"].shape[-1])
    with_blind = [
        overlap(mine[at], top(found["size"][other, 0], count))
        for at, other in permutations(range(len(mine)), 2)
    ]
    theirs = float(np.mean(with_blind))
    said = f"top neurons by size alone share {theirs:.2f}, ours {ours:.2f}"
    return value_control("by size alone", exactly(theirs < ours, said))


@claim(
    "nikankin2025.neurons-shared",
    version=2,
    section="Figure 15",
    says="Operators share most of their important neurons.",
    task=arithmetic,
    components=["neurons"],
    gate=gates.does(),
    needs={
        "answers": measures.answers_here(),
        "found": neuron_measures.attribution_here(),
        **other_tasks.needs(),
    },
    where_applicable=list(other_tasks.needs()),
    controls=[
        "the top neurons by size alone, which do not see the answer, share less with them",
        "the top neurons of IOI, pronoun and agreement share less with them, where the model does",
        "chance, layer by layer (shown)",
    ],
)
def test_operators_share_important_neurons(measured, judge):
    """The shared part of two operators' top 1.5%, from opposite halves, is above 0.5 on average.

    Over all pairs of operators; the interval leaves out a tenth of the problems at a time. The
    ceiling is what one operator's halves share: below 0.5 nothing can be told. The top neurons of
    every other task whose gate is passed, and whose own halves share half of them, must share less
    (as many a layer, by the same attribution, from the other half); without such a task it cannot
    hold. Llama 3 8B: an intersection over union of .54 is a shared part of .70 (the paper writes
    45% unique).
    """
    found, gated = measured.found, gates.gated_operators(measured.answers)
    operators = [int(op) for op in found["operators"]]
    if len(operators) < 2:
        why = "; ".join(gated.reasons.values())
        judge(not_applicable(f"{len(operators)} operator is gated, and sharing needs two: {why}"))
        return
    places = range(len(operators))

    def mean_shared(groups):
        pairs = [shared(found, one, other, groups) for one, other in combinations(places, 2)]
        return float(np.mean(pairs))

    verdict = reading.set_above(
        mean_shared,
        np.arange(found["count"].shape[-1]),
        0.5,
        what="shared part of two operators' neurons",
        prompts=int(found["count"].sum()),
    )
    ceiling = float(np.mean([shared(found, one, one) for one in places]))
    if ceiling < 0.5:
        verdict = reading.undecided(verdict, f"two halves of one operator share {ceiling:.2f}")
    mine = [top_neurons(found, at, "evaluation") for at in places]
    elsewhere = other_tasks.controls(measured, mine, verdict.estimate)
    verdict = beside(verdict, by_size_alone(found, mine, verdict.estimate), *elsewhere)
    by_chance = [
        chance(top_neurons(found, one), mine[other]) for one, other in combinations(places, 2)
    ]
    judge(
        other_tasks.needing_one(verdict, elsewhere).showing(
            ceiling=ceiling,
            chance=float(np.mean([each.overlap for each in by_chance])),
            chance_p=max(each.p for each in by_chance),
            pairs={
                f"{NAMES[operators[a]]}, {NAMES[operators[b]]}": shared(found, a, b)
                for a, b in combinations(places, 2)
            },
        )
    )
