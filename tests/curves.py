"""Simulated curves over training, whose truth is known."""

import numpy as np
from scipy import stats

from mechtests.measurement import Sample
from mechtests.onsets import Onset
from mechtests.series import Curve, Moment
from mechtests.verdict import Outcome

HOLDS, REFUTED, INCONCLUSIVE = Outcome.HOLDS, Outcome.REFUTED, Outcome.INCONCLUSIVE


def moments(tokens):
    """Checkpoints at these tokens; one step is a thousand."""
    return tuple(Moment(f"step{int(t) // 1000}", int(t) // 1000, int(t)) for t in tokens)


def octaves(count, spacing=0.5, first=1e6):
    """Tokens so many octaves apart."""
    return np.round(first * 2.0 ** (spacing * np.arange(count)))


def noise(generator, count, clusters, kind="independent", draw=None):
    """Unit noise of each cluster at each checkpoint, shape ``[moment, cluster]``."""
    draw = draw or generator.normal
    own = np.stack([draw(size=clusters) for _ in range(count)])
    if kind == "independent":
        return own
    if kind == "shared":  # a prompt that is hard at one checkpoint is hard at all
        return np.sqrt(0.7) * draw(size=clusters) + np.sqrt(0.3) * own
    for t in range(1, count):  # autocorrelated
        own[t] = 0.8 * own[t - 1] + 0.6 * own[t]
    return own


def drift(generator, count, size):
    """A run's own autocorrelated wandering, which all prompts share: part of the truth."""
    steps = generator.normal(size=count)
    for t in range(1, count):
        steps[t] = 0.8 * steps[t - 1] + 0.6 * steps[t]
    return size * steps


def curve(generator, truth, clusters=30, kind="independent", spread=1.0, tokens=None, draw=None):
    """A curve around its truth, two prompts to a cluster."""
    truth = np.asarray(truth, dtype=np.float64)
    values = truth[:, None] + spread * noise(generator, len(truth), clusters, kind, draw)
    return exact(values, tokens)


def exact(values, tokens=None, kind="mean", each=2):
    """The curve of these values, shape ``[moment, cluster]``, the same for each prompt of one."""
    values = np.asarray(values, dtype=np.float64)
    cluster = np.repeat(np.arange(values.shape[1]), each)
    places = octaves(len(values)) if tokens is None else tokens
    points = tuple(Sample(np.repeat(row, each), cluster) for row in values)
    return Curve(moments(places), points, kind)


def answers(generator, truth, clusters=30, tokens=None):
    """Right or wrong: the same prompts are the hard ones at all checkpoints."""
    hard = stats.norm.cdf(noise(generator, len(truth), clusters, "shared"))
    return exact(hard < np.asarray(truth)[:, None], tokens, kind="proportion")


def bracket(low, high, what="x", axis="tokens"):
    """A confirmed onset in (low, high]; low 0 is open, high infinity is never."""
    places = [low] if low else []
    places += [high, 2 * high, 4 * high] if np.isfinite(high) else []
    is_above = np.array([np.isfinite(high) and place >= high for place in places])
    return Onset(
        what,
        moments(places),
        np.array(places, dtype=np.float64),
        axis,
        np.where(is_above, 0.001, 1.0),
        np.where(is_above, 1.0, 0.001),
    )


def outcomes(decide, runs):
    """How often each outcome is reached."""
    found = [decide().outcome for _ in range(runs)]
    return {outcome: found.count(outcome) for outcome in Outcome}


def allowed(level, runs):
    """What a decider with this level exceeds in one of a hundred series of runs."""
    return stats.binom.ppf(0.99, runs, level)
