"""What is the same for every measurement of a run, and with it the key each is stored under."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mechtests.metrics.metric import Need, digest
from mechtests.store import SCHEMA
from mechtests.tasks.prompts import Task

Json = Any

DRAWS = {"quick": 19, "standard": 199, "full": 999}


@dataclass(frozen=True)
class Settings:
    """What is the same for every measurement of a run.

    Attributes:
        profile: How many prompts and draws: ``quick``, ``standard`` or ``full``.
        seed: The root of every random draw.
        dtype: The precision of the network.
        device: Where it runs; a fact beside the values, not part of their key.
        prompts: A user's own CSV file for a task, by the task's name.
        prompt_digests: SHA-256 of those files, by the task's name.
        prompt_counts: How many prompts they have, by the task's name.
    """

    profile: str = "quick"
    seed: int = 0
    dtype: str = "float32"
    device: str = "cpu"
    prompts: Mapping[str, str] = field(default_factory=dict)
    prompt_digests: Mapping[str, str] = field(default_factory=dict)
    prompt_counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def draws(self) -> int:
        """Random draws of the profile."""
        return DRAWS[self.profile]

    def prompts_of(self, task: Task) -> int:
        """How many prompts there are of a task: those of the profile, or of the user's file."""
        return self.prompt_counts.get(task.name, task.sizes[self.profile])

    def request(self, need: Need, identity: Json, final: Json = None) -> Mapping[str, Json]:
        """Everything that decides the values of a measurement, as JSON.

        Args:
            need: The measurement.
            identity: Of the cell it is made in.
            final: Of the series' final cell, for what starts from there.
        """
        tasks = {each.task.name: each.task for each in need.everything()}
        return {
            "schema": SCHEMA,
            **need.request(
                identity=identity,
                sizes={name: self.prompts_of(task) for name, task in tasks.items()},
                sources=self.prompt_digests,
                settings={"dtype": self.dtype, "attention": "explicit", "seed": self.seed},
                draws=self.draws,
                final=final,
            ),
        }

    def key(self, need: Need, identity: Json, final: Json = None) -> str:
        """The store's key of a measurement in the cell of this identity (see ``request``)."""
        return digest(self.request(need, identity, final))
