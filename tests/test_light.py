import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "transformer_lens", "huggingface_hub", "scipy.stats")
CLAIM = """
from mechtests import claim
from mechtests.metrics import behaviour
from mechtests.tasks.ioi import ioi

@claim("mine.x", says="", task=ioi, needs={"b": behaviour.answers(ioi)})
def test_mine(measured, judge):
    judge(None)
"""


def loaded(code: str, folder: Path, env: dict[str, str] | None = None) -> tuple[set[str], str]:
    """Which heavy modules a program has loaded at its end, and what it printed."""
    program = f"import sys\n{code}\nprint('LOADED', *(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=folder,
        check=True,
        env={**os.environ, "MECHTESTS_CACHE": str(folder / "cache"), **(env or {})},
    )
    printed, _, modules = done.stdout.rpartition("LOADED")
    return set(modules.split()), printed


def run_pytest(*arguments: str) -> str:
    return f"import pytest; pytest.main({['-p', 'no:cacheprovider', *arguments]!r})"


def test_importing_mechtests_loads_nothing_heavy(tmp_path):
    assert loaded("import mechtests, mechtests.plugin", tmp_path)[0] == set()


@pytest.mark.parametrize("arguments", [["--co"], ["-q"], []])
def test_a_run_without_claims_loads_nothing_heavy_and_prints_nothing_of_ours(tmp_path, arguments):
    (tmp_path / "test_other.py").write_text("def test_one(): pass\n")
    modules, printed = loaded(run_pytest(*arguments), tmp_path)
    assert modules == set()
    body = [line for line in printed.splitlines() if not line.startswith("plugins:")]
    assert "mech" not in "\n".join(body)


def test_a_run_without_claims_imports_no_more_of_ours_than_the_plugin(tmp_path):
    (tmp_path / "test_other.py").write_text("def test_one(): pass\n")
    ours = "print(*sorted(m for m in sys.modules if m.startswith('mechtests.')))"
    _, printed = loaded(f"{run_pytest()}\n{ours}", tmp_path)
    light = {"plugin", "options", "shipped", "claim", "errors"}
    assert set(printed.splitlines()[-1].split()) == {f"mechtests.{name}" for name in light}


def test_collecting_claims_loads_nothing_heavy(tmp_path):
    (tmp_path / "test_mine.py").write_text(CLAIM)
    modules, printed = loaded(run_pytest("--co", "-q", "--model", "pythia-70m"), tmp_path)
    assert "test_mine[pythia-70m:step143000]" in printed
    assert modules == set()


def test_collecting_claims_imports_nothing_that_looks_into_a_model(tmp_path):
    (tmp_path / "test_mine.py").write_text(CLAIM)
    ours = "print(*sorted(m for m in sys.modules if m.startswith('mechtests.')))"
    _, printed = loaded(f"{run_pytest('--co', '-q', '--model', 'pythia-70m')}\n{ours}", tmp_path)
    imported = set(printed.splitlines()[-1].split())
    assert "mechtests.session" in imported
    assert not imported & {f"mechtests.{name}" for name in ("opening", "direct", "explaining")}


def test_planning_loads_no_weights_and_no_torch(tmp_path):
    (tmp_path / "test_mine.py").write_text(CLAIM)
    modules, printed = loaded(run_pytest("--mech-plan", "--model", "pythia-70m"), tmp_path)
    assert "plan:" in printed
    assert not modules & {"torch", "transformers", "transformer_lens"}
