"""A model object in memory as a source: it is copied to be measured, and never changed."""

from __future__ import annotations

import copy
import hashlib
import json
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from mechtests.errors import LoadError, UsageError
from mechtests.models import loading
from mechtests.models.cell import Checkpoint, Json, Kind, Loaded
from mechtests.models.tokenizer import CellTokenizer, first_line

DTYPES = ("float32", "bfloat16", "float16")
_SAYS_NOTHING = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
"""Entries of a configuration that no logit depends on, or that the weights say."""


@dataclass(frozen=True)
class LiveSource:
    """A model that the user holds, at the weights it had when this source was made.

    It is referred to weakly: whoever keeps this source does not keep the model alive.

    Attributes:
        name: What the model is called.
        weights: SHA-256 over all weights (``bridging.digest_weights``).
        described: SHA-256 over the configuration, and over the tokenizer.
    """

    name: str
    weights: str
    described: tuple[str, str]
    tokenizer: CellTokenizer = field(compare=False, repr=False)
    model: weakref.ref[Any] = field(compare=False, repr=False)

    @classmethod
    def of(cls, model: Any, tokenizer: Any, name: str | None = None) -> LiveSource:
        """The source of a model and its tokenizer.

        Args:
            model: A decoder of ``transformers``; also inside ``DataParallel``-like wrappers or
                ``torch.compile``.
            tokenizer: A tokenizer of ``transformers``, or one of a cell (``CellTokenizer``).
            name: What to call it; what it was loaded as, unless said.

        Raises:
            UsageError: It is no such model.
            LoadError: Model and tokenizer do not belong together.
        """
        from mechtests.models.bridging import digest_weights

        model = unwrapped(model)
        name = name or name_of(model)
        if not isinstance(tokenizer, CellTokenizer):
            rows = int(model.get_input_embeddings().weight.shape[0])
            tokenizer = CellTokenizer(copy.deepcopy(tokenizer), name=name, vocabulary=rows)
        said = {k: v for k, v in model.config.to_dict().items() if k not in _SAYS_NOTHING}
        text = json.dumps(said, sort_keys=True, default=str)
        config = hashlib.sha256(text.encode()).hexdigest()
        described = (config, tokenizer.digest)
        return cls(name, digest_weights(model), described, tokenizer, weakref.ref(model))

    @property
    def kind(self) -> Kind:
        """``"object"``."""
        return "object"

    @property
    def dtype(self) -> str:
        """The type of its weights by name.

        Raises:
            UsageError: Nothing is measured in it.
        """
        dtype = str(self._alive().dtype).removeprefix("torch.")
        if dtype not in DTYPES:
            raise UsageError(
                f"{self.name}: its weights are {dtype}, and models are measured in "
                f"{', '.join(DTYPES)}; pass a model in one of these"
            )
        return dtype

    @property
    def device(self) -> str:
        """Where it is.

        Raises:
            UsageError: It is spread over several devices.
        """
        devices = sorted({str(each.device) for each in self._alive().parameters()})
        if len(devices) != 1:
            raise UsageError(
                f"{self.name} is spread over {', '.join(devices)}; put it on one device first"
            )
        return devices[0]

    @property
    def notes(self) -> list[str]:
        """What of the object is no part of the model that is judged."""
        hooked = [
            name or "the model"
            for name, part in self._alive().named_modules()
            if part._forward_hooks or part._forward_pre_hooks
        ]
        if not hooked:
            return []
        more = f" and {len(hooked) - 3} more" if len(hooked) > 3 else ""
        return [
            f"{self.name}: the weights are judged without the hooks on "
            f"{', '.join(hooked[:3])}{more}"
        ]

    def checkpoints(self, *, offline: bool = True) -> tuple[Checkpoint, ...]:
        """None: an object is one moment."""
        return ()

    def identity(
        self, checkpoint: Checkpoint | None, *, offline: bool = True
    ) -> Mapping[str, Json]:
        """The digests of weights, configuration and tokenizer."""
        config, tokenizer = self.described
        return {"weights": self.weights, "config": config, "tokenizer": tokenizer}

    def config(self, checkpoint: Checkpoint | None, *, offline: bool = True) -> dict[str, Json]:
        """The model's configuration."""
        return dict(self._alive().config.to_dict())

    def download_bytes(self, checkpoint: Checkpoint | None, *, offline: bool = True) -> int:
        """Nothing."""
        return 0

    def fetch(self, checkpoint: Checkpoint | None = None, *, offline: bool = False) -> NoReturn:
        """It lies in no file.

        Raises:
            UsageError: Always.
        """
        raise UsageError(f"{self.name} is an object in memory and lies in no file")

    def load(
        self,
        checkpoint: Checkpoint | None,
        *,
        dtype: str,
        device: str,
        offline: bool = True,
        untrained_seed: int | None = None,
    ) -> Loaded:
        """A copy of the model (see ``cell.Source.load``), or its configuration untrained."""
        import torch

        model = self._alive()
        config = copy.deepcopy(model.config)
        with loading.quiet():
            if untrained_seed is None:
                made = self._copy(model, config).to(getattr(torch, dtype))
            else:
                made = loading.untrained(config, untrained_seed, dtype)
        return loading.ready(made, self.tokenizer, device)

    def _copy(self, model: Any, config: Any) -> Any:
        """The same class and weights, with eager attention, without hooks or wrappers.

        Raises:
            LoadError: The weights do not make such a model, or have changed since.
        """
        import torch

        from mechtests.models.bridging import digest_weights

        try:
            with torch.random.fork_rng(devices=[]):
                made = type(model)._from_config(
                    config, attn_implementation="eager", dtype=model.dtype
                )
            made.load_state_dict(model.state_dict(), strict=True)
        except Exception as error:
            raise LoadError(
                f"{self.name}: a plain {type(model).__name__} cannot be made of its weights "
                f"({first_line(error)}); pass the plain model: merge adapters into a copy "
                f"(copy.deepcopy(model).merge_and_unload()), dequantize, undo parametrizations"
            ) from error
        if digest_weights(made) != self.weights:
            raise LoadError(
                f"{self.name}: its weights are not those it had when judging began, or are of "
                f"several types; judge it while nothing trains it, in one dtype"
            )
        return made

    def _alive(self) -> Any:
        model = self.model()
        if model is None:
            raise LoadError(f"{self.name}: the model object is gone; keep it, and judge it again")
        return model


def unwrapped(model: Any) -> Any:
    """The model inside wrappers that add no weights: parallel ones, ``torch.compile``.

    Raises:
        UsageError: There is no decoder of transformers in it.
    """
    from transformers import PreTrainedModel

    while not isinstance(model, PreTrainedModel):
        inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if inner is None:
            raise UsageError(
                f"a model of transformers is judged (a PreTrainedModel, such as "
                f"AutoModelForCausalLM gives), got {type(model).__name__}; of an adapted model "
                f"pass copy.deepcopy(model).merge_and_unload(), of another kind save it and "
                f"name its folder"
            )
        model = inner
    return model


def name_of(model: Any) -> str:
    """What a model was loaded as: the last part of a path or hub id, or its class."""
    path = str(getattr(model.config, "name_or_path", "") or "")
    return Path(path).name or type(model).__name__
