"""Tigges et al. 2024, LLM Circuit Analyses Are Consistent Across Training and Scale.

arXiv 2407.10827, section 5: the graphs of circuits over training and scale.
"""

from dataclasses import replace

import numpy as np

from mechtests import claim, means
from mechtests.circuits import finding, measures, search, sizes, stability
from mechtests.circuits.similarity import ewma
from mechtests.metrics import behaviour, gates
from mechtests.orders import FEWEST_MODELS, ordered
from mechtests.rules import beside, every
from mechtests.tasks.ioi import ioi
from mechtests.verdict import Control, Outcome, Verdict, not_applicable

IOI = behaviour.answers(ioi.behaviour)
SCORES = measures.scores_on(ioi)
KINDS = ("edges", "nodes")
LAST = 5
FEWEST = 3


def learned(measured):
    """When IOI is learned."""
    return gates.emergence(measured.ioi, ioi, measured.generator("onset"))


def formed(scores, found):
    """The places of the checkpoints whose circuits are read: from the onset of IOI on."""
    labels = {found.onset.moments[at].label for at in found.formed}
    return [at for at, each in enumerate(scores.moments) if each.label in labels]


def tokens(series, places):
    """Tokens of some checkpoints, or their steps."""
    moments = [series.moments[at] for at in places]
    return np.array([m.step if m.tokens is None else m.tokens for m in moments], dtype=float)


@claim(
    "tigges2024.circuit-converges",
    section="5",
    says="Circuits approach the final circuit.",
    over="training",
    task=ioi,
    components=["circuit", "similarity"],
    needs={"ioi": IOI, "scores": SCORES},
    controls=["stationary series of the same sizes and turnover a step"],
)
def test_circuits_approach_the_final_circuit(measured, judge):
    """J* of checkpoints at fixed lags is larger by over 0.05 late in training than early.

    In nodes and in weighted edges; where the two disagree: inconclusive. Lags of 1, 2 and 4
    steps of equal tokens, from the onset of IOI on, at 6 checkpoints or more; circuits of 5% of
    the edges. J* is 0 for circuits with the same nodes a layer and 1 for the two halves' own.
    """
    found = learned(measured)
    if found.unasked:
        judge(found.unasked)
    places = formed(measured.scores, found)
    spaced = [places[at] for at in stability.equally_spaced(tokens(measured.scores, places))]
    if not spaced:
        judge(
            not_applicable(
                f"{len(places)} checkpoints of {measured.model} do IOI, and no {stability.FEWEST} "
                f"of them are equally far apart in tokens"
            )
        )
    scores = [measured.scores[at] for at in spaced]
    n = search.limit_of(finding.graph_of(scores[0]))
    circuits = stability.Circuits.of(scores, n, measured.generator("chance"))
    parts = [late(circuits, kind) for kind in stability.KINDS]
    outcomes = {part.outcome for part in parts}
    said = "; ".join(part.sentence for part in parts)
    if len(outcomes) > 1 and Outcome.INCONCLUSIVE not in outcomes:
        said = f"nodes and weighted edges disagree: {said}"
    verdict = Verdict(
        outcomes.pop() if len(outcomes) == 1 else Outcome.INCONCLUSIVE,
        f"circuits of {n} edges at {len(spaced)} checkpoints: {said}",
        p=max(1.0 if part.p is None else part.p for part in parts),
        p_refuted=max(1.0 if part.p_refuted is None else part.p_refuted for part in parts),
        parts=tuple(parts),
    )
    labels = [measured.scores.moments[at].label for at in spaced]
    judge(
        beside(verdict, stability.churn(circuits, measured.generator("churn"))).showing(
            checkpoints=labels,
            with_the_final_circuit={
                kind: circuits.to_the_last(kind)[:-1].tolist() for kind in stability.KINDS
            },
        )
    )


def late(circuits, kind):
    """Whether circuits at fixed lags are more alike late in training."""
    found = stability.fixed_lag_contrast(lambda lag: circuits.alike(kind, lag), len(circuits))
    what = f"J* of {kind} at fixed lags, last third minus first"
    if found is None:
        why = f"{what}: undefined, the halves of the prompts agree too little beyond chance"
        return Verdict(Outcome.INCONCLUSIVE, why)
    return means.above(found, 0.05, what=what)


@claim(
    "tigges2024.larger-more-stable",
    section="5",
    says="Larger models' circuits change less between checkpoints.",
    over="scale",
    task=ioi,
    components=["circuit", "similarity"],
    needs={"ioi": IOI, "scores": SCORES},
    controls=["what chance and the halves of the prompts give, in J*"],
)
def test_the_circuits_of_larger_models_change_less(measured, judge):
    """The mean J* of nodes of neighbouring checkpoints is ordered by size by more than 0.10.

    At checkpoints equally far apart in tokens in the last half of training, those that do IOI;
    circuits of 5% of the model's edges at each of them. Plain J rises with size by its chance and
    its ceiling alone, and is only shown, with its moving average.
    """
    models, without = learners(measured)
    values, raw = {}, {}
    for model, places in models:
        positions = tokens(model.scores, places)
        half = [at for at, p in zip(places, positions, strict=True) if 2 * p >= positions[-1]]
        spaced = stability.equally_spaced(tokens(model.scores, half), fewest=FEWEST + 1)
        if not spaced:
            without.append(f"{model.model}: no {FEWEST + 1} checkpoints equally far apart")
            continue
        scores = [model.scores[half[at]] for at in spaced]
        n = search.limit_of(finding.graph_of(scores[-1]))
        circuits = stability.Circuits.of(scores, n, measured.generator(f"chance {model.model}"))
        found = stability.neighbours(circuits.alike("nodes", 1))
        plain = circuits.raw("nodes", 1)
        raw[model.model] = {"j": plain.tolist(), "ewma": ewma(plain.tolist()).tolist()}
        if found is None:
            without.append(f"{model.model}: J* is undefined, the halves agree too little")
        else:
            values[model.model] = found
    verdict = ordered(values, more_than=0.10, what="J* of neighbouring checkpoints")
    judge(named(verdict, without).showing(plain=raw))


def learners(measured):
    """The models that do IOI at the end, each with the checkpoints that do, and the others."""
    found, without = [], []
    for model in measured.models:
        if why := model.lacks("ioi") or model.lacks("scores"):
            without.append(f"{model.model}: {why}")
            continue
        emerged = learned(model)
        if emerged.unasked:
            without.append(f"{model.model}: {emerged.unasked.sentence}")
        else:
            found.append((model, formed(model.scores, emerged)))
    return found, without


def named(verdict, without):
    """The verdict with the models that are left out."""
    if not without:
        return verdict
    return replace(verdict, sentence=f"{verdict.sentence}; left out: {'; '.join(without)}")


@claim(
    "tigges2024.circuit-grows",
    section="5",
    says="Circuit size grows with model size.",
    over="scale",
    task=ioi,
    components=["circuit", "size"],
    needs={"ioi": IOI, "scores": SCORES, "sizes": measures.sizes_on(ioi)},
    controls=["the size of the graph grows as much"],
)
def test_circuit_size_grows_with_model_size(measured, judge):
    """Log2 size of the smallest circuit that keeps 80%, ordered by size by more than 0.25 octaves.

    In edges and in nodes; the mean over the last 5 checkpoints and over the circuits of both
    halves, each judged on the other. A circuit that never keeps 80% up to 5% of the edges counts
    as the largest of those: where over a tenth do, sizes are the grid's and not the circuits'.
    """
    models, without = learners(measured)
    found = {
        model.model: sizes.smallest(model.scores, model.sizes, places[-LAST:])
        for model, places in models
    }
    edges, nodes = ({name: sizes.counts(each, of) for name, each in found.items()} for of in KINDS)
    graphs = {model.model: finding.graph_of(model.scores[-1]).edges for model, _ in models}
    parts = [
        ordered(
            {name: sizes.log_size(each) for name, each in counts.items()},
            more_than=0.25,
            what=f"log2 {kind} of the smallest faithful circuit",
        )
        for kind, counts in zip(KINDS, (edges, nodes), strict=True)
    ]
    if len(found) < FEWEST_MODELS:
        judge(named(parts[0], without))
    pairs = [pair for each in found.values() for pair in each]
    verdict = sizes.uncensored(every(*parts, what="circuit size"), pairs)
    parameters = {model.model: model.parameters for model, _ in models}
    judge(
        named(beside(verdict, as_the_graph(edges, graphs)), without).showing(
            edges={name: each.tolist() for name, each in edges.items()},
            graph_edges=graphs,
            parameters=parameters,
            edges_with_parameters=sizes.with_parameters(edges, parameters),
            nodes_with_parameters=sizes.with_parameters(nodes, parameters),
        )
    )


def as_the_graph(edges, graphs):
    """The control that circuits grow more than the graph does."""
    logs = {name: sizes.log_size(each).mean for name, each in edges.items()}
    if len(logs) < 2:
        return Control("graph", "graph: fewer than two models", reached=False, decides=False)
    first, *_, last = logs
    grown, graph = logs[last] - logs[first], float(np.log2(graphs[last] / graphs[first]))
    return Control(
        "graph",
        f"graph: {last} has {graph:.2g} octaves more edges than {first}, its circuit {grown:.2g}",
        reached=grown <= graph,
    )
