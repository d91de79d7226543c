"""GGUF files: equal to what transformers itself reads from them, only sooner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from mechtests.errors import LoadError
from mechtests.models import gguf_file
from mechtests.models.cell import Loaded
from mechtests.models.gguf import ARCHITECTURES, GgufSource
from mechtests.models.loading import quiet
from mechtests.models.wheel import SMOLLM2
from tests import folders

WIDTH, MLP, LAYERS, HEADS, KEY_HEADS, VOCABULARY = 64, 96, 2, 4, 2, 24
HEAD = 16
POSITIONS = 1024  # transformers reads no other number of GPT-2 from GGUF
F32, Q8_0 = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q8_0


def tensors(architecture: str) -> dict[str, tuple[int, ...]]:
    """The shape of every weight, under GGUF's names."""
    if architecture == "gpt2":
        made = {
            "token_embd.weight": (VOCABULARY, WIDTH),
            "position_embd.weight": (POSITIONS, WIDTH),
        }
        layer = {"attn_qkv": (3 * WIDTH, WIDTH), "attn_output": (WIDTH, WIDTH)}
        layer |= {"ffn_up": (4 * WIDTH, WIDTH), "ffn_down": (WIDTH, 4 * WIDTH)}
        layer |= {"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,)}
        for i in range(LAYERS):
            made |= {f"blk.{i}.{name}.weight": shape for name, shape in layer.items()}
            made |= {f"blk.{i}.{name}.bias": shape[:1] for name, shape in layer.items()}
        return made | {"output_norm.weight": (WIDTH,), "output_norm.bias": (WIDTH,)}
    layer = {"attn_q": (HEADS * HEAD, WIDTH), "attn_k": (KEY_HEADS * HEAD, WIDTH)}
    layer |= {"attn_v": (KEY_HEADS * HEAD, WIDTH), "attn_output": (WIDTH, HEADS * HEAD)}
    layer |= {"ffn_gate": (MLP, WIDTH), "ffn_up": (MLP, WIDTH), "ffn_down": (WIDTH, MLP)}
    layer |= {"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,)}
    if architecture in ("qwen3", "gemma3"):
        layer |= {"attn_q_norm": (HEAD,), "attn_k_norm": (HEAD,)}
    if architecture.startswith("gemma"):
        layer |= {"post_attention_norm": (WIDTH,), "post_ffw_norm": (WIDTH,)}
    made = {"token_embd.weight": (VOCABULARY, WIDTH), "output_norm.weight": (WIDTH,)}
    for i in range(LAYERS):
        made |= {f"blk.{i}.{name}.weight": shape for name, shape in layer.items()}
    if architecture == "qwen2":
        sizes = {"q": HEADS, "k": KEY_HEADS, "v": KEY_HEADS}
        for i in range(LAYERS):
            made |= {f"blk.{i}.attn_{kind}.bias": (n * HEAD,) for kind, n in sizes.items()}
        made["output.weight"] = (VOCABULARY, WIDTH)
    return made


def write(path: Path, architecture: str, extra: tuple[str, ...] = ()) -> Path:
    """A random model, its matrices in 8 bits, its vocabulary a few letters."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(4 * WIDTH if architecture == "gpt2" else MLP)
    writer.add_head_count(HEADS)
    if architecture == "gpt2":
        writer.add_layer_norm_eps(1e-5)
    else:
        writer.add_head_count_kv(KEY_HEADS)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_dimension_count(HEAD)
        writer.add_rope_freq_base(10000.0)
        writer.add_key_length(HEAD)
        writer.add_sliding_window(8)
    words = ["<s>", "</s>", *"abcdefghijklmnopqrs", "ab", "Ġ", "Ġa"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([3, 3] + [1] * (len(words) - 2))
    writer.add_token_merges(["a b", "Ġ a"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    generator = np.random.default_rng(0)
    for name, shape in [*tensors(architecture).items(), *((name, (4,)) for name in extra)]:
        values = generator.normal(size=shape, scale=0.2).astype(np.float32)
        kind = Q8_0 if len(shape) == 2 and shape[1] % 32 == 0 else F32
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def load(path: Path, **asked: Any) -> Loaded:
    settings = {"dtype": "float32", "device": "cpu", "offline": True, **asked}
    return GgufSource("tiny", path).load(**settings)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("gguf")
    return {name: write(folder / f"{name}.gguf", name) for name in ARCHITECTURES}


def shown(config: Any) -> dict[str, Any]:
    """A configuration without what only says that it came from GGUF."""
    found = json.loads(config.to_json_string(use_diff=False))
    return {k: v for k, v in found.items() if k not in ("quantization_config", "_name_or_path")}


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2", "gemma2"])
def test_every_weight_is_as_transformers_reads_it(
    files: dict[str, Path], architecture: str
) -> None:
    path = files[architecture]
    with quiet():
        expected = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
        )
    model = load(path).model
    assert type(model) is type(expected)
    ours, theirs = model.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    torch.testing.assert_close(folders.logits(model), folders.logits(expected))


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_every_architecture_is_loaded_whole(files: dict[str, Path], architecture: str) -> None:
    source = GgufSource("tiny", files[architecture])
    loaded = source.load(dtype="float32", device="cpu", offline=True)
    assert loaded.model.config.model_type == ARCHITECTURES[architecture]
    assert source.config(offline=True)["model_type"] == ARCHITECTURES[architecture]
    assert torch.isfinite(folders.logits(loaded.model)).all()
    assert sum(loaded.facts["tensors"].values()) == len(tensors(architecture))
    table = gguf.dequantize(
        *next(
            (tensor.data, tensor.tensor_type)
            for tensor in gguf.GGUFReader(files[architecture]).tensors
            if tensor.name == "token_embd.weight"
        )
    )
    assert torch.equal(loaded.model.get_input_embeddings().weight, torch.from_numpy(table))


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_the_configuration_is_that_of_transformers(
    files: dict[str, Path], architecture: str
) -> None:
    path = files[architecture]
    with quiet():
        expected = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    config = GgufSource("tiny", path).config(offline=True)
    assert shown(AutoConfig.for_model(**config)) == shown(expected)


def test_the_tokenizer_is_that_of_transformers(files: dict[str, Path]) -> None:
    path = files["llama"]
    with quiet():
        expected = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    found = load(path).tokenizer
    for text in ("abc", "a ab a", "mad cab"):
        assert found.encode(text) == expected(text, add_special_tokens=False).input_ids
    assert found.decode(found.encode("a ab a")) == "a ab a"
    assert found.bos is None


def test_metadata_and_tensors_are_read_as_the_gguf_package_reads_them(
    files: dict[str, Path],
) -> None:
    for path in files.values():
        ours, theirs = gguf_file.read(path), gguf.GGUFReader(path)
        fields = {k: f.contents() for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
        assert ours.metadata == fields
        assert [t.name for t in ours.tensors] == [t.name for t in theirs.tensors]
        for mine, other in zip(ours.tensors, theirs.tensors, strict=True):
            assert mine.kind == other.tensor_type
            assert np.array_equal(mine.data, other.data)


def test_untrained_is_the_configuration_without_the_weights(files: dict[str, Path]) -> None:
    trained, first, same = (load(files["llama"], untrained_seed=s).model for s in (None, 3, 3))
    assert first.config.hidden_size == trained.config.hidden_size
    assert torch.equal(folders.logits(first), folders.logits(same))
    assert not torch.equal(folders.logits(first), folders.logits(trained))


def test_the_identity_is_the_digest_of_the_file(files: dict[str, Path], tmp_path: Path) -> None:
    source = GgufSource("tiny", files["llama"], tmp_path)
    other = GgufSource("tiny", files["qwen2"], tmp_path)
    assert source.identity(offline=True) == source.identity(offline=True)
    assert source.identity(offline=True) != other.identity(offline=True)
    assert (source.checkpoints(), source.download_bytes(offline=True)) == ((), 0)


def test_the_configuration_is_kept_and_read_again_without_the_file(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = GgufSource("tiny", files["llama"], tmp_path)
    first = source.config(offline=True)
    (kept,) = (tmp_path / "gguf").iterdir()
    kept.write_text('{"hidden_size": 6')  # damaged: read anew
    assert source.config(offline=True) == first
    monkeypatch.setattr(gguf_file, "read", lambda path: 1 / 0)
    assert source.config(offline=True) == first


@pytest.mark.parametrize("left", [0, 3, 30, 700, -2000])
def test_a_file_cut_short_is_an_error_that_names_it(
    files: dict[str, Path], tmp_path: Path, left: int
) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(files["llama"].read_bytes()[:left])
    with pytest.raises(LoadError, match=r"short\.gguf is not a whole GGUF file: .*again"):
        load(path)


def test_a_file_of_something_else_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(b"PK and much more, as in an archive of some kind")
    with pytest.raises(LoadError, match="does not begin with the letters GGUF"):
        load(path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="there is no file"):
        load(tmp_path / "none.gguf")


def test_an_architecture_that_gguf_cannot_bring_is_an_error_that_names_those_it_can(
    tmp_path: Path,
) -> None:
    writer = gguf.GGUFWriter(tmp_path / "neox.gguf", "gptneox")
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.close):
        step()
    with pytest.raises(LoadError, match="architecture 'gptneox' cannot be loaded, only llama"):
        load(tmp_path / "neox.gguf")


def test_a_tensor_without_a_place_is_an_error_not_another_model(tmp_path: Path) -> None:
    path = write(tmp_path / "rope.gguf", "llama", extra=("rope_freqs.weight",))
    with pytest.raises(LoadError, match=r"no place for the tensor rope_freqs\.weight"):
        load(path)


def smollm2() -> Path | None:
    from mechtests.store import default_folder

    kept = default_folder() / "models" / Path(SMOLLM2.member).name
    return SMOLLM2.installed() or (kept if kept.is_file() else None)


@pytest.mark.skipif(smollm2() is None, reason="'mechtests fetch smollm2-135m' was not run")
def test_smollm2_has_the_configuration_that_its_plan_assumes() -> None:
    path = smollm2()
    assert path is not None
    config = GgufSource("smollm2-135m", path).config(offline=True)
    assert {key: config[key] for key in SMOLLM2.config} == dict(SMOLLM2.config)
