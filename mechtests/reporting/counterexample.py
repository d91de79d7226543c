"""A prompt that breaks a claim's behaviour or mechanism: in words, and kept to be run again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mechtests.reporting.wording import SIDES, number

Json = Any
SCHEMA = 1
FOLDER = "counterexamples"


@dataclass(frozen=True)
class Claimed:
    """The number that decides a claim, which a prompt breaks that has it on the other side.

    Attributes:
        number: What it is made of, in the claim's own names.
        unit: Its unit.
        margin: What it is held against.
        relation: ``">"``, ``"<"`` or ``"within"``: the claimed side.
        cost: Forward passes that one prompt takes.
        outcome: The claim's verdict in the cell, on its own prompts.
    """

    number: str
    unit: str
    margin: float
    relation: str
    cost: float
    outcome: str

    @property
    def side(self) -> str:
        """The claimed side in words: ``"above 0"``."""
        of = " of 0" if self.relation == "within" else ""
        return f"{SIDES[self.relation]} {number(self.margin)}{of}"


@dataclass(frozen=True)
class Asked:
    """What was searched.

    Attributes:
        claim: The claim's id.
        task: The task whose prompts were searched.
        cell: The model at its checkpoint.
        behaviour: What was measured of each prompt, with its unit; above 0 where the model does
            the task.
        seed: What the draws start from.
        budget: How many forward passes might be made.
        claimed: The number that decides the claim, where its mechanism was searched.
        again: The command that searches again.
    """

    claim: str
    task: str
    cell: str
    behaviour: str
    seed: int
    budget: int
    claimed: Claimed | None = None
    again: str = field(default="", compare=False)


@dataclass(frozen=True)
class Example:
    """One prompt that was run.

    Attributes:
        choices: The value of each slot of the task's grammar.
        text: The prompt.
        right: What should follow; one of several where there are more.
        guess: What the model thinks most likely to follow.
        margin: The behaviour: above 0 where the model does the task.
        value: The number that decides the claim, of this prompt, where it was asked for.
        beyond: How far it is on the claimed side of the margin.
    """

    choices: Mapping[str, str | int]
    text: str
    right: str
    guess: str
    margin: float
    value: float | None = None
    beyond: float | None = None

    @property
    def answered(self) -> bool:
        """Whether the model does the task here."""
        return self.margin > 0

    @property
    def breaks(self) -> bool:
        """Whether it breaks what was asked for: the mechanism only where the model does the task.

        A prompt that the model gets wrong says nothing of what serves the task.
        """
        if self.beyond is None:
            return not self.answered
        return self.answered and not self.beyond > 0

    @property
    def passes(self) -> bool:
        """Whether the model does the task here, by the mechanism where that was asked for."""
        return self.answered and (self.beyond is None or self.beyond > 0)


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        asked: What was searched.
        counterexample: The smallest prompt found that breaks it, or None.
        neighbour: The prompt most like it that was run and passes, where one was.
        prompts: Prompts that were run, for searching and shrinking.
        drawn: Those of them that were drawn at random.
        broken: Of the drawn ones those that break it, up to the first batch that has one.
        exhausted: Whether every draw there was had been run before the budget was spent.
        smallest: Whether no simpler value that was tried in any one slot breaks it too; not
            where the budget ended before all were tried.
        replayed: ``"breaks"`` or ``"passes"`` of the stored counterexample run first, else None.
        passes: Forward passes that were made for the prompts, of the budget.
        wrong: Prompts that the model got wrong, which break no mechanism.
    """

    asked: Asked
    counterexample: Example | None
    neighbour: Example | None
    prompts: int
    drawn: int
    broken: int
    exhausted: bool = False
    smallest: bool = False
    replayed: str | None = None
    passes: int = 0
    wrong: int = 0


def path(reports: Path, asked: Asked) -> Path:
    """Where the counterexample of a claim, task and cell is kept, that of a mechanism by itself."""
    folders = (_safe(asked.claim), _safe(asked.task))
    kind = "" if asked.claimed is None else ".mechanism"
    return reports.joinpath(FOLDER, *folders, f"{_safe(asked.cell)}{kind}.json")


def _safe(name: str) -> str:
    return re.sub(r"[^\w.+@-]", "_", name)


def write(file: Path, found: Found) -> None:
    """Keep a counterexample, to be run first the next time.

    Where none is found what is kept stays: a prompt that broke the claim once is worth a pass.
    """
    if found.counterexample is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    tree = {"schema": SCHEMA, **asdict(found)}
    text = json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False)
    file.write_text(f"{text}\n", encoding="utf-8")


def stored(file: Path) -> Mapping[str, str | int] | None:
    """The choices of the counterexample that is kept in a file; None where none is to be read."""
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        choices = tree["counterexample"]["choices"] if tree["schema"] == SCHEMA else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(choices, dict):
        return None
    plain = all(isinstance(v, str | int) for v in choices.values())
    return choices if plain else None


def render(found: Found) -> str:
    """What was found, in a few lines."""
    asked = found.asked
    where = f"{asked.claim} ({asked.task}) on {asked.cell}"
    lines = [_said(found, where), *_replay(found)]
    if found.counterexample is not None:
        lines += _shown("breaks", found.counterexample, asked)
        if found.neighbour is None:
            lines.append("  no prompt like it that passes was run")
        else:
            lines += _shown("passes", found.neighbour, asked)
            lines.append(f"  they differ in {_differences(found.counterexample, found.neighbour)}")
        here = "" if asked.claimed is None else f" (its verdict here: {asked.claimed.outcome})"
        lines.append(
            f"  one prompt does not refute a claim about many{here}: the claim is judged by "
            f"pytest --mech-claims '{asked.claim}'"
        )
        lines += [f"  run it again, before all others: {asked.again}"] if asked.again else []
    return "\n".join(lines)


def _said(found: Found, where: str) -> str:
    asked = found.asked
    what = "its behaviour" if asked.claimed is None else "its mechanism"
    ran = f"{_counted(found.passes, 'forward pass', 'es')} of {asked.budget:,}"
    if found.counterexample is None:
        every = ["no further prompts were drawn"] if found.exhausted else []
        said = ", ".join([ran, *_wrong(found), *every])
        prompts = _counted(found.prompts, "prompt")
        return f"{where}: none in {prompts} breaks {what} ({said}), seed {asked.seed}"
    size = (
        "no simpler value tried in any one of its slots breaks it too"
        if found.smallest
        else "the budget ended while it was shrunk; run the same again to go on"
    )
    drawn = [f"{found.broken} of {found.drawn} drawn break it"] if found.drawn else []
    ran = ", ".join([f"{_counted(found.prompts, 'prompt')} run", ran, *_wrong(found)])
    return (
        f"{where}: a counterexample to {what} ({'; '.join([ran, *drawn, size])}), seed {asked.seed}"
    )


def _wrong(found: Found) -> list[str]:
    """Of a mechanism how many prompts say nothing of it."""
    if found.asked.claimed is None or not found.wrong:
        return []
    return [f"{found.wrong:,} of the prompts answered wrong, which do not count"]


def _counted(count: int, what: str, several: str = "s") -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}{several}"


def _replay(found: Found) -> list[str]:
    if found.replayed is None:
        return []
    now = "breaks it still" if found.replayed == "breaks" else "does not break it any more"
    return [f"  the counterexample kept from before was run first and {now}"]


def _shown(what: str, example: Example, asked: Asked) -> list[str]:
    lines = [
        f"  {what}: {example.text}",
        f"          right {example.right!r}, first guess {example.guess!r}, "
        f"{asked.behaviour} {number(example.margin)}",
    ]
    if asked.claimed is not None and example.value is not None:
        claimed, value = asked.claimed, number(example.value)
        unit = f" {claimed.unit}" if claimed.unit else ""
        lines.append(f"          {claimed.number}: {value}{unit}, claimed {claimed.side}")
    return lines


def _differences(one: Example, other: Example) -> str:
    changed = [name for name in one.choices if one.choices[name] != other.choices[name]]
    return ", ".join(f"{n} ({one.choices[n]} / {other.choices[n]})" for n in changed)
