"""Combinations that never occur in the training text, so that a task on them is not recall.

A combination is held out by its hash, so nobody needs a list. Kinds and their items:

========  =============================================  =========
kind      items                                          held out
========  =============================================  =========
names     two first names, in either order: they never   a quarter
          are people of one document
years     century ("17") and two-digit year ("32") of    a fifth
          the first year of a span
operands  operator ("+", "-", "*", "/"), a, b, as the    15 %
          words of "a + b ="
pronoun   first name, and the word that varies in the    a fifth
          sentence (the adjective)
nouns     subject noun and attractor noun, in either     a fifth
          order and either number
========  =============================================  =========
"""

from __future__ import annotations

import hashlib

SHARES = {"names": 0.25, "years": 0.20, "operands": 0.15, "pronoun": 0.20, "nouns": 0.20}
ITEMS = {"names": 2, "years": 2, "operands": 3, "pronoun": 2, "nouns": 2}


def unseen(kind: str, *items: str) -> bool:
    """Whether this combination is held out of the training text.

    Raises:
        ValueError: There is no such kind, or the number of items is not the kind's.
    """
    if kind not in SHARES:
        raise ValueError(f"no kind of combination {kind!r}; there are {', '.join(SHARES)}")
    if len(items) != ITEMS[kind]:
        raise ValueError(f"a combination of kind {kind!r} has {ITEMS[kind]} items, not {items!r}")
    if kind == "nouns":
        items = tuple(item.removesuffix("s") for item in items)
    ordered = sorted(items) if kind in ("names", "nouns") else items
    digest = hashlib.sha256("|".join((kind, *ordered)).encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64 < SHARES[kind]
