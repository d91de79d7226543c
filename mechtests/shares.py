"""What share of all effects some heads have: N over D, prompt by prompt (claims.md, Shares).

The paper gives percentages of single heads' effects without saying how signs are treated or which
heads are the whole (Tigges et al. 2024, Figure 4; tigges2024.md, section 5). Both readings are
here. *Signed*: N and D are sums over heads, harmful effects counted with their sign, so that the
share may exceed 1. *Helpful*: both sums go over heads that help alone. The paper reads which heads
help off the same effects; ours are those that surely help on the other half, since a sum of what
happens to be positive counts noise as effect. The whole is all heads, or those of a circuit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mechtests import statistics
from mechtests.margins import guarded, share_above
from mechtests.measurement import Half, Head, Measurement, Sample
from mechtests.verdict import Outcome, Verdict

SURELY = 2.0
"""Standard errors over clusters above 0, from which on a head's effect counts as help."""


@dataclass(frozen=True, eq=False)
class Effects:
    """Single heads' effects, each positive where the head helps.

    Attributes:
        measurement: Where they are.
        value: The array ``[prompt, layer, head]``.
        span: The measurement of ``clean`` and ``corrupted`` on the same prompts, whose
            difference guards denominators.
        sign: -1 where the array is a change, which help makes negative.
    """

    measurement: Measurement
    value: str
    span: Measurement
    sign: float = 1.0

    def heads(self) -> list[Head]:
        """All heads there are."""
        layers, heads = self.measurement[self.value].shape[1:]
        return [(layer, head) for layer in range(layers) for head in range(heads)]

    def total(self, heads: Collection[Head], half: Half) -> Sample:
        """The summed effect of some heads, one number a prompt."""
        return self.measurement.sum_over(self.value, sorted(heads), half) * self.sign

    def means(self, half: Half) -> NDArray[np.float64]:
        """Each head's mean effect, clusters weighing the same, shape ``[layer, head]``."""
        means: NDArray[np.float64] = self._by_cluster(half).mean(axis=0)
        return means

    def helping(self, half: Half, among: Collection[Head] | None = None) -> list[Head]:
        """The heads whose mean effect is more than 2 standard errors above 0.

        Args:
            half: The half whose prompts choose.
            among: The heads to choose from; all unless said.
        """
        found = self._by_cluster(half)
        if len(found) < 2:
            return []
        least = SURELY * found.std(axis=0, ddof=1) / np.sqrt(len(found))
        helps = found.mean(axis=0) > np.maximum(least, 0.0)
        return [head for head in sorted(self.heads() if among is None else among) if helps[head]]

    def strongest(self, count: int, half: Half, among: Collection[Head]) -> list[Head]:
        """So many heads with the largest effect on a half: the ceiling of any set of that size."""
        means = self.means(half)
        return sorted(sorted(among, key=lambda head: (-means[head], head))[:count])

    def _by_cluster(self, half: Half) -> NDArray[np.float64]:
        """The mean effect in each cluster, shape ``[cluster, layer, head]``."""
        chosen = self.measurement.of(half)
        array = np.asarray(self.measurement[self.value], dtype=np.float64)[chosen]
        _, index = np.unique(self.measurement.cluster[chosen], return_inverse=True)
        sums = np.zeros((int(index.max(initial=-1)) + 1, *array.shape[1:]))
        np.add.at(sums, index, array)
        means: NDArray[np.float64] = sums / np.bincount(index)[:, None, None]
        return self.sign * means


@dataclass(frozen=True, eq=False)
class Share:
    """A part of a whole, prompt by prompt.

    Attributes:
        part: N.
        whole: D.
        span: Clean minus corrupted behaviour.
        guard: The part of the span that D must be above.
    """

    part: Sample
    whole: Sample
    span: Sample
    guard: float = 0.10

    @property
    def ratio(self) -> float:
        """N over D, clusters weighing the same; infinite or NaN where D is 0."""
        part, whole = (statistics.summary(each).mean for each in (self.part, self.whole))
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.divide(part, whole))

    def above(self, share: float, *, what: str) -> Verdict:
        """Whether the share is above c, on the contrast N - c D; see ``share_above``."""
        return share_above(
            self.part, self.whole, share, span=self.span, guard=self.guard, what=what
        )

    def contrast(self, share: float) -> Sample:
        """N - c D, above 0 where the share is above c."""
        return self.part - self.whole * share

    @property
    def unguarded(self) -> str | None:
        """Why the whole is too small for a share of it, or None where it is above its guard."""
        failing = [
            each
            for each in guarded(self.whole, self.span, self.guard)
            if each.outcome is not Outcome.HOLDS
        ]
        return failing[0].sentence if failing else None

    @property
    def points(self) -> Sample:
        """The share as one number a prompt, whose mean over clusters it is.

        r + (N - r D) / mean D: the contrast at the share itself, in units of the share. Its
        spread over clusters is that of the ratio to first order, which is enough where D is
        above its guard by more than its error; so shares can be averaged and compared over
        checkpoints on the same prompts.
        """
        ratio, whole = self.ratio, statistics.summary(self.whole).mean
        return self.contrast(ratio) * (1.0 / whole) + ratio


def explained(
    effects: Effects,
    heads: Collection[Head],
    half: Half,
    *,
    among: Collection[Head] | None = None,
) -> Share:
    """The share that some heads have of the effects of all, or of those they are among.

    Signed over all heads: no ``among``. Helpful: ``among=effects.helping("selection")``. Over a
    circuit: its heads, or those of them that help.

    Args:
        effects: Single heads' effects.
        heads: The heads whose part it is; those that are not among the whole are left out.
        half: The half that decides.
        among: The heads whose effects are the whole; all unless said.
    """
    whole = set(effects.heads() if among is None else among)
    span = effects.span.sample("clean", half) - effects.span.sample("corrupted", half)
    return Share(effects.total(whole.intersection(heads), half), effects.total(whole, half), span)


def readings(
    effects: Effects,
    heads: Sequence[Head],
    choose: Half,
    decide: Half,
    among: Collection[Head] | None = None,
) -> dict[str, Share]:
    """Both readings of the percentage: ``"signed"`` and ``"helpful"``.

    Args:
        effects: Single heads' effects.
        heads: The heads whose part it is.
        choose: The half that says which heads help.
        decide: The half whose effects are summed.
        among: The heads whose effects are the whole; all unless said.
    """
    helping = effects.helping(choose, among)
    return {
        "signed": explained(effects, heads, decide, among=among),
        "helpful": explained(effects, heads, decide, among=helping),
    }
