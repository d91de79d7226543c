"""The ``mechtests`` command: a thin face over pytest and the library."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from mechtests import shipped
from mechtests.errors import MechtestsError, UsageError

app = typer.Typer(
    help="Judge the claims of interpretability papers on a model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
QUIETLY = ("-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning")
"""The command has imported mechtests before pytest, which would rewrite its assertions."""
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


REPORTS = Annotated[
    Path | None, typer.Option(help="the folder of runs, where pytest's settings say another")
]


def _reports(given: Path | None) -> Path:
    from mechtests.reporting.folders import reports

    return given or reports(Path.cwd())


@contextmanager
def _usage(command: str) -> Iterator[None]:
    """Say in a sentence what cannot be done, and exit with 4."""
    try:
        yield
    except (MechtestsError, ImportError, OSError, ValueError) as error:
        typer.echo(f"mechtests {command}: {error}", err=True)
        raise typer.Exit(4) from None


def _pytest(arguments: list[str]) -> None:
    import pytest

    raise typer.Exit(int(pytest.main([*QUIETLY, *shipped.as_arguments(), *arguments])))


@app.command(context_settings=PASSED_ON)
def run(context: typer.Context) -> None:
    """Judge the shipped claims; every option and path is passed on to pytest."""
    _pytest(context.args)


@app.command(context_settings=PASSED_ON)
def plan(context: typer.Context) -> None:
    """Print what judging would measure and cost; options as for run."""
    _pytest(["--mech-plan", *context.args])


@app.command()
def claims(
    bibtex: Annotated[
        bool, typer.Option("--bibtex", help="print the papers alone, as a bibliography")
    ] = False,
) -> None:
    """List the claims that come with mechtests, and the papers they are of."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from mechtests.reporting.papers import PAPERS, place_in

    if bibtex:
        typer.echo("\n\n".join(paper.bibtex for paper in PAPERS.values()))
        return
    console = Console(highlight=False)
    cited: set[str] = set()
    for name, same in groupby(shipped.claims(), key=lambda claim: claim.id):
        claim, *others = same
        if claim.paper in PAPERS and claim.paper not in cited:
            cited.add(claim.paper)
            console.print(Text(PAPERS[claim.paper].citation, style="italic"))
        tasks = ", ".join(each.task for each in (claim, *others) if each.task)
        on = f" ({tasks})" if tasks else ""
        section = f", {place_in(claim.section)}" if claim.section else ""
        console.print(f"[bold]{name}[/bold]{on}  over {claim.over}, v{claim.version}{section}")
        for part, text in (
            ("says", claim.says),
            ("rule", claim.rule),
            *(("control", control) for control in claim.controls),
        ):
            console.print(Padding(Text(f"{part}: {text}"), (0, 0, 0, 4)))


@app.command()
def fetch(model: Annotated[str, typer.Argument(help="a model by name: smollm2-135m")]) -> None:
    """Download a model now, so that judging needs no network."""
    from mechtests.models import sources
    from mechtests.store import default_folder

    with _usage("fetch"):
        path = sources.resolve(model, cache=default_folder()).fetch()
    typer.echo(f"{model} is at {path}")


@app.command()
def circuit(  # noqa: PLR0913, PLR0917  (a command's options are its arguments)
    model: Annotated[str, typer.Argument(help="a model, as for --model")],
    task: Annotated[str, typer.Option(help="a task by name: ioi")] = "ioi",
    checkpoint: Annotated[str, typer.Option(help="one of the model's: step1000")] = "final",
    edges: Annotated[int | None, typer.Option(help="so many edges of the greedy order")] = None,
    faithfulness: Annotated[
        float, typer.Option(help="else the smallest circuit that keeps this share")
    ] = 0.8,
    profile: Annotated[str, typer.Option(help="quick, standard or full")] = "quick",
    out: Annotated[Path, typer.Option(help="the circuit, as JSON that EAP-IG reads")] = Path(
        "circuit.json"
    ),
    draw: Annotated[
        Path | None, typer.Option(help="and a picture of it: .svg, .png or .pdf")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="never ask the network")] = False,
) -> None:
    """Find the circuit of a task by EAP-IG, and keep it as a file and a picture."""
    from mechtests import extracting
    from mechtests.circuits import drawing

    with _usage("circuit"):
        for path in filter(None, (out, draw)):
            if not path.parent.is_dir():
                raise UsageError(f"{path}: there is no folder {path.parent} to write it into")
        if draw is not None:
            drawing.check(draw)
        found = extracting.extract(
            model,
            task,
            checkpoint=checkpoint,
            edges=edges,
            faithfulness=faithfulness,
            profile=profile,
            offline=offline,
        )
        found.circuit.save(out)
        typer.echo(found.sentence)
        typer.echo(f"{out}: nodes and edges with their scores")
        if draw is not None:
            drawing.draw(found.circuit, draw, title=found.sentence)
            typer.echo(f"{draw}: its picture")


@app.command()
def explain(  # noqa: PLR0913, PLR0917  (a command's options are its arguments)
    claim: Annotated[str, typer.Argument(help="a claim by its id")],
    model: Annotated[str, typer.Option(help="a model, as for pytest's --model")],
    checkpoint: Annotated[str | None, typer.Option(help="one of the model's: step1000")] = None,
    task: Annotated[str | None, typer.Option(help="which task, of a claim over several")] = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="hold it against a model, model:checkpoint, run or blessed FILE.json"),
    ] = None,
    profile: Annotated[str, typer.Option(help="quick, standard or full")] = "quick",
    seed: Annotated[int, typer.Option(help="the root of every random draw")] = 0,
    prompts: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK=FILE", help="your own prompts, as for --mech-prompts"),
    ] = None,
    cache: Annotated[str | None, typer.Option(help="where measurements are stored")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="never ask the network")] = False,
) -> None:
    """Say why a claim has its verdict: prompts, heads, margins, and what to try."""
    import shutil

    from mechtests import explaining
    from mechtests.models import sources
    from mechtests.reporting import explanation_page
    from mechtests.reporting.page import encodes

    with _usage("explain"):
        found = explaining.explain(
            claim,
            list(sources.parse_models([model])),
            checkpoint=checkpoint,
            task=task,
            baseline=baseline,
            profile=profile,
            seed=seed,
            prompts=prompts or (),
            store=cache,
            offline=offline,
        )
    text = explanation_page.render(
        found,
        width=shutil.get_terminal_size((100, 24)).columns,
        color=sys.stdout.isatty(),
        ascii=not encodes(sys.stdout, "→≥×"),
    )
    typer.echo(text, nl=False)


@app.command()
def methods(
    run: Annotated[str, typer.Argument(help="a run's id or folder, or latest")] = "latest",
    reports: REPORTS = None,
) -> None:
    """Write a methods paragraph of a run, and the BibTeX of the papers it judged."""
    from mechtests.reporting import methods as paragraphs
    from mechtests.reporting import records

    with _usage("methods"):
        found = records.find(_reports(reports), run)
        judged = records.correct(records.read(found))
        typer.echo(paragraphs.methods(judged, records.header(found)), nl=False)


@app.command(name="import")
def import_(  # noqa: PLR0913, PLR0917  (a command's options are its arguments)
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="CSV or JSON files")],
    name: Annotated[str | None, typer.Option(help="the model, of a file of one")] = None,
    column: Annotated[str | None, typer.Option(help="import this column alone")] = None,
    metric: Annotated[str | None, typer.Option(help="what it measures: behaviour.answers")] = None,
    task: Annotated[str | None, typer.Option(help="on which task: ioi")] = None,
    value: Annotated[str | None, typer.Option(help="which value: logit_difference")] = None,
    unit: Annotated[str | None, typer.Option(help="its unit, of a metric of your own")] = None,
    scale: Annotated[float | None, typer.Option(help="multiply by it: 0.01 of percent")] = None,
    prompts: Annotated[int | None, typer.Option(help="prompts each mean is over")] = None,
    source: Annotated[str | None, typer.Option(help="where it comes from: paper, file")] = None,
    error: Annotated[float | None, typer.Option(help="standard error of every mean")] = None,
    error_column: Annotated[str | None, typer.Option(help="column of standard errors")] = None,
    binomial: Annotated[
        int | None,
        typer.Option(metavar="N", help="each mean is a share of N independent trials"),
    ] = None,
    replicate: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="another recording of the same, to derive the error"),
    ] = None,
    proportional: Annotated[
        bool, typer.Option("--proportional", help="the derived error grows with the values")
    ] = False,
    zero_until: Annotated[
        int | None,
        typer.Option(metavar="STEP", help="up to it the truth is 0, for the error of small values"),
    ] = None,
) -> None:
    """Record values that someone else measured, for --model recorded:NAME."""
    from mechtests import importing

    options = importing.Options(
        name=name,
        column=column,
        metric=metric,
        task=task,
        value=value,
        unit=unit,
        scale=scale,
        prompts=prompts,
        source=source,
        error=error,
        error_column=error_column,
        binomial=binomial,
        replicate=tuple(replicate or ()),
        proportional=proportional or None,
        zero_until=zero_until,
    )
    models: dict[str, None] = {}
    failed = False
    for path in files:
        try:
            made = importing.import_file(path, options)
        except MechtestsError as problem:
            typer.echo(f"mechtests import: {problem}", err=True)
            failed = True
            continue
        models.update(dict.fromkeys(made.entries))
        for line in made.lines():
            typer.echo(line)
    if models:
        typer.echo(f"judge with: pytest --model {','.join(f'recorded:{each}' for each in models)}")
    if failed:
        raise typer.Exit(4)


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="a run's id or folder, or latest")] = "latest",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="PATH.html, .md, .json or .jsonl, or badge.json")
    ] = Path("report.html"),
    before: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN",
            help="what another run or a FILE.json said, oldest first, beside the earlier runs "
            "of the folder",
        ),
    ] = None,
    reports: REPORTS = None,
) -> None:
    """Write a run that was judged as a page, a summary, a badge or its records."""
    from mechtests.reporting import history, outputs, records, samples
    from mechtests.store import Store

    with _usage("report"):
        folder = _reports(reports)
        found = records.find(folder, run)
        header, judged = records.header(found), records.correct(records.read(found))
        past = [history.before(before or (), folder)]
        if out.name.endswith(outputs.WITH_A_PAST):
            past.insert(0, history.own(header, judged, folder))
        outputs.write(
            out,
            header,
            judged,
            store=Store(str(header["store"])) if header.get("store") else None,
            history=history.joined(*past),
            kept=samples.lines(found),
        )
    size = out.stat().st_size
    typer.echo(f"{out}: {size / 1e6:.2g} MB" if size >= 1e4 else f"{out}: {size / 1e3:.2g} kB")


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="RUN, FILE.json, MODEL[@CHECKPOINT]")],
    b: Annotated[str, typer.Argument(metavar="B", help="or RUN:MODEL[@CHECKPOINT]")],
    json: Annotated[bool, typer.Option("--json", help="print it as JSON")] = False,
    whole: Annotated[bool, typer.Option("--all", help="print all, not the first 30")] = False,
    reports: REPORTS = None,
) -> None:
    """Compare two runs, baselines, models or checkpoints claim by claim.

    A and B are each a run (its id, its folder, a records.jsonl, or latest), a baseline
    (FILE.json), a model in the latest runs that judged it (MODEL, MODEL@CHECKPOINT), or a model
    in one run (RUN:MODEL, RUN:MODEL@CHECKPOINT). Exits with 0 where no verdict flips, 1 where
    one does, 4 where A or B cannot be found.
    """
    from mechtests.reporting import comparing

    with _usage("compare"):
        found = comparing.between(a, b, _reports(reports))
    typer.echo(comparing.as_json(found) if json else comparing.as_text(found, whole=whole))
    raise typer.Exit(1 if found.flips else 0)


@app.command()
def merge(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="ids or folders of runs")],
    reports: REPORTS = None,
) -> None:
    """Join the shards of a run, or runs of several models, into one run."""
    from mechtests.reporting import merging, records, terminal
    from mechtests.reporting.page import encodes

    with _usage("merge"):
        folder = _reports(reports)
        run, said = merging.merge([records.find(folder, each) for each in runs], folder)
        path = run / records.RECORDS
        found = records.correct(records.read(run))
    plain = not encodes(sys.stdout, "│─┼≥×")
    typer.echo(terminal.render(found, verbosity=-1, path=path, ascii=plain), nl=False)
    for line in said:
        typer.echo(line)


@app.command()
def bless(
    run_: Annotated[
        str, typer.Argument(metavar="RUN", help="the id or folder of a run, or latest")
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="the baseline to write")],
    inconclusive: Annotated[
        bool, typer.Option("--inconclusive", help="bless inconclusive verdicts as well")
    ] = False,
    reports: REPORTS = None,
) -> None:
    """Make the verdicts of a run the expected ones: pytest --mech-baseline FILE."""
    from mechtests.reporting import blessing, records

    with _usage("bless"):
        folder = _reports(reports)
        run = records.find(folder, run_)
        found, header = records.read(run), records.header(run)
        said = blessing.bless(file, found, header, inconclusive=inconclusive, flag="--inconclusive")
    for line in said:
        typer.echo(line)


@app.command()
def falsify(  # noqa: PLR0913, PLR0917  (a command's options are its arguments)
    claim: Annotated[str, typer.Argument(metavar="CLAIM", help="a claim by its id")],
    model: Annotated[str, typer.Option(help="a model, as for --model of pytest")],
    task: Annotated[str | None, typer.Option(help="which task, of a claim over several")] = None,
    search: Annotated[
        str | None,
        typer.Option(metavar="WHAT", help="behaviour or mechanism: the latter where there is one"),
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="one of the model's: step1000")] = "final",
    budget: Annotated[int, typer.Option(help="make so many forward passes at most")] = 1000,
    seed: Annotated[int, typer.Option(help="what the draws start from")] = 0,
    offline: Annotated[bool, typer.Option("--offline", help="never ask the network")] = False,
    reports: REPORTS = None,
) -> None:
    """Search for the smallest prompt that breaks a claim's behaviour or mechanism.

    Prompts are drawn from the grammar of the claim's task and run. One that the model gets wrong
    breaks the behaviour; one that it gets right breaks the mechanism where the number that decides
    the claim, at the heads the claim has chosen on its own prompts, is on the other side of its
    margin. It is made as simple as it can be, shown beside the prompt most like it that passes,
    and kept in the folder of reports, to be run first the next time. What the claim itself reads
    is measured before, unless it is stored. Exits with 0 where none is found, 1 where one is, 4
    where there is nothing to search.
    """
    from mechtests import falsifying
    from mechtests.reporting import counterexample

    with _usage("falsify"):
        found = falsifying.falsify(
            claim,
            model,
            task=task,
            kind=search,
            checkpoint=checkpoint,
            budget=budget,
            seed=seed,
            offline=offline,
            reports=_reports(reports),
        )
    typer.echo(counterexample.render(found))
    raise typer.Exit(0 if found.counterexample is None else 1)


@app.command()
def doctor(
    store: Annotated[
        str | None, typer.Option("--mech-cache", metavar="DIR-or-URL", help="another store")
    ] = None,
) -> None:
    """Check the installation, a line a check; exits with 1 where something is wrong."""
    from mechtests import doctor as doctors

    sound = True
    for check in doctors.examine(store):
        sound = sound and check.sound
        typer.echo(str(check))
    raise typer.Exit(0 if sound else 1)
