"""What differs between a model and a baseline, head by head: in what was measured, in weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mechtests import statistics
from mechtests.behind import HEAD_AXES
from mechtests.errors import MechtestsError
from mechtests.measurement import Head, Measurement
from mechtests.reporting.explanation import Change

if TYPE_CHECKING:
    from mechtests.case import Case
    from mechtests.models.components import Linear
    from mechtests.models.network import Network
    from mechtests.opening import Opened
    from mechtests.results import Results

SHOWN = 8
NEGLIGIBLE = 1e-6
"""Of a part's norm: less than this is rounding."""


def measured(results: Results, case: Case) -> dict[str, Measurement]:
    """What there is of a claim's measurements, by name; also behind a gate that is shut."""
    found = {}
    here = {name: need for name, need in case.claim.needs.items() if need.cell == "here"}
    for name, need in here.items():
        try:
            found[name] = results.measurement(need, case.cell)
        except MechtestsError:
            continue
    return found


def by_head(found: Mapping[str, Measurement]) -> bool:
    """Whether some measurement has a value for every head of every prompt."""
    return any(HEAD_AXES in each.axes.values() for each in found.values() if not each.recorded)


def changes(
    mine: Mapping[str, Measurement], theirs: Mapping[str, Measurement]
) -> tuple[tuple[Change, ...], bool]:
    """The values of heads that differ most, and whether both have the same prompts.

    Values of several units are compared by the difference over the largest value of their unit.
    """
    found: list[Change] = []
    largest = _largest([*mine.values(), *theirs.values()])
    same = True
    for name, after in mine.items():
        before = theirs.get(name)
        if before is None or after.recorded or before.recorded:
            continue
        same = same and _same_prompts(before, after)
        for value, axes in after.axes.items():
            if axes == HEAD_AXES and before.axes.get(value) == axes:
                scale = largest[after.units.get(value, "")]
                found += _changes(name, value, before, after, scale)
    found = [change for change in found if change.before != change.after]
    found.sort(key=lambda change: -abs(change.size))
    return tuple(found[:SHOWN]), same


def _largest(measurements: Iterable[Measurement]) -> dict[str, float]:
    """The largest mean of a head, by unit: what is small everywhere is no large change."""
    found: dict[str, float] = {}
    for each in measurements:
        for value, axes in each.axes.items():
            if axes == HEAD_AXES and not each.recorded:
                unit, most = each.units.get(value, ""), np.abs(each.mean(value, "evaluation")).max()
                found[unit] = max(found.get(unit, 0.0), float(most))
    return {unit: most or 1.0 for unit, most in found.items()}


def _changes(
    name: str, value: str, before: Measurement, after: Measurement, scale: float
) -> Iterator[Change]:
    """Every head's difference of one value; none where the models are of other shapes."""
    old, new = before.mean(value, "evaluation"), after.mean(value, "evaluation")
    if old.shape != new.shape:
        return
    for layer, head in np.ndindex(*old.shape):
        first, second = float(old[layer, head]), float(new[layer, head])
        yield Change(
            (layer, head),
            f"{name}.{value}",
            first,
            second,
            _difference(value, before, after, (layer, head)),
            (second - first) / scale,
        )


def _difference(
    value: str, before: Measurement, after: Measurement, head: Head
) -> tuple[float, float] | None:
    """The interval of a head's difference, prompt by prompt; None where the prompts differ."""
    if not _same_prompts(before, after):
        return None
    one, other = (each.sample(value, "evaluation", *head) for each in (after, before))
    around = statistics.summary(one - other).interval()
    return None if around is None else around.ends


def _same_prompts(before: Measurement, after: Measurement) -> bool:
    return before.facts.get("prompts") == after.facts.get("prompts")


def weights(mine: Opened, theirs: Opened) -> tuple[tuple[str, float], ...] | None:
    """The parts whose weights differ and by how much of their norm, the largest first.

    None where one of them cannot be loaded, or they are of other shapes.
    """
    try:
        before, after = dict(_parts(theirs.network)), dict(_parts(mine.network))
    except MechtestsError:
        return None
    if _shapes(before) != _shapes(after):
        return None
    sizes = {name: _relative(before[name], after[name]) for name in before}
    differ = [(name, size) for name, size in sizes.items() if size > NEGLIGIBLE]
    return tuple(sorted(differ, key=lambda each: -each[1]))


def _shapes(parts: Mapping[str, list[Any]]) -> dict[str, list[tuple[int, ...]]]:
    return {name: [tuple(tensor.shape) for tensor in part] for name, part in parts.items()}


def _relative(before: list[Any], after: list[Any]) -> float:
    pairs = [(b.double(), a.double()) for b, a in zip(before, after, strict=True)]
    norm = sum(float((b**2).sum()) for b, _ in pairs)
    moved = sum(float(((a - b) ** 2).sum()) for b, a in pairs)
    return math.sqrt(moved / (norm or 1.0))


def _parts(network: Network) -> Iterator[tuple[str, list[Any]]]:
    """Weights by the part they belong to: heads, MLPs, norms, embeddings.

    Of grouped queries keys and values belong to no single head, and are parts of their own.
    """
    import torch

    shape = network.shape
    for layer, block in enumerate(network.blocks):
        keys = [_by_head(linear, shape.head_width) for linear in (block.key, block.value)]
        queries = _by_head(block.query, shape.head_width)
        alone = shape.heads == shape.key_value_heads
        for head in range(shape.heads):
            shared = [t for key in keys for t in key[head]] if alone else []
            yield f"head {layer}.{head}", [*queries[head], block.W_O[head], *shared]
        for each in range(0 if alone else shape.key_value_heads):
            yield f"keys and values {layer}.{each}", [t for key in keys for t in key[each]]
        linear = (block.mlp_in, block.mlp_gate, block.mlp_out)
        yield f"MLP {layer}", [t for part in linear if part for t in part if t is not None]
        norms = (block.ln1, block.ln2, block.query_norm, block.key_norm)
        more = (block.attention_post, block.mlp_post)
        gains = [t for norm in (*norms, *more) if norm for t in (norm.gain, norm.bias)]
        rest = [*gains, block.output.bias]
        yield f"norms and biases {layer}", [t for t in rest if t is not None]
    yield (
        "final norm",
        [t for t in (network.final_norm.gain, network.final_norm.bias) if t is not None],
    )
    yield "unembedding", [t for t in network.unembedding if t is not None]
    with torch.no_grad():
        first = min(shape.positions, shape.vocabulary)
        ids = torch.arange(shape.vocabulary, device=network.device)
        yield "embedding", [network.embed_tokens(ids)]
        yield "positions", [network.embed(ids[:first]) - network.embed_tokens(ids[:first])]


def _by_head(linear: Linear, width: int) -> list[list[Any]]:
    """The rows of each head, and their biases."""
    import torch

    rows = torch.split(linear.weight, width)
    biases = [None] * len(rows) if linear.bias is None else torch.split(linear.bias, width)
    return [[row] if bias is None else [row, bias] for row, bias in zip(rows, biases, strict=True)]
