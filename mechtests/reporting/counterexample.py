"""A prompt that breaks a claim's behaviour: as a sentence, and as a file to be run again."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mechtests.reporting.wording import number

Json = Any
SCHEMA = 1
FOLDER = "counterexamples"


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
        budget: How many prompts might be run.
    """

    claim: str
    task: str
    cell: str
    behaviour: str
    seed: int
    budget: int


@dataclass(frozen=True)
class Example:
    """One prompt that was run.

    Attributes:
        choices: The value of each slot of the task's grammar.
        text: The prompt.
        right: What should follow; one of several where there are more.
        guess: What the model thinks most likely to follow.
        margin: The behaviour: above 0 where the model does the task.
    """

    choices: Mapping[str, str | int]
    text: str
    right: str
    guess: str
    margin: float

    @property
    def breaks(self) -> bool:
        """Whether it breaks the behaviour."""
        return not self.margin > 0


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        asked: What was searched.
        counterexample: The smallest prompt found that breaks the behaviour, or None.
        neighbour: The prompt most like it that was run and passes, where one was.
        prompts: Prompts that were run, for searching and shrinking: one forward pass each.
        drawn: Those of them that were drawn at random.
        broken: Of the drawn ones those that break it, up to the first batch that has one.
        exhausted: Whether every draw there was had been run before the budget was spent.
        smallest: Whether no simpler value that was tried in any one slot breaks it too; not
            where the budget ended before all were tried.
        replayed: ``"breaks"`` or ``"passes"`` of the stored counterexample run first, else None.
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


def path(reports: Path, asked: Asked) -> Path:
    """Where the counterexample of a claim, task and cell is kept."""
    folders = (_safe(asked.claim), _safe(asked.task))
    return reports.joinpath(FOLDER, *folders, f"{_safe(asked.cell)}.json")


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
        lines.append(
            "  one prompt does not refute a claim about many: the claim is judged by "
            f"pytest --mech-claims '{asked.claim}'"
        )
    return "\n".join(lines)


def _said(found: Found, where: str) -> str:
    if found.counterexample is None:
        every = " (no further prompts were drawn)" if found.exhausted else ""
        return f"{where}: none in {_prompts(found.prompts)} breaks it{every}, seed {_seed(found)}"
    size = (
        "no simpler value tried in any one of its slots breaks it too"
        if found.smallest
        else "the budget ended while it was shrunk; run the same again to go on"
    )
    drawn = f"; {found.broken} of {found.drawn} drawn break it" if found.drawn else ""
    ran = f"{_prompts(found.prompts)} run{drawn}"
    return f"{where}: a counterexample ({ran}; {size}), seed {_seed(found)}"


def _seed(found: Found) -> int:
    return found.asked.seed


def _prompts(count: int) -> str:
    return f"{count:,} prompt" if count == 1 else f"{count:,} prompts"


def _replay(found: Found) -> list[str]:
    if found.replayed is None:
        return []
    now = "breaks it still" if found.replayed == "breaks" else "does not break it any more"
    return [f"  the counterexample kept from before was run first and {now}"]


def _shown(what: str, example: Example, asked: Asked) -> list[str]:
    value = number(example.margin) if math.isfinite(example.margin) else str(example.margin)
    return [
        f"  {what}: {example.text}",
        f"          right {example.right!r}, first guess {example.guess!r}, "
        f"{asked.behaviour} {value}",
    ]


def _differences(one: Example, other: Example) -> str:
    changed = [name for name in one.choices if one.choices[name] != other.choices[name]]
    return ", ".join(f"{n} ({one.choices[n]} / {other.choices[n]})" for n in changed)
