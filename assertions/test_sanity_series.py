"""About a series of checkpoints, not the science: whether it is what it says. These run first."""

from itertools import pairwise

from mechtests import claim
from mechtests.metrics import attention, behaviour, gates, roles, weights
from mechtests.metrics.copying import copy_scores
from mechtests.rules import below, every
from mechtests.tasks.greater_than import greater_than
from mechtests.tasks.ioi import ioi
from mechtests.tasks.pronoun import pronoun
from mechtests.tasks.repeated_tokens import repeated_tokens
from mechtests.tasks.sva import sva
from mechtests.verdict import exactly, not_applicable

TASKS = tuple(task.behaviour for task in (ioi, greater_than, pronoun, sva))


@claim(
    "sanity.checkpoints-differ",
    says="No two checkpoints have the same weights.",
    over="training",
    components=["checkpoints"],
    needs={"weights": weights.fingerprints(repeated_tokens)},
)
def test_no_two_checkpoints_have_the_same_weights(measured, judge):
    """All digests of the loaded weights differ, and so does every large matrix: exact.

    A matrix that two checkpoints share is a shard of another step.
    """
    digests = {}
    for moment, found in zip(measured.weights.moments, measured.weights, strict=True):
        digests.setdefault(found.facts["weights"], []).append(moment.label)
    same = [" and ".join(labels) for labels in digests.values() if len(labels) > 1]
    faults = [*(f"{labels} are one" for labels in same), *weights.shared(measured.weights)]
    count = f"{len(measured.weights)} checkpoints, {len(digests)} different weights"
    judge(exactly(not faults, "; ".join([count, *faults[:3]])))


@claim(
    "sanity.schedule-complete",
    says="The checkpoints asked for are there, in order, with a token count each.",
    over="training",
    components=["checkpoints"],
    needs={"weights": weights.fingerprints(repeated_tokens)},
)
def test_the_checkpoints_are_there_in_order_with_their_tokens(measured, judge):
    """Each checkpoint was measured, has a token count, and more of them than the one before."""
    moments = measured.weights.moments
    untold = [moment.label for moment in moments if moment.tokens is None]
    tokens = [moment.tokens or 0 for moment in moments]
    ordered = all(before < after for before, after in pairwise(tokens))
    faults = [f"no token count: {', '.join(untold)}"] if untold else []
    faults += [] if ordered or untold else ["token counts do not rise"]
    judge(exactly(not faults, "; ".join([f"{len(moments)} checkpoints", *faults])))


@claim(
    "sanity.untrained-at-chance",
    says="At step 0 no task is above chance and no head has a role.",
    over="training",
    components=["checkpoints", "behaviour"],
    needs={
        **{task.name: behaviour.answers(task) for task in TASKS},
        "scores": attention.head_scores(repeated_tokens),
        "copying": copy_scores(ioi),
    },
)
def test_at_step_0_no_task_is_above_chance_and_no_head_has_a_role(measured, judge):
    """At step 0 every task is below a level of its gate, and every head below its role's.

    Tasks: Bonferroni over them. Heads: the strongest head of one half, on the other, is below
    0.1 (induction, duplicate, previous token); no head copies names. No step 0: not applicable.
    """
    first = measured.scores.moments[0]
    if first.step != 0 and first.tokens != 0:
        judge(
            not_applicable(
                f"{measured.model} has no step 0 in this run, it begins at {first.label}"
            )
        )
    scores = measured.scores[0]

    def role(value):
        head = scores.strongest(value, "selection")
        what = "{} score of head {}.{}".format(value, *head)
        return below(scores.sample(value, "evaluation", *head), 0.1, what=what)

    copying = roles.copying_heads(measured.copying[0], "evaluation")
    judge(
        every(
            *(
                gates.at_chance(measured[task.name][0], task, among=len(TASKS))
                for task in TASKS
                if not measured.lacks(task.name)
            ),
            *(role("induction"), role("duplicate"), role("previous")),
            exactly(not copying, f"{len(copying)} heads copy names"),
            what="step 0",
        )
    )
