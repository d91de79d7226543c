"""What a run kept: activations by site and layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mechtests.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mechtests.models.shape import Shape

END = "@end"
CHANGED = "@changed"
"""Of a corrupted run: from the first position on at which any of its prompts differs from its
clean one, so that what is before need not be run again (``Activations.start``)."""
FINAL = "final"
"""What a metric asks for to read ``Activations.final``, beside the sites."""

# In the order in which a block computes them; the names are TransformerLens's.
SITES = (
    "resid_pre",
    "q",
    "k",
    "v",
    "rot_q",
    "rot_k",
    "pattern",
    "z",
    "attn_out",
    "resid_mid",
    "mlp_in",
    "post",
    "mlp_out",
    "resid_post",
)


def check_site(shape: Shape, site: str, layer: int, start: int = 0) -> None:
    """Refuse a site that a run from layer ``start`` does not pass.

    Raises:
        UsageError: There is no such site or layer, so what was asked for it would
            silently not happen.
    """
    if site not in SITES:
        raise UsageError(f"there is no site {site!r}; the sites are {', '.join(SITES)}")
    if site == "resid_mid" and shape.parallel:
        raise UsageError(
            "resid_mid does not exist in parallel blocks; resid_pre is what the MLP reads"
        )
    if not start <= layer < shape.layers:
        raise UsageError(
            f"{site}.{layer}: the run passes the layers {start} to {shape.layers - 1} only"
        )


def wanted(shape: Shape, keep: Sequence[str], start: int = 0) -> dict[tuple[str, int], set[str]]:
    """Under which names each (site, layer) is to be kept: ``{("z", 0): {"z@end"}}``.

    Raises:
        UsageError: A name asks for a site or a layer that is not passed.
    """
    names: dict[tuple[str, int], set[str]] = {}
    for name in keep:
        if name == FINAL:
            continue
        end = next((end for end in (END, CHANGED) if name.endswith(end)), "")
        site, _, layer = name.removesuffix(end).partition(".")
        if layer and not layer.isdecimal():
            raise UsageError(
                f"{name!r} is not a site to keep: write 'z', 'z.3', 'z@end' or 'z.3@end'"
            )
        for at in [int(layer)] if layer else range(start, shape.layers):
            check_site(shape, site, at, start)
            names.setdefault((site, at), set()).add(site + end)
    return names


@dataclass(frozen=True, eq=False)
class Activations:
    """Activations of one run over some prompts.

    Attributes:
        kept: By (name, layer); a name is a site, or a site and ``@end``. Shapes start
            ``[prompt, position, ...]``, those at the end ``[prompt, ...]``, patterns
            are ``[prompt, head, query, key]``.
        final: The residual stream after the last block at each prompt's END, shape
            ``[prompt, width]``; of width 0 where the run stopped before.
        last: END of each prompt, shape ``[prompt]``.
        start: The position of the prompts that what is kept begins with.
    """

    kept: Mapping[tuple[str, int], Tensor]
    final: Tensor
    last: torch.LongTensor | Tensor
    start: int = 0

    def __getitem__(self, at: tuple[str, int]) -> Tensor:
        """The activations of a site at a layer: ``activations["z", 3]``.

        Raises:
            UsageError: They were not kept.
        """
        if at not in self.kept:
            names = sorted({name for name, _ in self.kept})
            raise UsageError(
                f"{at[0]} of layer {at[1]} was not kept by this run, which kept "
                f"{', '.join(names) or 'nothing'}; ask for it in the metric's clean or corrupted"
            )
        return self.kept[at]

    def layers(self, name: str) -> list[int]:
        """The layers at which a name was kept, first to last."""
        return sorted(layer for kept, layer in self.kept if kept == name)

    def stack(self, name: str) -> Tensor:
        """A name at all layers that were kept, shape ``[prompt, layer, ...]`` (a copy).

        Raises:
            UsageError: It was not kept.
        """
        import torch

        layers = self.layers(name) or [0]
        return torch.stack([self[name, layer] for layer in layers], dim=1)

    @property
    def nbytes(self) -> int:
        """Memory of what is held, each storage once."""
        tensors = [*self.kept.values(), self.final]
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        return sum(storages.values())


def layers_for(shape: Shape, keep: Sequence[str]) -> int:
    """How many layers a run must pass for what is to be kept.

    Raises:
        UsageError: A name asks for a site or a layer that does not exist.
    """
    if FINAL in keep:
        return shape.layers
    return 1 + max((layer for _, layer in wanted(shape, keep)), default=-1)


def bytes_kept(shape: Shape, keep: Sequence[str], position: int, itemsize: int = 4) -> int:
    """Memory of what a run keeps of one prompt; arguments as for ``bytes_per_prompt``."""
    kept = sum(
        _size(shape, site, 1 if name.endswith(END) else position, position)
        for (site, _), names in wanted(shape, keep).items()
        for name in names
    )
    return itemsize * (kept + shape.width)


def bytes_per_prompt(shape: Shape, keep: Sequence[str], position: int, itemsize: int = 4) -> int:
    """Memory a run needs for one prompt: what it keeps, and what one block works with.

    Args:
        shape: The network's shape.
        keep: Names as for ``Network.run``.
        position: Tokens of the prompt.
        itemsize: Bytes of a number.

    Raises:
        UsageError: A name asks for a site or a layer that does not exist.
    """
    work = 3 * _size(shape, "pattern", position, position)
    work += position * (4 * shape.mlp_width + 8 * shape.width)
    return itemsize * work + bytes_kept(shape, keep, position, itemsize)


def _size(shape: Shape, site: str, queries: int, position: int) -> int:
    """Numbers in one prompt's activations of a site, at some query positions."""
    if site == "pattern":
        return shape.heads * queries * position
    if site in ("q", "rot_q", "z"):
        return queries * shape.heads * shape.head_width
    if site in ("k", "v", "rot_k"):
        return queries * shape.key_value_heads * shape.head_width
    return queries * (shape.mlp_width if site == "post" else shape.width)
