"""Copy-suppression-preserving ablation: what is kept of a head, and how far the logits move.

Vectors are those of the folded and centred model: a direct output reaches the logits by
``gain * (output - its mean) / scale`` and the unembedding, the scale being frozen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from mechtests.models.activations import Activations
    from mechtests.models.blocks import Block
    from mechtests.models.network import Network

SHARE = 0.05
"""Of the context, so much may be predicted enough to be suppressed."""


def kept_tokens(lens: Tensor, tokens: Tensor, function: Tensor) -> Tensor:
    """Which source tokens each position predicts enough, shape ``[query, key]``.

    Of the tokens seen so far, each counted once and function words left out, those with the
    ``ceil(0.05 * (query + 1))`` highest logits are kept, wherever they stand.

    Args:
        lens: Logit of each key's token at each query, shape ``[query, key]``.
        tokens: Token ids, shape ``[key]``.
        function: Whether a function word, a mark or BOS stands there, shape ``[key]``.
    """
    import torch

    positions = torch.arange(len(tokens), device=tokens.device)
    first = (tokens[:, None] == tokens).int().argmax(1)
    usable = (positions <= positions[:, None]) & ~function.bool()
    nothing = lens.new_tensor(float("-inf"))
    logits = torch.where(usable, lens[:, first], nothing)
    ranked = torch.where(first == positions, logits, nothing).sort(-1, descending=True).values
    most = ((positions + 1) * SHARE - 1e-9).ceil().long()
    least = ranked.gather(1, most[:, None] - 1)
    return usable & (logits >= least)


def written(block: Block, z: Tensor) -> Tensor:
    """Every z in the scale of the stream: behind a post-norm, divided by its scale.

    Args:
        block: The heads' block.
        z: All heads' z, shape ``[..., head, head_width]``.
    """
    return z / post_scale(block, z)[..., None]


def post_scale(block: Block, z: Tensor) -> Tensor:
    """What a post-norm divides the heads' outputs by, shape ``[..., 1]``; 1 without one."""
    import torch

    if block.attention_post is None:
        return torch.ones((*z.shape[:-2], 1), dtype=z.dtype, device=z.device)
    return block.attention_post.scale(block.output(z.flatten(-2)))


def outputs(block: Block) -> Tensor:
    """W_O with the gain of a post-norm, shape ``[head, head_width, width]``."""
    gain = None if block.attention_post is None else block.attention_post.gain
    return block.W_O if gain is None else block.W_O * gain.to(block.W_O)


@dataclass(frozen=True, eq=False)
class Document:
    """One document and what was kept of its run.

    Attributes:
        network: Where it ran.
        row: Its place among the prompts of the run.
        run: The run, with ``resid_pre``, ``pattern`` and ``v`` at every position.
        tokens: Its token ids, shape ``[position]``.
        function: Where its function words are, shape ``[position]``.
        mean: Every head's mean ``written`` z at each position, ``[position, layer, head,
            head_width]``.
        layers: The layers whose heads are ablated.
    """

    network: Network
    row: int
    run: Activations
    tokens: Tensor
    function: Tensor
    mean: Tensor
    layers: Sequence[int]

    def read(self, output: Tensor) -> Tensor:
        """Direct outputs as the unembedding reads them, but for the frozen scale."""
        norm = self.network.final_norm
        output = output - output.mean(-1, keepdim=True) if norm.centred else output
        return output * norm.gain.to(output)

    def z(self, layer: int) -> Tensor:
        """Every head's z, shape ``[position, head, head_width]``."""
        from mechtests.models.attention import mix

        at = slice(self.row, self.row + 1)
        return mix(self.run["pattern", layer][at], self.run["v", layer][at])[0]

    def final(self) -> Tensor:
        """The residual stream after the last block, shape ``[position, width]``."""
        last = self.network.shape.layers - 1
        attention = self.network.attention_out(last, self.z(last))
        return self.network.after_attention(last, self.run["resid_pre", last][self.row], attention)

    def directions(self, centre: Tensor | None) -> Tensor:
        """The unit vector that raises each token's logit most, shape ``[key, width]``."""
        norm = self.network.final_norm
        rows = self.network.unembedding.weight[self.tokens]
        raised = (rows if centre is None else rows - centre) * norm.gain.to(rows)
        raised = raised - raised.mean(-1, keepdim=True) if norm.centred else raised
        length: Tensor = raised.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        return raised / length

    def lens(self, layer: int) -> Tensor:
        """Logit of each key's token in each query's ``resid_pre``, ``[query, key]``."""
        resid = self.run["resid_pre", layer][self.row]
        x = self.read(resid) / self.network.final_norm.scale(resid).to(resid)
        return x @ self.network.unembedding.weight[self.tokens].T

    def coefficients(self, layer: int, directions: Tensor) -> Tensor:
        """What is preserved along each kept source token, at most 0, ``[query, head, key]``.

        The term of a source is attention times what its value writes; its difference from
        attention times the head's mean output is projected on the token's direction.
        """
        import torch

        block, shape = self.network.blocks[layer], self.network.shape
        kept = kept_tokens(self.lens(layer), self.tokens, self.function)
        values = self.run["v", layer][self.row]
        values = values.repeat_interleave(shape.heads // shape.key_value_heads, 1)
        along = torch.einsum("hwd,kd->hkw", outputs(block), directions)
        theirs = torch.einsum("khw,hkw->hk", values, along)
        usual = torch.einsum("qhw,hkw->qhk", self.mean[:, layer], along)
        scale = post_scale(block, self.z(layer))[..., None]
        pattern = self.run["pattern", layer][self.row].transpose(0, 1)
        terms = pattern * (theirs / scale - usual)
        return torch.where(kept[:, None], terms.clamp_max(0.0), 0.0)

    def changes(
        self, centre: Tensor | None, at_once: int
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Changes of the residual stream, some positions at a time.

        Args:
            centre: The mean row of the unembedding, where it is taken out.
            at_once: How many positions.

        Yields:
            The positions; the change by mean ablation, ``[position, layer * head, width]``;
            and what preserving adds to it, of the same shape.
        """
        import torch

        directions = self.directions(centre)
        added = [self.coefficients(layer, directions) for layer in self.layers]
        missing = [
            self.mean[:, layer] - written(self.network.blocks[layer], self.z(layer))
            for layer in self.layers
        ]
        for start in range(0, len(self.tokens), at_once):
            part = slice(start, start + at_once)
            ablated = [
                torch.einsum("qhw,hwd->qhd", z[part], outputs(self.network.blocks[layer]))
                for z, layer in zip(missing, self.layers, strict=True)
            ]
            back = torch.cat([kept[part] for kept in added], 1)
            yield part, torch.cat(ablated, 1), back @ directions
