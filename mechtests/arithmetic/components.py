"""What is patched in a network that does arithmetic, and where, as places on an array's axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating[Any]]

PLACES = ("first", "operator", "second", "equals", "all")
"""Where a component is patched: at one position, or from the first operand on."""


def late_layers(layers: int) -> range:
    """The middle and late layers of so many: from half of the depth on."""
    return range((layers + 1) // 2, layers)


@dataclass(frozen=True)
class Components:
    """What is patched, in its order on the last axis of an array.

    First the embedding; then of each layer its heads, its whole attention, its MLP.

    Attributes:
        layers: Of the network.
        heads: Of a layer.
    """

    layers: int
    heads: int

    def __len__(self) -> int:
        """How many there are."""
        return 1 + self.layers * self.by_layer

    @property
    def by_layer(self) -> int:
        """Components of one layer."""
        return self.heads + 2

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, a head as ``layer.head``.

        >>> Components(1, 2).names
        ('embedding', '0.0', '0.1', 'attention 0', 'mlp 0')
        """
        names = ["embedding"]
        for layer in range(self.layers):
            names += [f"{layer}.{head}" for head in range(self.heads)]
            names += [f"attention {layer}", f"mlp {layer}"]
        return tuple(names)

    def embedding(self, values: Values) -> Values:
        """Those of the embedding, shape ``[...]``."""
        return values[..., 0]

    def head(self, values: Values) -> Values:
        """Those of the heads, shape ``[..., layer, head]``."""
        return self._of_layers(values)[..., : self.heads]

    def attention(self, values: Values) -> Values:
        """Those of whole attention blocks, shape ``[..., layer]``."""
        return self._of_layers(values)[..., self.heads]

    def mlp(self, values: Values) -> Values:
        """Those of MLPs, shape ``[..., layer]``."""
        return self._of_layers(values)[..., self.heads + 1]

    def _of_layers(self, values: Values) -> Values:
        return values[..., 1:].reshape(*values.shape[:-1], self.layers, self.by_layer)
