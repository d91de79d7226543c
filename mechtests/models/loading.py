"""A folder of Hugging Face files becomes a model in memory."""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mechtests.errors import LoadError
from mechtests.models import tokenizer as tokenizers
from mechtests.models.cell import Json, Loaded

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Weight files in the order of preference; each may be an index of shards instead."""

_BUFFERS = re.compile(r"(^|\.)(attn|attention)\.(masked_)?bias$|rotary_emb\.inv_freq$")
"""Causal masks and rotary frequencies that older files carry; models rebuild them."""


def read_config(folder: Path, name: str) -> dict[str, Json]:
    """The model's ``config.json``.

    Raises:
        LoadError: It is missing or not JSON.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LoadError(f"{name}: {folder} has no config.json, so it holds no model") from None
    except (ValueError, OSError) as error:
        raise LoadError(f"{name}: {path} cannot be read as JSON ({error})") from error
    if not isinstance(config, dict):
        raise LoadError(f"{name}: {path} is not a model's configuration")
    return config


def weight_files(folder: Path) -> tuple[str, ...]:
    """The weight files that loading reads; empty where there are none.

    An index that names shards counts as its shards, whether they exist or not.

    Raises:
        LoadError: The index is damaged.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return choose_weights(names, lambda index: folder / index)


def choose_weights(names: Collection[str], locate: Callable[[str], Path]) -> tuple[str, ...]:
    """Of the files of a model, those with its weights: safetensors before pickles.

    Args:
        names: The file names there are.
        locate: ``locate(name)`` is where an index of shards can be read.

    Raises:
        LoadError: The index is damaged.
    """
    for single in WEIGHTS:
        if single in names:
            return (single,)
        index = f"{single}.index.json"
        if index in names:
            return (index, *_shards(locate(index)))
    return ()


def _shards(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LoadError(
            f"{index} is no index of weights ({error}); copy or download it again"
        ) from error


def from_folder(
    folder: Path,
    *,
    name: str,
    dtype: str,
    device: str,
    untrained_seed: int | None,
    remedy: str,
    beside: Sequence[Path] = (),
    unseen: Callable[..., bool] | None = None,
) -> Loaded:
    """The model in a folder and its tokenizer, or the same configuration untrained.

    Args:
        folder: Holds ``config.json``, tokenizer files and weights.
        name: The model's name, for messages.
        dtype: The torch dtype by name.
        device: The torch device by name.
        untrained_seed: Initialise from this seed and read no weights.
        remedy: What to do about a damaged file, ending a sentence.
        beside: Folders that have the configuration or the tokenizer where ``folder``, with
            the weights of one checkpoint, does not.
        unseen: Tells which combinations were held out of training (``CellTokenizer``).

    Raises:
        LoadError: Files are missing, damaged or do not fit together.
    """
    places = (folder, *beside)
    described = _having(places, ["config.json"])
    config = read_config(described, name)
    with quiet():
        parsed = check_architecture(described, config, name)
        if untrained_seed is None:
            model = _trained(folder, parsed, name, dtype, remedy)
        else:
            model = untrained(parsed, untrained_seed, dtype)
        found = tokenizers.read(
            _having(places, tokenizers.FILES),
            name=name,
            vocabulary=_vocabulary(model),
            unseen=unseen,
        )
    return ready(model, found, device)


def _having(places: Sequence[Path], files: Sequence[str]) -> Path:
    """The first folder that has one of some files, or else the first."""
    return next((f for f in places if any((f / file).is_file() for file in files)), places[0])


def ready(model: Any, tokenizer: tokenizers.CellTokenizer, device: str) -> Loaded:
    """A model on its device, in eval mode and frozen, with the facts about it."""
    model = model.to(device).eval().requires_grad_(False)
    facts = {
        "architecture": type(model).__name__,
        "attention": model.config._attn_implementation,
        "bos": tokenizer.policy,
        "dtype": str(model.dtype).removeprefix("torch."),
        "tokenizer": tokenizer.digest,
    }
    return Loaded(model, tokenizer, facts)


def check_architecture(folder: Path, config: Mapping[str, Json], name: str) -> Any:
    """The configuration as transformers reads it, if it is a decoder it knows.

    Raises:
        LoadError: It needs code from its repository, is unknown, or is not a decoder.
    """
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING:
        if "auto_map" in config:
            raise LoadError(
                f"{name} needs program code from its repository ({kind}), which mechtests does "
                f"not run; choose a model whose architecture is part of transformers"
            )
        raise LoadError(
            f"{name}: the installed transformers does not know its architecture, "
            f"model_type {kind!r} in config.json; upgrade transformers or choose another model"
        )
    try:
        parsed = AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise LoadError(
            f"{name}: its config.json does not describe a {kind} model "
            f"({tokenizers.first_line(error)})"
        ) from error
    if type(parsed) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise LoadError(f"{name} is a {kind} model, not a decoder that predicts the next token")
    return parsed


def untrained(config: Any, seed: int, dtype: str) -> Any:
    """A model of this configuration, freshly initialised from a seed; global state is kept."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return model.to(getattr(torch, dtype))


def _trained(folder: Path, config: Any, name: str, dtype: str, remedy: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    _check_weights(folder, name, remedy)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            generation_config=GenerationConfig(),  # else one is looked for beside the weights
            dtype=getattr(torch, dtype),
            attn_implementation="eager",
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # only so that they are named, in check_complete
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise LoadError(
            f"{name}: transformers could not load {', '.join(weight_files(folder))} in {folder} "
            f"({tokenizers.first_line(error)}); if a file is damaged, {remedy}"
        ) from error
    check_complete(info, name)
    return model


def check_complete(info: Mapping[str, Any], name: str) -> None:
    """Raise unless every weight of the model was in the files, and every one was used.

    Raises:
        LoadError: Naming some of the weights at fault.
    """
    faults = {
        "misses": sorted(info["missing_keys"]),
        "has in another shape": sorted(str(key[0]) for key in info["mismatched_keys"]),
        "has, but the model has no place for,": sorted(
            key for key in info["unexpected_keys"] if not _BUFFERS.search(key)
        ),
    }
    for fault, keys in faults.items():
        if keys:
            shown = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
            raise LoadError(
                f"{name}: the weights file {fault} {len(keys)} of the weights ({shown}); its "
                f"config.json and its weights belong to different models"
            )


def _check_weights(folder: Path, name: str, remedy: str) -> None:
    from safetensors import SafetensorError, safe_open

    files = weight_files(folder)
    if not files:
        raise LoadError(
            f"{name}: {folder} has no weights (model.safetensors or pytorch_model.bin, or their "
            f"index of shards)"
        )
    for file in files:
        path = folder / file
        if not path.is_file():
            raise LoadError(f"{name}: the weights file {path} is missing; {remedy}")
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="numpy"):
                    pass
            except (SafetensorError, OSError) as error:
                raise LoadError(
                    f"{name}: the weights file {path} is damaged or cut short ({error}); {remedy}"
                ) from error


def _vocabulary(model: Any) -> int:
    return int(model.get_input_embeddings().weight.shape[0])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, reports or warnings of transformers: what matters is raised."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
