"""Claims judged while a model is trained with the Trainer of transformers, at each save."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from transformers import TrainerCallback

from mechtests.direct import Asked, judge
from mechtests.judged import SPOKEN, Judged

PREFIX = "mechtests"
_LOGGER = logging.getLogger(__name__)


class JudgeOnSave(TrainerCallback):  # type: ignore[misc]
    """Judges claims on the model each time the Trainer saves it, and logs what was found.

    ``Trainer(..., callbacks=[JudgeOnSave("induction")])``. The model is copied to be judged:
    training goes on as if nothing had happened, random generators included. Counts of verdicts
    and the estimates of claims are appended to the Trainer's ``log_history`` (the next
    ``trainer_state.json`` has them), or given to ``log``. Not run on CUDA or with a sharded
    model so far; with several processes the first one judges.

    Attributes:
        history: What was judged, by the step it was saved at.
        errors: What went wrong, by the step; training goes on.

    Args:
        claims: As for ``mechtests.judge``.
        tokenizer: The tokenizer; the Trainer's ``processing_class`` unless given.
        log: Takes the numbers of a save, such as ``trainer.log``.
        every: Judge at every so many saves.
        raises: Whether an error ends the training.
        how: Further arguments of ``mechtests.judge``: profile, seed, store.
    """

    def __init__(
        self,
        claims: Asked = "*",
        *,
        tokenizer: Any = None,
        log: Callable[[dict[str, float]], Any] | None = None,
        every: int = 1,
        raises: bool = False,
        **how: Any,
    ) -> None:
        self.claims = claims
        self.tokenizer = tokenizer
        self.history: dict[int, Judged] = {}
        self.errors: dict[int, Exception] = {}
        self._log = log
        self._every = max(1, every)
        self._raises = raises
        self._how = how
        self._saves = 0

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Judge the model as it was just saved."""
        self._saves += 1
        if not state.is_world_process_zero or (self._saves - 1) % self._every:
            return
        step = int(state.global_step)
        try:
            tokenizer = self.tokenizer or given.get("processing_class")
            name = f"{getattr(args, 'run_name', None) or 'model'}-step{step}"
            found = judge(
                given["model"],
                tokenizer,
                self.claims,
                **{"name": name.replace("/", "-"), **self._how},
            )
            self.history[step] = found
            self._tell(numbers(found), state, step)
        except Exception as error:  # training is worth more than a verdict on it
            if self._raises:
                raise
            self.errors[step] = error
            _LOGGER.warning("%s: nothing was judged at step %d: %s", PREFIX, step, error)

    def _tell(self, said: Mapping[str, float], state: Any, step: int) -> None:
        _LOGGER.info("%s at step %d: %s", PREFIX, step, self.history[step])
        if self._log is not None:
            self._log(dict(said))
        else:
            state.log_history.append({**said, "step": step})


def numbers(found: Judged) -> dict[str, float]:
    """What a logger can plot: how many verdicts of each kind, and the estimate of each claim."""
    said: dict[str, float] = {
        f"{PREFIX}/{word.replace(' ', '_')}": float(found.counts.get(outcome, 0))
        for outcome, word in SPOKEN.items()
    }
    for record in found:
        if record.verdict.estimate is not None:
            task = f"/{record.claim.task}" if record.claim.task else ""
            said[f"{PREFIX}/{record.claim.id}{task}"] = record.verdict.estimate
    return said
