"""What is expected of a run: the verdicts of a baseline, and the exceptions that papers state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mechtests import judging
from mechtests.case import Case
from mechtests.errors import UsageError
from mechtests.reporting import baseline, regression
from mechtests.reporting.baseline import Baseline, Settings
from mechtests.reporting.place import Place
from mechtests.reporting.record import Record
from mechtests.reporting.regression import Regression
from mechtests.verdict import Expectation

Json = Any


class Expected:
    """What is expected of the cases of a run.

    Args:
        file: The baseline, where there is one.

    Attributes:
        left_out: What was collected and deselected, so that the run should not judge it.
        named: Whether files or tests were named, so that not all claims were collected.

    Raises:
        UsageError: The baseline cannot be read.
        LoadError: It is no baseline.
    """

    def __init__(self, file: Path | None, *, named: bool = False) -> None:
        self.baseline: Baseline | None = None if file is None else baseline.read(file)
        self.left_out: set[Place] = set()
        self.named = named

    def of(self, case: Case) -> Expectation:
        """What is blessed for a case, or else an exception that the paper states."""
        blessed = None if self.baseline is None else self.baseline.entries.get(place_of(case))
        if self.baseline is None or blessed is None or blessed.version != case.claim.version:
            return Expectation(judging.expectation(case))
        had = f", {blessed.numbers}" if blessed.numbers else ""
        return Expectation(f"the baseline {self.baseline.name}{had}", blessed.verdict)

    def check(self, cases: Sequence[Case]) -> None:
        """Refuse a baseline that says nothing of a run, before anything is measured.

        Raises:
            UsageError: It has no verdict on a claim and cell of the run.
        """
        mine = {place_of(case): None for case in cases}
        if self.baseline is not None and not mine.keys() & self.baseline.entries.keys():
            here = tuple(dict.fromkeys(place.cell for place in mine))
            raise UsageError(
                f"--mech-baseline {self.baseline.name}: it has no verdict on any claim and cell of "
                f"this run; it is on {_few(self.baseline.cells)}, and this run on {_few(here)}; "
                "name its models and checkpoints, or bless a baseline of these"
            )

    def regression(
        self, cases: Sequence[Case], records: Sequence[Record], header: Mapping[str, Json]
    ) -> Regression | None:
        """What of a run is other than the baseline has it; None without one."""
        if self.baseline is None:
            return None
        places = [place_of(case) for case in cases]
        return regression.of(
            self.baseline,
            records,
            Settings.of(header),
            cells={place.cell for place in places},
            left_out=self.left_out,
            claims={place.claim for place in places} if self.named else None,
        )


def place_of(case: Case) -> Place:
    """What the verdict of a case is about."""
    return Place(case.claim.id, case.claim.task, case.id)


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
