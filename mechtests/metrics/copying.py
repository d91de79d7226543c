"""Copy scores: does a head write the name it attends to?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mechtests.metrics.metric import Batch, Cost, Job, Metric, Value

if TYPE_CHECKING:
    from torch import Tensor

    from mechtests.models.network import Network

TOP = 5
NAMES = (("IO", "IO"), ("S1", "S"), ("S2", "S"))
SCREENS = (64, 512, 4096)
PROMPTS_AT_ONCE = 64
NUMBERS_AT_ONCE = 2**22
"""Logits held at once; several masks of that size come beside them."""
PASSING = 0.02  # seen on SmolLM2, later screens included


def _copy_scores(batch: Batch) -> Mapping[str, Tensor]:
    import torch

    network, prompts = batch.network, batch.prompts

    def tensor(ids: object) -> Tensor:
        return torch.as_tensor(ids, device=network.device)

    rows = torch.arange(len(prompts), device=network.device)[:, None]
    at = torch.stack([tensor(prompts.positions[position]) for position, _ in NAMES], 1)
    names = torch.stack([tensor(prompts.tokens[token]) for _, token in NAMES], 1)
    absent = tensor(prompts.tokens["absent"])[:, None].expand_as(names)
    resid = batch.clean["resid_post", 0][rows, at]
    order = tensor(batch.generator("vocabulary").permutation(network.shape.vocabulary))
    screens = [Reading.of(network, order[:size]) for size in SCREENS if size < len(order)]
    whole = Reading.of(network, None)
    parts = [
        _of_prompts(network, resid[part], names[part], absent[part], screens, whole)
        for part in torch.split(torch.arange(len(prompts)), PROMPTS_AT_ONCE)
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _of_prompts(
    network: Network,
    resid: Tensor,
    names: Tensor,
    absent: Tensor,
    screens: Sequence[Reading],
    whole: Reading,
) -> dict[str, Tensor]:
    """The scores of some prompts, each ``[prompt, layer, head]``.

    Args:
        network: The network.
        resid: After block 0 at the three names, shape ``[prompt, 3, width]``.
        names: The token of each, shape ``[prompt, 3]``.
        absent: A name that the prompt does not have, shape ``[prompt, 3]``.
        screens: Smallest first.
        whole: The whole vocabulary.
    """
    asked = {"copied": (names, 1.0), "copied_absent": (absent, 1.0), "negative": (names, -1.0)}
    passed: dict[str, list[Passed]] = {name: [] for name in asked}
    for layer in range(network.shape.layers):
        written = written_by_head(network, layer, resid)
        read = normed(network, written).flatten(0, -2)
        first = read @ screens[0].weight.T if screens else None
        for name, (tokens, sign) in asked.items():
            of_heads = tokens[..., None].expand(written.shape[:-1]).flatten()
            products = None if first is None else sign * first
            passed[name].append(
                Passed.all(sign * read, of_heads).screened(whole, screens, products)
            )
    shape = (network.shape.layers, *names.shape, network.shape.heads)
    return {
        name: in_top(Passed.joined(layers), whole).view(shape).float().mean(2).transpose(0, 1)
        for name, layers in passed.items()
    }


@dataclass(frozen=True, eq=False)
class Reading:
    """Some rows of the unembedding: logits are ``x @ weight.T + offset`` before a softcap.

    Attributes:
        tokens: Their ids, shape ``[row]``.
        weight: Shape ``[row, width]``.
        offset: What biases add to each logit whatever is read, shape ``[row]``, or None.
    """

    tokens: Tensor
    weight: Tensor
    offset: Tensor | None

    @classmethod
    def of(cls, network: Network, tokens: Tensor | None) -> Reading:
        """The rows of some token ids; None is the whole vocabulary, which is not copied."""
        import torch

        weight, bias = network.unembedding
        shift = network.final_norm.bias
        offset = None if shift is None else weight @ shift.to(weight)
        if bias is not None:
            offset = bias if offset is None else offset + bias
        if tokens is None:
            return cls(torch.arange(len(weight), device=weight.device), weight, offset)
        return cls(tokens, weight[tokens], None if offset is None else offset[tokens])

    def beaten_by(self, products: Tensor, own: Tensor, tokens: Tensor) -> Tensor:
        """How many of the rows reach a token's own logit, shape ``[item]``, itself left out.

        A tie counts against the token: a head that writes nothing copies nothing.

        Args:
            products: ``x @ weight.T``, shape ``[item, row]``.
            own: The token's own logit, shape ``[item]``.
            tokens: Token ids, shape ``[item]``.
        """
        logits = products if self.offset is None else products + self.offset
        return ((logits >= own[:, None]) & (self.tokens != tokens[:, None])).sum(-1)


@dataclass(frozen=True, eq=False)
class Passed:
    """The outputs whose token no screen has put out of the first five yet.

    Attributes:
        at: Their places among all outputs, shape ``[item]``.
        read: What the unembedding reads of each (``normed``), shape ``[item, width]``.
        tokens: The token each is asked about, shape ``[item]``.
        outputs: How many outputs there were.
    """

    at: Tensor
    read: Tensor
    tokens: Tensor
    outputs: int

    @classmethod
    def all(cls, read: Tensor, tokens: Tensor) -> Passed:
        """All outputs, before any screen."""
        import torch

        return cls(torch.arange(len(tokens), device=tokens.device), read, tokens, len(tokens))

    @classmethod
    def joined(cls, parts: Sequence[Passed]) -> Passed:
        """Several as one, so that few products with the whole vocabulary are large ones."""
        import torch

        starts = [sum(part.outputs for part in parts[:i]) for i in range(len(parts))]
        return cls(
            torch.cat([part.at + start for part, start in zip(parts, starts, strict=True)]),
            torch.cat([part.read for part in parts]),
            torch.cat([part.tokens for part in parts]),
            sum(part.outputs for part in parts),
        )

    def screened(
        self, whole: Reading, screens: Sequence[Reading], first: Tensor | None = None
    ) -> Passed:
        """Those that fewer than five rows of each screen beat.

        Args:
            whole: The whole vocabulary, for each token's own logit.
            screens: Smallest first.
            first: The products with the first screen, where they are at hand.
        """
        import torch

        own = torch.einsum("id,id->i", self.read, whole.weight[self.tokens])
        own = own if whole.offset is None else own + whole.offset[self.tokens]
        left = torch.arange(len(self.at), device=self.at.device)
        for screen in screens:
            kept = [left[:0]]
            for part in torch.split(left, max(1, NUMBERS_AT_ONCE // len(screen.tokens))):
                given = first is not None and screen is screens[0]
                products = first[part] if given else self.read[part] @ screen.weight.T  # type: ignore[index]
                beaten = screen.beaten_by(products, own[part], self.tokens[part])
                kept.append(part[beaten < TOP])
            left = torch.cat(kept)
        return Passed(self.at[left], self.read[left], self.tokens[left], self.outputs)


def normed(network: Network, resid: Tensor) -> Tensor:
    """The residual stream through the final norm without its bias: an odd function."""
    x = network.final_norm(resid)
    shift = network.final_norm.bias
    return x if shift is None else x - shift


def written_by_head(network: Network, layer: int, resid: Tensor) -> Tensor:
    """What each head would write if it attended to a residual stream alone, without b_O.

    Args:
        network: The network.
        layer: The heads' layer.
        resid: What is attended to, shape ``[..., width]``.

    Returns:
        Shape ``[..., head, width]``; behind a post-norm up to a positive factor.
    """
    import torch

    block, shape = network.blocks[layer], network.shape
    v = block.value(block.ln1(resid)).reshape(*resid.shape[:-1], -1, shape.head_width)
    z = v.repeat_interleave(shape.heads // shape.key_value_heads, -2)
    written = torch.einsum("...he,hed->...hd", z, block.W_O)
    return written if block.attention_post is None else written * block.attention_post.gain


def in_top(passed: Passed, whole: Reading) -> Tensor:
    """Whether each token is among the five with the highest logits, shape ``[output]``.

    Exact: a token that five rows of a screen beat is out, and what passed every screen is
    held against the whole vocabulary.
    """
    import torch

    found = torch.zeros(passed.outputs, dtype=torch.bool, device=passed.at.device)
    found[passed.screened(whole, [whole]).at] = True
    return found


def _cost(job: Job) -> Cost:
    """The first screen of each head's output, and three times the vocabulary for a few."""
    if job.shape is None:
        return Cost(forward=2.0 * job.prompts)
    shape = job.shape
    outputs = len(NAMES) * job.prompts * shape.layers * shape.heads
    rows = shape.head_width + SCREENS[0] + 3 * PASSING * shape.vocabulary
    return Cost(flops=2.0 * outputs * shape.width * rows)


SHARE = Value(("prompt", "layer", "head"), "share")

copy_scores = Metric(
    name="copying.copy_scores",
    version=1,
    compute=_copy_scores,
    values={"copied": SHARE, "copied_absent": SHARE, "negative": SHARE},
    clean=("resid_post.0",),
    cost=_cost,
    needs=("position:IO", "position:S1", "position:S2", "tokens:absent"),
)
"""The share of the positions IO, S1 and S2 whose name a head would write, by head.

The residual stream after block 0 at the name is taken through the head's values and output
alone, and read through the final norm and the unembedding: ``copied`` where the name is then
among the five highest logits, ``copied_absent`` where a name is that the prompt does not have,
``negative`` where the name is among the five lowest (the output with the other sign).

Source: Tigges et al. 2024, Figure 2 and its code (``100 * hits / 3N``; here a share), which
multiplies weights with folded norms and takes no norm of the residual stream or of the output.
We run the weights as they are, through the head's own ln1 and the final norm. Without biases
that is the same: folding puts the norms' gains into the weights, centring is the norm's own
first step, and what is left of a norm is a positive factor for each token, which no order of
logits depends on. With biases (b_V, and those of the norms and the unembedding), the folded
product adds them to a vector of another length than the one the head really reads; ours has the
head's real proportion.
"""
