from __future__ import annotations

import numpy as np
import pytest

from mechtests.errors import NotApplicable
from mechtests.tasks.prompts import Prompts
from mechtests.tasks.repeated_tokens import repeated_tokens
from tests.words import Numbers

PYTHIA_SIZED = Numbers(50_304)


def prompts(n: int = 40, tokenizer: Numbers = PYTHIA_SIZED) -> Prompts:
    return repeated_tokens.generate(tokenizer, n, np.random.default_rng(3))


@pytest.mark.parametrize("bos", [None, 0])
def test_the_second_half_repeats_the_first_and_does_not_in_the_corrupted(bos: int | None) -> None:
    made = prompts(tokenizer=Numbers(50_304, bos))
    start = 0 if bos is None else 1
    for clean, fresh, length, second, period in zip(
        made.clean,
        made.corrupted["no repeat"],
        made.length,
        made.positions["second"],
        made.positions["period"],
        strict=True,
    ):
        first, again = clean[start:second], clean[second:length]
        assert length == start + 2 * period
        assert len(set(first.tolist())) == period
        assert first.tolist() == again.tolist()
        assert fresh[:second].tolist() == clean[:second].tolist()
        assert not set(fresh[second:length].tolist()) & set(first.tolist())
        assert start == 0 or clean[0] == bos


def test_tokens_are_ordinary_ones() -> None:
    made = prompts(100)
    drawn = np.concatenate([row[:n] for row, n in zip(made.clean, made.length, strict=True)])
    assert drawn.min() >= 100
    assert drawn.max() < 20_000
    assert drawn.max() > 19_000


def test_the_quick_profile_is_short_and_the_rest_has_all_lengths() -> None:
    period = prompts(200).positions["period"]
    assert set(period[:20].tolist()) == {50}
    assert period[20:].min() >= 50
    assert period[20:].max() <= 100
    assert len(set(period[20:].tolist())) > 30


def test_fewer_sequences_are_a_prefix_of_more() -> None:
    assert prompts(25).digest == prompts(60).select(np.arange(25)).digest


def test_halves_alternate_and_every_sequence_is_its_own_cluster() -> None:
    made = prompts(40)
    assert made.half.tolist() == [0, 1] * 20
    assert made.cluster.tolist() == list(range(40))


def test_a_small_vocabulary_is_used_whole_but_for_bos() -> None:
    made = prompts(30, Numbers(40, bos=7))
    drawn = np.concatenate([row[1:n] for row, n in zip(made.clean, made.length, strict=True)])
    assert set(drawn.tolist()) == set(range(40)) - {7}


def test_without_a_vocabulary_there_are_no_random_tokens() -> None:
    with pytest.raises(NotApplicable, match="it has 2 tokens"):
        prompts(tokenizer=Numbers(2, bos=0))


def test_longest_is_the_longest_there_is() -> None:
    assert prompts(400, Numbers(50_304, bos=0)).length.max() == repeated_tokens.longest
