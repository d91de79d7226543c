"""How far small changes of the residual stream move the next token's distribution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ROUNDS = 50
AT_ONCE = 2048
"""So many tokens at once, so that their logits stay in the cache."""
STEEP = 60.0
"""Changes of a logit above which exponentials are summed as logarithms."""


def sampled(p: Tensor, most: int, offset: float) -> tuple[Tensor, Tensor]:
    """Tokens that stand for the whole vocabulary in sums weighted by p, and their weights.

    A token is taken with probability ``min(1, c p)``, so that about ``most`` are: all likely
    ones with certainty, and of the others a systematic sample. A weighted sum over the
    vocabulary is then estimated without bias (Horvitz and Thompson); with ``most`` at or
    above the vocabulary it is exact.

    Args:
        p: Probabilities, shape ``[token]``.
        most: How many tokens to take.
        offset: Where the systematic sample starts, in [0, 1).

    Returns:
        Token ids and weights, each ``[taken]``.
    """
    import torch

    if most >= len(p):
        return torch.arange(len(p), device=p.device), p
    wide = p.double()
    certain = torch.zeros_like(p, dtype=torch.bool)
    rate = 0.0
    for _ in range(ROUNDS):
        rest = float(wide.masked_fill(certain, 0.0).sum())
        rate = (most - int(certain.sum())) / max(rest, 1e-300)
        more = (wide * rate >= 1.0) & ~certain
        if not bool(more.any()):
            break
        certain |= more
    steps = (wide * rate).masked_fill(certain, 0.0).cumsum(0) + offset
    before = torch.cat((steps.new_tensor([offset]), steps[:-1]))
    taken = (steps.floor() > before.floor()) & ~certain
    tokens = torch.cat((certain.nonzero()[:, 0], taken.nonzero()[:, 0]))
    weights = torch.where(certain[tokens], p[tokens], 1.0 / rate)
    return tokens, weights.to(p.dtype)


def log_weights(log_p: Tensor, tokens: Tensor, weights: Tensor) -> Tensor:
    """The logarithms of ``sampled``'s weights, of those too that are 0 in floats.

    Args:
        log_p: Logarithms of the probabilities, shape ``[token]``.
        tokens: The tokens taken.
        weights: What they weigh.
    """
    chosen = log_p[tokens]
    times = weights / chosen.exp()
    return chosen + times.nan_to_num(1.0).log()  # 0 / 0 where a token counts for itself


@dataclass(frozen=True, eq=False)
class Original:
    """The distribution of the next token at one position.

    Attributes:
        rows: Unembedding rows of some tokens that stand for all, ``[token, width]``.
        weight: What each of them weighs, shape ``[token]``.
        log_weight: Its logarithm, which is there where the weight is too small for a float.
        mean: The mean row of the whole vocabulary under the distribution, ``[width]``.
        logits: Of these tokens before a softcap, shape ``[token]``; None without one.
        softcap: Of the logits (Gemma 2), or None.
    """

    rows: Tensor
    weight: Tensor
    log_weight: Tensor
    mean: Tensor
    logits: Tensor | None
    softcap: float | None

    def divergence(self, change: Tensor) -> Tensor:
        """KL(original || changed), shape ``[change]``, in nats; never below 0.

        With x the change of logits less its mean under the distribution, this is
        log E[exp(x)] = log(1 + E[exp(x) - 1 - x]), whose terms are all at least 0.

        Args:
            change: Of what the unembedding reads, shape ``[change, width]``.
        """
        import torch

        curved, steepest = change.new_zeros(len(change)), change.new_zeros(len(change))
        for part, x in self._changed(change):
            steepest = torch.maximum(steepest, x.max(-1).values)
            curved += torch.expm1(x).sub_(x) @ self.weight[part]
        found = torch.log1p(curved.clamp_min_(0.0))
        steep = (steepest > STEEP).nonzero()[:, 0]
        if len(steep):
            terms = [x + self.log_weight[part] for part, x in self._changed(change[steep])]
            found[steep] = torch.cat(terms, -1).logsumexp(-1).clamp_min(0.0)
        return found

    def _changed(self, change: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The changes of logits less their mean, ``[change, token]``, some tokens at a time."""
        if self.softcap is not None:
            yield slice(None), self._softcapped(change)
            return
        mean = (change @ self.mean)[:, None]
        for start in range(0, len(self.rows), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            yield part, (change @ self.rows[part].T).sub_(mean)

    def _softcapped(self, change: Tensor) -> Tensor:
        """The change of logits behind the softcap, less its mean, ``[change, token]``."""
        import torch

        assert self.softcap is not None
        assert self.logits is not None
        before = torch.tanh(self.logits / self.softcap)
        after = torch.tanh((self.logits + change @ self.rows.T) / self.softcap)
        x = (after - before) * self.softcap
        return x - (x @ self.weight / self.weight.sum())[:, None]
