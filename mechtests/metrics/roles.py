"""Roles: which heads do a job, judged by scores on one half of the prompts.

Thresholds are those of the catalogue's table of roles (claims.md, "Role curves").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mechtests.checkpoints import Series
from mechtests.measurement import Half, Head, Measurement

INDUCTION = 0.1
COPYING = 0.1


def induction_heads(scores: Measurement, half: Half) -> list[Head]:
    """Heads whose induction score is above 0.1 and above the mean over heads.

    Args:
        scores: From ``attention.head_scores``.
        half: The half whose prompts choose.
    """
    score = scores.mean("induction", half)
    return _heads((score > INDUCTION) & (score > score.mean()))


def copying_heads(copying: Measurement, half: Half) -> list[Head]:
    """Heads whose copy score is above 0.1 and above that for a name the prompt does not have.

    Args:
        copying: From ``copying.copy_scores``.
        half: The half whose prompts choose.
    """
    copied = copying.mean("copied", half)
    return _heads((copied > COPYING) & (copied > copying.mean("copied_absent", half)))


def with_effect(heads: list[Head], effects: Measurement, half: Half) -> list[Head]:
    """Those of the heads that directly help the logit difference on a half.

    Args:
        heads: Any heads.
        effects: From ``effects.direct_effects``.
        half: The half whose prompts choose.
    """
    effect = effects.mean("direct_effect", half)
    return [head for head in heads if effect[head] > 0]


def name_movers(copying: Measurement, effects: Measurement, half: Half) -> list[Head]:
    """Heads that copy names and help directly: the paper's name mover heads.

    Source: Tigges et al. 2024, Figure 4 and its code (copy score above 10%, patching harms).
    """
    return with_effect(copying_heads(copying, half), effects, half)


def strongest(effects: Measurement, half: Half, count: int) -> list[Head]:
    """So many heads with the largest direct effect on a half, sorted.

    The ceiling of what any set of that size could do.
    """
    effect = effects.mean("direct_effect", half)
    largest = np.argsort(-effect, axis=None, kind="stable")[:count]
    layers, heads = np.unravel_index(largest, effect.shape)
    return sorted(zip(layers.tolist(), heads.tolist(), strict=True))


def _heads(chosen: NDArray[np.bool_]) -> list[Head]:
    return [(int(layer), int(head)) for layer, head in np.argwhere(chosen)]


def name_mover_candidates(
    copying: Series, effects: Series, half: Half, gated: Sequence[bool]
) -> list[Head]:
    """Heads that are name movers at any checkpoint that does the task (claims.md, Role curves).

    They are the same for the whole series, so that the onset of their copying does not
    inherit the task's.

    Args:
        copying: ``copying.copy_scores`` at every checkpoint.
        effects: ``effects.direct_effects`` at every checkpoint.
        half: The half whose prompts choose.
        gated: Whether each checkpoint does the task.
    """
    found: set[Head] = set()
    for scores, effect, does in zip(copying, effects, gated, strict=True):
        if does:
            found.update(name_movers(scores, effect, half))
    return sorted(found)
