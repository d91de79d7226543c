"""Is this installation sound? One check a line, with what to do where it is not."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from mechtests import shipped
from mechtests.errors import MechtestsError
from mechtests.reporting import records
from mechtests.verdict import Outcome

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

FAILURES = (
    MechtestsError,
    ImportError,
    OSError,
    RuntimeError,
    ValueError,
    subprocess.SubprocessError,
)
MODEL = "sprout-100k"
FREE = 1e9
"""Bytes: the measurements of the shipped claims on a model of 135M parameters fit twice."""
SLOWEST = 1e9
"""Floating point operations a second; a single core without any vector unit is faster."""
WIDTH = 1024
PATIENCE = 300
"""Seconds for the tiny claim, which takes ten."""

CLAIM = '''"""A claim that is known to hold on the smallest embedded model."""
from mechtests import claim
from mechtests.metrics import behaviour
from mechtests.rules import above
from mechtests.tasks.ioi import ioi


@claim("doctor.prefers-io", says="The indirect object is preferred.", task=ioi,
       needs={"answers": behaviour.answers(ioi)})
def test_the_indirect_object_is_preferred(measured, judge):
    """The mean logit difference on the evaluation half is above 0."""
    judge(above(measured.answers.sample("logit_difference", "evaluation"), 0, what="preference"))
'''


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes:
        name: What was checked.
        found: What was found, with its numbers.
        remedy: What to do; None where all is well.
    """

    name: str
    found: str
    remedy: str | None = None

    @property
    def sound(self) -> bool:
        """Whether all is well."""
        return self.remedy is None

    def __str__(self) -> str:
        """The check as a line."""
        line = f"{'ok' if self.sound else 'WRONG':6}{self.name:17}{self.found}"
        return line if self.sound else f"{line}; {self.remedy}"


def examine(store: str | None = None) -> Iterator[Check]:
    """Every check, as it is done: the quick ones first; nothing asks the network.

    Args:
        store: Where measurements are kept; the default folder unless said.
    """
    from mechtests.store import default_folder

    url = store or str(default_folder())
    checks: tuple[tuple[str, Callable[[], Check]], ...] = (
        ("versions", versions),
        ("plugin", plugin),
        ("claims", claims),
        ("store", lambda: storage(url)),
        ("torch", rate),
        ("embedded family", embedded),
        ("a tiny claim", tiny_claim),
    )
    for name, check in checks:
        try:
            yield check()
        except FAILURES as error:
            said = " ".join(str(error).split()) or type(error).__name__
            yield Check(name, said, "reinstall mechtests in an empty environment")


def versions() -> Check:
    """Python and every package that mechtests needs, against the versions it names."""
    from packaging.specifiers import SpecifierSet

    wrong, known = [], []
    for package, wanted in _required():
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            wrong.append(f"{package} is not installed")
            continue
        known.append(package)
        if not wanted.contains(version, prereleases=True):
            wrong.append(f"{package} {version} is not {wanted}")
    wanted = SpecifierSet(metadata.metadata("mechtests")["Requires-Python"])
    if not wanted.contains(platform.python_version(), prereleases=True):
        wrong.append(f"Python {platform.python_version()} is not {wanted}")
    if wrong:
        return Check("versions", ", ".join(wrong), "pip install --upgrade mechtests says which fit")
    torch, transformers = metadata.version("torch"), metadata.version("transformers")
    found = f"Python {platform.python_version()}, torch {torch}, transformers {transformers}"
    return Check("versions", f"{found}; {len(known)} packages as supported")


def _required() -> Iterator[tuple[str, SpecifierSet]]:
    """The packages that mechtests needs without any extra, and which versions of each."""
    from packaging.requirements import Requirement

    for line in metadata.requires("mechtests") or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement.name, requirement.specifier


def plugin() -> Check:
    """Whether pytest finds the plugin, once."""
    found = [each.value for each in metadata.entry_points(group="pytest11", name="mechtests")]
    if set(found) != {"mechtests.plugin"}:
        said = f"pytest's entry point is {', '.join(found) or 'missing'}"
        return Check("plugin", said, "reinstall mechtests in this environment")
    return Check("plugin", f"pytest {metadata.version('pytest')} loads it")


def claims() -> Check:
    """How many claims came with the package, and from which folder."""
    folder = shipped.folder("assertions")
    if not (count := len(list(shipped.claims()))):
        return Check("claims", f"there is none in {folder}", "reinstall mechtests")
    return Check("claims", f"{count} in {folder}")


def storage(url: str) -> Check:
    """Whether the store takes a file, and how much room is left where it is a folder."""
    import shutil

    from fsspec.core import url_to_fs

    elsewhere = "name a folder of yours by --mech-cache or MECHTESTS_CACHE"
    try:
        files, root = url_to_fs(url)
        files.makedirs(root, exist_ok=True)
        trial = f"{root.rstrip('/')}/doctor-{uuid.uuid4().hex}"
        files.pipe_file(trial, b"written by mechtests doctor")
        files.rm_file(trial)
    except (ImportError, OSError, ValueError) as error:
        return Check("store", f"{url} cannot be written ({error})", elsewhere)
    if "file" not in files.protocol:
        return Check("store", f"{url} can be written")
    free = shutil.disk_usage(root).free
    found = f"{url} can be written, {free / 1e9:.1f} GB are free"
    return Check("store", found, None if free >= FREE else f"free some of the disk, or {elsewhere}")


def rate() -> Check:
    """How fast torch multiplies matrices with the threads it has; every plan rests on that."""
    import torch

    threads = torch.get_num_threads()
    mine = getattr(os, "sched_getaffinity", None)  # not everywhere
    processors = len(mine(0)) if mine else os.cpu_count() or threads
    x = torch.ones(WIDTH, WIDTH)
    best = min(_seconds(lambda: x @ x) for _ in range(4))
    found = f"{threads} threads on {processors} processors, {2 * WIDTH**3 / best / 1e9:.0f} GFLOP/s"
    if threads > processors:
        return Check("torch", found, f"set OMP_NUM_THREADS={processors}: more only wait")
    if 2 * WIDTH**3 / best < SLOWEST:
        return Check("torch", found, "install a build of torch for this processor")
    return Check("torch", found)


def _seconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def embedded() -> Check:
    """Whether the smallest embedded model loads, and the adapter agrees with the plain model."""
    from mechtests.models import selfcheck
    from mechtests.models.embedded import EmbeddedSource
    from mechtests.models.network import Network

    loaded = EmbeddedSource(MODEL).load(None, dtype="float32", device="cpu")
    network = Network.from_model(loaded.model, name=MODEL, check=False)
    found = selfcheck.check(network)  # raises where one is above its tolerance
    said = ", ".join(f"{name} {difference:.0e}" for name, difference in found.items())
    return Check("embedded family", f"{MODEL} is the plain model up to {said}")


def tiny_claim() -> Check:
    """Whether pytest judges a claim on it, in an empty folder and with an empty store."""
    from mechtests.reporting.folders import DEFAULT

    with tempfile.TemporaryDirectory(prefix="mechtests-doctor-") as name:
        folder = Path(name)
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        (folder / "test_doctor.py").write_text(CLAIM, encoding="utf-8")
        options = ["-q", "-p", "no:cacheprovider", f"--mech-cache={folder / 'store'}"]
        words = [sys.executable, "-m", "pytest", "test_doctor.py", f"--mech-model={MODEL}"]
        done = subprocess.run(
            [*words, *options, "--mech-offline", "--mech-fail-on", "error"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            found = f"pytest ended with {done.returncode} ({''.join(said)})"
            return Check("a tiny claim", found, "run mechtests run --model sprout-100k to see why")
        verdict = records.read(records.latest(folder / DEFAULT))[0]
    found = f"{verdict.claim.id} on {MODEL}: {verdict.outcome}"
    expected = verdict.outcome is Outcome.HOLDS
    return Check("a tiny claim", found, None if expected else "it should hold; reinstall mechtests")
