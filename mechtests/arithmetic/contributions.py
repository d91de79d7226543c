"""What the heuristic neurons at work on a prompt add to its answer, and what others like them do.

A heuristic neuron is at work on a prompt when a heuristic that it matches holds for the prompt.

Source: Nikankin et al. 2025, page 8. Where we differ: as many neurons of the same layers and
attribution that match no heuristic are the control, and logits are centred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from mechtests.arithmetic.heuristics import Heuristic, Mask, associated
from mechtests.arithmetic.logit_lens import value_logits
from mechtests.arithmetic.problems import Problems
from mechtests.metrics.effects import prompts_at_once
from mechtests.tasks.prompts import Ids

if TYPE_CHECKING:
    from mechtests.models.network import Network

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Classified:
    """Some neurons of a layer, and which heuristics each matches.

    Attributes:
        layer: The layer.
        neurons: Their numbers, shape ``[neuron]``.
        matches: Shape ``[neuron, heuristic]``; those that match none are what controls are
            drawn from.
        attribution: What each is attributed, shape ``[neuron]``.
    """

    layer: int
    neurons: Ids
    matches: Mask
    attribution: Floats

    def at_work(self, held: Mask) -> Mask:
        """Which neurons match a heuristic that holds for which prompts, ``[prompt, neuron]``.

        Args:
            held: Which heuristics hold for which prompts, shape ``[prompt, heuristic]``.
        """
        found: Mask = held.astype(np.float32) @ self.matches.T.astype(np.float32) > 0
        return found

    def controls(self, working: Mask) -> Mask:
        """As many neurons without a heuristic on each prompt, the nearest in attribution.

        Each of a prompt's neurons has another partner, such that the differences of attribution
        add up to as little as possible; where there are fewer partners, some have none.

        Args:
            working: The neurons at work, shape ``[prompt, neuron]``.

        Returns:
            Shape ``[prompt, neuron]``.
        """
        from scipy.optimize import linear_sum_assignment

        pool = np.flatnonzero(~self.matches.any(1))
        apart = np.abs(self.attribution[:, None] - self.attribution[pool])
        found = np.zeros_like(working)
        for chosen, mine in zip(found, working, strict=True):
            _, partners = linear_sum_assignment(apart[mine])
            chosen[pool[partners]] = True
        return found


@dataclass(frozen=True, eq=False)
class Contributions:
    """What heuristic neurons and their controls do at "=", prompt by prompt, all ``[prompt]``.

    Attributes:
        count: Neurons with at least one heuristic that holds, each counted once.
        contribution: What they add to the logit of the right answer, in logits.
        control: What the control's neurons add.
        controls: How many these are: ``count``, or fewer where a layer has no more.
        attribution: The mean attribution of the heuristic neurons; NaN where there is none.
        control_attribution: That of the control's.
    """

    count: Ids
    contribution: Floats
    control: Floats
    controls: Ids
    attribution: Floats
    control_attribution: Floats

    def __len__(self) -> int:
        """How many prompts there are."""
        return len(self.count)

    def select(self, rows: NDArray[Any] | Sequence[int]) -> Self:
        """Some prompts, by number or as a mask."""
        at = np.asarray(rows)
        return replace(self, **{each.name: getattr(self, each.name)[at] for each in fields(self)})


def counts(
    problems: Problems, classified: Sequence[Classified], heuristics: Sequence[Heuristic]
) -> Ids:
    """How many heuristic neurons are at work on each prompt; it needs no network.

    Args:
        problems: The prompts.
        classified: The neurons of each layer, no layer twice.
        heuristics: What the columns of ``matches`` are.
    """
    held = _held(problems, heuristics)
    found: Ids = np.zeros(len(problems), np.int64)
    for layer in classified:
        found = found + layer.at_work(held).sum(1)
    return found


def contributions(
    network: Network,
    problems: Problems,
    classified: Sequence[Classified],
    heuristics: Sequence[Heuristic],
) -> Contributions:
    """What heuristic neurons add to the right answer's logit at "=", beside their controls.

    Direct and indirect heuristics count alike, as in the paper.

    Args:
        network: The network.
        problems: The prompts, of one operator.
        classified: The neurons of each layer, no layer twice.
        heuristics: What the columns of ``matches`` are.
    """
    held = _held(problems, heuristics)
    effects = direct_effects(network, problems, {each.layer: each.neurons for each in classified})
    parts: list[list[Any]] = []
    for each in classified:
        working, added = each.at_work(held), effects[each.layer]
        parts.extend(
            [chosen.sum(1), (chosen * added).sum(1), chosen @ each.attribution]
            for chosen in (working, each.controls(working))
        )
    of_all = np.array(parts, np.float64).reshape(len(classified), 2, 3, len(problems)).sum(0)
    (many, added, attributed), (many_controls, added_controls, attributed_controls) = of_all
    with np.errstate(invalid="ignore"):
        return Contributions(
            many.astype(np.int64),
            added,
            added_controls,
            many_controls.astype(np.int64),
            attributed / many,
            attributed_controls / many_controls,
        )


def direct_effects(
    network: Network, problems: Problems, neurons: Mapping[int, Ids]
) -> dict[int, Floats]:
    """What single neurons at "=" add to the logit of each prompt's right answer, by layer.

    The activation times what a unit of it adds (``logit_lens.value_logits``: the final norm does
    not divide, and logits are centred over the vocabulary).

    Args:
        network: The network.
        problems: The prompts.
        neurons: The neurons of each layer.

    Returns:
        Shape ``[prompt, neuron]`` each.
    """
    import torch

    answers, which = np.unique(problems.answer, return_inverse=True)
    lens = {
        at: value_logits(network, at, n.tolist(), answers.tolist()) for at, n in neurons.items()
    }
    sites = [f"post.{layer}@end" for layer in neurons]
    most = prompts_at_once(network.shape, problems.tokens.shape[1] * network.shape.layers)
    found: dict[int, list[Floats]] = {layer: [] for layer in neurons}
    for start in range(0, len(problems), most):
        tokens = torch.from_numpy(problems.tokens[start : start + most]).to(network.device)
        with torch.no_grad():
            run = network.run(tokens, keep=sites, stop=max(neurons, default=0) + 1)
        for layer, numbers in neurons.items():
            post = run["post@end", layer].double().cpu().numpy()[:, numbers]
            found[layer].append(post * lens[layer][which[start : start + most]])
    return {layer: np.concatenate(each) for layer, each in found.items()}


def _held(problems: Problems, heuristics: Sequence[Heuristic]) -> Mask:
    return associated(heuristics, problems.first, problems.second, problems.result)
