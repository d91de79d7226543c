"""What happens at each site of a run: the edit, then what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mechtests.errors import UsageError
from mechtests.models.activations import END, check_site, wanted
from mechtests.models.shape import Shape

Edits = Mapping[tuple[str, int], Callable[[Tensor], Tensor]]


class Walk:
    """One run's edits and what it keeps, called at every site with what was computed there.

    Args:
        shape: The network's.
        keep: Names as for ``Network.run``.
        edits: By (site, layer).
        start: The first layer the run passes.
        last: END of each prompt, shape ``[prompt]``.

    Raises:
        UsageError: A name or an edit is for a site the run does not pass.
    """

    def __init__(
        self, shape: Shape, keep: Sequence[str], edits: Edits, start: int, last: Tensor
    ) -> None:
        for site, layer in edits:
            check_site(shape, site, layer, start)
        self.wanted = wanted(shape, keep, start)
        self.edits = edits
        self.kept: dict[tuple[str, int], Tensor] = {}
        self.last = last
        self.rows = torch.arange(len(last), device=last.device)

    def __call__(self, site: str, layer: int, value: Tensor) -> Tensor:
        """Edit the value where asked, keep it where asked, and give back what is used."""
        if edit := self.edits.get((site, layer)):
            value = _edited(site, layer, value, edit)
        for name in self.wanted.get((site, layer), ()):
            end = self.at_end(value, site) if name.endswith(END) else value
            self.kept[name, layer] = end
        return value

    def at_end(self, value: Tensor, site: str = "resid_post") -> Tensor:
        """A copy of the rows at END, shape ``[prompt, ...]``."""
        if site == "pattern":
            return value[self.rows, :, self.last]
        return value[self.rows, self.last]


def _edited(site: str, layer: int, value: Tensor, edit: Callable[[Tensor], Tensor]) -> Tensor:
    new = edit(value)
    heads_free = site in ("k", "v", "rot_k")
    same = new.shape[:2] + new.shape[3:] if heads_free else new.shape
    old = value.shape[:2] + value.shape[3:] if heads_free else value.shape
    if same != old:
        raise UsageError(
            f"the edit of {site}.{layer} must give the shape {tuple(value.shape)}, "
            f"got {tuple(new.shape)}"
        )
    return new
