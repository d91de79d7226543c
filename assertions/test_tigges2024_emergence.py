"""Tigges et al. 2024, LLM Circuit Analyses Are Consistent Across Training and Scale.

arXiv 2407.10827, section 3: when the components of the circuits emerge in training.
"""

from mechtests import claim
from mechtests.metrics import attention, behaviour, effects, gates, roles
from mechtests.metrics.copying import copy_scores
from mechtests.models.revisions import PYTHIA_TOKENS
from mechtests.models.sources import is_pythia
from mechtests.octaves import inside_window, tells_apart, too_coarse, within_octaves
from mechtests.onsets import State, onset
from mechtests.rules import below, beside, every, value_control
from mechtests.showing import shown
from mechtests.tasks.greater_than import greater_than
from mechtests.tasks.ioi import ioi
from mechtests.tasks.repeated_tokens import repeated_tokens
from mechtests.verdict import not_applicable

INDUCTION = 0.4
"""The score at which an induction head counts as there; the paper gives none."""
SCORES = attention.head_scores(repeated_tokens)
COPYING = copy_scores(ioi)
EFFECTS = effects.direct_effects(ioi)
IOI = behaviour.answers(ioi.behaviour)
GREATER_THAN = behaviour.answers(greater_than.behaviour)


def induction(scores, generator, level=INDUCTION):
    """The onset of the head strongest on the selection half, and its curve."""
    curve = scores.follow("induction", scores.strongest("induction"))
    what = "the strongest induction head"
    return onset((curve, level), what=what, generator=generator), curve


def name_movers(measured, generator):
    """The strongest name mover's onset, curve, level and heads; None where there is none.

    Candidates are name movers with effect on the selection half at any checkpoint that does
    IOI; the level is half of the largest score on that half.
    """
    copying = measured.copying
    learned = gates.emergence(measured.ioi, ioi, generator)
    does = (learned.onset.above <= learned.onset.error).tolist()
    heads = roles.name_mover_candidates(copying, measured.effects, "selection", does)
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
    found = name_movers(measured, measured.generator("onset"))
    if found is None:
        judge(not_applicable(f"{measured.model} has no name mover at any checkpoint that does IOI"))
    emerged, curve, level, chosen = found
    absent = measured.copying.follow("copied_absent", chosen)
    controls = [
        value_control("absent names", below(absent.points[-1], level, what="of absent names"))
    ]
    if curve.moments[0].step == 0:
        start = below(curve.points[0], roles.COPYING, what="copy score at step 0")
        controls.append(value_control("step 0", start))
    verdict = in_pythia(measured, emerged, 2e9, 8e9, "name movers")
    judge(
        beside(verdict, *controls).showing(
            curves=[shown(curve, emerged.what, level=level, onset=emerged)]
        )
    )


@claim(
    "tigges2024.components-with-task",
    section="3",
    says="Components emerge with the behaviour they serve: name movers with IOI, induction heads "
    "with greater-than.",
    over="training",
    components=["name-mover", "induction", "greater-than", "ioi"],
    needs={
        "ioi": IOI,
        "greater_than": GREATER_THAN,
        "copying": COPYING,
        "effects": EFFECTS,
        "scores": SCORES,
    },
    controls=["a component and a task it does not serve are more than 2 octaves apart"],
)
def test_components_emerge_with_the_behaviour_they_serve(measured, judge):
    """The onset of each component is within 2 octaves of its task's, from role curves.

    Of the wrong pairings one is more than 2 octaves apart, else everything emerges together.
    Successor heads come with the succession score.
    """
    generator = measured.generator("onset")
    tasks = {
        "ioi": gates.emergence(measured.ioi, ioi, generator),
        "greater-than": gates.emergence(measured.greater_than, greater_than, generator),
    }
    heads, curve = induction(measured.scores, generator)
    movers = name_movers(measured, generator)
    curves = [shown(curve, heads.what, level=INDUCTION, onset=heads)]
    parts, wrong = {}, {}
    if tasks["greater-than"].onset.state is not State.NEVER:
        parts["induction with greater-than"] = heads, tasks["greater-than"].onset
        wrong["induction with IOI"] = heads, tasks["ioi"].onset
    if movers is not None:
        emerged, copied, level, _ = movers
        curves.append(shown(copied, emerged.what, level=level, onset=emerged))
        parts["name movers with IOI"] = emerged, tasks["ioi"].onset
        wrong["name movers with greater-than"] = emerged, tasks["greater-than"].onset
    if not parts:
        judge(not_applicable(f"{measured.model} learns neither IOI nor greater-than"))
    verdict = every(
        *(within_octaves(*pair, 2.0, what=name) for name, pair in parts.items()),
        what="components with their task",
    )
    curves += [each for task in tasks.values() for each in task.shown]
    coarse = too_coarse(measured.scores.moments, 2.0)
    judge(
        beside(verdict, tells_apart(wrong, 2.0)).showing(
            curves=curves, grid=coarse or "fine enough"
        )
    )
