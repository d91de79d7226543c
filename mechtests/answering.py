"""Whether a model does a task at single prompts: one number a prompt, above 0 where it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mechtests.errors import MeasurementError
from mechtests.tasks.prompts import Prompts, Task

if TYPE_CHECKING:
    from torch import Tensor

    from mechtests.models.network import Network

LOGITS = "logit difference"
PROBABILITY = "probability difference"
LEAD_OF_WRONG = "lead over the wrong answers' logits"
LEAD = "lead of the right answer's logit"


def behaviour_of(task: Task) -> str:
    """What tells whether a model does a task at a prompt: what the task's gate is about.

    A level of ``correct`` alone, which is yes or no at a prompt, becomes the lead it is about.
    """
    levels = {} if task.levels is None else task.levels.above
    if "logit_difference" in levels:
        return LOGITS
    if "probability_difference" in levels:
        return PROBABILITY
    return LEAD_OF_WRONG if "correct" in levels else LEAD


def margins(
    network: Network, prompts: Prompts, behaviour: str
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """By how much the model does the task, and its first guess, each ``[prompt]``; one run.

    Args:
        network: The network.
        prompts: With right answers, and wrong ones unless it is the lead that is asked for.
        behaviour: One of those ``behaviour_of`` gives.
    """
    import torch

    tokens = torch.from_numpy(np.ascontiguousarray(prompts.clean)).to(network.device)
    with torch.no_grad():
        end = torch.from_numpy(prompts.end).to(network.device)
        return read(network, network.run(tokens, last=end).final, prompts, behaviour)


def read(
    network: Network, final: Tensor, prompts: Prompts, behaviour: str
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """As ``margins``, of a run that was made.

    The differences are those of ``behaviour.answers``; the leads are the right answer's logit
    minus the highest wrong one, or the highest of all other tokens.

    Args:
        network: The network.
        final: The residual stream at END after the last block, ``[prompt, width]``.
        prompts: Which prompts these are.
        behaviour: One of those ``behaviour_of`` gives.

    Raises:
        MeasurementError: A margin is not a finite number.
    """
    import torch

    from mechtests.metrics.behaviour import logit_difference, probability_difference

    with torch.no_grad():
        logits = network.logits(final).float()
        if behaviour == LOGITS:
            found = logit_difference(network, final, prompts)
        elif behaviour == PROBABILITY:
            found = probability_difference(network, final, prompts)
        else:
            found = _lead(logits, prompts, among_wrong=behaviour == LEAD_OF_WRONG)
    values = found.double().cpu().numpy()
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise MeasurementError(
            f"{network.name}: the {behaviour} of {prompts.texts[bad[0]]!r} is not a finite "
            "number; the model gives NaN or infinite activations"
        )
    return values, logits.argmax(-1).cpu().numpy()


def _lead(logits: Tensor, prompts: Prompts, *, among_wrong: bool) -> Tensor:
    """The first right answer's logit minus the highest other one, ``[prompt]``."""
    import torch

    assert prompts.right is not None
    right = torch.as_tensor(prompts.right[:, :1], device=logits.device)
    if among_wrong:
        assert prompts.wrong is not None
        wrong = torch.as_tensor(prompts.wrong, device=logits.device)
        others = logits.gather(1, wrong.clamp(min=0)).masked_fill(wrong < 0, float("-inf"))
    else:
        others = logits.scatter(1, right, float("-inf"))
    return logits.gather(1, right)[:, 0] - others.amax(-1)
