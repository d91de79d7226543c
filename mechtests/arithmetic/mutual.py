"""What the neurons explain that a checkpoint shares with the final model.

Source: Nikankin et al. 2025, page 9 and Figure 10b. Where we differ: faithfulness is above its
floor, the final checkpoint is in no mean, and as many random neurons are the control.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mechtests import margins, statistics
from mechtests.arithmetic.triples import Triple
from mechtests.errors import MeasurementError, UsageError
from mechtests.measurement import Sample
from mechtests.rules import beside, value_control
from mechtests.verdict import Outcome, Verdict

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]
Neuron = tuple[int, int]

EXPLAINED = 0.6
GUARD = 0.2
"""What NL of all heuristic neurons must be above the floor by."""


def neurons_of(triples: AbstractSet[Triple]) -> frozenset[Neuron]:
    """The neurons that match some heuristic, as (layer, neuron)."""
    return frozenset((layer, neuron) for _, layer, neuron in triples)


def mutual(triples: AbstractSet[Triple], final: AbstractSet[Triple]) -> frozenset[Neuron]:
    """The neurons that have a heuristic at a checkpoint which the same neuron has in the end."""
    return neurons_of(triples & final)


def random_subset(
    neurons: AbstractSet[Neuron], like: AbstractSet[Neuron], generator: np.random.Generator
) -> frozenset[Neuron]:
    """As many of some neurons in every layer as there are in a part of them, at random.

    Args:
        neurons: All heuristic neurons of a checkpoint.
        like: A part of them, such as the mutual ones.
        generator: The source of the draw.

    Raises:
        UsageError: ``like`` is no part of them.
    """
    if not like <= neurons:
        raise UsageError(
            f"a random subset is like a part of the neurons, got {len(like - neurons)} that are "
            f"not among them"
        )
    drawn: list[Neuron] = []
    for layer in sorted({layer for layer, _ in like}):
        pool = sorted(each for each in neurons if each[0] == layer)
        count = sum(each[0] == layer for each in like)
        drawn += [pool[at] for at in generator.choice(len(pool), count, replace=False).tolist()]
    return frozenset(drawn)


def masks(neurons: AbstractSet[Neuron], layers: Sequence[int], width: int) -> dict[int, Mask]:
    """The same neurons as masks ``[neuron]`` of some layers, for ``faithfulness.Kept``."""
    found = {layer: np.zeros(width, bool) for layer in layers}
    for layer, neuron in neurons:
        found[layer][neuron] = True
    return found


@dataclass(frozen=True, eq=False)
class Explained:
    """NL at one checkpoint with only some neurons of the late layers, on its correct prompts.

    Attributes:
        label: The checkpoint.
        all: With all of its heuristic neurons.
        mutual: With those it shares with the final checkpoint.
        random: With a random part of all, as many in every layer as there are mutual ones; or
            the mean over several such parts.
        floor: With none.
    """

    label: str
    all: Sample
    mutual: Sample
    random: Sample
    floor: Sample

    @property
    def whole(self) -> Sample:
        """The denominator: all above the floor."""
        return self.all - self.floor


def mutual_explains(
    checkpoints: Sequence[Explained], *, more_than: float = EXPLAINED, guard: float = GUARD
) -> Verdict:
    """Whether the neurons shared with the final model explain most of what heuristic neurons do.

    The mean over checkpoints of (mutual - floor) over (all - floor), each a ratio of means, is
    above 0.6, by the rule of shares: each checkpoint's values count in units of its own mean
    denominator, so that the checkpoints' mean share is one ratio of sums and weighs them alike.
    Checkpoints whose denominator is not surely above its guard are left out and named. A random
    part of the neurons of the same size explains less, on the same prompts.

    Args:
        checkpoints: The gated checkpoints but the final one, where the share is 1.
        more_than: What the mean share must be above.
        guard: What each denominator must be above, in NL.
    """
    guards = [margins.above(each.whole, guard, what=f"all at {each.label}") for each in checkpoints]
    sure = [each.outcome is Outcome.HOLDS for each in guards]
    kept = [each for each, is_sure in zip(checkpoints, sure, strict=True) if is_sure]
    named = ", ".join(e.label for e, is_sure in zip(checkpoints, sure, strict=True) if not is_sure)
    below = f"; below the guard of {guard:g}: {named}" if named else ""
    what = f"what mutual neurons explain of all heuristic neurons at {len(kept)} checkpoints{below}"
    if not kept:
        return Verdict(
            Outcome.INCONCLUSIVE, f"{what}; denominator: no checkpoint is above its guard"
        )
    part, other, whole = (
        over_checkpoints([_scaled(values, each) for values, each in zip(some, kept, strict=True)])
        for some in (
            [each.mutual - each.floor for each in kept],
            [each.random - each.floor for each in kept],
            [each.whole for each in kept],
        )
    )
    verdict = margins.share_above(part, whole, more_than, span=whole, guard=guard, what=what)
    more = margins.above(part - other, 0.0, what=f"mutual minus random ({other.mean:.2f})")
    return beside(verdict, value_control("a random part of the same size by layer", more)).showing(
        labels=[each.label for each in kept],
        shares=[_share(each.mutual, each) for each in kept],
        random=[_share(each.random, each) for each in kept],
        denominators=[float(each.whole.mean) for each in checkpoints],
    )


def _scaled(values: Sample, at: Explained) -> Sample:
    return values * (1 / statistics.summary(at.whole).mean)


def _share(values: Sample, at: Explained) -> float:
    return statistics.summary(_scaled(values - at.floor, at)).mean


def over_checkpoints(samples: Sequence[Sample]) -> Sample:
    """The mean over checkpoints of their means, one number a prompt of any of them.

    Checkpoints answer other prompts right. A prompt's number is the mean plus how far its values
    move it where it was asked, so that the numbers' mean is the mean over checkpoints, and their
    spread is that of it however many prompts are shared; of the same prompts at all checkpoints,
    it is just the mean of each prompt's values.

    Args:
        samples: At each checkpoint, no prompt (cluster) twice.

    Raises:
        MeasurementError: A prompt occurs twice at a checkpoint.
    """
    prompts = np.unique(np.concatenate([each.cluster for each in samples]))
    moved = np.zeros(len(prompts))
    for each in samples:
        if len(np.unique(each.cluster)) < len(each):
            raise MeasurementError("a mean over checkpoints needs one value a prompt, got more")
        at = np.searchsorted(prompts, each.cluster)
        moved[at] += (each.values - each.values.mean()) * len(prompts) / len(each)
    middle = float(np.mean([each.values.mean() for each in samples]))
    return Sample(middle + moved / len(samples), prompts, samples[0].unit)
