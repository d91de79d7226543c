"""Where the answer to a problem is made: each component patched in from another problem.

A component is run as in another problem at one position, or at all of them, and what that does
to the answer is read at END.

Source: Nikankin et al. 2025, page 3 and Eq. 1 (interchange patching of every head's z and
every MLP). Beside it whole attention blocks, the embedding, and all positions at once are
patched, which the claims divide by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mechtests.arithmetic.components import Components
from mechtests.arithmetic.patches import Pair, check_pairs
from mechtests.arithmetic.problems import Problems
from mechtests.models.network import Network

Floats = NDArray[np.float32]
Wide = NDArray[np.float64]

PAIRS_AT_ONCE = 64
"""Problems whose two runs are held at a time."""


@dataclass(frozen=True, eq=False)
class Localised:
    """What patching each component does, prompt by prompt.

    Attributes:
        components: Their order.
        answer: Log-probability of the answer r after patching, ``[prompt, place, component]``.
        other: That of the other problem's answer r', the same shape.
        right: Whether r is the likeliest token after patching, the same shape.
        clean_answer: Log-probability of r in the run without a patch, ``[prompt]``.
        clean_other: That of r', ``[prompt]``.
    """

    components: Components
    answer: Floats
    other: Floats
    right: NDArray[np.bool_]
    clean_answer: Floats
    clean_other: Floats

    @property
    def effect(self) -> Wide:
        """Eq. 1: ``((P*(r') - P(r')) / P(r') + (P(r) - P*(r)) / P*(r)) / 2``.

        Neither summand is below -1, and there is no bound above: its mean is that of a few
        prompts on which P(r') was tiny. In fp64, since it is an exponential of differences.
        """
        away, towards = self._changes()
        return (np.expm1(towards) + np.expm1(away)) / 2

    @property
    def robust(self) -> Wide:
        """``(log P*(r')/P(r') + log P(r)/P*(r)) / 2``: the same to first order, in nats.

        It is half of how much the logit of r' gains on that of r.
        """
        away, towards = self._changes()
        return (towards + away) / 2

    def _changes(self) -> tuple[Wide, Wide]:
        """How much less likely r becomes and how much likelier r', as differences of logs."""
        answer, other = (each.astype(np.float64) for each in (self.answer, self.other))
        return (
            self.clean_answer[:, None, None] - answer,
            other - self.clean_other[:, None, None],
        )


def localise(network: Network, problems: Problems, others: Problems) -> Localised:
    """Patch every component at every place, in from another problem for each problem.

    A place up to which the two prompts agree cannot be patched: there nothing is run, and
    effects are exactly 0, as they are in the last layer at positions before END.

    Args:
        network: The network.
        problems: The problems p.
        others: The problem p' of each.

    Raises:
        UsageError: Problems and others do not come in pairs.
    """
    check_pairs(problems, others)
    components = Components(network.shape.layers, network.shape.heads)
    cleans, parts = [], []
    for start in range(0, len(problems), PAIRS_AT_ONCE):
        rows = np.arange(start, min(start + PAIRS_AT_ONCE, len(problems)))
        with torch.no_grad():
            pair = Pair.of(network, problems.select(rows), others.select(rows))
            cleans.append(pair.unpatched())
            parts.append(pair.patched(cleans[-1]))
    clean, patched = (torch.cat(each, 1).cpu().numpy() for each in (cleans, parts))
    return Localised(components, patched[0], patched[1], patched[2] > 0, clean[0], clean[1])
