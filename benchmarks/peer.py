"""Against the peer: the same numbers by TransformerLens's own hooks, in one run.

    python benchmarks/peer.py [--model NAME] [--prompts N]

Two things are done by both on the same loaded model and IOI prompts: a run that keeps every
head's z, and the direct effect of heads on the logit difference. The peer's direct effect is the
usual way with hooks: a whole run for each head, with every head's z frozen to the clean run and one
to the corrupted; it is timed on a sample of the heads. Rows say by how much the numbers differ, and
the ratio of seconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from mechtests.engine import prompts_of
from mechtests.metrics import effects
from mechtests.metrics.behaviour import logit_difference
from mechtests.models import sources
from mechtests.models.network import Network
from mechtests.settings import Settings
from mechtests.store import default_folder
from mechtests.tape import Sites, Tape
from mechtests.tasks.ioi import ioi
from mechtests.work import Work, sites_of

Z = "blocks.{}.attn.hook_z"


def timed(act: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the second of two times, and what it gave."""
    act()
    start = time.perf_counter()
    result = act()
    return time.perf_counter() - start, result


def replace_z(
    value: torch.Tensor, hook: Any, *, clean: Any, corrupted: Any, head: int | None
) -> Any:
    """Freeze a layer's z to the clean run, one head's to the corrupted one."""
    frozen = clean[hook.name].clone()
    if head is not None:
        frozen[:, :, head] = corrupted[hook.name][:, :, head]
    return frozen.view_as(value)


def peer_effect(
    network: Network, prompts: Any, caches: tuple[Any, Any], at: tuple[int, int]
) -> Any:
    """The logit difference with one head's z corrupted and all others frozen, by hooks."""
    hooks = [
        (
            Z.format(layer),
            partial(
                replace_z,
                clean=caches[0],
                corrupted=caches[1],
                head=at[1] if layer == at[0] else None,
            ),
        )
        for layer in range(network.shape.layers)
    ]
    logits = network.bridge.run_with_hooks(torch.from_numpy(prompts.clean), fwd_hooks=hooks)
    end = logits[torch.arange(len(prompts)), torch.from_numpy(prompts.end)]
    right, wrong = torch.from_numpy(prompts.right), torch.from_numpy(prompts.wrong)
    return (end.gather(1, right) - end.gather(1, wrong))[:, 0]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--heads", type=int, default=9, help="heads the peer is timed on")
    asked = parser.parse_args()
    source = sources.resolve(asked.model, cache=default_folder())
    loaded = source.load(None, dtype="float32", device="cpu", offline=False)
    network = Network.from_model(loaded.model, name=asked.model)
    prompts = prompts_of(ioi, loaded.tokenizer, Settings()).select(np.arange(asked.prompts))
    tokens, last = torch.from_numpy(prompts.clean), torch.from_numpy(prompts.end)
    names = [Z.format(layer) for layer in range(network.shape.layers)]
    with torch.no_grad():
        bridge = partial(network.bridge.run_with_cache, names_filter=names)
        theirs, (_, clean) = timed(partial(bridge, tokens))
        ours, run = timed(partial(network.run, tokens, keep=["z"], last=last))
        off = max(
            float((run["z", layer] - clean[Z.format(layer)].view_as(run["z", layer])).abs().max())
            for layer in range(network.shape.layers)
        )
        print(f"{asked.model}, {len(prompts)} prompts of up to {int(prompts.length.max())} tokens")
        print(f"{'':28}{'ours':>9}{'peer':>9}{'peer/ours':>11}{'largest difference':>21}")
        print(
            f"{'a run that keeps z':28}{ours:8.2f}s{theirs:8.2f}s{theirs / ours:11.1f}{off:21.1e}"
        )

        need = effects.direct_effects(ioi)

        def all_heads() -> Work:
            tape = Tape(network, prompts, budget=2**30)
            work = Work(need, network, {}, 0, lambda purpose: np.random.default_rng(0))
            for played in tape.play(sites_of([need]), Sites()):
                work.take(played)
            return work

        ours, work = timed(all_heads)
        found = work.measurement(prompts, {})["direct_effect"]
        heads = network.shape.layers * network.shape.heads
        sample = [
            divmod(int(i), network.shape.heads)
            for i in np.linspace(0, heads - 1, asked.heads).round()
        ]
        start = time.perf_counter()
        _, clean = bridge(tokens)
        _, corrupted = bridge(torch.from_numpy(prompts.corrupted[need.corruption]))
        base = logit_difference(network, network.run(tokens, last=last).final, prompts)
        shared = time.perf_counter() - start
        off, start = 0.0, time.perf_counter()
        for at in sample:
            effect = base - peer_effect(network, prompts, (clean, corrupted), at)
            off = max(off, float((effect - torch.from_numpy(found[:, at[0], at[1]])).abs().max()))
        theirs = shared + (time.perf_counter() - start) * heads / len(sample)
        print(
            f"{f'direct effects, {heads} heads':28}{ours:8.2f}s{theirs:8.2f}s{theirs / ours:11.1f}"
            f"{off:21.1e}   (peer: {len(sample)} heads timed, scaled)"
        )


if __name__ == "__main__":
    main()
