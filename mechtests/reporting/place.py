"""What a verdict is about, so that two runs and a baseline can be held against each other."""

from __future__ import annotations

from typing import NamedTuple

from mechtests.reporting.record import Record


class Place(NamedTuple):
    """A claim, on a task, in a cell, a series or a family."""

    claim: str
    task: str | None
    cell: str

    @classmethod
    def of(cls, record: Record) -> Place:
        """The place of a record."""
        return cls(record.claim.id, record.claim.task, record.cell.id)

    def __str__(self) -> str:
        """The claim, its task and the cell, for people."""
        return f"{self.claim}{f' ({self.task})' if self.task else ''} on {self.cell}"
