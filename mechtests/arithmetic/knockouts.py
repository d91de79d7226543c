"""Whether the answer is still right without some neurons: set to zero at all positions.

Only what an ablation reaches is run again: a prompt is run once, and its branches start in the
middle of the first block in which they lose a neuron, from what attention wrote there and what the
neurons were. Equal sets of one prompt are one branch, and an empty set is the prompt's own run.

Source: Nikankin et al. 2025, Figures 7 and 8. ``pools`` says which neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mechtests.arithmetic.heuristics import Mask
from mechtests.arithmetic.pools import CONTROLS, GuidedSets, Important
from mechtests.arithmetic.problems import Problems
from mechtests.errors import UsageError
from mechtests.models.activations import Activations, bytes_per_prompt
from mechtests.models.network import Network
from mechtests.models.shape import Shape
from mechtests.tasks.prompts import Ids

Floats = NDArray[np.floating[Any]]

WORKING_BYTES = 64_000_000
SITES = ("resid_pre", "attn_out", "post")
"""What a branch starts from."""


def knocked_out(network: Network, problems: Problems, sets: NDArray[np.integer[Any]]) -> Mask:
    """Whether the answer is the likeliest token of the vocabulary without some neurons.

    Args:
        network: The network.
        problems: The problems.
        sets: Neurons as ``layer * mlp_width + neuron``, in any order and padded with -1, shape
            ``[prompt, branch, slot]``.

    Returns:
        Shape ``[prompt, branch]``.

    Raises:
        UsageError: There are not sets for each problem, or a neuron does not exist.
    """
    if sets.ndim != 3 or len(sets) != len(problems):
        raise UsageError(
            f"a knock-out needs sets [{len(problems)}, branch, slot] for {len(problems)} problems, "
            f"got {list(sets.shape)}"
        )
    prompt = np.repeat(np.arange(len(problems)), sets.shape[1])
    flat = sets.reshape(len(prompt), sets.shape[2])
    right = right_without(network, problems, prompt, flat, np.arange(len(prompt)))
    found: Mask = right.reshape(sets.shape[:2])
    return found


def right_without(
    network: Network,
    problems: Problems,
    prompt: Ids,
    sets: NDArray[np.integer[Any]],
    without: Ids,
) -> Mask:
    """The same for some pairs of a prompt and a set, where prompts share sets.

    Args:
        network: The network.
        problems: The problems.
        prompt: The problem of each run, shape ``[run]``.
        sets: As in ``knocked_out``, shape ``[set, slot]``.
        without: The set of each run, shape ``[run]``.

    Returns:
        Shape ``[run]``.

    Raises:
        UsageError: A neuron does not exist.
    """
    if not len(prompt):
        return np.zeros(0, bool)
    distinct, same = _distinct(sets, network.shape)
    pairs, back = np.unique(prompt * len(distinct) + same[without], return_inverse=True)
    rows, chosen = np.divmod(pairs, len(distinct))
    first = distinct[chosen, 0].astype(np.int64) // network.shape.mlp_width
    found = np.empty(len(pairs), bool)
    for runs in _by_prompt(network.shape, rows, first, problems.tokens.shape[1]):
        some, at = np.unique(rows[runs], return_inverse=True)
        mine = problems.select(some)
        clean = _starts(network, mine, first[runs])
        branches = _Branches(network, mine, clean, at.ravel(), distinct, chosen[runs])
        found[runs] = branches.right(first[runs])
    right: Mask = found[back.ravel()]
    return right


def _distinct(sets: NDArray[np.integer[Any]], shape: Shape) -> tuple[NDArray[np.int32], Ids]:
    """Each set once, ascending, and which of them each is; what pads is above all neurons.

    So a set's first number tells the layer it begins in, and an empty one's is behind the last.
    """
    neurons = shape.layers * shape.mlp_width
    if sets.size and not (sets.min() >= -1 and sets.max() < neurons):
        raise UsageError(
            f"neurons are numbered from 0 to {neurons - 1}, layer by layer, and -1 pads a set; "
            f"got {int(sets.min())} to {int(sets.max())}"
        )
    # a last column of padding, so that every set has an end
    ordered = np.full((len(sets), sets.shape[1] + 1), neurons, np.int32)
    ordered[:, :-1] = np.sort(np.where(sets < 0, neurons, sets), 1)
    numbers: dict[bytes, int] = {}
    same = [numbers.setdefault(each.tobytes(), len(numbers)) for each in ordered]
    distinct = np.frombuffer(b"".join(numbers), np.int32).reshape(-1, ordered.shape[1])
    return distinct, np.array(same, np.int64)


def _by_prompt(shape: Shape, rows: Ids, first: Ids, length: int) -> Iterator[Ids]:
    """Runs of as many prompts as may be held at once; ``rows`` ascend."""
    most = max(1, WORKING_BYTES // bytes_per_prompt(shape, _kept(shape, first), length))
    block = np.unique(rows, return_inverse=True)[1].ravel() // most
    yield from np.split(np.arange(len(rows)), np.flatnonzero(np.diff(block)) + 1)


def _kept(shape: Shape, first: Ids) -> list[str]:
    return [f"{site}.{at}" for at in np.unique(first) if at < shape.layers for site in SITES]


def _starts(network: Network, problems: Problems, first: Ids) -> Activations:
    """Run problems as far as branches need that begin in some layers, keeping what they need."""
    tokens = torch.from_numpy(problems.tokens).to(network.device)
    stop = min(int(first.max()) + 1, network.shape.layers)
    with torch.no_grad():
        return network.run(tokens, keep=_kept(network.shape, first), stop=stop)


@dataclass(frozen=True, eq=False)
class _Branches:
    """Some problems and the branches of them.

    Attributes:
        network: The network.
        problems: The problems.
        clean: Their own run.
        row: The problem of each branch, shape ``[branch]``.
        sets: Distinct sets, as ``_distinct`` has them, shape ``[set, slot]``.
        without: The set of each branch, shape ``[branch]``.
    """

    network: Network
    problems: Problems
    clean: Activations
    row: Ids
    sets: NDArray[np.int32]
    without: Ids

    def right(self, first: Ids) -> Mask:
        """Whether each branch's answer is right, from the layer it begins in, ``[branch]``."""
        found = np.empty(len(first), bool)
        most = _rows_at_once(self.network.shape, self.problems.tokens.shape[1])
        for layer in np.unique(first).tolist():
            mine = np.flatnonzero(first == layer)
            for some in np.split(mine, range(most, len(mine), most)):
                with torch.no_grad():
                    logits = self.network.logits(self._final(layer, some))
                said = logits.float().argmax(-1).cpu().numpy()
                found[some] = said == self.problems.answer[self.row[some]]
        return found

    def _final(self, layer: int, some: Ids) -> Tensor:
        """END's streams behind the last block, of branches that begin in one layer."""
        network, layers = self.network, self.network.shape.layers
        rows = torch.from_numpy(self.row[some]).to(network.device)
        if layer == layers:
            return self.clean.final[rows]
        edits = self._edits(some)
        here = slice(-1 if layer == layers - 1 else 0, None)
        pre, attended, neurons = (self.clean[site, layer][:, here][rows] for site in SITES)
        left = edits.pop(("post", layer))(neurons)
        resid = pre + attended + network.blocks[layer].neurons_out(left)
        if layer == layers - 1:
            return resid[:, -1]
        tokens = torch.from_numpy(self.problems.tokens).to(network.device)[rows]
        return network.run(tokens, start=layer + 1, resid=resid, edits=edits).final

    def _edits(self, some: Ids) -> dict[tuple[str, int], Callable[[Tensor], Tensor]]:
        """By layer, what sets to zero the neurons that each branch is without."""
        shape = self.network.shape
        sets = self.sets[self.without[some]].astype(np.int64)
        at, slot = np.nonzero(sets < shape.layers * shape.mlp_width)
        layer, neuron = np.divmod(sets[at, slot], shape.mlp_width)
        edits = {}
        for each in np.unique(layer).tolist():
            here = layer == each
            gone = torch.zeros(len(some), 1, shape.mlp_width, dtype=torch.bool)
            gone[torch.from_numpy(at[here]), 0, torch.from_numpy(neuron[here])] = True
            edits["post", each] = _without(gone.to(self.network.device))
        return edits


def _without(gone: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda neurons: neurons.masked_fill(gone, 0.0)


def _rows_at_once(shape: Shape, length: int) -> int:
    """How many branches keep the working memory small, their logits included."""
    numbers = length * (6 * shape.width + 3 * shape.mlp_width) + 2 * shape.vocabulary
    return max(1, WORKING_BYTES // (4 * numbers))


@dataclass(frozen=True, eq=False)
class Guided:
    """Knock-outs guided by each prompt's heuristics.

    Attributes:
        intact_right: Whether each prompt is right with all neurons, shape ``[prompt]``.
        heuristic_right: Without its heuristics' neurons, shape ``[k, prompt]``.
        control_right: How often without a control's, over draws, ``[control, k, prompt]``.
        single_right: Without the first draw's, the paper's only one, the same shape.
        pool: How many neurons its heuristics have in each layer, shape ``[prompt, layer]``.
        knocked: How many are knocked out in all, shape ``[k, prompt]``.
        shortfall: How many fewer a control has, a mean over draws, ``[control, k, prompt]``.
        overlap: How many of a control's are of the prompt's heuristics too, likewise.
    """

    intact_right: Mask
    heuristic_right: Mask
    control_right: Floats
    single_right: Mask
    pool: Ids
    knocked: Ids
    shortfall: Floats
    overlap: Floats


def guided(network: Network, problems: Problems, important: Important, plan: GuidedSets) -> Guided:
    """Knock out each prompt's heuristics, and their controls.

    Args:
        network: The network.
        problems: Correct problems of one operator.
        important: Its important neurons.
        plan: What to knock out, for these problems and neurons.

    Raises:
        UsageError: The plan is for other problems.
    """
    many, ks, branches, slots = plan.sets.shape
    if many != len(problems):
        raise UsageError(
            f"the knock-outs were planned for {many} problems, got {len(problems)}; pass the same"
        )
    flat = important.flat(plan.sets, network.shape.mlp_width).reshape(many, -1, slots)
    intact = np.full((many, 1, slots), -1)
    right = knocked_out(network, problems, np.concatenate((intact, flat), 1))
    by_branch = right[:, 1:].reshape(many, ks, branches).transpose(2, 1, 0)
    drawn = by_branch[1:].reshape(len(CONTROLS), -1, ks, many)
    return Guided(
        right[:, 0],
        by_branch[0],
        drawn.mean(1),
        drawn[:, 0],
        plan.pool,
        plan.knocked,
        plan.shortfall,
        plan.overlap,
    )
