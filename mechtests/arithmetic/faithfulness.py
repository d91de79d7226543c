"""What is left of the right answer where only some components run and the rest stands at its mean.

NL is the logit of the answer over the largest logit, both centred over the vocabulary: 1 where
the answer wins. Faithfulness is a difference of mean NL over another, never a mean of prompts'
ratios; so each circuit's NL is given prompt by prompt, for the rule of shares to judge.

Source: Nikankin et al. 2025, page 4 and Eq. 2, whose code averages the per-prompt ratios. It
replaces everything outside at all positions, BOS included; embeddings are never replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mechtests.arithmetic.averages import Averages
from mechtests.arithmetic.patches import answered, check_pairs
from mechtests.arithmetic.problems import FIRST, OPERATOR, SECOND, Problems
from mechtests.circuits.faithfulness import faithfulness as share_kept
from mechtests.matched import matched_draws
from mechtests.measurement import Head
from mechtests.metrics.effects import prompts_at_once
from mechtests.models.network import Network
from mechtests.models.shape import Shape

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

GUARD = 0.2
"""What NL of the whole must be above its floor by, for a share of it to mean anything."""

OPERANDS = (FIRST, OPERATOR, SECOND)
"""The positions 1 to 3 of a prompt with BOS."""

CIRCUITS_AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class Kept:
    """A circuit: what runs as it does; everything else stands at its mean.

    An MLP that does not run stands at the mean of what it writes, one of whose neurons only
    some run computes with the means of the others: with no neuron it is the same, unless a norm
    stands behind the MLP (Gemma).

    Attributes:
        heads: Heads that run, ``[layer, head]``.
        mlps: MLPs that run, ``[layer]``.
        neurons: Of some layers the neurons that run, ``[neuron]``, in place of what ``mlps`` says.
        positions: Where the rest is replaced, counted from the prompt's end; everywhere unless
            said.
    """

    heads: Mask
    mlps: Mask
    neurons: Mapping[int, Mask] = field(default_factory=dict)
    positions: tuple[int, ...] | None = None

    @classmethod
    def everything(cls, shape: Shape) -> Self:
        """The whole network."""
        return cls(np.ones((shape.layers, shape.heads), bool), np.ones(shape.layers, bool))

    @classmethod
    def nothing(cls, shape: Shape) -> Self:
        """No head and no MLP: embeddings alone."""
        return cls(np.zeros((shape.layers, shape.heads), bool), np.zeros(shape.layers, bool))

    @classmethod
    def of_heads(cls, shape: Shape, heads: Collection[Head]) -> Self:
        """All MLPs and some heads; with none of them, the floor of ``few-heads``."""
        mask = np.zeros((shape.layers, shape.heads), bool)
        for head in heads:
            mask[head] = True
        return cls(mask, np.ones(shape.layers, bool))

    def with_neurons(self, neurons: Mapping[int, Mask]) -> Self:
        """The same, but of some layers only some neurons."""
        return replace(self, neurons={**self.neurons, **neurons})

    def touches(self, layer: int) -> bool:
        """Whether anything of a layer is replaced."""
        mlp = self.neurons.get(layer, self.mlps[layer : layer + 1])
        return not (self.heads[layer].all() and mlp.all())

    @property
    def first(self) -> int:
        """The first layer of which anything is replaced, or the number of layers."""
        return next(filter(self.touches, range(len(self.mlps))), len(self.mlps))

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for equal circuits."""
        some = tuple((layer, self.neurons[layer].tobytes()) for layer in sorted(self.neurons))
        return self.heads.tobytes(), self.mlps.tobytes(), some, self.positions


def first_mlp_cut(shape: Shape, neurons: Mask) -> Kept:
    """All but some neurons of MLP 0 at the operands and the operator; none is the floor.

    The positions of the floor are those of the cut, so that keeping all neurons is the whole
    network and keeping none is the floor.
    """
    return replace(Kept.everything(shape).with_neurons({0: neurons}), positions=OPERANDS)


def first_mlp_averaged(shape: Shape, position: int) -> Kept:
    """MLP 0 at its mean at one position."""
    mlps = np.arange(shape.layers) > 0
    return replace(Kept.everything(shape), mlps=mlps, positions=(position,))


def random_neurons(
    neurons: Mapping[int, Mask], draws: int, generator: np.random.Generator
) -> list[dict[int, Mask]]:
    """Random sets with as many neurons in each layer, drawn from all neurons of the layer.

    Where there are fewer distinct sets than draws, each of them once; see ``matched_draws``.
    """
    observed = [(layer, int(n)) for layer in neurons for n in np.flatnonzero(neurons[layer])]
    width = {layer: range(len(mask)) for layer, mask in neurons.items()}
    sets = matched_draws(observed, width, draws, generator).sets
    return [_masks(chosen, neurons) for chosen in sets]


def _masks(chosen: Iterable[Head], like: Mapping[int, Mask]) -> dict[int, Mask]:
    masks = {layer: np.zeros_like(mask) for layer, mask in like.items()}
    for layer, neuron in chosen:
        masks[layer][neuron] = True
    return masks


@dataclass(frozen=True, eq=False)
class Answered:
    """What circuits answer, prompt by prompt.

    Attributes:
        normalised: NL, ``[prompt, circuit]``.
        right: Whether the answer is the likeliest token, ``[prompt, circuit]``.
        answer: Its log-probability, ``[prompt, circuit]``.
        other: That of the other problem's answer, ``[prompt, circuit]``; the same as ``answer``
            where no other problems were given.
    """

    normalised: Floats
    right: Mask
    answer: Floats
    other: Floats

    def robust(self, whole: int) -> Floats:
        """The robust twin of Eq. 1 of each circuit against the one with a number.

        ``(log P*(r')/P(r') + log P(r)/P*(r)) / 2`` as ``Localised.robust`` has it of a patch, so
        that a component at its mean is held against the same component patched.

        Returns:
            Shape ``[prompt, circuit]``, in nats.
        """
        towards = self.other - self.other[:, whole, None]
        away = self.answer[:, whole, None] - self.answer
        return (towards + away) / 2


def run_circuits(
    network: Network,
    problems: Problems,
    means: Averages,
    circuits: Sequence[Kept],
    others: Problems | None = None,
) -> Answered:
    """Run circuits on problems; equal circuits are run once, and so give equal values.

    Layers below the first that any of some circuits replaces something of are run once for all.

    Args:
        network: The network.
        problems: The problems.
        means: What stands in the place of what is not kept.
        circuits: The circuits.
        others: Another problem of each, whose answer's log-probability is read as well.

    Raises:
        UsageError: Problems and others do not come in pairs.
    """
    if others is not None:
        check_pairs(problems, others)
    other = problems.answer if others is None else others.answer
    answers = torch.from_numpy(np.stack((problems.answer, other), 1)).to(network.device)
    tokens = torch.from_numpy(problems.tokens).to(network.device)
    distinct = {each.key: each for each in circuits}
    names = sorted(distinct, key=lambda name: distinct[name].first)  # so that few run what all do
    values = []
    for start in range(0, len(names), CIRCUITS_AT_ONCE):
        some = [distinct[name] for name in names[start : start + CIRCUITS_AT_ONCE]]
        most = prompts_at_once(network.shape, len(some) * tokens.shape[1])
        parts = [
            _read(network, _ends(network, part, means, some), of)
            for part, of in zip(torch.split(tokens, most), torch.split(answers, most), strict=True)
        ]
        values.append(torch.cat(parts, 1))
    order = [names.index(each.key) for each in circuits]
    found = torch.cat(values, 2)[:, :, order].double().cpu().numpy()
    return Answered(found[0], found[3] > 0, found[1], found[2])


def _read(network: Network, ends: Tensor, answers: Tensor) -> Tensor:
    """NL, the two log-probabilities, and whether the answer wins, ``[4, row, circuit]``."""
    with torch.no_grad():
        return torch.cat(
            (normalised(network, ends, answers[:, 0])[None], answered(network, ends, answers))
        )


def normalised(network: Network, ends: Tensor, answer: Tensor) -> Tensor:
    """NL: the answer's logit over the largest, both centred over the vocabulary, in fp32.

    Centring the logits is centring the unembedding where there is no softcap; with one, logits
    are centred as they come out of it.

    Args:
        network: The network.
        ends: END's streams after the last block, ``[row, branch, width]``.
        answer: Token ids, ``[row]``.

    Returns:
        Shape ``[row, branch]``.
    """
    found = []
    for row, token in zip(ends, answer.tolist(), strict=True):
        logits = network.logits(row).float()
        centred = logits - logits.mean(-1, keepdim=True)
        found.append(centred[:, token] / centred.amax(-1))
    return torch.stack(found)


def _ends(network: Network, tokens: Tensor, means: Averages, circuits: Sequence[Kept]) -> Tensor:
    """END's streams behind the last block, ``[row, circuit, width]``."""
    layers, many = network.shape.layers, len(circuits)
    start = min(layers - 1, *(each.first for each in circuits))
    touched = [at for at in range(start, layers) if any(each.touches(at) for each in circuits)]
    with torch.no_grad():
        resid = network.embed(tokens)
        if start:
            name = f"resid_post.{start - 1}"
            resid = network.run(tokens, stop=start, keep=(name,))["resid_post", start - 1]
        run = network.run(
            tokens.repeat_interleave(many, 0),
            start=start,
            resid=resid.repeat_interleave(many, 0),
            edits=_edits(means, circuits, touched, tokens.shape[1]),
        )
    return run.final.view(len(tokens), many, -1)


def _edits(
    means: Averages, circuits: Sequence[Kept], touched: Sequence[int], length: int
) -> dict[tuple[str, int], Callable[[Tensor], Tensor]]:
    """By site and layer, what puts means where circuits do not keep what was computed."""
    everywhere = [_replaced(each, length) for each in circuits]
    edits = {}
    for layer in touched:
        whole = [(each.mlps[layer] or layer in each.neurons,) for each in circuits]
        every = np.ones(means.neurons.shape[-1], bool)
        of_site = {
            "z": ([each.heads[layer] for each in circuits], means.z),
            "post": ([each.neurons.get(layer, every) for each in circuits], means.neurons),
            "mlp_out": (whole, means.mlp_out),
        }
        for site, (runs, mean) in of_site.items():
            runs_at = np.stack(runs)[:, None] | ~np.stack(everywhere)[..., None]
            if not runs_at.all():
                edits[site, layer] = _edit(torch.from_numpy(runs_at), mean[layer])
    return edits


def _replaced(circuit: Kept, length: int) -> Mask:
    """At which positions of a prompt the rest is replaced, ``[position]``."""
    if circuit.positions is None:
        return np.ones(length, bool)
    mask = np.zeros(length, bool)
    mask[list(circuit.positions)] = True
    return mask


def _edit(runs: Tensor, mean: Tensor) -> Callable[[Tensor], Tensor]:
    """Keep what runs, ``[circuit, position, part]``, and put the mean ``[position, ...]`` else."""
    runs = runs.to(mean.device)
    runs = runs.view(*runs.shape, *[1] * (mean.ndim - 2))

    def edited(value: Tensor) -> Tensor:
        by_circuit = value.view(-1, len(runs), *value.shape[1:])
        return torch.where(runs, by_circuit, mean).view(value.shape)

    return edited


def faithfulness(values: Floats, floor: Floats, whole: Floats, *, guard: float = GUARD) -> Floats:
    """Floor-corrected faithfulness, as a difference of means over another.

    Args:
        values: NL of circuits, ``[prompt, circuit]``.
        floor: NL of the floor, ``[prompt]``.
        whole: NL of the whole network, ``[prompt]``.
        guard: What the whole must be above the floor by.

    Returns:
        Shape ``[circuit]``; NaN where the whole is not above its guard.
    """
    if not float((whole - floor).mean()) > guard:
        return np.full(values.shape[1], np.nan)
    return share_kept(values.T, whole, floor)
