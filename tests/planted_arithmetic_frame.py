"""The frame of hand-made networks that add and subtract: all of them but what they compute with.

GPT-2's architecture with ReLU. The residual stream is cut into rooms, and MLP 0 turns embeddings
into features of tokens: of numbers, and with the same neurons of operators. Three heads then carry
the features of operand 1, of the operator and of operand 2 to "=", where all else happens; the
unembedding reads only the last room, ``answer``. Every head and neuron without a part reads noise
that each number has as a code of its own (and the operands' noise at "="), and writes little of it.

Layer norms are the identity: a pair of constants of opposite sign is so large that the scale is
the same for every stream, and one channel takes what keeps the mean of all channels at zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from mechtests.arithmetic.problems import OPERATORS
from mechtests.measurement import Head
from mechtests.models.network import Network
from mechtests.sprout.numbers import LARGEST
from tests.planted_arithmetic_problems import END, OPERANDS, SUMS, number, sign

HEAD_WIDTH = 32
NOISE_WIDTH = 6
HEAD_NOISE, NEURON_NOISE = 0.001, 0.0001
LARGE = 800.0
MOVERS = {"first": (1, 2), "operator": (1, 0), "second": (1, 3)}
"""The head that carries each of them to "="."""
PLACES = {"first": 1, "operator": 2, "second": 3}
"""Their positions, behind BOS."""


@dataclass(frozen=True)
class PlantedNeuron:
    """A neuron and what it stands for.

    Attributes:
        layer: Its layer.
        neuron: Its place there.
        variable: ``"op1"``, ``"op2"`` or ``"result"``.
        kind: ``"range"`` or ``"modulo"``; a range is a window whose ends are soft.
        numbers: Low end and first number above, or remainder and modulus; a remainder and a
            window of operand 2 in a subtraction are those of its negative.
        partner: Of an operand: the same of the other operand, at which it is twice as active.
        operator: The only operator it is active for, or None.
        wide: Of a window: it is active for those beside it too, about half as much (but for
            the outermost two, whose bins say less).
    """

    layer: int
    neuron: int
    variable: str
    kind: str
    numbers: tuple[int, int]
    partner: tuple[int, int] | None = None
    operator: int | None = None
    wide: bool = False


@dataclass(frozen=True, eq=False)
class Planted:
    """A network, and what was planted in it where it is known neuron by neuron.

    Attributes:
        model: The Hugging Face model.
        neurons: What was planted.
    """

    model: Any
    neurons: tuple[PlantedNeuron, ...] = ()

    def network(self) -> Network:
        """The network; the model is taken over, so ask once."""
        return Network.from_model(self.model, name="planted arithmetic", check=False)


@dataclass(eq=False)
class Frame:
    """A network that only carries the operands' and the operator's features to "=".

    Attributes:
        features: Of the operands, each in [0, 2], ``[number, feature]``.
        rooms: Widths of further rooms at "=", by name; ``answer`` is what is unembedded.
        unembedding: What each number reads of ``answer``, ``[result, channel]``.
        width: Of the stream.
        operators: Which feature says an operator: an operator's token has only that one.
        layers: How many there are; the middle and late ones are the later half.
        mlp_width: Neurons of a layer.
        seed: Of all that is drawn.
    """

    features: Tensor
    rooms: dict[str, int]
    unembedding: Tensor
    width: int
    operators: tuple[int, ...] = (0, 1, 2, 3)
    layers: int = 8
    mlp_width: int = 4400
    seed: int = 0
    model: Any = field(init=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)
        config = GPT2Config(
            vocab_size=SUMS.size,
            n_positions=128,
            n_embd=self.width,
            n_layer=self.layers,
            n_head=self.width // HEAD_WIDTH,
            n_inner=self.mlp_width,
            activation_function="relu",
            layer_norm_epsilon=1e-8,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
            attn_implementation="eager",
        )
        self.model = GPT2LMHeadModel(config).eval()
        count = self.features.shape[1]
        widths = {"code": count, "own": count, "first": count, "second": count}
        noises = dict.fromkeys(("noise", "first noise", "second noise"), NOISE_WIDTH)
        singles = {"bos": 1, "end": 1, "places": len(PLACES), "balance": 1, "large": 2}
        self.room: dict[str, Tensor] = {}
        start = 0
        for name, size in {**widths, **noises, **singles, "operator": 2, **self.rooms}.items():
            self.room[name] = torch.arange(start, start + size)
            start += size
        assert start <= self.width, start
        self._free: list[Tensor] = [
            torch.randperm(self.mlp_width, generator=self.generator) for _ in range(self.layers)
        ]
        with torch.no_grad():
            self._fill()
            self._embed()
            self._carry()

    def draw(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def _fill(self) -> None:
        """Norms, and the noise of everything."""
        reads = torch.zeros(self.width)
        for name in ("noise", "first noise", "second noise"):
            reads[self.room[name]] = 1.0
        writes = torch.ones(self.width)
        writes[self.room["large"]] = 0.0
        gain = torch.full((self.width,), LARGE * math.sqrt(2 / self.width))
        gain[self.room["large"]] = 0.0
        for parameter in self.model.parameters():
            parameter.zero_()
        for norm in (self.model.transformer.ln_f, *self._norms()):
            norm.weight.copy_(gain)
        for block in self.model.transformer.h:
            attention, mlp = block.attn, block.mlp
            for weight in (attention.c_attn.weight, attention.c_proj.weight):
                weight.copy_(HEAD_NOISE * self.draw(*weight.shape))
            mlp.c_fc.weight.copy_(0.3 * reads[:, None] * self.draw(*mlp.c_fc.weight.shape))
            mlp.c_proj.weight.copy_(NEURON_NOISE * writes * self.draw(*mlp.c_proj.weight.shape))

    def _norms(self) -> list[Any]:
        return [norm for block in self.model.transformer.h for norm in (block.ln_1, block.ln_2)]

    def _embed(self) -> None:
        """Tokens as rotated features and noise; places; the unembedding."""
        tokens, places = self.model.transformer.wte.weight, self.model.transformer.wpe.weight
        count = self.features.shape[1]
        self._turn = torch.linalg.qr(self.draw(count, count))[0]
        numbers = number(torch.arange(OPERANDS))
        tokens[:, self.room["noise"]] = self.draw(len(tokens), NOISE_WIDTH)
        tokens[numbers[:, None], self.room["code"]] = self.features @ self._turn
        signs = torch.eye(count)[list(self.operators)]
        at = sign(torch.arange(len(OPERATORS)))
        tokens[at[:, None], self.room["code"]] = signs @ self._turn
        tokens[0, self.room["bos"]] = 1.0
        tokens[END, self.room["end"]] = 1.0
        tokens[:, self.room["large"]] = torch.tensor([LARGE, -LARGE])
        for channel, place in zip(self.room["places"], PLACES.values(), strict=True):
            places[place, channel] = 1.0
        results = number(torch.arange(LARGEST + 1))
        self.model.lm_head.weight[results[:, None], self.room["answer"]] = self.unembedding

    def _carry(self) -> None:
        """MLP 0, and the three heads: each sees its place from "=", and BOS from elsewhere."""
        reads = self.rows("code", self._turn)
        self.neurons(0, reads, torch.zeros(len(reads)), self.rows("own", torch.eye(len(reads))))
        for (name, head), place in zip(MOVERS.items(), self.room["places"], strict=True):
            moves = (
                [(self.room["own"][list(self.operators[:2])], self.room["operator"])]
                if name == "operator"
                else [
                    (self.room["own"], self.room[name]),
                    (self.room["noise"], self.room[f"{name} noise"]),
                ]
            )
            sources, targets = (torch.cat(part) for part in zip(*moves, strict=True))
            self._move(head, int(place), sources, targets)

    def _move(self, at: Head, place: int, sources: Tensor, targets: Tensor) -> None:
        layer, head = at
        attention = self.model.transformer.h[layer].attn
        mine = slice(head * HEAD_WIDTH, (head + 1) * HEAD_WIDTH)
        query, key, value = (part[:, mine] for part in attention.c_attn.weight.chunk(3, 1))
        written = attention.c_proj.weight[mine]
        for part in (query, key, value, written):
            part.zero_()
        sharp = 40.0 * math.sqrt(HEAD_WIDTH)
        attention.c_attn.bias[head * HEAD_WIDTH] = 1.0  # the query of every token
        key[self.room["bos"], 0] = sharp
        query[self.room["end"], 1] = 1.0
        key[place, 1] = 2 * sharp
        many = torch.arange(len(sources))
        value[sources, many] = 1.0
        written[many, targets] = 1.0

    def rows(self, room: str, values: Tensor) -> Tensor:
        """Values ``[row, channel]`` in their room of the stream, ``[row, width]``."""
        placed = torch.zeros(len(values), self.width)
        placed[:, self.room[room]] = values
        return placed

    @torch.no_grad()
    def neurons(self, layer: int, reads: Tensor, bias: Tensor, writes: Tensor) -> Tensor:
        """Give some neurons of a layer a part; which of them, ``[row]``.

        What they write is a little off, so that nothing is written by no neuron at all.

        Args:
            layer: The layer.
            reads: ``[row, width]``.
            bias: ``[row]``.
            writes: ``[row, width]``.
        """
        free = self._free[layer]
        assert len(reads) <= len(free)
        taken, self._free[layer] = free[: len(reads)], free[len(reads) :]
        mlp = self.model.transformer.h[layer].mlp
        mlp.c_fc.weight[:, taken] = reads.T
        mlp.c_fc.bias[taken] = bias
        mlp.c_proj.weight[taken] = writes + NEURON_NOISE * self.draw(*writes.shape)
        return taken

    @torch.no_grad()
    def made(self) -> Any:
        """The Hugging Face model, whose streams all have mean zero."""
        balance = int(self.room["balance"])
        transformer = self.model.transformer
        weights = [transformer.wte.weight, transformer.wpe.weight]
        for block in transformer.h:
            weights += [block.attn.c_proj.weight, block.mlp.c_proj.weight]
        for weight in weights:
            weight[:, balance] = 0.0
            weight[:, balance] = -weight.double().sum(1).to(weight)
        return self.model.requires_grad_(False)
