"""Hand-made networks that have a mechanism at a known head, and their twins without it.

GPT-2's architecture without MLPs: the residual stream is cut into subspaces of one-hot codes
(tokens, positions, and what heads write), every head that has no part in the mechanism is small
noise. The unembedding is tied, so that writing a token's code raises its logit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from mechtests.errors import LoadError
from mechtests.measurement import Head
from mechtests.models.cell import Loaded
from mechtests.models.network import Network
from mechtests.tasks.names import FIRST_NAMES
from mechtests.tasks.prompts import Tokenizer
from tests.fake_source import FakeSource
from tests.words import Numbers, Words

NOISE = 0.003
NAMES = FIRST_NAMES[:24]
IOI_WORDS = Words(NAMES, bos=0)
INDUCTION_NUMBERS = Numbers(240, bos=0)

Read = Mapping[int, Mapping[int, float]]  # channel of the head -> {channel of the stream: weight}


@dataclass
class Stream:
    """A model whose residual stream starts as the codes of a token and a position.

    ``rare`` tokens more, which no prompt has, have random codes of the same length: with as
    many of them as a real vocabulary has, noise puts no name among the first few by chance.
    """

    tokens: int
    positions: int
    width: int
    heads: int
    layers: int
    seed: int = 0
    rare: int = 0

    def __post_init__(self) -> None:
        config = GPT2Config(
            vocab_size=self.tokens + self.rare,
            n_positions=self.positions,
            n_embd=self.width,
            n_layer=self.layers,
            n_head=self.heads,
            n_inner=4,
            bos_token_id=0,
            eos_token_id=0,
            attn_implementation="eager",
        )
        self.model = GPT2LMHeadModel(config).eval()
        generator = torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if ".attn." in name and name.endswith("weight"):
                    parameter.copy_(NOISE * torch.randn(parameter.shape, generator=generator))
                elif ".ln_" not in name:
                    parameter.zero_()
            wte, wpe = self.model.transformer.wte.weight, self.model.transformer.wpe.weight
            wte[: self.tokens, : self.tokens] = torch.eye(self.tokens)
            if self.rare:
                codes = torch.randn(self.rare, self.width, generator=generator)
                wte[self.tokens :] = codes / codes.norm(dim=1, keepdim=True)
            wpe[:, self.position(0) : self.position(self.positions)] = torch.eye(self.positions)

    def position(self, at: int) -> int:
        """The channel of a position."""
        return self.tokens + at

    def free(self, channel: int) -> int:
        """A channel behind those of tokens and positions."""
        return self.tokens + self.positions + channel

    def plant(
        self,
        at: Head,
        *,
        query: Read,
        key: Read,
        value: Read,
        output: Mapping[int, int],
        constant: int | None = None,
        gain: float = 1.0,
    ) -> None:
        """Write one head; ``constant`` is a channel whose query is 1 for every token.

        Weights count units of score: a layer norm makes a code about sqrt(width / 2) large,
        and scores are divided by sqrt(head_width); both are undone here.
        """
        layer, head = at
        size = self.width // self.heads
        code = math.sqrt(self.width / 2)
        attention = self.model.transformer.h[layer].attn
        with torch.no_grad():
            c_attn, c_proj = attention.c_attn, attention.c_proj
            parts = [part[:, head * size : (head + 1) * size] for part in _split(c_attn.weight)]
            for part, reads, scale in zip(
                parts,
                (query, key, value),
                (1 / code, math.sqrt(size) / code, 1 / code),
                strict=True,
            ):
                part.zero_()
                for channel, weights in reads.items():
                    for source, weight in weights.items():
                        part[source, channel] = scale * weight
            if constant is not None:
                c_attn.bias[head * size + constant] = 1.0
            c_proj.weight[head * size : (head + 1) * size] = 0.0
            for channel, target in output.items():
                c_proj.weight[head * size + channel, target] = gain

    def network(self) -> Network:
        """The network; the model is taken over."""
        return Network.from_model(self.model, name="planted", check=False)


def _split(weight: Tensor) -> tuple[Tensor, ...]:
    return weight.chunk(3, dim=1)


def induction_stream(
    previous: Head = (0, 2),
    induction: Head | None = (1, 1),
    tokenizer: Tokenizer | None = None,
    *,
    width: int = 1024,
    strength: float = 60.0,
) -> Stream:
    """Repeats of up to 51 tokens: a previous-token head, and an induction head that reads it.

    The induction head looks for the token whose predecessor is the present token, writes
    it, and rests on BOS where there is none. Without it (None), noise is in its place. Its
    score there is ``strength``, that of BOS 20: with 60 it sees nothing else at all.
    """
    vocabulary = (tokenizer or INDUCTION_NUMBERS).size
    stream = Stream(tokens=vocabulary, positions=104, width=width, heads=4, layers=2)
    tokens = range(vocabulary)
    stream.plant(
        previous,
        query={p: {stream.position(p + 1): 40.0} for p in range(103)},
        key={p: {stream.position(p): 1.0} for p in range(103)},
        value={t: {t: 1.0} for t in tokens},
        output={t: stream.free(t) for t in tokens},
    )
    if induction is not None:
        stream.plant(
            induction,
            query={t: {t: strength} for t in tokens if t},
            key={t: {stream.free(t): 1.0} for t in tokens if t} | {0: {0: 20.0}},
            value={t: {t: 1.0} for t in tokens},
            output={t: t for t in tokens},
            constant=0,
        )
    return stream


def induction_network(
    previous: Head = (0, 2), induction: Head | None = (1, 1), tokenizer: Tokenizer | None = None
) -> Network:
    """The network of ``induction_stream``."""
    return induction_stream(previous, induction, tokenizer).network()


def ioi_stream(
    mover: Head | None = (2, 5),
    duplicate: Head = (0, 3),
    inhibition: Head = (1, 6),
    *,
    heads: int = 8,
    rare: int = 0,
) -> Stream:
    """The whole of IOI in three heads, for prompts of ``IOI_WORDS``.

    The duplicate-token head marks S2 with the name that was there before; the S-inhibition
    head carries that name to END; the name mover there attends to names except that one, and
    writes the name it attends to. Without a name mover (None), noise is in its place.
    """
    names = [IOI_WORDS.encode(f" {name}")[0] for name in NAMES]
    channels = range(len(names))
    stream = Stream(
        tokens=IOI_WORDS.size, positions=33, width=64 * heads, heads=heads, layers=3, rare=rare
    )
    rest = len(names) + 33
    marked = [stream.free(c) for c in channels]
    inhibited = [stream.free(len(names) + c) for c in channels]
    value = {c: {names[c]: 1.0} for c in channels}
    not_itself = {len(names) + p: stream.position(p) for p in range(33)}
    stream.plant(
        duplicate,
        query={c: {names[c]: 40.0} for c in channels}
        | {c: {at: 60.0} for c, at in not_itself.items()},
        key={c: {names[c]: 1.0} for c in channels}
        | {c: {at: -1.0} for c, at in not_itself.items()}
        | {rest: {0: 20.0}},
        value=value,
        output=dict(zip(channels, marked, strict=True)),
        constant=rest,
    )
    stream.plant(
        inhibition,
        query={},
        key={rest: dict.fromkeys(marked, 60.0) | {0: 20.0}},
        value={c: {marked[c]: 1.0} for c in channels},
        output=dict(zip(channels, inhibited, strict=True)),
        constant=rest,
    )
    if mover is not None:
        stream.plant(
            mover,
            query={c: {inhibited[c]: -100.0} for c in channels},
            key={c: {names[c]: 1.0} for c in channels}
            | {rest: dict.fromkeys(names, 40.0) | {0: 15.0}},
            value=value,
            output=dict(zip(channels, names, strict=True)),
            constant=rest,
            gain=3.0,
        )
    return stream


def ioi_network(
    mover: Head | None = (2, 5), duplicate: Head = (0, 3), inhibition: Head = (1, 6)
) -> Network:
    """The network of ``ioi_stream``."""
    return ioi_stream(mover, duplicate, inhibition).network()


@dataclass(frozen=True, kw_only=True)
class Planted(FakeSource):
    """A model made by hand, and its untrained twin; ``jitter`` changes every weight a little."""

    make: Callable[[], Stream] = field(compare=False)
    words: Tokenizer = field(compare=False)
    jitter: float = 0.0

    def tokenizer(self) -> Tokenizer:
        return self.words

    def identity(self, checkpoint: Any, *, offline: bool) -> dict[str, str]:
        return {"sha256": self.name}

    def config(self, checkpoint: Any, *, offline: bool) -> dict[str, Any]:
        raise LoadError(f"{self.name}: it has no configuration before it is made")

    def load(self, checkpoint: Any, *, untrained_seed: int | None = None, **how: Any) -> Loaded:
        model = self.make().model
        if untrained_seed is not None:
            with torch.random.fork_rng():
                torch.manual_seed(untrained_seed)
                model = type(model)(model.config).eval()
        jittered(model.parameters(), self.jitter)
        return Loaded(model, self.words, {})


@torch.no_grad()
def jittered(weights: Iterable[torch.Tensor], size: float) -> None:
    """Change every weight by so much of itself: what another order of sums would do."""
    generator = torch.Generator().manual_seed(1)
    for weight in weights if size else ():
        weight.mul_(1 + size * torch.randn(weight.shape, generator=generator))
