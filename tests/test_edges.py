from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mechtests.errors import UsageError
from mechtests.models.edges import (
    Reader,
    attention_constant,
    gradients,
    reader_gradients,
    reading,
    writers,
)
from mechtests.models.network import Network
from tests.tiny import ARCHITECTURES, HEADS, LAYERS, network, off, plain, prompts

on_every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)
EXACT = 1e-5
LAST = torch.tensor([10, 4, 7])
ANSWERS = torch.tensor([[3, 9], [0, 119], [7, 5]])
NORMS = {  # what reads the residual stream in the plain models
    "gpt2": ("transformer.h", "ln_1", "ln_2"),
    "gptj": ("transformer.h", "ln_1", "ln_1"),
    "gpt_neox": ("gpt_neox.layers", "input_layernorm", "post_attention_layernorm"),
    "gpt_neox_sequential": ("gpt_neox.layers", "input_layernorm", "post_attention_layernorm"),
    "gemma2": ("model.layers", "input_layernorm", "pre_feedforward_layernorm"),
    "gemma3": ("model.layers", "input_layernorm", "pre_feedforward_layernorm"),
}
LLAMA_NORMS = ("model.layers", "input_layernorm", "post_attention_layernorm")
READERS = [
    Reader(layer, kind, head)
    for layer in range(LAYERS)
    for kind in ("q", "k", "v")
    for head in range(HEADS)
] + [Reader(layer, "mlp") for layer in range(LAYERS)]


def difference(net: Network, final: Tensor) -> Tensor:
    logits = net.logits(final, ANSWERS)
    return logits[:, 0] - logits[:, 1]


def backward(net: Network):
    sites = ["resid_pre", "resid_post", "q", "k", "v", "mlp_in", "z", "mlp_out"]
    sites += [] if net.shape.parallel else ["resid_mid"]
    return gradients(net, prompts(), lambda final: difference(net, final), sites, last=LAST)


@on_every_architecture
def test_the_residual_stream_is_the_embedding_and_what_every_part_wrote(name):
    net = network(name)
    run = net.run(prompts(), keep=["z", "attn_out", "mlp_out", "resid_post"])
    total = net.embed(prompts())
    for layer in range(LAYERS):
        written = writers(net, run, layer).sum(2) + attention_constant(net, run, layer)
        assert off(written, run["attn_out", layer]) < EXACT
        total = total + written + run["mlp_out", layer]
        assert off(total, run["resid_post", layer]) < EXACT


@on_every_architecture
def test_the_gradient_at_the_embedding_is_the_plain_models(name):
    tokens = prompts()
    embedded = network(name).embed(tokens).detach().requires_grad_()
    if name == "gpt2":  # the plain model adds the positions itself
        learned = plain(name).transformer.wpe.weight[: tokens.shape[1]]
        logits = plain(name)(inputs_embeds=embedded - learned).logits
    else:
        logits = plain(name)(inputs_embeds=embedded).logits
    rows = torch.arange(3)
    chosen = logits[rows, LAST].gather(1, ANSWERS)
    (expected,) = torch.autograd.grad((chosen[:, 0] - chosen[:, 1]).sum(), embedded)
    _, gradient = backward(network(name))
    assert off(gradient["resid_pre", 0], expected) < EXACT


@on_every_architecture
def test_the_gradient_before_a_block_is_the_one_after_it_and_its_readers(name):
    net = network(name)
    run, gradient = backward(net)
    for layer in range(LAYERS):
        read = reader_gradients(net, layer, run, gradient)
        assert read["k"].shape == (3, 11, HEADS, 64)
        heads = sum(read[kind].sum(2) for kind in "qkv")
        total = gradient["resid_post", layer] + heads + read["mlp"]
        assert off(total, gradient["resid_pre", layer]) < EXACT


@on_every_architecture
def test_reader_gradients_are_central_differences_of_exact_patches(name):
    net = network(name, torch.float64)
    run, gradient = backward(net)
    generator = torch.Generator().manual_seed(3)
    for reader in READERS[:: 4 if name in ("llama", "gemma3") else 7]:
        read = reader_gradients(net, reader.layer, run, gradient)[reader.kind]
        read = read if reader.kind == "mlp" else read[:, :, reader.head]
        step = torch.randn(read.shape, generator=generator, dtype=torch.float64)
        seen = "resid_pre" if net.shape.parallel or reader.kind != "mlp" else "resid_mid"
        sides = []
        for sign in (1, -1):
            edits = reading(net, {reader: run[seen, reader.layer] + sign * 1e-5 * step})
            with torch.no_grad():
                sides.append(difference(net, net.run(prompts(), edits=edits, last=LAST).final))
        slope = (sides[0] - sides[1]) / 2e-5
        expected = (read * step).sum((1, 2))
        assert off(slope, expected) < 1e-6, reader


@on_every_architecture
def test_the_gradient_of_a_prompt_does_not_depend_on_the_others(name):
    net = network(name)
    _, together = backward(net)
    tokens, answers = prompts()[1:2], ANSWERS[1:2]

    def alone(final: Tensor) -> Tensor:
        logits = net.logits(final, answers)
        return logits[:, 0] - logits[:, 1]

    run, gradient = gradients(net, tokens, alone, ["q", "k"], last=LAST[1:2])
    assert off(gradient["k", 0], together["k", 0][1:2]) < EXACT
    assert off(gradient.final, together.final[1:2]) < EXACT
    assert not any(tensor.requires_grad for tensor in run.kept.values())


@on_every_architecture
def test_readers_that_read_what_they_would_have_read_change_nothing(name):
    net = network(name)
    run, _ = backward(net)
    mid = "resid_pre" if net.shape.parallel else "resid_mid"
    own = {r: run[mid if r.kind == "mlp" else "resid_pre", r.layer] for r in READERS}
    found = net.run(prompts(), edits=reading(net, own), last=LAST)
    assert off(found.final, run.final) < EXACT


@on_every_architecture
def test_when_every_reader_reads_the_embedding_the_plain_model_agrees(name):
    net, tokens = network(name), prompts()
    embedded = net.embed(tokens)
    found = net.run(tokens, edits=reading(net, dict.fromkeys(READERS, embedded)))
    path, *norms = NORMS.get(name, LLAMA_NORMS)
    handles = [
        getattr(layer, norm).register_forward_pre_hook(lambda module, args: (embedded,))
        for layer in plain(name).get_submodule(path)
        for norm in set(norms)
    ]
    expected = plain(name)(tokens).logits[:, -1]
    for handle in handles:
        handle.remove()
    assert off(net.logits(found.final), expected) < EXACT
    assert off(net.logits(found.final), plain(name)(tokens).logits[:, -1]) > 1e-2


@on_every_architecture
@pytest.mark.parametrize("kind", ["q", "mlp"])
def test_one_patched_edge_is_what_a_transformer_lens_hook_on_that_reader_gives(name, kind):
    net, head = network(name), 1
    clean, corrupted = (net.run(prompts(seed), keep=["z", "resid_pre"]) for seed in (0, 1))
    delta = (writers(net, corrupted, 0) - writers(net, clean, 0))[:, :, 3]
    block = net.bridge.blocks[2]
    if kind == "q":
        stream = clean["resid_pre", 2] + delta
        seen = block.ln1.original_component(stream)

        def hook(value: Tensor, hook: object) -> Tensor:
            value = value.clone()
            value[:, :, head] = seen @ block.attn.W_Q[head]
            if block.attn.b_Q is not None:
                value[:, :, head] += block.attn.b_Q[head]
            return value

        hooks = [("blocks.2.attn.hook_q", hook)]
    else:
        mid = clean["resid_pre", 2]
        if not net.shape.parallel:
            mid = net.run(prompts(), keep=["resid_mid.2"])["resid_mid", 2]
        stream = mid + delta
        norm = block.ln2 if "ln2" in block.submodules else block.ln1
        hooks = [("blocks.2.mlp.hook_in", lambda value, hook: norm.original_component(stream))]
    found = net.run(prompts(), edits=reading(net, {Reader(2, kind, head * (kind == "q")): stream}))
    expected = net.bridge.run_with_hooks(prompts(), fwd_hooks=hooks)[:, -1]
    assert off(net.logits(found.final), expected) < EXACT
    assert off(found.final, clean.final) > 1e-4


def test_gradients_at_end_only_are_refused():
    with pytest.raises(UsageError, match="at every position"):
        gradients(network("llama"), prompts(), lambda final: final.sum(1), ["z@end"])
