"""Edge attribution: by how much every edge matters, to first order, from few runs.

The score of an edge is the sum over positions of its writer's difference, corrupted minus clean,
times the gradient of ``-metric`` at its reader's own copy of the residual stream; averaged over
prompts, and over the points between clean and corrupted at which gradients are taken. So **a
positive score says: with the corrupted activation on this edge the metric falls**, by about the
score; a negative one, that it rises.

The scores of the edges out of the input sum to the embedding's difference times the gradient at
the embedding. With points along the whole line between the embeddings (``"eap-ig-inputs"``), that
is the metric of the clean run minus that of the corrupted one, up to an error that falls as one
over the number of steps (completeness).

Sources: EAP, Syed et al. 2023; EAP-IG, Hanna et al. 2024, and its code. There the loss is the
mean over a batch, so that scores are divided by the batch's size once more: ours are not.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mechtests.circuits.graph import Graph, Ints
from mechtests.circuits.interpolation import Method, Path, shares
from mechtests.circuits.memory import Memory, budget_for
from mechtests.circuits.passes import ENDS, Job, Metric
from mechtests.circuits.suffixes import first_differences, in_chunks
from mechtests.errors import UsageError
from mechtests.models import heap
from mechtests.models.network import Network

__all__ = ["Metric", "attribute", "graph_of"]


def graph_of(network: Network) -> Graph:
    """The graph of a network."""
    shape = network.shape
    return Graph(shape.layers, shape.heads, shape.parallel, shape.key_value_heads)


def attribute(  # noqa: PLR0913  (the method's settings, all by name)
    network: Network,
    clean: Tensor,
    corrupted: Tensor,
    metric: Metric,
    *,
    method: Method = "eap-ig-inputs",
    steps: int = 5,
    path: Path = "corrupted",
    last: Tensor | None = None,
    groups: Ints | None = None,
    budget: int | None = None,
    share_prefixes: bool = True,
) -> NDArray[np.float32]:
    """Scores of all edges.

    Args:
        network: The network.
        clean: Token ids, padded on the right, ``[prompt, position]``.
        corrupted: The same shape; each prompt with its clean variant's END.
        metric: What is attributed; the loss is its negative.
        method: See ``interpolation.shares``.
        steps: See there.
        path: See there.
        last: END of each prompt, ``[prompt]``; the last column unless said.
        groups: Of each prompt, from 0, ``[prompt]``: scores of several sets of prompts at once.
        budget: Bytes to work with beside the weights, those of ``budget_for`` unless said; no
            fewer than one prompt, one point of its path and both ends are run at a time, which a
            small budget may not hold.
        share_prefixes: Run only what follows the first difference; the scores are the same.

    Returns:
        ``[writer, reader]`` in the order of ``Graph``, 0 where there is no edge; with groups
        ``[group, writer, reader]``. In fp32 at least.

    Raises:
        UsageError: The arguments do not fit together.
    """
    if last is None:
        last = torch.full((len(clean),), clean.shape[1] - 1)
    members = torch.zeros(len(clean), dtype=torch.long) if groups is None else torch.tensor(groups)
    _check(network, clean, corrupted, last, members)
    clean, corrupted, last, members = (
        part.to(network.device) for part in (clean, corrupted, last, members)
    )
    budget = budget_for(network.shape) if budget is None else budget
    memory = Memory(network.shape.layers, network.dtype, network.device)
    job = Job(network, graph_of(network), clean, corrupted, metric, budget, memory)
    points = sorted(shares(method, steps, path), key=lambda share: share not in ENDS)
    start = first_differences(clean, corrupted, last)
    start = start if share_prefixes else torch.zeros_like(start)
    count = members.bincount()
    wide = torch.promote_types(network.dtype, torch.float32)
    shape = (len(count), job.graph.writers, job.graph.readers)
    total = torch.zeros(shape, dtype=wide, device=network.device)

    with torch.no_grad(), heap.kept():
        for suffixes in in_chunks(start, last, members, partial(job.fitting, points=points)):
            job.add(suffixes, points, members[suffixes.rows], total)
        total /= count[:, None, None] * len(points)
        total *= torch.from_numpy(job.graph.allowed).to(total)
    scores: NDArray[np.float32] = total.cpu().numpy()
    return scores[0] if groups is None else scores


def _check(
    network: Network, clean: Tensor, corrupted: Tensor, last: Tensor, groups: Tensor
) -> None:
    """Refuse arguments that do not fit together.

    Raises:
        UsageError: They do not.
    """
    if clean.ndim != 2 or clean.shape != corrupted.shape or not clean.numel():
        raise UsageError(
            f"attribution on {network.name} needs clean and corrupted token ids of one shape "
            f"[prompt, position], got {tuple(clean.shape)} and {tuple(corrupted.shape)}"
        )
    if len(last) != len(clean) or int(last.min()) < 0 or int(last.max()) >= clean.shape[1]:
        raise UsageError(
            f"attribution on {network.name} needs END of each of {len(clean)} prompts, below "
            f"{clean.shape[1]}; got {len(last)} from {int(last.min())} to {int(last.max())}"
        )
    count = groups.bincount() if len(groups) == len(clean) and int(groups.min()) >= 0 else None
    if count is None or not bool(count.all()):
        raise UsageError(
            f"attribution on {network.name} needs a group of each of {len(clean)} prompts, counted "
            f"from 0 and none empty, got {len(groups)} numbers: {sorted(set(groups.tolist()))}"
        )
