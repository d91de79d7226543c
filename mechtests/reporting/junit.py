"""What a test's entry in a JUnit file says of its verdict: a few short properties."""

from __future__ import annotations

from mechtests.reporting import wording
from mechtests.reporting.record import Record

LONGEST = 300


def properties(record: Record) -> list[tuple[str, str]]:
    """Names and values, those that are there: pytest writes them as ``<property>``.

    q is not among them: it is known when the whole family is.
    """
    claim, verdict = record.claim, record.verdict
    said = {
        "claim": claim.id,
        "version": str(claim.version),
        "task": claim.task or "",
        "cell": record.cell.id,
        "verdict": str(record.outcome),
        "expectation": record.expectation or "",
        "estimate": wording.estimate(verdict),
        "margin": wording.margin(verdict),
        "p": "" if verdict.p is None else wording.probability(verdict.p),
    }
    return [(f"mechtests.{name}", _short(text)) for name, text in said.items() if text]


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
