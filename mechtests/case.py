"""A case: one test of a claim, and the cells it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from mechtests.claim import Claim
from mechtests.metrics.metric import Need
from mechtests.models.cell import Cell, Checkpoint, Source

FEWEST_CHECKPOINTS = 6
"""With fewer, a claim over training is not applicable (claims.md, Sanity claims)."""
FEWEST_MODELS = 3
"""With fewer, a claim over scale is not applicable (claims.md, Gate)."""


@dataclass(frozen=True)
class Case:
    """One test: a claim in a cell, over the checkpoints of a model, or over several models.

    Attributes:
        claim: The claim.
        cell: The cell it is judged in; of several the last one of the last model.
        series: All its cells, model by model, each in the order of training; empty for a
            claim over one cell.
        subject: What several cells are called together: a model's name, a family's.
    """

    claim: Claim
    cell: Cell
    series: tuple[Cell, ...] = ()
    subject: str = ""

    @property
    def id(self) -> str:
        """What the verdict is about, in characters that pytest's ``-k`` can read."""
        return self.subject or self.cell.id

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell the verdict reads."""
        return self.series or (self.cell,)

    @cached_property
    def models(self) -> Mapping[str, tuple[Cell, ...]]:
        """The cells of each model, first to last, by the model's name."""
        found: dict[str, tuple[Cell, ...]] = {}
        for cell in self.cells:
            found[cell.model] = (*found.get(cell.model, ()), cell)
        return found

    def final(self, cell: Cell) -> Cell:
        """The last cell of a cell's model, where the claim's gate is judged."""
        return self.models[cell.model][-1]

    @cached_property
    def lacks(self) -> str | None:
        """Why the claim cannot be judged on these cells whatever is measured, or None."""
        over, cells, name = self.claim.over, len(self.cells), self.cell.model
        if over == "scale" and len(self.models) < FEWEST_MODELS:
            return (
                f"a claim over scale needs {FEWEST_MODELS} models of one family in the run, and "
                f"of {self.id} there is {' and '.join(self.models)}"
            )
        fewest = FEWEST_CHECKPOINTS if self.claim.paper != "sanity" else 2
        if over == "training" and cells < fewest:
            has = f"{cells} checkpoints" if cells > 1 else "no checkpoints but one"
            return f"{name} has {has} in this run, and a claim over training needs {fewest}"
        return None

    @property
    def gate_needs(self) -> tuple[Need, ...]:
        """What tells whether the claim applies to the cell at all."""
        return () if self.claim.gate is None else (self.claim.gate.need,)

    @property
    def needs(self) -> tuple[Need, ...]:
        """All the claim reads, the gate first, inputs before what starts from them."""
        wanted = [*self.gate_needs, *self.claim.needs.values()]
        return tuple(dict.fromkeys(each for need in wanted for each in need.everything()))

    def read_in(self, cell: Cell) -> tuple[Cell, ...]:
        """For which of its cells something may be measured in a cell: itself, or a control."""
        own = (cell,) if cell in self.models.get(cell.model, ()) else ()
        finals = tuple(cells[-1] for cells in self.models.values() if cells[-1] != cell)
        return (*own, *finals)

    def needs_in(self, cell: Cell, *, shut: bool) -> tuple[Need, ...]:
        """What is measured for one of its cells.

        Controls in an untrained cell are made once a model, for its last cell, and so is what
        measurements of all its cells start from in the last one.

        Args:
            cell: One of ``cells``.
            shut: Whether the gate of its model is known not to be passed.
        """
        if self.lacks:
            return ()
        last = cell == self.final(cell)
        if shut:
            return self.gate_needs if last else ()
        return tuple(
            need.of_series(self.final(cell)) for need in self.needs if last or need.cell == "here"
        )

    def named_in(self, cell: Cell) -> dict[str, Need]:
        """What the claim reads in one of its cells, by the name it is declared under."""
        final = self.final(cell)
        return {
            name: need.of_series(final)
            for name, need in self.claim.needs.items()
            if not self.lacks and (need.cell == "here" or cell == final)
        }


def trained(cell: Cell) -> Cell:
    """The cell itself, or the one an untrained cell has its configuration from."""
    return replace(cell, variant="trained")


@lru_cache(maxsize=256)  # a source is asked again for every need of every test
def step_zero(source: Source) -> Checkpoint | None:
    """The checkpoint of a model before any training, where it has one."""
    return next((c for c in source.checkpoints(offline=True) if c.step == 0), None)


def located(need: Need, cell: Cell) -> tuple[Need, Cell]:
    """What is measured for a need of a test in ``cell``, and in which cell.

    The untrained cell is step 0 of the same model, or else the same configuration freshly
    initialised (claims.md, Seeds). In the final cell of a series what starts from the final cell
    starts from its own.
    """
    if need.cell == "final":
        return need.here(), need.final or cell
    if need.cell == "here":
        return (need if need.final != cell else need.here()), cell
    first = step_zero(cell.source)
    if first is None:
        return need, replace(cell, variant="untrained")
    return need.here(), replace(cell, checkpoint=first)
