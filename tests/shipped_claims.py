"""The shipped claims with their tests, and the verdict of one on what an engine measured."""

from __future__ import annotations

import pytest

from mechtests import judging, shipped
from mechtests.case import Case
from mechtests.claim import ATTRIBUTE
from mechtests.results import Results
from mechtests.verdict import Verdict

TESTS = {
    claim.id: test
    for module in shipped.modules("assertions")
    for test in vars(module).values()
    if hasattr(test, ATTRIBUTE)
    for claim in getattr(test, ATTRIBUTE).claims
}
ALL = list(shipped.claims())
CLAIMS = {claim.id: claim for claim in reversed(ALL)}
"""By id; of several tasks the first."""


def verdict_of(case: Case, results: Results) -> Verdict:
    """What the claim's own test says, or what decides before it."""
    ready = judging.prepare(case, results)
    if isinstance(ready, Verdict):
        return ready
    with pytest.raises(_JudgedError) as judged:
        TESTS[case.claim.id](measured=ready, judge=_stop)
    return judged.value.verdict


class _JudgedError(Exception):
    """A test has judged; what would follow a verdict that fails it does not run."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict


def _stop(verdict: Verdict) -> None:
    raise _JudgedError(verdict)
