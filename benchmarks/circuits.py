"""Circuits on SmolLM2 against the reference implementation, on its own prompts and scores.

    python benchmarks/circuits.py [--reference FILE] [--threshold 0.85]

Prints what one circuit costs, alone and eight at a time, and the whole search for the smallest
circuit; each as seconds, as counted operations over the rate of a plain fp32 matrix product
measured in the same process, and as a ratio to the seconds recorded of the reference. The
circuits' metrics are printed beside the reference's.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mechtests.circuits import others as other_edges
from mechtests.circuits.circuit import Circuit, Floats, whole
from mechtests.circuits.evaluation import Evaluation
from mechtests.circuits.search import Found, interval, limit_of, smallest
from mechtests.circuits.selection import Ordering, greedy
from mechtests.models import sources
from mechtests.models.network import Network
from mechtests.store import default_folder

SHARED = Path(__file__).parents[2] / "shared/reference/eap_ig_smollm2_ioi20.safetensors"
REFERENCE_SECONDS = (7.8, 8.7)
"""Of one circuit, recorded with the reference file, on two quiet cores after attribution."""
REFERENCE_METRIC = {100: -0.2914, 400: 3.0797, 1000: 4.0166, 4000: 4.5602, 10000: 4.3368}
TOGETHER = 8


def gemm_rate(width: int = 2048, repeats: int = 5) -> float:
    """FLOPs a second of a square fp32 matrix product, the best of some."""
    left, right = torch.randn(width, width), torch.randn(width, width)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - start)
    return 2 * width**3 / min(times)


def timed(act: Callable[[], object], repeats: int = 3) -> tuple[float, float]:
    """Seconds of the first call, and the median of the next ones."""
    times = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return times[0], median(times[1:])


def counted(act: Callable[[], object]) -> float:
    """Floating point operations of matrix products."""
    with FlopCounterMode(display=False) as counter:
        act()
    return float(counter.get_total_flops())


class Subject:
    """SmolLM2 on the reference's prompts."""

    def __init__(self, file: Path) -> None:
        held = load_file(file)
        source = sources.resolve("smollm2-135m", cache=default_folder())
        loaded = source.load(None, dtype="float32", device="cpu", offline=False)
        self.network = Network.from_model(loaded.model, name="smollm2-135m", check=False)
        self.clean, self.corrupted, self.answers = (
            torch.from_numpy(held[name]) for name in ("clean_ids", "corrupted_ids", "answer_ids")
        )
        self.scores = held["scores"].astype(np.float64)

    def metric(self, final: Tensor) -> Tensor:
        """The logit difference, ``[prompt]``."""
        logits = self.network.logits(final, self.answers)
        return logits[:, 0] - logits[:, 1]

    def evaluation(self) -> Evaluation:
        """A cached corrupted run for all circuits."""
        others = other_edges.corrupted(self.network, self.clean, self.corrupted)
        return Evaluation(self.network, self.clean, others)

    def search(self, threshold: float) -> tuple[Found, Ordering]:
        """All of it: the ordering, the corrupted and the clean run, the scan, the refinement."""
        evaluation = self.evaluation()
        limit = limit_of(evaluation.graph)
        ordering = greedy(evaluation.graph, self.scores, limit=limit)
        clean = self.metric(evaluation.clean()).double().numpy()

        def evaluate(circuits: Sequence[Circuit]) -> Floats:
            return evaluation.values(circuits, self.metric)

        return smallest(ordering, evaluate, clean, None, threshold=threshold), ordering


def print_circuits(subject: Subject, rate: float) -> None:
    """A row a size."""
    evaluation = subject.evaluation()
    cold, warm = timed(subject.evaluation)
    print(f"corrupted run for all circuits: {warm:.2f} s")
    start = time.perf_counter()
    ordering = greedy(evaluation.graph, subject.scores)
    print(f"ordering of {len(ordering):,} edges: {time.perf_counter() - start:.2f} s\n")
    print(
        f"{'edges':>7}{'pruned':>8}{'metric':>9}{'reference':>11}{'GFLOP':>8}{'cold s':>8}"
        f"{'warm s':>8}{'of limit':>9}{'in 8, s':>9}{'reference / ours':>20}"
    )
    sizes = [*REFERENCE_METRIC, evaluation.graph.edges]
    for n in sizes:
        circuit = ordering.circuit(n) if n < evaluation.graph.edges else whole(evaluation.graph)
        found: list[Floats] = []

        def one(circuit: Circuit = circuit, found: list[Floats] = found) -> None:
            found.append(evaluation.values([circuit], subject.metric))

        cold, warm = timed(one)
        flops = counted(one)
        near = [ordering.circuit(round(n * (1 - 0.01 * i))) for i in range(TOGETHER)]
        _, several = timed(lambda near=near: evaluation.values(near, subject.metric), 1)  # type: ignore[misc]
        each = several / TOGETHER
        recorded = REFERENCE_METRIC.get(n)
        low, high = (seconds / warm for seconds in REFERENCE_SECONDS)
        print(
            f"{n:7}{circuit.size:8}{found[0].mean():9.4f}"
            f"{'' if recorded is None else format(recorded, '.4f'):>11}{flops / 1e9:8.1f}"
            f"{cold:8.3f}{warm:8.3f}{warm * rate / flops:9.2f}{each:9.3f}"
            f"{f'{low:.0f} to {high:.0f}':>20}"
        )


def print_search(subject: Subject, threshold: float) -> None:
    """The whole search, timed once."""
    start = time.perf_counter()
    found, _ = subject.search(threshold)
    seconds = time.perf_counter() - start
    evaluated = len(found.grid) + len(found.refined)
    low, high = (evaluated * each / seconds for each in REFERENCE_SECONDS)
    size = "censored" if found.smallest is None else f"{found.smallest.n} edges"
    print(
        f"\nsearch for {threshold:.0%} of the clean metric: {size} "
        f"(first crossing on the grid), {len(found.grid)} + {len(found.refined)} circuits, "
        f"{seconds:.1f} s with ordering, corrupted and clean run"
    )
    print(f"the reference's evaluations of as many circuits alone: {low:.0f} to {high:.0f} times")
    drawn = interval(found, np.random.default_rng(0), of="n")
    print(f"95% interval over {len(found.clean)} prompts: {drawn.low} to {drawn.high} edges")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, default=SHARED)
    parser.add_argument("--threshold", type=float, default=0.85)
    asked = parser.parse_args()
    if not asked.reference.is_file():
        raise SystemExit(f"the reference values are not at {asked.reference}; give --reference")
    subject = Subject(asked.reference)
    rate = gemm_rate()
    print(f"fp32 GEMM {rate / 1e9:.0f} GFLOP/s, {torch.get_num_threads()} threads")
    print_search(subject, asked.threshold)
    print()
    print_circuits(subject, rate)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"\nGEMM afterwards {gemm_rate() / 1e9:.0f} GFLOP/s; peak memory {peak / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
