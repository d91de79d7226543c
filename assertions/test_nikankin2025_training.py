"""Nikankin et al. 2025, Arithmetic Without Algorithms: a Bag of Heuristics.

arXiv 2410.21272, pages 8 and 9: heuristics over training.
"""

from functools import cache

import numpy as np

from mechtests import claim
from mechtests.arithmetic import (
    bag_knockout_measures,
    bag_measures,
    dynamics,
    gates,
    mutual_measures,
)
from mechtests.arithmetic.bag_measures import triples_of
from mechtests.arithmetic.learned import Learned
from mechtests.arithmetic.mutual import Explained, mutual_explains
from mechtests.arithmetic.neuron_measures import GROUPS
from mechtests.arithmetic.reading import pooled, rows, sample
from mechtests.arithmetic.throughout import works_throughout
from mechtests.arithmetic.triples import Heuristics
from mechtests.circuits.stability import FEWEST
from mechtests.tasks.arithmetic import NAMES, arithmetic
from mechtests.verdict import Outcome, Verdict, not_applicable

ANSWERS = bag_measures.answers_here()


def readable(measured, name):
    """The measurements at checkpoints where something is learned, and the operators of each.

    The operators are those that have emerged, are gated there, and were measured.
    """
    series, learned = measured[name], Learned.of(measured.answers)
    found, operators = {}, {}
    for moment, each in zip(series.moments, series, strict=True):
        there = set(np.unique(each["operator"]).tolist())
        if some := [op for op in learned.at(moment.label) if op in there]:
            found[moment.label], operators[moment.label] = each, some
    return found, operators, learned


def without(learned):
    """What is said of the operators that are read at no checkpoint."""
    return {NAMES[op]: why for op, why in learned.reasons.items()}


@claim(
    "nikankin2025.heuristics-accumulate",
    section="Figure 10a",
    says="The final heuristics accumulate gradually over training.",
    over="training",
    task=arithmetic,
    components=["neurons", "heuristics", "training"],
    gate=gates.does(),
    needs={"answers": ANSWERS, "bags": bag_measures.bags_here()},
    where_applicable=["bags"],
    controls=["stationary series of the same sizes and turnovers", "chance, by layer (shown)"],
)
def test_the_final_heuristics_accumulate_gradually(measured, judge):
    """The share of the final triples present rises by more than 0.1, and no step is half of it.

    Triples are (heuristic, layer, neuron), of the 1.5% of each middle and late layer, at 0.6.
    Trend: last third minus first of the checkpoints before the final one; no single step is over
    half of the whole rise; and at equal lags later checkpoints are more alike than earlier ones,
    beyond 199 stationary series. 7 checkpoints or more, equally far apart in log tokens, of the
    operators gated at all of them (equal weights); the interval leaves out a tenth of the problems
    that rank at a time. Pythia 6.9B, 23k to 113k steps: .11 .21 .32 .30 .34 .44 .54 .55 .64 .71.
    """
    if why := measured.lacks("bags"):
        judge(not_applicable(why))
    window = Learned.of(measured.answers).window(FEWEST + 1)
    labels = [measured.answers.moments[at].label for at in window.places]
    bags = dict(zip([m.label for m in measured.bags.moments], measured.bags, strict=True))
    if not labels:
        judge(not_applicable("; ".join(window.gated.reasons.values())))
    if missing := [label for label in labels if label not in bags]:
        judge(not_applicable(f"heuristics were not measured at {', '.join(missing)}"))
    series = [bags[label] for label in labels]

    @cache
    def judged(operators):
        whole = [triples_of(each, operators) for each in series]
        parts = [[triples_of(each, operators, g) for each in series] for g in range(GROUPS)]
        if not all(each[-1] for each in (whole, *parts)):
            return Verdict(Outcome.INCONCLUSIVE, "the final neurons match no heuristic")
        generator = measured.generator(f"churn of {operators}")
        return dynamics.accumulates(whole, generator, left_out=parts)

    verdict = pooled(lambda some: judged(tuple(some)), window.gated.operators, window.gated)
    judge(
        verdict.showing(
            checkpoints=labels,
            chance=by_chance(series, window.gated.operators),
            not_measured=dict(measured.bags.left_out),
        )
    )


def by_chance(series, operators):
    """The share of the final triples that as many random ones would have, by operator."""
    found = {}
    for operator in operators:
        sets = [triples_of(each, [operator]) for each in series]
        place = series[-1]["operators"].tolist().index(operator)
        most = int(series[-1]["libraries"][place])
        layers = {layer for each in sets for _, layer, _ in each}
        if sets[-1]:
            possible = dict.fromkeys(layers, most * int(series[-1]["width"][0]))
            shares = Heuristics.of(sets).by_chance(possible)
            found[NAMES[operator]] = shares.tolist()
    return found


@claim(
    "nikankin2025.mutual-explain",
    section="Figure 10b",
    says="Neurons shared with the final model explain most of the effect at each checkpoint.",
    over="training",
    task=arithmetic,
    components=["neurons", "heuristics", "training"],
    gate=gates.does(),
    needs={"answers": ANSWERS, "kept": mutual_measures.mutual_here()},
    where_applicable=["kept"],
    controls=["as many random neurons by layer of the checkpoint's heuristic neurons"],
)
def test_neurons_shared_with_the_final_model_explain_most(measured, judge):
    """Shared over all heuristic neurons, as faithfulness above the floor, is above 0.6.

    The mean over the checkpoints that do arithmetic, from an onset confirmed by the next two on
    and but the final one, of ratios of means. A
    shared neuron matches a heuristic that it matches in the final model too. Floor: no neuron of
    the middle and late layers; all else runs as it does. Checkpoints whose denominator is not
    surely above 0.2 are left out and named. Operators are pooled. Pythia 6.9B, addition, without
    the floor taken off: .79 on average.
    """
    if why := measured.lacks("kept"):
        judge(not_applicable(why))
    found, operators, learned = readable(measured, "kept")
    last = measured.answers.moments[-1].label
    checkpoints = [
        Explained(label, *samples(each, operators[label]))
        for label, each in found.items()
        if label != last
    ]
    if not checkpoints:
        why = "; ".join(learned.reasons.values())
        judge(not_applicable(f"no checkpoint but the final one does arithmetic; {why}"))
    counts = {label: each["counts"].tolist() for label, each in found.items()}
    judge(
        mutual_explains(checkpoints).showing(
            neurons=counts,
            left_out=without(learned),
            not_measured=dict(measured.kept.left_out),
        )
    )


def samples(found, operators):
    """NL of all, mutual, random and no neurons."""
    return (sample(found, found[n], operators) for n in ("all", "mutual", "random", "floor"))


@claim(
    "nikankin2025.knockout-throughout",
    version=2,
    section="Figure 10c",
    says="Knock-outs work at every checkpoint that can do arithmetic.",
    over="training",
    task=arithmetic,
    components=["neurons", "heuristics", "knockout", "training"],
    gate=gates.does(),
    needs={"answers": ANSWERS, "knocked": bag_knockout_measures.knockouts_here()},
    where_applicable=["knocked"],
    controls=["those of knockout-beats-random"],
)
def test_a_problem_needs_the_neurons_of_its_heuristics_throughout(measured, judge):
    """Accuracy without others minus without the heuristics' neurons is above 0.10 at each one.

    At every checkpoint that does arithmetic, from an onset confirmed by the next two on, 3 of them
    or more, against each control of
    ``knockout-beats-random`` and with its number of neurons, 10 of each middle and late layer;
    refuted where it is refuted at one (Holm). Where a layer has fewer for over a fifth of the
    prompts a checkpoint is undecided: so is each one of a model whose top 1.5% are fewer.
    Pythia 6.9B at 10, + and - alone: .04 to .24 against .62 to .86.
    """
    if why := measured.lacks("knocked"):
        judge(not_applicable(why))
    found, operators, learned = readable(measured, "knocked")
    accuracy = {}
    for label, each in found.items():
        mine = rows(each, operators[label], "evaluation")
        accuracy[label] = {
            "heuristics": float(each["heuristic"][mine].mean()),
            "controls": each["control"][mine].mean(0).tolist(),
        }
    judge(
        works_throughout(found, operators).showing(
            accuracy=accuracy,
            left_out=without(learned),
            not_measured=dict(measured.knocked.left_out),
        )
    )
