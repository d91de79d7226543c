"""Tigges et al. 2024, LLM Circuit Analyses Are Consistent Across Training and Scale.

arXiv 2407.10827, section 3: when the components of the circuits emerge in training.
"""

from itertools import permutations

from mechtests import claim
from mechtests.metrics import attention, behaviour, effects, gates, roles
from mechtests.metrics.copying import copy_scores
from mechtests.metrics.succession import successor_scores
from mechtests.models.revisions import PYTHIA_TOKENS
from mechtests.models.sources import is_pythia
from mechtests.octaves import inside_window, tells_apart, too_coarse, within_octaves
from mechtests.onsets import onset
from mechtests.rules import absent, below, beside, every, value_control
from mechtests.showing import shown
from mechtests.tasks.greater_than import greater_than
from mechtests.tasks.ioi import ioi
from mechtests.tasks.ordered_pairs import ordered_pairs
from mechtests.tasks.repeated_tokens import repeated_tokens
from mechtests.verdict import Control, Outcome, not_applicable, refuted

INDUCTION = 0.4
"""The score at which an induction head counts as there; the paper gives none."""
OPEN = Outcome.INCONCLUSIVE
SCORES = attention.head_scores(repeated_tokens)
COPYING = copy_scores(ioi)
EFFECTS = effects.direct_effects(ioi)
SUCCESSION = successor_scores(ordered_pairs)
IOI = behaviour.answers(ioi.behaviour)
GREATER_THAN = behaviour.answers(greater_than.behaviour)


def induction(scores, generator, level=INDUCTION):
    """The onset of the head strongest on the selection half, and its curve."""
    curve = scores.follow("induction", scores.strongest("induction"))
    what = "the strongest induction head"
    return onset((curve, level), what=what, generator=generator), curve


def successors(scores, generator):
    """The strongest successor head's onset, curve, level and heads; None where there is none.

    The level is half of the largest score on the selection half.
    """
    chosen = scores.strongest("succession")
    peak = max(
        float(each.mean("succession", "selection")[head])
        for each, head in zip(scores, chosen, strict=True)
    )
    if peak < roles.SUCCESSION:
        return None
    curve = scores.follow("succession", chosen)
    what = "the strongest successor head"
    return onset((curve, peak / 2), what=what, generator=generator), curve, peak / 2, chosen


def name_movers(measured, learned, generator):
    """The strongest name mover's onset, curve, level and heads; None where there is none.

    Candidates are name movers with effect on the selection half at any checkpoint that does
    IOI; the level is half of the largest score on that half.
    """
    copying = measured.copying
    heads = roles.name_mover_candidates(copying, measured.effects, "selection", learned.does)
    if not heads:
        return None
    chosen = copying.strongest("copied", among=heads)
    peak = max(
        float(each.mean("copied", "selection")[head])
        for each, head in zip(copying, chosen, strict=True)
    )
    if peak < roles.COPYING:
        return None
    curve = copying.follow("copied", chosen)
    what = "the strongest name mover"
    return onset((curve, peak / 2), what=what, generator=generator), curve, peak / 2, chosen


def components_of(measured, learned, generator):
    """Each component's onset beside its task's, their curves, and a verdict for each that lacks."""
    heads, curve = induction(measured.scores, generator)
    curves, pairs, lacking = [shown(curve, heads.what, level=INDUCTION, onset=heads)], {}, []

    def pair(name, task, found, without):
        if found is None:
            lacking.append(refuted(f"{measured.model} {without}"))
            return
        emerged, of, level, _ = found
        curves.append(shown(of, emerged.what, level=level, onset=emerged))
        pairs[name] = emerged, learned[task].onset

    if "greater-than" in learned:
        pairs["induction with greater-than"] = heads, learned["greater-than"].onset
        if not measured.lacks("succession"):
            pair(
                "successor heads with greater-than",
                "greater-than",
                successors(measured.succession, generator),
                "does greater-than and has no successor head",
            )
    if "ioi" in learned:
        movers = name_movers(measured, learned["ioi"], generator)
        pair("name movers with IOI", "ioi", movers, "does IOI and has no name mover")
    return pairs, curves, lacking


def at_step_0(curve, level, what):
    """The control that a share begins below a level; absent where the series begins later."""
    first = curve.moments[0]
    if first.step != 0:
        return absent("step 0", f"the series begins at {first.label}")
    return value_control("step 0", share_below(curve.points[0], level, what=f"{what} at step 0"))


def share_below(value, level, *, what):
    """Whether a share of prompts is below a level; exact, so that none at all is below it."""
    return below(value, level, what=what, kind="proportion")


def in_pythia(measured, found, low, high, what):
    """The window is Pythia's own: elsewhere the onset is shown and nothing is claimed."""
    if not is_pythia(measured.model):
        return not_applicable(
            f"{what}: the window is Pythia's, and {measured.model} is not; {found.sentence}"
        )
    return inside_window(found, low, high, PYTHIA_TOKENS, what=what)


@claim(
    "tigges2024.induction-onset",
    section="3",
    says="Induction heads emerge soon after 2e9 tokens.",
    over="training",
    task=repeated_tokens,
    components=["induction"],
    needs={"scores": SCORES},
    controls=["step 0 is below the role's threshold", "sequences without a repeat"],
)
def test_induction_heads_emerge_soon_after_two_billion_tokens(measured, judge):
    """The head strongest on one half passes 0.4 on the other within 2e9 to 4e9 tokens.

    The window is widened to the nearest scheduled checkpoints. Onsets at 0.2 and 0.6 are
    shown. Other families than Pythia: not applicable.
    """
    generator = measured.generator("onset")
    found, curve = induction(measured.scores, generator)
    chosen = measured.scores.strongest("induction")
    plain = measured.scores.follow("induction_unrepeated", chosen)
    controls = [
        value_control(
            "no repeat", below(plain.points[-1], 0.1, what="without a repeat, at the end")
        )
    ]
    if curve.moments[0].step == 0:
        start = below(curve.points[0], roles.INDUCTION, what="induction score at step 0")
        controls.append(value_control("step 0", start))
    others = {
        f"onset_at_{level}": induction(measured.scores, generator, level)[0].sentence
        for level in (0.2, 0.6)
    }
    verdict = in_pythia(measured, found, 2e9, 4e9, "induction")
    judge(
        beside(verdict, *controls).showing(
            curves=[shown(curve, found.what, level=INDUCTION, onset=found)], **others
        )
    )


@claim(
    "tigges2024.successor-onset",
    section="3",
    says="Successor heads emerge soon after 2e9 tokens.",
    over="training",
    task=ordered_pairs,
    components=["successor", "succession"],
    needs={"scores": SUCCESSION},
    controls=["step 0 is below the role's threshold", "a shuffled order of each list"],
)
def test_successor_heads_emerge_soon_after_two_billion_tokens(measured, judge):
    """The head strongest on one half of the pairs passes half of its largest score on the other.

    Within 2e9 to 4e9 tokens, widened to the nearest scheduled checkpoints; the largest score must
    reach 0.2. Other families than Pythia: not applicable. Fewer than 20 ordered pairs that are
    single tokens: not applicable.
    """
    found = successors(measured.scores, measured.generator("onset"))
    if found is None:
        judge(refuted(f"{measured.model} has no successor head: no succession score reaches 0.2"))
    emerged, curve, level, chosen = found
    shuffled = measured.scores.follow("shuffled", chosen)
    last = shuffled.points[-1]
    controls = [
        value_control("shuffled order", share_below(last, level, what="of a shuffled order")),
        at_step_0(curve, roles.SUCCESSION, "succession score"),
    ]
    unnormed = measured.scores.follow("unnormed", measured.scores.strongest("unnormed"))
    verdict = in_pythia(measured, emerged, 2e9, 4e9, "successor heads")
    judge(
        beside(verdict, *controls).showing(
            curves=[
                shown(curve, emerged.what, level=level, onset=emerged),
                shown(unnormed, "the strongest head by the score without norms"),
            ]
        )
    )


@claim(
    "tigges2024.name-mover-onset",
    section="3",
    says="Name movers emerge at 2e9 to 8e9 tokens.",
    over="training",
    task=ioi,
    components=["name-mover", "copying"],
    gate=gates.does(ioi, patched=True),
    needs={"ioi": IOI, "copying": COPYING, "effects": EFFECTS},
    controls=["step 0 is below the role's threshold", "copy score of absent names"],
)
def test_name_movers_emerge_at_two_to_eight_billion_tokens(measured, judge):
    """The strongest of the name movers passes half of its largest score within 2e9..8e9 tokens.

    Name movers are chosen on the selection half at any checkpoint that does IOI; the score is
    the evaluation half's. Other families than Pythia: not applicable.
    """
    generator = measured.generator("onset")
    learned = gates.emergence(measured.ioi, ioi, generator)
    if open_ := learned.unasked:
        judge(open_)
    found = name_movers(measured, learned, generator)
    if found is None:
        judge(refuted(f"{measured.model} has no name mover at any checkpoint that does IOI"))
    emerged, curve, level, chosen = found
    others = measured.copying.follow("copied_absent", chosen)
    controls = [
        value_control("absent names", share_below(others.points[-1], level, what="absent names")),
        at_step_0(curve, roles.COPYING, "copy score"),
    ]
    verdict = in_pythia(measured, emerged, 2e9, 8e9, "name movers")
    judge(
        beside(verdict, *controls).showing(
            curves=[shown(curve, emerged.what, level=level, onset=emerged)]
        )
    )


@claim(
    "tigges2024.components-with-task",
    section="3",
    says="Components emerge with the behaviour they serve: name movers with IOI, induction and "
    "successor heads with greater-than.",
    over="training",
    components=["name-mover", "induction", "successor", "greater-than", "ioi"],
    needs={
        "ioi": IOI,
        "greater_than": GREATER_THAN,
        "copying": COPYING,
        "effects": EFFECTS,
        "scores": SCORES,
        "succession": SUCCESSION,
    },
    controls=["a component and a task it does not serve are more than 2 octaves apart"],
)
def test_components_emerge_with_the_behaviour_they_serve(measured, judge):
    """The onset of each component is within 2 octaves of its task's, from role curves.

    Over the tasks with a confirmed onset that are not lost at the end; IOI without any name
    mover refutes, and so does greater-than without any successor head. Of the wrong pairings one
    is more than 2 octaves apart, else everything emerges together.
    """
    generator = measured.generator("onset")
    asked = {"ioi": ("ioi", ioi), "greater-than": ("greater_than", greater_than)}
    tasks = {
        name: gates.emergence(measured[need], task, generator)
        for name, (need, task) in asked.items()
        if not measured.lacks(need)
    }
    closed = {name: open_ for name, each in tasks.items() if (open_ := each.unasked)}
    learned = {name: each for name, each in tasks.items() if name not in closed}
    parts = [open_ for open_ in closed.values() if open_.outcome is OPEN]
    pairs, curves, lacking = components_of(measured, learned, generator)
    parts += lacking
    if not (parts or pairs):
        judge(next(iter(closed.values())))
    parts += [within_octaves(*pair, 2.0, what=name) for name, pair in pairs.items()]
    verdict = every(*parts, what="components with their task")
    wrong = {
        f"{one} against {two}": (pairs[one][0], pairs[two][1])
        for one, two in permutations(pairs, 2)
        if pairs[one][1] is not pairs[two][1]
    }
    alone = Control("wrong pairings", "wrong pairings: none, one task is learned", reached=True)
    control = tells_apart(wrong, 2.0) if wrong else alone
    curves += [each for task in tasks.values() for each in task.shown]
    coarse = too_coarse(measured.scores.moments, 2.0)
    judge(
        beside(verdict, control).showing(
            curves=curves,
            grid=coarse or "fine enough",
            not_learned=[*tasks.keys() - learned.keys()],
        )
    )
