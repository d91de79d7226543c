"""How attribution grows with tokens and edges, on random weights, beside the counted growth.

    python benchmarks/attribution_growth.py [--shape 1b|360m] [--prompts N]

Each row is a process of its own with a Llama of random weights: the shape itself, with twice the
tokens, and with half of the layers. The prompts differ from token 10 on; what is before is run
once. Memory is the peak of the process while it attributes, over the fp32 weights, beside what the
process held when the model was loaded (a bare torch takes 0.3 GB). Counted operations are the sum
of ``circuit_plan.operations``; seconds are of the second call.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import torch
from circuit_plan import operations
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from mechtests.circuits.attribution import attribute, graph_of
from mechtests.models.network import Network

SHAPES = {
    "1b": {"layers": 16, "heads": 32, "key_value_heads": 8, "width": 2048, "mlp": 8192},
    "360m": {"layers": 32, "heads": 15, "key_value_heads": 5, "width": 960, "mlp": 2560},
}
VOCABULARY = 8192
SHARED, DIFFERING, STEPS = 10, 5, 5


def network_of(shape: dict[str, int]) -> Network:
    """A Llama of random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=shape["width"],
        intermediate_size=shape["mlp"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["key_value_heads"],
        attn_implementation="eager",
    )
    return Network.from_model(LlamaForCausalLM(config), name="random weights", check=False)


def peak() -> float:
    """Bytes of this process at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(shape: dict[str, int], differing: int, asked: argparse.Namespace) -> dict[str, Any]:
    """One row, in this process."""
    network = network_of(shape)
    draw = torch.Generator().manual_seed(1)
    size = (asked.prompts, SHARED + differing)
    clean = torch.randint(VOCABULARY, size, generator=draw)
    corrupted = clean.clone()
    corrupted[:, SHARED:-1] = (clean[:, SHARED:-1] + 1) % VOCABULARY

    def difference(final: Tensor, rows: Tensor) -> Tensor:
        logits = network.logits(final, torch.tensor([[1, 2]]).expand(len(rows), -1))
        return logits[:, 0] - logits[:, 1]

    loaded = peak()
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        attribute(network, clean, corrupted, difference, steps=STEPS)
        seconds.append(time.perf_counter() - start)
    plan = argparse.Namespace(
        prompts=asked.prompts, tokens=SHARED + differing, differ=differing, steps=STEPS
    )
    graph = graph_of(network)
    return {
        "edges": graph.edges,
        "weights": 4.0 * network.shape.parameters,
        "loaded": loaded,
        "peak": peak(),
        "seconds": seconds[-1],
        "operations": sum(operations(network.shape, graph, plan).values()),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    shape = SHAPES[asked.shape]
    rows = {
        "as it is": (shape, DIFFERING),
        "twice the tokens that differ": (shape, 2 * DIFFERING),
        "half of the layers": ({**shape, "layers": shape["layers"] // 2}, DIFFERING),
    }
    if asked.row:
        print(json.dumps(measure(*rows[asked.row], asked)))
        return
    print(
        f"{asked.shape}, {asked.prompts} prompts, {STEPS} steps, {torch.get_num_threads()} threads"
    )
    print(
        f"{'':30}{'edges':>9}{'weights':>10}{'loaded':>10}{'peak':>10}{'peak/weights':>14}"
        f"{'seconds':>9}{'grows':>7}{'counted':>10}{'grows':>7}"
    )
    first: dict[str, Any] = {}
    for name in rows:
        command = [sys.executable, __file__, *sys.argv[1:], "--row", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        first = first or row
        print(
            f"{name:30}{row['edges']:9,}{row['weights'] / 1e9:7.2f} GB{row['loaded'] / 1e9:7.2f} GB"
            f"{row['peak'] / 1e9:7.2f} GB{row['peak'] / row['weights']:14.2f}{row['seconds']:9.2f}"
            f"{row['seconds'] / first['seconds']:7.2f}{row['operations'] / 1e9:7.0f} GF"
            f"{row['operations'] / first['operations']:7.2f}"
        )


if __name__ == "__main__":
    main()
