"""Can the answer be read off the residual stream linearly, and where?

A linear softmax from the stream to the result, at every depth and position: the discriminant of
classes with one covariance (Fisher 1936), which is solved and not searched for, and which needs
one matrix for all results. Where it decides, a discriminant that may use directions of little
variance and a logistic regression are fitted beside it, and the one that validates best counts.

A linear softmax can itself add: of two operands that lie side by side, each as a vector of its
own, the result that is nearest to a sum is the largest of linear functions (2 r (a + b) - r^2),
and so it is for differences. A probe that may use directions of any little variance does that
even with untrained embeddings, and reads the answer where both operands have arrived, before the
network has made it. So the map over depths is the shrunk discriminant's, which reads what has a
fair part of the stream's variance; and the control, the probe that validates best on both operands'
embeddings, says whether reading the answer means that the network computed it.

Source: Nikankin et al. 2025, page 4 and Figure 3 (a linear softmax; Adam for 20 epochs, without
a penalty but for that end, and without a seed).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mechtests.arithmetic.probe_labels import (
    POSITIONS,
    STEPS,
    TEST,
    TRAINING,
    VALIDATION,
    Hits,
    Ids,
    Labels,
)
from mechtests.arithmetic.problems import EQUALS, FIRST, SECOND, Problems
from mechtests.errors import Undecidable
from mechtests.metrics.effects import prompts_at_once
from mechtests.models.network import Network

Floats = NDArray[np.float64]

SHRINKAGE, LENIENT = 0.1, 1e-5
"""The part of the covariance that is taken to be the same in all directions."""
LEAST = 1e-6
"""Of a feature's size, what varies by less is rounding; of its variance, what classes vary by."""
PENALTY = 1e-4
"""Of logistic regression, in the mean loss, times half the squared weights."""


def fit(features: Tensor, labels: Labels, *, shrinkage: float = SHRINKAGE) -> Ids:
    """What a linear discriminant, fitted on the training part, says of every problem.

    Features are scaled to mean 0 and variance 1 over the training part.

    Args:
        features: ``[problem, width]``.
        labels: Of the same problems.
        shrinkage: From 0, the covariance within classes as it is, to 1, the same in all directions.

    Returns:
        Classes, ``[problem]``.
    """
    scaled, trained, number = _scaled(features, labels)
    weight, bias = _discriminant(scaled[trained], number, labels.classes, shrinkage)
    return _said(scaled, weight, bias)


def logistic(features: Tensor, labels: Labels) -> Ids:
    """The same of a logistic regression with a penalty; some hundred times as dear."""
    scaled, trained, number = _scaled(features, labels)
    return _said(scaled, *_optimum(scaled[trained], number, labels.classes))


def best_probe(features: Tensor, labels: Labels) -> Ids:
    """The same of the one that validates best: both discriminants, or the logistic regression."""
    each = [
        fit(features, labels),
        fit(features, labels, shrinkage=LENIENT),
        logistic(features, labels),
    ]
    right = [labels.hits(guesses, VALIDATION).mean() for guesses in each]
    return each[int(np.argmax(right))]


def _scaled(features: Tensor, labels: Labels) -> tuple[Tensor, Tensor, Tensor]:
    """Scaled features, which of them train, and the classes of those."""
    trained = torch.from_numpy(labels.of_part(TRAINING))
    spread, mean = torch.std_mean(features[trained].float(), dim=0, correction=0)
    scale = torch.where(spread > LEAST * mean.abs(), spread, torch.inf)  # a constant says nothing
    return (features.float() - mean) / scale, trained, torch.from_numpy(labels.number)[trained]


def _said(scaled: Tensor, weight: Tensor, bias: Tensor) -> Ids:
    return np.asarray(torch.addmm(bias, scaled, weight).argmax(1).numpy(), np.int64)


def _discriminant(x: Tensor, number: Tensor, classes: int, shrinkage: float) -> tuple[Tensor, ...]:
    """Weights ``[width, class]`` and biases ``[class]`` of Gaussian classes of one covariance."""
    count = torch.bincount(number, minlength=classes).float()
    means = x.new_zeros(classes, x.shape[1]).index_add_(0, number, x) / count[:, None]
    apart = x - means[number]
    within = (apart.T @ apart).double() / len(x)
    round_ = within.diagonal().mean().clamp(min=LEAST)
    within = (1 - shrinkage) * within + shrinkage * round_ * torch.eye(len(within)).double()
    weight = torch.cholesky_solve(means.T.double(), torch.linalg.cholesky(within))
    bias = (count / count.sum()).log() - 0.5 * (means.T * weight).sum(0)
    return weight.float(), bias.float()


def _optimum(x: Tensor, number: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weights ``[width, class]`` and biases ``[class]`` at the least mean loss plus penalty.

    It starts from the shares of the classes, so that nothing is read before anything is learnt.
    """
    shares = torch.bincount(number, minlength=classes) / len(number)
    given = [x.new_zeros(x.shape[1], classes).requires_grad_(), shares.log().requires_grad_()]
    descent = torch.optim.LBFGS(
        given, max_iter=STEPS, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        descent.zero_grad()
        found = functional.cross_entropy(torch.addmm(given[1], x, given[0]), number)
        total = found + PENALTY / 2 * given[0].square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        descent.step(loss)  # type: ignore[no-untyped-call]
    return given[0].detach(), given[1].detach()


@dataclass(frozen=True, eq=False)
class Probed:
    """What probes say of test problems.

    Depth d is the stream behind d blocks: 0 is the embedding. Positions are ``POSITIONS``.

    Attributes:
        problems: Which problems were tested, ``[prompt]``.
        hits: Whether a discriminant reads the result, ``[prompt, depth, position]``.
        validation: Its accuracy on the validation part, ``[depth, position]``.
        last: Whether the best probe does at "=", at the depth that validates best, ``[prompt]``.
        second: The same at operand 2.
        shuffled: As ``last``, fitted to shuffled labels.
        operands: Whether the best probe does from both operands' embeddings.
        shrunk: As ``operands``, by the shrunk discriminant.
        constant: Whether the commonest result is right.
    """

    problems: Ids
    hits: Hits
    validation: Floats
    last: Hits
    second: Hits
    shuffled: Hits
    operands: Hits
    shrunk: Hits
    constant: Hits


def probe(
    network: Network, problems: Problems, labels: Labels, generator: np.random.Generator
) -> Probed:
    """Read the result off the stream at every depth and position, and the controls.

    Args:
        network: The network.
        problems: Problems, as a rule of one operator.
        labels: Their results as classes.
        generator: Shuffles the labels of the control.

    Raises:
        Undecidable: Fewer than two results have training problems enough.
    """
    if labels.classes < 2 or not all(labels.of_part(part).any() for part in (VALIDATION, TEST)):
        raise Undecidable(
            f"a probe needs two results with enough training problems, and problems to test them, "
            f"got {labels.classes} results of {len(problems)} problems; measure more problems"
        )
    hits: list[Hits] = []
    validation: list[Floats] = []
    best: dict[int, Tensor] = {}
    for stream in _streams(network, problems, list(POSITIONS)):
        guesses = np.stack([fit(each, labels) for each in stream])
        right: Floats = labels.hits(guesses, VALIDATION).mean(-1)
        for at in (EQUALS, SECOND):
            place = POSITIONS.index(at)
            if right[place] > max((before[place] for before in validation), default=-1.0):
                best[at] = stream[place]
        hits.append(labels.hits(guesses, TEST))
        validation.append(right)
    wrong, operands = labels.shuffled(generator), _operands(network, problems)
    return Probed(
        problems=np.flatnonzero(labels.of_part(TEST)),
        hits=np.stack(hits).transpose(2, 0, 1),
        validation=np.stack(validation),
        last=labels.hits(best_probe(best[EQUALS], labels), TEST),
        second=labels.hits(best_probe(best[SECOND], labels), TEST),
        shuffled=wrong.hits(best_probe(best[EQUALS], wrong), TEST),
        operands=labels.hits(best_probe(operands, labels), TEST),
        shrunk=labels.hits(fit(operands, labels), TEST),
        constant=labels.hits(labels.constant, TEST),
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
            runs = [
                network.run(some, start=layer, stop=layer + 1, resid=before, keep=(name,))
                for some, before in zip(
                    torch.split(tokens, most), torch.split(resid, most), strict=True
                )
            ]
        resid = torch.cat([each["resid_post", layer] for each in runs])
        yield resid[:, at].transpose(0, 1).cpu()


def _operands(network: Network, problems: Problems) -> Tensor:
    """Both operands' embeddings side by side, ``[problem, 2 width]``: nothing is computed."""
    tokens = torch.from_numpy(problems.tokens[:, [FIRST, SECOND]]).to(network.device)
    with torch.no_grad():
        return network.embed_tokens(tokens).flatten(1).cpu()
