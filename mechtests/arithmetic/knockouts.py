"""Knock-outs: whether problems are still solved without some neurons.

A neuron is knocked out by setting it to 0 at all positions, after its activation and gate. Many
sets of neurons, others for each problem, are run in one batch.

Source: Nikankin et al. 2025, section 4.2, whose code runs one prompt and one set at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mechtests.arithmetic.controls import (
    NONE,
    Bag,
    Choices,
    Floats,
    Mask,
    Name,
    important_instead,
    related_and_unrelated,
)
from mechtests.arithmetic.problems import Problems
from mechtests.errors import MeasurementError, UsageError
from mechtests.measurement import Sample
from mechtests.metrics.effects import WORKING_BYTES
from mechtests.models.network import Network
from mechtests.models.shape import Shape
from mechtests.statistics import proportion_p
from mechtests.tasks.prompts import Ids

PROMPTS = 100
FEWEST_NEURONS = 10
FEWEST_PROMPTS = 10
DRAWS_BY_HEURISTIC = 5

Sets = NDArray[np.integer]


def right_without(network: Network, problems: Problems, layer: Ids, index: Ids, sets: Sets) -> Mask:
    """Whether each problem is solved without each of some sets of neurons.

    Solved: the answer is the likeliest token of the whole vocabulary. What lies below the first
    neuron that is knocked out is run once for each problem, and equal sets of a problem once.

    Args:
        network: The network.
        problems: The problems.
        layer: The layer of each neuron, ``[neuron]``.
        index: Its number in that layer, ``[neuron]``.
        sets: Places in these two, with -1 for none: ``[problem, branch, slot]``, or with a
            first axis of 1 where all problems go without the same sets.

    Returns:
        Shape ``[problem, branch]``.

    Raises:
        UsageError: There are not as many sets as problems, or they have other neurons.
        MeasurementError: The residual stream has NaN or infinite values.
    """
    if len(sets) not in (1, len(problems)) or sets.ndim != 3:
        raise UsageError(
            f"knock-outs of {len(problems)} problems need as many rows of sets, or one for all: "
            f"[problem, branch, slot], got {list(sets.shape)}"
        )
    if sets.size and not -1 <= sets.min() <= sets.max() < len(layer):
        raise UsageError(
            f"sets name neurons by their place, 0 to {len(layer) - 1}, or -1 for none, got "
            f"{sets.min()} to {sets.max()}"
        )
    found = np.zeros((len(problems), sets.shape[1]), bool)
    for rows in _blocks(network, problems, sets):
        part = sets if len(sets) == 1 else sets[rows]
        found[rows] = _right(network, problems.select(rows), (layer, index), part)
    return found


def _blocks(network: Network, problems: Problems, sets: Sets) -> Iterator[Ids]:
    """Problems whose branches, all different, fit into memory at once; at least one."""
    at_once = _rows_at_once(network.shape, problems.tokens.shape[1])
    step = max(1, at_once // max(sets.shape[1], 1))
    for start in range(0, len(problems), step):
        yield np.arange(start, min(start + step, len(problems)))


def _rows_at_once(shape: Shape, positions: int) -> int:
    """How many runs keep the working memory small, their logits included."""
    numbers = positions * (6 * shape.width + 3 * shape.mlp_width) + 2 * shape.vocabulary
    return max(1, WORKING_BYTES // (4 * numbers))


@torch.no_grad()
def _right(network: Network, problems: Problems, neurons: tuple[Ids, Ids], sets: Sets) -> Mask:
    """As ``right_without``, of a few problems."""
    distinct, places = _distinct(sets, len(problems))
    at = np.repeat(np.arange(len(problems)), [len(each) for each in distinct])
    stacked = np.concatenate(distinct)
    answer = torch.from_numpy(problems.answer).to(network.device)
    at_once = _rows_at_once(network.shape, problems.tokens.shape[1])
    shared = _Shared.of(network, problems, neurons, stacked)
    right = np.empty(len(at), bool)
    for start in range(0, len(at), at_once):
        rows = slice(start, start + at_once)
        final = shared.without(stacked[rows], at[rows])
        best = network.logits(final).argmax(-1)
        right[rows] = (best == answer[torch.from_numpy(at[rows]).to(best.device)]).cpu().numpy()
    starts = np.cumsum([0, *(len(each) for each in distinct)])[:-1]
    return right[starts[:, None] + places]


def _distinct(sets: Sets, problems: int) -> tuple[list[Sets], Ids]:
    """The different sets of each problem, and which of them a branch is, ``[problem, branch]``."""
    kinds, places = [], []
    for each in np.sort(sets, axis=-1):
        distinct, place = np.unique(each, axis=0, return_inverse=True)
        kinds.append(distinct)
        places.append(place.reshape(-1))
    if len(sets) == problems:
        return kinds, np.stack(places)
    return kinds * problems, np.stack(places * problems)


@dataclass(frozen=True, eq=False)
class _Shared:
    """What all branches of a problem have in common, up to the first neuron knocked out.

    Attributes:
        network: The network.
        tokens: Of the problems, ``[problem, position]``.
        neurons: Layer and number of each.
        first: The first layer of which a neuron is knocked out.
        rest: What that layer leaves without its MLP, ``[problem, position, width]``.
        post: Its neurons, ``[problem, position, mlp_width]``.
    """

    network: Network
    tokens: Tensor
    neurons: tuple[Ids, Ids]
    first: int
    rest: Tensor
    post: Tensor

    @classmethod
    def of(
        cls, network: Network, problems: Problems, neurons: tuple[Ids, Ids], sets: Sets
    ) -> _Shared:
        named = np.unique(sets[sets != NONE])
        first = int(neurons[0][named].min()) if len(named) else network.shape.layers - 1
        tokens = torch.from_numpy(problems.tokens).to(network.device)
        keep = [f"{site}.{first}" for site in ("resid_pre", "attn_out", "post")]
        run = network.run(tokens, stop=first + 1, keep=keep)
        rest = run["resid_pre", first] + run["attn_out", first]
        return cls(network, tokens, neurons, first, rest, run["post", first])

    def without(self, sets: Sets, at: Ids) -> Tensor:
        """The residual stream at END of some runs, ``[run, width]``.

        Args:
            sets: What each goes without, ``[run, slot]``.
            at: Which problem each is of, ``[run]``.

        Raises:
            MeasurementError: It has NaN or infinite values.
        """
        network, rows = self.network, torch.from_numpy(at).to(self.tokens.device)
        later = range(self.first + 1, network.shape.layers)
        written = network.blocks[self.first].neurons_out(
            _zeroed(self.post[rows], *self._where(sets, self.first))
        )
        edits = {("post", at): partial(_zeroed_by, self._where(sets, at)) for at in later}
        final = network.run(
            self.tokens[rows], start=self.first + 1, resid=self.rest[rows] + written, edits=edits
        ).final
        if not bool(torch.isfinite(final).all()):
            raise MeasurementError(
                f"{network.name}: without some neurons the residual stream at END has NaN or "
                "infinite values; measure in a wider dtype"
            )
        return final

    def _where(self, sets: Sets, layer: int) -> tuple[Tensor, Tensor]:
        """The runs that go without neurons of a layer, and which, each ``[entry]``."""
        layers, index = self.neurons
        run, slot = np.nonzero((sets != NONE) & (layers[sets] == layer))
        device = self.tokens.device
        return (
            torch.from_numpy(run).to(device),
            torch.from_numpy(index[sets[run, slot]]).to(device),
        )


def _zeroed(post: Tensor, runs: Tensor, neurons: Tensor) -> Tensor:
    """Neurons ``[run, position, mlp_width]`` with some of some runs at 0 everywhere."""
    left = post.clone()
    left[runs, :, neurons] = 0.0
    return left


def _zeroed_by(where: tuple[Tensor, Tensor], post: Tensor) -> Tensor:
    return _zeroed(post, *where)


# ---------------------------------------------------------------- guided by the prompt


@dataclass(frozen=True, eq=False)
class KnockOut:
    """Whether problems are solved without the neurons of their heuristics, and without others.

    Attributes:
        choices: The sets, and how well the controls could be matched.
        intact: Whether a problem is solved with all neurons, ``[problem]``.
        heuristic: Without those of its heuristics, ``[problem, k]``.
        control: The part of a control's draws without which it is, ``[problem, k, control]``.
        single: Without the first draw of each, ``[problem, k, control]``.
    """

    choices: Choices
    intact: Mask
    heuristic: Mask
    control: Floats
    single: Mask

    def contrast(self, k: int, control: Name) -> Floats:
        """Control accuracy minus heuristic accuracy, one number a problem, ``[problem]``."""
        at, place = self._at(k, control)
        found: Floats = self.control[:, at, place] - self.heuristic[:, at]
        return found

    def mcnemar(self, k: int, control: Name) -> float:
        """One-sided exact p that the heuristics' set breaks more problems than one draw.

        McNemar's test: of the problems that one of both solves and the other does not.
        """
        at, place = self._at(k, control)
        mine, other = self.heuristic[:, at], self.single[:, at, place]
        worse, better = int((other & ~mine).sum()), int((mine & ~other).sum())
        return proportion_p(worse, worse + better, 0.5, "above")

    def _at(self, k: int, control: Name) -> tuple[int, int]:
        if k not in self.choices.ks or control not in self.choices.controls:
            raise UsageError(
                f"knocked out were {self.choices.ks} neurons a layer against "
                f"{', '.join(self.choices.controls)}, not {k} against {control!r}"
            )
        return self.choices.ks.index(k), self.choices.controls.index(control)


def knock_out_prompts(network: Network, problems: Problems, bag: Bag, choices: Choices) -> KnockOut:
    """Knock out the neurons of each problem's heuristics, and those of each control.

    Args:
        network: The network.
        problems: Problems that it solves.
        bag: The neurons.
        choices: Which of them, of ``controls.choose``.
    """
    problem, ks, branches, slots = choices.sets.shape
    sets = choices.sets.reshape(problem, ks * branches, slots)
    intact = np.full((problem, 1, slots), NONE, sets.dtype)
    right = right_without(
        network, problems, bag.layer, bag.index, np.concatenate((intact, sets), axis=1)
    )
    by_k = right[:, 1:].reshape(problem, ks, branches)
    draws = by_k[..., 1:].reshape(problem, ks, len(choices.controls), choices.draws)
    return KnockOut(choices, right[:, 0], by_k[..., 0], draws.mean(-1), draws[..., 0])


# ---------------------------------------------------------------- by heuristic


@dataclass(frozen=True, eq=False)
class ByHeuristic:
    """What is solved without the neurons of one heuristic, or without as many others.

    Attributes:
        heuristic: Which heuristics were knocked out, by their number, ``[test]``.
        neurons: How many neurons each has, ``[test]``.
        prompts: How many related and unrelated problems, ``[test, 2]``.
        accuracy: On the related and on the unrelated ones, ``[test, 2]``.
        control: The mean over draws of the same without other important neurons, ``[test, 2]``.
        overlap: Which part of those others is the heuristic's own, for want of more, ``[test]``.
    """

    heuristic: Ids
    neurons: Ids
    prompts: Ids
    accuracy: Floats
    control: Floats
    overlap: Floats

    def contrast(self, cluster: Ids) -> Sample:
        """Related minus unrelated accuracy, minus the same of the control, one number a test.

        Args:
            cluster: The type and variable of every heuristic, as a number, ``[heuristic]``.
        """
        mine, other = (each[:, 0] - each[:, 1] for each in (self.accuracy, self.control))
        return Sample(mine - other, np.asarray(cluster)[self.heuristic], "accuracy")


def knock_out_heuristics(
    network: Network,
    problems: Problems,
    bag: Bag,
    holds: Mask,
    generator: np.random.Generator,
    *,
    heuristics: Sequence[int] | None = None,
    prompts: int = PROMPTS,
    draws: int = DRAWS_BY_HEURISTIC,
) -> ByHeuristic:
    """Knock out all neurons of each heuristic, on problems it holds for and on others.

    Source: section 4.2 of the paper, whose code draws unrelated problems from among all but the
    related ones it drew, and has no control of other neurons.

    Args:
        network: The network.
        problems: Problems that it solves.
        bag: The neurons.
        holds: Which heuristics hold for which problems, ``[heuristic, problem]``.
        generator: The source of the problems and of the control's neurons.
        heuristics: Which to knock out; all unless said. Those of fewer than 10 neurons, and
            those with fewer than 10 related or unrelated problems, are left out.
        prompts: How many related and unrelated problems at most.
        draws: How many times other neurons are drawn.
    """
    if holds.shape != (bag.score.shape[1], len(problems)):
        raise UsageError(
            f"which of {bag.score.shape[1]} heuristics hold for which of {len(problems)} problems "
            f"is needed, got {list(holds.shape)}"
        )
    asked = range(len(holds)) if heuristics is None else heuristics
    count, related = bag.matched.sum(0), holds.sum(1)
    enough = np.minimum(related, len(problems) - related) >= FEWEST_PROMPTS
    chosen = [each for each in asked if count[each] >= FEWEST_NEURONS and enough[each]]
    sizes, accuracies, controls, overlaps = [], [], [], []
    for each in chosen:
        rows = related_and_unrelated(holds[each], prompts, generator)
        own = np.flatnonzero(bag.matched[:, each])
        others, overlap = important_instead(bag, own, draws, generator)
        sets = np.concatenate((own[None], others))[None]
        some = problems.select(np.concatenate(rows))
        right = right_without(network, some, bag.layer, bag.index, sets)
        sides = np.split(right, [len(rows[0])])
        sizes.append([len(side) for side in sides])
        accuracies.append([side[:, 0].mean() for side in sides])
        controls.append([side[:, 1:].mean() for side in sides])
        overlaps.append(overlap)
    return ByHeuristic(
        np.array(chosen, np.int64),
        count[chosen].astype(np.int64),
        np.array(sizes, np.int64).reshape(-1, 2),
        np.array(accuracies, np.float64).reshape(-1, 2),
        np.array(controls, np.float64).reshape(-1, 2),
        np.array(overlaps, np.float64),
    )
