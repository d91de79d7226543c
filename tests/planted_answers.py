"""Any task in one planted head: it attends to the word that decides, and writes what follows."""

from __future__ import annotations

import numpy as np
import torch

from mechtests.measurement import Head
from mechtests.tasks.prompts import Ids, Prompts
from tests.planted import Stream


def deciding(prompts: Prompts, corruption: str) -> Ids:
    """The last token of each prompt that its corrupted variant has otherwise, ``[prompt]``."""
    differs = prompts.clean != prompts.corrupted[corruption]
    last = differs.shape[1] - 1 - differs[:, ::-1].argmax(1)
    decides: Ids = prompts.clean[np.arange(len(prompts)), last]
    return decides


def answering_stream(
    prompts: Prompts, corruption: str, vocabulary: int, head: Head | None, *, heads: int = 4
) -> Stream:
    """A head that raises the right answers of the deciding words it sees and lowers the wrong.

    Without a head (None), noise is in its place.
    """
    stream = Stream(tokens=vocabulary, positions=32, width=1024, heads=heads, layers=2)
    if head is None:
        return stream
    decides = deciding(prompts, corruption)
    words = np.unique(decides)
    size = stream.width // heads
    assert len(words) < size - 1
    rest = len(words)
    stream.plant(
        head,
        query={},
        key={rest: {int(word): 40.0 for word in words} | {0: 15.0}},
        value={channel: {int(word): 1.0} for channel, word in enumerate(words)},
        output={},
        constant=rest,
    )
    assert prompts.right is not None
    assert prompts.wrong is not None
    layer, index = head
    with torch.no_grad():
        written = stream.model.transformer.h[layer].attn.c_proj.weight
        for channel, word in enumerate(words):
            row = int(np.flatnonzero(decides == word)[0])
            for answers, sign in ((prompts.right[row], 1.0), (prompts.wrong[row], -1.0)):
                ids = answers[answers >= 0]
                written[index * size + channel, ids] = sign / len(ids) ** 0.5
    return stream
