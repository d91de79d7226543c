"""Tigges et al. 2024, LLM Circuit Analyses Are Consistent Across Training and Scale.

arXiv 2407.10827, section 3: what models can do, over training and over sizes.
"""

from dataclasses import replace

from mechtests import claim, rules
from mechtests.alignment import aligned, no_sooner_beyond, permuted_labels
from mechtests.case import FEWEST_CHECKPOINTS
from mechtests.falls import drop_after_peak, lowest_before
from mechtests.means import below, mean_of
from mechtests.metrics import behaviour, gates
from mechtests.models.sources import is_pythia
from mechtests.onsets import State
from mechtests.orders import alike, outside
from mechtests.rules import absent, beside, value_control
from mechtests.showing import shown
from mechtests.tasks.greater_than import greater_than
from mechtests.tasks.ioi import ioi
from mechtests.tasks.pronoun import pronoun
from mechtests.tasks.sva import sva
from mechtests.verdict import Control, Outcome, Verdict, not_applicable

TASKS = {task.name: task.behaviour for task in (ioi, greater_than, pronoun, sva)}
SCORES = {
    "ioi": "logit_difference",
    "greater_than": "probability_difference",
    "pronoun": "logit_difference",
    "sva": "probability_difference",
}
"""What the paper plots for each task."""
EVERY = {name: behaviour.answers(task) for name, task in TASKS.items()}
THRESHOLDS = {"pronoun": "70m", "greater_than": "160m", "ioi": "410m"}
"""The Pythia sizes beyond which, the paper says, more parameters learn no sooner."""


def onsets(models, task, generator):
    """When each model learns a task: by its name, smallest model first.

    Models that have too few checkpoints for it, or to which it does not apply, are left out.
    """
    return {
        model.model: gates.emergence(model[task], TASKS[task], generator)
        for model in models
        if not model.lacks(task) and len(model[task]) >= FEWEST_CHECKPOINTS
    }


def no_series(found, task):
    """Why no onset can be compared, or None."""
    if len(found) >= 3:
        return None
    return not_applicable(
        f"{task}: onsets over scale need 3 models with {FEWEST_CHECKPOINTS} checkpoints or more in "
        f"this run, got {', '.join(found) or 'none'}"
    )


@claim(
    "tigges2024.behaviour-nondecreasing",
    section="3",
    says="Once a model starts learning a task, performance does not fall, small dips aside.",
    over="training",
    tasks=TASKS.values(),
    components=["behaviour"],
    needs=lambda task: {"behaviour": behaviour.answers(task)},
)
def test_once_learned_a_task_is_not_lost(measured, judge):
    """The largest fall after the onset loses less than 30% of the peak, on the evaluation half.

    Peak and later trough are those of the 3-checkpoint running median on the selection half.
    The fall of the curve itself is biased upwards and only shown. Never learned: not applicable.
    """
    task = TASKS[measured.task]
    learned = gates.emergence(measured.behaviour, task, measured.generator("onset"))
    value = SCORES[task.name]
    verdict = drop_after_peak(
        measured.behaviour.curve(value, "selection"),
        measured.behaviour.curve(value),
        learned.onset,
        what=f"{gates.said(value)} of {task.name}",
    )
    judge(verdict.showing(curves=learned.shown_with(measured.behaviour, value)))


@claim(
    "tigges2024.behaviour-repeats-first",
    section="3",
    says="Before IOI is learned the model prefers the repeated name.",
    over="training",
    task=TASKS["ioi"],
    components=["behaviour"],
    needs={
        "behaviour": behaviour.answers(TASKS["ioi"]),
        "third": behaviour.answers(TASKS["ioi"], corruption="S2->third name"),
    },
    controls=[
        "the logit difference is lower than where the second S is replaced by a third name",
        "step 0 is not below -0.05",
    ],
)
def test_before_ioi_is_learned_the_repeated_name_is_preferred(measured, judge):
    """At the lowest checkpoint before the onset of the selection half: logit difference < -0.05.

    Any checkpoint, where IOI is never learned. The control is paired prompt by prompt.
    """
    answers = measured.behaviour
    learned = gates.emergence(answers, TASKS["ioi"], measured.generator("onset"))
    curve = answers.curve("logit_difference")
    verdict = lowest_before(
        answers.curve("logit_difference", "selection"),
        curve,
        learned.onset,
        -0.05,
        what="logit difference",
    )
    controls = []
    at = verdict.shown.get("lowest")
    if at is not None and not answers.recorded and not measured.lacks("third"):
        with_third = measured.third.curve("corrupted_logit_difference").at(at)
        paired = below(
            curve.at(at) - with_third, 0.0, what=f"with the repeat minus without it, at {at}"
        )
        controls.append(value_control("third name", paired))
    elif at is not None:
        controls.append(absent("third name", "a third name in its place was not recorded"))
    first = curve.moments[0]
    if first.step in (0, 1) and at is not None:
        start = below(curve.points[0], -0.05, what=f"logit difference at {first.label}")
        there = start.outcome is Outcome.HOLDS
        controls.append(Control("untrained", f"untrained: {start.sentence}", reached=there))
    elif at is not None:
        controls.append(absent("untrained", f"the series begins at {first.label}"))
    judge(beside(verdict, *controls).showing(curves=learned.shown))


@claim(
    "tigges2024.behaviour-onset-aligned",
    section="3",
    says="A task emerges at a similar token count whatever the size.",
    over="scale",
    tasks=TASKS.values(),
    components=["behaviour"],
    needs=lambda task: EVERY,
    controls=["task labels permuted within each model give larger spreads"],
)
def test_a_task_emerges_at_a_similar_token_count_at_every_size(measured, judge):
    """Every two sizes' onsets are within 2 octaves; sizes that never learn are named, left out.

    The spread of a task's onsets over sizes is smaller than with the tasks' names permuted
    within each model, else everything emerges together.
    """
    generator = measured.generator("onset")
    tasks = {task: onsets(measured.models, task, generator) for task in TASKS}
    mine = tasks[measured.task]
    if few := no_series(mine, measured.task):
        judge(few)
    verdict = aligned(
        {model: each.onset for model, each in mine.items()}, octaves=2.0, what=measured.task
    )
    control = permuted_labels(
        {task: {name: each.onset for name, each in of.items()} for task, of in tasks.items() if of},
        measured.generator("labels"),
    )
    curves = named_by_model(mine)
    judge(beside(verdict, control).showing(curves=curves))


@claim(
    "tigges2024.behaviour-scale-threshold",
    section="3",
    says="Beyond a size, more parameters do not learn a task sooner.",
    over="scale",
    tasks=TASKS.values(),
    components=["behaviour"],
    needs=lambda task: {task.name: EVERY[task.name]},
    controls=["smaller models learn later, or never"],
)
def test_beyond_a_size_more_parameters_do_not_learn_a_task_sooner(measured, judge):
    """No model beyond the threshold size leads the one at it by more than 1 octave.

    The threshold: in Pythia as printed (pronoun 70m, greater-than 160m, IOI 410m; agreement has
    none), elsewhere the smallest model that learns the task. Two models must be beyond it.
    """
    task = measured.task
    found = onsets(measured.models, task, measured.generator("onset"))
    if few := no_series(found, task):
        judge(few)
    pythia = any(is_pythia(name) for name in found)
    if pythia and task not in THRESHOLDS:
        judge(not_applicable(f"the paper names no threshold for {task}"))
    named = [name for name in found if THRESHOLDS.get(task) in name.split("-")]
    learners = [name for name, each in found.items() if each.onset.state is not State.NEVER]
    threshold = (named if pythia else learners)[:1]
    if not threshold:
        who = f"pythia-{THRESHOLDS[task]}" if pythia else "a model that learns it"
        judge(not_applicable(f"{task}: {who} is not in this run, so there is no threshold size"))
    at = found[threshold[0]].onset
    if at.state not in (State.FOUND, State.NEVER):
        why = f"whether {threshold[0]} is the threshold is undecided: {at.sentence}"
        judge(Verdict(Outcome.INCONCLUSIVE, f"{why}; {at.what_decides}"))
    verdict = no_sooner_beyond(
        {name: each.onset for name, each in found.items()}, threshold[0], octaves=1.0, what=task
    )
    curves = named_by_model(found)
    judge(verdict.showing(curves=curves))


@claim(
    "tigges2024.behaviour-final",
    section="3",
    says="All but the weakest model end at similar performance on each task.",
    over="scale",
    tasks=TASKS.values(),
    components=["behaviour"],
    needs=lambda task: {task.name: EVERY[task.name]},
    controls=["the smallest model, or a model at its own onset, is outside the margin"],
)
def test_all_but_the_weakest_model_end_at_similar_performance(measured, judge):
    """Above the smallest model, every difference is equivalent to 0 within 25% of the best.

    Over models that learn the task and do it at the end, each by the mean of its last three
    checkpoints. The best is chosen on the selection half. The smallest model, or one at its own
    onset, must fall outside, else the margin tells nothing apart.
    """
    task = measured.task
    found = onsets(measured.models, task, measured.generator("onset"))
    value = SCORES[task]
    models = {model.model: model for model in measured.models if not model.lacks(task)}
    smallest, *larger = models
    at_end = {name: rules.gate(models[name][task][-1], TASKS[task].levels.above) for name in larger}
    failing = [name for name, gate in at_end.items() if gate.state == "failed"]
    gated = [name for name in larger if name not in failing]
    if len(gated) < 2:
        judge(
            not_applicable(
                f"{task}: models above the smallest, {smallest}, that do not fail at the end: "
                f"{', '.join(gated) or 'none'}; two are compared"
            )
        )
    series = {name: model[task] for name, model in models.items()}
    ends = {name: each.at_end(value) for name, each in series.items()}
    chosen = {name: mean_of(series[name].at_end(value, "selection")).mean for name in gated}
    best = max(chosen, key=chosen.get)
    others = {smallest: ends[smallest]}
    for name in gated:
        moment = found[name].onset.by if name in found else None
        if moment is None:
            continue
        others[f"{name} at {moment.label}"] = series[name].curve(value).at(moment.label)
    verdict = alike({name: ends[name] for name in gated}, best=best, what=f"{task}, {value}")
    undecided = [name for name in gated if at_end[name].state == "undecided"]
    if undecided and verdict.outcome is Outcome.HOLDS:
        why = f"; whether {' and '.join(undecided)} do it at the end is undecided"
        verdict = replace(
            verdict, outcome=Outcome.INCONCLUSIVE, sentence=verdict.sentence + why, p=None
        )
    judge(
        beside(verdict, outside({n: ends[n] for n in gated}, others, best=best)).showing(
            not_at_the_end=failing,
            curves=[
                shown(series[name].curve(value), f"{name}: {gates.said(value)} of {task}")
                for name in found
            ],
        )
    )


def named_by_model(found):
    """The curves of every model, each with its model's name."""
    return [
        {**each, "what": f"{name}: {each['what']}"}
        for name, emerged in found.items()
        for each in emerged.shown
    ]
