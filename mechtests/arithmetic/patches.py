"""Branches of a run in which one component is as in another problem, from where it writes to END.

Nothing is run that a patch cannot reach: a branch starts behind the block in which its component
writes, at the position where it writes, over the cached keys and values of the positions before;
the last block is run at END alone. Branches that have started go through a block together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mechtests.arithmetic.components import PLACES
from mechtests.arithmetic.problems import FIRST, Problems
from mechtests.errors import UsageError
from mechtests.metrics.effects import WORKING_BYTES, one_head_of, prompts_at_once
from mechtests.models.activations import Activations
from mechtests.models.attention import Past, Prefix
from mechtests.models.network import Network
from mechtests.models.shape import Shape


def check_pairs(problems: Problems, others: Problems) -> None:
    """Refuse problems without one other problem of the same length each.

    Raises:
        UsageError: They do not come in pairs.
    """
    if problems.tokens.shape != others.tokens.shape:
        raise UsageError(
            f"patching needs one other problem of the same length for each problem, got prompts "
            f"of shape {problems.tokens.shape} and {others.tokens.shape}; draw them as a pair"
        )
    if (problems.tokens[:, -1] != others.tokens[:, -1]).any():
        raise UsageError(
            "patching needs both prompts of a pair to end alike, in '='; draw them from one task"
        )


@dataclass(frozen=True, eq=False)
class Place:
    """Which positions are patched, and which are run: from the first patched one to END.

    Attributes:
        first: The first position, counted from the prompt's start.
        patched: At how many positions, from the first on.
        slots: How many positions are run.
    """

    first: int
    patched: int
    slots: int

    @classmethod
    def of(cls, number: int, length: int) -> Place:
        """One of ``PLACES``, in prompts of so many tokens."""
        whole = number == PLACES.index("all")
        first = length + FIRST + (0 if whole else number)
        return cls(first, length - first if whole else 1, length - first)

    @property
    def stop(self) -> int:
        """Behind the last patched position."""
        return self.first + self.patched

    @property
    def reaches_end(self) -> bool:
        """Whether END itself is patched: only then does the last block's writing matter."""
        return self.patched == self.slots


@dataclass(frozen=True, eq=False)
class Pair:
    """Some problems and their others, each run once."""

    network: Network
    tokens: Tensor
    other_tokens: Tensor
    answers: Tensor
    clean: Activations
    other: Activations

    @classmethod
    def of(cls, network: Network, problems: Problems, others: Problems) -> Pair:
        """Run both."""
        tokens, other_tokens = (
            torch.from_numpy(each.tokens).to(network.device) for each in (problems, others)
        )
        answers = torch.from_numpy(np.stack((problems.answer, others.answer), 1))
        sites = ("z", "attn_out", "mlp_out")
        return cls(
            network,
            tokens,
            other_tokens,
            answers.to(network.device),
            network.run(tokens, keep=("resid_pre", *sites, "rot_k", "v")),
            network.run(other_tokens, keep=("resid_pre.0", *sites)),
        )

    def unpatched(self) -> Tensor:
        """Log P(r), log P(r') and whether r wins, ``[3, prompt]``."""
        return answered(self.network, self.clean.final[:, None], self.answers)[..., 0]

    def patched(self, clean: Tensor) -> Tensor:
        """The same after each patch, ``[3, prompt, place, component]``; clean where none is."""
        shape = self.network.shape
        every = 1 + shape.layers * (shape.heads + 2)
        found = clean[:, :, None, None].repeat(1, 1, len(PLACES), every)
        for number in range(len(PLACES)):
            place = Place.of(number, self.tokens.shape[1])
            differs = (self.tokens != self.other_tokens)[:, : place.stop]
            reached = torch.nonzero(differs.any(1)).flatten()
            most = prompts_at_once(shape, every * place.slots)
            for rows in torch.split(reached, most) if len(reached) else ():
                read = answered(self.network, self._ends(rows, place), self.answers[rows])
                same = ~differs[rows][:, place.first :].any(1)
                read[:, same, 0] = clean[:, rows[same]]  # its embedding is the same
                found[:, rows, number, : read.shape[2]] = read
        return found

    def _ends(self, rows: Tensor, place: Place) -> Tensor:
        """END's stream of every branch after the last block, ``[row, branch, width]``.

        Branches come in the order of components; those that cannot reach END are left out.
        """
        pre = self.clean["resid_pre", 0][rows, place.first :]
        pre[:, : place.patched] = self.other["resid_pre", 0][rows, place.first : place.stop]
        branches = pre[:, None]
        last = self.network.shape.layers - 1
        for layer in range(last + 1):
            most = _branches_at_once(self.network.shape, len(rows) * place.slots)
            passed = [
                self._pass(rows, place, layer, some) for some in torch.split(branches, most, dim=1)
            ]
            if layer < last:
                passed.append(self._born(rows, place, layer))
            elif place.reaches_end:
                passed.append(self._born(rows, place, layer)[:, :, -1:])
            branches = torch.cat(passed, 1)
        return branches[:, :, -1]

    def _born(self, rows: Tensor, place: Place, layer: int) -> Tensor:
        """The streams behind a block of its own branches, ``[row, branch, slot, width]``."""
        network, many = self.network, place.patched

        def read(run: Activations, site: str) -> Tensor:
            return run[site, layer][rows, place.first : place.stop].flatten(0, 1)

        pre = read(self.clean, "resid_pre")[:, None]
        one_head = one_head_of(read(self.clean, "z"), read(self.other, "z"))
        written = torch.cat(
            (network.attention_out(layer, one_head), read(self.other, "attn_out")[:, None]), 1
        )
        heads = network.after_attention(layer, pre.expand_as(written), written)
        attended = pre + read(self.clean, "attn_out")[:, None]
        mlp = attended + read(self.other, "mlp_out")[:, None]
        born = torch.cat((heads, mlp), 1)
        born = born.view(len(rows), many, *born.shape[1:]).transpose(1, 2)
        if place.reaches_end:
            return born
        rest = self.clean["resid_pre", layer + 1][rows, place.stop :][:, None]
        return torch.cat((born, rest.expand(-1, born.shape[1], -1, -1)), 2)

    def _pass(self, rows: Tensor, place: Place, layer: int, branches: Tensor) -> Tensor:
        """One block for branches ``[row, branch, slot, width]``; the last one at END alone."""
        network = self.network
        if place.slots == 1:
            past = self._past(rows, layer)
            return network.block_at_end(layer, branches[:, :, 0], past)[:, :, None]
        kept = {(site, layer): self.clean[site, layer][rows] for site in ("rot_k", "v")}
        before = Prefix(Activations(kept, self.clean.final[:0], self.clean.last[:0]), place.first)
        flat = branches.flatten(0, 1)
        if layer == network.shape.layers - 1:
            return self._end_over(flat, layer, before).view(len(rows), -1, 1, flat.shape[-1])
        run = network.run(
            self.tokens.new_zeros(flat.shape[:2]),
            resid=flat,
            start=layer,
            stop=layer + 1,
            prefix=before,
            keep=(f"resid_post.{layer}",),
        )
        return run["resid_post", layer].view(branches.shape)

    def _past(self, rows: Tensor, layer: int) -> Past:
        end = self.clean.last[rows]
        keys, values = (self.clean[site, layer][rows, : int(end[0])] for site in ("rot_k", "v"))
        return Past(keys, values, end)

    def _end_over(self, resid: Tensor, layer: int, before: Prefix) -> Tensor:
        """A block at END alone, of which earlier positions are only heard: ``[row, 1, width]``."""
        network, slots = self.network, resid.shape[1]
        positions = before.position + torch.arange(slots - 1, device=resid.device)
        heard = network.attention_input(layer, resid[:, :-1])
        _, _, v, _, rot_k = network.queries_keys_values(layer, heard, positions)
        end = positions.new_full((len(resid),), before.position + slots - 1)
        past = Past(*before.before(layer, rot_k, v), end)
        return network.block_at_end(layer, resid[:, -1:], past)


def answered(network: Network, ends: Tensor, answers: Tensor) -> Tensor:
    """What END's streams say of two tokens, in fp32.

    Args:
        network: The network.
        ends: After the last block, ``[row, branch, width]``.
        answers: Token ids of r and r', ``[row, 2]``.

    Returns:
        Log-probability of r, of r', and 1 where r is the likeliest token,
        shape ``[3, row, branch]``.
    """
    found = []
    for some in torch.split(ends, _branches_at_once(network.shape, len(ends)), dim=1):
        logits = network.logits(some).float()
        chosen = logits.gather(2, answers[:, None].expand(-1, some.shape[1], -1))
        right = logits.argmax(-1) == answers[:, :1]
        logs = (chosen - logits.logsumexp(-1, keepdim=True)).permute(2, 0, 1)
        found.append(torch.cat((logs, right[None].to(logs))))
    return torch.cat(found, 2)


def _branches_at_once(shape: Shape, rows: int) -> int:
    """How many branches of so many rows keep the working memory small."""
    numbers = max(6 * shape.width + 3 * shape.mlp_width, 2 * shape.vocabulary)
    return max(1, WORKING_BYTES // (4 * numbers * rows))


def passes(shape: Shape, positions: int, *, extras: bool = True) -> float:
    """What ``localise`` costs for one problem, in forward passes of one prompt.

    A block at one position is 1 / (layers x positions) of a pass. The unembedding of each
    branch, and attention's scores, are not counted.

    Args:
        shape: The network's shape.
        positions: Tokens of a prompt.
        extras: Also the embedding, whole attention blocks and all positions at once; without
            them it is the paper's table of heads and MLPs at each position, and its two runs.
    """
    places = [Place.of(number, positions) for number in range(len(PLACES) if extras else 4)]
    blocks = sum(cost for place in places for cost in _blocks(shape, place, extras=extras))
    return 2.0 + blocks / (shape.layers * positions)


def _blocks(shape: Shape, place: Place, *, extras: bool) -> Iterator[float]:
    """Blocks at one position, layer by layer."""
    block = shape.block_parameters / shape.layers
    heads = shape.width * shape.head_width
    heard = heads * (shape.heads + 2 * shape.key_value_heads) / block
    writing = 1.0 - heard
    attentions = shape.heads + extras
    for layer in range(shape.layers):
        branches = extras + layer * (attentions + 1)
        last = layer == shape.layers - 1
        yield branches * ((1 + (place.slots - 1) * heard) if last else place.slots)
        if not last or place.reaches_end:
            yield attentions * place.patched * writing
