"""Which names of branches and tags are moments of training."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mechtests.models.cell import Checkpoint
from mechtests.models.shape import Shape

PYTHIA = re.compile(r"EleutherAI/pythia-(?!.*-v0$).*")
"""Pythia's repositories, without the first release (``-v0``), whose steps differ."""

PYTHIA_STEPS = (0, *(2**i for i in range(10)), *range(1000, 143001, 1000))
"""The 154 checkpoints of every Pythia model (Biderman et al. 2023, section 2.1)."""

PYTHIA_TOKENS_PER_STEP = 1024 * 2048
PYTHIA_TOKENS = tuple(PYTHIA_TOKENS_PER_STEP * step for step in PYTHIA_STEPS)
"""The tokens seen at each of them: what a window in tokens is widened to."""

PYTHIA_SHAPES = {
    "14m": (6, 128),
    "31m": (6, 256),
    "70m": (6, 512),
    "160m": (12, 768),
    "410m": (24, 1024),
    "1b": (16, 2048),
    "1.4b": (24, 2048),
    "2.8b": (32, 2560),
    "6.9b": (32, 4096),
    "12b": (36, 5120),
}
"""Layers and width of each size; heads fill the width, an MLP is four times as wide."""

PYTHIA_HEADS = {"14m": 4, "31m": 8, "70m": 8, "160m": 12, "410m": 16, "1b": 8} | {
    "1.4b": 16, "2.8b": 32, "6.9b": 32, "12b": 40,
}  # fmt: skip
"""Heads of a layer of each size."""

PYTHIA_NAME = re.compile(
    rf"pythia-(?P<size>{'|'.join(map(re.escape, PYTHIA_SHAPES))})(?P<deduped>-deduped)?"
    r"(?P<variant>-v0|-(?:data-|weight-)?seed\d|-(?:all|attn|hidden)dropout)?"
)
"""What a Pythia model is called without its owner."""

_REVISION = re.compile(
    r"(?:stage1-)?(?:step|ckpt|checkpoint|iter)[-_]?(?P<step>\d+)"
    r"(?:[-_]tokens[-_]?(?P<tokens>\d+(?:\.\d+)?)(?P<unit>[KMBT]?))?"
    r"|tokens[-_]?(?P<only>\d+(?:\.\d+)?)(?P<scale>[KMBT]?)"
)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def pythia_parameters(name: str) -> int | None:
    """Non-embedding parameters of a Pythia model by its name; None for another model."""
    match = PYTHIA_NAME.fullmatch(name)
    if match is None:
        return None
    layers, width = PYTHIA_SHAPES[match["size"]]
    config = {
        "model_type": "gpt_neox",
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": 1,
        "intermediate_size": 4 * width,
        "vocab_size": 50304,
        "max_position_embeddings": 2048,
    }
    return Shape.from_config(config).block_parameters


def pythia_grid(name: str) -> dict[str, int]:
    """Layers, and heads of a layer, of a Pythia model by its name; nothing of another model."""
    match = PYTHIA_NAME.fullmatch(name)
    if match is None:
        return {}
    return {"layer": PYTHIA_SHAPES[match["size"]][0], "head": PYTHIA_HEADS[match["size"]]}


def parse_revisions(repo: str, revisions: Iterable[str]) -> tuple[Checkpoint, ...]:
    """The revisions that are moments of training, in order; other names are left out.

    Understood are ``step1000``, ``step1000-tokens4B``, ``stage1-step1000-tokens3B`` (OLMo;
    only its first stage, since later ones count again from 0), ``ckpt-1000``,
    ``checkpoint-1000``, ``iter-1000`` and ``tokens-4B``. Pythia's tokens are its steps
    x 2,097,152.
    """
    pythia = PYTHIA.fullmatch(repo) is not None
    found = [c for name in revisions if (c := _parse(name, pythia=pythia))]
    return tuple(sorted(found, key=lambda c: (c.progress or 0, c.label)))


def _parse(revision: str, *, pythia: bool) -> Checkpoint | None:
    match = _REVISION.fullmatch(revision)
    if match is None:
        return None
    if match["step"] is None:
        return Checkpoint(revision, None, _count(match["only"], match["scale"]))
    step = int(match["step"])
    tokens = _count(match["tokens"], match["unit"]) if match["tokens"] else None
    return Checkpoint(revision, step, step * PYTHIA_TOKENS_PER_STEP if pythia else tokens)


def _count(number: str, unit: str) -> int:
    return round(float(number) * _UNITS[unit])
