"""An explanation as a page of text: what was claimed, what decided, and what to try."""

from __future__ import annotations

from collections.abc import Sequence

from mechtests.reporting import wording
from mechtests.reporting.explanation import (
    Change,
    Explanation,
    Heads,
    HeadValue,
    Interval,
    Prompt,
    reach,
    tipping,
)
from mechtests.reporting.page import LABEL, Page
from mechtests.reporting.papers import place_in
from mechtests.verdict import Outcome, Verdict


def render(
    explanation: Explanation, *, width: int = 80, color: bool = False, ascii: bool = False
) -> str:
    """The whole explanation as text of a fixed width; only commands are ever wider."""
    page = Page(width, color, ascii)
    _claimed(page, explanation)
    _measured(page, explanation)
    _prompts(page, explanation)
    _heads(page, explanation)
    _against(page, explanation)
    _nearby(page, explanation)
    _closing(page, explanation)
    return page.text


def _claimed(page: Page, explanation: Explanation) -> None:
    claim, word = explanation.claim, wording.WORDS[explanation.verdict.outcome]
    task = f" ({claim.task})" if claim.task else ""
    page.say(f"  {explanation.cell}: {word.word}", head=f"{claim.id}{task}", style="bold")
    section = f" [{claim.paper}, {place_in(claim.section)}]" if claim.section else ""
    page.label("claimed", f"{claim.says}{section}")
    page.label("rule", f"{claim.rule} (version {claim.version})")
    page.say("")


def _measured(page: Page, explanation: Explanation) -> None:
    verdict, part = explanation.verdict, explanation.deciding
    page.label("measured", verdict.sentence)
    if part is not verdict:
        page.label("decided by", part.sentence)
    if part.estimate is not None:
        page.label("estimate", ", ".join(filter(None, (
            wording.estimate(part), wording.margin(part)))))  # fmt: skip
    if said := tipping(part):
        page.label("margin", said)
    if explanation.gate is not None:
        page.label("gate", explanation.gate)
    for control in verdict.controls:
        page.label("control", reach(control))
    page.say("")


def _prompts(page: Page, explanation: Explanation) -> None:
    contrast = explanation.contrast
    if contrast is None:
        return
    page.say(
        f": {contrast.made_of}; {contrast.failing} of {contrast.count} are not on the claimed side",
        head="Prompts",
        style="bold",
        then=2,
    )
    for label, some in (("against it", contrast.worst), ("for it", contrast.best)):
        page.picture(label, [_prompt(each, page.room) for each in some])
    page.say("")


def _prompt(prompt: Prompt, room: int) -> str:
    answers = f"  ({prompt.answers})" if prompt.answers else ""
    head = f"{wording.number(prompt.value):>9}  #{prompt.row:<4} "
    return head + cut(prompt.text, room - len(head) - len(answers)) + answers


def cut(text: str, width: int) -> str:
    """A text in one line of at most this width; its end, which is read last, is kept."""
    text = " ".join(text.split())
    width = max(width, 12)
    return text if len(text) <= width else f"...{text[len(text) - width + 3 :]}"


def _heads(page: Page, explanation: Explanation) -> None:
    for table in explanation.heads:
        page.say(
            f": {table.name} ({table.unit}), {len(table.shown)} of {table.count} heads",
            head="Heads",
            style="bold",
            then=2,
        )
        if said := _carried(table, explanation.deciding):
            page.say(said, at=4, then=6)
        for each in table.shown:
            page.unbroken(_head(each), at=4)
    if explanation.heads:
        page.say("")


def _carried(table: Heads, verdict: Verdict) -> str:
    """Which heads move the deciding number to the claimed side, and which away from it."""
    sign = -1.0 if verdict.relation == "<" else 1.0
    given = sorted(
        ((sign * each.given, each) for each in table.shown if each.factor),
        key=lambda pair: -pair[0],
    )
    for_, against = (
        ", ".join(f"{'{}.{}'.format(*each.head)} ({wording.number(each.given)})" for each in some)
        for some in (
            [each for size, each in given if size > 0],
            [each for size, each in reversed(given) if size < 0],
        )
    )
    said = [f"for the claim: {for_}"] if for_ else []
    return "; ".join([*said, *([f"against it: {against}"] if against else [])])


def _head(value: HeadValue) -> str:
    said = f"{'{}.{}'.format(*value.head):<7}{_with_interval(value.mean, value.interval)}"
    if value.factor is None:
        return said
    return f"{said:<36}times {wording.number(value.factor)} gives {wording.number(value.given)}"


def _with_interval(mean: float, interval: Interval | None) -> str:
    return wording.estimate(Verdict(Outcome.HOLDS, "", estimate=mean, interval=interval))


def _against(page: Page, explanation: Explanation) -> None:
    against = explanation.against
    if against is None:
        return
    word = wording.WORDS[against.verdict.outcome].word
    page.say(f" {against.cell}: {word}", head="Against", style="bold")
    page.label("measured", against.verdict.sentence)
    if against.weights is not None:
        page.label("weights", _weights(against.weights))
    if against.changes:
        first = against.changes[0]
        before, after = wording.number(first.before), wording.number(first.after)
        page.label(
            "heads",
            f"most changed: head {'{}.{}'.format(*first.head)}, {first.name} {before} -> {after}"
            + ("" if against.same_prompts else " (other prompts)"),
        )
        for each in against.changes:
            page.unbroken(_change(each), at=4)
    page.say("")


def _weights(parts: Sequence[tuple[str, float]]) -> str:
    if not parts:
        return "no difference"
    said = [f"{name} by {size:#.2g} of its norm" for name, size in parts[:5]]
    more = f", and {len(parts) - 5} more parts" if len(parts) > 5 else ""
    return f"differ in {', '.join(said)}{more}"


def _change(change: Change) -> str:
    head = "{}.{}".format(*change.head)
    said = f"{wording.number(change.before):>9} -> {wording.number(change.after):<9}"
    difference = _with_interval(change.after - change.before, change.interval)
    return f"{head:<7}{change.name:<28}{said}  {difference}"


def _nearby(page: Page, explanation: Explanation) -> None:
    nearby = explanation.nearby
    if nearby is None:
        return
    if nearby.nearest is not None:
        cell, verdict = nearby.nearest
        page.say(
            f" {cell}: {verdict.sentence}", head="Nearest where it held:", style="bold", then=2
        )
    if nearby.judged:
        said = [f"{cell} {wording.WORDS[v.outcome].word}" for cell, v in nearby.judged]
        page.label("judged", ", ".join(said))
        if nearby.nearest is None:
            page.label("", "it held at none of these")
    else:
        page.say(" none is judged yet", head="Other checkpoints:", style="bold")
    page.unbroken(nearby.command, head="judge them".ljust(LABEL), at=4)
    page.say("")


def _closing(page: Page, explanation: Explanation) -> None:
    if explanation.advice:
        page.say("", head="To try", style="bold")
        for each in explanation.advice:
            page.say(each, head="- ", at=2, then=4)
    for note in explanation.notes:
        page.label("note", note)
