"""Nikankin et al. 2025, Arithmetic Without Algorithms: a Bag of Heuristics.

arXiv 2410.21272, page 8: where a model fails, its heuristic neurons are there and do less.
"""

from mechtests import claim
from mechtests.arithmetic import failure_measures, gates, measures
from mechtests.arithmetic.failure_measures import (
    apart,
    paired,
    sides,
    speaking_of,
    unmatched,
)
from mechtests.arithmetic.failures import BINS, not_fewer, weaker, wins
from mechtests.arithmetic.reading import pooled
from mechtests.tasks.arithmetic import NAMES, arithmetic

NEEDS = {"answers": measures.answers_here(), "found": failure_measures.contributed_here()}


def judged(measured, rule):
    """The rule over all operators that fail often enough, or why there is none."""
    found, answers = measured.found, measured.answers
    gated = speaking_of(found, gates.gated_operators(answers))
    if not gated.operators:
        return failure_measures.undecided(answers, found)
    verdict = pooled(rule, gated.operators, gated)
    differ = {NAMES[op]: apart(answers, found, op) for op in gated.operators}
    return verdict.showing(bins=BINS, apart=differ)


@claim(
    "nikankin2025.failures-weaker",
    section="page 8 and Figure 9",
    says="On failed prompts the heuristic neurons contribute less to the right answer.",
    task=arithmetic,
    components=["neurons", "heuristics"],
    gate=gates.does(),
    needs=NEEDS,
    controls=["as many neurons of the same attribution without a heuristic"],
)
def test_heuristic_neurons_add_less_where_the_model_fails(measured, judge):
    """AUC above 0.7: in so many pairs the heuristic neurons at work add more to the right answer.

    A pair is a correct and a failed problem with operands and answer in the same fifths, from the
    evaluation half; an operator has 100 pairs, or a sample is inconclusive and a census not
    applicable (a perfect model has no failures). A neuron is at work where a heuristic it matches
    holds; it adds its activation times its value vector's centred logit of the right answer.
    Any neuron adds less to an answer that loses: the AUC must be above that of as many neurons
    without a heuristic, pair by pair. These are nearest in attribution, of the layer, else of
    its third of depth, else of any middle or late layer. Where over a fifth of the problems have
    too few, or they are attributed less than half as much, it is inconclusive, "no alternative
    sets". Operators are pooled with as many pairs each. Shown: the AUC of the right answer's own
    logit, which no part of it need reach. Llama 3 8B, addition, 50 correct and 50 incorrect
    prompts, not matched: 10.97 and 7.17 logits, AUC .90 (read off Figure 9).
    """
    found, logit = measured.found, measured.answers["answer_logit"]

    def rule(some):
        whole = wins(*logit[paired(found, some)].T).mean
        return weaker(*sides(found, some)).showing(whole_logit=whole)

    judge(judged(measured, rule))


@claim(
    "nikankin2025.failures-not-fewer",
    section="page 8",
    says="Failure is not for want of heuristic neurons.",
    task=arithmetic,
    components=["neurons", "heuristics"],
    gate=gates.does(),
    needs=NEEDS,
    controls=["shown: the same difference without matching"],
)
def test_no_fewer_heuristic_neurons_are_at_work_where_the_model_fails(measured, judge):
    """Neurons at work on the failed minus the correct problem of a pair: above -5% of their mean.

    Non-inferiority over the pairs of ``failures-weaker``, on the difference plus 5% of the pair's
    mean. Which heuristics hold is a function of the operands, and failures have other operands:
    what the difference is without matching is shown. The paper has more on incorrect prompts, and
    no number.
    """

    def rule(some):
        correct, failed = sides(measured.found, some)
        counted = unmatched(measured.found, some)
        return not_fewer(correct.count, failed.count, unmatched=counted)

    judge(judged(measured, rule))
