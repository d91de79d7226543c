from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mechtests.circuits.attribution import attribute, graph_of
from mechtests.models.network import Network
from tests.plain_weights import loaded_smollm2

REFERENCE = Path(__file__).parents[2] / "shared/reference/eap_ig_smollm2_ioi20.safetensors"
BATCH = 10
"""Prompts of a batch there: its loss is the mean over a batch, so gradients are a tenth."""


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference values are not here")
def test_scores_on_smollm2_are_those_of_the_reference_implementation():
    import copy

    from safetensors.torch import load_file

    found = load_file(REFERENCE)
    loaded = copy.deepcopy(loaded_smollm2().model)  # bridging changes it in place
    network = Network.from_model(loaded, name="smollm2-135m", check=False)
    answers = found["answer_ids"].long()

    def difference(final: Tensor, rows: Tensor) -> Tensor:
        logits = network.logits(final, answers[rows])
        return logits[:, 0] - logits[:, 1]

    clean, corrupted = found["clean_ids"].long(), found["corrupted_ids"].long()
    with torch.no_grad():
        baseline = difference(network.run(clean).final, torch.arange(len(clean)))
    assert torch.allclose(baseline, found["baseline_logit_difference"], atol=1e-4)
    scores = attribute(network, clean, corrupted, difference, steps=5) / BATCH
    expected = found["scores"].numpy()
    graph = graph_of(network)
    assert scores.shape == expected.shape
    assert graph.edges == 123_211
    off = np.abs(scores - expected)[graph.allowed].max()
    assert off < 1e-5 * np.abs(expected).max()
    largest = set(np.argsort(-np.abs(scores[graph.allowed]))[:1000])
    theirs = set(np.argsort(-np.abs(expected[graph.allowed]))[:1000])
    assert len(largest & theirs) >= 998  # places where scores differ by rounding alone
