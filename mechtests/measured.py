"""What a claim reads: its measurements in a cell, over the checkpoints of a model, over models."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mechtests.case import FEWEST_CHECKPOINTS, Case
from mechtests.checkpoints import Series
from mechtests.errors import MeasurementError, NotApplicable
from mechtests.measurement import Measurement
from mechtests.metrics.metric import Need
from mechtests.models.cell import Cell
from mechtests.results import Results
from mechtests.seeds import generator
from mechtests.series import Moment
from mechtests.watching import Watched

if TYPE_CHECKING:
    import numpy as np


class Measured:
    """The measurements of a claim in one cell, or at every checkpoint of one model.

    ``measured.induction`` is the measurement of ``needs={"induction": ...}``: a
    ``Measurement`` for a claim over a cell, a ``Series`` for one over training. Controls in
    an untrained cell are a ``Measurement`` in either.

    Attributes:
        model: The model's name.
        dropped: The checkpoints that are left out, with the reason, by their label.
    """

    def __init__(
        self,
        case: Case,
        results: Results,
        found: Mapping[str, Measurement | Series],
        lacking: Mapping[str, NotApplicable],
        *,
        cell: Cell,
        dropped: Mapping[str, str],
    ) -> None:
        self._case = case
        self._results = results
        self._found = found
        self._lacking = lacking
        self._cell = cell
        self.model = cell.model
        self.dropped = dropped

    def __getattr__(self, name: str) -> Measurement | Series:
        """The measurement declared under this name.

        Raises:
            MeasurementError: The claim did not declare it.
            NotApplicable: The model's recording does not have it.
        """
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._lacking:
            raise self._lacking[name]
        if name not in self._found:
            raise MeasurementError(
                f"claim {self._case.claim.id!r} reads measured.{name}, and its needs declare "
                f"{', '.join(self._found)}; add it to needs, so that it is measured"
            )
        return self._found[name]

    def __getitem__(self, name: str) -> Measurement | Series:
        """The same, for a name that is not an identifier."""
        return getattr(self, name)  # type: ignore[no-any-return]

    def lacks(self, name: str) -> str | None:
        """Why a declared measurement is not there: not recorded, or its task does not apply."""
        return str(self._lacking[name]) if name in self._lacking else None

    @property
    def task(self) -> str:
        """The name of the test's task, for a claim over several."""
        return str(self._case.claim.task)

    @property
    def parameters(self) -> int | None:
        """Non-embedding parameters of the model, where what was measured says."""
        for each in self._found.values():
            last = each[-1] if isinstance(each, Series) else each
            if (known := last.facts.get("parameters")) is not None:
                return int(known)
        return None

    def everything(self) -> Mapping[str, Measurement | Series]:
        """Every measurement there is, by the name the claim gave it."""
        return dict(self._found)

    def watched(self) -> Measured:
        """The same, noting what is read of it (``watching``)."""
        other = copy.copy(self)
        other._found = {name: _watched(each, name) for name, each in self._found.items()}
        return other

    def generator(self, purpose: str) -> np.random.Generator:
        """Random draws of this claim in this cell, for a purpose (claims.md, Seeds)."""
        seed = self._results.settings.seed
        return generator(seed, self._case.claim.id, self._cell.id, purpose)


class MeasuredModels:
    """The measurements of a claim over scale: one ``Measured`` a model, smallest first.

    Attributes:
        models: By non-embedding parameters.
        dropped: The models that are left out, with the reason, by name.
    """

    def __init__(
        self, case: Case, results: Results, models: tuple[Measured, ...], dropped: Mapping[str, str]
    ) -> None:
        self._case = case
        self._results = results
        self.models = models
        self.dropped = dropped

    @property
    def task(self) -> str:
        """The name of the test's task, for a claim over several."""
        return str(self._case.claim.task)

    def watched(self) -> MeasuredModels:
        """The same, noting what is read of it (``watching``)."""
        other = copy.copy(self)
        other.models = tuple(model.watched() for model in self.models)
        return other

    def generator(self, purpose: str) -> np.random.Generator:
        """Random draws of this claim on this family, for a purpose (claims.md, Seeds)."""
        return generator(self._results.settings.seed, self._case.claim.id, self._case.id, purpose)


def _watched(found: Measurement | Series, name: str) -> Measurement | Series:
    if isinstance(found, Series):
        each = tuple(Watched.around(measurement, name) for measurement in found.measurements)
        return Series(found.moments, each, found.left_out)
    return Watched.around(found, name)


def in_cell(case: Case, results: Results) -> Measured:
    """What a claim over one cell reads.

    Raises:
        LoadError: The cell could not be loaded.
        MeasurementError: A measurement failed, or a replay misses it.
        NotApplicable: The task does not apply to the cell, or nothing of it is recorded.
    """
    found: dict[str, Measurement | Series] = {}
    lacking: dict[str, NotApplicable] = {}
    recorded = results.recording(case.cell) is not None
    for name, need in case.claim.needs.items():
        try:
            found[name] = results.measurement(need.of_series(case.cell), case.cell)
        except NotApplicable as reason:
            if not recorded and name not in case.claim.where_applicable:
                raise
            lacking[name] = reason
    if not found:
        raise next(iter(lacking.values()))
    return Measured(case, results, found, lacking, cell=case.cell, dropped={})


def over_training(case: Case, results: Results, cells: tuple[Cell, ...]) -> Measured:
    """What a claim over training reads of one model; doubtful checkpoints are left out.

    Raises:
        LoadError: A cell could not be loaded.
        MeasurementError: A measurement failed, or a replay misses it.
        NotApplicable: The task does not apply to the model, nothing of it is recorded, or
            fewer than six checkpoints are left.
    """
    found: dict[str, Measurement | Series] = {}
    lacking: dict[str, NotApplicable] = {}
    last = cells[-1]
    dropped = {} if case.claim.paper == "sanity" else repeated_weights(case, results, cells)
    kept = tuple(cell for cell in cells if cell.id not in dropped)
    if len(kept) < FEWEST_CHECKPOINTS and case.claim.over == "training" and dropped:
        raise NotApplicable(_too_few(last.model, len(kept), dropped))
    for name, need in case.claim.needs.items():
        try:
            if need.cell == "here":
                partial = name in case.claim.where_applicable
                found[name] = _series(results, need.of_series(last), kept, partial=partial)
            else:
                found[name] = results.measurement(need, last)
        except NotApplicable as reason:  # of one task; a claim over several says what it lacks
            lacking[name] = reason
    if not found:
        raise next(iter(lacking.values()))
    return Measured(case, results, found, lacking, cell=last, dropped=dropped)


def over_models(case: Case, results: Results) -> MeasuredModels:
    """What a claim over scale reads; models that it does not apply to are left out and named.

    Raises:
        LoadError: A cell could not be loaded.
        MeasurementError: A measurement failed, or a replay misses it.
        NotApplicable: No model is left.
    """
    models: list[Measured] = []
    dropped: dict[str, str] = {}
    for name, cells in case.models.items():
        try:
            models.append(over_training(case, results, cells))
        except NotApplicable as reason:
            dropped[name] = str(reason)
    if not models:
        raise NotApplicable("; ".join(dropped.values()))
    if unknown := [model.model for model in models if model.parameters is None]:
        raise NotApplicable(
            f"the order of sizes is not known: nothing says how many parameters "
            f"{', '.join(unknown)} has"
        )
    models.sort(key=lambda model: (model.parameters or 0, model.model))
    return MeasuredModels(case, results, tuple(models), dropped)


def repeated_weights(case: Case, results: Results, cells: tuple[Cell, ...]) -> dict[str, str]:
    """Checkpoints that serve the weights of a later one, with the reason, by their cell's id.

    Some published branches do (Tigges et al. 2024, section 8 of our notes). The last of
    equal checkpoints is kept.
    """
    digests = {cell.id: weights_of(case, results, cell) for cell in cells}
    counts = Counter(each for each in digests.values() if each is not None)
    last = {digest: cell for cell, digest in digests.items()}
    return {
        cell: f"{cell} has the weights of {last[digest]}"
        for cell, digest in digests.items()
        if digest is not None and counts[digest] > 1 and last[digest] != cell
    }


def weights_of(case: Case, results: Results, cell: Cell) -> str | None:
    """The digest of a cell's weights, as the first of its measurements that there is says."""
    for need in case.needs_in(cell, shut=False):
        if need.cell == "here":
            try:
                found = results.measurement(need, cell).facts.get("weights")
            except NotApplicable:
                continue
            return None if found is None else str(found)
    return None


def _series(
    results: Results, need: Need, cells: tuple[Cell, ...], *, partial: bool = False
) -> Series:
    """One measurement in each cell; of a recording in those it has it in.

    A series that may be ``partial`` leaves out and names the cells it does not apply to; without
    any cell it does not apply, for the last one's reason.
    """
    found: dict[Moment, Measurement] = {}
    left_out: dict[str, str] = {}
    for cell in cells:
        try:
            found[moment(cell)] = results.measurement(need, cell)
        except NotApplicable as reason:
            if partial:
                left_out[moment(cell).label] = str(reason)
            elif results.recording(cell) is None:
                raise
            missing = reason
    if not found:
        raise missing
    return Series(tuple(found), tuple(found.values()), left_out)


def moment(cell: Cell) -> Moment:
    """Where in training a cell is."""
    at = cell.checkpoint
    return Moment("final") if at is None else Moment(at.label, at.step, at.tokens)


def _too_few(model: str, left: int, dropped: Mapping[str, str]) -> str:
    return (
        f"{model} has {left} checkpoints left in this run ({'; '.join(dropped.values())}), and a "
        f"claim over training needs {FEWEST_CHECKPOINTS}"
    )
