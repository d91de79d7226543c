"""``mechtests circuit``: a file that other tools read, a picture, and errors that are sentences."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mechtests import cli, engine
from mechtests.circuits import drawing
from mechtests.circuits.circuit import Circuit, empty
from mechtests.circuits.graph import Graph
from mechtests.errors import UsageError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MECHTESTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, ["circuit", *arguments])


def test_a_circuit_of_so_many_edges_is_kept_in_eap_igs_layout_and_drawn(folder: Path) -> None:
    done = run(
        "sprout-1m", "--task", "pronoun", "--edges", "30", "--draw", "c.svg", "--out", "c.json"
    )
    assert done.exit_code == 0, done.output
    content = json.loads((folder / "c.json").read_text())
    assert set(content) == {"cfg", "nodes", "edges"}
    circuit = Circuit.load(folder / "c.json")
    assert 0 < circuit.size <= 30
    assert f"{circuit.size} of {circuit.graph.edges} edges" in done.output
    assert (folder / "c.svg").read_text().count("<path") > circuit.size


def test_without_a_number_the_smallest_circuit_that_keeps_enough_is_taken(folder: Path) -> None:
    sizes = []
    for share in ("0.5", "0.8"):
        done = run("sprout-1m", "--task", "sva", "--faithfulness", share, "--out", "c.json")
        assert done.exit_code == 0, done.output
        assert f"keeps {float(share):.0%} on held-out prompts" in done.output
        sizes.append(Circuit.load(folder / "c.json").size)
    assert 0 < sizes[0] < sizes[1]


def test_where_no_circuit_keeps_enough_it_is_said(folder: Path) -> None:
    done = run("sprout-1m", "--faithfulness", "0.99", "--out", "c.json")
    assert done.exit_code == 0, done.output
    assert "the largest tried: none keeps 99%" in done.output


def test_an_interval_over_prompts_stands_beside_the_size(folder: Path) -> None:
    done = run("sprout-1m", "--task", "sva", "--out", "c.json")
    found = re.search(
        r": (\d+) of .* \((\d+) to (\d+|more) edges with other prompts\)", done.output
    )
    assert found, done.output
    size, low, high = found.groups()
    assert int(low) <= int(size)
    assert high == "more" or int(size) <= int(high)


def test_a_model_that_does_not_do_the_task_has_no_circuit() -> None:
    done = run("sprout-1m-control", "--task", "sva")
    assert done.exit_code == 4
    assert "the model does not do this" in done.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("sprout-1m", "--task", "iio"), "did you mean 'ioi'"),
        (("sprout-1m", "--task", "repeated_tokens"), "has no answers and corrupted prompts"),
        (("sprout-1m", "--checkpoint", "all"), "a circuit is of one checkpoint"),
        (("sprout-1m", "--checkpoint", "step7"), "step7"),
        (("sprout-1m", "--edges", "0"), "--edges is a number of edges from 1 on, got 0"),
        (("sprout-1m", "--faithfulness", "80"), "a share above 0 and at most 1, got 80"),
        (("sprout-1m", "--profile", "quik"), "quick, standard, full, got 'quik'"),
        (("sprout-1m", "--draw", "c.docx"), "drawn as .svg, .png, .pdf"),
        (("sprout-1m", "--out", "there/c.json"), "there is no folder there"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence_before_a_model_is_loaded(
    arguments: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "run", None)
    done = run(*arguments)
    assert done.exit_code == 4
    assert sentence in done.output
    assert "Traceback" not in done.output


def small() -> Circuit:
    graph = Graph(2, 2, parallel=False)
    edges = np.zeros_like(graph.allowed)
    edges[0, 0] = edges[graph.head(0, 0), -1] = edges[0, -1] = True
    return Circuit(graph, edges, np.where(edges, -1.0, 0.0))


@pytest.mark.parametrize("ending", ["svg", "png", "pdf"])
def test_a_picture_is_written_in_the_format_of_its_ending(folder: Path, ending: str) -> None:
    path = folder / f"c.{ending}"
    drawing.draw(small(), path)
    assert {"svg": b"<svg", "png": b"\x89PNG", "pdf": b"%PDF"}[ending] in path.read_bytes()[:2000]


def test_an_empty_circuit_can_be_drawn_and_a_strange_ending_is_refused(folder: Path) -> None:
    drawing.draw(empty(Graph(2, 2)), folder / "c.svg")
    with pytest.raises(UsageError, match=r"drawn as \.svg"):
        drawing.draw(small(), folder / "c.docx")


def test_without_matplotlib_the_error_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"pip install 'mechtests\[draw\]'"):
        drawing.draw(small(), folder / "c.svg")


def test_every_node_stands_above_what_it_reads_from() -> None:
    for parallel in (True, False):
        graph = Graph(3, 2, parallel=parallel)
        at = drawing.positions(Circuit(graph, graph.allowed.copy()))
        assert len(at) == graph.writers + 1
        assert len(set(at.values())) == len(at)
        for writer, reader in np.argwhere(graph.allowed).tolist():
            assert at[writer][1] < at[int(graph.nodes[reader])][1]
