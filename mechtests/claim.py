"""A claim: one sentence of a paper, and what must be measured to judge it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from mechtests.errors import UsageError

OVER = ("cell", "training", "scale", "seeds")

Test = TypeVar("Test", bound=Callable[..., Any])


class Need(Protocol):
    """A measurement that is declared and not yet made (see ``metrics.metric``)."""

    @property
    def name(self) -> str:
        """The metric, the task and where, for people."""
        ...


class Gate(Protocol):
    """A behaviour the model must have before its mechanism is judged."""

    @property
    def need(self) -> Any:
        """The measurement of the behaviour."""
        ...

    def judged(self, measurement: Any) -> Any:
        """Whether the behaviour that was measured is there, a ``rules.Gate``."""
        ...


@dataclass(frozen=True)
class Claim:
    """What a test judges.

    Attributes:
        id: ``<paper>.<name>``, as in the catalogue.
        says: The paper's words, or a sentence that keeps their sense.
        rule: The operational rule: estimand, margin, control, decision; without markup.
        version: Raised when the rule changes, so that a baseline goes stale by name.
        section: Where the paper says it.
        over: What one verdict is about: a cell, a training run, a scale, seeds.
        task: The name of the task, if one test is about one task.
        components: Words of the mechanism (``"name-mover"``), keywords for ``-k``.
        gate: The behaviour that must be there first, or None.
        needs: What is measured, by the name the test reads it under.
        where_applicable: Those of them whose series may lack checkpoints: where a measurement does
            not apply (no operator of arithmetic is gated, ...) it is left out of the series, which
            names it. Without, one such checkpoint makes the whole series not applicable. Of a claim
            over one cell: those it can do without (``measured.lacks``).
        controls: Where the claim must not hold, in words.
        family: Which verdicts are corrected together; the id unless said.
        exceptions: Model name pattern -> the paper's own reason to expect a refutation.
    """

    id: str
    says: str
    rule: str
    version: int = 1
    section: str = ""
    over: str = "cell"
    task: str | None = None
    components: tuple[str, ...] = ()
    gate: Gate | None = None
    needs: Mapping[str, Any] = field(default_factory=dict)
    where_applicable: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    family: str = ""
    exceptions: Mapping[str, str] = field(default_factory=dict)

    @property
    def paper(self) -> str:
        """The paper's key, the id up to the first dot."""
        return self.id.partition(".")[0]

    @property
    def keywords(self) -> tuple[str, ...]:
        """What ``-k`` finds this claim by, beside the test's own name."""
        own = (self.id, self.paper, *self.components, *([self.task] if self.task else []))
        return tuple(dict.fromkeys(own))


@dataclass(frozen=True)
class Declaration:
    """A claim as its author wrote it: one claim for each of its tasks."""

    claims: tuple[Claim, ...]


ATTRIBUTE = "mechtests_claim"


def claim(  # noqa: PLR0913  (a claim's parts are its vocabulary; all are keywords)
    id: str,
    *,
    says: str,
    version: int = 1,
    section: str = "",
    over: str = "cell",
    task: Any = None,
    tasks: Sequence[Any] = (),
    components: Sequence[str] = (),
    gate: Gate | Callable[[Any], Gate] | None = None,
    needs: Mapping[str, Any] | Callable[[Any], Mapping[str, Any]],
    where_applicable: Sequence[str] = (),
    controls: Sequence[str] = (),
    family: str = "",
    exceptions: Mapping[str, str] | None = None,
) -> Callable[[Test], Test]:
    """Declare the claim a test judges.

    The test's docstring is the operational rule. A claim over several ``tasks``
    is as many tests; its ``gate`` and ``needs`` are then functions of the task.

    Raises:
        UsageError: The id has no paper, ``over`` is unknown, nothing is needed, or what may lack
            checkpoints is not among the needs.
    """
    where = f"claim {id!r}"
    if "." not in id:
        raise UsageError(f"{where}: an id is <paper>.<name>, such as 'olsson2022.induction-heads'")
    if over not in OVER:
        raise UsageError(f"{where}: over is one of {', '.join(OVER)}, got {over!r}")

    def declare(test: Test) -> Test:
        one_a_task = tuple(tasks) or (task,)
        setattr(
            test,
            ATTRIBUTE,
            Declaration(
                tuple(
                    Claim(
                        id=id,
                        says=says,
                        rule=" ".join((test.__doc__ or "").replace("``", "").split()),
                        version=version,
                        section=section,
                        over=over,
                        task=None if each is None else each.name,
                        components=tuple(components),
                        gate=gate(each) if tasks and callable(gate) else gate,  # type: ignore[arg-type]
                        needs=_checked(
                            where, needs(each) if callable(needs) else needs, where_applicable
                        ),
                        where_applicable=tuple(where_applicable),
                        controls=tuple(controls),
                        family=family or id,
                        exceptions=dict(exceptions or {}),
                    )
                    for each in one_a_task
                )
            ),
        )
        return test

    return declare


def _checked(
    where: str, needs: Mapping[str, Any], where_applicable: Sequence[str]
) -> Mapping[str, Any]:
    wrong = [name for name, need in needs.items() if not hasattr(need, "metric")]
    if wrong:
        raise UsageError(
            f"{where}: needs maps a name to a declared measurement, such as "
            f"induction=attention.induction_scores(repeated_tokens); got something else for "
            f"{', '.join(map(repr, wrong))}"
        )
    if not needs:
        raise UsageError(f"{where}: a claim needs at least one measurement")
    if unknown := set(where_applicable) - set(needs):
        raise UsageError(
            f"{where}: where_applicable names needs, and {', '.join(sorted(unknown))} is none of "
            f"{', '.join(needs)}"
        )
    return dict(needs)
