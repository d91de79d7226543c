from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from mechtests.errors import SelfCheckError
from mechtests.models import selfcheck
from mechtests.models.attention import Past
from mechtests.models.components import Norm
from mechtests.models.network import Network
from tests.tiny import ARCHITECTURES, network, tiny

CHECKS = {"logits", "writers", "gradients", "end"}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_passes_far_inside_the_tolerance(name):
    found = selfcheck.check(network(name))
    assert set(found) == CHECKS
    assert max(found.values()) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["gpt_neox", "llama", "gemma3"])
def test_half_precision_passes(name, dtype):
    found = selfcheck.check(network(name, dtype))
    assert max(found.values()) < selfcheck.TOLERANCE[dtype]


def test_a_model_that_does_what_the_adapter_does_not_know_is_refused_when_loaded():
    model = tiny("llama")
    mlp = model.model.layers[1].mlp
    forward = mlp.forward
    mlp.forward = lambda x: 1.05 * forward(x)
    with pytest.raises(
        SelfCheckError, match=r"odd: the self-check 'logits' of LlamaForCausalLM.*0\.0001|1e-04"
    ):
        Network.from_model(model, name="odd")


@pytest.mark.parametrize("change", ["scale", "window", "softcap"])
def test_a_block_read_wrongly_is_found(change):
    wrong = copy.copy(network("gemma2"))
    value = {"scale": wrong.blocks[1].scale * 1.02, "window": 4, "softcap": None}[change]
    blocks = list(wrong.blocks)
    blocks[1] = replace(blocks[1], **{change: value})
    wrong.blocks = tuple(blocks)
    with pytest.raises(SelfCheckError, match="'logits'"):
        selfcheck.check(wrong)


def test_writers_that_do_not_add_up_are_found(monkeypatch):
    true = selfcheck.writers
    monkeypatch.setattr(selfcheck, "writers", lambda *given: true(*given) * 1.01)
    with pytest.raises(SelfCheckError, match=r"'writers'.*nothing can be attributed"):
        selfcheck.check(network("qwen2"))


def test_wrong_reader_gradients_are_found(monkeypatch):
    def frozen(self, x, gradient):
        return gradient * self.gain / self.scale(x)

    monkeypatch.setattr(Norm, "pullback", frozen)
    with pytest.raises(SelfCheckError, match=r"'gradients'.*edges cannot be scored"):
        selfcheck.check(network("gpt2"))


def test_a_past_that_sees_too_much_is_found(monkeypatch):
    true = Past.seen
    monkeypatch.setattr(Past, "seen", lambda self, window: true(self, None))
    with pytest.raises(SelfCheckError, match=r"'end'.*patching at END"):
        selfcheck.check(network("gemma3"))


def test_a_model_that_gives_nan_is_refused_in_a_sentence():
    model = tiny("gpt2")
    model.transformer.h[1].mlp.c_fc.weight[3, 3] = float("nan")
    with pytest.raises(SelfCheckError, match=r"broken: the plain model's logits are NaN"):
        Network.from_model(model, name="broken")
