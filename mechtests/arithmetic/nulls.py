"""What neurons would match if there were nothing to it: null models for heuristics."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechtests.errors import UsageError
from mechtests.tasks.prompts import Ids

Floats = NDArray[np.floating[Any]]


def rotated(
    activations: Floats, lens: Floats, generator: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What some neurons of one layer do together, written in a random basis of their span.

    Activations are centred, scaled to unit variance and mixed by a random rotation; value
    vectors, here their logit lens, by the inverse. So what the neurons write together stays the
    same up to a constant, and only the basis, the neurons, is lost: what still matches is owed
    to what the layer computes, not to its neurons. Unscaled, every mixture would be a noisy copy
    of the few neurons with the largest variance. Each mixture is turned so that its longer tail
    (its third moment) is up, as an activation function leaves a neuron's; without that half of
    them would be upside down, and too easy to beat.

    It tells nothing of few neurons: a mixture is largest where its largest part is, so that
    mixtures of 8 planted indicators match as often as the indicators themselves, of 60 rarely
    (of 300 x 300 pairs; about half of them still do of 100 x 100).

    Args:
        activations: Of the top neurons of one layer, shape ``[pair, neuron]``.
        lens: Their logit lens, shape ``[result, neuron]``.
        generator: The source of the rotation.

    Returns:
        Activations and logit lens of as many mixtures, of the same shapes.
    """
    centred = np.asarray(activations, np.float32) - activations.mean(0, dtype=np.float64)
    spread = centred.std(0)
    spread[spread == 0] = 1.0
    turn = rotation(activations.shape[1], generator)
    mixed = (centred / spread).astype(np.float32) @ turn.astype(np.float32)
    written = (np.asarray(lens, np.float64) * spread) @ turn
    up = np.where((mixed**3).mean(0, dtype=np.float64) < 0, -1.0, 1.0)
    return (mixed * up).astype(np.float32), (written * up).astype(np.float32)


def rotation(size: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """A random orthogonal matrix, uniform (Haar), shape ``[size, size]``."""
    q, r = np.linalg.qr(generator.normal(size=(size, size)))
    return q * np.where(np.diag(r) < 0, -1.0, 1.0)


def shifted(first: Ids, second: Ids, by: tuple[int, int]) -> Ids:
    """A circular shift of the map of pairs: for each pair, the one it takes its value from.

    On a full grid ``activations[shifted(...)]`` is the map rolled by ``by``. Where pairs are
    missing (a difference is not negative, ...), each row is rolled along what it has of
    operand 2, then each column along what it has of operand 1.
    Shown only: it turns a range into a range and a residue into a residue.

    Args:
        first: Operand 1 of each pair, shape ``[pair]``.
        second: Operand 2, shape ``[pair]``.
        by: How far, along operand 1 and operand 2.
    """
    return _rolled(first, second, by[1])[_rolled(second, first, by[0])]


def _rolled(line: Ids, along: Ids, by: int) -> Ids:
    """For each pair, the pair ``by`` places before it on its line, around the line's end."""
    order = np.lexsort((along, line))
    _, starts, lengths = np.unique(line[order], return_index=True, return_counts=True)
    start, length = np.repeat(starts, lengths), np.repeat(lengths, lengths)
    source = np.empty(len(order), np.int64)
    source[order] = order[start + (np.arange(len(order)) - start - by) % length]
    return source


def share_differences(
    matched: NDArray[np.bool_],
    is_control: NDArray[np.bool_],
    layers: Ids,
    draws: int,
    generator: np.random.Generator,
) -> tuple[float, NDArray[np.float64]]:
    """The share matched minus that of controls, and the same with labels permuted.

    Labels (top or control) are permuted within layers. Whether a column matched has two
    values, so a permutation is one hypergeometric draw a layer.

    Args:
        matched: Whether each column, a neuron or a control, matched, shape ``[column]``.
        is_control: Which are controls, shape ``[column]``.
        layers: The layer of each, shape ``[column]``.
        draws: How many permutations.
        generator: The source of the permutations.

    Returns:
        The observed difference, and those of the draws, shape ``[draw]``: for
        ``matched.permutation_p``, averaged over operators first where there are some.

    Raises:
        UsageError: There are no top neurons, or no controls.
    """
    tops, controls = int((~is_control).sum()), int(is_control.sum())
    if not tops or not controls:
        raise UsageError(f"shares of {tops} top neurons and {controls} controls are no difference")
    total = int(matched.sum())
    drawn = np.zeros(draws, np.int64)
    for layer in np.unique(layers):
        here = layers == layer
        hits, top = int(matched[here].sum()), int((here & ~is_control).sum())
        drawn += generator.hypergeometric(hits, int(here.sum()) - hits, top, draws)

    def difference(among_tops: Any) -> Any:
        return among_tops / tops - (total - among_tops) / controls

    return float(difference(int(matched[~is_control].sum()))), difference(drawn)
