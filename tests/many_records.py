"""Records of every kind, and as many as the largest report has: 49 claims in 60 cells."""

from __future__ import annotations

from dataclasses import replace

from mechtests.claim import Claim
from mechtests.reporting.record import Record, RecordedCell, RecordedCheckpoint
from mechtests.verdict import Control, Outcome, Verdict

STEPS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000, 4000, 8000, 16000, 33000, 66000,
         99000, 143000]  # fmt: skip
MODELS = ("pythia-70m", "pythia-160m", "pythia-410m")
PAPERS = ("tigges2024", "nikankin2025")
HEADER = {
    "run": "20260101-120000-000000",
    "start": "2026-01-01T12:00:00+00:00",
    "end": "2026-01-01T13:02:30+00:00",
    "complete": True,
    "versions": {"mechtests": "0.1.0", "torch": "2.13.0", "scipy": None},
    "python": "3.11.7",
    "platform": "Linux",
    "commit": "0123456789abcdef0123",
    "argv": ["--model", "pythia-70m"],
    "settings": {"profile": "quick", "seed": 0, "dtype": "float32", "device": "cpu"},
}
CURVE = {
    "what": "ioi: logit difference",
    "unit": "logits",
    "axis": "tokens",
    "labels": [f"step{step}" for step in STEPS],
    "tokens": [step * 2097152 for step in STEPS],
    "mean": [0.01 * place**2 for place in range(len(STEPS))],
    "level": 1.0,
    "joint": False,
    "side": ["below"] * 9 + ["unclear"] + ["above"] * 10,
    "onset": "between 5.4e8 and 1.1e9 tokens",
    "bracket": [256 * 2097152, 512 * 2097152],
}
HEADS = {
    "what": "copy score (name movers)",
    "unit": "share",
    "axis": "tokens",
    "labels": CURVE["labels"],
    "tokens": CURVE["tokens"],
    "level": 0.2,
    "heads": [
        {
            "head": f"8.{head}",
            "mean": [None, *((place * (head + 1)) % 11 / 10 for place in range(1, len(STEPS)))],
            "peak": "step143000",
            "gained": "step64",
            "lost": "step66000" if head else None,
        }
        for head in range(3)
    ],
    "takeovers": [{"from": "8.1", "to": "8.2", "at": "step66000"}],
}
MAP = {
    "what": "scores: induction",
    "unit": "attention",
    "rows": "layer",
    "columns": "head",
    "values": [[0.1, None], [-0.7, 0.0]],
}
EDGES = ["input->m0", "m0->a2.h1<k>", "a2.h1->m3", "m3->logits", "a2.h1->logits"]
TABLE = {
    "what": "behaviour: logit difference",
    "unit": "logits",
    "of": 30,
    "columns": ["logit difference", "correct"],
    "rows": [
        {"prompt": 3, "text": "When Mary and John", "cluster": 1, "values": [-1.5, 0.0]},
        {"prompt": 7, "text": None, "cluster": 4, "values": [0.2, 1.0]},
    ],
    "values": [-1.5, 0.2, 3.0],
}
DRAWS = Control(
    "matched random heads", "matched random heads (19 draws): 0.1 on average, p = 0.05",
    reached=False, p=0.05, p_min=0.05, values=tuple(0.01 * n for n in range(19)),
)  # fmt: skip
STEP0 = Control("step 0", "step 0: 0.31 [0.2, 0.4], claimed below 0.2", True, values=(0.31,))
ABSENT = Control("another task", "another task: absent, it is not measured", False, decides=False)
PART = Verdict(
    Outcome.HOLDS, "to IO: 1.2 [1.0, 1.4], claimed above 0", estimate=1.2, interval=(1.0, 1.4),
    margin=0.0, unit="logits", prompts=30, clusters=15, p=0.001,
)  # fmt: skip
HOLDS = Verdict(
    Outcome.HOLDS,
    "induction score of head 5.3: 0.62 [0.55, 0.69] over 50 prompts in 50 clusters, claimed "
    "above 0.4; matched random heads (19 draws): 0.1 on average, p = 0.05",
    estimate=0.62, interval=(0.55, 0.69), margin=0.4, unit="attention", prompts=50, clusters=50,
    p=0.0003, controls=(DRAWS, ABSENT),
    shown={"curves": [CURVE], "heads": [HEADS], "maps": [MAP], "prompts": TABLE,
           "strongest_edges": EDGES, "by_operator": {"addition": 0.9, "division": 0.4},
           "replication": "holds: 0.6", "swapped": 0.61234, "left_out": {}},
)  # fmt: skip
REFUTED = Verdict(
    Outcome.REFUTED, "the name movers do not matter: -0.31 [-0.55, -0.07], claimed above 0; "
    "step 0: 0.31 [0.2, 0.4], claimed below 0.2",
    estimate=-0.3123, interval=(-0.5512, -0.0734), margin=0.0,
    unit="logits", prompts=1200, clusters=600, p=0.99, controls=(STEP0,),
)  # fmt: skip
INCONCLUSIVE = Verdict(
    Outcome.INCONCLUSIVE, "undecided in 1 of 2 parts", p=0.2, needed=1340,
    parts=(PART, replace(PART, outcome=Outcome.INCONCLUSIVE, sentence="to S: undecided",
                         estimate=None, interval=(0.0, float("inf")), relation="within",
                         margin=2.0)),
)  # fmt: skip
NOT_APPLICABLE = Verdict(Outcome.NOT_APPLICABLE, "the gate failed: accuracy 0.41, above 0.6 needed")
ERROR = Verdict(Outcome.ERROR, "the logits are NaN from layer 4 on")
EACH = (HOLDS, REFUTED, INCONCLUSIVE, NOT_APPLICABLE, ERROR)


def record_of(
    verdict: Verdict,
    id: str = "tigges2024.name-movers-matter",
    cell: str = "gpt2",
    *,
    task: str | None = "ioi",
    over: str = "cell",
    says: str = "Ablating the name movers drops IOI.",
    **rest,
) -> Record:
    model, _, label = cell.partition(":")
    checkpoint = RecordedCheckpoint(label, int(label.removeprefix("step"))) if label else None
    claim = Claim(
        id=id, says=says, over=over, task=task, family=id, section="3.2",
        rule="The drop is above 0 on the evaluation half, and above that of random heads.",
        controls=("random heads of the same layers", "the untrained cell"),
    )  # fmt: skip
    given = {
        "run": HEADER["run"],
        "measurements": {"behaviour": "ab" * 32},
        "profile": "quick",
        "seed": 0,
        "nodeid": "n",
        "reproduce": f"pytest 'assertions/test_it.py::test_it[{cell}]' --model={model}",
        "facts": {"behaviour": {"notes": ["out of memory: batches of at most 4 prompts"]}},
        "seconds": 0.01,
    }
    return Record.from_verdict(
        verdict, claim=claim, cell=RecordedCell(cell, model, checkpoint, weights="cd" * 32),
        **{**given, **rest},
    )  # fmt: skip


def one_of_each() -> list[Record]:
    names = ("holds", "refuted", "inconclusive", "not-applicable", "error")
    records = [record_of(v, f"tigges2024.{n}") for n, v in zip(names, EACH, strict=True)]
    return [
        *records,
        record_of(REFUTED, "tigges2024.expected", expectation="the paper says so"),
        record_of(HOLDS, "tigges2024.uncorrected", q=0.4),
        record_of(HOLDS, "mine2030.another", overridden=True, task=None),
    ]


def many(claims: int = 49, steps: int = len(STEPS)) -> list[Record]:
    """A record of every claim in every cell, of every kind, most with all that can be drawn."""
    cells = [f"{model}:step{step}" for model in MODELS for step in STEPS[:steps]]
    ids = [f"{PAPERS[n % 2]}.a-claim-with-a-name-{n}" for n in range(claims)]
    sentence = " It was measured on half of the prompts, and this sentence is as long as they are."
    found = []
    for row, id_ in enumerate(ids):
        for column, cell in enumerate(cells):
            verdict = EACH[(row + column) % 4]
            verdict = replace(verdict, sentence=f"{verdict.sentence}{sentence} {row}.{column}")
            task = ("ioi", "sva", "greater_than")[row % 3]
            found.append(record_of(verdict, id_, cell, task=task))
    return found
