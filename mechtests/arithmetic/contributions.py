"""What the heuristic neurons at work on a prompt add to its answer, and what others like them do.

A heuristic neuron is at work on a prompt when a heuristic that it matches holds for the prompt.

Source: Nikankin et al. 2025, page 8. Where we differ: as many neurons of the same attribution that
match no heuristic are the control (``partners``), and logits are centred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from mechtests.arithmetic.heuristics import Heuristic, Mask, associated
from mechtests.arithmetic.logit_lens import value_logits
from mechtests.arithmetic.matching import matched, scores_of
from mechtests.arithmetic.partners import Classified, widened
from mechtests.arithmetic.problems import Problems
from mechtests.matched import STRATA
from mechtests.metrics.effects import prompts_at_once
from mechtests.tasks.prompts import Ids

if TYPE_CHECKING:
    from mechtests.models.network import Network

Floats = NDArray[np.float64]

MEMORY = 1_000_000_000
"""Bytes of activations that are held at once."""


@dataclass(frozen=True, eq=False)
class Contributions:
    """What heuristic neurons and their controls do at "=", prompt by prompt, all ``[prompt]``.

    Attributes:
        count: Neurons with at least one heuristic that holds, each counted once.
        contribution: What they add to the logit of the right answer, in logits.
        control: What the control's neurons add.
        controls: How many these are: ``count``, or fewer where there are no more.
        attribution: What the heuristic neurons are attributed together, in logits.
        control_attribution: What the control's are.
        stratum: What the control is matched in, as a place in ``matched.STRATA``.
    """

    count: Ids
    contribution: Floats
    control: Floats
    controls: Ids
    attribution: Floats
    control_attribution: Floats
    stratum: Ids

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

    Direct and indirect heuristics count alike, as in the paper. The controls' stratum is the
    first of ``matched.STRATA`` in which they are not ``lacking`` on these problems, which their
    numbers and attributions decide and not what they add; else the last.

    Args:
        network: The network.
        problems: The prompts, of one operator.
        classified: The neurons of each layer, no layer twice.
        heuristics: What the columns of ``matches`` are.
    """
    stratum, sides = widened(classified, _held(problems, heuristics))
    effects = direct_effects(network, problems, {each.layer: each.neurons for each in classified})
    added = sides.added([effects[each.layer] for each in classified])
    (count, many), (attribution, control_attribution) = sides.count, sides.attribution
    at = np.full(len(problems), STRATA.index(stratum), np.int64)
    return Contributions(count, added[0], added[1], many, attribution, control_attribution, at)


# ---------------------------------------------------------------- the network


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
    answers, which = np.unique(problems.answer, return_inverse=True)
    found: dict[int, Floats] = {}
    for layer, post in _activations(network, problems, neurons).items():
        lens = value_logits(network, layer, neurons[layer].tolist(), answers.tolist())
        found[layer] = post.astype(np.float64) * lens[which]
    return found


def without_heuristic(
    network: Network, problems: Problems, neurons: Mapping[int, Ids]
) -> dict[int, Mask]:
    """Which neurons match no heuristic whatever, by layer, shape ``[neuron]`` each.

    Single values and three fixed digits count as heuristics here: a neuron that knows one
    operand is no neuron without a heuristic. Of divisions, the neurons of each layer propose
    sets of results of their own.

    Args:
        network: The network.
        problems: All that are at hand of one operator, each once.
        neurons: The neurons of each layer.
    """
    operator, gated = int(problems.operator[0]), network.blocks[0].mlp_gate is not None
    tokens = problems.answer[np.unique(problems.result, return_index=True)[1]].tolist()
    found: dict[int, Mask] = {}
    for some in _together(neurons, len(problems)):
        for layer, acts in _activations(network, problems, some).items():
            lens = value_logits(network, layer, some[layer].tolist(), tokens)
            scored = scores_of(problems, operator, acts, lens, gated=gated, alone=False)
            found[layer] = np.asarray(~matched(scored.with_lens).any(1), bool)
    return found


def _together(neurons: Mapping[int, Ids], prompts: int) -> list[dict[int, Ids]]:
    """Layers whose activations fit into memory together."""
    size = 4 * max(prompts * max(map(len, neurons.values()), default=1), 1)
    many, layers = max(1, MEMORY // size), list(neurons)
    return [
        {layer: neurons[layer] for layer in layers[start : start + many]}
        for start in range(0, len(layers), many)
    ]


def _activations(
    network: Network, problems: Problems, neurons: Mapping[int, Ids]
) -> dict[int, NDArray[np.float32]]:
    """What neurons are at "=", by layer, shape ``[prompt, neuron]`` each."""
    import torch

    sites = [f"post.{layer}@end" for layer in neurons]
    most = prompts_at_once(network.shape, problems.tokens.shape[1] * network.shape.layers)
    found: dict[int, list[NDArray[np.float32]]] = {layer: [] for layer in neurons}
    for start in range(0, len(problems), most):
        tokens = torch.from_numpy(problems.tokens[start : start + most]).to(network.device)
        with torch.no_grad():
            run = network.run(tokens, keep=sites, stop=max(neurons, default=0) + 1)
        for layer, numbers in neurons.items():
            post = run["post@end", layer][:, torch.from_numpy(numbers)]
            found[layer].append(post.float().cpu().numpy())
    return {layer: np.concatenate(each) for layer, each in found.items()}


def _held(problems: Problems, heuristics: Sequence[Heuristic]) -> Mask:
    return associated(heuristics, problems.first, problems.second, problems.result)
