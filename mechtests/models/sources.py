"""A name becomes a source, without touching the network or loading a library."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from mechtests.errors import UsageError
from mechtests.models.cell import Source
from mechtests.models.gguf import GgufSource
from mechtests.models.hub import HubSource
from mechtests.models.local import STEP_FOLDER, LocalSource
from mechtests.models.wheel import SMOLLM2

PYTHIA_SIZES = ("14m", "31m", "70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")

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
_PYTHIA_VARIANT = re.compile(
    rf"pythia-(?:{'|'.join(map(re.escape, PYTHIA_SIZES))})"
    r"(?:-deduped)?(?:-v0|-(?:data-|weight-)?seed\d|-(?:all|attn|hidden)dropout)?"
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*")
_HUB_FOLDER = re.compile(r"models--(?P<owner>.+?)--(?P<name>.+)")


def parse_models(options: Iterable[str]) -> tuple[str, ...]:
    """The models named by ``--model``, which may be repeated and hold comma lists; each once.

    Raises:
        UsageError: A name is empty.
    """
    names: dict[str, None] = {}
    for option in options:
        whole = Path(option).expanduser().exists()  # a path may have a comma of its own
        for name in [option] if whole else option.split(","):
            if not name.strip():
                raise UsageError(f"--model {option!r}: a model's name is empty; {_FORMS}")
            names[name.strip()] = None
    return tuple(names)


def resolve(name: str, *, cache: Path | None = None) -> Source:
    """Where a model comes from, by its name; whether it exists there is found on use.

    Args:
        name: A short name (``pythia-160m``), a hub id (``owner/name``), a ``.gguf`` file, a
            model's folder, a folder of ``stepN/`` or ``checkpoint-N/`` folders, or a
            ``models--owner--name`` folder of a hub cache. A folder that is called like a
            short name is written ``./name``; before a hub id, an existing path goes first.
        cache: Where fetched files and digests are kept; None keeps nothing and fetches into
            the user's cache folder.

    Raises:
        UsageError: The name is none of these; near ones are named.
    """
    short = name.lower()
    if wheel := _WHEELS.get(short):
        from mechtests.store import default_folder

        kept = (cache or default_folder()) / "models" / Path(wheel.member).name
        return GgufSource(short, wheel.installed() or kept, cache, wheel)
    if short in SHORT_NAMES:
        return HubSource(short, SHORT_NAMES[short])
    if _PYTHIA_VARIANT.fullmatch(short):
        return HubSource(short, f"EleutherAI/{short}")
    path = Path(name).expanduser()
    if path.exists():
        return _at_path(path.absolute(), cache)
    if _looks_like_a_path(name):
        raise UsageError(f"model {name}: there is no such file or folder")
    if _HUB_ID.fullmatch(name):
        return HubSource(name.rpartition("/")[2], name)
    raise _unknown(name)


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
    "a model is a short name (pythia-160m), a hub id (owner/name), a .gguf file, or a local "
    "folder, whose path is written --model=PATH"
)


def _unknown(name: str) -> UsageError:
    known = [*_WHEELS, *SHORT_NAMES]
    near = difflib.get_close_matches(name.lower(), known, n=4, cutoff=0.6)
    if not near:
        return UsageError(f"there is no model {name!r}; {_FORMS}")
    hint = f"did you mean {' or '.join(near)}?"
    return UsageError(f"there is no model {name!r}; {hint} {_FORMS[0].upper()}{_FORMS[1:]}")
