"""What each model of the family is, and when its checkpoints are taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ROWS = 16
"""Rows of a training step."""
CONTEXT = 256
STEP_TOKENS = ROWS * CONTEXT
MILLION = 1_000_000


@dataclass(frozen=True)
class Recipe:
    """One model and its training.

    Attributes:
        name: The model's name, and of its folder and logs.
        layers: Transformer blocks.
        width: Dimensions of the residual stream.
        heads: Heads of a layer.
        tokens: Tokens it sees, in millions.
        seed: Of its first weights and of its corpus.
        corpus: ``"text"``, or ``"unigrams"`` for words drawn one by one.
        checkpoints: After so many millions of tokens; step 0 and the last step come besides.
        rate: The largest learning rate.
    """

    name: str
    layers: int
    width: int
    heads: int
    tokens: float
    seed: int
    checkpoints: tuple[float, ...]
    corpus: str = "text"
    rate: float = 5e-3

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return round(self.tokens * MILLION / STEP_TOKENS)

    @property
    def checkpoint_steps(self) -> tuple[int, ...]:
        """The steps after which weights are kept, from 0 to the last."""
        among = {round(tokens * MILLION / STEP_TOKENS) for tokens in self.checkpoints}
        return tuple(sorted({0, self.steps, *(step for step in among if step <= self.steps)}))

    def config(self, vocabulary: int) -> dict[str, Any]:
        """The settings of its ``GPTNeoXConfig``: Pythia's, with rotation of all dimensions."""
        return {
            "vocab_size": vocabulary,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.width,
            "max_position_embeddings": CONTEXT,
            "initializer_range": round(0.5 / self.width**0.5, 4),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 1.0,
            },
            "use_parallel_residual": True,
            "tie_word_embeddings": False,
            "bos_token_id": 0,
            "eos_token_id": 0,
        }


MAIN = (0.28, 0.4, 0.57, 0.8, 1.1, 1.6, 2.3, 3.2, 4.5, 6.4, 9, 11.75, 14.5, 17.25)
"""Half an octave apart while abilities come, then even."""

FAMILY: tuple[Recipe, ...] = (
    Recipe("sprout-1m", 4, 128, 4, 20, 0, MAIN),
    Recipe("sprout-400k", 4, 72, 4, 20, 0, MAIN),
    Recipe("sprout-100k", 2, 40, 2, 20, 0, MAIN),
    Recipe("sprout-1m-control", 4, 128, 4, 2.4, 0, (0.8,), corpus="unigrams"),
    Recipe("sprout-400k-seed1", 4, 72, 4, 20, 1, (0.8, 1.6, 3.2, 6.4, 11.75, 14.5)),
)


def recipe(name: str) -> Recipe:
    """The recipe of a model.

    Raises:
        ValueError: The family has no model of that name.
    """
    for one in FAMILY:
        if one.name == name:
            return one
    raise ValueError(f"no model {name!r}; the family is {', '.join(one.name for one in FAMILY)}")
