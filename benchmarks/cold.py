"""What a cold run costs as its user sees it: seconds, seconds outside the model, peak memory.

    python benchmarks/cold.py [--model NAME] [--profile quick|standard]

Runs ``pytest -k ioi --model NAME`` in a process of its own with an empty store, then again with
what it stored, and beside both an empty pytest run. The model itself is fetched before. Seconds in
the model are those its measurements say they took; the rest is imports, loading, checks, judging.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mechtests import shipped
from mechtests.models import sources
from mechtests.models.shape import Shape
from mechtests.store import default_folder


def run(arguments: list[str], cache: Path, folder: Path) -> tuple[float, int]:
    """Seconds and peak bytes of a pytest run."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", *arguments]
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "MECHTESTS_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, _, usage = os.wait4(process.pid, 0)
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def seconds_in_the_model(cache: Path) -> float:
    """Seconds the stages of the run took, each once: a stage's measurements share its time."""
    stages: dict[tuple[str, str], set[float]] = {}
    for path in cache.rglob("v1/*/*.json"):
        entry = json.loads(path.read_text())
        facts = entry["facts"]
        at = facts["cell"], entry["request"]["task"]
        stages.setdefault(at, set()).add(round(facts["seconds_of_its_stage"], 0))
    return sum(sum(seconds) for seconds in stages.values())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--profile", default="quick")
    asked = parser.parse_args()
    source = sources.resolve(asked.model, cache=default_folder())
    source.fetch()
    weights = 4 * Shape.from_config(source.config(None, offline=True)).parameters
    with tempfile.TemporaryDirectory() as made:
        folder, cache = Path(made) / "empty", Path(made) / "cache"
        folder.mkdir()
        (cache).mkdir()
        models = default_folder() / "models"
        if models.is_dir():
            (cache / "models").symlink_to(models)
        claims = [
            str(shipped.folder("assertions")),
            "-k",
            "ioi",
            f"--model={asked.model}",
            f"--mech-profile={asked.profile}",
            f"--rootdir={folder}",
        ]
        cold, peak = run(claims, cache, folder)
        inside = seconds_in_the_model(cache)
        warm, _ = run(claims, cache, folder)
        replay, _ = run([*claims, "--mech-replay"], cache, folder)
        empty, _ = run([str(folder)], cache, folder)
    print(f"pytest -k ioi --model {asked.model}, {asked.profile} profile")
    print(f"cold       {cold:6.1f} s, of which {cold - inside:5.1f} s outside the model's stages")
    print(f"peak       {peak / 1e9:6.2f} GB, {peak / weights:.2f} times the fp32 weights")
    print(f"warm       {warm:6.1f} s, {warm - empty:.1f} s above an empty pytest run")
    print(f"replay     {replay:6.1f} s, {replay - empty:.1f} s above an empty pytest run")
    print(f"empty      {empty:6.1f} s")


if __name__ == "__main__":
    main()
