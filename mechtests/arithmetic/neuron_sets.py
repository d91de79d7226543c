"""Sets of neurons: the highest of each layer, circuits of them, and what two sets share.

Source: Nikankin et al. 2025, page 5 (as many in every middle and late layer) and Figure 15.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mechtests.arithmetic.faithfulness import Kept

Mask = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]


def count_of(share: float, width: int) -> int:
    """How many of a layer's neurons are a share of them, at least one."""
    return max(1, round(share * width))


def top(scores: Floats, count: int) -> Mask:
    """The neurons of each layer with the largest scores, ``[layer, neuron]``; ties by number."""
    order = np.argsort(-scores, axis=-1, kind="stable")[..., :count]
    mask = np.zeros(scores.shape, bool)
    np.put_along_axis(mask, order, True, axis=-1)
    return mask


def sparse_circuits(
    whole: Kept, layers: Sequence[int], scores: Floats, counts: Sequence[int]
) -> list[Kept]:
    """A circuit with only its highest neurons in some layers, for each count; 0 is the floor.

    Held against ``whole`` and that floor, so that heads and other layers are the same in all
    three: the claim is about these layers' neurons. The paper's form, whose whole is the network
    and whose floor has nothing, comes from the same circuits' NL.

    Args:
        whole: What is kept beside: everything, or all MLPs and a circuit's heads.
        layers: The layers of the scores.
        scores: What ranks the neurons, ``[layer, neuron]``.
        counts: How many neurons of each of these layers are kept.
    """
    masks = [top(scores, count) for count in counts]
    return [whole.with_neurons(dict(zip(layers, mask, strict=True))) for mask in masks]


def overlap(one: Mask, other: Mask) -> float:
    """The shared part of two sets of as many neurons: of the smaller one where they differ."""
    return float((one & other).sum() / min(one.sum(), other.sum()))


@dataclass(frozen=True)
class Chance:
    """What two sets share where each takes its neurons of each layer at random.

    Attributes:
        overlap: The expected shared part, as ``overlap`` counts it.
        p: How likely the observed intersection or a larger one is.
    """

    overlap: float
    p: float


def chance(one: Mask, other: Mask) -> Chance:
    """The hypergeometric null, layer by layer; its sum over layers is exact."""
    from scipy.stats import hypergeom

    width = one.shape[-1]
    total, expected = np.ones(1), 0.0
    for mine, their in zip(one, other, strict=True):
        a, b = int(mine.sum()), int(their.sum())
        total = np.convolve(total, hypergeom.pmf(np.arange(min(a, b) + 1), width, a, b))
        expected += a * b / width
    observed = int((one & other).sum())
    p = float(min(1.0, total[observed:].sum()))
    return Chance(expected / min(one.sum(), other.sum()), p)
