"""Behaviour: what the model answers at END."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mechtests.metrics.metric import Batch, Metric, Value

if TYPE_CHECKING:
    from torch import Tensor

    from mechtests.models.network import Network
    from mechtests.tasks.prompts import Ids, Prompts

OTHER = ("other_right", "other_wrong")


def logit_difference(network: Network, resid: Tensor, prompts: Prompts) -> Tensor:
    """Mean logit of the right answers minus that of the wrong ones.

    Args:
        network: The network.
        resid: The residual stream at END after the last block, ``[prompt, ..., width]``.
        prompts: Whose answers are meant.

    Returns:
        Logits, shape ``[prompt, ...]``, in single precision at least.
    """
    right, wrong = answer_ids(network, prompts)
    return _mean_logit(network, resid, right) - _mean_logit(network, resid, wrong)


def probability_difference(network: Network, resid: Tensor, prompts: Prompts) -> Tensor:
    """Probability mass of the right answers minus that of the wrong ones, of the whole softmax.

    Args:
        network: The network.
        resid: The residual stream at END after the last block, ``[prompt, width]``.
        prompts: Whose answers are meant.

    Returns:
        Shape ``[prompt]``, in single precision.
    """
    right, wrong = answer_ids(network, prompts)
    return _probability_difference(network.logits(resid).float().softmax(-1), right, wrong)


def answer_ids(network: Network, prompts: Prompts) -> tuple[Tensor, Tensor]:
    """Right and wrong answers on the network's device, each ``[prompt, answer]``, -1 padded."""
    return _tensor(network, prompts.right), _tensor(network, prompts.wrong)


def _tensor(network: Network, ids: Ids | None) -> Tensor:
    import torch

    assert ids is not None
    return torch.as_tensor(ids, device=network.device)


def _mean_logit(network: Network, resid: Tensor, ids: Tensor) -> Tensor:
    import torch

    logits = network.logits(resid, tokens=ids.clamp(min=0))
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    real = (ids >= 0).view(len(ids), *[1] * (logits.ndim - 2), -1)
    return (logits * real).sum(-1) / real.sum(-1)


def _answers(batch: Batch) -> Mapping[str, Tensor]:
    network, prompts = batch.network, batch.prompts
    right, wrong = answer_ids(network, prompts)
    logits = network.logits(batch.clean.final).float()
    best = _chosen(logits, right, float("-inf")).amax(-1)
    probabilities = logits.softmax(-1)
    gained = _probability_difference(probabilities, right, wrong)
    other = [_tensor(network, prompts.tokens.get(name)) for name in OTHER if name in prompts.tokens]
    clean = _mean_chosen(logits, right) - _mean_chosen(logits, wrong)
    corrupted = logit_difference(network, batch.corrupted.final, prompts)
    return {
        "logit_difference": clean,
        "corrupted_logit_difference": corrupted,
        "clean_minus_corrupted": clean - corrupted,
        "correct": (best > _chosen(logits, wrong, float("-inf")).amax(-1)).float(),
        "probability_difference": gained,
        "beyond_other_prompt": gained - _probability_difference(probabilities, *other)
        if other
        else gained,
        "rank": 1.0 + (logits > best[:, None]).sum(-1),
    }


def _probability_difference(probabilities: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
    """Probability mass of right answers minus that of wrong ones, shape ``[prompt]``."""
    for_, against = (_chosen(probabilities, ids, 0.0).sum(-1) for ids in (right, wrong))
    return for_ - against


def _mean_chosen(logits: Tensor, ids: Tensor) -> Tensor:
    """The mean logit of some token ids, shape ``[prompt]``."""
    return _chosen(logits, ids, 0.0).sum(-1) / (ids >= 0).sum(-1)


def _chosen(values: Tensor, ids: Tensor, padding: float) -> Tensor:
    """The values at some token ids, shape ``[prompt, answer]``; padding where there is none."""
    return values.gather(1, ids.clamp(min=0)).masked_fill(ids < 0, padding)


answers = Metric(
    name="behaviour.answers",
    version=3,
    compute=_answers,
    values={
        "logit_difference": Value(("prompt",), "logits"),
        "corrupted_logit_difference": Value(("prompt",), "logits"),
        "clean_minus_corrupted": Value(("prompt",), "logits"),
        "correct": Value(("prompt",), "share"),
        "probability_difference": Value(("prompt",), "probability"),
        "beyond_other_prompt": Value(("prompt",), "probability"),
        "rank": Value(("prompt",), "rank"),
    },
    clean=("final",),
    corrupted=("final",),
    needs=("answers",),
)
"""What the model answers at END, prompt by prompt.

``logit_difference``: mean logit of the right answers minus that of the wrong ones (for one
right and one wrong answer, their difference); ``corrupted_logit_difference``: the same on the
corrupted prompts, with the clean prompts' answers; ``clean_minus_corrupted``: the first minus the
second, what patching has to move. ``correct``: 1 where the highest right answer
is above the highest wrong one. ``probability_difference``: probability mass of the right answers
minus that of the wrong ones, of the whole softmax. ``beyond_other_prompt``: that minus the same
with the answers of another prompt (tokens ``other_right`` and ``other_wrong``), which a fixed taste
for some answers leaves at 0; where the prompts have no such answers, the probability difference
itself. ``rank``: of the highest right answer among
the whole vocabulary, 1 for the model's first guess.

Source: Tigges et al. 2024, Figure 1 and its code (logit difference, grouped probability
difference), whose means over batches weigh a short last batch too much; here every prompt counts
once.
"""
