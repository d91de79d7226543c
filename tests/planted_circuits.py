"""Two-layer networks whose circuit is known by hand, edge by edge.

Heads and MLPs that have no part in it write nothing. What decides is either the token before the
one that is looked for, the token that looks, the token that is found, or one that an MLP reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mechtests.measurement import Head
from mechtests.models.network import Network
from tests.planted import Stream

TOKENS, POSITIONS, WIDTH, HEADS = 20, 10, 128, 4
PREVIOUS, INDUCTION, READER = (0, 2), (1, 1), (1, 3)
SIZE = WIDTH // HEADS


@dataclass(frozen=True, eq=False)
class PlantedCircuit:
    """A network, prompts that differ in what decides, and the edges that carry it.

    Attributes:
        network: Of two layers of four heads.
        clean: Token ids, ``[prompt, position]``.
        corrupted: The same with the deciding token exchanged.
        right: The answer of the clean prompts.
        wrong: That of the corrupted ones.
        edges: Names of the circuit's edges.
    """

    network: Network
    clean: Tensor
    corrupted: Tensor
    right: int
    wrong: int
    edges: frozenset[str]

    def difference(self, final: Tensor) -> Tensor:
        """Logit difference of the two answers, ``[prompt]``."""
        ids = torch.tensor([[self.right, self.wrong]]).expand(len(final), 2)
        logits = self.network.logits(final, ids)
        return logits[:, 0] - logits[:, 1]


def _stream() -> Stream:
    return Stream(tokens=TOKENS, positions=POSITIONS, width=WIDTH, heads=HEADS, layers=2)


def _silence(stream: Stream, heads: set[Head]) -> None:
    """All heads but these write nothing."""
    with torch.no_grad():
        for layer in range(2):
            weight = stream.model.transformer.h[layer].attn.c_proj.weight
            for head in range(HEADS):
                if (layer, head) not in heads:
                    weight[head * SIZE : (head + 1) * SIZE] = 0.0


def _induction() -> Network:
    """A previous-token head, and an induction head that reads it at its keys."""
    stream = _stream()
    stream.plant(
        PREVIOUS,
        query={p: {stream.position(p + 1): 40.0} for p in range(POSITIONS - 1)},
        key={p: {stream.position(p): 1.0} for p in range(POSITIONS - 1)},
        value={t: {t: 1.0} for t in range(TOKENS)},
        output={t: stream.free(t) for t in range(TOKENS)},
    )
    stream.plant(
        INDUCTION,
        query={t: {t: 60.0} for t in range(1, TOKENS)},
        key={t: {stream.free(t): 1.0} for t in range(1, TOKENS)},
        value={t: {t: 1.0} for t in range(TOKENS)},
        output={t: t for t in range(TOKENS)},
        constant=0,
        gain=3.0,
    )
    _silence(stream, {PREVIOUS, INDUCTION})
    return stream.network()


# BOS, then A B and C D among others, then A at END: B follows
CLEAN = [[0, 3, 4, 9, 5, 6, 10, 3], [0, 9, 3, 4, 10, 5, 6, 3]]


def keys_circuit() -> PlantedCircuit:
    """What stood before B and D is exchanged: it reaches the induction head's keys."""
    clean = torch.tensor(CLEAN)
    corrupted = torch.tensor([[0, 5, 4, 9, 3, 6, 10, 3], [0, 9, 5, 4, 10, 3, 6, 3]])
    edges = {"input->a0.h2<v>", "a0.h2->a1.h1<k>", "a1.h1->logits"}
    return PlantedCircuit(_induction(), clean, corrupted, 4, 6, frozenset(edges))


def queries_circuit() -> PlantedCircuit:
    """The token that looks is another one."""
    clean = torch.tensor(CLEAN)
    corrupted = clean.clone()
    corrupted[:, -1] = 5
    edges = {"input->a1.h1<q>", "a1.h1->logits"}
    return PlantedCircuit(_induction(), clean, corrupted, 4, 6, frozenset(edges))


def values_circuit() -> PlantedCircuit:
    """The tokens that are found, B and D, are exchanged."""
    clean = torch.tensor(CLEAN)
    corrupted = torch.tensor([[0, 3, 6, 9, 5, 4, 10, 3], [0, 9, 3, 6, 10, 5, 4, 3]])
    edges = {"input->a1.h1<v>", "a1.h1->logits"}
    return PlantedCircuit(_induction(), clean, corrupted, 4, 6, frozenset(edges))


def mlp_circuit() -> PlantedCircuit:
    """An MLP reads which of two tokens stands at position 2, and a head carries its answer on.

    Two neurons see one token each and write to channels of their own; the head attends from
    every position to position 2 and turns these channels into the answers.
    """
    stream, at = _stream(), 2
    tokens, answers = (3, 5), (4, 6)
    channels = [stream.free(40), stream.free(41)]
    mlp = stream.model.transformer.h[0].mlp
    with torch.no_grad():
        for neuron, (token, channel) in enumerate(zip(tokens, channels, strict=True)):
            mlp.c_fc.weight[token, neuron] = 2.0
            mlp.c_fc.bias[neuron] = -6.0
            mlp.c_proj.weight[neuron, channel] = 0.2
    stream.plant(
        READER,
        query={},
        key={0: {stream.position(at): 40.0}},
        value={1 + n: {channel: 1.0} for n, channel in enumerate(channels)},
        output={1 + n: answer for n, answer in enumerate(answers)},
        constant=0,
        gain=3.0,
    )
    _silence(stream, {READER})
    clean = torch.tensor([[0, 9, 3, 10, 11], [0, 12, 3, 9, 10]])
    corrupted = clean.clone()
    corrupted[:, at] = 5
    edges = {"input->m0", "m0->a1.h3<v>", "a1.h3->logits"}
    return PlantedCircuit(stream.network(), clean, corrupted, 4, 6, frozenset(edges))


PLANTED: dict[str, Callable[[], PlantedCircuit]] = {
    "keys": keys_circuit,
    "queries": queries_circuit,
    "values": values_circuit,
    "mlp": mlp_circuit,
}
