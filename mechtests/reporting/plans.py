"""A plan as text: what is missing, in which cell, and what it costs at most."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mechtests.plan import CellPlan, Plan


def render(plan: Plan, *, width: int) -> str:
    """The plan as a table a cell, and its totals.

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
    for cell in plan.cells:
        console.print(_table(cell))
    for cell_id, error in plan.errors.items():
        console.print(f"{cell_id}: cannot be planned: {error}", markup=False)
    console.print(_totals(plan), markup=False)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def _table(cell: CellPlan) -> object:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=cell.cell.id, title_justify="left", pad_edge=False)
    table.add_column("measurement", overflow="fold")
    for column in ("prompts", "forward", "backward", "GFLOP", "stored"):
        table.add_column(column, justify="right")
    for step in cell.steps:
        cost = "" if step.stored else f"{step.flops / 1e9:,.0f}"
        table.add_row(
            f"{step.need.metric.name} on {step.need.task.name}",
            f"{step.prompts:,}",
            "" if step.stored else f"{step.cost.forward:,.0f}",
            "" if step.stored else f"{step.cost.backward:,.0f}",
            cost,
            "yes" if step.stored else "no",
        )
    if cell.forward:
        table.add_row(
            "runs they share", "", f"{cell.forward:,.0f}", "0", f"{cell.shared_flops / 1e9:,.0f}"
        )
    return table


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
