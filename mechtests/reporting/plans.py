"""A plan as text: what is missing, in which cell, and what it costs at most."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mechtests.metrics.metric import Need
    from mechtests.plan import CellPlan, Plan


def render(plan: Plan, *, width: int, keep_weights: bool = False) -> str:
    """The plan as a table a cell, of cells with the same work one for all, and its totals.

    Passes count one prompt each; floating point operations are an upper bound, since what a
    failed gate hides is not measured.
    """
    from rich.console import Console

    console = Console(file=StringIO(), width=width, color_system=None, legacy_windows=False)
    settings = plan.settings
    cells = {cell for case in plan.cases for cell in case.cells}
    console.print(
        f"plan: {len(plan.cases)} verdicts in {len(cells)} cells, "
        f"profile {settings.profile}, seed {settings.seed}, {settings.dtype}"
    )
    for alike in _alike(plan.cells):
        console.print(_table(alike))
    for cell_id, error in plan.errors.items():
        console.print(f"{cell_id}: cannot be planned: {error}", markup=False)
    console.print(_totals(plan) + _on_disk(plan, keep_weights), markup=False)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def _alike(cells: Sequence[CellPlan]) -> list[list[CellPlan]]:
    """The cells in groups that have the same work ahead, in the order of their first."""
    groups: dict[object, list[CellPlan]] = {}
    for cell in cells:
        steps = tuple((s.need.name, s.prompts, s.cost, s.flops, s.stored) for s in cell.steps)
        groups.setdefault((cell.cell.model, steps, cell.forward), []).append(cell)
    return list(groups.values())


def _table(alike: Sequence[CellPlan]) -> object:
    from rich import box
    from rich.table import Table

    cell, *rest = alike
    more = f" and {len(rest)} more to {rest[-1].cell.id}, each" if rest else ""
    title = cell.cell.id + more
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    table.add_column("measurement", overflow="fold")
    for column in ("prompts", "forward", "backward", "GFLOP", "stored"):
        table.add_column(column, justify="right")
    for step in cell.steps:
        cost = "" if step.stored else _count(step.flops / 1e9)
        table.add_row(
            _named(step.need),
            f"{step.prompts:,}",
            "" if step.stored else f"{step.cost.forward:,.0f}",
            "" if step.stored else f"{step.cost.backward:,.0f}",
            cost,
            "yes" if step.stored else "no",
        )
    if cell.forward:
        table.add_row(
            "runs they share", "", f"{cell.forward:,.0f}", "0", _count(cell.shared_flops / 1e9)
        )
    return table


def _named(need: Need) -> str:
    """The metric and its task, with the corruption where it is not the task's own."""
    other = need.corruption if need.corruption != need.task.corruption else None
    return f"{need.metric.name} on {need.task.name}" + (f" ({other})" if other else "")


def _count(number: float) -> str:
    """A number with two digits at least, where it is not 0."""
    return f"{number:,.0f}" if number >= 10 or number == 0 else f"{number:.2g}"


def _totals(plan: Plan) -> str:
    missing = [step for cell in plan.cells for step in cell.missing]
    stored = sum(len(cell.steps) for cell in plan.cells) - len(missing)
    download = sum(cell.download for cell in plan.cells)
    forward = sum(cell.cost.forward for cell in plan.cells)
    backward = sum(cell.cost.backward for cell in plan.cells)
    flops = sum(cell.flops for cell in plan.cells)
    return (
        f"at most {len(missing)} measurements to make ({stored} stored): {forward:,.0f} forward "
        f"and {backward:,.0f} backward passes of one prompt, {flops / 1e12:,.1f} TFLOP; "
        f"{download / 1e6:,.0f} MB to download"
    )


def _on_disk(plan: Plan, keep_weights: bool) -> str:
    """How much of a series' downloads is on disk at once."""
    downloads = [cell for cell in plan.freed if cell.download]
    if not downloads:
        return ""
    if keep_weights:
        return f", which stay on disk, those of {len(downloads)} checkpoints of series too"
    return (
        f", of which {plan.most_on_disk / 1e6:,.0f} MB are on disk at once: the weights of "
        f"{len(downloads)} checkpoints are deleted once they are measured (--mech-keep-weights "
        "keeps them)"
    )
