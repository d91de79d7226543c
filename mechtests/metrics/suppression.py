"""Copy suppression: does a head do nothing but lower what is predicted and was seen before?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mechtests.errors import MeasurementError
from mechtests.measurement import Half, Head, Measurement, Sample
from mechtests.metrics.divergence import Original, log_weights, sampled
from mechtests.metrics.metric import Batch, Cost, Job, Metric, Value
from mechtests.metrics.preserving import Document, written

if TYPE_CHECKING:
    from torch import Tensor

    from mechtests.models.shape import Shape

SUPPRESSING = 0.1
FAINT = 1e-4
"""Mean-ablation KL in nats below which a head does too little for a score (claims.md, roles)."""
FIRST_LAYER = 2
FEW_LAYERS = 4
AT_ONCE = 8
TOKENS = 2048
"""On SmolLM2 with 50 documents, twice as many give every score to within 1e-4 of these."""


def judged_layers(layers: int) -> range:
    """The layers with a score: from 2 on as in the paper's code; all of at most 4 layers."""
    return range(FIRST_LAYER if layers > FEW_LAYERS else 0, layers)


def _mean_z_by_position(batch: Batch) -> Mapping[str, Tensor]:
    import torch

    if len(set(batch.prompts.length.tolist())) > 1:
        raise MeasurementError(
            "the mean output at each position needs documents of one length, got lengths of "
            f"{batch.prompts.length.min()} to {batch.prompts.length.max()} tokens"
        )
    blocks = batch.network.blocks
    means = [
        written(block, batch.clean["z", layer]).float().mean(0)
        for layer, block in enumerate(blocks)
    ]
    return {"z": torch.stack(means, 1)}


mean_z_by_position = Metric(
    name="suppression.mean_z_by_position",
    version=1,
    compute=_mean_z_by_position,
    values={"z": Value(("position", "layer", "head", "head_width"), "activation")},
    clean=("z",),
)
"""The mean of every head's z at each position over all documents, for mean ablation.

Behind a post-norm each z is first divided by the norm's scale at its position.
"""


def _cspa(batch: Batch) -> Mapping[str, Tensor]:
    import torch

    network, prompts = batch.network, batch.prompts
    shape, device = network.shape, network.device
    mean = torch.as_tensor(batch.inputs["mean"]["z"], dtype=network.dtype, device=device)
    layers = judged_layers(shape.layers)
    centre = None if network.softcap else network.unembedding.weight.float().mean(0)
    starts = batch.generator("vocabulary").random((int(batch.rows.max()) + 1, mean.shape[0]))
    found = torch.zeros(2, len(prompts), shape.layers, shape.heads)
    for row, tokens in enumerate(prompts.clean):
        document = Document(
            network=network,
            row=row,
            run=batch.clean,
            tokens=torch.as_tensor(tokens, device=device),
            function=torch.as_tensor(prompts.tokens["function"][row], device=device),
            mean=mean,
            layers=layers,
        )
        divergences = _of_document(
            document, centre, starts[batch.rows[row]], batch.params["tokens"]
        )
        found[:, row, layers.start :] = divergences.view(2, len(layers), shape.heads)
    return {"kl_mean_ablated": found[0], "kl_preserved": found[1]}


def _of_document(
    document: Document, centre: Tensor | None, starts: NDArray[np.float64], most: int
) -> Tensor:
    """Both divergences of each head, means over positions, shape ``[2, layer * head]``."""
    import torch

    network, final = document.network, document.final()
    scale = network.final_norm.scale(final).to(final)
    weight = network.unembedding.weight
    capped = network.softcap is not None
    logits = network.unembedding(network.final_norm(final)).float() if capped else None
    log_p = network.logits(final).float().log_softmax(-1)
    p = log_p.exp()
    means = p @ weight.to(p)
    total = torch.zeros(2, len(document.layers) * network.shape.heads)
    for part, ablated, kept in document.changes(centre, AT_ONCE):
        for at, change, back in zip(range(*part.indices(len(p))), ablated, kept, strict=True):
            tokens, weights = sampled(p[at], most, float(starts[at]))
            original = Original(
                rows=(weight if len(tokens) == len(weight) else weight[tokens]).float(),
                weight=weights,
                log_weight=log_weights(log_p[at], tokens, weights),
                mean=means[at],
                logits=None if logits is None else logits[at, tokens],
                softcap=network.softcap,
            )
            some = back.any(-1).nonzero()[:, 0]
            changes = torch.cat((change, change[some] + back[some]))
            found = original.divergence(document.read(changes).float() / scale[at].float())
            total[0] += found[: len(change)]
            total[1] += found[: len(change)].index_copy(0, some, found[len(change) :])
    return total / len(p)


def _cost(job: Job) -> Cost:
    """Products of matrices, as if every head kept something at every position."""
    if job.shape is None:
        return Cost(forward=10.0 * job.prompts)
    shape, positions = job.shape, job.position
    layers = len(judged_layers(shape.layers))
    heads = layers * shape.heads
    tokens = min(job.params["tokens"], shape.vocabulary)
    each = 2 * heads * shape.width * tokens  # logits of both changes
    each += heads * shape.width * (shape.head_width + positions)  # the changes
    each += heads * shape.head_width * (shape.width + positions + 1)  # what is kept of them
    each += layers * (shape.width + 3 * shape.heads * shape.head_width) * positions  # lens, z
    each += 2 * shape.width * shape.vocabulary + _last_block(shape)
    return Cost(flops=2.0 * job.prompts * positions * each)


def _last_block(shape: Shape) -> float:
    """Multiplications of one block for a token, its attention output and MLP at most."""
    return shape.block_parameters / shape.layers


NATS = Value(("prompt", "layer", "head"), "nats")

cspa = Metric(
    name="suppression.cspa",
    version=1,
    compute=_cspa,
    values={"kl_mean_ablated": NATS, "kl_preserved": NATS},
    clean=("resid_pre", "pattern", "v"),
    cost=_cost,
    inputs=("mean",),
    needs=("tokens:function",),
    params={"tokens": TOKENS},
)
"""How far ablating a head's direct output moves the predictions, with and without what suppresses.

``kl_mean_ablated``: KL(original || head mean-ablated), ``kl_preserved``: KL(original || all of the
head mean-ablated but its copy suppression), in nats, means over a document's positions. Direct
effects alone: the head's output changes in the last residual stream only, and the final norm's
scale is frozen. Mean ablation puts the head's mean output at that position over all documents
in its place. Of the term of each source token (attention times what its value writes) is preserved
what lies along the token's unembedding, where it is below that of the mean output, for tokens that
the position predicts: the ceil(5 %) of the distinct tokens so far with the highest logits in the
layer's ``resid_pre``, function words, marks and BOS left out. A score is 1 - preserved / ablated.

Source: McDougall et al. 2023 as Tigges et al. 2024, Figure 2, and its code use it: layers from 2 on
(0 in the layers before; all layers are judged where there are no more than 4), unembeddings with
the final norm's gain, centred. Where we differ: the mean is over the documents that are measured,
not over 100 others; a position with fewer distinct tokens than are to be kept keeps function words
out (the code then keeps every token); and sums over the vocabulary take ``tokens`` tokens at
each position where it is larger, all likely ones and a random sample of the others without bias
(``divergence.sampled``); means of logits are exact. With ``tokens`` at the vocabulary's size
it is exact throughout.
"""


def score(preserved: NDArray[np.floating], ablated: NDArray[np.floating]) -> NDArray[np.float64]:
    """CSPA of every head: 1 - sum(preserved) / sum(ablated), shape ``[layer, head]``.

    NaN where the mean of ``ablated`` is below 1e-4 nats: the head does too little.

    Args:
        preserved: ``kl_preserved`` of some documents, shape ``[prompt, layer, head]``.
        ablated: ``kl_mean_ablated`` of the same.
    """
    kept, whole = (np.asarray(kl, dtype=np.float64).mean(0) for kl in (preserved, ablated))
    found = np.full(whole.shape, np.nan)
    defined = whole >= FAINT
    found[defined] = 1.0 - kept[defined] / whole[defined]
    return found


def scores(measurement: Measurement, half: Half | None = None) -> NDArray[np.float64]:
    """CSPA of every head on a half, shape ``[layer, head]``, NaN where undefined.

    Args:
        measurement: From ``cspa``.
        half: The half, or None for all documents.
    """
    of = measurement.of(half)
    return score(measurement["kl_preserved"][of], measurement["kl_mean_ablated"][of])


def contrast(measurement: Measurement, level: float, half: Half, layer: int, head: int) -> Sample:
    """Document by document, what is above 0 on average where CSPA is above a level.

    ``(1 - level) * kl_mean_ablated - kl_preserved`` (claims.md, "Shares"), in nats.

    Args:
        measurement: From ``cspa``.
        level: Of CSPA.
        half: The half.
        layer: Of the head.
        head: The head.
    """
    ablated = measurement.sample("kl_mean_ablated", half, layer, head)
    return (1.0 - level) * ablated - measurement.sample("kl_preserved", half, layer, head)


def suppression_heads(measurement: Measurement, half: Half) -> list[Head]:
    """Heads with CSPA above 0.1; one whose score is undefined has no role.

    Args:
        measurement: From ``cspa``.
        half: The half whose documents choose.
    """
    found = scores(measurement, half)
    chosen = np.nan_to_num(found, nan=-np.inf) > SUPPRESSING
    return [(int(layer), int(head)) for layer, head in np.argwhere(chosen)]
