"""What localising arithmetic takes: forward passes counted, and measured on a sprout.

    python benchmarks/localisation.py [--pairs N] [--config config.json ...]

A pass is one prompt through all blocks; layers and positions that are not run are not counted.
The same table, heads and MLPs at four positions for 4 operators x 5 seeds x 50 prompts, is held
against the passes of the released code, which runs every patch as a whole: (heads + 1) x (layers
+ 2) for each prompt and position. From a model's shape alone; then ``localise`` itself, with
attention blocks, embeddings and all positions, timed and its operations counted on sprout-1m.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from mechtests.arithmetic.components import PLACES, Components
from mechtests.arithmetic.localisation import localise
from mechtests.arithmetic.patches import passes
from mechtests.arithmetic.problems import OPERATORS, Problems
from mechtests.models import sources
from mechtests.models.cell import Loaded
from mechtests.models.network import Network
from mechtests.models.shape import Shape
from mechtests.sprout.numbers import problems as operands
from mechtests.sprout.numbers import result

TOKENS = 5
TABLE = 4 * 5 * 50
"""Prompts of the paper's table, over operators and seeds."""

PUBLISHED = {
    "Llama-3-8B": {
        "model_type": "llama", "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "hidden_size": 4096, "intermediate_size": 14336,
        "vocab_size": 128256, "max_position_embeddings": 8192, "tie_word_embeddings": False,
    },
    "pythia-6.9b": {
        "model_type": "gpt_neox", "num_hidden_layers": 32, "num_attention_heads": 32,
        "hidden_size": 4096, "intermediate_size": 16384, "vocab_size": 50432,
        "max_position_embeddings": 2048, "use_parallel_residual": True, "rotary_pct": 0.25,
        "tie_word_embeddings": False,
    },
}  # fmt: skip
"""Configurations as their publishers give them."""


def describe(name: str, shape: Shape) -> None:
    """Print one model's passes."""
    coded = 4 * (shape.heads + 1) * (shape.layers + 2)
    same, whole = passes(shape, TOKENS, extras=False), passes(shape, TOKENS)
    print(
        f"{name:14}{TABLE * coded / 1e6:10.3f} M{TABLE * same / 1e6:10.3f} M{same / coded:9.1%}"
        f"{TABLE * whole / 1e6:13.3f} M{whole:15.1f}"
    )


def sprout() -> tuple[Network, Loaded]:
    """The largest sprout as it is at the end."""
    source = sources.resolve("sprout-1m")
    last = source.checkpoints(offline=True)[-1]
    loaded = source.load(last, dtype="float32", device="cpu", offline=True)
    return Network.from_model(loaded.model, name="sprout-1m", check=False), loaded


def pairs(loaded: Loaded, count: int) -> tuple[Problems, Problems]:
    """Random problems of all operators, and another for each with another result."""
    draw, made = np.random.default_rng(0), []
    for number, operator in enumerate(OPERATORS):
        mine = operands(operator, True)
        for at in draw.choice(len(mine), count // len(OPERATORS)):
            a, b = mine[at]
            made.append((number, a, b, result(operator, a, b)))
    rows = np.array(made, np.int64)

    def token(word: str) -> int:
        return int(loaded.tokenizer.encode(word)[0])

    prompts = [
        [loaded.tokenizer.bos, *map(token, (str(a), OPERATORS[o], str(b), "="))]
        for o, a, b, _ in made
    ]
    answers = np.array([token(str(r)) for *_, r in made])
    operator, first, second, right = rows.T
    problems = Problems(operator, first, second, right, np.array(prompts, np.int64), answers)
    others = [draw.choice(np.flatnonzero(rows[:, 3] != r)) for *_, r in made]
    return problems, problems.select(others)


def measure(count: int) -> None:
    """Print what ``localise`` takes on sprout-1m."""
    network, loaded = sprout()
    problems, others = pairs(loaded, count)
    tokens, shape = torch.from_numpy(problems.tokens), network.shape
    localise(network, problems, others)
    start = time.perf_counter()
    localise(network, problems, others)
    seconds = time.perf_counter() - start
    with FlopCounterMode(display=False) as counter:
        localise(network, problems, others)
    found = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        network.run(tokens)
    one = counter.get_total_flops()
    start = time.perf_counter()
    for _ in range(10):
        network.logits(network.run(tokens).final)
    run = (time.perf_counter() - start) / 10
    branches = len(Components(shape.layers, shape.heads)) * len(PLACES)
    print(
        f"\nsprout-1m, {len(problems)} pairs, {branches} patches each: {seconds:.2f} s, "
        f"{seconds / run:.0f} times one run of the prompts;"
    )
    print(
        f"operations of blocks and unembedding {found / one:.1f} times those of the run's blocks, "
        f"counted {passes(shape, TOKENS):.1f} for the blocks of all pairs that differ everywhere"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--config", type=Path, nargs="*", default=[], help="a model's config.json")
    asked = parser.parse_args()
    print(f"{'model':14}{'as coded':>12}{'same table':>12}{'':>9}{'all patches':>15}{'a pair':>15}")
    models = dict(PUBLISHED)
    models.update({str(path): json.loads(path.read_text()) for path in asked.config})
    for name, config in models.items():
        describe(name, Shape.from_config(config))
    measure(asked.pairs)


if __name__ == "__main__":
    main()
