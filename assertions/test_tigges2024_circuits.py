"""Tigges et al. 2024, LLM Circuit Analyses Are Consistent Across Training and Scale.

arXiv 2407.10827, sections 2 and 4: small circuits are faithful, and the heads of the algorithm are
in them.
"""

from mechtests import claim
from mechtests.circuits import finding, measures
from mechtests.circuits.circuit import names_of
from mechtests.circuits.faithfulness import faithfulness
from mechtests.measurement import named
from mechtests.metrics import attention, effects, gates, roles, years
from mechtests.metrics.copying import copy_scores
from mechtests.metrics.succession import successor_scores
from mechtests.rules import (
    CONTROL_LEVEL,
    above,
    absent,
    below,
    beside,
    every,
    matched_random,
    random_heads,
    value_control,
)
from mechtests.tasks.greater_than import greater_than
from mechtests.tasks.ioi import ioi
from mechtests.tasks.ordered_pairs import ordered_pairs
from mechtests.tasks.pronoun import pronoun
from mechtests.tasks.repeated_tokens import repeated_tokens
from mechtests.tasks.sva import sva
from mechtests.verdict import Control, Outcome, Verdict, not_applicable

SHARE = 0.8
TASKS = {task.name: task for task in (ioi, greater_than, pronoun, sva)}


def kept_beyond(found, kept, half):
    """Two contrasts above 0 where a circuit keeps over 80%, prompt by prompt.

    Of the whole metric, and of what it is above the corrupted run.
    """
    clean, corrupted = (found.sample(name, half) for name in ("clean", "corrupted"))
    return kept - SHARE * clean, (kept - corrupted) - SHARE * (clean - corrupted)


def share_of(found, values, half):
    """The normalised faithfulness of one circuit on a half."""
    of = found.of(half)
    return float(faithfulness(values[of][None], found["clean"][of], found["corrupted"][of])[0])


@claim(
    "tigges2024.circuit-faithful",
    section="4",
    says="A small circuit recovers 80% of the behaviour.",
    tasks=TASKS.values(),
    components=["circuit", "faithfulness"],
    gate=gates.does,
    needs=lambda task: {
        "scores": measures.scores_on(task),
        "small": measures.small_on(task),
        "random": measures.random_on(task),
    },
    controls=[
        "random connected circuits of that size",
        "the same search, size choice included, on scores shuffled among like edges",
    ],
)
def test_a_small_circuit_recovers_eighty_percent_of_the_behaviour(measured, judge):
    """Of a circuit of at most 5% of the edges: circuit - 0.8 full > 0 on held-out prompts.

    And the same after subtracting the corrupted run from both. Edges are scored by EAP-IG on the
    selection half, which chooses the size (on a grid of ratio 2) with the best faithfulness; the
    evaluation half decides. All other edges carry the corrupted prompts' activations.
    """
    found, scores = measured.small, measured.scores
    graph = finding.graph_of(scores)
    sizes = finding.grid_of(graph, ratio=finding.COARSE)
    place = finding.best_size(found, found["circuit"], "selection")
    circuit = finding.chosen_circuit(scores, found)
    if not circuit.size:
        judge(not_applicable("no circuit of the selection half joins the input with the logits"))

    def rule(kept, half, what):
        plain, beyond = kept_beyond(found, kept, half)
        return every(
            above(plain, 0.0, what=f"{what} - 0.8 of the full model"),
            above(beyond, 0.0, what=f"{what} - 0.8 of the full model, both above the corrupted"),
            what=f"a circuit of {circuit.size} of {graph.edges} edges",
        )

    kept = found.sample("circuit", "evaluation", place)
    verdict = rule(kept, "evaluation", "circuit")
    draws = measured.random["kept"][found.of("evaluation")].mean(0)
    random = matched_random(
        kept.mean,
        draws.tolist(),
        what=f"random connected circuits of {circuit.size} edges",
        stratum="number of edges",
    )
    controls = [random, *shuffled_controls(found)]
    judge(
        beside(verdict, *controls).showing(
            edges=circuit.size,
            share_of_edges=circuit.size / graph.edges,
            nodes=int(circuit.nodes.sum()),
            faithfulness=share_of(found, found["circuit"][:, place], "evaluation"),
            faithfulness_by_size={
                int(n): share_of(found, found["circuit"][:, at], "evaluation")
                for at, n in enumerate(sizes)
            },
            strongest_edges=list(names_of(circuit))[:20],
        )
    )


def shuffled_controls(found):
    """The same search on shuffled scores surely does not keep 80%."""
    controls = []
    for shuffle in range(found["shuffled"].shape[1]):
        place = finding.best_size(found, found["shuffled"][:, shuffle], "selection")
        kept = found.sample("shuffled", "evaluation", shuffle, place)
        _, beyond = kept_beyond(found, kept, "evaluation")
        what = "circuit of shuffled scores - 0.8 of the full model, both above the corrupted"
        controls.append(value_control(f"shuffle {shuffle + 1}", below(beyond, 0.0, what=what)))
    return controls


def in_circuit(circuit, heads):
    """How many of some heads are in a circuit."""
    return sum(bool(circuit.nodes[circuit.graph.head(*head)]) for head in heads)


COMPONENTS = {
    "ioi": {
        "scores": measures.scores_on(ioi),
        "small": measures.small_on(ioi),
        "copying": copy_scores(ioi),
        "effects": effects.direct_effects(ioi),
        "successors": successor_scores(ordered_pairs),
    },
    "greater_than": {
        "scores": measures.scores_on(greater_than),
        "small": measures.small_on(greater_than),
        "copying": copy_scores(ioi),
        "effects": effects.direct_effects(greater_than),
        "successors": successor_scores(ordered_pairs),
        "induction": attention.head_scores(repeated_tokens),
        "years": years.year_reading(greater_than),
    },
}


def copying(measured):
    """Heads that copy names, which serve IOI."""
    return roles.copying_heads(measured.copying, "selection")


def following(measured):
    """Successor heads, which serve greater-than."""
    return roles.successor_heads(measured.successors, "selection")


def serving(measured):
    """Successor and induction heads, which the paper says serve greater-than."""
    found = roles.induction_heads(measured.induction, "selection")
    return sorted({*following(measured), *found})


ROLES = {
    "ioi": ("copying heads", copying, "successor heads", following),
    "greater_than": ("successor and induction heads", serving, "copying heads", copying),
}
"""The heads with the role, and those with a role in another task."""


@claim(
    "tigges2024.components-in-circuit",
    section="4",
    says="The heads with each role are in the circuit of the task.",
    tasks=(ioi, greater_than),
    components=["circuit", "name-mover", "successor", "induction"],
    gate=lambda task: gates.does(task, patched=True),
    needs=lambda task: COMPONENTS[task.name],
    controls=[
        "as many random heads of the same layers are as often in the circuit",
        "heads with a role in another task are not there more than random heads",
    ],
)
def test_the_heads_with_each_role_are_in_the_circuit_of_the_task(measured, judge):
    """More heads with the role are in the circuit than random heads, and they help the logits.

    Copying heads for IOI, successor and induction heads for greater-than, by their scores alone on
    the selection half; the circuit is the small one with the best faithfulness there. Their summed
    direct effect on the evaluation half is above 0. A circuit with over half of all heads tells
    nothing: inconclusive. Of greater-than, what the circuit's heads read of the year and what its
    MLPs make of it is shown.
    """
    circuit = finding.chosen_circuit(measured.scores, measured.small)
    layers, heads = circuit.graph.layers, circuit.graph.heads
    what, holders, wrong, others = ROLES[measured.task]
    role = holders(measured)
    if not role:
        judge(not_applicable(f"there are no {what} on the selection half"))
    inside = len(finding.heads_of(circuit))
    if inside > layers * heads / 2:
        why = f"{inside} of {layers * heads} heads are in the circuit, over half of them"
        judge(Verdict(Outcome.INCONCLUSIVE, why))
    effect = measured.effects.sum_over("direct_effect", role, "evaluation")
    verdict = above(effect, 0.0, what=f"summed direct effect of the {what} {named(role)}")
    random = random_share(measured, circuit, role, "random heads")
    another = [head for head in others(measured) if head not in role]
    verified = reading(measured, circuit) if measured.task == "greater_than" else {}
    judge(
        beside(verdict, random, of_another_task(measured, circuit, wrong, another)).showing(
            role_heads=named(role),
            in_circuit=in_circuit(circuit, role),
            heads_in_circuit=inside,
            edges=circuit.size,
            **verified,
        )
    )


def reading(measured, circuit):
    """What the paper verifies of greater-than, on the evaluation half.

    How often the heads that write to the MLPs before the logits look at the year, and name it or
    the next; how much more those MLPs add to later years than to others, in logits.
    """
    looks, names, raised = (
        measured.years.mean(value, "evaluation") for value in ("looks", "names", "raised")
    )
    mlps = finding.mlps_into_logits(circuit)
    heads = finding.heads_into_mlps(circuit, mlps)
    return {
        "mlps_raise_later_years": {f"m{layer}": float(raised[layer]) for layer in mlps},
        "heads_look_at_the_year": {named([head]): float(looks[head]) for head in heads},
        "heads_name_the_year": {named([head]): float(names[head]) for head in heads},
    }


def of_another_task(measured, circuit, name, others):
    """The control that heads which serve another task are in it as random heads are."""
    if not others:
        return absent(name, "no head has this role alone")
    control = random_share(measured, circuit, others, f"random heads for {name}")
    inside = in_circuit(circuit, others)
    said = f"{inside} of {len(others)} are in the circuit, p = {control.p:.2g} against random heads"
    return Control(name, f"{name}: {said}", reached=control.p <= CONTROL_LEVEL)


def random_share(measured, circuit, role, what):
    """As many random heads of the same layers, by their share in the circuit."""
    return random_heads(
        role,
        lambda each: in_circuit(circuit, each) / len(each),
        (circuit.graph.layers, circuit.graph.heads),
        measured.generator(what),
        what=f"share in the circuit of {what}",
    )
