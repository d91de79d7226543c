"""Adapters: merging is what the adapter computes, by a forward pass that never merges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import mechtests
from mechtests.errors import LoadError, UsageError
from mechtests.models import adapters, sources
from mechtests.models.embedded import EmbeddedSource
from tests.tiny import ARCHITECTURES, off, prompts, tiny

RANK, ALPHA = 3, 8.0
PLAIN = {
    "peft_type": "LORA",
    "r": RANK,
    "lora_alpha": ALPHA,
    "bias": "none",
    "task_type": "CAUSAL_LM",
}


def linear(model: Any) -> dict[str, Any]:
    """Every linear map of the blocks."""
    return {
        name: part
        for name, part in model.named_modules()
        if type(part).__name__ in ("Linear", "Conv1D") and part is not model.get_output_embeddings()
    }


def write(
    folder: Path, model: Any, *, names: list[str] | None = None, seed: int = 0, **config: Any
) -> dict[str, tuple[Any, Any]]:
    """An adapter with random factors for some linear maps; gives the factors."""
    generator = torch.Generator().manual_seed(seed)
    factors, tensors = {}, {}
    for name, part in linear(model).items():
        if names is not None and name not in names:
            continue
        out, inner = part.weight.shape
        if type(part).__name__ == "Conv1D":
            out, inner = inner, out
        down, up = (
            torch.randn(size, generator=generator) * 0.2 for size in ((RANK, inner), (out, RANK))
        )
        factors[name] = down, up
        tensors[f"base_model.model.{name}.lora_A.weight"] = down
        tensors[f"base_model.model.{name}.lora_B.weight"] = up
    folder.mkdir(parents=True, exist_ok=True)
    (folder / adapters.CONFIG).write_text(json.dumps({**PLAIN, **config}))
    save_file(tensors, folder / adapters.WEIGHTS)
    return factors


def beside(model: Any, factors: dict[str, Any], scale: float, tokens: torch.Tensor) -> torch.Tensor:
    """Logits with the adapter computed beside each map: y = W x + s B (A x)."""
    handles = []
    modules = dict(model.named_modules())
    for name, (down, up) in factors.items():

        def add(_: Any, given: Any, out: Any, down: Any = down, up: Any = up) -> Any:
            return out + scale * (given[0] @ down.T) @ up.T

        handles.append(modules[name].register_forward_hook(add))
    with torch.no_grad():
        logits = model(input_ids=tokens).logits
    for handle in handles:
        handle.remove()
    return logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("rslora", [False, True])
def test_merging_is_what_the_adapter_computes(
    architecture: str, rslora: bool, tmp_path: Path
) -> None:
    model, tokens = tiny(architecture), prompts()
    conv = architecture == "gpt2"
    factors = write(tmp_path, model, use_rslora=rslora, fan_in_fan_out=conv)
    scale = ALPHA / (RANK**0.5 if rslora else RANK)
    plain = model(input_ids=tokens).logits
    expected = beside(model, factors, scale, tokens)
    adapters.merge(model, tmp_path, "merged")
    merged = model(input_ids=tokens).logits
    assert (plain - expected).abs().max() > 0.1  # the adapter does something
    assert off(merged, expected) < 5e-5  # the order of sums


def test_merging_with_peft_gives_the_same_weights(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = tiny("llama")
    some = ("q_proj", "v_proj", "down_proj")
    names = [name for name in linear(model) if name.endswith(some)]
    write(tmp_path, model, names=names, target_modules=list(some))
    theirs = peft.PeftModel.from_pretrained(tiny("llama"), tmp_path).merge_and_unload()
    adapters.merge(model, tmp_path, "merged")
    for (name, mine), (other, weight) in zip(
        sorted(model.state_dict().items()), sorted(theirs.state_dict().items()), strict=True
    ):
        assert name == other
        torch.testing.assert_close(mine, weight, atol=1e-6, rtol=1e-6)


def test_what_an_adapter_names_alone_is_changed(tmp_path: Path) -> None:
    model, before = tiny("gpt_neox"), tiny("gpt_neox").state_dict()
    [name, *_] = linear(model)
    write(tmp_path, model, names=[name])
    adapters.merge(model, tmp_path, "merged")
    changed = [
        key for key, weight in model.state_dict().items() if not torch.equal(weight, before[key])
    ]
    assert changed == [f"{name}.weight"]


def test_half_precision_is_rounded_once(tmp_path: Path) -> None:
    exact, half = tiny("llama"), tiny("llama", dtype=torch.bfloat16)
    factors = write(tmp_path, exact)
    name, (down, up) = next(iter(factors.items()))
    wide = dict(half.named_modules())[name].weight.float() + ALPHA / RANK * up @ down
    adapters.merge(half, tmp_path, "merged")
    assert torch.equal(dict(half.named_modules())[name].weight, wide.to(torch.bfloat16))


MORE = [
    {"use_dora": True},
    {"bias": "all"},
    {"modules_to_save": ["lm_head"]},
    {"alpha_pattern": {"q_proj": 4}},
    {"init_lora_weights": "pissa"},
    {"layer_replication": [[0, 1]]},
    {"target_parameters": ["experts"]},
    {"trainable_token_indices": [3]},
]


@pytest.mark.parametrize("more", MORE, ids=lambda more: next(iter(more)))
def test_an_adapter_that_is_more_than_a_product_is_refused(
    more: dict[str, Any], tmp_path: Path
) -> None:
    model = tiny("llama")
    before = {key: weight.clone() for key, weight in model.state_dict().items()}
    write(tmp_path, model, **more)
    with pytest.raises(LoadError, match=f"says {next(iter(more))}=.*merge_and_unload"):
        adapters.merge(model, tmp_path, "merged")
    assert all(torch.equal(weight, before[key]) for key, weight in model.state_dict().items())


def test_other_kinds_files_and_models_are_refused(tmp_path: Path) -> None:
    model = tiny("llama")
    write(tmp_path / "kind", model, peft_type="IA3")
    write(tmp_path / "other", tiny("gpt_neox"))
    write(tmp_path / "narrow", tiny("llama", hidden_size=32, head_dim=16))
    for name, edit in {
        "extra": lambda t: t | {"base_model.model.lm_head.weight": torch.zeros(2, 2)},
        "embedding": lambda t: t | {"base_model.model.e.lora_embedding_A": torch.zeros(2, 2)},
        "half": lambda t: dict(list(t.items())[1:]),
    }.items():
        write(tmp_path / name, model)
        path = tmp_path / name / adapters.WEIGHTS
        save_file(edit(load_file(path)), path)
    write(tmp_path / "damaged", model)
    (tmp_path / "damaged" / adapters.WEIGHTS).write_bytes(b"no")
    write(tmp_path / "pickle", model)
    (tmp_path / "pickle" / adapters.WEIGHTS).rename(tmp_path / "pickle" / "adapter_model.bin")
    said = {
        "kind": "of the kind IA3", "other": "modules that the model does not have",
        "narrow": "trained on another model", "extra": "lm_head.weight, which is no",
        "embedding": "lora_embedding_A, which is no", "half": "one factor is missing",
        "damaged": "is damaged", "pickle": "as safetensors",
    }  # fmt: skip
    for name, words in said.items():
        with pytest.raises(LoadError, match=words):
            adapters.merge(tiny("llama"), tmp_path / name, "merged")


def test_a_head_tied_to_the_embedding_is_refused(tmp_path: Path) -> None:
    model = tiny("llama", tie_word_embeddings=True)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    tensors = {
        "base_model.model.lm_head.lora_A.weight": torch.zeros(RANK, 64),
        "base_model.model.lm_head.lora_B.weight": torch.zeros(120, RANK),
    }
    (tmp_path / adapters.CONFIG).write_text(json.dumps(PLAIN))
    save_file(tensors, tmp_path / adapters.WEIGHTS)
    with pytest.raises(LoadError, match="tied"):
        adapters.merge(model, tmp_path, "merged")


def test_a_name_with_a_plus_is_a_cell_of_its_own(tmp_path: Path) -> None:
    base = sources.resolve("sprout-100k")
    model = base.load(None, dtype="float32", device="cpu", offline=True).model
    write(tmp_path / "tuned", model, seed=1)
    source = sources.resolve(f"sprout-100k+{tmp_path / 'tuned'}")
    assert (source.name, source.kind) == ("sprout-100k+tuned", "embedded")
    assert source.checkpoints(offline=True) == ()
    identity = source.identity(None, offline=True)
    assert identity["sha256"] == base.identity(None, offline=True)["sha256"]
    assert hash(source) == hash(sources.resolve(f"sprout-100k+{tmp_path / 'tuned'}"))
    write(tmp_path / "tuned", model, seed=2)
    assert source.identity(None, offline=True)["adapter"] != identity["adapter"]
    with pytest.raises(UsageError, match="has no adapter_config"):
        sources.resolve(f"sprout-100k+{tmp_path}")
    with pytest.raises(UsageError, match="did you mean"):
        sources.resolve(f"sprout-10k+{tmp_path / 'tuned'}")
    assert isinstance(base, EmbeddedSource)


def test_claims_are_judged_with_the_adapter(tmp_path: Path) -> None:
    model = sources.resolve("sprout-100k").load(None, dtype="float32", device="cpu", offline=True)
    claim = "tigges2024.induction-present"
    write(tmp_path / "nothing", model.model, names=[])
    write(tmp_path / "broken", model.model, lora_alpha=60.0)
    store = tmp_path / "store"
    names = ["sprout-100k", *(f"sprout-100k+{tmp_path / each}" for each in ("nothing", "broken"))]
    found = {
        record.cell.id: record.verdict
        for record in mechtests.judge(names, claims=claim, store=store, offline=True)
    }
    plain, nothing, broken = found.values()
    assert list(found) == ["sprout-100k:step4883", "sprout-100k+nothing", "sprout-100k+broken"]
    assert nothing.estimate == plain.estimate
    assert str(plain.outcome) == "holds"
    assert str(broken.outcome) == "refuted"
