from __future__ import annotations

import copy

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mechtests.errors import LoadError, UsageError
from mechtests.models.activations import SITES
from mechtests.models.attention import Past, Prefix
from mechtests.models.bridging import digest_weights
from mechtests.models.network import Network
from tests.tiny import ARCHITECTURES, HEADS, LAYERS, WINDOW, network, off, plain, prompts, tiny

pytestmark = pytest.mark.usefixtures("without_gradients")
on_every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)
EXACT = 1e-5
HOOKS = {
    "resid_pre": "hook_resid_pre",
    "q": "attn.hook_q",
    "k": "attn.hook_k",
    "v": "attn.hook_v",
    "pattern": "attn.hook_pattern",
    "z": "attn.hook_z",
    "attn_out": "hook_attn_out",
    "resid_mid": "hook_resid_mid",
    "mlp_in": "mlp.hook_in",
    "post": "mlp.out.hook_in",
    "mlp_out": "hook_mlp_out",
    "resid_post": "hook_resid_post",
}
ROTATED = {"rot_q": "attn.hook_rot_q", "rot_k": "attn.hook_rot_k"}


@pytest.fixture(scope="module", autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def sites(name: str) -> list[str]:
    parallel = network(name).shape.parallel
    return [site for site in SITES if not (parallel and site == "resid_mid")]


def moved(value: Tensor, seed: int = 5) -> Tensor:
    noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(seed))
    return value + 0.3 * value.std() * noise.to(value)


# ---------------------------------------------------------------- against plain Hugging Face


@on_every_architecture
def test_logits_are_the_plain_models_at_every_position(name):
    tokens = prompts()
    run = network(name).run(tokens, keep=["resid_post"])
    found = network(name).logits(run["resid_post", LAYERS - 1])
    assert off(found, plain(name)(tokens).logits) < EXACT


@on_every_architecture
def test_patterns_are_the_plain_models(name):
    tokens = prompts()
    run = network(name).run(tokens, keep=["pattern"])
    expected = plain(name)(tokens, output_attentions=True).attentions
    for layer in range(LAYERS):
        assert off(run["pattern", layer], expected[layer]) < EXACT
        uniform = 1 / torch.arange(1, tokens.shape[1] + 1)
        assert (run["pattern", layer].amax(-1).mean((0, 1)) - uniform).mean() > 0.05


@on_every_architecture
def test_the_final_residual_is_read_at_each_prompts_own_end(name):
    tokens, last = prompts(), torch.tensor([10, 4, 7])
    found = network(name).logits(network(name).run(tokens, last=last).final)
    assert off(found, plain(name)(tokens).logits[torch.arange(3), last]) < EXACT


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_a_sliding_layer_sees_its_window_and_a_full_layer_everything_before(name):
    run = network(name).run(prompts(), keep=["pattern"])
    at = torch.arange(11)
    near = (at[:, None] >= at) & (at[:, None] - at < WINDOW)
    assert (run["pattern", 0] > 0).equal(near.expand(3, HEADS, 11, 11))
    assert (run["pattern", 1] > 0).equal((at[:, None] >= at).expand(3, HEADS, 11, 11))


def test_gemma_3_rotates_by_the_frequencies_of_the_layers_own_type():
    run = network("gemma3").run(prompts(), keep=["k", "rot_k"])
    block = network("gemma3").blocks
    assert block[0].rotary is block[2].rotary
    assert block[0].rotary is not block[1].rotary
    assert off(block[0].rotated_key(run["k", 1], torch.arange(11)), run["rot_k", 1]) > 0.1


def test_rotary_tables_grow_with_the_positions_asked_for():
    fresh = Network.from_model(tiny("llama", max_position_embeddings=200), name="x", check=False)
    tokens = prompts(n=1, position=150)
    assert (
        off(fresh.logits(fresh.run(prompts()).final), plain("llama")(prompts()).logits[:, -1])
        < EXACT
    )
    expected = tiny("llama", max_position_embeddings=200)(tokens).logits[:, -1]
    assert off(fresh.logits(fresh.run(tokens).final), expected) < EXACT


# ---------------------------------------------------------------- against TransformerLens


@on_every_architecture
def test_every_site_holds_what_transformer_lens_calls_so(name):
    tokens = prompts()
    run = network(name).run(tokens, keep=sites(name))
    _, cache = network(name).bridge.run_with_cache(tokens)
    hooks = {**HOOKS, **ROTATED} if "blocks.0.attn.hook_rot_q" in cache else HOOKS
    for site in set(sites(name)) & set(hooks):
        for layer in range(LAYERS):
            assert off(run[site, layer], cache[f"blocks.{layer}.{hooks[site]}"]) < EXACT, site


@on_every_architecture
def test_an_edit_does_what_the_same_edit_by_a_transformer_lens_hook_does(name):
    tokens = prompts()
    clean = network(name).logits(network(name).run(tokens).final)
    elsewhere = {"resid_mid"} | ({"pattern"} if name == "gptj" else set())  # the next two tests
    for site in set(sites(name)) & set(HOOKS) - elsewhere:
        run = network(name).run(tokens, edits={(site, 1): moved})
        hook = (f"blocks.1.{HOOKS[site]}", lambda value, hook: moved(value))
        expected = network(name).bridge.run_with_hooks(tokens, fwd_hooks=[hook])[:, -1]
        found = network(name).logits(run.final)
        assert off(found, expected) < EXACT, site
        assert off(found, clean) > 1e-3, site


def test_an_edited_pattern_mixes_the_values_in_gptj_too():
    tokens = prompts()
    first = torch.zeros(3, HEADS, 11, 11)
    first[..., 0] = 1
    run = network("gptj").run(tokens, keep=["v", "z"], edits={("pattern", 1): lambda _: first})
    assert off(run["z", 1], run["v", 1][:, :1].expand(-1, 11, -1, -1)) < EXACT


@pytest.mark.parametrize("name", ["gpt_neox_sequential", "gpt2", "llama", "gemma2"])
def test_an_edited_middle_of_the_stream_is_what_flows_on(name):
    """The bridge's own hook there changes what the MLP reads and not the stream."""
    net = network(name)
    run = net.run(prompts(), edits={("resid_mid", 1): moved}, keep=["resid_mid", "resid_post"])
    mid = moved(net.run(prompts(), keep=["resid_mid"])["resid_mid", 1])
    assert run["resid_mid", 1].equal(mid)
    assert off(run["resid_post", 1], mid + net.mlp_out(1, mid)) < EXACT


@on_every_architecture
def test_weights_by_head_are_the_bridges(name):
    for layer, block in enumerate(network(name).blocks):
        attn = network(name).bridge.blocks[layer].attn
        for weight in ("W_Q", "W_K", "W_V", "W_O"):
            assert getattr(block, weight).equal(getattr(attn, weight))


# ---------------------------------------------------------------- runs agree with each other


@on_every_architecture
@pytest.mark.parametrize("layer", [1, 2])
def test_a_run_from_a_layer_is_the_rest_of_the_whole_run(name, layer):
    whole = network(name).run(prompts(), keep=["resid_pre", "z"])
    rest = network(name).run(prompts(), keep=["z"], start=layer, resid=whole["resid_pre", layer])
    assert rest.final.equal(whole.final)
    assert rest.layers("z") == list(range(layer, LAYERS))
    assert rest["z", 2].equal(whole["z", 2])


@on_every_architecture
def test_editing_nothing_changes_nothing(name):
    same = {(site, layer): torch.clone for site in sites(name) for layer in range(LAYERS)}
    assert network(name).run(prompts(), edits=same).final.equal(network(name).run(prompts()).final)


@on_every_architecture
def test_corrupted_writes_everywhere_leave_only_the_clean_embedding(name):
    clean, corrupted = prompts(0), prompts(1)
    other = network(name).run(corrupted, keep=["z", "mlp_out"])
    edits = {
        (site, layer): (lambda _, value=other[site, layer]: value)
        for site in ("z", "mlp_out")
        for layer in range(LAYERS)
    }
    found = network(name).run(clean, edits=edits).final
    swapped = network(name).embed(clean)[:, -1] - network(name).embed(corrupted)[:, -1]
    assert off(found, other.final + swapped) < EXACT


@on_every_architecture
def test_the_corrupted_embedding_gives_the_corrupted_run(name):
    corrupted = network(name).embed(prompts(1))
    found = network(name).run(prompts(0), edits={("resid_pre", 0): lambda _: corrupted})
    assert found.final.equal(network(name).run(prompts(1)).final)


@on_every_architecture
def test_keys_and_values_may_come_back_for_every_query_head(name):
    edits = {
        (site, layer): lambda part: part.repeat_interleave(HEADS // part.shape[2], 2)
        for site in ("k", "v")
        for layer in range(LAYERS)
    }
    run = network(name).run(prompts(), edits=edits, keep=["k"])
    assert run["k", 0].shape[2] == HEADS
    assert off(run.final, network(name).run(prompts()).final) < EXACT


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(ARCHITECTURES),
    ends=st.lists(st.integers(0, 10), min_size=1, max_size=4),
    padding=st.integers(0, 119),
)
def test_neither_padding_nor_the_other_prompts_change_a_prompt(name, ends, padding):
    tokens, last = prompts(n=len(ends)), torch.tensor(ends)
    alone = [
        network(name).run(row[None, : end + 1]).final for row, end in zip(tokens, ends, strict=True)
    ]
    padded = tokens.where(torch.arange(11) <= last[:, None], padding)
    assert off(network(name).run(padded, last=last).final, torch.cat(alone)) < EXACT


@on_every_architecture
def test_names_keep_a_site_at_all_layers_or_one_and_everywhere_or_at_end(name):
    last, rows = torch.tensor([10, 4, 7]), torch.arange(3)
    run = network(name).run(
        prompts(), keep=["z", "z@end", "q.1", "k.2@end", "pattern@end", "pattern"], last=last
    )
    assert run["z@end", 1].equal(run["z", 1][rows, last])
    assert run.stack("z@end").equal(torch.stack([run["z@end", layer] for layer in range(3)], 1))
    assert (run.layers("q"), run.layers("k@end"), run.layers("z")) == ([1], [2], [0, 1, 2])
    assert run["pattern@end", 0].equal(run["pattern", 0][rows, :, last])


# ---------------------------------------------------------------- END alone


@on_every_architecture
@pytest.mark.parametrize("layer", range(LAYERS))
def test_end_alone_over_the_past_is_end_of_the_whole_run(name, layer):
    net, tokens, last = network(name), prompts(), torch.tensor([10, 0, 7])
    rows, head = torch.arange(3), 2
    clean = net.run(tokens, keep=["resid_pre", "rot_k", "v"], last=last)
    branches = torch.stack(
        [moved(clean["resid_pre", layer][rows, last], seed) for seed in (1, 2)], 1
    )

    def doubled(z: Tensor) -> Tensor:
        z = z.clone()
        z[..., head, :] *= 2
        return z

    resid = branches
    for later in range(layer, LAYERS):
        past = Past.from_activations(clean, later, last)
        resid = net.block_at_end(later, resid, past, edit_z=doubled if later == layer else None)
    for branch in range(2):
        whole = clean["resid_pre", layer].clone()
        whole[rows, last] = branches[:, branch]

        def at_end(z: Tensor) -> Tensor:
            z = z.clone()
            z[rows, last, head] *= 2
            return z

        run = net.run(tokens, start=layer, resid=whole, edits={("z", layer): at_end}, last=last)
        assert off(resid[:, branch], run.final) < EXACT


def test_an_end_without_a_past_attends_to_itself():
    net, end = network("llama"), torch.zeros(3, dtype=torch.long)
    clean = net.run(prompts(), keep=["rot_k", "v"], last=end)
    resid = net.embed(prompts())[:, :1]
    for layer in range(LAYERS):
        resid = net.block_at_end(layer, resid, Past.from_activations(clean, layer, end))
    assert off(resid[:, 0], clean.final) < EXACT


@on_every_architecture
def test_the_parts_of_a_block_make_the_block(name):
    net = network(name)
    run = net.run(prompts(), keep=sites(name))
    pre = run["resid_pre", 1]
    parts = net.queries_keys_values(1, net.attention_input(1, pre), torch.arange(11))
    for site, part in zip(["q", "k", "v", "rot_q", "rot_k"], parts, strict=True):
        assert part.equal(run[site, 1]), site
    assert net.attention_out(1, run["z", 1]).equal(run["attn_out", 1])
    mid = pre if net.shape.parallel else run["resid_mid", 1]
    assert net.mlp_input(1, mid).equal(run["mlp_in", 1])
    assert net.mlp_out(1, mid).equal(run["mlp_out", 1])
    assert off(net.after_attention(1, pre, run["attn_out", 1]), run["resid_post", 1]) < EXACT


# ---------------------------------------------------------------- logits, shape, digest


@on_every_architecture
def test_logits_of_some_tokens_are_those_rows_of_all_logits(name):
    net, tokens = network(name), torch.tensor([[3, 9], [0, 119], [7, 7]])
    run = net.run(prompts(), keep=["resid_post.2"])
    some = net.logits(run["resid_post", 2], tokens)
    every = net.logits(run["resid_post", 2]).gather(2, tokens[:, None].expand(-1, 11, -1))
    assert off(some, every) < EXACT
    assert off(net.logits(run.final, tokens), every[:, -1]) < EXACT


@on_every_architecture
def test_the_digest_is_of_the_weights(name):
    assert digest_weights(plain(name)) == network(name).digest
    assert digest_weights(tiny(name, seed=1)) != network(name).digest
    changed = copy.deepcopy(plain(name))
    next(iter(changed.parameters())).view(-1)[0] += 1e-6
    assert digest_weights(changed) != network(name).digest


@on_every_architecture
def test_no_weight_is_held_twice(name):
    def memory(model) -> int:
        storages = {
            p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()
        }
        return sum(storages.values())

    assert memory(network(name).bridge.original_model) == memory(plain(name))


@on_every_architecture
def test_a_run_records_no_graph_though_gradients_are_on(name):
    with torch.enable_grad():
        assert not network(name).run(prompts()).final.requires_grad


# ---------------------------------------------------------------- refusals


def test_an_unsupported_architecture_is_refused_by_name_with_what_is_supported():
    config = transformers.OPTConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, ffn_dim=8
    )
    with pytest.raises(LoadError, match=r"my-opt: the architecture OPTForCausalLM.*GPTNeoX"):
        Network.from_model(transformers.OPTForCausalLM(config), name="my-opt")


def test_gpt_neox_without_attention_biases_is_refused_in_a_sentence():
    with pytest.raises(LoadError, match="attention_bias=True, its configuration says False"):
        Network.from_model(tiny("gpt_neox", attention_bias=False), name="x")


def test_a_model_is_not_bridged_twice():
    model = tiny("llama")
    Network.from_model(model, name="x", check=False)
    with pytest.raises(LoadError, match="bridged before"):
        Network.from_model(model, name="x")


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"keep": ["hook_z"]}, "no site 'hook_z'"),
        ({"keep": ["z.3"]}, "layers 0 to 2 only"),
        ({"keep": ["z.end"]}, "not a site to keep"),
        ({"keep": ["resid_mid"]}, "does not exist in parallel blocks"),
        ({"edits": {("z", 7): torch.clone}}, "layers 0 to 2 only"),
        ({"edits": {("z", 1): lambda z: z[:, :1]}}, r"edit of z.1 must give the shape \(3, 11"),
        ({"edits": {("v", 1): lambda v: v[:, :1]}}, r"edit of v.1 must give the shape \(3, 11"),
        ({"start": 1}, "needs the residual stream"),
    ],
)
def test_what_a_run_cannot_do_is_refused_and_never_ignored(asked, sentence):
    with pytest.raises(UsageError, match=sentence):
        network("gpt_neox").run(prompts(), **asked)


def test_an_edit_before_the_start_of_a_run_is_refused():
    resid = network("llama").embed(prompts())
    with pytest.raises(UsageError, match="passes the layers 1 to 2 only"):
        network("llama").run(prompts(), start=1, resid=resid, edits={("z", 0): torch.clone})


def test_activations_that_were_not_kept_are_an_error_that_names_what_was():
    run = network("llama").run(prompts(), keep=["z.1"])
    with pytest.raises(UsageError, match="z of layer 0 was not kept by this run, which kept z"):
        run["z", 0]
    with pytest.raises(UsageError, match="q of layer 0 was not kept"):
        run.stack("q")


def test_a_prompt_longer_than_the_model_was_made_for_is_refused():
    with pytest.raises(UsageError, match="up to 64 tokens, got one of 65"):
        network("gpt2").run(prompts(position=65))


@on_every_architecture
@pytest.mark.parametrize("shared", [1, 7])
def test_a_run_after_a_shared_prefix_equals_the_whole_run(name, shared):
    """Also where the window reaches back into the prefix, and where it does not any more."""
    clean, other = prompts(0), prompts(1)
    other[:, :shared] = clean[:, :shared]
    last, keep = torch.tensor([10, 8, 9]), ["z@end", "resid_pre@end"]
    whole = network(name).run(other, keep=keep, last=last)
    prefix = Prefix(network(name).run(clean, keep=["rot_k", "v"]), shared)
    part = network(name).run(other[:, shared:], keep=keep, last=last - shared, prefix=prefix)
    assert off(part.final, whole.final) < EXACT
    for at in whole.kept:
        assert off(part[at], whole[at]) < EXACT


def test_a_run_that_stops_has_no_end_to_read():
    whole = network("llama").run(prompts(), keep=["resid_post"])
    short = network("llama").run(prompts(), keep=["resid_post"], stop=1)
    assert torch.equal(short["resid_post", 0], whole["resid_post", 0])
    assert short.layers("resid_post") == [0]
    assert short.final.shape[-1] == 0
