"""What a model has at each checkpoint of its training, as sets of triples.

A triple is (heuristic, layer, neuron), see ``bag_measures.triples_of``. Where they are of several
operators, a heuristic's name begins with its operator and ``": "``, and operators weigh the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mechtests.errors import MeasurementError, UsageError

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]
Triple = tuple[str, int, int]

OF = ": "


@dataclass(frozen=True)
class Heuristics:
    """The triples at each checkpoint of one run, the final one last.

    Attributes:
        sets: Triples (heuristic, layer, neuron), in the order of training.
    """

    sets: tuple[frozenset[Triple], ...]

    @classmethod
    def of(cls, sets: Sequence[AbstractSet[Triple]]) -> Heuristics:
        """The triples at each checkpoint.

        Raises:
            MeasurementError: There are none at the final one.
        """
        if not sets or not sets[-1]:
            raise MeasurementError(
                f"heuristics over training need some at the final checkpoint, got none at the last "
                f"of {len(sets)}; look at what was matched there"
            )
        return cls(tuple(map(frozenset, sets)))

    def __len__(self) -> int:
        """How many checkpoints there are."""
        return len(self.sets)

    @cached_property
    def union(self) -> tuple[Triple, ...]:
        """Every triple there is at some checkpoint, in order."""
        return tuple(sorted(frozenset().union(*self.sets)))

    @cached_property
    def layers(self) -> Ids:
        """The layer of each triple of the union, shape ``[triple]``."""
        return np.array([layer for _, layer, _ in self.union], np.int64)

    @cached_property
    def there(self) -> Mask:
        """Which triples there are at each checkpoint, ``[checkpoint, triple]``."""
        places = {triple: at for at, triple in enumerate(self.union)}
        found = np.zeros((len(self), len(self.union)), bool)
        for row, triples in zip(found, self.sets, strict=True):
            row[[places[triple] for triple in triples]] = True
        return found

    @cached_property
    def operators(self) -> Ids:
        """The operator of each triple of the union, counted from 0, shape ``[triple]``."""
        names = [name.rpartition(OF)[0] for name, _, _ in self.union]
        found: Ids = np.unique(names, return_inverse=True)[1].ravel()
        return found

    @cached_property
    def strata(self) -> Ids:
        """The operator and layer of each triple as one number, shape ``[triple]``."""
        return self.operators * (int(self.layers.max()) + 1) + self.layers

    @property
    def present(self) -> Floats:
        """The share of the final triples there is at each checkpoint, the final one included.

        Of several operators the mean of their shares.
        """
        return present(self.there, self.operators)

    def by_chance(self, possible: Mapping[int, int]) -> Floats:
        """The share of the final triples that as many random ones a layer would have.

        The mean of the hypergeometric distribution, layer by layer. It has no p: the heuristics
        that a neuron matches come and go together.

        Args:
            possible: How many triples each layer could have: its neurons times the heuristics.

        Returns:
            Shape ``[checkpoint]``.
        """
        counts = _by_layer(self.there, self.layers)
        _, firsts = np.unique(self.layers, return_index=True)
        whole = np.array([possible[int(self.layers[at])] for at in firsts])
        if (counts > whole).any():
            raise UsageError("a layer has more triples than it could have; check what is possible")
        shared: Floats = (counts * counts[-1] / whole).sum(1) / counts[-1].sum()
        return shared


def present(there: Mask, operators: Ids) -> Floats:
    """The share of the last triples at each checkpoint, the mean over operators that have some."""
    shares = [
        (there & there[-1])[:, operators == operator].sum(1) / total
        for operator in np.unique(operators)
        if (total := there[-1, operators == operator].sum())
    ]
    found: Floats = np.mean(shares, 0)
    return found


def _by_layer(there: Mask, layers: Ids) -> Ids:
    """How many triples of each layer there are, ``[checkpoint, layer]``."""
    return np.stack([there[:, layers == layer].sum(1) for layer in np.unique(layers)], 1)
