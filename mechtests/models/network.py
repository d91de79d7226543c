"""The only door to a model: its shape, its weights, and its forward pass, block by block.

A ``Network`` wraps a loaded Hugging Face decoder in a raw ``TransformerBridge`` (flags off),
which knows where every architecture keeps its parts, and runs an explicit forward of its own
over those parts: it can start at any layer, keep or edit any site, run END alone over a shared
past, and be differentiated. The bridge stays reachable for hooks by TransformerLens's names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mechtests.errors import UsageError
from mechtests.models.activations import Activations
from mechtests.models.attention import Past, Prefix, attend_at_end, mask, mix, normalize, scores
from mechtests.models.blocks import ARCHITECTURES, read_blocks
from mechtests.models.bridging import bridge_model, digest_weights, plain_logits, refuse_unsupported
from mechtests.models.components import Linear, Norm
from mechtests.models.shape import Shape
from mechtests.models.walk import Edits, Walk

__all__ = ["Network", "Shape"]


class Network:
    """A loaded decoder, read-only.

    Attributes:
        name: The cell it came from, for messages.
        architecture: The Hugging Face class: ``"GPTNeoXForCausalLM"``.
        shape: Its sizes.
        digest: SHA-256 over every parameter's name, type, shape and bytes, tied ones once.
        blocks: The blocks, with ``W_Q``, ``W_K``, ``W_V``, ``W_O`` by head.
        final_norm: What the unembedding reads the residual stream through.
        unembedding: From the residual stream to logits.
        softcap: Of the logits (Gemma 2), or None.
        bridge: The raw ``TransformerBridge`` over the same weights.
        reference: Token ids and the plain model's logits on them, from before bridging.
    """

    def __init__(self, bridge: Any, model: Any, *, name: str, digest: str, reference: Any) -> None:
        config = model.config
        kind = ARCHITECTURES[type(model).__name__]
        self.name = name
        self.architecture = type(model).__name__
        self.shape = Shape.from_config(config.to_dict() | {"model_type": kind})
        self.digest = digest
        self.reference: tuple[Tensor, Tensor] = reference
        self.bridge = bridge
        self.blocks = read_blocks(bridge, config, kind, parallel=self.shape.parallel)
        self.final_norm = Norm.of(bridge.ln_final.original_component)
        self.unembedding = Linear.of(bridge.unembed.original_component)
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self._embedding = bridge.embed.original_component
        self._positions = bridge.pos_embed.original_component if kind == "gpt2" else None

    @classmethod
    def from_model(cls, model: Any, *, name: str, check: bool = True) -> Network:
        """Take over a loaded Hugging Face decoder: it is bridged in place and frozen.

        Args:
            model: Loaded with ``attn_implementation="eager"``.
            name: What to call it in messages.
            check: Run the self-check of ``models.selfcheck``.

        Raises:
            LoadError: The architecture, or an option of it, is not supported.
            SelfCheckError: The adapter does not reproduce the model.
        """
        refuse_unsupported(model, name)
        model.eval().requires_grad_(False)
        digest, reference = digest_weights(model), plain_logits(model)
        bridge = bridge_model(model, name)
        network = cls(bridge, model, name=name, digest=digest, reference=reference)
        if check:
            from mechtests.models import selfcheck

            selfcheck.check(network)
        return network

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return self.unembedding.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.unembedding.weight.device

    # ---------------------------------------------------------------- parts, on [..., width]

    def embed(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """The residual stream before the first block, shape ``[..., position, width]``.

        Args:
            tokens: Token ids, shape ``[..., position]``.
            positions: Of the tokens; counted from 0 unless said.

        Raises:
            UsageError: A prompt is longer than the model was made for.
        """
        longest = tokens.shape[-1] if positions is None else int(positions.max()) + 1
        if longest > self.shape.positions:
            raise UsageError(
                f"{self.name} was made for prompts of up to {self.shape.positions} tokens, "
                f"got one of {longest}; shorten the prompts"
            )
        embedded: Tensor = self._embedding(tokens)
        if self._positions is None:
            return embedded
        if positions is None:
            positions = torch.arange(tokens.shape[-1], device=tokens.device)
        learned: Tensor = self._positions.weight[positions]
        return embedded + learned

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """The embeddings of token ids alone, without learned positions, ``[..., width]``."""
        embedded: Tensor = self._embedding(tokens)
        return embedded

    def attention_input(self, layer: int, resid: Tensor) -> Tensor:
        """What attention projects: the residual stream through ln1."""
        return self.blocks[layer].ln1(resid)

    def queries_keys_values(
        self, layer: int, x: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """q, k, v, rot_q, rot_k of attention's input, each ``[..., head, head_width]``.

        Args:
            layer: The block.
            x: Attention's input, shape ``[..., width]``.
            positions: Broadcasting to ``x.shape[:-1]``.
        """
        block = self.blocks[layer]
        q, k, v = block.project(x)
        return q, k, v, block.rotated_query(q, positions), block.rotated_key(k, positions)

    def attention_out(self, layer: int, z: Tensor) -> Tensor:
        """What attention writes, from z ``[..., head, head_width]``; biases and post-norm in."""
        return self.blocks[layer].attention_out(z)

    def mlp_input(self, layer: int, resid_mid: Tensor) -> Tensor:
        """The MLP's normed input; of a parallel block ``resid_mid`` is its ``resid_pre``."""
        return self.blocks[layer].ln2(resid_mid)

    def mlp_out(self, layer: int, resid_mid: Tensor) -> Tensor:
        """What the MLP writes from ``resid_mid`` (``resid_pre`` in a parallel block)."""
        return self.blocks[layer].mlp(self.mlp_input(layer, resid_mid))

    def after_attention(self, layer: int, resid_pre: Tensor, attn_out: Tensor) -> Tensor:
        """The residual stream after the block, given what attention wrote."""
        mid = resid_pre + attn_out
        return mid + self.mlp_out(layer, resid_pre if self.shape.parallel else mid)

    def logits(self, resid: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Logits of a residual stream ``[prompt, ..., width]`` after the last block.

        Args:
            resid: The residual stream, with leading prompt axis.
            tokens: Only the logits of these token ids, shape ``[prompt, answer]``; a
                padding of -1 is read as the last token, so mask what it gives.

        Returns:
            Shape ``[prompt, ..., vocabulary]``, or ``[prompt, ..., answer]``.
        """
        x = self.final_norm(resid)
        weight, bias = self.unembedding
        if tokens is None:
            out = self.unembedding(x)
        else:
            out = torch.einsum("p...d,pad->p...a", x, weight[tokens])
            if bias is not None:
                chosen = bias[tokens]
                out = out + chosen.view(len(chosen), *[1] * (out.ndim - 2), -1)
        return out if self.softcap is None else torch.tanh(out / self.softcap) * self.softcap

    # ---------------------------------------------------------------- runs

    def run(
        self,
        tokens: Tensor,
        *,
        keep: Sequence[str] = (),
        edits: Edits | None = None,
        start: int = 0,
        stop: int | None = None,
        resid: Tensor | None = None,
        last: Tensor | None = None,
        prefix: Prefix | None = None,
    ) -> Activations:
        """Run prompts through the blocks, keeping and editing what is asked for.

        Prompts are padded on the right: attention is causal, so padding is never seen by
        what stands before it. Grad mode is the caller's; weights are frozen, so nothing
        is recorded unless ``resid`` or an edit asks for it.

        Args:
            tokens: Token ids, shape ``[prompt, position]``.
            keep: Names of ``models.activations.SITES``: ``"z"`` at all layers, ``"z.3"``
                at one, ``"z@end"`` at each prompt's last position only.
            edits: By (site, layer), a function from what was computed there to what is
                used instead; k and v may come back with a copy for every query head.
            start: The first layer to run.
            stop: The first layer not to run any more; all are run unless said.
            resid: The residual stream before that layer, in place of the embedding.
            last: END of each prompt, shape ``[prompt]``; the last column unless said.
            prefix: What stands before ``tokens``, from a run of prompts that begin alike:
                then only these tokens are run, and ``last`` and all that is kept count
                positions from the first of them.

        Raises:
            UsageError: A site does not exist, or is not passed from ``start`` on; or an
                edit gives another shape.
        """
        if start and resid is None:
            raise UsageError(f"a run from layer {start} needs the residual stream before it")
        if last is None:
            last = torch.full((len(tokens),), tokens.shape[1] - 1)
        walk = Walk(self.shape, keep, edits or {}, start, last.to(self.device))
        before = 0 if prefix is None else prefix.position
        positions = torch.arange(before, before + tokens.shape[1], device=self.device)
        resid = self.embed(tokens, positions) if resid is None else resid
        masks: dict[int | None, Tensor] = {}
        stop = self.shape.layers if stop is None else stop
        for layer in range(start, stop):
            window = self.blocks[layer].window
            if window not in masks:
                whole = mask(before + resid.shape[1], window, resid.device)
                masks[window] = whole[before:]
            resid = self._block(layer, resid, positions, masks[window], walk, prefix)
        final = walk.at_end(resid)
        return Activations(
            walk.kept, final if stop == self.shape.layers else final[:, :0], walk.last
        )

    def _block(
        self,
        layer: int,
        resid: Tensor,
        positions: Tensor,
        seen: Tensor,
        walk: Walk,
        prefix: Prefix | None = None,
    ) -> Tensor:
        block = self.blocks[layer]
        resid = walk("resid_pre", layer, resid)
        parts = block.project(block.ln1(resid))
        q, k, v = (walk(site, layer, part) for site, part in zip("qkv", parts, strict=True))
        rot_q = walk("rot_q", layer, block.rotated_query(q, positions))
        rot_k = walk("rot_k", layer, block.rotated_key(k, positions))
        if prefix is not None:
            rot_k, v = prefix.before(layer, rot_k, v)
        products = scores(rot_q, rot_k)
        pattern = walk("pattern", layer, normalize(products, seen, block.scale, block.softcap))
        z = walk("z", layer, mix(pattern, v))
        attn_out = walk("attn_out", layer, block.attention_out(z))
        if self.shape.parallel:
            mid, rest = resid, attn_out
        else:
            mid, rest = walk("resid_mid", layer, resid + attn_out), None
        neurons = walk("post", layer, block.neurons(walk("mlp_in", layer, block.ln2(mid))))
        mlp_out = walk("mlp_out", layer, block.neurons_out(neurons))
        post = mid + mlp_out if rest is None else mid + rest + mlp_out
        return walk("resid_post", layer, post)

    def block_at_end(
        self,
        layer: int,
        resid: Tensor,
        past: Past,
        *,
        edit_z: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """One block for alternatives of each prompt's END over the past they share.

        Equal to a whole run whose residual stream differs at END alone, at a fraction of
        its cost: queries, keys and values are computed for END only.

        Args:
            layer: The block.
            resid: Before the block, shape ``[prompt, branch, width]``.
            past: Keys and values of the prompts' clean run at this layer.
            edit_z: From z ``[prompt, branch, head, head_width]`` to what is used instead.

        Returns:
            After the block, shape ``[prompt, branch, width]``.
        """
        block = self.blocks[layer]
        x = block.ln1(resid)
        _, _, v, rot_q, rot_k = self.queries_keys_values(layer, x, past.end[:, None])
        z = attend_at_end(
            rot_q, rot_k, v, past, scale=block.scale, softcap=block.softcap, window=block.window
        )
        z = z if edit_z is None else edit_z(z)
        return self.after_attention(layer, resid, block.attention_out(z))
