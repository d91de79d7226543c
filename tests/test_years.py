"""What heads and MLPs do with the year of a greater-than prompt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mechtests.metrics.years import year_reading
from mechtests.models.network import Network
from mechtests.tasks.greater_than import greater_than
from mechtests.tasks.prompts import Prompts
from tests.measuring import measure, random_prompts
from tests.planted import Stream
from tests.tiny import ARCHITECTURES, VOCABULARY, tiny
from tests.words import TaskWords

WORDS = TaskWords(bos=0)
PROMPTS = greater_than.generate(WORDS, 40, np.random.default_rng(0))
YEAR = {year: WORDS.encode(f" 17{year:02d}")[-1] for year in range(100)}
READER, CENTURY, ROUND = (0, 2), (0, 1), (1, 3)
WIDTH, HEADS = 1536, 8


def planted(step: int = 1, flipped: bool = False) -> Network:
    """Heads that find the year and write another, or look at the century; an MLP for late years."""
    stream = Stream(tokens=WORDS.size, positions=28, width=WIDTH, heads=HEADS, layers=2)
    found = {0: dict.fromkeys(YEAR.values(), 40.0)}
    values = {1 + year: {token: 1.0} for year, token in YEAR.items()}
    writes = {1 + year: YEAR[min(year + step, 99)] for year in YEAR}
    stream.plant(READER, query={}, key=found, value=values, output=writes, constant=0, gain=3.0)
    centuries = {0: {WORDS.encode(f" {century}99")[0]: 40.0 for century in range(11, 18)}}
    stream.plant(CENTURY, query={}, key=centuries, value={}, output={}, constant=0)
    with torch.no_grad():
        mlp = stream.model.transformer.h[1].mlp
        mlp.c_fc.bias[0] = 3.0
        for year, token in YEAR.items():
            late = year >= 50
            mlp.c_proj.weight[0, token] = 0.5 if late != flipped else 0.0
    return stream.network()


def test_the_planted_head_finds_the_year_and_names_it_and_the_others_do_not() -> None:
    for step in (0, 1):
        found = measure(planted(step), year_reading, PROMPTS, corruption="year 01")
        for value in ("looks", "names"):
            share = found.mean(value)
            assert share[READER] == 1.0
            share[READER] = 0.0
            assert share.max() < 0.5, value
        assert found["attention"][:, *READER].min() > 0.99
        assert found.mean("attention")[CENTURY] < 0.01


def test_a_head_that_writes_the_year_two_later_looks_and_does_not_name_it() -> None:
    found = measure(planted(step=2), year_reading, PROMPTS, corruption="year 01")
    assert found.mean("looks")[READER] == 1.0
    assert found.mean("names")[READER] < 0.1


def test_the_planted_mlp_raises_later_years_and_its_flipped_twin_lowers_them() -> None:
    raised, lowered = (
        measure(planted(flipped=flipped), year_reading, PROMPTS, corruption="year 01")["raised"]
        for flipped in (False, True)
    )
    assert (raised[:, 0] == 0.0).all()
    assert raised[:, 1].min() > 0.0
    assert lowered[:, 1].max() < 0.0


def test_a_head_that_writes_nothing_names_no_year() -> None:
    net = planted()
    with torch.no_grad():
        net.blocks[0].output.weight.zero_()
    found = measure(net, year_reading, PROMPTS, corruption="year 01")
    assert found["names"][:, 0].max() == 0.0


def with_years(prompts: Prompts) -> Prompts:
    """Random prompts whose answers are ten tokens, in order, of which one is the prompt's own."""
    draw = np.random.default_rng(3)
    years = draw.choice(VOCABULARY, 10, replace=False)
    count = len(prompts)
    own = draw.integers(0, 9, count)
    right, wrong = np.full((2, count, 10), -1)
    for row, at in enumerate(own):
        right[row, : 9 - at], wrong[row, : at + 1] = years[at + 1 :], years[: at + 1]
    return replace(
        prompts,
        right=right,
        wrong=wrong,
        positions={**prompts.positions, "YY": prompts.positions["IO"]},
        tokens={**prompts.tokens, "YY": years[own]},
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_is_what_whole_runs_of_each_prompt_alone_give(name: str) -> None:
    """In double precision, one head and one token at a time."""
    net = Network.from_model(tiny(name), name=name, check=False)
    prompts = with_years(random_prompts(VOCABULARY))
    found = measure(net, year_reading, prompts)
    weight, norm = net.unembedding.weight.double(), net.final_norm
    for row, size in enumerate(prompts.length):
        tokens = torch.from_numpy(prompts.clean[row : row + 1, :size])
        run = net.run(tokens, keep=("z", "mlp_out", "pattern"))
        later, earlier = ([t for t in ids[row] if t >= 0] for ids in (prompts.right, prompts.wrong))
        own = [earlier[-1], later[0]]
        final = run.final[0].double()
        centred = final - final.mean() if norm.centred else final
        size_of_final = float((centred.pow(2).mean() + norm.eps).sqrt())
        for layer in range(net.shape.layers):
            block = net.blocks[layer]
            for head in range(net.shape.heads):
                looked = run["pattern", layer][0, head, -1]
                year = prompts.positions["YY"][row]
                assert found["attention"][row, layer, head] == pytest.approx(
                    float(looked[year]), abs=1e-5
                )
                assert found["looks"][row, layer, head] == float(int(looked.argmax()) == year)
                out = (run["z", layer][0, -1, head] @ block.W_O[head]).double()
                out = out if block.attention_post is None else out * block.attention_post.gain
                out = out - out.mean() if norm.centred else out
                said = {int(t): float(weight[t] @ (out * norm.gain)) for t in (*later, *earlier)}
                best = max(said, key=lambda token, said=said: said[token])
                assert found["names"][row, layer, head] == float(best in own)
            mlp = run["mlp_out", layer][0, -1].double()
            mlp = (mlp - mlp.mean() if norm.centred else mlp) * norm.gain / size_of_final
            wanted = float((weight[later] @ mlp).mean() - (weight[earlier] @ mlp).mean())
            assert found["raised"][row, layer] == pytest.approx(wanted, abs=1e-4)
