"""Whether cost grows linearly with checkpoints: one run of ten against ten runs of one.

    python benchmarks/series.py [--model NAME] [--checkpoints 10] [--profile quick|standard]

Every measurement of the shipped claims over a cell is made at the same checkpoints twice, each time
into an empty store: in one run, and in a run for each. The two alternate after a first run that
is not timed, in one process; the ratio is what to quote.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mechtests import engine, plan, shipped
from mechtests.case import Case
from mechtests.models import sources
from mechtests.models.cell import Cell
from mechtests.settings import Settings
from mechtests.store import Store, default_folder


def seconds(cells: Sequence[Cell], settings: Settings) -> float:
    """Seconds to plan and measure all that the claims over a cell need in some cells."""
    claims = [claim for claim in shipped.claims() if claim.over == "cell"]
    cases = [Case(claim, cell) for claim in claims for cell in cells]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        start = time.perf_counter()
        results = engine.run(plan.build(cases, settings, store), store)
        taken = time.perf_counter() - start
    if results.cell_errors:
        raise SystemExit("; ".join(results.cell_errors.values()))
    return taken


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="sprout-1m")
    parser.add_argument("--checkpoints", type=int, default=10)
    parser.add_argument("--profile", default="quick")
    asked = parser.parse_args()
    settings = replace(Settings(), profile=asked.profile)
    source = sources.resolve(asked.model, cache=default_folder())
    chosen = source.checkpoints(offline=False)[-asked.checkpoints :]
    cells = [Cell(source.name, checkpoint, source) for checkpoint in chosen]
    seconds(cells[-1:], settings)
    alone = sum(seconds([cell], settings) for cell in cells)
    together = seconds(cells, settings)
    print(f"{asked.model}, {len(cells)} checkpoints, {asked.profile} profile")
    print(f"each in a run of its own  {alone:7.1f} s")
    print(f"all in one run            {together:7.1f} s, {together / alone:.3f} times that")


if __name__ == "__main__":
    main()
