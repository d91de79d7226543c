"""Tigges et al. 2024, LLM Circuit Analyses Are Consistent Across Training and Scale.

arXiv 2407.10827, section 4 and Figure 4: how much of each step of the IOI algorithm is done by the
heads that are known for it.
"""

from types import SimpleNamespace

import numpy as np

from mechtests import claim
from mechtests.circuits import finding, measures
from mechtests.measurement import HALVES, named
from mechtests.metrics import gates, roles
from mechtests.metrics.stages import (
    FIND,
    FINDING,
    INHIBIT,
    MOVE,
    MOVING,
    SUPPRESSING,
    inhibiting,
    movers,
    speaking,
)
from mechtests.rules import absent, below, beside, every, matched_random, value_control
from mechtests.shares import readings
from mechtests.tasks.ioi import ioi
from mechtests.verdict import Outcome, not_applicable

DRAWS = 999  # re-sums of stored values cost nothing
READINGS = ("signed", "helpful")
CIRCUIT = {"edges": measures.scores_on(ioi)}


def swapped(needs):
    """The needs of the swap, in which the evaluation half chooses."""
    return {f"{name}_swapped": need for name, need in needs.items()}


def shares(measured, stage, heads, choose="selection", among=None):
    """Both readings of the share that some heads have, on the half that did not choose."""
    return readings(stage.effects(measured), heads, choose, other(choose), among)


def other(half):
    """The half that decides."""
    return HALVES[1 - HALVES.index(half)]


def rule(measured, stage, choose="selection"):
    """Whether both readings of the share are above the level."""
    if stage.receivers and not stage.receivers(measured, choose):
        return not_applicable(f"{stage.lacking} on the {choose} half")
    heads = stage.chosen(measured, choose)
    found = shares(measured, stage, heads, choose)
    parts = [share.above(stage.level, what=reading) for reading, share in found.items()]
    return every(*parts, what=f"{stage.what}, heads {named(heads)} on {other(choose)}")


def random_heads(measured, stage, heads):
    """The control of matched random sets, in each reading."""
    if not heads:
        return [absent("random heads", "no head has the role")]
    found = stage.effects(measured)
    mean = found.means("evaluation")
    sets = stage.matched(measured, heads, DRAWS, measured.generator("random heads"))
    controls = []
    for reading in READINGS:
        whole = set(found.heads() if reading == "signed" else found.helping("selection"))
        sums = [sum(mean[head] for head in whole.intersection(each)) for each in sets.sets]
        controls.append(
            matched_random(
                sum(mean[head] for head in whole.intersection(heads)),
                sums,
                what=f"{reading} effect of random heads",
                stratum=sets.stratum,
                enumerated=sets.enumerated,
            )
        )
    return controls


def ratios(measured, stage, heads, among=None):
    """Both readings as numbers, and whose they are, to be shown."""
    found = shares(measured, stage, heads, among=among)
    return {"heads": named(heads), **{name: finite(share.ratio) for name, share in found.items()}}


def finite(value):
    """A number for a record; None where it is none."""
    return float(value) if np.isfinite(value) else None


def in_circuit(measured, stage, heads):
    """Both readings over the heads of the circuit of 5% of the edges, role heads and whole alike.

    That circuit needs the scores of edges alone; the one with the best faithfulness would double
    what the first step's claim costs.
    """
    circuit = finding.heads_of(finding.largest_circuit(measured.edges, "selection"))
    return ratios(measured, stage, [head for head in heads if head in circuit], circuit)


def at_once(measured):
    """What all heads of the role do when patched at once, and its share of what every head does."""
    role, every_head = (-measured.joint.sample(of, "evaluation") for of in ("role", "every"))
    return {
        "role": role.mean,
        "every_head": every_head.mean,
        "share": finite(np.divide(role.mean, every_head.mean)) if every_head.mean else None,
    }


def judged(measured, stage, *controls, swap=None, **more):
    """The verdict on one step beside its controls, with what else is shown."""
    verdict = rule(measured, stage)
    if verdict.outcome is Outcome.NOT_APPLICABLE:
        return verdict
    heads = stage.chosen(measured, "selection")
    found = stage.effects(measured)
    layers = stage.below(measured, "selection")
    candidates = [head for head in found.heads() if head[0] in layers]
    ceiling = found.strongest(len(heads), "selection", candidates)
    return beside(verdict, *random_heads(measured, stage, heads), *controls).showing(
        shares=ratios(measured, stage, heads),
        ceiling_best_heads=ratios(measured, stage, ceiling),
        over_circuit_heads=in_circuit(measured, stage, heads),
        patched_at_once=at_once(measured),
        **{name: ratios(measured, stage, each) for name, each in more.items()},
        replication=str(rule(swap or measured, stage, "evaluation")),
    )


def swap_of(measured, needs, *same):
    """The measurements of the swap, under the names that a stage reads."""
    kept = {name: measured[name] for name in (*MOVING, *same)}
    return SimpleNamespace(**kept, **{name: measured[f"{name}_swapped"] for name in needs})


@claim(
    "tigges2024.name-movers-explain",
    section="4",
    says="Name-mover and copy-suppression heads explain over 70% of the direct effect on IOI.",
    task=ioi,
    components=["name-mover", "copy-suppression", "algorithm"],
    gate=gates.does(ioi, patched=True),
    needs={**MOVING, **SUPPRESSING, "joint": MOVE.jointly, **CIRCUIT},
    controls=["as many random heads of the same layers; roles are scores without the effect"],
)
def test_name_movers_and_copy_suppression_heads_explain_the_direct_effect(measured, judge):
    """Their share of all heads' summed direct effects is above 0.70, in two forms.

    Signed: over all heads. Helpful: over heads whose effect on the selection half is more than 2
    standard errors above 0. Roles are a copy score above 0.1 and above that of an absent name, or
    a CSPA above 0.1, on the selection half; effects are the evaluation half's.
    """
    with_effect = roles.with_effect(movers(measured, "selection"), measured.effects, "selection")
    judge(judged(measured, MOVE, roles_with_effect=with_effect))


@claim(
    "tigges2024.s-inhibition-explains",
    section="4",
    says="S-inhibition heads explain over half of the effect on the name movers' queries.",
    task=ioi,
    components=["s-inhibition", "name-mover", "algorithm"],
    gate=gates.does(ioi, patched=True),
    needs={
        **MOVING,
        **inhibiting("selection"),
        **swapped(inhibiting("evaluation")),
        "joint": INHIBIT.jointly,
        **CIRCUIT,
    },
    controls=["as many random heads of the same layers below the name movers"],
)
def test_s_inhibition_heads_explain_the_effect_on_the_name_movers_queries(measured, judge):
    """Their share of all heads' path-patched effects is above 0.50, signed and helpful.

    From S2->IO, each head into the queries of the name movers with effect of the selection half.
    Roles are the three signs of section 3.3 on the selection half, from a swapped order; the
    evaluation half decides. Without a name mover with effect: not applicable.
    """
    turning = roles.turning_away_heads(measured.inhibition, "selection")
    swap = swap_of(measured, inhibiting("evaluation"))
    judge(judged(measured, INHIBIT, swap=swap, by_attention_signs_only=turning))


@claim(
    "tigges2024.induction-explains",
    section="4",
    says="Induction and duplicate-token heads explain over half of the effect on the S-inhibition "
    "heads' values.",
    task=ioi,
    components=["induction", "duplicate-token", "s-inhibition", "algorithm"],
    gate=gates.does(ioi, patched=True),
    needs={
        **MOVING,
        **FINDING,
        **speaking("selection"),
        **swapped(speaking("evaluation")),
        "joint": FIND.jointly,
        **CIRCUIT,
    },
    controls=[
        "as many random heads of the same layers below the S-inhibition heads",
        "previous-token heads, a wrong role, have less than half",
    ],
    exceptions={"pythia-410m*": "in pythia-410m the share varies, says the paper"},
)
def test_induction_heads_explain_the_effect_on_the_s_inhibition_heads_values(measured, judge):
    """Their share of all heads' path-patched effects is above 0.50, signed and helpful.

    From S2->IO, each head into the values of the S-inhibition heads of the selection half. Roles
    are induction or duplicate-token scores above 0.1 and above the mean over heads on one half of
    random repeats; the evaluation half decides. Without an S-inhibition head: not applicable.
    """
    lenient = {
        head
        for kind in ("induction", "duplicate")
        for head in roles.above_mean(kind, measured.scores, "selection")
    }
    swap = swap_of(measured, speaking("evaluation"), *FINDING)
    wrong = wrong_role(measured)
    judge(judged(measured, FIND, wrong, swap=swap, above_the_mean=sorted(lenient)))


def wrong_role(measured):
    """The control that previous-token heads which have neither role do not have the share."""
    right, name = FIND.chosen(measured, "selection"), "previous-token heads"
    layers = FIND.below(measured, "selection")
    previous = roles.attention_heads("previous", measured.scores, "selection")
    heads = [head for head in previous if head[0] in layers and head not in right]
    if not heads:
        return absent(name, "no head below the S-inhibition heads has this role alone")
    parts = [
        below(share.contrast(FIND.level), 0.0, what=f"{reading} N - {FIND.level:g} D")
        for reading, share in shares(measured, FIND, heads).items()
    ]
    return value_control(name, every(*parts, what=f"heads {named(heads)}"))
