"""What attribution and the search for a circuit would take on a model, without loading it.

    python benchmarks/circuit_plan.py [--rate GFLOPS] [--prompts N] [--tokens T] [--differ S]
        [--steps M] [--config config.json ...]

Counts from the shape alone: prompts of T tokens of which the last S can differ, M points of
EAP-IG. P are the entries of the blocks' weight matrices, E the edges, L layers, H query heads,
D the width, d the width of a head:

- runs: 2 P T for the clean run; 4 P S M for the points and their gradients (none of a weight)
- contraction: 2 E S D; readers: 6 L H S D (d + M)
- memory: the weights, and what one prompt at a time needs (see ``mechtests.circuits.memory``)

A circuit costs at most a run of the S tokens of each prompt. Seconds are the operations at the
given rate, a limit and no prediction: what was measured is 1.3 to 2 times that.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mechtests.circuits.graph import Graph
from mechtests.circuits.memory import point_bytes, prompt_bytes
from mechtests.circuits.search import grid, limit_of
from mechtests.models.shape import Shape

PUBLISHED = {
    "pythia-160m": {
        "model_type": "gpt_neox", "num_hidden_layers": 12, "num_attention_heads": 12,
        "hidden_size": 768, "intermediate_size": 3072, "vocab_size": 50304,
        "max_position_embeddings": 2048, "use_parallel_residual": True, "rotary_pct": 0.25,
        "tie_word_embeddings": False,
    },
    "pythia-2.8b": {
        "model_type": "gpt_neox", "num_hidden_layers": 32, "num_attention_heads": 32,
        "hidden_size": 2560, "intermediate_size": 10240, "vocab_size": 50304,
        "max_position_embeddings": 2048, "use_parallel_residual": True, "rotary_pct": 0.25,
        "tie_word_embeddings": False,
    },
    "Llama-3-8B": {
        "model_type": "llama", "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "hidden_size": 4096, "intermediate_size": 14336,
        "vocab_size": 128256, "max_position_embeddings": 8192, "tie_word_embeddings": False,
    },
}  # fmt: skip
"""Configurations as their publishers give them."""


def operations(shape: Shape, graph: Graph, asked: argparse.Namespace) -> dict[str, float]:
    """Floating point operations for all prompts, by part."""
    n, t, s, m = asked.prompts, asked.tokens, asked.differ, asked.steps
    weights, width = shape.block_parameters, shape.width
    heads = shape.layers * shape.heads
    return {
        "clean run": 2.0 * n * weights * t,
        "points and gradients": 4.0 * n * weights * s * m,
        "readers": 6.0 * n * heads * s * width * (shape.head_width + m),
        "contraction": 2.0 * n * graph.edges * s * width,
    }


def memory(shape: Shape, asked: argparse.Namespace) -> tuple[float, float]:
    """Bytes of the weights, and of what one prompt needs beside them, in fp32."""
    sizes = asked.differ, asked.tokens
    beside = prompt_bytes(shape, *sizes) + (asked.steps + 1) * point_bytes(shape, *sizes)
    return 4.0 * shape.parameters, beside


def describe(name: str, shape: Shape, asked: argparse.Namespace) -> None:
    """Print one model."""
    graph = Graph(shape.layers, shape.heads, shape.parallel, shape.key_value_heads)
    counted = operations(shape, graph, asked)
    total = sum(counted.values())
    weights, beside = memory(shape, asked)
    sizes = grid(limit_of(graph))
    circuits = 2.0 * asked.prompts * shape.block_parameters * asked.differ * len(sizes)
    rate = asked.rate * 1e9
    print(f"\n{name}: {graph.edges:,} edges, {graph.writers:,} writers, {graph.readers:,} readers")
    passes = asked.prompts * asked.steps
    print(
        f"  attribution: {asked.prompts} clean runs, {passes} runs and {passes} gradients of "
        f"{asked.differ} tokens, {total / 1e12:,.2f} TFLOP, {total / rate:,.0f} s at the rate"
    )
    for part, flops in counted.items():
        print(f"    {part:22}{flops / 1e12:10.2f} TFLOP {flops / total:6.0%}")
    print(
        f"  memory: weights {weights / 1e9:.1f} GB in fp32, {beside / 1e6:,.0f} MB a prompt beside"
    )
    print(
        f"  all {len(sizes)} sizes of the grid up to {sizes[-1]:,} edges: at most "
        f"{circuits / 1e12:,.1f} TFLOP, {circuits / rate:,.0f} s at the rate"
    )


def main() -> None:
    """Print the plan of each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=150.0, help="GFLOP/s of a matrix product")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=15)
    parser.add_argument("--differ", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--config", type=Path, nargs="*", default=[], help="a model's config.json")
    asked = parser.parse_args()
    print(
        f"{asked.prompts} prompts of {asked.tokens} tokens, the last {asked.differ} differ; "
        f"{asked.steps} points; {asked.rate:.0f} GFLOP/s"
    )
    models = dict(PUBLISHED)
    models.update({str(path): json.loads(path.read_text()) for path in asked.config})
    for name, config in models.items():
        describe(name, Shape.from_config(config), asked)


if __name__ == "__main__":
    main()
