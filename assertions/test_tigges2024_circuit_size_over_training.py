"""Tigges et al. 2024, LLM Circuit Analyses Are Consistent Across Training and Scale.

arXiv 2407.10827, section 5: circuits become larger and smaller while the algorithm stays the same.
"""

from mechtests import claim
from mechtests.circuits import measures, sizes
from mechtests.metrics import algorithm, behaviour, gates
from mechtests.rules import beside
from mechtests.tasks.ioi import ioi
from mechtests.verdict import Outcome, Verdict, not_applicable


@claim(
    "tigges2024.circuit-size-fluctuates",
    section="5",
    says="Circuit size fluctuates over training while the algorithm is stable.",
    over="training",
    task=ioi,
    components=["circuit", "size", "algorithm"],
    gate=gates.does(ioi, patched=True),
    needs={
        "ioi": behaviour.answers(ioi.behaviour),
        **algorithm.NEEDS,
        "edges": measures.scores_on(ioi),
        "sizes": measures.sizes_on(ioi),
    },
    controls=["the checkpoints of one half's circuits in another order"],
)
def test_circuit_size_fluctuates_while_the_algorithm_is_stable(measured, judge):
    """The log2 sizes of both halves' circuits vary together by more than 0.25 octaves.

    In edges of the smallest circuit that keeps 80% on the other half, at the checkpoints that do
    IOI from its onset on, without a line in log tokens: the root of the halves' covariance, with a
    jackknife over checkpoints. Only where algorithm-stable holds: not applicable where it is
    refuted, inconclusive where it is open; and where over a tenth of the circuits never keep 80%.
    """
    found = gates.emergence(measured.ioi, ioi, measured.generator("onset"))
    if found.unasked:
        judge(found.unasked)
    stable = algorithm.stable(measured, found)
    if stable.outcome is not Outcome.HOLDS:
        judge(unstable(stable))
    circuits = sizes.smallest(measured.edges, measured.sizes, found.formed)
    edges, nodes = (sizes.counts(circuits, of) for of in ("edges", "nodes"))
    tokens = found.onset.positions[found.formed]
    what = "log2 edges of both halves' circuits without their line in log tokens, together"
    verdict = sizes.uncensored(sizes.fluctuates(edges, tokens, what=what), circuits)
    control = sizes.permuted(edges, tokens, measured.generator("permuted"))
    at_the_last = measured.sizes[found.formed[-1]]
    again = sizes.redrawn(circuits[-1], at_the_last, measured.generator("prompts"))
    judge(
        beside(verdict, control).showing(
            checkpoints=[found.onset.moments[at].label for at in found.formed],
            edges=edges.tolist(),
            nodes=nodes.tolist(),
            prompts_drawn_again_at_the_last=again,
            algorithm=stable.sentence,
            curves=stable.shown["curves"],
        )
    )


def unstable(stable):
    """Why size is not asked about: the algorithm changes, or it is open whether it does."""
    if stable.outcome is not Outcome.INCONCLUSIVE:
        return not_applicable(f"the algorithm is not stable: {stable.sentence}")
    why = f"whether the algorithm is stable is open: {stable.sentence}"
    return Verdict(Outcome.INCONCLUSIVE, why, needed=stable.needed)
