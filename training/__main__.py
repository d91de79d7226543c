"""``python -m training``: train what is missing of the family, going on where it stopped."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from training.recipe import FAMILY, recipe

HERE = Path(__file__).parent
ROOT = HERE.parent


def main() -> None:
    """Train the named models, or the whole family."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: the whole family")
    parser.add_argument("--models-in", type=Path, default=ROOT / "mechtests/sprout/models")
    parser.add_argument("--logs-in", type=Path, default=HERE / "logs")
    parser.add_argument("--states-in", type=Path, default=ROOT / "build/training")
    parser.add_argument("--rate", type=float, help="another learning rate, for a trial")
    parser.add_argument("--tokens", type=float, help="another length in millions, for a trial")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()

    import torch

    from training.loop import Places, train
    from training.weights import kept_steps

    torch.set_num_threads(given.threads)
    places = Places(given.models_in, given.logs_in, given.states_in)
    for name in given.models or [one.name for one in FAMILY]:
        one = recipe(name)
        one = replace(one, rate=given.rate or one.rate, tokens=given.tokens or one.tokens)
        if kept_steps(one, places.models) == one.checkpoint_steps:
            print(f"{name}: all checkpoints are there")
        else:
            train(one, places)


if __name__ == "__main__":
    main()
