"""How much of a behaviour a circuit keeps: ratios of means over prompts."""

from __future__ import annotations

import numpy as np

from mechtests.circuits.circuit import Floats
from mechtests.errors import MeasurementError


def faithfulness(
    values: Floats,
    clean: Floats,
    corrupted: Floats | None = None,
    *,
    weights: Floats | None = None,
) -> Floats:
    """The share of a metric that circuits keep.

    Normalised, ``(m - m_corrupted) / (m_clean - m_corrupted)``, where the corrupted values are
    given: 0 for the empty circuit, 1 for the whole graph. Else plain, ``m / m_clean``, which is
    Tigges et al. 2024's and takes no account of what the corrupted run gives. Each m is a mean
    over prompts, so that no single prompt's ratio is formed.

    Args:
        values: Of circuits, ``[circuit, prompt]``.
        clean: Of the clean run, ``[prompt]``.
        corrupted: Of what the other edges carry, ``[prompt]``; None for the plain ratio.
        weights: Of the prompts, ``[draw, prompt]``: how often each was drawn.

    Returns:
        Shape ``[circuit]``, or ``[draw, circuit]`` with weights. NaN where the whole graph has
        no more of the metric than nothing, so that a share means nothing.
    """
    floor = np.zeros_like(clean) if corrupted is None else corrupted
    if weights is None:
        kept, whole = (values - floor).mean(-1), np.asarray((clean - floor).mean())
    else:
        total = weights.sum(-1, keepdims=True)
        kept = weights @ (values - floor).T / total
        whole = weights @ (clean - floor)[:, None] / total
    with np.errstate(divide="ignore", invalid="ignore"):
        share: Floats = np.where(whole > 0, kept / whole, np.nan)
    return share


def check_gap(clean: Floats, corrupted: Floats | None) -> None:
    """Refuse prompts on which there is nothing to keep.

    Raises:
        MeasurementError: The clean mean is not above the corrupted one (or 0).
    """
    floor = 0.0 if corrupted is None else float(corrupted.mean())
    if not float(clean.mean()) > floor:
        raise MeasurementError(
            f"the share of a metric that a circuit keeps needs a clean mean above {floor:.4g}, "
            f"got {float(clean.mean()):.4g}; the model does not do this, so no circuit of it can"
        )
