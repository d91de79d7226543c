from __future__ import annotations

import json
import subprocess
import sys

import pytest

from mechtests.errors import LoadError
from mechtests.models.blocks import ARCHITECTURES as CLASSES
from mechtests.models.shape import TIED, Shape
from tests.tiny import ARCHITECTURES, HEADS, LAYERS, VOCABULARY, plain, tiny


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_are_counted_from_the_configuration_alone(name):
    shape = Shape.from_config(plain(name).config.to_dict())
    assert shape.parameters == sum(p.numel() for p in plain(name).parameters())
    matrices = [
        p.numel()
        for at, p in plain(name).named_parameters()
        if p.ndim == 2 and (".h." in at or ".layers." in at)
    ]
    assert shape.block_parameters == sum(matrices)
    assert (shape.layers, shape.heads, shape.width) == (LAYERS, HEADS, 64)
    assert (shape.vocabulary, shape.mlp_width, shape.positions) == (VOCABULARY, 96, 64)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"tie_word_embeddings": True}),
        ("qwen3", {"attention_bias": True}),
        ("gpt_neox", {"tie_word_embeddings": True}),
        ("gemma3", {"tie_word_embeddings": False}),
        ("gpt2", {"n_inner": None}),
    ],
)
def test_options_that_add_or_share_parameters_are_counted(name, option):
    model = tiny(name, **option)
    shape = Shape.from_config(model.config.to_dict())
    assert shape.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_file_a_model_is_saved_with_says_the_same(name, tmp_path):
    plain(name).config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert Shape.from_config(saved) == Shape.from_config(plain(name).config.to_dict())


def test_which_blocks_are_parallel():
    parallel = {n for n in ARCHITECTURES if Shape.from_config(plain(n).config.to_dict()).parallel}
    assert parallel == {"gpt_neox", "gptj"}


def test_every_supported_class_has_a_shape():
    assert set(CLASSES.values()) == set(TIED)


def test_an_unknown_model_type_is_refused_with_what_is_supported():
    with pytest.raises(LoadError, match="type 'opt' is not supported; supported are gpt2"):
        Shape.from_config({"model_type": "opt"})


def test_a_shape_needs_no_torch():
    modules = "mechtests.models.shape, mechtests.models.activations"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
