"""Edge attribution the long way: one graph for each reader, edges scaled in by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mechtests.circuits.attribution import Metric, graph_of
from mechtests.circuits.graph import Read
from mechtests.models.edges import Reader, reading, writers
from mechtests.models.network import Network
from tests.tiny import VOCABULARY, prompts


class Pairs(NamedTuple):
    """Prompts of different lengths that differ from their corrupted variants at a position on."""

    clean: Tensor
    corrupted: Tensor
    last: Tensor

    def select(self, rows: Sequence[int]) -> Pairs:
        return Pairs(*(part[list(rows)] for part in self))

    def padded(self, more: int) -> Pairs:
        noise = prompts(7, len(self.last), more)
        return Pairs(
            torch.cat((self.clean, noise), 1), torch.cat((self.corrupted, noise), 1), self[2]
        )


def pairs(starts: Sequence[int], lasts: Sequence[int], seed: int = 0) -> Pairs:
    """Prompts whose first difference and END are at these positions; behind it, any token."""
    clean, last = prompts(seed, len(starts)), torch.tensor(lasts)
    corrupted = clean.clone()
    for row, start in enumerate(starts):
        corrupted[row, start] = (clean[row, start] + 1 + row) % VOCABULARY
        corrupted[row, start + 2 :] = prompts(seed + 1, len(starts))[row, start + 2 :]
    return Pairs(clean, corrupted, last)


MIXED = pairs(starts=[3, 0, 5, 2, 9], lasts=[10, 6, 8, 10, 9])


def answers_of(count: int) -> Tensor:
    return torch.randint(VOCABULARY, (count, 2), generator=torch.Generator().manual_seed(5))


def difference(network: Network, answers: Tensor) -> Metric:
    def metric(final: Tensor, rows: Tensor) -> Tensor:
        logits = network.logits(final, answers[rows])
        return logits[:, 0] - logits[:, 1]

    return metric


def embedded(network: Network, given: Pairs, share: float) -> Tensor:
    clean, corrupted = network.embed(given.clean), network.embed(given.corrupted)
    return clean + share * (corrupted - clean)


def differences(network: Network, given: Pairs) -> Tensor:
    """Of every writer, ``[writer, prompt, position, width]``, from two whole runs."""
    keep = ["z", "mlp_out"]
    clean, corrupted = (network.run(tokens, keep=keep) for tokens in given[:2])
    found = [network.embed(given.corrupted) - network.embed(given.clean)]
    for layer in range(network.shape.layers):
        each = writers(network, corrupted, layer) - writers(network, clean, layer)
        found += [*each.unbind(2), corrupted["mlp_out", layer] - clean["mlp_out", layer]]
    return torch.stack(found)


class Edges:
    """A network's runs from one point between the embeddings, with edges turned on a little."""

    def __init__(self, network: Network, given: Pairs, metric: Metric, share: float) -> None:
        self.network, self.given, self.metric = network, given, metric
        self.graph = graph_of(network)
        self.rows = torch.arange(len(given.last))
        self.resid = embedded(network, given, share)
        mid = [] if network.shape.parallel else ["resid_mid"]
        self.run = network.run(
            given.clean, keep=["resid_pre", *mid], resid=self.resid, last=given.last
        )
        self.changes = differences(network, given)

    def loss(self, read: Read, amounts: Tensor) -> Tensor:
        """Minus the metric of each prompt when a reader reads amounts of the first writers more."""
        change = torch.einsum("u,upsd->psd", amounts, self.changes[: len(amounts)])
        if read.kind == "logits":
            return -self.metric(self.run.final + change[self.rows, self.given.last], self.rows)
        late = read.kind == "mlp" and not self.network.shape.parallel
        seen = self.run["resid_mid" if late else "resid_pre", read.layer] + change
        found = self.network.run(
            self.given.clean,
            edits=reading(self.network, {Reader(read.layer, read.kind, read.head): seen}),
            resid=self.resid,
            last=self.given.last,
        )
        return -self.metric(found.final, self.rows)

    def slopes(self) -> Iterator[tuple[int, Tensor]]:
        """Of every edge to each reader, ``[writer, prompt]``, by autograd through the edit."""
        for column, read in enumerate(self.graph.reads):
            amounts = torch.zeros(int(self.graph.sources[column]), dtype=self.network.dtype)
            amounts.requires_grad_()
            with torch.enable_grad():
                loss = self.loss(read, amounts)
                each = [torch.autograd.grad(one, amounts, retain_graph=True)[0] for one in loss]
            yield column, torch.stack(each, 1)


def slow_scores(network: Network, given: Pairs, metric: Metric, shares: Sequence[float]) -> Tensor:
    """Scores of each prompt, ``[prompt, writer, reader]``."""
    graph = graph_of(network)
    found = torch.zeros(len(given.last), graph.writers, graph.readers, dtype=network.dtype)
    for share in shares:
        for column, each in Edges(network, given, metric, share).slopes():
            found[:, : len(each), column] += each.T / len(shares)
    return found
