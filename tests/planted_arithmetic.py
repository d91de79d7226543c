"""Hand-made networks that add and subtract: a bag of heuristics, algorithms, a lookup table.

They are what the instruments of Nikankin et al. (2025) must tell apart (section 5.6 of our
specification): the bag has what each claim about heuristics asks for, and the others each lack
something that a bag needs. None of them can multiply or divide.

What the bag is made to have, claim by claim:

- ``accuracy``: right on nine sums and differences of ten. Results in the outer quarter of a
  window are as near to the middle of another one, and there it fails.
- ``mlps-over-heads``: six of eight MLPs matter, and three of forty heads.
- ``first-mlp-reads-operands``: heads read what MLP 0 writes of tokens, and no embedding.
- ``late-mlps-write-answer``: layers 4 and 5 both decide all of what 6 and 7 write; of the layers
  before them one MLP has a part at "=".
- ``few-heads``: three heads carry operand 1, operator and operand 2; the others are noise.
- ``answer-at-last``: operands are first combined in layers 4 and 5, and only at "=".
- ``neurons-sparse``: 63 neurons of layers 4 and 5 in a sum, 53 in a difference; 65 of 6 and 7.
- ``first-mlp-sparse``: 15 neurons of MLP 0, which say operators too.
- ``neurons-shared``: only bins of operands are apart for sums and differences.
- ``heuristics-classified``: neurons are classes of an operand or of the result.
- ``heuristics-direct-indirect``: layers 4 and 5 write no number, 6 and 7 their class.
- ``knockout-beats-random``: a neuron is silent outside its class.
- ``failures-weaker``: at the ends of windows their neurons write less of the right result.
- ``failures-not-fewer``: every problem has about as many classes.

Not ``knockout-related``: too few of its heuristics have ten neurons, and they are of too few
types. That claim is inconclusive on it.

The Fourier and the digit-wise network are not sparse: every neuron of their layers does as much
as others, so that the best hundredth of them keeps nothing, and the loss of ten is not noticed.
The lookup table's neurons are silent but for one problem: none is a heuristic, and the best
hundredth of them knows the hundredth part of the problems.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from transformers import GPT2LMHeadModel

from mechtests.errors import LoadError
from mechtests.models.cell import Loaded
from mechtests.models.network import Network
from tests.fake_source import FakeSource
from tests.planted_arithmetic_bag import planted_bag
from tests.planted_arithmetic_frame import Planted
from tests.planted_arithmetic_others import planted_digits, planted_fourier, planted_lookup
from tests.planted_arithmetic_problems import SUMS

MADE: dict[str, Callable[[], Planted]] = {
    "bag": planted_bag,
    "fourier": planted_fourier,
    "digits": planted_digits,
    "lookup": planted_lookup,
}


@cache
def network(kind: str) -> Network:
    """One of the networks; shared between tests, so never change it."""
    return MADE[kind]().network()


def bag() -> Network:
    """The bag of heuristics."""
    return network("bag")


def algorithm(kind: str = "fourier") -> Network:
    """The network that adds up waves (``"fourier"``), or digits with a carry (``"digits"``)."""
    return network(kind)


def lookup() -> Network:
    """The network that knows each problem by heart."""
    return network("lookup")


@dataclass(frozen=True, kw_only=True)
class ArithmeticSource(FakeSource):
    """A hand-made network as a model that claims can be run on, and its untrained twin."""

    make: Callable[[], Planted] = field(compare=False)
    kind: str = "folder"

    def tokenizer(self) -> Any:
        return SUMS

    def identity(self, checkpoint: Any, *, offline: bool) -> dict[str, str]:
        return {"sha256": self.name}

    def config(self, checkpoint: Any, *, offline: bool) -> dict[str, Any]:
        raise LoadError(f"{self.name}: it has no configuration before it is made")

    def load(self, checkpoint: Any, *, untrained_seed: int | None = None, **how: Any) -> Loaded:
        self.loads.append("untrained" if untrained_seed is not None else "trained")
        model = _model(self.make)
        if untrained_seed is None:
            return Loaded(copy.deepcopy(model), SUMS, {})
        with torch.random.fork_rng():
            torch.manual_seed(untrained_seed)
            return Loaded(GPT2LMHeadModel(model.config).eval(), SUMS, {})


@cache
def _model(make: Callable[[], Planted]) -> Any:
    """The Hugging Face model, made once; a network takes a copy over."""
    return make().model


def source(kind: str) -> ArithmeticSource:
    """One of the networks as a model on the command line: ``planted-bag``, ..."""
    return ArithmeticSource(name=f"planted-{kind}", make=MADE[kind])
