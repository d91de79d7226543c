"""The measurement of heuristics: which the important neurons match, and what controls match.

Heuristics are stored as numbers (``heuristics.encoded``), so that claims and other measurements
read them without matching again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mechtests.arithmetic.components import late_layers
from mechtests.arithmetic.heuristics import ENCODED, encoded
from mechtests.arithmetic.measures import answers_here
from mechtests.arithmetic.neuron_measures import (
    GROUPS,
    LATE_SHARE,
    attribution_here,
    top_neurons,
)
from mechtests.arithmetic.neuron_sets import count_of
from mechtests.metrics.effects import WORKING_BYTES
from mechtests.metrics.metric import Batch, Cost, Job, Metric, Need, Value
from mechtests.tasks.arithmetic import NAMES, arithmetic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mechtests.arithmetic.matching import Matched
    from mechtests.arithmetic.problems import Problems
    from mechtests.measurement import Measurement
    from mechtests.models.network import Network

Floats = Any
TOP, ROTATED, OUTSIDE, UNTRAINED = range(4)
FEWEST_ROTATED = 64
"""Mixtures of fewer neurons match nearly as often as the neurons themselves (``nulls.rotated``)."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Neurons of one layer, with what is to be said of each."""

    layer: int
    neurons: NDArray[np.int64]
    kind: int


def _columns(ranked: Measurement, place: int, generator: np.random.Generator) -> list[Columns]:
    """Top neurons with any tenth left out, those to be rotated, and some from the lower half.

    Args:
        ranked: The measurement of ``attribution``.
        place: The operator's place in it.
        generator: Draws the neurons outside.
    """
    groups = np.arange(GROUPS)
    whole = top_neurons(ranked, place)
    union = np.any([whole, *(top_neurons(ranked, place, kept=groups != g) for g in groups)], axis=0)
    many = max(int(whole[0].sum()), FEWEST_ROTATED)
    total = ranked["effect"][place, 0].sum(0)
    found = []
    for at, layer in enumerate(int(layer) for layer in ranked["layers"]):
        order = np.argsort(-total[at], kind="stable")
        lower = order[len(order) // 2 :]
        outside = generator.choice(lower, min(len(lower), many), replace=False)
        found += [
            Columns(layer, np.flatnonzero(union[at]), TOP),
            Columns(layer, order[:many], ROTATED),
            Columns(layer, np.sort(outside), OUTSIDE),
        ]
    return found


def _activations(
    network: Network, problems: Problems, columns: Sequence[Columns]
) -> list[NDArray[np.float32]]:
    """What neurons are at ``=``, ``[problem, neuron]`` for each of the columns."""
    import torch

    from mechtests.models.activations import bytes_per_prompt

    layers = sorted({each.layer for each in columns})
    keep = [f"post.{layer}@end" for layer in layers]
    size = bytes_per_prompt(network.shape, keep, problems.tokens.shape[1])
    parts: list[list[Any]] = [[] for _ in columns]
    tokens = torch.from_numpy(problems.tokens).to(network.device)
    for some in torch.split(tokens, max(1, WORKING_BYTES // size)):
        run = network.run(some, keep=keep, stop=max(layers) + 1)
        for part, each in zip(parts, columns, strict=True):
            values = run["post@end", each.layer]
            part.append(values[:, torch.from_numpy(each.neurons)].float().cpu())
    return [torch.cat(part).numpy() for part in parts]


def _tokens_of(problems: Problems, results: NDArray[np.int64]) -> NDArray[np.int64]:
    """The token of each result."""
    known, at = np.unique(problems.result, return_index=True)
    tokens: NDArray[np.int64] = problems.answer[at[np.searchsorted(known, results)]]
    return tokens


def _any(matched: Matched) -> NDArray[np.bool_]:
    """Whether each neuron matches a heuristic that is more than a single value."""
    from mechtests.arithmetic.matching import matched as matches

    counted = matches(matched.with_lens)[:, ~matched.library.excluded]
    return np.asarray(counted.any(1), bool)


def _aucs(matched: Matched, lens: Floats, layers: Floats) -> dict[str, list[Any]]:
    """How well value vectors tell a neuron's own class, and those of others of its layer.

    For each neuron its best direct and its best indirect heuristic, from activations alone.

    Returns:
        By ``direct`` and ``indirect``, rows of own and mean of others.
    """
    from mechtests.arithmetic.libraries import pairs_inside
    from mechtests.arithmetic.logit_lens import lens_auc
    from mechtests.arithmetic.matching import matched as matches

    library, found = matched.library, {}
    total = np.bincount(np.unique(library.result, return_inverse=True)[1])
    allowed = ~library.excluded
    for name, kind in (("direct", library.direct), ("indirect", ~library.direct)):
        candidates = np.where(kind & allowed, matched.alone, -1.0)
        best = candidates.argmax(1)
        mine = np.flatnonzero(matches(candidates.max(1).astype(np.float32)))
        rows: list[Any] = []
        if len(mine):
            inside = pairs_inside(library, best[mine].tolist()).astype(np.float64)
            table = lens_auc(lens, inside, total.astype(np.float64))
            for row, neuron in enumerate(mine):
                same = layers == layers[neuron]
                if np.isfinite(table[row]).all():
                    rows.append((table[row, neuron], table[row, same].mean()))
        found[name] = rows
    return found


def seen(
    network: Network, problems: Problems, some: Sequence[Columns]
) -> tuple[list[Any], list[Any]]:
    """Activations and logit lens of some neurons, by column."""
    from mechtests.arithmetic.logit_lens import value_logits

    tokens = _tokens_of(problems, np.unique(problems.result)).tolist()
    lenses = [value_logits(network, each.layer, each.neurons.tolist(), tokens) for each in some]
    return _activations(network, problems, some), lenses


def _told(operator: int, layers: Any, neurons: Any, kind: int, matched: Any) -> Any:
    """Rows of ``columns``."""
    same = np.ones_like(layers)
    return np.column_stack((operator * same, layers, neurons, kind * same, matched))


def _heuristics(batch: Batch) -> Mapping[str, Any]:
    from mechtests.arithmetic.matching import matched as matches
    from mechtests.arithmetic.matching import scores_of
    from mechtests.arithmetic.nulls import rotated
    from mechtests.arithmetic.problems import Problems

    network, ranked = batch.network, batch.inputs["attribution"]
    gated = network.blocks[0].mlp_gate is not None
    columns: list[Any] = []
    table: dict[tuple[int, ...], int] = {}
    triples: list[Any] = []
    aucs: list[Any] = []
    for place, operator in enumerate(int(op) for op in ranked["operators"]):
        problems = Problems.of(batch.prompts).of_operator(operator)
        draw = batch.generator(f"controls of {NAMES[operator]}")
        some = _columns(ranked, place, draw)
        acts, lenses = seen(network, problems, some)
        for at, each in enumerate(some):
            if each.kind == ROTATED:
                acts[at], lenses[at] = rotated(acts[at], lenses[at], draw)
        for kind in (TOP, ROTATED, OUTSIDE):
            of = [at for at, each in enumerate(some) if each.kind == kind]
            neurons = np.concatenate([some[at].neurons for at in of])
            layer = np.concatenate([np.full(len(some[at].neurons), some[at].layer) for at in of])
            joined = np.concatenate([acts[at] for at in of], 1)
            lens = np.concatenate([lenses[at] for at in of], 1)
            found = scores_of(problems, operator, joined, lens, gated=gated, alone=kind == TOP)
            columns.append(_told(operator, layer, neurons, kind, _any(found)))
            if kind != TOP:
                continue
            for name, rows in _aucs(found, lens, layer).items():
                aucs += [(operator, float(name == "direct"), *row) for row in rows]
            for neuron, heuristic in zip(*np.nonzero(matches(found.with_lens)), strict=True):
                key = tuple(encoded(found.library.heuristics[heuristic]))
                number = table.setdefault(key, len(table))
                value = float(found.with_lens[neuron, heuristic])
                triples.append((operator, layer[neuron], neurons[neuron], number, value))
    return {
        "columns": np.concatenate(columns).astype(np.int64),
        "heuristics": np.array(list(table), np.int64).reshape(-1, ENCODED),
        "triples": np.array([each[:4] for each in triples], np.int64).reshape(-1, 4),
        "scores": np.array([each[4] for each in triples], np.float64),
        "auc": np.array(aucs, np.float64).reshape(-1, 4),
    }


def _random_neurons(batch: Batch) -> Mapping[str, Any]:
    from mechtests.arithmetic.matching import scores_of
    from mechtests.arithmetic.problems import Problems

    network, every = batch.network, Problems.of(batch.prompts)
    shape, gated = network.shape, network.blocks[0].mlp_gate is not None
    told = []
    for operator in range(len(NAMES)):
        draw = batch.generator(f"neurons for {NAMES[operator]}")
        count = max(FEWEST_ROTATED, count_of(LATE_SHARE, shape.mlp_width))
        count = min(shape.mlp_width, count)
        problems = every.of_operator(operator)
        some = [
            Columns(layer, np.sort(draw.choice(shape.mlp_width, count, False)), UNTRAINED)
            for layer in late_layers(shape.layers)
        ]
        acts, lenses = (np.concatenate(each, 1) for each in seen(network, problems, some))
        found = scores_of(problems, operator, acts, lenses, gated=gated, alone=False)
        layers = np.repeat([each.layer for each in some], count)
        neurons = np.concatenate([each.neurons for each in some])
        told.append(_told(operator, layers, neurons, UNTRAINED, _any(found)))
    return {"columns": np.concatenate(told).astype(np.int64)}


def _cost(job: Job) -> Cost:
    return Cost(forward=float(job.prompts))


heuristics = Metric(
    name="arithmetic.heuristics",
    version=1,
    compute=_heuristics,
    values={
        "columns": Value(("column", "fact"), "see the docstring"),
        "heuristics": Value(("heuristic", "number"), "encoded"),
        "triples": Value(("triple", "fact"), "see the docstring"),
        "scores": Value(("triple",), "share"),
        "auc": Value(("neuron", "fact"), "see the docstring"),
    },
    inputs=("answers", "attribution"),
    cost=_cost,
    whole=True,
)
"""Which heuristics the important neurons of the middle and late layers match, by Algorithm 1.

``columns``: operator, layer, neuron, kind, and whether it matches a heuristic that is more than a
single value. Kinds: ``TOP``, the 1.5% of a layer with the largest mean effect on the selection
half, with those that are in it when a tenth of the problems is left out; ``ROTATED``, random
mixtures of a layer's top neurons, at least 64; ``OUTSIDE``, as many from the lower half.
``triples``: operator, layer, neuron, place in ``heuristics``, with ``scores``, of ``TOP``.
``auc``: operator, whether direct, how well the neuron's value vector tells the results of the
heuristic that its activations alone match best, and how well those of its layer do on average.
Source: Nikankin et al. 2025, pages 6 and 7, and appendix E.
"""


random_neurons = Metric(
    name="arithmetic.random_neurons",
    version=1,
    compute=_random_neurons,
    values={"columns": Value(("column", "fact"), "as in arithmetic.heuristics")},
    cost=_cost,
    whole=True,
)
"""Whether random neurons of the middle and late layers match a heuristic: 1.5%, 64 at least.

For an untrained cell, in which no ranking of neurons means anything.
"""


def heuristics_here() -> Need:
    """What the important neurons match."""
    inputs = {"answers": answers_here(), "attribution": attribution_here()}
    return heuristics(arithmetic, inputs=inputs)


def untrained_neurons() -> Need:
    """What random neurons of the untrained cell match."""
    return random_neurons(arithmetic, cell="untrained")


def matching(columns: NDArray[np.int64], kind: int) -> dict[int, NDArray[np.bool_]]:
    """Whether each neuron of a kind matches, by operator, ``[column]``.

    Args:
        columns: Of a measurement, or of several.
        kind: ``TOP``, ``ROTATED``, ``OUTSIDE`` or ``UNTRAINED``.
    """
    rows = columns[columns[:, 3] == kind]
    return {int(op): rows[rows[:, 0] == op, 4].astype(bool) for op in np.unique(rows[:, 0])}


def matched_share(found: Any, ranked: Any) -> Callable[[NDArray[np.bool_]], float]:
    """The share of the top neurons that match, mean over operators, from which groups are kept.

    Args:
        found: A measurement of ``heuristics``.
        ranked: The measurement of ``attribution`` that ranks.
    """
    rows = found["columns"][found["columns"][:, 3] == TOP]
    matched = {tuple(row[:3]): bool(row[4]) for row in rows.tolist()}
    layers = [int(layer) for layer in ranked["layers"]]

    def share(kept: NDArray[np.bool_]) -> float:
        each = []
        for place, operator in enumerate(int(op) for op in ranked["operators"]):
            mask = top_neurons(ranked, place, kept=kept)
            top = [(operator, layers[at], int(n)) for at, n in zip(*np.nonzero(mask), strict=True)]
            each.append(np.mean([matched[neuron] for neuron in top]))
        return float(np.mean(each))

    return share
