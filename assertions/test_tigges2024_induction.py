"""Tigges et al. 2024, LLM Circuit Analyses Are Consistent Across Training and Scale.

arXiv 2407.10827, section 3: induction heads.
"""

from mechtests import claim
from mechtests.metrics import attention
from mechtests.rules import above, below, beside, value_control
from mechtests.tasks.repeated_tokens import few_repeated_tokens, repeated_tokens


@claim(
    "tigges2024.induction-present",
    section="3",
    says="Induction heads are present (they emerge soon after 2e9 tokens, at every size).",
    task=repeated_tokens,
    components=["induction"],
    needs={
        "scores": attention.head_scores(repeated_tokens),
        "untrained": attention.head_scores(few_repeated_tokens, cell="untrained"),
    },
    controls=[
        "the strongest head of the untrained cell stays below 0.1",
        "the same head on sequences without a repeat stays below 0.1",
    ],
)
def test_an_induction_head_is_present(measured, judge):
    """The head strongest on the selection half: its induction score on the other half > 0.4."""

    def score(scores, value, choose, decide):
        head = scores.strongest("induction", choose)
        return "{}.{}".format(*head), scores.sample(value, decide, *head)

    def rule(choose, decide, margin=0.4):
        head, induction = score(measured.scores, "induction", choose, decide)
        return above(induction, margin, what=f"induction score of head {head} on {decide}")

    head, plain = score(measured.scores, "induction_unrepeated", "selection", "evaluation")
    other, untrained = score(measured.untrained, "induction", "selection", "evaluation")
    judge(
        beside(
            rule("selection", "evaluation"),
            value_control(
                "untrained cell",
                below(untrained, 0.1, what=f"induction score of its strongest head {other}"),
            ),
            value_control(
                "no repeat", below(plain, 0.1, what=f"the same of head {head} without a repeat")
            ),
        ).showing(
            above_0_2=rule("selection", "evaluation", 0.2).outcome,
            above_0_6=rule("selection", "evaluation", 0.6).outcome,
            replication=str(rule("evaluation", "selection")),
        )
    )
