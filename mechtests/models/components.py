"""The parts of a block as plain functions over the loaded weights: linear, norm, rotary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Linear(NamedTuple):
    """A linear map: ``weight [out, in]`` and ``bias [out]``, views of the loaded parameters."""

    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, module: Any) -> Linear:
        """The map of a torch ``Linear`` or of GPT-2's ``Conv1D``, which stores it transposed."""
        conv = type(module).__name__ == "Conv1D"
        return cls(module.weight.T if conv else module.weight, module.bias)

    def __call__(self, x: Tensor) -> Tensor:
        """``[..., in]`` to ``[..., out]``."""
        return functional.linear(x, self.weight, self.bias)


@dataclass(frozen=True, eq=False)
class Norm:
    """A layer norm or an RMS norm: ``gain * (x - mean) / scale (+ bias)``.

    Computed in at least fp32, as the models do. We round once, at the end, where Llama
    rounds before its gain: the same in fp32, one rounding apart in half precision.

    Attributes:
        gain: What the normalized input is multiplied with, shape ``[width]``; Gemma's
            ``1 + weight`` included.
        bias: Shape ``[width]``, or None.
        eps: Added to the mean square.
        centred: A layer norm, which subtracts the mean.
    """

    gain: Tensor
    bias: Tensor | None
    eps: float
    centred: bool

    @classmethod
    def of(cls, module: Any) -> Norm:
        """The norm of a torch or Hugging Face module."""
        if isinstance(module, torch.nn.LayerNorm):
            return cls(module.weight, module.bias, module.eps, True)
        eps = module.eps if hasattr(module, "eps") else module.variance_epsilon
        gemma = type(module).__name__.startswith("Gemma")
        wide = torch.promote_types(module.weight.dtype, torch.float32)
        return cls(1.0 + module.weight.to(wide) if gemma else module.weight, None, eps, False)

    def _wide(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return wide - wide.mean(-1, keepdim=True) if self.centred else wide

    def scale(self, x: Tensor) -> Tensor:
        """What the (centred) input is divided by, shape ``[..., 1]``."""
        return (self._wide(x).pow(2).mean(-1, keepdim=True) + self.eps).sqrt()

    def __call__(self, x: Tensor) -> Tensor:
        """``[..., width]`` to ``[..., width]``."""
        wide = torch.promote_types(x.dtype, torch.float32)
        gain = self.gain.to(wide)
        bias = None if self.bias is None else self.bias.to(wide)
        shape = (x.shape[-1],)
        if self.centred:
            return functional.layer_norm(x.to(wide), shape, gain, bias, self.eps).to(x.dtype)
        return functional.rms_norm(x.to(wide), shape, gain, self.eps).to(x.dtype)

    def pullback(self, x: Tensor, gradient: Tensor) -> Tensor:
        """The gradient at the input from one at the output: ``J^T g``, exact with eps.

        Args:
            x: The input, shape ``[..., width]``.
            gradient: At the output, shape ``[..., *more, width]`` broadcasting with x.
        """
        scale = self.scale(x)
        normalized = self._wide(x) / scale
        inner = gradient * self.gain
        inner = inner - normalized * (inner * normalized).mean(-1, keepdim=True)
        if self.centred:
            inner = inner - inner.mean(-1, keepdim=True)
        return (inner / scale).to(gradient.dtype)


@dataclass(eq=False)
class Rotary:
    """Rotary position embedding of the first channels of each head.

    Attributes:
        source: ``source(n)`` gives the model's own ``(cos, sin)`` of the positions below
            n, each ``[position, channel]``.
        interleaved: Channels are paired as neighbours (GPT-J), else as halves.
    """

    source: Callable[[int], tuple[Tensor, Tensor]]
    interleaved: bool
    _table: tuple[Tensor, Tensor] | None = field(default=None, init=False, repr=False)
    _last: tuple[Tensor, tuple[Tensor, Tensor]] | None = field(default=None, init=False, repr=False)

    def table(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """``(cos, sin)`` at some positions, each ``[..., 1, channel]``.

        Those of the same tensor are kept from the layer before.
        """
        if self._last is None or self._last[0] is not positions:
            needed = int(positions.max()) + 1
            if self._table is None or len(self._table[0]) < needed:
                self._table = self.source(max(64, needed))
            cos, sin = (part[positions].unsqueeze(-2) for part in self._table)
            self._last = positions, (cos, sin)
        return self._last[1]

    def __call__(self, x: Tensor, positions: Tensor) -> Tensor:
        """Rotate ``x [..., head, head_width]``; positions broadcast to ``x.shape[:-2]``."""
        return self.turned(x, *self.table(positions))

    def turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate ``x [..., head, head_width]`` by angles of the shape ``[..., 1, channel]``."""
        channels = cos.shape[-1]
        out = x.clone()
        out[..., :channels].mul_(cos)
        (first, second), (sin_first, sin_second), (out_first, out_second) = (
            self._pair(part[..., :channels]) for part in (x, sin, out)
        )
        out_first.addcmul_(second, sin_first, value=-1)
        out_second.addcmul_(first, sin_second)
        return out

    def _pair(self, channels: Tensor) -> tuple[Tensor, Tensor]:
        """The first and the second channel of every pair, as views."""
        if self.interleaved:
            return channels[..., ::2], channels[..., 1::2]
        half = channels.shape[-1] // 2
        return channels[..., :half], channels[..., half:]
