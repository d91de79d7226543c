from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechtests.models.activations import SITES, bytes_per_prompt
from mechtests.models.components import Norm
from tests.tiny import ARCHITECTURES, network, off, prompts


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    centred=st.booleans(),
    size=st.floats(1e-6, 1e6),
    eps=st.sampled_from([1e-12, 1e-5, 1e-1]),
)
def test_the_pullback_of_a_norm_is_what_autograd_finds(seed, centred, size, eps):
    draw = torch.Generator().manual_seed(seed)
    gain, bias, gradient = torch.randn(3, 8, generator=draw, dtype=torch.float64)
    x = (size * torch.randn(4, 8, generator=draw, dtype=torch.float64)).requires_grad_()
    norm = Norm(gain, bias if centred else None, eps, centred)
    (expected,) = torch.autograd.grad(norm(x), x, gradient.expand(4, 8))
    assert off(norm.pullback(x.detach(), gradient), expected) < 1e-8


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), centred=st.booleans(), size=st.floats(1e-3, 1e3))
def test_a_norm_is_linear_given_its_scale(seed, centred, size):
    draw = torch.Generator().manual_seed(seed)
    gain, first, second = size * torch.randn(3, 8, generator=draw, dtype=torch.float64)
    if centred:
        first, second = first - first.mean(), second - second.mean()
    norm = Norm(gain, None, 1e-6, centred)
    scale = norm.scale(first + second)
    assert off(gain * first / scale + gain * second / scale, norm(first + second)) < 1e-9


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_memory_that_is_kept_is_what_was_predicted(name):
    net = network(name)
    keep = [site for site in SITES if not (net.shape.parallel and site == "resid_mid")]
    keep += ["z@end", "pattern@end", "q.1@end"]
    for kept in ([name] for name in keep):
        run = net.run(prompts(n=1), keep=kept)
        held = sum(tensor.numel() for tensor in run.kept.values()) * 4
        assert held == bytes_per_prompt(net.shape, kept, 11) - bytes_per_prompt(net.shape, [], 11)


def test_memory_is_counted_once_for_each_storage():
    run = network("llama").run(prompts(), keep=["resid_pre", "resid_post"])
    shared = 2 * run["resid_pre", 1].nbytes  # what leaves one block enters the next
    assert run.nbytes == sum(t.nbytes for t in run.kept.values()) - shared + run.final.nbytes
