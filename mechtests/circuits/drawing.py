"""A circuit as a picture: layers upwards, heads and MLP side by side, edges by their scores."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np

from mechtests.circuits.circuit import Circuit
from mechtests.circuits.graph import LOGITS
from mechtests.errors import UsageError

COLOURS = {"q": "#4477aa", "k": "#aa3377", "v": "#228833", "mlp": "#bb8800", "logits": "#555555"}
"""Of edges, by what they are read by (Paul Tol's bright colours, told apart by all eyes)."""
ENDINGS = (".svg", ".png", ".pdf")
WIDEST = 4.0
BESIDE = {"q": -0.12, "v": 0.12}
"""How far from the middle of a node its edges end, so that q, k and v from one node are seen."""


def draw(circuit: Circuit, path: Path, *, title: str = "") -> None:
    """Draw a circuit into a file; its ending says the format: ``.svg``, ``.png``, ``.pdf``.

    Nodes of the circuit alone are drawn, the input at the bottom and the logits at the top; a wider
    edge has a larger |score|, and a dashed one a negative score.

    Args:
        circuit: The circuit, with scores where widths are to say something.
        path: The file.
        title: What stands above it.

    Raises:
        UsageError: It cannot be drawn into that file (see ``check``).
    """
    check(path)
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    graph = circuit.graph
    at = positions(circuit)
    figure = Figure(
        figsize=(min(24.0, max(6.5, 1.5 + 0.9 * graph.heads)), min(30.0, 1.5 + 0.6 * graph.layers))
    )
    axes = figure.add_axes((0.02, 0.1, 0.96, 0.78))
    axes.set_axis_off()
    said = title or f"{circuit.size} of {graph.edges} edges"
    axes.set_title(textwrap.fill(said, int(10 * figure.get_figwidth())), fontsize=9)
    writers, readers = circuit.pairs
    for writer, reader, width, ahead in zip(writers, readers, *_weights(circuit), strict=True):
        (x, y), (to_x, to_y) = at[int(writer)], at[int(graph.nodes[reader])]
        kind = graph.reads[reader].kind
        to_x += BESIDE.get(kind, 0.0)
        style = "-" if ahead else "--"
        axes.plot([x, to_x], [y, to_y], style, color=COLOURS[kind], lw=width, alpha=0.7, zorder=1)
    for node, (x, y) in at.items():
        name = LOGITS if node == graph.writers else graph.names[node]
        box = {"boxstyle": "round", "facecolor": "white", "edgecolor": "#888888"}
        axes.text(x, y, name, ha="center", va="center", fontsize=8, bbox=box, zorder=2)
    drawn = sorted({graph.reads[int(reader)].kind for reader in readers}, key=list(COLOURS).index)
    handles = [Line2D([], [], color=COLOURS[kind], label=f"read as {kind}") for kind in drawn]
    if handles:
        below = {"loc": "lower center", "ncols": len(handles), "frameon": False, "fontsize": 8}
        figure.legend(handles=handles, **below)
    figure.savefig(path)


def check(path: Path) -> None:
    """Refuse what cannot be drawn into, before anything is measured.

    Raises:
        UsageError: matplotlib is not installed, or the ending is none of ``ENDINGS``.
    """
    if path.suffix not in ENDINGS:
        raise UsageError(f"{path}: a circuit is drawn as {', '.join(ENDINGS)}")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "drawing a circuit needs matplotlib: pip install 'mechtests[draw]', or leave the "
            "drawing out"
        ) from error


def positions(circuit: Circuit) -> dict[int, tuple[float, float]]:
    """Where each node of the circuit stands: across, and upwards in layers.

    The input is 0 and the logits are ``graph.writers``; both are always there.
    """
    graph = circuit.graph
    middle = (graph.heads - 1) / 2
    found = {0: (middle, -1.0), graph.writers: (middle, float(graph.layers))}
    for node in np.flatnonzero(circuit.nodes).tolist():
        if node in found:
            continue
        layer, place = divmod(node - 1, graph.heads + 1)
        # an MLP reads its own layer's heads in a sequential block, so it stands a little higher
        is_mlp = place == graph.heads
        above = 0.35 if is_mlp and not graph.parallel else 0.0
        found[node] = (float(place) + (0.3 if is_mlp else 0.0), layer + above)
    return found


def _weights(circuit: Circuit) -> tuple[list[float], list[bool]]:
    """Line widths of the edges, and whether their scores are not negative."""
    writers, readers = circuit.pairs
    if circuit.scores is None or not len(writers):
        return [1.0] * len(writers), [True] * len(writers)
    scores = circuit.scores[writers, readers]
    largest = float(np.abs(scores).max()) or 1.0
    widths = 0.3 + WIDEST * np.sqrt(np.abs(scores) / largest)
    return widths.tolist(), (scores >= 0).tolist()
