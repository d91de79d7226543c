"""A task's grammar as named choices, so that what is sampled can also be searched and shrunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mechtests.tasks.prompts import Prompts

Value = str | int
Choices = Mapping[str, Value]
"""One prompt in words: the value of each slot, by its name."""


@dataclass(frozen=True)
class Grammar:
    """Every prompt a task can have for one tokenizer.

    Attributes:
        slots: By name, in the order of choosing: ``options(chosen)`` gives the values a slot may
            have where the slots before it are chosen, simplest first and at least one.
        build: The prompts of some choices. What a prompt is never depends on those beside it.
    """

    slots: Mapping[str, Callable[[Choices], Sequence[Value]]] = field(repr=False)
    build: Callable[[Sequence[Choices]], Prompts] = field(repr=False)

    def allows(self, choices: Choices) -> bool:
        """Whether these are choices of this grammar: each slot's value is among its options."""
        if choices.keys() != self.slots.keys():
            return False
        return all(choices[name] in options(choices) for name, options in self.slots.items())

    def key(self, choices: Choices) -> tuple[Value, ...]:
        """The values in the order of the slots: what tells one prompt from another."""
        return tuple(choices[name] for name in self.slots)

    def size(self, choices: Choices) -> tuple[int, tuple[int, ...]]:
        """How far from simplest: the slots that are not, then each one's place, by the slots."""
        places = tuple(
            list(options(choices)).index(choices[name]) for name, options in self.slots.items()
        )
        return sum(place > 0 for place in places), places

    def simpler(self, choices: Choices, slot: str) -> list[Choices]:
        """The choices with one slot's value replaced by each simpler one, simplest first."""
        options = self.slots[slot](choices)
        before = options[: list(options).index(choices[slot])]
        return [new for value in before if self.allows(new := {**choices, slot: value})]

    def beside(self, choices: Choices, slot: str) -> list[Choices]:
        """The choices with one slot's value replaced by each other one, simplest first."""
        others = (value for value in self.slots[slot](choices) if value != choices[slot])
        return [new for value in others if self.allows(new := {**choices, slot: value})]


def free(values: Sequence[Value]) -> Callable[[Choices], Sequence[Value]]:
    """The options of a slot that depends on no other."""
    return lambda chosen: values
