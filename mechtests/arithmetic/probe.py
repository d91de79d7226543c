"""Can the answer be read off the residual stream linearly, and where?

A multinomial logistic regression from the stream to the result, at every depth and position.
Problems are numbered once: a feature, its label and the part it belongs to share that number,
so that nothing can be shuffled against the other (the released script shuffled its labels anew
for each position, and its features once).

Source: Nikankin et al. 2025, page 4 and Figure 3 (a linear softmax; Adam for 20 epochs
without regularization or a seed). Ours is fitted to its optimum, with an L2 penalty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mechtests.arithmetic.problems import EQUALS, FIRST, SECOND, Problems
from mechtests.errors import Undecidable
from mechtests.metrics.effects import prompts_at_once
from mechtests.models.network import Network

Floats = NDArray[np.float64]
Hits = NDArray[np.bool_]

TRAINING, VALIDATION, TEST = 0, 1, 2
SHARES = (0.7, 0.1, 0.2)
PROMPTS_A_CLASS = 10
PENALTY = 1e-4
"""Of the mean loss, times half the squared weights on features of unit variance."""

STEPS = 60
"""Iterations of L-BFGS."""

POSITIONS = (FIRST, SECOND, EQUALS)


def parts(count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Which part each problem is in: 70% train, 10% choose the depth, 20% test.

    Returns:
        ``TRAINING``, ``VALIDATION`` or ``TEST``, shape ``[problem]``.
    """
    ends = np.cumsum(SHARES)[:-1] * count
    rank = generator.permutation(count)
    return np.searchsorted(ends, rank, side="right").astype(np.int64)


@dataclass(frozen=True, eq=False)
class Labels:
    """The results to be read, as classes, and which part each problem is in.

    Attributes:
        number: Class of each problem, ``[problem]``; -1 where no training problem has it.
        classes: How many there are among training problems.
        part: ``TRAINING``, ``VALIDATION`` or ``TEST``, ``[problem]``.
    """

    number: NDArray[np.int64]
    classes: int
    part: NDArray[np.int64]

    @classmethod
    def of(cls, results: NDArray[np.int64], part: NDArray[np.int64]) -> Labels:
        """The results among training problems as classes.

        Raises:
            Undecidable: There are fewer than 10 training problems a class. That is their mean:
                the result 0 of an addition has one problem, however many are measured.
        """
        known = np.unique(results[part == TRAINING])
        trained = int((part == TRAINING).sum())
        if trained < PROMPTS_A_CLASS * max(1, len(known)) or not (part == TEST).any():
            raise Undecidable(
                f"a probe needs {PROMPTS_A_CLASS} training problems for each result, got "
                f"{trained} for {len(known)} results; measure more problems"
            )
        at = np.searchsorted(known, results).clip(max=len(known) - 1)
        return cls(np.where(known[at] == results, at, -1), len(known), part)

    def shuffled(self, generator: np.random.Generator) -> Labels:
        """The same labels for other problems of the same part."""
        number = self.number.copy()
        for part in (TRAINING, VALIDATION, TEST):
            mine = np.flatnonzero(self.part == part)
            number[mine] = number[generator.permutation(mine)]
        return Labels(number, self.classes, self.part)

    def hits(self, guesses: NDArray[np.int64], part: int) -> Hits:
        """Where guesses ``[..., problem]`` are right, of one part: ``[..., problem]``."""
        mine = self.part == part
        hits: Hits = guesses[..., mine] == self.number[mine]
        return hits

    @property
    def constant(self) -> NDArray[np.int64]:
        """The commonest training class as everybody's guess, ``[problem]``."""
        trained = self.number[self.part == TRAINING]
        return np.full(len(self.number), np.bincount(trained).argmax())


def fit(features: Tensor, labels: Labels, *, penalty: float = PENALTY) -> NDArray[np.int64]:
    """What a multinomial logistic regression, fitted on the training part, says of every problem.

    Features are scaled to mean 0 and variance 1 over the training part. Fitting starts from the
    shares of the classes, so that nothing is read before anything is learnt.

    Args:
        features: ``[problem, width]``.
        labels: Of the same problems.
        penalty: ``PENALTY`` unless said.

    Returns:
        Classes, ``[problem]``.
    """
    trained = torch.from_numpy(labels.part == TRAINING)
    mine = features[trained].float()
    spread, mean = torch.std_mean(mine, dim=0, correction=0)
    scale = torch.where(spread > 0, spread, torch.inf)  # a constant says nothing
    target = torch.from_numpy(labels.number)[trained]
    weight, bias = _optimum((mine - mean) / scale, target, labels.classes, penalty)
    scores = torch.addmm(bias, (features.float() - mean) / scale, weight)
    return np.asarray(scores.argmax(1).numpy(), np.int64)


def _optimum(x: Tensor, target: Tensor, classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    """Weights ``[width, class]`` and biases ``[class]`` at the least mean loss plus penalty."""
    shares = torch.bincount(target, minlength=classes) / len(target)
    given = [x.new_zeros(x.shape[1], classes).requires_grad_(), shares.log().requires_grad_()]
    descent = torch.optim.LBFGS(
        given, max_iter=STEPS, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        descent.zero_grad()
        found = functional.cross_entropy(torch.addmm(given[1], x, given[0]), target)
        total = found + penalty / 2 * given[0].square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        descent.step(loss)  # type: ignore[no-untyped-call]
    return given[0].detach(), given[1].detach()


@dataclass(frozen=True, eq=False)
class Probed:
    """What probes say of test problems.

    Depth d is the stream behind d blocks: 0 is the embedding.

    Attributes:
        problems: Which problems were tested, ``[prompt]``.
        positions: The positions probed, counted from END.
        hits: Whether the result was read, ``[prompt, depth, position]``.
        validation: Accuracy on the validation part, ``[depth, position]``.
        shuffled: As ``hits`` at "=" and its best depth, fitted to shuffled labels, ``[prompt]``.
        operands: Whether the result was read from both operands' embeddings, ``[prompt]``.
        constant: Whether the commonest result is right, ``[prompt]``.
        classes: Results there are.
    """

    problems: NDArray[np.int64]
    positions: tuple[int, ...]
    hits: Hits
    validation: Floats
    shuffled: Hits
    operands: Hits
    constant: Hits
    classes: int

    def best_depth(self, position: int) -> int:
        """The depth that reads best at a position, on the validation part."""
        return int(self.validation[:, self.positions.index(position)].argmax())


def probe(
    network: Network,
    problems: Problems,
    part: NDArray[np.int64],
    generator: np.random.Generator,
    *,
    positions: Sequence[int] = POSITIONS,
) -> Probed:
    """Read the result off the stream at every depth, and the controls.

    Args:
        network: The network.
        problems: Problems, as a rule of one operator.
        part: The part each is in, from ``parts``.
        generator: Shuffles the labels of the control.
        positions: Where to read, counted from END; "=" among them.

    Raises:
        Undecidable: There are fewer than 10 training problems a result.
    """
    labels = Labels.of(problems.result, part)
    at, read_last = list(positions), list(positions).index(EQUALS)
    hits, validation = [], []
    for stream in _streams(network, problems, at):
        guesses = np.stack([fit(each, labels) for each in stream])
        hits.append(labels.hits(guesses, TEST))
        validation.append(labels.hits(guesses, VALIDATION).mean(-1))
        if validation[-1][read_last] >= max(each[read_last] for each in validation):
            best = stream[read_last]
    wrong = labels.shuffled(generator)
    return Probed(
        np.flatnonzero(part == TEST),
        tuple(at),
        np.stack(hits).transpose(2, 0, 1),
        np.stack(validation),
        wrong.hits(fit(best, wrong), TEST),
        labels.hits(fit(_operands(network, problems), labels), TEST),
        labels.hits(labels.constant, TEST),
        labels.classes,
    )


def _streams(network: Network, problems: Problems, at: list[int]) -> Iterator[Tensor]:
    """The stream at some positions, depth by depth: ``[position, problem, width]``.

    All problems go through one block before any goes through the next: so the streams of one
    depth are all that is ever held.
    """
    tokens = torch.from_numpy(problems.tokens).to(network.device)
    most = prompts_at_once(network.shape, tokens.shape[1])
    with torch.no_grad():
        resid = network.embed(tokens)
    yield resid[:, at].transpose(0, 1).cpu()
    for layer in range(network.shape.layers):
        name = f"resid_post.{layer}"
        with torch.no_grad():
            parts = [
                network.run(some, start=layer, stop=layer + 1, resid=before, keep=(name,))
                for some, before in zip(
                    torch.split(tokens, most), torch.split(resid, most), strict=True
                )
            ]
        resid = torch.cat([each["resid_post", layer] for each in parts])
        yield resid[:, at].transpose(0, 1).cpu()


def _operands(network: Network, problems: Problems) -> Tensor:
    """Both operands' embeddings side by side, ``[problem, 2 width]``: nothing is computed."""
    tokens = torch.from_numpy(problems.tokens[:, [FIRST, SECOND]]).to(network.device)
    with torch.no_grad():
        return network.embed_tokens(tokens).flatten(1).cpu()
