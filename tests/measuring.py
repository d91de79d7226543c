"""A metric on a network without the engine, and random prompts for random networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mechtests.measurement import Measurement
from mechtests.metrics.metric import Batch, Metric
from mechtests.models.network import Network
from mechtests.tasks.prompts import Prompts, padded


def measure(
    network: Network,
    metric: Metric,
    prompts: Prompts,
    *,
    corruption: str = "S2->IO",
    inputs: Mapping[str, Measurement] | None = None,
    draws: int = 19,
) -> Measurement:
    """All prompts in one batch."""
    values = metric.compute(
        batch_of(network, metric, prompts, corruption=corruption, inputs=inputs, draws=draws)
    )
    assert set(values) == set(metric.values)
    return Measurement(
        name=metric.name,
        values={name: np.asarray(value) for name, value in values.items()},
        axes={name: value.axes for name, value in metric.values.items()},
        units={name: value.unit for name, value in metric.values.items()},
        cluster=prompts.cluster,
        template=prompts.template,
        half=prompts.half,
    )


def batch_of(
    network: Network,
    metric: Metric,
    prompts: Prompts,
    *,
    corruption: str = "S2->IO",
    inputs: Mapping[str, Measurement] | None = None,
    draws: int = 19,
) -> Batch:
    last = torch.from_numpy(prompts.end)

    def run(tokens: np.ndarray, keep: tuple[str, ...]) -> Any:
        return network.run(torch.from_numpy(tokens), keep=keep, last=last) if keep else None

    return Batch(
        network=network,
        prompts=prompts,
        clean=network.run(torch.from_numpy(prompts.clean), keep=metric.clean, last=last),
        corrupted=run(prompts.corrupted[corruption], metric.corrupted),
        inputs=inputs or {},
        params=dict(metric.params),
        draws=draws,
        rows=np.arange(len(prompts)),
        generator=lambda purpose: np.random.default_rng(list(purpose.encode())),
        corruption=corruption,
    )


def random_prompts(vocabulary: int, n: int = 6, seed: int = 0, answers: int = 1) -> Prompts:
    """Prompts of 7 to 12 random tokens with every name an IOI metric asks for."""
    draw = np.random.default_rng(seed)
    length = draw.integers(7, 13, n)
    clean = [draw.integers(0, vocabulary, size).tolist() for size in length]
    corrupted = [draw.integers(0, vocabulary, size).tolist() for size in length]
    picked = np.stack([draw.choice(vocabulary, 2 * answers + 1, replace=False) for _ in range(n)])
    at = np.stack([draw.choice(size - 1, 3, replace=False) for size in length])
    return Prompts(
        clean=padded(clean),
        length=length,
        cluster=np.arange(n) // 2,
        template=np.zeros(n, dtype=np.int64),
        half=(np.arange(n) // 2) % 2,
        texts=tuple(map(str, clean)),
        corrupted={"S2->IO": padded(corrupted)},
        right=picked[:, :answers],
        wrong=picked[:, answers : 2 * answers],
        positions={"IO": at[:, 0], "S1": at[:, 1], "S2": at[:, 2], "END": length - 1},
        tokens={
            "IO": padded(clean)[np.arange(n), at[:, 0]],
            "S": padded(clean)[np.arange(n), at[:, 1]],
            "absent": picked[:, -1],
        },
    )
