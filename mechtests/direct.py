"""Claims judged from Python: on model objects or names, by the same plan, engine and tests."""

from __future__ import annotations

import difflib
import fnmatch
import shlex
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mechtests import engine, filing, judging, memory, plan, shipped
from mechtests.case import Case
from mechtests.claim import OVER, Claim
from mechtests.errors import UsageError
from mechtests.judged import Judged
from mechtests.judging import Test
from mechtests.models import sources
from mechtests.models.live import LiveSource
from mechtests.reporting import records
from mechtests.results import Results
from mechtests.selection import Model, Selection
from mechtests.settings import DRAWS, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from mechtests.store import Store

Asked = str | Test | Iterable[str | Test]


def judge(  # noqa: PLR0913  (what is asked, of what, and how much of it is measured)
    model: Any,
    tokenizer: Any = None,
    claims: Asked = "*",
    *,
    over: str = "cell",
    profile: str = "quick",
    seed: int = 0,
    checkpoints: str | None = None,
    name: str | None = None,
    store: Store | str | Path | None = None,
    offline: bool = False,
) -> Judged:
    """Judge claims on a model object, which is not changed, or on models by their names.

    A model object is copied to be measured: its weights, mode, gradients, hooks and device
    stay as they are, and so does the state of every random generator. What is measured is
    kept in memory, unless a store is given.

    Args:
        model: A decoder of transformers, or a name as for ``--model``, or a list of either.
        tokenizer: Of the model objects.
        claims: Globs of claim ids (``"tigges2024.name-*"``), or words as for ``-k``: a task,
            paper or component (``"ioi"``, ``"induction"``); or tests of your own that
            ``@mechtests.claim`` declares; or a list of these.
        over: ``"cell"``: claims about a model as it is. ``"training"``, ``"scale"``: claims
            over the checkpoints of a name, over several models. ``"seeds"``: the claims about
            a model as it is, counted over a list of models that differ by their seed.
        profile: ``quick``, ``standard`` or ``full``: how many prompts and draws.
        seed: The root of every random draw.
        checkpoints: Of names, as for ``--checkpoints``.
        name: What to call one model object.
        store: Where measurements are kept: a folder, a URL or a ``Store``.
        offline: Whether the network may not be asked.

    Raises:
        UsageError: Nothing is called so, no claim matches, or an object is no decoder.
        LoadError: A model object and its tokenizer do not belong together.
    """
    if over not in OVER:
        raise UsageError(f"over is one of {', '.join(OVER)}, got {over!r}")
    check_profile(profile)
    chosen = choose(claims, over)
    given = model if isinstance(model, list | tuple) else [model]
    models = models_of(given, tokenizer, checkpoints, name=name, offline=offline)
    settings = Settings(profile=profile, seed=seed, **precision(models))
    kind = "cell" if over == "seeds" else over
    asked = [
        (Case(claim, subject.cells[-1], subject.cells if subject.id else (), subject.id), test)
        for claim, test in chosen
        for subject in _Given(models).subjects(kind)
    ]
    kept = memory.opened(store)
    results = measure([case for case, _ in asked], settings, kept, offline=offline)
    found = [(case, _record(case, test, results, models)) for case, test in asked]
    notes = [note for m in models if isinstance(m.source, LiveSource) for note in m.source.notes]
    corrected = records.correct([record for _, record in found])
    return Judged(
        tuple(corrected),
        tuple(case for case, _ in asked),
        results,
        tuple(dict.fromkeys([*notes, *results.notes])),
        over=over,
    )


class _Given(Selection):
    """The models that were given, grouped as those of ``--model`` are."""

    def __init__(self, models: Sequence[Model]) -> None:
        self.models = {model.source.name: model for model in models}


def check_profile(profile: str) -> None:
    """Refuse a profile that there is not.

    Raises:
        UsageError: It is none.
    """
    if profile not in DRAWS:
        raise UsageError(f"profile is one of {', '.join(DRAWS)}, got {profile!r}")


def choose(claims: Asked, over: str) -> list[tuple[Claim, Test]]:
    """The claims that are asked for and are over so much, each with its test.

    Raises:
        UsageError: Something asked for is no claim, or none is over so much.
    """
    wanted = "cell" if over == "seeds" else over
    several = not isinstance(claims, str) and not callable(claims)
    found: dict[tuple[str, str | None], tuple[Claim, Test]] = {}
    for each in claims if several else [claims]:  # type: ignore[union-attr]
        mine = _matching(each) if isinstance(each, str) else shipped.declared(each)
        if not mine:
            raise _no_claim(each)
        found.update({(claim.id, claim.task): (claim, test) for claim, test in mine})
    if not found:
        raise UsageError("claims are an empty list; name some, as '*' or 'induction'")
    chosen = [(claim, test) for claim, test in found.values() if claim.over == wanted]
    if not chosen:
        kinds = sorted({claim.over for claim, _ in found.values()})
        raise UsageError(
            f"claims {claims!r}: all {len(found)} of them are over {' or '.join(kinds)}, none over "
            f"{wanted}; ask for over={kinds[0]!r}"
        )
    return chosen


def one_claim(name: str, task: str | None, over: str | None = None) -> tuple[Claim, Test]:
    """One claim by its id, with its test.

    Args:
        name: The id, or a glob or word that only one claim matches.
        task: Which of its tasks, of a claim over several.
        over: What it must be over, where that matters.

    Raises:
        UsageError: There is none or there are several.
    """
    found = choose(name, over) if over else _matching(name)
    if exact := [(claim, test) for claim, test in found if claim.id == name]:
        found = exact
    if task is not None and found:
        tasks = dict.fromkeys(str(claim.task) for claim, _ in found)
        found = [(claim, test) for claim, test in found if claim.task == task]
        if not found:
            raise UsageError(f"{name} is over {', '.join(tasks)}, not over {task!r}")
    if not found:
        raise _no_claim(name)
    if len(found) > 1:
        ids = dict.fromkeys(claim.id for claim, _ in found)
        several = len(ids) > 1
        there = ids if several else [str(claim.task) for claim, _ in found]
        raise UsageError(
            f"{name!r} names {len(there)} {'claims' if several else 'tasks of one claim'}: "
            f"{', '.join(there)}; choose one" + ("" if several else " with task")
        )
    return found[0]


def _matching(word: str) -> list[tuple[Claim, Test]]:
    """The shipped claims of a glob or of a keyword."""
    return [
        (claim, test)
        for claim, test in shipped.tests()
        if fnmatch.fnmatchcase(claim.id, word)
        or word.lower() in [keyword.lower() for keyword in claim.keywords]
    ]


def _no_claim(asked: Any) -> UsageError:
    if not isinstance(asked, str):
        return UsageError(
            f"{getattr(asked, '__name__', asked)!r} is no claim: declare the test with "
            "@mechtests.claim(...)"
        )
    words = sorted({word for claim in shipped.claims() for word in claim.keywords})
    near = difflib.get_close_matches(asked, words, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "mechtests claims lists them"
    return UsageError(f"no claim is called {asked!r}, or has it as a keyword; {hint}")


def models_of(
    given: Sequence[Any],
    tokenizer: Any,
    spec: str | None,
    *,
    name: str | None = None,
    offline: bool = False,
) -> list[Model]:
    """Names and objects as the models of a run, each with a name of its own.

    Raises:
        UsageError: There is none, or an object has no tokenizer.
    """
    if not given:
        raise UsageError("a model is needed, got an empty list")
    found: dict[str, Model] = {}
    for each in given:
        if isinstance(each, str):
            models = list(Selection([each], spec, offline=offline).models.values())
        else:
            if tokenizer is None:
                raise UsageError("a model object needs its tokenizer beside it, got None")
            models = [_of_object(each, tokenizer, name if len(given) == 1 else None, found)]
        found.update({model.source.name: model for model in models})
    return list(found.values())


def _of_object(model: Any, tokenizer: Any, name: str | None, taken: dict[str, Model]) -> Model:
    source = LiveSource.of(model, tokenizer, name)
    if source.name in taken:
        free = (f"{source.name}-{n}" for n in range(2, len(taken) + 3))
        source = replace(source, name=next(each for each in free if each not in taken))
    return Model(source.name, source, sources.family(source.name))


def precision(models: Sequence[Model]) -> dict[str, Any]:
    """The precision and device of the model objects; the default where there is none.

    Raises:
        UsageError: They differ.
    """
    live = [model.source for model in models if isinstance(model.source, LiveSource)]
    found = {(source.dtype, source.device) for source in live}
    if len(found) > 1:
        raise UsageError(
            f"the models are of several types or devices ({'; '.join(map(str, sorted(found)))}); "
            "judge those of one at a time"
        )
    return dict(zip(("dtype", "device"), next(iter(found)), strict=True)) if found else {}


def measure(
    cases: Sequence[Case], settings: Settings, store: Store, *, offline: bool = False
) -> Results:
    """What some cases read, made where it is missing; without a torch where all is stored."""
    made = plan.build(cases, settings, store, offline=offline)
    with calm() if made.missing else nullcontext():
        return engine.run(made, store, offline=offline)


@contextmanager
def calm() -> Iterator[None]:
    """Torch as a process has it that only measures, whatever the caller has switched on."""
    import torch

    with ExitStack() as calmed:
        calmed.enter_context(torch.inference_mode(False))
        calmed.enter_context(torch.enable_grad())
        calmed.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count())))
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            calmed.enter_context(torch.autocast(device, enabled=False))
        yield


def _record(case: Case, test: Test, results: Results, models: Sequence[Model]) -> Any:
    started = time.monotonic()
    verdict = judging.verdict_of(case, results, test)
    seconds = time.monotonic() - started
    return filing.record(
        case, verdict, results, nodeid="", reproduce=command(case, results.settings, models),
        seconds=seconds,
    )  # fmt: skip


def command(case: Case, settings: Settings, models: Sequence[Model]) -> str:
    """What reaches a verdict again: of names a command, of an object the call.

    Args:
        case: What was judged.
        settings: With what.
        models: The models of the run, as they were named.
    """
    if any(isinstance(cell.source, LiveSource) for cell in case.cells):
        more = [f"profile={settings.profile!r}"]
        more += [f"seed={settings.seed}"] if settings.seed else []
        more += [f"over={case.claim.over!r}"] if case.claim.over != "cell" else []
        return f"mechtests.judge(model, tokenizer, {case.claim.id!r}, {', '.join(more)})"
    mine = [model for model in models if model.source.name in case.models]
    words = ["mechtests", "run", f"--mech-claims={case.claim.id}"]
    words.append(f"--model={','.join(model.asked for model in mine)}")
    at = case.cell.checkpoint and case.cell.checkpoint.label
    if (chosen := mine[0].spec if case.series else at) is not None:
        words.append(f"--checkpoints={chosen}")
    for option, default in (("profile", "quick"), ("seed", 0), ("dtype", "float32")):
        if (value := getattr(settings, option)) != default:
            words.append(f"--mech-{option}={value}")
    words += [f"--mech-prompts={task}={path}" for task, path in settings.prompts.items()]
    return shlex.join(words)


def one_case(claim: Claim, models: Sequence[Model]) -> Case:
    """The one cell, series or family of some models that a claim is judged on.

    Raises:
        UsageError: There are several.
    """
    subjects = _Given(models).subjects(claim.over)
    if len(subjects) != 1:
        raise UsageError(
            f"{claim.id} is over {claim.over}, and {len(subjects)} of these were named "
            f"({', '.join(each.id or each.cells[-1].id for each in subjects)}); name one"
        )
    [subject] = subjects
    return Case(claim, subject.cells[-1], subject.cells if subject.id else (), subject.id)
