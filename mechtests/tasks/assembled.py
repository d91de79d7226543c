"""Prompts from texts, and single words as tokens: what the tasks of sentences have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mechtests.errors import NotApplicable
from mechtests.tasks.prompts import Ids, Prompts, Tokenizer, padded


def one_token(tokenizer: Tokenizer, word: str) -> int | None:
    """The token of a word with a space before it, or None where it is not exactly one."""
    ids = tokenizer.encode(f" {word}")
    return ids[0] if len(ids) == 1 and tokenizer.decode(ids).strip() == word else None


def pieces(tokenizer: Tokenizer, text: str) -> str:
    """What a tokenizer makes of a text, for messages: ``' 1732' is ' 17', '32'``."""
    found = ", ".join(repr(tokenizer.decode([i])) for i in tokenizer.encode(text))
    return f"{text!r} is {found}"


def assembled(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    corrupted: Mapping[str, Sequence[str]],
    *,
    strata: Sequence[tuple[int, int, int]],
    answers: tuple[Ids, Ids],
    varied: str,
) -> Prompts:
    """The prompts of some texts, without named positions.

    Args:
        tokenizer: Whose tokens they are; BOS comes first where it has one.
        texts: The clean prompts.
        corrupted: Corrupted variants by name, each as many as the clean ones.
        strata: Cluster, template and half of each prompt.
        answers: Right and wrong answers, each ``[prompt, answer]``, -1 padded.
        varied: What the corrupted prompts change, in the plural, for the message.

    Raises:
        NotApplicable: A corrupted prompt is longer or shorter than its clean one.
    """
    start = [] if tokenizer.bos is None else [tokenizer.bos]

    def encoded(some: Sequence[str]) -> list[list[int]]:
        return [start + tokenizer.encode(text) for text in some]

    clean = encoded(texts)
    variants = {name: encoded(some) for name, some in corrupted.items()}
    for name, theirs in variants.items():
        _check_aligned(tokenizer, clean, theirs, name, varied)
    cluster, template, half = np.array(strata, dtype=np.int64).T
    return Prompts(
        clean=padded(clean),
        length=np.array([len(ids) for ids in clean]),
        cluster=cluster,
        template=template,
        half=half,
        texts=tuple(texts),
        corrupted={name: padded(ids) for name, ids in variants.items()},
        right=answers[0],
        wrong=answers[1],
    )


def _check_aligned(
    tokenizer: Tokenizer,
    clean: list[list[int]],
    corrupted: list[list[int]],
    variant: str,
    varied: str,
) -> None:
    for ours, theirs in zip(clean, corrupted, strict=True):
        if len(ours) != len(theirs):
            raise NotApplicable(
                f"{tokenizer.name}: the corrupted prompt {variant!r} has {len(theirs)} tokens and "
                f"its clean prompt {len(ours)} ({tokenizer.decode(ours)!r}), so the tokenizer "
                f"joins {varied} to the words beside them, and prompts cannot be aligned"
            )


def first_change(prompts: Prompts, variant: str) -> Ids:
    """The first position of each prompt that its corrupted variant changes, shape ``[prompt]``.

    Raises:
        NotApplicable: A prompt is the same as its corrupted variant.
    """
    at: Ids = _changed(prompts, variant).argmax(1)
    return at


def last_change(prompts: Prompts, variant: str) -> Ids:
    """The last position of each prompt that its corrupted variant changes, shape ``[prompt]``.

    Raises:
        NotApplicable: A prompt is the same as its corrupted variant.
    """
    changed = _changed(prompts, variant)
    at: Ids = changed.shape[1] - 1 - changed[:, ::-1].argmax(1)
    return at


def _changed(prompts: Prompts, variant: str) -> NDArray[np.bool_]:
    real = np.arange(prompts.clean.shape[1]) < prompts.length[:, None]
    changed: NDArray[np.bool_] = (prompts.clean != prompts.corrupted[variant]) & real
    same = np.flatnonzero(~changed.any(1))
    if len(same):
        raise NotApplicable(
            f"{len(same)} of {len(prompts)} prompts are the same as their corrupted variant "
            f"{variant!r}; the first is {prompts.texts[same[0]]!r}; give pairs that differ"
        )
    return changed
