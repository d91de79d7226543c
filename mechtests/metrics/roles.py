"""Roles: which heads do a job, judged by scores on one half of the prompts.

Thresholds are those of the catalogue's table of roles (claims.md, "Role curves").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mechtests.checkpoints import Series
from mechtests.errors import UsageError
from mechtests.measurement import HALVES, Half, Head, Measurement

INDUCTION = 0.1
COPYING = 0.1
SUCCESSION = 0.2
LOST = 0.001

CHOSEN_BY = ("other half", *HALVES)
"""Which half chooses the heads that a measurement is about, on the prompts of each half."""


def chooser(by: str, half: Half) -> Half:
    """The half that chooses heads for the prompts of a half.

    Args:
        by: ``"other half"``, or the name of a half that chooses for all prompts.
        half: The half whose prompts are asked.

    Raises:
        UsageError: ``by`` is none of ``CHOSEN_BY``.
    """
    if by not in CHOSEN_BY:
        raise UsageError(f"heads are chosen by one of {', '.join(CHOSEN_BY)}, got {by!r}")
    if by == "other half":
        return HALVES[1 - HALVES.index(half)]
    return HALVES[CHOSEN_BY.index(by) - 1]


def induction_heads(scores: Measurement, half: Half) -> list[Head]:
    """Heads whose induction score is above 0.1 and above the mean over heads.

    Args:
        scores: From ``attention.head_scores``.
        half: The half whose prompts choose.
    """
    return attention_heads("induction", scores, half)


def attention_heads(value: str, scores: Measurement, half: Half) -> list[Head]:
    """Heads whose attention score is above 0.1 and above the mean over heads.

    Args:
        value: ``"induction"``, ``"duplicate"`` or ``"previous"``.
        scores: From ``attention.head_scores``.
        half: The half whose prompts choose.
    """
    return above_mean(value, scores, half, INDUCTION)


def above_mean(value: str, scores: Measurement, half: Half, least: float = 0.0) -> list[Head]:
    """Heads whose score is above the mean over heads: the paper's rule, and a least score.

    Arguments as for ``attention_heads``; ``least`` is what the score must exceed as well.
    """
    score = scores.mean(value, half)
    return _heads((score > least) & (score > score.mean()))


def copying_heads(copying: Measurement, half: Half) -> list[Head]:
    """Heads whose copy score is above 0.1 and above that for a name the prompt does not have.

    Args:
        copying: From ``copying.copy_scores``.
        half: The half whose prompts choose.
    """
    copied = copying.mean("copied", half)
    return _heads((copied > COPYING) & (copied > copying.mean("copied_absent", half)))


def successor_heads(scores: Measurement, half: Half) -> list[Head]:
    """Heads whose succession score is above 0.2 and above twice that of a shuffled order.

    Args:
        scores: From ``succession.successor_scores``.
        half: The half whose pairs choose.
    """
    score = scores.mean("succession", half)
    return _heads((score > SUCCESSION) & (score > 2 * scores.mean("shuffled", half)))


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


def attending_to_io(heads: list[Head], attention: Measurement, half: Half) -> list[Head]:
    """Those of the heads that attend from END to IO more than to S1 and more than to S2.

    Args:
        heads: Any heads.
        attention: From ``attention.end_attention``.
        half: The half whose prompts choose.

    Source: Tigges et al. 2024, Figure 4 and its code (the filter of name movers).
    """
    io, first, second = (attention.mean(name, half) for name in ("IO", "S1", "S2"))
    return [head for head in heads if io[head] > max(first[head], second[head])]


def attending_to_s(heads: list[Head], attention: Measurement, half: Half) -> list[Head]:
    """Those of the heads that attend from END to S, at both places together, more than to IO.

    Arguments as for ``attending_to_io``.
    """
    io, first, second = (attention.mean(name, half) for name in ("IO", "S1", "S2"))
    return [head for head in heads if first[head] + second[head] > io[head]]


def s_inhibition_heads(inhibition: Measurement, half: Half) -> list[Head]:
    """Heads without whose word the name movers look from IO to S1, and the answer suffers.

    As shares of the clean mean, the logit difference falls, the name movers' attention to IO
    falls and that to S1 rises. The fall must be of more than a thousandth: heads with next to
    no effect have the three signs by chance. Where the clean logit difference is not above 0
    there is nothing to lose, and no head.

    Args:
        inhibition: From ``inhibition.s_inhibition``, with the corruption ``swapped order``.
        half: The half whose prompts choose.

    Source: Tigges et al. 2024, Figure 4 and its code: the three signs, among heads whose
    effect is below -0.001 of clean minus corrupted, about twice the clean logit difference.
    """
    clean = inhibition.sample("clean_logit_difference", half).mean
    if clean <= 0:
        return []
    lost = -inhibition.mean("logit_difference", half) / clean
    away = inhibition.mean("attention_io", half) < 0
    return _heads((lost > LOST) & away & (inhibition.mean("attention_s1", half) > 0))


def turning_away_heads(inhibition: Measurement, half: Half) -> list[Head]:
    """Heads without whose word the name movers look from IO to S1, whatever becomes of the answer.

    Arguments as for ``s_inhibition_heads``.
    """
    away = inhibition.mean("attention_io", half) < 0
    return _heads(away & (inhibition.mean("attention_s1", half) > 0))
