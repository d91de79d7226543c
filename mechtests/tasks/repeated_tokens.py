"""Random tokens, repeated once: whoever attends to what followed last time is an induction head.

Source: Tigges et al. 2024, Figure 2 and its code, which draws 2 sequences of 100 token ids
from [100, 20000) without BOS. Where we differ: more sequences, each with its own length, and
ids that do not come twice in a sequence, so that there is one place to attend to; BOS where the
model's own tokenizer puts it, since heads without a target rest on it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mechtests.errors import NotApplicable
from mechtests.tasks.prompts import Ids, Prompts, Task, Tokenizer, padded

SHORTEST, LONGEST = 50, 100
SHORT_ONES = 20
"""So many sequences come first that have the shortest length: the quick profile."""

ORDINARY = (100, 20_000)
"""Tokenizers keep their special tokens below or above these ids."""


def ordinary_tokens(tokenizer: Tokenizer) -> Ids:
    """Token ids that are no special tokens; of a small vocabulary, all but BOS.

    Raises:
        NotApplicable: There are fewer than two.
    """
    low, high = ORDINARY
    ids: Ids = np.arange(low if tokenizer.size > 10 * low else 0, min(high, tokenizer.size))
    ids = ids[ids != tokenizer.bos] if tokenizer.bos is not None else ids
    if len(ids) < 2:
        raise NotApplicable(
            f"{tokenizer.name}: random tokens need a vocabulary, and it has {tokenizer.size} tokens"
        )
    return ids


def generate(tokenizer: Tokenizer, n: int, generator: np.random.Generator) -> Prompts:
    """The first n sequences of the generator; fewer are always a prefix of more.

    A prompt is ``x x``; its corrupted variant ``"no repeat"`` is ``x y``, with tokens y that
    are not in x (a vocabulary under twice the length makes repeats unavoidable, and is drawn
    with replacement). Position ``second`` is where the second half starts, ``period`` its length.
    """
    ids = ordinary_tokens(tokenizer)
    start = [] if tokenizer.bos is None else [tokenizer.bos]
    clean, fresh, periods = [], [], []
    for i in range(n):
        period = SHORTEST if i < SHORT_ONES else int(generator.integers(SHORTEST, LONGEST + 1))
        drawn = generator.choice(ids, size=2 * period, replace=len(ids) < 2 * period).tolist()
        clean.append(start + 2 * drawn[:period])
        fresh.append(start + drawn)
        periods.append(period)
    period_of = np.array(periods)
    return Prompts(
        clean=padded(clean),
        length=len(start) + 2 * period_of,
        cluster=np.arange(n),
        template=np.zeros(n, dtype=np.int64),
        half=np.arange(n) % 2,
        texts=tuple(map(tokenizer.decode, clean)),
        corrupted={"no repeat": padded(fresh)},
        positions={"second": len(start) + period_of, "period": period_of},
    )


repeated_tokens = Task(
    name="repeated_tokens",
    version=1,
    generate=generate,
    sizes={"quick": SHORT_ONES, "standard": 100, "full": 200},
    longest=2 * LONGEST + 1,
    corruption="no repeat",
)

few_repeated_tokens = replace(
    repeated_tokens, sizes=dict.fromkeys(repeated_tokens.sizes, SHORT_ONES)
)
"""The first of the same sequences: enough to see that a head does not attend at all."""
