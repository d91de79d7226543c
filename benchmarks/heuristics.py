"""What it costs to match the paper's 3,200 neurons of addition with every heuristic.

    python benchmarks/heuristics.py [--neurons 3200] [--operands 300] [--threads 2]

Random activations of all pairs of operands, and a random logit lens, are scored on all
heuristics; the last rows are one neuron by slow loops over the heuristics, in the same process:
the largest k pairs found anew for each, as Algorithm 1 has it, and the neuron sorted once.
Both must give the same scores.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import torch

from mechtests.arithmetic.libraries import Library, library
from mechtests.arithmetic.matching import scores


def peak() -> float:
    """Of this process, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def anew(column: np.ndarray, written: np.ndarray, found: Library) -> list[float]:
    """The largest pairs by a partition for each heuristic."""
    shares = []
    for i, heuristic in enumerate(found.heuristics):
        k = int(found.sizes[i])
        largest = np.argpartition(written if heuristic.direct else column, -k)[-k:]
        shares.append(MASKS[i][largest].mean())
    return shares


def sorted_once(column: np.ndarray, written: np.ndarray, found: Library) -> list[float]:
    """The largest pairs are the first of one order."""
    plain, direct = np.argsort(-column), np.argsort(-written)
    return [
        (MASKS[i][(direct if h.direct else plain)[: found.sizes[i]]]).mean()
        for i, h in enumerate(found.heuristics)
    ]


MASKS: list[np.ndarray] = []
"""Of all heuristics: the slow loops' own, made before they are timed."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--neurons", type=int, default=3200)
    parser.add_argument("--operands", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    generator = np.random.default_rng(0)
    first, second = (each.ravel() for each in np.indices((asked.operands, asked.operands)))
    start = time.perf_counter()
    found = library(0, first, second, first + second)
    print(f"library: {time.perf_counter() - start:.2f} s")
    activations = generator.standard_normal((len(first), asked.neurons), np.float32)
    lens = generator.standard_normal((len(found.results), asked.neurons), np.float32)
    held = peak()
    print(
        f"{asked.neurons} neurons x {len(first)} pairs x {len(found)} heuristics, "
        f"{asked.threads} threads; {held:.2f} GB with the activations"
    )
    timed = {}
    for gated in (True, False):
        start = time.perf_counter()
        ours = scores(activations, found, lens=lens, gated=gated)
        timed[gated] = time.perf_counter() - start
        print(
            f"{'gated' if gated else 'plain':22}{timed[gated]:9.1f} s"
            f"{timed[gated] / asked.neurons * 1e3:9.2f} ms a neuron; peak {peak():.2f} GB"
        )
    MASKS.extend(found.mask(i) for i in range(len(found)))
    column = np.ascontiguousarray(activations[:, 0])
    written = column * lens[np.searchsorted(found.results, found.result), 0]
    for name, slow in (("Algorithm 1, a loop", anew), ("sorted once, a loop", sorted_once)):
        start = time.perf_counter()
        shares = slow(column, written, found)
        each = time.perf_counter() - start
        off = np.abs(np.array(shares) - ours[0]).max()
        print(
            f"{name:22}{each * asked.neurons:9.1f} s{each * 1e3:9.2f} ms a neuron: "
            f"{each * asked.neurons / timed[False]:.0f} times; largest difference {off:.1e}"
        )


if __name__ == "__main__":
    main()
