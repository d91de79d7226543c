"""When a model learns which operators of arithmetic, and which checkpoints a claim reads of each.

A claim over training reads an operator at the checkpoints that pass its gate, from a confirmed
onset on: the first that passes with the next two (claims.md, Gate and Onset). Operators are
learned at different times. Pooled over a window are those that are gated all through it, or their
arrival would look like that of what is measured of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mechtests.arithmetic.gates import Gated, at_checkpoints
from mechtests.checkpoints import Series
from mechtests.circuits.stability import equally_spaced
from mechtests.series import Moment
from mechtests.tasks.arithmetic import NAMES

CONFIRMED_BY = 2
"""Checkpoints after an onset that must pass as well."""


@dataclass(frozen=True, eq=False)
class Learned:
    """Which operators may be read at which checkpoints.

    Attributes:
        moments: The checkpoints.
        read: Whether each operator is gated there and has emerged, ``[moment, operator]``.
        reasons: Why operators are read nowhere, by their place.
    """

    moments: tuple[Moment, ...]
    read: NDArray[np.bool_]
    reasons: dict[int, str]

    @classmethod
    def of(cls, answers: Series) -> Learned:
        """From ``arithmetic.answers`` at every checkpoint."""
        gated = at_checkpoints(answers)
        read = np.zeros((len(gated), len(NAMES)), bool)
        reasons: dict[int, str] = {}
        for operator, name in enumerate(NAMES):
            passes = np.array([operator in each.operators for each in gated])
            onset = _onset(passes)
            if not passes[-1]:
                reasons[operator] = gated[-1].reasons[operator]
            elif onset is None:
                reasons[operator] = (
                    f"{name}: no checkpoint passes with the next {CONFIRMED_BY}, so that its onset "
                    f"is not confirmed"
                )
            else:
                read[onset:, operator] = passes[onset:]
        return cls(answers.moments, read, reasons)

    def at(self, label: str) -> list[int]:
        """The operators that may be read at a checkpoint."""
        [place] = [at for at, moment in enumerate(self.moments) if moment.label == label]
        return [int(op) for op in np.flatnonzero(self.read[place])]

    def window(self, fewest: int) -> Window:
        """The longest series, equally spaced in log tokens, of operators that all have one.

        Args:
            fewest: Of checkpoints, the last one included.
        """
        reasons, operators = dict(self.reasons), []
        for operator in sorted(set(range(len(NAMES))) - set(self.reasons)):
            places = np.flatnonzero(self.read[:, operator])
            if self._spaced(places, fewest):
                operators.append(operator)
            else:
                reasons[operator] = (
                    f"{NAMES[operator]}: {len(places)} checkpoints from {self._label(places[0])} "
                    f"on, no {fewest} of them equally far apart in log tokens"
                )
        joint = np.flatnonzero(self.read[:, operators].all(1)) if operators else np.empty(0, int)
        window = tuple(self._spaced(joint, fewest))
        if operators and not window:
            together = ", ".join(NAMES[operator] for operator in operators)
            short = f"{together}: no {fewest} checkpoints equally far apart at which all are gated"
            reasons |= dict.fromkeys(operators, short)
            operators = []
        return Window(window, Gated(tuple(operators), reasons))

    def _spaced(self, places: NDArray[np.int64], fewest: int) -> list[int]:
        """Of some checkpoints the most that are equally far apart in log tokens."""
        tokens = self._tokens()[places]
        at = places[tokens > 0]
        if len(at) < fewest:
            return []
        chosen = equally_spaced(np.log2(tokens[tokens > 0]), fewest=fewest)
        return [int(at[each]) for each in chosen]

    def _tokens(self) -> NDArray[np.float64]:
        """Tokens of every checkpoint, or else its steps."""
        told = [m.step if m.tokens is None else m.tokens for m in self.moments]
        return np.array([np.nan if each is None else each for each in told], float)

    def _label(self, place: int) -> str:
        return self.moments[place].label


@dataclass(frozen=True)
class Window:
    """The checkpoints a claim reads.

    Attributes:
        places: Among the checkpoints of the run, in order; empty where there are too few.
        gated: The operators that are pooled over them, and why others are not.
    """

    places: tuple[int, ...]
    gated: Gated


def _onset(passes: Sequence[bool] | NDArray[np.bool_]) -> int | None:
    """The first checkpoint that passes with the next two, or None."""
    for at in range(len(passes) - CONFIRMED_BY):
        if all(passes[at : at + 1 + CONFIRMED_BY]):
            return at
    return None
