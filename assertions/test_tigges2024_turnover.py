"""Tigges et al. 2024, LLM Circuit Analyses Are Consistent Across Training and Scale.

arXiv 2407.10827, section 3: heads lose a function and others take it over.
"""

import numpy as np

from mechtests import claim
from mechtests.metrics import attention, behaviour, effects, gates, roles
from mechtests.metrics.copying import copy_scores
from mechtests.metrics.succession import successor_scores
from mechtests.models.sources import is_pythia
from mechtests.rules import absent, beside, every, random_heads
from mechtests.showing import heads_shown, shown
from mechtests.tasks.greater_than import greater_than
from mechtests.tasks.ioi import ioi
from mechtests.tasks.ordered_pairs import ordered_pairs
from mechtests.tasks.repeated_tokens import repeated_tokens
from mechtests.trends import equivalent_throughout
from mechtests.turnover import HeadCurve, ends_below_half, halves_agree, turnover
from mechtests.verdict import Control, Outcome, Verdict, not_applicable, refuted

SCORES = {"ioi": "logit_difference", "greater_than": "probability_difference"}
TASKS = {task.name: task.behaviour for task in (ioi, greater_than)}
COPYING = {
    "ioi": behaviour.answers(TASKS["ioi"]),
    "scores": copy_scores(ioi),
    "effects": effects.direct_effects(ioi),
}
ROLES = {
    "ioi": ("name movers", "copied", roles.COPYING, COPYING),
    "ordered_pairs": (
        "successor heads",
        "succession",
        roles.SUCCESSION,
        {"scores": successor_scores(ordered_pairs)},
    ),
    "repeated_tokens": (
        "induction heads",
        "induction",
        roles.INDUCTION,
        {"scores": attention.head_scores(repeated_tokens)},
    ),
}
SURVIVES = {
    "ioi": COPYING,
    "greater_than": {
        "greater_than": behaviour.answers(TASKS["greater_than"]),
        "scores": successor_scores(ordered_pairs),
        "effects": effects.direct_effects(greater_than),
    },
}
"""What the paper says heads serve: name movers IOI, successor heads greater-than."""


def learned(measured, name):
    """When a task is learned."""
    return gates.emergence(measured[name], TASKS[name], measured.generator("onset"))


def name_movers(measured, found):
    """Name movers with effect on S where the model does IOI; all heads that were recorded."""
    if measured.scores.recorded:
        return measured.scores.heads("copied")
    return roles.name_mover_candidates(measured.scores, measured.effects, "selection", found.does)


def changed(measured, role, found=None):
    """What became of a role's heads."""
    what, value, threshold, _ = ROLES[role]
    heads = measured.scores.heads(value) if found is None else name_movers(measured, found)
    curves = [HeadCurve.of(measured.scores, value, head) for head in heads]
    return turnover(curves, threshold, what=what, generator=measured.generator("orders"))


def strips(measured, role, happened):
    """The role's heads by checkpoint, for people to look at."""
    what, value, threshold, _ = ROLES[role]
    events = {
        curve.head: {
            "peak": curve.judged.labels[curve.peak],
            "lost": None if curve.lost_at is None else curve.judged.labels[curve.lost_at],
        }
        for curve in happened.carriers
    }
    return heads_shown(
        f"{value} ({what})",
        measured.scores,
        value,
        [curve.head for curve in happened.carriers],
        threshold,
        half="evaluation",
        takeovers=[(pair.loser.head, pair.winner.head, pair.at) for pair in happened.takeovers],
        events=events,
    )


def one_checkpoint(curve):
    """The control that the halves differ by less than the loss, at the peak."""
    if curve.judged.is_recorded:
        return absent("halves", f"the values of {curve.name} were recorded without halves")
    apart, lost = halves_agree(curve)
    return Control(
        "halves",
        f"halves: {curve.name} differs by {apart:.3g} at its peak and loses {lost:.3g}",
        reached=apart >= lost,
        values=(apart,),
    )


@claim(
    "tigges2024.heads-turn-over",
    section="3",
    says="The heads that carry a function change after it has formed.",
    over="training",
    tasks=(ioi, ordered_pairs, repeated_tokens),
    components=["turnover", "heads"],
    needs=lambda task: ROLES[task.name][3],
    controls=[
        "the losing head's scores on the two halves at its peak differ by less than it loses",
        "scores change less between neighbouring checkpoints than in other orders of them",
    ],
)
def test_the_heads_that_carry_a_function_change(measured, judge):
    """One head ends below half of its peak, and another rises after that peak.

    Among heads above the role's threshold at three checkpoints in a row on the selection half,
    where their peaks are found; the evaluation half decides, Bonferroni over heads and pairs.
    Refuted where every such head stays above half. Name movers are those with effect at
    any checkpoint that does IOI, and read only with IOI learned and kept.
    """
    role = measured.task
    found = learned(measured, "ioi") if role == "ioi" else None
    if found and found.unasked:
        judge(found.unasked)
    happened = changed(measured, role, found)
    verdict = happened.verdict
    if role == "ioi" and not happened.carriers and not measured.scores.recorded:
        verdict = not_applicable("no name mover with effect is above 0.1 at three checkpoints")
    controls = [one_checkpoint(curve) for curve in happened.losers]
    judge(
        beside(verdict, *controls).showing(
            heads=[strips(measured, role, happened)] if happened.carriers else []
        )
    )


@claim(
    "tigges2024.task-survives-turnover",
    section="3",
    says="Performance is stable while heads turn over.",
    over="training",
    tasks=TASKS.values(),
    components=["turnover", "heads", "behaviour"],
    needs=lambda task: SURVIVES[task.name],
    controls=["the lost heads' direct effect at their peak is above that of random heads"],
)
def test_a_task_survives_the_turnover_of_its_heads(measured, judge):
    """From the losing head's peak to its loss, the behaviour stays within 30% of its median.

    At every checkpoint of that window at once, on the evaluation half; the median checkpoint
    is the selection half's. Only where heads turn over, name movers for IOI and successor
    heads for greater-than.
    """
    name = measured.task
    role = "ioi" if name == "ioi" else "ordered_pairs"
    found = learned(measured, name)
    if found.unasked:
        judge(found.unasked)
    happened = changed(measured, role, found if name == "ioi" else None)
    if happened.verdict.outcome is not Outcome.HOLDS:
        judge(not_applicable(f"no turnover of {ROLES[role][0]} holds: {happened.verdict.sentence}"))
    value = SCORES[name]
    curve, chosen = (measured[name].curve(value, half) for half in ("evaluation", "selection"))
    parts = [window(curve, chosen, loser, name, measured) for loser in happened.losers]
    verdict = every(*parts, what=f"{gates.said(value)} of {name}")
    judge(
        beside(verdict, lost_effect(measured, happened.losers)).showing(
            curves=[shown(curve, f"{name}: {gates.said(value)}")],
            heads=[strips(measured, role, happened)],
        )
    )


def window(curve, chosen, loser, name, measured):
    """Whether the behaviour is the same from a head's peak to its loss."""
    start, stop = (loser.judged.positions[at] for at in (loser.peak, loser.lost_at))
    inside = np.flatnonzero((curve.positions >= start) & (curve.positions <= stop))
    what = f"{name} while {loser.name} loses the function"
    if len(inside) < 2:
        return Verdict(Outcome.INCONCLUSIVE, f"{what}: fewer than 2 checkpoints of it between")
    return equivalent_throughout(
        curve.take(inside),
        0.30,
        of="median",
        what=what,
        generator=measured.generator(f"window of {loser.name}"),
        share=True,
        located_on=chosen.take(inside),
    )


def lost_effect(measured, losers):
    """The control that the lost heads did something at their peak, more than random heads."""
    if why := measured.lacks("effects"):
        return absent("effect at the peak", why)
    means = [each.mean("direct_effect", "evaluation") for each in measured.effects]
    at = {moment.label: index for index, moment in enumerate(measured.effects.moments)}
    peaks = sorted((curve.head, at[curve.judged.labels[curve.peak]]) for curve in losers)

    def summed(chosen):
        pairs = zip(sorted(chosen), peaks, strict=True)
        return sum(means[peak][head] for head, (_, peak) in pairs)

    return random_heads(
        [head for head, _ in peaks],
        summed,
        means[0].shape,
        measured.generator("random heads"),
        what="direct effect of random heads at the same checkpoints",
    )


NAMED = {"copied": ((4, 6), (8, 1), (9, 4), (9, 7)), "succession": ((5, 9),)}
KEPT = ((8, 2), (8, 10))
LEVELS = {"copied": roles.COPYING, "succession": roles.SUCCESSION}


@claim(
    "tigges2024.named-heads-160m",
    section="3",
    says="In Pythia-160m the heads 4.6, 8.1, 9.4 and 9.7 stop copying, and 5.9 stops succession.",
    over="training",
    components=["turnover", "heads", "name-mover", "successor"],
    needs={"copied": copy_scores(ioi), "succession": successor_scores(ordered_pairs)},
    controls=["the heads 8.2 and 8.10 stay above half of their peak"],
)
def test_the_named_heads_of_pythia_160m_lose_their_function(measured, judge):
    """Each head's peak reaches the role's threshold and its last 3 checkpoints are below half.

    Pythia-160m alone. A head that never peaks is refuted; peaks are the selection half's, the
    evaluation half decides. The last line of the named heads that were not recorded is open.
    """
    if not (is_pythia(measured.model) and measured.model.endswith("160m")):
        judge(not_applicable(f"the heads are pythia-160m's, and this is {measured.model}"))
    curves = {
        (value, head): curve
        for value, named in NAMED.items()
        for head, curve in heads_of(measured, value, named + KEPT * (value == "copied")).items()
    }
    parts = [lost(curves[value, head], value) for value in NAMED for head in NAMED[value]]
    controls = [stays(curves["copied", head]) for head in KEPT]
    judge(
        beside(every(*parts, what="the named heads"), *controls).showing(
            lines=[part.sentence for part in parts]
        )
    )


def heads_of(measured, value, heads):
    """The heads' curves by head, or why there is none."""
    missing = measured.lacks(value)
    there = {} if missing else measured[value].heads(value)
    why = missing or "nothing was recorded of this head"
    return {
        head: HeadCurve.of(measured[value], value, head)
        if head in there
        else "{}.{}: {}".format(*head, why)
        for head in heads
    }


def lost(curve, value):
    """One line: whether a head had the function and lost it."""
    if isinstance(curve, str):
        return Verdict(Outcome.INCONCLUSIVE, curve)
    peak = float(curve.chosen.means[curve.peak])
    if peak < LEVELS[value]:
        return refuted(
            f"{curve.name} never peaks: {peak:.3g} at most, the role needs {LEVELS[value]}"
        )
    return ends_below_half(curve)


def stays(curve):
    """The control that a head keeps its function."""
    if isinstance(curve, str):
        return absent(curve.partition(":")[0], curve.partition(": ")[2])
    verdict = ends_below_half(curve)
    return Control(
        curve.name,
        f"{curve.name}: {verdict.sentence}",
        reached=verdict.outcome is not Outcome.REFUTED,
        p=verdict.p_refuted,
    )
