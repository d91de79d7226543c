"""Weights as they were loaded: what tells the checkpoints of a series apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mechtests.checkpoints import Series
from mechtests.metrics.metric import Batch, Metric, Value

if TYPE_CHECKING:
    from torch import Tensor

LARGE = 4096
"""Smaller tensors (norms, biases) may well be equal at two checkpoints."""


def _fingerprints(batch: Batch) -> Mapping[str, Tensor]:
    import torch

    network = batch.network
    matrices = [network.unembedding.weight]
    for block in network.blocks:
        parts = (block.query, block.key, block.value, block.output, block.mlp_in, block.mlp_out)
        matrices += [part.weight for part in parts]
    large = [weight.double() for weight in matrices if weight.numel() >= LARGE]
    said = [torch.stack((w.sum(), w.abs().sum(), w.square().sum(), w.flatten()[-1])) for w in large]
    return {"fingerprint": torch.stack(said) if said else torch.zeros(0, 4)}


fingerprints = Metric(
    name="weights.fingerprints",
    version=1,
    compute=_fingerprints,
    values={"fingerprint": Value(("tensor", "statistic"), "sum, absolute sum, squares, last")},
)
"""Four statistics of every large weight matrix, for the question whether two are the same.

Equal matrices have equal statistics; matrices of two steps of training agree in all four only
where the steps changed nothing that single precision shows.
"""


def shared(series: Series) -> list[str]:
    """Which checkpoints have a large matrix in common, and how many, each pair in words.

    Args:
        series: ``fingerprints`` at every checkpoint.
    """
    seen: dict[tuple[int, bytes], str] = {}
    pairs: dict[tuple[str, str], int] = {}
    for moment, found in zip(series.moments, series, strict=True):
        for index, fingerprint in enumerate(found["fingerprint"]):
            other = seen.setdefault((index, fingerprint.tobytes()), moment.label)
            if other != moment.label:
                pairs[other, moment.label] = pairs.get((other, moment.label), 0) + 1
    return [f"{a} and {b} share {n} large matrices" for (a, b), n in pairs.items()]
