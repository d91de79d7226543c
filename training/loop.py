"""Training of one model: steps, checkpoints, a log, and a state from which it goes on.

Hidden matrices are trained by Muon, embeddings, norms and biases by AdamW, both with the same
rate: a warm-up, a plateau, then linearly to nearly zero. Weights are 32-bit; matrix products
are computed in bfloat16.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the field's own name)

from mechtests.sprout.corpus import ids
from training.batches import batch
from training.evaluation import evaluate
from training.recipe import ROWS, STEP_TOKENS, Recipe
from training.weights import kept_steps, save_checkpoint

WARM_UP = 60
DECAY = 0.6
"""The share of the steps in which the rate falls."""
KEPT_EVERY = 250
LOGGED_EVERY = 10
COLUMNS = ("step", "tokens", "loss", "rate", "tokens_per_second")


@dataclass(frozen=True)
class Places:
    """Where a training writes: finished models, logs, and its own state."""

    models: Path
    logs: Path
    states: Path


def new_model(recipe: Recipe) -> Any:
    """The untrained model of a recipe, the same for the same seed."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(recipe.seed)
    config = GPTNeoXConfig(**recipe.config(len(ids())), attn_implementation="sdpa", use_cache=False)
    return GPTNeoXForCausalLM(config)


def optimizers(model: Any, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for everything else."""
    hidden, other = [], []
    for name, weight in model.named_parameters():
        (hidden if weight.ndim == 2 and "layers" in name else other).append(weight)
    return [
        torch.optim.Muon(hidden, lr=recipe.rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(other, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def rate_at(step: int, recipe: Recipe) -> float:
    """The learning rate of a step, counted from 0."""
    left = (recipe.steps - step) / (DECAY * recipe.steps)
    return recipe.rate * min(1.0, (step + 1) / WARM_UP, max(left, 0.01))


def train(recipe: Recipe, places: Places, *, until: int | None = None) -> list[float]:
    """Train a model from its last state to the end, or to a step; the losses of its steps.

    Everything is written beside its place first and then moved there, so that a training that
    is stopped at any time goes on from its last state.
    """
    state = places.states / f"{recipe.name}.pt"
    log = Log(places.logs, recipe)
    model, both, step = _start(recipe, places, state)
    log.cut(step)
    if step == 0:
        _checkpoint(model, recipe, 0, places, log)
    end = recipe.steps if until is None else min(until, recipe.steps)
    losses: list[float] = []
    since = time.perf_counter()
    while step < end:
        losses.append(_step(model, both, recipe, step))
        step += 1
        if step % LOGGED_EVERY == 0 or step == end:
            some = losses[-LOGGED_EVERY:]
            speed = len(some) * STEP_TOKENS / (time.perf_counter() - since)
            log.loss(step, sum(some) / len(some), rate_at(step - 1, recipe), speed)
            since = time.perf_counter()
        if step in recipe.checkpoint_steps:
            _checkpoint(model, recipe, step, places, log)
            since = time.perf_counter()
        if step % KEPT_EVERY == 0 or step == end:
            _keep(state, model, both, step)
    return losses


def _start(
    recipe: Recipe, places: Places, state: Path
) -> tuple[Any, list[torch.optim.Optimizer], int]:
    """The model as it was last kept, if its checkpoints are still there; else a new one."""
    model = new_model(recipe)
    both = optimizers(model, recipe)
    if not state.exists():
        return model, both, 0
    kept = torch.load(state, weights_only=True)
    if not {s for s in recipe.checkpoint_steps if s <= kept["step"]} <= set(
        kept_steps(recipe, places.models)
    ):
        return model, both, 0
    model.load_state_dict(kept["model"])
    for optimizer, content in zip(both, kept["optimizers"], strict=True):
        optimizer.load_state_dict(content)
    return model, both, int(kept["step"])


def _step(model: Any, both: list[torch.optim.Optimizer], recipe: Recipe, step: int) -> float:
    tokens = torch.tensor(batch(recipe.corpus, recipe.seed, step, ROWS))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(tokens).logits
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten())
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in both:
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, recipe)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def _checkpoint(model: Any, recipe: Recipe, step: int, places: Places, log: Log) -> None:
    save_checkpoint(model, recipe, step, places.models)
    model.eval()
    log.curves(step, evaluate(model))
    model.train()


def _keep(state: Path, model: Any, both: list[torch.optim.Optimizer], step: int) -> None:
    state.parent.mkdir(parents=True, exist_ok=True)
    beside = state.with_suffix(".new")
    torch.save(
        {
            "step": step,
            "model": model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in both],
        },
        beside,
    )
    beside.replace(state)


class Log:
    """Two files of a model: its losses (csv), and what it can do at each checkpoint (jsonl)."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._losses = folder / f"{recipe.name}.losses.csv"
        self._curves = folder / f"{recipe.name}.curves.jsonl"

    def cut(self, step: int) -> None:
        """Forget what is behind a step, all of it for step 0: it comes again."""
        losses: list[list[str]] = []
        curves: list[str] = []
        if self._losses.exists() and step:
            lines = list(csv.reader(self._losses.read_text(encoding="utf-8").splitlines()))[1:]
            losses = [line for line in lines if int(line[0]) <= step]
        if self._curves.exists() and step:
            read = self._curves.read_text(encoding="utf-8").splitlines()
            curves = [line for line in read if json.loads(line)["step"] <= step]
        text = "".join(",".join(line) + "\n" for line in [list(COLUMNS), *losses])
        self._losses.write_text(text, encoding="utf-8")
        self._curves.write_text("".join(line + "\n" for line in curves), encoding="utf-8")

    def loss(self, step: int, loss: float, rate: float, speed: float) -> None:
        """Add the mean loss of the last steps."""
        line = f"{step},{step * STEP_TOKENS},{loss:.4f},{rate:.6f},{speed:.0f}\n"
        with self._losses.open("a", encoding="utf-8") as file:
            file.write(line)

    def curves(self, step: int, values: Mapping[str, float]) -> None:
        """Add what the model can do at a checkpoint."""
        rounded = {name: round(value, 4) for name, value in values.items()}
        line = json.dumps({"step": step, "tokens": step * STEP_TOKENS, **rounded})
        with self._curves.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
