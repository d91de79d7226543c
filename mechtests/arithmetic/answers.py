"""What the model answers to problems of arithmetic, as a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mechtests.metrics.metric import Batch, Metric, Value

if TYPE_CHECKING:
    from torch import Tensor

PROBLEM = ("operator", "first", "second", "result", "largest", "unseen")
"""What is told of each problem beside the answers, so that judging needs no tokenizer."""


def _answers(batch: Batch) -> Mapping[str, Any]:
    import numpy as np
    import torch

    network, prompts = batch.network, batch.prompts
    assert prompts.right is not None
    answer = torch.as_tensor(prompts.right[:, 0], device=network.device)
    logits: Tensor = network.logits(batch.clean.final).float()
    predicted = logits.argmax(-1)
    centred = logits - logits.mean(-1, keepdim=True)
    right = centred.gather(1, answer[:, None])[:, 0]
    highest = centred.amax(-1)
    return {
        "correct": (predicted == answer).float(),
        "predicted": predicted.int(),
        "answer": answer.int(),
        "answer_logit": right,
        "normalized_logit": right / highest.clamp(min=torch.finfo(highest.dtype).tiny),
        **{name: prompts.tokens[name].astype(np.int32) for name in PROBLEM},
    }


answers = Metric(
    name="arithmetic.answers",
    version=1,
    compute=_answers,
    values={
        "correct": Value(("prompt",), "share"),
        "predicted": Value(("prompt",), "token id"),
        "answer": Value(("prompt",), "token id"),
        "answer_logit": Value(("prompt",), "logits"),
        "normalized_logit": Value(("prompt",), "share of the highest"),
        "operator": Value(("prompt",), "place among + - * /"),
        "first": Value(("prompt",), "number"),
        "second": Value(("prompt",), "number"),
        "result": Value(("prompt",), "number"),
        "largest": Value(("prompt",), "number"),
        "unseen": Value(("prompt",), "yes or no"),
    },
    clean=("final",),
    needs=tuple(f"tokens:{name}" for name in PROBLEM),
)
"""What the model answers at the last position, problem by problem.

``correct``: 1 where the highest logit of the whole vocabulary is that of the result's token, by
token id (the paper's filter of prompts compares strings, and lets " 158" pass). ``predicted``: the
token with the highest logit; ``answer``: the right one. ``answer_logit``: the right token's logit
minus the mean over the vocabulary; ``normalized_logit``: that over the highest one, also centred,
the paper's NL, which without centring would depend on a constant added to all logits; 1 exactly
where the right token has the highest. The rest are facts of the problem (``tasks.arithmetic``).

Source: Nikankin et al. 2025, page 4 and Table 3.
"""
