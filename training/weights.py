"""The files of a model: bfloat16 weights of its checkpoints, its settings, its tokenizer."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from mechtests.sprout import tokenizer
from training.recipe import STEP_TOKENS, Recipe


def save_checkpoint(model: Any, recipe: Recipe, step: int, models: Path) -> None:
    """Write a checkpoint's weights, and name it in ``checkpoints.json``.

    The model's settings and tokenizer are written with the first one.
    """
    from safetensors.torch import save_file

    folder = models / recipe.name
    place = folder / f"step{step}"
    place.mkdir(parents=True, exist_ok=True)
    if step == 0:
        tokenizer.write(folder)
        model.config.save_pretrained(folder)
        _write(folder / "config.json", _settings(folder / "config.json"))
    weights = {
        name: weight.detach().to(torch.bfloat16).contiguous()
        for name, weight in model.state_dict().items()
    }
    beside = place / "model.safetensors.new"
    save_file(weights, beside, metadata={"format": "pt"})
    beside.replace(place / "model.safetensors")
    digest = _sha256(place / "model.safetensors")
    entry = {"label": f"step{step}", "step": step, "tokens": step * STEP_TOKENS, "sha256": digest}
    named = folder / "checkpoints.json"
    known = json.loads(named.read_text(encoding="utf-8")) if named.exists() and step else []
    others = [one for one in known if one["step"] != step]
    _write(named, sorted([*others, entry], key=lambda one: one["step"]))


def kept_steps(recipe: Recipe, models: Path) -> tuple[int, ...]:
    """The steps of the checkpoints whose weights are there as they are listed."""
    folder = models / recipe.name
    listed = folder / "checkpoints.json"
    entries = json.loads(listed.read_text(encoding="utf-8")) if listed.exists() else []
    files = {entry["step"]: folder / entry["label"] / "model.safetensors" for entry in entries}
    return tuple(
        entry["step"]
        for entry in entries
        if files[entry["step"]].exists() and _sha256(files[entry["step"]]) == entry["sha256"]
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _settings(path: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    settings["dtype"] = "bfloat16"
    settings["use_cache"] = True
    return settings


def _write(path: Path, content: object) -> None:
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    beside.replace(path)
