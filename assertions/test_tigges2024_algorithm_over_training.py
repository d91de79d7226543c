"""Tigges et al. 2024, LLM Circuit Analyses Are Consistent Across Training and Scale.

arXiv 2407.10827, section 4 and Figure 4: whether the heads that are known for the steps of the IOI
algorithm do as much of each once it is formed.
"""

from mechtests import claim
from mechtests.metrics import algorithm, behaviour, gates
from mechtests.tasks.ioi import ioi


@claim(
    "tigges2024.algorithm-stable",
    section="4",
    says="Once the IOI algorithm is formed, the three shares stay stable.",
    over="training",
    task=ioi,
    components=["algorithm", "name-mover", "s-inhibition", "induction"],
    gate=gates.does(ioi, patched=True),
    needs={"ioi": behaviour.answers(ioi.behaviour), **algorithm.NEEDS},
    controls=["random heads, redrawn at each checkpoint, stay below 0.70, 0.50 and 0.50"],
)
def test_the_shares_of_the_algorithm_stay_stable_once_it_is_formed(measured, judge):
    """At every checkpoint that does IOI from its onset on, each helpful share is as on average.

    Equivalent to its mean over them within 0.20, simultaneously, and its trend within 0.15. Roles
    are chosen at each checkpoint on the selection half. A denominator below its guard at over a
    fifth of them: inconclusive; fewer are left out and named.
    """
    found = gates.emergence(measured.ioi, ioi, measured.generator("onset"))
    if open_ := found.unasked:
        judge(open_)
    judge(algorithm.stable(measured, found))
