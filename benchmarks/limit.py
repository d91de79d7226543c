"""What each measurement costs against the limit: its counted FLOPs at this machine's GEMM rate.

    python benchmarks/limit.py [--model NAME] [--profile P] [--text FILE] [--without A,B]

Every measurement of the shipped claims in one cell is made twice on a loaded model: once timed,
once with torch's FLOP counter. The limit is the counted operations over the rate of a plain fp32
matrix product, measured right before and right after in the same process; quote the ratio.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from mechtests import given, shipped
from mechtests.engine import prompts_of
from mechtests.errors import NotApplicable
from mechtests.measurement import Measurement
from mechtests.metrics.metric import Need
from mechtests.models import sources
from mechtests.models.network import Network
from mechtests.seeds import generator
from mechtests.settings import Settings
from mechtests.store import default_folder
from mechtests.tape import Played, Sites, Tape
from mechtests.work import Work, sites_of


def gemm_rate(size: int = 2048, times: int = 5) -> float:
    """Operations a second of an fp32 matrix product: the best of some."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(times + 1):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds[1:])


def timed(act: Callable[[], object]) -> tuple[float, float]:
    """Seconds of an act, and the operations it counts when it is done again."""
    start = time.perf_counter()
    act()
    seconds = time.perf_counter() - start
    with FlopCounterMode(display=False) as counter:
        act()
    return seconds, float(counter.get_total_flops())


def take(work: Work, played: Sequence[Played], tape: Tape) -> None:
    """One measurement over all batches, or over all prompts at once where it makes its own."""
    work.parts.clear()
    for batch in [tape.unplayed()] if work.need.metric.whole else played:
        work.take(batch)
    if work.error:
        raise SystemExit(work.error)


def needs_by_task(settings: Settings, without: Sequence[str]) -> dict[tuple[str, int], list[Need]]:
    """Every measurement the shipped claims make in a cell, over training and scale too.

    Inputs first, by task and number of prompts; ``without`` leaves out metrics by the first
    part of their name, which nothing that stays may start from.
    """
    found: dict[Need, None] = {}
    for claim in shipped.claims():
        gate = [] if claim.gate is None else [claim.gate.need]
        for need in [*gate, *claim.needs.values()]:
            found.update(dict.fromkeys(need.everything()))
    tasks: dict[tuple[str, int], list[Need]] = {}
    for need in found:
        if need.cell == "here" and need.metric.name.partition(".")[0] not in without:
            at = need.task.name, settings.prompts_of(need.task)
            tasks.setdefault(at, []).append(need)
    return tasks


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--text", metavar="FILE", help="for copy suppression; see prose.py")
    parser.add_argument("--without", default="", help="such as circuits,paths,inhibition")
    return parser.parse_args()


def settings_of(asked: argparse.Namespace) -> Settings:
    """The profile, and the text where there is one."""
    settings = Settings(profile=asked.profile)
    if asked.text is None:
        return settings
    digest = given.identity("text", asked.text)
    return replace(settings, prompts={"text": asked.text}, prompt_digests={"text": digest})


def main() -> None:
    """Print the table."""
    asked = options()
    settings = settings_of(asked)
    source = sources.resolve(asked.model, cache=default_folder())
    start = time.perf_counter()
    loaded = source.load(None, dtype="float32", device="cpu", offline=False)
    network = Network.from_model(loaded.model, name=asked.model)
    print(
        f"{asked.model}, {asked.profile}: loaded and checked in {time.perf_counter() - start:.1f} s"
    )
    rate = gemm_rate()
    print(f"fp32 GEMM {rate / 1e9:.0f} GFLOP/s, {torch.get_num_threads()} threads")
    print(f"{'':34}{'GFLOP':>9}{'seconds':>9}{'limit':>9}{'ratio':>7}")
    total = [0.0, 0.0]

    def row(name: str, seconds: float, flops: float) -> None:
        total[0] += seconds
        total[1] += flops
        limit = flops / rate
        print(
            f"{name:34}{flops / 1e9:9.1f}{seconds:9.2f}{limit:9.2f}"
            f"{seconds / limit if limit > 1e-3 else float('nan'):7.2f}"
        )

    with torch.no_grad():
        for needs in needs_by_task(settings, asked.without.split(",")).values():
            try:
                prompts = prompts_of(needs[0].task, loaded.tokenizer, settings)
            except NotApplicable:
                print(f"{needs[0].task.name}: does not apply to this model")
                continue
            tape = Tape(network, prompts, budget=2**31)
            sites = sites_of(need for need in needs if not need.metric.whole)
            played = list(tape.play(sites, Sites()))
            act = partial(lambda tape, sites: list(tape.play(sites, Sites())), tape, sites)
            row(f"runs of {needs[0].task.name} ({len(tape.prompts)})", *timed(act))
            made: dict[Need, Measurement] = {}
            for need in needs:
                inputs = {name: made[given] for name, given in need.inputs}
                draw = partial(generator, 0, need.metric.name)
                work = Work(need, network, inputs, settings.draws, draw)
                row(need.metric.name, *timed(partial(take, work, played, tape)))
                made[need] = work.measurement(tape.prompts, {})
    row("all", *total)
    again = gemm_rate()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    weights = 4 * network.shape.parameters
    print(
        f"GEMM afterwards {again / 1e9:.0f} GFLOP/s; "
        f"peak memory {peak / 1e9:.2f} GB, {peak / weights:.1f} times the fp32 weights "
        "(this benchmark keeps all activations)"
    )


if __name__ == "__main__":
    main()
