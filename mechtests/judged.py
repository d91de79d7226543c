"""What judging from Python gives: the records, what was measured, and a repr that says it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from mechtests import statistics
from mechtests.case import Case
from mechtests.errors import UsageError
from mechtests.reporting import wording
from mechtests.reporting.record import Record
from mechtests.results import Results
from mechtests.verdict import Outcome, Verdict

SPOKEN = {
    Outcome.HOLDS: "hold",
    Outcome.REFUTED: "refuted",
    Outcome.INCONCLUSIVE: "inconclusive",
    Outcome.NOT_APPLICABLE: "not applicable",
    Outcome.ERROR: "errors",
}


@dataclass(frozen=True)
class Seeds:
    """In how many models that differ by their seed a claim holds.

    Attributes:
        claim: The claim's id.
        task: Its task, if one verdict is about one.
        holding: In how many it holds.
        asked: Of how many: those it applies to, an inconclusive one among them.
        interval: The exact 95% interval of the share of such models (Clopper-Pearson); None
            where it applies to none.
        outcomes: What was found in each model, by its cell.
    """

    claim: str
    task: str | None
    holding: int
    asked: int
    interval: tuple[float, float] | None
    outcomes: dict[str, Outcome]

    @classmethod
    def of(cls, records: Sequence[Record]) -> Seeds:
        """The count over the records of one claim on one task."""
        outcomes = {record.cell.id: record.outcome for record in records}
        asked = sum(each in _ASKED for each in outcomes.values())
        holding = sum(each is Outcome.HOLDS for each in outcomes.values())
        interval = statistics.proportion_interval(holding, asked).ends if asked else None
        claim = records[0].claim
        return cls(claim.id, claim.task, holding, asked, interval, outcomes)

    @property
    def sentence(self) -> str:
        """K of m with the interval, and what is not counted as holding, or not at all."""
        if self.interval is None:
            return f"applies to none of {len(self.outcomes)} seeds{self._rest()}"
        low, high = self.interval
        return (
            f"holds in {self.holding} of {self.asked} seeds, a share of "
            f"{self.holding / self.asked:.2f} [{low:.2f}, {high:.2f}]{self._rest()}"
        )

    def _rest(self) -> str:
        counts = Counter(self.outcomes.values())
        said = [
            f"{counts[each]} {SPOKEN[each]}"
            for each in (Outcome.INCONCLUSIVE, Outcome.NOT_APPLICABLE, Outcome.ERROR)
            if counts[each]
        ]
        return f" ({', '.join(said)})" if said else ""

    def __str__(self) -> str:
        """The claim and its count."""
        return f"{self.claim}{f' ({self.task})' if self.task else ''}: {self.sentence}"


_ASKED = (Outcome.HOLDS, Outcome.REFUTED, Outcome.INCONCLUSIVE)


@dataclass(frozen=True, eq=False)
class Judged:
    """The verdicts of some claims on some models; its repr is a table of them.

    Attributes:
        records: One for each verdict, corrected by family as those of a pytest run are.
        cases: What each is about, in the same order.
        results: What was measured: ``results.measurement(need, cell)``.
        notes: What the user should know of the measuring.
        over: What was asked for: ``"cell"``, ``"training"``, ``"scale"`` or ``"seeds"``.
    """

    records: tuple[Record, ...]
    cases: tuple[Case, ...] = field(repr=False)
    results: Results = field(repr=False)
    notes: tuple[str, ...] = ()
    over: str = "cell"

    def __len__(self) -> int:
        """How many verdicts there are."""
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        """The records."""
        return iter(self.records)

    def __getitem__(self, claim: str) -> Verdict:
        """The verdict of a claim, where there is just one.

        Raises:
            UsageError: There is none of it, or more than one: by model or by task.
        """
        found = [record for record in self.records if record.claim.id == claim]
        if len(found) != 1:
            there = [f"{r.cell.id} ({r.claim.task})" for r in found] or sorted(
                {record.claim.id for record in self.records}
            )
            raise UsageError(
                f"{len(found)} verdicts of {claim!r} were reached, not one; there is "
                f"{', '.join(there)}: choose among .records"
            )
        return found[0].verdict

    @property
    def counts(self) -> dict[Outcome, int]:
        """How many verdicts there are of each kind, in the order of the kinds."""
        counts = Counter(record.outcome for record in self.records)
        return {each: counts[each] for each in Outcome if counts[each]}

    @cached_property
    def seeds(self) -> tuple[Seeds, ...]:
        """For each claim and task, in how many of the models it holds."""
        groups: dict[tuple[str, str | None], list[Record]] = {}
        for record in self.records:
            groups.setdefault((record.claim.id, record.claim.task), []).append(record)
        return tuple(Seeds.of(records) for records in groups.values())

    def __repr__(self) -> str:
        """The totals, then a line for each verdict or, over seeds, for each claim."""
        said = ", ".join(f"{count} {SPOKEN[each]}" for each, count in self.counts.items())
        models = ", ".join(dict.fromkeys(record.cell.id for record in self.records))
        verdicts = "1 verdict" if len(self) == 1 else f"{len(self)} verdicts"
        lines = [f"{models}: {verdicts}: {said}"]
        if self.over == "seeds":
            lines += [f"  {each}" for each in self.seeds]
        else:
            several = len({record.cell.id for record in self.records}) > 1
            lines += [_line(record, several) for record in self.records]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def _line(record: Record, several: bool) -> str:
    """A verdict in a line: its word, its claim, and the numbers, or else the sentence."""
    where = f" {record.cell.id}" if several else ""
    task = f" ({record.claim.task})" if record.claim.task else ""
    verdict = record.verdict
    numbers = ", ".join(filter(None, [wording.estimate(verdict), wording.margin(verdict)]))
    word = wording.word(record).word
    return f"  {word:<13}{record.claim.id}{task}{where}  {numbers or _short(verdict.sentence)}"


def _short(sentence: str, width: int = 90) -> str:
    return sentence if len(sentence) <= width else sentence[: width - 3].rstrip() + "..."
