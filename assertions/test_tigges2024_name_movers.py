"""Tigges et al. 2024, LLM Circuit Analyses Are Consistent Across Training and Scale.

arXiv 2407.10827, sections 3 and 4: the heads that copy the indirect object.
"""

from mechtests import claim
from mechtests.matched import STRATA
from mechtests.measurement import HALVES, named
from mechtests.metrics import ablation, effects, gates, roles
from mechtests.metrics.copying import copy_scores
from mechtests.rules import above, beside, matched_random, random_heads
from mechtests.tasks.ioi import ioi
from mechtests.verdict import Control, not_applicable, refuted

COPYING = copy_scores(ioi)
EFFECTS = effects.direct_effects(ioi)
DRAWS = 999  # re-sums of stored values cost nothing


@claim(
    "tigges2024.copying-heads-present",
    section="3",
    says="Heads that copy the name they attend to are present in IOI (name mover heads).",
    task=ioi,
    components=["name-mover", "copying"],
    gate=gates.does(ioi, patched=True),
    needs={
        "copying": COPYING,
        "effects": EFFECTS,
        "untrained": copy_scores(ioi, cell="untrained"),
    },
    controls=[
        "as many random heads of the same layers have a smaller summed effect",
        "no head of the untrained cell copies names",
        "the copy score of each head is above that for a name absent from the prompt",
    ],
)
def test_heads_that_copy_the_name_they_attend_to_are_present(measured, judge):
    """The name movers chosen on the selection half help on the evaluation half.

    A name mover: copy score above 0.1 and above that of an absent name, helping the logit
    difference directly. There is at least one (else refuted), and their summed direct effect
    is above 0.
    """
    layers, heads = measured.effects["direct_effect"].shape[1:]

    def rule(choose, decide):
        movers = roles.name_movers(measured.copying, measured.effects, choose)
        if not movers:
            return refuted(f"no head is a name mover with effect on the {choose} half"), movers
        effect = measured.effects.sum_over("direct_effect", movers, decide)
        what = f"summed direct effect of the name movers {named(movers)} on {decide}"
        return above(effect, 0.0, what=what), movers

    verdict, movers = rule("selection", "evaluation")
    copying = roles.copying_heads(measured.untrained, "evaluation")
    controls = [
        Control(
            "untrained cell",
            f"untrained cell: {len(copying)} of {layers * heads} heads copy names",
            reached=bool(copying),
        )
    ]
    if movers:
        mean = measured.effects.mean("direct_effect", "evaluation")
        controls.append(
            random_heads(
                movers,
                lambda each: sum(mean[head] for head in each),
                (layers, heads),
                measured.generator("random heads"),
                what="summed effect of random heads",
            )
        )
    judge(
        beside(verdict, *controls).showing(
            copy_scores={named([head]): measured.copying.mean("copied")[head] for head in movers},
            absent_names={
                named([head]): measured.copying.mean("copied_absent")[head] for head in movers
            },
            replication=str(rule("evaluation", "selection")[0]),
        )
    )


@claim(
    "tigges2024.name-movers-matter",
    section="4",
    says="Ablating the name movers drops IOI more than ablating random heads.",
    task=ioi,
    components=["name-mover", "ablation"],
    gate=gates.does(ioi, patched=True),
    needs={
        "copying": COPYING,
        "effects": EFFECTS,
        "ablation": ablation.ablate_heads(
            ioi,
            inputs={"copying": COPYING, "effects": EFFECTS, "mean_z": effects.mean_z(ioi)},
        ),
    },
    controls=["as many random heads of the same layers, ablated in the same way"],
)
def test_ablating_the_name_movers_drops_ioi_more_than_random_heads(measured, judge):
    """The drop without the name movers minus the mean drop without random heads is above 0.

    Name movers with effect are chosen on the selection half; their z at END is replaced by the
    corrupted run's, and the logit difference is read on the evaluation half. Without a name
    mover: not applicable.
    """
    found = measured.ablation

    def rule(choose, decide):
        movers = roles.name_movers(measured.copying, measured.effects, choose)
        if not movers:
            return not_applicable(f"no head is a name mover with effect on the {choose} half")
        what = f"drop of name movers {named(movers)} minus that of random heads on {decide}"
        return above(beyond_random(decide), 0.0, what=what)

    def beyond_random(decide):
        random = drops_of_random(decide)
        return found.sample("drop", decide) - sum(random[1:], random[0]) * (1 / len(random))

    def drops_of_random(decide):
        sets = int(found["draws"][HALVES.index(decide)])
        return [found.sample("drop_random", decide, draw) for draw in range(sets)]

    verdict = rule("selection", "evaluation")
    drop = found.sample("drop", "evaluation").mean
    movers = roles.name_movers(measured.copying, measured.effects, "selection")
    direct = measured.effects.sum_over("direct_effect", movers, "evaluation").mean
    random = [draw.mean for draw in drops_of_random("evaluation")]
    control = matched_random(
        drop,
        random,
        what="drop without random heads",
        stratum=STRATA[int(found["stratum"][1])],
        enumerated=bool(found["enumerated"][1]),
    )
    judge(
        (beside(verdict, control) if movers else verdict).showing(
            drop=drop,
            direct_effect_of_the_set=direct,
            repaired_by_later_heads=direct - drop,
            drop_mean_ablation=found.sample("drop_mean", "evaluation").mean,
            drop_zero_ablation=found.sample("drop_zero", "evaluation").mean,
            ceiling_best_heads=found.sample("drop_ceiling", "evaluation").mean,
            logit_difference=measured.effects.sample("clean", "evaluation").mean,
            replication=str(rule("evaluation", "selection")),
        )
    )
