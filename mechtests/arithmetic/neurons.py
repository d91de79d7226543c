"""Which neurons matter for an answer: attribution at END, by one gradient for all neurons.

To first order, patching a neuron from another problem changes Eq. 1 by
``(a(p') - a(p)) / 2 x the gradient of (logit r' - logit r)``: the gradient of Eq. 1 at the run
without a patch, where no softmax is left to underflow. One gradient gives all neurons.

Source: Nikankin et al. 2025, page 5, whose pipeline attributes where the text says patching,
and ranks by mean plus standard deviation where the figures show the mean. Both are here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mechtests.arithmetic.faithfulness import OPERANDS, Mask
from mechtests.arithmetic.patches import check_pairs
from mechtests.arithmetic.problems import Problems
from mechtests.errors import UsageError
from mechtests.measurement import HALVES
from mechtests.metrics.behaviour import logit_difference
from mechtests.metrics.effects import prompts_at_once
from mechtests.models.attention import Prefix
from mechtests.models.network import Network
from mechtests.models.walk import Edits
from mechtests.tasks.prompts import Prompts

Floats = NDArray[np.float64]

ACTIVATIONS_HELD = 4
"""Numbers a neuron needs at once, beside what a pass works with."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over the prompts of each group, so that a group can be left out.

    Attributes:
        count: Prompts, ``[group]``.
        total: Sums, ``[group, layer, neuron]``.
        squares: Sums of squares, the same shape.
    """

    count: NDArray[np.int64]
    total: Floats
    squares: Floats

    def mean(self, without: int | None = None) -> Floats:
        """Means over prompts, ``[layer, neuron]``, without those of a group where one is named."""
        left = self._left(without)
        means: Floats = self.total[left].sum(0) / self.count[left].sum()
        return means

    def spread(self, without: int | None = None) -> Floats:
        """Standard deviations over prompts (of a population), ``[layer, neuron]``."""
        left = self._left(without)
        squares = self.squares[left].sum(0) / self.count[left].sum()
        spread: Floats = np.sqrt(np.maximum(squares - self.mean(without) ** 2, 0.0))
        return spread

    def _left(self, without: int | None) -> Mask:
        left: Mask = np.arange(len(self.count)) != (-1 if without is None else without)
        if not self.count[left].sum():
            raise UsageError("nothing is left of the prompts; leave out a smaller group")
        return left


@dataclass(frozen=True, eq=False)
class Attributions:
    """What each neuron of some layers is attributed.

    Attributes:
        layers: The layers.
        effect: Of Eq. 1, positive where patching the neuron in takes the answer away.
        activation: Of what the neuron is in the run without a patch.
        norms: Length of what each neuron writes, ``[layer, neuron]``.
    """

    layers: tuple[int, ...]
    effect: Moments
    activation: Moments
    norms: Floats

    def by_mean(self, without: int | None = None) -> Floats:
        """The mean effect: the text's ranking, and that of the figures."""
        return self.effect.mean(without)

    def by_mean_and_spread(self, without: int | None = None) -> Floats:
        """Mean plus standard deviation: the released code's ranking."""
        return self.effect.mean(without) + self.effect.spread(without)

    def by_size(self, without: int | None = None) -> Floats:
        """Spread of the activation times the norm of the output: blind to the answer."""
        return self.activation.spread(without) * self.norms


def attributions(
    network: Network,
    problems: Problems,
    others: Problems,
    *,
    layers: Sequence[int] | None = None,
    groups: NDArray[np.int64] | None = None,
) -> Attributions:
    """Every neuron's effect at END, over some pairs of problems.

    Args:
        network: The network.
        problems: The problems p.
        others: The problem p' of each.
        layers: The layers to attribute; all unless said.
        groups: Which group each problem is in, counted from 0; one group unless said.

    Raises:
        UsageError: There is no problem, or they do not come in pairs.
    """
    chosen = tuple(range(network.shape.layers)) if layers is None else tuple(layers)
    end = problems.tokens.shape[1] - 1
    return _summed(network, problems, others, chosen, slice(end, None), groups)


def first_mlp_attributions(
    network: Network,
    problems: Problems,
    others: Problems,
    *,
    groups: NDArray[np.int64] | None = None,
) -> Attributions:
    """The effect of MLP 0's neurons at the operands and the operator, the mean of the three.

    Arguments as for ``attributions``. An activation's spread is over prompts and positions.
    """
    length = problems.tokens.shape[1]
    places = slice(length + OPERANDS[0], length + OPERANDS[-1] + 1)
    return _summed(network, problems, others, (0,), places, groups)


def _summed(
    network: Network,
    problems: Problems,
    others: Problems,
    layers: tuple[int, ...],
    places: slice,
    groups: NDArray[np.int64] | None,
) -> Attributions:
    check_pairs(problems, others)
    if not len(problems):
        raise UsageError("attribution needs at least one pair of problems, got none")
    group = np.zeros(len(problems), np.int64) if groups is None else groups
    many = int(group.max()) + 1
    shape = (2, 2, many, len(layers), network.shape.mlp_width)
    sums = torch.zeros(shape, dtype=torch.float64, device=network.device)
    for rows, effect, activation in _attributed(network, problems, others, layers, places):
        into = torch.from_numpy(group[rows]).to(network.device)
        # of positions the mean effect counts, and each activation
        per_prompt = effect.mean(2).double()
        each = activation.double()
        for at, (total, squares) in enumerate(
            ((per_prompt, per_prompt**2), (each.mean(2), (each**2).mean(2)))
        ):
            sums[at, 0].index_add_(0, into, total)
            sums[at, 1].index_add_(0, into, squares)
    count = np.bincount(group, minlength=many)
    found = sums.cpu().numpy()
    return Attributions(
        layers, Moments(count, *found[0]), Moments(count, *found[1]), output_norms(network, layers)
    )


def _attributed(
    network: Network, problems: Problems, others: Problems, layers: tuple[int, ...], places: slice
) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor]]:
    """Rows, effects and activations of some prompts, ``[row, layer, place, neuron]``."""
    shape, slots = network.shape, problems.tokens.shape[1] - places.start
    most = prompts_at_once(shape, slots * shape.layers * ACTIVATIONS_HELD)
    for start in range(0, len(problems), most):
        rows = np.arange(start, min(start + most, len(problems)))
        mine, their = problems.select(rows), others.select(rows)
        activation, gradient = _gradients(network, mine, their.answer, layers, places)
        keep = tuple(f"post.{layer}" for layer in layers)
        with torch.no_grad():
            tokens = torch.from_numpy(their.tokens).to(network.device)
            run = network.run(tokens, keep=keep, stop=max(layers) + 1)
        other = torch.stack([run["post", layer][:, places] for layer in layers], 1)
        yield rows, (other - activation) * gradient / 2, activation


def _gradients(
    network: Network,
    problems: Problems,
    other_answers: NDArray[np.int64],
    layers: tuple[int, ...],
    places: slice,
) -> tuple[Tensor, Tensor]:
    """Activations and the gradients of logit r' - logit r, ``[row, layer, place, neuron]``.

    The graph starts at the first place; the positions before it are run without one.
    """
    tokens = torch.from_numpy(problems.tokens).to(network.device)
    answers = torch.from_numpy(np.stack((other_answers, problems.answer), 1)).to(network.device)
    prefix = None
    if places.start:
        with torch.no_grad():
            before = network.run(tokens[:, : places.start], keep=("rot_k", "v"))
        prefix = Prefix(before, places.start)

    def difference(edits: Edits) -> Tensor:
        final = network.run(tokens[:, places.start :], edits=edits, prefix=prefix).final
        logits = network.logits(final, answers)
        return logits[:, 0] - logits[:, 1]

    many = slice(0, None if places.stop is None else places.stop - places.start)
    activations, gradients = _slopes(difference, layers)
    return torch.stack(activations, 1)[:, :, many], torch.stack(gradients, 1)[:, :, many]


def _slopes(
    value: Callable[[Edits], Tensor], layers: Sequence[int]
) -> tuple[list[Tensor], list[Tensor]]:
    """The neurons of each layer in a run, and the gradients of a value of each row by them.

    Args:
        value: From edits to the values of a run with them, ``[row]``.
        layers: The layers.

    Returns:
        A tensor ``[row, position, neuron]`` for each layer, twice.
    """
    found: dict[int, Tensor] = {}

    def edit(layer: int, post: Tensor) -> Tensor:
        found[layer] = post if post.requires_grad else post.detach().requires_grad_()
        return found[layer]

    with torch.enable_grad():
        total = value({("post", at): partial(edit, at) for at in layers}).sum()
        gradients = torch.autograd.grad(total, [found[layer] for layer in layers])
    return [found[layer].detach() for layer in layers], list(gradients)


def task_attributions(
    network: Network, prompts: Prompts, corruption: str, layers: Sequence[int]
) -> Floats:
    """The mean effect of every neuron at END on another task, from each half of its prompts.

    By the same identity: p' is the corrupted prompt, and r and r' are the right and the wrong
    answers, of several their mean logit.

    Args:
        network: The network.
        prompts: With answers and corrupted variants, some in each half.
        corruption: Which variant is p'.
        layers: The layers to attribute.

    Returns:
        Shape ``[half, layer, neuron]``, in logits.
    """
    positions, halves = prompts.clean.shape[1], len(HALVES)
    most = prompts_at_once(network.shape, positions * network.shape.layers * ACTIVATIONS_HELD)
    order = np.argsort(prompts.length, kind="stable")
    total = np.zeros((halves, len(layers), network.shape.mlp_width))
    for start in range(0, len(prompts), most):
        some = prompts.select(order[start : start + most])
        effect = _task_effects(network, some, corruption, layers).double().cpu().numpy()
        for half in range(halves):
            total[half] += effect[some.half == half].sum(0)
    means: Floats = total / np.bincount(prompts.half, minlength=halves)[:, None, None]
    return means


def _task_effects(
    network: Network, prompts: Prompts, corruption: str, layers: Sequence[int]
) -> Tensor:
    """What each neuron at END is attributed, ``[prompt, layer, neuron]``."""
    clean, corrupted, last = (
        torch.from_numpy(each).to(network.device)
        for each in (prompts.clean, prompts.corrupted[corruption], prompts.end)
    )

    def difference(edits: Edits) -> Tensor:
        return -logit_difference(network, network.run(clean, edits=edits, last=last).final, prompts)

    keep = tuple(f"post.{layer}@end" for layer in layers)
    with torch.no_grad():
        run = network.run(corrupted, keep=keep, last=last, stop=max(layers) + 1)
    rows, effects = torch.arange(len(prompts), device=network.device), []
    for layer, post, slope in zip(layers, *_slopes(difference, layers), strict=True):
        change = run["post@end", layer] - post[rows, last]
        effects.append(change * slope[rows, last] / 2)
    return torch.stack(effects, 1)


def output_norms(network: Network, layers: Sequence[int]) -> Floats:
    """The length of what each neuron writes, before any norm behind the MLP."""
    norms = [network.blocks[layer].mlp_out.weight.double().norm(dim=0) for layer in layers]
    return np.asarray(torch.stack(norms).cpu().numpy(), np.float64)
