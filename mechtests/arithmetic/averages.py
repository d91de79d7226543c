"""What every component does on average at each position: what mean ablation puts in its place.

Source: Nikankin et al. 2025, page 19: over all problems,
legal or not, so that operators weigh the same. Ours weigh the same whatever problems are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mechtests.arithmetic.problems import Problems
from mechtests.errors import UsageError
from mechtests.models.activations import bytes_per_prompt
from mechtests.models.network import Network

SITES = ("z", "mlp_out", "post")
WORKING_BYTES = 128_000_000


@dataclass(frozen=True, eq=False)
class Averages:
    """Means over problems, position by position, BOS included.

    Attributes:
        z: Of every head, ``[layer, position, head, head_width]``.
        mlp_out: Of what every MLP writes, ``[layer, position, width]``.
        neurons: Of every neuron, ``[layer, position, mlp_width]``.
    """

    z: Tensor
    mlp_out: Tensor
    neurons: Tensor


def averages(
    network: Network,
    problems: Problems,
    *,
    sites: Sequence[str] = SITES,
    layers: Sequence[int] | None = None,
) -> Averages:
    """The means over some problems, each operator among them weighing the same.

    Sums are fp64, and problems are run some at a time, so that any number will do.

    Args:
        network: The network.
        problems: The problems.
        sites: What is wanted; the others are empty.
        layers: Those that are wanted, all unless said; the others are 0.

    Raises:
        UsageError: There is no problem.
    """
    if not len(problems):
        raise UsageError("means need at least one problem, got none; generate some")
    length = problems.tokens.shape[1]
    at = range(network.shape.layers) if layers is None else layers
    keep = [f"{site}.{layer}" for site in sites for layer in at]
    many = max(1, WORKING_BYTES // bytes_per_prompt(network.shape, keep, length))
    operators = np.unique(problems.operator)
    total: dict[str, Tensor] = {}
    for operator in operators:
        mine = problems.of_operator(int(operator))
        for tokens in torch.split(torch.from_numpy(mine.tokens), many):
            with torch.no_grad():
                run = network.run(tokens.to(network.device), keep=keep)
            for site in sites:
                for layer in at:
                    part = run[site, layer].sum(0, dtype=torch.float64)
                    every = (network.shape.layers, *part.shape)
                    total.setdefault(site, part.new_zeros(every))[layer] += part / (
                        len(mine) * len(operators)
                    )
    nothing = torch.zeros(0, device=network.device)
    return Averages(*(total.get(site, nothing).to(network.dtype) for site in SITES))
