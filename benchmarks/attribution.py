"""Edge attribution against its limit and against the reference implementation, in one run.

    python benchmarks/attribution.py [--reference FILE] [--budget MB ...] [--repeats N]

EAP-IG of the reference file's 20 prompts on SmolLM2-135M with 5 steps, with and without sharing
what prompts have in common before they differ. A process loads the model, attributes (cold), does
so three times more (warm), and counts the operations. The limit is the counted operations at the
rate of a plain fp32 matrix product, measured before and after each call: machines are noisy, so
that a call is compared with the rate around it, warm is the call of the median ratio, and each row
is the process of the median first call among some, in turns, beside the slowest and the fastest.
The reference's seconds are those recorded for it with the file, on two quiet cores of another
machine: rate them by the two matrix products' rates.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mechtests.circuits.attribution import attribute, graph_of
from mechtests.circuits.memory import LEAST
from mechtests.models import sources
from mechtests.models.network import Network
from mechtests.store import default_folder

REFERENCE = Path(__file__).parents[2] / "shared/reference/eap_ig_smollm2_ioi20.safetensors"
RECORDED_SECONDS = 155.0
WARM = 3
RECORDED_BATCH = 10
"""Its loss is the mean over a batch of so many, so that its scores are a tenth of ours."""


def gemm_rate(size: int = 2048, times: int = 6) -> float:
    """Operations a second of an fp32 matrix product: the best of some."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / min(seconds(lambda: a @ b) for _ in range(times))


def seconds(act: Callable[[], Any]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(reference: Path, budget: int, share_prefixes: bool) -> dict[str, float]:
    """One row, in this process."""
    rates = [gemm_rate()]  # before the model, whose weights take over its memory
    found = load_file(reference)
    source = sources.resolve("smollm2-135m", cache=default_folder())
    loaded = source.load(None, dtype="float32", device="cpu", offline=False)
    network = Network.from_model(loaded.model, name="smollm2-135m", check=False)
    answers = found["answer_ids"].long()
    clean, corrupted = found["clean_ids"].long(), found["corrupted_ids"].long()

    def difference(final: Tensor, rows: Tensor) -> Tensor:
        logits = network.logits(final, answers[rows])
        return logits[:, 0] - logits[:, 1]

    def act() -> Any:
        return attribute(
            network, clean, corrupted, difference, budget=budget, share_prefixes=share_prefixes
        )

    loaded = peak()
    calls = [seconds(act)]
    highest = peak()  # of the call alone: the matrix products after it take memory too
    for _ in range(WARM):
        rates.append(gemm_rate())
        calls.append(seconds(act))
    rates.append(gemm_rate())
    with FlopCounterMode(display=False) as counter:
        scores = act()
    flops = float(counter.get_total_flops())
    rate = (np.array(rates[1:]) + np.array(rates[:-1])) / 2
    ratios = np.array(calls) * rate / flops
    middle = 1 + int(np.argsort(ratios[1:])[WARM // 2])
    row = {
        "loaded": loaded,
        "peak": highest,
        "flops": flops,
        "rate": float(rate.mean()),
        "cold": calls[0],
        "cold_ratio": float(ratios[0]),
        "warm": calls[middle],
        "warm_ratio": float(ratios[middle]),
    }
    expected = found["scores"].numpy() * RECORDED_BATCH
    off = np.abs(scores - expected)[graph_of(network).allowed].max()
    return {**row, "off": float(off / np.abs(expected).max())}


def row_of(asked: argparse.Namespace, budget: int, share_prefixes: bool) -> dict[str, float]:
    """One row, in a process of its own."""
    command: Sequence[str] = (
        *(sys.executable, __file__, "--reference", str(asked.reference)),
        *("--budget", str(budget), "--row", "shared" if share_prefixes else "whole"),
    )
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, default=REFERENCE)
    parser.add_argument(
        "--budget",
        type=int,
        nargs="+",
        default=[LEAST // 2**20],
        help="MB for attribution to work with",
    )
    parser.add_argument("--repeats", type=int, default=3, help="processes of each row")
    parser.add_argument("--row", choices=("shared", "whole"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if not asked.reference.exists():
        raise SystemExit(f"the reference values are not at {asked.reference}; say --reference FILE")
    if asked.row:
        print(json.dumps(measure(asked.reference, asked.budget[0] * 2**20, asked.row == "shared")))
        return
    print(f"SmolLM2-135M, 20 prompts of 15 tokens, 5 steps, {torch.get_num_threads()} threads")
    print(
        f"{'prefixes':10}{'budget':>8}{'GEMM':>12}{'counted':>11}{'limit':>8}{'cold':>8}{'warm':>8}"
        f"{'cold/limit':>12}{'warm/limit':>12}{'peak':>9}{'loaded':>9}{'reference/cold':>22}{'off':>9}"
    )
    kinds = [(name, budget) for budget in asked.budget for name in ("shared", "whole")]
    found: dict[tuple[str, int], list[dict[str, float]]] = {kind: [] for kind in kinds}
    for _ in range(asked.repeats):
        for name, budget in kinds:
            found[name, budget].append(row_of(asked, budget, name == "shared"))
    for (name, budget), rows in found.items():
        rows.sort(key=lambda row: row["cold"])
        row = rows[len(rows) // 2]
        fastest, middle, slowest = (
            RECORDED_SECONDS / each["cold"] for each in (rows[0], row, rows[-1])
        )
        limit = row["flops"] / row["rate"]
        print(
            f"{name:10}{budget:5} MB{row['rate'] / 1e9:7.0f} GF/s{row['flops'] / 1e9:8.0f} GF"
            f"{limit:7.2f}s"
            f"{row['cold']:7.2f}s{row['warm']:7.2f}s{row['cold_ratio']:12.2f}"
            f"{row['warm_ratio']:12.2f}{max(each['peak'] for each in rows) / 1e9:6.2f} GB"
            f"{row['loaded'] / 1e9:6.2f} GB"
            f"{f'{middle:.1f} ({slowest:.1f} to {fastest:.1f})':>22}{row['off']:9.0e}"
        )
    print(
        f"reference: {RECORDED_SECONDS:.0f} s recorded (4.25 GB); off: largest difference of a "
        "score from the reference's, over the largest score"
    )


if __name__ == "__main__":
    main()
