"""The options of the plugin; light, since every run of pytest reads them."""

from __future__ import annotations

import argparse
import re
from itertools import pairwise
from pathlib import Path

import pytest

FAIL_ON = ("refuted", "changed", "error", "inconclusive", "missing")
DEFAULT_FAIL_ON = ("refuted", "changed", "error")
ALIASES = {
    "--model": {"dest": "mech_model", "action": "append", "metavar": "NAME"},
    "--checkpoints": {"dest": "mech_checkpoints", "metavar": "SPEC"},
}


def add(parser: pytest.Parser) -> None:
    """Register the options; the short ``--model`` and ``--checkpoints`` come later."""
    group = parser.getgroup("mechtests", "claims about mechanisms of language models")
    _add_selection(group)
    _add_measuring(group)
    _add_judging(group)
    parser.addini("mech_reports", "folder for the records of runs", default=".mechtests")


def _add_selection(group: pytest.OptionGroup) -> None:
    """What is judged."""
    add = group.addoption
    add(
        "--mech-model",
        action="append",
        metavar="NAME",
        help=(
            "judge this model (repeat it, or a comma list): an embedded one (sprout-1m), a hub id "
            "or its short form, recorded:NAME, a local folder or .gguf file written "
            "--mech-model=PATH; short form: --model"
        ),
    )
    add(
        "--mech-checkpoints",
        metavar="SPEC",
        help=(
            "final, all, step:0,1000, tokens:2e9, log:12 or 1000..8000; short form: --checkpoints"
        ),
    )
    add(
        "--mech-claims",
        action="append",
        metavar="GLOB",
        help=("judge only the claims whose id matches, such as 'tigges2024.name-*'"),
    )
    add(
        "--mech-shard",
        type=_shard,
        metavar="I/N",
        help=(
            "judge the I-th of N parts of the run, split by cell; mechtests merge joins the runs"
        ),
    )


def _add_measuring(group: pytest.OptionGroup) -> None:
    """How it is measured, and where that is kept."""
    add = group.addoption
    add(
        "--mech-plan",
        action="store_true",
        help=("print what would be measured and what it costs, and measure nothing"),
    )
    add(
        "--mech-replay",
        nargs="?",
        const="latest",
        metavar="RUN",
        help=("judge what is stored, without a model: the latest run, or --mech-replay=RUN"),
    )
    add("--mech-refresh", action="store_true", help="measure again what is stored")
    add("--mech-offline", action="store_true", help="never ask the network")
    add(
        "--mech-keep-weights",
        action="store_true",
        help=(
            "keep what is downloaded of a series: where a run downloads several checkpoints of a "
            "hub model, it deletes the weights of each when it is measured; a single one stays"
        ),
    )
    add("--mech-cache", metavar="DIR-or-URL", help="where measurements are stored")
    add(
        "--mech-profile",
        choices=("quick", "standard", "full"),
        default="quick",
        help=("how many prompts and random draws (default: quick)"),
    )
    add("--mech-seed", type=int, default=0, metavar="N", help="the root of every random draw")
    add(
        "--mech-dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help=("precision of the network (default: float32)"),
    )
    add("--mech-device", default="cpu", help="where the network runs (default: cpu)")
    add(
        "--mech-prompts",
        action="append",
        metavar="TASK=FILE",
        help=(
            "use your own prompts for a task: a .csv with columns clean, corrupted and the "
            "answers; for the task text a .txt, or a .jsonl, .csv or .parquet with a column "
            "text, or text=hf:owner/name, a dataset of the hub"
        ),
    )


def _add_judging(group: pytest.OptionGroup) -> None:
    """What fails, what is expected, and what is written."""
    add = group.addoption
    add(
        "--mech-fail-on",
        type=_fail_on,
        metavar="LIST",
        help=(
            f"what makes the run fail, of {', '.join(FAIL_ON)} (default: "
            f"{','.join(DEFAULT_FAIL_ON)}; error alone with --mech-bless)"
        ),
    )
    add(
        "--mech-baseline",
        metavar="FILE",
        help=(
            "hold the verdicts against this baseline: one that is as there does not fail, "
            "another one is changed and fails"
        ),
    )
    add("--mech-bless", metavar="FILE", help="make the verdicts of this run a baseline")
    add(
        "--mech-bless-inconclusive",
        action="store_true",
        help="let --mech-bless bless inconclusive verdicts as well",
    )
    add(
        "--mech-report",
        action="append",
        type=_report,
        metavar="PATH",
        help=(
            "also write a report, repeatable: PATH.html to look at, PATH.md for a step's summary, "
            "PATH.json or PATH.jsonl the records, badge.json a badge for shields.io's endpoint"
        ),
    )


def _fail_on(given: str) -> list[str]:
    words = [word.strip() for word in given.split(",") if word.strip()]
    if unknown := [word for word in words if word not in FAIL_ON]:
        raise argparse.ArgumentTypeError(f"knows {', '.join(FAIL_ON)}, got {', '.join(unknown)}")
    return words


def _report(given: str) -> str:
    from mechtests.errors import UsageError
    from mechtests.reporting.outputs import check

    try:
        return check(given)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _shard(given: str) -> str:
    whole = re.fullmatch(r"(\d+)/(\d+)", given)
    if whole is None or not 1 <= int(whole[1]) <= int(whole[2]):
        raise argparse.ArgumentTypeError(f"is I/N with I from 1 to N, such as 1/4, got {given}")
    return given


def fail_on(option: argparse.Namespace) -> tuple[str, ...]:
    """What makes a run fail; blessing accepts what is refuted, unless told otherwise."""
    if option.mech_fail_on is not None:
        return tuple(option.mech_fail_on)
    return ("error",) if option.mech_bless else DEFAULT_FAIL_ON


def add_aliases(parser: pytest.Parser) -> None:
    """Add the short options, unless another plugin or conftest owns them."""
    group = parser.getgroup("mechtests")
    for option, how in ALIASES.items():
        try:
            group.addoption(option, help=argparse.SUPPRESS, **how)
        except (ValueError, argparse.ArgumentError):
            continue


def refuse_split_path(args: list[str]) -> None:
    """Refuse ``--model PATH``: pytest has already taken PATH for a folder of tests."""
    for option, value in pairwise(args):
        if option in ("--model", "--mech-model") and (
            Path(value).exists() or value.endswith(".gguf")
        ):
            raise pytest.UsageError(
                f"write {option}={value}: after a space pytest takes an existing path for a "
                "folder of tests"
            )


def selection(config: pytest.Config) -> list[str]:
    """The options and paths by which the tests of a run were selected, as they were written."""
    option = config.option
    words = [
        f"{name} {value}"
        for name, value in (("-k", option.keyword), ("-m", option.markexpr))
        if value
    ]
    words += [f"--mech-claims {glob}" for glob in option.mech_claims or []]
    return words + named_files(config)


def named_files(config: pytest.Config) -> list[str]:
    """The files and tests named as arguments, which have only some of all claims."""
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        return []
    return [each for each in config.args if each.endswith(".py") or "::" in each]


def narrowed(config: pytest.Config) -> list[str]:
    """The options that left out tests for another reason than what they are about."""
    names = ("lf", "deselect", "stepwise", "ignore", "ignore_glob")
    given = [name for name in names if getattr(config.option, name, None)]
    return [f"--{name.replace('_', '-')}" for name in given]
