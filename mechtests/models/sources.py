"""A name becomes a source, without touching the network or loading a library."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from mechtests.errors import MechtestsError, UsageError
from mechtests.models import adapters, embedded, recording
from mechtests.models.cell import Source
from mechtests.models.embedded import EmbeddedSource
from mechtests.models.gguf import GgufSource
from mechtests.models.hub import HubSource
from mechtests.models.local import STEP_FOLDER, LocalSource
from mechtests.models.recorded import RecordedSource
from mechtests.models.revisions import PYTHIA_NAME, PYTHIA_SHAPES, pythia_parameters
from mechtests.models.shape import Shape
from mechtests.models.wheel import SMOLLM2

PYTHIA_SIZES = tuple(PYTHIA_SHAPES)

SHORT_NAMES = {
    **{f"pythia-{size}": f"EleutherAI/pythia-{size}" for size in PYTHIA_SIZES},
    **{f"pythia-{size}-deduped": f"EleutherAI/pythia-{size}-deduped" for size in PYTHIA_SIZES[2:]},
    **{f"gpt2{size}": f"openai-community/gpt2{size}" for size in ("", "-medium", "-large", "-xl")},
    "gpt-j-6b": "EleutherAI/gpt-j-6b",
    "llama-2-7b": "meta-llama/Llama-2-7b-hf",
    "llama-2-13b": "meta-llama/Llama-2-13b-hf",
    "llama-3-8b": "meta-llama/Meta-Llama-3-8B",
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B",
    "llama-3.2-1b": "meta-llama/Llama-3.2-1B",
    "llama-3.2-3b": "meta-llama/Llama-3.2-3B",
    **{f"qwen2-{size}": f"Qwen/Qwen2-{size.upper()}" for size in ("0.5b", "1.5b", "7b")},
    **{
        f"qwen2.5-{size}": f"Qwen/Qwen2.5-{size.upper()}"
        for size in ("0.5b", "1.5b", "3b", "7b", "14b")
    },
    **{
        f"qwen3-{size}{kind.lower()}": f"Qwen/Qwen3-{size.upper()}{kind}"
        for size in ("0.6b", "1.7b", "4b", "8b", "14b")
        for kind in ("", "-Base")
    },
    **{f"gemma-2-{size}": f"google/gemma-2-{size}" for size in ("2b", "9b", "27b")},
    **{f"gemma-3-{size}": f"google/gemma-3-{size}" for size in ("270m", "1b-pt", "1b-it")},
    "smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "smollm2-360m": "HuggingFaceTB/SmolLM2-360M",
    "smollm2-360m-instruct": "HuggingFaceTB/SmolLM2-360M-Instruct",
    "smollm2-1.7b": "HuggingFaceTB/SmolLM2-1.7B",
    "smollm2-1.7b-instruct": "HuggingFaceTB/SmolLM2-1.7B-Instruct",
}
"""Short names and the hub repositories they stand for."""

_WHEELS = {"smollm2-135m": SMOLLM2}
_SIZE = re.compile(r"-\d+(?:\.\d+)?[mb](?=-|$)|(?<=^gpt2)-(?:medium|large|xl)$|-pt$")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*")
_HUB_FOLDER = re.compile(r"models--(?P<owner>.+?)--(?P<name>.+)")


def parse_models(options: Iterable[str]) -> tuple[str, ...]:
    """The models named by ``--model``, which may be repeated and hold comma lists; each once.

    The word ``sprout`` alone is the embedded family's three sizes.

    Raises:
        UsageError: A name is empty.
    """
    names: dict[str, None] = {}
    for option in options:
        whole = Path(option).expanduser().exists()  # a path may have a comma of its own
        for name in [option] if whole else option.split(","):
            if not name.strip():
                raise UsageError(f"--model {option!r}: a model's name is empty; {_FORMS}")
            family = name.strip() == embedded.FAMILY
            names.update(dict.fromkeys(embedded.SIZES if family else [name.strip()]))
    return tuple(names)


def resolve(name: str, *, cache: Path | None = None) -> Source:
    """Where a model comes from, by its name; whether it exists there is found on use.

    Args:
        name: An embedded model (``sprout-1m``), ``recorded:NAME``, a short name
            (``pythia-160m``), a hub id (``owner/name``), a ``.gguf`` file, a model's folder, a
            folder of ``stepN/`` or ``checkpoint-N/`` folders, or a ``models--owner--name``
            folder of a hub cache; or one of these with an adapter's folder after a plus
            (``sprout-1m+./adapter``). A folder that is called like a short name is written
            ``./name``; before a hub id, an existing path goes first.
        cache: Where fetched files and digests are kept; None keeps nothing and fetches into
            the user's cache folder.

    Raises:
        UsageError: The name is none of these; near ones are named.
    """
    if (source := _by_name(name, cache)) is not None:
        return source
    path = Path(name).expanduser()
    if path.exists():
        return _at_path(path.absolute(), cache)
    base, plus, adapter = name.partition(adapters.SEPARATOR)
    if plus and base and adapter:
        return adapters.resolve(resolve(base, cache=cache), adapter, cache)
    if _looks_like_a_path(name):
        raise UsageError(f"model {name}: there is no such file or folder")
    if _HUB_ID.fullmatch(name):
        return HubSource(name.rpartition("/")[2], name)
    raise _unknown(name)


def _by_name(name: str, cache: Path | None) -> Source | None:
    """The source of a model that is known by its name alone."""
    short = name.lower()
    if short in embedded.NAMES:
        return EmbeddedSource(short)
    if name.startswith(recording.PREFIX):
        model = name.removeprefix(recording.PREFIX)
        recording.read(model)
        return RecordedSource(model)
    if wheel := _WHEELS.get(short):
        from mechtests.store import default_folder

        kept = (cache or default_folder()) / "models" / Path(wheel.member).name
        return GgufSource(short, wheel.installed() or kept, cache, wheel)
    if short in SHORT_NAMES:
        return HubSource(short, SHORT_NAMES[short])
    return HubSource(short, f"EleutherAI/{short}") if PYTHIA_NAME.fullmatch(short) else None


def family(name: str) -> str:
    """The models a model is compared with over scale: those that differ in size alone.

    ``"pythia"`` and ``"pythia-deduped"`` (other seeds and dropouts are their own family),
    ``"sprout"`` for its three sizes, and what a short name is without its size: ``"gpt2"``,
    ``"qwen2.5"``. Recorded models are a family of their own, ``"recorded:pythia"``: other
    prompts were measured. A model that is none of these is its own family.
    """
    if name.startswith(recording.PREFIX):
        return recording.PREFIX + family(name.removeprefix(recording.PREFIX))
    short = name.lower()
    if short in embedded.SIZES:
        return embedded.FAMILY
    if match := PYTHIA_NAME.fullmatch(short):
        return name if match["variant"] else f"pythia{match['deduped'] or ''}"
    return _SIZE.sub("", _SIZE.sub("", short)) if short in SHORT_NAMES else name


def is_pythia(name: str) -> bool:
    """Whether a model was trained on Pythia's schedule: any size or variant, also recorded."""
    match = PYTHIA_NAME.fullmatch(name.removeprefix(recording.PREFIX))
    return match is not None and match["variant"] != "-v0"


def parameters(source: Source, *, offline: bool) -> int | None:
    """Non-embedding parameters: entries of the blocks' weight matrices; what orders a scale.

    Known of every Pythia and embedded model by its name, also in a recording or a replay; else
    from the model's configuration. None where that is not at hand.
    """
    name = source.name.removeprefix(recording.PREFIX)
    if name in embedded.NAMES:
        source = EmbeddedSource(name)
    if (known := pythia_parameters(name)) is not None:
        return known
    try:
        moments = source.checkpoints(offline=True)
        config = source.config(moments[-1] if moments else None, offline=offline)
        return Shape.from_config(config).block_parameters
    except MechtestsError:
        return None


def _at_path(path: Path, cache: Path | None) -> Source:
    if path.is_file():
        if path.suffix != ".gguf":
            raise UsageError(f"model {path}: a file must be a .gguf file; {_FORMS}")
        return GgufSource(path.stem, path, cache)
    if match := _HUB_FOLDER.fullmatch(path.name):
        repo = f"{match['owner']}/{match['name']}"
        return HubSource(match["name"], repo, cache_dir=path.parent, cached_only=True)
    known = STEP_FOLDER.fullmatch(path.name)  # many runs have a checkpoint-500
    name = f"{path.parent.name}/{path.name}" if known else path.name
    source = LocalSource(name, path, cache)
    if not (path / "config.json").is_file() and not source.checkpoints():
        raise UsageError(
            f"model {path}: the folder has no config.json, and no stepN/ or checkpoint-N/ folder "
            f"that has one; name a folder that save_pretrained or a Trainer wrote"
        )
    return source


def _looks_like_a_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.endswith(".gguf") or name.count("/") > 1


_FORMS = (
    "a model is embedded (sprout-1m), a short name (pythia-160m), a hub id (owner/name), "
    "recorded:NAME, a .gguf file, or a local folder, whose path is written --model=PATH"
)


def _unknown(name: str) -> UsageError:
    known = [*embedded.NAMES, *_WHEELS, *SHORT_NAMES]
    near = difflib.get_close_matches(name.lower(), known, n=4, cutoff=0.6)
    if not near:
        return UsageError(f"there is no model {name!r}; {_FORMS}")
    hint = f"did you mean {' or '.join(near)}?"
    return UsageError(f"there is no model {name!r}; {hint} {_FORMS[0].upper()}{_FORMS[1:]}")
