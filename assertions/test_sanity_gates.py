"""About the model, not the science: which behaviours it has. These run first."""

from mechtests import claim
from mechtests.metrics import behaviour, gates
from mechtests.tasks import find
from mechtests.tasks.greater_than import greater_than
from mechtests.tasks.ioi import ioi
from mechtests.tasks.pronoun import pronoun
from mechtests.tasks.succession import succession
from mechtests.tasks.sva import sva


@claim(
    "sanity.gates",
    says="Which behaviours the model has; every mechanism claim refers to it.",
    tasks=[ioi, greater_than, pronoun, sva, succession],
    components=["behaviour"],
    needs=lambda task: {"behaviour": behaviour.answers(task)},
)
def test_whether_the_model_does_the_task_is_decided(measured, judge):
    """Holds where every level of the task is passed or failed on the evaluation half.

    Never refuted: a model that does not do the task is a finding, and its gate is failed.
    """
    judge(gates.decided(measured.behaviour, find(measured.task)))
