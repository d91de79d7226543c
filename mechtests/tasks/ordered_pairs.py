"""Ordered pairs: "Monday" -> "Tuesday", for the succession score, which is read off the weights.

Source: the pairs of neighbours in the ordered lists of Tigges et al. 2024's succession score and
its code (after Gould et al. 2023), in the lists of ``tasks.succession``. All pairs whose items
are one token each are taken, whatever the profile. The prompt is the item alone, without BOS: no
score here runs the model on a text.
"""

from __future__ import annotations

import numpy as np

from mechtests.tasks import succession
from mechtests.tasks.prompts import Ids, Prompts, Task, Tokenizer, padded
from mechtests.tasks.succession import CYCLIC, LISTS, OrderedPair, tokens

ALL = sum(len(items) - (name not in CYCLIC) for name, items in LISTS.items())
"""So many pairs there are for a tokenizer to which every item is one token."""
TRIES = 1000


def generate(tokenizer: Tokenizer, n: int, generator: np.random.Generator) -> Prompts:
    """All ordered pairs, at most n; a list's pairs are dealt to the halves in turn.

    Right is the successor, wrong are all other items of the list, and ``tokens["shuffled"]``
    is what follows the item in a shuffled order of the list, in which no item is followed by
    its successor (nor in a list of three or fewer, where there may be no such order).

    Raises:
        NotApplicable: Fewer than 20 pairs are single tokens.
    """
    pairs = succession.ordered_pairs(tokenizer)[:n]
    known = {
        name: [token for token in ids if token is not None]
        for name, ids in tokens(tokenizer).items()
    }
    names = list(LISTS)
    template = np.array([names.index(pair.list) for pair in pairs])
    shuffled = {
        name: _shuffled(known[name], [p for p in pairs if p.list == name], generator)
        for name in dict.fromkeys(pair.list for pair in pairs)
    }
    wrong = [[t for t in known[pair.list] if t != pair.successor] for pair in pairs]
    items = np.array([[pair.item] for pair in pairs])
    return Prompts(
        clean=items,
        length=np.ones(len(pairs), dtype=np.int64),
        cluster=np.arange(len(pairs)),
        template=template,
        half=_halves(template, generator),
        texts=tuple(tokenizer.decode([pair.item]) for pair in pairs),
        right=np.array([[pair.successor] for pair in pairs]),
        wrong=padded(wrong, fill=-1),
        tokens={"shuffled": np.array([shuffled[pair.list][pair.item] for pair in pairs])},
    )


def _shuffled(
    items: list[int], pairs: list[OrderedPair], generator: np.random.Generator
) -> dict[int, int]:
    """What follows each item in a shuffled order."""
    follows: dict[int, int] = {}
    for _ in range(TRIES):
        order = generator.permutation(items)
        follows = dict(zip(order.tolist(), np.roll(order, -1).tolist(), strict=True))
        if all(follows[pair.item] != pair.successor for pair in pairs):
            break
    return follows


def _halves(template: Ids, generator: np.random.Generator) -> Ids:
    """Half of each list, and one more in the first list, one more of the next in the other."""
    half = np.zeros(len(template), dtype=np.int64)
    for turn, name in enumerate(np.unique(template)):
        mine = np.flatnonzero(template == name)
        half[generator.permutation(mine)] = (np.arange(len(mine)) + turn) % 2
    return half


ordered_pairs = Task(
    name="ordered_pairs",
    version=1,
    generate=generate,
    sizes=dict.fromkeys(("quick", "standard", "full"), ALL),
    longest=1,
)
