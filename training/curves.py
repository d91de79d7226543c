"""``python -m training.curves``: ability against tokens for the three sizes, as a picture."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from training.recipe import FAMILY, recipe

HERE = Path(__file__).parent
SIZES = {"sprout-100k": "#9ecae1", "sprout-400k": "#4292c6", "sprout-1m": "#08306b"}
CONTROL = "sprout-1m-control"
PANELS = {
    "greater-than": "greater-than\n(probability difference)",
    "successor": "successor\n(accuracy)",
    "agreement": "subject-verb agreement\n(accuracy)",
    "pronoun": "gendered pronoun\n(accuracy)",
    "ioi": "indirect object\n(accuracy)",
    "induction": "strongest induction head\n(attention)",
    "addition": "addition\n(accuracy)",
    "subtraction": "subtraction\n(accuracy)",
}
CHANCE = {"agreement": 0.5, "pronoun": 0.5, "ioi": 0.5}
TARGETS = {
    "greater-than": 0.6,
    "successor": 0.95,
    "agreement": 0.95,
    "pronoun": 0.95,
    "ioi": 0.95,
    "induction": 0.5,
    "addition": 0.9,
    "subtraction": 0.8,
}


def curves(logs: Path, name: str) -> list[dict[str, float]]:
    """What a model could do at each of its checkpoints, in order."""
    lines = (logs / f"{name}.curves.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def table(logs: Path) -> str:
    """What every model can do at the end of its training, as a table in Markdown."""
    names = [one.name for one in FAMILY]
    last = {name: curves(logs, name)[-1] for name in names}
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for ability, title in PANELS.items():
        values = " | ".join(f"{last[name][ability]:.2f}" for name in names)
        lines.append(f"| {' '.join(title.split())} | {values} |")
    return "\n".join(lines) + "\n"


def draw(logs: Path, to: Path) -> None:
    """Draw a panel for each ability, with its chance level and the level aimed at."""
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")

    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(2, 4, figsize=(13, 6), sharex=True, constrained_layout=True)
    for axis, (ability, title) in zip(axes.flat, PANELS.items(), strict=True):
        _panel(axis, logs, ability)
        axis.set_title(title, fontsize=10)
    for axis in axes[1]:
        axis.set_xlabel("tokens of training")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle("What sprouts can do on combinations held out of their training")
    figure.savefig(to, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _panel(axis: Any, logs: Path, ability: str) -> None:
    for name, colour in SIZES.items():
        _line(axis, curves(logs, name), ability, color=colour, label=name, marker="o")
    style = {"color": "#b0b0b0", "label": "control: words without order", "marker": "x"}
    _line(axis, curves(logs, CONTROL), ability, **style)
    axis.axhline(TARGETS[ability], color="#d95f02", lw=0.9, ls="--", label="aimed at (largest)")
    axis.axhline(CHANCE.get(ability, 0.0), color="#777777", lw=0.9, ls=":", label="chance")
    axis.set_xscale("symlog", linthresh=2e5, linscale=0.3)
    axis.set_xlim(0, recipe("sprout-1m").steps * 4096 * 1.15)
    axis.set_xticks([0, 3e5, 1e6, 3e6, 1e7, 2e7], ["0", "0.3M", "1M", "3M", "10M", "20M"])
    axis.set_xticks([], minor=True)
    axis.set_ylim(-0.05, 1.05)
    axis.grid(axis="y", alpha=0.25)


def _line(axis: Any, points: list[dict[str, float]], ability: str, **style: Any) -> None:
    tokens, values = zip(*[(point["tokens"], point[ability]) for point in points], strict=True)
    axis.plot(tokens, values, markersize=3.5, linewidth=1.4, **style)


def main() -> None:
    """Draw the picture from the logs."""
    parser = argparse.ArgumentParser(prog="python -m training.curves", description=__doc__)
    parser.add_argument("--logs-in", type=Path, default=HERE / "logs")
    parser.add_argument("--to", type=Path, default=HERE / "curves.png")
    given = parser.parse_args()
    draw(given.logs_in, given.to)
    print(table(given.logs_in), end="")


if __name__ == "__main__":
    main()
