"""Tigges et al. 2024, LLM Circuit Analyses Are Consistent Across Training and Scale.

arXiv 2407.10827, section 3: copy suppression heads, and the sign of what they do in IOI.
"""

import math

import numpy as np

from mechtests import claim
from mechtests.errors import NotApplicable
from mechtests.measurement import named
from mechtests.metrics import attention, behaviour, effects, gates, suppression
from mechtests.models.revisions import PYTHIA_TOKENS
from mechtests.models.sources import is_pythia
from mechtests.octaves import inside_window
from mechtests.onsets import onset
from mechtests.rules import above, absent, below, beside, random_heads, value_control
from mechtests.series import Curve
from mechtests.showing import shown
from mechtests.tasks.ioi import ioi
from mechtests.tasks.text import text
from mechtests.verdict import not_applicable, refuted

CSPA = suppression.cspa(text, inputs={"mean": suppression.mean_z_by_position(text)})
EFFECTS = effects.direct_effects(ioi)
IOI = behaviour.answers(ioi.behaviour)


def strongest(measured, learned):
    """The strongest copy suppression head at each checkpoint, and its largest score on S.

    Candidates hold the role on the selection half at any checkpoint that does IOI.
    """
    candidates = {
        head
        for each, asked in zip(measured.cspa, learned.does, strict=True)
        if asked
        for head in suppression.suppression_heads(each, "selection")
    }
    if not candidates:
        return None
    scores = [suppression.scores(each, "selection") for each in measured.cspa]
    chosen = [max(sorted(candidates), key=lambda head: known(score[head])) for score in scores]
    peak = max(known(score[head]) for score, head in zip(scores, chosen, strict=True))
    return sorted(candidates), chosen, peak


def none_of(measured):
    """That no head has the role, with the score that comes nearest to it."""
    tops = [np.nanmax(suppression.scores(each, "selection"), initial=0) for each in measured.cspa]
    return f"no CSPA is above {suppression.SUPPRESSING:g}, {max(tops):.2g} at most,"


def known(score):
    """A score to compare; where it is undefined the head suppresses nothing."""
    return 0.0 if math.isnan(score) else float(score)


def contrasts(measured, level, heads):
    """Above 0 where CSPA is above the level, document by document, of another head each time."""
    points = [
        suppression.contrast(each, level, "evaluation", *head)
        for each, head in zip(measured.cspa, heads, strict=True)
    ]
    return Curve.of(measured.cspa.moments, points)


def others_of(candidates, shape):
    """All heads of the candidates' layers that are no candidates."""
    layers = sorted({layer for layer, _ in candidates})
    heads = [(layer, head) for layer in layers for head in range(shape[1])]
    return [head for head in heads if head not in candidates]


def other_heads(measured, candidates, level):
    """The control that heads of the same layers do not suppress at the end, on average."""
    last = measured.cspa[-1]
    others = others_of(candidates, last["kl_preserved"].shape[1:])
    if not others:
        return absent("other heads", "all heads of these layers are candidates")
    samples = [suppression.contrast(last, level, "evaluation", *head) for head in others]
    mean = sum(samples[1:], samples[0]) * (1 / len(samples))
    what = f"{level:.2g} of the other {len(others)} heads of these layers at the end"
    return value_control("other heads", below(mean, 0.0, what=f"CSPA above {what}"))


@claim(
    "tigges2024.copy-suppression-onset",
    section="3",
    says="Copy suppression heads emerge at 2e9 to 8e9 tokens.",
    over="training",
    task=ioi,
    components=["copy-suppression"],
    needs={"ioi": IOI, "cspa": CSPA},
    controls=["step 0 is below the role's threshold", "other heads of the same layers"],
)
def test_copy_suppression_heads_emerge_at_two_to_eight_billion_tokens(measured, judge):
    """The strongest of them passes half of its largest CSPA within 2e9..8e9 tokens.

    Candidates have a CSPA above 0.1 on one half of the documents at any checkpoint that does
    IOI. A share of KL is decided on the contrast (1 - level) x mean ablation's KL - the preserving
    ablation's, document by document of the other half. Other families: not applicable.
    """
    generator = measured.generator("onset")
    learned = gates.emergence(measured.ioi, ioi, generator)
    if open_ := learned.unasked:
        judge(open_)
    if measured.lacks("cspa"):
        raise NotApplicable(measured.lacks("cspa"))
    found = strongest(measured, learned)
    if found is None:
        judge(refuted(f"{none_of(measured)} where {measured.model} does IOI"))
    candidates, chosen, peak = found
    level = peak / 2
    curve = contrasts(measured, level, chosen)
    emerged = onset((curve, 0.0), what="the strongest copy suppression head", generator=generator)
    controls = [other_heads(measured, candidates, level)]
    first = measured.cspa.moments[0]
    if first.step == 0:
        start = suppression.contrast(
            measured.cspa[0], suppression.SUPPRESSING, "evaluation", *chosen[0]
        )
        what = f"CSPA above {suppression.SUPPRESSING:g} at step 0"
        controls.append(value_control("step 0", below(start, 0.0, what=what)))
    else:
        controls.append(absent("step 0", f"the series begins at {first.label}"))
    if is_pythia(measured.model):
        verdict = inside_window(emerged, 2e9, 8e9, PYTHIA_TOKENS, what="copy suppression heads")
    else:
        verdict = not_applicable(
            f"copy suppression heads: the window is Pythia's, and {measured.model} is not; "
            f"{emerged.sentence}"
        )
    scores = [
        known(suppression.scores(each, "evaluation")[head])
        for each, head in zip(measured.cspa, chosen, strict=True)
    ]
    judge(
        beside(verdict, *controls).showing(
            curves=[shown(curve, f"{emerged.what}: contrast", level=0.0, onset=emerged)],
            cspa=dict(zip([m.label for m in measured.cspa.moments], scores, strict=True)),
            heads_at_the_end=named(candidates),
        )
    )


@claim(
    "tigges2024.copy-suppression-helps",
    section="3",
    says="In Pythia, copy suppression heads help IOI.",
    task=ioi,
    components=["copy-suppression"],
    gate=gates.does(ioi, patched=True),
    needs={
        "cspa": CSPA,
        "effects": EFFECTS,
        "attention": attention.end_attention(ioi),
    },
    controls=["the heads attend from END to S more than to IO"],
    exceptions={"gpt2*": "in GPT-2 copy suppression heads work against IOI, says the paper"},
)
def test_copy_suppression_heads_help_ioi(measured, judge):
    """The summed direct effect of the heads with a CSPA above 0.1 is above 0.

    Heads are chosen on one half of the documents, effects are the evaluation half's of the
    prompts. No such head: not applicable. Matched random heads are shown: the claim is of a sign.
    """
    heads = suppression.suppression_heads(measured.cspa, "selection")
    if not heads:
        top = np.nanmax(suppression.scores(measured.cspa, "selection"), initial=0)
        judge(not_applicable(f"no head has a CSPA above 0.1 on the selection half: {top:.2g}"))

    def rule(chosen, half):
        effect = measured.effects.sum_over("direct_effect", chosen, half)
        what = f"summed direct effect of the copy suppression heads {named(chosen)} on {half}"
        return above(effect, 0.0, what=what)

    looks = [
        measured.attention.sum_over(value, heads, "evaluation") for value in ("S1", "S2", "IO")
    ]
    to_s = above(looks[0] + looks[1] - looks[2], 0.0, what="their attention to S minus to IO")
    mean = measured.effects.mean("direct_effect", "evaluation")
    random = random_heads(
        heads,
        lambda each: sum(mean[head] for head in each),
        mean.shape,
        measured.generator("random heads"),
        what="summed effect of random heads",
        decides=False,
    )
    scores = suppression.scores(measured.cspa, "evaluation")
    other = suppression.suppression_heads(measured.cspa, "evaluation")
    judge(
        beside(rule(heads, "evaluation"), value_control("attention to S", to_s), random).showing(
            cspa={named([head]): float(scores[head]) for head in heads},
            replication=str(rule(other, "selection")) if other else "no such head",
        )
    )
