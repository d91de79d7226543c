"""The ``mechtests`` command: a thin face over pytest and the library."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mechtests import shipped
from mechtests.errors import MechtestsError

app = typer.Typer(
    help="Judge the claims of interpretability papers on a model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def _pytest(arguments: list[str]) -> None:
    import pytest

    raise typer.Exit(int(pytest.main([str(shipped.folder("assertions")), *arguments])))


@app.command(context_settings=PASSED_ON)
def run(context: typer.Context) -> None:
    """Judge the shipped claims; every option and path is passed on to pytest."""
    _pytest(context.args)


@app.command(context_settings=PASSED_ON)
def plan(context: typer.Context) -> None:
    """Print what judging would measure and cost; options as for run."""
    _pytest(["--mech-plan", *context.args])


@app.command()
def claims() -> None:
    """List the claims that come with mechtests."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False)
    for claim in shipped.claims():
        task = f" ({claim.task})" if claim.task else ""
        console.print(f"[bold]{claim.id}[/bold]{task}  over {claim.over}, v{claim.version}")
        for name, text in (
            ("says", claim.says),
            ("rule", claim.rule),
            *(("control", control) for control in claim.controls),
        ):
            console.print(Padding(Text(f"{name}: {text}"), (0, 0, 0, 4)))


@app.command()
def fetch(model: Annotated[str, typer.Argument(help="a model by name: smollm2-135m")]) -> None:
    """Download a model now, so that judging needs no network."""
    from mechtests.models import sources
    from mechtests.store import default_folder

    try:
        path = sources.resolve(model, cache=default_folder()).fetch()
    except MechtestsError as error:
        typer.echo(f"mechtests fetch: {error}", err=True)
        raise typer.Exit(4) from None
    typer.echo(f"{model} is at {path}")


@app.command()
def doctor() -> None:
    """Print what is installed and where things are kept."""
    from mechtests.reporting.records import installed_versions
    from mechtests.store import default_folder

    typer.echo(f"python {sys.version.split()[0]}")
    for package, version in installed_versions().items():
        typer.echo(f"{package} {version or 'not installed'}")
    typer.echo(f"measurements and converted models: {default_folder()}")
    typer.echo(f"claims: {shipped.folder('assertions')}, {len(list(shipped.claims()))} of them")
