"""What the tests of searching share: a grammar of plain values, and a model with a weakness."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mechtests.models.embedded import ROOT
from mechtests.reporting.counterexample import Asked, Example
from mechtests.searching import Trials
from mechtests.tasks.grammar import Choices, Grammar, Value, free
from tests.planted import IOI_WORDS, NAMES, Planted, Stream, ioi_stream
from tests.planted_inhibition import doubled

SPROUT = ROOT / "sprout-1m"
WEIGHTS = "model.safetensors"
EMBEDDINGS = ("gpt_neox.embed_in.weight", "lm_head.weight")
ASKED = Asked("mine.claim", "plain", "nobody:final", "margin", 0, 200)


def plain(**slots: Sequence[Value]) -> Grammar:
    """A grammar whose slots depend on nothing; its prompts are never built."""

    def build(every: Sequence[Choices]) -> Any:
        raise AssertionError("these prompts are for no network")

    return Grammar({name: free(values) for name, values in slots.items()}, build)


def trials(
    grammar: Grammar,
    breaks: Callable[[Mapping[str, Any]], bool],
    budget: int,
    cost: float = 1.0,
) -> Trials:
    """Trials that a rule decides; ``trials.batches`` has what was run."""
    batches: list[list[Choices]] = []

    def examine(every: Sequence[Choices]) -> list[Example]:
        batches.append(list(every))
        return [Example(each, str(each), "", "", -1.0 if breaks(each) else 1.0) for each in every]

    made = Trials(grammar, examine, budget, cost)
    made.batches = batches  # type: ignore[attr-defined]
    return made


def forget(name: str, folder: Path) -> Path:
    """sprout-1m as if it had never seen a name: its embeddings are those of before training."""
    folder.mkdir()
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SPROUT / file, folder / file)
    listed = json.loads((SPROUT / "checkpoints.json").read_text())
    first, last = (
        load_file(SPROUT / pick(listed, key=lambda each: int(each["step"]))["label"] / WEIGHTS)
        for pick in (min, max)
    )
    token = json.loads((SPROUT / "tokenizer.json").read_text())["model"]["vocab"][name]
    for matrix in EMBEDDINGS:
        last[matrix][token] = first[matrix][token]
    save_file(last, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


MOVER, BACKUP = (2, 5), (2, 7)


def lapsing(name: str | None, *, backup: bool = True) -> Stream:
    """IOI in three heads, of which the name mover speaks against one name; another head helps out.

    At prompts with that name the mover's direct effect is below 0, and where it is the indirect
    object the answer is right by the backup head alone, which attends as the mover does and knows
    no other name.
    """
    stream = doubled(ioi_stream(MOVER, heads=20, rare=1000), MOVER, BACKUP)
    size = stream.width // stream.heads
    written = stream.model.transformer.h[MOVER[0]].attn.c_proj.weight
    with torch.no_grad():
        written[BACKUP[1] * size : (BACKUP[1] + 1) * size] = 0.0
        if name is not None:
            channel, token = NAMES.index(name), IOI_WORDS.encode(f" {name}")[0]
            gain = float(written[MOVER[1] * size + channel, token])
            written[MOVER[1] * size + channel, token] = -2 * gain
            written[BACKUP[1] * size + channel, token] = 4 * gain * backup
    return stream


def lapsing_source(name: str | None, *, backup: bool = True) -> Planted:
    """A model with such a lapse, or with none."""
    return Planted(
        f"lapsing-{name}-{backup}", make=partial(lapsing, name, backup=backup), words=IOI_WORDS
    )
