"""Judging from Python: the same verdicts as pytest's, on an object that is not changed."""

from __future__ import annotations

import copy
import gc
import random
import shlex
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mechtests
from mechtests import direct, memory, shipped
from mechtests.claim import claim
from mechtests.errors import LoadError, UsageError
from mechtests.judged import Seeds
from mechtests.memory import MemoryStore
from mechtests.metrics import attention
from mechtests.models import sources
from mechtests.models.bridging import digest_weights
from mechtests.models.live import LiveSource
from mechtests.models.tokenizer import CellTokenizer
from mechtests.rules import above
from mechtests.settings import Settings
from mechtests.store import Store
from mechtests.tasks.repeated_tokens import repeated_tokens
from mechtests.verdict import Outcome
from tests import folders
from tests.planted import INDUCTION_NUMBERS, induction_stream
from tests.saved import word_tokenizer
from tests.tiny import tiny
from tests.words import Words

INDUCTION = "tigges2024.induction-present"
SCORES = attention.head_scores(repeated_tokens)


def small(seed: int = 0, architecture: str = "gpt_neox", **config: Any) -> Any:
    return tiny(
        architecture, seed=seed, vocab_size=Words().size, max_position_embeddings=256, **config
    )


def sprout(name: str = "sprout-100k") -> tuple[Any, CellTokenizer]:
    loaded = sources.resolve(name).load(None, dtype="float32", device="cpu", offline=True)
    return loaded.model, loaded.tokenizer


class Wrapped(CellTokenizer):
    """The planted models' words, as a tokenizer of a cell."""

    def __init__(self, words: Any) -> None:
        self.words, self.name, self.size, self.bos = words, words.name, words.size, words.bos
        self.digest, self.policy = "words", "none"

    def encode(self, text: str) -> list[int]:
        return self.words.encode(text)

    def decode(self, ids: Any) -> str:
        return self.words.decode(ids)

    def unseen(self, kind: str, *items: str) -> bool:
        return True


@claim("mine.looks-back", says="", task=repeated_tokens, needs={"scores": SCORES})
def looks_back(measured: Any, judge: Any) -> None:
    """The strongest head is above a thousandth."""
    head = measured.scores.strongest("induction", "selection")
    judge(above(measured.scores.sample("induction", "evaluation", *head), 1e-3, what="induction"))


@claim("mine.broken", says="", task=repeated_tokens, needs={"scores": SCORES})
def broken(measured: Any, judge: Any) -> None:
    raise ZeroDivisionError("of the author")


@claim("mine.silent", says="", task=repeated_tokens, needs={"scores": SCORES})
def silent(measured: Any, judge: Any) -> None:
    pass


def state_of(model: Any) -> dict[str, Any]:
    """All that a caller could notice a change of."""
    return {
        "weights": {name: t.clone() for name, t in model.state_dict().items()},
        "places": {name: t.data_ptr() for name, t in model.named_parameters()},
        "parts": {n: (id(p), type(p), p.training) for n, p in model.named_modules()},
        "hooks": {n: (len(p._forward_hooks), len(p._forward_pre_hooks), len(p._backward_hooks))
                  for n, p in model.named_modules()},
        "gradients": {n: (p.requires_grad, None if p.grad is None else p.grad.clone())
                      for n, p in model.named_parameters()},
        "dtype": {name: p.dtype for name, p in model.named_parameters()},
        "device": {name: p.device for name, p in model.named_parameters()},
        "config": copy.deepcopy(model.config.to_dict()),
        "attention": model.config._attn_implementation,
    }  # fmt: skip


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, tuple):
        return all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


@pytest.mark.parametrize("architecture", ["gpt_neox", "gpt2", "llama", "gemma2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_of_the_model_changes(architecture: str, dtype: torch.dtype) -> None:
    model = small(1, architecture).to(dtype).train().requires_grad_(True)
    frozen = next(iter(model.parameters())).requires_grad_(False)
    calls: list[int] = []
    model.get_output_embeddings().register_forward_hook(lambda *_: calls.append(1))
    model(input_ids=torch.tensor([[1, 2, 3]])).logits.float().sum().backward()
    before, called = state_of(model), len(calls)
    found = direct.judge(model, word_tokenizer(), [looks_back])
    assert found.counts.get(Outcome.ERROR, 0) == 0, found
    assert same(before, state_of(model))
    assert len(calls) == called  # the model itself was not run, and its hooks are its own
    assert not frozen.requires_grad
    assert "without the hooks" in found.notes[0]


def test_no_random_generator_and_no_switch_of_torch_is_touched() -> None:
    model, tokenizer = small(2), word_tokenizer()
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())
    threads, default = torch.get_num_threads(), torch.get_default_dtype()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        direct.judge(model, tokenizer, [looks_back])
        assert not torch.is_grad_enabled()
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, default)
    assert torch.is_grad_enabled()


def test_switches_of_the_caller_change_no_number() -> None:
    model, tokenizer = small(2), word_tokenizer()
    plain = direct.judge(model, tokenizer, [looks_back])["mine.looks-back"]
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert direct.judge(model, tokenizer, [looks_back])["mine.looks-back"] == plain


def test_an_object_gets_the_verdicts_of_its_name() -> None:
    model, tokenizer = sprout()
    by_object = mechtests.judge(model, tokenizer, "induction", name="sprout-100k")
    by_name = mechtests.judge("sprout-100k", claims="induction", store=MemoryStore(), offline=True)
    assert len(by_object) == len(by_name) > 1
    for one, other in zip(by_object, by_name, strict=True):
        assert one.claim.id == other.claim.id
        assert one.outcome is other.outcome
        if one.claim.id == INDUCTION:  # but for its untrained control, which is not step 0
            assert one.verdict.estimate == other.verdict.estimate
            assert one.verdict.interval == other.verdict.interval


def test_the_user_s_store_is_neither_read_nor_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MECHTESTS_CACHE", str(tmp_path / "user"))
    direct.judge(small(), word_tokenizer(), [looks_back])
    assert list(tmp_path.rglob("*")) == []
    direct.judge(small(), word_tokenizer(), [looks_back], store=tmp_path / "asked")
    assert list((tmp_path / "asked").rglob("*.safetensors"))
    assert not (tmp_path / "user").exists()


def test_a_store_knows_the_model_by_its_weights(tmp_path: Path) -> None:
    store, tokenizer = Store(tmp_path), word_tokenizer()
    model = small()
    first = direct.judge(model, tokenizer, [looks_back], store=store)
    again = direct.judge(copy.deepcopy(model), tokenizer, [looks_back], store=store)
    assert (first.results.loads, again.results.loads) == ({first.records[0].cell.id: 1}, {})
    with torch.no_grad():
        next(iter(model.parameters()))[0, 0] += 0.01
    changed = direct.judge(model, tokenizer, [looks_back], store=store)
    assert changed.results.loads
    keys = [judged.records[0].measurements["scores"] for judged in (first, again, changed)]
    assert keys[0] == keys[1] != keys[2]
    assert first.records[0].cell.weights == digest_weights(small())


def test_another_configuration_or_tokenizer_is_another_model() -> None:
    model, tokenizer = small(), word_tokenizer()
    plain = LiveSource.of(model, tokenizer).identity(None)
    other = small()
    other.config.rope_parameters = {**other.config.rope_parameters, "rope_theta": 5.0}
    assert LiveSource.of(other, tokenizer).identity(None) != plain
    tokenizer.add_tokens(["nonesuch"])
    assert LiveSource.of(model, tokenizer).identity(None) != plain


def test_whoever_keeps_the_verdicts_does_not_keep_the_model() -> None:
    model = small()
    gone = weakref.ref(model)
    found = direct.judge(model, word_tokenizer(), [looks_back])
    del model
    gc.collect()
    assert gone() is None
    assert found["mine.looks-back"].estimate is not None
    with pytest.raises(LoadError, match="is gone"):
        found.cases[0].cell.source.load(None, dtype="float32", device="cpu", offline=True)


def test_weights_that_change_meanwhile_are_refused() -> None:
    model = small()
    source = LiveSource.of(model, word_tokenizer())
    with torch.no_grad():
        next(iter(model.parameters())).mul_(2)
    with pytest.raises(LoadError, match="not those it had"):
        source.load(None, dtype="float32", device="cpu")


def test_wrappers_are_seen_through_and_other_objects_refused() -> None:
    model = small()
    wrapped = torch.nn.DataParallel(model)
    assert LiveSource.of(wrapped, word_tokenizer()) == LiveSource.of(model, word_tokenizer())
    with pytest.raises(UsageError, match="got Linear"):
        direct.judge(torch.nn.Linear(2, 2), word_tokenizer(), [looks_back])
    with pytest.raises(UsageError, match="its tokenizer beside it"):
        direct.judge(model, None, [looks_back])


def test_a_part_that_was_replaced_is_refused_by_a_sentence() -> None:
    model = small()
    model.gpt_neox.layers[0].attention.dense = torch.nn.Sequential(torch.nn.Linear(64, 64))
    found = direct.judge(model, word_tokenizer(), [looks_back])["mine.looks-back"]
    assert found.outcome is Outcome.ERROR
    assert "merge adapters" in found.sentence


def test_what_goes_wrong_in_one_claim_is_its_own_error() -> None:
    found = direct.judge(small(), word_tokenizer(), [broken, silent, looks_back])
    assert found["mine.broken"].outcome is Outcome.ERROR
    assert found["mine.broken"].sentence == "ZeroDivisionError: of the author"
    assert "without a verdict" in found["mine.silent"].sentence
    assert found["mine.looks-back"].outcome is not Outcome.ERROR


def test_claims_are_chosen_by_glob_word_and_test() -> None:
    def ids(asked: Any, over: str = "cell") -> set[str]:
        return {each.id for each, _ in direct.choose(asked, over)}

    assert ids(INDUCTION) == {INDUCTION}
    assert ids("tigges2024.name-*") == {
        "tigges2024.name-movers-explain",
        "tigges2024.name-movers-matter",
    }
    assert INDUCTION in ids("Induction")
    assert "sanity.gates" in ids("ioi")
    assert ids([INDUCTION, looks_back]) == {INDUCTION, "mine.looks-back"}
    assert ids("*") == {each.id for each in shipped.claims() if each.over == "cell"}
    assert ids("*", "training") == {each.id for each in shipped.claims() if each.over == "training"}
    with pytest.raises(UsageError, match=r"did you mean .*induction"):
        ids("inducton")
    with pytest.raises(UsageError, match="over training"):
        ids("tigges2024.induction-onset")
    with pytest.raises(UsageError, match="declare the test"):
        ids(print)


def test_seeds_are_counted_with_the_exact_interval() -> None:
    models = [induction_stream(strength=26.0).model, induction_stream(induction=None).model]
    models.append(induction_stream(induction=(1, 3), strength=26.0).model)
    tokenizer = Wrapped(INDUCTION_NUMBERS)
    found = direct.judge(models, tokenizer, [INDUCTION], over="seeds")
    [seeds] = found.seeds
    assert (seeds.holding, seeds.asked) == (2, 3)
    assert seeds.interval == pytest.approx((0.0943, 0.9916), abs=1e-4)  # Clopper-Pearson's table
    assert list(seeds.outcomes.values()) == [Outcome.HOLDS, Outcome.REFUTED, Outcome.HOLDS]
    assert "holds in 2 of 3 seeds" in repr(found)
    assert len(set(seeds.outcomes)) == 3  # models of one name are told apart


def test_a_seed_that_cannot_be_asked_is_no_trial_and_an_undecided_one_is() -> None:
    model, tokenizer = sprout()
    record = mechtests.judge(model, tokenizer, INDUCTION).records[0]

    def as_found(outcome: Outcome, name: str) -> Any:
        from dataclasses import replace

        cell = replace(record.cell, id=name)
        return replace(record, cell=cell, verdict=replace(record.verdict, outcome=outcome))

    some = [as_found(outcome, outcome.name) for outcome in Outcome]
    counted = Seeds.of(some)
    assert (counted.holding, counted.asked) == (1, 3)
    assert "1 inconclusive, 1 not applicable, 1 errors" in counted.sentence
    none = Seeds.of([as_found(Outcome.NOT_APPLICABLE, "a")])
    assert none.interval is None
    assert "applies to none of 1" in none.sentence


def test_the_repr_says_the_totals_and_each_verdict() -> None:
    model, tokenizer = sprout()
    found = mechtests.judge(model, tokenizer, INDUCTION, name="mine")
    first, second = repr(found).splitlines()
    assert first == "mine: 1 verdict: 1 hold"
    assert second.split()[:2] == ["HOLDS", INDUCTION]
    assert "claimed above 0.4" in second
    with pytest.raises(UsageError, match=r"0 verdicts of 'x\.y'"):
        found["x.y"]


def test_asking_wrongly_is_refused_before_anything_is_measured() -> None:
    for wrong in ({"over": "world"}, {"profile": "huge"}):
        with pytest.raises(UsageError):
            direct.judge(small(), word_tokenizer(), [looks_back], **wrong)
    with pytest.raises(UsageError, match="empty list"):
        direct.judge([], word_tokenizer(), [looks_back])
    with pytest.raises(UsageError, match="claims are an empty list"):
        direct.judge(small(), word_tokenizer(), [])
    with pytest.raises(UsageError, match=r"over .*ioi.*, not over 'typo'"):
        direct.one_claim("tigges2024.circuit-faithful", "typo")
    with pytest.raises(UsageError, match="of several types"):
        direct.judge([small(), small().bfloat16()], word_tokenizer(), [looks_back])


def test_prompts_of_a_store_in_memory_are_its_own() -> None:
    one, other = memory.opened(None), memory.opened(None)
    one.put_texts("ab", ["said"])
    assert one.texts("ab") == ["said"]
    assert other.texts("ab") is None


def test_the_command_names_a_model_as_it_was_asked_for_and_can_be_pasted(tmp_path: Path) -> None:
    folder = tmp_path / "my models" / "tiny"
    folders.write_model(folder)
    models = direct.models_of([str(folder)], None, None)
    claim, _ = direct.one_claim("tigges2024.induction-present", None)
    case = direct.one_case(claim, models)
    words = shlex.split(direct.command(case, Settings(seed=3), models))
    assert words[:2] == ["mechtests", "run"]
    assert f"--model={folder}" in words
    assert "--mech-seed=3" in words
