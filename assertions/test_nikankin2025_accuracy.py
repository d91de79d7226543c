"""Nikankin et al. 2025, Arithmetic Without Algorithms: a Bag of Heuristics.

arXiv 2410.21272, Table 3: whether a model does arithmetic at all.
"""

from mechtests import claim
from mechtests.arithmetic import accuracy
from mechtests.arithmetic.answers import answers
from mechtests.tasks.arithmetic import DIVISION, NAMES, arithmetic

MARGIN = 0.2
PRINTED = {
    "llama-3-8b": (0.97, 0.96, 0.84, 0.92),
    "llama-3-70b": (0.97, 0.99, 0.99, 0.73),
    "pythia-6.9b": (0.30, 0.04, 0.27, 0.75),
    "gpt-j-6b": (0.23, 0.09, 0.46, 0.64),
}
"""Accuracy in Table 3, at the end of training, by operator."""
NEAR = 0.02


def printed(model, found):
    """What Table 3 has for the model, and whether a census agrees; nothing for other models."""
    name = model.rpartition("/")[2].lower().removeprefix("meta-")
    if name not in PRINTED:
        return {}
    pairs = list(zip(PRINTED[name], found, strict=True))
    apart = [each.what for value, each in pairs if abs(each.correct.mean - value) > NEAR]
    told = ", ".join(f"{each.what} {value:.2f}" for value, each in pairs)
    if not all(each.census for each in found):
        return {"table_3": f"{told}; a sample cannot be held against it"}
    agrees = f"further than {NEAR:g} from it: {', '.join(apart)}" if apart else f"within {NEAR:g}"
    return {"table_3": f"{told}; {agrees}"}


@claim(
    "nikankin2025.accuracy",
    section="Table 3",
    says="The model does arithmetic: it answers problems of four operators without any example.",
    task=arithmetic,
    components=["behaviour"],
    needs={"answers": answers(arithmetic)},
    controls=["the best predictor that sees no operand, or one, is the floor"],
)
def test_the_model_does_arithmetic(measured, judge):
    """(Accuracy - floor) / (1 - floor), the mean over the four operators, is above 0.2.

    Accuracy is by token id over the whole vocabulary and all legal problems, compared exactly;
    over a sample of them by Clopper-Pearson. The floor of an operator is the best predictor over
    its legal problems that is constant, or sees one operand. Operators weigh the same; each alone
    is a part, and those on the other side are named. Division without the answer 0, and problems
    whose operands were never trained on, where that is known, are shown. Table 3 (+, -, *, /), to
    which a census should be within 0.02: Llama 3 8B .97 .96 .84 .92, 70B .97 .99 .99 .73,
    Pythia 6.9B .30 .04 .27 .75, GPT-J .23 .09 .46 .64.
    """
    found = [accuracy.of(measured.answers, operator) for operator in range(len(NAMES))]
    without = accuracy.of(measured.answers, DIVISION, zero=False)
    verdict = accuracy.pooled(found, MARGIN, what="accuracy above the floor")
    shown = {each.what.replace(" ", "_"): each.shown for each in (*found, without)}
    judge(verdict.showing(**shown, **printed(measured.model, found)))
