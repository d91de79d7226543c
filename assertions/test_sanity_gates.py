"""About the model, not the science: which behaviours it has. These run first."""

from mechtests import claim
from mechtests.arithmetic import gates as of_arithmetic
from mechtests.metrics import gates
from mechtests.tasks.arithmetic import arithmetic
from mechtests.tasks.greater_than import greater_than
from mechtests.tasks.ioi import ioi
from mechtests.tasks.pronoun import pronoun
from mechtests.tasks.succession import succession
from mechtests.tasks.sva import sva

BEHAVIOURS = (ioi, greater_than, pronoun, sva, succession)
GATES = {
    **{task.name: gates.does(task) for task in BEHAVIOURS},
    arithmetic.name: of_arithmetic.does(),
}


@claim(
    "sanity.gates",
    says="Which behaviours the model has; every mechanism claim refers to it.",
    tasks=[*BEHAVIOURS, arithmetic],
    components=["behaviour"],
    needs=lambda task: {"behaviour": GATES[task.name].need},
)
def test_whether_the_model_does_the_task_is_decided(measured, judge):
    """Holds where every level of the task is passed or failed on the evaluation half.

    Never refuted: a model that does not do the task is a finding, and its gate is failed.
    Arithmetic: each operator, by its accuracy over all problems and how many are right.
    """
    judge(GATES[measured.task].decided(measured.behaviour))
