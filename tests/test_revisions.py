"""Which branches and tags are moments of training."""

from __future__ import annotations

from mechtests.models.cell import Checkpoint
from mechtests.models.revisions import PYTHIA_STEPS, parse_revisions


def test_pythia_has_154_checkpoints_of_2097152_tokens_a_step() -> None:
    found = parse_revisions("EleutherAI/pythia-70m", (f"step{step}" for step in PYTHIA_STEPS))
    assert len(found) == 154
    assert found[0] == Checkpoint("step0", 0, 0)
    assert found[-1] == Checkpoint("step143000", 143000, 299_892_736_000)
    assert [c.step for c in found[:13]] == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000]


def test_the_first_pythia_release_has_no_known_tokens() -> None:
    assert parse_revisions("EleutherAI/pythia-70m-v0", ["step1000"])[0].tokens is None


def test_revisions_come_in_numeric_order() -> None:
    names = ["step10", "step9", "main", "step100"]
    assert [c.label for c in parse_revisions("a/b", names)] == ["step9", "step10", "step100"]


def test_the_naming_schemes_of_other_families_are_read() -> None:
    read = {
        "step1000-tokens4B": (1000, 4 * 10**9),
        "stage1-step150-tokens1B": (150, 10**9),
        "step500-tokens2.5B": (500, 2_500_000_000),
        "ckpt-7": (7, None),
        "checkpoint-400": (400, None),
        "iter-0001000": (1000, None),
        "tokens-30B": (None, 30 * 10**9),
    }
    for name, (step, tokens) in read.items():
        assert parse_revisions("a/b", [name]) == (Checkpoint(name, step, tokens),)


def test_other_names_and_later_stages_are_no_checkpoints_of_the_series() -> None:
    names = ["main", "stage2-ingredient1-step10-tokens1B", "v1.0", "stepwise", "fp16", "pr/1"]
    assert parse_revisions("a/b", names) == ()
